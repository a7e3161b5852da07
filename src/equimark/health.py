"""What a run's log says about its health: the ways in which learning without labels fails, and what helps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .config import RunConfig

STANDING_STILL = 0.8  # share of the alignment that landmarks score which ignore the image

_RECENT = 5  # lines of the log
_CELL_PIXELS = 2  # of all networks whose features are matched


def diagnose(config: RunConfig, log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings about a run whose landmarks or descriptors are of no use, each with what to change.

    Args:
        config: of the run.
        log: its lines, oldest first.
    """
    if not log:
        return ["there is no log of this run, so nothing can be said about how training went"]
    return [*diagnose_landmarks(config, log), *diagnose_descriptors(config, log)]


def recent_mean(log: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a term over the last lines of a log; NaN if they do not have it."""
    return float(np.mean([entry[name] for entry in log[-_RECENT:] if name in entry] or [np.nan]))


def diagnose_landmarks(config: RunConfig, log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of :func:`diagnose` about landmarks, if a run has any, by a log of at least one line."""
    if not config.landmarks:
        return []
    distinct, share = recent_mean(log, "distinct_landmarks"), recent_mean(log, "alignment_share")
    warnings, wanted = [], config.landmarks
    if distinct < wanted - 0.5:
        raised = f"raise --objective.gamma (now {config.objective.gamma:g})"
        way_out = raised if config.objective.diversity == "overlap" else "set --objective.diversity overlap"
        warnings.append(
            f"only {distinct:.0f} of {wanted} landmarks are distinct, the others coincide: train longer, {way_out} "
            f"or ask for fewer with --network.{'landmarks' if config.has_descriptors else 'channels'}"
        )
    if share > STANDING_STILL:  # never where the motion is unknown, and so the share
        way_out = "" if config.network.padding == "reflect" else ", set --network.padding reflect"
        warnings.append(
            f"the landmarks hardly follow the image: they are {share:.2f} as far off as landmarks that stand still in "
            f"the frame. Train longer{way_out} or lower --objective.gamma (now {config.objective.gamma:g})"
        )
    return warnings


def diagnose_descriptors(config: RunConfig, log: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of :func:`diagnose` about descriptors, if a run has any, by a log of at least one line."""
    if not config.has_descriptors:
        return []
    matching = recent_mean(log, "matching")
    chance = chance_matching(config.pairs.crop_size(config.frame.size), config.objective.power)
    if not matching > 0.9 * chance:
        return []
    return [
        f"the descriptors do not tell places apart: their matching term is {matching:.3g}, and descriptors that are "
        f"alike everywhere have {chance:.3g}. Train longer, or lower --optimiser.lr (now {config.optimiser.lr:g})"
    ]


def chance_matching(side: int, power: float) -> float:
    """The matching term of constant descriptors: the mean distance between two places in a view, to a power.

    Args:
        side: of the view, in pixels.
        power: of the distance.
    """
    axis = np.arange(0, side, _CELL_PIXELS, dtype=np.float64)
    count = len(axis)
    apart, often = axis, np.where(axis > 0, 2.0, 1.0) * (count - np.arange(count)) / count**2
    distances = np.hypot(apart[:, None], apart[None, :]) ** power
    return float(often @ distances @ often)
