"""CelebA, aligned and cropped, and MAFL, a part of it with other splits.

Home pages: https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and, for the two lists of MAFL,
https://github.com/zhzhanp/TCDCN-face-alignment/tree/master/MAFL. Non-commercial research only.

::

    Anno/list_landmarks_align_celeba.txt    202599 / header / 000001.jpg 69 109 106 113 77 142 73 152 108 154
    Eval/list_eval_partition.txt            000001.jpg 0        0 = train, 1 = validation, 2 = test
    Img/img_align_celeba/000001.jpg         178 x 218, or all of them as Img/img_align_celeba.zip
    MAFL/training.txt, MAFL/testing.txt     000023.jpg

The three text files may also lie in the folder itself. Landmarks are whole pixels and are taken as they are, counted
from 0: both eyes, the nose and both corners of the mouth, left and right as seen in the image.

CelebA: 202,599 images, 162,770 / 19,867 / 19,962 for training, validation and test. The test images of MAFL are left
out of ``train``, as both papers do (the code released with DVE leaves out those of MAFL's training too). MAFL:
19,000 / 1,000, here in CelebA's order, by number. Protocol crop: the 178 x 178 square that starts 30 px below the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from equimark.benchmarks.layout import FIVE_POINTS, Floats, Layout
from equimark.benchmarks.split import Benchmark, Split, framing
from equimark.images import ImageSource

HOME = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
TREE = (
    "Anno/list_landmarks_align_celeba.txt, Eval/list_eval_partition.txt, Img/img_align_celeba/000001.jpg... or "
    "Img/img_align_celeba.zip, and MAFL/training.txt and MAFL/testing.txt from "
    "https://github.com/zhzhanp/TCDCN-face-alignment"
)
SIZE = (218, 178)
CROP = framing(f"0,{30 / 218!r},1,{208 / 218!r}")
_BEYOND = 0.1

Rows = NDArray[np.int64]


def read_celeba(root: Path) -> Benchmark:
    """CelebA: ``train`` (without the test images of MAFL), ``validation``, ``test``."""
    layout = Layout("celeba", root, HOME, TREE)
    names, points = _landmarks(layout)
    layout.check_count("images", len(names))
    parts = _partition(layout, names)
    for number, what in enumerate(("train", "validation", "test")):
        layout.check_count(what, int((parts == number).sum()), layout.find(*_anywhere("Eval", "list_eval_partition")))
    held_out = _places(layout, names, "testing")
    train = np.flatnonzero(parts == 0)
    rows = {"train": np.setdiff1d(train, held_out), "validation": parts == 1, "test": parts == 2}
    note = f"{len(train) - len(rows['train'])} test images of MAFL are left out of train"
    splits = {what: _split(layout, names, points, np.arange(len(names))[chosen]) for what, chosen in rows.items()}
    return layout.benchmark(splits, eyes=(0, 1), landmark_names=FIVE_POINTS, note=note)


def read_mafl(root: Path) -> Benchmark:
    """MAFL: ``train``, ``test``."""
    layout = Layout("mafl", root, HOME, TREE)
    names, points = _landmarks(layout)
    rows = {"train": _places(layout, names, "training"), "test": _places(layout, names, "testing")}
    for what, chosen in rows.items():
        layout.check_count(what, len(chosen))
    if both := np.intersect1d(rows["train"], rows["test"]).tolist():
        raise layout.error(f"{names[both[0]]} is in MAFL/training.txt and in MAFL/testing.txt")
    splits = {what: _split(layout, names, points, chosen) for what, chosen in rows.items()}
    return layout.benchmark(splits, eyes=(0, 1), landmark_names=FIVE_POINTS)


def _anywhere(folder: str, stem: str) -> tuple[str, str]:
    return f"{folder}/{stem}.txt", f"{stem}.txt"


def _landmarks(layout: Layout) -> tuple[list[str], Floats]:
    """Names of all images, and their landmarks (N, 5, 2)."""
    path = layout.find(*_anywhere("Anno", "list_landmarks_align_celeba"))
    rows = layout.rows(path, 11, skip=2)
    count = layout.lines(path)[0].strip()
    if count != str(len(rows)):
        raise layout.error(f"{path} says on line 1 that it lists {count} images, but {len(rows)} follow")
    names = layout.unique(path, [cells[0] for _, cells in rows])
    return names, layout.numbers(path, rows, slice(1, 11)).reshape(-1, 5, 2)


def _partition(layout: Layout, names: Sequence[str]) -> Rows:
    """0, 1 or 2 (N,) for each of the names."""
    path = layout.find(*_anywhere("Eval", "list_eval_partition"))
    rows = layout.rows(path, 2)
    for (line, (image, part)), name in zip(rows, names, strict=False):
        if image != name or part not in ("0", "1", "2"):
            raise layout.error(f"{path}, line {line}: {image} {part}, but {name} and 0, 1 or 2 were expected")
    layout.check_count("images", len(rows), path)
    return np.array([int(cells[1]) for _, cells in rows], np.int64)


def _places(layout: Layout, names: Sequence[str], which: str) -> Rows:
    """Where among ``names`` the images of a list of MAFL stand, in the order of ``names``."""
    path = layout.find(f"MAFL/{which}.txt")
    place = {name: i for i, name in enumerate(names)}
    listed = layout.unique(path, [cells[0] for _, cells in layout.rows(path, 1)])
    for image in listed:
        if image not in place:
            raise layout.error(f"{path} lists {image}, which is not an image of CelebA")
    return np.sort(np.array([place[image] for image in listed], np.int64))


def _split(layout: Layout, names: Sequence[str], points: Floats, rows: Rows) -> Split:
    chosen = [names[row] for row in rows]
    table = layout.table(chosen, points[rows], SIZE, FIVE_POINTS, _BEYOND)
    return Split(_images(layout, chosen), CROP, table, size=SIZE)


def _images(layout: Layout, names: Sequence[str]) -> ImageSource:
    folders = ("Img/img_align_celeba", "img_align_celeba")
    path = layout.find(*folders, *(f"{folder}.zip" for folder in folders))
    return layout.archived(path, "img_align_celeba/", names) if path.is_file() else layout.images(path, names)
