"""Pictures: arrays in, a :class:`matplotlib.figure.Figure` out.

Images are (H, W, 3) uint8, points (K, 2) pixels (x, y). Landmark k has the same colour in every picture. No state is
kept between calls.

* ``colours``: of landmarks, places and descriptors.
* ``canvas``: the verbs (:func:`show`, :func:`draw_points`, :func:`draw_grid`, :func:`draw_errors`,
  :func:`draw_heat`), which draw on the axes of a :func:`sheet`; the functions of the other rooms arrange them.
* ``pictures``: images with landmarks, matches, heat maps, descriptors, parts, errors.
* ``contributions``: which landmarks others are derived from.
* ``diagrams``: curves of training, reliability, bars.
"""

from equimark.plots.canvas import (
    Image,
    draw_errors,
    draw_grid,
    draw_heat,
    draw_points,
    draw_rings,
    label_rows,
    panels,
    plain_axes,
    sheet,
    show,
)
from equimark.plots.colours import (
    ACCENT,
    INK,
    MUTED,
    RULE,
    Colours,
    Points,
    descriptor_colours,
    palette,
    position_colours,
)
from equimark.plots.contributions import contribution_graph
from equimark.plots.diagrams import TERM_LABELS, bars, curve_titles, curves, reliability
from equimark.plots.pictures import (
    colour_maps,
    heat_maps,
    label_maps,
    landmarks,
    matches,
    mean_errors,
    training_pairs,
    worst_cases,
)

__all__ = [
    "ACCENT",
    "INK",
    "MUTED",
    "RULE",
    "TERM_LABELS",
    "Colours",
    "Image",
    "Points",
    "bars",
    "colour_maps",
    "contribution_graph",
    "curve_titles",
    "curves",
    "descriptor_colours",
    "draw_errors",
    "draw_grid",
    "draw_heat",
    "draw_points",
    "draw_rings",
    "heat_maps",
    "label_maps",
    "label_rows",
    "landmarks",
    "matches",
    "mean_errors",
    "palette",
    "panels",
    "plain_axes",
    "position_colours",
    "reliability",
    "sheet",
    "show",
    "training_pairs",
    "worst_cases",
]
