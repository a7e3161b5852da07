"""The dense objectives as the authors released them: a loop over images, a C x N x N product, N x N tables.

What ours are measured against: in time and memory by ``equimark benchmark``, in value by the tests. These functions
work in whatever type they are given and use nothing of the rest of the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def correspondence_table(source: Tensor, target: Tensor) -> Tensor:
    """DVE eq. 2: p(v | u) as a table (N, M) of ``source`` (C, N) and ``target`` (C, M)."""
    logits = source.t() @ target
    exponentials = (logits - logits.max(dim=1, keepdim=True).values.detach()).exp()
    return exponentials / exponentials.sum(dim=1, keepdim=True)


def distance_table(truth: Tensor, size: tuple[int, int], power: float) -> Tensor:
    """``|v - g u|^power`` as a table (N, M): ``truth`` (N, 2) in cells of a map of ``size``."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    v = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1).to(truth)
    difference = truth[:, None, :] - v[None, :, :]
    distances: Tensor = ((difference**2).sum(-1) ** 0.5) ** power
    return distances


def exchanged(source: Tensor, auxiliaries: Tensor) -> Tensor:
    """DVE eq. 5: sum_w Phi_w(x_a) p(w | u; x, x_a), from the C x N x M product, of (C, N) and (C, M): (C, N)."""
    p = correspondence_table(source, auxiliaries)
    product = p[None, :, :] * auxiliaries[:, None, :]  # C x N x M
    return product.sum(dim=2)


def literal_dense_loss(
    source: Tensor,
    target: Tensor,
    truth: Tensor,
    *,
    stride: int = 2,
    power: float = 0.5,
    weights: Tensor | None = None,
) -> Tensor:
    """DVE eq. 3, a loop over images: 1/N sum_u sum_v d(v, g u) p(v | u).

    Args:
        source: descriptors (B, C, h, w).
        target: descriptors (B, C, h', w').
        truth: where the source's cells lie in the target, in target cells (B, h, w, 2).
        stride: input pixels per cell.
        power: of the distance.
        weights: of the source cells (B, h, w); all alike if absent.
    """
    total, mass = source.new_zeros(()), source.new_zeros(())
    for b in range(len(source)):
        size = (target.shape[2], target.shape[3])
        p = correspondence_table(source[b].flatten(1), target[b].flatten(1))
        expected = (p * distance_table(truth[b].reshape(-1, 2), size, power)).sum(dim=1)
        w = torch.ones_like(expected) if weights is None else weights[b].reshape(-1)
        total, mass = total + (w * expected).sum(), mass + w.sum()
    loss: Tensor = total / mass * float(stride) ** power
    return loss


def literal_dve_loss(
    source: Tensor,
    target: Tensor,
    pool: Tensor,
    truth: Tensor,
    *,
    sets: Sequence[Sequence[int]] | Tensor | None = None,
    stride: int = 2,
    power: float = 0.5,
) -> Tensor:
    """DVE eq. 5-6, a loop over images; see :func:`literal_dense_loss`.

    Args:
        source: descriptors (B, C, h, w).
        target: descriptors (B, C, h, w).
        pool: descriptors (P, C, h, w) of the images from which auxiliaries are taken.
        truth: where the source's cells lie in the target, in cells (B, h, w, 2).
        sets: the auxiliaries of each pair in ``pool`` (section 3.4); if absent the next image, as in the released code.
        stride: input pixels per cell.
        power: of the distance.
    """
    rebuilt = []
    for b in range(len(source)):
        chosen = [(b + 1) % len(source)] if sets is None else [int(a) for a in sets[b]]
        keys = torch.cat([pool[a].flatten(1) for a in chosen], dim=1)
        rebuilt.append(exchanged(source[b].flatten(1), keys).view_as(source[b]))
    return literal_dense_loss(torch.stack(rebuilt), target, truth, stride=stride, power=power)
