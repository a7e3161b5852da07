"""What the model has seen of each image, on disk: looked at once, read as often as need be.

A folder of ``index.json`` (which image stands in which row, seen when, by which weights), ``records`` (rows, ...), the
descriptors in half precision, and ``seen`` (rows), a table of the rows that are filled, the sizes of their images and
a summary of each. Rows are written through files and read through a memory map. The folder may be deleted at any time.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from equimark.app import AppError
from equimark.files import write_text
from equimark.geometry import Size

_SPARE = 200_000_000  # bytes to leave free on the disk


class Store:
    """Rows of one shape, one for each image.

    Args:
        folder: of the store; made if need be. What was seen by other weights, or of files that have changed, is
            forgotten.
        names: of N images.
        stamps: of their files: they change when the files do.
        identity: of the model and its frame.
        shape: of a record.
        dtype: of a record.
        summary: how many numbers a summary has.

    Raises:
        AppError: if the disk has no room for all rows.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        stamps: Sequence[str],
        identity: str,
        *,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        summary: int,
    ) -> None:
        self._folder, self._shape, self._dtype = folder, shape, np.dtype(dtype)
        self._about = np.dtype([("seen", "u1"), ("size", "i4", (2,)), ("summary", "f4", (summary,))])
        about: dict[str, Any] = {"identity": identity, "shape": list(shape), "dtype": self._dtype.str}
        kept = self._kept(about)
        self._rows = [kept[name][0] if name in kept else -1 for name in names]
        changed = [i for i, name in enumerate(names) if name in kept and kept[name][1] != stamps[i]]
        next_row = 1 + max((row for row, _ in kept.values()), default=-1)
        for i, row in enumerate(self._rows):
            if row < 0:
                self._rows[i], next_row = next_row, next_row + 1
        self._make_room(next_row)
        self._seen: NDArray[Any] = np.memmap(folder / "seen", self._about, "r+", shape=(next_row,))
        self._seen["seen"][[self._rows[i] for i in changed]] = 0
        self._records: NDArray[Any] = np.memmap(folder / "records", self._dtype, "r", shape=(next_row, *shape))
        now = {name: (row, stamp) for name, row, stamp in zip(names, self._rows, stamps, strict=True)}
        write_text(folder / "index.json", json.dumps({**about, "rows": {**kept, **now}}))

    def _kept(self, about: dict[str, Any]) -> dict[str, tuple[int, str]]:
        """Rows and stamps by name, if the folder holds rows of this kind; else it is emptied."""
        try:
            index = json.loads((self._folder / "index.json").read_text(encoding="utf-8"))
            if {key: index[key] for key in about} == about:
                return {name: (int(row), str(stamp)) for name, (row, stamp) in index["rows"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        shutil.rmtree(self._folder, ignore_errors=True)
        return {}

    def _make_room(self, rows: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        width = math.prod(self._shape) * self._dtype.itemsize
        for name, each in (("records", width), ("seen", self._about.itemsize)):
            path = self._folder / name
            have = path.stat().st_size if path.exists() else 0
            missing, free = rows * each - have, shutil.disk_usage(self._folder).free
            if missing > free - _SPARE:
                raise AppError(
                    f"what the model sees of {rows} images takes {missing / 1e9:.1f} GB in {self._folder}, where "
                    f"{free / 1e9:.1f} GB are free: make room, or choose a folder on another disk with --work"
                )
            with path.open("ab") as file:
                file.truncate(max(have, rows * each))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(N,): which images have a record."""
        return np.asarray(self._seen["seen"][self._rows] == 1)

    @property
    def summaries(self) -> NDArray[np.float32]:
        """(N, D): of each image; NaN where it was not seen."""
        found: NDArray[np.float32] = np.array(self._seen["summary"][self._rows], np.float32)
        found[~self.seen] = np.nan
        return found

    def size(self, image: int) -> Size:
        """(H, W) of an image that was seen."""
        height, width = self._seen["size"][self._rows[image]].tolist()
        return height, width

    def read(self, images: Sequence[int]) -> NDArray[Any]:
        """The records (B, ...) of images that were seen."""
        return np.array(self._records[[self._rows[i] for i in images]])

    def write(
        self, images: Sequence[int], records: NDArray[Any], summaries: NDArray[Any], sizes: Sequence[Size]
    ) -> None:
        """Keep the records (B, ...) of images; they count as seen only when they are on the disk.

        Raises:
            OSError: if they cannot be written.
        """
        data = np.ascontiguousarray(records, self._dtype)
        with (self._folder / "records").open("r+b") as file:
            for image, record in zip(images, data, strict=True):
                file.seek(self._rows[image] * record.nbytes)
                file.write(record.tobytes())
            file.flush()
            os.fsync(file.fileno())
        for image, summary, size in zip(images, summaries, sizes, strict=True):
            self._seen[self._rows[image]] = (1, size, summary)
