"""What a run is and how its training went, which needs no images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from equimark import plots
from equimark.checkpoint import Checkpoint
from equimark.config import RunConfig
from equimark.health import STANDING_STILL, chance_matching
from equimark.page import Page
from equimark.report.views import named, titled


def describe(kept: Checkpoint) -> str:
    """The run in a sentence: what it learned, and from what."""
    config, channels = kept.config, kept.config.network.channels
    what = {
        "sparse": f"{channels} landmarks, found by asking that they move with the image when it is warped",
        "dense": f"a descriptor of {channels} numbers for every place, learned by matching an image with its own warp",
        "dve": f"a descriptor of {channels} numbers for every place, learned by matching an image with its own warp "
        "through the descriptors of another image, so that equal parts of different individuals get equal descriptors",
        "supervised": f"{channels} labelled landmarks, for comparison with what needs no labels",
        "segmentation": f"{channels} labelled parts, for comparison with what needs no labels",
    }[config.method]
    if config.network.landmarks:
        what += f", and {config.network.landmarks} landmarks, which move with the image when it is warped"
    label = "with their labels" if config.is_supervised else "without any label"
    return f"Learned from {kept.data.count:,} images {label}, in {kept.step:,} steps: {what}."


def numbers_section(page: Page, kept: Checkpoint, entries: Sequence[Mapping[str, float]]) -> None:
    """What the run is, and its numbers with their meaning."""
    config = kept.config
    page.section("The run in numbers")
    if entries:
        page.numbers(_numbers(config, entries))
    side = config.pairs.crop_size(config.frame.size)
    weights = sum(p.numel() for p in kept.network.parameters())
    rows = [
        ("Method", config.method),
        ("Network", f"{config.network}; {weights:,} weights"),
        ("Images", f"{kept.data.count:,} from {kept.data.source}"),
        ("Seen", f"views of {side} x {side} px of frames of {config.frame.size} x {config.frame.size} px"),
        ("Training", f"{kept.step:,} of {config.steps or kept.step:,} steps of {config.batch_size} pairs"),
        ("Seed", config.seed),
        ("Versions", ", ".join(f"{name} {version}" for name, version in kept.versions.items())),
    ]
    page.table(rows, ("What", "Value"))


def _numbers(config: RunConfig, entries: Sequence[Mapping[str, float]]) -> list[tuple[str, str, str]]:
    first, last = entries[0], entries[-1]
    speed = float(np.mean([e["pairs_per_second"] for e in entries]))
    pace = ("Pairs per second", f"{speed:.0f}", f"about {_duration(last['step'] * config.batch_size / speed)} in all")
    if config.method == "sparse":
        return [*_landmarks(config, last), pace]
    if config.is_supervised:
        name = "regression" if config.method == "supervised" else "cross_entropy"
        return [("Loss", f"{last[name]:.3g}", f"{name.replace('_', ' ')}; at the start {first[name]:.3g}"), pace]
    power = config.objective.power
    pixels = last["matching"] ** (1 / power)
    return [
        (
            "Matching loss",
            f"{last['matching']:.3g}",
            f"mean of distance{'' if power == 1 else f'^{power:g}'} between match and truth; as if every match were "
            f"{pixels:.2g} px off",
        ),
        ("At the start", f"{first['matching']:.3g}", f"mean of the first {first['step']:.0f} steps"),
        *(_landmarks(config, last) if config.landmarks else []),
        pace,
    ]


def _landmarks(config: RunConfig, last: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """How many landmarks are distinct, and how well they follow, by the warps or, where none are, by appearance."""
    distinct = f"{last['distinct_landmarks']:.0f} of {config.landmarks}"
    return [("Distinct landmarks", distinct, "no two on the same place"), *_alignment(last)]


def _alignment(last: Mapping[str, float]) -> list[tuple[str, str, str]]:
    if "appearance" in last:
        meaning = "squared difference of the colours where the landmarks say that the same point is seen"
        return [("Appearance", f"{last['appearance']:.3g}", meaning)]
    found = [("Alignment", f"{last['alignment']:.3g} px²", "squared distance between a landmark and its warped self")]
    if "alignment_share" not in last:  # registered pairs, where landmarks should stand still
        return found
    meaning = "1: the landmarks ignore the image; near 0: they move with what it shows"
    return [*found, ("Share of standing still", f"{last['alignment_share']:.2f}", meaning)]


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def curves_section(page: Page, config: RunConfig, entries: Sequence[Mapping[str, float]], *, label: str = "") -> None:
    """The loss and its terms over the steps."""
    page.section(titled("How training went", label))
    if not entries:
        page.text("There is no log to draw.")
        return
    limits = {"alignment_share": STANDING_STILL, "distinct_landmarks": float(config.landmarks)}
    figure = plots.curves(entries, limits=limits if config.landmarks else None)
    caption = "Thin: as logged. Thick: running mean."
    if config.landmarks:
        caption += (
            " Dashed: all landmarks distinct, and the share above which landmarks ignore the image. Both matter more "
            "than the loss, which mixes alignment and diversity."
        )
    page.figure(named("curves", label), figure, caption)
    titles = plots.curve_titles(entries)
    meanings = {**_MEANINGS, **_meanings_of(config)}
    page.table(
        [(title, meanings.get(name, _OTHER)) for name, title in titles.items()],
        ("Curve", "What it says, and how it looks in a healthy run"),
    )


_FALLS = "Down is good: in a healthy run it falls steeply at first, then ever more slowly"
_OTHER = f"A part of the loss. {_FALLS}."
_MEANINGS = {
    "loss": f"What training makes small. {_FALLS}.",
    "alignment": "How far landmarks end up from where they should go when the picture is turned and bent (squared "
    f"pixels). {_FALLS}.",
    "appearance": "How much two pictures differ in colour where the landmarks say that the same point is seen. "
    f"{_FALLS}.",
    "inside": "Which share of a picture is still in view after the motion that was fitted. Up is good: in a healthy "
    "run it stays near 1.",
    "diversity": "How much landmarks crowd on the same places. Down is good: in a healthy run it falls early and "
    "stays low.",
    "alignment_share": "How far off landmarks are, compared with landmarks that ignore the picture and stand still "
    "(1). Down is good: in a healthy run it begins far above what is drawn and ends well below the dashed line at "
    f"{STANDING_STILL:g}.",
    "regression": f"How far the landmarks found are from the labels, on the images learned from. {_FALLS}.",
    "cross_entropy": f"How sure and right the parts found are, on the images learned from; 0 is perfect. {_FALLS}.",
    "pairs_per_second": "How fast training went. It says nothing of what was learned: dips mean that the computer was "
    "busy with something else.",
    "lr": "How large the steps of training were. The recipe decides it, and neither up nor down is good.",
}


def _meanings_of(config: RunConfig) -> dict[str, str]:
    """Those that depend on the run."""
    meanings = {}
    if config.landmarks:
        meanings["distinct_landmarks"] = (
            "How many landmarks sit on a place of their own. Up is good: in a healthy run it reaches the dashed line, "
            f"all {config.landmarks}, and stays there."
        )
    if config.method == "sparse":
        meanings["loss"] = (
            "What training makes small: landmarks off their place and landmarks that share a place, together. "
            "Down is good, but a low loss alone is no proof: landmarks that all stand still have one too."
        )
    if not config.has_descriptors:
        return meanings
    power = config.objective.power
    chance = chance_matching(config.pairs.crop_size(config.frame.size), power)
    unit = "in pixels" if power == 1 else f"as pixels to the power of {power:g}"
    meanings["matching"] = (
        "How far from its true place a point of a picture is found in a turned and bent copy, on average "
        f"({unit}). {_FALLS}; a network that guesses stays at {chance:.2g}."
    )
    return meanings
