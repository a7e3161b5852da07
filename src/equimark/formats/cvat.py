"""CVAT for images 1.1: one XML file, an ``<image>`` each with a skeleton or points.

::

    <image id="0" name="a.jpg" width="640" height="480" subset="train">
      <skeleton label="landmarks">
        <points label="nose" outside="0" occluded="0" points="372.40,221.12"/>

Read are the elements of one skeleton, or points of one position each (whose labels name the landmarks), or one shape
of several points (which are then numbered). ``outside`` is not visible; ``occluded`` is visible. Coordinates run from
border to border, from 0 to the width: the centre of the first pixel is 0.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from equimark.formats.sizes import known_or_none
from equimark.formats.text import check_images, check_points, decimal, gather, names_or_none, number, read_head, settle
from equimark.landmarks import LandmarkError, LandmarkTable, few, quote

LABEL = "landmarks"
_SHAPES = ("box", "polygon", "polyline", "cuboid", "ellipse", "mask")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_Found = dict[str, tuple[float, float]]


def read(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table of an ``annotations.xml`` with at most one object per image; the images are not needed.

    Raises:
        LandmarkError: several objects on an image, a video's tracks, or a fault in the file.
    """
    every = list(_images(path))
    labelled = [image for image in every if image.find("skeleton") is not None or image.find("points") is not None]
    if not labelled:
        raise LandmarkError(f"{path} holds no skeleton or points on an image; export as 'CVAT for images 1.1'")
    names = [image.get("name", "") for image in labelled]
    where = [f"{path}: image {quote(name)}" for name in names]
    check_images(names, where)
    found = [_found(image, place) for image, place in zip(labelled, where, strict=True)]
    labels = list(dict.fromkeys(label for row in found for label in row))
    numbered = all(re.fullmatch(r"\d{1,6}", label, re.ASCII) for label in labels)
    if numbered and not any(image.find("skeleton") is not None for image in labelled):  # whose order is that of all
        labels.sort(key=int)
    points = settle(gather(labels, found) - 0.5)
    check_points(points, where)
    splits = [image.get("subset") for image in labelled]
    table = LandmarkTable(
        tuple(names),
        points,
        names=names_or_none(labels),
        splits=None if not any(splits) else tuple(split or "" for split in splits),
        sizes=known_or_none([_size(image) for image in labelled]),
    )
    return table, _left_out(len(every) - len(labelled), labelled)


def _images(path: Path) -> Iterator[Element]:
    """The ``<image>`` elements, one at a time; a file that is something else ends at its first tag."""
    if "<annotations" not in read_head(path):  # the parser would look for the end of the first word to the last byte
        raise LandmarkError(f"{path} is not a CVAT file: it must be XML whose root is <annotations>")
    tags: list[str] = []
    with path.open("rb") as file:
        events = ElementTree.iterparse(file, ("start", "end"))
        while (step := _next(path, events)) is not None:
            event, element = step
            if event == "end":
                tags.pop()
                if element.tag == "image" and tags == ["annotations"]:
                    yield element
                continue
            tags.append(element.tag)
            if tags[0] != "annotations" or len(tags) > 20:
                raise LandmarkError(f"{path} is not a CVAT file: it must be XML whose root is <annotations>")
            if tags == ["annotations", "track"]:
                raise LandmarkError(f"{path} holds the tracks of a video; export it as 'CVAT for images 1.1'")


def _next(path: Path, events: Iterator[tuple[str, Element]]) -> tuple[str, Element] | None:
    try:
        return next(events, None)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # LookupError: an encoding unknown here
        raise LandmarkError(f"{path} is not XML ({error}); is it complete?") from None


def _found(image: Element, where: str) -> _Found:
    """Position of each label that the image shows; NaN for one that is outside."""
    skeletons, loose = image.findall("skeleton"), image.findall("points")
    if len(skeletons) > 1 or (skeletons and loose):
        raise LandmarkError(f"{where}: {len(skeletons)} skeletons and {len(loose)} points; keep one object per image")
    shapes = skeletons[0].findall("points") if skeletons else loose
    positions = [_positions(shape, where) for shape in shapes]
    if len(shapes) == 1 and len(positions[0]) > 1 and not skeletons:
        return {str(k): position for k, position in enumerate(positions[0])}
    found: _Found = {}
    for shape, position in zip(shapes, positions, strict=True):
        label = shape.get("label", "")
        if not label or len(position) != 1:
            raise LandmarkError(f"{where}: each of several points must have a label and one position")
        if label in found:
            raise LandmarkError(f"{where}: {quote(label)} occurs twice; keep one of each label per image")
        found[label] = position[0] if shape.get("outside", "0") in ("0", "False") else (np.nan, np.nan)
    return found


def _positions(shape: Element, where: str) -> list[tuple[float, float]]:
    positions = []
    for pair in shape.get("points", "").split(";"):
        words = pair.split(",")
        if len(words) != 2:
            raise LandmarkError(f"{where}: {quote(pair)} should be 'x,y'")
        x, y = (number(word, where) for word in words)
        positions.append((x, y))
    return positions


def _size(image: Element) -> tuple[int, int]:
    """Height and width, 0 where the file does not say."""
    sides = [image.get(side, "") for side in ("height", "width")]
    height, width = (int(side) if re.fullmatch(r"\d{1,9}", side, re.ASCII) else 0 for side in sides)
    return height, width


def _left_out(unlabelled: int, images: Sequence[Element]) -> tuple[str, ...]:
    notes = []
    if unlabelled:
        notes.append(f"{unlabelled} images have no skeleton or points and are left out")
    points = [point for image in images for point in image.iter("points")]
    if occluded := sum(point.get("occluded", "0") not in ("0", "False") for point in points):
        notes.append(f"{occluded} landmarks are marked as occluded and count as visible here")
    if any(image.find(".//attribute") is not None for image in images):
        notes.append("attributes are left out")
    others = dict.fromkeys(shape.tag for image in images for shape in image if shape.tag in _SHAPES)
    if others:
        notes.append(f"shapes that are no points are left out: {few(list(others))}")
    return tuple(notes)


def write(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """Every row as an image with one skeleton, ``landmarks``; the task in CVAT must have a skeleton label so named."""
    for name in (*table.images, *table.labels, *(table.splits or ())):
        if _NOT_XML.search(name):
            raise LandmarkError(f"{quote(name)} holds characters that XML cannot; rename it")
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    for i, image in enumerate(table.images):
        SubElement(root, "image", _attributes(table, i, image)).append(_skeleton(table, i))
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    known = table.sizes is not None and bool(table.sizes.all())
    return () if known else ("width and height of images are left out, not all are known: give the images (--images)",)


def _attributes(table: LandmarkTable, row: int, image: str) -> dict[str, str]:
    attributes = {"id": str(row), "name": image}
    if table.splits is not None and table.splits[row]:
        attributes["subset"] = table.splits[row]
    if table.sizes is not None and table.sizes[row].all():
        height, width = table.sizes[row].tolist()
        attributes |= {"width": str(width), "height": str(height)}
    return attributes


def _skeleton(table: LandmarkTable, row: int) -> Element:
    skeleton = Element("skeleton", {"label": LABEL, "source": "manual", "z_order": "0"})
    for label, (x, y), visible in zip(table.labels, table.points[row].tolist(), table.visible[row], strict=True):
        position = f"{decimal(x + 0.5)},{decimal(y + 0.5)}" if visible else "0,0"
        outside = str(int(not visible))
        attributes = {"label": label, "source": "manual", "outside": outside, "occluded": "0", "points": position}
        SubElement(skeleton, "points", attributes)
    return skeleton
