"""How large the images are: for the formats that count from the bottom, or in shares of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equimark.images import ImageError, open_images, stored_size
from equimark.landmarks import Floats, LandmarkError, LandmarkTable, Sizes, have_images, match_names


def read_sizes(images: str | Path, names: Sequence[str], *, partly: bool = False) -> Sizes:
    """Height and width (N, 2) of the images called ``names``, as stored, after EXIF rotation.

    Args:
        images: a folder, a ``.zip``, a list of paths or an image.
        names: as a landmark file gives them.
        partly: give 0 for those that are not there, or cannot be read.

    Raises:
        LandmarkError: one is not there.
        ImageError: one cannot be read.
    """
    source = open_images(images)
    sizes = np.zeros((len(names), 2), np.int64)
    wanted = np.flatnonzero(have_images(names, source.names)) if partly else np.arange(len(names))
    places: list[int] = wanted.tolist()
    rows = match_names([names[place] for place in places], source.names)
    for place, row in zip(places, rows.tolist(), strict=True):
        try:
            sizes[place] = source.size(row)
        except ImageError as error:
            if not partly:
                raise ImageError(f"{source.names[row]}: {error}") from None
    return sizes


def find_sizes(path: Path, images: Path | None, names: Sequence[str], why: str, *, partly: bool = False) -> Sizes:
    """Sizes (N, 2) of the images of a landmark file: from ``images``, or of those that lie beside it.

    Args:
        path: of the file.
        images: see :func:`read_sizes`.
        names: see :func:`read_sizes`.
        why: what sizes are needed for.
        partly: see :func:`read_sizes`.

    Raises:
        LandmarkError: no images given and none there.
    """
    if images is not None:
        try:
            return read_sizes(images, names, partly=partly)
        except LandmarkError as error:
            raise LandmarkError(f"{path}: {error}") from None
    sizes = [_beside(path.parent / name.replace("\\", "/")) for name in names]
    known = [size or (0, 0) for size in sizes]
    if None in sizes and not partly:
        missing = names[sizes.index(None)]
        raise LandmarkError(
            f"{path}: {why}, and {missing!r} is not beside the file: give the folder of the images (--images), "
            "or convert the file first (equimark convert)"
        )
    return np.array(known, np.int64).reshape(-1, 2)


def _beside(file: Path) -> tuple[int, int] | None:
    try:
        return stored_size(file.read_bytes())
    except (OSError, ValueError):  # ValueError: a name that no file can have, or not an image
        return None


def known_sizes(table: LandmarkTable, why: str) -> Sizes:
    """The sizes (N, 2) that a table has for every image.

    Raises:
        LandmarkError: if it lacks one.
    """
    if table.sizes is None or not table.sizes.all():
        raise LandmarkError(f"{why}, which this table lacks: give the folder of the images (--images)")
    return table.sizes


def known_or_none(sizes: Sequence[Sequence[int]]) -> Sizes | None:
    """(N, 2), or None if no size is known."""
    return np.array(sizes, np.int64).reshape(-1, 2) if any(map(any, sizes)) else None


def flip(points: Floats, sizes: Sizes) -> Floats:
    """``points`` (N, K, 2) with y counted from the bottom instead of from the top, or the other way round.

    The last row of pixels is 1 and the first is the height, as tpsDig and the programs around it count. Of images whose
    size is not known, no landmark is visible.
    """
    flipped = np.stack([points[..., 0], sizes[:, :1] - points[..., 1]], -1)
    return np.where(sizes[:, None].all(-1, keepdims=True), flipped, np.nan)
