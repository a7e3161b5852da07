"""Landmarks of millions of images: in parts, by any number of processes, each of which may be killed at any time.

The images of a source make parts of equally many, in their order. A part becomes a Parquet file with a row per image,
which stands in the folder under its name as a whole or not at all. Processes that are given the same command share the
parts that are still missing: each takes one that is free, in an order of its own, until all are there. Which are taken
is told by locks, and a lock goes with the process that holds it, however it ends; so the others take over its part, or
the same command does when it is given again. On file systems without locks two processes may do the same part, which
costs time and nothing else: whoever is last replaces a file by an equal one.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from .embedding import Embedding, digest
from .files import replace_file, write_text
from .formats import parquet
from .geometry import Placement
from .head import Head
from .landmarks import LandmarkError, LandmarkTable, few
from .model import LandmarkModel
from .prediction import FramedImages, Matcher, open_framed, predict
from .progress import Advance, progress_bar

if sys.platform != "win32":
    import fcntl

PART_SIZE = 10_000

_FORMAT = 1
_JOB = "_job.yaml"  # readers of Parquet folders pass over names that begin with _ or .
_LOCKS = ".locks"
_SAYS = {
    "weights": "another run, head or points",
    "frame": "another frame",
    "images": "other images",
    "part_size": "another size of parts",
    "min_confidence": "another least confidence",
}


@dataclass(frozen=True)
class Parts:
    """Landmarks of many images, in the Parquet files of a folder.

    Args:
        folder: where they lie.
        count: of the files.
        images: in all of them.
        unreadable: how many of these could not be read.
        landmarks: of each image.
    """

    folder: Path
    count: int
    images: int
    unreadable: int
    landmarks: int


def detect_in_parts(
    detector: LandmarkModel | Head | Matcher,
    images: str | Path,
    out: str | Path,
    *,
    part_size: int = PART_SIZE,
    min_confidence: float = 0.0,
    progress: bool = True,
) -> Parts:
    """The landmarks of every image of a source, in Parquet files of ``part_size`` images: see :mod:`equimark.bulk`.

    Returns when all parts are there, whoever made them; parts that are there already are left alone. An image that
    cannot be read has a row, too, which says why.

    Args:
        detector: a sparse run, a fitted head, or points to match.
        images: a folder, a .zip, a list or a pack.
        out: the folder of the parts.
        part_size: images in a part: what is lost when a process is killed, and what is held in memory.
        min_confidence: leave landmarks blank whose confidence is lower.
        progress: show a bar on standard error.

    Raises:
        LandmarkError: ``out`` holds something else, or parts of another job; an image is named twice; or pyarrow is
            missing.
        ImageError: no images.
        ModelError: if the detector has no landmarks.
    """
    folder = Path(out)
    if part_size < 1:
        raise LandmarkError(f"a part has at least one image, got {part_size}")
    source = open_framed(images, detector.frame, workers=_decoders())
    _check_unique(images, source.names)
    work = _Work(detector, source, _count_landmarks(detector), part_size, min_confidence)
    files = [folder / parquet.part_name(i, work.parts) for i in range(work.parts)]
    with _locks(folder) as locks, progress_bar("detecting", len(source), shown=progress) as advance:
        with locks.hold(0, wait=True):
            _begin(folder, work.describe())
        done: set[int] = set()
        for wait in (False, True):  # first the parts that nobody is at, then those that others may leave behind
            for part in random.sample(range(work.parts), work.parts):
                rows = work.rows(part)
                with locks.hold(1 + part, wait=wait and not parquet.is_whole(files[part], len(rows))) as mine:
                    if parquet.is_whole(files[part], len(rows)):
                        advance(0 if part in done else len(rows))
                    elif mine:
                        work.do(part, files[part], advance)
                    else:
                        continue
                    done.add(part)
    images_there, unreadable = parquet.count_rows(files)
    return Parts(folder, work.parts, images_there, unreadable, work.landmarks)


@dataclass(frozen=True)
class _Work:
    detector: LandmarkModel | Head | Matcher
    source: FramedImages
    landmarks: int
    part_size: int
    min_confidence: float

    @property
    def parts(self) -> int:
        return -(-len(self.source) // self.part_size)

    def rows(self, part: int) -> range:
        return range(part * self.part_size, min((part + 1) * self.part_size, len(self.source)))

    def do(self, part: int, path: Path, advance: Advance) -> None:
        """Write a part."""
        rows = self.rows(part)
        found, unreadable = predict(self.detector.detect_framed, self.source.read(rows), advance)
        names = self.source.names[rows.start : rows.stop]
        reasons = {item.name: item.reason for item in unreadable}
        table = _spread(found, names, self.landmarks, self.detector.names, self.min_confidence)
        replace_file(path, lambda temporary: parquet.write(table, temporary, [reasons.get(name) for name in names]))

    def describe(self) -> dict[str, Any]:
        """What the parts are of, so that parts of other jobs are not taken for them."""
        listing = hashlib.sha256()
        for name in self.source.names:
            listing.update(name.encode("utf-8", "surrogateescape") + b"\n")
        return {
            "format": _FORMAT,
            "weights": digest(_tensors(self.detector)),
            "frame": asdict(self.detector.frame),
            "images": f"{len(self.source)}, {listing.hexdigest()[:16]}",
            "part_size": self.part_size,
            "min_confidence": self.min_confidence,
        }


def _spread(
    found: LandmarkTable | None, names: list[str], landmarks: int, labels: tuple[str, ...] | None, least: float
) -> LandmarkTable:
    """The rows of ``found`` among those of all ``names``; the others are blank."""
    points = np.full((len(names), landmarks, 2), np.nan)
    confidence = np.full((len(names), landmarks), np.nan)
    sizes = np.zeros((len(names), 2), np.int64)
    if found is not None:
        assert found.confidence is not None and found.sizes is not None
        place = {name: i for i, name in enumerate(names)}
        at = [place[name] for name in found.images]
        points[at] = np.where((found.confidence < least)[..., None], np.nan, found.points)
        confidence[at], sizes[at] = found.confidence, found.sizes
    return LandmarkTable(tuple(names), points, names=labels, confidence=confidence, sizes=sizes)


def _check_unique(images: str | Path, names: list[str]) -> None:
    if len(set(names)) < len(names):
        seen: set[str] = set()
        again = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        raise LandmarkError(f"{images} names images more than once, and each has one row: {few(again)}")


def _count_landmarks(detector: LandmarkModel | Head | Matcher) -> int:
    """How many landmarks a detector finds: asked once, as the images of a part may all be unreadable."""
    size = detector.frame.size
    blank = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    points, _ = detector.detect_framed(blank, [Placement((0, 0, size, size), size)])
    return int(points.shape[1])


# ---- the job ------------------------------------------------------------------------------------------------


def _begin(folder: Path, job: Mapping[str, Any]) -> None:
    """Note in ``folder`` which job its parts are of.

    Raises:
        LandmarkError: if it holds parts of another, or other things.
    """
    path = folder / _JOB
    if not path.exists():
        others = [other.name for other in folder.iterdir() if not other.name.startswith(".")]
        if others:
            raise LandmarkError(f"{folder} holds other things ({few(others)}); give a new folder for the parts")
        write_text(path, yaml.safe_dump(dict(job), sort_keys=False))
        return
    try:
        earlier = yaml.safe_load(path.read_text(encoding="utf-8"))
        version = earlier["format"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise LandmarkError(f"{path} is damaged ({error}); give a new folder for the parts") from None
    if version != _FORMAT:
        raise LandmarkError(f"{path} has format {version}, this version writes {_FORMAT}; give a new folder")
    changed = [says for key, says in _SAYS.items() if earlier.get(key) != job[key]]
    if changed:
        raise LandmarkError(
            f"{folder} holds landmarks of {' and '.join(changed)}; give a new folder, or the command that began it"
        )


def _tensors(detector: Embedding | Head | Matcher) -> dict[str, Tensor]:
    """All that decides what a detector finds in a frame."""
    if isinstance(detector, Embedding):
        return dict(detector.network.state_dict())
    own = detector.tensors() if isinstance(detector, Head) else {"descriptors": detector.descriptors}
    return _tensors(detector.model) | {f"on top: {name}": tensor for name, tensor in own.items()}


# ---- several processes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Locks:
    """Locks by number, on the bytes of a file."""

    file: int

    @contextmanager
    def hold(self, number: int, *, wait: bool) -> Iterator[bool]:
        """Hold a lock, or False if another process does and it is not to be waited for."""
        if sys.platform == "win32":
            yield True
            return
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, number)
        except (BlockingIOError, PermissionError):  # which of them, is up to the system
            yield False
            return
        except OSError:  # a file system without locks
            yield True
            return
        try:
            yield True
        finally:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, number)


@contextmanager
def _locks(folder: Path) -> Iterator[_Locks]:
    if folder.exists() and not folder.is_dir():
        raise LandmarkError(f"{folder} is a file; give a folder for the parts")
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / _LOCKS, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _Locks(file)
    finally:
        os.close(file)


def take_gpu() -> None:
    """Let ``cuda`` be another GPU in each of the processes that a launcher starts on a machine."""
    local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID")
    if local and torch.cuda.is_available():
        torch.cuda.set_device(int(local) % torch.cuda.device_count())


def _decoders() -> int:
    """Threads that decode: the processors of a machine are shared by the processes that a launcher starts there."""
    return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
