"""Landmarks of a sparse run: score maps -> positions and confidence."""

from __future__ import annotations

from torch import Tensor

from . import geometry
from .matching import Located

CONFIDENCE_RADIUS = 3.0  # cells


def detect(scores: Tensor) -> Located:
    """The K landmarks of score maps (B, K, h, w): the mean of each spatial softmax (2017, eq. 4).

    The confidence is the probability within 3 cells of that mean: near 1 for a map with one sharp peak, low
    for one that is spread or torn between places.
    """
    heatmaps = geometry.spatial_softmax(scores)
    positions = geometry.soft_argmax(heatmaps)
    grid = geometry.pixel_grid((scores.shape[-2], scores.shape[-1]), device=scores.device)
    near = (grid - positions[:, :, None, None]).square().sum(-1) <= CONFIDENCE_RADIUS**2
    return Located(positions, (heatmaps * near).sum((-2, -1)).clamp(max=1))
