"""``.tps`` of tpsDig and geomorph: one text file with a block per specimen.

::

    LM=12                  landmarks, then as many lines of x and y
    290.00000 108.00000
    ...
    CURVES=1               perhaps: curves, each of points
    POINTS=20
    101.00000 92.00000
    ...
    IMAGE=63001.jpg        the file; geomorph writes only an ID
    ID=0
    SCALE=0.004512         units of length per pixel; the coordinates stay in pixels

The origin is the lower left corner: y of a file is the height of the image minus y from the top, as in tpsDig and the
programs around it, so reading and writing need the sizes of the images. Points of curves become landmarks named
``curve0_0``, ``curve0_1``, ... after those of ``LM=``, then named ``landmark0``, ...; written, they are curves again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from equimark.formats.sizes import find_sizes, flip, known_sizes
from equimark.formats.text import (
    check_images,
    check_points,
    decimal,
    number,
    read_head,
    read_lines,
    settle,
    write_lines,
)
from equimark.landmarks import LandmarkError, LandmarkTable, few, quote

WHY = "a .tps file counts y from the bottom of each image, so the sizes of the images are needed"
_CURVE_POINT = re.compile(r"curve(0|[1-9]\d*)_(0|[1-9]\d*)", re.ASCII)


@dataclass
class _Specimen:
    """One block of the file, as it stands there."""

    line: int
    landmarks: list[tuple[float, float]]
    curves: list[list[tuple[float, float]]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        return self.keys.get("IMAGE") or self.keys.get("ID", "")

    @property
    def counts(self) -> tuple[int, ...]:
        return (len(self.landmarks), *map(len, self.curves))


def read(path: Path, images: Path | None = None, *, partly: bool = False) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table of a ``.tps`` file; NA, or two negative coordinates, are a landmark that is not visible.

    Args:
        path: of the file.
        images: where the images are; default: beside the file.
        partly: see :func:`equimark.formats.sizes.read_sizes`; of images that are not there no landmark is visible.

    Raises:
        LandmarkError: a fault in the file, specimens of different numbers of points, or images that are not there.
    """
    specimens = list(_specimens(path))
    where = [f"{path}, line {specimen.line}" for specimen in specimens]
    first = specimens[0]
    for specimen, place in zip(specimens, where, strict=True):
        if specimen.counts != first.counts:
            raise LandmarkError(
                f"{place}: a specimen of {_describe(specimen)}, but the first has {_describe(first)}; all must agree"
            )
    if not sum(first.counts):
        raise LandmarkError(f"{path} holds no landmarks: LM=0")
    names = tuple(specimen.image for specimen in specimens)
    check_images(names, where)
    sizes = find_sizes(path, images, names, WHY, partly=partly)
    points = np.array([[*s.landmarks, *(p for curve in s.curves for p in curve)] for s in specimens], np.float64)
    points[(points < 0).all(-1)] = np.nan
    check_points(points, where)
    scale = np.array([_scale(s, place) for s, place in zip(specimens, where, strict=True)])
    table = LandmarkTable(
        names,
        settle(flip(points, sizes)),
        names=_names(first),
        sizes=sizes,
        scale=None if np.isnan(scale).all() else scale,
    )
    return table, _left_out(specimens)


def read_scales(path: Path) -> dict[str, float]:
    """The scale of each specimen that has one, in units of length per pixel, by the name of its image.

    Specimens without landmarks count too: a ruler may be all that was marked in them.

    Raises:
        LandmarkError: a fault in the file, or no scale in it.
    """
    specimens = list(_specimens(path))
    where = [f"{path}, line {specimen.line}" for specimen in specimens]
    check_images(tuple(specimen.image for specimen in specimens), where)
    scales = {specimen.image: _scale(specimen, place) for specimen, place in zip(specimens, where, strict=True)}
    known = {image: scale for image, scale in scales.items() if not np.isnan(scale)}
    if not known:
        raise LandmarkError(f"{path} has no SCALE= of any specimen")
    return known


def _specimens(path: Path) -> Iterator[_Specimen]:
    if not re.match(r"\s*LM3?\s*=", read_head(path).lstrip("\ufeff"), re.IGNORECASE):
        raise LandmarkError(f"{path} is not a .tps file: it must begin with LM= and the number of landmarks")
    lines = [(i, line) for i, line in enumerate(read_lines(path), 1) if line]
    starts = [k for k, (_, line) in enumerate(lines) if _key(line)[0] in ("LM", "LM3")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield _specimen(path, lines[start:stop])


def _key(line: str) -> tuple[str, str]:
    key, equals, value = line.partition("=")
    return (key.strip().upper(), value.strip()) if equals else ("", line)


def _specimen(path: Path, lines: Sequence[tuple[int, str]]) -> _Specimen:
    """The block of ``lines``, which begin with ``LM=``."""
    first, (key, value) = lines[0][0], _key(lines[0][1])
    if key == "LM3":
        raise LandmarkError(f"{path}, line {first}: landmarks in three dimensions (LM3=); only images are handled here")
    landmarks, rest = _take_points(path, lines[0], lines[1:])
    specimen, section = _Specimen(first, landmarks), ""
    while rest:
        (line, text), rest = rest[0], rest[1:]
        key, value = _key(text)
        if key == "POINTS":
            points, rest = _take_points(path, (line, text), rest)
            if section != "OUTLINES":
                specimen.curves.append(points)
        elif key in ("IMAGE", "ID", "SCALE") and key in specimen.keys:
            raise LandmarkError(f"{path}, line {line}: {key}= again; each specimen must begin with its own LM=")
        elif key:
            specimen.keys[key], section = value, key
        elif section not in ("CHAIN", "RADII", "RADIIXY", "VARIABLES"):  # which are lists of their own
            raise LandmarkError(f"{path}, line {line}: {quote(text)} is more than LM= or POINTS= announced")
    if specimen.keys.get("CURVES", str(len(specimen.curves))) != str(len(specimen.curves)):
        said, found = specimen.keys["CURVES"], len(specimen.curves)
        raise LandmarkError(f"{path}, line {first}: CURVES={said}, but {found} lists of POINTS= follow")
    return specimen


def _take_points(
    path: Path, head: tuple[int, str], lines: Sequence[tuple[int, str]]
) -> tuple[list[tuple[float, float]], Sequence[tuple[int, str]]]:
    """The points that ``head``, a line ``LM=`` or ``POINTS=``, announces, and the lines after them."""
    line, text = head
    key, value = _key(text)
    if not re.fullmatch(r"\d{1,7}", value, re.ASCII):
        raise LandmarkError(f"{path}, line {line}: {quote(text)} should say how many points follow")
    count = int(value)
    points = [_point(path, i, row) for i, row in lines[:count] if not _key(row)[0]]
    if len(points) != count or any(_key(row)[0] for _, row in lines[:count]):
        found = next((k for k, (_, row) in enumerate(lines[:count]) if _key(row)[0]), len(lines[:count]))
        raise LandmarkError(f"{path}, line {line}: {key}={value}, but {found} lines of coordinates follow")
    return points, lines[count:]


def _point(path: Path, line: int, text: str) -> tuple[float, float]:
    words = text.split()
    if len(words) != 2:
        raise LandmarkError(f"{path}, line {line}: {quote(text)} should be x and y with a space between them")
    x, y = (number(word, f"{path}, line {line}") for word in words)
    return x, y


def _describe(specimen: _Specimen) -> str:
    landmarks, *curves = specimen.counts
    return f"{landmarks} landmarks" + (f" and curves of {', '.join(map(str, curves))} points" if curves else "")


def _scale(specimen: _Specimen, where: str) -> float:
    scale = number(specimen.keys.get("SCALE", ""), f"{where}: SCALE=")
    if scale <= 0 or scale == np.inf:
        raise LandmarkError(f"{where}: SCALE={specimen.keys['SCALE']} must be positive: units of length per pixel")
    return scale


def _names(specimen: _Specimen) -> tuple[str, ...] | None:
    if not any(specimen.curves):
        return None
    curves = [f"curve{i}_{k}" for i, curve in enumerate(specimen.curves) for k in range(len(curve))]
    return (*(f"landmark{k}" for k in range(len(specimen.landmarks))), *curves)


def _left_out(specimens: Sequence[_Specimen]) -> tuple[str, ...]:
    keys = dict.fromkeys(key for specimen in specimens for key in specimen.keys)
    others = [f"{key}=" for key in keys if key not in ("IMAGE", "ID", "SCALE", "CURVES")]
    notes = [f"lines that say no landmark are left out: {few(others, 6)}"] if others else []
    ids = [specimen.keys.get("ID", "") for specimen in specimens]
    numbers = [str(i) for i in range(len(ids) + 1)]
    if ids not in (numbers[:-1], numbers[1:], [""] * len(ids), [specimen.image for specimen in specimens]):
        notes.append(f"the ID= of specimens is left out, their images name them: {few(ids)}")
    return tuple(notes)


def write(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """Every row as a specimen, numbered from 0; landmarks that are not visible as ``NA NA``, as geomorph reads them.

    Raises:
        LandmarkError: if the size of an image is not known.
    """
    sizes = known_sizes(table, WHY)
    points = flip(table.points, sizes)
    beyond = (points < 0).all(-1)
    points[beyond] = np.nan
    curves = _curves(table.names)
    scale = np.full(len(table), np.nan) if table.scale is None else table.scale
    lines: list[str] = []
    for i, (image, rows) in enumerate(zip(table.images, points.tolist(), strict=True)):
        lines += _block(rows, curves)
        lines += [f"IMAGE={_one_line(image)}", f"ID={i}"]
        lines += [] if np.isnan(scale[i]) else [f"SCALE={np.format_float_positional(scale[i], trim='-')}"]
    write_lines(path, lines)
    return _cannot_hold(table, int(beyond.sum()), bool(curves))


def _block(rows: Sequence[Sequence[float]], curves: Sequence[int]) -> Iterator[str]:
    """The lines of ``rows`` of x and y, the last of which are ``curves`` of so many points."""
    texts = [" ".join(decimal(value) or "NA" for value in row) for row in rows]
    fixed = len(texts) - sum(curves)
    yield f"LM={fixed}"
    yield from texts[:fixed]
    if curves:
        yield f"CURVES={len(curves)}"
    for count in curves:
        yield f"POINTS={count}"
        yield from texts[fixed : fixed + count]
        fixed += count


def _curves(names: tuple[str, ...] | None) -> list[int]:
    """How many points each curve has, if the last landmarks are named as the points of curves."""
    matches = [_CURVE_POINT.fullmatch(name) for name in names or ()]
    pairs = [(int(match[1]), int(match[2])) for match in matches if match]
    counts = [len(list(group)) for _, group in groupby(pairs, lambda pair: pair[0])]
    ordered = [(i, k) for i, count in enumerate(counts) for k in range(count)]
    return counts if pairs == ordered and all(matches[len(matches) - len(pairs) :]) else []


def _cannot_hold(table: LandmarkTable, beyond: int, curves: bool) -> tuple[str, ...]:
    notes = []
    hidden = int((~table.visible).sum())
    if hidden:
        notes.append(
            f"{hidden} landmarks that are not visible are written as NA, which geomorph reads; tpsDig does not"
        )
    if beyond:
        notes.append(f"{beyond} landmarks left of and below their image are written as NA: .tps reads them as missing")
    fixed = [name for name in table.names or () if not (curves and _CURVE_POINT.fullmatch(name))]
    if fixed and not (curves and fixed == [f"landmark{k}" for k in range(len(fixed))]):
        notes.append(f"names of landmarks are left out, their order stays: {few(fixed)}")
    return tuple(notes)


def _one_line(image: str) -> str:
    if "\n" in image or "\r" in image or image != image.strip():
        raise LandmarkError(f"{quote(image)}: a name with spaces around it or a line break cannot stand in a .tps file")
    return image
