"""The user's face: NumPy images of any size in, answers in those images' own pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import checkpoint, detection, geometry, matching
from .checkpoint import CheckpointError
from .config import RunConfig
from .files import replace_file, write_text
from .geometry import Frame, Placement
from .images import frame_image
from .matching import Located
from .networks import Network, look_twice
from .pairs import draw_warps
from .prototypes import PrototypeRegressor
from .regression import LinearRegressor, Regressor, restore
from .symmetry import Pair, Symmetry, doubt_pairs_at_one_place

Image = NDArray[np.uint8]
Found = tuple[NDArray[np.float64], NDArray[np.float64]]  # points and their confidence

PAIRS = 400  # of views from which a sparse run learns named landmarks; half as many raise the error by 1 %


class ModelError(ValueError):
    """Something asked of a model that it cannot do; the message says the way out."""


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


class LandmarkModel:
    """A trained run.

    Args:
        network: images to descriptors or score maps.
        config: of the run.
        device: on which to work.
    """

    def __init__(self, network: Network, config: RunConfig, *, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.network = network.to(self.device).eval()
        self.config = config

    @classmethod
    def load(cls, run: str | Path, *, device: str = "auto") -> LandmarkModel:
        """The model of a run folder.

        Raises:
            CheckpointError: if the folder is not a run or its weights are damaged.
        """
        kept = checkpoint.load(Path(run))
        return cls(kept.network, kept.config, device=choose_device(device))

    @property
    def is_sparse(self) -> bool:
        """Whether the run has found K landmarks of its own."""
        return self.config.method == "sparse"

    @property
    def has_descriptors(self) -> bool:
        """Whether the run describes every place, so that points can be matched and landmarks be named."""
        return self.config.method in ("dense", "dve")

    @property
    def names(self) -> tuple[str, ...] | None:
        """Of the landmarks: learned ones have none."""
        return None

    @property
    def frame(self) -> Frame:
        """The square in which the network sees an image."""
        return self.config.frame

    def with_frame(self, fit: str) -> LandmarkModel:
        """The same model that looks at another part of the images: see :class:`equimark.geometry.Frame`."""
        return LandmarkModel(self.network, replace(self.config, frame=replace(self.frame, fit=fit)), device=self.device)

    @torch.inference_mode()
    def features(self, frames: Tensor) -> Tensor:
        """Network output (B, C, h, w) on the CPU for whole ``frames`` (B, 3, S, S) uint8.

        The networks pad with zeros and so know where the border is. In training it stood where the margin is
        cropped: the part within is therefore looked at by itself, as in training, and what lies beyond is
        taken from a look at the whole. On faces this lowers the error of 20-label landmarks by a quarter.
        """
        images = frames.to(self.device).float() / 255
        return look_twice(self.features_of, images, self.config.pairs.margin, self.network.cells.stride)

    @torch.inference_mode()
    def features_of(self, images: Tensor) -> Tensor:
        """Network output (B, C, h, w) on the CPU for ``images`` (B, 3, H, W) in [0, 1], of any size."""
        out: Tensor = self.network(images.to(self.device))
        return out.float().cpu()

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
        self._need_descriptors()
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

    def _need_descriptors(self) -> None:
        if not self.has_descriptors:
            raise ModelError(
                f"a {self.config.method} run has no descriptors to match: train with --recipe dve-smallnet-64, or use "
                "detect"
            )

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
        """The K landmarks of a sparse or supervised run in an image.

        Raises:
            ModelError: for a run that has no landmarks of its own.
        """
        points, confidence = self.detect_framed(*self.frames_of([image]))
        return Landmarks(points[0], confidence[0])

    def detect_framed(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """The K landmarks (B, K, 2), in image pixels, and their confidence (B, K) in ``frames`` (B, 3, S, S) uint8."""
        if self.has_descriptors:
            raise ModelError(
                f"a {self.config.method} run has descriptors, not landmarks of its own: give it a fitted head "
                "(equimark fit, then --head), or match points with equimark match"
            )
        if self.config.method == "segmentation":
            raise ModelError("a segmentation run finds parts, not landmarks")
        return self.in_image(self.landmarks_of(frames), placements)

    def landmarks_of(self, frames: Tensor) -> Located:
        """The K landmarks of a sparse or supervised run in ``frames`` (B, 3, S, S) uint8, in cells of the frames.

        They are looked for where the views of training lie, within the margin: a position is a mean over the
        whole map, and a run has not learned to score places beyond.
        """
        margin, size = self.config.pairs.margin, self.frame.size
        inner = slice(margin, size - margin)
        return self._landmarks_of_views(frames[..., inner, inner].float() / 255)

    def _landmarks_of_views(self, views: Tensor) -> Located:
        """As :meth:`landmarks_of`, in what the margin leaves of frames: ``views`` (B, 3, s, s) in [0, 1]."""
        features = self.features_of(views)
        if self.is_sparse:
            found = detection.detect(features)
        else:
            pixels = geometry.denormalise(features, (views.shape[-2], views.shape[-1]))
            found = Located(pixels, torch.ones(features.shape[:2]))
        return Located(found.positions + self.config.pairs.margin / self.network.cells.stride, found.confidence)

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
        symmetric: Sequence[Pair] = (),
        seed: int = 0,
        pairs: int = PAIRS,
    ) -> Head:
        """Named landmarks from few labelled images: see :meth:`fit_frames`.

        Args:
            images: N images of any sizes.
            points: labels (N, J, 2) in pixels of each image; NaN where not visible.
            names: of the J landmarks.
            symmetric: pairs of landmarks that change places in a mirror, by names or numbers.
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
        numbers = [str(k) for k in range(labels.shape[1])]
        symmetry = Symmetry.of_pairs(symmetric, names or numbers) if symmetric else None
        frames, placements = self.frames_of(images)
        in_frame = np.stack([place.to_frame(p) for place, p in zip(placements, labels, strict=True)])
        return self.fit_frames(frames, in_frame, names, symmetry=symmetry, seed=seed, pairs=pairs)

    def fit_frames(
        self,
        frames: Tensor,
        points: NDArray[np.float64],
        names: Sequence[str] | None = None,
        *,
        symmetry: Symmetry | None = None,
        seed: int = 0,
        pairs: int = PAIRS,
    ) -> Head:
        """Named landmarks from ``frames`` (N, 3, S, S) uint8 with labels (N, J, 2) in pixels of the frames.

        With descriptors they are prototypes (:class:`equimark.prototypes.PrototypeRegressor`). Those of a sparse
        run are derived from its own landmarks (:class:`equimark.regression.LinearRegressor`), found on pairs of
        views of the frames, warped at random as in training (2017, section 4.3): equally many of each frame, and
        ``pairs`` at least. Labels that a warp takes out of view do not count.

        With a ``symmetry``, the mirror image of each frame is learned from as well; with descriptors, if that helps
        (:meth:`equimark.prototypes.PrototypeRegressor.fit_mirrored`). The network looks at it: its descriptors are not
        those of the image in another order.

        Raises:
            ModelError: if a landmark is visible in no image.
        """
        mirrored = symmetry is not None
        if symmetry is not None:
            frames = torch.cat([frames, frames.flip(-1)])
            points = np.concatenate([points, symmetry.mirror(points, self.frame.size)])
        try:
            if self.is_sparse:
                regressor = self._fit_linear(frames, points, seed, pairs)
            else:
                self._need_descriptors()
                regressor, mirrored = self._fit_prototypes(frames, points, mirrored)
        except ValueError as error:
            raise ModelError(str(error)) from None
        return Head(self, regressor, tuple(names) if names is not None else None, symmetry, mirrored)

    def _fit_prototypes(
        self, frames: Tensor, points: NDArray[np.float64], mirrored: bool
    ) -> tuple[PrototypeRegressor, bool]:
        cells = self.network.cells.to_cells(torch.from_numpy(points).float())
        features = torch.cat([self.features(frames[part]).half() for part in batches(len(frames))])
        if mirrored:
            return PrototypeRegressor.fit_mirrored(features, cells)
        return PrototypeRegressor.fit(features, cells), False

    def _fit_linear(self, frames: Tensor, points: NDArray[np.float64], seed: int, pairs: int) -> Regressor:
        order = torch.arange(len(frames)).repeat(max(1, -(-pairs // len(frames))))
        generator = torch.Generator().manual_seed(seed)
        labels = torch.from_numpy(points).float()
        found, wanted = [], []
        for part in batches(len(order)):
            chosen = order[part]
            shapes, moved = self._look_at_pairs(frames[chosen], labels[chosen], generator)
            found.append(self.normalise(shapes))
            wanted.append(self.normalise(moved))
        return LinearRegressor.fit(torch.cat(found), torch.cat(wanted))

    def _look_at_pairs(self, frames: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The landmarks of a sparse run in both views of warped frames, and where the labels lie there.

        Args:
            frames: (B, 3, S, S) uint8.
            labels: (B, J, 2) in pixels of the frames; NaN where not visible.
            generator: of the warps.

        Returns:
            Landmarks (2B, K, 2) and labels (2B, J, 2), NaN where not in view, both in cells of the whole frames.
        """
        warps = draw_warps(self.config.pairs, len(frames), self.frame.size, generator=generator)
        drawn = warps.views(frames.float() / 255)
        views = torch.cat([drawn.source, drawn.target])
        moved = torch.cat([warps.move_to_source(labels), warps.move_to_target(labels)])
        seen = geometry.inside(moved, (views.shape[-2], views.shape[-1]))
        in_frame = (moved + self.config.pairs.margin).masked_fill(~seen[..., None], torch.nan)
        return self._landmarks_of_views(views).positions, self.network.cells.to_cells(in_frame)

    def _look(self, image: Image) -> tuple[Tensor, Placement]:
        frames, placements = self.frames_of([image])
        return self.features(frames), placements[0]

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


class Head:
    """Named landmarks fitted on what a model finds; made by :meth:`LandmarkModel.fit`.

    Args:
        model: the model, frozen.
        regressor: its descriptors, or the landmarks of a sparse run, to named landmarks.
        names: of the landmarks.
        symmetry: of the landmarks, if pairs were declared.
        mirrored: whether it has learned from mirror images as well.
    """

    def __init__(
        self,
        model: LandmarkModel,
        regressor: Regressor,
        names: tuple[str, ...] | None,
        symmetry: Symmetry | None = None,
        mirrored: bool = False,
    ) -> None:
        self.model = model
        self.regressor = regressor
        self.names = names
        self.symmetry = symmetry
        self.mirrored = mirrored

    def predict(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """Landmarks (B, K, 2) in pixels of each image."""
        return self.detect_framed(*self.model.frames_of(images))[0]

    def detect_framed(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """Landmarks (B, K, 2), in image pixels, and their confidence (B, K) in ``frames`` (B, 3, S, S) uint8."""
        return self.model.in_image(self._locate(frames), placements)

    @property
    def frame(self) -> Frame:
        """The square in which the model sees an image."""
        return self.model.frame

    def predict_frames(self, frames: Tensor) -> NDArray[np.float64]:
        """Landmarks (B, K, 2) in pixels of ``frames`` (B, 3, S, S) uint8."""
        return self.locate_frames(frames)[0]

    def locate_frames(self, frames: Tensor) -> Found:
        """Landmarks (B, K, 2) in pixels of ``frames`` (B, 3, S, S) uint8, and their confidence (B, K)."""
        located = [self._locate(frames[part]) for part in batches(len(frames))]
        positions = self.model.network.cells.to_pixels(torch.cat([each.positions for each in located]))
        return positions.double().numpy(), torch.cat([each.confidence for each in located]).double().numpy()

    def _locate(self, frames: Tensor) -> Located:
        """Landmarks in ``frames`` (B, 3, S, S) uint8, in cells."""
        model = self.model
        if isinstance(self.regressor, PrototypeRegressor):
            named = self.regressor.predict(model.features(frames))
            if self.symmetry is None:
                return named
            return doubt_pairs_at_one_place(named, self.regressor.mean.view(-1, 2).to(named.positions), self.symmetry)
        found = model.landmarks_of(frames)
        named = self.regressor.predict(Located(model.normalise(found.positions), found.confidence))
        return Located(model.denormalise(named.positions), named.confidence)

    def save(self, folder: str | Path) -> None:
        """Write ``head.safetensors`` and ``head.yaml``."""
        folder = Path(folder)
        about = {
            "kind": self.regressor.kind,
            "landmarks": self.regressor.landmarks,
            "names": list(self.names) if self.names else None,
            "symmetric": [list(pair) for pair in self.symmetry.pairs] if self.symmetry else None,
            "mirrored": self.mirrored,
            "weights": _fingerprint(self.model.network),
            "frame": self.model.frame.fit,
        }
        tensors = {name: value.contiguous() for name, value in self.regressor.tensors().items()}
        replace_file(folder / "head.safetensors", lambda path: save_file(tensors, path))
        write_text(folder / "head.yaml", yaml.safe_dump(about, sort_keys=False))

    @classmethod
    def load(cls, folder: str | Path, model: LandmarkModel) -> Head:
        """A saved head, on the model it was fitted on.

        Raises:
            CheckpointError: if there is none in ``folder``, it is damaged, or was fitted on another model.
        """
        folder = Path(folder)
        try:
            about: dict[str, Any] = yaml.safe_load((folder / "head.yaml").read_text(encoding="utf-8"))
            regressor = restore(about["kind"], load_file(folder / "head.safetensors"))
            names, weights, fit = about["names"], about["weights"], about["frame"]
            symmetry = _symmetry_of(about.get("symmetric"), regressor.landmarks)  # older heads have none
            mirrored = bool(about.get("mirrored"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{folder} holds no fitted head (head.yaml, head.safetensors): equimark fit makes one"
            ) from None
        except Exception as error:
            raise CheckpointError(f"the head in {folder} is damaged: {error}") from None
        if weights != _fingerprint(model.network):
            raise CheckpointError(
                f"the head in {folder} was fitted on another run, or before this one was trained further"
            )
        return cls(model.with_frame(fit), regressor, tuple(names) if names else None, symmetry, mirrored)


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


def _check_image(image: Image) -> Image:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ModelError(f"an image must be (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    return image


def _describe_box(placement: Placement) -> str:
    x0, y0, x1, y1 = placement.box
    return f"x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f}"


def _symmetry_of(pairs: list[list[int]] | None, landmarks: int) -> Symmetry | None:
    """As a head keeps it."""
    if pairs is None:
        return None
    return Symmetry.of_pairs([(a, b) for a, b in pairs], [str(k) for k in range(landmarks)])


def _fingerprint(network: Network) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
