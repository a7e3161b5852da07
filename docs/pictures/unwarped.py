"""Pairs of images whose motion is none, given or not known, and what they are good for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from numpy.typing import NDArray
from torch import Tensor

import equimark
from equimark import geometry, objectives, plots, thin_plate
from equimark.demo import SIDE, TRAINING_IMAGES
from equimark.figures import marks
from equimark.figures.exhibits import pictures
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.synthetic import arm
from equimark.warps import WarpSpec, draw
from scene import VISIBLE, Scene, inner, say

VIDEOS = 300  # pairs of frames, to learn from motion that is not known
LIT = 600  # pairs under two lights, to fine-tune on: the run has seen the people in even light
STILL = {"bend": 0, "extra_bend": 0, "rotation": 0, "translation": 0, "scale": 0}
MOTION = WarpSpec(bend=0.001, extra_bend=0.004, rotation=5, translation=0.05, scale=0.03)


def draw_pairs(scene: Scene, count: int = 3) -> Figure:
    """Registered pairs under two lights, and frames of a video with their flow."""
    title = "Pairs that are not warped: two registered images (left), a frame and the next one with its flow (right)"
    figure, axes = plots.sheet(2, 2 * count, title, labelled=True, before_columns=(count,))
    rng = np.random.default_rng(3)
    people = scene.people.images[TRAINING_IMAGES + np.array(VISIBLE[:count])]
    for column, above, below in zip(axes.T, _lit(people, rng), _lit(people, rng), strict=False):
        places = np.stack(np.meshgrid(*2 * [np.linspace(12, SIDE - 13, 4)]), -1).reshape(-1, 2)
        for ax, image in zip(column, (above, below), strict=True):
            plots.show(ax, image)
            plots.draw_points(ax, places, plots.position_colours(places, (SIDE, SIDE)), size=20)
    video = arm(60, seed=2, speed=8)
    for column, frame in zip(axes.T[count:], (6, 22, 41), strict=True):
        position, seen = video.flow(frame, frame + 1)
        places = _on_the_arm(position, seen)
        moved = position[places[:, 1], places[:, 0]]
        colours = plots.position_colours(places, (90, 90))
        for ax, image, own in zip(column, video.images[frame : frame + 2], (places, moved), strict=True):
            plots.show(ax, image)
            plots.draw_points(ax, own, colours, size=16)
        for begin, end, colour in zip(places, moved, colours, strict=True):
            ends = [(float(x), float(y)) for x, y in (begin, end)]
            column[1].add_patch(FancyArrowPatch(*ends, arrowstyle="-", color=tuple(colour), linewidth=1.2))
    plots.label_rows(axes, ("source", "target"))
    return figure


def _lit(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Images (N, S, S, 3) under strong light from a random side each."""
    angles = rng.uniform(0, 2 * np.pi, len(images))[:, None, None]
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, images.shape[1])])
    shade = 0.95 / (1 + np.exp(-4 * (x * np.cos(angles) + y * np.sin(angles)))) + 0.3
    return np.asarray((images * shade[..., None]).clip(0, 255), np.uint8)


def _on_the_arm(position: NDArray[np.float32], seen: NDArray[np.bool_], spacing: int = 7) -> NDArray[np.int64]:
    """Pixels (P, 2) of a coarse grid that move and stay in sight."""
    x, y = np.meshgrid(*2 * [np.arange(3, len(position), spacing)])
    places = np.stack([x, y], -1).reshape(-1, 2)
    moves = np.linalg.norm(position[places[:, 1], places[:, 0]] - places, axis=-1) > 0.5
    kept: NDArray[np.int64] = places[moves & seen[places[:, 1], places[:, 0]]]
    return kept


def draw_tuned(scene: Scene, count: int = 2) -> Figure:
    """Landmarks under two lights: of the run as it is, fine-tuned on warps, fine-tuned on registered pairs."""
    rng = np.random.default_rng(0)
    pairs = np.stack([_lit(scene.people.images, rng) for _ in range(2)], 1)  # (N, 2, S, S, 3)
    registered: dict[str, Any] = {"pairs.partner": "folder", "pairs.first": STILL, "pairs.second": STILL}
    models = {
        "as it is": scene.runs["sparse"],
        "tuned on warps": _tune(scene, pairs[:LIT]),
        "tuned on pairs": _tune(scene, pairs[:LIT], **registered),
    }
    unseen = torch.from_numpy(pairs[TRAINING_IMAGES:]).movedim(-1, 2).contiguous()
    found = {how: _own_landmarks(model, unseen) for how, model in models.items()}
    apart = [float(np.linalg.norm(points[:, 0] - points[:, 1], axis=-1).mean()) for points in found.values()]
    title = "Under another light landmarks move by {:.1f} px; tuned on warps of lit images by {:.1f}, on registered "
    title += "pairs by {:.1f} px"
    figure, axes = plots.sheet(len(models), 2 * count, title.format(*apart), labelled=True, before_columns=(2, 4))
    colours = plots.palette(next(iter(found.values())).shape[2])
    for row, points in zip(axes, found.values(), strict=True):
        for place, (person, light) in enumerate(np.ndindex(count, 2)):
            shown = VISIBLE[person]
            plots.show(row[place], pictures(unseen[[shown], light] / 255)[0])
            if light:
                plots.draw_rings(row[place], points[shown, 0], colours)
            plots.draw_points(row[place], points[shown, light], colours, size=30)
    plots.label_rows(axes, list(models))
    return figure


def _tune(scene: Scene, pairs: NDArray[np.uint8], **settings: Any) -> LandmarkModel:
    """The sparse run, trained further on pairs (N, 2, S, S, 3), a folder for each."""
    options: dict[str, Any] = {"steps": 300, "optimiser.lr": 0.001, "batch_size": 8} | settings
    with tempfile.TemporaryDirectory() as folder:
        images = PackedImages.from_array(pairs.reshape(-1, *pairs.shape[2:]), _folders(len(pairs)))
        return equimark.train(images, Path(folder) / "run", start_from=scene.folder / "sparse", **options).model


def _folders(count: int) -> list[str]:
    """Names of two images for each of ``count`` folders."""
    return [f"{i // 2:03d}/{'ab'[i % 2]}" for i in range(2 * count)]


def _own_landmarks(model: LandmarkModel, frames: Tensor) -> NDArray[np.float64]:
    """Landmarks (N, 2, K, 2), in pixels, of frames (N, 2, 3, S, S)."""
    located = model.landmarks_of(frames.flatten(0, 1)).positions
    points: NDArray[np.float64] = model.network.cells.to_pixels(located).double().numpy()
    return points.reshape(len(frames), 2, -1, 2)


def draw_unknown(scene: Scene, count: int = 2) -> Figure:
    """Landmarks learned from pairs of unknown motion, and the warp that is fitted through them."""
    model = _learn_from_motion(scene)
    source, target = (inner(frames, model) for frames in (scene.unseen, _moved(scene.unseen, seed=1)))
    size = (source.shape[-2], source.shape[-1])
    ends = [
        model.network.cells.to_pixels(geometry.soft_argmax(geometry.spatial_softmax(model.features_of(views))))
        for views in (source, target)
    ]
    spline = thin_plate.fit(
        *(geometry.normalise(end, size) for end in ends), stiffness=objectives.STIFFNESS, rigidity=objectives.RIGIDITY
    )
    still = geometry.pixel_grid(size)
    looked_at = spline(geometry.normalise(still, size)[None])
    inside = (looked_at.abs() <= 1).all(-1)
    back = geometry.sample_normalised(target, looked_at)
    before, after = ((source - each).square().mean(1) * inside for each in (target, back))
    title = f"Motion unknown: the warp through eight landmarks leaves {100 * after.sum() / before.sum():.0f} % of the "
    title += f"squared difference of two frames ({len(source)} people held out)"
    figure, axes = plots.sheet(count, 5, title, before_columns=(2, 3))
    lines = list(np.linspace(2, size[0] - 3, 7).round().astype(int))
    bent = geometry.denormalise(looked_at, size)
    for row, i in zip(axes, VISIBLE[:count], strict=True):
        for ax, views, end, places in zip(row, (source, target), ends, (still, bent[i]), strict=False):
            plots.show(ax, pictures(views[[i]])[0])
            plots.draw_grid(ax, places.double().numpy(), lines, lines)
            plots.draw_points(ax, end[i].double().numpy(), plots.palette(end.shape[1]), size=42)
        plots.show(row[2], pictures(back[[i]])[0])
        for ax, error in zip(row[3:], (before[i], after[i]), strict=True):
            ax.imshow(error.sqrt(), cmap="inferno", vmin=0, vmax=before[i].sqrt().max(), interpolation="bicubic")
            say(ax, f"{100 * error.sum() / before[i].sum():.0f} %")
    notes = ("first frame", "second frame", "second, moved back", "difference before", "difference after")
    for ax, note in zip(axes[0], notes, strict=True):
        marks.note_above(ax, note)
    return figure


def _learn_from_motion(scene: Scene) -> LandmarkModel:
    """Eight landmarks from pairs of frames, whose motion nobody tells."""
    first = scene.frames[:VIDEOS]
    both = torch.stack([first, _moved(first, seed=0)], 1).flatten(0, 1).movedim(1, -1).contiguous().numpy()
    settings = {"frame.size": SIDE, "pairs.margin": scene.runs["sparse"].config.pairs.margin, "batch_size": 8}
    with tempfile.TemporaryDirectory() as folder:
        run = equimark.train(
            PackedImages.from_array(both, _folders(len(first))),
            Path(folder) / "run",
            recipe="sparse-unknown-warp",
            steps=300,
            **settings,
            **{"network.channels": 8},
        )
        return run.model


def _moved(frames: Tensor, seed: int) -> Tensor:
    """Frames (N, 3, S, S) a moment later."""
    motion = draw(MOTION, len(frames), generator=torch.Generator().manual_seed(seed))
    grid = geometry.normalise(geometry.pixel_grid((SIDE, SIDE)), (SIDE, SIDE))[None]
    return geometry.sample_normalised(frames.float(), motion(grid)).round().byte()
