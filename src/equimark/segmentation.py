"""How well the labels of pixels agree with the truth: pure functions of integer arrays (N, H, W)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer]


@dataclass(frozen=True)
class ClassScore:
    """One row of the table: how one class was found.

    Args:
        label: of the class.
        pixels: that show it.
        found: pixels said to show it.
        accuracy_percent: of the pixels that show it, those said to; NaN if none shows it.
        iou_percent: pixels that show it and are said to, of those that show it or are said to.
    """

    label: int
    pixels: int
    found: int
    accuracy_percent: float
    iou_percent: float


def pixel_accuracy_percent(predicted: Labels, truth: Labels, ignore: int | None = None) -> float:
    """Share of the pixels with the right label, in % (2017, supplement, tables 3-4).

    Args:
        predicted: labels (N, H, W).
        truth: labels (N, H, W).
        ignore: label of the truth whose pixels do not count.

    Raises:
        ValueError: if the arrays do not fit each other, or no pixel counts.
    """
    predicted, truth = _counting(predicted, truth, ignore)
    return 100 * float((predicted == truth).mean())


def mean_iou_percent(predicted: Labels, truth: Labels, classes: int, ignore: int | None = None) -> float:
    """Mean intersection over union of the classes that occur, in %.

    For arguments and errors see :func:`class_table`.
    """
    return float(np.mean([row.iou_percent for row in class_table(predicted, truth, classes, ignore)]))


def class_table(predicted: Labels, truth: Labels, classes: int, ignore: int | None = None) -> list[ClassScore]:
    """A row for each class that occurs in the truth or the prediction, by label.

    Args:
        predicted: labels (N, H, W) from 0 to ``classes`` - 1.
        truth: labels (N, H, W) from 0 to ``classes`` - 1, or ``ignore``.
        classes: number of labels.
        ignore: label of the truth whose pixels do not count. If it is one of the classes, that class has no row.

    Raises:
        ValueError: if the arrays do not fit each other, a label is out of range, or no pixel counts.
    """
    counts = confusion(predicted, truth, classes, ignore)
    shown, found = counts.sum(1), counts.sum(0)
    return [
        _score(label, int(shown[label]), int(found[label]), int(counts[label, label]))
        for label in range(classes)
        if label != ignore and shown[label] + found[label] > 0
    ]


def _score(label: int, shown: int, found: int, both: int) -> ClassScore:
    accuracy = 100 * both / shown if shown else float("nan")
    return ClassScore(label, shown, found, accuracy, 100 * both / (shown + found - both))


def confusion(predicted: Labels, truth: Labels, classes: int, ignore: int | None = None) -> NDArray[np.int64]:
    """Pixels (classes, classes) by true label (rows) and predicted label (columns).

    For arguments and errors see :func:`class_table`.
    """
    predicted, truth = _counting(predicted, truth, ignore)
    for name, labels in (("predicted", predicted), ("true", truth)):
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"{name} labels run from {labels.min()} to {labels.max()}, not from 0 to {classes - 1}")
    pairs = truth.astype(np.int64) * classes + predicted.astype(np.int64)  # the labels' own type may be too small
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _counting(predicted: Labels, truth: Labels, ignore: int | None) -> tuple[Labels, Labels]:
    """Both labels (P,) of the pixels that count."""
    for name, labels in (("predicted", predicted), ("true", truth)):
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"{name} labels must be integers, got {labels.dtype}")
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted labels {predicted.shape} do not fit the true ones {truth.shape}")
    counts = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    if not counts.any():
        raise ValueError("no pixel counts: there are none, or all are ignored")
    return predicted[counts], truth[counts]
