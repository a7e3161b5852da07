"""Landmark files <-> one table.

Coordinates are ``(x, y)`` pixels of the image as stored, after EXIF rotation; pixel centres at integers;
NaN = not visible. ``read`` and ``write`` choose the format by the file's ending.

The landmark CSV has a header and a row per image::

    image,x0,y0,x1,y1,...            landmarks by number; optional c0,c1,... (confidence), splits
    image,nose_x,nose_y,tail_x,...   landmarks by name; optional nose_c,..., splits

A blank cell is a landmark that is not visible; columns of other names are ignored.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equimark.images import IMAGE_SUFFIXES

_Floats = NDArray[np.float64]


class LandmarkError(ValueError):
    """Landmarks that cannot be read, or do not fit their images."""


@dataclass(frozen=True, eq=False)
class LandmarkTable:
    """Landmarks of N images, K each.

    Args:
        images: N names, each once: paths relative to the image folder, as the file gives them.
        points: (N, K, 2) float64 pixels (x, y) of the image as stored; NaN = not visible.
        names: of the K landmarks, if they have any.
        confidence: (N, K) float64, 0 to 1; NaN = not given.
        splits: of the N images, such as ``train`` and ``test``.

    Raises:
        LandmarkError: sizes disagree, names are not unique, or a coordinate is infinite or lacks its partner.
    """

    images: tuple[str, ...]
    points: _Floats
    names: tuple[str, ...] | None = None
    confidence: _Floats | None = None
    splits: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        shape = self.points.shape
        if len(shape) != 3 or shape[0] != len(self.images) or shape[1] < 1 or shape[2] != 2:
            raise LandmarkError(f"points of {len(self.images)} images must be (N, K, 2) with K > 0, got {shape}")
        for what, size, wanted in (
            ("names", self.names and (len(self.names),), (shape[1],)),
            ("confidence", None if self.confidence is None else self.confidence.shape, shape[:2]),
            ("splits", None if self.splits is None else (len(self.splits),), (shape[0],)),
        ):
            if size is not None and size != wanted:
                raise LandmarkError(f"{what} must have shape {wanted}, got {size}")
        _check_unique("image", self.images)
        _check_unique("landmark", self.names or ())
        for image, points in zip(self.images, self.points, strict=True):
            if fault := _fault(points):
                raise LandmarkError(f"{image}: {fault}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(N, K): which landmarks have a position."""
        return ~np.isnan(self.points[..., 0])

    def select(self, indices: ArrayLike) -> LandmarkTable:
        """The rows of ``indices`` (M,), or of a mask (N,)."""
        rows = np.arange(len(self))[np.asarray(indices, None if np.size(indices) else np.intp)]
        return replace(
            self,
            images=tuple(self.images[i] for i in rows),
            points=self.points[rows],
            confidence=None if self.confidence is None else self.confidence[rows],
            splits=None if self.splits is None else tuple(self.splits[i] for i in rows),
        )

    def split(self, name: str) -> LandmarkTable:
        """The rows of one split."""
        known = sorted(set(self.splits or ()))
        if name not in known:
            raise LandmarkError(f"no split {name!r}; this table has {', '.join(known) or 'no splits'}")
        return self.select([split == name for split in self.splits or ()])


def _check_unique(what: str, names: Sequence[str]) -> None:
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise LandmarkError(f"{what} {again[0]!r} occurs more than once{_more(again)}; each must have one row or column")
    bad = [name for name in names if not name or name != name.strip()]
    if bad:
        raise LandmarkError(f"{bad[0]!r} cannot be the name of a {what}: it is empty, or has blanks around it")


def _fault(points: _Floats) -> str | None:
    """What is wrong with the points (K, 2) of one image."""
    blank = np.isnan(points)
    if (blank[:, 0] != blank[:, 1]).any():
        k = int(np.flatnonzero(blank[:, 0] != blank[:, 1])[0])
        return f"landmark {k} has only one of x and y; give both, or leave both blank if it is not visible"
    if np.isinf(points).any():
        k = int(np.flatnonzero(np.isinf(points).any(1))[0])
        return f"landmark {k} is infinite; leave it blank if it is not visible"
    return None


def _more(items: Sequence[object]) -> str:
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""


# ---- files --------------------------------------------------------------------------------------------------


def read(path: str | Path) -> LandmarkTable:
    """The landmarks in a file; its ending says the format.

    Raises:
        LandmarkError: no such file, an unknown ending, or a fault in it, with file and line.
    """
    path = Path(path)
    reader = _for_ending(path, _READERS)
    if not path.is_file():
        raise LandmarkError(f"{path}: no such landmark file")
    return reader(path)


def write(table: LandmarkTable, path: str | Path) -> None:
    """Write ``table`` in the format of the path's ending, all or nothing; folders are made as needed.

    The CSV holds coordinates and confidence to 4 decimals; what was read from such a file is written back equal.
    """
    path = Path(path)
    writer = _for_ending(path, _WRITERS)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        writer(table, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _for_ending[F](path: Path, formats: dict[str, F]) -> F:
    try:
        return formats[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(formats))
        raise LandmarkError(f"{path}: no landmark format has this ending; known are {known}") from None


# ---- CSV ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """Where the landmark CSV has what."""

    image: int
    points: list[int]  # x, y of landmark 0, of landmark 1, ...
    confidence: list[int | None]
    splits: int | None
    names: tuple[str, ...] | None
