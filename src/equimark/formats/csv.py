"""The landmark CSV: a header and a row per image.

::

    image,x0,y0,x1,y1,...            landmarks by number; optional c0,c1,... (confidence), splits
    image,nose_x,nose_y,tail_x,...   landmarks by name; optional nose_c,..., splits

A blank cell is a landmark that is not visible; columns of other names are ignored.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from equimark.files import csv_writer
from equimark.formats.text import decimal, read_text
from equimark.landmarks import Floats, LandmarkError, LandmarkTable, few, find_fault, quote

_BLANK = float("nan")


@dataclass(frozen=True)
class _Columns:
    """Which columns of a landmark CSV hold what."""

    image: int
    points: list[int]  # x and y of the first landmark, x and y of the second, ...
    confidence: list[int | None]
    splits: int | None
    names: tuple[str, ...] | None


def read(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table in a landmark CSV, and a note of columns that are no landmarks; the images are not needed."""
    try:
        lines = csv.reader(io.StringIO(read_text(path), newline=""))
        header = [cell.strip() for cell in next(lines, [])]
        columns = _find_columns(path, header)
        rows = [(lines.line_num, row) for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise LandmarkError(f"{path}, line {lines.line_num}: not a CSV file ({error})") from error
    if not rows:
        raise LandmarkError(f"{path} has a header but no rows; write one row per image below it")
    _check_rows(path, rows, header, columns)
    points = _numbers(path, rows, header, columns.points).reshape(len(rows), -1, 2)
    if fault := find_fault(points):
        raise LandmarkError(f"{path}, line {rows[fault[0]][0]}: {fault[1]}")
    given = any(column is not None for column in columns.confidence)
    table = LandmarkTable(
        images=tuple(row[columns.image] for _, row in rows),
        points=points,
        names=columns.names,
        confidence=_numbers(path, rows, header, columns.confidence) if given else None,
        splits=None if columns.splits is None else tuple(row[columns.splits].strip() for _, row in rows),
    )
    used = {columns.image, columns.splits, *columns.points, *columns.confidence}
    others = [name for i, name in enumerate(header) if name and i not in used]
    return table, (f"columns that are no landmarks are left out: {few(others)}",) if others else ()


_NO_COMMAS = {";": "';'", "\t": "tabs"}


def _find_columns(path: Path, header: list[str]) -> _Columns:
    again = [name for name, count in Counter(header).items() if name and count > 1]
    if again:
        raise LandmarkError(f"{path}: columns that occur more than once: {few(again)}; keep one of each")
    if "image" not in header:
        if not header:
            raise LandmarkError(f"{path} is empty; write a header (image,x0,y0,x1,y1,...) and a row per image below it")
        other = next((name for mark, name in _NO_COMMAS.items() if mark in "".join(header)), None)
        hint = f"separate columns by commas, not by {other}" if other else "name the column of image files so"
        raise LandmarkError(f"{path}: no column 'image' in the header; {hint}")
    place = {name: i for i, name in enumerate(header)}
    names, stems = landmark_columns(header)
    missing = [name for x, y, _ in stems for name in (x, y) if name not in place]
    if missing or not stems:
        fault = f"missing columns: {few(missing)}" if stems else "no landmark columns"
        wanted = "x0,y0,x1,y1,... counted from 0 without gaps, or NAME_x,NAME_y"
        raise LandmarkError(f"{path}: {fault}; each landmark needs two: {wanted}")
    points = [place[name] for x, y, _ in stems for name in (x, y)]
    return _Columns(place["image"], points, [place.get(c) for *_, c in stems], place.get("splits"), names)


def landmark_columns(header: list[str]) -> tuple[tuple[str, ...] | None, list[tuple[str, str, str]]]:
    """Names of the landmarks, if named, and the columns (x, y, confidence) that each should have."""
    numbers = {name[1:] for name in header if re.fullmatch(r"[xy](0|[1-9]\d*)", name, re.ASCII)}
    if numbers:
        return None, name_columns(None, len(numbers))
    names = tuple(dict.fromkeys(name[:-2] for name in header if re.fullmatch(r".+_[xy]", name, re.DOTALL)))
    return names, name_columns(names, len(names))


def name_columns(names: Sequence[str] | None, count: int) -> list[tuple[str, str, str]]:
    """The columns (x, y, confidence) of each of ``count`` landmarks."""
    if names is None:
        return [(f"x{k}", f"y{k}", f"c{k}") for k in range(count)]
    return [(f"{name}_x", f"{name}_y", f"{name}_c") for name in names]


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
                f"{path}, line {line}: {quote(image)} again, after line {seen[image]}; keep one row per image"
            )
        seen[image] = line


def _numbers(path: Path, rows: list[tuple[int, list[str]]], header: list[str], columns: Sequence[int | None]) -> Floats:
    """(N, len(columns)) float64; NaN where a cell is blank or the column does not exist."""
    values = np.empty((len(rows), len(columns)))
    for i, (line, row) in enumerate(rows):
        try:
            values[i] = [_BLANK if c is None or not row[c] else float(row[c]) for c in columns]
        except ValueError:  # seldom needed: blanks in a cell, or a fault to point at
            values[i] = [_BLANK if c is None else _number(row[c], f"{path}, line {line}: {header[c]}") for c in columns]
    return values


def _number(cell: str, where: str) -> float:
    if cell.strip() in ("", "NA"):  # as R writes what is missing
        return _BLANK
    try:
        return float(cell)
    except ValueError:
        raise LandmarkError(f"{where} is {quote(cell)}, not a number; leave it blank if not visible") from None


def write(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """Coordinates and confidence to 4 decimals: what was read from such a file is written back equal."""
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
    header = ["image", *header, *(["splits"] if table.splits is not None else [])]
    with csv_writer(path, header) as writer:
        for image, numbers, split in zip(table.images, values.tolist(), splits, strict=True):
            writer.writerow([image, *map(decimal, numbers), *split])
    return ()
