"""What fine-tuning on a target set, registered pairs, given flow and unknown motion improve, on drawn sets.

    python benchmarks/special_pairs.py --out runs/special --seed 0

A sparse run learns from warped portraits in even light. Two sets that it has not seen are made from other portraits:

* *lights*: each portrait under two strong lights, as in Extended Yale B. Measured is how far the landmarks move when
  only the light changes, on people held out: as it is, fine-tuned on warps of the lit images, fine-tuned on registered
  pairs.
* *videos*: each portrait moved a little from frame to frame. Measured on people held out is how far the landmarks of
  the second frame are from where the motion, which no training sees, takes those of the first, beside landmarks that
  stand still in the same places; and how much of the squared difference of the frames is left when the warp fitted
  through the landmarks undoes the motion. Learned from the flow, from pairs of unknown motion alone, and from the
  diversity alone.

``--only`` makes one of the two. Each run leaves a file of results in OUT/results, of which ``equimark tabulate
--over-seeds`` makes a table.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import equimark
from equimark import checkpoint, geometry, objectives, plots, provenance, thin_plate
from equimark.files import write_text
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
from equimark.results import Results
from equimark.run import Run
from equimark.synthetic import portraits
from equimark.warps import Warp, WarpSpec, draw

SIDE, MARGIN, LANDMARKS = 64, 8, 8
MOTION = WarpSpec(bend=0.001, extra_bend=0.004, rotation=5, translation=0.05, scale=0.03)
BASE = {"frame.size": SIDE, "pairs.margin": MARGIN, "network.channels": LANDMARKS, "batch_size": 8}
STILL = {"bend": 0, "extra_bend": 0, "rotation": 0, "translation": 0, "scale": 0}
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Pairs:
    """Two images (N, S, S, 3) of each person; the second shows at p what the first shows at ``motion(p)``."""

    first: Images
    second: Images
    motion: Warp | None = None

    def packed(self) -> PackedImages:
        """A folder for each person, with the flow of the first image if there is a motion."""
        both = np.stack([self.first, self.second], 1).reshape(-1, SIDE, SIDE, 3)
        images = PackedImages.from_array(both, [f"{i // 2:05d}/{'ab'[i % 2]}" for i in range(len(both))])
        if self.motion is None:
            return images
        flow = np.full((len(both), SIDE, SIDE, 2), np.nan, np.float16)
        grid = geometry.pixel_grid((SIDE, SIDE))
        for i in range(len(self.first)):
            flow[2 * i] = (_undo(self.motion[i : i + 1], grid[None])[0] - grid).numpy()
        return images.with_labels(flow=flow)


def light(images: Images, rng: np.random.Generator) -> Images:
    """Images (N, S, S, 3) under strong light from a random side each."""
    angles = rng.uniform(0, 2 * np.pi, len(images))
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, SIDE)])
    along = x * np.cos(angles)[:, None, None] + y * np.sin(angles)[:, None, None]
    shade = 1 / (1 + np.exp(-4 * along)) * 1.3 + 0.08
    return (images * shade[..., None]).clip(0, 255).astype(np.uint8)


def make_lights(people: Images, rng: np.random.Generator) -> Pairs:
    return Pairs(light(people, rng), light(people, rng))


def make_videos(people: Images, generator: torch.Generator) -> Pairs:
    motion = draw(MOTION, len(people), generator=generator)
    size = (SIDE, SIDE)
    grid = geometry.normalise(geometry.pixel_grid(size), size)[None]
    frames = torch.from_numpy(people).movedim(-1, 1).float()
    moved = geometry.sample_normalised(frames, motion(grid)).round().byte()
    return Pairs(people, moved.movedim(1, -1).contiguous().numpy(), motion)


def as_frames(images: Images) -> torch.Tensor:
    return torch.from_numpy(images).movedim(-1, 1).contiguous()


def landmarks(model: LandmarkModel, images: Images) -> torch.Tensor:
    """Landmarks (N, K, 2) in pixels of the frame."""
    return model.network.cells.to_pixels(model.landmarks_of(as_frames(images)).positions)


def disagreement(model: LandmarkModel, pairs: Pairs) -> dict[str, float]:
    """Mean distance, in pixels, between the landmarks of the second images and where those of the first belong."""
    first, second = (landmarks(model, images) for images in (pairs.first, pairs.second))
    distinct = objectives.distinct_landmarks(second)
    return {"disagreement_px": _apart(second, _moved(pairs, first)), "distinct_landmarks": distinct}


def following(model: LandmarkModel, pairs: Pairs) -> dict[str, float]:
    """How well landmarks follow a motion, on what the margin leaves of the frames, as in training.

    ``disagreement_px`` as of :func:`disagreement`, ``standing_still_px`` of landmarks that stay where each is on
    average, ``appearance_share``: squared error with the fitted warp to that without a warp, over the same pixels.
    """
    frames = [as_frames(images) for images in (pairs.first, pairs.second)]
    views = [frame[..., MARGIN:-MARGIN, MARGIN:-MARGIN].float() / 255 for frame in frames]
    first, second = (_landmarks_of_views(model, view) for view in views)
    still = first.mean(0, keepdim=True).expand_as(first)
    return {
        "disagreement_px": _apart(second + MARGIN, _moved(pairs, first + MARGIN)),
        "standing_still_px": _apart(still + MARGIN, _moved(pairs, still + MARGIN)),
        "appearance_share": _appearance_share(*views, first, second),
        "distinct_landmarks": objectives.distinct_landmarks(second),
    }


def _landmarks_of_views(model: LandmarkModel, views: torch.Tensor) -> torch.Tensor:
    """Landmarks (N, K, 2) in pixels of views (N, 3, H, W) in [0, 1]."""
    maps = geometry.spatial_softmax(model.features_of(views))
    return model.network.cells.to_pixels(geometry.soft_argmax(maps))


def _moved(pairs: Pairs, points: torch.Tensor) -> torch.Tensor:
    """Where points (N, K, 2) of the first images belong in the second."""
    return points if pairs.motion is None else _undo(pairs.motion, points)


def _undo(motion: Warp, points: torch.Tensor) -> torch.Tensor:
    """Where points (N, ..., 2), in pixels of the first images, lie in the second ones."""
    size = (SIDE, SIDE)
    return geometry.denormalise(motion.inverse(geometry.normalise(points, size)), size)


def _apart(points: torch.Tensor, others: torch.Tensor) -> float:
    return float((points - others).norm(dim=-1).nanmean())


def _appearance_share(source: torch.Tensor, target: torch.Tensor, *ends: torch.Tensor) -> float:
    """What the spline through the landmarks leaves of the squared difference of views (N, 3, H, W)."""
    size = (source.shape[-2], source.shape[-1])
    source_points, target_points = (geometry.normalise(end, size) for end in ends)
    spline = thin_plate.fit(source_points, target_points, stiffness=objectives.STIFFNESS, rigidity=objectives.RIGIDITY)
    looked_at = spline(geometry.normalise(geometry.pixel_grid(size), size)[None])
    inside = (looked_at.abs() <= 1).all(-1)
    left = (source - geometry.sample_normalised(target, looked_at)).square().mean(1)[inside].sum()
    return float(left / (source - target).square().mean(1)[inside].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=800, help="of the first run; fine-tuning takes a third")
    parser.add_argument("--video-steps", type=int, default=300, help="of the runs on videos")
    parser.add_argument("--videos", type=int, default=300, help="to learn from, at most 900")
    parser.add_argument("--only", choices=("lights", "videos"))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    people = portraits(1000, seed=arguments.seed, size=SIDE).images
    for name, compare in (("lights", compare_lights), ("videos", compare_videos)):
        if arguments.only in (None, name):
            compare(people, arguments)


def compare_lights(people: Images, arguments: argparse.Namespace) -> None:
    """Landmarks under two lights: of a run in even light, fine-tuned on warps, fine-tuned on registered pairs."""
    seed, out, rng = arguments.seed, arguments.out, np.random.default_rng(arguments.seed)
    first = equimark.train(
        PackedImages.from_array(people[:600]), out / "even-light", recipe="sparse-10", overwrite=True, seed=seed,
        steps=arguments.steps, **BASE,
    )  # fmt: skip
    pairs, unseen = make_lights(people[600:900], rng), make_lights(people[900:], rng)
    tuning: dict[str, Any] = {"steps": arguments.steps // 3, "seed": seed, "overwrite": True, "optimiser.lr": 0.001}
    registered = {"pairs.partner": "folder", "pairs.first": STILL, "pairs.second": STILL}

    def tune(name: str, **settings: Any) -> Run:
        return equimark.train(pairs.packed(), out / name, start_from=first.folder, **(tuning | settings))

    runs = {
        "lights-as-it-is": first,
        "lights-warps": tune("lights-warps"),
        "lights-registered": tune("lights-registered", **registered),
    }
    for name, run in runs.items():
        report(name, run, disagreement(run.model, unseen), unseen, arguments)


def compare_videos(people: Images, arguments: argparse.Namespace) -> None:
    """Landmarks on a moving face: learned from the flow, from frames of unknown motion, from the diversity alone."""
    generator = torch.Generator().manual_seed(arguments.seed)
    images = make_videos(people[900 - arguments.videos : 900], generator).packed()
    unseen = make_videos(people[900:], generator)

    def learn(name: str, recipe: str = "sparse-unknown-warp", **settings: Any) -> None:
        options = BASE | {"seed": arguments.seed, "overwrite": True, "steps": arguments.video_steps}
        run = equimark.train(images, arguments.out / name, recipe=recipe, **(options | settings))
        report(name, run, following(run.model, unseen), unseen, arguments)

    learn("videos-flow", "sparse-flow", **{"pairs.second": STILL})
    learn("videos-unknown")
    learn("videos-control", **{"objective.appearance_weight": 1e-6})


def report(name: str, run: Run, metrics: dict[str, float], unseen: Pairs, arguments: argparse.Namespace) -> None:
    """Write what was measured, and a picture of the landmarks on four pairs."""
    results = Results(
        protocol="landmarks of pairs",
        run=f"{arguments.out / name}",
        data=f"pairs of drawn people, {name.partition('-')[0]}",
        images=len(unseen.first),
        metrics=metrics,
        seed=arguments.seed,
        settings={},
        made=provenance.made_now(run.model.device) | {"command": shlex.join(["python", *sys.argv])},
        trained=provenance.training_of(checkpoint.load(run.folder)),
    )
    write_text(arguments.out / "results" / f"{name}-{arguments.seed}.json", results.to_json())
    print(name, *(f"{what} {value:.2f}" for what, value in metrics.items()), flush=True)
    shown = [image for pair in zip(unseen.first[:4], unseen.second[:4], strict=True) for image in pair]
    points = landmarks(run.model, np.stack(shown)).double().numpy()
    plots.landmarks(shown, points, columns=8, title=name).savefig(arguments.out / f"{name}.png", dpi=90)


if __name__ == "__main__":
    main()
