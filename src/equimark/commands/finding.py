"""Commands that find landmarks: without labels, by points of one image, from few labels, in a browser."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equimark import app, bulk, checkpoint, evaluation, formats, overlay, plots, prediction, tracks
from equimark.commands.labels import image_files, load_to_fit, read_labels_to_fit
from equimark.commands.showing import keeping_earlier, mention, write_figure
from equimark.config import ConfigError
from equimark.discovery import discover
from equimark.head import ABOUT_FILE, HEAD_FILES, Head, HeadSpec, fit_head
from equimark.images import ImageError, decode, import_av, open_images
from equimark.landmarks import LandmarkError, LandmarkTable, match_images, match_names
from equimark.model import LandmarkModel
from equimark.packs import PackedImages, is_pack
from equimark.prediction import Matcher, Prediction
from equimark.regression import LinearRegressor, contributions
from equimark.symmetry import Symmetry, describe_swap, find_swaps, pairs_of_names, pairs_of_shapes

_MOST_TO_DISCOVER = 200  # images
_FEW = 10  # labelled images: with so many, mirror images may help
_MOST_NAMED = 10  # images that could not be read: a video that is cut short lacks thousands of frames


def run_detect(arguments: Namespace) -> None:
    """Landmarks of every image: of a sparse run, of a head, or discovered."""
    if arguments.min_confidence is not None and not 0 <= arguments.min_confidence <= 1:
        raise ConfigError(f"--min-confidence must lie between 0 and 1, got {arguments.min_confidence:g}")
    if arguments.part_size is not None and arguments.discover is not None:
        raise ConfigError("--part-size goes with landmarks that are known: --discover them into a --head first")
    _check_over_time(arguments)
    _check_out(arguments)
    model = _load_model(arguments)
    if arguments.head is None and arguments.discover is None:
        model.check_own_landmarks()
        if arguments.names:
            raise ConfigError("--names are kept in a head, of --head or --discover: make one with equimark fit")
    if arguments.discover is not None:
        detector: LandmarkModel | Head = _discover(arguments, model)
    else:
        detector = Head.load(arguments.head, model) if arguments.head else model
        if arguments.names:
            _name(detector, arguments.names).save(arguments.head)
    least = arguments.min_confidence
    if least is None:
        least = detector.visible_from if isinstance(detector, Head) else 0.0
    if arguments.part_size is not None:
        _detect_in_parts(arguments, detector, arguments.images, least)
        return
    found = prediction.detect_all(detector, arguments.images, progress=not arguments.quiet)
    _write_over_time(arguments, found.without_doubtful(least))


def _check_over_time(arguments: Namespace) -> None:
    if arguments.part_size is not None and (arguments.tracks or arguments.overlay or arguments.smooth is not None):
        raise ConfigError("--tracks, --overlay and --smooth take all frames at once: leave them out, or --part-size")
    if arguments.overlay is not None:
        if arguments.overlay.suffix.lower() not in overlay.CONTAINERS:
            raise ConfigError(f"--overlay writes {', '.join(overlay.CONTAINERS)}, not {arguments.overlay.name}")
        if is_pack(arguments.images):
            raise ConfigError("--overlay draws on the frames themselves: give the video or the folder, not the pack")
        import_av()
    if arguments.smooth is not None and arguments.smooth < tracks.LEAST_REACH:
        raise ConfigError(f"--smooth takes at least {tracks.LEAST_REACH} frames on each side, got {arguments.smooth}")
    if arguments.fps is not None and not 0 < arguments.fps < np.inf:
        raise ConfigError(f"--fps must be positive, got {arguments.fps:g}")


def _write_over_time(arguments: Namespace, found: Prediction) -> None:
    """Write the landmarks as --smooth leaves them, and what else is asked for."""
    if not (arguments.tracks or arguments.overlay) and arguments.smooth is None:
        _write_prediction(found, arguments.out)
        return
    followed = tracks.follow(found.table, arguments.images, arguments.fps)
    if arguments.smooth is not None:
        followed = followed.smoothed(arguments.smooth)
    _write_prediction(replace(found, table=followed.table), arguments.out)
    if arguments.tracks:
        followed.write(arguments.tracks)
        print(f"{len(found.table)} frames of {len(set(followed.videos))} videos over time: {arguments.tracks}")
        if np.isnan(followed.seconds).all():
            mention(["the time of these frames is not known, and so their speeds: say --fps, the frames per second"])
    if arguments.overlay:
        overlay.write_overlay(followed, arguments.images, arguments.overlay, progress=not arguments.quiet)
        print(f"points drawn: {arguments.overlay}")


def _check_out(arguments: Namespace) -> None:
    """Refuse what could not be written, and make ready for parts, before the model is loaded."""
    if arguments.part_size is None:
        formats.check_writable(arguments.out)
    elif arguments.part_size < 1:
        raise ConfigError(f"--part-size must be at least 1, got {arguments.part_size}")
    else:
        bulk.take_gpu()


def _detect_in_parts(
    arguments: Namespace, detector: LandmarkModel | Head | Matcher, images: str | Path, least: float = 0.0
) -> None:
    done = bulk.detect_in_parts(
        detector,
        images,
        arguments.out,
        part_size=arguments.part_size,
        min_confidence=least,
        progress=not arguments.quiet,
    )
    print(f"{done.landmarks} points on {done.images - done.unreadable} images: {done.count} parts in {done.folder}")
    if done.unreadable:
        mention([f"left out {done.unreadable} images that could not be read; the column 'reason' says why"])


def _discover(arguments: Namespace, model: LandmarkModel) -> Head:
    if arguments.head and (arguments.head / ABOUT_FILE).exists():
        raise ConfigError(
            f"{arguments.head} holds a head already: leave out --discover to use it, or name a new folder"
        )
    packed = PackedImages.read(arguments.images, model.frame, _MOST_TO_DISCOVER)
    frames = torch.from_numpy(np.array(packed.images[:_MOST_TO_DISCOVER])).movedim(-1, 1)
    head = discover(model, frames, arguments.discover, seed=arguments.seed)
    if arguments.names:
        head = _name(head, arguments.names)
    if arguments.head:
        head.save(arguments.head)
        print(f"{arguments.discover} landmarks discovered on {len(frames)} images: {arguments.head}")
    return head


def _name(detector: LandmarkModel | Head, given: str) -> Head:
    """A head whose landmarks have the names given."""
    assert isinstance(detector, Head)
    names = tuple(name.strip() for name in given.split(","))
    if len(names) != detector.regressor.landmarks or len(set(names)) != len(names) or not all(names):
        raise ConfigError(f"--names wants {detector.regressor.landmarks} different names, got {len(names)}: {given}")
    detector.names = names
    return detector


def run_match(arguments: Namespace) -> None:
    """Where the points of one image lie on others."""
    if arguments.part_size is not None and arguments.plot:
        raise ConfigError("--plot draws matches on few images: leave it out, or --part-size")
    _check_out(arguments)
    model = _load_model(arguments)
    source = _read_image(arguments.source)
    points = _parse_points(arguments.points, arguments.source)
    _check_inside(points, source)
    if arguments.part_size is not None:
        _detect_in_parts(arguments, Matcher(model, model.describe_points(source, points)), arguments.targets)
        return
    found = prediction.match_all(model, source, points, arguments.targets, progress=not arguments.quiet)
    _write_prediction(found, arguments.out)
    if arguments.plot:
        _plot_matches(arguments, source, points, found)


def run_fit(arguments: Namespace) -> None:
    """A head from few labels."""
    model = _load_model(arguments)
    table, source = read_labels_to_fit(arguments.landmarks, arguments.images)
    if arguments.labels is not None:
        table = table.select(evaluation.draw_labels(np.all(table.visible, 1), arguments.labels, arguments.seed))
    symmetry = _symmetry_of(arguments.symmetric, table)
    table, data = load_to_fit(arguments.landmarks, table, source, model.frame)
    spec = HeadSpec(symmetry, arguments.direction)
    head = fit_head(model, data.frames, data.points, table.names, spec, seed=arguments.seed)
    with keeping_earlier(*(arguments.out / name for name in HEAD_FILES)):
        head.save(arguments.out)
    if arguments.plot:
        _plot_contributions(head, data.frames[:1], data.points[0], arguments.plot)
    print(f"fitted {table.points.shape[1]} landmarks from {_images(len(table), 'labelled ')}: {arguments.out}")
    if len(table) == 1 and model.has_descriptors:
        mention(["from a single labelled image, confidence tells the surer from the less sure, but is no probability"])
    if symmetry is not None:
        print("mirror images " + ("were learned from as well" if head.mirrored else "did not help and were left out"))
    if head.turned:
        print("things lie in any direction: each image is looked at in all of them, which takes thirteen times as long")
    if arguments.suggest:
        print(f"looking for the {arguments.suggest} images whose labels would help most", flush=True)
        quiet, count = arguments.quiet, arguments.suggest
        for name in prediction.suggest_images(head, source.path, table.images, count, progress=not quiet):
            print(f"label next: {name}")


def _images(count: int, kind: str = "") -> str:
    return f"{count} {kind}image" + ("s" if count != 1 else "")


def _symmetry_of(declared: str | None, table: LandmarkTable) -> Symmetry | None:
    """The symmetry that is declared; says which pairs it has, and where labels seem to have them exchanged.

    If none is, though few labels show one, it says that.
    """
    if declared is None:
        if len(table) <= _FEW and (pairs_of_names(table.labels) or pairs_of_shapes(table.points)):
            print("these landmarks have a left and a right: with --symmetric auto, fewer labels may do")
        return None
    symmetry = Symmetry.parse(declared, table.labels, table.points)
    print("symmetric: " + ", ".join(f"{table.labels[a]} = {table.labels[b]}" for a, b in symmetry.pairs))
    swaps = find_swaps(table.points, symmetry)
    mention(describe_swap(swap, table.images[swap.row], table.labels) for swap in swaps)
    return symmetry


def run_app(arguments: Namespace) -> None:
    """The web page, until it is stopped."""
    checkpoint.check_here(arguments.work or arguments.run)
    app.serve(
        _load_model(arguments),
        arguments.run,
        arguments.images,
        port=arguments.port,
        table=formats.read(arguments.landmarks, images=image_files(arguments.images)) if arguments.landmarks else None,
        work=arguments.work,
        direction=arguments.direction,
        browser=arguments.browser,
    )


def _load_model(arguments: Namespace) -> LandmarkModel:
    model = LandmarkModel.load(arguments.run, device=arguments.device)
    return _framed(model, arguments.frame) if arguments.frame else model


def _framed(model: LandmarkModel, fit: str) -> LandmarkModel:
    try:
        return model.with_frame(fit)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _read_image(path: Path) -> NDArray[np.uint8]:
    if not path.is_file():
        what = f"{path} is a folder" if path.is_dir() else f"there is no image at {path}"
        raise ImageError(f"{what}; SOURCE is the image file whose points are to be found on others")
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
    with keeping_earlier(out):
        notes = formats.write(found.table, out)
    blank = int((~found.table.visible).sum())
    doubtful = f", {blank} of them left blank" if blank else ""
    print(f"{found.table.points.shape[1]} points on {_images(len(found.table))}{doubtful}: {out}")
    mention(notes)
    mention(f"left out {item.name}: {item.reason}" for item in found.unreadable[:_MOST_NAMED])
    if (more := len(found.unreadable) - _MOST_NAMED) > 0:
        mention([f"and {more} more: {_MOST_NAMED + more} images could not be read"])


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
        images = [targets.decoded(int(i)).pixels for i in rows]
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
