"""One SmallNet DVE training step, and its objective alone, against the formulation that the authors released.

    python benchmarks/training_step.py --out step.json

Network forward on both views, objective, backward, Adam step; the same weights and pairs for both. The oracle is
``literal_dve_loss`` of ``tests/oracles.py``: a loop over images, the C x N x N product of eq. 5 and N x N tables. Each
measurement has a process of its own, so that its peak of resident memory is its own: that of the whole process, and
what the work adds to the imports, the network and the batch. The time of one process is the median of its repeats,
after one that is not counted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equimark import objectives
from equimark.config import NetworkSpec, RunConfig
from equimark.geometry import Frame
from equimark.methods import cells_correspondence, compute_terms
from equimark.pairs import PairBatch, PairSpec, make_pairs
from equimark.sampling import generator
from equimark.training import fresh_network, make_optimiser

ORACLES = Path(__file__).parents[1] / "tests" / "oracles.py"
MARGIN = 15
KINDS = ("step_smallnet_dve", "loss_smallnet_dve")
TOLERANCE = 1e-5


def load_oracles() -> ModuleType:
    spec = importlib.util.spec_from_file_location("oracles", ORACLES)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_problem(batch: int, crop: int, channels: int) -> tuple[RunConfig, PairBatch]:
    size = crop + 2 * MARGIN
    config = RunConfig(
        network=NetworkSpec(channels=channels), frame=Frame(size), pairs=PairSpec(MARGIN), batch_size=batch
    )
    coarse = torch.rand(batch, 3, 8, 8, generator=generator(0, "order"))
    frames = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) * 255
    pairs = make_pairs(
        frames.byte(),
        config.pairs,
        warp_generator=generator(0, "warps"),
        photometric_generator=generator(0, "photometric"),
    )
    return config, replace(pairs, auxiliaries=objectives.next_in_batch(batch))


def make_task(kind: str, formulation: str, arguments: argparse.Namespace) -> Callable[[], float]:
    """What is timed; it returns the loss."""
    config, pairs = make_problem(arguments.batch, arguments.crop, arguments.channels)
    network = fresh_network(config)
    cells = network.cells
    network.to(memory_format=torch.channels_last).train()
    optimiser = make_optimiser(network, config.optimiser)
    literal = load_oracles().literal_dve_loss

    def features() -> tuple[Tensor, Tensor, Tensor]:
        source, target = network(torch.cat([pairs.source, pairs.target])).float().chunk(2)
        return source, target, cells_correspondence(pairs, cells, (source.shape[-2], source.shape[-1]))

    def literal_step() -> Tensor:
        source, target, truth = features()
        return literal(source, target, source, truth, stride=cells.stride, power=config.objective.power)

    def step() -> float:
        ours = formulation == "ours"
        loss = compute_terms(network, pairs, config, cells)["total"] if ours else literal_step()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    if kind == "step_smallnet_dve":
        return step

    with torch.no_grad():
        source, target, truth = features()
    # As the network hands them over, and leaves of their own.
    source, target = source.detach().requires_grad_(), target.detach().requires_grad_()
    auxiliaries = objectives.next_in_batch(len(source))
    constants = {"stride": cells.stride, "power": config.objective.power}

    def loss_alone() -> float:
        if formulation == "ours":
            loss = objectives.descriptor_exchange(source, target, truth, source, auxiliaries, **constants)["total"]
        else:
            loss = literal(source, target, source, truth, **constants)
        source.grad = target.grad = None
        loss.backward()
        return loss.item()

    return loss_alone


def measure(kind: str, formulation: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """In the process of one measurement."""
    torch.set_flush_denormal(True)
    task = make_task(kind, formulation, arguments)
    base = peak_memory()
    first_loss = task()  # with the initial weights; also warms up
    seconds = []
    for _ in range(arguments.repeats):
        start = time.perf_counter()
        task()
        seconds.append(time.perf_counter() - start)
    memory = {"peak_mb": peak_memory(), "added_mb": peak_memory() - base}
    return {"loss": first_loss, "seconds": seconds, **memory, "threads": torch.get_num_threads()}


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, kilobytes on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def in_a_process(kind: str, formulation: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, formulation]
    for name in ("repeats", "batch", "crop", "channels"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def processor() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def compare(ours: dict[str, Any], oracle: dict[str, Any]) -> dict[str, Any]:
    seconds, oracle_seconds = (statistics.median(r["seconds"]) for r in (ours, oracle))
    return {
        "seconds": seconds,
        "seconds_range": [min(ours["seconds"]), max(ours["seconds"])],
        "oracle_seconds": oracle_seconds,
        "oracle_seconds_range": [min(oracle["seconds"]), max(oracle["seconds"])],
        "ratio": oracle_seconds / seconds,
        "peak_mb": ours["peak_mb"],
        "oracle_peak_mb": oracle["peak_mb"],
        "peak_ratio": oracle["peak_mb"] / ours["peak_mb"],
        "added_mb": ours["added_mb"],
        "oracle_added_mb": oracle["added_mb"],
        "added_ratio": oracle["added_mb"] / ours["added_mb"],
        "loss": ours["loss"],
        "oracle_loss": oracle["loss"],
        "loss_difference": abs(ours["loss"] - oracle["loss"]) / abs(oracle["loss"]),
    }


def print_table(results: dict[str, dict[str, Any]]) -> None:
    columns = f"{'':20} {'ours s':>22} {'literal s':>22} {'ratio':>6}"
    print(f"{columns} {'peak MB (added)':>18} {'literal MB (added)':>18} {'ratios':>11} {'loss diff':>10}")
    for kind, r in results.items():
        times = [
            f"{r[name]:.3f} ({r[name + '_range'][0]:.3f}-{r[name + '_range'][1]:.3f})"
            for name in ("seconds", "oracle_seconds")
        ]
        memory = [f"{r[f'{of}peak_mb']:.0f} ({r[f'{of}added_mb']:.0f})" for of in ("", "oracle_")]
        ratios = f"{r['peak_ratio']:.1f} ({r['added_ratio']:.1f})"
        print(
            f"{kind:20} {times[0]:>22} {times[1]:>22} {r['ratio']:6.1f} {memory[0]:>18} {memory[1]:>18} "
            f"{ratios:>11} {r['loss_difference']:10.1e}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--crop", type=int, default=70)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("KIND", "FORMULATION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    if arguments.child:
        print(json.dumps(measure(*arguments.child, arguments)))
        return 0

    results, threads = {}, 0
    for kind in KINDS:
        ours, oracle = in_a_process(kind, "ours", arguments), in_a_process(kind, "literal", arguments)
        results[kind], threads = compare(ours, oracle), ours["threads"]
    report = {
        "hardware": {"processor": processor(), "cores": os.cpu_count(), "threads": threads},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "settings": {name: getattr(arguments, name) for name in ("repeats", "batch", "crop", "channels")},
        "results": results,
    }
    print(f"{report['hardware']}\n{report['versions']}\n{report['settings']}")
    print_table(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    wrong = [kind for kind, r in results.items() if not r["loss_difference"] <= TOLERANCE]
    if wrong:
        print(f"the losses differ by more than {TOLERANCE} in {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
