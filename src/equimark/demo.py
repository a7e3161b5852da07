"""The demonstration: draw people, learn their landmarks without labels, measure, show."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import checkpoint, evaluation, metrics, plots, report
from .evaluation import AnnotatedFrames
from .files import write_text
from .head import fit_head
from .packs import PackedImages
from .page import Page
from .run import Run, train
from .synthetic import portraits

SIDE = 56
TRAINING_IMAGES = 800
TEST_IMAGES = 120
LABELS = 10
OUTER_EYES = (36, 45)

# Small frames and short runs: what two processor cores learn in a few minutes.
_DENSE = {
    "frame.size": SIDE,
    "pairs.margin": 7,
    "pairs.photometric.jpeg_probability": 0,
    "network.vector_length": 8,
    "batch_size": 8,
    "steps": 600,
}
_SPARSE = {"frame.size": SIDE, "pairs.margin": 7, "network.channels": 8, "batch_size": 8, "steps": 800}

Metrics = dict[str, float]


@dataclass(frozen=True)
class Demo:
    """What the demonstration made.

    Args:
        results: as written to ``results.json``: metrics by experiment, and seconds by stage.
        runs: ``dense``, ``dve`` and ``sparse``.
        test: images that no run has seen, with their 68 landmarks.
        fitted: landmarks (N, 68, 2) of the test images by the head fitted on ten labels.
    """

    results: dict[str, dict[str, float]]
    runs: dict[str, Run]
    test: AnnotatedFrames
    fitted: NDArray[np.float64]


def run_demo(out: Path, *, seed: int = 0, device: str = "auto", progress: bool = True) -> Demo:
    """Train on drawn portraits with and without exchange and for sparse landmarks; evaluate; fit ten labels.

    Args:
        out: folder for the runs and ``results.json``.
        seed: of the drawings and the training.
        device: on which to train.
        progress: show progress bars.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "draw"):
        drawn = portraits(TRAINING_IMAGES + TEST_IMAGES, seed=seed, size=SIDE)
    images = PackedImages.from_array(drawn.images[:TRAINING_IMAGES])
    test = _annotated(drawn.images[TRAINING_IMAGES:], drawn.landmarks[TRAINING_IMAGES:])
    labelled = _annotated(drawn.images[:LABELS], drawn.landmarks[:LABELS])

    runs = {}
    for name, settings in (("dense", _DENSE), ("dve", _DENSE), ("sparse", _SPARSE)):
        with _timed(seconds, f"train_{name}"):
            options: dict[str, Any] = {"method": name, "overwrite": True, "seed": seed} | settings
            runs[name] = train(images, out / name, device=device, progress=progress, **options)
    with _timed(seconds, "evaluate"):
        results = {name: evaluation.evaluate_matching(runs[name].model, test).metrics() for name in ("dense", "dve")}
        health = evaluation.evaluate_sparse(runs["sparse"].model, test.frames, seed=seed)
        results["sparse"] = {name: float(value) for name, value in vars(health).items()}
        head = fit_head(runs["dve"].model, labelled.frames, labelled.points)
        fitted = head.predict_frames(test.frames)
        results[f"fit_{LABELS}_labels"] = _point_metrics(fitted, test.points)
        mean_shape = np.broadcast_to(labelled.points.mean(0), test.points.shape)
        results["mean_shape"] = _point_metrics(mean_shape, test.points)
    results["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    write_text(out / "results.json", json.dumps(results, indent=2) + "\n")
    return Demo(results, runs, test, fitted)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start


def _annotated(images: NDArray[np.uint8], points: NDArray[np.float32]) -> AnnotatedFrames:
    return AnnotatedFrames(torch.from_numpy(images).movedim(-1, 1).contiguous(), points.astype(np.float64))


def _point_metrics(predicted: NDArray[np.float64], truth: NDArray[np.float64]) -> Metrics:
    return {
        "error_iod_percent": metrics.error_iod_percent(predicted, truth, OUTER_EYES),
        "error_px": metrics.error_px(predicted, truth),
    }


def write_report(made: Demo, out: Path) -> Path:
    """Write ``report.html`` of the demonstration: numbers, pictures, and where it fails; its path."""
    results, test = made.results, PackedImages.from_array(_pictures(made.test.frames))
    page = Page(
        "Landmarks, learned without labels",
        f"{TRAINING_IMAGES} drawn portraits, each of another person, and no annotation. All pictures and numbers here "
        f"are of {TEST_IMAGES} people that no network has seen.",
    )
    page.section("What came out", _SUMMARY)
    page.table(rows(results), COLUMNS)
    ratio = results["dve"]["different_identity_px"] / results["dense"]["different_identity_px"]
    page.numbers(
        [
            (
                "Exchange against none",
                f"{ratio:.2f}",
                "error between people, with exchange over without",
            ),
            ("Time", f"{sum(results['seconds'].values()):.0f} s", "for drawing, three trainings and the evaluation"),
        ]
    )
    for name, label in (("dve", "with exchange"), ("dense", "without exchange")):
        report.matches_section(page, made.runs[name].model, test, label=label)
    report.descriptor_section(page, made.runs["dve"].model, test, label="with exchange")
    _fitted_section(page, made)
    report.sparse_section(page, made.runs["sparse"].model, test)
    for name, run in made.runs.items():
        report.curves_section(page, run.model.config, checkpoint.read_log(run.folder), label=name)
    report.pairs_section(page, made.runs["dve"].model, test)
    return page.write(out)


COLUMNS = ("experiment", "what is measured", "result")
_SUMMARY = (
    "Two networks learn descriptors from warped views of single images; one of them, DVE, also has to find its way "
    "through the image of another person. Both match a point to another view of the same person; only with exchange "
    "is it found on another person. Ten labelled portraits then turn the descriptors into 68 named landmarks, and a "
    "third network learns landmarks of its own."
)


def rows(results: dict[str, Metrics]) -> list[tuple[str, str, str]]:
    """The results as a table with :data:`COLUMNS`."""

    def px(value: float) -> str:
        return f"{value:.2f} of 70 px"

    table = []
    for name, title in (("dense", "without exchange"), ("dve", "with exchange (DVE)")):
        table += [
            (title, "matching, same person", px(results[name]["same_identity_px"])),
            (title, "matching, two people", px(results[name]["different_identity_px"])),
        ]
    for name, title in ((f"fit_{LABELS}_labels", f"68 landmarks from {LABELS} labels"), ("mean_shape", "mean shape")):
        found = results[name]
        table.append((title, "error", f"{found['error_iod_percent']:.1f} % of eye distance"))
    sparse, total = results["sparse"], _SPARSE["network.channels"]
    share = f"{sparse['alignment_share']:.2f}"
    return [
        *table,
        ("sparse landmarks", "distinct", f"{sparse['distinct_landmarks']:.0f} of {total}"),
        ("sparse landmarks", "misaligned (still: 1)", share),
    ]


def _fitted_section(page: Page, made: Demo) -> None:
    page.section(
        f"Named landmarks from {LABELS} labelled images",
        "The descriptors stay as they were learned. Below, the faces on which the landmarks are worst.",
    )
    figure = plots.worst_cases(list(_pictures(made.test.frames)), made.fitted, made.test.points)
    page.figure("fitted", figure, "Circles: where the landmarks are. Crosses: where they were put.")


def _pictures(frames: Tensor) -> NDArray[np.uint8]:
    pictures: NDArray[np.uint8] = frames.movedim(1, -1).contiguous().numpy()
    return pictures
