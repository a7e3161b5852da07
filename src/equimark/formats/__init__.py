"""Landmark files <-> :class:`~equimark.landmarks.LandmarkTable`: one module per format.

The ending of a path says the format; where several share one, the content does on reading, and the first of
:data:`FORMATS` is written. Whatever a file counts from or in, a table is in pixels of the image as stored, pixel
centres at integers. Coordinates and confidence are written to 4 decimals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from equimark.files import replace_file
from equimark.formats import coco, csv, cvat, deeplabcut, label_studio, morphoj, parquet, pts, tps
from equimark.formats.sizes import read_sizes
from equimark.formats.text import read_head
from equimark.landmarks import LandmarkError, LandmarkTable, check_not_exchanged, lie_outside, match_names

__all__ = [
    "FORMATS",
    "Format",
    "check_axes",
    "check_free",
    "check_writable",
    "read",
    "read_noted",
    "with_scale",
    "write",
]

Noted = tuple[LandmarkTable, tuple[str, ...]]


@dataclass(frozen=True)
class Format:
    """A kind of landmark file.

    Args:
        about: one line for people.
        endings: of its files, in lower case.
        read: a file, and where the images are, to a table and a sentence for each thing that was left out.
        write: a table to a file; returns a sentence for each thing that the format could not hold.
        holds: what it has a place for, of ``names``, ``confidence``, ``splits`` and ``scale``.
        looks_like: whether the first characters of a file are of this format, if others share its endings.
        is_folder: its files are many, in a folder.
        in_parts: a folder of its files is read, too, as one table.
        sizes: of the images: ``given`` by the file, ``needed`` to understand it, or ``unused``.
        read_partly: as ``read``, where that needs the images, though some of them may be missing.
    """

    about: str
    endings: tuple[str, ...]
    read: Callable[[Path, Path | None], Noted]
    write: Callable[[LandmarkTable, Path], tuple[str, ...]]
    holds: frozenset[str]
    looks_like: Callable[[str], bool] | None = None
    is_folder: bool = False
    in_parts: bool = False
    sizes: Literal["given", "needed", "unused"] = "unused"
    read_partly: Callable[[Path, Path | None], Noted] | None = None


_ALL = frozenset({"names", "confidence", "splits"})
_NAMES_AND_CONFIDENCE = frozenset({"names", "confidence"})

FORMATS: dict[str, Format] = {
    "csv": Format("landmark CSV, a row per image", (".csv",), csv.read, csv.write, _ALL),
    "coco": Format(
        "COCO keypoints", (".json",), coco.read, coco.write, _ALL, looks_like=coco.looks_like, sizes="given"
    ),
    "pts": Format("iBUG .pts, a file per image", (".pts",), pts.read, pts.write, frozenset(), is_folder=True),
    "tps": Format(
        "tpsDig and geomorph .tps",
        (".tps",),
        tps.read,
        tps.write,
        frozenset({"names", "scale"}),
        sizes="needed",
        read_partly=partial(tps.read, partly=True),
    ),
    "deeplabcut": Format(
        "DeepLabCut CSV",
        (".csv",),
        deeplabcut.read,
        deeplabcut.write,
        _NAMES_AND_CONFIDENCE,
        looks_like=deeplabcut.looks_like,
    ),
    "deeplabcut-h5": Format(
        "DeepLabCut HDF5", (".h5", ".hdf5"), deeplabcut.read_h5, deeplabcut.write_h5, _NAMES_AND_CONFIDENCE
    ),
    "label-studio": Format(
        "Label Studio tasks with keypoint labels",
        (".json",),
        label_studio.read,
        label_studio.write,
        _ALL,
        looks_like=label_studio.looks_like,
        sizes="given",
    ),
    "cvat": Format(
        "CVAT for images 1.1", (".xml",), cvat.read, cvat.write, frozenset({"names", "splits"}), sizes="given"
    ),
    "morphoj": Format(
        "MorphoJ row/column text",
        (".txt", ".csv"),
        morphoj.read,
        morphoj.write,
        frozenset(),
        looks_like=morphoj.looks_like,
        sizes="needed",
        read_partly=partial(morphoj.read, partly=True),
    ),
    "parquet": Format(
        "Parquet, a row per image; also a folder of parts",
        (".parquet",),
        parquet.read,
        parquet.write,
        _ALL | {"scale"},
        in_parts=True,
        sizes="given",
    ),
}


def read(
    path: str | Path, format: str | None = None, images: str | Path | None = None, *, partly: bool = False
) -> LandmarkTable:
    """The landmarks in a file, or in a folder of ``.pts`` files or of Parquet parts.

    Args:
        path: of the file or folder.
        format: a name of :data:`FORMATS`; default: by the ending, and by the content where several share it.
        images: where the images are: needed by formats that count from the bottom of an image, and checked against
            the sizes that a file gives; default: beside the file, where it matters.
        partly: some of the images may be missing: their sizes are 0 where they matter.

    Raises:
        LandmarkError: no such file, an unknown ending, or a fault in it, with file and line.
        ImageError: images that cannot be read.
    """
    return read_noted(path, format, images, partly=partly)[0]


def read_noted(
    path: str | Path, format: str | None = None, images: str | Path | None = None, *, partly: bool = False
) -> Noted:
    """As :func:`read`, with a sentence for each thing in the file that a table cannot hold."""
    path = Path(path)
    chosen = _choose_reader(path, format)
    images = None if images is None else Path(images)
    table, notes = (chosen.read_partly if partly and chosen.read_partly else chosen.read)(path, images)
    if images is None:
        return table, notes + _outside(table)
    if chosen.sizes == "given":
        table = _with_sizes(table, images, partly)
    some = check_axes(path, table, images)
    return table, notes + _outside(some if table.sizes is None else table)


def check_axes(path: str | Path, table: LandmarkTable, images: str | Path) -> LandmarkTable:
    """Refuse a landmark file whose x and y seem to have changed places, by the sizes of some of its images.

    Returns:
        what the file says of these, with their sizes.

    Args:
        path: of the file.
        table: what it holds.
        images: where the images are, or some of them: a folder, a ``.zip`` or a list of paths.

    Raises:
        LandmarkError: see :func:`equimark.landmarks.check_not_exchanged`.
        ImageError: if there are no images.
    """
    some = table.select(np.unique(np.linspace(0, len(table) - 1, min(len(table), _ENOUGH)).round().astype(int)))
    sizes = read_sizes(images, some.images, partly=True)
    try:
        check_not_exchanged(some.points, sizes)
    except LandmarkError as error:
        raise LandmarkError(f"{path}: {error}") from None
    return replace(some, sizes=sizes)


_ENOUGH = 50  # images, to see which way the axes go


def write(
    table: LandmarkTable, path: str | Path, format: str | None = None, images: str | Path | None = None
) -> tuple[str, ...]:
    """Write ``table``, all or nothing; folders are made as needed.

    Args:
        table: to write; what was read from a file of the same format is written back equal.
        path: of the file; of ``.pts`` the folder.
        format: a name of :data:`FORMATS`; default: by the ending.
        images: where the images are, if the format needs sizes that the table lacks.

    Returns:
        a sentence for each thing that the format could not hold. (Sizes of images are no such thing: they can be had
        from the images again.)

    Raises:
        LandmarkError: if there is no such format, or it cannot hold this table at all.
    """
    path = Path(path)
    chosen = _choose_writer(path, format)
    if images is not None and chosen.sizes != "unused":
        table = _with_sizes(table, Path(images))
    notes: list[str] = []
    if chosen.is_folder:
        notes += chosen.write(table, path)
    else:
        replace_file(path, lambda temporary: notes.extend(chosen.write(table, temporary)))
    return (*_losses(table, chosen), *notes)


def with_scale(table: LandmarkTable, scale: str) -> LandmarkTable:
    """``table`` with units of length per pixel of its images.

    Args:
        table: whose images they are.
        scale: a number for all images, or a ``.tps`` file with ``SCALE=`` of some of them; the others keep what
            they have.

    Raises:
        LandmarkError: if it is neither, not positive, or of images that are not in the table.
    """
    try:
        return replace(table, scale=np.full(len(table), float(scale)))
    except ValueError as error:
        if isinstance(error, LandmarkError):
            raise
    path = Path(scale)
    if not path.is_file():
        raise LandmarkError(f"a scale is a number of units per pixel, or a .tps file with SCALE= lines; got {scale!r}")
    found = tps.read_scales(path)
    scales = np.full(len(table), np.nan) if table.scale is None else table.scale.copy()
    scales[match_names(list(found), table.images)] = list(found.values())
    return replace(table, scale=scales)


def check_writable(path: str | Path, format: str | None = None) -> None:
    """Refuse a path to which :func:`write` could not write, before the work that leads to it.

    Raises:
        LandmarkError: if no landmark format has its ending, or it is a folder where a file is wanted.
    """
    path = Path(path)
    chosen = _choose_writer(path, format)
    if path.is_dir() and not chosen.is_folder:
        raise LandmarkError(f"{path} is a folder; give the name of a file")
    if path.is_file() and chosen.is_folder:
        raise LandmarkError(f"{path} is a file; give the name of a folder for the {chosen.endings[0]} files")


def check_free(path: str | Path, format: str | None = None) -> None:
    """As :func:`check_writable`, and refuse to write over what is there.

    Raises:
        LandmarkError: also if the file exists, or the folder holds files of the format.
    """
    path = Path(path)
    check_writable(path, format)
    if path.exists() and not (path.is_dir() and not pts.find_files(path)):
        raise LandmarkError(f"{path} exists already; give another name, or --overwrite to replace it")


# ---- which format -------------------------------------------------------------------------------------------


def _choose_reader(path: Path, name: str | None) -> Format:
    if name is None and path.is_dir():
        return FORMATS["parquet" if parquet.find_files(path) else "pts"]
    candidates = _candidates(path, name)
    if not path.exists():
        raise LandmarkError(f"{path}: no such landmark file")
    if path.is_dir() and not (candidates[0].is_folder or candidates[0].in_parts):
        raise LandmarkError(f"{path} is a folder; give the name of a file")
    if len(candidates) > 1:
        head = read_head(path)
        return next((each for each in candidates if each.looks_like and each.looks_like(head)), candidates[0])
    return candidates[0]


def _choose_writer(path: Path, name: str | None) -> Format:
    return _candidates(path, name)[0]


def _candidates(path: Path, name: str | None) -> list[Format]:
    if name is not None:
        if name not in FORMATS:
            raise LandmarkError(f"no landmark format is called {name!r}; known are {', '.join(FORMATS)}")
        return [FORMATS[name]]
    found = [each for each in FORMATS.values() if path.suffix.lower() in each.endings]
    if not found:
        known = ", ".join(sorted({ending for each in FORMATS.values() for ending in each.endings}))
        raise LandmarkError(f"{path}: no landmark format has this ending; known are {known}")
    return found


# ---- what is lost, what is odd ------------------------------------------------------------------------------


def _losses(table: LandmarkTable, format: Format) -> tuple[str, ...]:
    name = next(name for name, each in FORMATS.items() if each is format)
    given = {
        "names": table.names is not None,
        "confidence": table.confidence is not None and not np.isnan(table.confidence).all(),
        "splits": table.splits is not None and any(table.splits),
        "scale": table.scale is not None and not np.isnan(table.scale).all(),
    }
    sentences = {
        "names": "names of landmarks are left out, their order stays",
        "confidence": "the confidence of landmarks is left out",
        "splits": "the splits are left out",
        "scale": "the scale (units of length per pixel) is left out",
    }
    return tuple(
        f"{sentences[what]}: {name} has no place for it"
        for what, is_given in given.items()
        if is_given and what not in format.holds
    )


def _with_sizes(table: LandmarkTable, images: Path, partly: bool = False) -> LandmarkTable:
    """``table`` with the sizes of its images; those it has already must agree.

    Raises:
        LandmarkError: if they do not: the landmarks belong to other images, or to others of their size.
    """
    sizes = read_sizes(images, table.images, partly=partly)
    if table.sizes is not None:
        wrong = (table.sizes != sizes).any(-1) & table.sizes.all(-1) & sizes.all(-1)
        if wrong.any():
            i = int(wrong.argmax())
            (h, w), (height, width) = table.sizes[i].tolist(), sizes[i].tolist()
            raise LandmarkError(
                f"{table.images[i]} is {width} x {height} pixels in {images}, but its landmarks are of an image of "
                f"{w} x {h}: give the images that were labelled"
            )
    return replace(table, sizes=sizes)


def _outside(table: LandmarkTable) -> tuple[str, ...]:
    """A note if many landmarks lie outside their images: perhaps others than those that were labelled."""
    if table.sizes is None:
        return ()
    count, total = int(lie_outside(table.points, table.sizes).sum()), int(table.visible.sum())
    what = "are these the images that were labelled, and of that size?"
    return (f"{count} of {total} landmarks lie outside their images: {what}",) if count > 0.1 * total else ()
