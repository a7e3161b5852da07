"""Colours: of landmarks by number, of places, of descriptors."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]
Colours = NDArray[np.float64]

INK, MUTED, RULE, ACCENT = "#1f2933", "#66758a", "#d9e0e8", "#2364d2"
_NAMED = (
    "#e6194b", "#2f80ed", "#ff8c1a", "#2eb872", "#9b51e0", "#ffd000", "#19c3d6", "#f032e6", "#a3d900", "#8c5a3c",
)  # fmt: skip
_GOLDEN = (5**0.5 - 1) / 2


def palette(count: int) -> Colours:
    """``count`` colours (count, 3) in [0, 1]; colour k does not depend on ``count``."""
    named = [to_rgb(colour) for colour in _NAMED[:count]]
    more = [
        colorsys.hsv_to_rgb(k * _GOLDEN % 1, (0.85, 0.55)[k % 2], (0.95, 0.75)[k // 2 % 2])
        for k in range(len(_NAMED), count)
    ]
    return np.array([*named, *more]).reshape(-1, 3)


def position_colours(points: Points, size: tuple[int, int], *, hues: tuple[float, float] = (0.0, 0.85)) -> Colours:
    """Colours (K, 3) of ``points`` (K, 2) in an image of ``size`` (H, W): hue by x, from left to right, depth by y."""
    x, y = (np.asarray(points) / (size[1] - 1, size[0] - 1)).clip(0, 1).reshape(-1, 2).T
    hue, saturation, value = hues[0] + (hues[1] - hues[0]) * x, 0.45 + 0.55 * y, 1 - 0.35 * y
    return np.array([colorsys.hsv_to_rgb(*each) for each in zip(hue, saturation, value, strict=True)]).reshape(-1, 3)


def descriptor_colours(features: NDArray[np.floating[Any]]) -> Colours:
    """Descriptors (N, C, h, w) as colours (N, h, w, 3): their first three principal components over all N images.

    Only directions are compared: the length of a descriptor says how sure it is, not what it describes.
    """
    count, channels, height, width = features.shape
    rows = np.moveaxis(features, 1, -1).reshape(-1, channels).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    rows -= rows.mean(0)
    axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1][:, :3]
    axes *= np.sign(axes[np.abs(axes).argmax(0), range(axes.shape[1])])  # eigenvectors have no sign of their own
    components = np.zeros((len(rows), 3))
    components[:, : axes.shape[1]] = rows @ axes
    low, high = np.percentile(components, (2, 98), axis=0)
    colours: Colours = ((components - low) / (high - low).clip(1e-12)).clip(0, 1)
    return colours.reshape(count, height, width, 3)


def descriptor_lengths(features: NDArray[np.floating[Any]]) -> Colours:
    """Lengths of descriptors (N, C, h, w) as greys (N, h, w, 3), from 0 for no length to 1 for the longest.

    The longer a vector, the more its matches (2019, eq. 2) draw together: the network says by it how sure it is of the
    place (2019, section 3.1).
    """
    lengths = np.linalg.norm(features.astype(np.float64), axis=1)
    return np.repeat((lengths / lengths.max(initial=1e-12))[..., None], 3, -1)
