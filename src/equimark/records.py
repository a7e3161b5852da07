"""Predicted landmarks in a file: predicted once, scored many times, and never mixed.

A record says what its predictions are of: the run's weights, the images and labels, the settings. Asked for any other
it refuses, and says what differs. What a protocol has predicted before it was interrupted is not predicted again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from .files import replace_file
from .metrics import Points

_FORMAT = "equimark-predictions-1"


class RecordError(ValueError):
    """A file of predictions that are damaged, or of something else."""


class Record:
    """Predicted landmarks (N, K, 2), or (N, K, 3) with confidence, by name, in a file or in memory alone.

    Args:
        about: what they are of: names and short texts, all of which have to agree.
        path: file, which may exist; memory alone if absent.

    Raises:
        RecordError: if the file is damaged, or of something else.
    """

    def __init__(self, about: Mapping[str, str], path: Path | None = None) -> None:
        self.about = dict(about)
        self.path = path
        self._points: dict[str, Points] = {}
        if path is not None and path.exists():
            kept, self._points = _read(path)
            _check_same(path, kept, self.about)

    def __contains__(self, name: str) -> bool:
        return name in self._points

    def __getitem__(self, name: str) -> Points:
        return self._points[name]

    def get(self, name: str, predict: Callable[[], Points]) -> Points:
        """The predictions of that name; if there are none yet, they are made and kept."""
        if name not in self._points:
            self._points[name] = np.ascontiguousarray(predict(), np.float64)
            if self.path is not None:
                _write(self.path, self.about, self._points)
        return self._points[name]


def fingerprint(parts: Mapping[str, NDArray[Any]]) -> str:
    """Of named arrays: 16 characters that change with any name, shape or value."""
    digest = hashlib.sha256()
    for name, values in parts.items():
        digest.update(f"{name} {values.shape} {values.dtype.str}\0".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()[:16]


def _write(path: Path, about: Mapping[str, str], points: Mapping[str, Points]) -> None:
    replace_file(path, lambda temporary: save_file(dict(points), temporary, {"format": _FORMAT, **about}))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Points]]:
    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(file.metadata() or {})
            points = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise RecordError(
            f"{path} holds no predictions, or is damaged ({error}); remove it, or name another file"
        ) from (None)
    if about.pop("format", None) != _FORMAT:
        raise RecordError(f"{path} holds no predictions, or of a version that this one cannot read; name another file")
    return about, points


def _check_same(path: Path, kept: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    names = sorted({*kept, *wanted})
    differing = [
        f"{n}: {kept.get(n, 'none')} -> {wanted.get(n, 'none')}" for n in names if kept.get(n) != wanted.get(n)
    ]
    if differing:
        raise RecordError(
            f"{path} holds predictions of something else ({'; '.join(differing)}): name another file, or remove it to "
            "predict again"
        )
