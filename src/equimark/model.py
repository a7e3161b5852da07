"""The user's face: NumPy images of any size in, answers in those images' own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from . import checkpoint, matching
from .directions import Direction
from .embedding import Embedding, Found, Image, ModelError, choose_device
from .geometry import Placement
from .head import PAIRS, Head, HeadSpec, fit_head
from .symmetry import Pair, Symmetry


@dataclass(frozen=True)
class Landmarks:
    """Landmarks of one image.

    Args:
        points: (K, 2) in pixels of the image.
        confidence: (K,) in [0, 1].
        names: of the landmarks, if they have any.
    """

    points: NDArray[np.float64]
    confidence: NDArray[np.float64]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Matches:
    """Where the source points lie in a target image.

    Args:
        points: (N, 2) in pixels of the target image.
        confidence: (N,) in [0, 1]: the probability mass around each match.
    """

    points: NDArray[np.float64]
    confidence: NDArray[np.float64]


class LandmarkModel(Embedding):
    """A trained run.

    Args:
        network: images to descriptors or score maps.
        config: of the run.
        device: on which to work.
    """

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> LandmarkModel:
        """The model of a run folder.

        Raises:
            CheckpointError: if the folder is not a run or its weights are damaged.
        """
        kept = checkpoint.load(Path(run))
        return cls(kept.network, kept.config, device=choose_device(device))

    @property
    def names(self) -> tuple[str, ...] | None:
        """Of the landmarks: learned ones have none."""
        return None

    def describe(self, image: Image) -> NDArray[np.float32]:
        """Descriptors (C, h, w) of the whole frame of an image (H, W, 3)."""
        features, _ = self._look(image)
        return features[0].numpy()

    def match(self, source: Image, points: ArrayLike, target: Image) -> Matches:
        """Where ``points`` (N, 2), in pixels of ``source``, lie in ``target``."""
        return self.match_descriptors(self.describe_points(source, points), target)

    def describe_points(self, image: Image, points: ArrayLike) -> Tensor:
        """Descriptors (N, C) at ``points`` (N, 2), in pixels of the image.

        Raises:
            ModelError: for a run without descriptors, or points outside the part of the image that the model sees.
        """
        self.need_descriptors()
        chosen = np.asarray(points, np.float64).reshape(-1, 2)
        features, placement = self._look(image)
        in_frame = placement.to_frame(chosen)
        outside = ~((in_frame >= -0.5) & (in_frame <= self.frame.size - 0.5)).all(-1)
        if outside.any():
            x, y = chosen[outside.argmax()]
            raise ModelError(
                f"point {x:g},{y:g} lies outside the part of the {image.shape[1]} x {image.shape[0]} image that the "
                f"model sees ({_describe_box(placement)}); --frame letterbox shows it all of the image"
            )
        cells = self.network.cells.to_cells(torch.from_numpy(in_frame).float())
        return matching.describe_points(features, cells[None])[0]

    def match_descriptors(self, descriptors: Tensor, target: Image) -> Matches:
        """Where descriptors (N, C) lie in ``target``."""
        points, confidence = self.match_framed(descriptors, *self.frames_of([target]))
        return Matches(points[0], confidence[0])

    def match_framed(self, descriptors: Tensor, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """Where descriptors (N, C) lie in ``frames`` (B, 3, S, S) uint8: (B, N, 2) in image pixels, (B, N)."""
        features = self.features(frames)
        scores = matching.similarity(descriptors, features)
        return self.in_image(matching.locate(scores), placements)

    def detect(self, image: Image) -> Landmarks:
        """The K landmarks that a run has of its own in an image.

        Raises:
            ModelError: for a run that has no landmarks of its own.
        """
        points, confidence = self.detect_framed(*self.frames_of([image]))
        return Landmarks(points[0], confidence[0])

    def detect_framed(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """Own landmarks (B, K, 2), in image pixels, and their confidence (B, K) in ``frames`` (B, 3, S, S) uint8."""
        self.check_own_landmarks()
        return self.in_image(self.landmarks_of(frames), placements)

    def check_own_landmarks(self) -> None:
        """That the run has landmarks of its own.

        Raises:
            ModelError: if it has none.
        """
        if self.has_descriptors and not self.config.landmarks:
            raise ModelError(
                f"a {self.config.method} run has descriptors, not landmarks of its own: give it a fitted head "
                "(equimark fit, then --head), let it --discover some, or match points with equimark match"
            )
        if self.config.method == "segmentation":
            raise ModelError("a segmentation run finds parts, not landmarks")

    def segment(self, image: Image) -> NDArray[np.uint8]:
        """The part (H, W) that each pixel of an image shows, by a segmentation run.

        Beyond the frame a pixel gets the part of the frame's border.
        """
        frames, placements = self.frames_of([image])
        height, width = image.shape[:2]
        pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)
        x, y = np.rint(placements[0].to_frame(pixels)).clip(0, self.frame.size - 1).astype(np.int64).transpose(2, 0, 1)
        parts: NDArray[np.uint8] = self.segment_frames(frames)[0][y, x]
        return parts

    def segment_frames(self, frames: Tensor) -> NDArray[np.uint8]:
        """The part (B, S, S) that each pixel of ``frames`` (B, 3, S, S) uint8 shows, by a segmentation run.

        Raises:
            ModelError: for any other run.
        """
        if self.config.method != "segmentation":
            raise ModelError(f"a {self.config.method} run does not segment: train with --recipe segmentation-scratch")
        parts: NDArray[np.uint8] = self.features(frames).argmax(1).to(torch.uint8).numpy()
        return parts

    def fit(
        self,
        images: Sequence[Image],
        points: ArrayLike,
        names: Sequence[str] | None = None,
        *,
        symmetric: Sequence[Pair] | str = (),
        direction: Direction = "auto",
        seed: int = 0,
        pairs: int = PAIRS,
    ) -> Head:
        """Named landmarks from few labelled images: see :func:`equimark.head.fit_head`.

        Args:
            images: N images of any sizes.
            points: labels (N, J, 2) in pixels of each image; NaN where not visible.
            names: of the J landmarks.
            symmetric: pairs of landmarks that change places in a mirror, by names or numbers, or what
                :meth:`equimark.symmetry.Symmetry.parse` takes, such as ``auto``.
            direction: in which things lie in the images: ``upright``, that is all alike, or ``any``.
            seed: of the warps; only those of a sparse run are fitted under warps.
            pairs: of warped views to fit to, at least.

        Raises:
            ModelError: if images, points and names do not fit together.
            LandmarkError: if the symmetric pairs cannot be.
        """
        labels = np.asarray(points, np.float64)
        if labels.ndim != 3 or labels.shape[2] != 2 or len(labels) != len(images) or not len(labels):
            raise ModelError(f"{len(images)} images need points of shape ({len(images)}, K, 2), got {labels.shape}")
        if names is not None and len(names) != labels.shape[1]:
            raise ModelError(f"{labels.shape[1]} landmarks were given {len(names)} names")
        symmetry = _symmetry_of(symmetric, names or [str(k) for k in range(labels.shape[1])], labels)
        frames, placements = self.frames_of(images)
        in_frame = np.stack([place.to_frame(p) for place, p in zip(placements, labels, strict=True)])
        return fit_head(self, frames, in_frame, names, HeadSpec(symmetry, direction, pairs), seed=seed)

    def _look(self, image: Image) -> tuple[Tensor, Placement]:
        frames, placements = self.frames_of([image])
        return self.features(frames), placements[0]


def _symmetry_of(declared: Sequence[Pair] | str, names: Sequence[str], points: NDArray[np.float64]) -> Symmetry | None:
    if isinstance(declared, str):
        return Symmetry.parse(declared, names, points)
    return Symmetry.of_pairs(declared, names) if declared else None


def _describe_box(placement: Placement) -> str:
    x0, y0, x1, y1 = placement.box
    return f"x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}"
