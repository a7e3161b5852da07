"""What a model computes from images, as one module: a graph that can be handed to other programs.

Each takes images (B, 3, H, W) in [0, 1] and answers with a tuple of tensors. They say with tensors alone what
:class:`equimark.model.LandmarkModel` does on the way from frames to answers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import detection, directions, geometry
from .matching import Located
from .networks import Network, look_twice
from .prototypes import PrototypeRegressor
from .regression import LinearRegressor

# Of the inversion of a matrix; each doubles the digits: enough for condition numbers up to 500,000.
_STEPS = 24

Outputs = tuple[Tensor, ...]


class _Graph(nn.Module):
    """Of what the margin leaves of images."""

    def __init__(self, network: Network, margin: int) -> None:
        super().__init__()
        self.network = network
        self.margin = margin

    def look(self, images: Tensor) -> Tensor:
        """The network's output."""
        within = images[..., self.margin : -self.margin, self.margin : -self.margin] if self.margin else images
        found: Tensor = self.network(within)
        return found


class Descriptors(_Graph):
    """Images (B, 3, H, W) to network output (B, C, h, w), looked at twice as :meth:`LandmarkModel.features` does."""

    def forward(self, images: Tensor) -> Outputs:
        """Descriptors or scores, alone in a tuple."""
        found = look_twice(self.network, images, self.margin, self.network.cells.stride)
        return (found[:, : self.network.channels],)


class Hypercolumns(_Graph):
    """Images (B, 3, H, W) to descriptors and details (B, C + D, h, w), as :meth:`LandmarkModel.hypercolumns` does."""

    def forward(self, images: Tensor) -> Outputs:
        """Hypercolumns, alone in a tuple."""
        return (look_twice(self.network.hypercolumns, images, self.margin, self.network.cells.stride),)


class Landmarks(_Graph):
    """Images (B, 3, H, W) to the K landmarks of a run's own (B, K, 2) in pixels, and their confidence (B, K)."""

    def __init__(self, network: Network, margin: int, landmarks: int) -> None:
        super().__init__(network, margin)
        self.landmarks = landmarks

    def forward(self, images: Tensor) -> Outputs:
        """Positions and confidence."""
        found = detection.detect(self.look(images)[:, -self.landmarks :])
        return self.network.cells.to_pixels(found.positions) + self.margin, found.confidence


class Both(nn.Module):
    """Images (B, 3, H, W) to the descriptors of a run, its own landmarks and their confidence."""

    def __init__(self, descriptors: Descriptors, landmarks: Landmarks) -> None:
        super().__init__()
        self.descriptors = descriptors
        self.landmarks = landmarks

    def forward(self, images: Tensor) -> Outputs:
        """Descriptors, positions and confidence."""
        described: Outputs = self.descriptors(images)
        return (*described, *self.landmarks(images))


class Supervised(_Graph):
    """Frames (B, 3, S, S) to the landmarks of a supervised run (B, K, 2) in pixels."""

    def __init__(self, network: Network, margin: int, size: int) -> None:
        super().__init__(network, margin)
        self.side = size - 2 * margin

    def forward(self, images: Tensor) -> Outputs:
        """Positions, alone in a tuple."""
        return (geometry.denormalise(self.look(images), (self.side, self.side)) + self.margin,)


class FromLandmarks(nn.Module):
    """Frames (B, 3, S, S) to named landmarks (B, J, 2) in pixels by way of a sparse run's, and confidence (B, J)."""

    def __init__(self, landmarks: Landmarks, regressor: LinearRegressor, size: int) -> None:
        super().__init__()
        self.landmarks = landmarks
        self.regressor = regressor
        self.size = (size, size)

    def forward(self, images: Tensor) -> Outputs:
        """Positions and confidence."""
        positions, confidence = self.landmarks(images)
        found = self.regressor.predict(Located(geometry.normalise(positions, self.size), confidence))
        return geometry.denormalise(found.positions, self.size), found.confidence


class FromDescriptors(nn.Module):
    """Frames (B, 3, S, S) to named landmarks (B, K, 2) in pixels by prototypes, and confidence (B, K)."""

    def __init__(self, hypercolumns: Hypercolumns, regressor: PrototypeRegressor) -> None:
        super().__init__()
        self.hypercolumns = hypercolumns
        self.regressor = regressor

    def forward(self, images: Tensor) -> Outputs:
        """Positions and confidence."""
        with _WithoutSolver():
            found = self.locate(images)
        return self.hypercolumns.network.cells.to_pixels(found.positions), found.confidence

    def locate(self, images: Tensor) -> Located:
        """In cells."""
        return self.locate_upright(self.regressor, images)

    def locate_upright(self, regressor: PrototypeRegressor, images: Tensor) -> Located:
        """In cells, by one look."""
        (columns,) = self.hypercolumns(images)
        return regressor._predict(columns)  # of a batch of any size, without a loop


class FromDescriptorsTurned(FromDescriptors):
    """As :class:`FromDescriptors`, of things in any direction: :func:`equimark.directions.locate`."""

    def locate(self, images: Tensor) -> Located:
        """In cells."""
        frames = (images * 255).round().to(torch.uint8)
        mean_shape, cells = self.regressor.mean.view(-1, 2), self.hypercolumns.network.cells
        glance, look = (partial(self._look, each) for each in (self.regressor.uncorrected, self.regressor))
        return directions.locate(frames, glance, look, self.regressor.likelihood, mean_shape, cells)

    def _look(self, regressor: PrototypeRegressor, frames: Tensor) -> Located:
        return self.locate_upright(regressor, frames.float() / 255)


class _WithoutSolver(TorchFunctionMode):
    """While it lasts, linear systems are solved by :func:`solve`: ONNX knows no solver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return solve(*args) if func is torch.linalg.solve else func(*args, **(kwargs or {}))


def solve(matrices: Tensor, right: Tensor) -> Tensor:
    """The solutions (..., n, m) x of A x = b, by products of matrices alone (Newton and Schulz's iteration).

    Args:
        matrices: A (..., n, n), symmetric and positive definite.
        right: b (..., n, m).
    """
    scale = matrices.diagonal(dim1=-2, dim2=-1).rsqrt()[..., None]
    scaled = scale * matrices * scale.mT
    bound = scaled.abs().sum(-1).amax(-1)[..., None, None]  # of the eigenvalues
    inverse = torch.eye(matrices.shape[-1], dtype=matrices.dtype) / bound
    for _ in range(_STEPS):
        inverse = 2 * inverse - inverse @ scaled @ inverse
    return scale * (inverse @ (scale * right))
