"""Which image to label next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .embedding import Embedding

_EXAMPLES = 500  # images, evenly spread over all, for which labels are to be learned from
_CANDIDATES = 4_000  # images, evenly spread over those that could be labelled


def summarise(model: Embedding, frames: Tensor) -> NDArray[np.float32]:
    """A vector (B, D) of each of ``frames`` (B, 3, S, S): the mean descriptor, or the landmarks of a sparse run."""
    summary = (
        model.landmarks_of(frames).positions.flatten(1) if model.is_sparse else model.features(frames).mean((2, 3))
    )
    return np.asarray(summary.numpy(), np.float32)


def suggest(
    confidence: NDArray[np.floating],
    summaries: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    *,
    count: int = 8,
) -> list[int]:
    """The images from whose labels the model would learn most, best first.

    Each is the one that brings the images on which the model is unsure nearest to something labelled, given those
    before it: typical of many, and unlike what is labelled. While nothing is labelled, it is the one that is most
    like all.

    Args:
        confidence: (N,) mean over the landmarks, 0 to 1; NaN = not predicted, which counts as one half.
        summaries: (N, D) a vector per image, such as its mean descriptor; NaN = not seen: never suggested.
        labelled: (N,).
        count: of suggestions, at most.

    Returns:
        Indices of unlabelled images.
    """
    vectors = np.asarray(summaries, np.float64)  # their differences are small beside them
    seen = np.isfinite(vectors).all(-1)
    candidates = _spread(np.flatnonzero(seen & ~labelled), _CANDIDATES)
    if not len(candidates):
        return []
    unsure = 1 - np.nan_to_num(np.asarray(confidence, np.float64), nan=0.5)
    examples = _spread(np.flatnonzero(seen), _EXAMPLES)
    away = _distances(vectors[candidates], vectors[examples])
    known = _distances(vectors[labelled & seen], vectors[examples])
    left = known.min(0) if len(known) else np.full(len(examples), away.max())
    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        gain = np.maximum(left - away, 0) @ unsure[examples]
        gain[chosen] = -np.inf
        equal = np.flatnonzero(gain >= gain.max() * (1 - 1e-9))
        chosen.append(int(equal[unsure[candidates[equal]].argmax()]))
        left = np.minimum(left, away[chosen[-1]])
    return [int(row) for row in candidates[chosen]]


def _spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most so many of ``rows``, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between rows (A, B)."""
    squared = np.square(a).sum(-1)[:, None] + np.square(b).sum(-1) - 2 * a @ b.T
    return np.asarray(np.sqrt(squared.clip(0)))
