"""Networks trained with labels, for comparison: supervised landmarks, and the transfer to segmentation.

Each is trained anew on the labelled images of a draw, in a temporary folder, and measured on others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import segmentation, training
from .config import RunConfig, load_recipe, make_config
from .embedding import ModelError, batches
from .evaluation import AnnotatedFrames
from .metrics import Points
from .model import LandmarkModel
from .networks import Network, SegmentationNet, SmallNet
from .packs import PackedImages
from .protocols import Draw, found_landmarks
from .segmentation import ClassScore

Transfer = Literal["scratch", "pretrained", "finetuned"]
MILESTONES = (5, 30)  # epochs of the supplement's table 3


def predict_supervised(
    config: RunConfig,
    train: AnnotatedFrames,
    test: AnnotatedFrames,
    draw: Draw,
    *,
    device: str = "auto",
    progress: bool = False,
) -> Points:
    """Train a supervised network of ``config`` on a draw of ``train``; its landmarks (N, K, 2) of ``test``.

    It is trained for as many steps as ``config`` says, whatever the number of labels.
    """
    labelled = _pack(train.frames, draw.rows).with_labels(points=train.points[draw.rows])
    network = replace(config.network, channels=train.points.shape[1])
    config = replace(config, network=network, seed=draw.seed)
    with tempfile.TemporaryDirectory(prefix="equimark-") as folder:
        _train(labelled, config, Path(folder), device=device, progress=progress)
        trained = LandmarkModel.load(folder, device=device)
    return found_landmarks(trained, test.frames, progress=progress)


@dataclass(frozen=True)
class PartedFrames:
    """Images in a model's frame, with the part that each pixel shows.

    Args:
        frames: (N, 3, S, S) uint8.
        parts: (N, S, S) uint8.
    """

    frames: Tensor
    parts: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class SegmentationScore:
    """How well a segmentation tells parts, on all pixels of the frames.

    Args:
        pixel_accuracy_percent: share of the pixels with the right part, in %.
        table: a row for each part.
        epoch: of its training, if it was measured within.
    """

    pixel_accuracy_percent: float
    table: list[ClassScore]
    epoch: int = 0

    def metrics(self) -> dict[str, float]:
        """Accuracy, and mean intersection over union of the parts that occur; with the epoch, if there is one."""
        found = {
            "pixel_accuracy_percent": self.pixel_accuracy_percent,
            "mean_iou_percent": float(np.mean([row.iou_percent for row in self.table])),
        }
        return found | ({"epoch": self.epoch} if self.epoch else {})


def score_segmentation(model: LandmarkModel, data: PartedFrames, *, epoch: int = 0) -> SegmentationScore:
    """Measure a segmentation.

    Raises:
        ModelError: for any other run.
    """
    found = np.concatenate([model.segment_frames(data.frames[part]) for part in batches(len(data))])
    classes = max(model.config.network.channels, int(data.parts.max()) + 1)
    accuracy = segmentation.pixel_accuracy_percent(found, data.parts)
    return SegmentationScore(accuracy, segmentation.class_table(found, data.parts, classes), epoch)


def transfer_to_segmentation(
    model: LandmarkModel,
    train: PartedFrames,
    test: PartedFrames,
    draw: Draw,
    *,
    transfer: Transfer = "pretrained",
    classes: int,
    epochs: int | None = None,
    progress: bool = False,
) -> list[SegmentationScore]:
    """Train a segmentation on a landmark network and measure it after every epoch (2017, supplement, section 5).

    Args:
        model: SmallNet of a sparse or dense run.
        train: labelled images.
        test: images to measure on.
        draw: of ``train``, to learn from; its seed is that of the new weights and of the training.
        transfer: ``scratch``, nothing is kept of the run but its frame; ``pretrained``, its convolutions but the
            last are the start, and the first three stay; ``finetuned``, all of them go on learning.
        classes: number of parts.
        epochs: passes over the images; those of the recipe if absent.
        progress: show progress bars.

    Raises:
        ModelError: if the run is no SmallNet.
    """
    config = _segmentation_config(model, transfer, classes, epochs, draw)
    network = _segmentation_network(model, config, transfer)
    watched = LandmarkModel(network, config, device=model.device)
    scores: list[SegmentationScore] = []

    def measure(step: int) -> None:
        epoch, rest = divmod(step * config.epochs, config.resolve_steps(len(draw.rows)))
        if not rest:
            network.eval()
            scores.append(score_segmentation(watched, test, epoch=epoch))
            network.train()

    labelled = _pack(train.frames, draw.rows).with_labels(parts=train.parts[draw.rows])
    with tempfile.TemporaryDirectory(prefix="equimark-") as folder:
        _train(
            labelled,
            config,
            Path(folder),
            initial=network,
            device=model.device.type,
            progress=progress,
            on_step=measure,
        )
    return scores


def summarise_epochs(scores: Sequence[SegmentationScore]) -> dict[str, float]:
    """The supplement's table 3: after the last epoch, after epochs 5 and 30, and after the best."""
    best = max(scores, key=lambda own: own.pixel_accuracy_percent)
    last = replace(scores[-1], epoch=0).metrics()
    named = {f"epoch_{own.epoch}": own for own in scores if own.epoch in MILESTONES} | {"best": best}
    return last | {f"pixel_accuracy_percent_{name}": own.pixel_accuracy_percent for name, own in named.items()}


def _segmentation_config(
    model: LandmarkModel, transfer: Transfer, classes: int, epochs: int | None, draw: Draw
) -> RunConfig:
    """The recipe in the frame of the run; every epoch has a step, also where labels are fewer than a batch."""
    recipe = make_config(load_recipe(f"segmentation-{transfer}").settings)
    labels, count = len(draw.rows), epochs or recipe.epochs
    batch_size = min(recipe.batch_size, labels)
    network = replace(recipe.network, channels=classes)
    if transfer != "scratch" and isinstance(model.network, SmallNet):
        network = replace(network, padding=model.network.padding, leak=model.network.leak)
    return replace(
        recipe,
        network=network,
        frame=model.frame,
        pairs=replace(recipe.pairs, margin=model.config.pairs.margin),
        epochs=count,
        steps=count * -(-labels // batch_size),
        batch_size=batch_size,
        seed=draw.seed,
    )


def _segmentation_network(model: LandmarkModel, config: RunConfig, transfer: Transfer) -> Network:
    if transfer == "scratch":
        return training.fresh_network(config)
    if not isinstance(model.network, SmallNet) or model.config.is_supervised:
        raise ModelError(
            f"{transfer} segmentation starts from the SmallNet of a run without labels, not from a "
            f"{model.config.method} run of {model.config.network.name}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return SegmentationNet.from_smallnet(model.network, config.network.channels, freeze=config.network.freeze)


def _train(images: PackedImages, config: RunConfig, folder: Path, **settings: Any) -> None:
    try:
        training.train(images, config, folder, **settings)
    except training.Interrupted:  # its way out, to resume, ends with the folder
        raise KeyboardInterrupt from None


def _pack(frames: Tensor, rows: NDArray[np.int64]) -> PackedImages:
    """Frames (N, 3, S, S) of ``rows`` as training takes them."""
    return PackedImages.from_array(np.ascontiguousarray(frames[rows].movedim(1, -1).numpy()))
