"""MNIST: handwritten digits, one set for each of the digits 3, 5 and 6 as in the paper.

Home page: http://yann.lecun.com/exdb/mnist/ (CC BY-SA 3.0). The four files, as they are (``.gz``) or unpacked::

    train-images-idx3-ubyte.gz    train-labels-idx1-ubyte.gz
    t10k-images-idx3-ubyte.gz     t10k-labels-idx1-ubyte.gz

28 x 28 grey images, white on black, without landmarks. ``train`` and ``validation`` are the training images of the
digit but for the last 1,000, and those; the paper does not say which 1,000 it kept. ``test`` are the test images of the
digit. Sizes: 5,131 / 1,000 / 1,010 of the 3, 4,421 / 1,000 / 892 of the 5, 4,918 / 1,000 / 958 of the 6. Protocol crop:
resized to 35 px, then black around it, 5 px of a frame of 45.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from equimark.benchmarks.layout import SIZES, Layout
from equimark.benchmarks.split import Benchmark, Split, framing
from equimark.images import ImageSource

HOME = "http://yann.lecun.com/exdb/mnist/"
TREE = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"
SIZE = (28, 28)
CROP = framing("stretch", 5 / 45, fill="black")


def read_mnist(digit: int, root: Path) -> Benchmark:
    """One digit of MNIST: ``train``, ``validation``, ``test``."""
    layout = Layout(f"mnist-{digit}", root, HOME, TREE)
    train, test = (_read_digit(layout, files, digit) for files in ("train", "t10k"))
    names = list(train)
    sizes = SIZES[layout.name]
    count = len(names) * sizes["train"] // (sizes["train"] + sizes["validation"])
    chosen = {
        "train": {name: train[name] for name in names[:count]},
        "validation": {name: train[name] for name in names[count:]},
        "test": test,
    }
    for what, images in chosen.items():
        layout.check_count(what, len(images))
    return layout.benchmark({what: _split(layout, images, digit) for what, images in chosen.items()})


def _read_digit(layout: Layout, files: str, digit: int) -> Mapping[str, NDArray[np.uint8]]:
    """The images (28, 28) of one digit by name: of which files, and which in it."""
    images = _read_idx(layout, f"{files}-images", 3)
    labels = _read_idx(layout, f"{files}-labels", 1)
    if len(images) != len(labels) or images.shape[1:] != SIZE:
        raise layout.error(f"{layout.root}: {files}-images of {images.shape} do not fit {len(labels)} {files}-labels")
    return {f"{files}/{i:05d}.png": images[i] for i in np.flatnonzero(labels == digit)}


def _read_idx(layout: Layout, stem: str, dimensions: int) -> NDArray[np.uint8]:
    """The array of bytes in an IDX file: 0, 0, 8, dimensions, each size as four bytes, then all values."""
    names = (f"{stem}-idx{dimensions}-ubyte", f"{stem}.idx{dimensions}-ubyte")
    path = layout.find(f"{names[0]}.gz", names[0], f"{names[1]}.gz", names[1])
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise layout.error(f"{path} cannot be unpacked ({error}); was it copied completely?") from None
    start = 4 + 4 * dimensions
    if len(data) < start or data[:4] != bytes((0, 0, 8, dimensions)):
        raise layout.error(f"{path} is not an IDX file of bytes with {dimensions} dimensions")
    shape = tuple(np.frombuffer(data, ">u4", dimensions, 4).tolist())
    if len(data) != start + int(np.prod(shape)):
        raise layout.error(f"{path} has {len(data)} bytes, but {shape} take {start + int(np.prod(shape))}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _split(layout: Layout, images: Mapping[str, NDArray[np.uint8]], digit: int) -> Split:
    def read(name: str) -> bytes:
        file = BytesIO()
        Image.fromarray(images[name]).save(file, format="PNG")
        return file.getvalue()

    return Split(ImageSource(layout.root, list(images), read), CROP, classes=(str(digit),) * len(images), size=SIZE)
