"""A trained network that is kept frozen and looks at images: what it finds, and where that is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import detection, geometry
from .config import RunConfig
from .geometry import Frame, Placement
from .images import frame_image
from .matching import Located
from .networks import Look, Network, look_twice

# Of the images that a processor looks at together: maps of more leave its caches, and take up to 2.5 times as long.
_PIXELS = 40_000

Image = NDArray[np.uint8]
Found = tuple[NDArray[np.float64], NDArray[np.float64]]  # points and their confidence


class ModelError(ValueError):
    """Something asked of a model that it cannot do; the message says the way out."""


class Embedding:
    """The network of a run, frozen: frames to descriptors, or to landmarks of its own, in cells of the frames.

    Args:
        network: images to descriptors or score maps.
        config: of the run.
        device: on which to work.
    """

    def __init__(self, network: Network, config: RunConfig, *, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.config = config

    @property
    def is_sparse(self) -> bool:
        """Whether the run has found K landmarks of its own."""
        return self.config.method == "sparse"

    @property
    def has_descriptors(self) -> bool:
        """Whether the run describes every place, so that points can be matched and landmarks be named."""
        return self.config.has_descriptors

    @property
    def frame(self) -> Frame:
        """The square in which the network sees an image."""
        return self.config.frame

    def with_frame(self, fit: str) -> Self:
        """The same model that looks at another part of the images: see :class:`equimark.geometry.Frame`."""
        return type(self)(self.network, replace(self.config, frame=replace(self.frame, fit=fit)), device=self.device)

    @torch.inference_mode()
    def features(self, frames: Tensor) -> Tensor:
        """Network output (B, C, h, w) on the CPU for whole ``frames`` (B, 3, S, S) uint8.

        The networks pad with zeros and so know where the border is. In training it stood where the margin is
        cropped: the part within is therefore looked at by itself, as in training, and what lies beyond is
        taken from a look at the whole. On faces this lowers the error of 20-label landmarks by a quarter.
        """
        return self._look_twice(self.features_of, frames)

    @torch.inference_mode()
    def hypercolumns(self, frames: Tensor) -> Tensor:
        """As :meth:`features`, and after them details (B, C + D, h, w): see :meth:`Network.hypercolumns`."""
        return self._look_twice(partial(self._answer, look=self.network.hypercolumns), frames)

    def _look_twice(self, look: Look, frames: Tensor) -> Tensor:
        images = _in_unit(frames.to(self.device))
        return look_twice(look, images, self.config.pairs.margin, self.network.cells.stride)

    @torch.inference_mode()
    def features_of(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) on the CPU for ``images`` (B, 3, H, W) in [0, 1], of any size."""
        return self._answer(images, self.network)[:, : self.network.channels]

    @torch.inference_mode()
    def scores_of(self, images: Tensor) -> Tensor:
        """Score maps (B, K, h, w) of the run's own landmarks, on the CPU, for ``images`` (B, 3, H, W) in [0, 1].

        Raises:
            ModelError: if it has none.
        """
        if not self.config.landmarks:
            raise ModelError(f"this {self.config.method} run has learned no landmarks of its own")
        return self._answer(images, self.network)[:, -self.config.landmarks :]

    def _answer(self, images: Tensor, look: Look) -> Tensor:
        images, pixels = images.to(self.device), images.shape[-2] * images.shape[-1]
        together = len(images) if self.device.type != "cpu" else _PIXELS // pixels
        parts = torch.split(images, max(1, together))
        return torch.cat([look(part).float().cpu() for part in parts])

    def landmarks_of(self, frames: Tensor) -> Located:
        """The K landmarks that a run has of its own in ``frames`` (B, 3, S, S) uint8, in cells of the frames.

        They are looked for where the views of training lie, within the margin: a position is a mean over the
        whole map, and a run has not learned to score places beyond.
        """
        margin, size = self.config.pairs.margin, self.frame.size
        inner = slice(margin, size - margin)
        return self.landmarks_of_views(_in_unit(frames[..., inner, inner]))

    def landmarks_of_views(self, views: Tensor) -> Located:
        """As :meth:`landmarks_of`, in what the margin leaves of frames: ``views`` (B, 3, s, s) in [0, 1]."""
        if self.config.method == "supervised":
            pixels = geometry.denormalise(self.features_of(views), (views.shape[-2], views.shape[-1]))
            found = Located(pixels, torch.ones(pixels.shape[:2]))
        else:
            found = detection.detect(self.scores_of(views))
        return Located(found.positions + self.config.pairs.margin / self.network.cells.stride, found.confidence)

    def need_descriptors(self) -> None:
        """That the run describes every place.

        Raises:
            ModelError: if it does not.
        """
        if not self.has_descriptors:
            raise ModelError(
                f"a {self.config.method} run has no descriptors to match: train with --recipe dve-smallnet-64, or use "
                "detect"
            )

    def frames_of(self, images: Sequence[Image]) -> tuple[Tensor, list[Placement]]:
        """Images (H, W, 3) of any sizes brought to the frame: (B, 3, S, S) uint8, and how each lies in it."""
        framed = [frame_image(_check_image(image), self.frame) for image in images]
        pixels = np.stack([frame for frame, _ in framed])
        return torch.from_numpy(pixels).movedim(-1, 1), [placement for _, placement in framed]

    def normalise(self, cells: Tensor) -> Tensor:
        """Positions (..., 2) in cells of a whole frame as normalised coordinates of the frame."""
        return geometry.normalise(self.network.cells.to_pixels(cells), (self.frame.size, self.frame.size))

    def denormalise(self, points: Tensor) -> Tensor:
        """Normalised coordinates (..., 2) of the frame as positions in cells."""
        return self.network.cells.to_cells(geometry.denormalise(points, (self.frame.size, self.frame.size)))

    def in_image(self, located: Located, placements: Sequence[Placement]) -> Found:
        """Positions in cells as positions in the pixels of each image, and their confidence."""
        in_frame = self.network.cells.to_pixels(located.positions).double().numpy()
        points = np.stack([place.to_image(p) for place, p in zip(placements, in_frame, strict=True)])
        return points, located.confidence.double().numpy()


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is the best there is.

    Raises:
        ModelError: if this machine has none of that name.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name, True):
        raise ModelError(f"this machine has no {name} device that torch can use; --device auto takes what there is")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(name)


def batches(count: int, size: int = 32) -> Iterator[slice]:
    """Slices of ``size`` that cover ``count`` things."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _in_unit(frames: Tensor) -> Tensor:
    """Frames (B, 3, S, S) uint8 as floating-point numbers in [0, 1]."""
    if frames.dtype != torch.uint8:
        raise ModelError(f"frames are uint8, from 0 to 255, got {frames.dtype}; features_of takes views in [0, 1]")
    return frames.float() / 255


def _check_image(image: Image) -> Image:
    if not isinstance(image, np.ndarray):
        raise ModelError(
            f"an image must be an array (H, W, 3) uint8 RGB, got {type(image).__name__}: read a file with "
            'numpy.asarray(PIL.Image.open(path).convert("RGB"))'
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ModelError(f"an image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    return image


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of named tensors: 16 characters that change with any name or value."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
