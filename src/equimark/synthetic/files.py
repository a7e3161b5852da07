"""Drawn pictures as a folder, as a user would bring one."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from equimark.files import replace_file, write_csv


def write(
    folder: Path,
    images: NDArray[np.uint8],
    landmarks: NDArray[np.float32],
    *,
    names: Sequence[str] | None = None,
) -> None:
    """Save images (N, H, W, 3) as PNG files and landmarks (N, K, 2), in pixels, as ``landmarks.csv``.

    The files are ``000000.png`` and so on, or ``names`` with ``.png``; the table's header is image, x0, y0, x1, ...
    No file is ever seen half written.
    """
    stems = [f"{i:06d}" for i in range(len(images))] if names is None else list(names)
    if not len(images) == len(landmarks) == len(stems):
        raise ValueError(f"got {len(images)} images, {len(landmarks)} rows of landmarks and {len(stems)} names")
    for stem, image in zip(stems, images, strict=True):
        replace_file(folder / f"{stem}.png", partial(Image.fromarray(image).save, format="PNG"))
    header = ["image", *(f"{axis}{k}" for k in range(landmarks.shape[1]) for axis in "xy")]
    rows = [[f"{stem}.png", *row] for stem, row in zip(stems, landmarks.reshape(len(stems), -1).tolist(), strict=True)]
    write_csv(folder / "landmarks.csv", header, rows)


def write_parts(folder: Path, parts: NDArray[np.uint8]) -> None:
    """Save labels (N, H, W) of pixels as PNG files of one channel, named as :func:`write` names images."""
    for i, labels in enumerate(parts):
        replace_file(folder / f"{i:06d}.png", partial(Image.fromarray(labels).save, format="PNG"))
