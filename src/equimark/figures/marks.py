"""What the figures are drawn with. A landmark has a colour and a shape: either tells it from its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from equimark import plots
from equimark.metrics import Points
from equimark.plots import MUTED, Colours

# Okabe and Ito's colours, which remain apart for readers who do not see red or green.
NAMED = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442")
# Shapes and how large they must be drawn to look alike; their number and that of the colours have no common divisor.
MARKERS = {"o": 1.0, "s": 0.9, "^": 1.15, "D": 0.75, "P": 1.3, "v": 1.15, "X": 1.3, "*": 2.2}
PREDICTED, TRUE, FAILURE = NAMED[2], NAMED[0], "#d64545"
_RIM: list[AbstractPathEffect] = [withStroke(linewidth=1.5, foreground=(0, 0, 0, 0.55))]  # beyond the white one, for bright images
_SHARE = 0.068  # of a tile is the width of a mark
_MANY = 12  # more marks than these are drawn smaller
_KEY_HEIGHT = 0.14  # inches


def colours_of(count: int) -> Colours:
    """Colours (count, 3) of landmarks."""
    return np.array([to_rgb(NAMED[k % len(NAMED)]) for k in range(count)]).reshape(-1, 3)


def board(
    rows: int, columns: int, title: str, *, key: Mapping[str, Line2D] | None = None, **room: Any
) -> tuple[Figure, NDArray[Any]]:
    """A :func:`equimark.plots.sheet` with a key to marks by their meaning below."""
    below = float(room.pop("below", 0)) + (_KEY_HEIGHT if key else 0)
    figure, axes = plots.sheet(rows, columns, title, below=below, **room)
    if key:
        figure.legend(
            list(key.values()), list(key), loc="lower center", ncols=len(key), frameon=False, fontsize=8,
            labelcolor=MUTED, handletextpad=0.5, columnspacing=1.8, borderpad=0.1,
        )  # fmt: skip
    return figure, axes


def dot(colour: str, size: float) -> Line2D:
    """A mark for a key, ``size`` points wide."""
    return Line2D([], [], color=colour, marker="o", markersize=size, markeredgecolor="white", linewidth=0)


def merge(axes: NDArray[Any]) -> Axes:
    """One tile in the place of many."""
    boxes = [ax.get_position() for ax in axes.flat]
    for ax in axes.flat[1:]:
        ax.remove()
    first: Axes = axes.flat[0]
    x0, y0 = min(box.x0 for box in boxes), min(box.y0 for box in boxes)
    first.set_position((x0, y0, max(box.x1 for box in boxes) - x0, max(box.y1 for box in boxes) - y0))
    return first


def frame(ax: Axes, colour: str) -> None:
    """A coloured line around a tile."""
    ax.spines[:].set(visible=True, color=colour, linewidth=1.8)


def mark_area(ax: Axes, count: int) -> float:
    """Area in square points of each of ``count`` marks on a tile."""
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    width = 72 * ax.get_position().width * figure.get_figwidth()
    return float((_SHARE * width) ** 2 * min(1.0, _MANY / max(1, count)))


def draw_landmarks(ax: Axes, points: Points, *, grow: float = 1.0) -> None:
    """Points (K, 2), each with the colour and the shape of its number; those that are NaN are left out."""
    colours, size, numbers = colours_of(len(points)), grow * mark_area(ax, len(points)), np.arange(len(points))
    seen = np.isfinite(points).all(-1)
    for shape, (marker, area) in enumerate(MARKERS.items()):
        own = seen & (numbers % len(MARKERS) == shape)
        if own.any():
            plots.draw_points(ax, points[own], colours[own], size=area * size, marker=marker).set_path_effects(_RIM)


def draw_places(ax: Axes, points: Points, colours: Colours) -> None:
    """Many points (P, 2) in ``colours`` (P, 3)."""
    size = 0.85 * mark_area(ax, len(points))
    x, y = points.T
    ax.scatter(x, y, s=size, c=colours, edgecolors="white", linewidths=0.06 * size**0.5, zorder=3)


def draw_prediction(ax: Axes, predicted: Points, truth: Points) -> None:
    """Predicted points (J, 2) in green, the true ones in blue, smaller, with a line between the two."""
    size = mark_area(ax, len(truth))
    lines = np.stack([predicted, truth], 1)[np.isfinite(truth).all(-1)]
    for line in lines:
        ax.plot(*line.T, color="white", linewidth=0.35 * size**0.5, solid_capstyle="round", zorder=2)
        ax.plot(*line.T, color=TRUE, linewidth=0.18 * size**0.5, zorder=2)
    rim, (px, py), (tx, ty) = 0.13 * size**0.5, predicted.T, truth.T
    ax.scatter(px, py, s=size, c=PREDICTED, edgecolors="white", linewidths=rim, zorder=3)
    ax.scatter(tx, ty, s=0.3 * size, c=TRUE, edgecolors="white", linewidths=rim / 2, zorder=4)


def draw_found(ax: Axes, found: Points, truth: Points) -> None:
    """Points found (K, 2) as :func:`draw_landmarks`, and lines from them to where they belong."""
    for start, end in zip(found, truth, strict=True):
        if np.isfinite(end).all():
            ax.plot(*np.stack([start, end]).T, color="white", linewidth=1.6, zorder=2)
    draw_landmarks(ax, found)


def note_above(ax: Axes, text: str, colour: str = MUTED) -> None:
    """A short note above a tile."""
    ax.set_title(text, fontsize=7.5, color=colour, pad=2.5)


def note_below(ax: Axes, text: str) -> None:
    """A short note below a tile."""
    ax.set_xlabel(text, fontsize=7.5, color=MUTED, labelpad=2.5)


def remove_empty(axes: Sequence[Axes]) -> None:
    """Take away tiles that show no image."""
    for ax in axes:
        if not ax.images:
            ax.remove()
