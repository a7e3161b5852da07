"""The stages of ``equimark benchmark``: which tasks belong together, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import torch

from equimark import checkpoint
from equimark.config import ConfigError, nearest
from equimark.progress import progress_bar
from equimark.provenance import hardware
from equimark.timing.measurement import Measure, Measurement, in_a_process
from equimark.timing.tasks import Job, Precision, Scale

# Each stage's tasks, by the name that they have in its results; the first is the stage itself.
STAGES: dict[str, dict[str, str]] = {
    "step_smallnet_dve": {"": "step_smallnet_dve", "oracle": "literal_step_smallnet_dve"},
    "loss_smallnet_dve": {"": "loss_smallnet_dve", "oracle": "literal_loss_smallnet_dve"},
    "step_hourglass_dve": {"": "step_hourglass_dve", "oracle": "literal_step_hourglass_dve"},
    "loss_hourglass_dve": {"": "loss_hourglass_dve", "oracle": "literal_loss_hourglass_dve"},
    "pairs": {"": "pairs", "singly": "pairs_singly", "step": "step_smallnet_dve"},
    "pack": {"": "pack", "singly": "pack_singly", "decoder": "decode"},
    "inference": {"": "describe", "singly": "describe_singly", "detect": "detect", "match": "match"},
}
TOLERANCE = 1e-4  # relative difference of the losses of both formulations, in single precision

_LITERAL = "literal_"
_LITERAL_REPEATS = 3  # each takes as long as ten or twenty of ours
_CUDA_HOURGLASS_BATCH = 32


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Args:
        stages: names from :data:`STAGES`.
        scale: sizes of the tasks.
        device: ``cpu``, ``cuda`` or ``mps``.
        precision: of the networks in training.
        repeats: of each task; the literal formulation has three at most.

    Raises:
        ConfigError: for an unknown stage, a precision that the device lacks, or nothing to do.
    """

    stages: tuple[str, ...] = tuple(STAGES)
    scale: Scale = field(default_factory=Scale)
    device: str = "cpu"
    precision: Precision = "no"
    repeats: int = 10

    def __post_init__(self) -> None:
        for name in self.stages:
            if name not in STAGES:
                raise ConfigError(f"unknown stage {name!r}{nearest(name, STAGES)}: choose from {', '.join(STAGES)}")
        if self.repeats < 1 or not self.stages:
            raise ConfigError(f"at least one stage and one repeat are needed, got {self.stages} and {self.repeats}")
        if self.precision == "fp16" and self.device != "cuda":
            raise ConfigError(f"fp16 is for CUDA devices, and this measures on {self.device}: take bf16 or no")
        if min(self.scale.smallnet_batch, self.scale.hourglass_batch) < 2:
            raise ConfigError("a step of dve takes its auxiliary image from the batch: use a batch size of at least 2")
        if min(vars(self.scale).values()) < 1:
            raise ConfigError(f"all sizes must be at least 1, got {self.scale}")

    def job(self, task: str) -> Job:
        """The task, as it is measured."""
        repeats = min(self.repeats, _LITERAL_REPEATS) if task.startswith(_LITERAL) else self.repeats
        return Job(task, self.scale, self.device, self.precision, repeats)


def choose_scale(
    device: str, *, batch_size: int | None = None, files: int | None = None, file_side: int | None = None
) -> Scale:
    """The recipes' sizes, with batches that the device can hold.

    Args:
        device: ``cpu``, ``cuda`` or ``mps``.
        batch_size: of both networks' steps, instead of 32, and 4 of Hourglass on other than CUDA devices.
        files: that are packed, instead of 256.
        file_side: of these files in pixels, instead of 256.
    """
    scale = Scale(hourglass_batch=_CUDA_HOURGLASS_BATCH) if device == "cuda" else Scale()
    if batch_size is not None:
        scale = replace(scale, smallnet_batch=batch_size, hourglass_batch=batch_size)
    packed = {"files": files, "file_side": file_side}
    return replace(scale, **{name: value for name, value in packed.items() if value is not None})


def run(plan: Plan, *, measure: Measure = in_a_process, progress: bool = True) -> dict[str, Any]:
    """Measure the stages of a plan: ``hardware``, ``versions``, ``date``, ``settings`` and ``results`` by stage.

    Args:
        plan: what to measure.
        measure: measures one task.
        progress: show a bar on standard error.

    Raises:
        TimingError: if a measurement fails.
    """
    wanted = list(dict.fromkeys(task for stage in plan.stages for task in STAGES[stage].values()))
    made: dict[str, Measurement] = {}
    with progress_bar("measuring", len(wanted), unit=None, shown=progress) as advance:
        for task in wanted:
            advance(0, note=task)
            made[task] = measure(plan.job(task))
            advance()
    return {
        "hardware": hardware(torch.device(plan.device)),
        "versions": checkpoint.versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": {"precision": plan.precision, "repeats": plan.repeats} | asdict(plan.scale),
        "results": {name: _result({part: made[task] for part, task in STAGES[name].items()}) for name in plan.stages},
    }


def _result(parts: Mapping[str, Measurement]) -> dict[str, Any]:
    """Of one stage; what belongs to another part than the first has that part's name in front."""
    result: dict[str, Any] = {}
    for part, measured in parts.items():
        front = f"{part}_" if part else ""
        result |= {front + name: value for name, value in _summary(measured).items()}
    own, oracle = parts[""], parts.get("oracle")
    if oracle is not None:
        result |= _against_oracle(own, oracle)
    if "step" in parts:
        result["share"] = own.median / (own.median + parts["step"].median)
    if "decoder" in parts:
        result["share"] = parts["decoder"].median / own.median
    if "singly" in parts:
        result["singly_ratio"] = parts["singly"].median / own.median
    return result


def _summary(measured: Measurement) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "seconds": measured.median,
        "spread": list(measured.spread),
        "repeats": len(measured.seconds),
        f"{measured.unit}_per_second": measured.rate,
        "peak_mb": measured.peak_mb,
        "added_mb": measured.added_mb,
    }
    return summary if measured.loss is None else summary | {"loss": measured.loss}


def _against_oracle(own: Measurement, oracle: Measurement) -> dict[str, Any]:
    """How many times the literal formulation takes, and how far its loss is off."""
    result: dict[str, Any] = {"ratio": oracle.median / own.median}
    for memory in ("peak", "added"):
        ours, theirs = (getattr(each, f"{memory}_mb") for each in (own, oracle))
        result[f"{memory}_ratio"] = theirs / ours if ours and theirs else None
    result["relative_difference"] = None
    if own.loss is not None and oracle.loss:
        result["relative_difference"] = abs(own.loss - oracle.loss) / abs(oracle.loss)
    return result


def parts_of(stage: str) -> list[tuple[str, str]]:
    """What the parts of a stage are called for people, and what stands before the names of their results."""
    return [(f"{stage}, {part}" if part else stage, f"{part}_" if part else "") for part in STAGES[stage]]


COLUMNS = ("", "seconds (middle half)", "per second", "MB (added)", "ratio, share")


def rows(measured: Mapping[str, Any]) -> list[list[str]]:
    """A row of :data:`COLUMNS` for each task of each stage."""
    made = []
    for stage, result in measured["results"].items():
        for part in STAGES[stage]:
            made.append([f"  {part}" if part else stage, *_cells(result, f"{part}_" if part else "")])
    return made


def _cells(result: Mapping[str, Any], front: str) -> list[str]:
    low, high = result[f"{front}spread"]
    rate = next(key for key in result if key.startswith(front) and key.endswith("_per_second"))
    unit = rate.removeprefix(front).removesuffix("_per_second")
    peak, added = result[f"{front}peak_mb"], result[f"{front}added_mb"]
    return [
        f"{result[f'{front}seconds']:.4g} ({low:.4g}–{high:.4g})",
        f"{result[rate]:,.4g} {unit}",
        "" if peak is None else f"{peak:,.0f} ({added:,.0f})",
        _remark(result, front),
    ]


def _remark(result: Mapping[str, Any], front: str) -> str:
    """How many times as much what stands beside it takes; the share of pairs in a step, or of decoding in packing."""
    if front == "oracle_":
        memory = "" if result["peak_ratio"] is None else f", memory {result['peak_ratio']:.1f}"
        return f"time {result['ratio']:.1f}{memory}"
    if front == "singly_":
        return f"time {result['singly_ratio']:.1f}"
    return f"share {result['share']:.0%}" if not front and "share" in result else ""


def differing_losses(measured: Mapping[str, Any]) -> list[str]:
    """A remark for each stage in which both formulations do not have the same loss."""
    remarks = []
    for stage, result in measured["results"].items():
        difference = result.get("relative_difference")
        if difference is not None and not difference <= TOLERANCE:
            remarks.append(f"{stage}: the loss differs from that of the literal formulation by {difference:.1e} of it")
    return remarks
