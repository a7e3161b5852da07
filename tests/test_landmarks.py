from dataclasses import replace

import numpy as np
import pytest

from equimark.landmarks import LandmarkError, LandmarkTable, few, match_images, match_names, quote
from landmark_tables import NAN, assert_same, small_table

# ---- the table


def test_select_and_split():
    table = small_table()
    train = table.split("train")
    assert train.images == ("a", "c") and train.splits == ("train", "train") and len(train) == 2
    assert_same(train, table.select([0, 2]))
    assert_same(train, table.select(np.array([True, False, True])))
    assert table.select([2, 0]).points[0, 0].tolist() == [8, 9]
    measured = replace(table, sizes=np.array([[1, 2], [3, 4], [5, 6]]), scale=np.array([0.1, NAN, 0.3])).select([2, 0])
    assert measured.sizes is not None and measured.sizes.tolist() == [[5, 6], [1, 2]]
    assert measured.scale is not None and measured.scale.tolist() == [0.3, 0.1]
    assert len(table.select([])) == 0
    with pytest.raises(LandmarkError, match="'val'; this table has test, train"):
        table.split("val")
    with pytest.raises(LandmarkError, match="has no splits"):
        LandmarkTable(("a",), np.zeros((1, 1, 2))).split("test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": np.zeros((3, 2))}, r"\(N, K, 2\)"),
        ({"points": np.zeros((2, 2, 2))}, "of 3 images"),
        ({"points": np.zeros((3, 0, 2))}, "K > 0"),
        ({"names": ("l",)}, "names must"),
        ({"names": ("l", "l")}, "each landmark must occur once"),
        ({"names": ("l", "")}, "empty"),
        ({"images": ("a", "b", "a")}, "each image .* 'a'"),
        ({"confidence": np.zeros((3, 3))}, "confidence must"),
        ({"splits": ("train",)}, "splits must"),
        ({"points": np.full((3, 2, 2), np.inf)}, "a: landmark 0 is infinite"),
        ({"points": np.full((3, 2, 2), 2e9)}, "a: landmark 0 lies beyond any image"),
        ({"sizes": np.ones((3,), np.int64)}, "sizes must"),
        ({"sizes": np.full((3, 2), -1)}, "height or width of an image is negative"),
        ({"scale": np.ones(2)}, "scale must"),
        ({"scale": np.array([1, NAN, 0])}, "scale, in units per pixel, must be positive"),
        ({"scale": np.array([1, NAN, np.inf])}, "must be positive"),
        ({"points": np.array([[[0, 0], [0, 0]], [[0, 0], [NAN, 0]], [[0, 0], [0, 0]]])}, "b: landmark 1 has only"),
    ],
)
def test_a_table_checks_itself(change, message):
    with pytest.raises(LandmarkError, match=message):
        LandmarkTable(**(vars(small_table()) | change))


def test_labels_are_names_or_numbers():
    assert small_table().labels == ("l", "r")
    assert replace(small_table(), names=None).labels == ("0", "1")


def test_long_names_are_cut_in_messages():
    assert quote("a" * 60) == "'" + "a" * 60 + "'"
    assert quote("a" * 61) == "'" + "a" * 57 + "...'"
    assert few(["a", "b\n", "c", "d"]) == r"'a', 'b\n', 'c' and 1 more"


# ---- images


def rows(*images: str) -> LandmarkTable:
    return LandmarkTable(images, np.zeros((len(images), 1, 2)))


@pytest.mark.parametrize(
    ("images", "names", "expected"),
    [
        (["b.jpg", "a.jpg"], ["a.jpg", "c.jpg", "b.jpg"], [2, 0]),
        (["a.jpg"], ["x/a.jpg", "a.jpg"], [1]),  # equal paths come first
        (["images/a.jpg"], ["a.jpg"], [0]),
        (["a.jpg"], ["images/a.jpg", "images/b.jpg"], [0]),
        (["train/7.jpg", "test/7.jpg"], ["images/test/7.png", "images/train/7.png"], [1, 0]),
        (["a", "b.c"], ["a.webp", "b.c.jpg"], [0, 1]),
        (["a.jpg"], ["x/a.png", "x/a.jpg"], [1]),  # the same ending is better
        (["old\\faces\\a.jpg"], ["b.jpg", "faces/a.jpg"], [1]),
        (["./a.jpg", "/data/set/b.JPG"], ["a.jpg", "set/b.jpg"], [0, 1]),
    ],
)
def test_rows_find_their_images(images, names, expected):
    assert match_images(rows(*images), names).tolist() == expected
    assert match_names(images, names).tolist() == expected


@pytest.mark.parametrize(
    ("images", "names", "message"),
    [
        (["a.jpg", "z1", "z2", "z3", "z4"], ["a.jpg"], "4 of 5 .* 'z1', 'z2', 'z3' and 1 more"),
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"], "'a.jpg' may be any of 'x/a.jpg', 'y/a.jpg'"),
        (["x/a.jpg", "y/a.jpg"], ["a.jpg"], "both seem to be 'a.jpg'"),
        (["img.1"], ["img.2"], "not among"),
    ],
)
def test_rows_without_one_image(images, names, message):
    with pytest.raises(LandmarkError, match=message):
        match_images(rows(*images), names)
