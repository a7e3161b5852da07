"""How time and memory grow with the channels, the pixels and the batch, ours and as released.

    python benchmarks/growth.py --out growth.json --axes channels,pixels,batch

Each size is measured as ``equimark benchmark`` does it, in a process of its own; by default the objective of SmallNet,
of which the channels, the pixels of a view or the pairs of a batch grow while the rest stays. The slopes of logarithm
over logarithm say how: 1 is linear, 2 quadratic. Every cell is compared with every other, so time is quadratic in
the pixels; memory is to be linear in all three, and time in channels and batch. What grows slower at first, because
something constant is still in the way, has a smaller slope: take larger sizes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equimark import checkpoint, timing
from equimark.embedding import choose_device
from equimark.files import write_text
from equimark.provenance import hardware
from equimark.timing import Job, Scale

AXES = {"channels": (16, 32, 64, 128), "pixels": (40, 56, 80, 112), "batch": (8, 16, 32, 64)}  # pixels: of a side
TASKS = {"loss": "loss_smallnet_dve", "step": "step_smallnet_dve"}


def sized(scale: Scale, axis: str, size: int) -> Scale:
    """``scale`` with one size changed."""
    if axis == "channels":
        return replace(scale, channels=size)
    if axis == "batch":
        return replace(scale, smallnet_batch=size)
    return replace(scale, smallnet_frame=size + 2 * scale.smallnet_margin)


def slope(sizes: Sequence[float], values: Sequence[float | None]) -> float | None:
    """Of the logarithm of the values over that of the sizes, by least squares; None if one is missing or not there."""
    known = [value for value in values if value is not None and value > 0]
    if len(known) < max(2, len(sizes)):
        return None
    return float(np.polyfit(np.log(sizes), np.log(known), 1)[0])


def grow(axis: str, job: Job, sizes: Sequence[int], measure: timing.Measure = timing.in_a_process) -> dict[str, Any]:
    """A row for each size, and the slopes; over pixels they are those of whole views, not of a side."""
    rows = []
    for size in sizes:
        made = measure(replace(job, scale=sized(job.scale, axis, size)))
        row = {"size": size**2 if axis == "pixels" else size, "seconds": made.median, "spread": made.spread}
        rows.append(row | {"peak_mb": made.peak_mb, "added_mb": made.added_mb})
        memory = "" if made.added_mb is None else f"{made.added_mb:10.1f}"
        print(f"{axis:9} {rows[-1]['size']:7} {made.median:10.4f} {memory}", flush=True)
    counts = [row["size"] for row in rows]
    slopes = {name: slope(counts, [row[name] for row in rows]) for name in ("seconds", "added_mb")}
    print(f"{axis:9} {'slope':>7} " + " ".join("" if s is None else f"{s:10.2f}" for s in slopes.values()), flush=True)
    return {"rows": rows, "slopes": slopes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--axes", default=",".join(AXES), help=f"of {', '.join(AXES)}")
    parser.add_argument("--sizes", help="as 8,16,32, of one axis; pixels by the side of a view")
    parser.add_argument("--task", choices=tuple(TASKS), default="loss")
    parser.add_argument("--literal", action="store_true", help="as released instead of ours")
    parser.add_argument("--batch-size", type=int, default=8, help="where the batch stays")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    arguments = parser.parse_args()
    axes = arguments.axes.split(",")
    if unknown := set(axes) - set(AXES):
        parser.error(f"unknown axes {', '.join(unknown)}: choose from {', '.join(AXES)}")
    if arguments.sizes and len(axes) != 1:
        parser.error("--sizes belong to one axis: name it with --axes")
    device = choose_device(arguments.device)
    task = ("literal_" if arguments.literal else "") + TASKS[arguments.task]
    job = Job(task, Scale(smallnet_batch=arguments.batch_size), device.type, repeats=arguments.repeats)
    print(f"{task}\n{'':9} {'size':>7} {'seconds':>10} {'added MB':>10}")
    results = {}
    for axis in axes:
        sizes = [int(size) for size in arguments.sizes.split(",")] if arguments.sizes else AXES[axis]
        results[axis] = grow(axis, job, sizes)
    about = {"hardware": hardware(torch.device(device)), "versions": checkpoint.versions(), "task": task}
    if arguments.out:
        write_text(arguments.out, json.dumps(about | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
