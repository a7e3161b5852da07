"""The table of landmarks that every landmark file becomes, and the images that its rows belong to.

Coordinates are ``(x, y)`` pixels of the image as stored, after EXIF rotation; pixel centres at integers;
NaN = not visible. :mod:`equimark.formats` reads and writes the files.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import ArrayLike, NDArray

from equimark.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

Floats = NDArray[np.float64]
Sizes = NDArray[np.int64]

FARTHEST = 1e9  # pixels


class LandmarkError(ValueError):
    """Landmarks that cannot be read, or do not fit their images."""


@dataclass(frozen=True, eq=False)
class LandmarkTable:
    """Landmarks of N images, K each.

    Args:
        images: N names, each once: paths relative to the image folder, as the file gives them.
        points: (N, K, 2) float64 pixels (x, y) of the image as stored; NaN = not visible.
        names: of the K landmarks, if they have any.
        confidence: (N, K) float64, 0 to 1; NaN = not given.
        splits: of the N images, such as ``train`` and ``test``.
        sizes: (N, 2) int64 height and width of the images as stored; 0 = not known.
        scale: (N,) float64 units of length per pixel, as of a ruler in the picture; NaN = not given.

    Raises:
        LandmarkError: sizes disagree, names are not unique, a coordinate is infinite or lacks its partner, or a size
            or scale is not positive.
    """

    images: tuple[str, ...]
    points: Floats
    names: tuple[str, ...] | None = None
    confidence: Floats | None = None
    splits: tuple[str, ...] | None = None
    sizes: Sizes | None = None
    scale: Floats | None = None

    def __post_init__(self) -> None:
        shape = self.points.shape
        if len(shape) != 3 or shape[0] != len(self.images) or shape[1] < 1 or shape[2] != 2:
            raise LandmarkError(f"points of {len(self.images)} images must be (N, K, 2) with K > 0, got {shape}")
        for what, size, wanted in (
            ("names", self.names and (len(self.names),), (shape[1],)),
            ("confidence", None if self.confidence is None else self.confidence.shape, shape[:2]),
            ("splits", None if self.splits is None else (len(self.splits),), (shape[0],)),
            ("sizes", None if self.sizes is None else self.sizes.shape, (shape[0], 2)),
            ("scale", None if self.scale is None else self.scale.shape, (shape[0],)),
        ):
            if size is not None and size != wanted:
                raise LandmarkError(f"{what} must have shape {wanted}, got {size}")
        _check_unique("image", self.images)
        _check_unique("landmark", self.names or ())
        if fault := find_fault(self.points):
            raise LandmarkError(f"{self.images[fault[0]]}: {fault[1]}")
        if self.sizes is not None and (self.sizes < 0).any():
            raise LandmarkError("the height or width of an image is negative; give 0 where it is not known")
        if self.scale is not None and not (np.isnan(self.scale) | ((self.scale > 0) & np.isfinite(self.scale))).all():
            raise LandmarkError("a scale, in units per pixel, must be positive; give NaN where it is not known")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> tuple[str, ...]:
        """The K names; of landmarks without names, their numbers from 0."""
        return self.names or tuple(map(str, range(self.points.shape[1])))

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(N, K): which landmarks have a position."""
        return ~np.isnan(self.points[..., 0])

    def select(self, indices: ArrayLike) -> LandmarkTable:
        """The rows of ``indices`` (M,), or of a mask (N,)."""
        rows = np.arange(len(self))[np.asarray(indices, None if np.size(indices) else np.intp)]
        return replace(
            self,
            images=tuple(self.images[i] for i in rows),
            points=self.points[rows],
            confidence=None if self.confidence is None else self.confidence[rows],
            splits=None if self.splits is None else tuple(self.splits[i] for i in rows),
            sizes=None if self.sizes is None else self.sizes[rows],
            scale=None if self.scale is None else self.scale[rows],
        )

    def split(self, name: str) -> LandmarkTable:
        """The rows of one split."""
        known = sorted(set(self.splits or ()))
        if name not in known:
            raise LandmarkError(f"no split {name!r}; this table has {', '.join(known) or 'no splits'}")
        return self.select([split == name for split in self.splits or ()])


def _check_unique(what: str, names: Sequence[str]) -> None:
    if "" in names:
        raise LandmarkError(f"the name of a {what} is empty")
    again = [name for name, count in Counter(names).items() if count > 1]
    if again:
        raise LandmarkError(f"each {what} must occur once, but these occur more often: {few(again)}")


def find_fault(points: Floats) -> tuple[int, str] | None:
    """First row of ``points`` (N, K, 2) that cannot be, and why."""
    blank = np.isnan(points)
    half = blank[..., 0] != blank[..., 1]
    infinite = np.isinf(points).any(-1)
    beyond = (np.abs(points) > FARTHEST).any(-1)
    for wrong, fault in (
        (half, "has only one of x and y: give both, or leave both blank if it is not visible"),
        (infinite, "is infinite: leave it blank if it is not visible"),
        (beyond, "lies beyond any image: leave it blank if it is not visible"),
    ):
        if wrong.any():
            row, k = np.argwhere(wrong)[0].tolist()
            return row, f"landmark {k} {fault}"
    return None


def lie_outside(points: Floats, sizes: Sizes) -> NDArray[np.bool_]:
    """Which (N, K) of ``points`` (N, K, 2) lie more than a pixel outside their images of ``sizes`` (N, 2).

    Landmarks that are not visible do not, nor do those of images whose size is not known.
    """
    width_height = np.where(sizes > 0, sizes, np.inf)[:, None, ::-1]
    beyond: NDArray[np.bool_] = np.any((points < -1) | (points > width_height), axis=-1)
    known = (sizes[:, :1] > 0) & (sizes[:, 1:] > 0)
    return beyond & known


def check_not_exchanged(points: Floats, sizes: Sizes) -> None:
    """Refuse landmarks whose x and y seem to have changed places.

    Args:
        points: (N, K, 2).
        sizes: (N, 2) of the images; 0 = not known.

    Raises:
        LandmarkError: if many lie outside their images, and hardly any would with x and y exchanged.
    """
    known = np.all(sizes > 0, -1)
    total = int((~np.isnan(points[known, :, 0])).sum())
    outside = int(lie_outside(points, sizes).sum())
    left = int(lie_outside(points[..., ::-1], sizes).sum())
    if outside > max(_MANY * total, _A_FEW) and left < 0.1 * outside:
        raise LandmarkError(
            f"{outside} of {total} landmarks lie outside their images, and {left or 'none'} would if x and y changed "
            "places: they seem to be exchanged, as in (row, column). x counts from the left, y from the top: correct "
            "the names of the columns"
        )


_A_FEW = 2  # landmarks are off for other reasons
_MANY = 0.2  # of the landmarks: as many lie outside where x and y of a wide picture are exchanged, and hardly otherwise


def few(items: Sequence[str], most: int = 3) -> str:
    """The first of ``items``, and how many more there are."""
    return ", ".join(map(quote, items[:most])) + (f" and {len(items) - most} more" if len(items) > most else "")


def quote(text: str, most: int = 60) -> str:
    """``text`` between quotes, cut if it is long, for a line that people read."""
    return repr(text if len(text) <= most else text[: most - 3] + "...")


# ---- images -------------------------------------------------------------------------------------------------


def match_images(table: LandmarkTable, names: Sequence[str]) -> NDArray[np.intp]:
    """For each row of ``table`` the index (N,) of its image among ``names``, as of an image source or a pack.

    Paths that are equal belong together. Otherwise the file names must be equal, perhaps but for the ending, and the
    image that shares most of the path counts: ``train/7.jpg`` finds ``images/train/7.png`` rather than ``test/7.jpg``.
    Not every image needs a row.

    Raises:
        LandmarkError: rows without an image, with several equally good ones, or with the same one.
    """
    return match_names(table.images, names)


def match_names(images: Sequence[str], names: Sequence[str]) -> NDArray[np.intp]:
    """As :func:`match_images`, for the names of the images with landmarks."""
    found = _find_candidates(images, names)
    _check_matches(images, found, names)
    return np.array([i for (i,) in found], np.intp)


def have_images(images: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which (N,) of the ``images`` with landmarks are among ``names``: see :func:`match_images`."""
    return np.array([bool(found) for found in _find_candidates(images, names)], np.bool_)


def _find_candidates(images: Sequence[str], names: Sequence[str]) -> list[list[int]]:
    """For each of ``images`` the indices of those that are equally good matches among ``names``."""
    exact = {name: i for i, name in enumerate(names)}
    parts = [_parts(name) for name in names]
    by_stem: dict[str, list[int]] = defaultdict(list)
    for i, stem in enumerate(parts):
        by_stem[stem[0]].append(i)
    found = []
    for image in images:
        if image in exact:
            found.append([exact[image]])
            continue
        mine = _parts(image)
        ranks = {i: (_shared(mine, parts[i]), _ending(image) == _ending(names[i])) for i in by_stem[mine[0]]}
        found.append([i for i, rank in ranks.items() if rank == max(ranks.values())])
    return found


def _check_matches(images: Sequence[str], found: list[list[int]], names: Sequence[str]) -> None:
    unknown = [image for image, best in zip(images, found, strict=True) if not best]
    if unknown:
        raise LandmarkError(
            f"{len(unknown)} of {len(images)} images with landmarks are not among the {len(names)} images "
            f"({few(names)}): {few(unknown)}; give the folder that holds them"
        )
    for image, best in zip(images, found, strict=True):
        if len(best) > 1:
            raise LandmarkError(
                f"{image!r} may be any of {few([names[i] for i in best])}; write more of the path in the landmark file"
            )
    taken: dict[int, str] = {}
    for image, (i,) in zip(images, found, strict=True):
        if i in taken:
            raise LandmarkError(f"{taken[i]!r} and {image!r} both seem to be {names[i]!r}; write their full paths")
        taken[i] = image


def _parts(name: str) -> tuple[str, ...]:
    """File name without an image's ending, then its folder, the folder of that, ...; a video without its ending."""
    path = PurePosixPath(name.replace("\\", "/"))
    stem = path.stem if _ending(name) in IMAGE_SUFFIXES else path.name
    return (stem, *(_video_stem(part) for part in reversed(path.parts[:-1])))


def _video_stem(folder: str) -> str:
    stem, dot, ending = folder.rpartition(".")
    return stem if dot and f".{ending.lower()}" in VIDEO_SUFFIXES else folder


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _shared(mine: tuple[str, ...], other: tuple[str, ...]) -> int:
    """How many parts are equal, from the file name upwards."""
    pairs = [a == b for a, b in zip(mine, other, strict=False)]
    return pairs.index(False) if False in pairs else len(pairs)
