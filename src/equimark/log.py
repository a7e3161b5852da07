"""The log of a run: a line of JSON every so many steps, with the mean of each term since the last."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .checkpoint import read_log
from .files import write_text
from .objectives import Terms
from .processes import Processes


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says at which step and why."""


@dataclass
class Log:
    """Collects terms on the device and writes lines; the device is waited for only when a line is due.

    Args:
        path: of the file.
        processes: over which the terms are averaged; the main one writes.
        pending: steps whose terms are not yet written.
        since: when the last line was written.
    """

    path: Path
    processes: Processes
    pending: list[tuple[int, Terms]]
    since: float

    @classmethod
    def open(cls, path: Path, step: int, processes: Processes) -> Log:
        """A log that goes on after ``step``: later lines of an earlier attempt are dropped."""
        with processes.together():
            if processes.is_main:
                kept = [entry for entry in read_log(path.parent) if entry["step"] <= step]
                write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        return cls(path, processes, [], time.perf_counter())

    def add(self, step: int, terms: Terms) -> None:
        """The terms of a step."""
        self.pending.append((step, {name: value.detach() for name, value in terms.items()}))

    def flush(self, *, pairs: int, lr: float) -> dict[str, Any] | None:
        """Write the mean terms since the last line, over all processes.

        Raises:
            TrainingError: if a term was not finite, in whichever process.
        """
        if not self.pending:
            return None
        names = list(self.pending[0][1])
        values = torch.stack([torch.stack([terms[n].float() for n in names]) for _, terms in self.pending])
        values = self.processes.mean(values).cpu()
        finite = values.isfinite()
        if not finite.all():
            row = int((~finite.all(1)).nonzero()[0])
            bad = [f"{n} = {float(v)}" for n, v in zip(names, values[row], strict=True) if not v.isfinite()]
            raise TrainingError(
                f"the loss is not finite at step {self.pending[row][0]} ({', '.join(bad)}); the last good state is "
                "kept. Lower --optimiser.lr, or use --precision no, and go on with --resume"
            )
        seconds = time.perf_counter() - self.since
        means = dict(zip(names, (float(v) for v in values.mean(0)), strict=True))
        entry = {
            "step": self.pending[-1][0],
            "loss": means.pop("total"),
            **means,
            "pairs_per_second": pairs * len(self.pending) / seconds,
            "lr": lr,
        }
        with self.processes.together():
            if self.processes.is_main:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
        self.pending.clear()
        self.since = time.perf_counter()
        return entry
