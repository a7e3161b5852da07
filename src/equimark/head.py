"""Named landmarks fitted on what a frozen network finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import directions, geometry
from .checkpoint import CheckpointError
from .directions import Direction
from .embedding import Embedding, Found, Image, ModelError, batches, digest
from .files import replace_file, write_text
from .geometry import Frame, Placement
from .matching import Located
from .pairs import draw_warps
from .prototypes import PrototypeRegressor
from .regression import LinearRegressor, Regressor, restore
from .symmetry import Symmetry, doubt_pairs_at_one_place

WEIGHTS_FILE, ABOUT_FILE = HEAD_FILES = ("head.safetensors", "head.yaml")
SLIGHTLY = (0.0, -10.0, 10.0)  # degrees by which the direction found may be off
PAIRS = 400  # of views from which named landmarks are derived by a run's own; half as many raise the error by 1 %


@dataclass(frozen=True)
class HeadSpec:
    """How named landmarks are fitted.

    Args:
        symmetry: of the landmarks: mirror images are learned from as well.
        direction: in which things lie in the images: ``upright``, that is all alike, ``any``, or ``auto``: any, if
            labelled shapes do not stand alike, which a single one always does. For runs with descriptors.
        pairs: of warped views from which named landmarks are derived by a run's own, at least.
        from_landmarks: derive them from the run's own landmarks, also where it has descriptors.
    """

    symmetry: Symmetry | None = None
    direction: Direction = "auto"
    pairs: int = PAIRS
    from_landmarks: bool = False


class Head:
    """Named landmarks fitted on what a model finds; made by :func:`fit_head`.

    Args:
        model: the model, frozen.
        regressor: its descriptors, or the landmarks of a sparse run, to named landmarks.
        names: of the landmarks.
        symmetry: of the landmarks, if pairs were declared.
        mirrored: whether it has learned from mirror images as well.
        turned: whether it looks for the direction in which a thing lies; it takes thirteen looks instead of one.
    """

    def __init__(
        self,
        model: Embedding,
        regressor: Regressor,
        names: tuple[str, ...] | None,
        symmetry: Symmetry | None = None,
        mirrored: bool = False,
        turned: bool = False,
    ) -> None:
        self.model = model
        self.regressor = regressor
        self.names = names
        self.symmetry = symmetry
        self.mirrored = mirrored
        self.turned = turned

    def predict(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """Landmarks (B, K, 2) in pixels of each image."""
        return self.detect_framed(*self.model.frames_of(images))[0]

    def detect_framed(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """Landmarks (B, K, 2), in image pixels, and their confidence (B, K) in ``frames`` (B, 3, S, S) uint8."""
        return self.model.in_image(self._locate(frames), placements)

    @property
    def visible_from(self) -> float:
        """The confidence below which a landmark is taken to be hidden: learned from labels that say so, else 0."""
        return float(self.regressor.visible_from) if isinstance(self.regressor, PrototypeRegressor) else 0.0

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
        if isinstance(self.regressor, LinearRegressor):
            return self.name_landmarks(self.model.landmarks_of(frames))
        if self.turned:
            return self._doubt(self._locate_turned(frames))
        return self.name_places(self.model.hypercolumns(frames))

    def name_landmarks(self, found: Located) -> Located:
        """Named landmarks (B, J, 2) from those of a sparse run (B, K, 2), both in cells."""
        assert isinstance(self.regressor, LinearRegressor)
        named = self.regressor.predict(Located(self.model.normalise(found.positions), found.confidence))
        return Located(self.model.denormalise(named.positions), named.confidence)

    def name_places(self, hypercolumns: Tensor) -> Located:
        """Named landmarks (B, K, 2), in cells, in ``hypercolumns`` (B, C + D, h, w) of things that stand upright."""
        return self._doubt(self._prototypes.predict(hypercolumns))

    def _doubt(self, named: Located) -> Located:
        if self.symmetry is None:
            return named
        return doubt_pairs_at_one_place(named, self._mean_shape.to(named.positions), self.symmetry)

    def _locate_upright(self, regressor: PrototypeRegressor, frames: Tensor) -> Located:
        """As :meth:`name_places`, without doubt, in ``frames`` (B, 3, S, S) uint8, however many."""
        found = [regressor.predict(self.model.hypercolumns(frames[part])) for part in batches(len(frames))]
        return Located(torch.cat([each.positions for each in found]), torch.cat([each.confidence for each in found]))

    def _locate_turned(self, frames: Tensor) -> Located:
        regressor, cells = self._prototypes, self.model.network.cells
        glance, look = (partial(self._locate_upright, each) for each in (regressor.uncorrected, regressor))
        return directions.locate(frames, glance, look, regressor.likelihood, self._mean_shape, cells)

    @property
    def _prototypes(self) -> PrototypeRegressor:
        assert isinstance(self.regressor, PrototypeRegressor)
        return self.regressor

    @property
    def _mean_shape(self) -> Tensor:
        """(K, 2) in cells."""
        return self._prototypes.mean.view(-1, 2)

    def tensors(self) -> dict[str, Tensor]:
        """All that decides what it finds, by name."""
        partner = torch.tensor(self.symmetry.partner if self.symmetry else [])
        return self.regressor.tensors() | {"partner": partner, "turned": torch.tensor(self.turned)}

    def save(self, folder: str | Path) -> None:
        """Write ``head.safetensors`` and ``head.yaml``."""
        folder = Path(folder)
        about = {
            "kind": self.regressor.kind,
            "landmarks": self.regressor.landmarks,
            "names": list(self.names) if self.names else None,
            "symmetric": [list(pair) for pair in self.symmetry.pairs] if self.symmetry else None,
            "mirrored": self.mirrored,
            "turned": self.turned,
            "weights": digest(self.model.network.state_dict()),
            "frame": self.model.frame.fit,
        }
        tensors = {name: value.contiguous() for name, value in self.regressor.tensors().items()}
        replace_file(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path))
        write_text(folder / ABOUT_FILE, yaml.safe_dump(about, sort_keys=False))

    @classmethod
    def load(cls, folder: str | Path, model: Embedding) -> Head:
        """A saved head, on the model it was fitted on.

        Raises:
            CheckpointError: if there is none in ``folder``, it is damaged, or was fitted on another model.
        """
        folder = Path(folder)
        try:
            about: dict[str, Any] = yaml.safe_load((folder / ABOUT_FILE).read_text(encoding="utf-8"))
            regressor = restore(about["kind"], load_file(folder / WEIGHTS_FILE))
            names, weights, fit = about["names"], about["weights"], about["frame"]
            symmetry = _symmetry_of(about.get("symmetric"), regressor.landmarks)  # older heads have none
            mirrored, turned = bool(about.get("mirrored")), bool(about.get("turned"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{folder} holds no fitted head (head.yaml, head.safetensors): equimark fit makes one"
            ) from None
        except Exception as error:
            raise CheckpointError(f"the head in {folder} is damaged: {error}") from None
        if weights != digest(model.network.state_dict()):
            raise CheckpointError(
                f"the head in {folder} was fitted on another run, or before this one was trained further"
            )
        return cls(model.with_frame(fit), regressor, tuple(names) if names else None, symmetry, mirrored, turned)


def fit_head(
    model: Embedding,
    frames: Tensor,
    points: NDArray[np.float64],
    names: Sequence[str] | None = None,
    spec: HeadSpec | None = None,
    *,
    seed: int = 0,
) -> Head:
    """Named landmarks from ``frames`` (N, 3, S, S) uint8 with labels (N, J, 2) in pixels of the frames.

    With descriptors they are prototypes (:class:`equimark.prototypes.PrototypeRegressor`). Those of a sparse
    run, or if the ``spec`` says so, are derived from the landmarks that it has of its own
    (:class:`equimark.regression.LinearRegressor`), found on pairs of views of the frames, warped at random as in
    training by ``seed`` (2017, section 4.3): equally many of each frame. Labels that a warp takes out of view do not
    count.

    With a ``symmetry``, the mirror image of each frame is learned from as well; with descriptors, if that helps
    (:meth:`equimark.prototypes.PrototypeRegressor.fit_mirrored`). The network looks at it: its descriptors are not
    those of the image in another order.

    Things in any direction are turned until their labelled shapes stand alike, and the head looks for the direction in
    which an image stands so too (:mod:`equimark.directions`). It finds that only roughly: each image is learned from
    turned slightly to either side as well, lest corrections take for granted that things stand exactly upright.

    Raises:
        ModelError: if a landmark is visible in no image, or the run lacks what they are fitted to.
    """
    spec = spec or HeadSpec()
    symmetry, mirrored = spec.symmetry, spec.symmetry is not None
    linear = model.is_sparse or spec.from_landmarks
    turned = model.has_descriptors and not linear and lie_in_any_direction(points, spec.direction)
    if symmetry is not None:
        frames = torch.cat([frames, frames.flip(-1)])
        points = np.concatenate([points, symmetry.mirror(points, model.frame.size)])
    try:
        if linear:
            regressor: Regressor = _fit_linear(model, frames, points, seed, spec.pairs)
        else:
            model.need_descriptors()
            if turned:
                frames, points = _turn_slightly(*_turn_upright(frames, points), halves=1 + mirrored)
            columns = torch.cat([model.hypercolumns(frames[part]).half() for part in batches(len(frames))])
            copies = len(SLIGHTLY) if turned else 1
            regressor, mirrored = fit_prototypes(model, columns, points, mirrored, copies)
    except ValueError as error:
        raise ModelError(str(error)) from None
    return Head(model, regressor, tuple(names) if names is not None else None, symmetry, mirrored, turned)


def lie_in_any_direction(points: NDArray[np.float64], direction: Direction) -> bool:
    """Whether things with labels (N, K, 2) are to be looked for in any direction."""
    return not directions.stand_alike(torch.from_numpy(points)) if direction == "auto" else direction == "any"


def _turn_upright(frames: Tensor, points: NDArray[np.float64]) -> tuple[Tensor, NDArray[np.float64]]:
    """Frames and labels turned until the labelled shapes stand alike."""
    return _turn(frames, points, -directions.turns_of(torch.from_numpy(points)))


def _turn_slightly(frames: Tensor, points: NDArray[np.float64], halves: int) -> tuple[Tensor, NDArray[np.float64]]:
    """Frames and labels of each of the ``halves``, one after another as they are and turned slightly."""
    count = len(frames)
    angles = torch.tensor(SLIGHTLY, dtype=torch.float64).deg2rad()
    turned = [_turn(frames, points, angle.expand(count)) for angle in angles]
    order = torch.arange(len(turned) * count).view(len(turned), halves, -1).transpose(0, 1).flatten()
    return torch.cat([each for each, _ in turned])[order], np.concatenate([each for _, each in turned])[order.numpy()]


def _turn(frames: Tensor, points: NDArray[np.float64], turns: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
    """Frames and labels turned by ``turns`` (N,); labels that leave the frame do not count."""
    side = frames.shape[-1]
    labels = directions.turn_points(torch.from_numpy(points), turns, (side - 1) / 2)
    seen = geometry.inside(labels, (side, side))
    return directions.turn_frames(frames, turns), labels.masked_fill(~seen[..., None], torch.nan).numpy()


def fit_prototypes(
    model: Embedding, hypercolumns: Tensor, points: NDArray[np.float64], mirrored: bool, copies: int = 1
) -> tuple[PrototypeRegressor, bool]:
    """Prototypes of things that stand alike, and whether mirror images helped.

    Args:
        model: with descriptors.
        hypercolumns: what it finds (N, C + D, h, w) in frames; half precision will do.
        points: labels (N, K, 2) in pixels of the frames; NaN where not visible.
        mirrored: whether the second half of both is of mirror images.
        copies: how often each half has all images, one after another, differently turned.

    Raises:
        ValueError: if a landmark is visible in no image.
    """
    cells = model.network.cells.to_cells(torch.from_numpy(points).float())
    if mirrored:
        return PrototypeRegressor.fit_mirrored(hypercolumns, cells, copies)
    return PrototypeRegressor.fit(hypercolumns, cells, copies), False


def _fit_linear(
    model: Embedding, frames: Tensor, points: NDArray[np.float64], seed: int, pairs: int
) -> LinearRegressor:
    order = torch.arange(len(frames)).repeat(max(1, -(-pairs // len(frames))))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.from_numpy(points).float()
    found, wanted = [], []
    for part in batches(len(order)):
        chosen = order[part]
        shapes, moved = _look_at_pairs(model, frames[chosen], labels[chosen], generator)
        found.append(model.normalise(shapes))
        wanted.append(model.normalise(moved))
    return LinearRegressor.fit(torch.cat(found), torch.cat(wanted))


def _look_at_pairs(
    model: Embedding, frames: Tensor, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The landmarks that a run has of its own in both views of warped frames, and where the labels lie there.

    Args:
        model: a run with landmarks of its own.
        frames: (B, 3, S, S) uint8.
        labels: (B, J, 2) in pixels of the frames; NaN where not visible.
        generator: of the warps.

    Returns:
        Landmarks (2B, K, 2) and labels (2B, J, 2), NaN where not in view, both in cells of the whole frames.
    """
    warps = draw_warps(model.config.pairs, len(frames), model.frame.size, generator=generator)
    drawn = warps.views(frames.float() / 255)
    views = torch.cat([drawn.source, drawn.target])
    moved = torch.cat([warps.move_to_source(labels), warps.move_to_target(labels)])
    seen = geometry.inside(moved, (views.shape[-2], views.shape[-1]))
    in_frame = (moved + model.config.pairs.margin).masked_fill(~seen[..., None], torch.nan)
    return model.landmarks_of_views(views).positions, model.network.cells.to_cells(in_frame)


def _symmetry_of(pairs: list[list[int]] | None, landmarks: int) -> Symmetry | None:
    """As a head keeps it."""
    if pairs is None:
        return None
    return Symmetry.of_pairs([(a, b) for a, b in pairs], [str(k) for k in range(landmarks)])
