"""Landmarks of a folder of images by parts that processes share, and by Ray Data.

    pip install "ray[data]"
    python benchmarks/engines.py runs/photos photos/ --processes 2 --out engines.json

Both start from nothing and end with Parquet files: ``equimark detect --part-size`` in so many processes, and a Ray Data
job (read_binary_files, map_batches with as many actors, write_parquet) in which each actor has the same model and the
same decoding. One processor for each; Ray is told of two more, as its readers wait for one otherwise.
``largest_difference`` is in pixels, between what both have found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch

from equimark.images import frame_image
from equimark.images.decoding import decode
from equimark.model import LandmarkModel
from equimark.provenance import made_now

PART, BATCH = 500, 32


def by_parts(run: Path, images: Path, out: Path, processes: int) -> None:
    command = [sys.executable, "-m", "equimark", "detect", str(run), str(images), "--out", str(out), "--quiet"]
    command += ["--part-size", str(PART)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, env=environment) for _ in range(processes)]
    for process in running:
        if process.wait():
            raise SystemExit(f"{command} failed")


class Detect:
    """What an actor does."""

    def __init__(self, run: str) -> None:
        torch.set_num_threads(1)
        torch.set_flush_denormal(True)
        self.model = LandmarkModel.load(run)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Names and landmarks of a batch of files."""
        decoded = [decode(data, min_side=self.model.frame.size) for data in batch["bytes"]]
        frames, placements = zip(*[frame_image(d.pixels, self.model.frame, d.size) for d in decoded], strict=True)
        tensor = torch.from_numpy(np.stack(frames).transpose(0, 3, 1, 2).copy())
        points, confidence = self.model.detect_framed(tensor, placements)
        values = np.concatenate([points, confidence[..., None]], axis=-1).reshape(len(decoded), -1)
        return {"image": batch["path"], "values": values}


def by_ray(run: Path, images: Path, out: Path, processes: int) -> None:
    import ray

    ray.init(num_cpus=processes + 2, include_dashboard=False, logging_level="error", log_to_driver=False)
    found = ray.data.read_binary_files(str(images), include_paths=True).map_batches(
        Detect, fn_constructor_args=(str(run),), batch_size=BATCH, concurrency=processes, num_cpus=1
    )
    found.write_parquet(str(out))


def points_of_parts(folder: Path) -> pandas.DataFrame:
    table = pandas.read_parquet(folder).set_index("image").sort_index()
    return table[[name for name in table if name[1:].isdigit() and name[0] in "xy"]].astype(float)


def points_of_ray(folder: Path) -> pandas.DataFrame:
    table = pandas.read_parquet(folder)
    names = [Path(path).name for path in table["image"]]
    values = np.stack(list(table["values"])).reshape(len(names), -1, 3)[..., :2]
    return pandas.DataFrame(values.reshape(len(names), -1), index=names).sort_index()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="with landmarks of its own")
    parser.add_argument("images", type=Path, help="a folder without folders in it")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    run, images = arguments.run.resolve(), arguments.images.resolve()
    count = sum(1 for _ in images.iterdir())
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, engine in (("parts", by_parts), ("Ray Data", by_ray)):
            start = time.perf_counter()
            engine(run, images, Path(scratch) / name, arguments.processes)
            seconds = time.perf_counter() - start
            results[name] = {"seconds": seconds, "images_per_second": count / seconds}
        ours, theirs = points_of_parts(Path(scratch) / "parts"), points_of_ray(Path(scratch) / "Ray Data")
    assert list(ours.index) == list(theirs.index), "the engines have seen different images"
    largest = float(np.abs(ours.to_numpy() - theirs.to_numpy()).max())
    for name, row in results.items():
        print(f"{name:10}{row['seconds']:8.1f} s{row['images_per_second']:8.0f} images/s")
    print(f"largest difference {largest:.2g} px")
    if arguments.out:
        settings = {"images": count, "processes": arguments.processes}
        report = made_now(torch.device("cpu")) | settings | {"results": results, "largest_difference": largest}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
