"""What ``benchmarks/containers.py`` stores and reads; ``webdataset`` itself is only where someone has installed it."""

import importlib.util
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from equimark.geometry import Frame
from equimark.packs import PackedImages, pack

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "containers.py"


@pytest.fixture(scope="module")
def containers() -> Any:
    spec = importlib.util.spec_from_file_location("containers", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packed(containers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PackedImages]:
    folder = tmp_path_factory.mktemp("frames")
    (folder / "photos").mkdir()
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"photos/{i:02d}.png")
    pack(folder / "photos", folder / "shards", Frame(16), shards=64, progress=False)
    return folder, PackedImages.open(folder / "shards")


def test_all_kinds_hold_the_same_frames(containers: Any, packed: tuple[Path, PackedImages]) -> None:
    folder, frames = packed
    places = containers.store(frames, folder)
    assert places.keys() == set(containers.KINDS) and places["shards"] == folder / "shards"
    for kind in containers.KINDS[1:]:
        found = []
        for file in sorted(places[kind].iterdir()):
            with tarfile.open(file) as tar:
                files = [io.BytesIO(stream.read()) for m in tar if (stream := tar.extractfile(m)) is not None]
            found += [np.load(f) if kind == "tar, pixels" else np.asarray(Image.open(f)) for f in files]
        assert np.array_equal(found, frames.images[:])


def test_an_epoch_begins_anywhere(containers: Any, packed: tuple[Path, PackedImages]) -> None:
    batches = containers.from_shards(packed[0] / "shards")
    whole = list(batches(0))
    assert [batch.shape for batch in whole] == [(32, 3, 16, 16)] * 2
    assert np.array_equal(next(batches(1)), whole[1])
    assert len(np.unique(np.concatenate(whole).reshape(64, -1), axis=0)) == 64  # no image twice


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_tar_files_through_webdataset(containers: Any, packed: tuple[Path, PackedImages]) -> None:
    pytest.importorskip("webdataset", reason="pip install webdataset")
    folder, frames = packed
    (folder / "again").mkdir()
    places = containers.store(frames, folder / "again")
    known = {image.tobytes() for image in frames.images[:]}
    for kind in containers.KINDS[1:]:
        seen = [image for batch in containers.from_tar(places[kind])(0) for image in batch]
        assert len(seen) == 64 and {np.ascontiguousarray(i.movedim(0, -1)).tobytes() for i in seen} <= known
