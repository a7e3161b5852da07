"""Finding, reading and checking the files of one data set, with messages that say what and where."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image

from equimark.benchmarks.split import Benchmark, BenchmarkError, Split
from equimark.geometry import Size
from equimark.images import ImageSource
from equimark.landmarks import LandmarkError, LandmarkTable

Floats = NDArray[np.float64]
Row = tuple[int, list[str]]

# How many there are of what, in each set as its authors distribute it.
SIZES: dict[str, dict[str, int]] = {
    "celeba": {"images": 202_599, "train": 162_770, "validation": 19_867, "test": 19_962},
    "mafl": {"train": 19_000, "test": 1_000},
    "aflw-m": {"train": 10_122, "test": 2_995},
    "aflw-r": {"train": 10_122, "test": 2_991},
    "300w": {
        "train": 3_148,
        "afw": 337,
        "helen/trainset": 2_000,
        "lfpw/trainset": 811,
        "helen/testset": 330,
        "lfpw/testset": 224,
        "ibug": 135,
    },
    "cats": {"train": 8_609},
    "shoes": {"images": 50_025, "train": 49_525},
    "mnist-3": {"train": 5_131, "validation": 1_000, "test": 1_010},
    "mnist-5": {"train": 4_421, "validation": 1_000, "test": 892},
    "mnist-6": {"train": 4_918, "validation": 1_000, "test": 958},
    "animals": {"least of a class": 50},
    "pets": {"train": 3_686},
    "yale-b": {"images": 2_414, "subjects": 38},
    "helen": {"train": 2_000, "validation": 230, "test": 100},
}

_TRIED = 64  # images of each split, within any_size
_complete = ContextVar("complete", default=True)


@contextmanager
def any_size() -> Iterator[None]:
    """Within, sets may have other sizes than the published ones, of which the first images are taken: for a trial."""
    token = _complete.set(False)
    try:
        yield
    finally:
        _complete.reset(token)


# As CelebA, MAFL and both partitions of AFLW have them; left and right as seen in the image.
FIVE_POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")

_ORIENTATION = ExifTags.Base.Orientation


@dataclass(frozen=True)
class Header:
    """What an image file says before its pixels.

    Args:
        size: (H, W) as the file stores it, before EXIF rotation.
        orientation: EXIF's number, 1 to 8; 1 is upright.
    """

    size: Size
    orientation: int = 1

    @property
    def shown(self) -> Size:
        """(H, W) after EXIF rotation."""
        height, width = self.size
        return (width, height) if self.orientation > 4 else (height, width)

    def turn(self, points: ArrayLike) -> Floats:
        """Points (..., 2) in pixels before EXIF rotation, as annotation tools of the time saw them, to after it."""
        x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        right, bottom = self.size[1] - 1, self.size[0] - 1
        turned = {
            2: (right - x, y),
            3: (right - x, bottom - y),
            4: (x, bottom - y),
            5: (y, x),
            6: (bottom - y, x),
            7: (bottom - y, right - x),
            8: (y, right - x),
        }.get(self.orientation, (x, y))
        return np.stack(turned, axis=-1)


@dataclass(frozen=True)
class Layout:
    """Where the files of a data set lie.

    Args:
        name: of the set.
        root: the folder that the user gave.
        home: page of the set, if it has one.
        tree: what the folder should hold, in a line.
    """

    name: str
    root: Path
    home: str
    tree: str

    @property
    def is_complete(self) -> bool:
        """Whether all of the set has to be there: not within :func:`any_size`."""
        return _complete.get()

    def error(self, fault: str) -> BenchmarkError:
        """An error about this set."""
        return BenchmarkError(f"{self.name}: {fault}")

    def missing(self, what: str) -> BenchmarkError:
        """An error that says how the folder should look and where its files come from."""
        source = f" (from {self.home})" if self.home else ""
        return self.error(f"{what} is missing; {self.root} should hold {self.tree}{source}")

    def find(self, *places: str) -> Path:
        """The first of these paths below the root that exists.

        Raises:
            BenchmarkError: none does.
        """
        for place in places:
            if (self.root / place).exists():
                return self.root / place
        raise self.missing(str(self.root / places[0]))

    def check_count(self, what: str, found: int, where: object = "") -> None:
        """Refuse a number of things other than the published.

        Raises:
            BenchmarkError: with both numbers.
        """
        wanted = SIZES[self.name][what]
        if found != wanted and self.is_complete:
            raise self.error(f"{where or self.root}: {found:,} of {what!r}, but the published set has {wanted:,}")

    def benchmark(self, splits: Mapping[str, Split], **about: object) -> Benchmark:
        """The set, once an image of each split has been looked at."""
        for split in splits.values():
            if split.size is not None:
                split.pixels(0)
        if not self.is_complete:
            splits = {name: split.first(_TRIED) for name, split in splits.items()}
        return Benchmark(self.name, self.home, splits, **about)  # type: ignore[arg-type]

    # ---- lists ----------------------------------------------------------------------------------------------

    def lines(self, path: Path) -> list[str]:
        """Of a text file.

        Raises:
            BenchmarkError: it cannot be read.
        """
        try:
            return path.read_text("utf-8", errors="replace").splitlines()
        except OSError as error:
            raise self.error(f"{path}: {error.strerror or error}") from None

    def rows(self, path: Path, columns: int, *, skip: int = 0, separator: str | None = None) -> list[Row]:
        """Line number and cells of every line of a text file that is not blank, but for the first ``skip``.

        Raises:
            BenchmarkError: it cannot be read, lists nothing, or a line has another number of columns.
        """
        numbered = enumerate(self.lines(path), 1)
        rows = [(i, line.split(separator)) for i, line in numbered if i > skip and line.strip()]
        for line, cells in rows:
            if len(cells) != columns:
                raise self.error(f"{path}, line {line}: {len(cells)} columns, but {columns} are wanted")
        if not rows:
            raise self.error(f"{path} lists nothing; was it copied completely?")
        return rows

    def numbers(self, path: Path, rows: Sequence[Row], columns: slice) -> Floats:
        """The numbers (N, C) in some columns.

        Raises:
            BenchmarkError: not a number, or not a finite one.
        """
        try:
            values = np.array([cells[columns] for _, cells in rows], np.float64)
        except ValueError:
            for line, cells in rows:
                for cell in cells[columns]:
                    if not _is_number(cell):
                        raise self.error(f"{path}, line {line}: {cell!r} is not a number") from None
            raise
        wrong = ~np.isfinite(values).all(1)
        if wrong.any():
            line, cells = rows[int(wrong.argmax())]
            raise self.error(f"{path}, line {line}: a coordinate is not finite ({' '.join(cells[columns])})")
        return values

    def unique(self, path: Path, names: Sequence[str]) -> list[str]:
        """The same names.

        Raises:
            BenchmarkError: one occurs twice.
        """
        again = [name for name, count in Counter(names).items() if count > 1]
        if again:
            raise self.error(f"{path} lists {again[0]!r} more than once")
        return list(names)

    # ---- images ---------------------------------------------------------------------------------------------

    def images(self, folder: Path, names: Sequence[str]) -> ImageSource:
        """The image files of a folder by these names, relative to it.

        Raises:
            BenchmarkError: files are missing.
        """
        present: set[str] = set()
        for parent in {str(PurePosixPath(name).parent) for name in names}:
            present |= {str(PurePosixPath(parent, entry)) for entry in self.listing(folder / parent)}
        self._check_there(folder, names, present)
        return ImageSource(folder, list(names), partial(_read, folder))

    def archived(self, path: Path, folder: str, names: Sequence[str]) -> ImageSource:
        """The same, of a folder in a zip archive.

        Raises:
            BenchmarkError: files are missing, or the archive is cut short.
        """
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise self.error(f"{path} cannot be read as a zip archive ({error}); was it copied completely?") from None
        present = {name.removeprefix(folder) for name in archive.namelist()}
        self._check_there(path, names, present)
        return ImageSource(path, list(names), lambda name: archive.read(folder + name))

    def _check_there(self, where: Path, names: Sequence[str], present: set[str]) -> None:
        absent = [name for name in names if name not in present]
        if absent:
            raise self.missing(f"{where / absent[0]} ({len(absent):,} of {len(names):,} images are not there)")

    def listing(self, folder: Path, suffix: str = "") -> list[str]:
        """Names of the files in a folder that end so, sorted; hidden ones are left out.

        Raises:
            BenchmarkError: no such folder.
        """
        try:
            names = os.listdir(folder)  # noqa: PTH208 - many times faster where there are 200,000
        except OSError:
            raise self.missing(str(folder)) from None
        return sorted(name for name in names if name.lower().endswith(suffix) and not name.startswith("."))

    def header(self, path: Path) -> Header:
        """What an image file says before its pixels.

        Raises:
            BenchmarkError: it cannot be read.
        """
        try:
            with Image.open(path) as image:
                said = image.getexif().get(_ORIENTATION) if image.format in ("JPEG", "MPO") else 1
                return Header((image.height, image.width), next((i for i in range(1, 9) if i == said), 1))
        except Exception as error:  # what a damaged file raises depends on the kind
            raise self.error(f"{path}: not an image, or damaged ({error})") from None

    # ---- landmarks ------------------------------------------------------------------------------------------

    def table(
        self, images: Sequence[str], points: Floats, sizes: ArrayLike, names: tuple[str, ...] | None, beyond: float
    ) -> LandmarkTable:
        """Landmarks, none of them far outside its image.

        Args:
            images: N names.
            points: (N, K, 2) pixels.
            sizes: (H, W) of all images or (N, 2) of each.
            names: of the K landmarks, if they have any.
            beyond: how far outside the image a landmark may lie, as a share of its width and height: people mark
                what the image's border cuts off.

        Raises:
            BenchmarkError: one lies further out.
        """
        extent = np.broadcast_to(np.asarray(sizes, np.float64), (len(images), 2))[:, None, ::-1]
        far = ((points < -0.5 - beyond * extent) | (points > extent - 0.5 + beyond * extent)).any(-1)
        if far.any():
            row, k = np.argwhere(far)[0].tolist()
            (x, y), (width, height) = points[row, k].tolist(), extent[row, 0].astype(int).tolist()
            raise self.error(f"{images[row]}: landmark {k} at ({x:g}, {y:g}) is not in the image of {width} x {height}")
        try:
            return LandmarkTable(tuple(images), points, names)
        except LandmarkError as error:
            raise self.error(str(error)) from None


def inside(root: Path, *folders: str) -> Path:
    """The first of these folders below ``root`` that exists, or ``root``: an archive may bring its own folder."""
    return next((root / folder for folder in folders if (root / folder).is_dir()), root)


def _read(folder: Path, name: str) -> bytes:
    return (folder / name).read_bytes()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
