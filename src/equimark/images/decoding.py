"""The bytes of any common image file -> RGB pixels as a viewer shows them."""

from __future__ import annotations

import math
import threading
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from equimark.geometry import Size

Pixels = NDArray[np.uint8]

# Kinds that some Pillow cannot open are here too: a photograph is listed as unreadable, never left out in silence.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx", ".jpf", ".avif", ".avifs", ".heic", ".heif"}
    | {".jxl", ".tga", ".ico", ".pcx", ".sgi", ".dds"}
)

# Of a side that is decoded reduced, to that which is wanted. What comes out differs from that of the whole image by
# 0.7 grey levels on average (JPEG photographs, 176 to 70 px), as it does between qualities of 92 and 89.
SPARE = 1.25

_COMMON_KINDS = ("JPEG", "PNG", "WEBP")
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
        min_side: allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides stay at least a
            quarter above this many pixels, to which they are going to be reduced: that takes a fraction of the time.

    Raises:
        ImageError: not an image, damaged, or too large to be honest; the message is the reason.
    """
    image, size = decode_picture(data, min_side)
    return Decoded(np.array(image), size)


def decode_picture(data: bytes, min_side: int | None = None) -> tuple[Image.Image, Size]:
    """As :func:`decode`, without a copy of the pixels: the RGB picture, and (H, W) of the image as stored."""
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
    least = math.ceil(SPARE * min_side) if min_side else 0
    draft = image.draft(None, (least, least)) if least else None
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
