"""The expected matching distance (DVE eq. 3), with memory bounded by chunks.

    L = sum_u w_u sum_v |v - g u|^k p(v | u),        p(v | u) = softmax_v <Phi_u(x), Phi_v(x')>

Shape letters: B batch, N source cells, M target cells, n cells of one chunk, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**20  # logits held at a time: 4 MB in single precision stay in a CPU's cache


def expected_distance(
    source: Tensor,
    target: Tensor,
    target_from_source: Tensor,
    target_size: tuple[int, int],
    *,
    power: float = 0.5,
    weights: Tensor | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Tensor:
    """Mean over source cells of the expected distance between match and truth, to a power.

    The gradient with respect to the logits of row ``u`` is ``p (d - E[d])``: it is known as soon as the
    row is, so each chunk of rows is turned into its share of the gradient at once and forgotten. Neither
    an N x M table nor its recomputation is needed.

    Args:
        source: descriptors (B, N, C).
        target: descriptors (B, M, C), M = h * w in row-major order.
        target_from_source: true positions (B, N, 2) of the source cells, in target *cells*.
        target_size: (h, w).
        power: k of the distance; 1 in the paper, 0.5 in its released code.
        weights: of the source cells (B, N), not negative; uniform if absent. Their sum is divided out.
        chunk_elements: how many logits are held at a time.

    Returns:
        The loss in cells to the ``power``, a scalar.

    Raises:
        ValueError: if the shapes do not fit together or the power is not positive.
    """
    batch, count, channels = source.shape
    h, w = target_size
    if target.shape != (batch, h * w, channels) or target_from_source.shape != (batch, count, 2):
        raise ValueError(
            f"source {tuple(source.shape)}, target {tuple(target.shape)}, target_from_source "
            f"{tuple(target_from_source.shape)} and target_size {target_size} do not fit together"
        )
    if power <= 0:
        raise ValueError(f"the distance power must be positive, got {power}")
    if weights is None:
        weights = source.new_ones(batch, count)
    weights = weights.to(source.dtype)
    weights = weights / weights.sum().clamp_min(torch.finfo(source.dtype).tiny)
    arguments = (source, target, target_from_source.to(source.dtype), weights, w, power)
    with torch.autocast(source.device.type, enabled=False):  # logits of several hundred mean nothing in half precision
        loss: Tensor = _ExpectedDistance.apply(*arguments, chunk_elements)  # type: ignore[no-untyped-call]
    return loss


class _ExpectedDistance(torch.autograd.Function):
    """Loss and gradient in one pass over chunks of source cells."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        target: Tensor,
        truth: Tensor,
        weights: Tensor,
        width: int,
        power: float,
        chunk_elements: int,
    ) -> Tensor:
        batch, count, _ = source.shape
        rows = max(1, chunk_elements // (batch * target.shape[1]))
        wanted = source.requires_grad or target.requires_grad
        source_gradient = torch.empty_like(source) if wanted else None
        target_gradient = torch.zeros_like(target) if wanted else None
        loss = source.new_zeros(())
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            chunk = source[:, part]
            probability = torch.bmm(chunk, target.mT).softmax(-1)  # (B, n, M)
            distance = _distances(truth[:, part], target.shape[1], width, power)  # (B, n, M)
            expected = torch.linalg.vecdot(probability, distance)  # (B, n)
            loss += torch.linalg.vecdot(weights[:, part], expected).sum()
            if source_gradient is None or target_gradient is None:
                continue
            logit_gradient = distance.sub_(expected[..., None]).mul_(probability).mul_(weights[:, part, None])
            torch.bmm(logit_gradient, target, out=source_gradient[:, part])
            target_gradient.baddbmm_(logit_gradient.mT, chunk)
        if wanted:
            ctx.save_for_backward(source_gradient, target_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source_gradient, target_gradient = ctx.saved_tensors
        return source_gradient * gradient, target_gradient * gradient, None, None, None, None, None


def _distances(truth: Tensor, cells: int, width: int, power: float) -> Tensor:
    """``|v - truth|^power`` (B, n, M) from true positions (B, n, 2) to every cell of a map of ``width``."""
    axis_x = torch.arange(width, device=truth.device, dtype=truth.dtype)
    axis_y = torch.arange(cells // width, device=truth.device, dtype=truth.dtype)
    squared_x = (truth[..., :1] - axis_x).square_()  # (B, n, w)
    squared_y = (truth[..., 1:] - axis_y).square_()  # (B, n, h)
    squared = (squared_y[..., :, None] + squared_x[..., None, :]).flatten(-2)
    if power == 0.5:  # two roots are several times faster than a power
        return squared.sqrt_().sqrt_()
    return squared.sqrt_() if power == 1 else squared.pow_(power / 2)
