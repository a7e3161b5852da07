"""What a measurement was made on, and how much memory it takes there."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

_MB = 2**20
_PROCESS = Path("/proc/self")


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


def restart_peak(device: torch.device) -> float | None:
    """Let the peak of memory start anew and say, in MB, from what.

    Where the system cannot (other than Linux), the peak so far stays, and what exceeds it is what counts as added.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    return peak_memory(device)


def peak_memory(device: torch.device) -> float | None:
    """Most memory at a time, in MB: what torch has allocated on a CUDA device, else what of the process is resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MB
    with suppress(OSError):
        # Not getrusage, whose peak a process takes over from the one that started it.
        for line in (_PROCESS / "status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    unit = _MB if sys.platform == "darwin" else 2**10  # ru_maxrss: bytes on macOS, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def wait_for(device: torch.device) -> None:
    """Let the device finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
