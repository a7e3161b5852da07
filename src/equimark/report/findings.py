"""What training was shown, and what a run finds on images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from equimark import geometry, plots
from equimark.config import ConfigError, Method
from equimark.metrics import share_followed
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.page import Page
from equimark.pairs import PairBatch, WarpPair
from equimark.report.views import (
    MATCHED_POINTS,
    as_pictures,
    choose,
    confident_cells,
    detect,
    find,
    named,
    similarity,
    titled,
)
from equimark.sampling import Sampler
from equimark.warps import turned

_TURNED = 3  # images shown so
ROTATIONS = (-50, -30, 0, 30, 50)  # degrees, as in the 2017 paper


def pairs_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """What training is shown: two views and what is known of the correspondence between them."""
    spec = model.config.pairs
    known = ("same" if spec.is_still else "warp") if spec.partner == "itself" else spec.motion
    page.section(titled("What training was shown", label), _WHAT_IS_KNOWN[known])
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
        as_pictures(pairs.source[kept]),
        as_pictures(pairs.target[kept]),
        pairs.target_from_source[kept].numpy(),
        valid[kept].numpy(),
    )
    page.figure(
        named("pairs", label), figure, "Grid lines end where the other view does not show the point.",
    )  # fmt: skip


_WHAT_IS_KNOWN = {
    "warp": "Each image is warped at random into two views, whose colours are changed independently. The warp says "
    "which points belong together: this is all the supervision there is.",
    "same": "Both views show the same image, and nothing is moved. What is learned comes from the exchange with other "
    "images: a point must find its way back through them.",
    "none": "The two views show two registered images of one folder: points at the same place belong together.",
    "flow": "The two views show a frame and the next one. The optical flow says which points belong together.",
    "unknown": "The two views show a frame and the next one. Which points belong together is not known: it is fitted.",
}


def supervised_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0) -> None:
    """What a run with labels says of images."""
    page.section("What it finds")
    frames = choose(images, 12, seed)
    pictures = as_pictures(frames)
    if model.config.method == "segmentation":
        page.figure("parts", plots.label_maps(pictures, model.segment_frames(frames)), "A colour for each part.")
        return
    found = model.network.cells.to_pixels(model.landmarks_of(frames).positions).double().numpy()
    page.figure("landmarks", plots.landmarks(pictures, found), "The landmarks of each image.")


def sparse_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """The landmarks that a run has of its own on turned images and on different ones."""
    page.section(
        titled("The landmarks", label),
        "A good landmark turns with the object, and sits on the same part of every individual.",
    )
    frames = choose(images, 12, seed)
    figure, away, followed = _turned_landmarks(model, frames)
    page.numbers(
        [
            ("When the image is turned", f"{away:.1f} px", "median distance of a landmark from its turned self"),
            ("Of the turn, followed", f"{100 * followed:.0f} %", "0 % for landmarks that stand still in the frame"),
        ]
    )
    page.figure(
        named("rotations", label),
        figure,
        "Dots: the landmarks found. Rings: where those of the upright image are taken by the turn. Large, full dots "
        "are sure, small, pale ones are not.",
    )
    found = model.landmarks_of(frames)
    points = model.network.cells.to_pixels(found.positions).double().numpy()
    figure = plots.landmarks(as_pictures(frames), points, confidence=found.confidence)
    page.figure(named("landmarks", label), figure, "Whole frames, chosen at random. No image was left out by hand.")


def _turned_landmarks(model: LandmarkModel, frames: Tensor) -> tuple[Figure, float, float]:
    """The first images turned, how far landmarks are from where the turns take them, and how much they follow."""
    margin, size = model.config.pairs.margin, model.frame.size
    pixels = frames.float() / 255
    still = turned([0.0] * len(frames))
    upright = torch.from_numpy(detect(model, WarpPair(still, still, size, margin).views(pixels).target)[0])
    views, found, confidence, expected = [], [], [], []
    for degrees in ROTATIONS:
        warp = WarpPair(turned([degrees] * len(frames)), still, size, margin)
        view = warp.views(pixels).target
        points, sure = detect(model, view)
        views.append(as_pictures(view))
        found.append(points)
        confidence.append(sure)
        expected.append(warp.move_to_target(upright.float() + margin).double().numpy())
    by_image = [np.stack(parts, 1) for parts in (found, confidence, expected)]
    shown = min(_TURNED, len(frames))
    points, sure, wanted = (each[:shown].reshape(-1, *each.shape[2:]) for each in by_image)
    figure = plots.landmarks(
        [view[i] for i in range(shown) for view in views],
        points,
        confidence=sure,
        expected=wanted,
        notes=[f"{d:+d}°".replace("-", "−") if d else "upright" for d in ROTATIONS]
        + [""] * (len(ROTATIONS) * (shown - 1)),
        columns=len(ROTATIONS),
        title="The landmarks of an image and of the same image turned",
    )
    places, goals = (np.delete(each, ROTATIONS.index(0), axis=1) for each in (by_image[0], by_image[2]))
    followed = share_followed(upright[:, None].double().numpy(), goals, places)
    return figure, float(np.median(np.linalg.norm(places - goals, axis=-1))), followed


def descriptor_section(
    page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = ""
) -> None:
    """The descriptors of a dense run as colours."""
    page.section(
        titled("The descriptors", label),
        "Every place of an image has a descriptor. Here the three directions in which descriptors differ most are "
        "red, green and blue, the same for all images: where two images have the same colour, they are matched.",
    )
    frames = choose(images, 7, seed)
    figure = plots.colour_maps(as_pictures(frames), model.features(frames).numpy())
    page.figure(
        named("descriptors", label),
        figure,
        "The colours themselves mean nothing. That a part keeps its colour from one individual to the next means "
        "that it is recognised; backgrounds have nothing in common and may take any colour."
        + ("" if model.config.network.vector_length else " Where a descriptor is long (bright) its match is sure."),
    )


def matches_section(page: Page, model: LandmarkModel, images: PackedImages, *, seed: int = 0, label: str = "") -> None:
    """Points of one image found on others."""
    page.section(
        titled("Points matched from one image to others", label),
        "The points were chosen automatically on the first image: spread out, where matches are sure.",
    )
    frames = choose(images, 12, seed)
    if len(frames) < 2:
        page.text("This needs at least two images.")
        return
    features, cells = model.features(frames), model.network.cells
    chosen = confident_cells(features[0], features[1:], MATCHED_POINTS)
    located = find(features[0], chosen, features[1:])
    points, found = cells.to_pixels(chosen).numpy(), cells.to_pixels(located.positions).numpy()
    source, *targets = as_pictures(frames)
    figure = plots.matches(source, points, targets, found, located.confidence.numpy())
    page.figure(named("matches", label), figure, "Equal colours belong together. Small, pale points are unsure.")
    surest = located.confidence.mean(0).argsort(descending=True)[:3].sort().values
    scores = similarity(features[0], chosen[surest], features[1:7])
    heat = geometry.spatial_softmax(scores).transpose(0, 1).numpy()
    colours = plots.palette(len(points))[surest]
    page.figure(
        named("heat", label),
        plots.heat_maps(source, points[surest], targets[:6], heat, cells, colours=colours),
        "The three surest of the points above. One small spot is a sure match, several spots are a doubt. Brightness "
        "is the square root of the probability, so that second choices show.",
    )
