"""Oxford-IIIT Pets: heads of cats and dogs, in boxes.

Home page: https://www.robots.ox.ac.uk/~vgg/data/pets/ (CC BY-SA 4.0)::

    images/Abyssinian_1.jpg
    annotations/xmls/Abyssinian_1.xml        PASCAL VOC: name (cat or dog), xmin, ymin, xmax, ymax of the head

3,686 images have a box, all of them in ``train``; DVE used 3,506 heads and does not say which. The classes are the two
species. Boxes count pixels from 1, both ends included. There are no landmarks. Protocol crop (the paper does not say):
a square around the middle of the box, whose longer side is 80 % of the frame.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from equimark.benchmarks.layout import Floats, Header, Layout
from equimark.benchmarks.split import Benchmark, Split
from equimark.geometry import Frame, Size, frame_square

HOME = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
TREE = "images/Abyssinian_1.jpg... and annotations/xmls/Abyssinian_1.xml..."
SHARE = 0.8


def read_pets(root: Path) -> Benchmark:
    """Oxford-IIIT Pets, heads: ``train``."""
    layout = Layout("pets", root, HOME, TREE)
    folder = layout.find("annotations/xmls")
    stems = [name[:-4] for name in layout.listing(folder, ".xml")]
    layout.check_count("train", len(stems), folder)
    images = layout.images(layout.find("images"), [f"{stem}.jpg" for stem in stems])
    read = [
        _read_head(layout, folder / f"{stem}.xml", layout.header(images.path / name))
        for stem, name in zip(stems, images.names, strict=True)
    ]
    boxes = np.array([box for _, box in read])
    split = Split(images, partial(_frame, boxes), classes=tuple(species for species, _ in read))
    note = f"{len(stems):,} heads; the paper used 3,506 and does not say which"
    return layout.benchmark({"train": split}, note=note)


def _read_head(layout: Layout, path: Path, header: Header) -> tuple[str, Floats]:
    """Species, and the box (x0, y0, x1, y1) in pixel borders."""
    try:
        said = ElementTree.parse(path)
        species = str(said.findtext("object/name")).strip()
        low, high = ([float(str(said.findtext(f"object/bndbox/{a}{end}"))) for a in "xy"] for end in ("min", "max"))
    except (ElementTree.ParseError, ValueError, OSError) as error:
        raise layout.error(f"{path} does not hold the box of a head ({error})") from None
    height, width = header.size
    if not (1 <= low[0] <= high[0] <= width and 1 <= low[1] <= high[1] <= height) or species not in ("cat", "dog"):
        raise layout.error(f"{path}: {species} from {low} to {high} is not in the image of {width} x {height}")
    corners = header.turn([np.array(low) - 1, np.array(high) - 1])
    return species, np.concatenate([corners.min(0), corners.max(0) + 1])


def _frame(boxes: Floats, row: int, size: Size, frame_size: int) -> Frame:
    low, high = boxes[row, :2], boxes[row, 2:]
    return frame_square((low + high) / 2, float((high - low).max()) / SHARE, size, frame_size)
