"""Small images and folders of them, made for the tests."""

import csv
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(height: int = 24, width: int = 30, seed: int = 0) -> np.ndarray:
    """Smooth random colours, so that JPEG keeps them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photos(folder: Path, count: int = 6, side: int = 16) -> Path:
    for i in range(count):
        path = folder / f"{'ab'[i % 2]}/img{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(side, side, seed=i)))
    return folder


def unreadable(folder: Path) -> list[list[str]]:
    with (folder / "unreadable.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


BROKEN = {
    "truncated.jpg": (encoded(picture(200, 200), "JPEG")[:2000], "truncated"),
    "truncated.png": (encoded(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8))[:900], "truncated"),
    "empty.webp": (b"", "empty file"),
    "text.png": (b"I am not an image\n" * 9, "not an image"),
    "bomb.png": (bomb(), "decompression bomb"),
    "phone.heic": (b"\0\0\0\x18ftypheic", "not an image, or of a kind"),
}
