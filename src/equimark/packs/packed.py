"""Images of one frame: packed in a file, in shards, or in memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from equimark.geometry import Frame, Placement, Size
from equimark.images import Framed, ImageError, Pixels, open_images, read_framed
from equimark.packs.index import Index
from equimark.shards import ShardedFrames, is_sharded, is_url, open_shards

FORMAT = 1


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
    _index: Index = field(repr=False)
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
            return cls._of_shards(open_shards(folder))
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
        return cls(images, frame, Index.open(folder / "index.csv", count), flow)

    @classmethod
    def find(cls, path: str | Path) -> PackedImages | None:
        """The pack at ``path``, or None if that is something else; of URLs, where each look may be slow, all are packs.

        Raises:
            ImageError: it is of a newer format, damaged, or not complete; or there is none at the URL.
        """
        return cls.open(path) if is_url(path) or is_pack(path) else None

    @classmethod
    def _of_shards(cls, frames: ShardedFrames) -> PackedImages:
        return cls(frames, frames.frame, Index(frames.read_names, frames.read_places))

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
        index = Index.of(names, np.full((count, 2), side), np.tile((0.0, 0.0, side, side), (count, 1)))
        return cls(images, frame, index)

    @classmethod
    def read(cls, path: str | Path, frame: Frame, most: int) -> PackedImages:
        """The first ``most`` readable images of a source, brought to ``frame``, in memory; a pack as it is.

        Raises:
            ImageError: none of them can be read.
        """
        packed = cls.find(path)
        if packed is not None:
            return packed
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
        index = Index.of([self.names[i] for i in chosen], sizes[chosen], boxes[chosen])
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


def is_pack(path: str | Path) -> bool:
    """Whether ``path`` is a folder made by :func:`pack`, or the URL of one in shards."""
    return _is_one_file(path) or is_sharded(path)


def locate(path: str | Path) -> str:
    """Where images lie, whatever the working folder: an absolute path, or the URL as it is."""
    return str(path) if is_url(path) else str(Path(path).resolve())


def _is_one_file(path: str | Path) -> bool:
    return (Path(path) / "pack.yaml").is_file() and (Path(path) / "images.u8").is_file()


def _read_about(path: Path) -> tuple[int, Frame]:
    """Count and frame that ``pack.yaml`` states."""
    try:
        about = yaml.safe_load(path.read_text("utf-8"))
        version = int(about["format"])
        if version == FORMAT:
            return int(about["count"]), Frame(**about["frame"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ImageError(f"{path} is damaged ({error!r}); make the pack again: equimark pack") from error
    raise ImageError(f"{path} has format {version}, this version reads {FORMAT}; make the pack again: equimark pack")
