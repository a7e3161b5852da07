"""Packs in shards: the frames of more images than a disk or a memory holds, as Parquet files, read a few at a time.

A sharded pack is a folder, or what an fsspec URL leads to, of ``part-00000-<fingerprint>.parquet``, numbered without
gaps. Each has the columns ``name``, ``height``, ``width`` (of the image as stored), ``x0``, ``y0``, ``x1``, ``y1``
(where the frame lies in it) and ``image`` (S * S * 3 bytes: (S, S, 3) uint8 RGB); its footer says how the images were
framed and which could not be read. ``index.json`` repeats what the footers say, so that many shards open at once; it
is not needed where the files can be listed.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from equimark.arrow import import_pyarrow
from equimark.geometry import Frame
from equimark.images import ImageError, Pixels

Rows = NDArray[np.int64]

MIXED = 8  # shards whose images are mixed with one another in training
_HELD = 3 * MIXED  # in memory: those in use by two orders, and the next of one
_READERS = 4
FORMAT = 1
KEY = b"equimark"
INDEX = "index.json"
_FILE = re.compile(r"part-(\d{5,})-([0-9a-f]{16})\.parquet")
_AGAIN = "make it again by the command that made it"
NUMBERS = ("height", "width", "x0", "y0", "x1", "y1")


@dataclass(frozen=True)
class Shard:
    """One file of a sharded pack.

    Args:
        file: its name.
        images: how many.
        smallest_side: of its images as stored, in pixels.
    """

    file: str
    images: int
    smallest_side: int

    @property
    def number(self) -> int:
        """Place among the shards."""
        return int(self.file.split("-")[1])


def is_url(path: str | Path) -> bool:
    """Whether ``path`` is an fsspec URL, such as ``s3://bucket/pack`` or ``filecache::https://host/pack``."""
    return isinstance(path, str) and "://" in path


def is_sharded(path: str | Path) -> bool:
    """Whether a sharded pack lies at ``path``, a folder or URL."""
    if not is_url(path):
        return any(_FILE.fullmatch(file.name) for file in Path(path).glob("part-*.parquet"))
    try:
        return bool(_find(Store.open(path)).shards)
    except ImageError:
        return False


def open_shards(path: str | Path) -> ShardedFrames:
    """The frames of the sharded pack at ``path``, a folder or URL.

    Raises:
        ImageError: no shards there, one missing or damaged, of a newer format, or pyarrow is not installed.
    """
    found = _find(Store.open(path))
    if not found.shards:
        found.store.check()
        raise ImageError(f"{path} holds no part-*.parquet; make some: equimark pack IMAGES --out DIR --shards")
    return _frames_of(found)


class _Found(NamedTuple):
    store: Store
    frame: Frame | None
    shards: list[Shard]  # by number
    missing: list[str]  # files that the index names


def _frames_of(found: _Found) -> ShardedFrames:
    path = found.store.path
    if found.missing:
        raise ImageError(f"{found.store.name(found.missing[0])} is missing; copy it again, or {_AGAIN}")
    for number, shard in enumerate(found.shards):
        if shard.number > number:
            raise ImageError(f"{path} has no part-{number:05d}-*.parquet, but later ones: copy it again, or {_AGAIN}")
        if shard.number < number:
            raise ImageError(f"{path} has two files of number {shard.number:05d}, one is {shard.file}: remove one")
    assert found.frame is not None  # as there are shards
    return ShardedFrames(found.store, found.frame, found.shards)


def _find(store: Store) -> _Found:
    """The shards of a place: as the index has them, or else from their footers."""
    frame, indexed = _read_index(store)
    files = store.files()
    if files is None:  # as on most web servers: the index is all there is
        files = list(indexed)
    shards = [indexed[file] for file in files if file in indexed]
    with ThreadPoolExecutor(_READERS) as pool:
        for shard, about in pool.map(store.footer, [file for file in files if file not in indexed]):
            frame = same_frame(frame, about, store.name(shard.file))
            shards.append(shard)
    shards.sort(key=lambda shard: (shard.number, shard.file))
    return _Found(store, frame, shards, sorted(indexed.keys() - set(files)))


def same_frame(frame: Frame | None, about: dict[str, Any], where: str) -> Frame:
    """The frame that a footer states.

    Raises:
        ImageError: if it is not ``frame`` (None: any will do), or the format is a newer one.
    """
    if about.get("format") != FORMAT:
        raise ImageError(f"{where} has format {about.get('format')}, this version reads {FORMAT}; make it again")
    own = Frame(**about["frame"])
    if frame not in (None, own):
        raise ImageError(f"{where} was made with {own}, which differs from {frame}: one pack has one frame")
    return own


def _read_index(store: Store) -> tuple[Frame | None, dict[str, Shard]]:
    text = store.text(INDEX)
    try:
        about = {} if text is None else json.loads(text)
        if about.get("format") != FORMAT:
            return None, {}
        return Frame(**about["frame"]), {shard["file"]: Shard(**shard) for shard in about["parts"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}  # the footers say the same


# ---- where shards lie ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Store:
    """Files of a folder, here or elsewhere.

    Args:
        path: as given.
        root: of the folder in ``filesystem``, one of pyarrow's.
    """

    path: str
    root: str
    filesystem: Any

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """What lies at ``path``, a folder or URL; whether anything does is not asked yet."""
        arrow = import_pyarrow(path, ImageError)
        if not is_url(path):
            return cls(str(path), str(Path(path).absolute()), arrow.fs.LocalFileSystem())
        import fsspec

        try:
            remote, root = fsspec.core.url_to_fs(str(path))
        except Exception as error:  # an unknown protocol, one whose package is not installed, no right to be there
            raise ImageError(f"{path}: {error}") from error
        return cls(str(path), root.rstrip("/"), arrow.fs.PyFileSystem(arrow.fs.FSSpecHandler(remote)))

    def name(self, file: str) -> str:
        """For people."""
        return f"{self.path.rstrip('/')}/{file}"

    def files(self) -> list[str] | None:
        """The shards' names; None if the place has no list of its files."""
        arrow = import_pyarrow(self.path, ImageError)
        try:
            found = self.filesystem.get_file_info(arrow.fs.FileSelector(self.root, allow_not_found=True))
        except Exception:  # what is raised depends on the protocol's package
            return None
        return [info.base_name for info in found if _FILE.fullmatch(info.base_name)] or None

    def check(self) -> None:
        """Raise an ImageError if the place cannot be reached at all: pyarrow takes that for a place without files."""
        if not is_url(self.path):
            return
        try:
            self.filesystem.handler.fs.ls(self.root)
        except (FileNotFoundError, NotImplementedError):
            return
        except Exception as error:  # what is raised depends on the protocol's package
            raise ImageError(f"{self.path} cannot be reached: {' '.join(str(error).split()) or repr(error)}") from error

    def text(self, file: str) -> str | None:
        """Content of a text file, if it is there."""
        try:
            with self.filesystem.open_input_stream(f"{self.root}/{file}") as stream:
                return str(stream.read().decode("utf-8"))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise ImageError(f"{self.name(file)} cannot be read: {error}") from error

    def footer(self, file: str) -> tuple[Shard, dict[str, Any]]:
        """What the end of a shard says of it."""
        with self._parquet(file) as parquet:
            about = json.loads(parquet.schema_arrow.metadata[KEY])
            return Shard(file, parquet.metadata.num_rows, int(about["smallest_side"])), about

    def columns(self, file: str, columns: Sequence[str]) -> Any:
        """Columns of a shard, a pyarrow Table; what they hold is checked against their checksums."""
        with self._parquet(file) as parquet:
            return parquet.read(list(columns)).combine_chunks()

    @contextmanager
    def _parquet(self, file: str) -> Iterator[Any]:
        arrow = import_pyarrow(self.path, ImageError)
        try:
            with self.filesystem.open_input_file(f"{self.root}/{file}") as stream:
                yield arrow.parquet.ParquetFile(stream, pre_buffer=True, page_checksum_verification=True)
        except FileNotFoundError:
            raise ImageError(f"{self.name(file)} is missing; copy it again, or {_AGAIN}") from None
        except Exception as error:  # of pyarrow, of the protocol's package, or of metadata that are not ours
            reason = " ".join(str(error).split())
            raise ImageError(
                f"{self.name(file)} is damaged or cannot be read ({reason}); copy it again, or remove it and {_AGAIN}"
            ) from error


# ---- reading ------------------------------------------------------------------------------------------------


class ShardedFrames:
    """Frames (N, S, S, 3) uint8 of a sharded pack, of which no more than a few shards are in memory.

    ``frames[rows]`` gives a copy of these rows, as of a NumPy array. Safe in threads.

    Args:
        store: where the shards lie.
        frame: of the images.
        shards: by number.
        held: how many shards to keep in memory.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, store: Store, frame: Frame, shards: Sequence[Shard], held: int = _HELD) -> None:
        self.frame = frame
        self.shards = tuple(shards)
        self._store, self._limit = store, held
        self._ends = np.cumsum([shard.images for shard in shards])
        self._held: OrderedDict[int, Future[Pixels]] = OrderedDict()
        self._lock = Lock()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        return len(self), self.frame.size, self.frame.size, 3

    @property
    def filename(self) -> str:
        """Of the index: the attribute by which a mapped array says where it lies."""
        return self._store.name(INDEX)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, rows: Any) -> Pixels:
        if isinstance(rows, slice):
            return self._gather(np.arange(*rows.indices(len(self))))
        if np.ndim(rows) == 0:
            pixels: Pixels = self._gather(np.array([operator.index(rows)]))[0]
            return pixels
        return self._gather(np.asarray(rows, np.int64))

    @cached_property
    def fingerprint(self) -> str:
        """Of all images, their names and their order."""
        digest = hashlib.sha256(repr((len(self), self.frame)).encode())
        for shard in self.shards:
            digest.update(shard.file.split("-")[2].encode())
        return digest.hexdigest()[:16]

    def shard_of(self, rows: Rows) -> Rows:
        """In which shard each of ``rows`` (B,) lies."""
        return np.searchsorted(self._ends, rows, side="right").astype(np.int64)

    def expect(self, rows: Rows) -> None:
        """Start to read the shards of ``rows`` (B,), which will be wanted soon."""
        for shard in np.unique(self.shard_of(rows)).tolist():
            self._hold(shard)

    def read_names(self) -> list[str]:
        """Names of the images."""
        return [name for table in self._columns("name") for name in from_column(table["name"])]

    def read_places(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Sizes (N, 2) of the images as (H, W), and the boxes (N, 4) of their frames."""
        tables = self._columns(*NUMBERS)
        values = np.concatenate(
            [np.stack([t[key].to_numpy().astype(np.float64) for key in NUMBERS], 1) for t in tables]
        )
        return values[:, :2].astype(np.int64), values[:, 2:]

    def _columns(self, *columns: str) -> Iterator[Any]:
        with ThreadPoolExecutor(_READERS) as pool:
            yield from pool.map(lambda shard: self._store.columns(shard.file, columns), self.shards)

    def smaller_than(self, side: int) -> int:
        """How many images have a side of fewer than ``side`` pixels as stored."""
        found = 0
        for shard in self.shards:
            if shard.smallest_side < side:
                table = self._store.columns(shard.file, ("height", "width"))
                found += int((np.minimum(table["height"].to_numpy(), table["width"].to_numpy()) < side).sum())
        return found

    def _gather(self, rows: Rows) -> Pixels:
        if len(rows) and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)} images")
        rows = np.where(rows < 0, rows + len(self), rows)
        shards = self.shard_of(rows)
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        wanted = iter(np.unique(shards).tolist())
        while group := list(islice(wanted, MIXED)):
            for shard, pixels in [(shard, self._hold(shard)) for shard in group]:
                own = shards == shard
                found[own] = self._wait(shard, pixels)[rows[own] - self._ends[shard] + self.shards[shard].images]
        return found

    def _hold(self, shard: int) -> Future[Pixels]:
        """The pixels of a shard, which may still be on their way; those not used for longest are dropped."""
        with self._lock:
            if shard not in self._held:
                self._held[shard] = self._readers.submit(self._read, shard)
            self._held.move_to_end(shard)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
            return self._held[shard]

    def _wait(self, shard: int, pixels: Future[Pixels]) -> Pixels:
        try:
            return pixels.result()
        except BaseException:
            with self._lock:
                self._held.pop(shard, None)  # what failed once may come right
            raise

    def _read(self, shard: int) -> Pixels:
        about = self.shards[shard]
        column = self._store.columns(about.file, ("image",))["image"].chunk(0)
        shape = (about.images, *self.shape[1:])
        if len(column) != about.images or column.type.byte_width != self.frame.size**2 * 3:
            raise ImageError(f"{self._store.name(about.file)} does not hold the {about.images} images that it should")
        start = column.offset * column.type.byte_width
        return np.frombuffer(column.buffers()[1], np.uint8, int(np.prod(shape)), start).reshape(shape)

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_READERS, "equimark-shards")


def from_column(column: Any) -> list[str]:
    """The strings of a ``name`` column; see :func:`equimark.sharding`."""
    values = column.to_pylist()
    return [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else v for v in values]
