"""Landmarks over time: the frames of videos, or of folders of frames, in order; smoothed, and with speeds.

Nothing is smoothed unless asked for, and what is blank stays blank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .files import write_csv
from .images import Video, open_images
from .landmarks import LandmarkTable
from .packs import PackedImages

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST_REACH = 2  # a quadratic through three points is those points
_COLUMNS = ("video", "frame", "seconds", "landmark", "x", "y", "confidence", "speed")
_NEGLIGIBLE = 1e-9  # eigenvalues that are as much smaller than the largest say nothing


@dataclass(frozen=True, eq=False)
class Tracks:
    """Landmarks of frames over time.

    Args:
        table: of N frames, those of a video in the order of time; pixels (x, y) of the frames as stored.
        videos: N names: of the file or folder that each frame comes from.
        frames: (N,) the number of each frame in its video, from 0; those that could not be read are counted too.
        seconds: (N,) when each frame is shown, from the first of its video on; NaN where not known.
    """

    table: LandmarkTable
    videos: tuple[str, ...]
    frames: Integers
    seconds: Floats

    def smoothed(self, reach: int) -> Tracks:
        """The tracks after :func:`smooth`, each video on its own."""
        points = self.table.points.copy()
        weights = np.ones(points.shape[:2]) if self.table.confidence is None else self.table.confidence
        for rows in self._by_video():
            known = np.isfinite(self.seconds[rows]).all()
            times = self.seconds[rows] if known else self.frames[rows].astype(np.float64)
            points[rows] = smooth(points[rows], np.nan_to_num(weights[rows]), self.frames[rows], times, reach)
        return replace(self, table=replace(self.table, points=points))

    def speeds(self) -> Floats:
        """Pixels per second (N, K): see :func:`speeds`; NaN where the time is not known."""
        found = np.full(self.table.points.shape[:2], np.nan)
        for rows in self._by_video():
            found[rows] = speeds(self.table.points[rows], self.frames[rows], self.seconds[rows])
        return found

    def write(self, path: Path) -> None:
        """Write a row for each landmark of each frame: video, frame, seconds, landmark, x, y, confidence, speed."""
        write_csv(path, _COLUMNS, self._rows())

    def _rows(self) -> Iterator[tuple[object, ...]]:
        points, moving = self.table.points, self.speeds()
        sure = np.full(moving.shape, np.nan) if self.table.confidence is None else self.table.confidence
        for row, (video, frame) in enumerate(zip(self.videos, self.frames.tolist(), strict=True)):
            seconds = _text(self.seconds[row], 6)
            for k, name in enumerate(self.table.labels):
                numbers = (*points[row, k], sure[row, k], moving[row, k])
                yield video, frame, seconds, name, *(_text(number, 4) for number in numbers)

    def _by_video(self) -> Iterator[Integers]:
        """The rows of each video."""
        _, numbers = np.unique(self.videos, return_inverse=True)
        order = np.argsort(numbers, kind="stable")
        yield from np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)


def follow(table: LandmarkTable, images: str | Path, fps: float | None = None) -> Tracks:
    """The landmarks of a source over time.

    Args:
        table: of its images, under the names of the source.
        images: a video, or a folder of videos or of frames, whose names say their order; or any other source or
            pack. Each folder of images is taken for a video.
        fps: frames per second at which they were taken; default: the time stamps of a video file. Without them, as in
            folders and packs, the time is not known.

    Raises:
        ImageError: as of :func:`~equimark.images.open_images`.
    """
    names, videos = _frames_of(images)
    here = Path(images).resolve().name
    counts: Counter[str] = Counter()
    places: dict[str, tuple[str, int]] = {}
    for name in names:
        folder = name.rpartition("/")[0]
        places[name] = (folder or here, counts[folder])
        counts[folder] += 1
    found = [places[name] for name in table.images]
    frames = np.array([frame for _, frame in found], np.int64)
    if fps is not None:
        seconds = frames / fps
    else:
        seconds = np.array([videos[v].seconds[frame] if v in videos else np.nan for v, frame in found], np.float64)
    return Tracks(table, tuple(video for video, _ in found), frames, seconds)


def _frames_of(images: str | Path) -> tuple[Sequence[str], dict[str, Video]]:
    packed = PackedImages.find(images)
    if packed is not None:
        return packed.names, {}
    source = open_images(images)
    return source.names, dict(source.videos)


def _text(number: float, decimals: int) -> str:
    return "" if np.isnan(number) else f"{number:.{decimals}f}"


# ---- of one video -------------------------------------------------------------------------------------------


def smooth(points: Floats, weights: Floats, frames: Integers, times: Floats, reach: int) -> Floats:
    """Each point moved onto a parabola that is fitted, over time, to the frames around it.

    The fit is by least squares, x and y alike, over ``reach`` frames before and after, each point weighted by its
    confidence; where all weigh the same, at even times, this is the filter of Savitzky and Golay (1964), of second
    order. Motion of constant velocity or acceleration is not changed. Blank points stay blank and have no effect; a
    point with weight 0 has no effect and goes where the others lead, if there are others.

    Args:
        points: (T, K, 2) pixels; NaN = not visible.
        weights: (T, K), not negative.
        frames: (T,) numbers of the frames, ascending, perhaps with gaps.
        times: (T,) of the frames, ascending.
        reach: frames on each side, at least 2.

    Raises:
        ValueError: if ``reach`` is less.
    """
    if reach < LEAST_REACH:
        raise ValueError(f"smoothing takes at least {LEAST_REACH} frames on each side, got {reach}")
    first = frames - frames[0]  # of each window, in a row of frames without gaps
    length = int(first[-1]) + 1 + 2 * reach

    def windows(values: Floats) -> Floats:
        """(T, 2 reach + 1): the values of the frames around each; 0 beyond them and in gaps."""
        full = np.zeros(length)
        full[first + reach] = values
        return np.asarray(sliding_window_view(full, 2 * reach + 1)[first])

    after = windows(times) - times[:, None]
    moved = points.copy()
    for k in range(points.shape[1]):
        seen = ~np.isnan(points[:, k, 0])
        weight = windows(np.where(seen, weights[:, k], 0))
        around = np.stack([windows(np.where(seen, points[:, k, axis], 0)) for axis in (0, 1)], -1)
        usable = seen & (weight.sum(1) > 0)
        moved[usable, k] = _parabola_now(around[usable], weight[usable], after[usable])
    return moved


def _parabola_now(values: Floats, weights: Floats, after: Floats) -> Floats:
    """Value (M, 2), at time 0, of parabolas fitted to values (M, W, 2) with weights (M, W) at times (M, W).

    Values that do not determine a parabola give the flattest one of those that fit them, about their mean.
    """
    weights = weights / weights.sum(1, keepdims=True)
    after = np.where(weights > 0, after, 0)
    after = after / np.maximum(np.abs(after).max(1, keepdims=True), np.finfo(np.float64).tiny)
    mean = np.einsum("mw,mwc->mc", weights, values)
    powers = [weights * after**p for p in range(5)]
    sums = np.stack([power.sum(1) for power in powers], 1)
    normal = sums[:, np.add.outer(np.arange(3), np.arange(3))]
    right = np.stack([np.einsum("mw,mwc->mc", power, values - mean[:, None]) for power in powers[:3]], 1)
    coefficients = np.linalg.pinv(normal, rcond=_NEGLIGIBLE, hermitian=True) @ right
    return np.asarray(mean + coefficients[:, 0])


def speeds(points: Floats, frames: Integers, seconds: Floats) -> Floats:
    """How fast points move (T, K), in pixels per second: from the frame before to the frame after.

    Where one of the two is missing or the point is blank in it, the frame itself takes its place; with neither, the
    speed is NaN, and so it is where the point itself is blank.

    Args:
        points: (T, K, 2) pixels; NaN = not visible.
        frames: (T,) numbers of the frames, ascending, perhaps with gaps.
        seconds: (T,) of the frames; NaN = not known.
    """
    rows = np.arange(len(points))
    times = np.broadcast_to(seconds[:, None], points.shape[:2])
    ends = []
    for step in (-1, 1):
        other = np.clip(rows + step, 0, len(rows) - 1)
        there = (frames[other] - frames == step)[:, None] & ~np.isnan(points[other, :, 0])
        ends.append((np.where(there[..., None], points[other], points), np.where(there, times[other], times)))
    (start, begun), (end, ended) = ends
    lasted = np.where(np.isnan(points[..., 0]), 0, ended - begun)
    way = np.linalg.norm(end - start, axis=-1)
    return np.where(lasted > 0, way / np.where(lasted > 0, lasted, 1), np.nan)
