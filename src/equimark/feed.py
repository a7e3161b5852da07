"""How frames come from a pack to the device that makes views of them.

A graphics card that waits for each batch to be gathered and copied stands still for a good part of a step. So a pack
that fits into its memory is kept there, as bytes; of others the next batches are gathered into pinned memory, by a
thread, while the present one is learned from. The frames are the same ones in every way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .packs import PackedImages

Rows = NDArray[np.int64]

_MOST_HELD = 8 * 2**30  # bytes: more takes longer to load than it saves in most runs
_SHARE_HELD = 1 / 4  # of the memory that is free: the rest is for the network and what it computes
_LOADED = 2**26  # bytes copied to the device at a time
_AHEAD = 8  # batches that may wait: of sources, partners and pool, and of a step that was never taken


class Feed(Protocol):
    """Gives frames."""

    def __call__(self, rows: Rows) -> Tensor:
        """Frames (B, 3, S, S) uint8 of ``rows`` (B,), contiguous, on the device."""

    def expect(self, batches: Iterable[Rows]) -> None:
        """Say which rows will be asked for next; not iterated over by a feed that does nothing about it."""


def open_feed(images: PackedImages, device: torch.device) -> Feed:
    """The feed that suits images and device."""
    if device.type != "cuda":
        return Direct(images, device)
    free, _ = torch.cuda.mem_get_info(device)
    return Held(images, device) if fits(images, free) else Ahead(images, device)


def fits(images: PackedImages, free: int) -> bool:
    """Whether images should be kept on a device that has so many bytes free; those in shards never should."""
    pixels = images.images
    return isinstance(pixels, np.ndarray) and pixels.nbytes <= min(_MOST_HELD, _SHARE_HELD * free)


class Direct:
    """Gathers each batch when it is asked for."""

    def __init__(self, images: PackedImages, device: torch.device) -> None:
        self._images, self._device = images, device

    def __call__(self, rows: Rows) -> Tensor:
        """See :class:`Feed`."""
        return self._images.batch(rows).to(self._device)

    def expect(self, batches: Iterable[Rows]) -> None:
        """See :class:`Feed`."""


class Held:
    """Keeps all frames on the device."""

    def __init__(self, images: PackedImages, device: torch.device) -> None:
        shape = images.images.shape
        self._frames = torch.empty(shape, dtype=torch.uint8, device=device)
        count = max(1, _LOADED // (shape[1] * shape[2] * shape[3]))
        for start in range(0, len(images), count):
            part = np.array(images.images[start : start + count])
            self._frames[start : start + count].copy_(torch.from_numpy(part))

    def __call__(self, rows: Rows) -> Tensor:
        """See :class:`Feed`."""
        places = torch.from_numpy(rows).to(self._frames.device, non_blocking=True)
        return self._frames[places].permute(0, 3, 1, 2).contiguous()

    def expect(self, batches: Iterable[Rows]) -> None:
        """See :class:`Feed`."""


class Ahead:
    """Gathers what is expected in a thread, into memory from which the device copies by itself."""

    def __init__(self, images: PackedImages, device: torch.device) -> None:
        self._images, self._device = images, device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="frames")
        self._waiting: OrderedDict[bytes, Future[Tensor]] = OrderedDict()

    def __call__(self, rows: Rows) -> Tensor:
        """See :class:`Feed`."""
        expected = self._waiting.pop(rows.tobytes(), None)
        frames = self._gather(rows) if expected is None else expected.result()
        return frames.to(self._device, non_blocking=True)

    def expect(self, batches: Iterable[Rows]) -> None:
        """See :class:`Feed`."""
        for rows in batches:
            if rows.tobytes() not in self._waiting:
                self._waiting[rows.tobytes()] = self._thread.submit(self._gather, rows)
        while len(self._waiting) > _AHEAD:
            self._waiting.popitem(last=False)[1].cancel()

    def _gather(self, rows: Rows) -> Tensor:
        frames = self._images.batch(rows)
        return frames.pin_memory() if self._device.type == "cuda" else frames
