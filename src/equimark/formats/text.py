"""Text files of any origin: their characters, their lines, their numbers."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from equimark.landmarks import Floats, LandmarkError, find_fault, quote

HEAD = 65_536  # bytes that tell what a file is
LONGEST_LINE = 1_000_000  # bytes
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MISSING = frozenset({"", "na", "nan"})
_READ_DECIMALS = 6


def read_text(path: Path, *, in_lines: bool = True) -> str:
    """The characters of a file: UTF-8, what its byte order mark says, or otherwise Latin-1.

    Args:
        path: of the file.
        in_lines: refuse text whose first million characters are a single line, which is no table of anything.

    Raises:
        LandmarkError: if it is not such text.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_LINE)
        if in_lines and len(head) == LONGEST_LINE and b"\n" not in head and b"\r" not in head:
            raise LandmarkError(f"{path} begins with a line of over {LONGEST_LINE:,} characters, which is no table")
        encoding = _marked(head)
        if encoding is None and b"\0" in head[:HEAD]:
            raise LandmarkError(f"{path} is not a text file; if it should be one, save it again as UTF-8")
        data = head + file.read()
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is None:
            return data.decode("latin-1")
        raise LandmarkError(f"{path} begins like {encoding.upper()} but is not; save it again as UTF-8") from None


def read_head(path: Path) -> str:
    """The first characters of a file, whatever it is."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return head.decode(_marked(head) or "utf-8", errors="replace")


def _marked(head: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without their ends (of Windows, Unix or old Macs) and without spaces around."""
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    return [line.strip() for line in text.split("\n")]


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write ``lines`` as UTF-8; names that are not are written as the operating system has them."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)


def number(text: str, where: str) -> float:
    """The number in ``text``, with a point or a comma; NaN where nothing is written, or NA.

    Raises:
        LandmarkError: if it is neither; ``where`` says which file and line.
    """
    text = text.strip()
    if text.lower() in _MISSING:
        return float("nan")
    try:
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        raise LandmarkError(f"{where}: {quote(text)} is not a number") from None


def decimal(value: float, places: int = 4) -> str:
    """``value`` with at most so many decimals, without a trailing zero; NaN is nothing."""
    if value != value:
        return ""
    text = f"{value:.{places}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def settle(values: ArrayLike) -> Floats:
    """Coordinates that a file holds shifted or scaled, freed of the dust of that arithmetic.

    Rounded to 6 decimals of a pixel, so that what was written to 4 decimals is read back equal.
    """
    values = np.asarray(values, np.float64)
    small = np.abs(values) < 1e9
    return np.where(small, np.where(small, values, 0).round(_READ_DECIMALS), values) + 0.0  # never -0


def check_points(points: Floats, where: Sequence[str]) -> None:
    """Refuse impossible ``points`` (N, K, 2), saying ``where`` (N) in the file they are."""
    if fault := find_fault(points):
        raise LandmarkError(f"{where[fault[0]]}: {fault[1]}")


def check_images(images: Sequence[str], where: Sequence[str]) -> None:
    """Refuse empty names and names that occur again, saying ``where`` (N) in the file they are."""
    seen: dict[str, str] = {}
    for image, place in zip(images, where, strict=True):
        if not image.strip():
            raise LandmarkError(f"{place}: no image named; say which image these landmarks belong to")
        if image in seen:
            raise LandmarkError(f"{place}: {quote(image)} again, after {seen[image]}; keep one object per image")
        seen[image] = place


def names_or_none(labels: Sequence[str]) -> tuple[str, ...] | None:
    """Names of landmarks; none if the labels merely number them from 0."""
    return None if list(labels) == list(map(str, range(len(labels)))) else tuple(labels)


def gather(labels: Sequence[str], found: Sequence[dict[str, tuple[float, float]]]) -> Floats:
    """Points (N, K, 2) from the position of each label that an image shows."""
    hidden = (float("nan"), float("nan"))
    return np.array([[row.get(label, hidden) for label in labels] for row in found], np.float64).reshape(
        len(found), len(labels), 2
    )
