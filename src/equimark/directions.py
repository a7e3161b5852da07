"""Things that lie in any direction, as animals seen from above: how far shapes and images are turned.

A turn by ``a`` radians takes the x axis towards the y axis: clockwise as the image is seen, around the middle of the
frame. The network never has to know a thing in all directions: labelled images are turned until their shapes stand
alike, and an image is looked at in :data:`LOOKS` directions, to learn in which of them it stands so too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from . import geometry
from .matching import Located

Direction = Literal["auto", "upright", "any"]

LOOKS = 12  # directions in which an image is looked at; with 16 the error of mice is the same
ALIGNED = 0.9  # length of the mean of the directions of shapes, as unit vectors: above, shapes stand alike
_ROUNDS = 5  # in which shapes are aligned to their mean


def looks() -> Tensor:
    """The turns (LOOKS,) to try."""
    return torch.arange(LOOKS) * (2 * math.pi / LOOKS)


def turns_between(shapes: Tensor, reference: Tensor) -> Tensor:
    """The turn (N,) of each of ``shapes`` (N, K, 2) from ``reference`` (K, 2), by least squares after centring.

    NaN where a landmark is not visible. A shape that shares fewer than two landmarks with the reference is not turned.
    """
    both = (~shapes.isnan().any(-1) & ~reference.isnan().any(-1))[..., None]
    own, other = _centred(shapes, both), _centred(reference.expand_as(shapes), both)
    along = (own * other).sum((-1, -2))
    across = (other[..., 0] * own[..., 1] - other[..., 1] * own[..., 0]).sum(-1)
    return torch.atan2(across, along)


def turns_of(shapes: Tensor) -> Tensor:
    """The turn (N,) of each of ``shapes`` (N, K, 2) from their mean shape, which stands in their mean direction."""
    reference = shapes[(~shapes.isnan().any(-1)).sum(1).argmax()]
    for _ in range(_ROUNDS):
        turns = turns_between(shapes, reference)
        reference = turn_points(shapes - shapes.nanmean(1, keepdim=True), -turns).nanmean(0)
    mean = torch.atan2(turns.sin().mean(), turns.cos().mean())
    return torch.remainder(turns - mean + math.pi, 2 * math.pi) - math.pi


def stand_alike(shapes: Tensor) -> bool:
    """Whether ``shapes`` (N, K, 2) lie in about the same direction, as far as so many can tell."""
    turns = turns_of(shapes)
    return math.hypot(float(turns.cos().mean()), float(turns.sin().mean())) > ALIGNED


def upright(shapes: Tensor) -> Tensor:
    """``shapes`` (N, K, 2) turned around (0, 0) until they stand alike."""
    return turn_points(shapes, -turns_of(shapes))


def turn_points(points: Tensor, turns: Tensor, centre: float = 0.0) -> Tensor:
    """``points`` (N, ..., 2) turned by ``turns`` (N,) around (``centre``, ``centre``)."""
    shape = (-1, *[1] * (points.ndim - 2))
    cos, sin = turns.cos().view(shape).to(points), turns.sin().view(shape).to(points)
    x, y = (points - centre).unbind(-1)
    return torch.stack([cos * x - sin * y, sin * x + cos * y], -1) + centre


def turn_frames(frames: Tensor, turns: Tensor) -> Tensor:
    """``frames`` (N, 3, S, S) uint8 turned by ``turns`` (N,) around their middle; the border goes on beyond it."""
    size = frames.shape[-1]
    grid = geometry.pixel_grid((size, size)).expand(frames.shape[0], -1, -1, -1)
    drawn = geometry.sample(frames.float(), turn_points(grid, -turns, (size - 1) / 2))
    return drawn.round().to(torch.uint8)


def locate(
    frames: Tensor,
    glance: Callable[[Tensor], Located],
    look: Callable[[Tensor], Located],
    likelihood: Callable[[Located], Tensor],
    mean_shape: Tensor,
    cells: geometry.Cells,
) -> Located:
    """Landmarks of things in any direction: of all looks the likeliest one, turned until it stands upright.

    Args:
        frames: (B, 3, S, S) uint8.
        glance: frames to landmarks (B, K, 2), in cells, of things that stand upright; those that do not are to be told.
        look: the same of things that are known to stand upright.
        likelihood: of what a glance finds (B,).
        mean_shape: of upright things (K, 2), in cells.
        cells: of the maps.
    """
    count = frames.shape[0]
    tried = looks()[:, None].expand(-1, count)
    found = glance(turn_frames(frames.repeat(LOOKS, 1, 1, 1), -tried.flatten()))
    best = likelihood(found).view(LOOKS, count).argmax(0)
    each = torch.arange(count)
    shapes = found.positions.view(LOOKS, count, *mean_shape.shape)[best, each]
    turns = looks()[best] + turns_between(shapes, mean_shape)
    upright = look(turn_frames(frames, -turns))
    points = turn_points(cells.to_pixels(upright.positions), turns, (frames.shape[-1] - 1) / 2)
    return Located(cells.to_cells(points), upright.confidence)


def _centred(shapes: Tensor, known: Tensor) -> Tensor:
    """``shapes`` (N, K, 2) around the mean of what is ``known`` (N, K, 1), and 0 where nothing is."""
    shapes = shapes.where(known, 0)
    return (shapes - shapes.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)).where(known, 0)
