"""DeepLabCut: ``CollectedData_NAME.csv`` of labelled frames, predictions with a likelihood, and their ``.h5`` twins.

::

    scorer,,,anna,anna,...
    bodyparts,,,nose,nose,...
    coords,,,x,y,...
    labeled-data,video,img01.png,412.5,530.1,...

The frame is named by three columns, or (before 2.2) by one; projects of several animals have a row ``individuals``
below the first. Pixel centres are at integers, as here. ``.h5`` needs pandas and PyTables (``pip install
'equimark[formats]'``); such a file can hold code that runs when it is opened, so open only files that you trust.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equimark.files import csv_writer
from equimark.formats.text import HEAD, check_images, check_points, decimal, names_or_none, number, read_text
from equimark.landmarks import Floats, LandmarkError, LandmarkTable, few, quote

SCORER = "equimark"
KEY = "df_with_missing"  # the table in an .h5 file, as DeepLabCut calls it
_COORDS = ("x", "y", "likelihood")
_Column = tuple[str, str, str]  # individual, body part, coordinate


def looks_like(head: str) -> bool:
    """Whether the beginning of a file is that of DeepLabCut's CSV."""
    return head.lstrip("\ufeff").startswith("scorer")


# ---- CSV ----------------------------------------------------------------------------------------------------


def read(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table of a CSV of one animal per frame; the images are not needed.

    Raises:
        LandmarkError: several animals, or a fault in the file.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        if not looks_like(text[:HEAD]):
            raise LandmarkError(f"{path} is not a DeepLabCut file: its first rows must be scorer, bodyparts and coords")
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(c.strip() for c in row)]
    except csv.Error as error:
        raise LandmarkError(f"{path}, line {reader.line_num}: not a CSV file ({error})") from error
    first = [row[0] for _, row in rows[:4]]
    above = first.index("coords") + 1 if "coords" in first else 0
    header = {row[0]: row for _, row in rows[:above]}
    if "bodyparts" not in header:
        raise LandmarkError(f"{path} lacks a row 'bodyparts' or 'coords' below the row 'scorer'")
    body = rows[above:]
    if not body:
        raise LandmarkError(f"{path} has a header but no rows of frames")
    width = len(header["scorer"])
    index = next((i for i, cell in enumerate(header["coords"]) if i and cell), width)  # columns that name the frame
    for line, row in rows:
        if len(row) != width:
            raise LandmarkError(f"{path}, line {line}: {len(row)} cells, but the first row has {width}")
    where = [f"{path}, line {line}" for line, _ in body]
    individuals = header.get("individuals", [""] * width)
    columns = list(zip(individuals[index:], header["bodyparts"][index:], header["coords"][index:], strict=True))
    names = ["/".join(cell for cell in row[:index] if cell) for _, row in body]
    values = [[number(cell, place) for cell in row[index:]] for place, (_, row) in zip(where, body, strict=True)]
    return _table(path, where, names, columns, np.array(values, np.float64), header["scorer"][index:])


def _table(
    path: Path,
    where: Sequence[str],
    names: Sequence[str],
    columns: Sequence[_Column],
    values: Floats,
    scorers: Sequence[str],
) -> tuple[LandmarkTable, tuple[str, ...]]:
    """Table of ``values`` (N, C), whose ``columns`` and ``scorers`` (C) say what they are."""
    check_images(names, where)
    who = list(dict.fromkeys(scorers))
    if len(who) > 1:
        raise LandmarkError(f"{path} holds the points of several scorers ({few(who)}): keep the columns of one")
    shown = dict.fromkeys((individual, part) for individual, part, _ in columns)
    parts = [part for _, part in shown]
    if len(set(parts)) < len(parts):
        animals = dict.fromkeys(individual for individual, _ in shown)
        raise LandmarkError(f"{path} holds several animals ({few(list(animals))}): one object per image is wanted")
    place = {(part, coordinate): i for i, (_, part, coordinate) in enumerate(columns)}
    missing = [f"{part} {coordinate}" for part in parts for coordinate in "xy" if (part, coordinate) not in place]
    if missing or not parts or len(place) < len(columns):
        fault = f"columns that are missing: {few(missing)}" if missing else "a body part that occurs twice, or none"
        raise LandmarkError(f"{path}: {fault}; each body part needs one x and one y")
    points = values[:, [place[part, coordinate] for part in parts for coordinate in "xy"]].reshape(len(names), -1, 2)
    check_points(points, where)
    likelihood = [place.get((part, "likelihood")) for part in parts]
    blank = np.full(len(names), np.nan)
    confidence = np.stack([blank if i is None else values[:, i] for i in likelihood], -1)
    others = dict.fromkeys(coordinate for _, _, coordinate in columns if coordinate not in _COORDS)
    table = LandmarkTable(
        tuple(names),
        points,
        names=names_or_none(parts),
        confidence=None if all(i is None for i in likelihood) else confidence,
    )
    notes = [f"columns that are no landmarks are left out: {few(list(others))}"] if others else []
    notes += [
        f"the scorer, {quote(name)}, is left out: written again it is {SCORER!r}" for name in who if name != SCORER
    ]
    if all(name.isdecimal() for name in names):
        notes.append("the rows are numbers of frames of a video: name the images so to use them together")
    return table, tuple(notes)


def write(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """Header and a row per image; with a likelihood if the table has confidence."""
    columns, values = _values(table)
    parts = [image.split("/") for image in table.images]
    index = 3 if _are_paths(parts) else 1
    blank = [""] * (index - 1)
    with csv_writer(path, ["scorer", *blank, *[SCORER] * len(columns)]) as writer:
        writer.writerow(["bodyparts", *blank, *(part for part, _ in columns)])
        writer.writerow(["coords", *blank, *(coordinate for _, coordinate in columns)])
        for image, split, row in zip(table.images, parts, values.tolist(), strict=True):
            writer.writerow([*(split if index == 3 else [image]), *map(decimal, row)])
    return _cannot_hold(table, index)


def _values(table: LandmarkTable) -> tuple[list[tuple[str, str]], Floats]:
    """Body part and coordinate of each column, and the values (N, C)."""
    values = table.points
    if table.confidence is not None:
        values = np.concatenate([values, table.confidence[..., None]], -1)
    letters = _COORDS[: values.shape[-1]]
    return [(label, letter) for label in table.labels for letter in letters], values.reshape(len(table), -1)


def _are_paths(parts: Sequence[Sequence[str]]) -> bool:
    """Whether all names of images are folder/folder/file, as ``labeled-data/video/img.png``."""
    return all(len(names) == 3 and all(name and name == name.strip() for name in names) for names in parts)


def _cannot_hold(table: LandmarkTable, index: int) -> tuple[str, ...]:
    if any(name != name.strip() for name in (*table.images, *table.labels)):
        raise LandmarkError("names with spaces around them cannot stand in a DeepLabCut file; rename them")
    if index == 3:
        return ()
    return ("images are not named labeled-data/VIDEO/IMAGE, as a DeepLabCut project wants them; the names are kept",)


# ---- HDF5 ---------------------------------------------------------------------------------------------------


def read_h5(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """As :func:`read`, of an ``.h5`` file.

    Raises:
        LandmarkError: also if pandas or PyTables is missing.
    """
    pandas = _pandas(path)
    try:
        frame = pandas.read_hdf(path)
        levels = [str(name) for name in frame.columns.names]
        columns = [dict(zip(levels, map(str, column), strict=True)) for column in frame.columns]
        named = [(c.get("individuals", ""), c["bodyparts"], c["coords"]) for c in columns]
        scorers = [c.get("scorer", SCORER) for c in columns]
        values = frame.to_numpy(np.float64)
    except Exception as error:  # what a damaged or different file raises is up to three libraries
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise LandmarkError(f"{path} is not an .h5 file of DeepLabCut ({quote(reason)})") from None
    names = ["/".join(map(str, i)) if isinstance(i, tuple) else str(i) for i in frame.index]
    return _table(path, [f"{path}, row {i}" for i in range(len(names))], names, named, values, scorers)


def write_h5(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """As :func:`write`, with all decimals."""
    pandas = _pandas(path)
    columns, values = _values(table)
    parts = [tuple(image.split("/")) for image in table.images]
    index = 3 if _are_paths(parts) else 1
    rows: Any = pandas.MultiIndex.from_tuples(parts) if index == 3 else list(table.images)
    header = pandas.MultiIndex.from_tuples([(SCORER, *c) for c in columns], names=["scorer", "bodyparts", "coords"])
    pandas.DataFrame(values, rows, header).to_hdf(path, key=KEY, mode="w")
    return _cannot_hold(table, index)


def _pandas(path: Path) -> Any:
    try:
        import pandas
        import tables  # noqa: F401
    except ImportError:
        raise LandmarkError(
            f"{path}: .h5 files need pandas and PyTables: pip install 'equimark[formats]'; or use the .csv beside it"
        ) from None
    return pandas
