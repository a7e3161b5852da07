"""Names of data -> labelled images in a model's frame, in splits for learning and testing.

Data is the name of a published set (:mod:`equimark.benchmarks`), a landmark file, or images with a folder of label
images. Splits are those of the set or the file. Where there are none, one in five images, drawn by a seed, is held out
for testing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from . import benchmarks, formats
from .benchmarks import Split
from .benchmarks.own import EYES
from .config import ConfigError
from .evaluation import AnnotatedFrames, FrameOf, around_landmarks, load_annotated
from .geometry import Frame, Size
from .images import ImageError, decode_labels, frame_image, frame_labels, open_images
from .landmarks import LandmarkError, LandmarkTable, match_images
from .progress import progress_bar
from .retraining import PartedFrames

HELD_OUT = 5  # one in so many


@dataclass(frozen=True, eq=False)
class Part:
    """Images of a split, or some of them, as stored.

    Args:
        name: of the split, or how it was made.
        split: with the images.
        rows: (N,) of the split.
        has_frame: whether the set has a crop of its own; if not, images are framed as the run frames them.
    """

    name: str
    split: Split
    rows: NDArray[np.int64]
    has_frame: bool

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def table(self) -> LandmarkTable:
        """Landmarks of the images.

        Raises:
            LandmarkError: if they have none.
        """
        if self.split.table is None:
            raise LandmarkError(f"{self.split.images.path} has no landmarks; choose another data set, or a file")
        return self.split.table.select(self.rows)

    def load(self, frame: Frame, fit: str | None = None, *, progress: bool = False) -> AnnotatedFrames:
        """The images and their landmarks in a frame.

        Args:
            frame: of the run, whose side counts; and all of it, where the set has no crop of its own.
            fit: instead of either: see :class:`equimark.geometry.Frame`; or ``landmarks``, the 300-W crop.
            progress: show a progress bar.

        Raises:
            ConfigError: if ``fit`` cannot be.
            LandmarkError, ImageError: if there are no landmarks, or an image is missing or cannot be read.
        """
        return load_annotated(self.table, self.split.images, self._frame_of(frame, fit), progress=progress)

    def load_parts(self, frame: Frame, fit: str | None = None, *, progress: bool = False) -> PartedFrames:
        """The images and the part of each pixel in a frame; for arguments and errors see :meth:`load`."""
        frame_of = self._frame_of(frame, fit)
        frames, parts = [], []
        with progress_bar("reading", len(self), shown=progress) as advance:
            for place, row in enumerate(self.rows.tolist()):
                pixels, labels = self.split.pixels(row), self.split.parts(row)
                if labels is None:
                    raise ImageError(f"{self.split.images.path} has no parts: give a folder of label images, --parts")
                if labels.shape != pixels.shape[:2]:
                    name = self.split.images.names[row]
                    raise ImageError(
                        f"the label image of {name} has another size ({labels.shape[::-1]}) than the image"
                    )
                own = frame_of if isinstance(frame_of, Frame) else frame_of(place, labels.shape)
                framed, placement = frame_image(pixels, own)
                frames.append(framed)
                parts.append(frame_labels(labels, placement))
                advance()
        return PartedFrames(torch.from_numpy(np.stack(frames)).movedim(-1, 1).contiguous(), np.stack(parts))

    def _frame_of(self, frame: Frame, fit: str | None) -> Frame | FrameOf:
        if fit == "landmarks":
            return around_landmarks(self.table, frame.size)
        if fit is not None:
            try:
                return replace(frame, fit=fit)
            except ValueError as error:
                raise ConfigError(str(error)) from None
        if not self.has_frame:
            return frame
        return lambda place, size: self.split.frame_of(int(self.rows[place]), size, frame.size)


@dataclass(frozen=True, eq=False)
class Data:
    """A set of labelled images.

    Args:
        splits: by name.
        eyes: the two landmarks whose distance is the unit of errors, if they are known.
        parts: how many kinds of parts its pixels show, if that is known.
    """

    splits: Mapping[str, Part]
    eyes: tuple[int, int] | None = None
    parts: int | None = None

    def test(self, name: str | None = None) -> Part:
        """The split ``name``; or else ``test``, or the only one there is.

        Raises:
            LandmarkError: if there is none of that name, or several and none is named.
        """
        wanted = name or ("test" if "test" in self.splits else next(iter(self.splits)))
        if wanted not in self.splits or (name is None and wanted != "test" and len(self.splits) > 1):
            known = ", ".join(sorted(self.splits))
            raise LandmarkError(f"no split {name or 'test'!r}; this data has {known}: choose one with --split")
        return self.splits[wanted]

    def train_and_test(self, name: str | None = None, *, seed: int = 0) -> tuple[Part, Part]:
        """The split ``train``, and that to test on (see :meth:`test`); from an only one, images are held out.

        Raises:
            LandmarkError: if there are no such splits, or too few images to hold some out.
        """
        test = self.test(name)
        if "train" in self.splits and test is not self.splits["train"]:
            return self.splits["train"], test
        if len(self.splits) > 1:
            raise LandmarkError(
                f"no split 'train' beside {test.name!r}; this data has {', '.join(sorted(self.splits))}"
            )
        order = np.random.default_rng(seed).permutation(len(test))
        held_out = max(1, len(test) // HELD_OUT)
        if held_out == len(test):
            raise LandmarkError("a single labelled image cannot be both learned from and tested on; label more")
        drawn = {"kept for learning": order[held_out:], "held out": order[:held_out]}
        learn, held = (replace(test, name=what, rows=test.rows[np.sort(rows)]) for what, rows in drawn.items())
        return learn, held


def open_data(data: str, root: Path | None = None) -> Data:
    """A published set in the folder ``root``, or a landmark file with its images in ``root`` or beside it.

    Raises:
        ConfigError: for a set without ``root``.
        BenchmarkError: if the set is not complete.
        LandmarkError, ImageError: if it is neither a set nor a landmark file that fits its images.
    """
    if data in benchmarks.NAMES and not Path(data).is_file():
        if root is None:
            raise ConfigError(f"{data} is a published set: give the folder that holds it with --root")
        found = benchmarks.load(data, root)
        classes = len(found.part_names) if found.part_names else None
        return Data({name: _whole(name, split, True) for name, split in found.splits.items()}, found.eyes, classes)
    table = formats.read(data, images=root)
    source = open_images(root or Path(data).parent)
    formats.check_axes(data, table, source.path)
    names = [source.names[row] for row in match_images(table, source.names)]
    labels = np.array(table.splits or ["all"] * len(table))
    table = replace(table, images=tuple(names))
    splits = {}
    for name in dict.fromkeys(labels.tolist()):
        rows = np.flatnonzero(labels == name)
        own = replace(source, names=[names[row] for row in rows])
        splits[name] = _whole(name, Split(own, _centre, table.select(rows)), False)
    return Data(splits, EYES.get(table.points.shape[1]))


def open_parts(data: str, root: Path | None = None, parts: Path | None = None) -> Data:
    """A published set with parts in the folder ``root``; or images, with label images of the same names in ``parts``.

    Raises:
        ConfigError, BenchmarkError, ImageError: as :func:`open_data`, or if a label image is missing.
    """
    if data in benchmarks.NAMES and parts is None:
        return open_data(data, root)
    if parts is None:
        raise ConfigError(
            f"{data} is no published set ({', '.join(benchmarks.NAMES)}): give its label images with --parts"
        )
    source, label_images = open_images(data), open_images(parts)
    places = {_stem(name): place for place, name in enumerate(label_images.names)}
    if absent := [name for name in source.names if _stem(name) not in places]:
        raise ImageError(f"{parts} holds no label image for {absent[0]}; it must have the same name")

    def read(row: int) -> NDArray[np.uint8]:
        place = places[_stem(source.names[row])]
        try:
            return decode_labels(label_images.read(place))
        except ImageError as error:
            raise ImageError(f"{label_images.names[place]}: {error}") from None

    return Data({"all": _whole("all", Split(source, _centre, read_parts=read), False)})


def _whole(name: str, split: Split, has_frame: bool) -> Part:
    return Part(name, split, np.arange(len(split)), has_frame)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _centre(row: int, size: Size, frame_size: int) -> Frame:
    return Frame(frame_size)
