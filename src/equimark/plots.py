"""Pictures: arrays in, a :class:`matplotlib.figure.Figure` out.

Images are (H, W, 3) uint8, points (K, 2) pixels (x, y). Landmark k has the same colour in every picture.
The verbs (:func:`show`, :func:`draw_points`, :func:`draw_grid`, :func:`draw_errors`, :func:`draw_heat`) draw on
the axes of a :func:`sheet`; the other functions arrange them. No state is kept between calls.
"""

from __future__ import annotations

import colorsys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Wedge
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from .geometry import Cells
from .metrics import Reliability

Image = NDArray[np.uint8]
Points = NDArray[np.floating[Any]]
Colours = NDArray[np.float64]

INK, MUTED, RULE, ACCENT = "#1f2933", "#66758a", "#d9e0e8", "#2364d2"
_WIDTH, _LARGEST_TILE, _GROUP_GAP = 9.0, 1.8, 0.12  # inches
_GRAPH_SIDE = 4.6
_RING = 0.024  # radius as a share of the image
_KEY_SHARES = (0.2, 0.5, 1.0)
_DPI = 144
_NAMED = (
    "#e6194b", "#2f80ed", "#ff8c1a", "#2eb872", "#9b51e0", "#ffd000", "#19c3d6", "#f032e6", "#a3d900", "#8c5a3c",
)  # fmt: skip
_GOLDEN = (5**0.5 - 1) / 2

TERM_LABELS = {
    "loss": "Loss",
    "matching": "Loss: distance of the matches",
    "alignment": "Landmarks off their place (px²)",
    "diversity": "Landmarks that share a place",
    "alignment_share": "Share of standing still",
    "distinct_landmarks": "Distinct landmarks",
    "pairs_per_second": "Pairs per second",
    "lr": "Learning rate",
}


def palette(count: int) -> Colours:
    """``count`` colours (count, 3) in [0, 1]; colour k does not depend on ``count``."""
    named = [to_rgb(colour) for colour in _NAMED[:count]]
    more = [
        colorsys.hsv_to_rgb(k * _GOLDEN % 1, (0.85, 0.55)[k % 2], (0.95, 0.75)[k // 2 % 2])
        for k in range(len(_NAMED), count)
    ]
    return np.array([*named, *more]).reshape(-1, 3)


def position_colours(points: Points, size: tuple[int, int], *, hues: tuple[float, float] = (0.0, 0.85)) -> Colours:
    """Colours (K, 3) of ``points`` (K, 2) in an image of ``size`` (H, W): hue by x, from left to right, depth by y."""
    x, y = (np.asarray(points) / (size[1] - 1, size[0] - 1)).clip(0, 1).reshape(-1, 2).T
    hue, saturation, value = hues[0] + (hues[1] - hues[0]) * x, 0.45 + 0.55 * y, 1 - 0.35 * y
    return np.array([colorsys.hsv_to_rgb(*each) for each in zip(hue, saturation, value, strict=True)]).reshape(-1, 3)


def descriptor_colours(features: NDArray[np.floating[Any]]) -> Colours:
    """Descriptors (N, C, h, w) as colours (N, h, w, 3): their first three principal components over all N images.

    Only directions are compared: the length of a descriptor says how sure it is, not what it describes.
    """
    count, channels, height, width = features.shape
    rows = np.moveaxis(features, 1, -1).reshape(-1, channels).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    rows -= rows.mean(0)
    axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :3]
    axes *= np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])  # eigenvectors have no sign of their own
    components = np.zeros((len(rows), 3))
    components[:, : axes.shape[1]] = rows @ axes
    low, high = np.percentile(components, (2, 98), axis=0)
    colours: Colours = ((components - low) / (high - low).clip(1e-12)).clip(0, 1)
    return colours.reshape(count, height, width, 3)


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
    tile = min(_LARGEST_TILE, (_WIDTH - left - right[-1]) / columns - gap)
    width, height = left + columns * (tile + gap) + right[-1], top + rows * (tile + between) + down[-1] + below
    figure, title_height = _figure(width, height, title)
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


def _figure(width: float, height: float, title: str) -> tuple[Figure, float]:
    """A figure of that size in inches plus a title, and the height of the title."""
    lines = textwrap.wrap(title, max(20, int(width * 11.5)))
    title_height = 0.08 + 0.17 * len(lines)
    figure = Figure((width, height + title_height), dpi=_DPI, facecolor="white")
    figure.suptitle(
        "\n".join(lines), x=0.02 / width, y=1 - 0.03 / (height + title_height), ha="left", va="top",
        fontsize=10, color=INK, fontweight="bold",
    )  # fmt: skip
    return figure, title_height


def panels(rows: int, columns: int, width: float, height: float, title: str) -> tuple[Figure, NDArray[Any]]:
    """A figure of ``rows`` x ``columns`` axes, of that size in inches without its title, and the axes."""
    figure, title_height = _figure(width, height, title)
    share = title_height / (height + title_height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - share)))
    return figure, figure.subplots(rows, columns, squeeze=False)


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
    rims = _rims(colours)
    ax.scatter(x, y, s=70, facecolors="none", edgecolors="white", linewidths=2.2, zorder=2)
    ax.scatter(x, y, s=70, facecolors="none", edgecolors=rims, linewidths=1.1, zorder=2)


def _rims(colours: Colours) -> list[tuple[float, float, float]]:
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
    rims = _rims(colours)
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


def curves(
    entries: Sequence[Mapping[str, float]],
    *,
    limits: Mapping[str, float] | None = None,
    title: str = "Training, step by step",
) -> Figure:
    """One panel per number of the log: the logged values, and their running mean.

    Args:
        entries: lines of ``log.jsonl``: ``step``, ``loss``, named terms, ``pairs_per_second``, ``lr``.
        limits: values worth comparing with, drawn as dashed lines, by name.
        title: of the figure.
    """
    names = [n for n in entries[0] if n != "step"] if entries else []
    if "matching" in names:  # the only term, so the loss is the same curve
        names.remove("loss")
    columns = 4 if len(names) > 6 else 3
    rows = max(1, -(-len(names) // columns))
    figure, axes = panels(rows, columns, _WIDTH, 1.7 * rows, title)
    each = list(axes.flat)
    for name, ax in zip(names, each, strict=False):
        points = np.array([(e["step"], e[name]) for e in entries if name in e], np.float64)
        _curve(ax, points, TERM_LABELS.get(name, name.replace("_", " ").capitalize()), (limits or {}).get(name))
    for ax in each[len(names) :]:
        ax.remove()
    return figure


def _curve(ax: Axes, points: Points, label: str, limit: float | None) -> None:
    plain_axes(ax, label)
    reach = len(points) // 25
    smooth = [points[max(0, i - reach) : i + reach + 1, 1].mean() for i in range(len(points))]
    ax.plot(*points.T, color=ACCENT, alpha=0.3, linewidth=1)
    ax.plot(points[:, 0], smooth, color=ACCENT, linewidth=1.8, marker="o" if len(points) < 3 else None, markersize=4)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if points[:, 1].min() >= 0:
        ax.set_ylim(bottom=0)
    if limit is not None:
        ax.axhline(limit, color="#d64545", linewidth=1, linestyle=(0, (4, 3)))
        # What a run begins with is often far beyond; what matters happens near the limit.
        ax.set_ylim(top=min(2.5 * limit, 1.08 * max(limit, float(points[:, 1].max()))))


def plain_axes(ax: Axes, label: str) -> None:
    """Axes of a diagram with ``label`` above: lines across, and none but those."""
    ax.set_title(label, fontsize=8.5, color=INK, loc="left")
    ax.tick_params(labelsize=7.5, colors=MUTED, length=0)
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(RULE)


def training_pairs(
    sources: Sequence[Image], targets: Sequence[Image], target_from_source: Points, valid: NDArray[np.bool_]
) -> Figure:
    """Both views of training pairs, one above the other, and a grid that moves with the correspondence.

    Args:
        sources: N images (h, w, 3).
        targets: N images (h, w, 3).
        target_from_source: (N, h, w, 2) in pixels of the targets.
        valid: (N, h, w), where the target shows the source's pixel.
    """
    title = "Training pairs: the same point has the same colour in both views"
    figure, axes = sheet(2, len(sources), title, labelled=True)
    height, width = valid.shape[1:]
    rows, columns = (np.linspace(0.1, 0.9, 5) * (n - 1) for n in (height, width))
    rows, columns = rows.round().astype(int), columns.round().astype(int)
    still = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float64)
    for i, (above, below) in enumerate(axes.T):
        moved = np.where(valid[i][..., None], target_from_source[i], np.nan)
        kept = np.where(valid[i][..., None], still, np.nan)
        nodes = valid[i][np.ix_(rows, columns)]
        colours = position_colours(still[np.ix_(rows, columns)][nodes], (height, width))
        for ax, image, positions in ((above, sources[i], kept), (below, targets[i], moved)):
            show(ax, image)
            draw_grid(ax, positions, list(rows), list(columns))
            draw_points(ax, positions[np.ix_(rows, columns)][nodes], colours, size=24)
    label_rows(axes, ("source view", "target view"))
    return figure


def label_rows(axes: NDArray[Any], labels: Sequence[str]) -> None:
    """Labels to the left of the rows of a :func:`sheet` that was made with room for them."""
    for row, label in zip(axes, labels, strict=True):
        row[0].set_ylabel(label, fontsize=8, color=MUTED, labelpad=3)


def landmarks(
    images: Sequence[Image],
    points: Points,
    *,
    confidence: ArrayLike | None = None,
    expected: Points | None = None,
    notes: Sequence[str] = (),
    columns: int = 6,
    title: str = "The same landmark has the same colour on every image",
) -> Figure:
    """Images with their landmarks.

    Args:
        images: N images.
        points: (N, K, 2).
        confidence: (N, K) in [0, 1].
        expected: (N, K, 2), where the landmarks should lie, drawn as rings.
        notes: above each image.
        columns: images per row.
        title: of the figure.
    """
    columns = min(columns, len(images))
    figure, axes = sheet(-(-len(images) // columns), columns, title, noted=any(notes[columns:]))
    colours = palette(points.shape[1])
    sure = np.ones(points.shape[:2]) if confidence is None else np.asarray(confidence)
    for i, image in enumerate(images):
        show(axes.flat[i], image, notes[i] if notes else "")
        if expected is not None:
            draw_rings(axes.flat[i], expected[i], colours)
        draw_points(axes.flat[i], points[i], colours, confidence=sure[i])
    _drop_rest(axes, len(images))
    return figure


def _drop_rest(axes: NDArray[Any], used: int) -> None:
    for ax in axes.flat[used:]:
        ax.remove()


def colour_maps(images: Sequence[Image], features: NDArray[np.floating[Any]]) -> Figure:
    """Images, and below each its descriptors (N, C, h, w) as colours: equal descriptors have equal colours."""
    figure, axes = sheet(2, len(images), "Descriptors as colours: equal parts should have equal colours", labelled=True)
    for (above, below), image, colours in zip(axes.T, images, descriptor_colours(features), strict=True):
        show(above, image)
        show(below, colours)
    label_rows(axes, ("image", "descriptors"))
    return figure


def label_maps(images: Sequence[Image], labels: NDArray[np.integer[Any]]) -> Figure:
    """Images, and below each the labels (N, H, W) of its pixels as colours; label 0 is white."""
    colours = np.concatenate([np.ones((1, 3)), palette(max(1, int(labels.max())))])
    figure, axes = sheet(2, len(images), "Parts: equal parts have equal colours", labelled=True)
    for (above, below), image, parts in zip(axes.T, images, labels, strict=True):
        show(above, image)
        show(below, colours[parts], smooth=False)
    label_rows(axes, ("image", "parts"))
    return figure


def matches(
    source: Image, points: Points, targets: Sequence[Image], found: Points, confidence: ArrayLike, *, columns: int = 6
) -> Figure:
    """Source points and where they were found, in the same colours.

    Args:
        source: image.
        points: (K, 2) in the source.
        targets: N images.
        found: (N, K, 2) in the targets.
        confidence: (N, K) in [0, 1].
        columns: images per row, the source among them.
    """
    everyone = [source, *targets]
    sure = np.vstack([np.ones((1, len(points))), np.asarray(confidence)])
    title = "Points of the first image and where they were found on others: large and bright where sure"
    figure = landmarks(
        everyone, np.stack([points, *found]), confidence=sure, columns=min(columns, len(everyone)), title=title
    )
    figure.axes[0].set_title("source", fontsize=7.5, color=INK, fontweight="bold", pad=2.5)
    return figure


def heat_maps(
    source: Image,
    points: Points,
    targets: Sequence[Image],
    heat: NDArray[np.floating[Any]],
    cells: Cells,
    *,
    colours: Colours | None = None,
) -> Figure:
    """One row per source point: the source with the point, then where each target could show it.

    Args:
        source: image.
        points: (P, 2) in the source.
        targets: N images.
        heat: (P, N, h, w), each summing to 1 or not.
        cells: which pixel each cell of a heat map describes.
        colours: (P, 3) of the points; those of the palette by default.
    """
    title = "Where one point of the first image could lie on the others: the brighter, the likelier"
    figure, axes = sheet(len(points), 1 + len(targets), title)
    colours = palette(len(points)) if colours is None else colours
    for p, row in enumerate(axes):
        show(row[0], source, "source" if p == 0 else "")
        draw_points(row[0], points[p : p + 1], colours[p : p + 1], size=60)
        for ax, image, heated in zip(row[1:], targets, heat[p], strict=True):
            show(ax, _night(image))
            draw_heat(ax, heated, cells)
    return figure


def _night(image: Image) -> Image:
    """An image on which light shows: nearly grey, and dark."""
    return np.asarray(0.12 * image + 0.38 * image.mean(-1, keepdims=True), np.uint8)


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
    width = _GRAPH_SIDE + 2 * gap
    figure, _ = _figure(width, _GRAPH_SIDE + below + 0.05, title)
    height = figure.get_figheight()
    ax = figure.add_axes((gap / width, below / height, _GRAPH_SIDE / width, _GRAPH_SIDE / height))
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
            shrinkA=0, shrinkB=72 * _GRAPH_SIDE * radius / (right - left), joinstyle="miter",
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
    ax.scatter(x, y, s=46, c=_rims(colours), marker="x", linewidths=2.4, zorder=7)


def _faded(image: Image) -> Image:
    """An image on which colours show: half grey, and bright."""
    return np.asarray(0.3 * image + 0.3 * image.mean(-1, keepdims=True) + 0.4 * 255, np.uint8)


def worst_cases(
    images: Sequence[Image],
    predicted: Points,
    truth: Points,
    *,
    through: tuple[Sequence[Image], Points] | None = None,
    count: int = 8,
    title: str = "The worst cases: circles are where the points belong, crosses where they were put",
) -> Figure:
    """The ``count`` images of largest mean error, worst first, with the error in pixels.

    Args:
        images: N images.
        predicted: (N, K, 2).
        truth: (N, K, 2).
        through: N further images with points (N, K, 2), shown below: those by way of which ``predicted`` came about.
        count: of images shown.
        title: of the figure.
    """
    errors = mean_errors(predicted, truth)
    order = np.argsort(-errors, kind="stable")[:count]
    figure, axes = sheet(1 if through is None else 2, len(order), title, labelled=through is not None)
    colours = palette(truth.shape[1])
    for i, column in zip(order, axes.T, strict=True):
        show(column[0], images[i], f"{errors[i]:.1f} px")
        draw_errors(column[0], predicted[i], truth[i], colours)
        if through is not None:
            show(column[1], through[0][i])
            draw_points(column[1], through[1][i], colours, size=22)
    if through is not None:
        label_rows(axes, ("there and back", "by way of"))
    return figure


def mean_errors(predicted: Points, truth: Points) -> NDArray[np.float64]:
    """Mean distance (N,) of points (N, K, 2), leaving out NaN; 0 where all are NaN."""
    distances = np.linalg.norm(predicted - truth, axis=-1)
    return np.asarray(np.nansum(distances, -1) / np.isfinite(distances).sum(-1).clip(1), np.float64)


def reliability(
    found: Mapping[str, Reliability],
    *,
    title: str = "Share of landmarks that are right, by their confidence: on the line it is as it says",
) -> Figure:
    """Confidence against the share that is correct: a panel each, with its calibration error.

    A dot is larger the more landmarks it stands for; the grey columns are their shares of all.

    Args:
        found: by name, which stands above the panel.
        title: of the figure.
    """
    columns = min(3, max(1, len(found)))
    rows = -(-max(1, len(found)) // columns)
    figure, axes = panels(rows, columns, 2.75 * columns, 2.7 * rows, title)
    for (name, own), ax in zip(found.items(), axes.flat, strict=False):
        plain_axes(ax, f"{name}: off by {own.calibration_error:.3f}")
        _draw_reliability(ax, own)
    for ax in axes[-1]:
        ax.set_xlabel("Confidence", fontsize=8, color=MUTED)
    for row in axes:
        row[0].set_ylabel("Share that is right", fontsize=8, color=MUTED)
    _drop_rest(axes, len(found))
    return figure


def _draw_reliability(ax: Axes, own: Reliability) -> None:
    edges, shares = np.linspace(0, 1, len(own.count) + 1), own.count / max(1, own.count.sum())
    ax.bar(edges[:-1], shares, 0.9 / len(own.count), color=RULE, align="edge")
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    seen = own.count > 0
    x, y = own.confidence[seen], own.correct[seen]
    ax.plot(x, y, color=ACCENT, linewidth=1.4, zorder=3)
    ax.scatter(x, y, s=12 + 160 * shares[seen], color=ACCENT, edgecolors="white", linewidths=0.8, zorder=4)
    ax.set(xlim=(-0.03, 1.03), ylim=(0, 1.03), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set_aspect("equal")


def bars(
    metrics: Mapping[str, Mapping[str, float]],
    *,
    labels: Mapping[str, str] | None = None,
    title: str = "The runs compared: shorter is better",
) -> Figure:
    """Runs compared: one panel per metric, one bar per run that has it.

    Args:
        metrics: values by run, then by metric.
        labels: of the metrics, in words.
        title: of the figure; it should say which way is better.
    """
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    colours = dict(zip(metrics, palette(len(metrics) + 1)[1:], strict=True))
    columns = min(3, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure, axes = panels(rows, columns, 3 * max(columns, 2), rows * (0.45 + 0.3 * len(metrics)), title)
    for name, ax in zip(names, axes.flat, strict=False):
        have = {run: values[name] for run, values in metrics.items() if name in values}
        plain_axes(ax, (labels or {}).get(name, name.replace("_", " ")))
        ax.grid(visible=False)
        ax.set(xticks=[], xlim=(0, 1.2 * max(1e-12, *have.values())))
        drawn = ax.barh(list(have), list(have.values()), color=[colours[run] for run in have], height=0.62)
        ax.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8.5, color=INK)
        ax.invert_yaxis()
        ax.tick_params(axis="y", labelsize=8.5, colors=INK)
    _drop_rest(axes, len(names))
    return figure
