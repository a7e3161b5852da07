"""iBUG ``.pts``: one small text file per image, beside it and of its name.

::

    version: 1
    n_points: 68
    {
    336.820955 240.864510
    ...
    }

Coordinates count from 1, as in Matlab: the centre of the first pixel is (1, 1).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from equimark.files import replace_file
from equimark.formats.text import check_points, decimal, number, read_head, read_lines, settle, write_lines
from equimark.images import IMAGE_SUFFIXES
from equimark.landmarks import Floats, LandmarkError, LandmarkTable, few

ENDING = ".pts"


def read(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table of a ``.pts`` file, or of those in a folder and below; an image that lies beside a file names the row.

    Raises:
        LandmarkError: no such files, one that is not of this form, or files of different numbers of points.
    """
    files = find_files(path) if path.is_dir() else [path]
    if not files:
        raise LandmarkError(f"{path} holds no {ENDING} files; give the folder that holds them, or another file")
    folder = path if path.is_dir() else path.parent
    beside = _images_beside(files)
    rows = []
    for file in files:
        rows.append(_read_points(file))
        if len(rows[-1]) != len(rows[0]):
            raise LandmarkError(
                f"{file} has {len(rows[-1])} points, but {files[0].name} has {len(rows[0])}: read them apart"
            )
    names = tuple(beside.get(file, file.with_suffix("")).relative_to(folder).as_posix() for file in files)
    return LandmarkTable(names, settle(np.stack(rows) - 1)), ()


def find_files(folder: Path) -> list[Path]:
    """The ``.pts`` files in a folder and below, hidden ones excepted."""
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() == ENDING and not any(p.startswith(".") for p in file.relative_to(folder).parts)
    )


def _images_beside(files: Sequence[Path]) -> dict[Path, Path]:
    """The image of the same name in the same folder, for the files that have exactly one."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for folder in {file.parent for file in files}:
        for other in folder.iterdir():
            if other.suffix.lower() in IMAGE_SUFFIXES:
                found[other.with_suffix("")].append(other)
    stems = {file: found[file.with_suffix("")] for file in files}
    return {file: images[0] for file, images in stems.items() if len(images) == 1}


def _read_points(file: Path) -> Floats:
    """(K, 2) as they stand in the file."""
    lines = read_lines(file) if "{" in read_head(file) else []
    if "{" not in lines or "}" not in lines or lines.index("}") < lines.index("{"):
        raise LandmarkError(f"{file} is not a {ENDING} file: its coordinates must stand between lines of {{ and }}")
    first, last = lines.index("{") + 1, lines.index("}")
    header = _header(file, lines[: first - 1])
    rows = [(i + 1, line.split()) for i, line in enumerate(lines[first:last], first) if line]
    for line, words in rows:
        if len(words) != 2:
            raise LandmarkError(f"{file}, line {line}: {len(words)} numbers; each line needs x and y")
    if header.get("n_points", str(len(rows))) != str(len(rows)) or not rows:
        raise LandmarkError(f"{file} holds {len(rows)} points, but says n_points: {header.get('n_points', '')}")
    points = np.array([[number(word, f"{file}, line {line}") for word in words] for line, words in rows])
    check_points(points[None], [str(file)])
    return points


def _header(file: Path, lines: Sequence[str]) -> dict[str, str]:
    header = {}
    for i, line in enumerate(lines, 1):
        key, colon, value = line.partition(":")
        if line and not colon:
            raise LandmarkError(f"{file}, line {i}: expected 'version: 1' or 'n_points: 68' before the coordinates")
        header[key.strip().lower()] = value.strip()
    if header.get("version", "1") not in ("1", "1.0"):
        raise LandmarkError(f"{file} is of version {header['version']}; only version 1 is known")
    return header


def write(table: LandmarkTable, folder: Path) -> tuple[str, ...]:
    """One file per image in ``folder``, in the sub-folders that the names of the images say.

    Raises:
        LandmarkError: before anything is written, if a name leads out of the folder or two lead to the same file.
    """
    files: dict[Path, Floats] = {}
    for image, points in zip(table.images, table.points, strict=True):
        file = folder / _file_name(image)
        if file in files:
            raise LandmarkError(f"two images would have their landmarks in {file}: rename {image!r}")
        files[file] = points
    for file, points in files.items():
        rows = [" ".join(decimal(value + 1) or "nan" for value in point) for point in points.tolist()]
        replace_file(file, partial(write_lines, lines=["version: 1", f"n_points: {len(rows)}", "{", *rows, "}"]))
    hidden = [image for image, visible in zip(table.images, table.visible, strict=True) if not visible.all()]
    notes = []
    if hidden:
        what = "have landmarks that are not visible; they are written as 'nan nan', which few other programs read"
        notes.append(f"{len(hidden)} images ({few(hidden)}) {what}")
    if any(PurePosixPath(image).suffix.lower() in IMAGE_SUFFIXES for image in table.images):
        notes.append("the endings of the images' names are left out: keep the files beside the images, which have them")
    if others := len(set(find_files(folder)) - set(files)):
        notes.append(f"{folder} holds {others} other {ENDING} files, which stay there")
    return tuple(notes)


def _file_name(image: str) -> str:
    path = PurePosixPath(image.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", image)
    if outside or not path.name or any(part.startswith(".") for part in path.parts):
        raise LandmarkError(f"{image!r} leads out of the folder to write, or is hidden: name images relative to theirs")
    stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
    return str(path.with_name(stem + ENDING))
