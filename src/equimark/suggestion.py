"""Which image to label next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def suggest(
    confidence: NDArray[np.floating],
    summaries: NDArray[np.floating],
    labelled: NDArray[np.bool_],
    *,
    count: int = 8,
) -> list[int]:
    """The images from whose labels the model would learn most, best first.

    While nothing is labelled, those that are most like all: a good beginning. Then those on which the model is
    unsure and which are unlike what it was shown: each suggestion counts as shown for the next, so that they do not
    resemble each other.

    Args:
        confidence: (N,) mean over the landmarks, 0 to 1; NaN = not predicted, which counts as one half.
        summaries: (N, D) a vector per image, such as its mean descriptor; NaN = not seen: never suggested.
        labelled: (N,).
        count: of suggestions, at most.

    Returns:
        Indices of unlabelled images.
    """
    seen = np.isfinite(summaries).all(-1)
    open_ones = seen & ~labelled
    if not open_ones.any():
        return []
    centre = summaries[seen].mean(0)
    spread = float(np.linalg.norm(summaries[seen] - centre, axis=-1).mean()) or 1.0
    unsure = 1 - np.nan_to_num(np.asarray(confidence, np.float64), nan=0.5)
    nearest = _nearest(summaries, summaries[labelled & seen])
    chosen: list[int] = []
    while len(chosen) < count and open_ones.any():
        if np.isfinite(nearest).any():
            score = unsure + np.minimum(nearest / spread, 2) / 2
        else:
            score = -np.linalg.norm(summaries - centre, axis=-1)
        best = int(np.where(open_ones, score, -np.inf).argmax())
        chosen.append(best)
        open_ones[best] = False
        nearest = np.fmin(nearest, np.linalg.norm(summaries - summaries[best], axis=-1))
    return chosen


def _nearest(summaries: NDArray[np.floating], shown: NDArray[np.floating], block: int = 256) -> NDArray[np.float64]:
    """Distance (N,) of each of ``summaries`` (N, D) to the nearest of ``shown`` (L, D); infinite if there is none."""
    nearest = np.full(len(summaries), np.inf)
    squares = np.square(summaries).sum(-1)
    for first in range(0, len(shown), block):
        part = shown[first : first + block]
        squared = squares[:, None] + np.square(part).sum(-1) - 2 * summaries @ part.T
        nearest = np.fmin(nearest, np.sqrt(squared.clip(0)).min(-1))
    return nearest
