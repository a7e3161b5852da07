"""Training: the loop, what it logs, and how it stops and goes on.

Batches are functions of the seed and the step (see :mod:`equimark.sampling`): a run that is stopped and resumed
repeats an uninterrupted one exactly.
"""

from __future__ import annotations

import hashlib
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from . import checkpoint
from .checkpoint import CheckpointError, DataIdentity
from .config import ConfigError, OptimiserSpec, RunConfig, differing_keys
from .files import write_text
from .methods import compute_terms
from .networks import Network
from .objectives import Terms
from .packs import PackedImages
from .progress import progress_bar
from .sampling import Sampler, find_sources, generator


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says at which step and why."""


class Interrupted(TrainingError):
    """Training stopped by a signal, after saving its state."""


def fresh_network(config: RunConfig) -> Network:
    """The network of ``config`` with the initial weights of its seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(config.seed, "weights").get_state())
        return checkpoint.build(config)


def learning_rate(spec: OptimiserSpec, progress: float) -> float:
    """Factor on the learning rates when a share ``progress`` (0 to 1) of the run is done."""
    if spec.schedule == "step":
        return float(0.1 ** sum(progress >= milestone for milestone in spec.milestones))
    if spec.schedule == "one-cycle":
        rise = 0.3
        if progress < rise:
            return 0.04 + 0.96 * _cosine(progress / rise)
        return 1 - _cosine((progress - rise) / (1 - rise)) * (1 - 1e-4)
    return 1.0


def _cosine(share: float) -> float:
    return float(0.5 - 0.5 * np.cos(np.pi * share))


def make_optimiser(network: nn.Module, spec: OptimiserSpec) -> torch.optim.Adam:
    """Adam with the biases of convolutions in a group of their own."""
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    chosen = {id(b) for b in biases}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    groups = [{"params": rest, "lr": spec.lr}, {"params": biases, "lr": spec.bias_lr or spec.lr}]
    return torch.optim.Adam(groups, lr=spec.lr, weight_decay=spec.weight_decay, amsgrad=spec.amsgrad)


def identify(images: PackedImages, source: str) -> DataIdentity:
    """What tells these images from others."""
    digest = hashlib.sha256(repr((len(images), images.frame)).encode())
    for name in images.names:
        digest.update(name.encode() + b"\0")
    return DataIdentity(source, len(images), digest.hexdigest()[:16])


@dataclass
class _Log:
    """Collects terms on the device and writes lines; the device is waited for only when a line is due."""

    path: Path
    pending: list[tuple[int, Terms]]
    since: float

    @classmethod
    def open(cls, path: Path, step: int) -> _Log:
        """A log that goes on after ``step``: later lines of an earlier attempt are dropped."""
        kept = [entry for entry in checkpoint.read_log(path.parent) if entry["step"] <= step]
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
        return cls(path, [], time.perf_counter())

    def add(self, step: int, terms: Terms) -> None:
        self.pending.append((step, {name: value.detach() for name, value in terms.items()}))

    def flush(self, *, pairs: int, lr: float) -> dict[str, Any] | None:
        """Write the mean terms since the last line.

        Raises:
            TrainingError: if a term was not finite.
        """
        if not self.pending:
            return None
        names = list(self.pending[0][1])
        values = torch.stack([torch.stack([terms[n].float() for n in names]) for _, terms in self.pending]).cpu()
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
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.pending.clear()
        self.since = time.perf_counter()
        return entry


def train(
    images: PackedImages,
    config: RunConfig,
    out: Path,
    *,
    source: str = "memory",
    resume: bool = False,
    initial: Network | None = None,
    device: str = "auto",
    tracker: str | None = None,
    progress: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Train on ``images`` and leave a run in the folder ``out``.

    Args:
        images: in the frame of ``config``.
        config: of the run.
        out: folder of the run; created.
        source: where the images come from, for the record.
        resume: go on from the state saved in ``out``.
        initial: a network whose weights to start from (unlabelled fine-tuning).
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        tracker: of Accelerate to log to beside the JSONL file, for example ``tensorboard``.
        progress: show a progress bar.
        on_step: called after every step with its number.

    Raises:
        TrainingError: if a term is not finite, or (:class:`Interrupted`) on SIGINT or SIGTERM after saving.
        CheckpointError: if ``out`` holds another run, or cannot be written.
        ConfigError: if images and configuration do not fit.
    """
    torch.set_flush_denormal(True)  # matching probabilities underflow; denormal operands are many times slower
    check(images, config, device)
    config = replace(config, steps=config.resolve_steps(len(images)))
    work = _Work.begin(images, config, out, identify(images, source), initial, device=device, tracker=tracker)
    start = _resume(work) if resume else _start(work)
    log = _Log.open(out / checkpoint.LOG_FILE, start)
    if start == 0 and initial is not None:
        work.save(0)  # or else resuming a run that stops early would begin with fresh weights
    elif start == config.steps:
        work.save_model(start)  # a kill came between
    assert config.steps is not None
    with (
        closing(work),
        _signals() as stopped_by,
        progress_bar("training", config.steps, start=start, unit=None, shown=progress) as advance,
    ):
        for step in range(start + 1, config.steps + 1):
            log.add(step, work.take_step(step))
            stopping = bool(stopped_by)  # asked once: a signal that comes later is for the next step, which saves
            saving = stopping or step == config.steps or step % config.save_every == 0
            entry = None
            if saving or step % config.log_every == 0:
                entry = log.flush(pairs=config.batch_size, lr=work.rates[0])
                work.track(entry)
            advance(note=_note(entry))
            if saving:
                work.save(step)
            if on_step:
                on_step(step)
            if stopping:
                raise Interrupted(f"stopped at step {step} of {config.steps} by {stopped_by[0]}; go on with --resume")


@dataclass
class _Work:
    """What a run works with.

    Args:
        config: of the run, its number of steps known.
        out: folder of the run.
        data: which images these are.
        accelerator: of the device.
        network: as it was made, and ``model``: as the accelerator has wrapped it.
        optimiser: its groups' learning rates are set anew in every step.
        sampler: of the batches.
        tracked: whether to log to a tracker.
    """

    config: RunConfig
    out: Path
    data: DataIdentity
    accelerator: Accelerator
    network: Network
    model: nn.Module
    optimiser: torch.optim.Optimizer
    sampler: Sampler
    tracked: bool

    @classmethod
    def begin(
        cls,
        images: PackedImages,
        config: RunConfig,
        out: Path,
        data: DataIdentity,
        initial: Network | None,
        *,
        device: str,
        tracker: str | None,
    ) -> _Work:
        accelerator = _accelerator(config, device, out if tracker else None, tracker)
        network = initial if initial is not None else fresh_network(config)
        network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        model, optimiser = accelerator.prepare(network, make_optimiser(network, config.optimiser))
        sampler = Sampler(images, config, accelerator.device)
        return cls(config, out, data, accelerator, network, model, optimiser, sampler, tracker is not None)

    @property
    def rates(self) -> list[float]:
        """Learning rates of the groups of parameters."""
        return [float(group["lr"]) for group in self.optimiser.param_groups]

    def take_step(self, step: int) -> Terms:
        """Move the weights once; the terms of the step, still on the device."""
        assert self.config.steps is not None
        spec = self.config.optimiser
        factor = learning_rate(spec, (step - 1) / self.config.steps)
        for group, base in zip(self.optimiser.param_groups, (spec.lr, spec.bias_lr or spec.lr), strict=True):
            group["lr"] = base * factor
        # Accelerate casts inside the network alone; the objective is computed in single precision.
        terms = compute_terms(self.model, self.sampler.batch(step), self.config, self.network.cells)
        self.optimiser.zero_grad()
        self.accelerator.backward(terms["total"])
        self.optimiser.step()
        return terms

    def track(self, entry: dict[str, Any] | None) -> None:
        """Send a line of the log to the tracker, if there is one."""
        if entry and self.tracked:
            self.accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=entry["step"])

    def close(self) -> None:
        """Let the tracker write what it holds."""
        if self.tracked:
            self.accelerator.end_training()

    def save(self, step: int) -> None:
        """Keep what is needed to go on, and the model."""
        _check_weights(self.network, step)
        checkpoint.save_state(self.out, step, self._write_state)
        self.save_model(step)

    def save_model(self, step: int) -> None:
        """Keep the model alone."""
        checkpoint.save_model(self.out, self.accelerator.unwrap_model(self.model), step=step, data=self.data)

    def _write_state(self, folder: Path) -> None:
        self.accelerator.save_state(str(folder), safe_serialization=True)
        write_text(folder / "data.json", json.dumps(vars(self.data)))


def _note(entry: dict[str, Any] | None) -> str | None:
    return f"loss {entry['loss']:.4g}, {entry['pairs_per_second']:.0f} pairs/s" if entry else None


def check(images: PackedImages, config: RunConfig, device: str) -> None:
    """Refuse what cannot be trained, before anything is written.

    Raises:
        ConfigError: if images and configuration do not fit, or the device is not there.
    """
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"unknown device {device!r}: choose auto, cpu, cuda or mps")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ConfigError(f"this machine has no {device} device that torch can use; --device auto takes what there is")
    if images.frame.size != config.frame.size:
        raise ConfigError(
            f"the pack's frames are {images.frame.size} px wide and the recipe's {config.frame.size} px: pack the "
            f"images again with --size {config.frame.size}, or train on the images themselves"
        )
    find_sources(images, config)
    if config.method == "supervised" and images.points is None:
        raise ConfigError("a supervised run needs the landmarks of its images: give a landmark file with --landmarks")
    if config.method == "segmentation" and images.parts is None:
        raise ConfigError("a segmentation run needs the parts of its images: give a folder of label images, --parts")


def _check_weights(network: nn.Module, step: int) -> None:
    for name, weight in network.named_parameters():
        if not weight.isfinite().all():
            raise TrainingError(
                f"weights are not finite after step {step} (first: {name}); the last good state is kept. "
                "Lower --optimiser.lr and go on with --resume"
            )


def _accelerator(config: RunConfig, device: str, folder: Path | None, tracker: str | None) -> Accelerator:
    AcceleratorState._reset_state()  # or else the precision of the process's first run would bind all later ones
    try:
        accelerator = Accelerator(
            cpu=device == "cpu", mixed_precision=config.precision, log_with=tracker, project_dir=folder
        )
    except ValueError as error:  # a precision that the device lacks, an unknown tracker
        raise ConfigError(str(error)) from None
    if tracker:
        accelerator.init_trackers("tracker")
    return accelerator


def _start(work: _Work) -> int:
    if (work.out / checkpoint.CONFIG_FILE).exists():
        raise CheckpointError(f"{work.out} already holds a run: go on with --resume, or replace it with --overwrite")
    checkpoint.write_config(work.out, work.config)
    return 0


def _resume(work: _Work) -> int:
    out, data = work.out, work.data
    if changed := differing_keys(checkpoint.read_config(out), work.config):
        raise CheckpointError(
            f"{out} was started with another configuration ({'; '.join(changed)}): resume with the same, "
            "or start a new run from its weights with --from"
        )
    state = checkpoint.latest_state(out)
    if state is None:
        return 0
    step, folder = state
    damaged = f"the state in {folder} is damaged ({{}}); start again with --overwrite"
    try:
        kept = DataIdentity(**json.loads((folder / "data.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(damaged.format(error)) from None
    if (kept.count, kept.fingerprint) != (data.count, data.fingerprint):
        raise CheckpointError(
            f"{out} was trained on other images ({kept.count} from {kept.source}; now {data.count} from "
            f"{data.source}): resume with the same, or fine-tune on these with --from"
        )
    try:
        work.accelerator.load_state(str(folder))
    except Exception as error:
        raise CheckpointError(damaged.format(error)) from error
    return step


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Collects the names of SIGINT and SIGTERM instead of dying of them; a second one kills as usual."""
    received: list[str] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _: Any) -> None:
        received.append(signal.Signals(number).name)
        for kept, handler in previous.items():
            signal.signal(kept, handler)

    try:
        for wanted in (signal.SIGINT, signal.SIGTERM):
            previous[wanted] = signal.signal(wanted, note)
    except ValueError:  # signals belong to the main thread; elsewhere the caller stops the run
        previous.clear()
    try:
        yield received
    finally:
        for kept, handler in previous.items():
            signal.signal(kept, handler)
