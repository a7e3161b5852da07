"""Image files: where they are, what they show, and that brought to a frame.

* ``open_images`` -> :class:`ImageSource`: what IMAGES means in every command, as names and bytes.
* ``decode``: the bytes of any common image file -> RGB pixels as a viewer shows them.
* ``frame_image``: pixels -> the square a network sees, and the :class:`~equimark.geometry.Placement` back.
* ``read_framed``: all images of a source in frames, decoded in threads, in order.

Sizes are ``(H, W)`` of the image as stored, after EXIF rotation; colours are RGB uint8.
An :class:`ImageError` about one file states the reason only: whoever knows the name puts it in front.
"""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
import zipfile
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from equimark.geometry import Fill, Frame, Placement, Size

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]
_In = TypeVar("_In")
_Out = TypeVar("_Out")

# Kinds that some Pillow cannot open are here too: a photograph is listed as unreadable, never left out in silence.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".jpf", ".avif", ".avifs", ".heic", ".heif"}
    | {".jxl", ".tga", ".ico", ".pcx", ".sgi", ".dds"}
)
LIST_SUFFIXES = frozenset({".txt", ".lst", ".list"})

_COMMON_KINDS = ("JPEG", "PNG", "WEBP")
_CHUNK = 8  # images a worker takes at a time
_CHUNKS_AHEAD = 4  # per worker: bounds what waits in memory to be written
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[5], _TURNS[6], _TURNS[7], _TURNS[8]}


class ImageError(ValueError):
    """Images that cannot be found, read, or packed."""


# ---- sources ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageSource:
    """Named image files, wherever they lie.

    Args:
        path: what the user gave.
        names: of the images, in a fixed order: posix paths relative to the folder, archive or list.
    """

    path: Path
    names: list[str]
    _read: Callable[[str], bytes] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The bytes of one file; safe in threads.

        Raises:
            ImageError: the file is missing or cannot be read; the message is the reason, without the name.
        """
        try:
            return self._read(self.names[index])
        except FileNotFoundError:
            raise ImageError("no such file") from None
        except OSError as error:
            raise ImageError(error.strerror or str(error)) from error
        except Exception as error:  # damaged, encrypted or exotic archive entries: each kind raises its own
            raise ImageError(str(error) or type(error).__name__) from error

    def read_beside(self, index: int, suffix: str) -> bytes | None:
        """The bytes of the file of the same name with another ending, if there is one that can be read."""
        try:
            return self._read(str(PurePosixPath(self.names[index]).with_suffix(suffix)))
        except (OSError, KeyError):  # KeyError: how an archive says that it has no such entry
            return None


def open_images(path: str | Path) -> ImageSource:
    """The images of a folder (searched recursively), a ``.zip``, a text file of paths, or one image file.

    Hidden files are skipped, and so are files whose ending is not an image's. A text file of paths has one path per
    line, relative to its own folder; blank lines and lines that start with ``#`` are ignored.

    Raises:
        ImageError: nothing there, no images in it, or not one of those kinds.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise ImageError(f"{path} does not exist; give a folder of images, a .zip, a text file of paths or an image")
    if suffix in IMAGE_SUFFIXES:
        return ImageSource(path, [path.name], lambda name: (path.parent / name).read_bytes())
    if suffix == ".zip":
        return _open_zip(path)
    if suffix in LIST_SUFFIXES:
        return _open_list(path)
    raise ImageError(
        f"{path} is none of a folder, a .zip, a text file of paths ({', '.join(sorted(LIST_SUFFIXES))}) or an image"
    )


def _open_folder(folder: Path) -> ImageSource:
    names = _image_names(_files_below(folder), folder)
    return ImageSource(folder, names, lambda name: (folder / name).read_bytes())


def _files_below(folder: Path) -> Iterator[str]:
    """Posix paths of all files, relative to ``folder``; linked folders are followed, but never in a circle."""

    def refuse(error: OSError) -> None:
        raise ImageError(f"cannot look into {error.filename}: {error.strerror}")

    seen: set[str] = set()
    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        seen.add(os.path.realpath(here))
        folders[:] = [f for f in sorted(folders) if not _is_hidden(f) and os.path.realpath(f"{here}/{f}") not in seen]
        prefix = Path(here).relative_to(folder).as_posix()
        yield from files if prefix == "." else (f"{prefix}/{file}" for file in files)


def _open_zip(path: Path) -> ImageSource:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise ImageError(f"{path} cannot be read as a zip archive ({error}); was it copied completely?") from error
    names = _image_names((i.filename for i in archive.infolist() if not i.is_dir()), path)
    return ImageSource(path, names, archive.read)


def _open_list(path: Path) -> ImageSource:
    # surrogateescape keeps file names that are not UTF-8 as the operating system has them
    lines = path.read_text("utf-8-sig", errors="surrogateescape").splitlines()
    names = [Path(line.strip()).as_posix() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise ImageError(f"{path} lists no images; write one path per line, relative to {path.parent}")
    return ImageSource(path, names, lambda name: (path.parent / name).read_bytes())


def _image_names(files: Iterable[str], where: Path) -> list[str]:
    visible = [file for file in files if not _is_hidden(file)]
    names = {file for file in visible if _suffix(file) in IMAGE_SUFFIXES}
    if names:
        return sorted(names, key=_natural)
    if not visible:
        raise ImageError(f"{where} is empty: no images in it")
    kinds = Counter(_suffix(file) or "without ending" for file in visible).most_common(5)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds)
    raise ImageError(f"{where} holds no images; its {len(visible)} files are {found}")


def _is_hidden(file: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in file.split("/"))


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _natural(name: str) -> tuple[str, str]:
    """Sorts ``img2`` before ``img10``."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(12), name), name


# ---- decoding -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image as displayed.

    Args:
        pixels: (H, W, 3) uint8 RGB; smaller than ``size`` if decoded reduced, covering the same picture exactly.
        size: (H, W) of the image as stored, after EXIF rotation.
    """

    pixels: Pixels
    size: Size


def decode(data: bytes, *, min_side: int | None = None) -> Decoded:
    """The pixels of an image file as a viewer shows them.

    EXIF rotation is applied, transparency laid on white, of animations the first frame taken. Grey of 16 bits is
    scaled from its full range, grey of 32 bits (integer or float) from its own minimum and maximum.

    Args:
        data: the bytes of the file.
        min_side: allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides stay at least twice
            this many pixels: large photographs take a fraction of the time.

    Raises:
        ImageError: not an image, damaged, or too large to be honest; the message is the reason.
    """
    image, size = _decode(data, min_side)
    return Decoded(np.array(image), size)


def _decode(data: bytes, min_side: int | None) -> tuple[Image.Image, Size]:
    if not data:
        raise ImageError("empty file")
    try:
        with _pillow_warnings_silenced, _open(data) as image:
            rgb, (width, height) = _load(image, min_side)
    except UnidentifiedImageError:
        raise ImageError("not an image, or of a kind that Pillow cannot open here") from None
    except Exception as error:  # what a damaged file raises depends on the kind: OSError, SyntaxError, struct.error...
        raise ImageError(str(error) or type(error).__name__) from error
    return rgb, (height, width)


def stored_size(data: bytes) -> Size:
    """(H, W) of an image file as stored, after EXIF rotation, without decoding its pixels.

    Raises:
        ImageError: not an image, or damaged at its beginning; the message is the reason.
    """
    try:
        with _pillow_warnings_silenced, _open(data) as image:
            turned = image.format != "TIFF" and _exif_turn(image) in _SIDEWAYS  # Pillow has turned a TIFF already
            return (image.width, image.height) if turned else (image.height, image.width)
    except UnidentifiedImageError:
        raise ImageError("not an image, or of a kind that Pillow cannot open here") from None
    except Exception as error:  # as in decode
        raise ImageError(str(error) or type(error).__name__) from error


def decode_labels(data: bytes) -> Pixels:
    """The labels (H, W) that the pixels of a label image hold: grey values, or places in its palette.

    Raises:
        ImageError: not an image, damaged, or of more than one channel or 8 bits; the message is the reason.
    """
    try:
        with _pillow_warnings_silenced, _open(data) as image:
            image.load()
            labels = np.array(image)
    except Exception as error:
        raise ImageError(str(error) or type(error).__name__) from error
    if labels.ndim != 2 or labels.max(initial=0) > 255 or labels.min(initial=0) < 0:
        raise ImageError(f"a label image has one channel with values from 0 to 255, got {labels.shape} {labels.dtype}")
    return labels.astype(np.uint8)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=_COMMON_KINDS)  # asking all kinds in turn takes as long as decoding
    except UnidentifiedImageError:
        return Image.open(BytesIO(data))


def _load(image: Image.Image, min_side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """RGB image, and (width, height) of the image as stored; both turned as EXIF says."""
    full = image.size
    draft = image.draft(None, (2 * min_side, 2 * min_side)) if min_side else None
    image.load()
    turn = _exif_turn(image)
    rgb = _rgb(image)
    if draft is None:
        full = rgb.size  # TIFF turns itself while loading
    elif draft[1][2:] != rgb.size:  # the last column or row reaches beyond the picture: spread the rest evenly
        rgb = rgb.resize((int(draft[1][2]), int(draft[1][3])), Image.Resampling.BILINEAR, box=draft[1])
    if turn is not None:
        rgb = rgb.transpose(turn)
        full = full[::-1] if turn in _SIDEWAYS else full
    return rgb, full


def _exif_turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":
        return Image.fromarray(_grey(image)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey(image: Image.Image) -> Pixels:
    """(H, W) uint8 of an image of 16 or 32 bits per pixel."""
    values = np.asarray(image, np.float64)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return (values / 257).round().astype(np.uint8)
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("no finite pixel in it")
    low, high = values[finite].min(), values[finite].max()
    scaled: NDArray[np.float64] = (np.where(finite, values, low) - low) * (255 / (high - low) if high > low else 0)
    return scaled.clip(0, 255).round().astype(np.uint8)


class _PillowWarningsSilenced:
    """Silences Pillow while any thread is inside: ``catch_warnings`` alone would leave its filter behind in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_pillow_warnings_silenced = _PillowWarningsSilenced()


# ---- framing ------------------------------------------------------------------------------------------------


def frame_image(pixels: Pixels, frame: Frame, size: Size | None = None) -> tuple[Pixels, Placement]:
    """An image brought to a frame, antialiased.

    Args:
        pixels: (H, W, 3) uint8.
        frame: which part of the image fills which square; what lies beyond the image is filled as it says.
        size: (H, W) of the image as stored if ``pixels`` were decoded reduced; default: that of ``pixels``.

    Returns:
        (S, S, 3) uint8, and where the frame lies in pixels of the image of ``size``. An image that fills the frame
        pixel for pixel is returned unchanged.

    Raises:
        ImageError: other arrays; or the frame lies wholly outside the image.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ImageError(f"an image must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}")
    return _frame(Image.fromarray(pixels), frame, size or pixels.shape[:2])


def frame_labels(labels: Pixels, placement: Placement) -> Pixels:
    """Labels (S, S) of the pixels of a frame from those of its image (H, W): of the nearest pixel, never mixed."""
    x, y, _ = placement.nearest_pixels((labels.shape[0], labels.shape[1]))
    return labels[y, x]


def _frame(image: Image.Image, frame: Frame, size: Size) -> tuple[Pixels, Placement]:
    placement = frame.place(size)
    # rounded, so that the reduction's arithmetic does not push a border 1e-13 beyond the image
    factors = (image.width / size[1], image.height / size[0]) * 2
    x0, y0, x1, y1 = (round(border * factor, 6) for border, factor in zip(placement.box, factors, strict=True))
    if x0 >= 0 and y0 >= 0 and x1 <= image.width and y1 <= image.height:
        square = np.asarray(_resize(image, (frame.size, frame.size), (x0, y0, x1, y1)))
    else:
        square = _frame_beyond(np.asarray(image), frame, (x0, y0, x1, y1))
    return square, placement


def _resize(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, box=box)


def _frame_beyond(pixels: Pixels, frame: Frame, box: Box) -> Pixels:
    """(S, S, 3) uint8 of a ``box`` that reaches beyond the image.

    Only the cells of the frame that see the image are resized, from an image padded just as far; the rest of the
    frame is filled afterwards, so that a far-reaching box costs no memory.
    """
    left, right, box_x, pad_x = _seen_cells(box[0], box[2], pixels.shape[1], frame.size)
    top, bottom, box_y, pad_y = _seen_cells(box[1], box[3], pixels.shape[0], frame.size)
    padded = Image.fromarray(_pad(pixels, pad_y, pad_x, frame.fill))
    seen = _resize(padded, (right - left, bottom - top), (box_x[0], box_y[0], box_x[1], box_y[1]))
    return _pad(np.asarray(seen), (top, frame.size - bottom), (left, frame.size - right), frame.fill)


def _seen_cells(
    start: float, stop: float, extent: int, cells: int
) -> tuple[int, int, tuple[float, float], tuple[int, int]]:
    """Along one axis: first and last cell that see the image, their box in the padded image, the padding."""
    step = (stop - start) / cells
    if start >= extent or stop <= 0:
        raise ImageError("the frame lies wholly outside the image")
    margin = 1 + max(1, 1 / step)  # in cells: the reach of the filter, and one cell that sees only the filling
    first = max(0, math.floor(-start / step - margin))
    last = min(cells, math.ceil((extent - start) / step + margin))
    low, high = start + first * step, start + last * step
    before, after = math.ceil(max(0.0, -low)), math.ceil(max(0.0, high - extent))
    return first, last, (low + before, min(high, extent + after) + before), (before, after)


def _pad(pixels: Pixels, rows: tuple[int, int], columns: tuple[int, int], fill: Fill) -> Pixels:
    widths = (rows, columns, (0, 0))
    if fill == "edge":
        return np.pad(pixels, widths, mode="edge")
    return np.pad(pixels, widths, constant_values=0 if fill == "black" else 255)


# ---- reading ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Framed:
    """One image brought to a frame.

    Args:
        name: of the image in its source.
        pixels: (S, S, 3) uint8.
        size: (H, W) of the image as stored.
        placement: where the frame lies in it.
    """

    name: str
    pixels: Pixels
    size: Size
    placement: Placement


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and why."""

    name: str
    reason: str


def read_framed(source: ImageSource, frame: Frame, *, workers: int | None = None) -> Generator[Framed | Unreadable]:
    """The images of ``source`` in their order, decoded in ``workers`` threads (default: one per processor)."""
    x0, y0, x1, y1 = frame.place((1, 1)).box
    min_side = math.ceil(frame.size / min(x1 - x0, y1 - y0))  # a frame on a part of the image needs more of it

    def one(index: int) -> Framed | Unreadable:
        name = source.names[index]
        try:
            image, size = _decode(source.read(index), min_side)
            pixels, placement = _frame(image, frame, size)
        except ImageError as error:
            return Unreadable(name, str(error))
        return Framed(name, np.ascontiguousarray(pixels), size, placement)

    chunks = (range(first, min(first + _CHUNK, len(source))) for first in range(0, len(source), _CHUNK))
    with closing(_in_order(lambda chunk: [one(i) for i in chunk], chunks, workers or os.cpu_count() or 1)) as done:
        for chunk in done:
            yield from chunk


def _in_order(work: Callable[[_In], _Out], items: Iterable[_In], workers: int) -> Generator[_Out]:
    """``map(work, items)`` in threads; no more than a fixed number of items is under way or waits to be taken."""
    window: deque[Future[_Out]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            window.append(pool.submit(work, item))
            if len(window) >= workers * _CHUNKS_AHEAD:
                yield window.popleft().result()
        while window:
            yield window.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
