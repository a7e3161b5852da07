"""Readers of the published data sets, as their authors distribute them.

``load("mafl", folder)`` -> :class:`Benchmark`: its official splits, each with images, landmarks and what else the set
holds, and the crop that the papers' protocols make of each image. A folder that is not complete is refused, with a line
that says what is missing, how the folder should look and where its files come from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from equimark.benchmarks.aflw import read_aflw_m, read_aflw_r
from equimark.benchmarks.animals import read_animals
from equimark.benchmarks.cats import read_cats
from equimark.benchmarks.celeba import read_celeba, read_mafl
from equimark.benchmarks.digits import read_mnist
from equimark.benchmarks.faces300w import read_300w
from equimark.benchmarks.helen import read_helen
from equimark.benchmarks.layout import any_size
from equimark.benchmarks.own import read_folder, read_landmarks, read_roboarm
from equimark.benchmarks.pets import read_pets
from equimark.benchmarks.shoes import read_shoes
from equimark.benchmarks.split import Benchmark, BenchmarkError, Split
from equimark.benchmarks.yale import read_yale_b

__all__ = ["NAMES", "Benchmark", "BenchmarkError", "Split", "any_size", "load"]

_READERS: dict[str, Callable[[Path], Benchmark]] = {
    "celeba": read_celeba,
    "mafl": read_mafl,
    "aflw-m": read_aflw_m,
    "aflw-r": read_aflw_r,
    "300w": read_300w,
    "cats": read_cats,
    "shoes": read_shoes,
    **{f"mnist-{digit}": partial(read_mnist, digit) for digit in (3, 5, 6)},
    "animals": read_animals,
    "pets": read_pets,
    "yale-b": read_yale_b,
    "helen": read_helen,
    "roboarm": read_roboarm,
    "folder": read_folder,
    "landmarks": read_landmarks,
}
NAMES: tuple[str, ...] = tuple(_READERS)


def load(name: str, root: str | Path) -> Benchmark:
    """The data set ``name`` (one of :data:`NAMES`) in the folder ``root``.

    Lists and sizes are checked, and where there are landmarks the headers of the images; pixels are read when asked
    for (:meth:`Benchmark.check` reads them all).

    Raises:
        BenchmarkError: no such set, or it is not complete or not as its authors distribute it.
    """
    if name not in _READERS:
        raise BenchmarkError(f"no data set {name!r}; known are {', '.join(NAMES)}")
    return _READERS[name](Path(root))
