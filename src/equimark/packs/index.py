"""What a pack knows of its images: their names, their sizes, where the frames lie in them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equimark.geometry import Frame, Placement, Size
from equimark.images import ImageError

Places = tuple[NDArray[np.int64], NDArray[np.float64]]  # sizes (N, 2): H, W; boxes (N, 4): x0, y0, x1, y1
COLUMNS = ("image", "width", "height", "x0", "y0", "x1", "y1")  # of index.csv


@dataclass(frozen=True, eq=False)
class Index:
    """What is known of the images of a pack; read when it is first asked for."""

    read_names: Callable[[], list[str]]
    read_places: Callable[[], Places]

    @cached_property
    def names(self) -> list[str]:
        """Of the images, as in the source."""
        return self.read_names()

    @cached_property
    def places(self) -> Places:
        """Sizes of the images as stored, and the boxes of their frames."""
        return self.read_places()

    @classmethod
    def of(cls, names: list[str], sizes: NDArray[np.int64], boxes: NDArray[np.float64]) -> Index:
        """What is known already: names, sizes (N, 2) as (H, W), boxes (N, 4)."""
        return cls(lambda: names, lambda: (sizes, boxes))

    @classmethod
    def open(cls, path: Path, count: int) -> Index:
        """What ``index.csv`` at ``path`` says of ``count`` images, when it is asked for."""
        return cls(partial(_read_names, path, count), partial(_read_places, path, count))

    def size(self, i: int) -> Size:
        """(H, W) of an image as stored, after EXIF rotation."""
        height, width = self.places[0][i].tolist()
        return height, width

    def placement(self, i: int, frame: Frame) -> Placement:
        """Where ``frame`` lies in the pixels of an image as stored."""
        x0, y0, x1, y1 = self.places[1][i].tolist()
        return Placement((x0, y0, x1, y1), frame.size)


def _read_names(path: Path, count: int) -> list[str]:
    with _index_rows(path, count) as rows:
        names = [row[0] for row in csv.reader(rows)][1:]
        if len(names) != count:
            raise ValueError(len(names))
    return names


def _read_places(path: Path, count: int) -> Places:
    _read_names(path, count)  # loadtxt only warns of a file without rows
    with _index_rows(path, count) as rows:
        numbers = np.loadtxt(
            rows, delimiter=",", quotechar='"', comments=None, skiprows=1, usecols=range(1, 7), ndmin=2
        ).reshape(count, 6)
    return numbers[:, 1::-1].astype(np.int64), numbers[:, 2:]


@contextmanager
def _index_rows(path: Path, count: int) -> Iterator[Iterable[str]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ImageError(f"{path} does not describe the {count} images of its pack; make the pack again") from error
