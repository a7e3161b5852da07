"""Landmark files: converted, or read for a command that learns from them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from equimark import formats
from equimark.commands.showing import mention
from equimark.landmarks import LandmarkTable
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
    """A landmark file; of one with splits, the part for training."""
    table = formats.read(path, images=images)
    return table.split("train") if table.splits and "train" in table.splits else table


def image_files(images: Path | None) -> Path | None:
    """Where the image files are, unless they are packed."""
    return None if images is None or is_pack(images) else images
