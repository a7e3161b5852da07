"""Where a number comes from: the command, the day, the hardware and the software, and what the run has learned from."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from . import checkpoint
from .checkpoint import Checkpoint
from .config import RunConfig


def made_now(device: torch.device) -> dict[str, Any]:
    """``command``, ``date`` (ISO, UTC), ``hardware`` and ``versions`` of what is made now on a ``device``.

    The command is empty, as if Python was called; see :meth:`equimark.results.Results.made_by`.
    """
    return {
        "command": "",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": hardware(device),
        "versions": checkpoint.versions(),
    }


def command_line(words: Sequence[str]) -> str:
    """A command as a person types it; empty without words."""
    return shlex.join(["equimark", *words]) if words else ""


def training_of(kept: Checkpoint) -> dict[str, Any]:
    """What a run is and has learned from: ``method``, ``network``, ``channels``, ``steps``, ``batch_size``, ``seed``,
    number of ``images`` and the last part of their path (``data``); ``landmarks`` if learned beside descriptors; and
    ``settings``, 16 characters that are the same for runs that differ in their seeds alone."""
    config = kept.config
    beside = {"landmarks": config.network.landmarks} if config.network.landmarks else {}
    return {
        "method": config.method,
        "network": config.network.name,
        "channels": config.network.channels,
        "steps": kept.step,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "images": kept.data.count,
        "data": Path(kept.data.source).name,
        "settings": _digest(config),
        **beside,
    }


def _digest(config: RunConfig) -> str:
    """Of all settings but the seed."""
    text = json.dumps({name: value for name, value in asdict(config).items() if name != "seed"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hardware(device: torch.device) -> dict[str, Any]:
    """Processor, number of cores and of threads, memory in GB, the device of the measurement and its name."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "device": device.type,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> int | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    except (AttributeError, ValueError, OSError):  # not on every system
        return None
