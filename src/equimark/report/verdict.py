"""What a run is worth, in plain words, as far as its log says so: trained enough, distinct, not collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from equimark.config import RunConfig
from equimark.health import (
    STANDING_STILL,
    chance_matching,
    diagnose,
    diagnose_descriptors,
    diagnose_landmarks,
    recent_mean,
)
from equimark.page import Page
from equimark.report.views import titled

Entries = Sequence[Mapping[str, float]]
Answer = tuple[str, str, str]  # question, answer, why

_FEWEST = 10  # lines of the log from which it can be seen where training is going
_NOTHING = 0.02  # a change by less, as a share, is none
_SURE = 2.0  # standard errors
_ASTRAY = 1.5  # share of standing still above which landmarks do not even stand still
_FOLLOWS = 0.4  # share of standing still below which landmarks go along with the image
_FOUND = 0.35  # share of the distance that guesses are off, below which a point is found again


def verdict_section(page: Page, config: RunConfig, entries: Entries, *, label: str = "") -> None:
    """The verdict in a sentence, what is wrong and what helps, and the answers that it rests on."""
    warnings = diagnose(config, entries)
    page.section(titled("What you see", label), summarise(config, entries) if entries else "")
    for warning in warnings:
        page.warning(warning[0].upper() + warning[1:])
    if entries:
        page.numbers(answer(config, entries))
        page.text(
            "This is what the log of the training says. Whether the places that were learned are those that matter to "
            "you, only the pictures below can tell: the same part should be marked, or have the same colour, on every "
            "individual."
        )


def summarise(config: RunConfig, entries: Entries) -> str:
    """The verdict in a sentence, from at least one line of a log."""
    progress = progress_of(_errors(config, entries))[0]
    landmarks, descriptors = (bool(own(config, entries)) for own in (diagnose_landmarks, diagnose_descriptors))
    if landmarks != descriptors and config.landmarks and config.has_descriptors:
        good, bad = ("landmarks", "descriptors") if descriptors else ("descriptors", "landmarks")
        return f"The {good} of this run are of use, its {bad} are not. {_HALF_VERDICTS[progress]}"
    return _VERDICTS[landmarks or descriptors, progress]


Progress = Literal["early", "improving", "settled", "worse"]
_VERDICTS: dict[tuple[bool, Progress], str] = {  # by whether something is wrong
    (False, "early"): "Nothing is wrong with this run so far, but it is too short to say more.",
    (False, "improving"): "This run is learning what it should, and longer training will make it better.",
    (False, "settled"): "This run learned what it should, and longer training would hardly make it better.",
    (False, "worse"): "This run learned what it should, but it became worse towards the end.",
    (True, "early"): "This run is too short to be of use yet, which says nothing against your images.",
    (True, "improving"): "This run is not of use yet. It still gets better: train longer before you change anything.",
    (True, "settled"): "This run is not of use as it is, and it has stopped improving. What helps is said below.",
    (True, "worse"): "This run is not of use, and it became worse towards the end.",
}

_HALF_VERDICTS: dict[Progress, str] = {
    "early": "It is too short to say more.",
    "improving": "It still gets better: train longer before you change anything.",
    "settled": "It has stopped improving; what helps is said below.",
    "worse": "It became worse towards the end.",
}


def answer(config: RunConfig, entries: Entries) -> list[Answer]:
    """Questions that a user has, with what a log of at least one line says; first whether training was long enough."""
    trained = _trained(config, entries)
    descriptors = [_descriptors(config, entries)] if config.has_descriptors else []
    return [trained, *descriptors, *(_landmarks(config, entries) if config.landmarks else [])]


def _errors(config: RunConfig, entries: Entries) -> list[float]:
    """The term of the loss that says how good a run is, line by line."""
    for term in ("matching", "alignment", "appearance", "regression", "cross_entropy"):
        if term in entries[-1]:
            return [entry[term] for entry in entries if term in entry]
    return [entry["loss"] for entry in entries]


def _trained(config: RunConfig, entries: Entries) -> Answer:
    progress, change = progress_of(_errors(config, entries))
    last = entries[-1]["step"]
    planned = f", of {config.steps:,} planned" if config.steps and last < config.steps else ""
    where = f"{last:,.0f} steps{planned}"
    percent = f"{100 * abs(change):.0f} % in the last fifth of the steps"
    answer, why = {
        "early": ("too early to say", f"{len(entries)} lines of the log are too few to see where training is going"),
        "improving": (
            "not yet",
            f"its errors still fell by {percent}. Train for more steps, or go on from here: equimark train IMAGES "
            "--out NEW --from RUN",
        ),
        "settled": ("yes", "its errors hardly changed any more in the last fifth of the steps"),
        "worse": ("no", f"its errors grew by {percent}. Lower --optimiser.lr (now {config.optimiser.lr:g})"),
    }[progress]
    if progress == "settled" and diagnose(config, entries):
        answer = "it stopped improving"
    return "Trained enough?", answer, f"{where}: {why}"


def progress_of(values: Sequence[float]) -> tuple[Progress, float]:
    """Where a term of the loss is going, and by which share it fell from the last fifth but one to the last.

    A change counts only if it is beyond the noise of the lines.
    """
    if len(values) < _FEWEST:
        return "early", 0.0
    fifth = len(values) // 5
    before, late = np.array(values[-2 * fifth : -fifth], np.float64), np.array(values[-fifth:], np.float64)
    level = max(abs(float(before.mean())), 1e-12)
    change = float(before.mean() - late.mean()) / level
    noise = float(np.sqrt((before.var(ddof=1) + late.var(ddof=1)) / fifth)) / level
    if abs(change) < max(_NOTHING, _SURE * noise):
        return "settled", change
    return ("improving" if change > 0 else "worse"), change


def _landmarks(config: RunConfig, entries: Entries) -> list[Answer]:
    wanted, distinct = config.landmarks, recent_mean(entries, "distinct_landmarks")
    if distinct < wanted / 2 and len(entries) < _FEWEST:
        meaning = "so far, most of them sit on the same places"
    elif distinct < wanted / 2:
        meaning = "they have collapsed: most of them sit on the same places"
    elif distinct < wanted - 0.5:
        meaning = "some of them sit on the same place"
    else:
        meaning = "each sits on a place of its own: they have not collapsed"
    found = [("Landmarks distinct?", f"{distinct:.0f} of {wanted}", meaning)]
    share = recent_mean(entries, "alignment_share")
    if np.isnan(share):  # where the motion is not known
        return found
    if share > _ASTRAY:
        answer, meaning = "no", "they move about, but not with what the picture shows"
    elif share > STANDING_STILL:
        answer, meaning = "no", "they stand still in the frame, whatever the picture shows"
    elif share > _FOLLOWS:
        answer, meaning = "in part", "they go along when the picture is turned and bent, but not far enough"
    else:
        answer, meaning = "yes", "when the picture is turned and bent, they go along"
    return [*found, ("Do they follow the picture?", answer, f"{meaning} ({share:.2f}; standing still is 1)")]


def _descriptors(config: RunConfig, entries: Entries) -> Answer:
    side, power = config.pairs.crop_size(config.frame.size), config.objective.power
    chance = chance_matching(side, power)
    matching = recent_mean(entries, "matching")
    off, guessed = matching ** (1 / power), chance ** (1 / power)
    where = f"a point is found again in a bent copy of its picture, of {side} px, about {off:.2g} px off"
    meaning = f"{where}; guesses are {guessed:.2g} px off"
    question = "Are places told apart?"
    if not diagnose_descriptors(config, entries):
        return question, "yes" if off < _FOUND * guessed else "roughly", f"no collapse: {meaning}"
    if len(entries) < _FEWEST:
        return question, "not yet", f"so far, all places look alike to the network: {meaning}"
    return question, "no", f"it has collapsed, all places look alike to the network: {meaning}"
