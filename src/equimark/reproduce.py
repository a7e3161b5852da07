"""A table or figure of the papers, end to end: trains what is missing, evaluates, sets ours beside the published."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import chains
from .benchmarks.layout import SIZES
from .chains import Cell, Chain
from .config import load_recipe, make_config
from .figures import DPI
from .files import replace_file, write_text
from .workshop import Workshop

# Seconds for a pair of images in training, measured on two cores.
_SECONDS_PER_PAIR = {"smallnet": 0.054, "supervised-smallnet": 0.03, "smallnet-plus": 0.007, "hourglass": 0.8}
_UNPUBLISHED = {"animals": 1_500, "roboarm": 21_600, "yale-b": 2_242}  # training images of sets without a fixed number


@dataclass(frozen=True)
class Value:
    """A number of a table: ours and what was printed, where there are such."""

    ours: float | None
    printed: float | None

    @property
    def difference(self) -> float | None:
        """Ours less what was printed."""
        return None if self.ours is None or self.printed is None else self.ours - self.printed


def values_of(chain: Chain, workshop: Workshop) -> dict[str, dict[str, Value]]:
    """The table: rows, columns, ours and printed."""
    table: dict[str, dict[str, Value]] = {}
    for row, cells in chain.rows.items():
        table[row] = {cell.column: Value(_ours(cell, workshop), cell.printed) for cell in cells}
    return table


def _ours(cell: Cell, workshop: Workshop) -> float | None:
    if cell.evaluate is None or cell.metric is None:
        return None
    found: Any = workshop.evaluate(cell.evaluate).metrics
    *path, metric = cell.metric.split(".")
    for key in path:
        found = found.get(key, {})
    value = found.get(metric)
    return None if value is None else float(value)


# ---- what it takes, and what comes of it ----------------------------------------------------------------------


def cpu_hours(chain: Chain) -> float:
    """Roughly, for all trainings of a chain, on two cores."""
    return sum(map(_cpu_hours, chain.runs)) / 3600


def _cpu_hours(name: str) -> float:
    config = make_config(load_recipe(chains.recipe_of(name)).settings)
    pairs = config.resolve_steps(sum(map(_published_images, chains.data_of(name)))) * config.batch_size
    return pairs * _SECONDS_PER_PAIR[config.network.name]


def _published_images(data: str) -> int:
    return SIZES.get(data, {}).get("train", _UNPUBLISHED.get(data, 0))


def table_of(chain: Chain, values: Mapping[str, Mapping[str, Value]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people: in each cell ours, what was printed, and the difference."""
    columns = ["ours / printed (difference)", *chain.columns]
    rows = [[name, *(_text(row.get(column)) for column in chain.columns)] for name, row in values.items()]
    return columns, rows


def _text(value: Value | None) -> str:
    if value is None:
        return ""
    ours, printed = ("-" if number is None else f"{number:.2f}" for number in (value.ours, value.printed))
    return f"{ours} / {printed}" + ("" if value.difference is None else f" ({value.difference:+.2f})")


def write(chain: Chain, values: Mapping[str, Mapping[str, Value]], workshop: Workshop) -> Path:
    """The table as JSON and Markdown in the workshop; the path of the latter."""
    columns, rows = table_of(chain, values)
    lines = [f"# {chain.title}", "", f"{chain.paper}. {chain.note}".strip(), ""]
    lines += [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
    plain = {row: {column: asdict(value) for column, value in own.items()} for row, own in values.items()}
    about = {"name": chain.name, "quick": workshop.quick, "seed": workshop.seed, "runs": list(chain.runs)}
    write_text(workshop.out / f"{chain.name}.json", json.dumps(about | {"values": plain}, indent=2) + "\n")
    path = workshop.out / f"{chain.name}.md"
    write_text(path, "\n".join(lines) + "\n")
    return path


def reproduce(chain: Chain, workshop: Workshop) -> dict[str, dict[str, Value]]:
    """Train what a chain lacks, evaluate it, and write its table and its figure; the values of the table.

    Raises:
        BenchmarkError: if data are missing, before anything is trained.
    """
    workshop.check_data(chain)
    for name, start_from in chain.runs.items():
        workshop.train(name, start_from)
    values = values_of(chain, workshop)
    if values:
        write(chain, values, workshop)
    if chain.figure:
        figure = workshop.draw(chain)
        replace_file(workshop.out / f"{chain.name}.png", lambda path: figure.savefig(path, format="png", dpi=DPI))
    return values
