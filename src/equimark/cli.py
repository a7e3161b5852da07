"""The commands: parse, call, print. A failure is one line on standard error and exit code 1, wrong usage 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from . import (
    app,
    assessment,
    chains,
    checkpoint,
    demo,
    evaluation,
    flows,
    formats,
    plots,
    prediction,
    report,
    run,
    synthetic,
)
from .arguments import USUAL_KEYS, make_parser
from .benchmarks import BenchmarkError
from .chains import ChainError
from .checkpoint import CheckpointError
from .config import ConfigError, config_keys, load_recipe, make_config, nearest, recipe_names
from .discovery import discover
from .files import replace_file, write_text
from .geometry import Frame
from .images import ImageError, decode, open_images
from .landmarks import LandmarkError, LandmarkTable, match_images, match_names
from .metrics import MetricError
from .model import Head, LandmarkModel, ModelError
from .packs import PackedImages, is_pack, pack
from .prediction import Prediction
from .records import RecordError
from .regression import LinearRegressor, contributions
from .reproduce import cpu_hours, reproduce, table_of
from .training import TrainingError
from .virtual_points import VirtualPointSpec
from .workshop import Workshop

Failure = (
    *(app.AppError, BenchmarkError, CheckpointError, ImageError, LandmarkError, MetricError, ModelError, RecordError),
    *(TrainingError, OSError),
)
_Arguments = argparse.Namespace
_MOST_TO_DISCOVER = 200  # images


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    torch.set_flush_denormal(True)  # must precede the first parallel operation of the process
    parser, commands = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    command = commands[arguments.command]
    try:
        if arguments.command == "train":
            arguments.settings = _settings(rest)
        else:
            _refuse(rest, command)
        _ACTIONS[arguments.command](arguments)
    except (ConfigError, ChainError) as error:
        return _complain(error, 2)
    except Failure as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 1)
    return 0


def _complain(error: object, code: int) -> int:
    print(f"equimark: {' '.join(str(error).split())}", file=sys.stderr)
    return code


def _refuse(rest: Sequence[str], command: argparse.ArgumentParser) -> None:
    if rest:
        options = [option for action in command._actions for option in action.option_strings]
        raise ConfigError(f"unknown argument {rest[0]!r}{nearest(rest[0], options)}; see {command.prog} --help")


def _settings(rest: Sequence[str]) -> dict[str, str]:
    """Configuration keys given as ``--key value`` or ``--key=value``."""
    settings: dict[str, str] = {}
    words = list(rest)
    while words:
        option, joined, value = words.pop(0).partition("=")
        if not option.startswith("--"):
            raise ConfigError(f"unexpected argument {option!r}; see equimark train --help")
        if not joined:
            if not words or words[0].startswith("--"):
                known = ["overwrite", "resume", "quiet", *config_keys()]
                raise ConfigError(f"{option} needs a value{nearest(option[2:], known)}")
            value = words.pop(0)
        settings[option[2:].replace("-", "_")] = value
    return settings


# ---- the commands -------------------------------------------------------------------------------------------


def _demo(arguments: _Arguments) -> None:
    made = demo.run_demo(arguments.out, seed=arguments.seed, device=arguments.device, progress=not arguments.quiet)
    path = demo.write_report(made, arguments.out)
    _print_table("learned without labels, measured on people not seen", demo.COLUMNS, demo.rows(made.results))
    print(f"report: {path}")


def _pack(arguments: _Arguments) -> None:
    try:
        frame = Frame(arguments.size, arguments.frame, arguments.pad, arguments.fill)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    packed = pack(arguments.images, arguments.out, frame, progress=not arguments.quiet, overwrite=arguments.overwrite)
    unreadable = len((arguments.out / "unreadable.csv").read_text(encoding="utf-8").splitlines()) - 1
    note = f"; {unreadable} could not be read, see {arguments.out / 'unreadable.csv'}" if unreadable else ""
    print(f"packed {len(packed)} images of {frame.size} x {frame.size} into {arguments.out}{note}")
    _mention_small(packed, frame.size)


def _train(arguments: _Arguments) -> None:
    given = {key: getattr(arguments, key) for key in USUAL_KEYS}
    settings = {key: value for key, value in given.items() if value is not None} | arguments.settings
    if arguments.frame:
        settings["frame.fit"] = arguments.frame
    made = run.train(
        arguments.images,
        arguments.out,
        recipe=arguments.recipe,
        method=arguments.method,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        start_from=arguments.start_from,
        labels=_read_training_labels(arguments.landmarks, _files(arguments.images)) if arguments.landmarks else None,
        parts=arguments.parts,
        device=arguments.device,
        tracker=arguments.tracker,
        progress=not arguments.quiet,
        **settings,
    )
    last = checkpoint.read_log(made.folder)[-1]
    terms = ", ".join(f"{k} {v:.4g}" for k, v in last.items() if k not in ("step", "pairs_per_second", "lr"))
    print(f"trained {made.folder} for {last['step']} steps: {terms}")
    for warning in made.warnings:
        print(f"equimark: {warning}", file=sys.stderr)
    images, config = made.images(), made.model.config
    if images is not None:
        _mention_small(images, config.pairs.crop_size(config.frame.size))
    print(f"report: {report.write_run_report(made.folder, images)}")


def _recipes(arguments: _Arguments) -> None:
    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        config = make_config(recipe.settings)
        network = f"{config.network.name}, {config.network.channels}"
        rows.append([name, config.method, network, recipe.about["data"], recipe.about["expected"]])
    _print_table("recipes", ["name", "method", "network", "data of the paper", "expected there"], rows)


def _detect(arguments: _Arguments) -> None:
    formats.check_writable(arguments.out)
    if not 0 <= arguments.min_confidence <= 1:
        raise ConfigError(f"--min-confidence must lie between 0 and 1, got {arguments.min_confidence:g}")
    model = _load_model(arguments)
    if arguments.discover is not None:
        detector: LandmarkModel | Head = _discover(arguments, model)
    else:
        detector = Head.load(arguments.head, model) if arguments.head else model
    found = prediction.detect_all(detector, arguments.images, progress=not arguments.quiet)
    _write_prediction(found.without_doubtful(arguments.min_confidence), arguments.out)


def _discover(arguments: _Arguments, model: LandmarkModel) -> Head:
    if arguments.head and (arguments.head / "head.yaml").exists():
        raise ConfigError(
            f"{arguments.head} holds a head already: leave out --discover to use it, or name a new folder"
        )
    if is_pack(arguments.images):
        packed = PackedImages.open(arguments.images)
    else:
        packed = PackedImages.read(arguments.images, model.frame, _MOST_TO_DISCOVER)
    frames = torch.from_numpy(np.array(packed.images[:_MOST_TO_DISCOVER])).movedim(-1, 1)
    head = discover(model, frames, arguments.discover, seed=arguments.seed)
    if arguments.head:
        head.save(arguments.head)
        print(f"{arguments.discover} landmarks discovered on {len(frames)} images: {arguments.head}")
    return head


def _match(arguments: _Arguments) -> None:
    formats.check_writable(arguments.out)
    model = _load_model(arguments)
    source = _read_image(arguments.source)
    points = _parse_points(arguments.points, arguments.source)
    _check_inside(points, source)
    found = prediction.match_all(model, source, points, arguments.targets, progress=not arguments.quiet)
    _write_prediction(found, arguments.out)
    if arguments.plot:
        _plot_matches(arguments, source, points, found)


def _fit(arguments: _Arguments) -> None:
    model = _load_model(arguments)
    table = _read_training_labels(arguments.landmarks, arguments.images)
    if arguments.labels is not None:
        table = table.select(evaluation.draw_labels(np.all(table.visible, 1), arguments.labels, arguments.seed))
    beside = arguments.landmarks if arguments.landmarks.is_dir() else arguments.landmarks.parent
    images = arguments.images or beside
    data = evaluation.load_annotated(table, images, model.frame)
    head = model.fit_frames(data.frames, data.points, table.names, seed=arguments.seed)
    head.save(arguments.out)
    if arguments.plot:
        _plot_contributions(head, data.frames[:1], data.points[0], arguments.plot)
    print(f"fitted {table.points.shape[1]} landmarks from {len(table)} labelled images: {arguments.out}")
    if arguments.suggest:
        quiet, count = arguments.quiet, arguments.suggest
        for name in prediction.suggest_images(head, images, table.images, count, progress=not quiet):
            print(f"label next: {name}")


def _evaluate(arguments: _Arguments) -> None:
    if arguments.out and arguments.out.is_dir():
        raise ConfigError(f"--out {arguments.out} is a folder; give the name of a file")
    taken = ("root", "split", "seed", "device", *_TAKEN_BY_PROTOCOL[arguments.protocol])
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
        write_text(arguments.out, results.to_json())
    _print_table(*results.table())


_TAKEN_BY_PROTOCOL = {
    "matching": ("frame", "variant", "pairs"),
    "landmarks": ("frame", "regressor", "scale", "predictions"),
    "segmentation": ("parts", "transfer", "epochs"),
}


def _virtual_points(arguments: _Arguments) -> VirtualPointSpec:
    given = {"points": arguments.points, "epochs": arguments.epochs, "shared": arguments.shared or None}
    try:
        return VirtualPointSpec(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _reproduce(arguments: _Arguments) -> None:
    if arguments.list:
        _list_chains()
        return
    if arguments.name is None or arguments.root is None:
        raise ConfigError("reproduce wants a NAME (--list names all) and --root, the folder of the data sets")
    chain = chains.load(arguments.name)
    out = arguments.out / "quick" if arguments.quick else arguments.out
    workshop = Workshop(
        arguments.root, out, arguments.quick, arguments.seed, arguments.device, progress=not arguments.quiet
    )
    values = reproduce(chain, workshop)
    if values:
        _print_table(chain.title, *table_of(chain, values))
        print(f"table: {out / chain.name}.md, .json")
    if chain.figure:
        print(f"picture: {out / chain.name}.png")
    print(f"{chain.paper}. {chain.note}".strip())


def _list_chains() -> None:
    for chain in map(chains.load, chains.names()):
        print(f"{chain.name}: {chain.title}")
        data, hours = ", ".join(chain.data), f"{cpu_hours(chain):,.0f}"
        print(f"    {data}; {len(chain.runs)} trainings, some {hours} hours on two cores")


def _report(arguments: _Arguments) -> None:
    images = run.Run(arguments.run).images(arguments.images)
    print(f"report: {report.write_run_report(arguments.run, images)}")


def _app(arguments: _Arguments) -> None:
    app.serve(
        _load_model(arguments),
        arguments.run,
        arguments.images,
        port=arguments.port,
        table=formats.read(arguments.landmarks, images=_files(arguments.images)) if arguments.landmarks else None,
        work=arguments.work,
        browser=arguments.browser,
    )


def _info(arguments: _Arguments) -> None:
    kept = checkpoint.load(arguments.run)
    last = (checkpoint.read_log(arguments.run) or [{}])[-1]
    rows = [
        ["method", kept.config.method],
        ["network", f"{kept.config.network.name}, {kept.config.network.channels} channels"],
        ["images", f"{kept.data.count} from {kept.data.source}"],
        ["steps", f"{kept.step} of {kept.config.steps}, batches of {kept.config.batch_size}"],
        *([name, f"{value:.5g}"] for name, value in last.items() if name != "step"),
        *(["warning", warning] for warning in run.Run(arguments.run).warnings),
        ["versions", ", ".join(f"{name} {version}" for name, version in kept.versions.items())],
    ]
    _print_table(str(arguments.run), ["", ""], rows)


def _synthetic(arguments: _Arguments) -> None:
    out, count, seed = arguments.out, arguments.count, arguments.seed
    if arguments.kind == "portraits":
        people = synthetic.portraits(count, seed=seed)
        synthetic.write(out, people.images, people.landmarks)
        if arguments.parts:
            synthetic.write_parts(arguments.parts, people.parts)
        print(f"drew {count} images and landmarks.csv into {out}")
        return
    video = synthetic.arm(count, seed=seed, speed=arguments.speed)
    synthetic.write(out, video.images, video.landmarks)
    for frame in range(count - 1):
        flows.write(out / f"{frame:06d}{flows.SUFFIX}", video.displacement(frame, frame + 1))
    print(f"drew {count} frames, their flow and landmarks.csv into {out}")


def _convert(arguments: _Arguments) -> None:
    if not arguments.overwrite:
        formats.check_free(arguments.out, arguments.write_as)
    formats.check_writable(arguments.out, arguments.write_as)
    table, left_out = formats.read_noted(arguments.file, arguments.read_as, arguments.images)
    not_held = formats.write(table, arguments.out, arguments.write_as, arguments.images)
    print(f"{table.points.shape[1]} landmarks on {len(table)} images: {arguments.out}")
    _mention([f"{arguments.file}: {note}" for note in left_out] + [f"{arguments.out}: {note}" for note in not_held])


def _mention(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"equimark: {note}", file=sys.stderr)


def _mention_small(images: PackedImages, side: int) -> None:
    if small := images.smaller_than(side):
        print(
            f"equimark: {small} of {len(images)} images are smaller than {side} px and were enlarged", file=sys.stderr
        )


_ACTIONS: dict[str, Callable[[_Arguments], None]] = {
    "demo": _demo,
    "pack": _pack,
    "train": _train,
    "recipes": _recipes,
    "detect": _detect,
    "match": _match,
    "fit": _fit,
    "convert": _convert,
    "evaluate": _evaluate,
    "reproduce": _reproduce,
    "report": _report,
    "app": _app,
    "info": _info,
    "synthetic": _synthetic,
}


# ---- what they share ----------------------------------------------------------------------------------------


def _read_training_labels(path: Path, images: Path | None = None) -> LandmarkTable:
    """A landmark file; of one with splits, the part for training."""
    table = formats.read(path, images=images)
    return table.split("train") if table.splits and "train" in table.splits else table


def _files(images: Path | None) -> Path | None:
    """Where the image files are, unless they are packed."""
    return None if images is None or is_pack(images) else images


def _load_model(arguments: _Arguments, frame: str | None = "as given") -> LandmarkModel:
    model = LandmarkModel.load(arguments.run, device=arguments.device)
    return _framed(model, arguments.frame) if frame and arguments.frame else model


def _framed(model: LandmarkModel, fit: str) -> LandmarkModel:
    try:
        return model.with_frame(fit)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        return decode(path.read_bytes()).pixels
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None


def _parse_points(text: str, image: Path) -> NDArray[np.float64]:
    """Points (N, 2) from ``x,y x,y ...``, or the row of ``image`` in a landmark file."""
    try:
        numbers = [[float(x), float(y)] for x, y in (pair.split(",") for pair in text.split())]
    except ValueError:
        numbers = []
    if numbers:
        return np.array(numbers)
    try:
        is_file = Path(text).is_file()
    except OSError:  # many points are longer than a file name may be
        is_file = False
    if not is_file:
        raise ConfigError(f"--points wants 'x,y x,y ...' or a landmark file, got {text!r}")
    table = formats.read(text)
    try:
        (row,) = match_names([str(image)], table.images)
    except LandmarkError:
        raise LandmarkError(f"{text} has no row for {image.name}, or several") from None
    visible: NDArray[np.float64] = table.points[row][table.visible[row]]
    return visible


def _check_inside(points: NDArray[np.float64], image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    outside = ((points < -0.5) | (points > [width - 0.5, height - 0.5])).any(-1)
    if outside.any():
        x, y = points[outside.argmax()]
        raise LandmarkError(f"point {x:g},{y:g} lies outside the source image of {width} x {height} pixels")


def _write_prediction(found: Prediction, out: Path) -> None:
    notes = formats.write(found.table, out)
    print(f"{found.table.points.shape[1]} points on {len(found.table)} images: {out}")
    _mention(notes)
    for item in found.unreadable:
        print(f"equimark: left out {item.name}: {item.reason}", file=sys.stderr)


def _plot_matches(
    arguments: _Arguments, source: NDArray[np.uint8], points: NDArray[np.float64], found: Prediction, most: int = 11
) -> None:
    places = found.table.points[:most]
    if is_pack(arguments.targets):
        packed = PackedImages.open(arguments.targets)
        images = list(packed.images[:most])
        places = np.stack([packed.placement(i).to_frame(p) for i, p in enumerate(places)])
    else:
        targets = open_images(arguments.targets)
        rows = match_images(found.table, targets.names)[:most]
        images = [decode(targets.read(int(i))).pixels for i in rows]
    assert found.table.confidence is not None
    figure = plots.matches(source, points, images, places, found.table.confidence[:most])
    _write_figure(figure, arguments.plot)


def _plot_contributions(head: Head, frame: Tensor, points: NDArray[np.float64], path: Path) -> None:
    """The contribution graph (2017, fig. 7) on one labelled frame (1, 3, S, S)."""
    if not isinstance(head.regressor, LinearRegressor):
        raise ConfigError("--plot draws what the landmarks of a sparse run contribute; this run has descriptors")
    model, weights = head.model, contributions(head.regressor.weights).numpy()
    sources = model.network.cells.to_pixels(model.landmarks_of(frame).positions)[0].double().numpy()
    picture = frame[0].movedim(0, -1).numpy()
    _write_figure(plots.contribution_graph(picture, sources, points, weights), path)


def _write_figure(figure: Figure, path: Path) -> None:
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    print(f"picture: {path}")


def _print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left", show_header=any(columns))
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False).print(table)
