"""What the figures show: a run, and images that it is shown on.

Figures show what a run sees in training: *views*, which are frames less their margin. Points are in pixels of the views
wherever they are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equimark import detection, geometry, matching
from equimark.embedding import ModelError, batches
from equimark.head import Head
from equimark.metrics import Points
from equimark.model import LandmarkModel
from equimark.plots import Image

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A run, and N images.

    Args:
        model: the run.
        frames: (N, 3, S, S) uint8, in the run's frame.
        points: annotated landmarks (N, J, 2) in pixels of the frames, NaN where not visible; for figures that say so.
        head: the J landmarks fitted on the run; for figures that say so.
        labels: what each image shows: a kind of animal, a subject.

    Raises:
        ModelError: if these do not fit together.
    """

    model: LandmarkModel
    frames: Tensor
    points: Points | None = None
    head: Head | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        side = self.model.frame.size
        if not len(self) or self.frames.shape[1:] != (3, side, side) or self.frames.dtype != torch.uint8:
            raise ModelError(
                f"a figure of this run needs frames (N, 3, {side}, {side}) uint8, got {tuple(self.frames.shape)} "
                f"{self.frames.dtype}"
            )
        for what, given in (("landmarks", self.points), ("labels", self.labels or None)):
            if given is not None and len(given) != len(self):
                raise ModelError(f"{len(self)} images of a figure have {what} of {len(given)}")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def margin(self) -> int:
        """Pixels by which a view is smaller than its frame, on each side."""
        return self.model.config.pairs.margin

    @property
    def side(self) -> int:
        """Of the views, in pixels."""
        return self.model.config.pairs.crop_size(self.model.frame.size)

    def views(self, rows: Rows) -> Tensor:
        """Views (B, 3, s, s) in [0, 1]."""
        inner = slice(self.margin, self.margin + self.side)
        return self.frames[torch.from_numpy(rows)][..., inner, inner].float() / 255

    def annotated(self, rows: Rows) -> Points:
        """Annotated landmarks (B, J, 2) in pixels of the views; NaN where not visible, or not in view.

        Raises:
            ModelError: if the images have none.
        """
        if self.points is None:
            raise ModelError("this figure needs images with annotated landmarks")
        points = self.points[rows] - self.margin
        seen = geometry.inside(torch.from_numpy(points), (self.side, self.side)).numpy()
        return np.where(seen[..., None], points, np.nan)

    def predicted(self, rows: Rows) -> Points:
        """Landmarks (B, J, 2) by the head, in pixels of the views.

        Raises:
            ModelError: if there is no head.
        """
        if self.head is None:
            raise ModelError("this figure needs landmarks fitted on the run (equimark.head.fit_head)")
        found: Points = self.head.predict_frames(self.frames[torch.from_numpy(rows)]) - self.margin
        return found

    def features(self, rows: Rows) -> Tensor:
        """Descriptors (B, C, h, w) of the views.

        Raises:
            ModelError: if the run has none.
        """
        if not self.model.has_descriptors:
            raise ModelError(f"this figure needs runs with descriptors, and a {self.model.config.method} run has none")
        return torch.cat([self.model.features_of(self.views(rows[part])) for part in batches(len(rows))])

    def describe(self, row: int, points: Points) -> Tensor:
        """Descriptors (P, C) at ``points`` (P, 2), in pixels of the view of an image."""
        cells = self.model.network.cells.to_cells(torch.from_numpy(points).float())
        return matching.describe_points(self.features(np.array([row])), cells[None])[0]

    def match(self, descriptors: Tensor, rows: Rows) -> tuple[Points, Points]:
        """Where descriptors (P, C) lie in views: (B, P, 2) in their pixels; and the cosines (B, P) with what is there.

        A position is that of :func:`equimark.matching.locate`.
        """
        found, cosines = [], []
        for part in batches(len(rows)):
            features = self.features(rows[part])
            wanted = descriptors.expand(len(features), -1, -1)
            cells = matching.locate(matching.similarity(wanted, features)).positions
            there = matching.describe_points(features, cells)
            cosines.append(torch.cosine_similarity(wanted, there, dim=-1))
            found.append(self.model.network.cells.to_pixels(cells))
        return torch.cat(found).double().numpy(), torch.cat(cosines).double().numpy()


def landmarks_in(model: LandmarkModel, views: Tensor) -> Points:
    """The landmarks (B, K, 2) that a run finds by itself in ``views`` (B, 3, s, s) in [0, 1], in their pixels.

    Raises:
        ModelError: for a run that has learned none.
    """
    if not model.config.landmarks:
        raise ModelError(f"this figure shows landmarks found without labels, and a {model.config.method} run has none")
    found = [detection.detect(model.scores_of(views[part])).positions for part in batches(len(views))]
    points: Points = model.network.cells.to_pixels(torch.cat(found)).double().numpy()
    return points


def pictures(views: Tensor) -> list[Image]:
    """Views (B, 3, s, s) in [0, 1] as images (s, s, 3) uint8."""
    return list((views * 255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy())


def choose(available: int, wanted: int, seed: int | None) -> Rows:
    """At most ``wanted`` of so many images: in a random order that ``seed`` decides; without one, the first."""
    order = np.arange(available) if seed is None else np.random.default_rng(seed).permutation(available)
    return order[:wanted]


def only(exhibits: Mapping[str, Exhibit]) -> Exhibit:
    """The one run of a figure that shows one.

    Raises:
        ModelError: if there are several, or none.
    """
    if len(exhibits) != 1:
        raise ModelError(f"this figure shows one run, got {len(exhibits)}: {', '.join(exhibits)}")
    return next(iter(exhibits.values()))


def same_images(exhibits: Mapping[str, Exhibit]) -> Exhibit:
    """The first of several runs that a figure shows on the same images.

    Raises:
        ModelError: if there is no run, or they have different numbers of images.
    """
    counts = {name: len(exhibit) for name, exhibit in exhibits.items()}
    if len(set(counts.values())) != 1:
        numbers = ", ".join(f"{name} {count}" for name, count in counts.items()) or "no run"
        raise ModelError(f"this figure shows runs on the same images, got numbers of images: {numbers}")
    return next(iter(exhibits.values()))
