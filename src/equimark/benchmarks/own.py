"""Sets that anybody can bring: the drawn robotic arm, a folder of images, a landmark file.

**roboarm** stands in for the video of a robotic arm of the papers, which was not published. ``equimark synthetic arm
--count 24000 --speed 8 --out FOLDER`` writes it::

    000000.png ... , 000000.flo ...      frames of 90 x 90 px; where each pixel lies in the next frame
    landmarks.csv                        the centres of the six segments

The last tenth of the frames is ``test``, in an order in which neighbours show unrelated poses, and without flow. The
last frame of ``train`` has none either: its next is not in the split.
Protocol crop: the whole frame.

**folder** is any folder of images (or a .zip, or a list), all in ``all``; **landmarks** any landmark file with its
images in the same folder, or a folder with a ``landmarks.csv``; its splits are those of the file, or ``all``. Protocol
crop of both: the largest square in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np

from equimark import flows, formats
from equimark.benchmarks.layout import Layout
from equimark.benchmarks.split import WHOLE, Benchmark, BenchmarkError, Flow, FrameOf, Split, framing
from equimark.images import ImageError, open_images
from equimark.landmarks import LandmarkError, LandmarkTable, match_images

CENTRE = framing("centre")
EYES = {5: (0, 1), 68: (36, 45)}
_TABLE = "landmarks.csv"
_BEYOND = 0.5


def read_roboarm(root: Path) -> Benchmark:
    """The drawn arm: ``train``, a film, and ``test``, frames in unrelated poses."""
    tree = "000000.png, 000000.flo and so on, and landmarks.csv"
    layout = Layout("roboarm", root, "equimark synthetic arm --count 24000 --speed 8 --out FOLDER", tree)
    table = _read_table(layout, layout.find(_TABLE))
    frames = layout.listing(root, ".png")
    if list(table.images) != frames:
        raise layout.error(f"{root} has {len(frames)} frames, but {_TABLE} has rows for {len(table)}, or for others")
    has_flow = set(layout.listing(root, flows.SUFFIX))
    if absent := [name for name in frames[:-1] if name[:-4] + flows.SUFFIX not in has_flow]:
        raise layout.missing(str(root / absent[0][:-4]) + flows.SUFFIX)
    count = len(frames) - max(1, len(frames) // 10)
    if not count:
        raise layout.error(f"{root} has a single frame; at least two are needed")
    return layout.benchmark({"train": _film(layout, table.select(range(count))), "test": _poses(layout, table, count)})


def _poses(layout: Layout, table: LandmarkTable, start: int) -> Split:
    """Frames from ``start`` on, from both halves by turns, so that neighbours show unrelated poses: no film."""
    halves = np.array_split(np.arange(start, len(table)), 2)
    rows = np.argsort(np.concatenate([np.arange(len(half)) for half in halves]), kind="stable") + start
    return _frames(layout, table.select(rows))


def _frames(layout: Layout, table: LandmarkTable) -> Split:
    size = layout.header(layout.root / table.images[0]).shown
    return replace(_annotated(layout, layout.root, table, table.images, WHOLE), size=size)


def _film(layout: Layout, table: LandmarkTable) -> Split:
    split = _frames(layout, table)

    def read_flow(row: int) -> Flow | None:
        if row == len(table) - 1:
            return None
        path = (layout.root / table.images[row]).with_suffix(flows.SUFFIX)
        try:
            flow = flows.read(path.read_bytes())
        except (flows.FlowError, OSError) as error:
            raise layout.error(f"{path}: {error}") from None
        if split.size is not None and flow.shape[:2] != split.size:
            raise layout.error(f"{path} has {flow.shape[1::-1]} pixels, its frame {split.size[::-1]}")
        return flow

    return replace(split, read_flow=read_flow)


def read_folder(root: Path) -> Benchmark:
    """The images of a folder: ``all``."""
    try:
        source = open_images(root)
    except ImageError as error:
        raise BenchmarkError(f"folder: {error}") from None
    return Benchmark("folder", "", {"all": Split(source, CENTRE)})


def read_landmarks(root: Path) -> Benchmark:
    """The images of a landmark file: its splits, or ``all``."""
    path = root / _TABLE if root.is_dir() else root
    layout = Layout("landmarks", path.parent, "", "images and landmarks.csv; or give the landmark file itself")
    table = _read_table(layout, path)
    try:
        names = open_images(path.parent).names
        images = [names[i] for i in match_images(table, names)]
    except (ImageError, LandmarkError) as error:
        raise layout.error(str(error)) from None
    labels = np.array(table.splits or ["all"] * len(table))
    splits = {
        str(what): _annotated(layout, path.parent, table.select(labels == what), [*compress(images, labels == what)])
        for what in dict.fromkeys(labels)
    }
    return layout.benchmark(splits, eyes=EYES.get(table.points.shape[1]), landmark_names=table.names)


def _read_table(layout: Layout, path: Path) -> LandmarkTable:
    if not path.is_file():
        raise layout.missing(str(path))
    try:
        return formats.read(path)
    except LandmarkError as error:
        raise layout.error(str(error)) from None


def _annotated(
    layout: Layout, folder: Path, table: LandmarkTable, images: Sequence[str], frame_of: FrameOf = CENTRE
) -> Split:
    sizes = [layout.header(folder / name).shown for name in images]
    checked = layout.table(images, table.points, sizes, table.names, _BEYOND)
    return Split(layout.images(folder, images), frame_of, replace(checked, confidence=table.confidence))
