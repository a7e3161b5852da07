"""HELEN with the parts of the face, as labelled for exemplar-based face parsing.

Home page: http://pages.cs.wisc.edu/~lizhang/projects/face-parsing/ (Smith and others, CVPR 2013; non-commercial
research). The resized archive, SmithCVPR2013_dataset_resized::

    exemplars.txt, tuning.txt, testing.txt       1 , 100032540_1
    images/100032540_1.jpg
    labels/100032540_1/100032540_1_lbl00.png     grey, up to 255 where the part is; lbl00 to lbl10

2,000 / 230 / 100 images for ``train``, ``validation`` and ``test``, 2,330 in all. A pixel has the label of the part
whose mask is above half there, the higher one where two are. The paper classifies into ten: background and nine parts;
hair (lbl10), which the set's authors labelled by machine and left out of their own results, counts as background.
Protocol crop: the whole image, its proportions changed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from equimark.benchmarks.layout import Layout, inside
from equimark.benchmarks.split import WHOLE, Benchmark, Labels, Split
from equimark.images import ImageError, decode_labels

HOME = "http://pages.cs.wisc.edu/~lizhang/projects/face-parsing/"
TREE = "exemplars.txt, tuning.txt, testing.txt, images/NAME.jpg and labels/NAME/NAME_lbl00.png to NAME_lbl10.png"
LISTS = {"train": "exemplars.txt", "validation": "tuning.txt", "test": "testing.txt"}
PARTS = (
    *("background", "skin", "left eyebrow", "right eyebrow", "left eye", "right eye"),
    *("nose", "upper lip", "inner mouth", "lower lip"),
)
MASKS = 11  # the parts and hair


def read_helen(root: Path) -> Benchmark:
    """HELEN parsing: ``train``, ``validation``, ``test``."""
    layout = Layout("helen", inside(root, "SmithCVPR2013_dataset_resized"), HOME, TREE)
    splits = {what: _read_split(layout, what) for what in LISTS}
    seen = [name for split in splits.values() for name in split.images.names]
    layout.unique(layout.root, seen)
    return layout.benchmark(splits, part_names=PARTS)


def _read_split(layout: Layout, what: str) -> Split:
    path = layout.find(LISTS[what])
    stems = layout.unique(path, [cells[1].strip() for _, cells in layout.rows(path, 2, separator=",")])
    layout.check_count(what, len(stems), path)
    labels = layout.find("labels")
    for stem in stems:
        there = set(layout.listing(labels / stem, ".png"))
        if absent := [mask for mask in (f"{stem}_lbl{i:02d}.png" for i in range(MASKS)) if mask not in there]:
            raise layout.missing(str(labels / stem / absent[0]))
    images = layout.images(layout.find("images"), [f"{stem}.jpg" for stem in stems])
    return Split(images, WHOLE, read_parts=partial(_read_parts, layout, stems))


def _read_parts(layout: Layout, stems: list[str], row: int) -> Labels:
    stem = stems[row]
    parts = np.zeros(layout.header(layout.root / f"images/{stem}.jpg").shown, np.uint8)
    for label in range(1, len(PARTS)):
        path = layout.root / f"labels/{stem}/{stem}_lbl{label:02d}.png"
        try:
            mask = decode_labels(path.read_bytes())
        except (ImageError, OSError) as error:
            raise layout.error(f"{path}: {error}") from None
        if mask.shape != parts.shape:
            raise layout.error(f"{path} has {mask.shape[::-1]} pixels, its image {parts.shape[::-1]}")
        parts[mask > 127] = label
    return parts
