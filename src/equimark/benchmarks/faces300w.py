"""300-W: faces in the wild with 68 points, gathered from AFW, HELEN, LFPW and IBUG.

Home page: https://ibug.doc.ic.ac.uk/resources/300-W/ (academic research only). The four archives of the page, unpacked
side by side::

    afw/1051618982_1.jpg         and .pts beside each image
    helen/trainset/*.jpg         helen/testset/*.jpg
    lfpw/trainset/*.png          lfpw/testset/*.png
    ibug/image_003_1.jpg

``train``: AFW (337), HELEN train (2,000) and LFPW train (811), 3,148 in all; ``test``: HELEN test (330), LFPW test
(224) and IBUG (135), 689 in all. The classes of a split name the part that an image is from. Mirrored copies
(``*_mirror.*``), which some archives hold, are not read. Coordinates in ``.pts`` files are counted from 1.

Protocol crop: :func:`equimark.geometry.frame_by_landmarks`, the box around the landmarks 52 px wide in a frame of 100,
moved up by 2 px, the image's edge repeated beyond it (DVE's code rounds it to whole pixels). Unit of errors: the outer
corners of the eyes, 36 and 45.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from equimark.benchmarks.layout import Floats, Layout, inside
from equimark.benchmarks.split import Benchmark, Split
from equimark.formats import pts
from equimark.geometry import Frame, Size, frame_by_landmarks
from equimark.landmarks import LandmarkError, LandmarkTable

HOME = "https://ibug.doc.ic.ac.uk/resources/300-W/"
TREE = "afw/, helen/trainset/, helen/testset/, lfpw/trainset/, lfpw/testset/ and ibug/, each image with its .pts"
PARTS = {"train": ("afw", "helen/trainset", "lfpw/trainset"), "test": ("helen/testset", "lfpw/testset", "ibug")}
POINTS = 68
_BEYOND = 0.5


def read_300w(root: Path) -> Benchmark:
    """300-W: ``train``, ``test``."""
    layout = Layout("300w", inside(root, "300w"), HOME, TREE)
    return layout.benchmark({what: _read_split(layout, parts) for what, parts in PARTS.items()}, eyes=(36, 45))


def _read_split(layout: Layout, parts: tuple[str, ...]) -> Split:
    names: list[str] = []
    classes: list[str] = []
    points: list[Floats] = []
    for part in parts:
        found = _read_part(layout, part)
        layout.check_count(part, len(found), layout.root / part)
        names += found.images
        points += list(found.points)
        classes += [part.split("/")[0]] * len(found)
    headers = [layout.header(layout.root / name) for name in names]
    turned = np.stack([header.turn(own) for header, own in zip(headers, points, strict=True)])
    table = layout.table(names, turned, [header.shown for header in headers], None, _BEYOND)
    return Split(layout.images(layout.root, names), partial(_frame, table.points), table, tuple(classes))


def _read_part(layout: Layout, part: str) -> LandmarkTable:
    """The landmarks of the images in a folder, mirrored copies left out; the names start from the root."""
    folder = layout.find(part)
    try:
        table, _ = pts.read(folder)
    except LandmarkError as error:
        raise layout.error(str(error)) from None
    table = table.select([not PurePosixPath(name).stem.endswith("_mirror") for name in table.images])
    for name, own in zip(table.images, table.points, strict=True):
        if len(own) != POINTS or np.isnan(own).any():
            raise layout.error(f"{folder / name}: its .pts file does not hold {POINTS} points")
        if PurePosixPath(name).suffix not in (".jpg", ".png"):
            raise layout.missing(f"the image of {folder / name}{pts.ENDING}")
    return replace(table, images=tuple(f"{part}/{name}" for name in table.images))


def _frame(points: Floats, row: int, size: Size, frame_size: int) -> Frame:
    return frame_by_landmarks(points[row], size, frame_size)
