"""Optical flow beside video frames: ``frame.flo`` says where each pixel of ``frame.png`` goes in the next frame.

The files are those of the Middlebury benchmark: the number 202021.25, width and height as int32, then for each
pixel, row by row, its displacement in x and y as float32; all little-endian. Unknown displacements are NaN.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .files import replace_file
from .geometry import Placement, Size

SUFFIX = ".flo"
_MAGIC = 202021.25
_UNKNOWN = 1e9  # larger displacements mean "unknown" in the files of the benchmark


class FlowError(ValueError):
    """A flow file that cannot be used; the message is the reason, without the file's name."""


def read(data: bytes) -> NDArray[np.float32]:
    """Displacements (H, W, 2) from the bytes of a ``.flo`` file, in pixels; NaN where unknown.

    Raises:
        FlowError: if they are not such a file, or it is cut short.
    """
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(_MAGIC):
        raise FlowError("not a .flo file of optical flow")
    width, height = (int(v) for v in np.frombuffer(data, "<i4", 2, offset=4))
    wanted = 12 + 8 * width * height
    if min(width, height) < 1 or len(data) != wanted:
        raise FlowError(f"{width} x {height} pixels take {wanted} bytes, but the file has {len(data)}")
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    flow[np.abs(flow) > _UNKNOWN] = np.nan
    return flow


def write(path: Path, flow: NDArray[np.floating]) -> None:
    """Write displacements (H, W, 2) as a ``.flo`` file."""
    height, width = flow.shape[:2]
    known = np.where(np.isfinite(flow), flow, 2 * _UNKNOWN)
    header = np.array([_MAGIC], "<f4").tobytes() + np.array([width, height], "<i4").tobytes()
    replace_file(path, partial(_write_bytes, data=header + known.astype("<f4").tobytes()))


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def to_frame(flow: NDArray[np.float32], image_size: Size, placement: Placement) -> NDArray[np.float32]:
    """The displacements (S, S, 2) of the pixels of a frame, in its pixels.

    Each frame pixel takes the displacement of the image pixel nearest to it: a mean of two bodies that move
    apart would belong to neither. Beyond the image it is unknown (NaN).

    Args:
        flow: (H, W, 2) in pixels of the image.
        image_size: (H, W) of the image as stored.
        placement: of the image in the frame; the next frame lies there in the same way.

    Raises:
        FlowError: if flow and image differ in size.
    """
    if flow.shape[:2] != image_size:
        raise FlowError(f"the flow has {flow.shape[1]} x {flow.shape[0]} pixels, its image {image_size[::-1]}")
    x, y, inside = placement.nearest_pixels(image_size)
    scale = placement.to_frame(np.ones(2)) - placement.to_frame(np.zeros(2))
    moved: NDArray[np.float32] = np.where(inside[..., None], flow[y, x] * scale, np.nan).astype(np.float32)
    return moved
