"""What is timed: a step of training, its objective, making pairs, packing, inference; ours and as released."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from equimark import matching, objectives
from equimark.config import RunConfig, load_recipe, make_config
from equimark.geometry import Frame
from equimark.images.decoding import SPARE
from equimark.methods import cells_correspondence, compute_terms
from equimark.model import LandmarkModel
from equimark.packs import PackedImages, pack
from equimark.pairs import PairBatch
from equimark.sampling import Sampler
from equimark.synthetic import portraits
from equimark.timing.literal import literal_dve_loss
from equimark.training import fresh_network, make_optimiser

Precision = Literal["no", "bf16", "fp16"]
NetworkName = Literal["smallnet", "hourglass"]

_TYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DISTINCT = 8  # drawn images, which are repeated: what they show costs no time
_TOGETHER = 8  # files that a thread decodes in turn


@dataclass(frozen=True)
class Scale:
    """Sizes of what is timed; by default those of the recipes.

    Args:
        channels: of the descriptors.
        smallnet_batch: pairs of a step of SmallNet.
        smallnet_frame: side of its frames in pixels; that of all other tasks too.
        smallnet_margin: pixels cropped from each side of them.
        hourglass_batch: pairs of a step of Hourglass.
        hourglass_frame: side of its frames in pixels.
        hourglass_margin: pixels cropped from each side of them.
        sparse_margin: pixels cropped where a sparse run looks for its landmarks.
        images: of a batch of inference.
        points: that are matched at a time.
        files: JPEG files that are packed.
        file_side: of each of them, in pixels.
    """

    channels: int = 64
    smallnet_batch: int = 32
    smallnet_frame: int = 100
    smallnet_margin: int = 15
    hourglass_batch: int = 4
    hourglass_frame: int = 136
    hourglass_margin: int = 20
    sparse_margin: int = 10
    images: int = 32
    points: int = 68
    files: int = 256
    file_side: int = 256


@dataclass(frozen=True)
class Job:
    """A task to be measured, as it is handed to another process.

    Args:
        task: a name of :data:`TASKS`.
        scale: its sizes.
        device: ``cpu``, ``cuda`` or ``mps``.
        precision: of the networks in training, as of a run.
        repeats: that count.
    """

    task: str
    scale: Scale = field(default_factory=Scale)
    device: str = "cpu"
    precision: Precision = "no"
    repeats: int = 10

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job of a line."""
        values = json.loads(line)
        return cls(**values | {"scale": Scale(**values["scale"])})


@dataclass(frozen=True)
class Task:
    """Something to be done again and again.

    Args:
        run: does it once; the loss, if it computes one.
        items: that one time works on.
        unit: what the items are, in the plural.
    """

    run: Callable[[], Tensor | None]
    items: int
    unit: str


def make_task(job: Job, folder: Path) -> Task:
    """The task of a job, ready to run; it may write into ``folder``."""
    return TASKS[job.task](job, folder)


# ---- training


class _Cast(nn.Module):
    """A network that runs in half precision and answers in single precision, as training has it."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of ``images`` (B, 3, H, W)."""
        with torch.autocast(images.device.type, _TYPES[self.precision], enabled=self.precision != "no"):
            features: Tensor = self.network(images)
        return features.float()


class _Step:
    """Network, optimiser and one batch of pairs: the same weights and pairs in every process."""

    def __init__(self, name: NetworkName, job: Job) -> None:
        device = torch.device(job.device)
        self.config = _dve_config(name, job)
        self.pairs = _batch(self.config, device)
        network = fresh_network(self.config)
        network.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.cells = network.cells
        self.network = _Cast(network, job.precision)
        self.optimiser = make_optimiser(network, self.config.optimiser)
        self.scaler = torch.amp.GradScaler(device.type, enabled=job.precision == "fp16")

    def take(self, *, literal: bool) -> Tensor:
        """Both views forward, objective, backward, optimiser; the loss with the weights before it."""
        loss = self.literal_loss(*self.features()) if literal else self.loss()
        self.optimiser.zero_grad()
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.detach()

    def loss(self) -> Tensor:
        """As training computes it."""
        return compute_terms(self.network, self.pairs, self.config, self.cells)["total"]

    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Descriptors of source and target (B, C, h, w), and the true positions (B, h, w, 2) in cells."""
        source, target = self.network(torch.cat([self.pairs.source, self.pairs.target])).chunk(2)
        size = (source.shape[-2], source.shape[-1])
        return source, target, cells_correspondence(self.pairs, self.cells, size)

    def literal_loss(self, source: Tensor, target: Tensor, truth: Tensor) -> Tensor:
        """As released: each pair's auxiliary is the next image."""
        return literal_dve_loss(source, target, source, truth, **self._constants())

    def own_loss(self, source: Tensor, target: Tensor, truth: Tensor) -> Tensor:
        """The same by our objective, from the same descriptors."""
        chosen = objectives.next_in_batch(len(source), device=source.device)
        return objectives.descriptor_exchange(source, target, truth, source, chosen, **self._constants())["total"]

    def _constants(self) -> dict[str, Any]:
        return {"stride": self.cells.stride, "power": self.config.objective.power}


def _dve_config(name: NetworkName, job: Job) -> RunConfig:
    """The recipe's, at the sizes of the job."""
    scale = asdict(job.scale)
    sizes = {
        "network.channels": scale["channels"],
        "batch_size": scale[f"{name}_batch"],
        "frame.size": scale[f"{name}_frame"],
        "pairs.margin": scale[f"{name}_margin"],
        "precision": job.precision,
    }
    return make_config(load_recipe(f"dve-{name}-64").settings, sizes)


def _batch(config: RunConfig, device: torch.device) -> PairBatch:
    pairs = _sampler(config, device).batch(1)
    assert isinstance(pairs, PairBatch)
    return pairs


def _sampler(config: RunConfig, device: torch.device) -> Sampler:
    return Sampler(PackedImages.from_array(_drawn(config.batch_size, config.frame.size)), config, device)


def _drawn(count: int, side: int) -> NDArray[np.uint8]:
    """Portraits (N, S, S, 3), some of them several times."""
    distinct = portraits(min(count, _DISTINCT), seed=0, size=side).images
    return distinct[np.arange(count) % len(distinct)]


def _take_step(name: NetworkName, literal: bool, job: Job, folder: Path) -> Task:
    step = _Step(name, job)
    return Task(lambda: step.take(literal=literal), len(step.pairs), "pairs")


def _compute_loss(name: NetworkName, literal: bool, job: Job, folder: Path) -> Task:
    """The objective and its gradient with respect to descriptors, as the network hands them over."""
    step = _Step(name, job)
    with torch.no_grad():
        source, target, truth = step.features()
    source, target = source.detach().requires_grad_(), target.detach().requires_grad_()
    compute = step.literal_loss if literal else step.own_loss

    def run() -> Tensor:
        source.grad = target.grad = None
        loss = compute(source, target, truth)
        torch.autograd.backward(loss)
        return loss.detach()

    return Task(run, len(source), "pairs")


def _make_pairs(job: Job, folder: Path) -> Task:
    """Frames from memory, two warps and photometric changes of each, on the device."""
    config = _dve_config("smallnet", job)
    sampler, steps = _sampler(config, torch.device(job.device)), itertools.count(1)

    def run() -> None:
        sampler.batch(next(steps))

    return Task(run, config.batch_size, "pairs")


def _make_pairs_singly(job: Job, folder: Path) -> Task:
    """As many pairs, each made by itself, as loaders do that warp image by image."""
    config = _dve_config("smallnet", job)
    alone = replace(config, method="dense", batch_size=1)
    sampler, steps = _sampler(alone, torch.device(job.device)), itertools.count(1)

    def run() -> None:
        for _ in range(config.batch_size):
            sampler.batch(next(steps))

    return Task(run, config.batch_size, "pairs")


# ---- packing


def _pack_files(job: Job, folder: Path) -> Task:
    files, packs = _write_files(job.scale, folder), itertools.count()

    def run() -> None:
        out = folder / f"pack-{next(packs)}"
        pack(files[0].parent, out, Frame(job.scale.smallnet_frame), progress=False)

    return Task(run, len(files), "images")


def _frame_files_singly(job: Job, folder: Path) -> Task:
    """The same files brought to the same frame by Pillow, one after the other, as loaders do it in every epoch."""
    files, side = _write_files(job.scale, folder), job.scale.smallnet_frame

    def run() -> None:
        for path in files:
            with Image.open(path) as image:
                np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))

    return Task(run, len(files), "images")


def _decode_files(job: Job, folder: Path) -> Task:
    """The same files by Pillow alone, as small as it can make them while packing allows it, in as many threads."""
    files, least = _write_files(job.scale, folder), math.ceil(SPARE * job.scale.smallnet_frame)
    parts = [files[start : start + _TOGETHER] for start in range(0, len(files), _TOGETHER)]

    def decode(part: Sequence[Path]) -> None:
        for path in part:
            with Image.open(path) as image:
                image.draft("RGB", (least, least))
                image.load()

    def run() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(decode, parts))

    return Task(run, len(files), "images")


def _write_files(scale: Scale, folder: Path) -> list[Path]:
    images = folder / "images"
    images.mkdir()
    files = [images / f"{i:06d}.jpg" for i in range(scale.files)]
    for path, image in zip(files, _drawn(scale.files, scale.file_side), strict=True):
        Image.fromarray(image).save(path, quality=90)
    return files


# ---- inference


def _model(config: RunConfig, job: Job) -> tuple[LandmarkModel, Tensor]:
    """A model with fresh weights, and frames (B, 3, S, S) uint8 to show it."""
    model = LandmarkModel(fresh_network(config), config, device=job.device)
    images = PackedImages.from_array(_drawn(job.scale.images, config.frame.size))
    return model, images.batch(np.arange(len(images)))


def _describe(job: Job, folder: Path) -> Task:
    model, frames = _model(_dve_config("smallnet", job), job)

    def run() -> None:
        model.features(frames)

    return Task(run, len(frames), "images")


def _describe_singly(job: Job, folder: Path) -> Task:
    model, frames = _model(_dve_config("smallnet", job), job)

    def run() -> None:
        for frame in frames:
            model.features(frame[None])

    return Task(run, len(frames), "images")


def _detect(job: Job, folder: Path) -> Task:
    sizes = {"frame.size": job.scale.smallnet_frame, "pairs.margin": job.scale.sparse_margin}
    model, frames = _model(make_config(load_recipe("sparse-10").settings, sizes), job)

    def run() -> None:
        model.landmarks_of(frames)

    return Task(run, len(frames), "images")


def _match(job: Job, folder: Path) -> Task:
    """Points of one image in all others, whose descriptors are kept in half precision on the device."""
    model, frames = _model(_dve_config("smallnet", job), job)
    kept = model.features(frames).half().to(model.device)
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(1, job.scale.points, 2, generator=draw) * (min(kept.shape[-2:]) - 1)
    descriptors = matching.describe_points(kept[:1].float(), points.to(model.device))[0]

    @torch.inference_mode()
    def run() -> None:
        matching.locate(matching.similarity(descriptors, kept.float()))

    return Task(run, len(frames), "images")


TASKS: dict[str, Callable[[Job, Path], Task]] = {
    "step_smallnet_dve": partial(_take_step, "smallnet", False),
    "literal_step_smallnet_dve": partial(_take_step, "smallnet", True),
    "loss_smallnet_dve": partial(_compute_loss, "smallnet", False),
    "literal_loss_smallnet_dve": partial(_compute_loss, "smallnet", True),
    "step_hourglass_dve": partial(_take_step, "hourglass", False),
    "literal_step_hourglass_dve": partial(_take_step, "hourglass", True),
    "loss_hourglass_dve": partial(_compute_loss, "hourglass", False),
    "literal_loss_hourglass_dve": partial(_compute_loss, "hourglass", True),
    "pairs": _make_pairs,
    "pairs_singly": _make_pairs_singly,
    "pack": _pack_files,
    "pack_singly": _frame_files_singly,
    "decode": _decode_files,
    "describe": _describe,
    "describe_singly": _describe_singly,
    "detect": _detect,
    "match": _match,
}
