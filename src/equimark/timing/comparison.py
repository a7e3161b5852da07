"""Two measurements of the same machine beside each other: what became slower or faster."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equimark.timing.measurement import TimingError
from equimark.timing.stages import STAGES, parts_of

LEAST_CHANGE = 1.1  # of the medians

_NEEDED = ("hardware", "settings", "results")


@dataclass(frozen=True)
class Change:
    """One task, then and now.

    Args:
        what: stage and part.
        before: median seconds then.
        now: median seconds now.
        memory: peak now over peak then; absent if one is not known.
        verdict: ``slower`` or ``faster`` only if the medians differ by more than a tenth and the middle halves of
            the repeats do not overlap.
    """

    what: str
    before: float
    now: float
    memory: float | None
    verdict: Literal["slower", "same", "faster"]

    @property
    def ratio(self) -> float:
        """Time now over time then."""
        return self.now / self.before


def read(path: Path) -> dict[str, Any]:
    """What ``equimark benchmark --out`` wrote.

    Raises:
        TimingError: if it is missing or something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TimingError(f"{path} cannot be read as a benchmark: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), dict) for key in _NEEDED):
        raise TimingError(f"{path} is no benchmark: give a file that equimark benchmark --out wrote")
    return content


def obstacle(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why the two cannot be compared, empty if they can: other hardware, other sizes, no stage in common."""
    for kind, ignored in (("hardware", ()), ("settings", ("repeats",))):
        differing = list(_differing(before[kind], now[kind], ignored))
        if differing:
            return f"measured with other {kind}: {'; '.join(differing)}"
    if not _common(before, now):
        return f"it has none of the stages {', '.join(now['results'])}"
    return ""


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], ignored: Sequence[str]) -> Iterator[str]:
    for key in sorted({*before, *now} - {*ignored}):
        if before.get(key) != now.get(key):
            yield f"{key} {before.get(key)}, here {now.get(key)}"


def _common(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [stage for stage in STAGES if stage in before["results"] and stage in now["results"]]


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Every task that both have measured, except the literal formulation, which is what it is.

    Raises:
        TimingError: if numbers are missing.
    """
    changes = []
    for stage in _common(before, now):
        for what, front in parts_of(stage):
            if front != "oracle_":
                changes.append(_change(what, front, before["results"][stage], now["results"][stage]))
    return changes


def _change(what: str, front: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> Change:
    try:
        seconds = [float(result[f"{front}seconds"]) for result in (before, now)]
        (low_then, high_then), (low, high) = (map(float, result[f"{front}spread"]) for result in (before, now))
        peak_then, peak = (result[f"{front}peak_mb"] for result in (before, now))
        ratio, memory = seconds[1] / seconds[0], peak / peak_then if peak and peak_then else None
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise TimingError(f"the earlier benchmark has no usable numbers of {what}: {error!r}") from None
    verdict: Literal["slower", "same", "faster"] = "same"
    if ratio > LEAST_CHANGE and low > high_then:
        verdict = "slower"
    elif ratio < 1 / LEAST_CHANGE and high < low_then:
        verdict = "faster"
    return Change(what, seconds[0], seconds[1], memory, verdict)


CHANGE_COLUMNS = ("", "seconds then", "now", "now / then", "memory", "")


def change_rows(changes: Sequence[Change]) -> list[list[str]]:
    """A row of :data:`CHANGE_COLUMNS` for each change."""
    return [
        [
            change.what,
            f"{change.before:.4g}",
            f"{change.now:.4g}",
            f"{change.ratio:.2f}",
            "" if change.memory is None else f"{change.memory:.2f}",
            change.verdict,
        ]
        for change in changes
    ]
