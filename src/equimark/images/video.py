"""Video files: how many frames one has, when each is shown, and their pixels.

A video is known by its packets, which are listed without decoding them, as counts and durations in file headers are
often wrong. Its frames are numbered from 0 in the order in which they are shown, whatever their distance in time.
PyAV, with libraries of its own, reads the files; without it a video is an image that cannot be read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from equimark.images.decoding import ImageError, Pixels

if TYPE_CHECKING:
    from types import ModuleType

    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

    _Numbered = tuple[int, VideoFrame]

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})

_DECODERS = 3  # open at a time: for a pass through a video while a person looks at other frames
_PASSED = 8  # frames a decoder remembers, for readers that ask for neighbours in another order
_LISTED = 256  # videos whose packets are remembered
_NO_PICTURE = "the video has no picture for this frame: it is damaged there, or was cut short"


@dataclass(frozen=True, eq=False)
class Video:
    """What is known of a video file without decoding it.

    Args:
        path: of the file.
        seconds: (N,) float64, when each frame is shown, from the first one on; NaN where not known.
        stamps: (P,) int64, by which a decoder's frames are recognised, ascending; None if there are none, or not one
            for each frame: then frames are counted. P < N if the file says that it should hold more than it does.
        starts: frames at which decoding can start, ascending; the first is 0.
    """

    path: Path
    seconds: NDArray[np.float64]
    stamps: NDArray[np.int64] | None = field(repr=False)
    starts: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.seconds)

    def start_before(self, index: int) -> int:
        """The last frame, up to ``index``, at which decoding can start."""
        return int(self.starts[np.searchsorted(self.starts, index, "right") - 1])


def open_video(path: Path) -> Video:
    """List the frames of a video file; takes about as long as reading the file.

    Raises:
        ImageError: no video, damaged beyond use, or PyAV is not installed; the message is the reason.
        OSError: it is missing or cannot be read.
    """
    about = path.stat()
    return _open_video(path, about.st_mtime_ns, about.st_size)


@lru_cache(_LISTED)
def _open_video(path: Path, *_changes: int) -> Video:
    av = import_av()
    try:
        with av.open(str(path)) as container:
            return _list_frames(path, container)
    except av.error.FFmpegError as error:
        raise ImageError(f"{error.strerror or error}: no video, or not copied or recorded to its end") from error


def _list_frames(path: Path, container: InputContainer) -> Video:
    stream = _stream(container)
    packets = [(packet.pts, packet.is_keyframe, packet.is_discard) for packet in _packets(container, stream)]
    shown = [(stamp, key) for stamp, key, hidden in packets if not hidden]
    if not shown:
        raise ImageError("no frames in it")
    # only this family of containers lists all of its frames; the headers of others hold estimates
    promised = stream.frames if "mp4" in container.format.name else 0
    missing = max(0, promised - len(packets))
    stamps = np.unique([stamp for stamp, _ in shown if stamp is not None]).astype(np.int64)
    if len(stamps) < len(shown):
        rate = float(stream.average_rate or stream.guessed_rate or np.nan)
        return Video(path, np.arange(len(shown) + missing) / rate, None, np.zeros(1, np.int64))
    seconds = (stamps - stamps[0]) * float(stream.time_base or np.nan)
    starts = np.searchsorted(stamps, [stamps[0], *(stamp for stamp, key in shown if key and stamp is not None)])
    return Video(path, np.pad(seconds, (0, missing), constant_values=np.nan), stamps, np.unique(starts))


def import_av() -> ModuleType:
    """PyAV.

    Raises:
        ImageError: if it is not installed.
    """
    try:
        import av  # an extra: whoever has no videos does without
    except ModuleNotFoundError as error:
        raise ImageError(
            f"videos need the package {error.name}, which is not installed: pip install 'equimark[video]'"
        ) from None
    return av


# ---- decoding -----------------------------------------------------------------------------------------------


class VideoReader:
    """The frames of videos, in any order; safe in threads.

    Going forward through a video, it is decoded once. A leap costs the frames since the last one at which decoding
    can start, often a second or two of the video.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoders: deque[_Forward] = deque(maxlen=_DECODERS)

    def read(self, video: Video, index: int) -> Pixels:
        """Pixels (H, W, 3) of a frame, turned as the file says.

        Raises:
            ImageError: nothing can be decoded for it; the message is the reason.
        """
        with self._lock:
            return _pixels(self._decoder(video, index).read(index))

    def _decoder(self, video: Video, index: int) -> _Forward:
        """One that gets there without a leap; it becomes the one used last."""
        for decoder in self._decoders:
            if decoder.video is video and decoder.reaches(index):
                self._decoders.remove(decoder)
                break
        else:
            decoder = _Forward(video, video.start_before(index))
        self._decoders.append(decoder)
        return decoder


class _Forward:
    """A decoder on its way through a video."""

    def __init__(self, video: Video, start: int) -> None:
        self.video = video
        self._arriving = _decode(video, start)
        self._next = start  # frames before it have passed
        self._passed: deque[_Numbered] = deque(maxlen=_PASSED)
        self._lost: set[int] = set()  # frames without a picture

    def reaches(self, index: int) -> bool:
        here = index in self._lost or any(index == passed for passed, _ in self._passed)
        return here or self.video.start_before(index) <= self._next <= index

    def read(self, index: int) -> VideoFrame:
        while self._next <= index:
            arrived = next(self._arriving, None)
            number = len(self.video) if arrived is None else arrived[0]
            self._lost.update(range(self._next, number))
            self._next = max(self._next, number + 1)
            if arrived is not None:
                self._passed.append(arrived)
        for passed, frame in self._passed:
            if passed == index:
                return frame
        raise ImageError(_NO_PICTURE)


def _decode(video: Video, start: int) -> Iterator[_Numbered]:
    """The frames from ``start`` on that have a picture.

    Where a file cannot go to ``start``, or has no picture there, it is decoded from the beginning.
    """
    av = import_av()
    for origin in dict.fromkeys((start, 0)):
        with suppress(av.error.FFmpegError), av.open(str(video.path)) as container:
            arriving = _decode_from(video, container, origin)
            first = next(arriving, None)
            if first is not None and (origin == 0 or first[0] <= origin):
                yield from (each for each in chain([first], arriving) if each[0] >= start)
                return


def _decode_from(video: Video, container: InputContainer, origin: int) -> Iterator[_Numbered]:
    stream = _stream(container)
    stream.thread_type = "AUTO"
    if origin and video.stamps is not None:
        container.seek(int(video.stamps[origin]), stream=stream)
    packets = _packets(container, stream)
    first = next(packets, None)
    if first is None or (origin and not first.is_keyframe):
        return  # a file without a table of contents: what is decoded from here on may be broken
    number = origin - 1
    for frame in _frames(chain([first], packets), stream):
        number = _number(video.stamps, frame.pts, number)
        if not frame.is_corrupt:
            yield number, frame


def _number(stamps: NDArray[np.int64] | None, stamp: int | None, before: int) -> int:
    """Of the frame after the one numbered ``before``: that of the nearest stamp, if there are stamps."""
    if stamps is None or stamp is None:
        return before + 1
    above = min(int(np.searchsorted(stamps, stamp)), len(stamps) - 1)
    below = max(above - 1, 0)
    return below if stamp - stamps[below] < stamps[above] - stamp else above


def _frames(packets: Iterable[Packet[VideoStream]], stream: VideoStream) -> Iterator[VideoFrame]:
    """What can be decoded; what is damaged is passed over."""
    damaged = import_av().error.FFmpegError
    for packet in packets:
        with suppress(damaged):
            yield from packet.decode()
    with suppress(damaged):
        yield from stream.decode(None)  # those that waited for others


def _stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if stream is None:
        raise ImageError("no moving picture in it")
    return cast("VideoStream", stream)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """All that hold something, as far as the file goes."""
    with suppress(import_av().error.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _pixels(frame: VideoFrame) -> Pixels:
    """(H, W, 3), turned and mirrored as the file says, as telephones write it when they are held upright."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        pixels = _display(pixels, np.frombuffer(cast("bytes", matrix), np.int32)[:5])
    return np.ascontiguousarray(pixels)


def _display(pixels: Pixels, matrix: NDArray[np.int32]) -> Pixels:
    """Quarter turns and reflections by the first five numbers (a, b, _, c, d) of a display matrix.

    It takes (x, y) to (ax + cy, bx + dy), up to a shift.
    """
    a, b, _, c, d = matrix.tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
