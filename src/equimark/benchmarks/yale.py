"""Extended Yale B, cropped: registered faces under 64 lights.

Home page: http://vision.ucsd.edu/~leekc/ExtYaleDatabase/ExtYaleB.html (research only)::

    CroppedYale/yaleB01/yaleB01_P00A+000E+00.pgm         168 x 192, grey; A and E are the light's azimuth and elevation
    CroppedYale/yaleB01/yaleB01_P00_Ambient.pgm          no flash, not cropped: not read
    CroppedYale/yaleB11/yaleB11_P00A+050E-40.pgm.bad     damaged when taken: not read

38 subjects (01 to 39 without 14), 2,414 images, without landmarks. The paper holds out two subjects and does not say
which: here they are the last two, ``test``. The classes are the subjects, and the pairs are all two images of one
subject. Protocol crop (the paper does not say): the whole image in the middle of a square, its edge repeated beyond it.
"""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np

from equimark.benchmarks.layout import Layout, inside
from equimark.benchmarks.split import Benchmark, Split, framing

HOME = "http://vision.ucsd.edu/~leekc/ExtYaleDatabase/ExtYaleB.html"
TREE = "yaleB01/yaleB01_P00A+000E+00.pgm and so on to yaleB39, as in CroppedYale.zip"
SIZE = (192, 168)
CROP = framing("letterbox")
HELD_OUT = 2
_NAME = re.compile(r"yaleB\d\d_P00A[+-]\d{3}E[+-]\d\d\.pgm")


def read_yale_b(root: Path) -> Benchmark:
    """Extended Yale B: ``train``, ``test``."""
    layout = Layout("yale-b", inside(root, "CroppedYale"), HOME, TREE)
    folder = layout.find("yaleB01").parent
    subjects = [name for name in layout.listing(folder) if re.fullmatch(r"yaleB\d\d", name)]
    layout.check_count("subjects", len(subjects), folder)
    names = [[f"{subject}/{name}" for name in _lit(layout, folder / subject)] for subject in subjects]
    layout.check_count("images", sum(map(len, names)), folder)
    splits = {"train": names[:-HELD_OUT], "test": names[-HELD_OUT:]}
    return layout.benchmark({what: _split(layout, folder, subjects) for what, subjects in splits.items()})


def _lit(layout: Layout, folder: Path) -> list[str]:
    return [name for name in layout.listing(folder, ".pgm") if _NAME.fullmatch(name)]


def _split(layout: Layout, folder: Path, subjects: list[list[str]]) -> Split:
    names = [name for subject in subjects for name in subject]
    classes = tuple(name.split("/")[0] for name in names)
    starts = np.cumsum([0, *map(len, subjects)]).tolist()
    pairs = [pair for subject, start in zip(subjects, starts, strict=False) for pair in _pairs(start, len(subject))]
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    return Split(layout.images(folder, names), CROP, classes=classes, pairs=rows, size=SIZE)


def _pairs(start: int, count: int) -> list[tuple[int, int]]:
    return list(combinations(range(start, start + count), 2))
