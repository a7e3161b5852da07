"""One task measured: the time of its repeats and the most memory it takes, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from equimark.timing.machine import peak_memory, restart_peak, wait_for
from equimark.timing.tasks import Job, Task, make_task

_ACCELERATOR_WARM_UPS = 3  # kernels are compiled and chosen in the first calls


class TimingError(RuntimeError):
    """A measurement that failed or cannot be read; the message says which, and the way out."""


@dataclass(frozen=True)
class Measurement:
    """What the repeats of a task took.

    Args:
        seconds: of each repeat, after those that warm up.
        items: that one repeat works on.
        unit: what the items are, in the plural.
        peak_mb: most memory at a time: on a CUDA device what torch allocated there, else all of the process that is
            resident; absent where the system does not say.
        added_mb: how much of it was not there before the task ran for the first time.
        loss: of the first time, with the initial weights, if the task computes one.
    """

    seconds: tuple[float, ...]
    items: int
    unit: str
    peak_mb: float | None
    added_mb: float | None
    loss: float | None = None

    @property
    def median(self) -> float:
        """Of the repeats, in seconds."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile of the repeats, in seconds, between neighbours in proportion."""
        low, high = np.percentile(self.seconds, (25, 75)).tolist()
        return low, high

    @property
    def rate(self) -> float:
        """Items per second."""
        return self.items / self.median

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Measurement:
        """The measurement of a line."""
        values: dict[str, Any] = json.loads(line)
        return cls(**values | {"seconds": tuple(values["seconds"])})


Measure = Callable[[Job], Measurement]


def measure(job: Job) -> Measurement:
    """Time and memory of a task in this process; the memory is its own only in one that did nothing else."""
    torch.set_flush_denormal(True)
    device = torch.device(job.device)
    with TemporaryDirectory(prefix="equimark-") as folder:
        task = make_task(job, Path(folder))
        before = restart_peak(device)
        loss = task.run()
        for _ in range(_ACCELERATOR_WARM_UPS - 1 if device.type != "cpu" else 0):
            task.run()
        seconds = tuple(_time(task, device) for _ in range(job.repeats))
        peak = peak_memory(device)
    added = None if peak is None or before is None else max(0.0, peak - before)  # the system counts in lumps
    return Measurement(seconds, task.items, task.unit, peak, added, None if loss is None else float(loss))


def _time(task: Task, device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    task.run()
    wait_for(device)
    return time.perf_counter() - start


def in_a_process(job: Job) -> Measurement:
    """:func:`measure` in a process of its own; what that says on standard error is passed on.

    Raises:
        TimingError: if it fails.
    """
    command = [sys.executable, "-P", "-m", "equimark.timing", job.to_json()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise TimingError(f"{job.task} could not be measured: {_reason(done)}")
    sys.stderr.write(done.stderr)
    return Measurement.from_json(done.stdout.splitlines()[-1])


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if done.returncode < 0 or "memory" in last.lower():
        last = "its process was stopped by the system" if done.returncode < 0 else last
        return f"{last}; if memory ran out, take a smaller --batch-size, or leave the stage out with --stages"
    return last
