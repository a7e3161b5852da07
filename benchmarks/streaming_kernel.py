"""The streaming kernel of the matching loss on a CUDA GPU: is it right, and is it faster and smaller than chunks?

    python benchmarks/streaming_kernel.py --out kernel.json

First values and gradients, in single precision without TF32 and in bfloat16, against the formulation as released, in
double precision; then forward and backward of the loss, chunked and streaming, at two batches and two sizes of maps,
and of the exchange (eq. 5), whose attention is PyTorch's. Times are medians of the repeats after three that are not
counted; memory is the largest that was allocated at a time, beyond the inputs. Exit code 1 without a GPU or if a
number is wrong.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equimark import objectives
from equimark.matching_loss import expected_distance
from equimark.timing.literal import literal_dense_loss

SIZES = ((35, 35), (48, 48))  # cells: crops of 70 and 96 px
BATCHES = (32, 256)
CHANNELS = 64
# Largest errors: of the value, relative, and of a gradient, as a share of its largest number.
TOLERANCES = {torch.float32: (1e-6, 1e-5), torch.bfloat16: (1e-6, 1e-2)}  # the gradients are bfloat16 too
FORMS: dict[str, dict[str, Any]] = {
    "chunked, 2^20 logits": {"kernel": "chunked", "chunk_elements": 2**20},
    "chunked, 2^26 logits": {"kernel": "chunked", "chunk_elements": 2**26},
    "streaming": {"kernel": "streaming"},
}


def make_problem(
    batch: int, size: tuple[int, int], channels: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Descriptors (B, N, C) of both images with logits up to twenty, and true positions (B, N, 2) up to 3 cells off."""
    g = torch.Generator().manual_seed(0)
    cells = size[0] * size[1]
    source, target = (torch.randn(batch, cells, channels, generator=g).to(device) for _ in range(2))
    source = 5 / channels**0.5 * source
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    grid = torch.stack([x, y], dim=-1).reshape(1, cells, 2)
    truth = grid + 6 * torch.rand(batch, cells, 2, generator=g) - 3
    return source.to(dtype).requires_grad_(), target.to(dtype).requires_grad_(), truth.to(device)


# ---- is it right?


def literal(source: Tensor, target: Tensor, truth: Tensor, size: tuple[int, int], power: float) -> Tensor:
    maps = (x.mT.unflatten(2, size) for x in (source, target))
    return literal_dense_loss(*maps, truth.double().unflatten(1, size), stride=1, power=power)


def errors(dtype: torch.dtype, channels: int, power: float, size: tuple[int, int], device: torch.device) -> list[float]:
    """Of the value and of both gradients; and whether a second call gives the same bits."""
    source, target, truth = make_problem(2, size, channels, dtype, device)

    def streaming() -> tuple[Tensor, ...]:
        loss = expected_distance(source, target, truth, size, power=power, kernel="streaming")
        return loss.detach(), *torch.autograd.grad(loss, (source, target))

    got, again = streaming(), streaming()
    double = [x.detach().double().requires_grad_() for x in (source, target)]
    loss = literal(*double, truth, size, power)
    wanted = loss.detach(), *torch.autograd.grad(loss, double)
    if not all(torch.equal(a, b) for a, b in zip(got, again, strict=True)):
        return [float("nan")] * 3
    return [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(got, wanted, strict=True)]


def check(sizes: tuple[tuple[int, int], ...], device: torch.device) -> list[dict[str, Any]]:
    rows = []
    print(f"{'type':10} {'C':>4} {'power':>5} {'cells':>8} {'value':>9} {'d source':>9} {'d target':>9}")
    for dtype, (of_value, of_gradient) in TOLERANCES.items():
        for channels, power, size in cases(sizes):
            value, *gradients = errors(dtype, channels, power, size, device)
            right = value <= of_value and all(g <= of_gradient for g in gradients)
            name, cells = str(dtype).removeprefix("torch."), f"{size[0]} x {size[1]}"
            numbers = " ".join(f"{x:9.1e}" for x in (value, *gradients))
            print(f"{name:10} {channels:4} {power:5} {cells:>8} {numbers}{'' if right else '  WRONG'}", flush=True)
            case = {"type": name, "channels": channels, "power": power, "size": size}
            rows.append(case | {"value": value, "gradients": gradients, "right": right})
    return rows


def cases(sizes: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, float, tuple[int, int]]]:
    for size in sizes:
        yield from ((CHANNELS, power, size) for power in (0.5, 1.0, 2.0, 0.7))
        yield from ((channels, 0.5, size) for channels in (3, 16, 20, 32, 128))


# ---- is it faster and smaller?


def measure(task: Callable[[], Tensor], inputs: tuple[Tensor, ...], repeats: int) -> dict[str, Any]:
    """Milliseconds of forward and backward, and MiB beyond what was there before."""

    def run() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.autograd.grad(task(), inputs)
        torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start)

    try:
        for _ in range(3):
            run()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
        times = [run() for _ in range(repeats)]
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {"out_of_memory": True}
    return {"ms": statistics.median(times), "ms_range": [min(times), max(times)], "peak_mib": peak}


def compare(batch: int, size: tuple[int, int], dtype: torch.dtype, repeats: int) -> list[dict[str, Any]]:
    """The loss, in every form."""
    source, target, truth = make_problem(batch, size, CHANNELS, dtype, torch.device("cuda"))
    case = {"batch": batch, "size": size, "type": str(dtype).removeprefix("torch."), "channels": CHANNELS}
    rows = []
    for form, options in FORMS.items():

        def task(options: dict[str, Any] = options) -> Tensor:
            return expected_distance(source, target, truth, size, **options)

        rows.append(case | {"form": form} | measure(task, (source, target), repeats))
        print_row(rows[-1])
    return rows


def exchange(batch: int, size: tuple[int, int], channels: int, repeats: int) -> list[dict[str, Any]]:
    """Eq. 5 alone; PyTorch has an attention without a table only for channels in fours."""
    source, target, _ = make_problem(batch, size, channels, torch.float32, torch.device("cuda"))
    pool = target.detach().mT.unflatten(2, size).contiguous().requires_grad_()
    auxiliaries = objectives.next_in_batch(batch, device=pool.device)
    upstream = torch.randn_like(source)

    def task() -> Tensor:
        return (objectives.exchange(source, pool, auxiliaries) * upstream).sum()

    row = {"batch": batch, "size": size, "type": "float32", "channels": channels, "form": "exchange"}
    row |= measure(task, (source, pool), repeats)
    print_row(row)
    return [row]


def print_row(row: dict[str, Any]) -> None:
    cells = f"{row['size'][0]} x {row['size'][1]}"
    case = f"{row['batch']:6} {cells:>8} {row['type']:9} {row['channels']:4} {row['form']:20}"
    print(f"{case} out of memory" if "out_of_memory" in row else f"{case} {row['ms']:9.2f} {row['peak_mib']:9.0f}")


def compare_all(repeats: int) -> list[dict[str, Any]]:
    print(f"\n{'batch':>6} {'cells':>8} {'type':9} {'C':>4} {'':20} {'ms':>9} {'MiB':>9}")
    rows = []
    for size in SIZES:
        for batch in BATCHES:
            for dtype in TOLERANCES:
                rows += compare(batch, size, dtype, repeats)
            for channels in (CHANNELS, 10):
                rows += exchange(batch, size, channels, repeats)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        print("nothing was measured: this needs a CUDA GPU and Triton", file=sys.stderr)
        return 1
    torch.set_float32_matmul_precision("highest")  # no TF32
    checks = check((SIZES[0], (9, 23)), torch.device("cuda"))
    speed = compare_all(arguments.repeats)
    about = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    if arguments.out:
        arguments.out.write_text(json.dumps(about | {"checks": checks, "speed": speed}, indent=2) + "\n")
    return 0 if all(row["right"] for row in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
