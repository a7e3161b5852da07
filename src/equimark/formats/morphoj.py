"""MorphoJ's row/column text: one line per specimen, its identifier and then x1, y1, x2, y2, ...

Columns are separated by tabs, or by semicolons or commas. A first line with other words than numbers is a header,
and means nothing. As in the files of tpsDig that MorphoJ is mostly given, y counts from the bottom of the image, so
that shapes stand upright in MorphoJ: reading and writing need the sizes of the images.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from equimark.formats.sizes import find_sizes, flip, known_sizes
from equimark.formats.text import check_points, decimal, number, read_text, settle
from equimark.landmarks import LandmarkError, LandmarkTable, few, quote

WHY = "a MorphoJ file counts y from the bottom of each image, so the sizes of the images are needed"
_SEPARATORS = "\t;,"


def looks_like(head: str) -> bool:
    """Whether the beginning of a file is a header such as ``ID,x1,y1,...``."""
    cells = _split(head.partition("\n")[0], _separator(head))
    return cells[0].lower() == "id" and [cell.lower() for cell in cells[1:3]] in (["x1", "y1"], ["y1", "x1"])


def read(path: Path, images: Path | None = None, *, partly: bool = False) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table of a row/column file; a blank cell or NA is a landmark that is not visible.

    Args:
        path: of the file.
        images: where the images are that the identifiers name; default: beside the file.
        partly: see :func:`equimark.formats.sizes.read_sizes`; of images that are not there no landmark is visible.

    Raises:
        LandmarkError: rows of different lengths, cells that are no numbers, or images that are not there.
    """
    rows = list(_rows(path, read_text(path)))
    if not rows:
        raise LandmarkError(f"{path} has no rows; write a specimen per line: its identifier, x1, y1, x2, y2, ...")
    where = [f"{path}, line {line}" for line, _ in rows]
    names = tuple(cells[0] for _, cells in rows)
    values = [[number(cell, place) for cell in cells[1:]] for place, (_, cells) in zip(where, rows, strict=True)]
    points = np.array(values, np.float64).reshape(len(rows), -1, 2)
    check_points(points, where)
    sizes = find_sizes(path, images, names, WHY, partly=partly)
    return LandmarkTable(names, settle(flip(points, sizes)), sizes=sizes), ()


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every specimen; a last separator ends no cell."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_separator(text))
    seen: dict[str, int] = {}
    count = 0
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            cells = cells[:-1] if len(cells) % 2 == 0 and not cells[-1] else cells
            if not count and not any(cell and _is_number(cell) for cell in cells[1:]):
                _check_header(path, cells)
            else:
                _check_row(f"{path}, line {reader.line_num}", cells, count or len(cells), seen)
                seen[cells[0]] = reader.line_num
                yield reader.line_num, cells
            count = len(cells)
    except csv.Error as error:
        raise LandmarkError(f"{path}, line {reader.line_num}: not a row/column file ({error})") from error


def _check_row(where: str, cells: Sequence[str], count: int, seen: Mapping[str, int]) -> None:
    if len(cells) != count or count < 3 or count % 2 == 0:
        raise LandmarkError(
            f"{where}: {len(cells)} cells; each row needs an identifier and x and y of as many landmarks, "
            "separated by tabs"
        )
    if not cells[0]:
        raise LandmarkError(f"{where}: no identifier; the first cell must name the image")
    if cells[0] in seen:
        raise LandmarkError(f"{where}: {quote(cells[0])} again, after line {seen[cells[0]]}; keep one row per image")


def _separator(text: str) -> str:
    """The first of tab, semicolon and comma that the first line has."""
    line = text[:65_536].lstrip().partition("\n")[0]
    return next((separator for separator in _SEPARATORS if separator in line), "\t")


def _split(line: str, separator: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.lstrip("\ufeff").split(separator)]


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return cell.lower() in ("na", "nan")
    return True


def _check_header(path: Path, header: Sequence[str]) -> None:
    """MorphoJ ignores the names of columns; one that puts y first would mislead it."""
    letters = [name[:1].lower() for name in header[1:]]
    if letters[:2] == ["y", "x"]:
        raise LandmarkError(f"{path}, line 1: {quote(header[1])} stands before {quote(header[2])}; x must come first")
    if "z" in letters:
        raise LandmarkError(f"{path}, line 1: coordinates in three dimensions; only images are handled here")


def write(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """A header and a tab-separated row per image; cells of landmarks that are not visible stay blank.

    Raises:
        LandmarkError: if the size of an image is not known, or a name cannot stand in such a file.
    """
    for image in table.images:
        if image != image.strip() or any(mark in image for mark in '\t\n\r"'):
            raise LandmarkError(f"{quote(image)} cannot stand in a MorphoJ file: no tabs, quotes or spaces around it")
    points = flip(table.points, known_sizes(table, WHY)).reshape(len(table), -1)
    header = [f"{letter}{k + 1}" for k in range(table.points.shape[1]) for letter in "xy"]
    lines = ["\t".join(["ID", *header])]
    lines += ["\t".join([image, *map(decimal, row)]) for image, row in zip(table.images, points.tolist(), strict=True)]
    path.write_text("\n".join([*lines, ""]), encoding="utf-8", errors="surrogateescape", newline="\n")
    hidden = [image for image, visible in zip(table.images, table.visible, strict=True) if not visible.all()]
    what = "have landmarks that are not visible; MorphoJ wants all of them"
    return (f"{len(hidden)} images ({few(hidden)}) {what}",) if hidden else ()
