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
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equimark.files import replace_file
from equimark.images import IMAGE_SUFFIXES

_Floats = NDArray[np.float64]
_Format = TypeVar("_Format")
_BLANK = float("nan")


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
        if fault := _fault(self.points):
            raise LandmarkError(f"{self.images[fault[0]]}: {fault[1]}")

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
    if "" in names:
        raise LandmarkError(f"the name of a {what} is empty")
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise LandmarkError(f"each {what} must occur once, but these occur more often: {_few(again)}")


def _fault(points: _Floats) -> tuple[int, str] | None:
    """First row of ``points`` (N, K, 2) that cannot be, and why."""
    blank = np.isnan(points)
    half = blank[..., 0] != blank[..., 1]
    infinite = np.isinf(points).any(-1)
    for wrong, fault in (
        (half, "has only one of x and y: give both, or leave both blank if it is not visible"),
        (infinite, "is infinite: leave it blank if it is not visible"),
    ):
        if wrong.any():
            row, k = np.argwhere(wrong)[0].tolist()
            return row, f"landmark {k} {fault}"
    return None


def _few(items: Sequence[str], most: int = 3) -> str:
    return ", ".join(map(repr, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")


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
    replace_file(path, lambda temporary: writer(table, temporary))


def check_writable(path: str | Path) -> None:
    """Refuse a path to which :func:`write` could not write, before the work that leads to it.

    Raises:
        LandmarkError: if no landmark format has its ending, or it is a folder.
    """
    path = Path(path)
    _for_ending(path, _WRITERS)
    if path.is_dir():
        raise LandmarkError(f"{path} is a folder; give the name of a file")


def _for_ending(path: Path, formats: dict[str, _Format]) -> _Format:
    try:
        return formats[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(formats))
        raise LandmarkError(f"{path}: no landmark format has this ending; known are {known}") from None


# ---- CSV ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """Which columns of a landmark CSV hold what."""

    image: int
    points: list[int]  # x and y of the first landmark, x and y of the second, ...
    confidence: list[int | None]
    splits: int | None
    names: tuple[str, ...] | None


def _read_csv(path: Path) -> LandmarkTable:
    try:
        lines = csv.reader(io.StringIO(_text(path), newline=""))
        header = [cell.strip() for cell in next(lines, [])]
        columns = _find_columns(path, header)
        rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise LandmarkError(f"{path}, line {lines.line_num}: not a CSV file ({error})") from error
    if not rows:
        raise LandmarkError(f"{path} has a header but no rows; write one row per image below it")
    _check_rows(path, rows, header, columns)
    points = _numbers(path, rows, header, columns.points).reshape(len(rows), -1, 2)
    if fault := _fault(points):
        raise LandmarkError(f"{path}, line {rows[fault[0]][0]}: {fault[1]}")
    given = any(column is not None for column in columns.confidence)
    return LandmarkTable(
        images=tuple(row[columns.image] for _, row in rows),
        points=points,
        names=columns.names,
        confidence=_numbers(path, rows, header, columns.confidence) if given else None,
        splits=None if columns.splits is None else tuple(row[columns.splits].strip() for _, row in rows),
    )


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _find_columns(path: Path, header: list[str]) -> _Columns:
    again = [name for name, count in Counter(header).items() if name and count > 1]
    if again:
        raise LandmarkError(f"{path}: columns that occur more than once: {_few(again)}; keep one of each")
    if "image" not in header:
        hint = (
            "separate columns by commas, not by ';'" if ";" in "".join(header) else "name the column of image files so"
        )
        raise LandmarkError(f"{path}: no column 'image' in the header; {hint}")
    place = {name: i for i, name in enumerate(header)}
    names, stems = _landmark_columns(header)
    missing = [name for x, y, _ in stems for name in (x, y) if name not in place]
    if missing or not stems:
        fault = f"missing columns: {_few(missing)}" if stems else "no landmark columns"
        wanted = "x0,y0,x1,y1,... counted from 0 without gaps, or NAME_x,NAME_y"
        raise LandmarkError(f"{path}: {fault}; each landmark needs two: {wanted}")
    points = [place[name] for x, y, _ in stems for name in (x, y)]
    return _Columns(place["image"], points, [place.get(c) for *_, c in stems], place.get("splits"), names)


def _landmark_columns(header: list[str]) -> tuple[tuple[str, ...] | None, list[tuple[str, str, str]]]:
    """Names of the landmarks, if named, and the columns (x, y, confidence) that each should have."""
    numbers = {name[1:] for name in header if re.fullmatch(r"[xy](0|[1-9]\d*)", name, re.ASCII)}
    if numbers:
        return None, [(f"x{k}", f"y{k}", f"c{k}") for k in range(len(numbers))]
    names = tuple(dict.fromkeys(name[:-2] for name in header if re.fullmatch(r".+_[xy]", name, re.DOTALL)))
    return names, [(f"{name}_x", f"{name}_y", f"{name}_c") for name in names]


def _check_rows(path: Path, rows: list[tuple[int, list[str]]], header: list[str], columns: _Columns) -> None:
    seen: dict[str, int] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise LandmarkError(f"{path}, line {line}: {len(row)} cells, but the header has {len(header)}")
        image = row[columns.image]
        if not image.strip():
            raise LandmarkError(f"{path}, line {line}: no image named; fill in the column 'image'")
        if image in seen:
            raise LandmarkError(
                f"{path}, line {line}: {image!r} again, after line {seen[image]}; keep one row per image"
            )
        seen[image] = line


def _numbers(
    path: Path, rows: list[tuple[int, list[str]]], header: list[str], columns: Sequence[int | None]
) -> _Floats:
    """(N, len(columns)) float64; NaN where a cell is blank or the column does not exist."""
    values = np.empty((len(rows), len(columns)))
    for i, (line, row) in enumerate(rows):
        try:
            values[i] = [_BLANK if c is None or not row[c] else float(row[c]) for c in columns]
        except ValueError:  # seldom needed: blanks in a cell, or a fault to point at
            values[i] = [_BLANK if c is None else _number(row[c], f"{path}, line {line}: {header[c]}") for c in columns]
    return values


def _number(cell: str, where: str) -> float:
    if not cell.strip():
        return _BLANK
    try:
        return float(cell)
    except ValueError:
        raise LandmarkError(f"{where} is {cell!r}, not a number; leave it blank if not visible") from None


def _write_csv(table: LandmarkTable, path: Path) -> None:
    count = table.points.shape[1]
    values = table.points
    if table.confidence is not None:
        values = np.concatenate([values, table.confidence[..., None]], -1)
    letters = "xyc"[: values.shape[-1]]
    if table.names is not None:
        header = [f"{name}_{letter}" for name in table.names for letter in letters]
        values = values.reshape(len(table), -1)
    else:
        header = [f"{letter}{k}" for k in range(count) for letter in "xy"]
        header += [f"c{k}" for k in range(count)] if "c" in letters else []
        values = np.concatenate([values[..., :2].reshape(len(table), -1), values[..., 2:].reshape(len(table), -1)], 1)
    splits = [[]] * len(table) if table.splits is None else [[split] for split in table.splits]
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", *header, *(["splits"] if table.splits is not None else [])])
        for image, numbers, split in zip(table.images, values.tolist(), splits, strict=True):
            writer.writerow([image, *map(_cell, numbers), *split])


def _cell(value: float) -> str:
    if value != value:
        return ""
    text = f"{value:.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


_READERS: dict[str, Callable[[Path], LandmarkTable]] = {".csv": _read_csv}
_WRITERS: dict[str, Callable[[LandmarkTable, Path], None]] = {".csv": _write_csv}


# ---- images -------------------------------------------------------------------------------------------------


def match_images(table: LandmarkTable, names: Sequence[str]) -> NDArray[np.intp]:
    """For each row of ``table`` the index (N,) of its image among ``names``, as of an image source or a pack.

    Paths that are equal belong together. Otherwise the file names must be equal, perhaps but for the ending, and the
    image that shares most of the path counts: ``train/7.jpg`` finds ``images/train/7.png`` rather than ``test/7.jpg``.
    Not every image needs a row.

    Raises:
        LandmarkError: rows without an image, with several equally good ones, or with the same one.
    """
    exact = {name: i for i, name in enumerate(names)}
    parts = [_parts(name) for name in names]
    by_stem: dict[str, list[int]] = defaultdict(list)
    for i, stem in enumerate(parts):
        by_stem[stem[0]].append(i)
    found = []
    for image in table.images:
        if image in exact:
            found.append([exact[image]])
            continue
        mine = _parts(image)
        ranks = {i: (_shared(mine, parts[i]), _ending(image) == _ending(names[i])) for i in by_stem[mine[0]]}
        found.append([i for i, rank in ranks.items() if rank == max(ranks.values())])
    _check_matches(table.images, found, names)
    return np.array([i for (i,) in found], np.intp)


def _check_matches(images: Sequence[str], found: list[list[int]], names: Sequence[str]) -> None:
    unknown = [image for image, best in zip(images, found, strict=True) if not best]
    if unknown:
        raise LandmarkError(
            f"{len(unknown)} of {len(images)} images with landmarks are not among the {len(names)} images "
            f"({_few(names)}): {_few(unknown)}; give the folder that holds them"
        )
    for image, best in zip(images, found, strict=True):
        if len(best) > 1:
            raise LandmarkError(
                f"{image!r} may be any of {_few([names[i] for i in best])}; write more of the path in the landmark file"
            )
    taken: dict[int, str] = {}
    for image, (i,) in zip(images, found, strict=True):
        if i in taken:
            raise LandmarkError(f"{taken[i]!r} and {image!r} both seem to be {names[i]!r}; write their full paths")
        taken[i] = image


def _parts(name: str) -> tuple[str, ...]:
    """File name without an image's ending, then its folder, the folder of that, ..."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = path.stem if _ending(name) in IMAGE_SUFFIXES else path.name
    return (stem, *reversed(path.parts[:-1]))


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _shared(mine: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many parts are equal, from the file name upwards."""
    pairs = [a == b for a, b in zip(mine, other, strict=False)]
    return pairs.index(False) if False in pairs else len(pairs)
