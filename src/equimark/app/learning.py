"""From labels to what the model learns from them, and the predictions that follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from equimark.app.session import Labels, symmetry_of, to_table
from equimark.embedding import Found
from equimark.geometry import Placement
from equimark.symmetry import Symmetry


@dataclass(frozen=True, eq=False)
class Lesson:
    """Labels in view of the model.

    Args:
        landmarks: ids of the K landmarks that are in view on at least one image, in the person's order.
        images: indices of N images with at least one of them.
        points: (N, K, 2) in pixels of the frames; NaN where not visible, not in view or not given.
        symmetry: of these landmarks, if pairs are declared.
    """

    landmarks: tuple[str, ...] = ()
    images: tuple[int, ...] = ()
    points: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0, 2)))
    symmetry: Symmetry | None = None

    def teaches_as(self, other: Lesson) -> bool:
        """Whether the same can be learned from both."""
        mine, others = ((each.landmarks, each.images, each.symmetry) for each in (self, other))
        return mine == others and np.array_equal(self.points, other.points, equal_nan=True)

    def at_most(self, count: int) -> Lesson:
        """The part of about ``count`` images: the first, and those of landmarks that have a label only later."""
        if len(self.images) <= count:
            return self
        first = np.isfinite(self.points[..., 0]).argmax(0)  # the row from which on each landmark has a label
        rows = np.union1d(np.arange(count), first)
        return replace(self, images=tuple(self.images[row] for row in rows), points=self.points[rows])


def lesson_of(
    labels: Labels,
    names: Sequence[str],
    side: int,
    place: Callable[[Sequence[int]], tuple[list[int], list[Placement]]],
) -> Lesson:
    """The lesson of images on which a person placed or moved a point, or said that one is not visible.

    Predictions that were accepted beside it were looked at. Images of which everything was accepted may not have
    been: they would teach the model what it believes already, and that it is always right.

    Args:
        labels: of the person.
        names: of all images.
        side: of the frame, in pixels.
        place: of those images that can be read: their indices and placements.
    """

    def by_hand(name: str) -> bool:
        return not all(mark.accepted for mark in labels.of(name).values())

    indices = {name: i for i, name in enumerate(names)}
    images, placements = place(sorted(indices[name] for name in labels.labelled() if name in indices and by_hand(name)))
    if not images:
        return Lesson()
    table = to_table(labels, [names[image] for image in images])
    points = np.stack([each.to_frame(p) for each, p in zip(placements, table.points, strict=True)])
    points[~((points >= -0.5) & (points <= side - 0.5)).all(-1)] = np.nan
    in_view = np.isfinite(points[..., 0])
    rows, columns = np.flatnonzero(in_view.any(1)), np.flatnonzero(in_view.any(0))
    chosen = tuple(images[row] for row in rows)
    landmarks = [labels.landmarks[k] for k in columns]
    ids, symmetry = tuple(each.id for each in landmarks), symmetry_of(landmarks)
    return Lesson(ids, chosen, points[rows][:, columns], symmetry)


class Predictions:
    """Where K landmarks are expected on N images, and since which lesson.

    Args:
        count: of images.
        landmarks: their ids.
        earlier: what was predicted before: it stands until it is replaced.
    """

    def __init__(self, count: int, landmarks: tuple[str, ...] = (), earlier: Predictions | None = None) -> None:
        self.landmarks = landmarks
        self.points: NDArray[np.float64] = np.full((count, len(landmarks), 2), np.nan)
        self.confidence: NDArray[np.float64] = np.full((count, len(landmarks)), np.nan)
        self.lesson: NDArray[np.int64] = np.zeros(count, np.int64)
        for k, id in enumerate(landmarks):
            if earlier is not None and id in earlier.landmarks:
                old = earlier.landmarks.index(id)
                self.points[:, k] = earlier.points[:, old]
                self.confidence[:, k] = earlier.confidence[:, old]

    def put(self, images: Sequence[int], found: Found, lesson: int) -> None:
        """Predictions (B, K, 2) and confidence (B, K) of images, made by a lesson."""
        self.points[images], self.confidence[images] = found
        self.lesson[images] = lesson

    def of(self, image: int) -> dict[str, tuple[float, float, float]]:
        """x, y and confidence of each landmark that is predicted, by id."""
        rows = np.column_stack([self.points[image], self.confidence[image]]).tolist()
        return {id: (x, y, sure) for id, (x, y, sure) in zip(self.landmarks, rows, strict=True) if x == x}

    def mean_confidence(self) -> NDArray[np.float64]:
        """(N,): over the landmarks; NaN where nothing is predicted."""
        count = np.isfinite(self.confidence).sum(1)
        return np.where(count > 0, np.nansum(self.confidence, 1) / count.clip(1), np.nan)
