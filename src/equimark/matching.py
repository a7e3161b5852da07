"""From a descriptor to its place in another image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import geometry

_NEGLIGIBLE = -80.0  # logits below the maximum; processors take many times longer over numbers that underflow
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
    """Dot products (B, K, h, w) of ``descriptors`` with every cell of ``features`` (B, C, h, w).

    Descriptors are of each image (B, K, C), or the same for all (K, C); either way each image takes one matrix product.
    """
    products = descriptors @ features.flatten(2)
    return products.reshape(*products.shape[:2], *features.shape[-2:])


def cosine_similarity(descriptors: Tensor, features: Tensor) -> Tensor:
    """Cosines (B, K, h, w) of ``descriptors``, (B, K, C) or (K, C), with every cell of ``features`` (B, C, h, w)."""
    return similarity(F.normalize(descriptors, dim=-1), F.normalize(features, dim=1))


def locate(scores: Tensor, *, radius: float = PEAK_RADIUS) -> Located:
    """Where each of the maps ``scores`` (B, K, h, w), logits, has its peak.

    The position is the mean over the cells around the maximum, where a mean over the whole map would be drawn to its
    centre by mass far away; the confidence is the share of the map's probability (DVE eq. 2) that lies there.
    """
    size = (scores.shape[-2], scores.shape[-1])
    logits = scores.flatten(2)
    highest, peak = logits.max(-1, keepdim=True)
    peak = peak.squeeze(-1)
    cells = torch.stack([peak % size[1], peak // size[1]], -1)[:, :, None] + _disc(radius, scores.device)
    outside = ~geometry.inside(cells, size)
    at = (cells[..., 1] * size[1] + cells[..., 0]).masked_fill(outside, 0)
    near = logits.gather(-1, at.flatten(2)).masked_fill(outside, -float("inf"))
    positions = (near.softmax(-1)[..., None] * cells).sum(-2)
    everything = (logits - highest).clamp_min(_NEGLIGIBLE).exp().sum(-1)
    confidence = ((near - highest).exp().sum(-1) / everything).clamp(max=1)
    return Located(positions, confidence)


def _disc(radius: float, device: torch.device) -> Tensor:
    """Steps (P, 2) to the cells within ``radius`` of a cell."""
    reach = int(radius)
    steps = geometry.pixel_grid((2 * reach + 1, 2 * reach + 1), device=device).long().flatten(0, 1) - reach
    return steps[steps.square().sum(-1) <= radius**2]


def nearest_cell(scores: Tensor) -> Tensor:
    """Cell (B, K, 2) of the maximum of each of the maps ``scores`` (B, K, h, w), without refinement."""
    size = (scores.shape[-2], scores.shape[-1])
    grid = geometry.pixel_grid(size, device=scores.device).flatten(0, 1)
    return grid[scores.flatten(2).argmax(-1)]
