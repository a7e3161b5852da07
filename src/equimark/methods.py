"""What each method asks of a network: a batch in, the named terms of its objective out.

The terms are means over the pairs that a process has; averaged over processes they are those of all pairs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import geometry, objectives
from .config import RunConfig
from .geometry import Cells
from .objectives import Terms
from .pairs import PairBatch
from .processes import ALONE, Processes
from .sampling import Batch, LabelledBatch


def compute_terms(
    network: nn.Module, batch: Batch, config: RunConfig, cells: Cells, processes: Processes = ALONE
) -> Terms:
    """The named terms of the objective of ``config`` on a batch, ``total`` among them.

    The network may run in half precision; the objective is computed in single precision.

    Args:
        network: in training mode, or not.
        batch: what this process has.
        config: of the run.
        cells: of the network's features.
        processes: which work on the step together; all must call this.
    """
    if isinstance(batch, LabelledBatch):
        return _labelled_terms(network(batch.images).float(), batch, processes)
    if config.pairs.motion == "unknown":
        return _unknown_terms(network, batch, config, cells, processes)
    if config.method == "sparse":
        source, target = _features(network, batch.source, batch.target)
        return _sparse_terms(source, target, *_correspondence(batch, config, cells, _size(source)), config, cells)
    return _matching_terms(network, batch, config, cells, processes)


def _sparse_terms(
    source: Tensor, target: Tensor, at_cells: Tensor, weights: Tensor | None, config: RunConfig, cells: Cells
) -> Terms:
    """Of score maps (B, K, h, w), where the source's cells lie in the target (B, h, w, 2) and what they weigh."""
    spec = config.objective
    terms = objectives.sparse_equivariance(
        source,
        target,
        at_cells,
        stride=cells.stride,
        gamma=spec.gamma,
        window=spec.window,
        alignment=spec.alignment,
        diversity=spec.diversity,
        weights=weights,
    )
    health = objectives.sparse_health(source, terms["alignment"], at_cells, stride=cells.stride, weights=weights)
    if config.pairs.is_still:  # landmarks that stand still are right, and there is nothing to divide by
        del health["alignment_share"]
    return terms | health


def _unknown_terms(
    network: nn.Module, pairs: PairBatch, config: RunConfig, cells: Cells, processes: Processes
) -> Terms:
    source, target = _features(network, pairs.source, pairs.target)
    spec = config.objective
    terms = objectives.unknown_warp(
        source,
        target,
        pairs.source,
        pairs.target,
        cells=cells,
        gamma=spec.gamma,
        window=spec.window,
        appearance_weight=spec.appearance_weight,
    )
    # The appearance is a mean over the pixels inside, of which each process has another number.
    own, share = terms["appearance"], processes.share(terms["inside"])
    further = (share - 1) * own * (source.shape[1] * spec.appearance_weight)
    terms |= {"appearance": own * share, "total": terms["total"] + further}
    landmarks = geometry.soft_argmax(geometry.spatial_softmax(source.detach())) * cells.stride
    return terms | {"distinct_landmarks": objectives.count_distinct(landmarks)}


def _matching_terms(
    network: nn.Module, pairs: PairBatch, config: RunConfig, cells: Cells, processes: Processes
) -> Terms:
    """Of descriptors; those of ``dve`` are exchanged with the pool, or with the sources where there is none.

    Landmarks beside them, if any, have the terms of sparse ones, and add to the total by their weight.
    """
    further = () if pairs.pool is None else (pairs.pool,)
    found, channels = _features(network, pairs.source, pairs.target, *further), config.network.channels
    # A cut costs a copy on the way back, and other rounding.
    source, target, *pool = (each[:, :channels] for each in found) if config.network.landmarks else found
    at_cells, weights = _correspondence(pairs, config, cells, _size(source))
    matched = (source, target, at_cells)
    settings: dict[str, Any] = {"stride": cells.stride, "power": config.objective.power, "weights": weights}
    if config.method == "dense":
        terms = objectives.dense_equivariance(*matched, **settings)
    else:
        assert pairs.auxiliaries is not None
        others = pool[0] if pool else source
        if config.objective.auxiliaries_from == "batch":
            others = processes.gather(others)
        terms = objectives.descriptor_exchange(*matched, others, pairs.auxiliaries, **settings)
    terms = _shared(terms, weights, processes)
    if not config.network.landmarks:
        return terms
    sparse_source, sparse_target = (each[:, channels:] for each in found[:2])
    beside = _sparse_terms(sparse_source, sparse_target, at_cells, weights, config, cells)
    return terms | beside | {"total": terms["total"] + config.objective.landmark_weight * beside["total"]}


def _shared(terms: Terms, weights: Tensor | None, processes: Processes) -> Terms:
    """Terms that are means over cells, as shares of the means over the cells of all processes."""
    if weights is None:
        return terms
    share = processes.share(weights.sum().float())
    return {name: value * share for name, value in terms.items()}


def _labelled_terms(predicted: Tensor, batch: LabelledBatch, processes: Processes) -> Terms:
    """Mean squared error of the landmarks in normalised coordinates, or cross-entropy of the parts."""
    if batch.points is None:
        assert batch.parts is not None
        loss = F.cross_entropy(predicted, batch.parts)
        return {"cross_entropy": loss, "total": loss}
    truth = geometry.normalise(batch.points, (batch.images.shape[-2], batch.images.shape[-1]))
    seen = truth.isfinite().all(-1)
    errors = (predicted - truth.nan_to_num()).square().sum(-1)
    loss = (errors * seen).sum() / seen.sum().clamp_min(1)
    return _shared({"regression": loss, "total": loss}, seen, processes)


def _features(network: nn.Module, *views: Tensor) -> tuple[Tensor, ...]:
    """Features of several batches of views, from one pass so that batch norm sees all of them."""
    features: Tensor = network(torch.cat(views)).float()
    return torch.split(features, [len(view) for view in views])


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]


def _correspondence(
    pairs: PairBatch, config: RunConfig, cells: Cells, size: tuple[int, int]
) -> tuple[Tensor, Tensor | None]:
    """Where the source's cells lie in the target (B, h, w, 2), and their weights (B, h, w).

    The weights are none, all alike, or 1 for those whose place is known and in view.
    """
    flow = config.pairs.motion == "flow"
    at_cells = cells_correspondence(pairs, cells, size, gaps=flow)
    if config.objective.outside == "kept" and not flow:
        return at_cells, None
    view = (pairs.source.shape[-2], pairs.source.shape[-1])
    return at_cells.nan_to_num(), geometry.inside(cells.to_pixels(at_cells), view).float()


def cells_correspondence(pairs: PairBatch, cells: Cells, size: tuple[int, int], *, gaps: bool = False) -> Tensor:
    """Where the source's cells lie in the target, in target cells (B, h, w, 2).

    Args:
        pairs: of views.
        cells: of the features.
        size: (h, w) of the features.
        gaps: whether the place of some pixels is not known; that of a cell most of which shows such pixels is NaN.
    """
    field = pairs.target_from_source.movedim(-1, 1)
    centres = cells.centres(size, device=field.device).expand(len(field), -1, -1, -1)
    at_centres = geometry.sample_known(field, centres) if gaps else geometry.sample(field, centres)
    return cells.to_cells(at_centres.movedim(1, -1))
