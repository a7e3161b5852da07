"""From a descriptor to its place in another image."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from . import geometry

PEAK_RADIUS = 2.5  # cells around the maximum over which a position is averaged


@dataclass(frozen=True)
class Located:
    """Positions found in feature maps.

    Args:
        positions: (B, K, 2) in cells, finer than a cell.
        confidence: (B, K) in [0, 1]: the probability mass around the maximum.
    """

    positions: Tensor
    confidence: Tensor


def describe_points(features: Tensor, points: Tensor) -> Tensor:
    """Descriptors (B, K, C) of ``features`` (B, C, h, w) at ``points`` (B, K, 2) in cells, bilinear."""
    return geometry.sample(features, points).mT


def similarity(descriptors: Tensor, features: Tensor) -> Tensor:
    """Dot products (B, K, h, w) of ``descriptors`` (B, K, C) with every cell of ``features`` (B, C, h, w)."""
    products = descriptors @ features.flatten(2)
    return products.reshape(*products.shape[:2], *features.shape[-2:])


def cosine_similarity(descriptors: Tensor, features: Tensor) -> Tensor:
    """Cosines (B, K, h, w) of ``descriptors`` (B, K, C) with every cell of ``features`` (B, C, h, w)."""
    return similarity(F.normalize(descriptors, dim=-1), F.normalize(features, dim=1))


def locate(scores: Tensor, *, radius: float = PEAK_RADIUS) -> Located:
    """Where each of the maps ``scores`` (B, K, h, w), logits, has its peak.

    The position is the mean over the cells around the maximum; the confidence is the share of the whole
    map's probability (DVE eq. 2) that lies there.
    """
    near = geometry.near_peak(scores, radius)
    positions = geometry.soft_argmax(geometry.spatial_softmax(scores.masked_fill(~near, -float("inf"))))
    confidence = (geometry.spatial_softmax(scores) * near).sum((-2, -1)).clamp(max=1)
    return Located(positions, confidence)


def nearest_cell(scores: Tensor) -> Tensor:
    """Cell (B, K, 2) of the maximum of each of the maps ``scores`` (B, K, h, w), without refinement."""
    size = (scores.shape[-2], scores.shape[-1])
    grid = geometry.pixel_grid(size, device=scores.device).flatten(0, 1)
    return grid[scores.flatten(2).argmax(-1)]
