"""Drawn animals seen from above, in any direction, and a network that sees their colours."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from equimark import geometry
from equimark.config import RunConfig
from equimark.geometry import Cells, Frame
from equimark.model import LandmarkModel
from equimark.networks import Network
from equimark.pairs import PairSpec
from equimark.warps import PRESETS

SIDE = 80
SHAPE = torch.tensor([[0.0, -20.0], [14.0, 3.0], [-9.0, 12.0], [2.0, 25.0]])  # no symmetry, x right, y down
PAINTS = torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0], [0.1, 0.1, 1.0]])  # the last two are alike


class Colours(Network):
    """Descriptors that are the colours of an image."""

    cells = Cells(2, 0.5)

    def __init__(self) -> None:
        super().__init__(nn.Identity(), channels=3)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 2) - 0.5


def colour_model() -> LandmarkModel:
    """A model whose descriptors are colours."""
    pairs = PairSpec(10, *PRESETS["dve"])
    return LandmarkModel(Colours(), RunConfig(method="dve", frame=Frame(SIDE), pairs=pairs))


def turned(angles: list[float], centre: float = 0.0) -> Tensor:
    """Copies of SHAPE (N, 4, 2) turned by ``angles``, literally."""
    z = torch.view_as_complex(SHAPE.contiguous())
    copies = [torch.view_as_real(z * complex(math.cos(a), math.sin(a))) + centre for a in angles]
    return torch.stack(copies)


def animals(count: int, *, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Frames (N, 3, S, S) of four spots in any direction, and where they are (N, 4, 2)."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-math.pi, math.pi, count)
    points = turned(angles.tolist(), (SIDE - 1) / 2) + torch.from_numpy(rng.normal(0, 1, (count, 1, 2))).float()
    squared = (geometry.pixel_grid((SIDE, SIDE)) - points[:, :, None, None]).square().sum(-1)
    painted = torch.einsum("nkhw,kc->nchw", torch.exp(-squared / 18), PAINTS)
    return (255 * painted.clamp(max=1)).round().to(torch.uint8), points.double().numpy()
