"""The two ceilings of a training step, arithmetic and bytes, and how much of them it reaches.

    python benchmarks/roofline.py --out roofline.json
    python benchmarks/roofline.py --device cuda --batch-size 256 --precision bf16

What the device can do is measured: the rate of its best matrix product or convolution, and of copying. What a step
needs is counted as its operations are carried out: products and sums of convolutions, matrix products and attention,
forward and backward; and the bytes of everything that each operation reads and writes, as if nothing stayed in a cache
and no two operations were one. From both follows how long a step takes at least, all together and operation by
operation, each held back by whichever ceiling is lower for it. A *share* above one says that caches saved bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from equimark import matching_loss
from equimark.embedding import choose_device
from equimark.files import write_text
from equimark.provenance import hardware, made_now
from equimark.timing import Job, choose_scale
from equimark.timing.machine import wait_for
from equimark.timing.tasks import make_task

TASKS = {"SmallNet": "step_smallnet_dve", "Hourglass": "step_hourglass_dve", "objective alone": "loss_smallnet_dve"}
_TYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Ceilings:
    """What a device can do: operations and bytes per second."""

    flops: float
    bytes: float

    def seconds(self, flops: float, moved: float) -> tuple[float, float]:
        """How long so many operations and bytes take at least."""
        return flops / self.flops, moved / self.bytes


class Count(TorchDispatchMode):
    """Operations and bytes of everything that runs inside, by kind of operation."""

    def __init__(self) -> None:
        super().__init__()
        self.needs: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carry out one operation, and note what it needs."""
        made = func(*args, **(kwargs or {}))
        if func.is_view or func in _FREE:
            return made
        tensors = [x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)]
        moved = sum(x.numel() * x.element_size() for x in tensors)
        self.needs[func.overloadpacket.__name__].append((_flops(func, args, kwargs or {}, made), moved))
        return made


_FREE = {torch.ops.aten.detach.default, torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default}


def _flops(func: Any, args: Any, kwargs: Any, made: Any) -> float:
    name = func.overloadpacket.__name__
    if name.startswith("_scaled_dot_product_flash_attention_for_cpu"):
        query, key = (args[1], args[2]) if name.endswith("backward") else (args[0], args[1])
        products = 5 if name.endswith("backward") else 2  # the backward pass makes the logits again
        return products * 2.0 * math.prod(query.shape) * key.shape[-2]
    formula = flop_registry.get(getattr(torch.ops.aten, name.removesuffix("_"), func.overloadpacket))  # in place, too
    return 0.0 if formula is None else float(formula(*args, **kwargs, out_val=made))


def measure_ceilings(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> Ceilings:
    """By square matrix products and a convolution of ``dtype``, and by copying more than a cache holds."""
    small = device.type == "cpu"
    rates = []
    for side in (1024, 2048) if small else (4096, 8192):
        a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        rates.append(2 * side**3 / _time(lambda a=a, b=b: a @ b, device, seconds))
    images = torch.randn(16 if small else 256, 256, 32, 32, device=device, dtype=dtype)
    images = images.to(memory_format=torch.channels_last)
    weights = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    made = 2 * images.numel() * weights.shape[0] * 9
    rates.append(made / _time(lambda: F.conv2d(images, weights, padding=1), device, seconds))
    large = torch.empty(2**28 if small else 2**31, dtype=torch.uint8, device=device)
    other = torch.zeros_like(large)
    return Ceilings(max(rates), 2 * large.numel() / _time(lambda: large.copy_(other), device, seconds))


def _time(run: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """The median of repeats that take so long together, three at least."""
    run()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        wait_for(device)
        start = time.perf_counter()
        run()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return median(times)


def count(run: Callable[[], Any]) -> Count:
    """What one run needs, the matching loss in the form that computes least, which is seen by PyTorch."""
    run()
    streams, matching_loss._may_stream = matching_loss._may_stream, lambda *_: False
    try:
        with Count() as counted:
            run()
    finally:
        matching_loss._may_stream = streams
    return counted


def roof(run: Callable[[], Any], ceilings: Ceilings, device: torch.device, seconds: float = 5.0) -> dict[str, Any]:
    """Needs, ceilings and measured time of a task; the kinds of operation that take longest at least."""
    measured, needs = _time(run, device, seconds), count(run).needs
    kinds = {
        kind: {
            "calls": len(each),
            "flops": sum(flops for flops, _ in each),
            "bytes": sum(moved for _, moved in each),
            "at_least": sum(max(ceilings.seconds(*need)) for need in each),
        }
        for kind, each in needs.items()
    }
    flops, moved, apart = (sum(kind[what] for kind in kinds.values()) for what in ("flops", "bytes", "at_least"))
    arithmetic, copying = ceilings.seconds(flops, moved)
    return {
        "seconds": measured,
        "flops": flops,
        "bytes": moved,
        "arithmetic_seconds": arithmetic,
        "bytes_seconds": copying,
        "apart_seconds": apart,
        "share_of_arithmetic": arithmetic / measured,
        "share_of_bytes": copying / measured,
        "share_apart": apart / measured,
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1]["at_least"])[:8]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--precision", choices=tuple(_TYPES), default="no")
    parser.add_argument("--batch-size", type=int)
    arguments = parser.parse_args()
    device = choose_device(arguments.device)
    torch.set_flush_denormal(True)
    ceilings = measure_ceilings(device, _TYPES[arguments.precision])
    print(f"{ceilings.flops / 1e9:,.0f} GFLOP/s, {ceilings.bytes / 1e9:,.1f} GB/s", flush=True)
    scale = choose_scale(device.type, batch_size=arguments.batch_size)
    made: dict[str, Any] = {"made": made_now(device), "hardware": hardware(device), "ceilings": vars(ceilings)}
    for name, task in TASKS.items():
        job = replace(Job(task), scale=scale, device=device.type, precision=arguments.precision)
        row = made[name] = roof(make_task(job, Path()).run, ceilings, device)
        print(
            f"{name:16} {row['seconds']:.4f} s; {row['flops'] / 1e9:,.0f} GFLOP {row['arithmetic_seconds']:.4f} s "
            f"({row['share_of_arithmetic']:.0%}); {row['bytes'] / 1e9:.1f} GB {row['bytes_seconds']:.4f} s "
            f"({row['share_of_bytes']:.0%}); operation by operation {row['apart_seconds']:.4f} s "
            f"({row['share_apart']:.0%})"
        )
        for kind, need in list(row["kinds"].items())[:5]:
            counted = f"{need['calls']:5} {need['flops'] / 1e9:8.1f} {need['bytes'] / 1e9:8.2f}"
            print(f"    {kind:50} {counted} {need['at_least']:.4f} s")
        if arguments.out:
            write_text(arguments.out, json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
