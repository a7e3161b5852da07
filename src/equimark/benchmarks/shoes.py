"""UT Zappos50K: shoes on white.

Home page: https://vision.cs.utexas.edu/projects/finegrained/utzap50k/ (academic, non-commercial use)::

    ut-zap50k-images-square/Boots/Ankle/adidas/7965990.8.jpg     136 x 136, or ut-zap50k-images/... of 136 x 102;
    ut-zap50k-images-square/Sandals/..., Shoes/..., Slippers/... either folder as it is or as its .zip, or its content

50,025 images without landmarks, of which the paper trains on 49,525; it does not say which: every hundredth by name is
kept for validation. The classes are the four kinds. Protocol crop: the whole image, and white around it, 15 px of a
frame of 94.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from equimark.benchmarks.layout import SIZES, Layout
from equimark.benchmarks.split import Benchmark, Split, framing
from equimark.images import ImageError, ImageSource, open_images

HOME = "https://vision.cs.utexas.edu/projects/finegrained/utzap50k/"
TREE = "ut-zap50k-images-square/ (or its .zip) with Boots/, Sandals/, Shoes/ and Slippers/"
KINDS = ("Boots", "Sandals", "Shoes", "Slippers")
CROP = framing("letterbox", 15 / 94, fill="white")
_FOLDERS = ("ut-zap50k-images-square", "ut-zap50k-images")


def read_shoes(root: Path) -> Benchmark:
    """UT Zappos50K: ``train``, ``validation``."""
    layout = Layout("shoes", root, HOME, TREE)
    archives = [f"{folder}.zip" for folder in _FOLDERS]
    where = root if (root / KINDS[0]).is_dir() else layout.find(*_FOLDERS, *archives)
    try:
        source = open_images(where)
    except ImageError as error:
        raise layout.error(str(error)) from None
    layout.check_count("images", len(source), where)
    sizes = SIZES[layout.name]
    step = min(sizes["images"] // (sizes["images"] - sizes["train"]), len(source))
    kept = np.arange(len(source)) % step == step - 1
    return layout.benchmark({"train": _split(layout, source, ~kept), "validation": _split(layout, source, kept)})


def _split(layout: Layout, source: ImageSource, chosen: NDArray[np.bool_]) -> Split:
    names = [source.names[i] for i in np.flatnonzero(chosen)]
    kinds = [next((part for part in PurePosixPath(name).parts if part in KINDS), None) for name in names]
    if None in kinds:
        raise layout.error(f"{source.path / names[kinds.index(None)]} is in none of {', '.join(KINDS)}")
    return Split(replace(source, names=names), CROP, classes=tuple(kind for kind in kinds if kind))
