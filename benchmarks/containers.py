"""Frames of a training run, read from Parquet shards and from WebDataset's tar files.

    pip install webdataset
    python benchmarks/containers.py photos/ --out containers.json

Packs the images once, and stores the same frames in shards (``equimark pack --shards``) and in tar files of equally
many, as pixels and as PNG. Then, each in a process of its own: the seconds up to the first batch (``start``), those up
to the batch in the middle of the epoch (``resume``), and the images per second of an epoch in shuffled batches. Shards
are read by Equimark's threads, tar files by ``webdataset``'s pipeline in one process; both shuffle over as many images.
A tar file is read from front to back, so that the pipeline gets to the middle by reading all before it.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from equimark.config import make_config
from equimark.geometry import Frame
from equimark.packs import PackedImages, pack
from equimark.provenance import made_now
from equimark.sampling import Sampler
from equimark.sharding import images_per_shard
from equimark.shards import MIXED

BATCH = 32
KINDS = ("shards", "tar, pixels", "tar, PNG")

Batches = Callable[[int], Iterator[Any]]  # from a batch of the first epoch on


def store(packed: PackedImages, folder: Path) -> dict[str, Path]:
    """The same frames in files of each kind; where these lie."""
    found = {kind: folder / kind.replace(", ", "-") for kind in KINDS}
    each = images_per_shard(packed.frame)
    for kind in KINDS[1:]:
        found[kind].mkdir()
        for number, first in enumerate(range(0, len(packed), each)):
            with tarfile.open(found[kind] / f"part-{number:05d}.tar", "w") as tar:
                for row in range(first, min(first + each, len(packed))):
                    add(tar, f"{row:08d}", np.asarray(packed.images[row]), kind)
    return found


def add(tar: tarfile.TarFile, name: str, frame: Any, kind: str) -> None:
    buffer = io.BytesIO()
    if kind == "tar, PNG":
        Image.fromarray(frame).save(buffer, "PNG")
    else:
        np.save(buffer, frame)
    about = tarfile.TarInfo(name + (".png" if kind == "tar, PNG" else ".npy"))
    about.size = buffer.tell()
    buffer.seek(0)
    tar.addfile(about, buffer)


def from_shards(folder: Path) -> Batches:
    packed = PackedImages.open(folder)
    settings = {"method": "dense", "batch_size": BATCH, "frame.size": packed.frame.size, "pairs.margin": 0}
    sampler = Sampler(packed, make_config(settings))

    def batches(first: int) -> Iterator[Any]:
        for step in range(first + 1, len(packed) // BATCH + 1):
            yield packed.batch(sampler.rows(step))

    return batches


def from_tar(folder: Path) -> Batches:
    import webdataset

    files = sorted(str(file) for file in folder.iterdir())
    with tarfile.open(files[0]) as tar:
        mixed = MIXED * len(tar.getmembers())

    def as_batch(samples: list[dict[str, Any]]) -> Any:
        frames = np.stack([decode(sample) for sample in samples])
        return torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))

    def decode(sample: dict[str, Any]) -> Any:
        if "png" in sample:
            return np.asarray(Image.open(io.BytesIO(sample["png"])))
        return np.load(io.BytesIO(sample["npy"]))

    def batches(first: int) -> Iterator[Any]:
        samples = webdataset.WebDataset(files, shardshuffle=len(files), seed=0, empty_check=False)
        samples = samples.shuffle(mixed, initial=mixed)
        return islice(samples.batched(BATCH, collation_fn=as_batch, partial=False), first, None)

    return batches


def measure(kind: str, folder: Path, first: int) -> dict[str, float]:
    """From batch ``first`` of the epoch to its end: seconds to that batch, and images per second of those after it."""
    start = time.perf_counter()
    epoch = (from_shards if kind == "shards" else from_tar)(folder)(first)
    next(epoch)
    started = time.perf_counter()
    images = BATCH * sum(1 for _ in epoch)
    return {"seconds": started - start, "images_per_second": images / (time.perf_counter() - started)}


def compare(kind: str, folder: Path, images: int) -> dict[str, float]:
    whole, half = (in_a_process(kind, folder, first) for first in (0, images // BATCH // 2))
    return {
        "start_seconds": whole["seconds"],
        "resume_seconds": half["seconds"],
        "images_per_second": whole["images_per_second"],
        "disk_mb": sum(file.stat().st_size for file in folder.iterdir()) / 1e6,
    }


def in_a_process(kind: str, folder: Path, first: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", kind, str(folder), str(first)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="?", help="folder, .zip or pack")
    parser.add_argument("--size", type=int, default=100, help="of the frames, in pixels")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child[0], Path(arguments.child[1]), int(arguments.child[2]))))
        return 0
    if arguments.images is None:
        parser.error("which images?")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pack(arguments.images, folder / "shards", Frame(arguments.size), shards=0)
        packed = PackedImages.open(folder / "shards")
        folders = store(packed, folder)
        results = {kind: compare(kind, folders[kind], len(packed)) for kind in KINDS}
    for kind, row in results.items():
        print(f"{kind:12}" + "".join(f"{name:>20} {value:9.4g}" for name, value in row.items()))
    if arguments.out:
        report = made_now(torch.device("cpu")) | {"results": results}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
