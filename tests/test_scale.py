"""Units of length per pixel, given to landmarks that have none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equimark.formats import read, with_scale, write
from equimark.landmarks import LandmarkError, LandmarkTable
from landmark_tables import NAN, small_table

Command = Callable[..., tuple[int, str, str]]
RULERS = "LM=0\nIMAGE=photos/c.jpg\nID=0\nSCALE=0.5\nLM=1\n4 5\nIMAGE=a.png\nID=1\nSCALE=0,25\nLM=0\nIMAGE=b\nID=2\n"


def rulers(folder: Path, text: str = RULERS) -> str:
    (folder / "rulers.tps").write_text(text)
    return str(folder / "rulers.tps")


def test_one_for_all() -> None:
    np.testing.assert_array_equal(with_scale(small_table(), "0.02").scale, [0.02] * 3)


def test_those_of_rulers(tmp_path: Path) -> None:
    """Specimens without landmarks count, paths and endings may differ, and b, which has none, keeps what it had."""
    given = with_scale(small_table(), rulers(tmp_path))
    np.testing.assert_array_equal(given.scale, [0.25, NAN, 0.5])
    np.testing.assert_array_equal(with_scale(with_scale(small_table(), "2"), rulers(tmp_path)).scale, [0.25, 2, 0.5])


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("0", "must be positive"),
        ("-1", "must be positive"),
        ("ruler.tps", "a number of units per pixel, or a .tps file with SCALE= lines; got 'ruler.tps'"),
    ],
)
def test_no_scale(scale: str, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        with_scale(small_table(), scale)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("IMAGE=b", "IMAGE=d\nSCALE=1", "images with landmarks are not among the 3 images"),
        ("SCALE=0.5", "SCALE=-1", "line 1: SCALE=-1 must be positive"),
        ("IMAGE=b", "IMAGE=a.png", "a.png"),
    ],
)
def test_faults_of_rulers(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        with_scale(small_table(), rulers(tmp_path, RULERS.replace(old, new)))
    bare = "".join(line for line in RULERS.splitlines(keepends=True) if not line.startswith("SCALE"))
    with pytest.raises(LandmarkError, match=r"rulers.tps has no SCALE= of any specimen"):
        with_scale(small_table(), rulers(tmp_path, bare))


def test_converted(command: Command, tmp_path: Path) -> None:
    sizes = np.full((3, 2), 20)
    table = LandmarkTable(("a.png", "b.png", "c.png"), small_table().points, sizes=sizes)
    write(table, tmp_path / "given.tps")
    for name in table.images:
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    words = ("convert", tmp_path / "given.tps", tmp_path / "out.tps", "--overwrite", "--scale")
    code, _, err = command(*words, rulers(tmp_path))
    assert code == 0 and "1 of 3 images have no scale: geomorph then scales none of them" in err
    np.testing.assert_array_equal(read(tmp_path / "out.tps").scale, [0.25, NAN, 0.5])
    assert command(*words, "0.1")[::2] == (0, "")
    np.testing.assert_array_equal(read(tmp_path / "out.tps").scale, [0.1] * 3)
    code, _, err = command(*words, "big")
    assert code == 1 and "got 'big'" in err
