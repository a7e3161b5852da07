"""Landmark files: converted, or read for a command that learns from them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from equimark import formats
from equimark.commands.showing import mention
from equimark.evaluation import AnnotatedFrames, load_annotated
from equimark.geometry import Frame
from equimark.images import ImageError, ImageSource, open_images
from equimark.landmarks import LandmarkError, LandmarkTable, few, have_images, match_images
from equimark.packs import is_pack


def run_convert(arguments: Namespace) -> None:
    """From one landmark format to another."""
    if not arguments.overwrite:
        formats.check_free(arguments.out, arguments.write_as)
    formats.check_writable(arguments.out, arguments.write_as)
    table, left_out = formats.read_noted(arguments.file, arguments.read_as, arguments.images)
    if arguments.scale is not None:
        table = formats.with_scale(table, arguments.scale)
    not_held = formats.write(table, arguments.out, arguments.write_as, arguments.images)
    print(f"{table.points.shape[1]} landmarks on {len(table)} images: {arguments.out}")
    if table.scale is not None and 0 < (without := int(np.isnan(table.scale).sum())) < len(table):
        mention([f"{without} of {len(table)} images have no scale: geomorph then scales none of them"])
    mention([f"{arguments.file}: {note}" for note in left_out] + [f"{arguments.out}: {note}" for note in not_held])


def read_training_labels(path: Path, images: Path | None = None) -> LandmarkTable:
    """A landmark file; of one with splits, the part for training.

    Args:
        path: of the file.
        images: where the image files are.

    Raises:
        LandmarkError, ImageError: if it cannot be read, or does not fit the images.
    """
    return _for_training(formats.read(path, images=images))


def _for_training(table: LandmarkTable) -> LandmarkTable:
    return table.split("train") if table.splits and "train" in table.splits else table


def read_labels_to_fit(path: Path, images: Path | None) -> tuple[LandmarkTable, ImageSource]:
    """The labels for training whose images are there, and these; says which are missing.

    Args:
        path: of the landmark file.
        images: where the images are; default: beside it.

    Raises:
        LandmarkError: if no image is there, or the file does not fit them.
        ImageError: if there are no images at all.
    """
    where = images or (path if path.is_dir() else path.parent)
    table, source = _for_training(formats.read(path, images=images, partly=True)), open_images(where)
    there = have_images(table.images, source.names)
    if not there.any():
        with _naming(path):
            match_images(table, source.names)  # refuses the table, and says why
    if not there.all():
        missing = [name for name, is_there in zip(table.images, there.tolist(), strict=True) if not is_there]
        mention([f"{len(missing)} of {len(table)} images with landmarks are not in {where}, left out: {few(missing)}"])
        table = table.select(there)
    formats.check_axes(path, table, where)
    return table, source


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Within, what is wrong with landmarks is said to be so in this file."""
    try:
        yield
    except LandmarkError as error:
        raise LandmarkError(f"{path}: {error}") from None


def load_to_fit(
    path: Path, table: LandmarkTable, source: ImageSource, frame: Frame
) -> tuple[LandmarkTable, AnnotatedFrames]:
    """The labels of a file whose images can be read, and both in a frame; says which cannot.

    Raises:
        LandmarkError: see :func:`equimark.evaluation.load_annotated`; or a landmark is visible on none of them.
        ImageError: if none can be read.
    """
    with _naming(path):
        table, data = _load_readable(table, source, frame)
        seen = np.any(table.visible, axis=0)
        hidden = [label for label, is_seen in zip(table.labels, seen, strict=True) if not is_seen]
        if hidden:
            raise LandmarkError(
                f"visible on none of the {len(table)} labelled images: {few(hidden)}; label it on one, or leave its "
                "columns out"
            )
        return table, data


def _load_readable(table: LandmarkTable, source: ImageSource, frame: Frame) -> tuple[LandmarkTable, AnnotatedFrames]:
    try:
        return table, load_annotated(table, source, frame)
    except ImageError:
        faults = [_fault(source, row) for row in match_images(table, source.names).tolist()]
        if all(faults):
            raise
    unreadable = [f"{name}: {fault}" for name, fault in zip(table.images, faults, strict=True) if fault]
    mention([f"{len(unreadable)} of {len(table)} images with landmarks cannot be read, left out: {few(unreadable)}"])
    table = table.select([not fault for fault in faults])
    return table, load_annotated(table, source, frame)


def _fault(source: ImageSource, row: int) -> str:
    """Why an image cannot be read; empty if it can."""
    try:
        source.decoded(row)
    except ImageError as error:
        return str(error)
    return ""


def image_files(images: Path | None) -> Path | None:
    """Where the image files are, unless they are packed."""
    return None if images is None or is_pack(images) else images
