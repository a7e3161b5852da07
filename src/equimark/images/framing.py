"""Images brought to the square that a network sees: one, or all of a source in threads."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

import numpy as np
from PIL import Image

from equimark.geometry import Fill, Frame, Placement, Size
from equimark.images.decoding import ImageError, Pixels
from equimark.images.sources import ImageSource

Box = tuple[float, float, float, float]
_In = TypeVar("_In")
_Out = TypeVar("_Out")

_CHUNK = 8  # images a worker takes at a time
_CHUNKS_AHEAD = 4  # per worker: bounds what waits in memory to be written


def frame_image(pixels: Pixels, frame: Frame, size: Size | None = None) -> tuple[Pixels, Placement]:
    """An image brought to a frame, antialiased.

    Args:
        pixels: (H, W, 3) uint8.
        frame: which part of the image fills which square; what lies beyond the image is filled as it says.
        size: (H, W) of the image as stored if ``pixels`` were decoded reduced; default: that of ``pixels``.

    Returns:
        (S, S, 3) uint8, and where the frame lies in pixels of the image of ``size``. An image that fills the frame
        pixel for pixel is returned unchanged.

    Raises:
        ImageError: other arrays; or the frame lies wholly outside the image.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ImageError(f"an image must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    return _frame(Image.fromarray(pixels), frame, size or pixels.shape[:2])


def frame_labels(labels: Pixels, placement: Placement) -> Pixels:
    """Labels (S, S) of the pixels of a frame from those of its image (H, W): of the nearest pixel, never mixed."""
    x, y, _ = placement.nearest_pixels((labels.shape[0], labels.shape[1]))
    return labels[y, x]


def _frame(image: Image.Image, frame: Frame, size: Size) -> tuple[Pixels, Placement]:
    placement = frame.place(size)
    # rounded, so that the reduction's arithmetic does not push a border 1e-13 beyond the image
    factors = (image.width / size[1], image.height / size[0]) * 2
    x0, y0, x1, y1 = (round(border * factor, 6) for border, factor in zip(placement.box, factors, strict=True))
    if x0 >= 0 and y0 >= 0 and x1 <= image.width and y1 <= image.height:
        square = np.asarray(_resize(image, (frame.size, frame.size), (x0, y0, x1, y1)))
    else:
        square = _frame_beyond(np.asarray(image), frame, (x0, y0, x1, y1))
    return square, placement


def _resize(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, box=box)


def _frame_beyond(pixels: Pixels, frame: Frame, box: Box) -> Pixels:
    """(S, S, 3) uint8 of a ``box`` that reaches beyond the image.

    Only the cells of the frame that see the image are resized, from an image padded just as far; the rest of the
    frame is filled afterwards, so that a far-reaching box costs no memory.
    """
    left, right, box_x, pad_x = _seen_cells(box[0], box[2], pixels.shape[1], frame.size)
    top, bottom, box_y, pad_y = _seen_cells(box[1], box[3], pixels.shape[0], frame.size)
    padded = Image.fromarray(_pad(pixels, pad_y, pad_x, frame.fill))
    seen = _resize(padded, (right - left, bottom - top), (box_x[0], box_y[0], box_x[1], box_y[1]))
    return _pad(np.asarray(seen), (top, frame.size - bottom), (left, frame.size - right), frame.fill)


def _seen_cells(
    start: float, stop: float, extent: int, cells: int
) -> tuple[int, int, tuple[float, float], tuple[int, int]]:
    """Along one axis: first and last cell that see the image, their box in the padded image, the padding."""
    step = (stop - start) / cells
    if start >= extent or stop <= 0:
        raise ImageError("the frame lies wholly outside the image")
    margin = 1 + max(1, 1 / step)  # in cells: the reach of the filter, and one cell that sees only the filling
    first = max(0, math.floor(-start / step - margin))
    last = min(cells, math.ceil((extent - start) / step + margin))
    low, high = start + first * step, start + last * step
    before, after = math.ceil(max(0.0, -low)), math.ceil(max(0.0, high - extent))
    return first, last, (low + before, min(high, extent + after) + before), (before, after)


def _pad(pixels: Pixels, rows: tuple[int, int], columns: tuple[int, int], fill: Fill) -> Pixels:
    widths = (rows, columns, (0, 0))
    if fill == "edge":
        return np.pad(pixels, widths, mode="edge")
    return np.pad(pixels, widths, constant_values=0 if fill == "black" else 255)


# ---- all images of a source ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Framed:
    """One image brought to a frame.

    Args:
        name: of the image in its source.
        pixels: (S, S, 3) uint8.
        size: (H, W) of the image as stored.
        placement: where the frame lies in it.
    """

    name: str
    pixels: Pixels
    size: Size
    placement: Placement


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    name: str
    reason: str


def read_framed(source: ImageSource, frame: Frame, *, workers: int | None = None) -> Generator[Framed | Unreadable]:
    """The images of ``source`` in their order, decoded in ``workers`` threads (default: one per processor).

    The frames of a video are decoded once, one after the other, while those before them are at use.
    """
    x0, y0, x1, y1 = frame.place((1, 1)).box
    min_side = math.ceil(frame.size / min(x1 - x0, y1 - y0))  # a frame on a part of the image needs more of it

    def one(index: int) -> Framed | Unreadable:
        name = source.names[index]
        try:
            image, size = source.picture(index, min_side)
            pixels, placement = _frame(image, frame, size)
        except ImageError as error:
            return Unreadable(name, str(error))
        return Framed(name, np.ascontiguousarray(pixels), size, placement)

    for video, indices in groupby(range(len(source)), source.video):
        # a video is decoded from its beginning to its end, and its decoder has threads of its own
        lanes = workers or os.cpu_count() or 1 if video is None else 1
        with closing(_in_order(lambda chunk: [one(i) for i in chunk], _chunks(indices), lanes)) as done:
            for chunk in done:
                yield from chunk


def _chunks(indices: Iterator[int]) -> Iterator[list[int]]:
    while chunk := list(islice(indices, _CHUNK)):
        yield chunk


def _in_order(work: Callable[[_In], _Out], items: Iterable[_In], workers: int) -> Generator[_Out]:
    """``map(work, items)`` in threads; no more than a fixed number of items is under way or waits to be taken."""
    window: deque[Future[_Out]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            window.append(pool.submit(work, item))
            if len(window) >= workers * _CHUNKS_AHEAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
