"""What a protocol has found, as ``equimark evaluate --out`` writes it and as it is read back."""

from __future__ import annotations

import json
import re
import reprlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from .protocols import Entry
from .provenance import command_line


class ResultsError(ValueError):
    """A file that holds no results; the message says which, what is wrong and the way out."""


@dataclass(frozen=True)
class Results:
    """What a protocol has found.

    Args:
        protocol: and its variant.
        run: path of the run.
        data: as given.
        images: tested on.
        metrics: by name; and a mapping of them for each number of labels, ``labels_10``.
        seed: of everything drawn.
        settings: of the protocol.
        details: errors of each landmark, of each part, or after each epoch; how far confidence can be believed.
        made: by which ``command``, on which ``date``, on what ``hardware`` and with which ``versions``: see
            :func:`equimark.provenance.made_now`. Empty in files of earlier versions.
        trained: what the run has learned from: see :func:`equimark.provenance.training_of`. Likewise.
    """

    protocol: str
    run: str
    data: str
    images: int
    metrics: Mapping[str, float | Entry]
    seed: int
    settings: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Results:
        """What :meth:`to_json` wrote, by this version or an earlier one.

        Raises:
            ResultsError: if the file is missing, damaged or of something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no JSON"
            raise ResultsError(
                f"{path} cannot be read as results ({why}): give files that equimark evaluate --out wrote"
            ) from None
        lacking = [name for name in _NEEDED if not isinstance(content, dict) or name not in content]
        if lacking:
            raise ResultsError(
                f"{path} holds no results, it lacks {', '.join(lacking)}: give files that equimark evaluate --out wrote"
            )
        if fault := next(_faults(content, _FORM), None):
            raise ResultsError(f"{path} is damaged: {fault}; measure again with equimark evaluate --out {path}")
        return cls(**{each.name: content[each.name] for each in fields(cls) if each.name in content})

    def made_by(self, words: Sequence[str]) -> Results:
        """The same, with the command that they come from: the words after ``equimark``."""
        return replace(self, made={**self.made, "command": command_line(words)})

    def to_json(self) -> str:
        """The text of ``results.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def entries(self) -> dict[str, Entry]:
        """The metrics of each number of labels, by ``labels_10`` and the like."""
        return {name: own for name, own in self.metrics.items() if isinstance(own, dict)}

    @property
    def plain(self) -> Entry:
        """The other metrics: of the largest number of labels, and those that need none."""
        return {name: own for name, own in self.metrics.items() if not isinstance(own, dict)}

    def table(self) -> tuple[str, list[str], list[list[str]]]:
        """Title, columns and rows for people: a metric in each row, a number of labels in each further column."""
        plain, columns = _texts(self.plain), [_texts(own) for own in self.entries.values()]
        title = f"{self.protocol}, run {self.run}, data {self.data}, images {self.images}, seed {self.seed}"
        if not columns:
            header, cells = ["metric", "value"], {name: [text] for name, text in plain.items()}
        else:
            header = ["metric", *(name.replace("_", " ") for name in self.entries)]
            cells = {name: [*[""] * (len(columns) - 1), text] for name, text in plain.items() if name not in columns[0]}
            cells = {name: [own[name] for own in columns] for name in columns[0]} | cells
        return title, header, [[self.in_words(name), *texts] for name, texts in cells.items()]

    def in_words(self, metric: str) -> str:
        """What a metric is, if its name alone says too little: an error in % of which length; else its name."""
        unit = self.unit_of(metric)
        what = "error of the mean shape" if metric.startswith("mean_shape") else "error"
        return f"{what}, {unit}" if unit else metric

    def unit_of(self, metric: str) -> str:
        """What an error is in % of; empty for other metrics."""
        found = _SCALED_ERROR.fullmatch(metric)
        if found is None:
            return ""
        between = re.fullmatch(r"(\d+),(\d+)", re.sub(r"\s", "", str(self.settings.get("scale", ""))))
        if found[1] == "iod" and between:
            return f"% of the distance between points {between[1]} and {between[2]}"
        return f"% of {_LENGTHS[found[1]]}"


_LENGTHS = {
    "iod": "the distance between the eyes",
    "pupils": "the distance between the pupils",
    "box": "the size of the box around the landmarks",
}
_SCALED_ERROR = re.compile(rf"(?:mean_shape_)?error_({'|'.join(_LENGTHS)})_percent")


def names_of(entry: Mapping[str, float]) -> list[str]:
    """The metrics of an entry, without what belongs to another of them: its mean and deviation over the draws."""
    return [name for name in entry if not name.endswith(("_mean", "_std")) and name != "draws"]


def _texts(entry: Entry) -> dict[str, str]:
    """Each metric, with its deviation over the draws."""
    return {
        name: f"{entry[name]:.3f}" + (f" ± {deviation:.3f}" if (deviation := entry.get(f"{name}_std")) else "")
        for name in names_of(entry)
    }


# ---- several seeds -------------------------------------------------------------------------------------------


def over_seeds(results: Sequence[Results]) -> Results:
    """Of runs that differ in their seeds alone: the mean of each metric, and its deviation over the runs (of a sample).

    It is of no file: ``trained`` has their ``seeds``.

    Raises:
        ResultsError: if they differ in more than the seed, or two are of the same.
    """
    first = results[0]
    for other in results[1:]:
        if differing := [name for name, value in _but_seeds(first).items() if value != _but_seeds(other)[name]]:
            raise ResultsError(f"{first.run} and {other.run} differ in more than the seed: in {', '.join(differing)}")
    if len(results) == 1:
        return first
    seeds = [each.trained.get("seed", each.seed) for each in results]
    if len(set(seeds)) < len(seeds):
        runs = ", ".join(each.run for each in results)
        raise ResultsError(f"{runs} are of the seeds {', '.join(map(str, seeds))}: give one run of each seed")
    metrics: dict[str, float | Entry] = dict(_mean_entry([each.plain for each in results]))
    metrics |= {name: _mean_entry([each.entries[name] for each in results]) for name in first.entries}
    return replace(first, metrics=metrics, trained={**first.trained, "seeds": seeds})


def group_seeds(results: Sequence[Results]) -> list[list[int]]:
    """Places of those that differ in their seeds alone, in the order of the first of each group."""
    groups: list[list[int]] = []
    for place, own in enumerate(results):
        for group in groups:
            if _but_seeds(results[group[0]]) == _but_seeds(own):
                group.append(place)
                break
        else:
            groups.append([place])
    return groups


def _but_seeds(results: Results) -> dict[str, Any]:
    """What results of several seeds have in common, by name."""
    return {
        "protocol": results.protocol,
        "data": (results.data, results.images),
        "settings": dict(results.settings),
        "training": {name: value for name, value in results.trained.items() if name != "seed"},
        "metrics": [*names_of(results.plain), *((name, names_of(own)) for name, own in results.entries.items())],
    }


def _mean_entry(entries: Sequence[Entry]) -> dict[str, float]:
    found = {name: [own[name] for own in entries] for name in names_of(entries[0])}
    deviations = {f"{name}_std": statistics.stdev(values) for name, values in found.items()}
    draws = {"draws": entries[0]["draws"]} if "draws" in entries[0] else {}
    return {name: statistics.fmean(values) for name, values in found.items()} | deviations | draws


# ---- what a file has to hold ---------------------------------------------------------------------------------

_NEEDED = ("protocol", "run", "data", "images", "metrics", "seed", "settings")
_NUMBER, _TEXT, _COUNT = (int, float), (str,), (int,)
_KINDS: dict[tuple[type, ...], str] = {_NUMBER: "a number", _TEXT: "text", _COUNT: "a whole number"}
_TRAINED = {
    **dict.fromkeys(("method", "network", "data"), _TEXT),
    **dict.fromkeys(("channels", "steps", "batch_size", "seed", "images"), _COUNT),
}
_FORM: dict[str, Any] = {  # of what is there; what is not named here may be anything
    **dict.fromkeys(("protocol", "run", "data"), _TEXT),
    **dict.fromkeys(("images", "seed"), _COUNT),
    "metrics": {},
    "details": {},
    "settings": {"training_images": _COUNT},
    "made": {"command": _TEXT, "date": _TEXT, "hardware": {}, "versions": {}},
    "trained": _TRAINED,
}


def _faults(content: Mapping[str, Any], form: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """What is not of the form that it should have."""
    if within == "trained." and (lacking := [name for name in form if content and name not in content]):
        yield f"trained lacks {', '.join(lacking)}"
    for name, kind in form.items():
        value, where = content.get(name), within + name
        if name not in content:
            continue
        if not isinstance(kind, dict):
            yield from _unlike(value, kind, where)
        elif not isinstance(value, dict):
            yield f"{where} is {reprlib.repr(value)}, not a mapping"
        else:
            yield from _faults(value, _metric_form(value) if where == "metrics" else kind, f"{where}.")


def _metric_form(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers, and mappings of numbers."""
    return {name: _metric_form(own) if isinstance(own, dict) else _NUMBER for name, own in metrics.items()}


def _unlike(value: Any, kind: tuple[type, ...], where: str) -> Iterator[str]:
    if not isinstance(value, kind) or isinstance(value, bool):
        yield f"{where} is {reprlib.repr(value)}, not {_KINDS[kind]}"
