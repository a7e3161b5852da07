"""Error against the number of labels (2019, figure 5; 2017, supplement, figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from equimark import plots
from equimark.embedding import ModelError
from equimark.figures import marks
from equimark.plots import INK, MUTED
from equimark.results import Results

_WIDTH, _HEIGHT = 6.0, 3.6  # inches
_BESIDE, _LINE = 6, 0.2  # curves whose names have room within; else they stand below, in lines of so many inches
_STEP = 0.012  # decades between the bars of one number of labels
_PRINTED_UNIT = "% of the distance between the eyes"
_CLOSE = 0.16  # decades between two numbers of labels whose ticks would touch


@dataclass(frozen=True)
class Curve:
    """Errors of one method.

    Args:
        name: of the method.
        errors: mean error by the number of labels.
        deviations: standard deviations by the number of labels, where they are known.
        printed: whether a paper has printed them: open marks and a broken line.
        like: name of the curve whose colour it has; its own if absent.
        unit: of the errors, where it is known.
    """

    name: str
    errors: Mapping[int, float]
    deviations: Mapping[int, float] = field(default_factory=dict)
    printed: bool = False
    like: str | None = None
    unit: str = field(default="", compare=False)


def curve_of(name: str, results: Results, *, metric: str = "error_iod_percent", like: str | None = None) -> Curve:
    """Our errors, from the results of ``evaluate landmarks`` with several numbers of labels.

    Args:
        name: of the method.
        results: of the protocol.
        metric: the error.
        like: see :class:`Curve`.

    Raises:
        ModelError: if they have no such numbers.
    """
    errors, deviations = {}, {}
    for key, entry in results.metrics.items():
        if isinstance(entry, dict) and key.startswith("labels_") and metric in entry:
            number = key.removeprefix("labels_")
            count = int(results.settings["training_images"] if number == "all" else number)
            errors[count], deviations[count] = entry[metric], entry.get(f"{metric}_std", 0.0)
    if not errors:
        raise ModelError(f"the results of {results.run} on {results.data} have no {metric} for numbers of labels")
    return Curve(name, errors, deviations, like=like, unit=results.unit_of(metric))


def learning_curve(
    curves: Sequence[Curve],
    *,
    unit: str | None = None,
    title: str = "Error against the number of labelled images",
) -> Figure:
    """Error against the number of labels (2019, figure 5; 2017, supplement, figure 1).

    Both axes begin where the data do: labels on a logarithmic axis, errors from 0. Bars are standard deviations.

    Args:
        curves: ours and those that the papers have printed.
        unit: of the errors; default: that of the curves, or the papers', % of the distance between the eyes.
        title: of the figure.

    Raises:
        ModelError: if there is no curve, or they have different units.
    """
    if not any(curve.errors for curve in curves):
        raise ModelError("a learning curve needs errors of at least one method")
    below = -(-len(curves) // 2) * _LINE if len(curves) > _BESIDE else 0.0
    figure, axes = plots.panels(1, 1, _WIDTH, _HEIGHT + below, title)
    ax = axes[0, 0]
    plots.plain_axes(ax, f"Error ({unit or _common_unit(curves)})")
    colours = _colours(curves)
    for place, curve in enumerate(curves):
        _draw(ax, curve, colours[curve.name], (place - (len(curves) - 1) / 2) * _STEP)
    counts = sorted({count for curve in curves for count in curve.errors})
    ax.set(xscale="log", ylim=(0, 1.04 * ax.get_ylim()[1]))
    ax.xaxis.set_major_locator(FixedLocator(_apart(counts)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("Labelled images", fontsize=8.5, color=INK)
    ax.margins(x=0.05)
    under = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2} if below else {}
    ax.legend(
        facecolor="white", edgecolor="white", framealpha=1, fontsize=8, labelcolor=MUTED, handlelength=2.6, **under
    )
    return figure


def _common_unit(curves: Sequence[Curve]) -> str:
    units = list(dict.fromkeys(curve.unit for curve in curves if curve.unit))
    if len(units) > 1:
        raise ModelError(f"errors in {' and in '.join(units)} cannot be compared: measure them with the same scale")
    return units[0] if units else _PRINTED_UNIT


def _colours(curves: Sequence[Curve]) -> dict[str, str]:
    own = [curve.name for curve in curves if curve.like is None]
    colours = {name: marks.NAMED[k % len(marks.NAMED)] for k, name in enumerate(own)}
    for curve in curves:
        if curve.like is not None:
            if curve.like not in colours:
                raise ModelError(f"{curve.name} is to look like {curve.like}, which is no curve with its own colour")
            colours[curve.name] = colours[curve.like]
    return colours


def _draw(ax: Axes, curve: Curve, colour: str, shift: float) -> None:
    """Moved by ``shift`` decades, so that bars stand beside each other."""
    counts = np.array(sorted(curve.errors))
    ax.errorbar(
        counts * 10**shift,
        [curve.errors[count] for count in counts.tolist()],
        yerr=[curve.deviations.get(count, 0.0) for count in counts.tolist()]
        if any(curve.deviations.values())
        else None,
        label=curve.name,
        color=colour,
        linestyle=(0, (4, 2)) if curve.printed else "-",
        linewidth=1.4,
        marker="o",
        markersize=5,
        markerfacecolor="white" if curve.printed else colour,
        elinewidth=1.1,
        capsize=2.5,
    )


def _apart(counts: Sequence[int]) -> list[int]:
    """Those whose ticks do not touch the one before."""
    kept: list[int] = []
    for count in counts:
        if not kept or np.log10(count / kept[-1]) > _CLOSE:
            kept.append(count)
    return kept
