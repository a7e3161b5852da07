"""What every reader returns: a data set in its official splits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equimark.geometry import Frame, Size
from equimark.images import Framed, ImageError, ImageSource, Pixels, frame_image
from equimark.landmarks import LandmarkTable

Labels = NDArray[np.uint8]
Flow = NDArray[np.float32]
FrameOf = Callable[[int, Size, int], Frame]


class BenchmarkError(ValueError):
    """A published data set that is not complete, or not as its authors distribute it."""


@dataclass(frozen=True, eq=False)
class Split:
    """One official split of a data set: N images and what is known of them.

    Args:
        images: of the split, in a fixed order, with names that are unique in the data set.
        frame_of: the protocol's crop: row, (H, W) of the image and side of the frame in pixels -> its frame.
        table: landmarks of the images, a row each in their order, in pixels of the image as stored, pixel centres at
            integers; NaN = not visible.
        classes: of the N images: digit, species, subject, part of the set.
        pairs: (M, 2) rows of images that show the same thing at the same place.
        size: (H, W) of every image, if all are alike.
        read_parts: row -> labels of its pixels.
        read_flow: row -> where its pixels lie in the next frame; None for the last frame.

    Raises:
        BenchmarkError: no images, or the rows of images, table and classes do not belong together.
    """

    images: ImageSource
    frame_of: FrameOf
    table: LandmarkTable | None = None
    classes: tuple[str, ...] | None = None
    pairs: NDArray[np.int64] | None = None
    size: Size | None = None
    read_parts: Callable[[int], Labels] | None = field(default=None, repr=False)
    read_flow: Callable[[int], Flow | None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not len(self):
            raise BenchmarkError(f"{self.images.path}: a split without images")
        if self.table is not None and self.table.images != tuple(self.images.names):
            raise BenchmarkError(f"{self.images.path}: the landmarks are not those of the images, row by row")
        if self.classes is not None and len(self.classes) != len(self):
            raise BenchmarkError(f"{self.images.path}: {len(self)} images, but {len(self.classes)} classes")

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, row: int) -> Pixels:
        """An image (H, W, 3) uint8 RGB, as stored.

        Raises:
            BenchmarkError: if it cannot be read, or is not of the size that it, or all of this set, should have.
        """
        where = self.images.path / self.images.names[row]
        try:
            pixels = self.images.decoded(row).pixels
        except ImageError as error:
            raise BenchmarkError(f"{where}: {error}") from None
        wanted = self.size
        if wanted is None and self.table is not None and self.table.sizes is not None and self.table.sizes[row].all():
            wanted = (int(self.table.sizes[row, 0]), int(self.table.sizes[row, 1]))
        if wanted is not None and pixels.shape[:2] != wanted:
            what = "the images of this set have" if self.size else "its landmarks are for"
            raise BenchmarkError(
                f"{where} has {pixels.shape[1]} x {pixels.shape[0]} pixels, but {what} {wanted[1]} x {wanted[0]}; "
                "take the images as they are distributed"
            )
        return pixels

    def framed(self, row: int, frame_size: int) -> Framed:
        """An image in the protocol's crop; ``placement.to_frame`` brings its landmarks there.

        Raises:
            BenchmarkError: if it cannot be read.
        """
        pixels = self.pixels(row)
        size = (pixels.shape[0], pixels.shape[1])
        square, placement = frame_image(pixels, self.frame_of(row, size, frame_size))
        return Framed(self.images.names[row], square, size, placement)

    def parts(self, row: int) -> Labels | None:
        """Labels (H, W) of the pixels of an image, as stored; None if this set has none.

        Raises:
            BenchmarkError: if they cannot be read.
        """
        return None if self.read_parts is None else self.read_parts(row)

    def flow(self, row: int) -> Flow | None:
        """Displacements (H, W, 2) from a frame to the next row's, in pixels; None if there is no next, or no flow.

        Raises:
            BenchmarkError: if they cannot be read.
        """
        return None if self.read_flow is None else self.read_flow(row)

    def first(self, count: int) -> Split:
        """The first images alone, with what is known of them."""
        pairs = None if self.pairs is None else self.pairs[(self.pairs < count).all(1)]
        return replace(
            self,
            images=replace(self.images, names=self.images.names[:count]),
            table=self.table and self.table.select(np.arange(min(count, len(self)))),
            classes=self.classes and self.classes[:count],
            pairs=pairs,
        )

    def check(self) -> None:
        """Read every image, and its parts and flow, once.

        Raises:
            BenchmarkError: for the first that cannot be read.
        """
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(self._check_row, range(len(self))):
                pass

    def _check_row(self, row: int) -> None:
        self.pixels(row), self.parts(row), self.flow(row)

    def fingerprint(self) -> str:
        """Of the names and bytes of all images, their crop, landmarks and classes: 16 characters."""
        first = self.pixels(0).shape
        crop = self.frame_of(0, (first[0], first[1]), 100)
        found = hashlib.sha256(f"{len(self)} {crop} {self.classes}".encode())
        if self.table is not None:
            found.update(np.ascontiguousarray(self.table.points).data)
        with ThreadPoolExecutor() as pool:
            for name, own in zip(self.images.names, pool.map(self._digest_row, range(len(self))), strict=True):
                found.update(name.encode() + own)
        return found.hexdigest()[:16]

    def _digest_row(self, row: int) -> bytes:
        try:
            return hashlib.sha256(self.images.read(row)).digest()
        except (ImageError, OSError) as error:
            raise BenchmarkError(f"{self.images.path / self.images.names[row]}: {error}") from None


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A published data set.

    Args:
        name: as in :data:`equimark.benchmarks.NAMES`.
        home: its page.
        splits: by name: ``train``, ``test``, ... .
        eyes: the two landmarks whose distance is the unit of errors.
        landmark_names: of the landmarks.
        part_names: of the labels of pixels, from 0.
        note: what a user should know: how this reading differs from the papers', or what they leave open.
    """

    name: str
    home: str
    splits: Mapping[str, Split]
    eyes: tuple[int, int] | None = None
    landmark_names: tuple[str, ...] | None = None
    part_names: tuple[str, ...] | None = None
    note: str = ""

    def split(self, name: str) -> Split:
        """One split.

        Raises:
            BenchmarkError: if this set has none of that name.
        """
        if name not in self.splits:
            raise BenchmarkError(f"{self.name} has no split {name!r}; it has {', '.join(self.splits)}")
        return self.splits[name]

    def check(self) -> None:
        """Read every image of every split once, which takes minutes for a large set.

        Raises:
            BenchmarkError: for the first that cannot be read.
        """
        for split in self.splits.values():
            split.check()

    def fingerprint(self) -> str:
        """Of all splits: see :meth:`Split.fingerprint`."""
        each = [f"{name} {split.fingerprint()}" for name, split in self.splits.items()]
        return hashlib.sha256(" ".join(each).encode()).hexdigest()[:16]


def framing(fit: str, pad: float = 0, **settings: Any) -> FrameOf:
    """The same crop for every image: ``fit`` and further settings of :class:`Frame`, ``pad`` as a share of its side."""
    return partial(_fixed_frame, fit, pad, settings)


def _fixed_frame(fit: str, pad: float, settings: dict[str, Any], row: int, size: Size, frame_size: int) -> Frame:
    return Frame(frame_size, fit, round(pad * frame_size), **settings)


WHOLE = framing("stretch")  # the whole image, whatever its proportions
