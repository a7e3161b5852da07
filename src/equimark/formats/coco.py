"""COCO keypoints: one JSON file of images, categories (which name the keypoints) and annotations.

``"keypoints": [x, y, v, ...]``: v = 0 not labelled, 1 labelled but occluded, 2 visible; 1 and 2 are visible here.
Coordinates are indices of pixels from 0, as COCO's own files and the programs that read them take them, so nothing is
shifted. What COCO has no place for is kept in keys of our own: ``split`` of an image, ``keypoint_scores`` of an
annotation, whose mean is COCO's ``score``.
"""

from __future__ import annotations

import json
import reprlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from equimark.formats.json_text import finite, load, mappings
from equimark.formats.sizes import known_or_none
from equimark.formats.text import check_images, names_or_none
from equimark.landmarks import Floats, LandmarkError, LandmarkTable, Sizes, few, quote

_Mapping = dict[str, Any]
CATEGORY = "object"
_OF_IMAGE = {"id", "file_name", "width", "height", "split"}
_OF_ANNOTATION = {
    *("id", "image_id", "category_id", "iscrowd", "segmentation"),
    *("keypoints", "num_keypoints", "keypoint_scores", "score", "bbox", "area"),
}


def looks_like(head: str) -> bool:
    """Whether the beginning of a file is that of a JSON mapping."""
    return head.lstrip("\ufeff \t\r\n").startswith("{")


def read(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table of a COCO file with at most one labelled object per image; the images are not needed.

    Raises:
        LandmarkError: several objects on an image, or a fault in the file.
    """
    document = load(path)
    if not isinstance(document, dict) or not {"images", "annotations"} <= document.keys():
        raise LandmarkError(f"{path} is not a COCO file: it must hold 'images', 'annotations' and 'categories'")
    known = {str(image.get("id")): image for image in mappings(document["images"], f"{path}: 'images'")}
    chosen, annotations = _objects(path, document, known)
    where = [_where(path, annotation) for annotation in annotations]
    names = tuple(str(image.get("file_name") or "") for image in chosen)
    check_images(names, where)
    labels = _labels(path, document, annotations)
    keypoints = _keypoints(annotations, where, labels)
    points = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan)
    table = LandmarkTable(
        names,
        points,
        names=names_or_none(labels) if labels else None,
        confidence=_scores(annotations, where, points.shape[1]),
        splits=tuple(str(i.get("split", "")) for i in chosen) if any("split" in i for i in chosen) else None,
        sizes=_sizes(path, chosen),
    )
    notes = _left_out(len(known) - len(chosen), int((keypoints[..., 2] == 1).sum()), annotations)
    return table, notes + _not_kept(document, chosen, annotations, points)


def _objects(path: Path, document: _Mapping, known: dict[str, _Mapping]) -> tuple[list[_Mapping], list[_Mapping]]:
    """The images with keypoints, and the annotation of each: the only one that has any labelled."""
    found: dict[str, list[_Mapping]] = defaultdict(list)
    for annotation in mappings(document["annotations"], f"{path}: 'annotations'"):
        key = str(annotation.get("image_id"))
        if key not in known:
            raise LandmarkError(f"{_where(path, annotation)}: no image has the id {quote(key)}")
        if "keypoints" in annotation:
            found[key].append(annotation)
    if not found:
        raise LandmarkError(f"{path} holds no annotation with 'keypoints'; export them from the tool as COCO keypoints")
    chosen = []
    for key, candidates in found.items():
        labelled = [a for a in candidates if any(v != 0 for v in _list(path, a)[2::3])]
        if len(labelled) > 1:
            name = known[key].get("file_name")
            raise LandmarkError(
                f"{path}: {len(labelled)} objects on the image {name!r} (id {key}); keep one object per image"
            )
        chosen.append((labelled or candidates)[0])
    return [known[key] for key in found], chosen


def _where(path: Path, annotation: _Mapping) -> str:
    return f"{path}: annotation {reprlib.repr(annotation.get('id'))}"


def _list(path: Path, annotation: _Mapping) -> list[Any]:
    keypoints = annotation["keypoints"]
    if not isinstance(keypoints, list) or not keypoints or len(keypoints) % 3:
        raise LandmarkError(f"{_where(path, annotation)}: 'keypoints' must be a list of x, y, v for each landmark")
    return keypoints


def _labels(path: Path, document: _Mapping, annotations: Sequence[_Mapping]) -> tuple[str, ...]:
    """The names that the category of the annotations gives its keypoints; none if it gives none."""
    categories = {str(c.get("id")): c for c in mappings(document.get("categories", []), f"{path}: 'categories'")}
    used = dict.fromkeys(str(annotation.get("category_id")) for annotation in annotations)
    named = {key: tuple(map(str, categories.get(key, {}).get("keypoints") or ())) for key in used}
    if len(set(named.values())) > 1:
        raise LandmarkError(
            f"{path}: objects of categories with other keypoints ({few(list(used))}): keep one category"
        )
    return next(iter(named.values()))


def _keypoints(annotations: Sequence[_Mapping], where: Sequence[str], labels: Sequence[str]) -> Floats:
    """(N, K, 3) of x, y, v."""
    count = len(labels) or len(annotations[0]["keypoints"]) // 3
    rows = []
    for annotation, place in zip(annotations, where, strict=True):
        values = annotation["keypoints"]
        if len(values) != 3 * count:
            raise LandmarkError(f"{place}: {len(values) // 3} keypoints, but {count} are expected; all must agree")
        rows.append([finite(value, f"{place}: a number in 'keypoints'") for value in values])
    keypoints = np.array(rows).reshape(len(rows), count, 3)
    wrong = (keypoints[..., 2] < 0).any(-1)
    if wrong.any():
        raise LandmarkError(f"{where[int(wrong.argmax())]}: v of a keypoint is negative; it must be 0, 1 or 2")
    return keypoints


def _scores(annotations: Sequence[_Mapping], where: Sequence[str], count: int) -> Floats | None:
    """(N, K) confidence, if there is any."""
    if not any("keypoint_scores" in annotation for annotation in annotations):
        return None
    rows = []
    for annotation, place in zip(annotations, where, strict=True):
        scores = annotation.get("keypoint_scores", [None] * count)
        if not isinstance(scores, list) or len(scores) != count:
            raise LandmarkError(f"{place}: 'keypoint_scores' must be a list of {count} numbers")
        rows.append([np.nan if s is None else finite(s, f"{place}: a number in 'keypoint_scores'") for s in scores])
    return np.array(rows, np.float64)


def _sizes(path: Path, images: Sequence[_Mapping]) -> Sizes | None:
    return known_or_none(
        [
            [int(finite(image.get(key) or 0, f"{path}: {key!r} of an image")) for key in ("height", "width")]
            for image in images
        ]
    )


def _left_out(unlabelled: int, occluded: int, annotations: Sequence[_Mapping]) -> tuple[str, ...]:
    notes = []
    if unlabelled:
        notes.append(f"{unlabelled} images have no keypoints and are left out")
    if occluded:
        notes.append(f"{occluded} landmarks are labelled as occluded (v = 1) and count as visible here")
    if any(annotation.get("segmentation") for annotation in annotations):
        notes.append("segmentations are left out")
    return tuple(notes)


def _not_kept(
    document: _Mapping, images: Sequence[_Mapping], annotations: Sequence[_Mapping], points: Floats
) -> tuple[str, ...]:
    """What a table has no place for, but for what :func:`write` makes again from the landmarks."""
    notes = []
    used = {str(annotation.get("category_id")) for annotation in annotations}
    categories = [c for c in mappings(document.get("categories", []), "'categories'") if str(c.get("id")) in used]
    if any(category.get("skeleton") for category in categories):
        notes.append("the links between keypoints (skeleton) are left out")
    if named := [str(c["name"]) for c in categories if c.get("name", CATEGORY) != CATEGORY]:
        notes.append(f"the name of the category, {few(named)}, is left out: written again it is {CATEGORY!r}")
    drawn = zip(annotations, points, strict=True)
    if other := sum("bbox" in a and not _are_close(a["bbox"], _box(own)) for a, own in drawn):
        notes.append(f"boxes of {other} objects are left out: written again they are those of the landmarks")
    for what, entries, known in (("images", images, _OF_IMAGE), ("objects", annotations, _OF_ANNOTATION)):
        if others := dict.fromkeys(key for entry in entries for key in entry if key not in known):
            notes.append(f"other entries of {what} are left out: {few(list(others))}")
    if parts := [key for key in document if key not in ("images", "annotations", "categories") and document[key]]:
        notes.append(f"other parts of the file are left out: {few(parts)}")
    return tuple(notes)


def _are_close(box: Any, own: Sequence[float]) -> bool:
    """Whether ``box``, which may be anything, is ``own`` as far as a file tells numbers apart."""
    if not isinstance(box, list) or len(box) != len(own):
        return False
    return all(isinstance(x, int | float) and abs(x - y) < 1e-3 for x, y in zip(box, own, strict=True))


def _box(points: Floats) -> list[float]:
    """x, y, width and height of the box around the visible ones of (K, 2)."""
    shown = points[np.isfinite(points).all(-1)]
    low, high = (shown.min(0), shown.max(0)) if len(shown) else (np.zeros(2), np.zeros(2))
    return [*low.round(4).tolist(), *(high - low).round(4).tolist()]


def write(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """One category, one image and one annotation per row; the box is that of the visible landmarks."""
    sizes = np.zeros((len(table), 2), np.int64) if table.sizes is None else table.sizes
    images = []
    for i, (name, (height, width)) in enumerate(zip(table.images, sizes.tolist(), strict=True)):
        image: _Mapping = {"id": i + 1, "file_name": name}
        image |= {"width": width, "height": height} if width and height else {}
        image |= {} if table.splits is None else {"split": table.splits[i]}
        images.append(image)
    category = {"id": 1, "name": CATEGORY, "supercategory": "", "keypoints": list(table.labels), "skeleton": []}
    document = {
        "images": images,
        "annotations": [_annotation(table, i) for i in range(len(table))],
        "categories": [category],
    }
    path.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    unknown = int((~sizes.all(-1)).sum())
    note = f"width and height of {unknown} images are left out, they are not known: give the images (--images)"
    return (note,) if unknown else ()


def _annotation(table: LandmarkTable, row: int) -> _Mapping:
    points, visible = table.points[row], table.visible[row]
    box = _box(points)
    keypoints = np.concatenate([np.where(visible[:, None], points, 0), 2 * visible[:, None]], -1).round(4) + 0.0
    annotation: _Mapping = {
        "id": row + 1,
        "image_id": row + 1,
        "category_id": 1,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int(visible.sum()),
        "bbox": box,
        "area": round(box[2] * box[3], 4),
        "iscrowd": 0,
    }
    if table.confidence is not None:
        scores = table.confidence[row].round(4)
        annotation["keypoint_scores"] = [None if np.isnan(score) else score for score in scores.tolist()]
        annotation |= {} if np.isnan(scores).all() else {"score": round(float(np.nanmean(scores)), 4)}
    return annotation
