"""Readers of the sets of things and animals, and of a user's own, on tiny copies of their layouts."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import layouts
from equimark import formats
from equimark.benchmarks import BenchmarkError, load
from equimark.benchmarks.animals import KINDS
from equimark.landmarks import LandmarkTable
from equimark.synthetic import arm

Damage = Callable[[Path], object]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.shrink(monkeypatch)


def refused(name: str, root: Path, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message) as caught:
        load(name, root)
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


# ---- cats ---------------------------------------------------------------------------------------------------


def test_cats(tmp_path: Path) -> None:
    """The pair with the wrong name is left out. Points span 4..50 by -4..45: 50 px high, in a frame of 50 / 0.6."""
    layouts.cats(tmp_path)
    benchmark = load("cats", tmp_path)
    train, validation = benchmark.split("train"), benchmark.split("validation")
    assert train.images.names == ["CAT_00/00000001_000.jpg", "CAT_00/00000001_005.jpg", "CAT_02/00000500_001.jpg"]
    assert validation.images.names == ["CAT_02/00000500_002.jpg"]
    assert train.table is not None and train.table.points[0, [0, 4, 8]].tolist() == [[20, 30], [12, -4], [50, 20]]
    assert benchmark.landmark_names is not None and benchmark.landmark_names[4] == "left ear 2"
    side = 50 / 0.6
    box = train.framed(0, 60).placement.box
    np.testing.assert_allclose(box, (30.5 - side / 2, 21 - side / 2, 30.5 + side / 2, 21 + side / 2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "CAT_06"), "CAT_06 is missing"),
        (lambda root: (root / "CAT_02/00000500_001.jpg.cat").unlink(), r"00000500_001\.jpg\.cat is missing"),
        (lambda root: shutil.rmtree(root / "CAT_02") or (root / "CAT_02").mkdir(), "2 annotated images, but 3 are for"),
        (lambda root: layouts.replace_text(root / "CAT_00/00000001_000.jpg.cat", " 2 ", " "), "18 columns, but 19"),
        (lambda root: layouts.replace_text(root / "CAT_00/00000001_000.jpg.cat", "9 ", "8 "), "begins with 9"),
        (
            lambda root: layouts.replace_text(root / "CAT_00/00000001_000.jpg.cat", "-4", "-40"),
            r"landmark 4 at \(12, -40",
        ),
        (lambda root: layouts.cut(root / "CAT_00/00000001_000.jpg", 20), r"00000001_000\.jpg: not an image"),
    ],
)
def test_cats_that_lie_broken(damage: Damage, message: str, tmp_path: Path) -> None:
    layouts.cats(tmp_path)
    damage(tmp_path)
    refused("cats", tmp_path, message)


# ---- shoes --------------------------------------------------------------------------------------------------


def test_shoes(tmp_path: Path) -> None:
    """Every fifth of the copy is for validation. 64 of 94 px are the shoe, which is twice as wide as high."""
    layouts.shoes(tmp_path)
    benchmark = load("shoes", tmp_path)
    train, validation = benchmark.split("train"), benchmark.split("validation")
    assert (len(train), len(validation)) == (8, 2)
    assert validation.images.names == ["Sandals/Ankle/A.B./1.1.jpg", "Slippers/Ankle/A.B./0.1.jpg"]
    assert train.classes == ("Boots",) * 3 + ("Sandals",) + ("Shoes",) * 4
    pixels = train.framed(0, 94).pixels
    assert (pixels[:30] == 255).all() and (pixels[64:] == 255).all() and (pixels[:, :14] == 255).all()
    assert (pixels[32:62, 16:78, 2] < 140).all()


def test_shoes_in_an_archive_or_by_themselves(tmp_path: Path) -> None:
    layouts.shoes(tmp_path)
    folder = tmp_path / "ut-zap50k-images-square"
    names = load("shoes", tmp_path).split("train").images.names
    assert load("shoes", folder).split("train").images.names == names
    shutil.make_archive(str(folder), "zip", tmp_path, folder.name)
    shutil.rmtree(folder)
    split = load("shoes", tmp_path).split("train")
    assert split.images.names == [f"{folder.name}/{name}" for name in names]
    assert split.pixels(0).shape == (34, 68, 3)
    layouts.cut(folder.with_suffix(".zip"), 900)
    refused("shoes", tmp_path, "cannot be read as a zip archive")


def test_shoes_that_lie_broken(tmp_path: Path) -> None:
    layouts.shoes(tmp_path)
    folder = tmp_path / "ut-zap50k-images-square"
    (folder / "Slippers").rename(folder / "Hats")
    refused("shoes", tmp_path, r"Hats/Ankle/A\.B\./0\.1\.jpg is in none of Boots, Sandals")
    shutil.rmtree(folder / "Hats")
    refused("shoes", tmp_path, "9 of 'images', but the published set has 10")


# ---- MNIST --------------------------------------------------------------------------------------------------


def test_mnist(tmp_path: Path) -> None:
    """Threes are images 0, 3 and 7 of training; the last is for validation. Black stands around the digit."""
    layouts.mnist(tmp_path)
    benchmark = load("mnist-3", tmp_path)
    names = {what: split.images.names for what, split in benchmark.splits.items()}
    assert names["train"] == ["train/00000.png", "train/00003.png"]
    assert names["validation"] == ["train/00007.png"] and names["test"] == ["t10k/00002.png"]
    split = benchmark.split("validation")
    assert split.classes == ("3",) and (split.pixels(0) == 70).all() and split.pixels(0).shape == (28, 28, 3)
    framed = split.framed(0, 45).pixels
    assert (framed[6:39, 6:39] == 70).all()  # at the digit's border both mix
    assert not framed[:4].any() and not framed[41:].any() and not framed[:, :4].any() and not framed[:, 41:].any()
    assert [len(load("mnist-6", tmp_path).split(what)) for what in names] == [1, 1, 1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "t10k-labels-idx1-ubyte.gz").unlink(), r"t10k-labels-idx1-ubyte\.gz is missing"),
        (lambda root: layouts.cut(root / "t10k-images-idx3-ubyte.gz", 30), r"ubyte\.gz cannot be unpacked"),
        (lambda root: (root / "t10k-images-idx3-ubyte.gz").write_bytes(b"no"), r"ubyte\.gz cannot be unpacked"),
        (
            lambda root: layouts.cut(root / "train-images-idx3-ubyte", 5000),
            r"has 5000 bytes, but \(8, 28, 28\) take 6288",
        ),
        (lambda root: layouts.cut(root / "train-images-idx3-ubyte", 7), "not an IDX file of bytes with 3 dimensions"),
        (
            lambda root: (root / "train-labels-idx1-ubyte").write_bytes(layouts.idx(np.arange(7))),
            r"train-images of \(8, 28, 28\) do not fit 7 train-labels",
        ),
        (
            lambda root: (root / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(layouts.idx(np.full(3, 3)))),
            "3 of 'test', but the published set has 1",
        ),
    ],
)
def test_mnist_that_lies_broken(damage: Damage, message: str, tmp_path: Path) -> None:
    layouts.mnist(tmp_path)
    damage(tmp_path)
    refused("mnist-3", tmp_path, message)


# ---- animals ------------------------------------------------------------------------------------------------


def test_animals_without_birds_and_elephants(tmp_path: Path) -> None:
    layouts.animals(tmp_path, KINDS)
    split = load("animals", tmp_path).split("train")
    assert len(split) == 2 * 15 and split.classes is not None
    assert split.images.names[:2] == ["BearHead/bear0.jpg", "BearHead/bear1.jpg"]
    assert len(set(split.classes)) == 15 and not {"duck", "elephant"} & set(split.classes)
    assert load("animals", tmp_path / "AnimalFace").split("train").classes == split.classes
    assert split.framed(0, 20).placement.box == (0, -2, 20, 18)


def test_animals_that_lie_broken(tmp_path: Path) -> None:
    layouts.animals(tmp_path, KINDS)
    (tmp_path / "AnimalFace/WolfHead/wolf1.jpg").unlink()
    refused("animals", tmp_path, "WolfHead has 1 images, but at least 2 are published")
    shutil.rmtree(tmp_path / "AnimalFace/LionHead")
    refused("animals", tmp_path, "LionHead is missing")


# ---- pets ---------------------------------------------------------------------------------------------------


def test_pets(tmp_path: Path) -> None:
    """A box of 40 x 20 px, from the border at (10, 20) to that at (50, 40), is 80 % of a square of 50 px."""
    layouts.pets(tmp_path)
    split = load("pets", tmp_path).split("train")
    assert split.images.names == ["Abyssinian_1.jpg", "beagle_2.jpg"] and split.classes == ("cat", "dog")
    assert split.table is None
    np.testing.assert_allclose(split.framed(0, 50).placement.box, (5, 5, 55, 55))
    np.testing.assert_allclose(split.framed(1, 50).placement.box, (-10, -20, 90, 80))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (layouts.voc("cat", (11, 21, 90, 40)), r"cat from \[11\.0, 21\.0\] to \[90\.0, 40\.0\] is not in .* 80 x 60"),
        (layouts.voc("cat", (0, 21, 50, 40)), "is not in the image of 80 x 60"),
        (layouts.voc("cat", (50, 21, 11, 40)), "is not in the image"),
        (layouts.voc("horse", (11, 21, 50, 40)), "horse from"),
        ("<annotation></annotation>", "does not hold the box of a head"),
        ("<annotation><object>", "does not hold the box of a head"),
    ],
)
def test_pets_with_other_boxes(text: str, message: str, tmp_path: Path) -> None:
    layouts.pets(tmp_path)
    layouts.lines(tmp_path / "annotations/xmls/Abyssinian_1.xml", text)
    refused("pets", tmp_path, rf"Abyssinian_1\.xml.*{message}")


def test_pets_without_an_image(tmp_path: Path) -> None:
    layouts.pets(tmp_path)
    (tmp_path / "images/beagle_2.jpg").unlink()
    refused("pets", tmp_path, r"beagle_2\.jpg \(1 of 2 images are not there\) is missing")


# ---- the arm ------------------------------------------------------------------------------------------------


def test_roboarm(tmp_path: Path) -> None:
    """The flow of a frame carries a segment's centre to where it is in the next frame."""
    layouts.roboarm(tmp_path)
    benchmark = load("roboarm", tmp_path)
    train, test = benchmark.split("train"), benchmark.split("test")
    assert (len(train), len(test)) == (10, 1) and test.images.names == ["000010.png"]
    video = arm(11, size=30, speed=20)
    assert train.table is not None
    np.testing.assert_allclose(train.table.points, video.landmarks[:10], atol=1e-4)
    flow = train.flow(3)
    assert flow is not None
    np.testing.assert_allclose(flow, video.displacement(3, 4), atol=1e-4)
    assert train.flow(9) is None
    assert train.framed(0, 30).placement.box == (0, 0, 30, 30)


def test_neighbours_of_the_roboarm_test_show_unrelated_poses(tmp_path: Path) -> None:
    layouts.roboarm(tmp_path, 50)
    test = load("roboarm", tmp_path).split("test")
    assert [int(name[:6]) for name in test.images.names] == [45, 48, 46, 49, 47]
    assert test.table is not None
    np.testing.assert_allclose(test.table.points, arm(50, size=30, speed=20).landmarks[[45, 48, 46, 49, 47]], atol=1e-4)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "landmarks.csv").unlink(), r"landmarks\.csv is missing; .*from equimark synthetic arm"),
        (lambda root: (root / "000004.flo").unlink(), r"000004\.flo is missing"),
        (lambda root: (root / "000004.png").unlink(), r"has 10 frames, but landmarks\.csv has rows for 11"),
        (lambda root: layouts.lines(root / "landmarks.csv", "image,x0,y0", "a.png,1,b"), "line 2: y0 is 'b'"),
    ],
)
def test_a_roboarm_that_lies_broken(damage: Damage, message: str, tmp_path: Path) -> None:
    layouts.roboarm(tmp_path)
    damage(tmp_path)
    refused("roboarm", tmp_path, message)


def test_a_roboarm_with_other_flow(tmp_path: Path) -> None:
    layouts.roboarm(tmp_path, 3)
    layouts.cut(tmp_path / "000000.flo", 500)
    split = load("roboarm", tmp_path).split("train")
    with pytest.raises(BenchmarkError, match=r"000000\.flo: 30 x 30 pixels take .* has 500"):
        split.check()
    layouts.roboarm(tmp_path / "one", 1)
    refused("roboarm", tmp_path / "one", "single frame")


# ---- a user's own -------------------------------------------------------------------------------------------


def test_a_folder(tmp_path: Path) -> None:
    layouts.shoes(tmp_path)
    split = load("folder", tmp_path).split("all")
    assert len(split) == 10 and split.table is None
    assert split.framed(0, 34).placement.box == (17, 0, 51, 34)
    (tmp_path / "empty").mkdir()
    refused("folder", tmp_path / "empty", "is empty: no images")


def named(folder: Path) -> None:
    for i in range(3):
        layouts.picture(folder / f"in/{i}.png", 40, 20)
    points = np.array([[[5, 6], [7, 8]], [[np.nan, np.nan], [1, 2]], [[3, 4], [39, 19]]], float)
    table = LandmarkTable(("2.png", "0.png", "1.png"), points, ("a", "b"), splits=("test", "train", "test"))
    formats.write(table, folder / "landmarks.csv")


def test_a_landmark_file(tmp_path: Path) -> None:
    named(tmp_path)
    for root in (tmp_path, tmp_path / "landmarks.csv"):
        benchmark = load("landmarks", root)
        assert list(benchmark.splits) == ["test", "train"] and benchmark.landmark_names == ("a", "b")
        test, train = benchmark.split("test"), benchmark.split("train")
        assert test.images.names == ["in/2.png", "in/1.png"] and train.images.names == ["in/0.png"]
        assert test.table is not None and test.table.points[1, 1].tolist() == [39, 19]
        assert train.table is not None and train.table.visible.tolist() == [[False, True]]
        assert benchmark.eyes is None
    layouts.replace_text(tmp_path / "landmarks.csv", ",39,", ",99,")
    refused("landmarks", tmp_path, r"in/1\.png: landmark 1 at \(99, 19\)")
    (tmp_path / "in/1.png").unlink()
    refused("landmarks", tmp_path, r"1 of 3 images with landmarks are not among the 2 images")


def test_eyes_of_the_common_schemes(tmp_path: Path) -> None:
    for count, eyes in ((5, (0, 1)), (68, (36, 45)), (7, None)):
        layouts.picture(tmp_path / f"{count}/0.png", 80, 80)
        table = LandmarkTable(("0.png",), np.arange(2.0 * count).reshape(1, count, 2) / 2)
        formats.write(table, tmp_path / f"{count}/landmarks.csv")
        benchmark = load("landmarks", tmp_path / str(count))
        assert benchmark.eyes == eyes and list(benchmark.splits) == ["all"]
