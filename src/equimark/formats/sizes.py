"""How large the images are: for the formats that count from the bottom, or in shares of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from equimark.images import ImageError, open_images, stored_size
from equimark.landmarks import Floats, LandmarkError, LandmarkTable, Sizes, match_names


def read_sizes(images: str | Path, names: Sequence[str]) -> Sizes:
    """Height and width (N, 2) of the images called ``names``, as stored, after EXIF rotation.

    Args:
        images: a folder, a ``.zip``, a list of paths or an image.
        names: as a landmark file gives them.

    Raises:
        LandmarkError: one is not there.
        ImageError: one cannot be read.
    """
    source = open_images(images)
    sizes = []
    for row in match_names(names, source.names).tolist():
        try:
            sizes.append(source.size(row))
        except ImageError as error:
            raise ImageError(f"{source.names[row]}: {error}") from None
    return np.array(sizes, np.int64).reshape(-1, 2)


def find_sizes(path: Path, images: Path | None, names: Sequence[str], why: str) -> Sizes:
    """Sizes (N, 2) of the images of a landmark file: from ``images``, or of those that lie beside it.

    Raises:
        LandmarkError: no images given and none there; ``why`` says what they are needed for.
    """
    if images is not None:
        try:
            return read_sizes(images, names)
        except LandmarkError as error:
            raise LandmarkError(f"{path}: {error}") from None
    sizes = [_beside(path.parent / name.replace("\\", "/")) for name in names]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
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

    The last row of pixels is 1 and the first is the height, as tpsDig and the programs around it count.
    """
    return np.stack([points[..., 0], sizes[:, :1] - points[..., 1]], -1)
