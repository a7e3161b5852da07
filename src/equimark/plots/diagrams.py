"""Numbers as curves, dots and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from equimark.metrics import Reliability
from equimark.plots.canvas import WIDTH, drop_rest, panels, plain_axes
from equimark.plots.colours import ACCENT, INK, MUTED, RULE, Points, palette

TERM_LABELS = {
    "loss": "Loss",
    "matching": "Loss: distance of the matches",
    "alignment": "Landmarks off their place (px²)",
    "diversity": "Landmarks that share a place",
    "alignment_share": "Share of standing still",
    "distinct_landmarks": "Distinct landmarks",
    "pairs_per_second": "Pairs per second",
    "lr": "Learning rate",
}


def curves(
    entries: Sequence[Mapping[str, float]],
    *,
    limits: Mapping[str, float] | None = None,
    title: str = "Training, step by step",
) -> Figure:
    """One panel per number of the log: the logged values, and their running mean.

    Args:
        entries: lines of ``log.jsonl``: ``step``, ``loss``, named terms, ``pairs_per_second``, ``lr``.
        limits: values worth comparing with, drawn as dashed lines, by name.
        title: of the figure.
    """
    names = curve_titles(entries)
    columns = 4 if len(names) > 6 else 3
    rows = max(1, -(-len(names) // columns))
    figure, axes = panels(rows, columns, WIDTH, 1.7 * rows, title)
    each = list(axes.flat)
    for (name, label), ax in zip(names.items(), each, strict=False):
        points = np.array([(e["step"], e[name]) for e in entries if name in e], np.float64)
        _curve(ax, points, label, (limits or {}).get(name))
    for ax in each[len(names) :]:
        ax.remove()
    return figure


def curve_titles(entries: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """The numbers of a log that :func:`curves` draws, in its order, with the titles of their panels."""
    names = [name for name in entries[0] if name != "step"] if entries else []
    if "matching" in names:  # the only term, so the loss is the same curve
        names.remove("loss")
    return {name: TERM_LABELS.get(name, name.replace("_", " ").capitalize()) for name in names}


def _curve(ax: Axes, points: Points, label: str, limit: float | None) -> None:
    plain_axes(ax, label)
    reach = len(points) // 25
    smooth = [points[max(0, i - reach) : i + reach + 1, 1].mean() for i in range(len(points))]
    ax.plot(*points.T, color=ACCENT, alpha=0.3, linewidth=1)
    ax.plot(points[:, 0], smooth, color=ACCENT, linewidth=1.8, marker="o" if len(points) < 3 else None, markersize=4)
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if points[:, 1].min() >= 0:
        ax.set_ylim(bottom=0)
    if limit is not None:
        ax.axhline(limit, color="#d64545", linewidth=1, linestyle=(0, (4, 3)))
        # What a run begins with is often far beyond; what matters happens near the limit.
        ax.set_ylim(top=min(2.5 * limit, 1.08 * max(limit, float(points[:, 1].max()))))


def reliability(
    found: Mapping[str, Reliability],
    *,
    title: str = "Share of landmarks that are right, by their confidence: on the line it is as it says",
) -> Figure:
    """Confidence against the share that is correct: a panel each, with its calibration error.

    A dot is larger the more landmarks it stands for; the grey columns are their shares of all.

    Args:
        found: by name, which stands above the panel.
        title: of the figure.
    """
    columns = min(3, max(1, len(found)))
    rows = -(-max(1, len(found)) // columns)
    figure, axes = panels(rows, columns, 2.75 * columns, 2.7 * rows, title)
    for (name, own), ax in zip(found.items(), axes.flat, strict=False):
        plain_axes(ax, f"{name}: off by {own.calibration_error:.3f}")
        _draw_reliability(ax, own)
    for ax in axes[-1]:
        ax.set_xlabel("Confidence", fontsize=8, color=MUTED)
    for row in axes:
        row[0].set_ylabel("Share that is right", fontsize=8, color=MUTED)
    drop_rest(axes, len(found))
    return figure


def _draw_reliability(ax: Axes, own: Reliability) -> None:
    edges, shares = np.linspace(0, 1, len(own.count) + 1), own.count / max(1, own.count.sum())
    ax.bar(edges[:-1], shares, 0.9 / len(own.count), color=RULE, align="edge")
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    seen = own.count > 0
    x, y = own.confidence[seen], own.correct[seen]
    ax.plot(x, y, color=ACCENT, linewidth=1.4, zorder=3)
    ax.scatter(x, y, s=12 + 160 * shares[seen], color=ACCENT, edgecolors="white", linewidths=0.8, zorder=4)
    ax.set(xlim=(-0.03, 1.03), ylim=(0, 1.03), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set_aspect("equal")


def bars(
    metrics: Mapping[str, Mapping[str, float]],
    *,
    labels: Mapping[str, str] | None = None,
    title: str = "The runs compared: shorter is better",
) -> Figure:
    """Runs compared: one panel per metric, one bar per run that has it.

    Args:
        metrics: values by run, then by metric.
        labels: of the metrics, in words.
        title: of the figure; it should say which way is better.
    """
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    colours = dict(zip(metrics, palette(len(metrics) + 1)[1:], strict=True))
    columns = min(3, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure, axes = panels(rows, columns, 3 * max(columns, 2), rows * (0.45 + 0.3 * len(metrics)), title)
    for name, ax in zip(names, axes.flat, strict=False):
        have = {run: values[name] for run, values in metrics.items() if name in values}
        plain_axes(ax, (labels or {}).get(name, name.replace("_", " ")))
        ax.grid(visible=False)
        ax.set(xticks=[], xlim=(0, 1.2 * max(1e-12, *have.values())))
        drawn = ax.barh(list(have), list(have.values()), color=[colours[run] for run in have], height=0.62)
        ax.bar_label(drawn, fmt="%.3g", padding=3, fontsize=8.5, color=INK)
        ax.invert_yaxis()
        ax.tick_params(axis="y", labelsize=8.5, colors=INK)
    drop_rest(axes, len(names))
    return figure
