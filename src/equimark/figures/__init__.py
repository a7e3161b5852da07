"""The figures of the papers: runs and images in, a :class:`matplotlib.figure.Figure` out.

Every drawing takes ``exhibits``, runs and their images by name, and settings with defaults; ``learning_curve`` takes
curves. They read no files, train nothing, and draw the same figure from the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from equimark.figures.dense import arm, mosaic, species, with_and_without
from equimark.figures.exhibits import Exhibit
from equimark.figures.learning import Curve, curve_of, learning_curve
from equimark.figures.sparse import contribution_arrows, instances, lighting, regression

__all__ = ["DPI", "DRAWINGS", "Curve", "Exhibit", "curve_of", "learning_curve"]

DPI = 216  # fine enough for print: figure.savefig(path, dpi=DPI)
DRAWINGS: dict[str, Callable[..., Figure]] = {
    "instances": instances,
    "regression": regression,
    "contributions": contribution_arrows,
    "lighting": lighting,
    "learning_curve": learning_curve,
    "mosaic": mosaic,
    "with_and_without": with_and_without,
    "species": species,
    "arm": arm,
}
