"""Warps, sparse landmarks, and what is derived from them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from equimark import geometry, plots
from equimark.demo import TRAINING_IMAGES
from equimark.figures import DRAWINGS, Exhibit, marks
from equimark.figures.exhibits import pictures
from equimark.geometry import Cells
from equimark.head import fit_head
from equimark.pairs import PairSpec
from equimark.plots import MUTED
from equimark.synthetic import portraits
from equimark.warps import PRESETS
from scene import VISIBLE, Scene, inner, night, pairs_of


def draw_presets(scene: Scene) -> Figure:
    """Both views of two people by each preset."""
    names = ("faces", "mnist", "dve", "dve-evaluation")
    frames = torch.from_numpy(portraits(2, seed=5, size=100).images).movedim(-1, 1).contiguous()
    batches = [pairs_of(frames, PairSpec(15, *PRESETS[name]), seed=4)[0] for name in names]
    sources, targets = (
        [picture for batch in batches for picture in pictures(views(batch))]
        for views in (lambda batch: batch.source, lambda batch: batch.target)
    )
    figure = plots.training_pairs(
        sources,
        targets,
        np.concatenate([batch.target_from_source.numpy() for batch in batches]),
        np.concatenate([batch.valid.numpy() for batch in batches]),
    )
    for place, name in enumerate(names):
        figure.axes[2 * place].set_title(name, fontsize=8, color=MUTED, pad=3, loc="left")
    return figure


def draw_sparse(scene: Scene, count: int = 5) -> Figure:
    """Landmarks, their probability maps, and what the diversity sees of them."""
    model = scene.runs["sparse"]
    views = inner(scene.unseen[list(VISIBLE[:count])], model)
    scores = model.features_of(views)
    maps, cells, window = geometry.spatial_softmax(scores), model.network.cells, model.config.objective.window
    points = cells.to_pixels(geometry.soft_argmax(maps)).double().numpy()
    pooled = F.avg_pool2d(maps, window, ceil_mode=True, divisor_override=1).numpy()
    colours = plots.palette(maps.shape[1])
    title = "Eight landmarks: their means, their probability maps, and the largest in each block of 5 x 5 cells"
    figure, axes = plots.sheet(3, count, title, labelled=True, below=0.18)
    for column, image, own, heat, blocks in zip(axes.T, pictures(views), points, maps.numpy(), pooled, strict=True):
        plots.show(column[0], image)
        plots.draw_points(column[0], own, colours, size=46)
        plots.show(column[1], night(image))
        _draw_maps(column[1], heat, colours, cells)
        plots.show(column[2], night(image))
        _draw_blocks(column[2], blocks, colours, cells, window)
        left = len(heat) - blocks.max(0).sum()
        marks.note_below(column[2], f"diversity term {left:.2f}")
    plots.label_rows(axes, ("landmarks", "p(u | x, r)", "max over r"))
    return figure


def _draw_maps(ax: Axes, maps: NDArray[np.floating], colours: plots.Colours, cells: Cells) -> None:
    height, width = maps.shape[1:]
    left = cells.offset - cells.stride / 2
    extent = (left, left + cells.stride * width, left + cells.stride * height, left)
    for heat, colour in zip(maps, colours, strict=True):
        layer = np.empty((height, width, 4))
        layer[..., :3], layer[..., 3] = colour, np.sqrt(heat / heat.max())
        ax.imshow(layer, extent=extent, interpolation="bilinear", zorder=1)


def _draw_blocks(ax: Axes, blocks: NDArray[np.floating], colours: plots.Colours, cells: Cells, window: int) -> None:
    """In each block the colour of the landmark that has most there, the fuller the more."""
    side, left = window * cells.stride, cells.offset - cells.stride / 2
    for row, column in np.ndindex(*blocks.shape[1:]):
        most = int(blocks[:, row, column].argmax())
        corner = (left + column * side, left + row * side)
        fill = (*colours[most], float(np.sqrt(blocks[most, row, column])))
        ax.add_patch(Rectangle(corner, side, side, facecolor=fill, edgecolor=(1, 1, 1, 0.5), linewidth=0.6))


def draw_contributions(scene: Scene) -> Figure:
    """From which landmarks of the run five annotated ones are derived."""
    model, points = scene.runs["sparse"], scene.people.landmarks5.astype(np.float64)
    head = fit_head(model, scene.frames[:100], points[:100])
    shown = Exhibit(model, scene.unseen, points[TRAINING_IMAGES:], head)
    return DRAWINGS["contributions"]({"eight landmarks": shown})
