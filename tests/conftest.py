"""Small data and small runs that several test files share."""

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from equimark.cli import main
from equimark.geometry import Frame
from equimark.model import LandmarkModel
from equimark.packs import PackedImages, pack
from equimark.plots import canvas
from equimark.run import Run, train
from equimark.synthetic import Portraits, portraits, write, write_parts

# As a command does: threads keep the mode in which the first parallel operation finds them.
torch.set_flush_denormal(True)
torch.ones(1_000_000).exp()
torch.set_flush_denormal(False)

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault
settings.load_profile("untimed")

# A run of seconds: frames of 40 px, views of 28 px, feature maps of 14 x 14.
TINY: dict[str, Any] = {
    "frame.size": 40,
    "pairs.margin": 6,
    "pairs.photometric.jpeg_probability": 0,
    "network.channels": 8,
    "batch_size": 4,
    "log_every": 1,
    "save_every": 4,
}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return LandmarkModel.load(run, device="cpu").network.state_dict()


def same_weights(a: Path, b: Path) -> bool:
    left, right = weights_of(a), weights_of(b)
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def denormal_numbers_return() -> Iterator[None]:
    """Training flushes them for the whole process, and hypothesis wants them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def faces() -> Portraits:
    return portraits(16, seed=3, size=48)


@pytest.fixture(scope="session")
def photos(faces: Portraits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 images of 48 px with ``landmarks.csv`` (five points)."""
    folder = tmp_path_factory.mktemp("photos")
    write(folder, faces.images, faces.landmarks5)
    return folder


@pytest.fixture(scope="session")
def label_images(faces: Portraits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of their parts."""
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder, faces.parts)
    return folder


@pytest.fixture(scope="session")
def photo_pack(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packs") / "photos"
    pack(photos, folder, Frame(TINY["frame.size"]), progress=False)
    return folder


@pytest.fixture(scope="session")
def packed(photo_pack: Path) -> PackedImages:
    return PackedImages.open(photo_pack)


@pytest.fixture(scope="session")
def dve_run(photo_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = TINY | {"network.vector_length": 10, "network.channels": 16, "steps": 50, "save_every": 50}
    return train(photo_pack, tmp_path_factory.mktemp("runs") / "dve", method="dve", progress=False, **settings)


@pytest.fixture(scope="session")
def sparse_run(photo_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = TINY | {"network.channels": 4, "steps": 12, "save_every": 12}
    return train(photo_pack, tmp_path_factory.mktemp("runs") / "sparse", method="sparse", progress=False, **settings)


@pytest.fixture(scope="session")
def joint_run(photo_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Descriptors, and three landmarks beside them."""
    settings = TINY | {"network.landmarks": 3, "steps": 12, "save_every": 12}
    return train(photo_pack, tmp_path_factory.mktemp("runs") / "joint", method="dve", progress=False, **settings)


@pytest.fixture(scope="session")
def dve_model(dve_run: Run) -> LandmarkModel:
    return dve_run.model


@pytest.fixture(scope="session")
def sparse_model(sparse_run: Run) -> LandmarkModel:
    return sparse_run.model


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run one command in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stopped:  # argparse's way out
            code = int(stopped.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def coarse_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas, "_DPI", 30)


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> Callable[..., contextlib.AbstractContextManager[None]]:
    """A context in which a function of a module fails as on a full disk."""

    @contextlib.contextmanager
    def fail(module: object, name: str) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full_disk)
            yield

    return fail


def square(image: np.ndarray, left: int, right: int) -> np.ndarray:
    """The image with black columns beside it."""
    return np.pad(image, ((0, 0), (left, right), (0, 0)))
