"""The images of the page: how they are called, what they look like, what the model sees of them.

In the page an image is known by its key, which stays the same when the program is started again and more images have
come. What is shown of an image covers a ``box`` (x0, y0, x1, y1) in pixel borders of the image: all of it, except in
a pack, which holds only the frames.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from equimark.files import replace_file
from equimark.geometry import Frame, Placement, Size
from equimark.images import Box, Decoded, Framed, ImageError, ImageSource, Unreadable, frame_image, open_images
from equimark.packs import PackedImages, is_pack

THUMBNAIL_SIDE = 320
_JPEG = b"\xff\xd8\xff"
_QUALITY = {"thumbnail": 82, "shown": 95}


class _Source(Protocol):
    """Where images come from."""

    @property
    def names(self) -> Sequence[str]: ...

    def stamp(self, index: int) -> str:
        """Changes when the image does."""
        ...

    def framed(self, index: int, frame: Frame) -> Framed: ...

    def decoded(self, index: int, min_side: int | None = None) -> Decoded: ...

    def data(self, index: int) -> bytes | None:
        """The file, if it is one."""
        ...

    def placement(self, index: int, size: Size, frame: Frame) -> Placement: ...

    def box(self, index: int, size: Size) -> Box: ...


class _Files:
    """Files of a folder, a .zip or a list, and frames of videos."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.names: Sequence[str] = source.names

    def stamp(self, index: int) -> str:
        try:
            about = self._source.file(index).stat()
        except OSError:
            return "missing"
        return f"{about.st_mtime_ns}-{about.st_size}"

    def framed(self, index: int, frame: Frame) -> Framed:
        x0, y0, x1, y1 = frame.place((1, 1)).box
        decoded = self.decoded(index, math.ceil(frame.size / min(x1 - x0, y1 - y0)))
        pixels, placement = frame_image(decoded.pixels, frame, decoded.size)
        return Framed(self.names[index], np.ascontiguousarray(pixels), decoded.size, placement)

    def decoded(self, index: int, min_side: int | None = None) -> Decoded:
        return self._source.decoded(index, min_side=min_side)

    def data(self, index: int) -> bytes | None:
        return self._source.read(index) if self._source.video(index) is None else None

    def placement(self, index: int, size: Size, frame: Frame) -> Placement:
        return frame.place(size)

    def box(self, index: int, size: Size) -> Box:
        return 0, 0, size[1], size[0]


class _Pack:
    """Frames of a pack."""

    def __init__(self, packed: PackedImages) -> None:
        self._packed = packed
        self.names: Sequence[str] = packed.names

    def stamp(self, index: int) -> str:
        return "packed"

    def framed(self, index: int, frame: Frame) -> Framed:
        size, placement = self._packed.image_size(index), self._packed.placement(index)
        return Framed(self.names[index], np.array(self._packed.images[index]), size, placement)

    def decoded(self, index: int, min_side: int | None = None) -> Decoded:
        return Decoded(np.array(self._packed.images[index]), self._packed.image_size(index))

    def data(self, index: int) -> None:
        return None

    def placement(self, index: int, size: Size, frame: Frame) -> Placement:
        return self._packed.placement(index)

    def box(self, index: int, size: Size) -> Box:
        return self._packed.placement(index).box


class Pictures:
    """The images of the page; safe in threads.

    Args:
        path: a folder, a .zip, a list of paths or a pack.
        frame: the square in which the model sees an image.
        cache: folder for thumbnails.

    Raises:
        ImageError: if there are no images, or a pack has another size than the frame.
    """

    def __init__(self, path: Path, frame: Frame, cache: Path) -> None:
        self.path = path
        self.frame = frame
        self._cache = cache
        self._source = _open(path, frame)
        self.names = list(self._source.names)
        self.keys = [_key(name) for name in self.names]
        self._sizes: dict[int, Size] = {}
        self._turns = threading.BoundedSemaphore(os.cpu_count() or 1)  # decoding takes memory and a processor

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """The place of each image, by key."""
        return {key: i for i, key in enumerate(self.keys)}

    @cached_property
    def index_of_name(self) -> dict[str, int]:
        """The place of each image, by name."""
        return {name: i for i, name in enumerate(self.names)}

    def stamp(self, index: int) -> str:
        """Changes when the file does."""
        return self._source.stamp(index)

    def framed(self, index: int) -> Framed | Unreadable:
        """What the model sees of an image, or why it cannot be read."""
        try:
            with self._turns:
                framed = self._source.framed(index, self.frame)
        except ImageError as error:
            return Unreadable(self.names[index], str(error))
        self._sizes[index] = framed.size
        return framed

    def known_size(self, index: int) -> Size | None:
        """(H, W) of the image as stored, if it was read before."""
        return self._sizes.get(index)

    def remember_size(self, index: int, size: Size) -> None:
        """Spare :meth:`size` a look."""
        self._sizes[index] = size

    def size(self, index: int) -> Size:
        """(H, W) of the image as stored.

        Raises:
            ImageError: if it cannot be read.
        """
        if index not in self._sizes:
            with self._turns:
                self._sizes[index] = self._source.decoded(index, THUMBNAIL_SIDE).size
        return self._sizes[index]

    def placement(self, index: int, size: Size) -> Placement:
        """Where the frame lies in an image of ``size``."""
        return self._source.placement(index, size, self.frame)

    def box(self, index: int, size: Size) -> Box:
        """What is shown of an image of ``size``, in pixel borders of the image."""
        return self._source.box(index, size)

    def thumbnail(self, index: int) -> bytes:
        """A small JPEG, made at the first look and kept.

        Raises:
            ImageError: if the image cannot be read.
        """
        digest = _digest(f"{self.names[index]}\0{self.stamp(index)}")
        path = self._cache / digest[:2] / f"{digest[2:]}.jpg"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            pass
        with self._turns:
            decoded = self._source.decoded(index, THUMBNAIL_SIDE // 2)
            image = Image.fromarray(decoded.pixels)
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            data = _jpeg(image, "thumbnail")
        self._sizes[index] = decoded.size
        replace_file(path, lambda temporary: temporary.write_bytes(data))
        return data

    def shown(self, index: int) -> bytes:
        """A JPEG of the whole picture: the file itself if it is one.

        Raises:
            ImageError: if the image cannot be read.
        """
        data = self._source.data(index)
        if data is not None and data.startswith(_JPEG):
            return data
        with self._turns:
            return _jpeg(Image.fromarray(self._source.decoded(index).pixels), "shown")


def _open(path: Path, frame: Frame) -> _Source:
    if not is_pack(path):
        return _Files(open_images(path))
    packed = PackedImages.open(path)
    if packed.frame.size != frame.size:
        raise ImageError(f"{path} is packed at {packed.frame.size} px, the model sees {frame.size} px: pack it again")
    return _Pack(packed)


def _jpeg(image: Image.Image, use: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY[use], subsampling=0 if use == "shown" else 2)
    return buffer.getvalue()


def _key(name: str) -> str:
    return _digest(name)[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
