"""Images side by side with what was found on them: landmarks, matches, descriptors, parts, errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from equimark.geometry import Cells
from equimark.plots.canvas import (
    Image,
    draw_errors,
    draw_grid,
    draw_heat,
    draw_points,
    draw_rings,
    drop_rest,
    label_rows,
    sheet,
    show,
)
from equimark.plots.colours import (
    INK,
    Colours,
    Points,
    descriptor_colours,
    descriptor_lengths,
    palette,
    position_colours,
)


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
    drop_rest(axes, len(images))
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


def colour_maps(images: Sequence[Image], features: NDArray[np.floating[Any]]) -> Figure:
    """Images, and below each its descriptors (N, C, h, w) as colours: equal directions have equal colours.

    Below these their lengths, the brighter the longer, unless all have the same: see :func:`descriptor_lengths`.
    """
    lengths = descriptor_lengths(features)
    shown = [images, descriptor_colours(features)]
    if np.ptp(lengths) > 1e-3:
        shown.append(lengths)
    title = "Descriptors as colours: equal parts should have equal colours"
    figure, axes = sheet(len(shown), len(images), title, labelled=True)
    for row, pictures in zip(axes, shown, strict=True):
        for ax, picture in zip(row, pictures, strict=True):
            show(ax, picture)
    label_rows(axes, ("image", "descriptors", "their lengths")[: len(shown)])
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
