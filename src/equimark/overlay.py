"""A video of frames with their landmarks drawn on them."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .files import replace_file
from .images import ImageError, ImageSource, import_av, open_images
from .plots import palette
from .progress import progress_bar
from .tracks import Tracks

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import OutputContainer

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}  # those that hold a time for each frame

_CODECS = {"libx264": {"crf": "18"}, "mpeg4": {"qmin": "2", "qmax": "4"}}  # the first that this FFmpeg has
_TICK = Fraction(1, 60_000)  # seconds; mpeg4 allows up to 65535 a second
_USUAL_FPS = 25.0  # where the time is not known
_RADIUS = 0.008  # of a dot, in longer sides of the frame


def write_overlay(tracks: Tracks, images: str | Path, out: Path, *, progress: bool = True) -> None:
    """Write the frames of one video with their landmarks, each at its time.

    Frames that could not be read are left out: the one before stays for longer. Where the time is not known, 25
    frames make a second.

    Args:
        tracks: of one video or folder of frames.
        images: the video or folder.
        out: the file; its ending, one of :data:`CONTAINERS`, says the kind.
        progress: show a bar on standard error.

    Raises:
        ImageError: of several videos, a frame cannot be read again, frames differ in size, or PyAV is missing.
    """
    count = len(set(tracks.videos))
    if count != 1:
        raise ImageError(f"a video can be drawn of one video at a time, but {images} holds {count}: give one of them")
    source = open_images(images)
    replace_file(out, partial(_write, tracks, source, CONTAINERS[out.suffix.lower()], progress))


def _write(tracks: Tracks, source: ImageSource, container: str, progress: bool, path: Path) -> None:
    av = import_av()
    row_of = {name: row for row, name in enumerate(source.names)}
    seconds = tracks.seconds if np.isfinite(tracks.seconds).all() else tracks.frames / _USUAL_FPS
    colours = [tuple(colour) for colour in (255 * palette(tracks.table.points.shape[1])).round().astype(int).tolist()]
    size: tuple[int, int] | None = None
    try:
        with (
            av.open(str(path), "w", format=container) as file,
            progress_bar("drawing", len(tracks.frames), shown=progress) as advance,
        ):
            for name, points, when in zip(tracks.table.images, tracks.table.points, seconds.tolist(), strict=True):
                picture = draw_dots(source.picture(row_of[name])[0], points, colours)
                if size is None:
                    size = picture.size
                    stream = _add_stream(file, picture, seconds)
                if picture.size != size:
                    raise ImageError(f"{name} has another size ({picture.size}) than the frames before it ({size})")
                frame = av.VideoFrame.from_ndarray(_even(np.asarray(picture)), format="rgb24")
                frame.pts, frame.time_base = round(when / _TICK), _TICK
                file.mux(stream.encode(frame))
                advance()
            file.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise ImageError(f"the video cannot be written: {error.strerror or error}") from error


def _add_stream(file: OutputContainer, picture: Image.Image, seconds: NDArray[np.float64]) -> VideoStream:
    codecs = [codec for codec in _CODECS if codec in import_av().codecs_available]
    if not codecs:
        raise ImageError(f"this FFmpeg writes none of {', '.join(_CODECS)}; install PyAV from its wheels")
    lasted = float(seconds[-1] - seconds[0])
    fps = (len(seconds) - 1) / lasted if lasted > 0 else _USUAL_FPS
    stream = cast("VideoStream", file.add_stream(codecs[0], rate=max(1, round(fps)), options=_CODECS[codecs[0]]))
    stream.width, stream.height = (side + side % 2 for side in picture.size)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = _TICK
    return stream


def draw_dots(picture: Image.Image, points: NDArray[np.float64], colours: list[tuple[int, ...]]) -> Image.Image:
    """A copy of an RGB picture with a dot, in a white rim, at each of ``points`` (K, 2) that is visible."""
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    radius = max(2.0, _RADIUS * max(picture.size))
    for (x, y), colour in zip(points.tolist(), colours, strict=True):
        if not np.isnan(x):
            for reach, fill in ((radius + max(1.0, radius / 4), (255, 255, 255)), (radius, colour)):
                pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=fill)
    return drawn


def _even(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """With a row and a column repeated, where need be: codecs halve the resolution of colour."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
