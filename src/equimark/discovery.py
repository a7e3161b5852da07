"""Landmarks without any label: the places of a dense run that are found again most surely."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from . import geometry, matching
from .embedding import ModelError, batches
from .head import Head, fit_head
from .methods import cells_correspondence
from .model import LandmarkModel
from .pairs import draw_warps

_CANDIDATES = 6  # for each landmark that is wanted
_CELLS = 20_000  # descriptors to look for candidates among
_WORST = 6.0  # cells: being further off counts the same
_LABELLED = 64  # images that the head is fitted to


def discover(model: LandmarkModel, frames: Tensor, count: int, *, seed: int = 0) -> Head:
    """``count`` stable, distinct landmarks of a run with descriptors, ordered from top to bottom.

    Candidates are the centres of clusters of descriptors. The frames are warped at random as in training: a candidate
    is as stable as the places where it is found in two views of an image belong together. The most stable and plain are
    taken, each at some distance from those before it. The head is fitted to the images that show them most plainly.

    Args:
        model: with descriptors.
        frames: (N, 3, S, S) uint8, as many as there are to hand.
        count: of landmarks.
        seed: of clusters and warps.

    Raises:
        ModelError: if the run has no descriptors, or there are too few frames or clusters.
    """
    if not model.has_descriptors:
        raise ModelError(f"a {model.config.method} run has no descriptors to discover landmarks in")
    if count < 1 or len(frames) < 2:
        raise ModelError(f"{count} landmarks from {len(frames)} images: give at least one, and two images")
    descriptors = _candidates(model, frames, count, seed)
    unstable = _instability(model, frames, descriptors, seed)
    places, confidence = _find(model, frames, descriptors)
    side = model.frame.size / model.network.cells.stride
    chosen = _choose(places, unstable / confidence.mean(0), count, side)
    chosen = chosen[places[:, chosen, 1].mean(0).argsort()]
    plainest = confidence[:, chosen].mean(1).argsort(descending=True)[:_LABELLED]
    points = model.network.cells.to_pixels(places[plainest][:, chosen])
    return fit_head(model, frames[plainest], points.double().numpy())


def _candidates(model: LandmarkModel, frames: Tensor, count: int, seed: int) -> Tensor:
    """Descriptors (M, C) of cluster centres."""
    from sklearn.cluster import KMeans  # takes seconds to import, which only discovery should wait for

    chosen = frames[torch.linspace(0, len(frames) - 1, min(100, len(frames))).long()]
    cells = torch.cat([model.features(chosen[part]).movedim(1, -1).flatten(0, 2) for part in batches(len(chosen))])
    generator = torch.Generator().manual_seed(seed)
    sample = cells[torch.randperm(len(cells), generator=generator)[:_CELLS]].numpy()
    wanted = min(_CANDIDATES * count, len(np.unique(sample, axis=0)))
    if wanted < count:
        raise ModelError(
            f"these images show {wanted} different descriptors only: {count} landmarks cannot be told apart"
        )
    return torch.from_numpy(KMeans(wanted, n_init=1, random_state=seed).fit(sample).cluster_centers_)


def _instability(model: LandmarkModel, frames: Tensor, descriptors: Tensor, seed: int) -> Tensor:
    """How far, in cells, each candidate (M,) is found from where the warp says, on average over images that show it."""
    generator = torch.Generator().manual_seed(seed)
    errors = []
    for part in batches(len(frames)):
        warps = draw_warps(model.config.pairs, part.stop - part.start, frames.shape[-1], generator=generator)
        views = warps.views(frames[part].float() / 255)
        source, target = model.features_of(torch.cat([views.source, views.target])).chunk(2)
        size = (source.shape[-2], source.shape[-1])
        at = cells_correspondence(views, model.network.cells, size)
        found, again = (matching.locate(matching.similarity(descriptors, view)).positions for view in (source, target))
        belongs = geometry.sample(at.movedim(-1, 1), found).mT
        error = (again - belongs).norm(dim=-1).clamp_max(_WORST)
        errors.append(error.masked_fill(~geometry.inside(belongs, size), torch.nan))
    return torch.cat(errors).nanmean(0).nan_to_num(_WORST)


def _find(model: LandmarkModel, frames: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor]:
    """Places (N, M, 2) in cells of whole frames, and confidence (N, M)."""
    features = (model.features(frames[part]) for part in batches(len(frames)))
    found = [matching.locate(matching.similarity(descriptors, part)) for part in features]
    return torch.cat([each.positions for each in found]), torch.cat([each.confidence for each in found])


def _choose(places: Tensor, cost: Tensor, count: int, side: float) -> Tensor:
    """Candidates (count,), those of least ``cost`` (M,) first, at a distance that leaves room for so many."""
    between = torch.cdist(places.movedim(1, 0).flatten(1), places.movedim(1, 0).flatten(1)) / len(places) ** 0.5
    spacing = 0.5 * side / count**0.5
    while True:
        chosen: list[int] = []
        for candidate in cost.argsort().tolist():
            if len(chosen) < count and all(between[candidate, other] >= spacing for other in chosen):
                chosen.append(candidate)
        if len(chosen) == count:
            return torch.tensor(chosen)
        spacing /= 2
