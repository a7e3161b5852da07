"""Parquet: a row per image and a column per number, for tables that are too long for text.

::

    image  width  height  nose_x  nose_y  nose_c  tail_x  ...  reason      landmarks by name
    image  width  height  x0      y0      c0      x1      ...  reason      landmarks by number

Coordinates and confidence are float32, of 4 decimals; null is not visible, or not known. ``reason`` says why an image
could not be read; such a row has no landmarks. A table may lie in one file, or in the parts
``part-00000-of-00012.parquet``, ... of a folder, in their order. Needs pyarrow (``pip install 'equimark[scale]'``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equimark.arrow import import_pyarrow
from equimark.formats.csv import landmark_columns, name_columns
from equimark.landmarks import Floats, LandmarkError, LandmarkTable, few, find_fault, quote

_PART = re.compile(r"part-(\d+)-of-(\d+)\.parquet")
_DECIMALS = 4


# ---- files --------------------------------------------------------------------------------------------------


def part_name(index: int, count: int) -> str:
    """The file of part ``index`` of ``count``."""
    return f"part-{index:05d}-of-{count:05d}.parquet"


def find_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder, in the order of their names; those whose names begin with a dot are left out."""
    return sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))


def _check_complete(folder: Path, files: Sequence[Path]) -> None:
    """Refuse parts of a table of which one is missing."""
    parts = [found for path in files if (found := _PART.fullmatch(path.name))]
    counts = {int(part[2]) for part in parts}
    if len(counts) > 1:
        raise LandmarkError(f"{folder} holds parts of several tables: of {', '.join(map(str, sorted(counts)))} parts")
    missing = set(range(max(counts, default=0))) - {int(part[1]) for part in parts}
    if missing:
        raise LandmarkError(
            f"{folder} lacks {len(missing)} of {max(counts)} parts, the first of them {min(missing)}: give the command "
            "that makes them again, and it makes those that are missing"
        )


# ---- reading ------------------------------------------------------------------------------------------------


def read(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table in a file or a folder of parts, and a note of images that could not be read.

    Raises:
        LandmarkError: a part is missing, files that hold other things, or pyarrow is missing.
    """
    arrow = import_pyarrow(path, LandmarkError)
    files = [path]
    if path.is_dir():
        files = find_files(path)
        _check_complete(path, files)
    if not files:
        raise LandmarkError(f"{path} holds no .parquet files")
    try:
        _check_columns(path, arrow.parquet.read_schema(files[0]).names)  # before reading what may be other and large
        return _table(path, arrow.concat_tables([arrow.parquet.ParquetFile(file).read() for file in files]))
    except (arrow.ArrowException, OSError) as error:
        raise LandmarkError(f"{path} cannot be read as landmarks in Parquet ({quote(str(error))})") from None


def _check_columns(path: Path, columns: list[str]) -> None:
    _, stems = landmark_columns(columns)
    missing = [name for name in ("image", *(name for x, y, _ in stems for name in (x, y))) if name not in columns]
    if missing or not stems:
        wanted = "image, and x0, y0, x1, y1, ... counted from 0 without gaps, or NAME_x, NAME_y"
        raise LandmarkError(f"{path} has no columns {few(missing) if missing else 'of landmarks'}; wanted are {wanted}")


def _table(path: Path, rows: Any) -> tuple[LandmarkTable, tuple[str, ...]]:
    columns: list[str] = rows.column_names
    names, stems = landmark_columns(columns)
    notes: tuple[str, ...] = ()
    if "reason" in columns:
        rows, notes = _leave_out_unreadable(rows)
    if not rows.num_rows:
        raise LandmarkError(f"{path} has no rows of images" + "".join(f": {note}" for note in notes))
    points = np.stack([_numbers(rows, [x for x, _, _ in stems]), _numbers(rows, [y for _, y, _ in stems])], -1)
    if fault := find_fault(points):
        raise LandmarkError(f"{path}, {rows['image'][fault[0]]}: {fault[1]}")
    given = [c for *_, c in stems if c in columns]
    sizes = np.stack([_integers(rows, name) for name in ("height", "width")], -1)
    table = LandmarkTable(
        images=tuple(rows["image"].to_pylist()),
        points=points,
        names=names,
        confidence=_numbers(rows, [c for *_, c in stems]) if given else None,
        splits=tuple(rows["splits"].to_pylist()) if "splits" in columns else None,
        sizes=sizes if sizes.any() else None,
        scale=_column(rows, "scale") if "scale" in columns else None,
    )
    return table, notes


def _leave_out_unreadable(rows: Any) -> tuple[Any, tuple[str, ...]]:
    readable = rows["reason"].is_null()
    left_out = rows.filter(rows["reason"].is_valid())
    if not left_out.num_rows:
        return rows, ()
    first = left_out.slice(0, 3).select(["image", "reason"]).to_pylist()
    what = "; ".join(f"{row['image']}: {row['reason']}" for row in first)
    return rows.filter(readable), (f"images that could not be read are left out: {left_out.num_rows} ({what})",)


def _numbers(rows: Any, columns: Sequence[str]) -> Floats:
    """(N, len(columns)) of 4 decimals; NaN where there is none."""
    return np.stack([_column(rows, name) for name in columns], -1).round(_DECIMALS)


def _column(rows: Any, name: str) -> Floats:
    if name not in rows.column_names:
        return np.full(rows.num_rows, np.nan)
    return np.array(rows[name].cast("float64").to_numpy(), np.float64)


def _integers(rows: Any, name: str) -> NDArray[np.int64]:
    return np.nan_to_num(_column(rows, name)).astype(np.int64)


# ---- writing ------------------------------------------------------------------------------------------------


def write(table: LandmarkTable, path: Path, reasons: Sequence[str | None] | None = None) -> tuple[str, ...]:
    """Write a table to one file.

    Args:
        table: to write.
        path: of the file.
        reasons: why an image could not be read, or None if it could; a column only if given.

    Raises:
        LandmarkError: if pyarrow is missing.
    """
    arrow = import_pyarrow(path, LandmarkError)
    sizes = np.zeros((len(table), 2)) if table.sizes is None else table.sizes
    columns: dict[str, Any] = {"image": arrow.array(list(map(_printable, table.images)), arrow.string())}
    for name, values in (("width", sizes[:, 1]), ("height", sizes[:, 0])):
        columns[name] = arrow.array(values, arrow.int32(), mask=values == 0)
    for k, stems in enumerate(name_columns(table.names, table.points.shape[1])):
        values = table.points[:, k]
        if table.confidence is not None:
            values = np.concatenate([values, table.confidence[:, k, None]], -1)
        for name, column in zip(stems, values.T, strict=False):
            columns[name] = arrow.array(column.round(_DECIMALS).astype(np.float32), from_pandas=True)
    if table.splits is not None:
        columns["splits"] = arrow.array(table.splits, arrow.string())
    if table.scale is not None:
        columns["scale"] = arrow.array(table.scale, arrow.float64(), from_pandas=True)
    if reasons is not None:
        columns["reason"] = arrow.array(reasons, arrow.string())
    arrow.parquet.write_table(arrow.table(columns), path)
    return ()


def _printable(name: str) -> str:
    """``name`` as UTF-8, which Parquet demands; bytes of file names that are not, as ``\\xe9``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_whole(path: Path, rows: int) -> bool:
    """Whether a file is there, complete, and has that many rows."""
    arrow = import_pyarrow(path, LandmarkError)
    try:
        return bool(arrow.parquet.read_metadata(path).num_rows == rows)
    except (arrow.ArrowException, OSError):
        return False


def count_rows(files: Sequence[Path]) -> tuple[int, int]:
    """How many rows files have, and how many of them are of images that could not be read."""
    arrow = import_pyarrow(files[0], LandmarkError)
    reasons = [arrow.parquet.read_table(file, columns=["reason"])["reason"] for file in files]
    return sum(map(len, reasons)), sum(len(column) - column.null_count for column in reasons)
