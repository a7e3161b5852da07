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
_SHARE, _WIDEST = 0.068, 6.5  # width of a mark: share of the tile, and points
_MANY = 12  # more marks than these are drawn smaller
_RIM, _HALO = 0.14, 0.7  # of a mark: share of its width that is white, and points of dark beyond, for bright images
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


def mark_width(ax: Axes, count: int, *, widest: float = _WIDEST) -> float:
    """Width in points of each of ``count`` marks on a tile."""
    figure = ax.get_figure()
    assert isinstance(figure, Figure)
    tile = 72 * ax.get_position().width * figure.get_figwidth()
    return float(min(widest, _SHARE * tile) * min(1.0, _MANY / max(1, count)) ** 0.5)


def draw_landmarks(ax: Axes, points: Points) -> None:
    """Points (K, 2), each with the colour and the shape of its number; those that are NaN are left out."""
    colours, width, numbers = colours_of(len(points)), mark_width(ax, len(points)), np.arange(len(points))
    rim = _RIM * width
    halo: list[AbstractPathEffect] = [withStroke(linewidth=rim + _HALO, foreground=(0, 0, 0, 0.55))]
    seen = np.isfinite(points).all(-1)
    for shape, (marker, area) in enumerate(MARKERS.items()):
        own = seen & (numbers % len(MARKERS) == shape)
        if own.any():
            drawn = plots.draw_points(ax, points[own], colours[own], size=area * width**2, marker=marker)
            drawn.set(linewidth=rim, path_effects=halo)


def draw_found(ax: Axes, found: Points, truth: Points) -> None:
    """Points found (K, 2) as :func:`draw_landmarks` does, each with a line to where it belongs, if that is known."""
    width = mark_width(ax, len(found))
    for ends, colour in zip(np.stack([found, truth], 1), colours_of(len(found)), strict=True):
        _draw_line(ax, ends, colour, 0.16 * width)
    draw_landmarks(ax, found)


def draw_places(ax: Axes, points: Points, colours: Colours) -> None:
    """Many points (P, 2) in ``colours`` (P, 3)."""
    width = 1.25 * mark_width(ax, len(points), widest=2 * _WIDEST)
    x, y = points.T
    ax.scatter(x, y, s=width**2, c=colours, edgecolors="white", linewidths=0.08 * width, zorder=3)


def draw_prediction(ax: Axes, predicted: Points, truth: Points) -> None:
    """Predicted points (J, 2) in green, the true ones in blue, smaller, with a line between the two."""
    width = mark_width(ax, len(truth))
    for ends in np.stack([predicted, truth], 1):
        _draw_line(ax, ends, TRUE, 0.16 * width)
    (px, py), (tx, ty) = predicted.T, truth.T
    ax.scatter(px, py, s=width**2, c=PREDICTED, edgecolors="white", linewidths=_RIM * width, zorder=3)
    ax.scatter(tx, ty, s=0.35 * width**2, c=TRUE, edgecolors="white", linewidths=_RIM * width / 2, zorder=4)


def _draw_line(ax: Axes, ends: Points, colour: Any, width: float) -> None:
    """Between two points (2, 2), unless one is NaN; ``width`` in points."""
    if np.isfinite(ends).all():
        x, y = ends.T
        ax.plot(x, y, color="white", linewidth=2.2 * width, solid_capstyle="round", zorder=2)
        ax.plot(x, y, color=colour, linewidth=width, zorder=2)


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
