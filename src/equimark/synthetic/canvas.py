"""Anti-aliased painting with soft light, in hundredths of a square frame."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float64]
Mask = NDArray[np.float32]

SUPERSAMPLING = 4


def pixels(points: Floats, size: int) -> Floats:
    """Frame coordinates in [0, 100], borders included, -> pixels, whose centres are integers."""
    return points * (size / 100) - 0.5


@dataclass
class Canvas:
    """A square picture of ``size`` pixels in the making, and the label of what each pixel shows."""

    size: int
    colour: Mask = field(init=False)  # (S, S, 3) in [0, 1]
    parts: NDArray[np.uint8] = field(init=False)  # (S, S)
    light: Mask = field(init=False)  # (S, S, 1): multiplies what is painted from now on

    def __post_init__(self) -> None:
        self.colour = np.zeros((self.size, self.size, 3), np.float32)
        self.parts = np.zeros((self.size, self.size), np.uint8)
        self.light = np.ones((self.size, self.size, 1), np.float32)

    def grid(self) -> Floats:
        """Frame coordinates (S, S, 2) of the pixel centres."""
        ticks = (np.arange(self.size) + 0.5) * (100 / self.size)
        return np.stack(np.meshgrid(ticks, ticks), axis=-1)

    def mask(self, *polygons: Floats, blur: float = 0.0) -> Mask:
        """How much (S, S) of each pixel the polygons (n, 2) cover together; ``blur`` softens the edge."""
        fine = Image.new("L", (self.size * SUPERSAMPLING,) * 2)
        draw = ImageDraw.Draw(fine)
        for polygon in polygons:
            draw.polygon(pixels(polygon, self.size * SUPERSAMPLING).ravel().tolist(), fill=255)
        coarse = fine.reduce(SUPERSAMPLING)
        if blur:
            coarse = coarse.filter(ImageFilter.GaussianBlur(blur * self.size / 100))
        mask: Mask = np.asarray(coarse, np.float32) / np.float32(255)
        return mask

    def paint(self, mask: Mask, colour: float | Floats, part: int | None = None) -> None:
        """Cover ``mask`` with a lit colour, (3,) or (S, S, 3); what it mostly covers becomes ``part``."""
        area = _touched(mask)
        lit = np.broadcast_to(np.asarray(colour, np.float32), self.colour.shape)[area] * self.light[area]
        self.colour[area] += mask[area][..., None] * (lit - self.colour[area])
        if part is not None:
            self.parts[mask > 0.5] = part

    def tint(self, mask: Mask, factor: float | Floats) -> None:
        """Multiply the colours under ``mask`` by a number or a colour (3,): shadows below 1, highlights above."""
        area = _touched(mask)
        self.colour[area] *= 1 + mask[area][..., None] * (np.asarray(factor, np.float32) - 1)


def _touched(mask: Mask) -> tuple[slice, slice]:
    """The rows and columns of a mask (S, S) between which it is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else (slice(0), slice(0))


def mottle(rng: np.random.Generator, size: int, cells: int, channels: int = 1) -> Mask:
    """Smooth noise (S, S, channels) of unit deviation whose bumps are a ``cells``-th of the frame."""
    coarse = rng.standard_normal((channels, cells, cells)).astype(np.float32)
    fine = [np.asarray(Image.fromarray(each).resize((size, size), Image.Resampling.BICUBIC)) for each in coarse]
    return np.stack(fine, axis=-1)


def spline(points: Floats, *, closed: bool = False, steps: int = 6) -> Floats:
    """A smooth curve through all points (n, 2) (Catmull-Rom)."""
    ends = (points[-1:], points[:2]) if closed else (points[:1], points[-1:])
    p = np.concatenate([ends[0], points, ends[1]])
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    curve = b + t * ((c - a) + t * ((2 * a - 5 * b + 4 * c - d) + t * (3 * (b - c) + d - a))) / 2
    return np.concatenate([curve.reshape(-1, 2), points[:1] if closed else points[-1:]])


def ribbon(points: Floats, width: float | Floats) -> Floats:
    """The polygon of a stroke along a curve (n, 2); the width (n,) may vary along it."""
    along = np.gradient(points, axis=0)
    across = np.column_stack([-along[:, 1], along[:, 0]]) / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    half = across * np.reshape(width, (-1, 1)) / 2
    return np.concatenate([points + half, (points - half)[::-1]])


def mirrored(points: Floats) -> Floats:
    """An outline (2n, 2): the points (n, 2) on the other side of x = 0, then these, backwards."""
    return np.concatenate([points * [-1, 1], points[::-1]])


def oval(centre: Floats, radius_x: float, radius_y: float, power: float = 2.0) -> Floats:
    """A superellipse (32, 2): a diamond at power 1, an ellipse at 2, nearly a rectangle at 6."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    outline: Floats = centre + np.array([radius_x, radius_y]) * np.sign(circle) * np.abs(circle) ** (2 / power)
    return outline
