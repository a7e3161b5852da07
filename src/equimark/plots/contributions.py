"""Which landmarks others are derived from, as arrows on an image (2017, fig. 7)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Wedge
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from equimark.plots.canvas import Image, edge_colours, new_figure, show
from equimark.plots.colours import INK, MUTED, RULE, Colours, Points, palette

_SIDE = 4.6  # of the image, in inches
_RING = 0.024  # radius as a share of the image
_KEY_SHARES = (0.2, 0.5, 1.0)


def contribution_graph(
    image: Image,
    sources: Points,
    targets: Points,
    contributions: NDArray[np.floating[Any]],
    *,
    title: str = "What each annotated landmark is derived from",
) -> Figure:
    """From which landmarks a linear regressor derives others (2017, fig. 7), on an example image.

    Sources are crosses, targets rings. An arrow leads from a source to each target to which it contributes, the
    wider the more. The ring is divided in the same shares, for where an arrow would be too short to see; its rest
    is grey. Sources that contribute to no target are pale.

    Args:
        image: on which they lie.
        sources: (K, 2).
        targets: (J, 2); NaN where not visible.
        contributions: (J, K), the share of each source in each target; 0 draws no arrow.
        title: of the figure.
    """
    colours, seen = palette(len(sources)), np.isfinite(targets).all(-1)
    places, shares = np.asarray(targets, np.float64)[seen], np.asarray(contributions, np.float64)[seen]
    shrink = min(1.0, (12 / max(1, len(places))) ** 0.5)  # of marks: many of them must not hide the image
    figure, ax = _graph_axes(title, shrink)
    show(ax, _faded(image))
    radius = shrink * _RING * image.shape[1]
    for j, k in sorted(np.argwhere(shares > 0).tolist(), key=lambda pair: float(shares[*pair])):
        _draw_arrow(ax, sources[k], places[j], colours[k], _arrow_width(shares[j, k]) * shrink, radius)
    for place, parts in zip(places, shares, strict=True):
        _draw_shares(ax, place, colours, parts, radius)
    used = (shares > 0).any(axis=0, keepdims=True).T
    _draw_crosses(ax, sources, np.where(used, colours, 0.4 * colours + 0.6))
    return figure


def _graph_axes(title: str, shrink: float) -> tuple[Figure, Axes]:
    """One large square tile, and below it a key to marks that are ``shrink`` times as large as usual."""
    below, gap = 0.3, 0.02  # inches
    width = _SIDE + 2 * gap
    figure, _ = new_figure(width, _SIDE + below + 0.05, title)
    height = figure.get_figheight()
    ax = figure.add_axes((gap / width, below / height, _SIDE / width, _SIDE / height))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ring = Line2D(
        [], [], color=MUTED, marker="o", markerfacecolor="white", linewidth=0, markersize=7, markeredgewidth=2
    )
    cross = Line2D([], [], color=MUTED, marker="x", linewidth=0, markersize=6, markeredgewidth=2)
    arrows = [Line2D([], [], color=MUTED, linewidth=_arrow_width(share) * shrink) for share in _KEY_SHARES]
    labels = ["landmark of the run", "annotated", *(f"{share:.0%}" for share in _KEY_SHARES)]
    figure.legend(
        [cross, ring, *arrows], labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=8,
        labelcolor=MUTED, handlelength=1.6, handletextpad=0.7, columnspacing=1.4, borderpad=0.1,
    )  # fmt: skip
    return figure, ax


def _arrow_width(share: float) -> float:
    """In points, of an arrow that stands for ``share``."""
    return 0.5 + 4.5 * share


def _draw_arrow(ax: Axes, source: Points, target: Points, colour: Points, width: float, radius: float) -> None:
    """An arrow to the ring of ``radius`` pixels around the target, unless it would be all head."""
    if np.linalg.norm(target - source) < 2.5 * radius:
        return
    left, right = ax.get_xlim()
    ax.add_patch(
        FancyArrowPatch(
            (float(source[0]), float(source[1])), (float(target[0]), float(target[1])), color=to_rgb(tuple(colour)),
            arrowstyle="-|>", mutation_scale=4 + 2.2 * width, connectionstyle="arc3,rad=0.12", linewidth=width,
            shrinkA=0, shrinkB=72 * _SIDE * radius / (right - left), joinstyle="miter",
            path_effects=[withStroke(linewidth=width + 1.4, foreground="white")], zorder=2,
        )
    )  # fmt: skip


def _draw_shares(ax: Axes, place: Points, colours: Colours, shares: Points, radius: float) -> None:
    """A ring of which each source has its share, clockwise from the top."""
    centre, begin = (float(place[0]), float(place[1])), -90.0
    ax.add_patch(Circle(centre, radius, facecolor=RULE, edgecolor=INK, linewidth=1.2, zorder=3))
    for k in np.flatnonzero(shares):
        end, colour = begin + 360 * float(shares[k]), to_rgb(tuple(colours[k]))
        ax.add_patch(Wedge(centre, radius, begin, end, color=colour, linewidth=0, zorder=4))
        begin = end
    ax.add_patch(Circle(centre, 0.45 * radius, facecolor="white", linewidth=0, zorder=5))


def _draw_crosses(ax: Axes, points: Points, colours: Colours) -> None:
    x, y = np.asarray(points, np.float64).T
    ax.scatter(x, y, s=58, c="white", marker="x", linewidths=4.4, zorder=6)
    ax.scatter(x, y, s=46, c=edge_colours(colours), marker="x", linewidths=2.4, zorder=7)


def _faded(image: Image) -> Image:
    """An image on which colours show: half grey, and bright."""
    return np.asarray(0.3 * image + 0.3 * image.mean(-1, keepdims=True) + 0.4 * 255, np.uint8)
