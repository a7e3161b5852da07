"""Points of some images found on others, with heat maps and colour maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equimark.app import AppError
from equimark.app.vision import DenseVision, SparseVision, heat_bytes
from equimark.geometry import Placement
from equimark.images import Box

# Of those images that can be read: their indices, records (B, ...) and placements.
Look = Callable[[Sequence[int]], tuple[list[int], NDArray[Any], list[Placement]]]


@dataclass(frozen=True)
class Point:
    """A point on an image, in its pixels, to be found on others."""

    image: int
    x: float
    y: float


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be found.

    Args:
        points: P of them, on any images.
        targets: the images to look at.
        heat_of: the point whose heat map is wanted.
        colours: (P, 3) uint8 of the points: each cell takes that of the point it resembles most.
        reference: an image by which to colour the others instead: each cell takes the colour of the place in this
            image that it resembles most.
    """

    points: Sequence[Point]
    targets: Sequence[int]
    heat_of: int | None = None
    colours: NDArray[np.uint8] | None = None
    reference: int | None = None


@dataclass(frozen=True, eq=False)
class Sight:
    """What was found on one image.

    Args:
        points: (P, 2) in its pixels.
        confidence: (P,) from 0 to 1.
        box: of the maps, in pixel borders of the image.
        heat: (h, w) uint8, of one point.
        colours: (h, w, 3) uint8.
    """

    points: NDArray[np.float64]
    confidence: NDArray[np.float64]
    box: Box
    heat: NDArray[np.uint8] | None = None
    colours: NDArray[np.uint8] | None = None


def explore(vision: DenseVision, look: Look, question: Question) -> dict[int, Sight]:
    """Find points on other images by their descriptors; images that cannot be read are left out.

    Raises:
        AppError: if an image with a point on it cannot be read.
    """
    descriptors = _describe(vision, look, question.points)
    there, records, placements = look(question.targets)
    if not there:
        return {}
    points, confidence = np.empty((len(there), 0, 2)), np.empty((len(there), 0))
    heat = None
    if question.points:
        points, confidence, heat_maps = vision.find(descriptors, records, placements)
        heat = None if question.heat_of is None else heat_bytes(heat_maps[:, question.heat_of])
    colours = _colour_maps(vision, look, question, descriptors, records)
    return {
        image: Sight(
            points[i],
            confidence[i],
            _box(vision, placements[i]),
            None if heat is None else heat[i],
            None if colours is None else colours[i],
        )
        for i, image in enumerate(there)
    }


def own_landmarks(vision: SparseVision, look: Look, targets: Sequence[int]) -> dict[int, Sight]:
    """The landmarks of a sparse run on images."""
    there, records, placements = look(targets)
    if not there:
        return {}
    points, confidence = vision.landmarks(records, placements)
    return {image: Sight(points[i], confidence[i], placements[i].box) for i, image in enumerate(there)}


def _describe(vision: DenseVision, look: Look, points: Sequence[Point]) -> Tensor:
    """Descriptors (P, C) of points."""
    described = []
    for point in points:
        there, records, placements = look([point.image])
        if not there:
            raise AppError("an image with a point on it cannot be read")
        described.append(vision.describe(records[0], placements[0], (point.x, point.y)))
    return torch.stack(described) if described else torch.empty(0, vision.shape[0])


def _colour_maps(
    vision: DenseVision, look: Look, question: Question, descriptors: Tensor, records: NDArray[Any]
) -> NDArray[np.uint8] | None:
    if question.reference is not None:
        there, own, _ = look([question.reference])
        return vision.colour_by(*vision.references(own[0]), records) if there else None
    if question.colours is None or not len(question.points):
        return None
    return vision.colour_by(descriptors, question.colours, records)


def _box(vision: DenseVision, placement: Placement) -> Box:
    """What the cells of a map cover, in pixel borders of the image."""
    cells, (height, width) = vision.model.network.cells, vision.shape[1:]
    first = cells.offset - cells.stride / 2
    corners = np.array([[first, first], [first + cells.stride * width, first + cells.stride * height]])
    (x0, y0), (x1, y1) = (placement.to_image(corners) + 0.5).tolist()
    return x0, y0, x1, y1
