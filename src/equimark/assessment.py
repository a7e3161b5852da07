"""What ``equimark evaluate`` does: a run and the name of a data set in, the results of a protocol out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from . import checkpoint, protocols, provenance, retraining
from .annotated import Part, open_data, open_parts
from .config import ConfigError
from .directions import Direction
from .embedding import ModelError, choose_device
from .evaluation import AnnotatedFrames, MatchingVariant, check_matching, evaluate_matching
from .head import PAIRS, HeadSpec
from .metrics import BOX, PUPILS, Scale
from .model import LandmarkModel
from .protocols import Draw, Entry, Predict, Regression
from .records import Record, fingerprint
from .results import Results
from .retraining import Transfer
from .symmetry import Symmetry
from .virtual_points import VirtualPointSpec

Method = Literal["virtual", "linear", "fit", "as_trained", "trained_anew"]  # the last two are for supervised runs


def _load(run: str | Path, device: str) -> tuple[LandmarkModel, dict[str, Any]]:
    """A run, and what it has learned from."""
    kept = checkpoint.load(Path(run))
    model = LandmarkModel(kept.network, kept.config, device=choose_device(device))
    return model, provenance.training_of(kept)


# ---- matching ------------------------------------------------------------------------------------------------


def assess_matching(
    run: str | Path,
    data: str | Path,
    *,
    root: Path | None = None,
    split: str | None = None,
    frame: str | None = None,
    variant: MatchingVariant = "cells",
    pairs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> Results:
    """The matching protocol (DVE table 1): see :func:`equimark.evaluation.evaluate_matching`.

    Args:
        run: with descriptors.
        data: name of a published set, or a landmark file.
        root: folder of the set, or of the file's images; default: beside the file.
        split: to test on; default: ``test``, or the only one.
        frame: how images are framed, instead of as the run or the set has it: see :meth:`equimark.annotated.Part.load`.
        variant: ``cells`` or ``upsampled``.
        pairs: so many pairs, drawn by the seed; all if absent.
        seed: of the warps and the choice of pairs.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: show progress bars.
    """
    model, trained = _load(run, device)
    check_matching(model)
    part = open_data(str(data), root).test(split)
    test = part.load(model.frame, frame, progress=progress)
    found = evaluate_matching(model, test, variant=variant, seed=seed, pairs=pairs, progress=progress)
    return Results(
        protocol=f"matching, {variant}",
        run=str(run),
        data=str(data),
        images=len(test),
        metrics=found.metrics(),
        seed=seed,
        settings={"test": part.name, "frame": frame, "pairs": len(found.same_identity)},
        details={"by_point": {name: protocols.plain(values) for name, values in found.by_point().items()}},
        made=provenance.made_now(model.device),
        trained=trained,
    )


# ---- landmarks -----------------------------------------------------------------------------------------------


def assess_landmarks(
    run: str | Path,
    data: str | Path,
    *,
    root: Path | None = None,
    split: str | None = None,
    frame: str | None = None,
    labels: Sequence[int | None] | None = None,
    draws: int = 3,
    regressor: Regression | None = None,
    spec: VirtualPointSpec | None = None,
    pairs: int = PAIRS,
    symmetric: str | None = None,
    direction: Direction = "auto",
    suggested: bool = False,
    scale: str | None = None,
    predictions: Path | None = None,
    learn_from: tuple[str, Path] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> Results:
    """Landmarks from all labels or few (DVE tables 2-3, fig. 5; 2017 tables 2-4, S2), by a run of any kind.

    A run with descriptors or sparse landmarks is kept frozen, and annotated landmarks are fitted to it. A supervised
    run is measured as it is; with ``labels``, its configuration is trained anew on each draw of them.

    Args:
        run: of any kind but segmentation.
        data: see :func:`assess_matching`.
        root: see :func:`assess_matching`.
        split: see :func:`assess_matching`.
        frame: see :func:`assess_matching`.
        labels: numbers of labelled images, None for all of them; all if absent.
        draws: of each number but all, which is drawn once.
        regressor: see :func:`equimark.protocols.predictor`; default: ``virtual`` for descriptors, ``fit`` for sparse
            landmarks.
        spec: of the virtual points.
        pairs: of warped views that a regression from a run's own landmarks is fitted to, at least.
        symmetric: landmarks that change places in a mirror: see :meth:`equimark.symmetry.Symmetry.parse`.
        direction: in which things lie in the images: see :class:`equimark.head.HeadSpec`.
        suggested: label what is suggested, not what is drawn: see :func:`equimark.protocols.suggest_draws`.
        scale: see :func:`parse_scale`.
        learn_from: another published set and its folder, whose ``train`` is learned from instead.
        predictions: file to keep predictions in, and to take those from that are there.
        seed: of the first draw.
        device: see :func:`assess_matching`.
        progress: show progress bars.
    """
    model, trained = _load(run, device)
    method = _choose_method(model, regressor, labels)
    found = open_data(str(data), root)
    other = open_data(*learn_from) if learn_from else None
    parts = (other.test("train"), found.test(split)) if other else found.train_and_test(split, seed=seed)
    unit = parse_scale(scale, found.eyes, parts[1].table.points.shape[1])
    fitting = HeadSpec(_symmetry(symmetric, method, parts[0]), _direction(direction, method), pairs)
    _check_suggested(suggested, method)
    planned = _plan(parts[0], method, labels, draws, seed)
    train, test = (part.load(model.frame, frame, progress=progress) for part in parts)
    task = _Task(model, train, test, method, spec or VirtualPointSpec(), fitting, suggested)
    record = Record(task.identity(), predictions)
    if suggested:
        planned = protocols.suggest_draws(model, train, planned, fitting, progress=progress)
    _predict(task, planned, record, device, progress)
    return Results(
        protocol=f"landmarks, {method.replace('_', ' ')}",
        run=str(run),
        data=str(data),
        images=len(test),
        metrics=_score(task, planned, record, unit) | _score_discovered(task, unit, progress),
        seed=seed,
        settings=_describe(parts) | {"scale": scale or unit.name, "frame": frame, "draws": draws} | task.settings(),
        details=_look_closer(task, planned, record, unit),
        made=provenance.made_now(model.device),
        trained=trained,
    )


@dataclass(frozen=True, eq=False)
class _Task:
    """A run, images to learn annotated landmarks from, others to predict them on, and how it is done."""

    model: LandmarkModel
    train: AnnotatedFrames
    test: AnnotatedFrames
    method: Method
    spec: VirtualPointSpec
    fitting: HeadSpec
    suggested: bool

    def settings(self) -> dict[str, Any]:
        """All that change what is predicted."""
        settings: dict[str, Any] = {"regressor": self.method}
        if self.method == "virtual":
            settings |= asdict(self.spec)
        elif self.method == "linear" or self.model.is_sparse:
            settings["pairs"] = self.fitting.pairs
        elif self.method == "fit":
            settings["direction"] = self.fitting.direction
        if self.fitting.symmetry is not None:
            settings["symmetric"] = self.fitting.symmetry.pairs
        if self.suggested:
            settings["suggested"] = True
        return settings

    def identity(self) -> dict[str, str]:
        """What predictions are of: the weights, the images and labels, and the settings."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, part in (("train", self.train), ("test", self.test)):
            arrays |= {f"{name} frames": part.frames.numpy(), f"{name} points": part.points}
        weights = {name: value.detach().cpu().numpy() for name, value in self.model.network.state_dict().items()}
        about = {"run": fingerprint(weights), "data": fingerprint(arrays), "margin": self.model.config.pairs.margin}
        return {name: str(value) for name, value in (about | self.settings()).items()}


def _plan(train: Part, method: Method, labels: Sequence[int | None] | None, draws: int, seed: int) -> list[Draw]:
    if method == "as_trained":
        return [Draw(method, seed, np.arange(len(train)))]
    return protocols.plan_draws(np.all(train.table.visible, 1), labels or (None,), draws=draws, seed=seed)


def _symmetry(text: str | None, method: Method, train: Part) -> Symmetry | None:
    if text is None:
        return None
    if method != "fit":
        raise ConfigError("--symmetric: only what equimark fit learns knows of mirror images; add --regressor fit")
    return Symmetry.parse(text, train.table.labels, train.table.points)


def _direction(wanted: Direction, method: Method) -> Direction:
    if wanted != "auto" and method != "fit":
        raise ConfigError("--direction: only what equimark fit learns looks in several; add --regressor fit")
    return wanted


def _check_suggested(suggested: bool, method: Method) -> None:
    if suggested and method != "fit":
        raise ConfigError("--suggested: what equimark fit learns suggests images to label; add --regressor fit")


def parse_labels(text: str) -> list[int | None]:
    """Numbers of labels from ``1,5,10,all``: None for all of them.

    Raises:
        ConfigError: if it is not a list of numbers.
    """
    try:
        return [None if part.strip() == "all" else int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--labels wants numbers of images, or all, as 1,5,10,all; got {text!r}") from None


def _choose_method(model: LandmarkModel, wanted: Regression | None, labels: Sequence[int | None] | None) -> Method:
    kind = model.config.method
    if kind == "segmentation":
        raise ModelError("a segmentation run finds parts, not landmarks: use equimark evaluate segmentation")
    if kind == "supervised":
        if wanted is not None:
            raise ConfigError("a supervised run finds its landmarks by itself: leave out --regressor")
        return "as_trained" if labels is None else "trained_anew"
    return wanted or ("virtual" if model.has_descriptors else "fit")


def parse_scale(text: str | None, eyes: tuple[int, int] | None, landmarks: int) -> Scale:
    """The length by which errors are divided.

    Args:
        text: ``eyes``, ``pupils`` (of 68 landmarks), ``box`` or two landmarks ``I,J``, counted from 0. If absent, the
            eyes, where they are known, or else the box.
        eyes: the two landmarks, if they are known.
        landmarks: how many there are.

    Raises:
        ConfigError: if it is none of these, or the landmarks are not there.
    """
    if text == "pupils" and landmarks != 68:
        raise ConfigError(f"--scale pupils is for the 68 landmarks of 300-W, these are {landmarks}: give two, I,J")
    if text == "eyes" and eyes is None:
        raise ConfigError("--scale eyes: which landmarks are the eyes is not known here; give two, I,J, or use box")
    if text in ("pupils", "box"):
        return PUPILS if text == "pupils" else BOX
    if text in ("eyes", None):
        return Scale.between(*eyes) if eyes else BOX
    try:
        first, second = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--scale must be eyes, pupils, box or two landmarks I,J; got {text!r}") from None
    if not (0 <= first < landmarks and 0 <= second < landmarks and first != second):
        raise ConfigError(f"--scale {text} wants two of the landmarks 0 to {landmarks - 1}")
    return Scale.between(first, second)


def _predict(task: _Task, planned: Sequence[Draw], record: Record, device: str, progress: bool) -> None:
    """Fill the record with what it lacks of the draws."""
    missing = [draw for draw in planned if protocols.record_name(draw) not in record]
    if missing:
        with _predictor(task, device, progress) as predict:
            protocols.predict_draws(predict, missing, record, progress=progress)


@contextmanager
def _predictor(task: _Task, device: str, progress: bool) -> Iterator[Predict]:
    model, method, data = task.model, task.method, (task.train, task.test)
    if method == "as_trained":
        own, wanted = model.config.network.channels, task.test.points.shape[1]
        if own != wanted:
            raise ModelError(f"the run was trained for {own} landmarks, the data has {wanted}")
        yield lambda draw: protocols.found_landmarks(model, task.test.frames, progress=progress)
    elif method == "trained_anew":
        yield partial(retraining.predict_supervised, model.config, *data, device=device, progress=progress)
    else:
        with protocols.predictor(model, *data, method, task.spec, fitting=task.fitting, progress=progress) as predict:
            yield predict


def _score(task: _Task, planned: Sequence[Draw], record: Record, scale: Scale) -> dict[str, float | Entry]:
    side = task.model.config.pairs.crop_size(task.model.frame.size)
    labels, stride = (task.train.points, task.test.points), task.model.network.cells.stride
    return _with_largest(protocols.score_draws(record, planned, *labels, scale, view_side=side, stride=stride), planned)


def _score_discovered(task: _Task, scale: Scale, progress: bool) -> Entry:
    """What a run's own landmarks are worth; nothing for runs without."""
    model, train, test = task.model, task.train, task.test
    if not model.config.landmarks:
        return {}
    learned, unseen = (protocols.found_landmarks(model, data.frames, progress=progress) for data in (train, test))
    return protocols.score_discovery((learned, train.points), (unseen, test.points), scale, frame_side=model.frame.size)


def _look_closer(task: _Task, planned: Sequence[Draw], record: Record, scale: Scale) -> dict[str, Any]:
    """The error of each landmark; and how far confidence can be believed, in bins, where there is one."""
    stride = task.model.network.cells.stride
    believed = protocols.measure_reliability(record, planned, task.train.points, task.test.points, stride=stride)
    bins = {
        name: {what: protocols.plain(np.asarray(values, np.float64)) for what, values in vars(own).items()}
        for name, own in believed.items()
    }
    by_point = protocols.score_points(record, planned, task.test.points, scale)
    return {"by_point": by_point} | ({"reliability": bins} if bins else {})


# ---- segmentation --------------------------------------------------------------------------------------------


def assess_segmentation(
    run: str | Path,
    data: str | Path,
    *,
    root: Path | None = None,
    parts: Path | None = None,
    split: str | None = None,
    labels: Sequence[int | None] | None = None,
    draws: int = 3,
    transfer: Transfer = "pretrained",
    epochs: int | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> Results:
    """Segmentation into parts (2017, supplement, section 5).

    A segmentation run is measured as it is. From any other, a segmentation is trained on each draw of labelled
    images, and measured after every epoch.

    Args:
        run: of segmentation, or one without labels whose network is SmallNet.
        data: name of a published set with parts, or images.
        root: folder of the set.
        parts: folder of label images of the same names as the images.
        split: to test on; default: ``test``, or the only one.
        labels: numbers of labelled images, None for all of them; all if absent.
        draws: of each number but all, which is drawn once.
        transfer: see :func:`equimark.retraining.transfer_to_segmentation`.
        epochs: passes over the labelled images; those of the recipe if absent.
        seed: of the first draw, and of the training.
        device: see :func:`assess_matching`.
        progress: show progress bars.
    """
    model, trained = _load(run, device)
    found = open_parts(str(data), root, parts)
    results = partial(Results, run=str(run), data=str(data), seed=seed, trained=trained)
    if model.config.method == "segmentation":
        part = found.test(split)
        test = part.load_parts(model.frame, progress=progress)
        own = retraining.score_segmentation(model, test)
        return results(
            protocol="segmentation, as trained",
            images=len(test),
            metrics=own.metrics(),
            settings={"test": part.name},
            details={"by_part": [vars(row) for row in own.table]},
            made=provenance.made_now(model.device),
        )
    pair = found.train_and_test(split, seed=seed)
    train, test = (part.load_parts(model.frame, progress=progress) for part in pair)
    planned = protocols.plan_draws(np.ones(len(train), np.bool_), labels or (None,), draws=draws, seed=seed)
    classes = found.parts or int(max(train.parts.max(), test.parts.max())) + 1
    learn = partial(retraining.transfer_to_segmentation, model, train, test, transfer=transfer, classes=classes)
    curves = {protocols.record_name(draw): learn(draw, epochs=epochs, progress=progress) for draw in planned}
    summaries = {name: retraining.summarise_epochs(curve) for name, curve in curves.items()}
    return results(
        protocol=f"segmentation, {transfer}",
        images=len(test),
        metrics=_with_largest(protocols.summarise_draws(planned, summaries), planned),
        settings=_describe(pair) | {"draws": draws},
        details={"by_epoch": {name: [own.metrics() for own in curve] for name, curve in curves.items()}},
        made=provenance.made_now(model.device),
    )


def _describe(parts: tuple[Part, Part]) -> dict[str, Any]:
    train, test = parts
    return {"train": train.name, "test": test.name, "training_images": len(train)}


def _with_largest(entries: Mapping[str, Entry], planned: Sequence[Draw]) -> dict[str, float | Entry]:
    """The metrics of the largest number of labels; and, unless there is nothing to draw, the entry of each number."""
    largest = max(planned, key=lambda draw: len(draw.rows)).name
    drawn = {name: own for name, own in entries.items() if name != "as_trained"}
    return {**entries[largest], **drawn}
