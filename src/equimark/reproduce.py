"""A table or figure of the papers, end to end: trains what is missing, evaluates, sets ours beside the published."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import chains
from .benchmarks.layout import SIZES
from .chains import Cell, Chain, ChainError
from .config import load_recipe, make_config
from .figures import DPI, Curve, learning_curve
from .files import replace_file, write_text
from .metrics import mean_and_deviation
from .results import Results
from .tabulation import Cell as Number
from .tabulation import Row, Table, origins_of
from .workshop import Workshop

# Of a pair of images in training, or of a labelled one: seconds on two cores, measured, and operations, counted.
_COSTS = {
    "smallnet": (0.035, 7.1e9),
    "hourglass": (0.36, 94e9),
    "supervised smallnet": (0.017, 3.4e9),
    "supervised smallnet-plus": (0.007, 0.4e9),
}
GPU_RATE = 1e13  # operations per second: an assumption, what a card of today may sustain in single precision
_UNPUBLISHED = {"animals": 1_500, "roboarm": 21_600, "yale-b": 2_242}  # training images of sets without a fixed number


@dataclass(frozen=True)
class Value:
    """A number of a table: ours and what was printed, where there are such.

    Ours is the mean over seeds and its deviation; with a single seed the deviation is that over draws of labels.
    """

    ours: Number | None
    printed: float | None

    @property
    def difference(self) -> float | None:
        """Ours less what was printed."""
        return None if self.ours is None or self.printed is None else self.ours.value - self.printed


def values_of(chain: Chain, workshops: Sequence[Workshop]) -> dict[str, dict[str, Value]]:
    """The table: rows, columns, ours (from a workshop for each seed) and printed."""
    return {
        row: {cell.column: Value(_ours(cell, workshops), cell.printed) for cell in cells}
        for row, cells in chain.rows.items()
    }


def _ours(cell: Cell, workshops: Sequence[Workshop]) -> Number | None:
    if cell.evaluate is None or cell.metric is None:
        return None
    measured = [(each.quick, each.evaluate(cell.evaluate)) for each in workshops]
    found = [number for quick, own in measured if (number := _number_of(own, cell.metric, quick=quick))]
    if len(found) < 2:
        return found[0] if found else None
    return Number(*mean_and_deviation([number.value for number in found]))


def _number_of(results: Results, metric: str, *, quick: bool) -> Number | None:
    """The metric, which may be within a number of labels, as ``labels_5.error_iod_percent``.

    A quick trial takes what its few labels give instead, and lacks the later epochs.

    Raises:
        ChainError: if it was not measured otherwise.
    """
    labels, _, name = metric.rpartition(".")
    entries = dict(reversed(results.entries.items())) if quick else results.entries
    few = next(iter(entries.values()), results.plain) if quick else {}
    found = entries.get(labels, few) if labels else results.plain
    if name in found:
        return Number(float(found[name]), found.get(f"{name}_std") or None)
    if quick and "epoch" in name:
        return None
    raise ChainError(f"{results.protocol} of {results.run} has not measured {metric}")


# ---- what it takes, and what comes of it ----------------------------------------------------------------------


class Hours(NamedTuple):
    """What trainings take, roughly: on two cores, as measured; on a GPU, by their operations at :data:`GPU_RATE`."""

    cpu: float
    gpu: float


def hours_of(chain: Chain) -> Hours:
    """For all trainings of a chain."""
    costs = [_cost(name, start_from) for name, start_from in chain.runs.items()]
    return Hours(sum(seconds for seconds, _ in costs) / 3600, sum(flops for _, flops in costs) / GPU_RATE / 3600)


def _cost(name: str, start_from: str | None) -> tuple[float, float]:
    """Seconds on two cores, and operations, of a training."""
    config = make_config(load_recipe(chains.recipe_of(name)).settings, chains.settings_of(name, start_from))
    seen = config.resolve_steps(sum(map(_published_images, chains.data_of(name)))) * config.batch_size
    kind = f"supervised {config.network.name}" if config.is_supervised else config.network.name
    seconds, operations = _COSTS[kind]
    return seen * seconds, seen * operations


def _published_images(data: str) -> int:
    return _UNPUBLISHED.get(data) or SIZES[data]["train"]


def table_of(chain: Chain, values: Mapping[str, Mapping[str, Value]]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for people: in each cell ours, what was printed, and the difference."""
    columns = ["ours / printed (difference)", *chain.columns]
    rows = [[name, *(_text(row.get(column)) for column in chain.columns)] for name, row in values.items()]
    return columns, rows


def _text(value: Value | None) -> str:
    if value is None:
        return ""
    ours = "-" if value.ours is None else value.ours.text(2)
    printed = "-" if value.printed is None else f"{value.printed:.2f}"
    return f"{ours} / {printed}" + ("" if value.difference is None else f" ({value.difference:+.2f})")


def numbers_of(chain: Chain, values: Mapping[str, Mapping[str, Value]], workshops: Sequence[Workshop]) -> Table:
    """The same for programs: three columns for each of the chain, and how our numbers were made."""
    rows = []
    for name, row in values.items():
        cells = [row.get(column, Value(None, None)) for column in chain.columns]
        rows.append((name, tuple(number for value in cells for number in _numbers(value))))
    columns = tuple(f"{column}{kind}" for column in chain.columns for kind in ("", ", printed", ", difference"))
    return Table(chain.title, columns, tuple(rows), origins_of(list(_made(chain, workshops))))


def _numbers(value: Value) -> tuple[Number | None, Number | None, Number | None]:
    printed, difference = (None if number is None else Number(number) for number in (value.printed, value.difference))
    return value.ours, printed, difference


def _made(chain: Chain, workshops: Sequence[Workshop]) -> Iterator[Row]:
    for name, cells in chain.rows.items():
        found = {
            cell.column if len(workshops) == 1 else f"{cell.column}, seed {each.seed}": each.evaluate(cell.evaluate)
            for cell in cells
            if cell.evaluate is not None and cell.metric is not None
            for each in workshops
        }
        yield Row(name, found)


def write(chain: Chain, values: Mapping[str, Mapping[str, Value]], workshops: Sequence[Workshop]) -> None:
    """The table, into the first workshop: Markdown for people, and JSON, CSV and LaTeX."""
    table, out = numbers_of(chain, values, workshops), workshops[0].out
    columns, rows = table_of(chain, values)
    lines = [f"# {chain.title}", "", f"{chain.paper}. {chain.note}".strip(), ""]
    lines += [f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows)]
    plain = {row: {column: _plain(value) for column, value in own.items()} for row, own in values.items()}
    about = {
        "name": chain.name,
        "quick": workshops[0].quick,
        "seeds": [each.seed for each in workshops],
        "runs": list(chain.runs),
        "values": plain,
    }
    texts = {
        ".md": "\n".join([*lines, *table.how_it_was_made()]) + "\n",
        ".json": json.dumps(about, indent=2) + "\n",
        ".csv": table.csv(),
        ".tex": table.latex(),
    }
    for ending, text in texts.items():
        write_text(out / f"{chain.name}{ending}", text)


def _plain(value: Value) -> dict[str, float | None]:
    ours, deviation = (value.ours.value, value.ours.deviation) if value.ours else (None, None)
    return {"ours": ours, "deviation": deviation, "printed": value.printed, "difference": value.difference}


def curves_of(values: Mapping[str, Mapping[str, Value]]) -> list[Curve]:
    """Rows of a table whose columns are numbers of labels as curves, ours and what was printed."""
    curves = []
    for row, own in values.items():
        ours = {int(count): value.ours for count, value in own.items() if value.ours is not None}
        printed = {int(count): value.printed for count, value in own.items() if value.printed is not None}
        if ours:
            deviations = {count: number.deviation or 0.0 for count, number in ours.items()}
            curves.append(Curve(row, {count: number.value for count, number in ours.items()}, deviations))
        if printed:
            curves.append(Curve(f"{row}, printed", printed, printed=True, like=row if ours else None))
    return curves


def reproduce(chain: Chain, workshop: Workshop, seeds: int = 1) -> dict[str, dict[str, Value]]:
    """Train what a chain lacks, evaluate it, and write its table and its figure; the values of the table.

    Args:
        chain: the table or figure.
        workshop: where it is made, with the first seed.
        seeds: of trainings and evaluations, one after another; pictures of images are drawn with the first.

    Raises:
        BenchmarkError: if data are missing, before anything is trained.
    """
    workshop.check_data(chain)
    workshops = [workshop.with_seed(workshop.seed + place) for place in range(seeds if chain.rows else 1)]
    for each in workshops:
        for name, start_from in chain.runs.items():
            each.train(name, start_from)
    values = values_of(chain, workshops)
    if values:
        write(chain, values, workshops)
    if chain.figure:
        of_table = chain.figure["draw"] == "learning_curve"
        figure = learning_curve(curves_of(values)) if of_table else workshop.draw(chain)
        replace_file(workshop.out / f"{chain.name}.png", lambda path: figure.savefig(path, format="png", dpi=DPI))
    return values
