"""Packs of one file and packs in shards, from a thousand images to a million.

    python benchmarks/packs.py --counts 1000 10000 100000 --out packs.json

Writing, opening, the first training step and batches of a whole epoch, with the memory they take. The images are 64
drawings over and over, in their frames already: decoding is not measured. Each measurement has a process of its own.
``start`` is all that training does before and in its first step (``busy``: of the processor); ``batch`` the median of
the batches, which lie at equal distances in the epoch, without the network; ``first`` how much memory of its own (no
files that are mapped) the process has taken up to the first batch, ``grown`` how much more after the last. With
``--formats`` the ways to store frames are compared instead.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import torch
from PIL import Image

from equimark import sharding
from equimark.config import RunConfig, make_config
from equimark.geometry import Frame
from equimark.images import Framed, ImageSource
from equimark.packs import PackedImages, write_pack
from equimark.sampling import Sampler
from equimark.synthetic import portraits
from equimark.training import train

KINDS = ("one file", "shards")
DRAWINGS = 64


def config_of(side: int, **changes: Any) -> RunConfig:
    small = {"method": "dense", "frame.size": side, "pairs.margin": 0, "network.channels": 4, "batch_size": 32}
    return make_config(small | {"save_every": 1000} | changes)


def name(i: int) -> str:
    return f"{i // 1000:04d}/{i:07d}.png"


def drawn(side: int) -> Callable[..., Iterator[Framed]]:
    """Like ``read_framed``, of images that are drawn already."""
    pixels = portraits(DRAWINGS, seed=0, size=max(side, 32)).images
    pixels = [np.array(Image.fromarray(p).resize((side, side), Image.Resampling.BOX)) for p in pixels]
    placement = Frame(side).place((side, side))

    def read(source: ImageSource, *_: object, **__: object) -> Iterator[Framed]:
        return (Framed(n, pixels[int(n[5:12]) % DRAWINGS], (side, side), placement) for n in source.names)

    return read


def write(kind: str, count: int, side: int, folder: Path) -> dict[str, float]:
    read, source = drawn(side), ImageSource(Path("drawn"), [name(i) for i in range(count)], lambda _: b"")
    start = time.perf_counter()
    if kind == "one file":
        write_pack(read(source), count, folder, Frame(side), Path("drawn"), progress=False)
    else:
        with mock.patch.object(sharding, "read_framed", read):
            sharding.write_shards(source, folder, Frame(side), progress=False)
    seconds = time.perf_counter() - start
    return {"write_seconds": seconds, "disk_mb": sum(f.stat().st_size for f in folder.iterdir()) / 1e6}


def use(kind: str, count: int, side: int, folder: Path, batches: int) -> dict[str, float]:
    config = config_of(side, steps=2)
    with tempfile.TemporaryDirectory() as run:
        train(PackedImages.from_array(np.zeros((64, side, side, 3), np.uint8)), config, Path(run), progress=False)
    base = own_memory()  # all that is imported or made once
    start, busy = time.perf_counter(), time.process_time()
    packed = PackedImages.open(folder)
    opened = time.perf_counter() - start
    first: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as run:
        train(
            *(packed, config, Path(run)),
            progress=False,
            on_step=lambda _: first.append((time.perf_counter() - start, time.process_time() - busy)),
        )
    sampler, seconds = Sampler(packed, config), []
    packed.batch(sampler.rows(1))
    after_first = own_memory()
    apart = max(1, count // (batches * config.batch_size))
    for step in range(2, 2 + batches * apart, apart):
        begun = time.perf_counter()
        packed.batch(sampler.rows(step))
        seconds.append(time.perf_counter() - begun)
    return {
        "open_seconds": opened,
        "start_seconds": first[0][0],
        "start_busy_seconds": first[0][1],
        "batch_seconds": statistics.median(seconds),
        "slowest_batch_seconds": max(seconds),
        "first_mb": after_first - base,
        "grown_mb": own_memory() - after_first,
        "peak_mb": peak_memory(),
    }


def own_memory() -> float:
    """Resident memory of this process in MB, without files that are mapped; Linux alone tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def peak_memory() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# ---- formats ------------------------------------------------------------------------------------------------


def compare_formats(count: int, side: int) -> dict[str, dict[str, float]]:
    """Size, and images per second of processor time, of ways to store ``count`` drawn portraits."""
    images = portraits(count, seed=0, size=side).images
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.parquet"
        for compression, level in (("none", None), ("lz4", None), ("zstd", 1), ("zstd", 9)):
            label = f"pixels, {compression}{'' if level is None else f' {level}'}"
            found[label] = time_format(path, images, *as_pixels(images, compression, level))
        for label, kind, options in (
            ("PNG", "PNG", {}),
            ("WebP, lossless", "WEBP", {"lossless": True, "method": 0}),
            ("JPEG, quality 95 (lossy)", "JPEG", {"quality": 95}),
        ):
            found[label] = time_format(path, images, *as_files(images, kind, options))
    return found


Way = tuple[Callable[[Path], None], Callable[[Path], Any]]


def as_pixels(images: Any, compression: str, level: int | None) -> Way:
    def write(path: Path) -> None:
        kind = arrow.binary(images[0].size)
        column = arrow.FixedSizeBinaryArray.from_buffers(kind, len(images), [None, arrow.py_buffer(images)])
        write_column(column, path, compression, level)

    def read(path: Path) -> Any:
        return np.frombuffer(read_column(path).buffers()[1], np.uint8).reshape(images.shape)

    return write, read


def as_files(images: Any, kind: str, options: dict[str, Any]) -> Way:
    def encode(image: Any) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, kind, **options)
        return buffer.getvalue()

    def write(path: Path) -> None:
        write_column(arrow.array([encode(image) for image in images], arrow.binary()), path, "none", None)

    def read(path: Path) -> Any:
        return np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in read_column(path).to_pylist()])

    return write, read


def write_column(column: Any, path: Path, compression: str, level: int | None) -> None:
    settings = {"compression": compression, "compression_level": level, "use_dictionary": False}
    parquet.write_table(arrow.table({"image": column}), path, write_page_checksum=True, **settings)


def read_column(path: Path) -> Any:
    found = parquet.ParquetFile(path, page_checksum_verification=True).read(["image"], use_threads=False)
    return found.combine_chunks()["image"].chunk(0)


def time_format(
    path: Path, images: Any, write: Callable[[Path], None], read: Callable[[Path], Any]
) -> dict[str, float]:
    start = time.process_time()
    write(path)
    written = time.process_time() - start
    seconds = []
    for _ in range(3):
        start = time.process_time()
        found = read(path)
        seconds.append(time.process_time() - start)
    return {
        "kb_per_image": path.stat().st_size / len(images) / 1000,
        "written_per_second": len(images) / written,
        "read_per_second": len(images) / min(seconds),
        "exact": bool(np.array_equal(found, images)),
    }


# ---- all ----------------------------------------------------------------------------------------------------


def in_a_process(*task: object) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", json.dumps([str(t) for t in task])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(task: str, kind: str, count: str, side: str, folder: str, batches: str) -> dict[str, Any]:
    if task == "formats":
        return compare_formats(int(count), int(side))
    if task == "write":
        return write(kind, int(count), int(side), Path(folder))
    return use(kind, int(count), int(side), Path(folder), int(batches))


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    columns = list(next(iter(rows.values())))
    print(f"{'':26}" + "".join(f"{column:>23}" for column in columns))
    for label, row in rows.items():
        print(f"{label:26}" + "".join(f"{row[c]!s:>23}" if c == "exact" else f"{row[c]:23.4g}" for c in columns))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--side", type=int, default=16, help="of the frames, in pixels")
    parser.add_argument("--batches", type=int, default=300)
    parser.add_argument("--formats", type=int, metavar="N", help="compare the formats on N portraits instead")
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's folder for such files")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(*json.loads(arguments.child))))
        return 0
    results: dict[str, dict[str, Any]] = {}
    if arguments.formats:
        results = in_a_process("formats", "", arguments.formats, arguments.side, "", 0)
    for count in () if arguments.formats else arguments.counts:
        for kind in KINDS:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                task = (kind, count, arguments.side, Path(folder) / "pack", arguments.batches)
                results[f"{count:,} in {kind}"] = in_a_process("write", *task) | in_a_process("use", *task)
            print_table({label: results[label] for label in [f"{count:,} in {kind}"]})
    report = {
        "hardware": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "pyarrow": arrow.__version__},
        "settings": {"side": arguments.side, "batches": arguments.batches},
        "results": results,
    }
    print(f"{report['hardware']}\n{report['versions']}")
    print_table(results)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
