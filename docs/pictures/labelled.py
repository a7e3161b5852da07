"""What labels add: parts, confidence."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

import equimark
from equimark import metrics, plots, segmentation
from equimark.demo import OUTER_EYES, SIDE, TRAINING_IMAGES
from equimark.evaluation import draw_labels
from equimark.figures.exhibits import pictures
from equimark.head import fit_head
from equimark.landmarks import LandmarkTable
from equimark.prototypes import tolerance_of
from equimark.synthetic import PARTS, write, write_parts
from scene import VISIBLE, Scene

SUPERVISED = 100  # portraits with landmarks, to learn from
LABELLED = 20  # portraits with parts, to learn a segmentation from


def draw_segmentation(scene: Scene, count: int = 6) -> Figure:
    """Parts learned from few portraits, from nothing and on the landmark network."""
    truth = scene.people.parts[TRAINING_IMAGES:]
    found = {name: _segment(scene, name) for name in ("scratch", "pretrained")}
    shares = {name: segmentation.pixel_accuracy_percent(parts, truth) for name, parts in found.items()}
    title = f"Parts learned from {LABELLED} labelled portraits: {{}} % of the pixels of others are right from nothing, "
    title += "{} % on three frozen layers of the landmark network"
    figure, axes = plots.sheet(4, count, title.format(*(f"{share:.0f}" for share in shares.values())), labelled=True)
    colours = np.concatenate([np.ones((1, 3)), plots.palette(len(PARTS))])
    for column, i in zip(axes.T, VISIBLE[:count], strict=True):
        plots.show(column[0], pictures(scene.unseen[[i]] / 255)[0])
        for ax, parts in zip(column[1:], (truth, *found.values()), strict=True):
            plots.show(ax, colours[parts[i]], smooth=False)
    plots.label_rows(axes, ("image", "drawn", "from nothing", "transferred"))
    return figure


def _segment(scene: Scene, transfer: str) -> NDArray[np.uint8]:
    """The parts (N, S, S) of unseen people by a segmentation of twenty labelled ones."""
    settings = {"frame.size": SIDE, "pairs.margin": scene.runs["sparse"].config.pairs.margin, "batch_size": 10}
    with tempfile.TemporaryDirectory() as folder:
        images, parts = Path(folder) / "images", Path(folder) / "parts"
        write(images, scene.people.images[:LABELLED], scene.people.landmarks[:LABELLED])
        write_parts(parts, scene.people.parts[:LABELLED])
        run = equimark.train(
            images,
            Path(folder) / "run",
            recipe=f"segmentation-{transfer}",
            parts=parts,
            start_from=None if transfer == "scratch" else scene.folder / "sparse",
            steps=200,
            **settings,
        )
        return run.model.segment_frames(scene.unseen)


def draw_supervised(scene: Scene, count: int = 5) -> Figure:
    """Landmarks from the same labels, by a supervised network and on descriptors that were learned without any."""
    images, points = scene.people.images[:TRAINING_IMAGES], scene.people.landmarks[:TRAINING_IMAGES]
    rows = draw_labels(np.ones(TRAINING_IMAGES, np.bool_), SUPERVISED, 0)
    head = fit_head(scene.runs["dve"], scene.frames[rows], points[rows].astype(np.float64))
    found = {"supervised": _supervise(scene, images[rows], points[rows]), "fit": head.predict_frames(scene.unseen)}
    errors = [metrics.error_iod_percent(each, scene.unseen_points, OUTER_EYES) for each in found.values()]
    title = f"From the same {SUPERVISED} labelled portraits: {errors[0]:.1f} % of the distance between the eyes by a "
    title += f"supervised network, {errors[1]:.1f} % by fit, on descriptors that need none"
    figure, axes = plots.sheet(len(found), count, title, labelled=True)
    colours = plots.palette(points.shape[1])
    for row, each in zip(axes, found.values(), strict=True):
        for ax, i in zip(row, VISIBLE, strict=False):
            plots.show(ax, pictures(scene.unseen[[i]] / 255)[0])
            plots.draw_errors(ax, each[i], scene.unseen_points[i], colours)
    plots.label_rows(axes, list(found))
    return figure


def _supervise(scene: Scene, images: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float64]:
    """Landmarks (N, K, 2) of unseen people by a supervised network; SmallNet+ takes views of 64 px."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "images", images, points)
        run = equimark.train(
            Path(folder) / "images",
            Path(folder) / "run",
            recipe="supervised-smallnet-plus",
            labels=LandmarkTable(tuple(f"{i:06d}.png" for i in range(len(images))), points.astype(np.float64)),
            batch_size=16,
            steps=400,
        )
        frames, placements = run.model.frames_of(list(scene.people.images[TRAINING_IMAGES:]))
        return run.model.detect_framed(frames, placements)[0]


def draw_reliability(scene: Scene, labels: Sequence[int] = (5, 20, 100), draws: int = 3) -> Figure:
    """Confidence of 68 landmarks on unseen people against how many are right."""
    model, points = scene.runs["dve"], scene.people.landmarks[:TRAINING_IMAGES].astype(np.float64)
    found = {}
    for count in labels:
        said, right = [], []
        for seed in range(draws):
            rows = draw_labels(np.ones(TRAINING_IMAGES, np.bool_), count, seed)
            positions, confidence = fit_head(model, scene.frames[rows], points[rows]).locate_frames(scene.unseen)
            said.append(confidence)
            near = tolerance_of(torch.from_numpy(points[rows]))
            right.append(metrics.distances(positions, scene.unseen_points) <= near)
        found[f"{count} labels"] = metrics.reliability(np.concatenate(said), np.concatenate(right))
    return plots.reliability(found)
