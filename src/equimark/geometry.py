"""Coordinate conventions, and the only place where they turn into numbers.

* *Pixel* coordinates are ``(x, y)``, x to the right, y down; the centre of the first pixel is 0.
* *Normalised* coordinates put the centre of the first pixel at -1 and of the last at +1
  (``align_corners=True`` throughout).
* Sizes are ``(H, W)``; images ``(B, 3, H, W)`` RGB in [0, 1]; features ``(B, C, h, w)``.
* Cell ``i`` of a feature map describes pixel ``stride * i + offset`` of the network's input
  (:class:`Cells`); a network states both numbers.
* A :class:`Frame` is the square in which a network sees an image; :class:`Placement` maps between
  the two by the half-pixel rule of image resizing: a box of the image, borders included, becomes the
  whole frame, borders included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Size = tuple[int, int]
Fill = Literal["edge", "black", "white"]


def normalise(points: Tensor, size: Size) -> Tensor:
    """Pixel ``(..., 2)`` to normalised coordinates of an image of ``size`` (H, W)."""
    return points / _half_extent(points, size) - 1


def denormalise(points: Tensor, size: Size) -> Tensor:
    """Normalised ``(..., 2)`` to pixel coordinates of an image of ``size`` (H, W)."""
    return (points + 1) * _half_extent(points, size)


def _half_extent(like: Tensor, size: Size) -> Tensor:
    height, width = size
    if min(size) < 2:
        raise ValueError(f"normalised coordinates need at least 2 x 2 pixels, got {height} x {width}")
    return like.new_tensor([(width - 1) / 2, (height - 1) / 2])


def pixel_grid(size: Size, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixel coordinates ``(H, W, 2)`` of every pixel centre."""
    y, x = torch.meshgrid(
        torch.arange(size[0], device=device, dtype=dtype),
        torch.arange(size[1], device=device, dtype=dtype),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


@dataclass(frozen=True)
class Cells:
    """Which input pixel each cell of a feature map describes: ``stride * index + offset``."""

    stride: int
    offset: float

    def centres(self, size: Size, *, device: torch.device | None = None) -> Tensor:
        """Input-pixel positions ``(h, w, 2)`` of the cells of a feature map of ``size`` (h, w)."""
        return self.to_pixels(pixel_grid(size, device=device))

    def to_pixels(self, cells: Tensor) -> Tensor:
        """Cell coordinates ``(..., 2)`` to input pixels."""
        return cells * self.stride + self.offset

    def to_cells(self, pixels: Tensor) -> Tensor:
        """Input pixels ``(..., 2)`` to (fractional) cell coordinates."""
        return (pixels - self.offset) / self.stride


def sample(values: Tensor, points: Tensor, *, padding: Literal["border", "zeros"] = "border") -> Tensor:
    """Bilinear samples of ``values`` (B, C, H, W) at pixel ``points`` (B, ..., 2): (B, C, ...)."""
    return sample_normalised(values, normalise(points, (values.shape[-2], values.shape[-1])), padding=padding)


def sample_normalised(values: Tensor, points: Tensor, *, padding: Literal["border", "zeros"] = "border") -> Tensor:
    """As :func:`sample`, at normalised ``points`` (B, ..., 2)."""
    flat = points.reshape(points.shape[0], -1, 1, 2).to(values.dtype)
    out = F.grid_sample(values, flat, padding_mode=padding, align_corners=True)
    return out.reshape(*values.shape[:2], *points.shape[1:-1])


def sample_known(values: Tensor, points: Tensor) -> Tensor:
    """As :func:`sample`, of ``values`` with gaps, NaN: what is known around a point, NaN where most of it is not."""
    known = values.isfinite().to(values.dtype)
    share = sample(known, points)
    return (sample(values.nan_to_num(), points) / share).where(share > 0.499, torch.nan)  # half is enough, as rounded


def sample_nearest(values: Tensor, points: Tensor) -> Tensor:
    """Values (B, C, ...), of ``values`` (B, C, H, W), at the pixel nearest to each of ``points`` (B, ..., 2)."""
    limit = points.new_tensor([values.shape[-1] - 1, values.shape[-2] - 1])
    x, y = points.round().clamp_min(0).minimum(limit).long().flatten(1, -2).unbind(-1)
    flat = (y * values.shape[-1] + x)[:, None].expand(-1, values.shape[1], -1)
    return values.flatten(2).gather(2, flat).reshape(*values.shape[:2], *points.shape[1:-1])


def inside(points: Tensor, size: Size) -> Tensor:
    """Whether pixel ``points`` (..., 2) lie between the first and last pixel centres of ``size``; NaN does not.

    Up to a thousandth of a pixel, as rounding must not put the border of an unmoved view outside.
    """
    limit = points.new_tensor([size[1] - 1, size[0] - 1])
    return ((points >= -1e-3) & (points <= limit + 1e-3)).all(-1)


def resize(images: Tensor, size: Size) -> Tensor:
    """Bilinear resize of (B, C, H, W), first and last pixel centres kept in place."""
    return F.interpolate(images, size=size, mode="bilinear", align_corners=True)


def spatial_softmax(scores: Tensor) -> Tensor:
    """Heat maps (B, K, h, w), each summing to 1, of ``scores`` (B, K, h, w)."""
    return scores.flatten(2).softmax(-1).view_as(scores)


def expectation(heatmaps: Tensor, values: Tensor) -> Tensor:
    """Mean of ``values`` (h, w, D) or (B, h, w, D) under ``heatmaps`` (B, K, h, w): (B, K, D)."""
    values = values.to(heatmaps.dtype).expand(heatmaps.shape[0], *values.shape[-3:])
    return heatmaps.flatten(2) @ values.flatten(1, 2)


def soft_argmax(heatmaps: Tensor) -> Tensor:
    """Mean position (B, K, 2) of ``heatmaps`` (B, K, h, w), in cells."""
    return expectation(heatmaps, pixel_grid((heatmaps.shape[-2], heatmaps.shape[-1]), device=heatmaps.device))


@dataclass(frozen=True)
class Frame:
    """The square in which a network sees an image.

    Args:
        size: side of the whole frame, in pixels.
        fit: which part of the image fills the frame: ``centre`` (largest centred square), ``letterbox``
            (everything, bands added), ``stretch`` (everything, proportions changed) or a box
            ``x0,y0,x1,y1`` in fractions of the image's width and height.
        pad: pixels of the frame on each side that are left to ``fill``.
        fill: what stands beyond the image.
    """

    size: int = 100
    fit: str = "centre"
    pad: int = 0
    fill: Fill = "edge"

    def __post_init__(self) -> None:
        if self.size < 8:
            raise ValueError(f"a frame of {self.size} pixels is too small: at least 8 are needed")
        if not 0 <= 2 * self.pad < self.size:
            raise ValueError(f"pad={self.pad} leaves nothing of a frame of {self.size} pixels")
        if self.fit not in ("centre", "letterbox", "stretch"):
            _parse_box(self.fit)

    def place(self, size: Size) -> Placement:
        """How an image of ``size`` (H, W) lies in the frame."""
        x0, y0, x1, y1 = self._image_box(size)
        inner = self.size - 2 * self.pad
        grow_x, grow_y = self.pad * (x1 - x0) / inner, self.pad * (y1 - y0) / inner
        return Placement((x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y), self.size)

    def _image_box(self, size: Size) -> tuple[float, float, float, float]:
        height, width = size
        if self.fit == "stretch":
            return 0, 0, width, height
        if self.fit in ("centre", "letterbox"):
            side = min(size) if self.fit == "centre" else max(size)
            x0, y0 = (width - side) / 2, (height - side) / 2
            return x0, y0, x0 + side, y0 + side
        x0, y0, x1, y1 = _parse_box(self.fit)
        return x0 * width, y0 * height, x1 * width, y1 * height


@lru_cache
def _parse_box(text: str) -> tuple[float, float, float, float]:
    wanted = "fit must be centre, letterbox, stretch or x0,y0,x1,y1 in fractions with x0 < x1 and y0 < y1"
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{wanted}; got {text!r}") from None
    if not (x0 < x1 and y0 < y1 and max(abs(v) for v in (x0, y0, x1, y1)) <= 10):
        raise ValueError(f"{wanted}; got {text!r}")
    return x0, y0, x1, y1


@dataclass(frozen=True)
class Placement:
    """One image in its frame: ``box`` (x0, y0, x1, y1 in pixel *borders* of the image) fills ``size`` x ``size``."""

    box: tuple[float, float, float, float]
    size: int

    def to_frame(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Image pixels ``(..., 2)`` to frame pixels."""
        corner, scale = self._corner_scale()
        return (np.asarray(points, np.float64) + 0.5 - corner) / scale - 0.5

    def to_image(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Frame pixels ``(..., 2)`` to image pixels."""
        corner, scale = self._corner_scale()
        return (np.asarray(points, np.float64) + 0.5) * scale + corner - 0.5

    def nearest_pixels(self, image_size: Size) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Column and row (S, S) of the image pixel nearest to each frame pixel, and whether that lies in the image."""
        axis = np.arange(self.size, dtype=np.float64)
        nearest = np.rint(self.to_image(np.stack(np.meshgrid(axis, axis), axis=-1))).astype(np.int64)
        inside = nearest.clip(0, (image_size[1] - 1, image_size[0] - 1))
        return inside[..., 0], inside[..., 1], np.asarray((inside == nearest).all(-1))

    def _corner_scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x0, y0, x1, y1 = self.box
        return np.array([x0, y0]), np.array([x1 - x0, y1 - y0]) / self.size


def frame_square(centre: NDArray[np.floating], side: float, image_size: Size, frame_size: int) -> Frame:
    """A frame of ``frame_size`` that shows one square of an image; it may reach beyond the image.

    Args:
        centre: of the square, (x, y) in pixel *borders* of the image: half a pixel more than in pixels.
        side: of the square, in pixels of the image.
        image_size: (H, W) of the image.
        frame_size: side of the frame in pixels.
    """
    corner = np.asarray(centre, np.float64) - side / 2
    shares = np.concatenate([corner, corner + side]) / np.tile(image_size[::-1], 2)
    return Frame(frame_size, fit=",".join(map(repr, shares.tolist())))


def frame_by_landmarks(
    points: NDArray[np.floating], image_size: Size, frame_size: int, *, width: float = 0.52, up: float = 0.02
) -> Frame:
    """The 300-W frame of DVE: the box around the landmarks is 52 of 100 px wide, and the frame is moved up by 2 px.

    Args:
        points: landmarks (K, 2) in pixels of the image.
        image_size: (H, W) of the image.
        frame_size: side of the frame in pixels.
        width: of the box, as a share of the frame.
        up: by which the frame is moved up, as a share of its side.
    """
    low, high = np.nanmin(points, 0), np.nanmax(points, 0)
    side = float(high[0] - low[0] + 1) / width
    return frame_square((low + high) / 2 + 0.5 + [0, -up * side], side, image_size, frame_size)
