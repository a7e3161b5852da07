"""How much memory a measurement takes, and when its device has finished."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

_MB = 2**20
_PROCESS = Path("/proc/self")


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
