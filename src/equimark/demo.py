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

from . import evaluation
from .evaluation import AnnotatedFrames
from .files import write_text
from .packs import PackedImages
from .run import Run, train
from .synthetic import portraits

SIDE = 64
TRAINING_IMAGES = 800
TEST_IMAGES = 120
LABELS = 10
OUTER_EYES = (36, 45)

# Small frames and short runs: what two processor cores learn in a few minutes.
_DENSE = {
    "frame.size": SIDE,
    "pairs.margin": 8,
    "pairs.photometric.jpeg_probability": 0,
    "optimiser.schedule": "one-cycle",
    "optimiser.lr": 0.002,
    "optimiser.bias_lr": None,
    "batch_size": 8,
    "steps": 300,
}
_SPARSE = {"frame.size": SIDE, "pairs.margin": 8, "network.channels": 8, "batch_size": 8, "steps": 300}

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
        head = runs["dve"].model.fit_frames(labelled.frames, labelled.points)
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
        "error_iod_percent": evaluation.error_iod_percent(predicted, truth, OUTER_EYES),
        "error_px": evaluation.error_px(predicted, truth),
    }
