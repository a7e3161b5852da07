"""What a run is, what it learned and where it fails, on one page.

The ``*_section`` functions add a part each and can be used for several runs on one page; ``label`` tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from . import checkpoint, detection, geometry, matching, plots
from .checkpoint import Checkpoint
from .config import ConfigError, Method, RunConfig
from .health import STANDING_STILL, diagnose
from .matching import Located
from .model import LandmarkModel, ModelError
from .packs import PackedImages
from .page import Page
from .pairs import PairBatch, WarpPair, make_pairs
from .sampling import Sampler, generator
from .warps import turned

ROTATIONS = (-50, -30, 0, 30, 50)  # degrees, as in the 2017 paper
_MATCHED_POINTS = 12
_CANDIDATES = 24  # source points are chosen from at most that many rows and columns of cells

Float = NDArray[np.float64]


def write_run_report(run: Path, images: PackedImages | None, *, seed: int = 0) -> Path:
    """Write ``report.html`` of a run; its path.

    Args:
        run: folder of the run.
        images: in the run's frame, to show what it does on them; without them only the training is reported.
        seed: of the choice of images and of the warps.

    Raises:
        CheckpointError: if the run is missing or damaged.
        ModelError: if the images are not in the run's frame.
        OSError: if the folder cannot be written.
    """
    kept, entries = checkpoint.load(run), checkpoint.read_log(run)
    model = LandmarkModel(kept.network, kept.config)
    if images is not None and images.frame.size != model.frame.size:
        raise ModelError(
            f"the images are in frames of {images.frame.size} px and the run in {model.frame.size} px: "
            f"pack them with --size {model.frame.size}, or give the images themselves"
        )
    page = Page(f"What {run.resolve().name} learned", _describe(kept))
    numbers_section(page, kept, entries)
    curves_section(page, kept.config, entries)
    if images is None:
        page.section(
            "Pictures",
            "This report was written without images, so it shows neither training pairs nor what the run does on "
            "images. Write it again with some: equimark report RUN --images IMAGES",
        )
        return page.write(run)
    if kept.config.is_supervised:
        supervised_section(page, model, images, seed=seed)
        return page.write(run)
    pairs_section(page, model, images, seed=seed)
    if model.is_sparse:
        sparse_section(page, model, images, seed=seed)
    else:
        descriptor_section(page, model, images, seed=seed)
        matches_section(page, model, images, seed=seed)
    worst_section(page, model, images, seed=seed)
    return page.write(run)


def _describe(kept: Checkpoint) -> str:
    config, channels = kept.config, kept.config.network.channels
    what = {
        "sparse": f"{channels} landmarks, found by asking that they move with the image when it is warped",
        "dense": f"a descriptor of {channels} numbers for every place, learned by matching an image with its own warp",
        "dve": f"a descriptor of {channels} numbers for every place, learned by matching an image with its own warp "
        "through the descriptors of another image, so that equal parts of different individuals get equal descriptors",
        "supervised": f"{channels} labelled landmarks, for comparison with what needs no labels",
        "segmentation": f"{channels} labelled parts, for comparison with what needs no labels",
    }[config.method]
    label = "with their labels" if config.is_supervised else "without any label"
    return f"Learned from {kept.data.count:,} images {label}, in {kept.step:,} steps: {what}."


def numbers_section(page: Page, kept: Checkpoint, entries: Sequence[Mapping[str, float]]) -> None:
    """What the run is, its numbers with their meaning, and warnings about what went wrong."""
    config = kept.config
    page.section("The run in numbers")
    for warning in diagnose(config, entries):
        page.warning(warning)
    if entries:
        page.numbers(_numbers(config, entries))
    side = config.pairs.crop_size(config.frame.size)
    weights = sum(p.numel() for p in kept.network.parameters())
    rows = [
        ("Method", config.method),
        ("Network", f"{config.network.name}, {weights:,} weights, {config.network.channels} channels"),
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
        distinct = f"{last['distinct_landmarks']:.0f} of {config.network.channels}"
        return [("Distinct landmarks", distinct, "no two on the same place"), *_alignment(last), pace]
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
        pace,
    ]


def _alignment(last: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """How well the landmarks of a sparse run follow, by the warps or, where there are none, by appearance."""
    if "appearance" in last:
        meaning = "squared difference of the colours where the landmarks say that the same point is seen"
        return [("Appearance", f"{last['appearance']:.3g}", meaning)]
    return [
        ("Alignment", f"{last['alignment']:.3g} px²", "squared distance between a landmark and its warped self"),
        (
            "Share of standing still",
            f"{last['alignment_share']:.2f}",
            "1: the landmarks ignore the image; near 0: they move with what it shows",
        ),
    ]


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def curves_section(page: Page, config: RunConfig, entries: Sequence[Mapping[str, float]], *, label: str = "") -> None:
    """The loss and its terms over the steps."""
    page.section(_titled("How training went", label))
    if not entries:
        page.text("There is no log to draw.")
        return
    limits = {"alignment_share": STANDING_STILL, "distinct_landmarks": float(config.network.channels)}
    figure = plots.curves(entries, limits=limits if config.method == "sparse" else None)
    caption = "Thin: as logged. Thick: running mean."
    if config.method == "sparse":
        caption += (
            " Dashed: all landmarks distinct, and the share above which landmarks ignore the image. Both matter more "
            "than the loss, which mixes alignment and diversity."
        )
    page.figure(_named("curves", label), figure, caption)


def supervised_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0) -> None:
    """What a run with labels says of images."""
    page.section("What it finds")
    frames = _choose(images, 12, seed)
    pictures = _pictures(frames)
    if model.config.method == "segmentation":
        page.figure("parts", plots.label_maps(pictures, model.segment_frames(frames)), "A colour for each part.")
        return
    found = model.network.cells.to_pixels(model.landmarks_of(frames).positions).double().numpy()
    page.figure("landmarks", plots.landmarks(pictures, found), "The landmarks of each image.")


def pairs_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """What training is shown: two views and what is known of the correspondence between them."""
    spec = model.config.pairs
    known = "warp" if spec.partner == "itself" else spec.motion
    page.section(_titled("What training was shown", label), _WHAT_IS_KNOWN[known])
    # Auxiliary images are not shown, so that one image is enough for the pairs of any run with descriptors.
    method: Method = "sparse" if model.is_sparse else "dense"
    try:
        sampler = Sampler(images, replace(model.config, method=method, batch_size=6, seed=seed, sampling="shuffled"))
    except ConfigError as error:
        page.text(f"These images do not come in such pairs: {error}.")
        return
    pairs = sampler.batch(1)
    assert isinstance(pairs, PairBatch)
    kept = slice(min(6, len(sampler.sources)))
    valid = pairs.valid if spec.motion != "unknown" else torch.zeros_like(pairs.valid)
    figure = plots.training_pairs(
        _pictures(pairs.source[kept]),
        _pictures(pairs.target[kept]),
        pairs.target_from_source[kept].numpy(),
        valid[kept].numpy(),
    )
    page.figure(
        _named("pairs", label), figure, "Grid lines end where the other view does not show the point.",
    )  # fmt: skip


_WHAT_IS_KNOWN = {
    "warp": "Each image is warped at random into two views, whose colours are changed independently. The warp says "
    "which points belong together: this is all the supervision there is.",
    "none": "The two views show two registered images of one folder: points at the same place belong together.",
    "flow": "The two views show a frame and the next one. The optical flow says which points belong together.",
    "unknown": "The two views show a frame and the next one. Which points belong together is not known: it is fitted.",
}


def sparse_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """The landmarks of a sparse run on turned images and on different ones."""
    page.section(
        _titled("The landmarks", label),
        "A good landmark turns with the object, and sits on the same part of every individual.",
    )
    frames = _choose(images, 12, seed)
    figure, moved = _turned_landmarks(model, frames[:3])
    page.numbers(
        [("When the image is turned", f"{moved:.1f} px", "median distance of a landmark from its turned self")]
    )
    page.figure(
        _named("rotations", label),
        figure,
        "Dots: the landmarks found. Rings: where those of the upright image are taken by the turn. Large, full dots "
        "are sure, small, pale ones are not.",
    )
    found = model.landmarks_of(frames)
    points = model.network.cells.to_pixels(found.positions).double().numpy()
    figure = plots.landmarks(_pictures(frames), points, confidence=found.confidence)
    page.figure(_named("landmarks", label), figure, "Whole frames, chosen at random. No image was left out by hand.")


def _turned_landmarks(model: LandmarkModel, frames: Tensor) -> tuple[Figure, float]:
    margin, size = model.config.pairs.margin, model.frame.size
    pixels = frames.float() / 255
    still = turned([0.0] * len(frames))
    upright = torch.from_numpy(_detect(model, WarpPair(still, still, size, margin).views(pixels).target)[0])
    views, found, confidence, expected = [], [], [], []
    for degrees in ROTATIONS:
        warp = WarpPair(turned([degrees] * len(frames)), still, size, margin)
        view = warp.views(pixels).target
        points, sure = _detect(model, view)
        views.append(_pictures(view))
        found.append(points)
        confidence.append(sure)
        expected.append(warp.move_to_target(upright.float() + margin).double().numpy())
    by_image = [np.stack(parts, 1).reshape(-1, *parts[0].shape[1:]) for parts in (found, confidence, expected)]
    figure = plots.landmarks(
        [view[i] for i in range(len(frames)) for view in views],
        by_image[0],
        confidence=by_image[1],
        expected=by_image[2],
        notes=[f"{d:+d}°".replace("-", "−") if d else "upright" for d in ROTATIONS]
        + [""] * (len(ROTATIONS) * (len(frames) - 1)),
        columns=len(ROTATIONS),
        title="The landmarks of an image and of the same image turned",
    )
    errors = np.linalg.norm(by_image[0] - by_image[2], axis=-1).reshape(len(frames), len(ROTATIONS), -1)
    return figure, float(np.median(np.delete(errors, ROTATIONS.index(0), axis=1)))


def descriptor_section(
    page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = ""
) -> None:
    """The descriptors of a dense run as colours."""
    page.section(
        _titled("The descriptors", label),
        "Every place of an image has a descriptor. Here the three directions in which descriptors differ most are "
        "red, green and blue, the same for all images: where two images have the same colour, they are matched.",
    )
    frames = _choose(images, 7, seed)
    figure = plots.colour_maps(_pictures(frames), model.features(frames).numpy())
    page.figure(
        _named("descriptors", label),
        figure,
        "The colours themselves mean nothing. That a part keeps its colour from one individual to the next means "
        "that it is recognised; backgrounds have nothing in common and may take any colour.",
    )


def matches_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """Points of one image found on others."""
    page.section(
        _titled("Points matched from one image to others", label),
        "The points were chosen automatically on the first image: spread out, where matches are sure.",
    )
    frames = _choose(images, 12, seed)
    if len(frames) < 2:
        page.text("This needs at least two images.")
        return
    features, cells = model.features(frames), model.network.cells
    chosen = confident_cells(features[0], features[1:], _MATCHED_POINTS)
    located = _find(features[0], chosen, features[1:])
    points, found = cells.to_pixels(chosen).numpy(), cells.to_pixels(located.positions).numpy()
    source, *targets = _pictures(frames)
    figure = plots.matches(source, points, targets, found, located.confidence.numpy())
    page.figure(_named("matches", label), figure, "Equal colours belong together. Small, pale points are unsure.")
    surest = located.confidence.mean(0).argsort(descending=True)[:3].sort().values
    scores = _similarity(features[0], chosen[surest], features[1:7])
    heat = geometry.spatial_softmax(scores).transpose(0, 1).numpy()
    colours = plots.palette(len(points))[surest]
    page.figure(
        _named("heat", label),
        plots.heat_maps(source, points[surest], targets[:6], heat, cells, colours=colours),
        "The three surest of the points above. One small spot is a sure match, several spots are a doubt. Brightness "
        "is the square root of the probability, so that second choices show.",
    )


def worst_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """Where the run contradicts itself most, which needs no labels to see."""
    page.section(_titled("The worst cases", label))
    frames = _choose(images, 24, seed)
    if model.is_sparse:
        _worst_landmarks(page, model, frames, seed, label)
    elif len(frames) < 2:
        page.text("This needs at least two images.")
    else:
        _worst_round_trips(page, model, frames, label)


def _worst_landmarks(page: Page, model: LandmarkModel, frames: Tensor, seed: int, label: str) -> None:
    pairs = _pairs(model, frames, seed)
    source, _ = _detect(model, pairs.source)
    found, _ = _detect(model, pairs.target)
    field = pairs.target_from_source.movedim(-1, 1)
    moved = geometry.sample(field, torch.from_numpy(source).float()).mT
    seen = geometry.inside(moved, (field.shape[-2], field.shape[-1]))
    truth = moved.masked_fill(~seen[..., None], torch.nan).double().numpy()
    page.text(
        "Landmarks were found in both views of a pair like those of training. The warp says where those of the first "
        "view belong in the second."
    )
    errors = np.linalg.norm(found - truth, axis=-1)
    page.numbers([("Between two views", f"{_median(errors)} px", f"median over {len(frames)} images")])
    figure = plots.worst_cases(_pictures(pairs.target), found, truth)
    page.figure(
        _named("worst", label), figure, "Circles: where the landmarks of the other view belong. Crosses: found."
    )


def _worst_round_trips(page: Page, model: LandmarkModel, frames: Tensor, label: str) -> None:
    features, cells = model.features(frames), model.network.cells
    starts, middles, ends = [], [], []
    for i in range(len(frames)):
        here, there = features[i], features[(i + 1) % len(frames)]
        start = confident_cells(here, there[None], _MATCHED_POINTS)
        middle = _find(here, start, there[None]).positions[0]
        starts.append(start)
        middles.append(middle)
        ends.append(_find(there, middle, here[None]).positions[0])
    begun, between, ended = (cells.to_pixels(torch.stack(parts)).double().numpy() for parts in (starts, middles, ends))
    errors = np.linalg.norm(ended - begun, axis=-1)
    page.text(
        f"{_MATCHED_POINTS} points of every image were matched to another image, and from there back again: a match "
        "that does not return to where it began is wrong at least once. This needs no labels, and misses errors that "
        "cancel out."
    )
    lost = 100 * float((errors > 0.1 * model.frame.size).mean())
    page.numbers(
        [
            ("After the round trip", f"{_median(errors)} px", f"median over {len(frames)} images"),
            (
                "Lost on the way",
                f"{lost:.0f} %",
                f"of the points came back more than {0.1 * model.frame.size:g} px off",
            ),
        ]
    )
    pictures = _pictures(frames)
    others = [*pictures[1:], pictures[0]]
    figure = plots.worst_cases(pictures, ended, begun, through=(others, between), count=7)
    page.figure(
        _named("worst", label), figure, "Above: where points began (circles) and ended (crosses). Below: between."
    )


def confident_cells(source: Tensor, targets: Tensor, count: int) -> Tensor:
    """Cells (count, 2) of ``source`` (C, h, w) that match surely in ``targets`` (B, C, h, w), far from each other.

    Of the cells of the middle two thirds, the surer half is kept; farthest-point sampling spreads the
    choice, beginning with the surest.
    """
    height, width = source.shape[-2:]
    rows, columns = (torch.linspace(n / 6, n - 1 - n / 6, min(_CANDIDATES, n)).round() for n in (height, width))
    candidates = torch.cartesian_prod(columns, rows)
    sure = torch.stack([_find(source, candidates, t[None]).confidence[0] for t in targets]).mean(0)
    best = sure.argsort(descending=True)[: max(count, len(sure) // 2)]
    candidates = candidates[best]
    chosen = [0]
    nearest = (candidates - candidates[0]).norm(dim=-1)
    while len(chosen) < min(count, len(candidates)):
        chosen.append(int(nearest.argmax()))
        nearest = nearest.minimum((candidates - candidates[chosen[-1]]).norm(dim=-1))
    return candidates[chosen]


def _find(source: Tensor, cells: Tensor, targets: Tensor) -> Located:
    """Where ``cells`` (N, 2) of features (C, h, w) lie in ``targets`` (B, C, h, w), in cells."""
    return matching.locate(_similarity(source, cells, targets))


def _similarity(source: Tensor, cells: Tensor, targets: Tensor) -> Tensor:
    return matching.similarity(matching.describe_points(source[None], cells[None])[0], targets)


def _detect(model: LandmarkModel, views: Tensor) -> tuple[Float, Float]:
    """Landmarks (B, K, 2) and confidence (B, K) of ``views`` (B, 3, h, w) in [0, 1], in pixels of the views."""
    located = detection.detect(model.features_of(views))
    points: Tensor = model.network.cells.to_pixels(located.positions)
    return points.double().numpy(), located.confidence.double().numpy()


def _pairs(model: LandmarkModel, frames: Tensor, seed: int) -> PairBatch:
    return make_pairs(
        frames,
        model.config.pairs,
        warp_generator=generator(seed, "warps"),
        photometric_generator=generator(seed, "photometric"),
    )


def _choose(images: PackedImages, count: int, seed: int) -> Tensor:
    """Frames (B, 3, S, S) uint8 of at most ``count`` images, in a random order that ``seed`` decides."""
    order = np.random.default_rng(seed).permutation(len(images))
    return images.batch(order[:count])


def _pictures(images: Tensor) -> list[plots.Image]:
    """Images (B, 3, H, W), uint8 or in [0, 1], as (H, W, 3) uint8."""
    pixels = images if images.dtype == torch.uint8 else (images * 255).round().clamp(0, 255).to(torch.uint8)
    return list(pixels.movedim(1, -1).numpy())


def _median(errors: NDArray[np.floating[Any]]) -> str:
    known = errors[np.isfinite(errors)]
    return f"{np.median(known):.1f}" if len(known) else "unknown"


def _titled(title: str, label: str) -> str:
    return f"{title}: {label}" if label else title


def _named(name: str, label: str) -> str:
    return re.sub(r"[^\w-]+", "-", f"{label}-{name}") if label else name
