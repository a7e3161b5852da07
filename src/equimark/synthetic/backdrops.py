"""What stands behind a person."""

from collections.abc import Callable

import numpy as np

from equimark.synthetic.canvas import Canvas, Floats, Mask, mottle, oval

Weight = Mask | Floats  # (S, S): 0 shows the first of two colours, 1 the second
Backdrop = Callable[[Canvas, np.random.Generator], Weight]


def paint_backdrop(canvas: Canvas, rng: np.random.Generator) -> None:
    """Fill the canvas with one of the backdrops in two random colours."""
    hues = rng.uniform(-1, 1, (2, 3)) * rng.uniform(0.02, 0.28)
    first, second = np.clip(rng.uniform(0.08, 0.88, (2, 1)) + hues, 0, 1)
    weight = np.clip(BACKDROPS[rng.integers(len(BACKDROPS))](canvas, rng), 0, 1)[..., None]
    canvas.colour[:] = first + weight * (second - first) + 0.02 * mottle(rng, canvas.size, 9, 3)


def _ramp(canvas: Canvas, rng: np.random.Generator) -> Weight:
    angle = rng.uniform(0, 2 * np.pi)
    ramp: Floats = 0.5 + 0.6 * (canvas.grid() / 100 - 0.5) @ np.array([np.cos(angle), np.sin(angle)])
    return ramp


def _flat(canvas: Canvas, rng: np.random.Generator) -> Weight:
    return 0.15 * _ramp(canvas, rng)


def _stripes(canvas: Canvas, rng: np.random.Generator) -> Weight:
    stripes: Floats = 0.5 + 0.5 * np.tanh(2.5 * np.sin(_ramp(canvas, rng) * rng.uniform(15, 70)))
    return stripes


def _clouds(canvas: Canvas, rng: np.random.Generator) -> Weight:
    return 0.5 + 0.35 * mottle(rng, canvas.size, int(rng.integers(4, 14)))[..., 0]


def _texture(canvas: Canvas, rng: np.random.Generator) -> Weight:
    return _ramp(canvas, rng) + 0.2 * mottle(rng, canvas.size, int(rng.integers(20, 50)))[..., 0]


def _lights(canvas: Canvas, rng: np.random.Generator) -> Weight:
    centres, radii = rng.uniform(0, 100, (14, 2)), rng.uniform(3, 13, 14)
    discs = (canvas.mask(oval(centre, r, r), blur=1.0) for centre, r in zip(centres, radii, strict=True))
    return sum((0.4 * disc for disc in discs), np.zeros((canvas.size, canvas.size), np.float32))


def _furniture(canvas: Canvas, rng: np.random.Generator) -> Weight:
    centres, sides = rng.uniform(0, 100, (9, 2)), rng.uniform(4, 26, (9, 2))
    boxes = (
        canvas.mask(oval(centre, side[0], side[1], power=30), blur=1.5)
        for centre, side in zip(centres, sides, strict=True)
    )
    return sum((rng.uniform(0.2, 0.7) * box for box in boxes), 0.3 * _ramp(canvas, rng))


BACKDROPS: tuple[Backdrop, ...] = (_flat, _ramp, _stripes, _clouds, _texture, _lights, _furniture)
