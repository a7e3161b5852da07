"""Dense descriptors: where a point is found, and by way of another person."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import equimark
from equimark import geometry, matching, objectives, plots
from equimark.demo import SIDE, TRAINING_IMAGES
from equimark.figures import marks
from equimark.figures.exhibits import pictures
from equimark.geometry import Cells
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.pairs import PairBatch
from equimark.training import fresh_network
from scene import VISIBLE, Scene, draw_goal, inner, night, pairs_of, say

_SHOWN = (36, 30, 54)  # outer corner of an eye, tip of the nose, corner of the mouth


def draw_matching(scene: Scene, person: int = 4) -> Figure:
    """p(v | u) of equation 2 before and after training without exchange."""
    model = scene.runs["dense"]
    pairs, points, goals = _views_of(scene, [person], seed=6)
    begun = LandmarkModel(fresh_network(model.config), model.config)
    heat = torch.stack([_where(each, pairs, points[0, list(_SHOWN)]) for each in (begun, model)], 1)
    target = pictures(pairs.target)[0]
    figure = plots.heat_maps(
        pictures(pairs.source)[0],
        points[0, list(_SHOWN)].double().numpy(),
        [target, target],
        heat.numpy(),
        model.network.cells,
        colours=plots.palette(3),
    )
    for place, ax in enumerate(figure.axes):
        row, column = divmod(place, 3)
        if row == 0:
            marks.note_above(ax, ("source view, with u", "p(v | u) before training", "after 600 steps")[column])
        if column:
            goal = goals[0, _SHOWN[row]]
            draw_goal(ax, goal)
            say(ax, f"off by {_off(heat[row, column - 1], goal, model.network.cells):.1f} px")
    return figure


def _views_of(scene: Scene, people: Sequence[int], seed: int) -> tuple[PairBatch, Tensor, Tensor]:
    """Pairs of unseen people as in training, and their landmarks in both views."""
    spec, rows = scene.runs["dve"].config.pairs, list(people)
    return pairs_of(scene.unseen[rows], spec, points=scene.unseen_points[rows], seed=seed)


def _where(model: LandmarkModel, pairs: PairBatch, points: Tensor) -> Tensor:
    """p(v | u) (P, h, w) in the target of points (P, 2) of the source."""
    source, target = model.features_of(pairs.source), model.features_of(pairs.target)
    described = matching.describe_points(source, model.network.cells.to_cells(points)[None])
    return geometry.spatial_softmax(matching.similarity(described, target))[0]


def _off(heat: Tensor, goal: Tensor, cells: Cells) -> float:
    """Expected distance, in pixels, of a place drawn from a map (h, w) to its goal (2,): equation 3 of one point."""
    places = cells.to_pixels(geometry.pixel_grid((heat.shape[-2], heat.shape[-1])))
    return float(((places - goal).norm(dim=-1) * heat).sum())


def draw_lengths(scene: Scene, people: Sequence[int] = VISIBLE) -> Figure:
    """What descriptors in three dimensions say by their direction and by their length."""
    margin = scene.runs["dense"].config.pairs.margin
    settings: dict[str, Any] = {"frame.size": SIDE, "pairs.margin": margin, "batch_size": 8, "steps": 600}
    settings["pairs.photometric.jpeg_probability"] = 0  # the dearest part of a pair
    with tempfile.TemporaryDirectory() as folder:
        images = PackedImages.from_array(scene.people.images[:TRAINING_IMAGES])
        model = equimark.train(images, Path(folder) / "run", recipe="dense3d-smallnet", **settings).model
    views = inner(scene.unseen[list(people)], model)
    return plots.colour_maps(pictures(views), model.features_of(views).numpy())


def draw_exchange(scene: Scene, source: int = 9, other: int = 23, averaged: int = 60) -> Figure:
    """Points matched by way of another person, without and with exchange in training."""
    runs = {"trained without": scene.runs["dense"], "trained with exchange": scene.runs["dve"]}
    shown = (36, 54)
    errors = [_error_by_way(scene, model, averaged, shown) for model in runs.values()]
    title = (
        f"By way of another person: off by {errors[0]:.1f} px without exchange in training, {errors[1]:.1f} px with "
    )
    title += f"(mean of {averaged} people)"
    figure, axes = plots.sheet(2, 3 * len(shown), title, labelled=True, before_columns=(3,))
    pairs, points, goals = _views_of(scene, [source], seed=5)
    for row, model in zip(axes, runs.values(), strict=True):
        cells, auxiliary = model.network.cells, inner(scene.unseen[[other]], model)
        maps = _by_way(model, pairs, auxiliary, points[:, list(shown)])
        for place, (landmark, colour) in enumerate(zip(shown, plots.palette(len(shown)), strict=True)):
            tiles = row[3 * place : 3 * place + 3]
            plots.show(tiles[0], pictures(pairs.source)[0])
            plots.draw_points(tiles[0], points[0, landmark][None].double().numpy(), colour[None], size=60)
            for ax, image, heat in zip(tiles[1:], (auxiliary, pairs.target), maps, strict=True):
                plots.show(ax, night(pictures(image)[0]))
                plots.draw_heat(ax, heat[0, place].numpy(), cells)
            own = scene.unseen_points[other, landmark] - model.config.pairs.margin
            draw_goal(tiles[1], torch.from_numpy(own))
            draw_goal(tiles[2], goals[0, landmark])
            say(tiles[2], f"off by {_off(maps[1][0, place], goals[0, landmark], cells):.1f} px")
    for ax, note in zip(axes[0], 2 * ("source view, with u", "auxiliary: p(w | u)", "target, from there"), strict=True):
        marks.note_above(ax, note)
    plots.label_rows(axes, list(runs))
    return figure


def _by_way(model: LandmarkModel, pairs: PairBatch, auxiliaries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, P, h, w) of source points (B, P, 2): p(w | u) in the auxiliaries, and from there in the targets."""
    source, auxiliary, target = (model.features_of(each) for each in (pairs.source, auxiliaries, pairs.target))
    described = matching.describe_points(source, model.network.cells.to_cells(points))
    rebuilt = objectives.exchange(described, auxiliary, torch.arange(len(points))[:, None])
    scores = matching.similarity(described, auxiliary), matching.similarity(rebuilt, target)
    return geometry.spatial_softmax(scores[0]), geometry.spatial_softmax(scores[1])


def _error_by_way(scene: Scene, model: LandmarkModel, count: int, landmarks: Sequence[int]) -> float:
    """Mean expected distance in pixels over people, the next one being the way, and landmarks in view."""
    pairs, points, goals = _views_of(scene, range(count), seed=1)
    auxiliaries = inner(scene.unseen[1 : count + 1], model)
    maps, size = _by_way(model, pairs, auxiliaries, points[:, list(landmarks)])[1], pairs.source.shape[-2:]
    seen = geometry.inside(points, (size[0], size[1])) & geometry.inside(goals, (size[0], size[1]))
    errors = [
        _off(maps[i, k], goals[i, landmark], model.network.cells)
        for i in range(count)
        for k, landmark in enumerate(landmarks)
        if seen[i, landmark]
    ]
    return float(np.mean(errors))
