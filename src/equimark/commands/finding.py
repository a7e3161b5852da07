"""Commands that find landmarks: without labels, by points of one image, from few labels, in a browser."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equimark import app, evaluation, formats, plots, prediction
from equimark.commands.labels import image_files, read_training_labels
from equimark.commands.showing import mention, write_figure
from equimark.config import ConfigError
from equimark.discovery import discover
from equimark.images import ImageError, decode, open_images
from equimark.landmarks import LandmarkError, match_images, match_names
from equimark.model import Head, LandmarkModel
from equimark.packs import PackedImages, is_pack
from equimark.prediction import Prediction
from equimark.regression import LinearRegressor, contributions

_MOST_TO_DISCOVER = 200  # images


def run_detect(arguments: Namespace) -> None:
    """Landmarks of every image: of a sparse run, of a head, or discovered."""
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


def _discover(arguments: Namespace, model: LandmarkModel) -> Head:
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


def run_match(arguments: Namespace) -> None:
    """Where the points of one image lie on others."""
    formats.check_writable(arguments.out)
    model = _load_model(arguments)
    source = _read_image(arguments.source)
    points = _parse_points(arguments.points, arguments.source)
    _check_inside(points, source)
    found = prediction.match_all(model, source, points, arguments.targets, progress=not arguments.quiet)
    _write_prediction(found, arguments.out)
    if arguments.plot:
        _plot_matches(arguments, source, points, found)


def run_fit(arguments: Namespace) -> None:
    """A head from few labels."""
    model = _load_model(arguments)
    table = read_training_labels(arguments.landmarks, arguments.images)
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


def run_app(arguments: Namespace) -> None:
    """The web page, until it is stopped."""
    app.serve(
        _load_model(arguments),
        arguments.run,
        arguments.images,
        port=arguments.port,
        table=formats.read(arguments.landmarks, images=image_files(arguments.images)) if arguments.landmarks else None,
        work=arguments.work,
        browser=arguments.browser,
    )


def _load_model(arguments: Namespace, frame: str | None = "as given") -> LandmarkModel:
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
    mention(notes)
    for item in found.unreadable:
        print(f"equimark: left out {item.name}: {item.reason}", file=sys.stderr)


def _plot_matches(
    arguments: Namespace, source: NDArray[np.uint8], points: NDArray[np.float64], found: Prediction, most: int = 11
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
    write_figure(figure, arguments.plot)


def _plot_contributions(head: Head, frame: Tensor, points: NDArray[np.float64], path: Path) -> None:
    """The contribution graph (2017, fig. 7) on one labelled frame (1, 3, S, S)."""
    if not isinstance(head.regressor, LinearRegressor):
        raise ConfigError("--plot draws what the landmarks of a sparse run contribute; this run has descriptors")
    model, weights = head.model, contributions(head.regressor.weights).numpy()
    sources = model.network.cells.to_pixels(model.landmarks_of(frame).positions)[0].double().numpy()
    picture = frame[0].movedim(0, -1).numpy()
    write_figure(plots.contribution_graph(picture, sources, points, weights), path)
