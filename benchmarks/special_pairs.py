"""What fine-tuning on a target set, on registered pairs and on pairs of unknown motion improves, on drawn sets.

    python benchmarks/special_pairs.py --out runs/special --seed 0

A sparse run learns from warped portraits in even light. Two sets that it has not seen are made from other portraits:

* *lights*: each portrait under two strong lights, as in Extended Yale B. Measured is how far the landmarks move when
  only the light changes, on people held out: as it is, fine-tuned on warps of the lit images, fine-tuned on registered
  pairs.
* *videos*: each portrait moved a little from frame to frame. Measured is how far the landmarks of the second frame are
  from where the motion, which no training sees, takes those of the first: learned from pairs of unknown motion alone,
  and as a control from the diversity alone.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import equimark
from equimark import geometry, plots
from equimark.model import LandmarkModel
from equimark.packs import PackedImages
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
        """A folder for each person."""
        both = np.stack([self.first, self.second], 1).reshape(-1, SIDE, SIDE, 3)
        return PackedImages.from_array(both, [f"{i // 2:05d}/{'ab'[i % 2]}" for i in range(len(both))])


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


def landmarks(model: LandmarkModel, images: Images) -> torch.Tensor:
    """Landmarks (N, K, 2) in pixels of the frame."""
    frames = torch.from_numpy(images).movedim(-1, 1).contiguous()
    return model.network.cells.to_pixels(model.landmarks_of(frames).positions)


def disagreement(model: LandmarkModel, pairs: Pairs) -> dict[str, float]:
    """Mean distance, in pixels, between the landmarks of the second images and where those of the first belong."""
    first, second = (landmarks(model, images) for images in (pairs.first, pairs.second))
    size = (SIDE, SIDE)
    if pairs.motion is not None:
        first = geometry.denormalise(pairs.motion.inverse(geometry.normalise(first, size)), size)
    distinct = equimark.objectives.distinct_landmarks(second)
    return {"disagreement_px": float((first - second).norm(dim=-1).nanmean()), "distinct_landmarks": distinct}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=800, help="of the first run; fine-tuning takes a third")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    seed, out, rng = arguments.seed, arguments.out, np.random.default_rng(arguments.seed)
    generator = torch.Generator().manual_seed(seed)
    people = portraits(1000, seed=seed, size=SIDE).images
    tuning: dict[str, Any] = {"steps": arguments.steps // 3, "seed": seed, "overwrite": True, "optimiser.lr": 0.001}
    registered = {"pairs.partner": "folder", "pairs.first": STILL, "pairs.second": STILL}

    first = equimark.train(
        PackedImages.from_array(people[:600]), out / "even-light", recipe="sparse-10", overwrite=True, seed=seed,
        steps=arguments.steps, **BASE,
    )  # fmt: skip
    lights, unseen_lights = make_lights(people[600:900], rng), make_lights(people[900:], rng)
    videos, unseen_videos = make_videos(people[600:900], generator), make_videos(people[900:], generator)

    def tune(name: str, pairs: Pairs, **settings: Any) -> LandmarkModel:
        return equimark.train(pairs.packed(), out / name, start_from=first.folder, **(tuning | settings)).model

    def learn(name: str, **settings: Any) -> LandmarkModel:
        options = BASE | {"seed": seed, "overwrite": True, "steps": arguments.steps // 2}
        return equimark.train(videos.packed(), out / name, recipe="sparse-unknown-warp", **(options | settings)).model

    models = {
        "lights": {
            "as it is": first.model,
            "fine-tuned on warps": tune("lights-warps", lights),
            "fine-tuned on registered pairs": tune("lights-registered", lights, **registered),
        },
        "videos": {
            "motion unknown": learn("videos-unknown"),
            "diversity alone": learn("videos-control", **{"objective.appearance_weight": 1e-6}),
        },
    }
    results = {}
    for name, unseen in (("lights", unseen_lights), ("videos", unseen_videos)):
        results[name] = {how: disagreement(model, unseen) for how, model in models[name].items()}
        for how, model in models[name].items():
            shown = [image for pair in zip(unseen.first[:4], unseen.second[:4], strict=True) for image in pair]
            points = landmarks(model, np.stack(shown)).double().numpy()
            figure = plots.landmarks(shown, points, columns=8, title=f"{name}: {how}")
            figure.savefig(out / f"{name}-{how.replace(' ', '-').replace(',', '')}.png", dpi=90)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
