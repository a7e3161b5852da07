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

from .geometry import Frame, Placement, Size
from .images import Framed, ImageError, Unreadable, open_images, read_framed
from .landmarks import LandmarkTable, match_names
from .model import Found, Head, Image, LandmarkModel
from .packs import PackedImages, is_pack
from .progress import progress_bar
from .suggestion import suggest

BATCH = 32


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


def detect_all(detector: Detector, images: str | Path, *, progress: bool = True) -> Prediction:
    """The landmarks of every image of a source."""
    return _predict(detector.detect_framed, images, detector.frame, detector.names, "detecting", progress)


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
        summaries.append(_summarise(head.model, frames))
        return head.detect_framed(frames, placements)

    found = _predict(look, images, head.frame, head.names, "looking", progress).table
    assert found.confidence is not None
    known = np.zeros(len(found), np.bool_)
    known[match_names(labelled, found.images)] = True
    order = suggest(found.confidence.mean(1), np.concatenate(summaries), known, count=count)
    return [found.images[row] for row in order]


def _summarise(model: LandmarkModel, frames: Tensor) -> NDArray[np.float32]:
    """A vector (B, D) of each of ``frames`` (B, 3, S, S): the mean descriptor, or the landmarks of a sparse run."""
    summary = (
        model.landmarks_of(frames).positions.flatten(1) if model.is_sparse else model.features(frames).mean((2, 3))
    )
    return np.asarray(summary.numpy(), np.float32)


def match_all(
    model: LandmarkModel, source: Image, points: NDArray[np.float64], targets: str | Path, *, progress: bool = True
) -> Prediction:
    """Where ``points`` (N, 2), in pixels of ``source``, lie in every target image."""
    descriptors = model.describe_points(source, points)

    def find(frames: Tensor, placements: Sequence[Placement]) -> Found:
        return model.match_framed(descriptors, frames, placements)

    return _predict(find, targets, model.frame, None, "matching", progress)


def _predict(
    find: Callable[[Tensor, Sequence[Placement]], Found],
    images: str | Path,
    frame: Frame,
    landmark_names: tuple[str, ...] | None,
    title: str,
    progress: bool,
) -> Prediction:
    names: list[str] = []
    unreadable: list[Unreadable] = []
    found: list[Found] = []
    sizes: list[Size] = []
    count, items = _open(images, frame)
    with progress_bar(title, count, shown=progress) as advance:
        for group in _groups(items):
            advance(len(group))
            framed = [item for item in group if isinstance(item, Framed)]
            unreadable += [item for item in group if isinstance(item, Unreadable)]
            if framed:
                pixels = torch.from_numpy(np.stack([item.pixels for item in framed])).movedim(-1, 1)
                found.append(find(pixels, [item.placement for item in framed]))
                names += [item.name for item in framed]
                sizes += [item.size for item in framed]
    if not found:
        reasons = "; ".join(f"{item.name}: {item.reason}" for item in unreadable[:3])
        raise ImageError(f"none of the {count} images of {images} can be read; {reasons}")
    points, confidence = (np.concatenate(parts) for parts in zip(*found, strict=True))
    table = LandmarkTable(
        tuple(names), points, names=landmark_names, confidence=confidence, sizes=np.array(sizes, np.int64)
    )
    return Prediction(table, tuple(unreadable))


def _open(images: str | Path, frame: Frame) -> tuple[int, Iterator[Framed | Unreadable]]:
    """How many images a source has, and the images brought to the frame."""
    if not is_pack(images):
        source = open_images(images)
        return len(source), read_framed(source, frame)
    packed = PackedImages.open(images)
    if packed.frame.size != frame.size:
        raise ImageError(f"{images} is packed at {packed.frame.size} px, the model sees {frame.size} px: pack it again")
    items = (
        Framed(name, packed.images[i], packed.image_size(i), packed.placement(i)) for i, name in enumerate(packed.names)
    )
    return len(packed), items


def _groups(items: Iterator[Framed | Unreadable]) -> Iterator[list[Framed | Unreadable]]:
    while group := list(islice(items, BATCH)):
        yield group
