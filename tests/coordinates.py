"""Images whose colour is their coordinate, and networks that read it: every protocol must find their points."""

import numpy as np
import torch
from torch import Tensor, nn

from equimark.config import RunConfig, make_config
from equimark.evaluation import AnnotatedFrames
from equimark.geometry import Cells
from equimark.networks import Network

SIDE = 100


class ByColour(Network):
    """Descriptors that encode the colour of a cell, of a stride and offset of its own."""

    def __init__(self, cells: Cells = Cells(1, 0.0)) -> None:  # noqa: B008 - frozen
        super().__init__(nn.Identity(), channels=12)
        self.cells = cells  # type: ignore[misc]

    def forward(self, images: Tensor) -> Tensor:
        if self.cells.stride == 2:
            images = nn.functional.avg_pool2d(images, 2)
        angles = torch.cat([images[:, :2] * frequency for frequency in (1.5, 6, 20)], 1)
        return torch.cat([angles.cos(), angles.sin()], 1)


class Fixed(Network):
    """Score maps with a sharp peak at the same cells of every image."""

    cells = Cells(2, 0.5)

    def __init__(self, peaks: list[tuple[int, int]]) -> None:
        super().__init__(nn.Identity(), channels=len(peaks))
        self.peaks = peaks

    def forward(self, images: Tensor) -> Tensor:
        scores = torch.zeros(len(images), len(self.peaks), images.shape[-2] // 2, images.shape[-1] // 2)
        for k, (x, y) in enumerate(self.peaks):
            scores[:, k, y, x] = 60
        return scores


def coordinate_images(count: int, side: int = SIDE) -> Tensor:
    """Frames (N, 3, S, S) whose red and green are the column and the row."""
    ramp = torch.linspace(0, 255, side).round().to(torch.uint8)
    image = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side).byte()])
    return image.expand(count, -1, -1, -1).contiguous()


class BySurface(Network):
    """Score maps with a peak where the colour is that of a place of the surface, found finer than a cell."""

    cells = Cells(1, 0.0)

    def __init__(self, places: np.ndarray) -> None:
        super().__init__(nn.Identity(), channels=len(places))
        self.places = torch.from_numpy(places).float()

    def forward(self, images: Tensor) -> Tensor:
        offsets = images[:, None, :2] - self.places[None, :, :, None, None]
        return -800 * offsets.square().sum(2)


class Both(Network):
    """The descriptors of :class:`ByColour`, and beside them the score maps of :class:`BySurface`."""

    cells = Cells(1, 0.0)

    def __init__(self, places: np.ndarray) -> None:
        super().__init__(nn.Identity(), channels=12)
        self.parts = ByColour(self.cells), BySurface(places)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([part(images) for part in self.parts], 1)


def moving(count: int, side: int, places: np.ndarray, seed: int = 0) -> AnnotatedFrames:
    """A surface, coloured by its coordinates in [0, 1], moved and scaled; points lie at ``places`` (K, 2) of it."""
    random = np.random.default_rng(seed)
    scales, moves = random.uniform(0.9, 1.3, (count, 1, 1, 1)), random.uniform(-0.1, 0.1, (count, 1, 1, 2))
    pixels = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1)
    surface = (pixels / (side - 1) - 0.5 - moves) / scales + 0.5
    frames = np.rint(255 * np.concatenate([surface.clip(0, 1), np.zeros((count, side, side, 1))], -1))
    points = (side - 1) * ((places - 0.5) * scales[:, 0] + moves[:, 0] + 0.5)
    return AnnotatedFrames(torch.from_numpy(frames.astype(np.uint8)).movedim(-1, 1).contiguous(), points)


def annotated(count: int, landmarks: int = 7, side: int = SIDE) -> AnnotatedFrames:
    points = np.random.default_rng(0).uniform(0.3 * side, 0.7 * side, (landmarks, 2))
    return AnnotatedFrames(coordinate_images(count, side), np.tile(points, (count, 1, 1)))


def config(**changes: object) -> RunConfig:
    return make_config({"method": "dense"}, changes)
