"""Landmark regression: from a run and labels to predictions and their metrics, for any kind of run.

* :func:`plan_draws`: which images are labelled, for each number of labels; the same for every method.
  :func:`suggest_draws`: those that would be suggested instead.
* :func:`predictor`: how a run learns annotated landmarks from a draw, by its kind.
* :func:`score`, :func:`score_draws`: the metrics, and their mean and deviation over the draws.
* :func:`measure_reliability`: how far the confidence of what was fitted can be believed.
* :func:`score_discovery`: what the landmarks that a run found by itself are worth.

Everything is in pixels of the run's frame.
"""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import metrics, objectives
from .directions import stand_alike, upright
from .embedding import ModelError, batches
from .evaluation import REFERENCE_SIDE, AnnotatedFrames, draw_labels
from .head import HeadSpec, fit_head
from .landmarks import LandmarkError
from .metrics import MetricError, Points, Reliability, Scale
from .model import LandmarkModel
from .progress import progress_bar
from .prototypes import PrototypeRegressor, tolerance_of
from .records import Record
from .suggestion import suggest, summarise
from .virtual_points import VirtualPointRegressor, VirtualPointSpec

THRESHOLD = 0.1  # of the scale: up to it a landmark is right, and an image no failure
CACHE_BYTES = 2**31  # of descriptors that are held in memory; more go to a file
Regression = Literal["virtual", "fit", "linear"]
Entry = dict[str, float]
Predict = Callable[["Draw"], Points]  # (N, K, 2), or (N, K, 3) with a confidence that is a probability


@dataclass(frozen=True)
class Draw:
    """The labelled images of one repetition.

    Args:
        name: of the number of labels: ``labels_10``, ``labels_all``.
        seed: of the draw, and of what is learned from it.
        rows: of the training images.
    """

    name: str
    seed: int
    rows: NDArray[np.int64]


def plan_draws(
    complete: NDArray[np.bool_], labels: Sequence[int | None], *, draws: int = 3, seed: int = 0
) -> list[Draw]:
    """Which training images are labelled.

    Args:
        complete: (N,) which training images show all landmarks: see :func:`equimark.evaluation.draw_labels`.
        labels: numbers of labels; None for all, of which there is one draw only.
        draws: of each number, with seeds from ``seed`` on.
        seed: of the first draw.

    Raises:
        LandmarkError: if there are not as many images.
    """
    count = len(complete)
    return [
        Draw(f"labels_{wanted or 'all'}", seed + draw, draw_labels(complete, wanted or count, seed + draw))
        for wanted in labels
        for draw in range(draws if wanted not in (None, count) else 1)
    ]


def suggest_draws(
    model: LandmarkModel, train: AnnotatedFrames, draws: Sequence[Draw], fitting: HeadSpec, *, progress: bool = False
) -> list[Draw]:
    """As many labelled images as in ``draws``, but those that :func:`equimark.suggestion.suggest` would have labelled.

    What is suggested does not depend on chance. So each repetition chooses among a random half of the images that show
    all landmarks. It begins with what is most like all, and goes on, from one number of labels to the next, by what a
    head fitted to those so far is unsure of. A draw of all images stays as it is.

    Args:
        model: with descriptors, or with sparse landmarks.
        train: labelled images.
        draws: of any numbers of images up to that half.
        fitting: of the heads.
        progress: show progress bars.

    Raises:
        LandmarkError: if a draw is larger than the half.
    """
    complete = np.flatnonzero(np.isfinite(train.points).all((1, 2)))
    summaries = np.concatenate([summarise(model, train.frames[part]) for part in batches(len(train))])
    suggested: dict[tuple[int, int], NDArray[np.int64]] = {}
    wanted = sorted({(draw.seed, len(draw.rows)) for draw in draws if len(draw.rows) < len(train)})
    with progress_bar("choosing images to label", len(wanted), shown=progress) as advance:
        for seed, count in wanted:
            half = np.sort(np.random.default_rng(seed).permutation(complete)[: (len(complete) + 1) // 2])
            if count > len(half):
                raise LandmarkError(
                    f"--suggested chooses among a half of the {len(complete)} images that show all landmarks, "
                    f"{len(half)}: --labels of up to {len(half)}, got {count}"
                )
            chosen = max((rows for (own, _), rows in suggested.items() if own == seed), key=len, default=half[:0])
            confidence = np.full(len(half), np.nan)
            if len(chosen):
                head = fit_head(model, train.frames[chosen], train.points[chosen], spec=fitting, seed=seed)
                confidence = head.locate_frames(train.frames[half])[1].mean(1)
            more = suggest(confidence, summaries[half], np.isin(half, chosen), count=count - len(chosen))
            suggested[seed, count] = np.concatenate([chosen, half[more]])
            advance()
    return [replace(draw, rows=suggested.get((draw.seed, len(draw.rows)), draw.rows)) for draw in draws]


# ---- predicting ----------------------------------------------------------------------------------------------


def predict_draws(predict: Predict, draws: Sequence[Draw], record: Record, *, progress: bool = False) -> None:
    """Let ``predict`` fill ``record`` with what it lacks of the draws."""
    with progress_bar("draws of labels", len(draws), unit=None, shown=progress and len(draws) > 1) as advance:
        for draw in draws:
            record.get(record_name(draw), partial(predict, draw))
            advance(note=f"{draw.name.replace('_', ' ')}, seed {draw.seed}")


def record_name(draw: Draw) -> str:
    """Under which the predictions of a draw are kept."""
    return f"{draw.name}/seed_{draw.seed}"


@contextmanager
def predictor(
    model: LandmarkModel,
    train: AnnotatedFrames,
    test: AnnotatedFrames,
    regression: Regression,
    spec: VirtualPointSpec,
    *,
    fitting: HeadSpec | None = None,
    progress: bool = False,
) -> Iterator[Predict]:
    """What fits annotated landmarks to a draw of ``train`` and predicts those of ``test``, by a run kept frozen.

    Args:
        model: with descriptors, or with sparse landmarks.
        train: labelled images.
        test: images to predict on.
        regression: ``virtual``, the papers' virtual points on the descriptors of the cropped frame; ``linear``, the
            papers' linear regression under warps from the landmarks that the run has of its own; ``fit``, as
            ``equimark fit`` does it, which for a sparse run is the same.
        spec: of the virtual points.
        fitting: how ``fit`` and ``linear`` do it.
        progress: show progress bars.

    Raises:
        ModelError: if the run cannot be used so.
    """
    if regression != "virtual":
        how = replace(fitting or HeadSpec(), from_landmarks=regression == "linear")
        yield lambda draw: _fit(model, train, test, draw, how)
        return
    if not model.has_descriptors:
        raise ModelError(f"a {model.config.method} run has no descriptors for virtual points: use --regressor linear")
    with cached_features(model, test.frames, progress=progress) as unseen:
        yield lambda draw: _fit_virtual_points(model, train, unseen, draw, spec, progress)


def _fit(
    model: LandmarkModel,
    train: AnnotatedFrames,
    test: AnnotatedFrames,
    draw: Draw,
    fitting: HeadSpec,
) -> Points:
    frames, points = train.frames[draw.rows], train.points[draw.rows]
    head = fit_head(model, frames, points, spec=fitting, seed=draw.seed)
    points, confidence = head.locate_frames(test.frames)
    if isinstance(head.regressor, PrototypeRegressor):
        return np.concatenate([points, confidence[..., None]], -1)
    return points


def _fit_virtual_points(
    model: LandmarkModel, train: AnnotatedFrames, unseen: Tensor, draw: Draw, spec: VirtualPointSpec, progress: bool
) -> Points:
    """Learn from the draw in as many steps as from all training images; predict from the descriptors ``unseen``."""
    cells, margin = model.network.cells, model.config.pairs.margin
    points = cells.to_cells(torch.from_numpy(train.points[draw.rows] - margin).float())
    frames = train.frames if len(draw.rows) == len(train) else train.frames[draw.rows]
    with cached_features(model, frames, progress=progress) as features:
        try:
            regressor = VirtualPointRegressor.fit(
                features,
                points,
                spec,
                seed=draw.seed,
                epoch_images=len(train),
                device=model.device,
                progress=progress,
            )
        except ValueError as error:
            raise ModelError(str(error)) from None
    found = [regressor.predict(unseen[part]).positions for part in batches(len(unseen))]
    return cells.to_pixels(torch.cat(found)).double().numpy() + margin


@contextmanager
def cached_features(
    model: LandmarkModel, frames: Tensor, *, limit: int = CACHE_BYTES, progress: bool = False
) -> Iterator[Tensor]:
    """Descriptors (N, C, h, w), in half precision, of what the margin leaves of ``frames`` (N, 3, S, S) uint8.

    Args:
        model: whose descriptors.
        frames: whole frames.
        limit: bytes to hold in memory; what needs more is in a temporary file, which is mapped.
        progress: show a progress bar.

    Raises:
        OSError: if the disk is too full for the file.
    """
    margin = model.config.pairs.margin
    inner = slice(margin, frames.shape[-1] - margin)

    def describe(part: slice) -> Tensor:
        return model.features_of(frames[part, :, inner, inner].float() / 255).half()

    shape = (len(frames), *describe(slice(0, 1)).shape[1:])
    with _storage(shape, limit) as features, progress_bar("describing", len(frames), shown=progress) as advance:
        for part in batches(len(frames)):
            features[part] = describe(part)
            advance(part.stop - part.start)
        yield features


@contextmanager
def _storage(shape: tuple[int, ...], limit: int) -> Iterator[Tensor]:
    """Room for numbers of half precision, in memory or in a file that vanishes."""
    needed = 2 * math.prod(shape)
    if needed <= limit:
        yield torch.empty(shape, dtype=torch.float16)
        return
    with tempfile.TemporaryDirectory(prefix="equimark-") as folder:
        if shutil.disk_usage(folder).free < needed:  # a mapped file that finds no room kills the process
            raise OSError(
                errno.ENOSPC, f"the descriptors need {needed / 1e9:.1f} GB in {folder}: point TMPDIR to a larger disk"
            )
        path = str(Path(folder) / "features.f16")
        yield torch.from_file(path, shared=True, size=math.prod(shape), dtype=torch.float16).view(shape)


def found_landmarks(model: LandmarkModel, frames: Tensor, *, progress: bool = False) -> Points:
    """The landmarks (N, K, 2) that a sparse or supervised run finds by itself in ``frames`` (N, 3, S, S) uint8."""
    found = []
    with progress_bar("detecting", len(frames), shown=progress) as advance:
        for part in batches(len(frames)):
            found.append(model.network.cells.to_pixels(model.landmarks_of(frames[part]).positions))
            advance(part.stop - part.start)
    return torch.cat(found).double().numpy()


# ---- scoring -------------------------------------------------------------------------------------------------


def score(predicted: Points, truth: Points, scale: Scale, *, view_side: int, threshold: float = THRESHOLD) -> Entry:
    """All metrics of predicted landmarks (N, K, 2).

    Args:
        predicted: in pixels of the frame.
        truth: likewise; NaN where not visible.
        scale: by which errors are divided.
        view_side: what the margin leaves of the frame, in pixels; ``error_px`` is given as if it were 70.
        threshold: of pck, failures and area, as a share of the scale.

    Raises:
        MetricError: if no landmark counts, or predictions are not numbers.
    """
    if np.isnan(predicted).any():
        raise MetricError("predicted landmarks are not numbers: the run or what was fitted on it is damaged")
    errors = metrics.scaled_errors(predicted, truth, scale)
    return {
        f"error_{scale.name}_percent": metrics.error_percent(predicted, truth, scale),
        "error_px": metrics.error_px(predicted, truth) * REFERENCE_SIDE / view_side,
        f"pck_{threshold:g}": metrics.pck(errors, threshold),
        f"failure_rate_{threshold:g}": metrics.failure_rate(errors, threshold),
        f"auc_{threshold:g}": metrics.auc(errors, threshold),
    }


def score_draws(
    record: Record, draws: Sequence[Draw], train: Points, test: Points, scale: Scale, *, view_side: int, stride: int = 2
) -> dict[str, Entry]:
    """The metrics of each number of labels, by its name: means over the draws, and deviations ``..._std``.

    Beside them is the error of the mean shape of the labelled images, which is what one knows without looking; and
    where predictions have a confidence, its calibration error (see :func:`measure_reliability`).

    Args:
        record: with the predictions of each draw.
        draws: to score.
        train: labels (M, K, 2) of the training images.
        test: truth (N, K, 2).
        scale: see :func:`score`.
        view_side: see :func:`score`.
        stride: of the network, in pixels per cell.
    """
    scores = {}
    for draw in draws:
        own = score(record[record_name(draw)][..., :2], test, scale, view_side=view_side)
        mean = np.broadcast_to(metrics.mean_shape(train[draw.rows]), test.shape)
        own[f"mean_shape_error_{scale.name}_percent"] = metrics.error_percent(mean, test, scale)
        for reliability in measure_reliability(record, [draw], train, test, stride=stride).values():
            own["calibration_error"] = reliability.calibration_error
        scores[record_name(draw)] = own
    return summarise_draws(draws, scores)


def measure_reliability(
    record: Record, draws: Sequence[Draw], train: Points, test: Points, *, stride: int = 2
) -> dict[str, Reliability]:
    """How far confidence can be believed, for each number of labels whose predictions have one; draws together.

    A landmark is correct if it is visible and within a tenth of the longer side of the mean shape of the labelled
    images: what the confidence of :class:`equimark.prototypes.PrototypeRegressor` is the probability of. Shapes that
    lie in different directions are turned until they stand alike before, as heads for them do; the mean would vanish.

    Args:
        record: with the predictions of each draw.
        draws: to look at.
        train: labels (M, K, 2) of the training images.
        test: truth (N, K, 2).
        stride: of the network, in pixels per cell.
    """
    found: dict[str, list[tuple[Points, NDArray[np.bool_]]]] = {}
    for draw in draws:
        predicted = record[record_name(draw)]
        if predicted.shape[-1] == 3:
            labels = torch.from_numpy(train[draw.rows] / stride)
            nearest = stride * tolerance_of(labels if stand_alike(labels) else upright(labels))
            correct = metrics.distances(predicted[..., :2], test) <= nearest
            found.setdefault(draw.name, []).append((predicted[..., 2], correct))
    pooled = {name: [np.concatenate(each) for each in zip(*own, strict=True)] for name, own in found.items()}
    return {name: metrics.reliability(confidence, correct) for name, (confidence, correct) in pooled.items()}


def score_points(record: Record, draws: Sequence[Draw], test: Points, scale: Scale) -> dict[str, list[float | None]]:
    """Mean error of each landmark (K,) in % of the scale, over images and draws, for each number of labels."""
    found: dict[str, list[Points]] = {}
    for draw in draws:
        errors = metrics.scaled_errors(record[record_name(draw)][..., :2], test, scale)
        found.setdefault(draw.name, []).append(100 * metrics.by_point(errors))
    return {name: plain(np.mean(errors, 0)) for name, errors in found.items()}


def summarise_draws(draws: Sequence[Draw], scores: Mapping[str, Entry]) -> dict[str, Entry]:
    """For each number of labels the mean of each metric over its draws, also as ``..._mean``, and ``..._std``.

    Args:
        draws: the draws.
        scores: metrics of each, by :func:`record_name`; those that not all draws of a number have are left out.
    """
    entries = {}
    for name in dict.fromkeys(draw.name for draw in draws):
        same = [scores[record_name(draw)] for draw in draws if draw.name == name]
        entry: Entry = {"draws": len(same)}
        for metric in same[0]:
            if all(metric in own for own in same):
                mean, deviation = metrics.mean_and_deviation([own[metric] for own in same])
                entry |= {metric: mean, f"{metric}_mean": mean, f"{metric}_std": deviation}
        entries[name] = entry
    return entries


def plain(values: Points) -> list[float | None]:
    """Numbers as JSON has them: none for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def score_discovery(
    train: tuple[Points, Points], test: tuple[Points, Points], scale: Scale, *, frame_side: int
) -> Entry:
    """What the landmarks that a run found by itself are worth: forward and backward error in %, how many are distinct.

    Args:
        train: landmarks found (M, K, 2) and annotated (M, J, 2), in pixels of the frame.
        test: the same of other images.
        scale: of the annotated landmarks.
        frame_side: of the frame, whose middle is the origin of the linear maps.
    """
    middle = (frame_side - 1) / 2
    learned, unseen = (train[0] - middle, train[1] - middle), (test[0] - middle, test[1] - middle)
    return {
        "forward_nme": metrics.forward_nme(learned, unseen, scale),
        "backward_nme": metrics.backward_nme(learned, unseen, scale),
        "distinct_landmarks": objectives.distinct_landmarks(torch.from_numpy(test[0]).float()),
    }
