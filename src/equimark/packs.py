"""The pack: every image of a source brought to a frame, uint8, in one memory-mapped file or in shards.

A pack of one file is a folder of ``images.u8`` (N, S, S, 3), ``index.csv``, ``unreadable.csv`` and ``pack.yaml``;
where video frames have their flow beside them (see :mod:`equimark.flows`), ``flow.f16`` (N, S, S, 2) too. For one in
shards see :mod:`equimark.shards`. Sizes are ``(H, W)`` of the image as stored, after EXIF rotation.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equimark import flows
from equimark.geometry import Frame, Placement, Size
from equimark.images import Framed, ImageError, ImageSource, Pixels, Unreadable, open_images, read_framed
from equimark.progress import progress_bar
from equimark.sharding import write_shards
from equimark.shards import ShardedFrames, is_sharded, is_url, open_shards

_FORMAT = 1


def pack(
    source_path: str | Path,
    out: str | Path,
    frame: Frame,
    *,
    progress: bool = True,
    workers: int | None = None,
    overwrite: bool = False,
    shards: int | None = None,
) -> PackedImages:
    """Decode every image of a source once, bring it to ``frame`` and write all to the folder ``out``.

    Files that cannot be read are left out and listed in ``unreadable.csv`` (file, reason). Nothing stands at ``out``
    before all of it is written. With ``shards`` the pack is written in parts instead: what stands at ``out`` stays,
    and only the images that it lacks are added.

    Args:
        source_path: as of :func:`open_images`.
        out: the folder to make.
        progress: show a bar on standard error.
        workers: threads that decode; default: one per processor.
        overwrite: replace a pack that stands at ``out``.
        shards: write shards of so many images; 0: of about 16 MB of pixels.

    Raises:
        ImageError: no readable image, ``out`` is taken, or the disk is full.
    """
    if is_pack(source_path):
        raise ImageError(f"{source_path} is a pack already; give the images that it was made of")
    source = open_images(source_path)
    if shards is not None:
        return _pack_shards(source, Path(out).resolve(), frame, shards, progress, workers, overwrite)
    places = {name: i for i, name in enumerate(source.names)}

    def read_flow(name: str) -> NDArray[np.float32] | None:
        data = source.read_beside(places[name], flows.SUFFIX)
        return None if data is None else flows.read(data)

    with closing(read_framed(source, frame, workers=workers)) as images:
        count, where = len(source), source.path
        return write_pack(images, count, out, frame, where, read_flow, progress=progress, overwrite=overwrite)


def write_pack(
    images: Iterable[Framed | Unreadable],
    count: int,
    out: str | Path,
    frame: Frame,
    source: Path,
    read_flow: Callable[[str], NDArray[np.float32] | None] | None = None,
    *,
    progress: bool = True,
    overwrite: bool = False,
) -> PackedImages:
    """Write images that are in their frames already: see :func:`pack`.

    Args:
        images: ``count`` of them, each of ``frame.size``; they may lie in their images as they like.
        count: how many.
        out: the folder to make.
        frame: how the images were framed, or how other images like them should be.
        source: where they come from.
        read_flow: name of an image -> displacement (H, W, 2) of its pixels to the next; None if there is none.
        progress: show a bar on standard error.
        overwrite: replace a pack that stands at ``out``.

    Raises:
        ImageError: as :func:`pack`.
    """
    out = Path(out).resolve()
    _check_free(out, overwrite)
    with _new_folder(out, count * frame.size**2 * 3) as folder:
        written = _write_images(images, count, source, folder, progress)
        if read_flow is not None:
            _write_flow(read_flow, folder, frame, written)
        about = {"format": _FORMAT, "count": written, "frame": asdict(frame), "source": source.resolve().as_posix()}
        (folder / "pack.yaml").write_text(yaml.safe_dump(about, sort_keys=False), "utf-8")
    return PackedImages.open(out)


def is_pack(path: str | Path) -> bool:
    """Whether ``path`` is a folder made by :func:`pack`, or the URL of one in shards."""
    return _is_one_file(path) or is_sharded(path)


def locate(path: str | Path) -> str:
    """Where images lie, whatever the working folder: an absolute path, or the URL as it is."""
    return str(path) if is_url(path) else str(Path(path).resolve())


def _is_one_file(path: str | Path) -> bool:
    return (Path(path) / "pack.yaml").is_file() and (Path(path) / "images.u8").is_file()


def _pack_shards(
    source: ImageSource, out: Path, frame: Frame, images: int, progress: bool, workers: int | None, overwrite: bool
) -> PackedImages:
    if source.read_beside(0, flows.SUFFIX) is not None:
        raise ImageError(
            f"{source.path} has flow beside its images, which shards do not hold: pack it without --shards"
        )
    if overwrite and is_pack(out):
        shutil.rmtree(out)
    elif not is_sharded(out) and any(not file.name.startswith(".") for file in out.glob("*")):
        _check_free(out, overwrite)
    write_shards(source, out, frame, images, progress=progress, workers=workers)
    return PackedImages.open(out)


def _check_free(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_pack(out):
        raise ImageError(f"{out} exists and is not a pack; choose another --out, or remove it yourself")
    if not overwrite:
        raise ImageError(f"{out} holds a pack already; choose another --out, or replace it with --overwrite")


@contextmanager
def _new_folder(out: Path, needed: int) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place in the end, or vanishes if anything goes wrong."""
    folder = out.with_name(f".{out.name}.{os.getpid()}.partial")
    full = ImageError(f"no space left for {out}: this pack takes up to {needed / 1e9:.2f} GB; choose another --out")
    try:
        folder.mkdir(parents=True)
        if shutil.disk_usage(folder).free < needed:
            raise full
        yield folder
        _replace(out, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _replace(out: Path, folder: Path) -> None:
    if not out.exists():
        folder.rename(out)
        return
    old = folder.with_suffix(".replaced")
    out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _write_images(images: Iterable[Framed | Unreadable], count: int, source: Path, folder: Path, progress: bool) -> int:
    """Writes ``images.u8``, ``index.csv`` and ``unreadable.csv``; returns how many images could be read."""
    written = 0
    reasons: list[str] = []
    with ExitStack() as stack:
        pixels = stack.enter_context((folder / "images.u8").open("wb"))
        index = stack.enter_context(_csv(folder / "index.csv", "image", "width", "height", "x0", "y0", "x1", "y1"))
        unreadable = stack.enter_context(_csv(folder / "unreadable.csv", "file", "reason"))
        advance = stack.enter_context(progress_bar("packing", count, shown=progress))
        for image in images:
            if isinstance(image, Unreadable):
                unreadable.writerow((image.name, image.reason))
                reasons += [f"{image.name}: {image.reason}"] if len(reasons) < 3 else []
            else:
                pixels.write(image.pixels.data)
                index.writerow((image.name, image.size[1], image.size[0], *image.placement.box))
                written += 1
            advance()
    if not written:
        raise ImageError(f"none of the {count} images of {source} can be read; {'; '.join(reasons)}")
    return written


def _write_flow(read_flow: Callable[[str], NDArray[np.float32] | None], folder: Path, frame: Frame, count: int) -> None:
    """Writes ``flow.f16`` if any image has flow; NaN for those that have none."""
    index = _Index.open(folder / "index.csv", count)
    found: NDArray[np.float16] | None = None
    for i, name in enumerate(index.names):
        try:
            flow = read_flow(name)
            if flow is None:
                continue
            if found is None:
                shape = (count, frame.size, frame.size, 2)
                found = np.memmap(folder / "flow.f16", np.float16, "w+", shape=shape)
                found[:] = np.nan
            found[i] = flows.to_frame(flow, index.size(i), index.placement(i, frame))
        except flows.FlowError as error:
            raise ImageError(f"{PurePosixPath(name).with_suffix(flows.SUFFIX)}: {error}") from None


@contextmanager
def _csv(path: Path, *columns: str) -> Iterator[Any]:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer


_Places = tuple[NDArray[np.int64], NDArray[np.float64]]  # sizes (N, 2): H, W; boxes (N, 4): x0, y0, x1, y1


@dataclass(frozen=True, eq=False)
class _Index:
    """What is known of the images of a pack; read when it is first asked for."""

    read_names: Callable[[], list[str]]
    read_places: Callable[[], _Places]

    @cached_property
    def names(self) -> list[str]:
        return self.read_names()

    @cached_property
    def places(self) -> _Places:
        return self.read_places()

    @classmethod
    def of(cls, names: list[str], sizes: NDArray[np.int64], boxes: NDArray[np.float64]) -> _Index:
        return cls(lambda: names, lambda: (sizes, boxes))

    @classmethod
    def open(cls, path: Path, count: int) -> _Index:
        return cls(partial(_read_names, path, count), partial(_read_places, path, count))

    def size(self, i: int) -> Size:
        height, width = self.places[0][i].tolist()
        return height, width

    def placement(self, i: int, frame: Frame) -> Placement:
        x0, y0, x1, y1 = self.places[1][i].tolist()
        return Placement((x0, y0, x1, y1), frame.size)


@dataclass(frozen=True, eq=False)
class PackedImages:
    """Images of one frame, uint8, in memory, mapped from a pack, or read from its shards.

    Args:
        images: (N, S, S, 3) uint8 RGB, not to be written to; of shards, what gives such arrays for rows.
        frame: how the images were brought to S x S.
        flow: of video frames, (N, S, S, 2): where each pixel goes in the next frame, as a displacement in pixels
            of the frame; NaN where unknown.
        points: labels (N, K, 2) in pixels of the frame, NaN where not visible; for supervised training alone.
        parts: labels (N, S, S) of the pixels, uint8; for segmentation alone.
    """

    images: Pixels | ShardedFrames
    frame: Frame
    _index: _Index = field(repr=False)
    flow: NDArray[np.floating] | None = field(default=None, repr=False)
    points: NDArray[np.floating] | None = field(default=None, repr=False)
    parts: NDArray[np.uint8] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> PackedImages:
        """Map the pack in ``folder``, or open its shards there or at a URL; takes a short time whatever its size.

        Raises:
            ImageError: not a pack, of a newer format, or not complete.
        """
        if is_url(folder) or is_sharded(folder):
            frames = open_shards(folder)
            return cls(frames, frames.frame, _Index(frames.read_names, frames.read_places))
        folder = Path(folder)
        if not _is_one_file(folder):
            raise ImageError(f"{folder} is not a pack: pack.yaml or images.u8 is missing; make one: equimark pack")
        count, frame = _read_about(folder / "pack.yaml")
        shape = (count, frame.size, frame.size, 3)
        size = (folder / "images.u8").stat().st_size
        if size != math.prod(shape):
            raise ImageError(
                f"{folder / 'images.u8'} has {size} bytes, but {count} images of {frame.size} x {frame.size} take "
                f"{math.prod(shape)}: the pack is not complete; copy or make it again"
            )
        images = np.memmap(folder / "images.u8", np.uint8, "r", shape=shape)
        flow = None
        if (folder / "flow.f16").is_file():
            flow = np.memmap(folder / "flow.f16", np.float16, "r", shape=(*shape[:3], 2))
        return cls(images, frame, _Index.open(folder / "index.csv", count), flow)

    @classmethod
    def from_array(cls, images: Pixels, names: Sequence[str] | None = None, frame: Frame | None = None) -> PackedImages:
        """Images (N, S, S, 3) uint8 that are in memory already, each its own frame pixel for pixel."""
        if images.ndim != 4 or images.shape[1:] != (images.shape[1],) * 2 + (3,) or images.dtype != np.uint8:
            raise ImageError(f"images must be (N, S, S, 3) uint8, got {images.shape} {images.dtype}")
        count, side = images.shape[:2]
        frame = frame or Frame(size=side)
        names = [f"{i:06d}" for i in range(count)] if names is None else list(names)
        if frame.size != side or len(names) != count:
            raise ImageError(f"{count} images of side {side} cannot have {len(names)} names and side {frame.size}")
        index = _Index.of(names, np.full((count, 2), side), np.tile((0.0, 0.0, side, side), (count, 1)))
        return cls(images, frame, index)

    @classmethod
    def read(cls, path: str | Path, frame: Frame, most: int) -> PackedImages:
        """The first ``most`` readable images of a source, brought to ``frame``, in memory; a pack as it is.

        Raises:
            ImageError: none of them can be read.
        """
        if is_pack(path):
            return cls.open(path)
        with closing(read_framed(open_images(path), frame)) as items:
            framed = list(islice((item for item in items if isinstance(item, Framed)), most))
        if not framed:
            raise ImageError(f"none of the images of {path} can be read")
        return cls.from_array(np.stack([item.pixels for item in framed]), [item.name for item in framed])

    def __len__(self) -> int:
        return len(self.images)

    @property
    def names(self) -> list[str]:
        """Of the images, as in the source."""
        return self._index.names

    @cached_property
    def classes(self) -> list[str] | None:
        """First folder of each image's name, if all images lie in folders and not all in the same one."""
        folders = [name.split("/", 1)[0] for name in self.names if "/" in name]
        return folders if len(folders) == len(self) and len(set(folders)) > 1 else None

    @cached_property
    def folders(self) -> list[str]:
        """Folder of each image's name: the frames of one video, or the images of one subject, share theirs."""
        heads = [name[: name.rfind("/") + 1] for name in self.names]
        parents = {head: str(PurePosixPath(head + "x").parent) for head in set(heads)}  # slow, but few of them
        return [parents[head] for head in heads]

    @cached_property
    def fingerprint(self) -> str:
        """What tells these images from others: their number, frame and names; of shards, the pixels too."""
        if isinstance(self.images, ShardedFrames):
            return self.images.fingerprint
        digest = hashlib.sha256(repr((len(self), self.frame)).encode())
        for name in self.names:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()[:16]

    def shard_of(self, rows: ArrayLike) -> NDArray[np.int64] | None:
        """In which shard each of ``rows`` (B,) lies; None if all lie in one file."""
        return self.images.shard_of(np.asarray(rows)) if isinstance(self.images, ShardedFrames) else None

    def expect(self, rows: ArrayLike) -> None:
        """Begin to read what :meth:`batch` of ``rows`` (B,) will need, if it lies in shards."""
        if isinstance(self.images, ShardedFrames):
            self.images.expect(np.asarray(rows))

    @cached_property
    def has_flow(self) -> NDArray[np.bool_]:
        """Which images (N,) have a flow that is known anywhere; looked up once, as it takes a pass over all of it."""
        if self.flow is None:
            return np.zeros(len(self), np.bool_)
        return np.array([np.isfinite(flow[::4, ::4]).any() for flow in self.flow], np.bool_)

    def with_labels(
        self,
        *,
        flow: NDArray[np.floating] | None = None,
        points: NDArray[np.floating] | None = None,
        parts: NDArray[np.uint8] | None = None,
    ) -> PackedImages:
        """The same images with what is known of them: see the arguments of the class.

        Raises:
            ImageError: if the shapes do not fit the images.
        """
        shape = self.images.shape[:3]
        if flow is not None and flow.shape != (*shape, 2):
            raise ImageError(f"the flow of these images has shape {(*shape, 2)}, got {flow.shape}")
        if points is not None and (points.ndim != 3 or len(points) != shape[0] or points.shape[2] != 2):
            raise ImageError(f"the points of these images have shape ({shape[0]}, K, 2), got {points.shape}")
        if parts is not None and (parts.shape != shape or parts.dtype != np.uint8):
            raise ImageError(f"the parts of these images are {shape} uint8, got {parts.shape} {parts.dtype}")
        return replace(self, flow=flow, points=points, parts=parts)

    def select(self, rows: ArrayLike) -> PackedImages:
        """The images of these rows alone, copied into memory."""
        chosen = np.asarray(rows, np.intp)

        def take(values: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if values is None else np.ascontiguousarray(values[chosen])

        sizes, boxes = self._index.places
        index = _Index.of([self.names[i] for i in chosen], sizes[chosen], boxes[chosen])
        return PackedImages(
            np.ascontiguousarray(self.images[chosen]),
            self.frame,
            index,
            take(self.flow),
            take(self.points),
            take(self.parts),
        )

    def placement(self, index: int) -> Placement:
        """Where the frame lies in the pixels of the image as stored."""
        return self._index.placement(index, self.frame)

    def image_size(self, index: int) -> Size:
        """(H, W) of the image as stored, after EXIF rotation."""
        return self._index.size(index)

    def smaller_than(self, side: int) -> int:
        """How many images have a side of fewer than ``side`` pixels as stored, and so were enlarged."""
        if isinstance(self.images, ShardedFrames):
            return self.images.smaller_than(side)
        return int((self._index.places[0].min(1) < side).sum())

    def batch(self, indices: ArrayLike | Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8, contiguous, of ``indices`` (B,)."""
        rows = self.images[np.asarray(indices, np.intp)]
        # NumPy moves the channels many times faster than torch's permute().contiguous() does for bytes
        return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))


def _read_about(path: Path) -> tuple[int, Frame]:
    """Count and frame that ``pack.yaml`` states."""
    try:
        about = yaml.safe_load(path.read_text("utf-8"))
        version = int(about["format"])
        if version == _FORMAT:
            return int(about["count"]), Frame(**about["frame"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{path} is damaged ({error!r}); make the pack again: equimark pack") from error
    raise ImageError(f"{path} has format {version}, this version reads {_FORMAT}; make the pack again: equimark pack")


def _read_names(path: Path, count: int) -> list[str]:
    with _index_rows(path, count) as rows:
        names = [row[0] for row in csv.reader(rows)][1:]
        if len(names) != count:
            raise ValueError(len(names))
    return names


def _read_places(path: Path, count: int) -> _Places:
    _read_names(path, count)  # loadtxt only warns of a file without rows
    with _index_rows(path, count) as rows:
        numbers = np.loadtxt(
            rows, delimiter=",", quotechar='"', comments=None, skiprows=1, usecols=range(1, 7), ndmin=2
        ).reshape(count, 6)
    return numbers[:, 1::-1].astype(np.int64), numbers[:, 2:]


@contextmanager
def _index_rows(path: Path, count: int) -> Iterator[Iterable[str]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield file
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ImageError(f"{path} does not describe the {count} images of its pack; make the pack again") from error
