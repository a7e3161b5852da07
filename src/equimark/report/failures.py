"""Where a run contradicts itself most, which needs no labels to see."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from equimark import geometry, plots
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.page import Page
from equimark.pairs import PairBatch, make_pairs
from equimark.report.views import (
    MATCHED_POINTS,
    as_pictures,
    choose,
    confident_cells,
    detect,
    find,
    median,
    named,
    titled,
)
from equimark.sampling import generator


def worst_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """Where the run contradicts itself most, which needs no labels to see."""
    page.section(titled("The worst cases", label))
    frames = choose(images, 24, seed)
    if model.is_sparse:
        _worst_landmarks(page, model, frames, seed, label)
    elif len(frames) < 2:
        page.text("This needs at least two images.")
    else:
        _worst_round_trips(page, model, frames, label)


def _worst_landmarks(page: Page, model: LandmarkModel, frames: Tensor, seed: int, label: str) -> None:
    pairs = _pairs(model, frames, seed)
    source, _ = detect(model, pairs.source)
    found, _ = detect(model, pairs.target)
    field = pairs.target_from_source.movedim(-1, 1)
    moved = geometry.sample(field, torch.from_numpy(source).float()).mT
    seen = geometry.inside(moved, (field.shape[-2], field.shape[-1]))
    truth = moved.masked_fill(~seen[..., None], torch.nan).double().numpy()
    page.text(
        "Landmarks were found in both views of a pair like those of training. The warp says where those of the first "
        "view belong in the second."
    )
    errors = np.linalg.norm(found - truth, axis=-1)
    page.numbers([("Between two views", f"{median(errors)} px", f"median over {len(frames)} images")])
    figure = plots.worst_cases(as_pictures(pairs.target), found, truth)
    page.figure(named("worst", label), figure, "Circles: where the landmarks of the other view belong. Crosses: found.")


def _pairs(model: LandmarkModel, frames: Tensor, seed: int) -> PairBatch:
    return make_pairs(
        frames,
        model.config.pairs,
        warp_generator=generator(seed, "warps"),
        photometric_generator=generator(seed, "photometric"),
    )


def _worst_round_trips(page: Page, model: LandmarkModel, frames: Tensor, label: str) -> None:
    features, cells = model.features(frames), model.network.cells
    starts, middles, ends = [], [], []
    for i in range(len(frames)):
        here, there = features[i], features[(i + 1) % len(frames)]
        start = confident_cells(here, there[None], MATCHED_POINTS)
        middle = find(here, start, there[None]).positions[0]
        starts.append(start)
        middles.append(middle)
        ends.append(find(there, middle, here[None]).positions[0])
    begun, between, ended = (cells.to_pixels(torch.stack(parts)).double().numpy() for parts in (starts, middles, ends))
    errors = np.linalg.norm(ended - begun, axis=-1)
    page.text(
        f"{MATCHED_POINTS} points of every image were matched to another image, and from there back again: a match "
        "that does not return to where it began is wrong at least once. This needs no labels, and misses errors that "
        "cancel out."
    )
    lost = 100 * float((errors > 0.1 * model.frame.size).mean())
    page.numbers(
        [
            ("After the round trip", f"{median(errors)} px", f"median over {len(frames)} images"),
            (
                "Lost on the way",
                f"{lost:.0f} %",
                f"of the points came back more than {0.1 * model.frame.size:g} px off",
            ),
        ]
    )
    pictures = as_pictures(frames)
    others = [*pictures[1:], pictures[0]]
    figure = plots.worst_cases(pictures, ended, begun, through=(others, between), count=7)
    page.figure(
        named("worst", label), figure, "Above: where points began (circles) and ended (crosses). Below: between."
    )
