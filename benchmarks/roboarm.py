"""Table 4 of the 2019 paper, its ordering: descriptors of a drawn robotic arm, from the flow between frames.

    python benchmarks/roboarm.py --out runs/arm --steps 400 --seeds 3

Trained on 1,200 frames whose arm moves by some 3 px from one to the next, tested on pairs of 160 frames in poses that
have nothing to do with each other. Without exchange 20 channels should do worse than 3, with it best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import equimark
from equimark import evaluation
from equimark.evaluation import AnnotatedFrames
from equimark.packs import PackedImages
from equimark.synthetic import Arm, arm

METHODS: dict[str, dict[str, Any]] = {  # recipes, or names of some with further settings
    "roboarm-3": {},
    "roboarm-20": {},
    "roboarm-20-dve": {},
    "roboarm-20-dve-identity": {},
    # The flow of a frame to itself says what is known of it: the arm alone.
    "roboarm-20-dve-identity-the-arm-alone": {"recipe": "roboarm-20-dve-identity", "pairs.motion": "flow"},
}
FRAMES, SPEED = 1200, 8.0
TESTED, OTHER_POSES = 160, (400, 60.0)  # so fast that one frame says nothing of the next


def training_frames(video: Arm) -> PackedImages:
    count, side = video.images.shape[:2]
    flow = np.full((count, side, side, 2), np.nan, np.float16)
    for i in range(count - 1):
        flow[i] = video.displacement(i, i + 1)
    return PackedImages.from_array(video.images).with_labels(flow=flow)


def unseen_frames() -> AnnotatedFrames:
    video = arm(OTHER_POSES[0], speed=OTHER_POSES[1])
    rows = np.random.default_rng(1).permutation(len(video.images))[:TESTED]
    frames = torch.from_numpy(video.images[rows]).movedim(-1, 1).contiguous()
    return AnnotatedFrames(frames, video.landmarks[rows].astype(np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=METHODS, default=tuple(METHODS))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    images, test = training_frames(arm(FRAMES, speed=SPEED)), unseen_frames()
    results: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for method in arguments.only:
            run = equimark.train(
                images,
                arguments.out / f"{method}-{seed}",
                steps=arguments.steps,
                batch_size=arguments.batch_size,
                seed=seed,
                overwrite=True,
                **({"recipe": method} | METHODS[method]),
            )
            metrics = evaluation.evaluate_matching(run.model, test).metrics()
            results.append({"method": method, "seed": seed} | metrics)
            print(results[-1], flush=True)
    for method in arguments.only:
        errors = [r["different_identity_px"] for r in results if r["method"] == method]
        print(f"{method:40} {np.mean(errors):.2f} ± {np.std(errors):.2f} px")
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
