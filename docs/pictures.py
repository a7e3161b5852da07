"""The pictures of methods.md, on drawn people and a drawn arm, by the runs of the demonstration.

    make demo
    .venv/bin/python docs/pictures.py --runs runs/demo

Some two minutes on two cores. All people shown are people that no network has learned from.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import equimark
from equimark import geometry, matching, metrics, objectives, plots, segmentation, thin_plate
from equimark.demo import SIDE, TEST_IMAGES, TRAINING_IMAGES
from equimark.evaluation import draw_labels
from equimark.figures import DRAWINGS, Exhibit, marks
from equimark.figures.exhibits import pictures
from equimark.geometry import Cells
from equimark.head import fit_head
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.pairs import PairBatch, PairSpec, draw_warps
from equimark.plots import MUTED
from equimark.prototypes import tolerance_of
from equimark.synthetic import PARTS, Portraits, arm, portraits, write, write_parts
from equimark.training import fresh_network
from equimark.warps import PRESETS, WarpSpec, draw

DPI = 120
COLOURS = 256  # of a picture's palette: a quarter of the bytes, and nobody sees it
GOAL = "#19d9f2"  # colour of the place where a point belongs
VISIBLE = (4, 9, 17, 23, 24, 41)  # unseen people that a reader can see well: others are as pale as old photographs
LABELLED = 20  # portraits with parts, to learn a segmentation from
VIDEOS = 300  # pairs of frames, to learn from motion that is not known
MOTION = WarpSpec(bend=0.001, extra_bend=0.004, rotation=5, translation=0.05, scale=0.03)


@dataclass(frozen=True)
class Scene:
    """What the pictures show.

    Args:
        runs: ``dense``, ``dve`` and ``sparse``.
        people: of the demonstration; the first 800 are those that the runs learned from.
        frames: all of them (N, 3, S, S) uint8.
    """

    runs: dict[str, LandmarkModel]
    folder: Path
    people: Portraits
    frames: Tensor

    @classmethod
    def of(cls, folder: Path) -> Scene:
        """The runs of a demonstration in a folder, and the people that it draws."""
        runs = {name: LandmarkModel.load(folder / name, device="cpu") for name in ("dense", "dve", "sparse")}
        people = portraits(TRAINING_IMAGES + TEST_IMAGES, seed=0, size=SIDE)
        return cls(runs, folder, people, torch.from_numpy(people.images).movedim(-1, 1).contiguous())

    @property
    def unseen(self) -> Tensor:
        """Frames (B, 3, S, S) of the people that no run has learned from."""
        return self.frames[TRAINING_IMAGES:]

    @property
    def unseen_points(self) -> NDArray[np.float64]:
        """Their 68 landmarks (B, 68, 2)."""
        return self.people.landmarks[TRAINING_IMAGES:].astype(np.float64)


def _night(image: plots.Image) -> plots.Image:
    """An image on which colours shine."""
    return np.asarray(0.12 * image + 0.38 * image.mean(-1, keepdims=True), np.uint8)


def _say(ax: Axes, text: str) -> None:
    """A short text in the lower left corner of a tile."""
    ax.text(0.03, 0.03, text, transform=ax.transAxes, fontsize=7.5, color="white", zorder=6)


# ---- warps ---------------------------------------------------------------------------------------------------


def draw_presets(scene: Scene) -> Figure:
    """Both views of two people by each preset."""
    names = ("faces", "mnist", "dve", "dve-evaluation")
    frames = torch.from_numpy(portraits(2, seed=5, size=100).images).movedim(-1, 1).contiguous()
    batches = [_pairs(frames, PairSpec(15, *PRESETS[name]), seed=4)[0] for name in names]
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


def _pairs(
    frames: Tensor, spec: PairSpec, *, points: NDArray[np.float64] | None = None, seed: int = 0
) -> tuple[PairBatch, Tensor, Tensor]:
    """Pairs without photometric change, and where points (B, K, 2) of the frames lie in the two views."""
    drawn = draw_warps(spec, len(frames), frames.shape[-1], generator=torch.Generator().manual_seed(seed))
    given = torch.zeros(len(frames), 1, 2) if points is None else torch.from_numpy(points).float()
    return drawn.views(frames.float() / 255), drawn.move_to_source(given), drawn.move_to_target(given)


# ---- sparse landmarks ----------------------------------------------------------------------------------------


def draw_sparse(scene: Scene, count: int = 5) -> Figure:
    """Landmarks, their probability maps, and what the diversity sees of them."""
    model = scene.runs["sparse"]
    views = _inner(scene.unseen[list(VISIBLE[:count])], model)
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
        plots.show(column[1], _night(image))
        _draw_maps(column[1], heat, colours, cells)
        plots.show(column[2], _night(image))
        _draw_blocks(column[2], blocks, colours, cells, window)
        left = len(heat) - blocks.max(0).sum()
        marks.note_below(column[2], f"diversity term {left:.2f}")
    plots.label_rows(axes, ("landmarks", "p(u | x, r)", "max over r"))
    return figure


def _inner(frames: Tensor, model: LandmarkModel) -> Tensor:
    """What the margin leaves of frames, as the network saw them in training."""
    margin = model.config.pairs.margin
    return frames[..., margin:-margin, margin:-margin].float() / 255


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


# ---- dense descriptors ---------------------------------------------------------------------------------------

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
            _draw_goal(ax, goal)
            _say(ax, f"off by {_off(heat[row, column - 1], goal, model.network.cells):.1f} px")
    return figure


def _views_of(scene: Scene, people: Sequence[int], seed: int) -> tuple[PairBatch, Tensor, Tensor]:
    """Pairs of unseen people as in training, and their landmarks in both views."""
    spec, rows = scene.runs["dve"].config.pairs, list(people)
    return _pairs(scene.unseen[rows], spec, points=scene.unseen_points[rows], seed=seed)


def _where(model: LandmarkModel, pairs: PairBatch, points: Tensor) -> Tensor:
    """p(v | u) (P, h, w) in the target of points (P, 2) of the source."""
    source, target = model.features_of(pairs.source), model.features_of(pairs.target)
    described = matching.describe_points(source, model.network.cells.to_cells(points)[None])
    return geometry.spatial_softmax(matching.similarity(described, target))[0]


def _off(heat: Tensor, goal: Tensor, cells: Cells) -> float:
    """Expected distance, in pixels, of a place drawn from a map (h, w) to its goal (2,): equation 3 of one point."""
    places = cells.to_pixels(geometry.pixel_grid((heat.shape[-2], heat.shape[-1])))
    return float(((places - goal).norm(dim=-1) * heat).sum())


def _draw_goal(ax: Axes, goal: Tensor) -> None:
    x, y = goal.tolist()
    ax.scatter([x], [y], s=230, facecolors="none", edgecolors=GOAL, linewidths=1.2, zorder=5)


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
        cells, auxiliary = model.network.cells, _inner(scene.unseen[[other]], model)
        maps = _by_way(model, pairs, auxiliary, points[:, list(shown)])
        for place, (landmark, colour) in enumerate(zip(shown, plots.palette(len(shown)), strict=True)):
            tiles = row[3 * place : 3 * place + 3]
            plots.show(tiles[0], pictures(pairs.source)[0])
            plots.draw_points(tiles[0], points[0, landmark][None].double().numpy(), colour[None], size=60)
            for ax, image, heat in zip(tiles[1:], (auxiliary, pairs.target), maps, strict=True):
                plots.show(ax, _night(pictures(image)[0]))
                plots.draw_heat(ax, heat[0, place].numpy(), cells)
            own = scene.unseen_points[other, landmark] - model.config.pairs.margin
            _draw_goal(tiles[1], torch.from_numpy(own))
            _draw_goal(tiles[2], goals[0, landmark])
            _say(tiles[2], f"off by {_off(maps[1][0, place], goals[0, landmark], cells):.1f} px")
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
    auxiliaries = _inner(scene.unseen[1 : count + 1], model)
    maps, size = _by_way(model, pairs, auxiliaries, points[:, list(landmarks)])[1], pairs.source.shape[-2:]
    seen = geometry.inside(points, (size[0], size[1])) & geometry.inside(goals, (size[0], size[1]))
    errors = [
        _off(maps[i, k], goals[i, landmark], model.network.cells)
        for i in range(count)
        for k, landmark in enumerate(landmarks)
        if seen[i, landmark]
    ]
    return float(np.mean(errors))


# ---- pairs that are not warped -------------------------------------------------------------------------------


def draw_pairs(scene: Scene, count: int = 3) -> Figure:
    """Registered pairs under two lights, and frames of a video with their flow."""
    title = "Pairs that are not warped: two registered images (left), a frame and the next one with its flow (right)"
    figure, axes = plots.sheet(2, 2 * count, title, labelled=True, before_columns=(count,))
    rng = np.random.default_rng(3)
    people = scene.people.images[TRAINING_IMAGES + np.array(VISIBLE[:count])]
    for column, above, below in zip(axes.T, _lit(people, rng), _lit(people, rng), strict=False):
        places = np.stack(np.meshgrid(*2 * [np.linspace(12, SIDE - 13, 4)]), -1).reshape(-1, 2)
        for ax, image in zip(column, (above, below), strict=True):
            plots.show(ax, image)
            plots.draw_points(ax, places, plots.position_colours(places, (SIDE, SIDE)), size=20)
    video = arm(60, seed=2, speed=8)
    for column, frame in zip(axes.T[count:], (6, 22, 41), strict=True):
        position, seen = video.flow(frame, frame + 1)
        places = _on_the_arm(position, seen)
        moved = position[places[:, 1], places[:, 0]]
        colours = plots.position_colours(places, (90, 90))
        for ax, image, own in zip(column, video.images[frame : frame + 2], (places, moved), strict=True):
            plots.show(ax, image)
            plots.draw_points(ax, own, colours, size=16)
        for begin, end, colour in zip(places, moved, colours, strict=True):
            ends = [(float(x), float(y)) for x, y in (begin, end)]
            column[1].add_patch(FancyArrowPatch(*ends, arrowstyle="-", color=tuple(colour), linewidth=1.2))
    plots.label_rows(axes, ("source", "target"))
    return figure


def _lit(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Images (N, S, S, 3) under strong light from a random side each."""
    angles = rng.uniform(0, 2 * np.pi, len(images))[:, None, None]
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, images.shape[1])])
    shade = 0.95 / (1 + np.exp(-4 * (x * np.cos(angles) + y * np.sin(angles)))) + 0.3
    return np.asarray((images * shade[..., None]).clip(0, 255), np.uint8)


def _on_the_arm(position: NDArray[np.float32], seen: NDArray[np.bool_], spacing: int = 7) -> NDArray[np.int64]:
    """Pixels (P, 2) of a coarse grid that move and stay in sight."""
    x, y = np.meshgrid(*2 * [np.arange(3, len(position), spacing)])
    places = np.stack([x, y], -1).reshape(-1, 2)
    moves = np.linalg.norm(position[places[:, 1], places[:, 0]] - places, axis=-1) > 0.5
    kept: NDArray[np.int64] = places[moves & seen[places[:, 1], places[:, 0]]]
    return kept


def draw_unknown(scene: Scene, count: int = 2) -> Figure:
    """Landmarks learned from pairs of unknown motion, and the warp that is fitted through them."""
    model = _learn_from_motion(scene)
    source, target = (_inner(frames, model) for frames in (scene.unseen, _moved(scene.unseen, seed=1)))
    size = (source.shape[-2], source.shape[-1])
    ends = [
        model.network.cells.to_pixels(geometry.soft_argmax(geometry.spatial_softmax(model.features_of(views))))
        for views in (source, target)
    ]
    spline = thin_plate.fit(
        *(geometry.normalise(end, size) for end in ends), stiffness=objectives.STIFFNESS, rigidity=objectives.RIGIDITY
    )
    still = geometry.pixel_grid(size)
    looked_at = spline(geometry.normalise(still, size)[None])
    inside = (looked_at.abs() <= 1).all(-1)
    back = geometry.sample_normalised(target, looked_at)
    before, after = ((source - each).square().mean(1) * inside for each in (target, back))
    title = f"Motion unknown: the warp through eight landmarks leaves {100 * after.sum() / before.sum():.0f} % of the "
    title += f"squared difference of two frames ({len(source)} people held out)"
    figure, axes = plots.sheet(count, 5, title, before_columns=(2, 3))
    lines = list(np.linspace(2, size[0] - 3, 7).round().astype(int))
    bent = geometry.denormalise(looked_at, size)
    for row, i in zip(axes, VISIBLE[:count], strict=True):
        for ax, views, end, places in zip(row, (source, target), ends, (still, bent[i]), strict=False):
            plots.show(ax, pictures(views[[i]])[0])
            plots.draw_grid(ax, places.double().numpy(), lines, lines)
            plots.draw_points(ax, end[i].double().numpy(), plots.palette(end.shape[1]), size=42)
        plots.show(row[2], pictures(back[[i]])[0])
        for ax, error in zip(row[3:], (before[i], after[i]), strict=True):
            ax.imshow(error.sqrt(), cmap="inferno", vmin=0, vmax=before[i].sqrt().max(), interpolation="bicubic")
            _say(ax, f"{100 * error.sum() / before[i].sum():.0f} %")
    notes = ("first frame", "second frame", "second, moved back", "difference before", "difference after")
    for ax, note in zip(axes[0], notes, strict=True):
        marks.note_above(ax, note)
    return figure


def _learn_from_motion(scene: Scene) -> LandmarkModel:
    """Eight landmarks from pairs of frames, whose motion nobody tells."""
    first = scene.frames[:VIDEOS]
    both = torch.stack([first, _moved(first, seed=0)], 1).flatten(0, 1).movedim(1, -1).contiguous().numpy()
    names = [f"{i // 2:03d}/{'ab'[i % 2]}" for i in range(len(both))]  # a folder for each video
    settings = {"frame.size": SIDE, "pairs.margin": scene.runs["sparse"].config.pairs.margin, "batch_size": 8}
    with tempfile.TemporaryDirectory() as folder:
        run = equimark.train(
            PackedImages.from_array(both, names),
            Path(folder) / "run",
            recipe="sparse-unknown-warp",
            steps=300,
            **settings,
            **{"network.channels": 8},
        )
        return run.model


def _moved(frames: Tensor, seed: int) -> Tensor:
    """Frames (N, 3, S, S) a moment later."""
    motion = draw(MOTION, len(frames), generator=torch.Generator().manual_seed(seed))
    grid = geometry.normalise(geometry.pixel_grid((SIDE, SIDE)), (SIDE, SIDE))[None]
    return geometry.sample_normalised(frames.float(), motion(grid)).round().byte()


# ---- with labels ---------------------------------------------------------------------------------------------


def draw_segmentation(scene: Scene, count: int = 6) -> Figure:
    """Parts learned from few portraits, from nothing and on the landmark network."""
    truth = scene.people.parts[TRAINING_IMAGES:]
    found = {name: _segment(scene, name) for name in ("scratch", "pretrained")}
    shares = {name: segmentation.pixel_accuracy_percent(parts, truth) for name, parts in found.items()}
    title = f"Parts learned from {LABELLED} labelled portraits: {{}} % of the pixels of others are right from nothing, "
    title += "{} % on three frozen layers of the landmark network"
    figure, axes = plots.sheet(4, count, title.format(*(f"{share:.0f}" for share in shares.values())), labelled=True)
    colours = np.concatenate([np.ones((1, 3)), plots.palette(len(PARTS))])
    for column, i in zip(axes.T, VISIBLE[:count], strict=True):
        plots.show(column[0], pictures(scene.unseen[[i]] / 255)[0])
        for ax, parts in zip(column[1:], (truth, *found.values()), strict=True):
            plots.show(ax, colours[parts[i]], smooth=False)
    plots.label_rows(axes, ("image", "drawn", "from nothing", "transferred"))
    return figure


def _segment(scene: Scene, transfer: str) -> NDArray[np.uint8]:
    """The parts (N, S, S) of unseen people by a segmentation of twenty labelled ones."""
    settings = {"frame.size": SIDE, "pairs.margin": scene.runs["sparse"].config.pairs.margin, "batch_size": 10}
    with tempfile.TemporaryDirectory() as folder:
        images, parts = Path(folder) / "images", Path(folder) / "parts"
        write(images, scene.people.images[:LABELLED], scene.people.landmarks[:LABELLED])
        write_parts(parts, scene.people.parts[:LABELLED])
        run = equimark.train(
            images,
            Path(folder) / "run",
            recipe=f"segmentation-{transfer}",
            parts=parts,
            start_from=None if transfer == "scratch" else scene.folder / "sparse",
            steps=200,
            **settings,
        )
        return run.model.segment_frames(scene.unseen)


def draw_contributions(scene: Scene) -> Figure:
    """From which landmarks of the run five annotated ones are derived."""
    model, points = scene.runs["sparse"], scene.people.landmarks5.astype(np.float64)
    head = fit_head(model, scene.frames[:100], points[:100])
    shown = Exhibit(model, scene.unseen, points[TRAINING_IMAGES:], head)
    return DRAWINGS["contributions"]({"eight landmarks": shown})


# ---- confidence ----------------------------------------------------------------------------------------------


def draw_reliability(scene: Scene, labels: Sequence[int] = (5, 20, 100), draws: int = 3) -> Figure:
    """Confidence of 68 landmarks on unseen people against how many are right."""
    model, points = scene.runs["dve"], scene.people.landmarks[:TRAINING_IMAGES].astype(np.float64)
    found = {}
    for count in labels:
        said, right = [], []
        for seed in range(draws):
            rows = draw_labels(np.ones(TRAINING_IMAGES, np.bool_), count, seed)
            positions, confidence = fit_head(model, scene.frames[rows], points[rows]).locate_frames(scene.unseen)
            said.append(confidence)
            near = tolerance_of(torch.from_numpy(points[rows]))
            right.append(metrics.distances(positions, scene.unseen_points) <= near)
        found[f"{count} labels"] = metrics.reliability(np.concatenate(said), np.concatenate(right))
    return plots.reliability(found)


# ---- all -----------------------------------------------------------------------------------------------------

DRAWN = {
    "warps": draw_presets,
    "sparse": draw_sparse,
    "contributions": draw_contributions,
    "pairs": draw_pairs,
    "unknown": draw_unknown,
    "matching": draw_matching,
    "exchange": draw_exchange,
    "reliability": draw_reliability,
    "segmentation": draw_segmentation,
}


def save(figure: Figure, path: Path) -> None:
    """Write a small PNG."""
    drawn: Any = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    method = Image.Quantize.MAXCOVERAGE  # the median cut gives small marks the colours of their surroundings
    small = Image.open(drawn).convert("RGB").quantize(COLOURS, method, kmeans=1, dither=Image.Dither.NONE)
    small.save(path, format="PNG", optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="what make demo has made")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--only", nargs="*", choices=DRAWN, default=tuple(DRAWN))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    scene = Scene.of(arguments.runs)
    for name in arguments.only:
        save(DRAWN[name](scene), arguments.out / f"{name}.png")


if __name__ == "__main__":
    main()
