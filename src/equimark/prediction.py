"""A model over all images of a folder, a .zip, a list or a pack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .embedding import Found, Image
from .geometry import Frame, Placement, Size
from .head import Head
from .images import Framed, ImageError, Unreadable, open_images, read_framed
from .landmarks import LandmarkTable, match_names
from .model import LandmarkModel
from .packs import PackedImages
from .progress import Advance, progress_bar
from .suggestion import suggest, summarise

BATCH = 32

Find = Callable[[Tensor, Sequence[Placement]], Found]  # as Detector.detect_framed


class Detector(Protocol):
    """What finds K landmarks in framed images: a sparse run or a fitted head."""

    @property
    def frame(self) -> Frame:
        """The square in which it sees an image."""
        ...

    @property
    def names(self) -> tuple[str, ...] | None:
        """Of the landmarks."""
        ...

    def detect_framed(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """Points (B, K, 2) in image pixels and confidence (B, K) for ``frames`` (B, 3, S, S) uint8."""
        ...


@dataclass(frozen=True)
class Prediction:
    """Landmarks of many images.

    Args:
        table: in pixels of each image as stored, with confidence and the sizes of the images.
        unreadable: the images that could not be read.
    """

    table: LandmarkTable
    unreadable: tuple[Unreadable, ...]

    def without_doubtful(self, least: float) -> Prediction:
        """With landmarks blank whose confidence is below ``least``."""
        assert self.table.confidence is not None
        doubtful = self.table.confidence < least
        points = np.where(doubtful[..., None], np.nan, self.table.points)
        return replace(self, table=replace(self.table, points=points))


@dataclass(frozen=True)
class Matcher:
    """Finds given points as a :class:`Detector` finds landmarks.

    Args:
        model: with descriptors.
        descriptors: of the points (K, C).
    """

    model: LandmarkModel
    descriptors: Tensor
    names: tuple[str, ...] | None = None

    @property
    def frame(self) -> Frame:
        """The square in which the model sees an image."""
        return self.model.frame

    def detect_framed(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """Points (B, K, 2) in image pixels and confidence (B, K) for ``frames`` (B, 3, S, S) uint8."""
        return self.model.match_framed(self.descriptors, frames, placements)


def detect_all(detector: Detector, images: str | Path, *, progress: bool = True) -> Prediction:
    """The landmarks of every image of a source."""
    return _predict_all(detector.detect_framed, images, detector.frame, detector.names, "detecting", progress)


def suggest_images(
    head: Head, images: str | Path, labelled: Sequence[str], count: int, *, progress: bool = True
) -> list[str]:
    """The images whose labels would help a head most, best first: on which it is unsure, and unlike those labelled.

    Args:
        head: fitted to the labels so far.
        images: to choose among.
        labelled: names of those that are labelled.
        count: of suggestions, at most.
    """
    summaries: list[NDArray[np.float32]] = []

    def look(frames: Tensor, placements: Sequence[Placement]) -> Found:
        summaries.append(summarise(head.model, frames))
        return head.detect_framed(frames, placements)

    found = _predict_all(look, images, head.frame, head.names, "looking", progress).table
    assert found.confidence is not None
    known = np.zeros(len(found), np.bool_)
    known[match_names(labelled, found.images)] = True
    order = suggest(found.confidence.mean(1), np.concatenate(summaries), known, count=count)
    return [found.images[row] for row in order]


def match_all(
    model: LandmarkModel, source: Image, points: NDArray[np.float64], targets: str | Path, *, progress: bool = True
) -> Prediction:
    """Where ``points`` (N, 2), in pixels of ``source``, lie in every target image."""
    matcher = Matcher(model, model.describe_points(source, points))
    return _predict_all(matcher.detect_framed, targets, matcher.frame, matcher.names, "matching", progress)


def _predict_all(
    find: Find, images: str | Path, frame: Frame, landmark_names: tuple[str, ...] | None, title: str, progress: bool
) -> Prediction:
    source = open_framed(images, frame)
    with progress_bar(title, len(source), shown=progress) as advance:
        found, unreadable = predict(find, source.read(range(len(source))), advance)
    if found is None:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in unreadable[:3])
        raise ImageError(f"none of the {len(source)} images of {images} can be read; {reasons}")
    return Prediction(replace(found, names=landmark_names), tuple(unreadable))


def predict(
    find: Find, images: Iterator[Framed | Unreadable], advance: Advance
) -> tuple[LandmarkTable | None, list[Unreadable]]:
    """What ``find`` finds in those of some images that could be read, None if there are none; and the others."""
    names: list[str] = []
    unreadable: list[Unreadable] = []
    found: list[Found] = []
    sizes: list[Size] = []
    for group in _groups(images):
        advance(len(group))
        framed = [item for item in group if isinstance(item, Framed)]
        unreadable += [item for item in group if isinstance(item, Unreadable)]
        if framed:
            pixels = torch.from_numpy(np.stack([item.pixels for item in framed])).movedim(-1, 1)
            found.append(find(pixels, [item.placement for item in framed]))
            names += [item.name for item in framed]
            sizes += [item.size for item in framed]
    if not found:
        return None, unreadable
    points, confidence = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return LandmarkTable(tuple(names), points, confidence=confidence, sizes=np.array(sizes, np.int64)), unreadable


@dataclass(frozen=True)
class FramedImages:
    """The images of a source, brought to a frame as they are read.

    Args:
        names: of the images, in their order.
        read: the images of a range, in their order, without a look at the others.
    """

    names: list[str]
    read: Callable[[range], Iterator[Framed | Unreadable]]

    def __len__(self) -> int:
        return len(self.names)


def open_framed(images: str | Path, frame: Frame, *, workers: int | None = None) -> FramedImages:
    """The images of a folder, a .zip, a list or a pack, in a frame; decoded in ``workers`` threads.

    Raises:
        ImageError: as of :func:`open_images`; or a pack of another size.
    """
    packed = PackedImages.find(images)
    if packed is None:
        source = open_images(images)

        def read(rows: range) -> Iterator[Framed | Unreadable]:
            return read_framed(replace(source, names=source.names[rows.start : rows.stop]), frame, workers=workers)

        return FramedImages(source.names, read)
    if packed.frame.size != frame.size:
        raise ImageError(f"{images} is packed at {packed.frame.size} px, the model sees {frame.size} px: pack it again")

    def take(rows: range) -> Iterator[Framed | Unreadable]:
        return (Framed(packed.names[i], packed.images[i], packed.image_size(i), packed.placement(i)) for i in rows)

    return FramedImages(packed.names, take)


def _groups(items: Iterator[Framed | Unreadable]) -> Iterator[list[Framed | Unreadable]]:
    while group := list(islice(items, BATCH)):
        yield group
