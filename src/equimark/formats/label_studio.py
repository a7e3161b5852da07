"""Label Studio: one JSON file, a list of tasks with an image and keypoint labels each.

A keypoint stands in shares of the image, in percent, from border to border: 0 is the left border of the first pixel
and 100 the right border of the last, so pixel centre 0 of an image of width W stands at 100 * 0.5 / W. Landmarks that
are not visible have no keypoint; the first task that we write lists all names (``landmarks`` of its data), so that
their order is kept. Landmarks with confidence are written as predictions, which a person can then correct.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import numpy as np

from equimark.formats.json_text import finite, load, mappings
from equimark.formats.sizes import find_sizes, known_or_none, known_sizes
from equimark.formats.text import check_images, check_points, gather, names_or_none, settle
from equimark.images import IMAGE_SUFFIXES
from equimark.landmarks import FARTHEST, Floats, LandmarkError, LandmarkTable, Sizes, few

WHY = "a Label Studio file gives shares of each image, so the sizes of the images are needed"
LOCAL = "/data/local-files/?d="
_Mapping = dict[str, Any]
_POINT = "keypointlabels"
_BY_PEOPLE = ("annotations", "completions")  # the latter in versions before 1.0


def looks_like(head: str) -> bool:
    """Whether the beginning of a file is that of a JSON list."""
    return head.lstrip("\ufeff \t\r\n").startswith("[")


def read(path: Path, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    """The table of an export (JSON) with at most one annotation per task; without any, its prediction counts.

    Args:
        path: of the file.
        images: where the images are: only needed for files of old versions, which lack the sizes.

    Raises:
        LandmarkError: several annotations of an image, a label that occurs twice in it, or a fault in the file.
    """
    document = load(path)
    every = mappings(document if isinstance(document, list) else [document], f"{path}: the file")
    chosen = [(f"{path}: task {reprlib.repr(task.get('id', i))}", task) for i, task in enumerate(every)]
    answers = [(where, task, _answer(where, task)) for where, task in chosen]
    labelled = [(where, task, answer) for where, task, answer in answers if answer is not None]
    predicted = sum(not any(task.get(kind) for kind in _BY_PEOPLE) for _, task, _ in labelled)
    if not labelled:
        raise LandmarkError(f"{path} is not a Label Studio export with keypoints: no task in it has any")
    where = [place for place, _, _ in labelled]
    names = tuple(_image(place, task) for place, task, _ in labelled)
    check_images(names, where)
    found = [_points(place, answer) for place, _, answer in labelled]
    labels = _labels([task for _, task, _ in labelled], found)
    shares, scores = gather(labels, [{k: v[:2] for k, v in row.items()} for row in found]), _scores(labels, found)
    sizes = _sizes([(task, answer) for _, task, answer in labelled])
    if any(row and not size.all() for row, size in zip(found, sizes, strict=True)):
        sizes = find_sizes(path, images, names, WHY)
    points = settle(shares / 100 * sizes[:, None, ::-1] - 0.5)
    check_points(points, where)
    splits = [task["data"].get("split") for _, task, _ in labelled]
    table = LandmarkTable(
        names,
        points,
        names=names_or_none(labels),
        confidence=scores,
        splits=None if not any(splits) else tuple(str(split or "") for split in splits),
        sizes=known_or_none(sizes.tolist()),
    )
    return table, _notes(len(every) - len(labelled), predicted, [answer for _, _, answer in labelled])


def _answer(where: str, task: _Mapping) -> list[_Mapping] | None:
    """The results of the only annotation of a task, or of its prediction."""
    if not isinstance(task.get("data"), dict):
        raise LandmarkError(f"{where}: no 'data'; export from Label Studio as JSON, not as JSON-MIN or CSV")
    for kind in (*_BY_PEOPLE, "predictions"):
        given = [a for a in mappings(task.get(kind) or [], f"{where}: {kind!r}") if not a.get("was_cancelled")]
        if len(given) > 1:
            raise LandmarkError(f"{where} has {len(given)} {kind}; keep one per image")
        if given:
            return mappings(given[0].get("result") or [], f"{where}: 'result'")
    return None


def _image(where: str, task: _Mapping) -> str:
    """Name of the image that the data of a task point to."""
    names = {key: _name(value) for key, value in task["data"].items() if isinstance(value, str)}
    files = [name for name in names.values() if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES]
    name = names.get("image") or names.get("img") or (files[0] if len(files) == 1 else None)
    if name is None:
        raise LandmarkError(f"{where}: which of its data is the image? Call it 'image'; it has {few(list(names))}")
    return name


def _name(link: str) -> str:
    """An image's name, without what Label Studio or a server puts around it."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    if parts.path.endswith("/local-files/"):
        return "".join(parse_qs(parts.query).get("d", [])[:1])
    name = unquote(parts.path).lstrip("/") if "://" in link else link
    upload = re.fullmatch(r"/?data/upload/(?:\d+/)?(?:[0-9a-f]{8}-)?(.+)", name)
    return upload[1] if upload else name


def _points(where: str, results: Sequence[_Mapping]) -> dict[str, tuple[float, float, float]]:
    """x and y in percent, and confidence, of each label."""
    found: dict[str, tuple[float, float, float]] = {}
    for result in results:
        if result.get("type") != _POINT:
            continue
        value = result.get("value")
        labels = value.get(_POINT) if isinstance(value, dict) else None
        if not isinstance(value, dict) or not isinstance(labels, list) or len(labels) != 1:
            raise LandmarkError(f"{where}: a keypoint must have one label, got {reprlib.repr(labels)}")
        label = str(labels[0])
        if label in found:
            raise LandmarkError(f"{where}: {label!r} occurs twice; keep one keypoint of each label per image")
        if result.get("image_rotation"):
            raise LandmarkError(f"{where}: the image was turned in Label Studio; turn it back and export again")
        x, y = (finite(value.get(axis), f"{where}: {axis} of {label!r}") for axis in "xy")
        score = result.get("score")
        found[label] = (x, y, np.nan if score is None else finite(score, f"{where}: score of {label!r}"))
    return found


def _labels(tasks: Sequence[_Mapping], found: Sequence[dict[str, Any]]) -> list[str]:
    """All labels: in the order that our own files list, or by number, or as they occur first."""
    orders = [task["data"].get("landmarks") for task in tasks]
    listed = next((order for order in orders if isinstance(order, list)), [])
    occurring = list(dict.fromkeys(label for row in found for label in row))
    if not listed and all(re.fullmatch(r"0|[1-9]\d{0,5}", label, re.ASCII) for label in occurring):
        return sorted(occurring, key=int)
    return list(dict.fromkeys([*map(str, listed), *occurring]))


def _scores(labels: Sequence[str], found: Sequence[dict[str, tuple[float, float, float]]]) -> Floats | None:
    scores = np.array([[row[label][2] if label in row else np.nan for label in labels] for row in found], np.float64)
    return None if np.isnan(scores).all() else scores


def _sizes(answers: Sequence[tuple[_Mapping, Sequence[_Mapping]]]) -> Sizes:
    """(N, 2) of tasks and their results, 0 where none of them says."""
    sizes = np.zeros((len(answers), 2), np.int64)
    for i, (task, results) in enumerate(answers):
        sides = [(task["data"].get("height"), task["data"].get("width"))]
        for height, width in [*sides, *((r.get("original_height"), r.get("original_width")) for r in results)]:
            if isinstance(height, int) and isinstance(width, int) and 0 < height < FARTHEST and 0 < width < FARTHEST:
                sizes[i] = height, width
    return sizes


def _notes(unlabelled: int, predicted: int, answers: Sequence[Sequence[_Mapping]]) -> tuple[str, ...]:
    notes = []
    if unlabelled:
        notes.append(f"{unlabelled} tasks are not annotated and are left out")
    if 0 < predicted < len(answers):
        notes.append(f"{predicted} tasks are not annotated; their predictions are taken")
    others = dict.fromkeys(str(r.get("type")) for results in answers for r in results if r.get("type") != _POINT)
    if others:
        notes.append(f"annotations that are no keypoints are left out: {few(list(others))}")
    return tuple(notes)


def write(table: LandmarkTable, path: Path) -> tuple[str, ...]:
    """One task per row, whose image is a link into the local storage of Label Studio (``/data/local-files/?d=``).

    Raises:
        LandmarkError: if the size of an image is not known.
    """
    sizes = known_sizes(table, WHY)
    tasks = []
    for i, image in enumerate(table.images):
        data: _Mapping = {"image": LOCAL + quote(image, errors="surrogateescape")}
        data |= {"width": int(sizes[i, 1]), "height": int(sizes[i, 0])}
        data |= {"landmarks": list(table.labels)} if i == 0 else {}
        data |= {} if table.splits is None else {"split": table.splits[i]}
        given: _Mapping = {"result": _results(table, i, sizes[i].tolist())}
        kind = "annotations" if table.confidence is None else "predictions"
        tasks.append({"id": i + 1, "data": data, kind: [given]})
    path.write_text(json.dumps(tasks, allow_nan=False) + "\n", encoding="utf-8")
    if table.confidence is not None and (~np.isnan(table.confidence) & ~table.visible).any():
        return ("the confidence of landmarks that are not visible is left out",)
    return ()


def _results(table: LandmarkTable, row: int, size: Sequence[int]) -> list[_Mapping]:
    height, width = size
    results = []
    for k in np.flatnonzero(table.visible[row]).tolist():
        x, y = ((table.points[row, k].round(4) + 0.5) / [width, height] * 100).tolist()
        result: _Mapping = {
            "id": f"{row}-{k}",
            "from_name": "label",
            "to_name": "image",
            "type": _POINT,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"x": x, "y": y, "width": 0.5, _POINT: [table.labels[k]]},
        }
        if table.confidence is not None and not np.isnan(table.confidence[row, k]):
            result["score"] = round(float(table.confidence[row, k]), 4)
        results.append(result)
    return results
