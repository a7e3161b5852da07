"""What each table and figure of the two papers needs: data, trainings, evaluations, and what was printed.

There is one YAML file for each, in this folder::

    title: what it shows
    paper: where it is printed
    runs:                                   # in the order of training
      celeba/sparse-50:                     # data / recipe
      300w/finetune-sparse-50: celeba/sparse-50     # fine-tuned from
    columns: [error]
    rows:
      50 landmarks:
        - evaluate: {protocol: landmarks, run: celeba/sparse-50, data: 300w}
          values: {error: [error_iod_percent, 9.30]}       # a metric of it, and what was printed
      DRMF:
        - values: {error: [null, 9.22]}                    # another method: printed alone
    figure:                                 # a picture, see equimark.figures
      draw: instances
      exhibits:
        10 landmarks: {run: celeba/sparse-10, data: mafl, head: true}      # head: fitted on the training images
      settings: {seed: 0}

Or ``draw: learning_curve`` alone: the table as curves, its columns being numbers of labelled images.

Data joined by ``+`` are trained on together. A metric of a number of labels is ``labels_10.error_iod_percent``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

import yaml

from equimark.config import load_recipe, make_config

FINE_TUNING = 50  # epochs
_AS_PRINTED = {"sparse": "sparse-50-paper", "dense": "dve-smallnet-64-paper", "dve": "dve-smallnet-64-paper"}
PROTOCOLS = ("matching", "landmarks", "segmentation")


class ChainError(ValueError):
    """A table or figure that does not exist, or cannot be made."""


@dataclass(frozen=True)
class Cell:
    """A value of a table.

    Args:
        column: of the table.
        metric: of the results of ``evaluate``; absent for what was printed alone.
        printed: in the paper; absent for what is only ours.
        evaluate: protocol, run, data and settings; absent for what was printed alone.
    """

    column: str
    metric: str | None
    printed: float | None
    evaluate: Mapping[str, Any] | None


@dataclass(frozen=True)
class Chain:
    """A table or figure of a paper, and how to make it.

    Args:
        name: such as ``2019-table1``.
        title: what it shows.
        paper: where it is printed.
        runs: name (data / recipe) of each training, in order, and the run that it starts from, if any.
        columns: of the table.
        rows: cells by the row's name.
        figure: what to draw, and settings of the drawing.
        note: what differs from the paper.
    """

    name: str
    title: str
    paper: str
    runs: Mapping[str, str | None]
    columns: tuple[str, ...] = ()
    rows: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    figure: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @cached_property
    def data(self) -> tuple[str, ...]:
        """Names of the data sets that it needs."""
        trained_on = [part for run in self.runs for part in data_of(run)]
        tested_on = [cell.evaluate["data"] for cell in self.cells() if cell.evaluate]
        drawn = [data for spec in self.figure.get("exhibits", {}).values() for data in shown_on(spec)]
        return tuple(dict.fromkeys([*trained_on, *tested_on, *drawn]))

    def cells(self) -> Iterator[Cell]:
        """All cells of the table."""
        for row in self.rows.values():
            yield from row


def shown_on(exhibit: Mapping[str, Any]) -> list[str]:
    """Names of the data sets whose images an exhibit of a figure shows."""
    data = exhibit["data"]
    return [data] if isinstance(data, str) else list(data)


def data_of(run: str) -> list[str]:
    """Names of the data sets that a run is trained on."""
    return run.split("/")[0].split("+")


def recipe_of(run: str) -> str:
    """Name of the recipe of a run."""
    return run.split("/")[1]


def settings_of(run: str, start_from: str | None) -> dict[str, Any]:
    """Settings of a run over those of its recipe: descriptors are fine-tuned for 50 epochs (2019, section 4.2)."""
    method = load_recipe(recipe_of(run)).settings["method"]
    return {"epochs": FINE_TUNING} if start_from and method in ("dense", "dve") else {}


def printed_settings(run: str) -> dict[str, Any]:
    """Settings of a run over those of its recipe with which it learns as printed: optimiser, padding, diversity.

    Networks of other kinds (hourglass, supervised) do so by their recipes.
    """
    own = make_config(load_recipe(recipe_of(run)).settings)
    if own.network.name != "smallnet" or own.method not in _AS_PRINTED:
        return {}
    printed = make_config(load_recipe(_AS_PRINTED[own.method]).settings)
    settings = {f"optimiser.{key}": value for key, value in asdict(printed.optimiser).items()}
    if own.method == "sparse":
        settings |= {"network.padding": printed.network.padding, "objective.diversity": printed.objective.diversity}
    return settings


def names() -> list[str]:
    """Of all tables and figures, by paper."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def load(name: str) -> Chain:
    """The chain of that name.

    Raises:
        ChainError: if there is none.
    """
    file = _folder() / f"{name}.yaml"
    if not file.is_file():
        near = difflib.get_close_matches(name, names(), 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else "equimark reproduce --list names all"
        raise ChainError(f"no table or figure {name!r}; {hint}")
    about = yaml.safe_load(file.read_text(encoding="utf-8"))
    about["columns"] = tuple(about.get("columns", ()))
    about["rows"] = {row: tuple(_cells(parts)) for row, parts in about.get("rows", {}).items()}
    return _checked(Chain(name=name, **about))


def _folder() -> resources.abc.Traversable:
    return resources.files(__name__)


def _cells(parts: list[Mapping[str, Any]]) -> Iterator[Cell]:
    for part in parts:
        for column, (metric, printed) in part["values"].items():
            yield Cell(column, metric, printed, part.get("evaluate"))


def _checked(chain: Chain) -> Chain:
    """The chain, if its names belong together."""
    for run, earlier in chain.runs.items():
        load_recipe(recipe_of(run))
        if earlier is not None and earlier not in chain.runs:
            raise ChainError(f"{chain.name}: {run} starts from {earlier}, which is not trained")
    for cell in chain.cells():
        if cell.column not in chain.columns:
            raise ChainError(f"{chain.name}: no column {cell.column!r}")
        if (cell.evaluate is None) != (cell.metric is None):
            raise ChainError(f"{chain.name}: {cell.column} needs both a metric and what to evaluate, or neither")
        if cell.evaluate and (cell.evaluate["run"] not in chain.runs or cell.evaluate["protocol"] not in PROTOCOLS):
            raise ChainError(f"{chain.name}: cannot evaluate {dict(cell.evaluate)}")
    for name, exhibit in chain.figure.get("exhibits", {}).items():
        if exhibit["run"] not in chain.runs:
            raise ChainError(f"{chain.name}: {name} shows {exhibit['run']}, which is not trained")
    return chain
