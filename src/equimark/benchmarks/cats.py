"""CAT: cat heads with nine points.

Home page: https://archive.org/details/CAT_DATASET (Zhang, Sun and Tang, ECCV 2008; terms not stated)::

    CAT_00/00000001_000.jpg ... CAT_06/          some 10,000 photographs of cats
    CAT_00/00000001_000.jpg.cat                  9 x1 y1 ... x9 y9

Coordinates are whole pixels, taken as they are, counted from 0; ears that the border cuts off are marked outside the
image. As distributed, one annotation has a wrong name (00000003_019.jpg.cat instead of 00000003_015.jpg.cat): both
are left out. 8,609 images are for training and the rest for validation; the paper does not say which, so it is the
first 8,609 by folder and name. Protocol crop (the paper shows heads, but not how they were cut out): a square around
the nine points whose longer side is 60 % of the frame.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from equimark.benchmarks.layout import SIZES, Floats, Layout, inside
from equimark.benchmarks.split import Benchmark, Split
from equimark.geometry import Frame, Size, frame_square

HOME = "https://archive.org/details/CAT_DATASET"
TREE = "CAT_00/00000001_000.jpg with CAT_00/00000001_000.jpg.cat, and so on to CAT_06"
NAMES = (
    ("left eye", "right eye", "mouth")
    + tuple(f"left ear {i}" for i in (1, 2, 3))
    + tuple(f"right ear {i}" for i in (1, 2, 3))
)
FOLDERS = tuple(f"CAT_0{i}" for i in range(7))
SHARE = 0.6
_MISNAMED = {"CAT_00/00000003_015.jpg", "CAT_00/00000003_019.jpg"}
_BEYOND = 0.5


def read_cats(root: Path) -> Benchmark:
    """CAT: ``train``, ``validation``."""
    layout = Layout("cats", inside(root, "cats"), HOME, TREE)
    names = [name for folder in FOLDERS for name in _image_names(layout, folder)]
    count = SIZES[layout.name]["train"] if layout.is_complete else len(names) - 1
    if len(names) <= count:
        raise layout.error(f"{layout.root}: {len(names):,} annotated images, but {count:,} are for training alone")
    splits = {"train": _read_split(layout, names[:count]), "validation": _read_split(layout, names[count:])}
    return layout.benchmark(splits, eyes=(0, 1), landmark_names=NAMES)


def _image_names(layout: Layout, folder: str) -> list[str]:
    names = [f"{folder}/{name}" for name in layout.listing(layout.find(folder), ".jpg")]
    annotated = {f"{folder}/{name[:-4]}" for name in layout.listing(layout.root / folder, ".jpg.cat")}
    wanted = [name for name in names if name not in _MISNAMED]
    if absent := [name for name in wanted if name not in annotated]:
        raise layout.missing(f"{layout.root / absent[0]}.cat")
    return wanted


def _read_split(layout: Layout, names: list[str]) -> Split:
    headers = [layout.header(layout.root / name) for name in names]
    points = [
        header.turn(_read_points(layout, layout.root / f"{name}.cat"))
        for name, header in zip(names, headers, strict=True)
    ]
    table = layout.table(names, np.stack(points), [header.shown for header in headers], NAMES, _BEYOND)
    return Split(layout.images(layout.root, names), partial(_frame, table.points), table)


def _read_points(layout: Layout, path: Path) -> Floats:
    rows = layout.rows(path, 1 + 2 * len(NAMES))
    if len(rows) != 1 or rows[0][1][0] != str(len(NAMES)):
        raise layout.error(f"{path} should be one line that begins with {len(NAMES)}")
    return layout.numbers(path, rows, slice(1, None)).reshape(-1, 2)


def _frame(points: Floats, row: int, size: Size, frame_size: int) -> Frame:
    low, high = points[row].min(0), points[row].max(0)
    return frame_square((low + high) / 2 + 0.5, float((high - low).max() + 1) / SHARE, size, frame_size)
