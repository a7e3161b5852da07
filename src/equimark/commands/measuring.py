"""Commands that measure runs and say what they are."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.markup import escape

from equimark import assessment, chains, checkpoint, plots, report, run, tabulation, timing
from equimark.commands.showing import mention, print_list, print_table, write_figure
from equimark.config import ConfigError
from equimark.embedding import choose_device
from equimark.files import write_text
from equimark.metrics import Reliability
from equimark.reproduce import hours_of, reproduce, table_of
from equimark.results import Results, names_of
from equimark.virtual_points import VirtualPointSpec
from equimark.workshop import Workshop


def run_evaluate(arguments: Namespace) -> None:
    """A protocol on a published set or on any landmark file."""
    _check_file(arguments.out)
    if arguments.plot and (arguments.protocol, arguments.regressor) != ("landmarks", "fit"):
        raise ConfigError("--plot draws how far confidence can be believed: evaluate landmarks with --regressor fit")
    _check_options(arguments)
    taken = ("root", "split", "seed", "device", *_OWN_OPTIONS[arguments.protocol])
    settings = {name: getattr(arguments, name) for name in taken} | {"progress": not arguments.quiet}
    if arguments.protocol == "matching":
        results = assessment.assess_matching(arguments.run, arguments.data, **settings)
    else:
        labels = assessment.parse_labels(arguments.labels) if arguments.labels else None
        settings |= {"labels": labels, "draws": arguments.seeds}
        if arguments.protocol == "segmentation":
            results = assessment.assess_segmentation(arguments.run, arguments.data, **settings)
        else:
            results = assessment.assess_landmarks(
                arguments.run, arguments.data, spec=_virtual_points(arguments), **settings
            )
    if arguments.out:
        write_text(arguments.out, results.made_by(arguments.words).to_json())
    print_table(*results.table())
    if arguments.out:
        print(f"results: {arguments.out}{_names_in_file(results)}")
    if arguments.plot:
        write_figure(_plot_reliability(results), arguments.plot)


def _check_options(arguments: Namespace) -> None:
    """Refuse options that the protocol does not know, lest a number be taken for what it is not."""
    protocol = arguments.protocol
    known = {*_OWN_OPTIONS[protocol], *_FURTHER_OPTIONS[protocol]}
    given = {word.partition("=")[0].removeprefix("--") for word in arguments.words if word.startswith("--")}
    others = {name for each in (_OWN_OPTIONS, _FURTHER_OPTIONS) for names in each.values() for name in names}
    if wrong := sorted(given & (others - known)):
        owners = [each for each in _OWN_OPTIONS if wrong[0] in (*_OWN_OPTIONS[each], *_FURTHER_OPTIONS[each])]
        raise ConfigError(f"--{wrong[0]} is for evaluate {' and '.join(owners)}, not for {protocol}: leave it out")


def _names_in_file(results: Results) -> str:
    """What is called otherwise there than in the table, for those who look for it, or give it to tabulate --metric."""
    names = [name for name in names_of(results.plain) if results.in_words(name) != name]
    return f", where errors in % are called {' and '.join(names)}" if names else ""


def _check_file(out: Path | None) -> None:
    if out and out.is_dir():
        raise ConfigError(f"--out {out} is a folder; give the name of a file")


def _plot_reliability(results: Results) -> Figure:
    """A panel for each number of labels.

    Raises:
        ConfigError: if the results say nothing of confidence.
    """
    kept = results.details.get("reliability")
    if not kept:
        raise ConfigError("--plot: these landmarks have no confidence that is a probability; only those of descriptors")
    found = {}
    for name, own in kept.items():
        arrays = {what: np.array(values, np.float64) for what, values in own.items()}
        found[f"{name.removeprefix('labels_')} labels"] = Reliability(
            arrays["confidence"], arrays["correct"], arrays["count"].astype(np.int64)
        )
    return plots.reliability(found)


_OWN_OPTIONS = {  # as the protocol's function takes them
    "matching": ("frame", "variant", "pairs"),
    "landmarks": ("frame", "regressor", "symmetric", "direction", "suggested", "scale", "predictions"),
    "segmentation": ("parts", "transfer", "epochs"),
}
_FURTHER_OPTIONS = {
    "matching": (),
    "landmarks": ("labels", "seeds", "points", "epochs", "shared", "plot"),
    "segmentation": ("labels", "seeds"),
}


def _virtual_points(arguments: Namespace) -> VirtualPointSpec:
    given = {"points": arguments.points, "epochs": arguments.epochs, "shared": arguments.shared or None}
    try:
        return VirtualPointSpec(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise ConfigError(str(error)) from None


def run_tabulate(arguments: Namespace) -> None:
    """A table of results, and how each was made."""
    _check_file(arguments.out)
    write = tabulation.writer_of(arguments.out) if arguments.out else None
    results, labels = [Results.read(path) for path in arguments.results], tabulation.labels_of(arguments.results)
    if arguments.over_seeds:
        rows = tabulation.rows_over_seeds(labels, results)
    else:
        rows = [tabulation.Row(label, {"": own}) for label, own in zip(labels, results, strict=True)]
    if arguments.names:
        rows = _name(rows, arguments.names.split(","))
    table = tabulation.tabulate(rows, arguments.metric, digits=arguments.digits, best=arguments.best)
    if write:
        write_text(arguments.out, write(table))
    print_table("", [table.corner, *table.columns], table.texts("[bold]{}[/bold]".format, escape))
    for line in table.notes():
        print(line)
    if arguments.out:
        print(f"table: {arguments.out}")


def _name(rows: list[tabulation.Row], names: list[str]) -> list[tabulation.Row]:
    if len(names) != len(rows):
        raise ConfigError(f"--names gives {len(names)} names, there are {len(rows)} rows of results")
    return [replace(row, label=name.strip()) for name, row in zip(names, rows, strict=True)]


def run_reproduce(arguments: Namespace) -> None:
    """A table or figure of the papers."""
    if arguments.list:
        _list_chains()
        return
    if arguments.name is None or arguments.root is None:
        raise ConfigError("reproduce wants a NAME (--list names all) and --root, the folder of the data sets")
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {arguments.seeds}")
    chain = chains.load(arguments.name)
    out = arguments.out
    for kind in ("as_printed", "quick"):
        out = out / kind.replace("_", "-") if getattr(arguments, kind) else out
    workshop = Workshop(
        arguments.root,
        out,
        arguments.quick,
        arguments.seed,
        arguments.device,
        progress=not arguments.quiet,
        command=tuple(arguments.words),
        as_printed=arguments.as_printed,
    )
    values = reproduce(chain, workshop, arguments.seeds)
    if values:
        print_table(chain.title, *table_of(chain, values))
        print(f"table: {out / chain.name}.md, .json, .csv, .tex")
    if chain.figure:
        print(f"picture: {out / chain.name}.png")
    print(f"{chain.paper}. {chain.note}".strip())


def _list_chains() -> None:
    entries = []
    for chain in map(chains.load, chains.names()):
        hours = hours_of(chain)
        trainings = f"{len(chain.runs)} training{'s' if len(chain.runs) != 1 else ''}"
        cost = (
            f"{', '.join(chain.data)}; {trainings}, some {hours.cpu:,.0f} hours on two cores, {hours.gpu:.2g} on a GPU"
        )
        entries.append((chain.name, [chain.title, cost]))
    print_list(entries)


def run_benchmark(arguments: Namespace) -> None:
    """What training and inference cost in time and memory, and what became slower since an earlier measurement."""
    _check_file(arguments.out)
    plan = _plan(arguments)
    before = timing.read(arguments.against) if arguments.against else None
    measured = timing.run(plan, progress=not arguments.quiet)
    if arguments.out:
        write_text(arguments.out, json.dumps(measured, indent=2) + "\n")
    where = measured["hardware"]
    title = f"{where['gpu'] or where['processor']}, {where['threads']} threads, precision {plan.precision}"
    print_table(title, timing.COLUMNS, timing.rows(measured))
    mention(timing.differing_losses(measured))
    if before is not None:
        _compare(before, measured, arguments)


def _plan(arguments: Namespace) -> timing.Plan:
    device = choose_device(arguments.device).type
    return timing.Plan(
        stages=tuple(arguments.stages.split(",")) if arguments.stages else tuple(timing.STAGES),
        scale=timing.choose_scale(
            device, batch_size=arguments.batch_size, files=arguments.files, file_side=arguments.file_side
        ),
        device=device,
        precision=arguments.precision,
        repeats=arguments.repeats,
    )


def _compare(before: dict[str, Any], measured: dict[str, Any], arguments: Namespace) -> None:
    if reason := timing.obstacle(before, measured):
        mention([f"not compared with {arguments.against}: {reason}"])
        return
    changes = timing.compare(before, measured)
    print_table(f"against {arguments.against}", timing.CHANGE_COLUMNS, timing.change_rows(changes))
    slower = [change.what for change in changes if change.verdict == "slower"]
    if slower and arguments.fail_slower:
        raise timing.TimingError(f"slower than {arguments.against}: {'; '.join(slower)}")


def run_report(arguments: Namespace) -> None:
    """The report of a run."""
    checkpoint.check_here(arguments.run)
    images = run.Run(arguments.run).images(arguments.images)
    print(f"report: {report.write_run_report(arguments.run, images)}")


def run_info(arguments: Namespace) -> None:
    """What a run is."""
    kept = checkpoint.load(arguments.run)
    last = (checkpoint.read_log(arguments.run) or [{}])[-1]
    rows = [
        ["method", kept.config.method],
        ["network", str(kept.config.network)],
        ["images", f"{kept.data.count} from {kept.data.source}"],
        ["steps", f"{kept.step} of {kept.config.steps}, batches of {kept.config.batch_size}"],
        *([name, f"{value:.5g}"] for name, value in last.items() if name != "step"),
        *(["warning", warning] for warning in run.Run(arguments.run).warnings),
        ["versions", ", ".join(f"{name} {version}" for name, version in kept.versions.items())],
    ]
    print_table(str(arguments.run), ["", ""], rows)
