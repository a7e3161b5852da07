"""Training: the loop, what it logs, and how it stops and goes on.

Batches are functions of the seed and the step (see :mod:`equimark.sampling`): a run that is stopped and resumed
repeats an uninterrupted one exactly. Several processes (see :mod:`equimark.processes`) share each batch; they log the
mean of their terms, and stop together.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from . import checkpoint
from .checkpoint import CheckpointError, DataIdentity
from .config import ConfigError, OptimiserSpec, RunConfig, differing_keys
from .files import write_text
from .log import Log
from .log import TrainingError as TrainingError  # which is raised here too
from .methods import compute_terms
from .networks import Network
from .objectives import Terms
from .packs import PackedImages
from .processes import ALONE, Processes, average_statistics, collect_signals, synchronise
from .progress import progress_bar
from .sampling import Sampler, find_sources, generator


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
    return DataIdentity(source, len(images), images.fingerprint)


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
    processes: Processes | None = None,
) -> None:
    """Train on ``images`` and leave a run in the folder ``out``; of several processes, all must call this.

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
        processes: that train together, if they have met already.

    Raises:
        TrainingError: if a term is not finite, or (:class:`Interrupted`) on SIGINT or SIGTERM, sent to whichever
            process, after saving.
        CheckpointError: if ``out`` holds another run, or cannot be written.
        ConfigError: if images and configuration do not fit.
    """
    torch.set_flush_denormal(True)  # matching probabilities underflow; denormal operands are many times slower
    processes = processes or join(device)
    check(images, config, device, processes)
    config = replace(config, steps=config.resolve_steps(len(images)))
    data = identify(images, source)
    work = _Work.begin(images, config, out, data, initial, processes, device=device, tracker=tracker)
    with processes.together():
        start = _resume(work) if resume else _start(work)
    log = Log.open(out / checkpoint.LOG_FILE, start, processes)
    if start == 0 and initial is not None:
        work.save(0)  # or else resuming a run that stops early would begin with fresh weights
    elif start == config.steps:
        work.save_model(start)  # a kill came between
    assert config.steps is not None
    shown = progress and processes.is_main
    with (
        closing(work),
        collect_signals(patient=processes.count > 1) as received,
        progress_bar("training", config.steps, start=start, unit=None, shown=shown) as advance,
    ):
        for step in range(start + 1, config.steps + 1):
            log.add(step, work.take_step(step))
            # Asked once, of all processes: a signal that comes later is for the next step, which saves.
            stopping = processes.largest(received[0] if received else 0)
            saving = bool(stopping) or step == config.steps or step % config.save_every == 0
            advance(note=_note(work.write_log(log) if saving or step % config.log_every == 0 else None))
            if saving:
                work.save(step)
            if on_step:
                on_step(step)
            if stopping:
                name = signal.Signals(stopping).name
                raise Interrupted(f"stopped at step {step} of {config.steps} by {name}; go on with --resume")


@dataclass
class _Work:
    """What a run works with.

    Args:
        config: of the run, its number of steps known.
        out: folder of the run.
        data: which images these are.
        processes: that train together.
        accelerator: of the device.
        network: as it was made, and ``model``: as the accelerator has wrapped it.
        optimiser: its groups' learning rates are set anew in every step.
        sampler: of the batches.
        tracked: whether to log to a tracker.
    """

    config: RunConfig
    out: Path
    data: DataIdentity
    processes: Processes
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
        processes: Processes,
        *,
        device: str,
        tracker: str | None,
    ) -> _Work:
        accelerator = _accelerator(config, device, out if tracker else None, tracker)
        network = initial if initial is not None else fresh_network(config)
        network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if config.batch_norm == "synchronised" and processes.count > 1:
            synchronise(network, processes)
        model, optimiser = accelerator.prepare(network, make_optimiser(network, config.optimiser))
        if isinstance(model, DistributedDataParallel):
            model.broadcast_buffers = False  # the statistics of batch norm are averaged instead
        device_used, cuts = accelerator.device, config.accumulation
        sampler = Sampler(images, config, device_used, processes=processes, micro_batches=cuts)
        return cls(config, out, data, processes, accelerator, network, model, optimiser, sampler, tracker is not None)

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
        self.optimiser.zero_grad()
        terms = [self._accumulate(step, micro) for micro in range(self.config.accumulation)]
        self.optimiser.step()
        average_statistics(self.network, self.processes)
        return {name: torch.stack([part[name] for part in terms]).mean(0) for name in terms[0]}

    def _accumulate(self, step: int, micro: int) -> Terms:
        """Add the gradient of a micro-batch; its terms."""
        batch, last = self.sampler.batch(step, micro), micro == self.config.accumulation - 1
        with nullcontext() if last else self.accelerator.no_sync(self.model):  # gradients are sent once a step
            # Accelerate casts inside the network alone; the objective is computed in single precision.
            terms = compute_terms(self.model, batch, self.config, self.network.cells, self.processes)
            self.accelerator.backward(terms["total"] / self.config.accumulation)
        return {name: value.detach() for name, value in terms.items()}

    def write_log(self, log: Log) -> dict[str, Any] | None:
        """Write a line of the log, and send it to the tracker, if there is one."""
        entry = log.flush(pairs=self.config.batch_size, lr=self.rates[0])
        if entry and self.tracked:
            self.accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=entry["step"])
        return entry

    def close(self) -> None:
        """Let the tracker write what it holds."""
        for tracker in self.accelerator.trackers if self.tracked else ():
            tracker.finish()  # Accelerate's end_training would part the processes too

    def save(self, step: int) -> None:
        """Keep what is needed to go on, and the model."""
        with self.processes.together():
            _check_weights(self.network, step)
            if self.processes.is_main:
                checkpoint.save_state(self.out, step, self._write_state)
        self.save_model(step)

    def save_model(self, step: int) -> None:
        """Keep the model alone."""
        with self.processes.together():
            if self.processes.is_main:
                checkpoint.save_model(self.out, self.network, step=step, data=self.data)

    def _write_state(self, folder: Path) -> None:
        checkpoint.write_state(folder, self.network, self.optimiser, self.accelerator.scaler)
        write_text(folder / "data.json", json.dumps(vars(self.data)))
        write_text(folder / "processes.json", json.dumps(self.processes.count))


def _note(entry: dict[str, Any] | None) -> str | None:
    return f"loss {entry['loss']:.4g}, {entry['pairs_per_second']:.0f} pairs/s" if entry else None


def join(device: str) -> Processes:
    """The processes that a launcher has started to train on such devices.

    Raises:
        ConfigError: if the device is not there, or cannot be used by several processes.
    """
    _check_device(device)
    try:
        return Processes.join(device)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _check_device(device: str) -> None:
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise ConfigError(f"unknown device {device!r}: choose auto, cpu, cuda or mps")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ConfigError(f"this machine has no {device} device that torch can use; --device auto takes what there is")


def check(images: PackedImages, config: RunConfig, device: str, processes: Processes = ALONE) -> None:
    """Refuse what cannot be trained, before anything is written.

    Raises:
        ConfigError: if images, configuration and processes do not fit, or the device is not there.
    """
    _check_device(device)
    config.check_division(processes.count)
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
            cpu=device == "cpu",
            mixed_precision=config.precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # whatever the launcher says
            log_with=tracker,
            project_dir=folder,
        )
    except ValueError as error:  # a precision that the device lacks, an unknown tracker
        raise ConfigError(str(error)) from None
    if tracker:
        accelerator.init_trackers("tracker")
    return accelerator


def _start(work: _Work) -> int:
    if not work.processes.is_main:
        return 0
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
        checkpoint.read_state(folder, work.network, work.optimiser, work.accelerator.scaler)
    except Exception as error:
        raise CheckpointError(damaged.format(error)) from error
    _mention_processes(work, folder)
    return step


def _mention_processes(work: _Work, folder: Path) -> None:
    """Say so, if the run goes on with another number of processes."""
    path, now = folder / "processes.json", work.processes.count
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else 1
    if before != now and work.processes.is_main:
        norm = "" if work.config.batch_norm == "synchronised" else ", and batch norm sees parts of another size"
        print(
            f"equimark: {work.out} goes on with {now} process(es) instead of {before}: the batches stay the same, "
            f"sums are rounded otherwise{norm}",
            file=sys.stderr,
        )
