"""AFLW with five points, in the two partitions that the papers use.

Home page: https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw/ (academic research only).

**aflw-m** (AFLW_M): the test faces of MTFL (https://mmlab.ie.cuhk.edu.hk/projects/TCDCN.html), and the faces on which
both papers trained, cropped alike by their authors (aflw_10122train_cropped.zip; both together are aflw-mtfl.tar.gz of
https://www.robots.ox.ac.uk/~vgg/research/DVE/)::

    MTFL/testing.txt        AFLW/0001-image20056.jpg x1 x2 x3 x4 x5 y1 y2 y3 y4 y5 gender smile glasses pose
    MTFL/AFLW/0001-image20056.jpg                        150 x 150
    aflw_cropped/facedata_cropped.csv                    with columns image_file, crop_file, set (1 = train), and the
                                                         landmarks x1, y1, ..., x5, y5 in the fifth to fourteenth
    aflw_cropped/cropped/39341.jpg                       150 x 150

10,122 / 2,995 images. (``training.txt`` of MTFL lists faces of other sets and is not used.) Coordinates are counted
from 1. Protocol crop: the whole image.

**aflw-r** (AFLW_R): cropped again by others, aflw-recrop.tar.gz of the same page::

    aflw_train_images.txt, aflw_test_images.txt          2/image12594_48139.jpg
    aflw_train_keypoints.mat, aflw_test_keypoints.mat    gt (N, 5, 2) as (y, x), hw (N, 2)
    output/2/image12594_48139.jpg

10,122 / 2,991 images. Coordinates are counted from 0. Protocol crop: the whole image, its proportions changed.

In both: both eyes, the nose and both corners of the mouth, left and right as seen in the image.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from equimark.benchmarks.layout import FIVE_POINTS, Floats, Layout, Row, inside
from equimark.benchmarks.split import WHOLE, Benchmark, Split

HOME = "https://www.tugraz.at/institute/icg/research/team-bischof/lrs/downloads/aflw/"
SIDE = 150
_BEYOND = 0.5
_COLUMNS = slice(4, 14)  # of facedata_cropped.csv


def read_aflw_m(root: Path) -> Benchmark:
    """AFLW_M: ``train``, ``test``."""
    tree = (
        "MTFL/testing.txt with MTFL/AFLW/0001-image20056.jpg..., and aflw_cropped/facedata_cropped.csv with "
        "aflw_cropped/cropped/39341.jpg..., as in aflw-mtfl.tar.gz of https://www.robots.ox.ac.uk/~vgg/research/DVE/"
    )
    layout = Layout("aflw-m", inside(root, "aflw-mtfl"), HOME, tree)
    test = _read_mtfl(layout)
    splits = {"train": _read_crops(layout, {name.split("-")[-1] for name in test.images.names}), "test": test}
    for what, split in splits.items():
        layout.check_count(what, len(split))
    return layout.benchmark(splits, eyes=(0, 1), landmark_names=FIVE_POINTS)


def _read_mtfl(layout: Layout) -> Split:
    path = layout.find("MTFL/testing.txt")
    rows = layout.rows(path, 15)
    names = layout.unique(path, [cells[0].replace("\\", "/") for _, cells in rows])
    points = layout.numbers(path, rows, slice(1, 11)).reshape(-1, 2, 5).transpose(0, 2, 1) - 1
    return _split_m(layout, path.parent, names, points)


def _read_crops(layout: Layout, tested: set[str]) -> Split:
    """The training faces; none may come from an image that is ``tested``."""
    path = layout.find("aflw_cropped/facedata_cropped.csv")
    header, rows = _read_table(layout, path)
    place = {name: i for i, name in enumerate(header)}
    if absent := [name for name in ("image_file", "crop_file", "set") if name not in place]:
        raise layout.error(f"{path}: no column {absent[0]!r}; its columns are {', '.join(header)}")
    chosen = [(line, cells) for line, cells in rows if cells[place["set"]].strip() == "1"]
    for line, cells in chosen:
        if cells[place["image_file"]] in tested:
            raise layout.error(f"{path}, line {line}: {cells[place['image_file']]} is a test image, but set is 1")
    names = layout.unique(path, [cells[place["crop_file"]] for _, cells in chosen])
    points = layout.numbers(path, chosen, _COLUMNS).reshape(-1, 5, 2) - 1
    return _split_m(layout, path.parent, names, points)


def _read_table(layout: Layout, path: Path) -> tuple[list[str], list[Row]]:
    table = list(csv.reader(layout.lines(path)))
    header = [cell.strip() for cell in table[0]] if table else []
    rows = [(line, cells) for line, cells in enumerate(table[1:], 2) if cells]
    for line, cells in rows:
        if len(cells) != len(header) or len(cells) < _COLUMNS.stop:
            raise layout.error(f"{path}, line {line}: {len(cells)} columns, the header has {len(header)}; 14 or more")
    return header, rows


def _split_m(layout: Layout, folder: Path, names: Sequence[str], points: Floats) -> Split:
    size = (SIDE, SIDE)
    return Split(
        layout.images(folder, names), WHOLE, layout.table(names, points, size, FIVE_POINTS, _BEYOND), size=size
    )


def read_aflw_r(root: Path) -> Benchmark:
    """AFLW_R: ``train``, ``test``."""
    tree = (
        "aflw_train_images.txt, aflw_train_keypoints.mat, the same of test, and output/0/*.jpg..., as in "
        "aflw_release-2 of aflw-recrop.tar.gz of https://www.robots.ox.ac.uk/~vgg/research/DVE/"
    )
    layout = Layout("aflw-r", inside(root, "aflw_release-2"), HOME, tree)
    splits = {what: _read_recropped(layout, what) for what in ("train", "test")}
    return layout.benchmark(splits, eyes=(0, 1), landmark_names=FIVE_POINTS)


def _read_recropped(layout: Layout, what: str) -> Split:
    path = layout.find(f"aflw_{what}_images.txt")
    names = layout.unique(path, [cells[0] for _, cells in layout.rows(path, 1)])
    layout.check_count(what, len(names), path)
    points, sizes = _read_mat(layout, layout.find(f"aflw_{what}_keypoints.mat"), len(names))
    table = layout.table(names, points, sizes, FIVE_POINTS, _BEYOND)
    table = replace(table, sizes=sizes.astype(np.int64))
    return Split(layout.images(layout.find("output"), names), WHOLE, table)


def _read_mat(layout: Layout, path: Path, count: int) -> tuple[Floats, Floats]:
    """Points (N, 5, 2) as (x, y), and (H, W) of each image."""
    try:
        held = loadmat(path)
        points, sizes = np.asarray(held["gt"], np.float64), np.asarray(held["hw"], np.float64)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise layout.error(f"{path} cannot be read as a MATLAB file with gt and hw ({error})") from None
    if points.shape != (count, 5, 2) or sizes.shape != (count, 2):
        raise layout.error(f"{path}: gt {points.shape} and hw {sizes.shape} do not fit {count} images of five points")
    if not (np.isfinite(points).all() and np.isfinite(sizes).all()):
        raise layout.error(f"{path}: a coordinate is not finite")
    return points[..., ::-1], sizes
