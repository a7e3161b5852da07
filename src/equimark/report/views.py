"""The images that a report shows, what a run finds on them, and the names of sections and figures."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equimark import detection, matching, plots
from equimark.matching import Located
from equimark.model import LandmarkModel
from equimark.packs import PackedImages

MATCHED_POINTS = 12
_CANDIDATES = 24  # source points are chosen from at most that many rows and columns of cells

Float = NDArray[np.float64]


def choose(images: PackedImages, count: int, seed: int) -> Tensor:
    """Frames (B, 3, S, S) uint8 of at most ``count`` images, in a random order that ``seed`` decides."""
    order = np.random.default_rng(seed).permutation(len(images))
    return images.batch(order[:count])


def as_pictures(images: Tensor) -> list[plots.Image]:
    """Images (B, 3, H, W), uint8 or in [0, 1], as (H, W, 3) uint8."""
    pixels = images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).to(torch.uint8)
    return list(pixels.movedim(1, -1).numpy())


def detect(model: LandmarkModel, views: Tensor) -> tuple[Float, Float]:
    """Landmarks (B, K, 2) and confidence (B, K) of ``views`` (B, 3, h, w) in [0, 1], in pixels of the views."""
    located = detection.detect(model.scores_of(views))
    points: Tensor = model.network.cells.to_pixels(located.positions)
    return points.double().numpy(), located.confidence.double().numpy()


def find(source: Tensor, cells: Tensor, targets: Tensor) -> Located:
    """Where ``cells`` (N, 2) of features (C, h, w) lie in ``targets`` (B, C, h, w), in cells."""
    return matching.locate(similarity(source, cells, targets))


def similarity(source: Tensor, cells: Tensor, targets: Tensor) -> Tensor:
    """Of ``cells`` (N, 2) of features (C, h, w) to ``targets`` (B, C, h, w)."""
    return matching.similarity(matching.describe_points(source[None], cells[None])[0], targets)


def confident_cells(source: Tensor, targets: Tensor, count: int) -> Tensor:
    """Cells (count, 2) of ``source`` (C, h, w) that match surely in ``targets`` (B, C, h, w), far from each other.

    Of the cells of the middle two thirds, the surer half is kept; farthest-point sampling spreads the
    choice, beginning with the surest.
    """
    height, width = source.shape[-2:]
    rows, columns = (torch.linspace(n / 6, n - 1 - n / 6, min(_CANDIDATES, n)).round() for n in (height, width))
    candidates = torch.cartesian_prod(columns, rows)
    sure = torch.stack([find(source, candidates, t[None]).confidence[0] for t in targets]).mean(0)
    best = sure.argsort(descending=True)[: max(count, len(sure) // 2)]
    candidates = candidates[best]
    chosen = [0]
    nearest = (candidates - candidates[0]).norm(dim=-1)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(nearest.argmax()))
        nearest = nearest.minimum((candidates - candidates[chosen[-1]]).norm(dim=-1))
    return candidates[chosen]


def median(errors: NDArray[np.floating[Any]]) -> str:
    """Of those that are known, in words."""
    known = errors[np.isfinite(errors)]
    return f"{np.median(known):.1f}" if len(known) else "unknown"


def titled(title: str, label: str) -> str:
    """Title of a section about the run ``label``."""
    return f"{title}: {label}" if label else title


def named(name: str, label: str) -> str:
    """Name of a figure about the run ``label``."""
    return re.sub(r"[^\w-]+", "-", f"{label}-{name}") if label else name
