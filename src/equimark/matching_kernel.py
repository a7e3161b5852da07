"""The expected matching distance (DVE eq. 3) as a streaming kernel for GPUs; needs Triton.

    L = sum_u w_u E_u,    E_u = sum_v p(v | u) d(v, g u),    p(v | u) = softmax_v s(u, v),    s(u, v) = <Phi_u, Phi_v>

The kernels walk over tiles of the logits s that never leave the registers and the shared memory of a processor, as
attention kernels do. Forward: one pass with a running maximum m_u = max_v s and the running sums of
l_u = sum_v exp(s - m) and E_u = sum_v exp(s - m) d / l. Backward: the tiles are made again, once by source rows and
once by target rows, from

    dL/ds(u, v) = w_u p(v | u) (d(v, g u) - E_u),    dL/dPhi_u = sum_v dL/ds Phi_v,    dL/dPhi_v = sum_u dL/ds Phi_u.

Each program owns the rows that it writes and there are no atomic additions: the same input gives the same bits.
Device memory: O((N + M) C) per image for the inputs and gradients, and three numbers per source cell.

Shape letters: B batch, N source cells, M target cells, C channels.
"""
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# Triton has no types, and its kernels are Python in syntax only.

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]
from torch import Tensor
from torch.autograd.function import once_differentiable

TYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_CHANNELS = 128  # with more, a tile of descriptors takes more registers than a program has
_TILE = 32  # cells: with 64, products in full single precision spill their registers to memory
_OPTIONS = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}  # Triton 3.10 changes the last one's default


def streaming_expected_distance(
    source: Tensor,
    target: Tensor,
    target_from_source: Tensor,
    target_size: tuple[int, int],
    *,
    power: float,
    weights: Tensor,
) -> Tensor:
    """The sum over source cells of the expected distance between match and truth, to a power, in single precision.

    ``equimark.matching_loss.expected_distance`` checks its arguments, brings weights to a sum of one and calls this.

    Args:
        source: descriptors (B, N, C) in single, bfloat16 or half precision; products and sums are single.
        target: descriptors (B, M, C) of the same type, M = h * w in row-major order.
        target_from_source: true positions (B, N, 2) of the source cells, in target cells.
        target_size: (h, w).
        power: k of the distance, positive.
        weights: of the source cells (B, N).

    Returns:
        The loss in cells to the ``power``, a scalar.

    Raises:
        ValueError: for double precision, which the kernels would lose, or more than ``MOST_CHANNELS`` channels.
    """
    if source.dtype not in TYPES or target.dtype != source.dtype:
        raise ValueError(f"the streaming kernel does not take descriptors in {source.dtype} and {target.dtype}")
    if source.shape[-1] > MOST_CHANNELS:
        raise ValueError(f"the streaming kernel takes at most {MOST_CHANNELS} channels, got {source.shape[-1]}")
    numbers = (target_from_source.float().contiguous(), weights.float().contiguous())
    loss: Tensor = _StreamingDistance.apply(  # type: ignore[no-untyped-call]
        source.contiguous(), target.contiguous(), *numbers, target_size[1], float(power)
    )
    return loss


class _StreamingDistance(torch.autograd.Function):
    """Rows' expectations in the forward pass; the logits are made again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        source: Tensor,
        target: Tensor,
        truth: Tensor,
        weights: Tensor,
        width: int,
        power: float,
    ) -> Tensor:
        expected, highest, mass = (torch.empty_like(weights) for _ in range(3))
        ctx.launch = _Launch(source, target, width, power)
        ctx.launch(_expect, source.shape[1], source, target, truth, expected, highest, mass)
        ctx.save_for_backward(source, target, truth, weights, expected, highest, mass)
        loss: Tensor = torch.linalg.vecdot(weights, expected).sum()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source, target, truth, weights, expected, highest, mass = ctx.saved_tensors
        rows = (truth, expected, highest, weights * gradient / mass)
        source_gradient = target_gradient = None
        if ctx.needs_input_grad[0]:
            source_gradient = torch.empty_like(source)
            ctx.launch(_differentiate_source, source.shape[1], source, target, *rows, source_gradient)
        if ctx.needs_input_grad[1]:
            target_gradient = torch.empty_like(target)
            ctx.launch(_differentiate_target, target.shape[1], source, target, *rows, target_gradient)
        return source_gradient, target_gradient, None, None, None, None


class _Launch:
    """Starts a kernel on as many programs as there are tiles of rows to be written."""

    def __init__(self, source: Tensor, target: Tensor, width: int, power: float) -> None:
        self.batch, self.count, channels = source.shape
        self.cells, self.width = target.shape[1], width
        self.constants = {
            "CHANNELS": channels,
            "PADDED": max(16, triton.next_power_of_2(channels)),  # the smallest product of tiles is 16 wide
            "POWER": power,
            "TILE": _TILE,
        }

    def __call__(self, kernel: Any, rows: int, *tensors: Tensor) -> None:
        grid = (self.batch * triton.cdiv(rows, _TILE),)
        with torch.cuda.device_of(tensors[0]):  # type: ignore[no-untyped-call]  # Triton starts them on the current one
            kernel[grid](*tensors, self.count, self.cells, self.width, **self.constants, **_OPTIONS)


# ---- kernels: u are source cells, v target cells, both of one image; names in capitals are fixed at compilation


@triton.jit
def _descriptors(pointer, cells, count, CHANNELS: tl.constexpr, PADDED: tl.constexpr):
    """Rows ``cells`` of descriptors (count, C) in single precision, zero beyond the last cell and channel."""
    channel = tl.arange(0, PADDED)
    inside = (cells < count)[:, None] & (channel < CHANNELS)[None, :]
    return tl.load(pointer + cells[:, None] * CHANNELS + channel[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _distances(truth, u, v, count, width, POWER: tl.constexpr):
    """``|v - g u|^k`` (u, v) of a tile."""
    x = tl.load(truth + 2 * u, mask=u < count, other=0.0)
    y = tl.load(truth + 2 * u + 1, mask=u < count, other=0.0)
    dx = x[:, None] - (v % width).to(tl.float32)[None, :]
    dy = y[:, None] - (v // width).to(tl.float32)[None, :]
    squared = dx * dx + dy * dy
    if POWER == 2:
        distance = squared
    elif POWER == 1:
        distance = tl.sqrt(squared)
    elif POWER == 0.5:
        distance = tl.sqrt(tl.sqrt(squared))
    else:  # the logarithm of a distance of zero is not needed
        some = squared > 0
        distance = tl.where(some, tl.exp2(tl.log2(tl.where(some, squared, 1.0)) * (POWER / 2)), 0.0)
    return distance


@triton.jit
def _logits(s, t, v, cells):
    """``<Phi_u, Phi_v>`` (u, v) of a tile; minus infinity beyond the last target cell, where p is zero."""
    logits = tl.dot(s, tl.trans(t), input_precision="ieee")
    return tl.where((v < cells)[None, :], logits, float("-inf"))


@triton.jit
def _logit_gradients(logits, distances, expected, highest, coefficient, u, count):
    """``w_u p(v | u) (d - E_u)`` (u, v) of a tile, from coefficients ``w / l``; zero beyond the last source cell.

    m and l are kept apart: one number m + log l would round p in the digits that a large logit takes up.
    """
    e = tl.load(expected + u, mask=u < count, other=0.0)
    m = tl.load(highest + u, mask=u < count, other=0.0)
    c = tl.load(coefficient + u, mask=u < count, other=0.0)
    return tl.exp(logits - m[:, None]) * (distances - e[:, None]) * c[:, None]


@triton.jit(do_not_specialize=["count", "cells", "width"])
def _expect(
    source,
    target,
    truth,
    expected,
    highest,
    mass,
    count,
    cells,
    width,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    POWER: tl.constexpr,
    TILE: tl.constexpr,
):
    """E, m and l (B, N) of a tile of source cells."""
    tiles = tl.cdiv(count, TILE)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    u = tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)
    s = _descriptors(source + image * count * CHANNELS, u, count, CHANNELS, PADDED)
    m = tl.full([TILE], float("-inf"), tl.float32)
    sum_e = tl.zeros([TILE], tl.float32)
    sum_ed = tl.zeros([TILE], tl.float32)
    for start in range(0, cells, TILE):
        v = start + tl.arange(0, TILE)
        t = _descriptors(target + image * cells * CHANNELS, v, cells, CHANNELS, PADDED)
        logits = _logits(s, t, v, cells)
        higher = tl.maximum(m, tl.max(logits, 1))
        rescale = tl.exp(m - higher)  # zero at the first tile
        e = tl.exp(logits - higher[:, None])
        d = _distances(truth + image * count * 2, u, v, count, width, POWER)
        sum_e = sum_e * rescale + tl.sum(e, 1)
        sum_ed = sum_ed * rescale + tl.sum(e * d, 1)
        m = higher
    place = image * count + u
    tl.store(expected + place, sum_ed / sum_e, mask=u < count)
    tl.store(highest + place, m, mask=u < count)
    tl.store(mass + place, sum_e, mask=u < count)


@triton.jit(do_not_specialize=["count", "cells", "width"])
def _differentiate_source(
    source,
    target,
    truth,
    expected,
    highest,
    coefficient,
    gradient,
    count,
    cells,
    width,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    POWER: tl.constexpr,
    TILE: tl.constexpr,
):
    """``dL/dPhi_u`` of a tile of source cells."""
    tiles = tl.cdiv(count, TILE)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    row = image * count
    u = tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)
    s = _descriptors(source + row * CHANNELS, u, count, CHANNELS, PADDED)
    total = tl.zeros([TILE, PADDED], tl.float32)
    for start in range(0, cells, TILE):
        v = start + tl.arange(0, TILE)
        t = _descriptors(target + image * cells * CHANNELS, v, cells, CHANNELS, PADDED)
        logits = _logits(s, t, v, cells)
        d = _distances(truth + row * 2, u, v, count, width, POWER)
        g = _logit_gradients(logits, d, expected + row, highest + row, coefficient + row, u, count)
        total = tl.dot(g, t, total, input_precision="ieee")
    channel = tl.arange(0, PADDED)
    inside = (u < count)[:, None] & (channel < CHANNELS)[None, :]
    tl.store(gradient + row * CHANNELS + u[:, None] * CHANNELS + channel[None, :], total, mask=inside)


@triton.jit(do_not_specialize=["count", "cells", "width"])
def _differentiate_target(
    source,
    target,
    truth,
    expected,
    highest,
    coefficient,
    gradient,
    count,
    cells,
    width,
    CHANNELS: tl.constexpr,
    PADDED: tl.constexpr,
    POWER: tl.constexpr,
    TILE: tl.constexpr,
):
    """``dL/dPhi_v`` of a tile of target cells."""
    tiles = tl.cdiv(cells, TILE)
    image = (tl.program_id(0) // tiles).to(tl.int64)
    row, column = image * count, image * cells
    v = tl.program_id(0) % tiles * TILE + tl.arange(0, TILE)
    t = _descriptors(target + column * CHANNELS, v, cells, CHANNELS, PADDED)
    total = tl.zeros([TILE, PADDED], tl.float32)
    for start in range(0, count, TILE):
        u = start + tl.arange(0, TILE)
        s = _descriptors(source + row * CHANNELS, u, count, CHANNELS, PADDED)
        logits = _logits(s, t, v, cells)
        d = _distances(truth + row * 2, u, v, count, width, POWER)
        g = _logit_gradients(logits, d, expected + row, highest + row, coefficient + row, u, count)
        total = tl.dot(tl.trans(g), s, total, input_precision="ieee")
    channel = tl.arange(0, PADDED)
    inside = (v < cells)[:, None] & (channel < CHANNELS)[None, :]
    tl.store(gradient + column * CHANNELS + v[:, None] * CHANNELS + channel[None, :], total, mask=inside)
