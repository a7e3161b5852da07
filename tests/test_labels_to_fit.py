"""Labels that do not quite fit their images: what is fitted all the same, what is refused, and what is said."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from equimark import formats
from equimark.landmarks import LandmarkError, LandmarkTable, check_not_exchanged, have_images, lie_outside
from equimark.run import Run
from equimark.synthetic import Portraits, write
from pictures import encoded

Command = Callable[..., tuple[int, str, str]]
NAN = float("nan")


@pytest.fixture
def images(faces: Portraits, tmp_path: Path) -> Path:
    """Six portraits of 48 x 36 pixels in ``images``, and their five points in ``labels.csv`` beside the folder."""
    points = faces.landmarks5[:6] - [0, 6]
    write(tmp_path / "images", np.ascontiguousarray(faces.images[:6, 6:42]), points)
    (tmp_path / "images" / "landmarks.csv").rename(tmp_path / "labels.csv")
    return tmp_path / "images"


@pytest.fixture
def fit(command: Command, dve_run: Run, images: Path) -> Callable[..., tuple[int, str, str]]:
    def run(labels: Path, *words: object) -> tuple[int, str, str]:
        head = images.parent / "head"
        given = ("--landmarks", labels, "--images", images, "--out", head, "--quiet", "--direction", "upright")
        return command("fit", dve_run.folder, *given, *words)

    return run


Fit = Callable[..., tuple[int, str, str]]


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert (code, len(err.splitlines())) == (1, 1)
    assert all(word in err for word in words), err


def as_format(labels: Path, name: str, images: Path) -> Path:
    """The labels, in another format."""
    path = labels.with_name(name)
    formats.write(formats.read(labels), path, images=images)
    return path


# ---- images that are not there ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["labels.csv", "other.tps", "other.json", "other.txt"])
def test_fit_goes_on_without_images_that_are_missing(fit: Fit, images: Path, name: str) -> None:
    labels = images.parent / "labels.csv"
    labels = labels if name == labels.name else as_format(labels, name, images)
    complete = formats.read(labels, images=images)
    for i in (1, 4):
        (images / f"00000{i}.png").unlink()
    code, out, err = fit(labels)
    assert (code, len(err.splitlines())) == (0, 1)
    assert f"2 of 6 images with landmarks are not in {images}, left out: '000001" in err and "'000004" in err
    assert "from 4 labelled images" in " ".join(out.split())
    there = formats.read(labels, images=images, partly=True).select([0, 2, 3, 5])
    np.testing.assert_array_equal(there.points, complete.points[[0, 2, 3, 5]])
    assert there.sizes is None or (there.sizes == [36, 48]).all()
    if name != "labels.csv":  # which needs no images to be read
        with pytest.raises(LandmarkError, match="2 of 6 images with landmarks are not among the 4"):
            formats.read(labels, images=images)


def test_labels_are_drawn_from_the_images_that_are_there(fit: Fit, images: Path) -> None:
    (images / "000000.png").unlink()
    code, out, err = fit(images.parent / "labels.csv", "--labels", 5)
    assert (code, "left out: '000000.png'" in err, "from 5 labelled" in " ".join(out.split())) == (0, True, True)
    code, _, err = fit(images.parent / "labels.csv", "--labels", 6)
    assert (code, "between 1 and 5, the labelled images: 6" in err.splitlines()[-1]) == (1, True)


def test_fit_goes_on_without_images_that_cannot_be_read(fit: Fit, images: Path) -> None:
    (images / "000002.png").write_bytes(b"nothing")
    code, out, err = fit(images.parent / "labels.csv", "--suggest", 1)
    assert code == 0
    assert err.startswith("equimark: 1 of 6 images with landmarks cannot be read, left out: '000002.png: ")
    assert "from 5 labelled images" in " ".join(out.split())


def test_fit_needs_an_image(fit: Fit, images: Path) -> None:
    labels = images.parent / "labels.csv"
    paths = sorted(images.iterdir())
    for path in paths:
        path.write_bytes(b"nothing")
    refused(fit(labels), "000000.png: ")
    for path in paths:
        path.unlink()
    (images / "another.png").write_bytes(encoded(np.zeros((8, 8, 3), np.uint8)))
    refused(fit(labels), "6 of 6 images with landmarks are not among the 1", "give the folder that holds them")
    assert not (images.parent / "head").exists()


def test_what_is_measured_needs_all_images(command: Command, dve_run: Run, images: Path) -> None:
    (images / "000001.png").unlink()
    words = ("--data", images.parent / "labels.csv", "--root", images, "--regressor", "fit", "--quiet")
    refused(
        command("evaluate", "landmarks", dve_run.folder, *words), "1 of 6 images with landmarks are not among the 5"
    )


def test_which_images_are_there() -> None:
    names = ["train/1.png", "test/1.png", "train/2.jpg"]
    assert have_images(["train/1.png", "2.png", "3.png", "1.png"], names).tolist() == [True, True, False, True]
    assert have_images([], names).tolist() == []


# ---- axes that are exchanged --------------------------------------------------------------------------------

SIZES = np.array([[10, 40], [10, 40]])  # height and width
POINTS = np.array([[[30, 5], [35, 2], [3, 3], [20, 8]], [[39, 9], [5, 1], [NAN, NAN], [25, 0]]], np.float64)


def test_axes_that_are_exchanged() -> None:
    check_not_exchanged(POINTS, SIZES)
    exchanged = POINTS[..., ::-1]
    assert lie_outside(exchanged, SIZES).tolist() == [[True, True, False, True], [True, False, False, True]]
    with pytest.raises(LandmarkError, match=r"5 of 7 landmarks lie outside their images, and none would if x and y"):
        check_not_exchanged(exchanged, SIZES)
    check_not_exchanged(exchanged, np.zeros((2, 2), np.int64))  # whose sizes are not known
    check_not_exchanged(exchanged, np.array([[40, 40], [40, 40]]))  # where either may be
    check_not_exchanged(POINTS + [0, 50], SIZES)  # outside, but not for that
    with pytest.raises(LandmarkError, match="3 of 4"):
        check_not_exchanged(exchanged, np.array([[10, 40], [0, 0]]))


def test_a_border_is_no_sign_of_exchange() -> None:
    points = np.array([[[40.0, 10.0], [0.0, 0.0], [-1.0, -1.0], [40.5, 5.0]]])
    assert lie_outside(points, np.array([[10, 40]])).tolist() == [[False, False, False, True]]


@pytest.fixture
def exchanged(images: Path, faces: Portraits) -> Path:
    """Labels whose columns are (row, column), of three portraits in wide pictures."""
    for path in images.iterdir():
        path.unlink()
    wide = np.zeros((3, 48, 160, 3), np.uint8)
    wide[:, :, 100:148] = faces.images[:3]
    points = faces.landmarks5[:3] + [100, 0]
    write(images, wide, points)
    (images / "landmarks.csv").unlink()
    table = LandmarkTable(tuple(f"{i:06d}.png" for i in range(3)), points[..., ::-1].astype(np.float64))
    formats.write(table, images.parent / "labels.csv")
    return images.parent / "labels.csv"


def test_commands_refuse_axes_that_are_exchanged(
    fit: Fit, command: Command, dve_run: Run, images: Path, exchanged: Path
) -> None:
    says = (f"{exchanged}: 15 of 15 landmarks lie outside their images", "(row, column)", "names of the columns")
    refused(fit(exchanged), *says)
    words = ("--data", exchanged, "--root", images, "--regressor", "fit", "--quiet")
    refused(command("evaluate", "landmarks", dve_run.folder, *words), *says)
    words = ("--recipe", "supervised-smallnet", "--landmarks", exchanged, "--out", images.parent / "run", "--quiet")
    refused(command("train", images, *words), *says)
    beside = images / "labels.csv"
    beside.write_text(exchanged.read_text())
    refused(command("fit", dve_run.folder, "--landmarks", beside, "--out", images.parent / "head", "--quiet"), says[1])
    right = formats.read(exchanged)
    formats.write(replace(right, points=right.points[..., ::-1]), exchanged)
    assert fit(exchanged)[0] == 0
