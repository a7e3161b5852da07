"""Table 1 of the 2019 paper, its ordering: descriptors of several sizes with and without exchange, same steps.

    python benchmarks/exchange.py --out runs/exchange --steps 400 --seed 0

On drawn portraits (56 px, as in the demonstration), or with --images and --data on a folder or pack of images and a
landmark file. Without exchange the error between different identities should grow with the number of
channels, with it not.
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
from equimark.synthetic import portraits

SIDE, PEOPLE, UNSEEN = 56, 800, 120
SMALL = {
    "frame.size": SIDE,
    "pairs.margin": 7,
    "pairs.photometric.jpeg_probability": 0,
    "network.vector_length": 8,
    "batch_size": 8,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--channels", type=int, nargs="+", default=[3, 16, 32, 64])
    parser.add_argument("--images", type=Path, help="to train on, instead of portraits")
    parser.add_argument("--data", type=Path, help="landmark file to test on, its images beside it")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    if (arguments.images is None) != (arguments.data is None):
        parser.error("give both --images and --data, or neither")
    settings: dict[str, Any] = {"steps": arguments.steps, "seed": arguments.seed}
    images: Any = arguments.images
    if images is None:
        drawn = portraits(PEOPLE + UNSEEN, seed=arguments.seed, size=SIDE)
        images, settings = PackedImages.from_array(drawn.images[:PEOPLE]), settings | SMALL
        unseen = torch.from_numpy(np.ascontiguousarray(drawn.images[PEOPLE:].transpose(0, 3, 1, 2)))
        test = AnnotatedFrames(unseen, drawn.landmarks[PEOPLE:].astype(np.float64))
    results = []
    for channels in arguments.channels:
        for method in ("dense", "dve"):
            options = settings | {"network.channels": channels, "method": method, "overwrite": True}
            run = equimark.train(images, arguments.out / f"{method}-{channels}", **options)
            if arguments.data:
                table = equimark.read_landmarks(arguments.data).split("test")
                test = evaluation.load_annotated(table, arguments.data.parent, run.model.frame)
            results.append(
                {"method": method, "channels": channels} | evaluation.evaluate_matching(run.model, test).metrics()
            )
            print(results[-1], flush=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
