"""Several processes that train one network: which one this is, and what they say to each other beside the gradients.

A launcher (``torchrun``, ``accelerate launch``) starts the same command several times, on one machine or several. Each
process takes its part of every batch. The main process, number 0, alone writes files and prints.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_PATIENCE = timedelta(days=1)  # as long as the main process may take to pack the images


def prints() -> bool:
    """Whether this process, of those that a launcher may have started, is the one that prints."""
    return int(os.environ.get("RANK", "0")) == 0


def leave() -> None:
    """Part from the other processes, if there are any, at the end of the program."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Args:
        count: how many there are.
        own: the number of this one, from 0.
        hosts: the group in which their hosts talk, whatever their devices are; needed by more than one.
    """

    count: int = 1
    own: int = 0
    hosts: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, device: str) -> Processes:
        """Meet the other processes that a launcher has started; alone, if there was no launcher.

        Args:
            device: ``auto``, ``cpu``, ``cuda`` or ``mps``: whether they will talk through devices.

        Raises:
            ValueError: if they cannot train together.
        """
        if not (dist.is_available() and dist.is_initialized()):
            AcceleratorState._reset_state(reset_partial_state=True)  # of earlier runs in this process
        state = PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if state.num_processes != started:
            raise ValueError(
                f"{started} processes were started, but cannot train together on {state.device}: use --device cpu"
            )
        if started == 1:
            return cls()
        return cls(started, state.process_index, dist.new_group(backend="gloo", timeout=_PATIENCE))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.own == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block at whose end all wait for each other, and that fails in all processes if it fails in one."""
        if self.count == 1:
            yield
            return
        try:
            yield
        except Exception as error:
            self._tell(error)
            raise
        failures = [told for told in self._tell(None) if told is not None]
        if failures:
            raise failures[0]

    def _tell(self, error: Exception | None) -> list[Exception | None]:
        """What each process tells all of them."""
        told: list[Exception | None] = [None] * self.count
        dist.all_gather_object(told, error, group=self.hosts)
        return told

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers; their devices are not waited for."""
        if self.count == 1:
            return number
        numbers = torch.tensor(number)
        dist.all_reduce(numbers, dist.ReduceOp.MAX, group=self.hosts)
        return int(numbers)

    @torch.no_grad()
    def mean(self, values: Tensor) -> Tensor:
        """``values`` averaged over the processes, without gradient."""
        if self.count == 1:
            return values.detach()
        total = values.detach().contiguous().clone()
        dist.all_reduce(total)
        return total / self.count

    def share(self, weight: Tensor) -> Tensor:
        """By how much ``weight``, what a mean of this process divides by, exceeds the mean of all processes' weights.

        The average over processes of means, each times its share, is the mean over what all of them have.
        """
        return torch.ones_like(weight) if self.count == 1 else weight / self.mean(weight).clamp_min(1e-12)

    def gather(self, own: Tensor) -> Tensor:
        """The tensors (N, ...) of all processes in their order (count * N, ...), with gradient."""
        gathered: Tensor = own if self.count == 1 else _Gather.apply(own, self)  # type: ignore[no-untyped-call]
        return gathered


ALONE = Processes()


class _Gather(torch.autograd.Function):
    """Gathered values act on the losses of all processes: each receives the sum of their gradients for its own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, processes: Processes) -> Tensor:
        ctx.processes = processes
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(processes.count)]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(ctx.processes.count)[ctx.processes.own], None


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, which have the same number each; on any device.

    PyTorch's own knows GPUs alone.

    Args:
        plain: the layer whose parameters and statistics it shares.
        processes: of the run.
    """

    def __init__(self, plain: nn.BatchNorm2d, processes: Processes) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum)
        self.weight, self.bias = plain.weight, plain.bias
        self._buffers.update(plain._buffers)
        self.train(plain.training)
        self._processes = processes

    def forward(self, x: Tensor) -> Tensor:
        """Normalised ``x`` (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        own = torch.stack(torch.var_mean(values, (0, 2, 3), correction=0))
        variances, means = self._processes.gather(own[None]).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        self._note(mean.detach(), variance.detach(), self._processes.count * values[:, 0].numel())
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], values, scale[:, None, None]).to(x.dtype)

    def _note(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the statistics of evaluation towards those of a batch of ``count`` values."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def synchronise(network: nn.Module, processes: Processes) -> None:
    """Let every batch norm of ``network`` see the images of all processes; names and values of the weights stay."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SynchronisedBatchNorm(child, processes))


def average_statistics(network: nn.Module, processes: Processes) -> None:
    """Give all processes the mean of their running statistics of separate batch norms, as one network is kept."""
    norms = [m for m in network.modules() if type(m) is nn.BatchNorm2d and m.training]
    statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
    if processes.count > 1 and statistics:
        means = processes.mean(torch.cat(statistics))
        for statistic, mean in zip(statistics, torch.split(means, [len(s) for s in statistics]), strict=True):
            statistic.copy_(mean)


@contextmanager
def collect_signals(*, patient: bool) -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of dying of them.

    A second one kills as usual, unless ``patient``: launchers send one to each process beside that of the keyboard.
    """
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, _: Any) -> None:
        received.append(number)
        for kept, handler in () if patient else previous.items():
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
