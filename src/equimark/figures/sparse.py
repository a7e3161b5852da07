"""Figures of landmarks found without labels (2017, figures 3 to 7; supplement, figures 2 to 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from equimark import metrics, plots, warps
from equimark.embedding import ModelError
from equimark.figures import marks
from equimark.figures.exhibits import Exhibit, Rows, choose, landmarks_in, only, pictures, same_images
from equimark.metrics import Points, Scale
from equimark.pairs import WarpPair
from equimark.regression import LinearRegressor, contributions
from equimark.warps import PRESETS, Warp, turned

Tile = float | Literal["warped", "other"]

_FACES: tuple[tuple[Tile, ...], ...] = (
    (0, -30, 30, "warped", "warped", "warped", "warped"),
    ("other",) * 7,
    ("other",) * 7,
)  # 2017, figure 5


# ---- instances -----------------------------------------------------------------------------------------------


def instances(
    exhibits: Mapping[str, Exhibit],
    *,
    rows: Sequence[Sequence[Tile]] = _FACES,
    preset: str | None = None,
    seed: int | None = 0,
    title: str = "Landmarks found without labels, on an image that is turned and warped, and on different ones",
) -> Figure:
    """Landmarks on images turned and warped, and on different ones (2017, figures 3 to 5; supplement, 3 to 5).

    Args:
        exhibits: sparse runs by name, one below the other, each with its images. The name stands beside several.
        rows: of each run, as tiles: a number is the row's own image, turned counter-clockwise by as many degrees (0 is
            the original); ``warped`` is that image under a random warp; ``other`` is a further image.
        preset: of the warps, the second of its pair; that of the run's training if absent, or of ``faces`` if that
            does nothing.
        seed: of the choice of images and of the warps; images are taken in their order if it is None.
        title: of the figure.

    Raises:
        ModelError: for runs without landmarks of their own, or an unknown tile or preset.
    """
    _check_tiles(rows, preset)
    count, notes = len(rows), _notes([*rows] * len(exhibits))
    figure, axes = marks.board(
        count * len(exhibits),
        max(map(len, rows)),
        title,
        labelled=len(exhibits) > 1,
        noted=any(any(row) for row in notes[1:]),
        before_rows=range(count, count * len(exhibits), count) if count > 1 else (),
        before_columns=_changes(rows),
    )
    for block, exhibit in enumerate(exhibits.values()):
        plan = _choose_images(len(exhibit), rows, seed)
        tiles = [(row, column) for row, own in enumerate(rows, block * count) for column in range(len(own))]
        for (row, column), (image, points) in zip(tiles, _show_tiles(exhibit, plan, preset, seed), strict=True):
            plots.show(axes[row, column], image, notes[row][column])
            marks.draw_landmarks(axes[row, column], points)
    if len(exhibits) > 1:
        plots.label_rows(axes[::count], list(exhibits))
    marks.remove_empty(list(axes.flat))
    return figure


def _check_tiles(rows: Sequence[Sequence[Tile]], preset: str | None) -> None:
    wrong = [tile for row in rows for tile in row if isinstance(tile, str) and tile not in ("warped", "other")]
    if wrong or not any(rows):
        raise ModelError(f"a tile is a number of degrees, 'warped' or 'other', and there is at least one; got {rows}")
    if preset is not None and preset not in PRESETS:
        raise ModelError(f"no preset {preset!r} of warps; there are {', '.join(PRESETS)}")


def _notes(rows: Sequence[Sequence[Tile]]) -> list[list[str]]:
    """What stands above each tile; nothing where it would repeat what stands above."""
    above: dict[int, str] = {}
    notes = []
    for row in rows:
        texts = [_note(tile) for tile in row]
        notes.append(["" if above.get(column) == text else text for column, text in enumerate(texts)])
        above = dict(enumerate(texts))
    return notes


def _note(tile: Tile) -> str:
    if isinstance(tile, str):
        return "warped" if tile == "warped" else ""
    return f"{tile:+g}°".replace("-", "−") if tile else "original"


def _changes(rows: Sequence[Sequence[Tile]]) -> tuple[int, ...]:
    """Where every row goes over from its own image to others, if all do so at the same place."""
    places = {next((i for i, tile in enumerate(row) if i and tile == "other" != row[i - 1]), 0) for row in rows}
    return tuple(places - {0}) if len(places) == 1 else ()


def _choose_images(available: int, rows: Sequence[Sequence[Tile]], seed: int | None) -> list[tuple[int, Tile]]:
    """An image for each tile, and the tile. Images are taken again when there are no more."""
    order = cycle(choose(available, available, seed).tolist())
    plan: list[tuple[int, Tile]] = []
    for row in rows:
        own = next(order) if any(tile != "other" for tile in row) else -1
        plan += [(next(order) if tile == "other" else own, tile) for tile in row]
    return plan


def _show_tiles(
    exhibit: Exhibit, plan: Sequence[tuple[int, Tile]], preset: str | None, seed: int | None
) -> list[tuple[plots.Image, Points]]:
    """The view of each tile, and its landmarks (K, 2)."""
    model, images = exhibit.model, torch.tensor([image for image, _ in plan])
    spec = PRESETS[preset][1] if preset else model.config.pairs.second
    spec = PRESETS["faces"][1] if spec.is_identity and preset is None else spec
    drawn = warps.draw(spec, len(plan), generator=torch.Generator().manual_seed(seed or 0))
    warped = torch.tensor([tile == "warped" for _, tile in plan])
    turns = turned([0 if isinstance(tile, str) else tile for _, tile in plan])
    warp = Warp(
        drawn.weights * warped[:, None, None],
        torch.where(warped[:, None, None], drawn.linear, turns.linear),
        drawn.shift * warped[:, None],
    )
    pair = WarpPair(warp, turned([0.0] * len(plan)), model.frame.size, exhibit.margin)
    views = pair.views(exhibit.frames[images].float() / 255).target
    return list(zip(pictures(views), landmarks_in(model, views), strict=True))


# ---- regression ----------------------------------------------------------------------------------------------


def regression(
    exhibits: Mapping[str, Exhibit],
    *,
    examples: int = 7,
    columns: int = 4,
    eyes: tuple[int, int] | None = None,
    seed: int | None = 0,
    title: str = "Annotated landmarks (right of each pair) derived from those found without labels (left)",
) -> Figure:
    """Landmarks found, and the annotated ones derived from them (2017, figure 6; supplement, figures 6 to 8).

    Above each pair stands the mean error of its landmarks. The last pair of each run is its failure case: the worst of
    all its images.

    Args:
        exhibits: sparse runs by name, each with images, annotated landmarks and a head.
        examples: images of each run, beside the failure case.
        columns: pairs in a row.
        eyes: the two landmarks in percent of whose distance errors are given; in pixels of the frame if absent.
        seed: of the choice of images; the first are taken if it is None.
        title: of the figure.

    Raises:
        ModelError: if a run has no landmarks of its own, no annotated landmarks or no head.
    """
    chosen = {name: _with_worst(exhibit, examples, eyes, seed) for name, exhibit in exhibits.items()}
    columns = min(columns, max(len(rows) for rows, _ in chosen.values()))
    begins = np.cumsum([0, *(-(-len(rows) // columns) for rows, _ in chosen.values())])
    figure, axes = marks.board(
        int(begins[-1]),
        2 * columns,
        title,
        key={"predicted": marks.dot(marks.PREDICTED, 7), "annotated": marks.dot(marks.TRUE, 4.5)},
        labelled=len(exhibits) > 1,
        noted=True,
        before_rows=begins[1:-1].tolist(),
        before_columns=range(2, 2 * columns, 2),
    )
    for begin, (name, exhibit) in zip(begins.tolist(), exhibits.items(), strict=False):
        rows, errors = chosen[name]
        pairs = axes[begin:].reshape(-1, 2)[: len(rows)]
        for pair, row, error in zip(pairs, rows, errors, strict=True):
            _draw_pair(pair, exhibit, row)
            marks.note_above(pair[1], f"{error:.1f} {'%' if eyes else 'px'}")
        marks.note_above(pairs[-1, 0], "failure case", marks.FAILURE)
        for ax in pairs[-1]:
            marks.frame(ax, marks.FAILURE)
    if len(exhibits) > 1:
        plots.label_rows(axes[begins[:-1]], list(exhibits))
    marks.remove_empty(list(axes.flat))
    return figure


def _with_worst(
    exhibit: Exhibit, examples: int, eyes: tuple[int, int] | None, seed: int | None
) -> tuple[Rows, NDArray[np.float64]]:
    """Some images and the worst of all, which comes last; and their mean errors."""
    everyone = np.arange(len(exhibit))
    truth, predicted = exhibit.annotated(everyone), exhibit.predicted(everyone)
    shares = 100 / Scale.between(*eyes).lengths(truth)[:, None] if eyes else 1.0
    errors = metrics.by_point((metrics.distances(predicted, truth) * shares).T)
    if np.isnan(errors).all():
        raise ModelError("no image of the figure shows annotated landmarks whose error can be told")
    worst = int(np.nanargmax(errors))
    known = everyone[np.isfinite(errors) & (everyone != worst)]
    rows = np.append(known[choose(len(known), examples, seed)], worst)
    return rows, errors[rows]


def _draw_pair(pair: NDArray[np.object_], exhibit: Exhibit, row: int) -> None:
    rows = np.array([row])
    view = exhibit.views(rows)
    for ax in pair:
        plots.show(ax, pictures(view)[0])
    marks.draw_landmarks(pair[0], landmarks_in(exhibit.model, view)[0])
    marks.draw_prediction(pair[1], exhibit.predicted(rows)[0], exhibit.annotated(rows)[0])


# ---- contributions -------------------------------------------------------------------------------------------


def contribution_arrows(
    exhibits: Mapping[str, Exhibit],
    *,
    title: str = "What each annotated landmark is derived from",
) -> Figure:
    """From which landmarks of a sparse run its head derives the annotated ones (2017, figure 7).

    They are drawn on the most typical image: whose annotated landmarks are nearest to their mean over all images.

    Args:
        exhibits: one sparse run, with images, annotated landmarks and a head.
        title: of the figure.

    Raises:
        ModelError: if there are several runs, or one without landmarks of its own, annotated landmarks or a head.
    """
    exhibit = only(exhibits)
    truth = exhibit.annotated(np.arange(len(exhibit)))
    typical = np.array([_most_typical(truth)])
    found, regressor = landmarks_in(exhibit.model, exhibit.views(typical))[0], exhibit.head and exhibit.head.regressor
    if not isinstance(regressor, LinearRegressor):
        raise ModelError("this figure needs landmarks fitted on the run (equimark.head.fit_head)")
    return plots.contribution_graph(
        pictures(exhibit.views(typical))[0],
        found,
        truth[typical[0]],
        contributions(regressor.weights).numpy(),
        title=title,
    )


def _most_typical(truth: Points) -> int:
    """The image that shows most landmarks (N, J, 2), and these nearest to their mean over all images."""
    distances = metrics.distances(truth, metrics.mean_shape(truth))
    shown = np.isfinite(distances).sum(1)
    offsets = np.where(shown == shown.max(), np.nan_to_num(distances).sum(1), np.inf)
    return int(offsets.argmin())


# ---- lighting ------------------------------------------------------------------------------------------------


def lighting(
    exhibits: Mapping[str, Exhibit],
    *,
    subjects: int = 2,
    lights: int = 5,
    seed: int | None = 0,
    title: str = "Landmarks of registered images under different lights: those of a subject should stand still",
) -> Figure:
    """Landmarks on subjects under several lights, by several runs (2017, supplement, figure 2).

    Each subject has a block: its lights in rows, the runs in columns. Below stands by how much the landmarks move: the
    median distance from where they are under the other lights, which is 0 for ideal ones as images are registered.

    Args:
        exhibits: sparse runs by name, each with the same images, labelled by subject.
        subjects: how many, in the order of the images.
        lights: images of each subject, at most.
        seed: of the choice of lights; the first are taken if it is None.
        title: of the figure.

    Raises:
        ModelError: for runs without landmarks of their own, or on different images.
    """
    labels = np.array(same_images(exhibits).labels or [""] * len(same_images(exhibits)))
    names = list(dict.fromkeys(labels.tolist()))[:subjects]
    blocks = [own[choose(len(own), lights, seed)] for own in (np.flatnonzero(labels == name) for name in names)]
    runs = len(exhibits)
    figure, axes = marks.board(
        max(map(len, blocks)),
        runs * len(blocks),
        title,
        below=0.16,
        before_columns=range(runs, runs * len(blocks), runs),
    )
    for block, rows in enumerate(blocks):
        for place, (name, exhibit) in enumerate(exhibits.items()):
            column = axes[: len(rows), block * runs + place]
            views = exhibit.views(rows)
            points = landmarks_in(exhibit.model, views)
            for ax, image, own in zip(column, pictures(views), points, strict=True):
                plots.show(ax, image)
                marks.draw_landmarks(ax, own)
            marks.note_above(column[0], name)
            marks.note_below(column[-1], f"moves {_unrest(points):.1f} px")
    marks.remove_empty(list(axes.flat))
    return figure


def _unrest(points: Points) -> float:
    """Median distance of landmarks (B, K, 2) from their median place over the B images."""
    return float(np.median(metrics.distances(points, np.median(points, 0))))
