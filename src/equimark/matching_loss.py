"""The expected matching distance (DVE eq. 3), without a table of all matches: in chunks, or streaming on GPUs.

    L = sum_u w_u sum_v |v - g u|^k p(v | u),        p(v | u) = softmax_v <Phi_u(x), Phi_v(x')>

Shape letters: B batch, N source cells, M target cells, n cells of one chunk, C channels.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Kernel = Literal["auto", "chunked", "streaming"]

CHUNK_ELEMENTS = 2**19  # logits held at a time: 2 MB in single precision stay in a CPU's cache


def expected_distance(
    source: Tensor,
    target: Tensor,
    target_from_source: Tensor,
    target_size: tuple[int, int],
    *,
    power: float = 0.5,
    weights: Tensor | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
    kernel: Kernel = "auto",
) -> Tensor:
    """Mean over source cells of the expected distance between match and truth, to a power.

    The gradient with respect to the logits of row ``u`` is ``p (d - E[d])``: it is known as soon as the
    row is, so each chunk of rows is turned into its share of the gradient at once and forgotten. Neither
    an N x M table nor its recomputation is needed. On GPUs, ``equimark.matching_kernel`` does without chunks too.

    Args:
        source: descriptors (B, N, C); those in half precision are taken in single precision.
        target: descriptors (B, M, C), M = h * w in row-major order.
        target_from_source: true positions (B, N, 2) of the source cells, in target *cells*.
        target_size: (h, w).
        power: k of the distance; 1 in the paper, 0.5 in its released code.
        weights: of the source cells (B, N), not negative; uniform if absent. Their sum is divided out.
        chunk_elements: how many logits the chunked form holds at a time.
        kernel: ``auto`` streams on GPUs on which the streaming kernel is found to work, else computes in chunks.

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
    dtype = torch.promote_types(source.dtype, torch.float32)  # logits of several hundred mean nothing in half precision
    weights = source.new_ones(batch, count, dtype=dtype) if weights is None else weights.to(dtype)
    weights = weights / weights.sum().clamp_min(torch.finfo(dtype).tiny)
    truth = target_from_source.to(dtype)
    with torch.autocast(source.device.type, enabled=False):
        if kernel == "streaming" or (kernel == "auto" and source.is_cuda and _may_stream(source, target, power)):
            from .matching_kernel import streaming_expected_distance  # needs Triton

            return streaming_expected_distance(source, target, truth, target_size, power=power, weights=weights)
        arguments = (source.to(dtype), target.to(dtype), truth, weights, w, power, chunk_elements)
        loss: Tensor = _ExpectedDistance.apply(*arguments)  # type: ignore[no-untyped-call]
    return loss


def _may_stream(source: Tensor, target: Tensor, power: float) -> bool:
    same = source.dtype == target.dtype and source.device == target.device
    return same and _streaming_works(source.device, source.dtype, source.shape[-1], power)


@functools.cache
def _streaming_works(device: torch.device, dtype: torch.dtype, channels: int, power: float) -> bool:
    """Whether the streaming kernel can be had for such descriptors and, on a small problem, finds what chunks find.

    It is compiled where it runs, with whatever compiler, driver and card are there: if that fails, the run should
    become slower and not end. The trial compiles what the run needs, so that it costs nothing more.
    """
    try:
        from . import matching_kernel
    except ImportError:  # Triton comes with PyTorch for GPUs, but not on every system
        return False
    if dtype not in matching_kernel.TYPES or channels > matching_kernel.MOST_CHANNELS:
        return False
    try:
        fault = _trial(device, dtype, channels, power)
    except Exception as error:  # compilers and drivers fail in ways of their own
        fault = f"{type(error).__name__}: {error}"
    if fault:
        message = f"the streaming matching kernel is not used on {device}, which makes training slower: {fault}"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
    return not fault


@torch.inference_mode(False)
@torch.enable_grad()
def _trial(device: torch.device, dtype: torch.dtype, channels: int, power: float) -> str:
    """What is wrong with the streaming kernel on a map of 5 x 8 cells, more than a tile; empty if nothing is.

    A search for blunders, so a hundredth of the largest number is let pass in every precision; no random number is
    drawn, since the run counts on its own.
    """
    size, cells = (5, 8), 40
    angles = torch.linspace(0, 200, cells * channels, dtype=torch.float64).view(1, cells, channels)
    numbers = angles.sin().to(dtype), angles.cos().to(dtype)
    truth = torch.stack([torch.linspace(-1, 9, cells), torch.linspace(6, -2, cells)], dim=-1)[None]

    def value_and_gradients(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        source, target = (x.to(device, dtype).requires_grad_() for x in numbers)
        loss = expected_distance(source, target, truth.to(device), size, power=power, kernel=kernel)
        return [x.detach().cpu().double() for x in (loss, *torch.autograd.grad(loss, (source, target)))]

    got = value_and_gradients("streaming", device, dtype)
    wanted = value_and_gradients("chunked", torch.device("cpu"), torch.float64)
    for name, a, b in zip(("the loss", "the source's gradient", "the target's gradient"), got, wanted, strict=True):
        if not (a - b).abs().max() <= 0.01 * b.abs().max():
            return f"{name} of a trial is wrong"
    return ""


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
        wanted = source.requires_grad or target.requires_grad
        source_gradient = torch.empty_like(source) if wanted else None
        target_gradient = torch.zeros_like(target) if wanted else None
        loss = source.new_zeros(())
        for images, part in _chunks(len(source), source.shape[1], target.shape[1], chunk_elements):
            chunk, cells = source[images, part], target[images]
            probability = torch.bmm(chunk, cells.mT).softmax(-1)  # (b, n, M)
            distance = _distances(truth[images, part], cells.shape[1], width, power)  # (b, n, M)
            expected = torch.linalg.vecdot(probability, distance)  # (b, n)
            loss += torch.linalg.vecdot(weights[images, part], expected).sum()
            if source_gradient is None or target_gradient is None:
                continue
            logit_gradient = distance.sub_(expected[..., None]).mul_(probability).mul_(weights[images, part, None])
            torch.bmm(logit_gradient, cells, out=source_gradient[images, part])
            target_gradient[images].baddbmm_(logit_gradient.mT, chunk)
        if wanted:
            ctx.save_for_backward(source_gradient, target_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        source_gradient, target_gradient = ctx.saved_tensors
        return source_gradient * gradient, target_gradient * gradient, None, None, None, None, None


def _chunks(batch: int, count: int, cells: int, elements: int) -> Iterator[tuple[slice, slice]]:
    """Images and source cells of each chunk: whole images if one fits, else cells of one image.

    Products of one image's long matrices go half as fast again on CPUs as batched ones of many short matrices.
    """
    images = max(1, elements // (count * cells))
    rows = max(1, elements // (images * cells))
    for first in range(0, batch, images):
        for start in range(0, count, rows):
            yield slice(first, first + images), slice(start, start + rows)


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
