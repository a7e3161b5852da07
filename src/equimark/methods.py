"""What each method asks of a network: a batch in, the named terms of its objective out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import geometry, objectives
from .config import RunConfig
from .geometry import Cells
from .objectives import Terms
from .pairs import PairBatch
from .sampling import Batch, LabelledBatch


def compute_terms(network: nn.Module, batch: Batch, config: RunConfig, cells: Cells) -> Terms:
    """The named terms of the objective of ``config`` on a batch, ``total`` among them.

    The network may run in half precision; the objective is computed in single precision.
    """
    if isinstance(batch, LabelledBatch):
        return _labelled_terms(network(batch.images).float(), batch)
    if config.pairs.motion == "unknown":
        return _unknown_terms(network, batch, config, cells)
    if config.method == "sparse":
        return _sparse_terms(network, batch, config, cells)
    if config.method == "dense":
        return _dense_terms(network, batch, config, cells)
    return _exchange_terms(network, batch, config, cells)


def _sparse_terms(network: nn.Module, pairs: PairBatch, config: RunConfig, cells: Cells) -> Terms:
    source, target = _features(network, pairs.source, pairs.target)
    at_cells = cells_correspondence(pairs, cells, _size(source))
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
    )
    return terms | objectives.sparse_health(source, terms["alignment"], at_cells, stride=cells.stride)


def _unknown_terms(network: nn.Module, pairs: PairBatch, config: RunConfig, cells: Cells) -> Terms:
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
    landmarks = geometry.soft_argmax(geometry.spatial_softmax(source.detach())) * cells.stride
    return terms | {"distinct_landmarks": objectives.count_distinct(landmarks)}


def _dense_terms(network: nn.Module, pairs: PairBatch, config: RunConfig, cells: Cells) -> Terms:
    source, target = _features(network, pairs.source, pairs.target)
    at_cells = cells_correspondence(pairs, cells, _size(source))
    return objectives.dense_equivariance(
        source,
        target,
        at_cells,
        stride=cells.stride,
        power=config.objective.power,
        weights=_weights(pairs, config, cells, _size(source)),
    )


def _exchange_terms(network: nn.Module, pairs: PairBatch, config: RunConfig, cells: Cells) -> Terms:
    assert pairs.auxiliaries is not None
    if pairs.pool is None:
        source, target = _features(network, pairs.source, pairs.target)
        pool = source
    else:
        source, target, pool = _features(network, pairs.source, pairs.target, pairs.pool)
    return objectives.descriptor_exchange(
        source,
        target,
        cells_correspondence(pairs, cells, _size(source)),
        pool,
        pairs.auxiliaries,
        stride=cells.stride,
        power=config.objective.power,
        weights=_weights(pairs, config, cells, _size(source)),
    )


def _labelled_terms(predicted: Tensor, batch: LabelledBatch) -> Terms:
    """Mean squared error of the landmarks in normalised coordinates, or cross-entropy of the parts."""
    if batch.points is None:
        assert batch.parts is not None
        loss = F.cross_entropy(predicted, batch.parts)
        return {"cross_entropy": loss, "total": loss}
    truth = geometry.normalise(batch.points, (batch.images.shape[-2], batch.images.shape[-1]))
    seen = truth.isfinite().all(-1)
    errors = (predicted - truth.nan_to_num()).square().sum(-1)
    loss = (errors * seen).sum() / seen.sum().clamp_min(1)
    return {"regression": loss, "total": loss}


def _features(network: nn.Module, *views: Tensor) -> tuple[Tensor, ...]:
    """Features of several batches of views, from one pass so that batch norm sees all of them."""
    features: Tensor = network(torch.cat(views)).float()
    return torch.split(features, [len(view) for view in views])


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]


def cells_correspondence(pairs: PairBatch, cells: Cells, size: tuple[int, int]) -> Tensor:
    """Where the source's cells lie in the target, in target cells (B, h, w, 2)."""
    field = pairs.target_from_source.movedim(-1, 1)
    return cells.to_cells(geometry.sample(field, _centres(field, cells, size)).movedim(1, -1))


def _centres(like: Tensor, cells: Cells, size: tuple[int, int]) -> Tensor:
    return cells.centres(size, device=like.device).expand(len(like), -1, -1, -1)


def _weights(pairs: PairBatch, config: RunConfig, cells: Cells, size: tuple[int, int]) -> Tensor | None:
    """Weights (B, h, w) of the source cells: all alike (none), or only those whose place is known and in view."""
    if config.objective.outside == "kept" and config.pairs.motion == "none":
        return None
    valid = pairs.valid[:, None].float()
    return geometry.sample_nearest(valid, _centres(valid, cells, size))[:, 0]
