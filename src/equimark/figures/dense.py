"""Figures of points matched from image to image (2019, figures 1, 4, 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equimark import geometry, metrics, plots
from equimark.embedding import ModelError
from equimark.figures import marks
from equimark.figures.exhibits import Exhibit, Rows, choose, only, pictures, same_images
from equimark.metrics import Points
from equimark.plots import INK, Colours

Chosen = Literal["grid", "annotated"]
_HUES = (0.64, 0.08)  # blue to orange: readers who do not see red or green tell them apart
_ENLARGED = 4  # pixels of a mosaic for a pixel of an image
_SIDE = 3  # rows and columns of small tiles beside the large ones


# ---- mosaic --------------------------------------------------------------------------------------------------


def mosaic(
    exhibits: Mapping[str, Exhibit],
    *,
    reference: int = 0,
    spacing: float = 6.0,
    reach: float = 0.8,
    seed: int | None = 0,
    title: str = "Points of one image found on others, and an image made of what was found",
) -> Figure:
    """Points of a reference image found on others, and a mosaic of the places found (2019, figure 1).

    Left: for each reference point the nearest descriptor of each image, in its colour. Middle: the reference. Right:
    for each reference point the patch around its nearest descriptor among all images, each taken about equally often.

    Args:
        exhibits: one run with descriptors, and images.
        reference: row of the image that is matched.
        spacing: of the reference points, which is the side of a patch, in pixels.
        reach: diameter of the circle in the middle of the reference that they fill, as a share of its side.
        seed: of the choice of images on the left; the first are taken if it is None.
        title: of the figure.

    Raises:
        ModelError: if there are several runs, one without descriptors, or fewer than two images.
    """
    exhibit = only(exhibits)
    points = reference_grid(exhibit.side, spacing, reach)
    others = _others(exhibit, reference)
    found, cosines = exhibit.match(exhibit.describe(reference, points), others)
    colours = _place_colours(points)
    figure, axes = marks.board(_SIDE, 3 * _SIDE, title, before_columns=(_SIDE, 2 * _SIDE))
    small, middle, right = axes[:, :_SIDE], *(marks.merge(axes[:, k : k + _SIDE]) for k in (_SIDE, 2 * _SIDE))
    shown = choose(len(others), _SIDE**2, seed)
    for ax, i, image in zip(small.flat, shown, pictures(exhibit.views(others[shown])), strict=False):
        plots.show(ax, image)
        marks.draw_places(ax, found[i], colours)
    plots.show(middle, pictures(exhibit.views(np.array([reference])))[0], "reference")
    marks.draw_places(middle, points, colours)
    donors = share_out(cosines)
    patches = _cut_patches(exhibit, others[donors], found[donors, range(len(points))], spacing)
    _show_patches(right, patches, points, spacing, exhibit.side)
    marks.note_above(right, f"patches of {len(set(donors.tolist()))} images")
    marks.note_above(small[0, _SIDE // 2], "nearest descriptors")
    marks.remove_empty(list(small.flat))
    return figure


def reference_grid(side: int, spacing: float, reach: float) -> Points:
    """A square grid of points (P, 2) that fills a circle in the middle of a view, in its pixels.

    Args:
        side: of the view, in pixels.
        spacing: of the grid, in pixels.
        reach: diameter of the circle, as a share of the side.

    Raises:
        ModelError: for a spacing that is not larger than 0, or a reach that is not between 0 and 1.
    """
    if not (spacing > 0 and 0 <= reach <= 1):
        raise ModelError(f"reference points want a spacing above 0 and a reach of 0 to 1, got {spacing} and {reach}")
    radius = reach * (side - 1) / 2
    steps = np.arange(-(radius // spacing), radius // spacing + 1)
    grid = spacing * np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
    points: Points = grid[np.linalg.norm(grid, axis=1) <= radius] + (side - 1) / 2
    return points


def _place_colours(points: Points) -> Colours:
    low, high = points.min(0), points.max(0)
    return plots.position_colours((points - low) / (high - low).clip(1e-9), (2, 2), hues=_HUES)


def share_out(cosines: Points) -> NDArray[np.int64]:
    """For each of P points the number of an image (P,): the best by cosines (N, P) that is not used up.

    Each image is used P / N times at most, rounded up; points choose in the order of their cosines.
    """
    images, count = cosines.shape
    left = np.full(images, -(-count // images))
    donors = np.full(count, -1)
    for flat in np.argsort(-cosines, axis=None, kind="stable").tolist():
        image, point = divmod(flat, count)
        if donors[point] < 0 and left[image]:
            donors[point], left[image] = image, left[image] - 1
    return donors


def _cut_patches(exhibit: Exhibit, rows: Rows, centres: Points, side: float) -> NDArray[np.uint8]:
    """Enlarged squares (P, n, n, 3) of ``side`` pixels around a place (P, 2) in each of P views."""
    n = round(side * _ENLARGED)
    offsets = (geometry.pixel_grid((n, n)) - (n - 1) / 2) * (side / n)
    points = torch.from_numpy(centres).float()[:, None, None] + offsets
    return np.stack(pictures(geometry.sample(exhibit.views(rows), points)))


def _show_patches(ax: Axes, patches: NDArray[np.uint8], centres: Points, spacing: float, side: int) -> None:
    """Squares (P, n, n, 3), ``spacing`` pixels wide, around their centres (P, 2) in a white view."""
    for patch, (x, y) in zip(patches, centres, strict=True):
        reach = spacing / 2
        ax.imshow(patch, extent=(x - reach, x + reach, y + reach, y - reach), interpolation="nearest")
    ax.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5), aspect="equal")


def _others(exhibit: Exhibit, reference: int) -> Rows:
    if not (0 <= reference < len(exhibit) > 1):
        raise ModelError(f"image {reference} cannot be matched to others: the figure has {len(exhibit)} images")
    return np.delete(np.arange(len(exhibit)), reference)


# ---- without and with exchange -------------------------------------------------------------------------------


def with_and_without(
    exhibits: Mapping[str, Exhibit],
    *,
    reference: int = 0,
    examples: int = 6,
    points: Chosen = "grid",
    maps: bool = False,
    spacing: float = 6.0,
    reach: float = 0.8,
    seed: int | None = 0,
    title: str = "Points of the first image and their nearest descriptors on others",
) -> Figure:
    """The same points of the same images matched by several runs, a row each (2019, figure 4).

    Args:
        exhibits: runs with descriptors by name, each with the same images; with annotated landmarks, if they are shown.
        reference: row of the image that is matched, shown first.
        examples: further images.
        points: of the reference: a ``grid`` as in :func:`mosaic`, or those ``annotated``, which are joined to where
            they belong; the mean distance then stands above each image.
        maps: also show descriptors as colours, equal ones in equal colours, in a further row of each run.
        spacing: see :func:`mosaic`.
        reach: see :func:`mosaic`.
        seed: of the choice of images; the first are taken if it is None.
        title: of the figure.

    Raises:
        ModelError: for runs without descriptors, or on different images, or fewer than two.
    """
    if points not in get_args(Chosen):
        raise ModelError(f"points is one of {', '.join(get_args(Chosen))}; got {points!r}")
    others = _others(same_images(exhibits), reference)
    shown = np.append(reference, others[choose(len(others), examples, seed)])
    each = 1 + maps
    figure, axes = marks.board(
        each * len(exhibits),
        len(shown),
        title,
        labelled=True,
        noted=points == "annotated",
        before_rows=range(each, each * len(exhibits), each) if maps else (),
        before_columns=(1,),
    )
    for row, exhibit in zip(axes[::each], exhibits.values(), strict=True):
        if points == "grid":
            _match_grid(row, exhibit, shown, reference_grid(exhibit.side, spacing, reach))
        else:
            _match_annotated(row, exhibit, shown)
    plots.label_rows(axes[::each], list(exhibits))
    if maps:
        for row, exhibit in zip(axes[1::2], exhibits.values(), strict=True):
            for ax, colours in zip(row, plots.descriptor_colours(exhibit.features(shown).numpy()), strict=True):
                plots.show(ax, colours)
        plots.label_rows(axes[1::2], ["descriptors"] * len(exhibits))
    marks.note_above(axes[0, 0], "reference")
    return figure


def _match_grid(row: NDArray[np.object_], exhibit: Exhibit, shown: Rows, points: Points) -> None:
    colours = _place_colours(points)
    found, _ = exhibit.match(exhibit.describe(int(shown[0]), points), shown[1:])
    for ax, image, own in zip(row, pictures(exhibit.views(shown)), [points, *found], strict=True):
        plots.show(ax, image)
        marks.draw_places(ax, own, colours)


def _match_annotated(row: NDArray[np.object_], exhibit: Exhibit, shown: Rows) -> None:
    truth = exhibit.annotated(shown)
    found = _match_landmarks(exhibit, truth[0], int(shown[0]), shown[1:])
    for ax, image, own, goal in zip(row, pictures(exhibit.views(shown)), [truth[0], *found], truth, strict=True):
        plots.show(ax, image)
        marks.draw_found(ax, own, goal)
    for ax, error in zip(row[1:], metrics.by_point(metrics.distances(found, truth[1:]).T), strict=True):
        marks.note_above(ax, "" if np.isnan(error) else f"{error:.1f} px")


def _match_landmarks(exhibit: Exhibit, points: Points, source: int, targets: Rows) -> Points:
    """Where points (K, 2) of an image lie in others: (B, K, 2); NaN for those that are."""
    seen = np.isfinite(points).all(-1)
    if not seen.any():
        raise ModelError(f"image {source} of the figure shows no annotated landmark; choose another one to match")
    found = np.full((len(targets), len(points), 2), np.nan)
    found[:, seen], _ = exhibit.match(exhibit.describe(source, points[seen]), targets)
    return found


# ---- other kinds ---------------------------------------------------------------------------------------------


def species(
    exhibits: Mapping[str, Exhibit],
    *,
    columns: int = 8,
    title: str = "Points annotated on one image (framed) and found on other kinds",
) -> Figure:
    """Points annotated on one image found on images of other kinds (2019, figure 6).

    Args:
        exhibits: a block each, by name: a run with descriptors and its images, of which the first is matched to all
            others; that has annotated landmarks. Labels, if there are any, stand above the images.
        columns: images in a row.
        title: of the figure.

    Raises:
        ModelError: for runs without descriptors, fewer than two images, or a first one without annotated landmarks.
    """
    columns = min(columns, max(map(len, exhibits.values())))
    begins = np.cumsum([0, *(-(-len(exhibit) // columns) for exhibit in exhibits.values())])
    figure, axes = marks.board(
        int(begins[-1]),
        columns,
        title,
        labelled=len(exhibits) > 1,
        noted=any(exhibit.labels for exhibit in exhibits.values()),
        before_rows=begins[1:-1].tolist(),
    )
    for begin, exhibit in zip(begins.tolist(), exhibits.values(), strict=False):
        others, everyone = _others(exhibit, 0), np.arange(len(exhibit))
        points = exhibit.annotated(everyone[:1])[0]
        found = _match_landmarks(exhibit, points, 0, others)
        tiles = axes[begin:].flat[: len(exhibit)]
        for ax, image, own, label in zip(
            tiles,
            pictures(exhibit.views(everyone)),
            [points, *found],
            exhibit.labels or [""] * len(exhibit),
            strict=True,
        ):
            plots.show(ax, image, label)
            marks.draw_landmarks(ax, own)
        marks.frame(tiles[0], INK)
    if len(exhibits) > 1:
        plots.label_rows(axes[begins[:-1]], list(exhibits))
    marks.remove_empty(list(axes.flat))
    return figure


# ---- arm -----------------------------------------------------------------------------------------------------


def arm(
    exhibits: Mapping[str, Exhibit],
    *,
    pairs: Sequence[tuple[int, int]] = ((0, 1),),
    title: str = "Points of a frame (left) found in another one: lines lead to where they belong",
) -> Figure:
    """Points of a frame located in another one by several runs, a column each (2019, figure 7).

    Above each run stands the mean distance from where the points belong, over the pairs shown.

    Args:
        exhibits: runs with descriptors by name, each with the same frames and their annotated landmarks.
        pairs: a row each: the frame that is matched, and that in which its points are looked for.
        title: of the figure.

    Raises:
        ModelError: for runs without descriptors, on different images, or pairs of frames that there are not.
    """
    first = same_images(exhibits)
    if not pairs or not all(0 <= row < len(first) for pair in pairs for row in pair):
        raise ModelError(f"pairs of frames wants rows from 0 to {len(first) - 1}, got {list(pairs)}")
    figure, axes = marks.board(len(pairs), 1 + len(exhibits), title, before_columns=(1,))
    for row, (source, _) in zip(axes, pairs, strict=True):
        plots.show(row[0], pictures(first.views(np.array([source])))[0])
        marks.draw_landmarks(row[0], first.annotated(np.array([source]))[0])
    marks.note_above(axes[0, 0], "first frame")
    for column, (name, exhibit) in zip(axes.T[1:], exhibits.items(), strict=True):
        error = np.nanmean([_draw_match(ax, exhibit, *pair) for ax, pair in zip(column, pairs, strict=True)])
        marks.note_above(column[0], f"{name}: {error:.1f} px")
    return figure


def _draw_match(ax: Axes, exhibit: Exhibit, source: int, target: int) -> Points:
    """Draw the points of one frame found in another; their distances (K,) from where they belong."""
    points, truth = exhibit.annotated(np.array([source, target]))
    found = _match_landmarks(exhibit, points, source, np.array([target]))[0]
    plots.show(ax, pictures(exhibit.views(np.array([target])))[0])
    marks.draw_found(ax, found, truth)
    return metrics.distances(found, truth)
