"""Metrics of landmarks: pure functions of NumPy arrays.

Predicted and true landmarks are (N, K, 2): N images, K landmarks, ``(x, y)`` in any unit that both share. A landmark
that is NaN in the truth is not visible and does not count. Names that end in ``_percent``, and ``nme``, are in %; the
other shares run from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


class MetricError(ValueError):
    """Landmarks that a metric cannot be computed of."""


@dataclass(frozen=True)
class Scale:
    """The length of an image by which its errors are divided.

    Args:
        name: in the names of metrics: ``iod`` for the distance between the eyes, ``pupils``, ``box``.
        ends: two groups of landmarks, between whose means the length lies; if absent, it is the root of the area
            of the box around all visible landmarks.
    """

    name: str
    ends: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @classmethod
    def between(cls, first: int, second: int) -> Scale:
        """The distance between two landmarks: the eyes 0 and 1 of the five points, 36 and 45 of the 68."""
        return cls("iod", ((first,), (second,)))

    def lengths(self, truth: Points) -> Points:
        """The length (N,) of each image; NaN where the landmarks that it needs are not visible, or it is zero.

        Raises:
            MetricError: if the landmarks are too few for it.
        """
        if self.ends is None:
            visible = np.where(np.isnan(truth).any(-1, keepdims=True), np.nan, truth)
            none = np.isnan(visible).all((1, 2))
            lengths = np.full(len(truth), np.nan)
            lengths[~none] = np.sqrt(np.prod(np.nanmax(visible[~none], 1) - np.nanmin(visible[~none], 1), -1))
        else:
            last = max(map(max, self.ends))
            if last >= truth.shape[1]:
                raise MetricError(
                    f"the errors are to be divided by a length that needs landmark {last}, but there are "
                    f"{truth.shape[1]} (counted from 0): choose another scale"
                )
            first, second = (truth[:, list(group)].mean(1) for group in self.ends)
            lengths = distances(first, second)
        return np.where(lengths > 0, lengths, np.nan)


BOX = Scale("box")
PUPILS = Scale("pupils", (tuple(range(36, 42)), tuple(range(42, 48))))  # the outlines of the eyes, of 68 points


def distances(predicted: Points, truth: Points) -> Points:
    """Euclidean distances (...) of points (..., 2); NaN where the truth is NaN."""
    norms: Points = np.linalg.norm(np.asarray(predicted) - np.asarray(truth), axis=-1)
    return norms


def error_px(predicted: Points, truth: Points) -> float:
    """Mean distance in pixels over the visible landmarks."""
    return _mean(distances(predicted, truth))


def scaled_errors(predicted: Points, truth: Points, scale: Scale) -> Points:
    """Distances (N, K) as shares of the length of each image; NaN where either is not known."""
    shares: Points = distances(predicted, truth) / scale.lengths(truth)[:, None]
    return shares


def error_percent(predicted: Points, truth: Points, scale: Scale) -> float:
    """Mean distance over landmarks and images as a share of the length of each image, in %."""
    return 100 * _mean(scaled_errors(predicted, truth, scale))


def error_iod_percent(predicted: Points, truth: Points, eyes: tuple[int, int]) -> float:
    """Mean distance as a share of the distance between two landmarks, in % (DVE tables 2-3).

    Args:
        predicted: (N, K, 2).
        truth: (N, K, 2); landmarks that are NaN do not count, nor images without both eyes.
        eyes: indices of the two landmarks: 0 and 1 of the five points, 36 and 45 of the 68.
    """
    return error_percent(predicted, truth, Scale.between(*eyes))


# ---- of errors (N, K), distances or shares -------------------------------------------------------------------


def by_point(errors: Points) -> Points:
    """Mean error (K,) of each landmark over the images that show it; NaN if none does."""
    seen = ~np.isnan(errors)
    sums, counts = np.where(seen, errors, 0).sum(0), seen.sum(0)
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def by_image(errors: Points) -> Points:
    """Mean error (M,) of each image that shows a landmark."""
    means = by_point(errors.T)
    return means[~np.isnan(means)]


def pck(errors: Points, threshold: float) -> float:
    """Share of the visible landmarks with an error of at most ``threshold`` (percentage of correct key points)."""
    return _mean(np.where(np.isnan(errors), np.nan, errors <= threshold))


def failure_rate(errors: Points, threshold: float) -> float:
    """Share of the images whose mean error is above ``threshold``."""
    return _mean(by_image(errors) > threshold)


def auc(errors: Points, threshold: float) -> float:
    """Area under the share of images with a mean error of at most e, for e from 0 to ``threshold``; 1 if all are 0."""
    return _mean(np.clip(1 - by_image(errors) / threshold, 0, None))


def _mean(errors: NDArray[np.floating] | NDArray[np.bool_]) -> float:
    counting = errors[~np.isnan(errors)]
    if not counting.size:
        raise MetricError("no landmark counts: none is visible, or no image shows those that give its scale")
    return float(counting.mean())


# ---- of confidence -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reliability:
    """How far confidence can be believed: predictions in M bins of equal width, by their confidence.

    Args:
        confidence: (M,) mean confidence in each bin; NaN where a bin is empty.
        correct: (M,) share of each bin that is correct; NaN where a bin is empty.
        count: (M,) predictions in each bin.
    """

    confidence: Points
    correct: Points
    count: NDArray[np.int64]

    @property
    def calibration_error(self) -> float:
        """Mean distance between confidence and the share that is correct, over all predictions (expected error)."""
        gaps = np.abs(np.nan_to_num(self.correct - self.confidence))
        return float(gaps @ self.count / self.count.sum())


def reliability(confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 10) -> Reliability:
    """Compare confidence with how often it was right to be confident.

    Args:
        confidence: (...) in [0, 1], the probability that a prediction is correct.
        correct: (...) whether it was.
        bins: how many, of equal width; a confidence between two bins belongs to the upper one.

    Raises:
        MetricError: if there is no prediction, a confidence lies outside [0, 1], or shapes do not agree.
    """
    said, right = np.ravel(confidence).astype(np.float64), np.ravel(correct)
    if not said.size or np.shape(confidence) != np.shape(correct):
        raise MetricError(f"confidence of shape {np.shape(confidence)} cannot be compared with {np.shape(correct)}")
    if not ((said >= 0) & (said <= 1)).all():
        raise MetricError("confidence must lie between 0 and 1")
    place = np.minimum((said * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    confidences, corrects = (
        np.divide(np.bincount(place, each, bins), count, out=np.full(bins, np.nan), where=count > 0)
        for each in (said, right)
    )
    return Reliability(confidences, corrects, count.astype(np.int64))


# ---- of discovered landmarks ---------------------------------------------------------------------------------


def forward_nme(train: tuple[Points, Points], test: tuple[Points, Points], scale: Scale) -> float:
    """How well discovered landmarks tell the annotated ones: error of a linear map without offset, in %.

    It is low also where many of the discovered landmarks are of no use: see :func:`backward_nme`.

    Args:
        train: discovered landmarks (N, K, 2) and annotated ones (N, J, 2) for least squares, relative to the
            middle of the frame, as there is no offset.
        test: the same of the images to be measured on.
        scale: of the annotated landmarks.

    Raises:
        MetricError: if an annotated landmark is visible in no training image.
    """
    (found, points), (found_test, points_test) = train, test
    return error_percent(_map_linearly(linear_map(found, points), found_test), points_test, scale)


def backward_nme(train: tuple[Points, Points], test: tuple[Points, Points], scale: Scale) -> float:
    """How well annotated landmarks tell the discovered ones: high where these do not keep to the object, in %.

    Images count that show all annotated landmarks. For arguments and errors see :func:`forward_nme`.
    """
    (found, points), (found_test, points_test) = train, test
    errors = distances(_map_linearly(linear_map(points, found), points_test), found_test)
    return 100 * _mean(errors / scale.lengths(points_test)[:, None])


def linear_map(inputs: Points, outputs: Points) -> Points:
    """The weights (2J, 2K) that minimise |y - W x|^2; the smallest if there are several.

    Args:
        inputs: x, landmarks (N, K, 2); images in which one is NaN do not count.
        outputs: y, landmarks (N, J, 2); each counts on the images that show it.

    Raises:
        MetricError: if no image is left for a landmark.
    """
    flat, wanted = inputs.reshape(len(inputs), -1), outputs.reshape(len(outputs), -1)
    complete = np.all(np.isfinite(flat), 1)
    weights = np.empty((wanted.shape[1], flat.shape[1]))
    patterns, member = np.unique((complete[:, None] & ~np.isnan(wanted)).T, axis=0, return_inverse=True)
    for i, rows in enumerate(patterns):
        columns = np.flatnonzero(member.ravel() == i)
        if not rows.any():
            raise MetricError(
                f"of {len(inputs)} images none shows landmark {columns[0] // 2} and all it is mapped from"
            )
        weights[columns] = np.linalg.lstsq(flat[rows], wanted[rows][:, columns], rcond=None)[0].T
    return weights


def _map_linearly(weights: Points, points: Points) -> Points:
    mapped: Points = (points.reshape(len(points), -1) @ weights.T).reshape(len(points), -1, 2)
    return mapped


def share_followed(before: Points, wanted: Points, found: Points) -> float:
    """How much of a known movement of landmarks (N, K, 2) is followed: 1 all of it, 0 nothing, NaN if nothing moves.

    It is the slope of the least squares line through 0 from the movements wanted to those found. What is off in other
    directions does not show in it, as it does in the error.

    Args:
        before: where landmarks were found before things moved.
        wanted: where these places are afterwards.
        found: where landmarks are found then.
    """
    movement = wanted - before
    moved = np.square(movement).sum()
    return float((movement * (found - before)).sum() / moved) if moved else math.nan


def mean_shape(truth: Points) -> Points:
    """Mean position (K, 2) of each landmark over the images that show it: what is known without looking."""
    return np.stack([by_point(truth[..., 0]), by_point(truth[..., 1])], -1)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over draws: of a sample, with N - 1; 0 for a single draw."""
    numbers = np.asarray(values, np.float64)
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
