"""Runs with labels, for comparison: from the command to what they find in images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import TINY
from equimark.config import ConfigError
from equimark.embedding import ModelError
from equimark.formats import read
from equimark.images import ImageError
from equimark.run import Run, train
from equimark.synthetic import Portraits

Command = Callable[..., tuple[int, str, str]]
STILL = {
    f"pairs.{which}": {"bend": 0, "extra_bend": 0, "rotation": 5, "translation": 0.02, "scale": 0}
    for which in ("first", "second")
}
QUICK: dict[str, Any] = TINY | STILL | {"batch_size": 8, "save_every": 100, "optimiser.lr": 0.005, "seed": 1}
del QUICK["network.channels"]


@pytest.fixture(scope="module")
def supervised(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("supervised") / "run"
    labels = read(photos / "landmarks.csv")
    settings = QUICK | {"steps": 80, "optimiser.lr": 0.001}
    return train(photos, out, recipe="supervised-smallnet-plus", labels=labels, progress=False, **settings)


@pytest.fixture(scope="module")
def segmentation(photos: Path, label_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("segmentation") / "run"
    settings = QUICK | {"steps": 40, "network.channels": 7}
    return train(photos, out, recipe="segmentation-scratch", parts=label_images, progress=False, **settings)


def test_a_supervised_run_finds_what_it_was_shown(supervised: Run, faces: Portraits) -> None:
    found = np.stack([supervised.model.detect(image).points for image in faces.images])
    error = np.linalg.norm(found - faces.landmarks5, axis=-1).mean()
    still = np.linalg.norm(faces.landmarks5 - faces.landmarks5.mean(0), axis=-1).mean()
    assert error < 0.85 * still


def test_the_number_of_landmarks_is_that_of_the_labels(supervised: Run) -> None:
    assert supervised.model.config.network.channels == 5
    assert supervised.model.detect(np.zeros((60, 50, 3), np.uint8)).points.shape == (5, 2)


def test_landmarks_only_on_some_of_the_images(photos: Path, tmp_path: Path) -> None:
    labels = read(photos / "landmarks.csv")
    some = labels.select([3, 5, 8, 9])
    settings = QUICK | {"steps": 2}
    run = train(photos, tmp_path / "run", recipe="supervised-smallnet", labels=some, progress=False, **settings)
    assert run.warnings == []


def test_a_segmentation_run_tells_parts_apart(segmentation: Run, faces: Portraits) -> None:
    found = np.stack([segmentation.model.segment(image) for image in faces.images])
    assert found.shape == faces.parts.shape and found.dtype == np.uint8
    most_common = np.bincount(faces.parts.ravel()).max() / faces.parts.size
    assert (found == faces.parts).mean() > most_common + 0.05


def test_a_segmentation_of_an_image_of_any_size(segmentation: Run) -> None:
    assert segmentation.model.segment(np.zeros((70, 31, 3), np.uint8)).shape == (70, 31)


@pytest.mark.parametrize("recipe", ["segmentation-pretrained", "segmentation-finetuned"])
def test_segmentation_from_landmarks(
    recipe: str, sparse_run: Run, photos: Path, label_images: Path, tmp_path: Path
) -> None:
    settings = QUICK | {"steps": 3, "network.channels": 7}
    run = train(
        photos, tmp_path / "run", recipe=recipe, start_from=sparse_run.folder, parts=label_images, progress=False,
        **settings,
    )  # fmt: skip
    before, after = sparse_run.model.network.state_dict(), run.model.network.state_dict()
    same = [np.array_equal(before[name], after[name]) for name in ("body.0.weight", "body.1.running_mean")]
    assert same == [recipe == "segmentation-pretrained"] * 2
    assert run.model.config.network.padding == sparse_run.model.config.network.padding


def test_what_is_missing_is_said(photos: Path, label_images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a landmark file with --landmarks"):
        train(photos, tmp_path / "a", recipe="supervised-smallnet", progress=False, **QUICK)
    with pytest.raises(ConfigError, match="give a folder of label images"):
        train(photos, tmp_path / "b", recipe="segmentation-scratch", progress=False, **QUICK)
    with pytest.raises(ConfigError, match="learns without labels"):
        train(photos, tmp_path / "c", method="dve", parts=label_images, progress=False)


def test_label_images_that_do_not_fit(photos: Path, label_images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    for file in sorted(label_images.iterdir())[:-1]:
        (folder / file.name).write_bytes(file.read_bytes())
    options: dict[str, Any] = {"recipe": "segmentation-scratch", "parts": folder, "progress": False} | QUICK
    with pytest.raises(ImageError, match=r"holds no label image for 000015\.png"):
        train(photos, tmp_path / "a", **options)
    Image.fromarray(np.zeros((9, 48), np.uint8)).save(folder / "000015.png")
    with pytest.raises(ImageError, match=r"label image of 000015\.png has another size \(\(48, 9\)\) than the image"):
        train(photos, tmp_path / "b", **options)
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(folder / "000015.png")
    with pytest.raises(ImageError, match=r"000015\.png: a label image has one channel"):
        train(photos, tmp_path / "c", **options)


def test_what_such_runs_cannot_do(supervised: Run, segmentation: Run, faces: Portraits) -> None:
    image = faces.images[0]
    for run in (supervised, segmentation):
        with pytest.raises(ModelError, match="has no descriptors to match"):
            run.model.match(image, [[5, 5]], image)
        with pytest.raises(ModelError, match="has no descriptors to match"):
            run.model.fit([image], [[[5, 5]]])
    with pytest.raises(ModelError, match="finds parts, not landmarks"):
        segmentation.model.detect(image)
    with pytest.raises(ModelError, match="does not segment"):
        supervised.model.segment(image)


@pytest.mark.usefixtures("coarse_figures")
def test_commands(
    supervised: Run, segmentation: Run, photos: Path, label_images: Path, tmp_path: Path, command: Command
) -> None:
    options = [f"--{key}={value}" for key, value in (TINY | {"steps": 2}).items() if key != "network.channels"]
    train_it = ("train", photos, "--quiet", *options)
    code, _, err = command(
        *train_it,
        "--recipe",
        "supervised-smallnet-plus",
        "--landmarks",
        photos / "landmarks.csv",
        "--out",
        tmp_path / "a",
    )
    assert (code, err) == (0, "")
    code, _, err = command(
        *train_it, "--recipe", "segmentation-scratch", "--parts", label_images, "--out", tmp_path / "b"
    )
    assert (code, err) == (0, "")
    code, _, err = command("detect", tmp_path / "a", photos, "--out", tmp_path / "found.csv", "--quiet")
    assert (code, err) == (0, "")
    assert read(tmp_path / "found.csv").points.shape == (16, 5, 2)
    for run in (supervised, segmentation):
        code, _, err = command("report", run.folder)
        assert (code, err) == (0, "")
        assert (run.folder / "report.html").stat().st_size > 1000
