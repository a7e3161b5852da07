"""Images filtered and in order, for the page to leaf through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from equimark.app.learning import Predictions
from equimark.app.session import Labels

Filter = Literal["all", "predicted", "labelled", "accepted", "low", "exchanged", "unreadable"]
Order = Literal["confidence", "disagreement", "name", "random"]

_UNCHECKED = ("new", "partial")
_STANDS_OUT = 0.7  # of the median


def disagreements(labels: Labels, names: Sequence[str], predictions: Predictions) -> NDArray[np.float64]:
    """How far labels are from what is predicted, in pixels: the mean (N,) over the landmarks.

    NaN where there is no label or no prediction. A large one is a slip of the hand, or an image that is unlike others.
    """
    found = np.full(len(names), np.nan)
    for i, name in enumerate(names):
        expected = predictions.of(i) if name in labels.marks else {}
        distances = [
            math.dist(mark.position, expected[id][:2])
            for id, mark in labels.of(name).items()
            if id in expected and mark.position is not None
        ]
        if distances:
            found[i] = sum(distances) / len(distances)
    return found


@dataclass(frozen=True, eq=False)
class Catalogue:
    """What is known of N images.

    Args:
        names: of the images.
        statuses: see :meth:`equimark.app.session.Labels.status`.
        confidence: (N,) mean over the landmarks; NaN = nothing predicted.
        disagreement: (N,) see :func:`disagreements`.
        unreadable: indices of images.
        exchanged: indices of images whose labels seem to have left and right exchanged.
    """

    names: Sequence[str]
    statuses: Sequence[str]
    confidence: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    unreadable: frozenset[int] = frozenset()
    exchanged: frozenset[int] = frozenset()

    @property
    def usual_low(self) -> float:
        """Confidence below which an image stands out: well below the median, whatever the level of this run is."""
        known = self.confidence[np.isfinite(self.confidence)]
        return round(float(np.median(known)) * _STANDS_OUT, 2) if len(known) else 0.5

    def passes(self, image: int, which: Filter, low: float) -> bool:
        """Whether an image belongs under a filter; ``predicted`` are all that nobody has checked."""
        if which == "all":
            return True
        if which == "unreadable" or image in self.unreadable:
            return which == "unreadable" and image in self.unreadable
        if which == "exchanged":
            return image in self.exchanged
        unchecked = self.statuses[image] in _UNCHECKED
        if which == "low":
            return unchecked and bool(self.confidence[image] < low)
        return unchecked if which == "predicted" else self.statuses[image] == which

    def select(
        self, which: Filter = "all", order: Order = "name", *, search: str = "", low: float = 0.5, seed: int = 0
    ) -> list[int]:
        """The images under a filter whose name contains ``search``, in order.

        Args:
            which: the filter.
            order: ``confidence`` (lowest first), ``disagreement`` (largest first), ``name`` or ``random``.
            search: part of the name, whatever the case.
            low: confidence below which images count as low.
            seed: of the random order.
        """
        wanted = search.casefold()
        chosen = [i for i, name in enumerate(self.names) if wanted in name.casefold() and self.passes(i, which, low)]
        if order == "random":
            return [chosen[i] for i in np.random.default_rng(seed).permutation(len(chosen))]
        if order == "name":
            return chosen
        key = self.confidence if order == "confidence" else -self.disagreement
        return sorted(chosen, key=lambda i: (bool(np.isnan(key[i])), float(np.nan_to_num(key[i])), i))

    def counts(self, low: float = 0.5) -> dict[str, int]:
        """How many images there are under each filter."""
        every = range(len(self.names))
        return {which: sum(self.passes(i, which, low) for i in every) for which in get_args(Filter)}
