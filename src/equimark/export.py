"""Trained models for other programs: one ONNX file, which answers as the model does, or is not left behind.

The file takes frames (B, 3, S, S) in [0, 1], whole as :meth:`LandmarkModel.frames_of` makes them. Where the network is
convolutional and nothing was fitted to the frame, it takes images (B, 3, H, W) of other sizes as well.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import geometry
from .embedding import Embedding
from .files import replace_file
from .graphs import (
    Both,
    Descriptors,
    FromDescriptors,
    FromDescriptorsTurned,
    FromLandmarks,
    Hypercolumns,
    Landmarks,
    Outputs,
    Supervised,
)
from .head import Head
from .model import LandmarkModel
from .prototypes import PrototypeRegressor
from .regression import LinearRegressor

OPSET = 18
TOLERANCE = 1e-4  # of the largest value of an output, or of 1 if that is larger
TURNED_TOLERANCE = (
    1e-3  # of heads that turn images: a grey level in the middle of two is rounded up here and down there
)
SMALLEST = 16  # pixels that the margin must leave of an image


class ExportError(ValueError):
    """A model that cannot be exported, or a place that cannot be written to; the message says the way out."""


@dataclass(frozen=True)
class Exported:
    """An ONNX file that answers as the model does.

    Args:
        path: of the file.
        outputs: their names.
        shapes: of the images that were tried, (B, 3, H, W).
        difference: the largest of any value of any output, in its own unit.
        metadata: what the file says of itself.
    """

    path: Path
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    difference: float
    metadata: dict[str, str]


def export_onnx(
    model: str | Path | LandmarkModel,
    path: str | Path,
    head: str | Path | Head | None = None,
    *,
    opset: int = OPSET,
    overwrite: bool = False,
) -> Exported:
    """Write a model, or a head fitted on it, to an ONNX file, and compare both on images of several sizes and batches.

    ======================== ============================== ==========================================================
    run                      outputs                        sizes
    ======================== ============================== ==========================================================
    dense, dve               descriptors (B, C, h, w)       any from 16 pixels and twice the margin on
    with landmarks beside    the same, and landmarks        the same
                             (B, K, 2), confidence (B, K)
    sparse                   landmarks (B, K, 2),           any; the run has learned at the frame's
                             confidence (B, K)
    any of these with a head landmarks (B, K, 2),           the frame's
                             confidence (B, K)
    supervised               landmarks (B, K, 2)            the frame's
    segmentation             scores (B, parts, H, W)        the frame's
    ======================== ============================== ==========================================================

    Landmarks are in pixels of the input.

    Args:
        model: a run's folder, or its model.
        path: of the file.
        head: fitted on the model (see :meth:`LandmarkModel.fit`), or its folder.
        opset: version of ONNX's operators, 18 or newer.
        overwrite: replace a file that is there.

    Raises:
        ExportError: if a package is missing, the file exists, or the answers differ from the model's.
        CheckpointError: if there is no such run or head.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    _need_packages()
    if not isinstance(model, LandmarkModel):
        model = LandmarkModel.load(model, device="cpu")
    if head is not None and not isinstance(head, Head):
        head = Head.load(head, model)
    own = _on_cpu(head.model if head else model)
    task = _Task.of(own, Head(own, head.regressor, head.names, turned=head.turned) if head else None)
    about = task.about()
    found: list[float] = []

    def write(temporary: Path) -> None:
        _write(task, temporary, about, opset)
        found.append(_compare(task, temporary))

    replace_file(path, write)
    return Exported(path, task.outputs, tuple(task.shapes()), found[0], about)


def _on_cpu(model: Embedding) -> Embedding:
    return model if model.device.type == "cpu" else Embedding(copy.deepcopy(model.network), model.config)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to write where something stands.

    Raises:
        ExportError: if ``path`` is a folder, or a file that must not be replaced.
    """
    if path.is_dir():
        raise ExportError(f"{path} is a folder; give the name of a file to write")
    if path.exists() and not overwrite:
        raise ExportError(f"{path} exists already: replace it with --overwrite, or give another name")


def _need_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            raise ExportError(f"ONNX export needs the package {name}: pip install 'equimark[export]'") from None


# ---- what is written ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """What is to be exported.

    Args:
        model: that the file has to agree with.
        head: if its landmarks are asked for.
        graph: the computation of the file.
        outputs: their names.
        any_size: whether images of other sizes than the frame's can be given.
    """

    model: Embedding
    head: Head | None
    graph: nn.Module
    outputs: tuple[str, ...]
    any_size: bool

    @classmethod
    def of(cls, model: Embedding, head: Head | None) -> _Task:
        network, margin, size = model.network, model.config.pairs.margin, model.frame.size
        located = ("landmarks", "confidence")
        descriptors, landmarks = Descriptors(network, margin), Landmarks(network, margin, model.config.landmarks)
        if head is not None and isinstance(head.regressor, LinearRegressor):
            graph: nn.Module = FromLandmarks(landmarks, head.regressor, size)
            return cls(model, head, graph, located, any_size=False)
        if head is not None:
            assert isinstance(head.regressor, PrototypeRegressor)
            kind = FromDescriptorsTurned if head.turned else FromDescriptors
            graph = kind(Hypercolumns(network, margin), head.regressor)
            return cls(model, head, graph, located, any_size=False)
        if model.is_sparse:
            return cls(model, None, landmarks, located, any_size=True)
        if model.config.method == "supervised":
            return cls(model, None, Supervised(network, margin, size), located[:1], any_size=False)
        if not model.has_descriptors:
            return cls(model, None, descriptors, ("scores",), any_size=False)
        if model.config.landmarks:
            return cls(model, None, Both(descriptors, landmarks), ("descriptors", *located), any_size=True)
        return cls(model, None, descriptors, ("descriptors",), any_size=True)

    @property
    def smallest(self) -> int:
        """Side of the smallest images, in pixels."""
        return 2 * self.model.config.pairs.margin + SMALLEST

    @property
    def tolerance(self) -> float:
        """Of the answers of the file: see :data:`TOLERANCE`."""
        return TURNED_TOLERANCE if self.head is not None and self.head.turned else TOLERANCE

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """Shapes of images to try: the frame's, alone and several, and then others."""
        side = self.model.frame.size
        yield from ((1, 3, side, side), (3, 3, side, side))
        if self.any_size:
            yield from ((2, 3, max(side - 7, self.smallest), side + 26), (1, 3, 2 * side, side + 1))

    def expected(self, images: Tensor) -> Outputs:
        """What the file has to answer to ``images`` (B, 3, H, W) uint8.

        At the frame's size this is what the model itself says; the model knows no other.
        """
        model, cells = self.model, self.model.network.cells
        if images.shape[-2:] != (model.frame.size,) * 2:
            with torch.inference_mode():
                answer: Outputs = self.graph(_scale(images))
            return answer
        if self.head is not None:
            points, confidence = self.head.locate_frames(images)
            return torch.from_numpy(points), torch.from_numpy(confidence)
        described = (model.features(images),) if self.outputs[0] in ("descriptors", "scores") else ()
        if "landmarks" not in self.outputs:
            return described
        found = model.landmarks_of(images)
        return (*described, cells.to_pixels(found.positions), found.confidence)[: len(self.outputs)]

    def about(self) -> dict[str, str]:
        """What the file says of itself."""
        model, network, head = self.model, self.model.network, self.head
        return {
            "equimark": importlib.metadata.version("equimark"),
            "method": model.config.method,
            "network": model.config.network.name,
            "channels": str(network.channels),
            "vector_length": json.dumps(network.vector_length),
            "stride": str(network.cells.stride),
            "offset": str(network.cells.offset),
            "cells": "cell i of a map describes pixel stride * i + offset of the input",
            "points": "(x, y) in pixels of the input; the centre of the first is 0",
            "margin": str(model.config.pairs.margin),
            "frame": json.dumps(asdict(model.frame)),
            "normalisation": "the file takes RGB in [0, 1] and does the rest: "
            + json.dumps({"mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist()}),
            "names": json.dumps(head.names if head is not None else None),
        }


def _scale(images: Tensor) -> Tensor:
    return images.float() / 255


def _write(task: _Task, path: Path, about: dict[str, str], opset: int) -> None:
    side = task.model.frame.size
    sizes = {2: torch.export.Dim("height", min=task.smallest), 3: torch.export.Dim("width", min=task.smallest)}
    dynamic = {0: torch.export.Dim("batch", min=1)} | (sizes if task.any_size else {})
    example = torch.zeros(2, 3, side, side + 10 * task.any_size)  # of unlike numbers, lest equal ones be tied
    try:
        with _quiet():
            program = torch.onnx.export(
                task.graph.eval(),
                (example,),
                input_names=["image"],
                output_names=list(task.outputs),
                opset_version=opset,
                dynamic_shapes=(dynamic,),
                dynamo=True,
                # which takes minutes for the graph of a search; runtimes optimise what they load anyway
                optimize=not isinstance(task.graph, FromDescriptors),
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ExportError(f"torch {torch.__version__} could not turn this model into ONNX: {_first(error)}") from error
    assert program is not None
    program.model.metadata_props.update(about)
    program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's remarks are on its own future, and on packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# ---- whether it is true -------------------------------------------------------------------------------------


def _compare(task: _Task, path: Path) -> float:
    """The largest difference between the file and the model, on noise and on smooth images.

    Raises:
        ExportError: if it is too large, or the file does not run.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    with _running("does not load"):
        session = _open(path)
    for shape in task.shapes():
        for images in (_noise(shape, generator), _smooth(shape, generator)):
            with _running(f"does not run on images {shape}"):
                found = session.run(None, {"image": _scale(images).numpy()})
            for name, ours, theirs in zip(task.outputs, task.expected(images), found, strict=True):
                worst = max(worst, _check(name, shape, ours.double().numpy(), theirs, task.tolerance))
    return worst


def _open(path: Path) -> Any:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are of optimisations that it does without
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@contextmanager
def _running(failure: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what onnxruntime raises has no class in common
        raise ExportError(f"the ONNX file {failure}: {_first(error)}; nothing was written") from error


def _check(
    name: str, shape: tuple[int, ...], ours: NDArray[np.float64], theirs: NDArray[np.float32], tolerance: float
) -> float:
    difference = float(np.abs(ours - theirs).max())
    allowed = tolerance * max(1.0, float(np.abs(ours).max()))
    if not difference < allowed:
        raise ExportError(
            f"the ONNX file differs from the model by {difference:.2g} in {name} of images {shape}, and {allowed:.2g} "
            "is allowed: nothing was written; try another version of torch, onnxscript or onnxruntime"
        )
    return difference


def _noise(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, tuple(shape), generator=generator, dtype=torch.uint8)


def _smooth(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    coarse = torch.rand(shape[0], 3, 5, 5, generator=generator)
    return (geometry.resize(coarse, (shape[2], shape[3])) * 255).round().to(torch.uint8)
