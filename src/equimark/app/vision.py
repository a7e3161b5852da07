"""What a model sees of images, kept as arrays: matching, heat maps, colour maps, fitting and predicting.

A *record* is what is kept of an image: the descriptors of a dense or DVE run, and details after them (C + D, h, w), in
half precision, or the landmarks (K, 3) of a sparse run: x and y in cells of the whole frame, and confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from equimark import geometry, matching
from equimark.app import AppError
from equimark.app.learning import Lesson
from equimark.directions import Direction
from equimark.embedding import Found
from equimark.geometry import Placement
from equimark.head import Head, HeadSpec, fit_head, fit_prototypes, lie_in_any_direction
from equimark.matching import Located
from equimark.model import LandmarkModel
from equimark.plots import position_colours
from equimark.symmetry import Symmetry

_QUICK_PAIRS = 80  # warped views to which a head on sparse landmarks is fitted while a person waits
_REFERENCES = 2500  # cells of an image whose colours the others take, at most
_COLD = 1e-4  # share of a heat map's maximum at which nothing shows


class Vision(Protocol):
    """What dense and sparse runs have in common."""

    model: LandmarkModel
    direction: Direction
    shape: tuple[int, ...]
    dtype: DTypeLike
    summary: int

    def look(self, frames: Tensor) -> NDArray[Any]:
        """Records (B, ...) of ``frames`` (B, 3, S, S) uint8."""
        ...

    def summarise(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """A vector (B, D) for each record: images that are alike have vectors that are near."""
        ...

    def predict(self, head: Head, records: NDArray[Any], placements: Sequence[Placement]) -> Found:
        """Named landmarks (B, K, 2) in image pixels and their confidence (B, K), as of ``head.detect_framed``.

        Not for heads that look in all directions: records know only one.
        """
        ...

    def fit(
        self, lesson: Lesson, mirror: Symmetry | None, records: Callable[[], NDArray[Any]], frames: Callable[[], Tensor]
    ) -> Head:
        """Landmarks named by their ids, while a person waits.

        Args:
            lesson: of N images.
            mirror: the symmetry of the landmarks, if mirror images are to be learned from as well.
            records: gives those of the images, and then of their mirror images, if any: (N, ...) or (2N, ...).
            frames: gives the frames of the images (N, 3, S, S) uint8.
        """
        ...


class DenseVision:
    """Of a run with descriptors; ``direction`` as in :class:`equimark.head.HeadSpec`."""

    def __init__(self, model: LandmarkModel, direction: Direction = "auto") -> None:
        self.model, self.direction = model, direction
        size = model.frame.size
        columns = model.hypercolumns(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        self.shape = tuple(columns.shape[1:])
        self.dtype: DTypeLike = np.float16
        self.summary = model.network.channels

    def look(self, frames: Tensor) -> NDArray[Any]:
        """Hypercolumns (B, C + D, h, w), half precision."""
        return self.model.hypercolumns(frames).half().numpy()

    def summarise(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """The mean descriptor."""
        return np.asarray(records[:, : self.summary].mean((2, 3), dtype=np.float32))

    def fit(
        self, lesson: Lesson, mirror: Symmetry | None, records: Callable[[], NDArray[Any]], frames: Callable[[], Tensor]
    ) -> Head:
        """As :func:`equimark.head.fit_head`, but for a look at the frames of things that stand alike."""
        points = lesson.points
        if lie_in_any_direction(points, self.direction):
            return fit_head(self.model, frames(), points, lesson.landmarks, HeadSpec(mirror, "any"))
        if mirror is not None:
            points = np.concatenate([points, mirror.mirror(points, self.model.frame.size)])
        columns = torch.from_numpy(records())
        regressor, mirrored = fit_prototypes(self.model, columns, points, mirror is not None)
        return Head(self.model, regressor, lesson.landmarks, lesson.symmetry, mirrored)

    def predict(self, head: Head, records: NDArray[Any], placements: Sequence[Placement]) -> Found:
        """As of ``head.detect_framed``, for things that stand upright."""
        return self.model.in_image(head.name_places(_tensor(records)), placements)

    def own_landmarks(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        """The landmarks (B, K, 2) in image pixels that the run has beside descriptors, and their confidence (B, K)."""
        return self.model.in_image(self.model.landmarks_of(frames), placements)

    def describe(self, record: NDArray[Any], placement: Placement, point: tuple[float, float]) -> Tensor:
        """The descriptor (C,) at a point in pixels of an image; beyond the frame that of its border."""
        in_frame = torch.from_numpy(placement.to_frame(np.array(point))).float()
        cells = self.model.network.cells.to_cells(in_frame)
        return matching.describe_points(self._descriptors(record[None]), cells[None, None])[0, 0]

    def find(
        self, descriptors: Tensor, records: NDArray[Any], placements: Sequence[Placement]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float32]]:
        """Where descriptors (P, C) lie: (B, P, 2) in image pixels, confidence (B, P), heat maps (B, P, h, w)."""
        features = self._descriptors(records)
        scores = matching.similarity(descriptors, features)
        points, confidence = self.model.in_image(matching.locate(scores), placements)
        return points, confidence, geometry.spatial_softmax(scores).numpy()

    def colour_by(self, descriptors: Tensor, colours: NDArray[np.uint8], records: NDArray[Any]) -> NDArray[np.uint8]:
        """Each cell in the colour of the descriptor (P, C) that is nearest to its own: (B, h, w, 3) of (P, 3)."""
        features = self._descriptors(records)
        cosines = matching.cosine_similarity(descriptors, features)
        nearest: NDArray[np.int64] = cosines.argmax(1).numpy()
        return np.asarray(colours[nearest])

    def references(self, record: NDArray[Any]) -> tuple[Tensor, NDArray[np.uint8]]:
        """Descriptors (P, C) all over an image, and colours (P, 3) by where they stand in it."""
        height, width = self.shape[1:]
        step = max(1, round((height * width / _REFERENCES) ** 0.5))
        rows, columns = np.mgrid[0:height:step, 0:width:step].reshape(2, -1)
        colours = position_colours(np.stack([columns, rows], -1), (height, width))
        return self._descriptors(record[None])[0, :, rows, columns].mT, (colours * 255).round().astype(np.uint8)

    def _descriptors(self, records: NDArray[Any]) -> Tensor:
        """Descriptors (B, C, h, w) of ``records`` (B, C + D, h, w)."""
        return _tensor(records[:, : self.model.network.channels])


class SparseVision:
    """Of a run with K landmarks of its own."""

    direction: Direction = "auto"

    def __init__(self, model: LandmarkModel) -> None:
        self.model = model
        self.shape: tuple[int, ...] = (model.network.channels, 3)
        self.dtype: DTypeLike = np.float32
        self.summary = 2 * model.network.channels

    def look(self, frames: Tensor) -> NDArray[Any]:
        """Landmarks (B, K, 3): x, y in cells, and confidence."""
        found = self.model.landmarks_of(frames)
        return torch.cat([found.positions, found.confidence[..., None]], -1).numpy()

    def summarise(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """Where the landmarks lie in the frame."""
        return np.asarray(records[..., :2].reshape(len(records), -1), np.float32)

    def fit(
        self, lesson: Lesson, mirror: Symmetry | None, records: Callable[[], NDArray[Any]], frames: Callable[[], Tensor]
    ) -> Head:
        """As :func:`equimark.head.fit_head`, but with fewer warped views."""
        spec = HeadSpec(mirror, pairs=max(_QUICK_PAIRS, len(lesson.images)))
        return fit_head(self.model, frames(), lesson.points, lesson.landmarks, spec)

    def predict(self, head: Head, records: NDArray[Any], placements: Sequence[Placement]) -> Found:
        """As of ``head.detect_framed``."""
        return self.model.in_image(head.name_landmarks(_located(records)), placements)

    def landmarks(self, records: NDArray[Any], placements: Sequence[Placement]) -> Found:
        """The run's own landmarks (B, K, 2) in image pixels, and their confidence (B, K)."""
        return self.model.in_image(_located(records), placements)


def vision_of(model: LandmarkModel, direction: Direction = "auto") -> DenseVision | SparseVision:
    """What suits a model; with landmarks of its own it asks for no direction.

    Raises:
        AppError: if it is of a run with labels.
    """
    if model.has_descriptors:
        return DenseVision(model, direction)
    if model.is_sparse:
        return SparseVision(model)
    raise AppError(
        f"the page is for runs that learned without labels (dve, dense, sparse), not for a {model.config.method} run"
    )


def heat_bytes(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A heat map (..., h, w) as 0 to 255 by its logarithm, so that the second best place shows, too.

    255 is the maximum; 0 is ten thousand times less likely.
    """
    share = heat / heat.max((-2, -1), keepdims=True).clip(1e-12)
    return np.asarray((255 * (1 - np.log(share.clip(_COLD)) / np.log(_COLD))).round(), np.uint8)


def _tensor(records: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(records)).float()


def _located(records: NDArray[Any]) -> Located:
    found = torch.from_numpy(np.ascontiguousarray(records, np.float32))
    return Located(found[..., :2], found[..., 2])
