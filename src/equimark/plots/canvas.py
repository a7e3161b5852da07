"""Sheets of tiles and what is drawn on one: an image, points, grids, errors, heat; and the axes of diagrams."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike, NDArray

from equimark.geometry import Cells
from equimark.plots.colours import INK, MUTED, RULE, Colours, Points

Image = NDArray[np.uint8]

WIDTH = 9.0  # of a figure, in inches
_LARGEST_TILE, _GROUP_GAP = 1.8, 0.12  # inches
_DPI = 144


# ---- figures ------------------------------------------------------------------------------------------------


def sheet(
    rows: int,
    columns: int,
    title: str,
    *,
    labelled: bool = False,
    noted: bool = False,
    below: float = 0,
    before_rows: Sequence[int] = (),
    before_columns: Sequence[int] = (),
) -> tuple[Figure, NDArray[Any]]:
    """A figure of ``rows`` x ``columns`` square tiles without ticks, and its axes (rows, columns).

    The title stands above, with room for notes over the first row; ``noted`` leaves room for notes over the others
    too, ``labelled`` for labels to the left of the rows, and ``below`` is left free under them, in inches. Tiles stand
    in groups: there is more room before some rows and columns.
    """
    left, top, gap = (0.2 if labelled else 0.02), 0.15, 0.05  # inches
    between = 0.2 if noted else gap
    right = _GROUP_GAP * np.isin(range(columns), before_columns).cumsum()
    down = _GROUP_GAP * np.isin(range(rows), before_rows).cumsum()
    tile = min(_LARGEST_TILE, (WIDTH - left - right[-1]) / columns - gap)
    width, height = left + columns * (tile + gap) + right[-1], top + rows * (tile + between) + down[-1] + below
    figure, title_height = new_figure(width, height, title)
    height += title_height
    axes = np.empty((rows, columns), object)
    for row, column in np.ndindex(rows, columns):
        x = left + column * (tile + gap) + right[column]
        y = height - title_height - top - tile - row * (tile + between) - down[row]
        ax = figure.add_axes((x / width, y / height, tile / width, tile / height))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        axes[row, column] = ax
    return figure, axes


def panels(rows: int, columns: int, width: float, height: float, title: str) -> tuple[Figure, NDArray[Any]]:
    """A figure of ``rows`` x ``columns`` axes, of that size in inches without its title, and the axes."""
    figure, title_height = new_figure(width, height, title)
    share = title_height / (height + title_height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - share)))
    return figure, figure.subplots(rows, columns, squeeze=False)


def new_figure(width: float, height: float, title: str) -> tuple[Figure, float]:
    """A figure of that size in inches plus a title, and the height of the title."""
    lines = textwrap.wrap(title, max(20, int(width * 11.5)))
    title_height = 0.08 + 0.17 * len(lines)
    figure = Figure((width, height + title_height), dpi=_DPI, facecolor="white")
    figure.suptitle(
        "\n".join(lines), x=0.02 / width, y=1 - 0.03 / (height + title_height), ha="left", va="top",
        fontsize=10, color=INK, fontweight="bold",
    )  # fmt: skip
    return figure, title_height


def label_rows(axes: NDArray[Any], labels: Sequence[str]) -> None:
    """Labels to the left of the rows of a :func:`sheet` that was made with room for them."""
    for row, label in zip(axes, labels, strict=True):
        row[0].set_ylabel(label, fontsize=8, color=MUTED, labelpad=3)


def drop_rest(axes: NDArray[Any], used: int) -> None:
    """Remove the axes of a figure after the first ``used``."""
    for ax in axes.flat[used:]:
        ax.remove()


def plain_axes(ax: Axes, label: str) -> None:
    """Axes of a diagram with ``label`` above: lines across, and none but those."""
    ax.set_title(label, fontsize=8.5, color=INK, loc="left")
    ax.tick_params(labelsize=7.5, colors=MUTED, length=0)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(RULE)


# ---- what is drawn on a tile --------------------------------------------------------------------------------


def show(ax: Axes, image: Image | Colours, note: str = "", *, smooth: bool = True) -> None:
    """Show an image with a short note above it; what is drawn later does not change the view."""
    ax.imshow(image, interpolation="bicubic" if smooth else "nearest")
    ax.set_autoscale_on(False)
    if note:
        ax.set_title(note, fontsize=7.5, color=MUTED, pad=2.5)


def draw_points(
    ax: Axes,
    points: Points,
    colours: Colours,
    *,
    confidence: ArrayLike | None = None,
    size: float = 30,
    marker: str = "o",
) -> PathCollection:
    """Points (K, 2) in ``colours`` (K, 3) with thin white outlines; unsure ones are smaller and fainter."""
    sure = np.ones(len(points)) if confidence is None else np.clip(np.asarray(confidence, np.float64), 0, 1)
    x, y = np.asarray(points, np.float64).reshape(-1, 2).T
    return ax.scatter(
        x,
        y,
        s=size * (0.4 + 0.6 * sure),
        c=np.column_stack([colours, 0.3 + 0.7 * sure]),
        marker=marker,
        edgecolors=[(1.0, 1.0, 1.0, 0.3 + 0.7 * float(s)) for s in sure],
        linewidths=0.8,
        zorder=3,
    )


def draw_rings(ax: Axes, points: Points, colours: Colours) -> None:
    """Points (K, 2) as open rings: places to compare the dots of :func:`draw_points` with."""
    x, y = np.asarray(points, np.float64).reshape(-1, 2).T
    rims = edge_colours(colours)
    ax.scatter(x, y, s=70, facecolors="none", edgecolors="white", linewidths=2.2, zorder=2)
    ax.scatter(x, y, s=70, facecolors="none", edgecolors=rims, linewidths=1.1, zorder=2)


def edge_colours(colours: Colours) -> list[tuple[float, float, float]]:
    """Colours (K, 3) as matplotlib takes those of edges."""
    return [(float(red), float(green), float(blue)) for red, green, blue in colours]


def draw_grid(ax: Axes, positions: Points, rows: Sequence[int], columns: Sequence[int]) -> None:
    """The lines of a grid of pixels, ``positions`` (H, W, 2) of which say where each is drawn; NaN leaves gaps."""
    for line in [*(positions[r] for r in rows), *(positions[:, c] for c in columns)]:
        ax.plot(*line.T, color="black", linewidth=1.4, alpha=0.25, zorder=1)
        ax.plot(*line.T, color="white", linewidth=0.6, alpha=0.8, zorder=2)


def draw_errors(ax: Axes, predicted: Points, truth: Points, colours: Colours) -> None:
    """True points (K, 2) as circles, predicted ones as crosses, with a line between the two."""
    shrink = min(1.0, 12 / len(truth))  # of marks, in area: many points must not hide the image
    width = shrink**0.5
    for p, t, colour in zip(predicted, truth, colours, strict=True):
        ax.plot(*np.stack([p, t]).T, color="white", linewidth=2.2 * width, zorder=2)
        ax.plot(*np.stack([p, t]).T, color=colour, linewidth=1.2 * width, zorder=2)
    (tx, ty), (px, py) = truth.T, predicted.T
    rims = edge_colours(colours)
    ax.scatter(tx, ty, s=26 * shrink, facecolors="white", edgecolors=rims, linewidths=1.5 * width, zorder=3)
    ax.scatter(px, py, s=34 * shrink, c="white", marker="x", linewidths=3 * width, zorder=4)
    ax.scatter(px, py, s=26 * shrink, c=rims, marker="x", linewidths=1.6 * width, zorder=5)


def draw_heat(ax: Axes, heat: NDArray[np.floating[Any]], cells: Cells, *, strength: float = 1.0) -> None:
    """A heat map (h, w) over the image of ``ax``, clear where it is zero, relative to its maximum."""
    share = np.sqrt(heat / max(float(heat.max()), 1e-12))  # the root lets the second best place show
    height, width = heat.shape
    left = cells.offset - cells.stride / 2
    right, bottom = left + cells.stride * width, left + cells.stride * height
    colours = matplotlib.colormaps["inferno"](0.35 + 0.6 * share)
    colours[..., 3] = strength * share
    ax.imshow(colours, extent=(left, right, bottom, left), interpolation="bilinear", zorder=1)
