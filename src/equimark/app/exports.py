"""Labels and predictions as landmark files, and what was learned as a head."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from equimark import formats
from equimark.app import AppError
from equimark.app.learning import Predictions
from equimark.app.session import Labels, to_table
from equimark.files import replace_file
from equimark.landmarks import LandmarkTable


def checked_table(labels: Labels, names: Sequence[str]) -> LandmarkTable:
    """What a person placed or accepted: a row for each image with a label.

    Args:
        labels: of the person.
        names: of the images there are.

    Raises:
        AppError: if there is nothing yet.
    """
    images = [name for name in names if labels.of(name)]
    if not images:
        raise AppError("nothing is labelled yet: label or accept an image first")
    return to_table(labels, images)


def full_table(labels: Labels, names: Sequence[str], predictions: Predictions, *, least: float = 0.0) -> LandmarkTable:
    """All images: what a person placed or accepted, with confidence 1, and else what is predicted.

    Args:
        labels: of the person.
        names: of the images.
        predictions: of the same images.
        least: confidence from which on a prediction counts; others are left blank.

    Raises:
        AppError: if there is nothing yet.
    """
    if not labels.landmarks or not any(True for _ in labels.labelled()):
        raise AppError("nothing is labelled yet: label or accept an image first")
    table = to_table(labels, names)
    points, confidence = table.points.copy(), np.full(table.visible.shape, np.nan)
    for row, name in enumerate(names):
        given, found = labels.of(name), predictions.of(row)
        for k, landmark in enumerate(labels.landmarks):
            if landmark.id in given:
                confidence[row, k] = 1.0
            elif landmark.id in found:
                x, y, sure = found[landmark.id]
                confidence[row, k] = sure
                if sure >= least:
                    points[row, k] = x, y
    return replace(table, points=points, confidence=confidence)


def write_table(table: LandmarkTable, folder: Path, stem: str, format: str) -> tuple[Path, Path, tuple[str, ...]]:
    """Write a table to ``folder``.

    Returns:
        The file, or folder of files; one file to download, an archive where there are many; and a sentence for each
        thing that the format could not hold.

    Raises:
        AppError: if there is no such format.
        LandmarkError: if it cannot hold this table.
    """
    if format not in formats.FORMATS:
        raise AppError(f"there is no format {format!r}; known are {', '.join(formats.FORMATS)}")
    kind = formats.FORMATS[format]
    name = safe_name(stem) + ("" if format == "csv" else f"-{format}")
    path = folder / (name if kind.is_folder else name + kind.endings[0])
    if kind.is_folder:
        shutil.rmtree(path, ignore_errors=True)  # files of an earlier export, of images that are no longer in it
    notes = formats.write(table, path, format)
    if not kind.is_folder:
        return path, path, notes
    archive = folder / f"{name}.zip"
    replace_file(archive, lambda temporary: _archive(path, temporary))
    return path, archive, notes


def _archive(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))


def safe_name(text: str) -> str:
    """A name for a file or folder, without anything that leads elsewhere.

    Raises:
        AppError: if nothing is left.
    """
    name = re.sub(r"[^\w.-]+", "-", text.strip()).strip(".-")
    if not name:
        raise AppError(f"{text!r} cannot be the name of a file: use letters and digits")
    return name
