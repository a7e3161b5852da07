"""Tables of results: a row for each file that ``equimark evaluate --out`` wrote, and how its numbers were made."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from .config import ConfigError, nearest
from .results import Results, group_seeds, names_of, over_seeds

Best = Literal["low", "high"]

_LABELS = "labels_"  # in front of a number of labels, or of all
_AS_IT_IS = "as it is"  # column of what does not depend on the number of labels, beside those that do


@dataclass(frozen=True)
class Row:
    """A row of a table to be.

    Args:
        label: in front of it.
        results: by the name of a group of columns; the only group of a table may be ``""``.
        metric: instead of the table's, which has then only one.
    """

    label: str
    results: Mapping[str, Results]
    metric: str | None = None


@dataclass(frozen=True)
class Cell:
    """A number, and its deviation over the draws, if there were several."""

    value: float
    deviation: float | None = None

    def text(self, digits: int) -> str:
        """For people; counts have no digits after the point."""
        places = 0 if isinstance(self.value, int) else digits
        return f"{self.value:.{places}f}" + (f" ± {self.deviation:.{digits}f}" if self.deviation else "")


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns.

    Args:
        corner: what the labels of the rows or of the columns are.
        columns: their labels.
        rows: label, and a cell for each column, which may be blank.
        origins: how the numbers were made: labels of rows, and what they have in common.
        digits: after the point.
        best: which number of each column is set in bold, where it has several.
    """

    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    origins: tuple[tuple[str, str], ...] = ()
    digits: int = 2
    best: Best | None = None

    def texts(self, bold: Callable[[str], str], plain: Callable[[str], str] = str) -> list[list[str]]:
        """Rows for people, the label first.

        Args:
            bold: how the best of a column is set.
            plain: how labels are.
        """
        best = [self._best_text(column) for column in range(len(self.columns))]
        return [
            [plain(label), *(_set(cell, self.digits, best[i], bold) for i, cell in enumerate(cells))]
            for label, cells in self.rows
        ]

    def _best_text(self, column: int) -> str | None:
        """Without its deviation; numbers that look alike are equally good."""
        values = [cell.value for _, cells in self.rows if (cell := cells[column]) and not math.isnan(cell.value)]
        if self.best is None or len(values) < 2:
            return None
        return Cell(min(values) if self.best == "low" else max(values)).text(self.digits)

    def notes(self) -> list[str]:
        """A line for each origin of its numbers."""
        lines = [f"{labels}: {origin}" if labels else origin for labels, origin in self.origins]
        return [" ".join(line.splitlines()) for line in lines]

    def markdown(self) -> str:
        """A table of GitHub's Markdown, and below it a list of how its numbers were made."""
        header = [_markdown(each) for each in (self.corner, *self.columns)]
        rows = [header, ["---"] * len(header), *self.texts("**{}**".format, _markdown)]
        return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), *self.how_it_was_made()]) + "\n"

    def how_it_was_made(self) -> list[str]:
        """Lines of Markdown that fold its notes away, if it has any."""
        notes = [f"* {note}" for note in self.notes()]
        return ["", "<details><summary>How it was made</summary>", "", *notes, "", "</details>"] if notes else []

    def csv(self) -> str:
        """All digits of every number; deviations have columns of their own, as far as there are any."""
        columns: list[list[Any]] = [[self.corner, *(label for label, _ in self.rows)]]
        for place, name in enumerate(self.columns):
            cells = [own[place] for _, own in self.rows]
            columns.append([name, *(cell and cell.value for cell in cells)])
            if any(cell and cell.deviation for cell in cells):
                columns.append([f"{name} std", *(cell and cell.deviation for cell in cells)])
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in zip(*columns, strict=True):
            writer.writerow([_one_line(each) if isinstance(each, str) else each for each in row])
        return text.getvalue()

    def latex(self) -> str:
        """A ``tabular``, which needs no package; how its numbers were made in comments."""
        rows = [[_latex(each) for each in (self.corner, *self.columns)]]
        rows += self.texts(r"\textbf{{{}}}".format, _latex)
        lines = [" & ".join(row).replace("±", r"$\pm$") + r" \\" for row in rows]
        head = rf"\begin{{tabular}}{{l{'r' * len(self.columns)}}}"
        notes = [f"% {note}" for note in self.notes()]
        return "\n".join([head, r"\hline", lines[0], r"\hline", *lines[1:], r"\hline", r"\end{tabular}", *notes]) + "\n"


WRITERS: dict[str, Callable[[Table], str]] = {".md": Table.markdown, ".csv": Table.csv, ".tex": Table.latex}


def writer_of(path: Path) -> Callable[[Table], str]:
    """What makes the text of a file from a table, by its ending.

    Raises:
        ConfigError: for another than those of :data:`WRITERS`.
    """
    if path.suffix.lower() not in WRITERS:
        raise ConfigError(f"a table is written to a file that ends in {', '.join(WRITERS)}, not to {path}")
    return WRITERS[path.suffix.lower()]


def rows_over_seeds(labels: Sequence[str], results: Sequence[Results]) -> list[Row]:
    """A row for each file, or for those that differ in their seeds alone, with what their labels begin with alike."""
    rows = []
    for group in group_seeds(results):
        label = labels[group[0]] if len(group) == 1 else _beginning([labels[place] for place in group])
        rows.append(Row(label, {"": over_seeds([results[place] for place in group])}))
    return rows


def _beginning(labels: Sequence[str]) -> str:
    """What labels begin with alike; the first label, if they do not."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*labels, strict=False))
    return "".join(letters[0] for letters in alike).rstrip("-_./ ") or labels[0]


def labels_of(paths: Sequence[Path]) -> list[str]:
    """The files' names without ending; where two are the same, their paths."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [path.with_suffix("").as_posix() for path in paths]


def _set(cell: Cell | None, digits: int, best: str | None, bold: Callable[[str], str]) -> str:
    if cell is None:
        return ""
    text = cell.text(digits)
    return bold(text) if Cell(cell.value).text(digits) == best else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown(text: str) -> str:
    return _one_line(text).replace("|", r"\|")


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {letter: f"\\{letter}" for letter in "&%$#_{}"}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


# ---- from results to a table ---------------------------------------------------------------------------------


def tabulate(
    rows: Sequence[Row],
    metrics: Sequence[str] | Mapping[str, str] | None = None,
    *,
    digits: int = 2,
    best: Best | None = None,
) -> Table:
    """A table of results: metrics in columns; or numbers of labels, if any of the results have a metric for several.

    Args:
        rows: what to show.
        metrics: names, or names by the labels that they have in the table; without labels errors in % say of what.
            Default: all metrics; with numbers of labels the first. With numbers of labels each of several has a row
            of its own.
        digits: see :class:`Table`.
        best: see :class:`Table`.

    Raises:
        ConfigError: for a metric that none of the results have, a row with a metric of its own in a table of several,
            or a negative number of digits.
    """
    if digits < 0:
        raise ConfigError(f"digits after the point cannot be {digits}: 0 or more")
    found = [results for row in rows for results in row.results.values()]
    known = list(dict.fromkeys(name for results in found for name in _metrics_of(results)))
    named = metrics if isinstance(metrics, Mapping) else {_title(name, found): name for name in metrics or known}
    titles = dict(named)
    for name in [*titles.values(), *(row.metric for row in rows if row.metric)]:
        if name not in known:
            raise ConfigError(f"none of the results have a metric {name!r}{nearest(name, known)}")
    shown = set(titles.values())
    by_labels = any(len(results.entries) > 1 and shown & set(_entry_metrics(results)) for results in found)
    if by_labels and not metrics:
        titles = dict(list(titles.items())[:1])
    if len(titles) > 1 and (own := [row.label for row in rows if row.metric]):
        raise ConfigError(f"row {own[0]!r} has a metric of its own: choose a single one for the table")
    if not isinstance(metrics, Mapping):
        rows = _with_units(rows, [name for title, name in titles.items() if title.endswith("%")])
    if by_labels:
        lines = [line for row in rows for line in _lines_by_labels(row, titles)]
        corner = "labelled images" if len(titles) > 1 else f"{next(iter(titles))}, labelled images"
        names = sorted({name for _, cells in lines for _, name in cells}, key=_number)
    else:
        lines = [_line_by_metric(row, titles) for row in rows]
        corner, names = "", list(titles)
    groups = dict.fromkeys(group for row in rows for group in row.results)
    columns = [(group, name) for group in groups for name in names if any((group, name) in own for _, own in lines)]
    return Table(
        corner,
        tuple(", ".join(filter(None, place)) for place in columns),
        tuple((label, tuple(cells.get(place) for place in columns)) for label, cells in lines),
        origins_of(rows),
        digits,
        best,
    )


_Line = tuple[str, dict[tuple[str, str], Cell]]  # label, and cells by the group and the name of their column


def _metrics_of(results: Results) -> list[str]:
    return list(dict.fromkeys([*names_of(results.plain), *_entry_metrics(results)]))


def _entry_metrics(results: Results) -> list[str]:
    return list(dict.fromkeys(name for entry in results.entries.values() for name in names_of(entry)))


def _title(metric: str, found: Iterable[Results]) -> str:
    """The metric in words; without the length that it is relative to, where this is not the same for all."""
    words = {results.in_words(metric): results.unit_of(metric) for results in found if metric in _metrics_of(results)}
    text, unit = next(iter(words.items()), (metric, ""))
    return text if len(words) < 2 else text.replace(unit, "%")


def _with_units(rows: Sequence[Row], metrics: Iterable[str]) -> Sequence[Row]:
    """The rows; where the length that an error is relative to differs between them, each says which it is."""
    units = [
        list(dict.fromkeys(unit for each in row.results.values() for name in metrics if (unit := each.unit_of(name))))
        for row in rows
    ]
    if all(own == units[0] for own in units):
        return rows
    return [
        replace(row, label=f"{row.label} ({' or '.join(own)})") if own else row
        for row, own in zip(rows, units, strict=True)
    ]


def _line_by_metric(row: Row, titles: Mapping[str, str]) -> _Line:
    chosen = dict.fromkeys(titles, row.metric) if row.metric else titles
    return row.label, _join_groups(row, partial(_by_metric, titles=chosen))


def _lines_by_labels(row: Row, titles: Mapping[str, str]) -> Iterable[_Line]:
    chosen = {"": row.metric} if row.metric else titles
    for title, metric in chosen.items():
        label = f"{row.label}, {title}" if len(chosen) > 1 else row.label
        yield label, _join_groups(row, partial(_by_labels, metric=metric))


def _join_groups(row: Row, cells_of: Callable[[Results], Mapping[str, Cell]]) -> dict[tuple[str, str], Cell]:
    return {(group, name): cell for group, own in row.results.items() for name, cell in cells_of(own).items()}


def _by_metric(results: Results, titles: Mapping[str, str]) -> dict[str, Cell]:
    return {title: _cell(results.plain, name) for title, name in titles.items() if name in results.plain}


def _by_labels(results: Results, metric: str) -> dict[str, Cell]:
    """Of each number of labels; or of the results as they are, if the metric does not depend on that."""
    found = {name: own for name, own in results.entries.items() if metric in own} or {_AS_IT_IS: results.plain}
    return {name.removeprefix(_LABELS): _cell(own, metric) for name, own in found.items() if metric in own}


def _cell(entry: Mapping[str, float], metric: str) -> Cell:
    return Cell(entry[metric], entry.get(f"{metric}_std") or None)


def _number(name: str) -> tuple[float, str]:
    """For sorting: numbers of labels as they grow, then the others."""
    return float(name) if name.isdecimal() else math.inf, name


# ---- how it was made -----------------------------------------------------------------------------------------


def origins_of(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """Each distinct origin once, with the rows that it stands behind; without these, if it stands behind all."""
    shared: dict[str, list[str]] = {}
    for row in rows:
        for group, results in row.results.items():
            shared.setdefault(origin_of(results), []).append(f"{row.label} ({group})" if group else row.label)
    if len(shared) == 1:
        return (("", next(iter(shared))),)
    return tuple(("; ".join(dict.fromkeys(labels)), origin) for origin, labels in shared.items())


def origin_of(results: Results) -> str:
    """How results were made, in a line of Markdown: command, data, training, seeds, hardware and date."""
    parts = (
        _command(results.protocol, results.made),
        _data(results),
        _training(results),
        _seeds(results),
        *_where(results.made),
    )
    return "; ".join(filter(None, parts))


def _command(protocol: str, made: Mapping[str, Any]) -> str:
    command = made.get("command")
    if command:
        return f"`` {command} ``" if "`" in command else f"`{command}`"
    return f"{protocol}, " + ("by an unknown command" if command is None else "called from Python")


def _data(results: Results) -> str:
    learned = results.settings.get("training_images")
    labelled = "" if learned is None else f", {learned:,} labelled ones to learn from"
    return f"{results.data}, {results.images:,} test images{labelled}"


def _training(results: Results) -> str:
    about = results.trained
    if not about:
        return f"run {results.run}, training unknown"
    steps = f"{about['steps']:,} steps x {about['batch_size']} on {about['images']:,} images of {about['data']}"
    beside = f" and {about['landmarks']} landmarks beside" if about.get("landmarks") else ""
    network = f"{about['network']} with {about['channels']} channels{beside}"
    seeds = about.get("seeds", [about["seed"]])
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"
    return f"{about['method']}, {network}, {steps}, {which}"


def _seeds(results: Results) -> str:
    draws = max((int(own.get("draws", 1)) for own in results.entries.values()), default=1)
    seed = results.seed
    return f"measured with seed {seed}" if draws == 1 else f"measured with seeds {seed} to {seed + draws - 1}"


def _where(made: Mapping[str, Any]) -> Iterable[str]:
    on = made.get("hardware", {})
    device = on.get("gpu") or on.get("processor")
    cores = f", {on['cores']} cores" if device and not on.get("gpu") and on.get("cores") else ""
    return f"{device}{cores}" if device else "hardware unknown", str(made.get("date", "date unknown"))
