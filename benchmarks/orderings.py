"""The orderings of two tables of the 2019 paper, on drawn images: matching errors after the same number of steps.

    python benchmarks/orderings.py exchange --out runs/exchange --steps 300 --seeds 3
    python benchmarks/orderings.py arm --out runs/arm --steps 400 --seeds 3

* *exchange* (table 1): descriptors of several sizes, learned from 800 portraits without and with exchange. Without, the
  error between people should grow with the number of channels, with it not.
* *arm* (table 4): descriptors of a robotic arm, learned from the flow between 1,200 frames, which move by some 3 px.
  Tested is between 400 poses that have nothing to do with each other. Without exchange 20 channels should do worse than
  3, with it best.

Each run leaves a file of results in OUT/results, as ``equimark evaluate --out`` does; what is there is not made again.
``equimark tabulate --over-seeds`` makes a table of them.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import equimark
from equimark import flows, synthetic
from equimark.assessment import assess_matching
from equimark.files import write_text

SIDE, PEOPLE, UNSEEN = 56, 800, 120
FRAMES, SPEED = 1200, 8.0
POSES, FAST = 400, 60.0  # so fast that one frame says nothing of the next

PORTRAITS = {
    "frame.size": SIDE,
    "pairs.margin": 7,
    "pairs.photometric.jpeg_probability": 0,
    "network.vector_length": 8,
}
EXCHANGE: dict[str, dict[str, Any]] = {
    f"{method}-{channels}": PORTRAITS | {"method": method, "network.channels": channels}
    for method in ("dense", "dve")
    for channels in (3, 16, 32, 64)
}
ARM: dict[str, dict[str, Any]] = {
    "roboarm-3": {"recipe": "roboarm-3"},
    "roboarm-20": {"recipe": "roboarm-20"},
    "roboarm-20-dve": {"recipe": "roboarm-20-dve"},
    "roboarm-20-dve-identity": {"recipe": "roboarm-20-dve-identity"},
    # The flow of a frame to itself says what is known of it: the arm alone.
    "roboarm-20-dve-identity-alone": {"recipe": "roboarm-20-dve-identity", "pairs.motion": "flow"},
}


def draw_portraits(images: Path, unseen: Path) -> None:
    drawn = synthetic.portraits(PEOPLE + UNSEEN, size=SIDE)
    synthetic.write(images, drawn.images[:PEOPLE], drawn.landmarks[:PEOPLE])
    synthetic.write(unseen, drawn.images[PEOPLE:], drawn.landmarks[PEOPLE:])


def draw_arm(images: Path, unseen: Path) -> None:
    video, poses = synthetic.arm(FRAMES, speed=SPEED), synthetic.arm(POSES, speed=FAST)
    synthetic.write(images, video.images, video.landmarks)
    for frame in range(FRAMES - 1):
        flows.write(images / f"{frame:06d}{flows.SUFFIX}", video.displacement(frame, frame + 1))
    synthetic.write(unseen, poses.images, poses.landmarks)


EXPERIMENTS = {"exchange": (EXCHANGE, draw_portraits), "arm": (ARM, draw_arm)}


def measure(name: str, settings: Mapping[str, Any], arguments: argparse.Namespace, seed: int) -> None:
    """Train, match and write the results, unless they are there."""
    out: Path = arguments.out
    kept = out / "results" / f"{name}-{seed}.json"
    if kept.exists():
        return
    options = dict(settings) | {"steps": arguments.steps, "batch_size": arguments.batch_size, "seed": seed}
    equimark.train(out / "images", out / f"{name}-{seed}", overwrite=True, **options)
    results = assess_matching(out / f"{name}-{seed}", out / "unseen" / "landmarks.csv", progress=False)
    made = {**results.made, "command": shlex.join(["python", *sys.argv])}
    write_text(kept, replace(results, made=made).to_json())
    print(name, f"seed {seed}", *(f"{what} {value:.2f}" for what, value in results.plain.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    methods, draw = EXPERIMENTS[arguments.experiment]
    if not (arguments.out / "unseen" / "landmarks.csv").exists():
        draw(arguments.out / "images", arguments.out / "unseen")
    for seed in range(arguments.seeds):
        for name, settings in methods.items():
            measure(name, settings, arguments, seed)


if __name__ == "__main__":
    main()
