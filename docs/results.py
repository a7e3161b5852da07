"""The tables of results.md, from files in ``docs/results`` that ``equimark evaluate --out`` and benchmarks wrote.

    equimark evaluate matching runs/dve --data 300w/landmarks.csv --out docs/results/dve-300w.json
    python docs/results.py

What stands in results.md between ``<!-- table NAME -->`` and ``<!-- end -->`` is written anew; what each table shows
stands in ``docs/results/tables.yaml``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from equimark.config import ConfigError, nearest
from equimark.files import write_text
from equimark.results import Results, ResultsError, over_seeds
from equimark.tabulation import Row, tabulate

PAGE = Path(__file__).with_suffix(".md")
FOLDER = Path(__file__).with_suffix("")  # of results, and of TABLES
TABLES = "tables.yaml"

_KEYS = ("title", "metrics", "rows", "best", "digits")
_MEASURED_KEYS = ("title", "columns", "rows")
_ROW_KEYS = ("file", "files", "metric")
_MARK = re.compile(r"<!-- (?:table (?P<name>\S+)|end) -->")
_ABSOLUTE = re.compile(r"""(?:^|[\s"'=,;(])(?:~?/[^\s/]|[A-Za-z]:[\\/]|\\\\)""")


# ---- results -------------------------------------------------------------------------------------------------


def read_results(path: Path) -> Results:
    """Results that say how they were made, and nothing of where things lie on a machine.

    Raises:
        ResultsError: if they do not.
    """
    results = Results.read(path)
    absent = [what for what in ("command", "date", "hardware") if not results.made.get(what)]
    if absent or not results.trained:
        what = ", ".join(absent or ["what the run learned from"])
        raise ResultsError(f"{path} does not say {what}: measure again with equimark evaluate --out {path}")
    for text in _texts(json.loads(path.read_text(encoding="utf-8"))):
        if _ABSOLUTE.search(text):
            raise ResultsError(
                f"{path} names a place on a machine, {text!r}: measure again with equimark evaluate and relative paths"
            )
    return results


def _texts(content: Any) -> Iterator[str]:
    """All texts of a JSON value, names too."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for name, value in content.items():
            yield name
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


# ---- tables --------------------------------------------------------------------------------------------------


def read_tables(folder: Path) -> dict[str, str]:
    """The text of every table of ``tables.yaml``, by name; none if there is no such file.

    Raises:
        ConfigError: if it says what cannot be.
        ResultsError: if a file of results is missing, damaged, or does not say how it was made.
    """
    path = folder / TABLES
    if not path.exists():
        return {}
    try:
        tables = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tables, dict):
        raise ConfigError(f"{path} must hold a mapping of tables by their names")
    return {str(name): _table(f"{path}: table {name}", spec, folder) for name, spec in tables.items()}


def _table(where: str, spec: Any, folder: Path) -> str:
    if isinstance(spec, Mapping) and "columns" in spec:
        return _measured(where, spec, folder)
    _check_keys(where, spec, _KEYS)
    if not isinstance(spec.get("rows"), dict) or not spec["rows"]:
        raise ConfigError(f"{where}: rows must be a mapping of labels to files of results")
    if spec.get("best") not in (None, "low", "high"):
        raise ConfigError(f"{where}: best must be low or high, got {spec['best']!r}")
    metrics, digits = spec.get("metrics"), spec.get("digits", 2)
    if isinstance(metrics, str | list):
        metrics = [metrics] if isinstance(metrics, str) else [str(name) for name in metrics]
    elif isinstance(metrics, dict):
        metrics = {str(title): str(name) for title, name in metrics.items()}
    elif metrics is not None:
        raise ConfigError(f"{where}: metrics must be names, or names by labels, got {metrics!r}")
    if not isinstance(digits, int):
        raise ConfigError(f"{where}: digits must be a whole number, got {digits!r}")
    rows = [_row(f"{where}, row {label}", str(label), own, folder) for label, own in spec["rows"].items()]
    try:
        made = tabulate(rows, metrics, digits=digits, best=spec.get("best"))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return (f"{spec['title']}\n\n" if "title" in spec else "") + made.markdown()


def _measured(where: str, spec: Mapping[str, Any], folder: Path) -> str:
    """A table of what a benchmark has measured: numbers of JSON files, written as ``columns`` say."""
    _check_keys(where, spec, _MEASURED_KEYS)
    lines = [["", *map(str, spec["columns"])], ["---"] * (1 + len(spec["columns"]))]
    for label, own in spec["rows"].items():
        _check_keys(f"{where}, row {label}", own, ("file", "of", "columns"))
        found: Any = json.loads((folder / own["file"]).read_text(encoding="utf-8"))
        try:
            for name in own["of"].split("/"):
                found = found[name]
            written = spec["columns"] | own.get("columns", {})
            lines.append([str(label), *(text.format(**found) for text in written.values())])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}, row {label}: {own['file']} has no such number: {error!r}") from None
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return (f"{spec['title']}\n\n" if "title" in spec else "") + text


def _row(where: str, label: str, spec: Any, folder: Path) -> Row:
    own = spec if isinstance(spec, Mapping) else {"file": spec}
    _check_keys(where, own, _ROW_KEYS)
    files = own.get("files", {"": own.get("file")})
    if not isinstance(files, dict) or not files or not all(map(_are_names, files.values())):
        raise ConfigError(f"{where}: give a file, or files by the labels of their columns")
    metric = None if own.get("metric") is None else str(own["metric"])
    return Row(label, {str(group): _read_seeds(folder, names) for group, names in files.items()}, metric)


def _are_names(given: Any) -> bool:
    names = given if isinstance(given, list) else [given]
    return bool(names) and all(isinstance(name, str) for name in names)


def _read_seeds(folder: Path, names: str | list[str]) -> Results:
    """Of a file, or of several that differ in their seeds alone."""
    return over_seeds([read_results(folder / name) for name in ([names] if isinstance(names, str) else names)])


def _check_keys(where: str, spec: Any, known: tuple[str, ...]) -> None:
    if not isinstance(spec, Mapping):
        raise ConfigError(f"{where} must be a mapping with the keys {', '.join(known)}")
    for key in spec:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{nearest(str(key), known)}")


# ---- the page ------------------------------------------------------------------------------------------------


def rewrite(page: str, tables: Mapping[str, str]) -> str:
    """The page with its tables written anew.

    Raises:
        ConfigError: if a table is on the page alone or in ``tables`` alone, or marks do not come in pairs.
    """
    lines: list[str] = []
    shown: list[str] = []
    within = ""
    for line in page.removesuffix("\n").split("\n"):
        mark = _MARK.fullmatch(line.strip())
        if mark and bool(mark["name"]) == bool(within):
            what = f"table {within} does not end before" if within else "there is no table to end at"
            raise ConfigError(f"{what} {line.strip()}")
        if mark and mark["name"]:
            within = mark["name"]
            shown.append(within)
            if within not in tables:
                raise ConfigError(f"there is no table {within!r} in {TABLES}{nearest(within, tables)}")
            lines += [line, tables[within].rstrip("\n")]
        elif mark:
            within = ""
            lines.append(line)
        elif not within:
            lines.append(line)
    if within:
        raise ConfigError(f"table {within} does not end: put <!-- end --> below it")
    if left := [name for name in tables if name not in shown]:
        raise ConfigError(f"table {left[0]} of {TABLES} is not shown: put <!-- table {left[0]} --> and <!-- end -->")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the tables anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of results, with {TABLES}")
    arguments = parser.parse_args()
    try:
        tables = read_tables(arguments.results)
        write_text(arguments.page, rewrite(arguments.page.read_text(encoding="utf-8"), tables))
    except (ConfigError, ResultsError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {' '.join(str(error).split())}")
    print(f"{arguments.page}: {len(tables)} tables")


if __name__ == "__main__":
    main()
