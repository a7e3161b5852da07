"""Landmarks regressed from virtual points: the landmark regression of DVE (2019, section 4.1).

Filters of one cell turn frozen descriptors into heat maps, a soft-argmax turns these into *virtual points*, and a
linear map without offset turns these into annotated landmarks. Filters and maps are learned from labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from . import geometry
from .detection import detect
from .matching import Located, similarity
from .progress import progress_bar

_HEAT_VALUES = 2**25  # of heat maps that are held at a time: 128 MB


@dataclass(frozen=True)
class VirtualPointSpec:
    """How virtual points are learned; the defaults are those of the released code.

    Args:
        points: virtual points of each annotated landmark, or of all of them.
        shared: let all annotated landmarks use the same virtual points, as the paper words it, instead of having
            their own each, as in the released code.
        temperature: by which the products of filters and descriptors are multiplied before the softmax.
        loss_scale: by which normalised coordinates are multiplied before the smooth L1 loss.
        epochs: passes over the images.
        batch_size: images in a step.
        lr: learning rate.
        weight_decay: L2 penalty.
        milestones: shares of the epochs after which the learning rate falls to a tenth.
    """

    points: int = 50
    shared: bool = False
    temperature: float = 100.0
    loss_scale: float = 10.0
    epochs: int = 300
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 5e-4
    milestones: tuple[float, ...] = (100 / 300, 250 / 300)

    def __post_init__(self) -> None:
        for name in ("points", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of virtual points must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class VirtualPointRegressor:
    """Filters, and the maps from virtual points to annotated landmarks.

    Args:
        filters: (G, V, C): V filters of each of the K annotated landmarks (G = K), or of all of them (G = 1).
        maps: (K, 2, 2V), from x and y of the V virtual points, in turn, to x and y of the landmark, all in
            normalised coordinates of the feature map.
        temperature: of the soft-argmax, a scalar.
    """

    kind: ClassVar[str] = "virtual-points"
    filters: Tensor
    maps: Tensor
    temperature: Tensor

    @property
    def landmarks(self) -> int:
        """How many it locates."""
        return len(self.maps)

    @classmethod
    def fit(
        cls,
        features: Tensor,
        points: Tensor,
        spec: VirtualPointSpec = VirtualPointSpec(),
        *,
        seed: int = 0,
        epoch_images: int | None = None,
        device: torch.device | str = "cpu",
        progress: bool = False,
    ) -> VirtualPointRegressor:
        """Learn from labelled images.

        Args:
            features: descriptors (N, C, h, w), of single or half precision; those of a batch at a time go to the
                device.
            points: labels (N, K, 2) in cells; NaN where not visible.
            spec: how to learn.
            seed: of the first weights and of the order of the images.
            epoch_images: how many images an epoch takes: the N are repeated, so that few labels are learned from
                in as many steps as all of them, as in the released code. All N once if absent.
            device: on which to learn.
            progress: show a progress bar.

        Raises:
            ValueError: if a landmark is visible in no image, or the loss is not finite.
        """
        if (unseen := points.isnan().any(-1).all(0)).any():
            raise ValueError(f"landmark {int(unseen.int().argmax())} is visible in none of {len(points)} images")
        generator = torch.Generator().manual_seed(seed)
        parts = _first_weights(features.shape[1], points.shape[1], spec, generator)
        filters, maps = (part.to(device).requires_grad_() for part in parts)
        regressor = cls(filters, maps, torch.tensor(spec.temperature, device=device))
        targets = geometry.normalise(points, (features.shape[-2], features.shape[-1]))
        repeats = max(1, (epoch_images or 0) // len(features))
        _learn(regressor, features, targets, torch.arange(len(features)).repeat(repeats), spec, generator, progress)
        return cls(**{name: value.detach().cpu() for name, value in regressor.tensors().items()})

    def predict(self, features: Tensor) -> Located:
        """Landmarks in ``features`` (B, C, h, w), of the size fitted on: positions (B, K, 2) in cells.

        The confidence of a landmark is the mean confidence of its virtual points: see
        :func:`equimark.detection.detect`.
        """
        found = [
            detect(self._scores(part))
            for part in torch.split(features.to(self.filters), self._images_at_a_time(features))
        ]
        size = (features.shape[-2], features.shape[-1])
        virtual = geometry.normalise(torch.cat([part.positions for part in found]), size)
        confidence = torch.cat([part.confidence for part in found]).view(len(features), len(self.filters), -1).mean(-1)
        positions = geometry.denormalise(self._map(virtual), size)
        return Located(positions, confidence.expand(-1, self.landmarks))

    def tensors(self) -> dict[str, Tensor]:
        """What has to be kept, by name."""
        return dict(vars(self))

    def regress(self, features: Tensor) -> Tensor:
        """Landmarks (B, K, 2) of ``features`` (B, C, h, w), in normalised coordinates of the feature map."""
        virtual = geometry.soft_argmax(geometry.spatial_softmax(self._scores(features)))
        return self._map(geometry.normalise(virtual, (features.shape[-2], features.shape[-1])))

    def _scores(self, features: Tensor) -> Tensor:
        """Logits (B, G * V, h, w)."""
        filters = self.temperature * self.filters.flatten(0, 1)
        return similarity(filters, features)

    def _map(self, virtual: Tensor) -> Tensor:
        """Landmarks (B, K, 2) from virtual points (B, G * V, 2)."""
        flat = virtual.reshape(len(virtual), len(self.filters), -1).expand(-1, self.landmarks, -1)
        return torch.einsum("bkv,kcv->bkc", flat, self.maps)

    def _images_at_a_time(self, features: Tensor) -> int:
        maps = len(self.filters) * self.filters.shape[1]
        return max(1, _HEAT_VALUES // (maps * features.shape[-2] * features.shape[-1]))


def _first_weights(
    channels: int, landmarks: int, spec: VirtualPointSpec, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Filters from N(0, 1), maps uniform within one over the root of their inputs, as torch's linear layers have."""
    filters = torch.randn(1 if spec.shared else landmarks, spec.points, channels, generator=generator)
    bound = (2 * spec.points) ** -0.5
    return filters, (2 * torch.rand(landmarks, 2, 2 * spec.points, generator=generator) - 1) * bound


def _learn(
    regressor: VirtualPointRegressor,
    features: Tensor,
    targets: Tensor,
    images: Tensor,
    spec: VirtualPointSpec,
    generator: torch.Generator,
    progress: bool,
) -> None:
    """Move the weights of ``regressor`` in place: ``spec.epochs`` passes over ``images``, rows of the features."""
    optimiser = torch.optim.Adam(
        [regressor.filters, regressor.maps], spec.lr, weight_decay=spec.weight_decay, amsgrad=True
    )
    milestones = [round(share * spec.epochs) for share in spec.milestones]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, milestones)
    steps = spec.epochs * -(-len(images) // spec.batch_size)
    with progress_bar("fitting", steps, unit=None, shown=progress) as advance:
        for _ in range(spec.epochs):
            for rows in torch.split(images[torch.randperm(len(images), generator=generator)], spec.batch_size):
                optimiser.zero_grad()
                parts = _parts(regressor, features, targets, rows)
                loss = torch.stack([_add_gradient(regressor, part, spec) for part in parts]).sum()
                optimiser.step()
                advance()
            schedule.step()
            if not loss.isfinite():
                raise ValueError("the loss of the virtual points is not finite: are the descriptors?")
            advance(0, note=f"loss {float(loss):.4g}")


def _parts(
    regressor: VirtualPointRegressor, features: Tensor, targets: Tensor, rows: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Descriptors (b, C, h, w), targets (b, K, 2) and weights (b, K, 1) of as many images as fit into memory.

    An image that a batch holds several times, as where labels are few, is looked at once, and weighs as many times.
    The weights of all parts of a batch sum to 1/2: the loss is the mean over visible coordinates, of the batch.
    """
    images, times = torch.unique(rows, return_counts=True)
    shown = ~targets[images].isnan().any(-1, keepdim=True) * times[:, None, None]
    weights = shown / (2 * shown.sum().clamp_min(1))
    at_a_time = regressor._images_at_a_time(features)
    device = regressor.filters.device
    for part, weight in zip(torch.split(images, at_a_time), torch.split(weights, at_a_time), strict=True):
        yield (
            features[part].to(device, regressor.filters.dtype),
            targets[part].nan_to_num().to(device),
            weight.to(device),
        )


def _add_gradient(
    regressor: VirtualPointRegressor, part: tuple[Tensor, Tensor, Tensor], spec: VirtualPointSpec
) -> Tensor:
    """Add the gradient of the loss of some images of a batch; the loss."""
    features, targets, weights = part
    predicted = regressor.regress(features)
    errors = F.smooth_l1_loss(predicted * spec.loss_scale, targets * spec.loss_scale, reduction="none")
    loss = (errors * weights).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()
