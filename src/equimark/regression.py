"""Named landmarks from few labels, on frozen descriptors or on the landmarks of a sparse run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from .matching import Located
from .prototypes import PrototypeRegressor, check_visible

_LEAST_CONTRIBUTION = 0.2  # 2017, section 4.3
WEIGHT_DECAY = 5e-4  # 2017, section 4.1


@dataclass(frozen=True)
class LinearRegressor:
    """Annotated landmarks from those of a sparse run: y = W x, without offset (2017, section 4.3).

    x (2K) are the landmarks found, x_0, y_0, x_1, ..., and y (2J) the annotated ones, both in normalised coordinates
    of the frame, so that 0 is its centre. Without offset, W maps the same way in any unit around that centre.

    Args:
        weights: W (2J, 2K).
    """

    kind: ClassVar[str] = "linear"
    weights: Tensor

    @property
    def landmarks(self) -> int:
        """How many it locates."""
        return len(self.weights) // 2

    @classmethod
    def fit(cls, found: Tensor, points: Tensor, *, decay: float = WEIGHT_DECAY) -> LinearRegressor:
        """The W that minimises mean |y - W x|^2 + decay |W|^2; each landmark counts on the images that show it.

        The paper trains W as it trains its networks, by gradient descent under random warps with weight decay. This
        is where that ends. Without decay, W fits the noise of the detector when images are few, most of all when
        there are as many as coordinates found.

        Args:
            found: landmarks found (N, K, 2) in normalised coordinates, on warped images.
            points: annotated landmarks (N, J, 2) there; NaN where not visible.
            decay: 0 for least squares alone; of several minimisers, W is then the smallest.

        Raises:
            ValueError: if an annotated landmark is visible in no image.
        """
        shapes, targets = found.flatten(1).double().numpy(), points.double().numpy()
        size = shapes.shape[1]
        weights = np.zeros((2 * points.shape[1], size))
        for rows, landmarks in _groups(check_visible(points, f"{len(points)} warped images").numpy()):
            wanted = targets[rows][:, landmarks].reshape(rows.sum(), -1)
            # |W|^2 is the squared error on further images, in each of which one coordinate stands alone.
            inputs = np.concatenate([shapes[rows], np.sqrt(decay * len(wanted)) * np.eye(size)])
            outputs = np.concatenate([wanted, np.zeros((size, wanted.shape[1]))])
            weights[_coordinates(landmarks)] = np.linalg.lstsq(inputs, outputs, rcond=None)[0].T
        return cls(torch.tensor(weights, dtype=found.dtype))

    def predict(self, found: Located) -> Located:
        """Annotated landmarks (B, J, 2) from those found (B, K, 2), in normalised coordinates.

        The confidence of each is the mean confidence of the landmarks found, by their contributions to it.
        """
        positions = found.positions.flatten(1) @ self.weights.mT
        confidence = found.confidence @ contributions(self.weights, least=0).mT
        return Located(positions.view(positions.shape[0], -1, 2), confidence.clamp(max=1))

    def tensors(self) -> dict[str, Tensor]:
        """What has to be kept, by name."""
        return dict(vars(self))


Regressor = PrototypeRegressor | LinearRegressor


def restore(kind: str, tensors: dict[str, Tensor]) -> Regressor:
    """The regressor of a ``kind`` that had these ``tensors``.

    Raises:
        ValueError: if there is no such kind.
    """
    kinds: dict[str, type[Regressor]] = {each.kind: each for each in (PrototypeRegressor, LinearRegressor)}
    if kind not in kinds:
        raise ValueError(f"its kind is {kind!r}, known are {', '.join(kinds)}")
    return kinds[kind](**tensors)


def contributions(weights: Tensor, *, least: float = _LEAST_CONTRIBUTION) -> Tensor:
    """How much each of K landmarks contributes to each of J regressed ones (2017, fig. 7): (J, K).

    The mean magnitude of the four weights between their coordinates, as a share of the sum over the K; shares below
    ``least`` are 0, and the others stay as they are.

    Args:
        weights: W (2J, 2K) of a :class:`LinearRegressor`.
        least: share from which on a contribution counts.
    """
    targets, sources = (size // 2 for size in weights.shape)
    magnitude = weights.abs().reshape(targets, 2, sources, 2).mean((1, 3))
    shares = F.normalize(magnitude, p=1, dim=1)
    return shares.where(shares >= least, 0)


def _coordinates(landmarks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where x and y of ``landmarks`` (n) stand in a flat shape: (2n)."""
    return np.stack([2 * landmarks, 2 * landmarks + 1], -1).ravel()


def _groups(visible: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Images and the landmarks visible in exactly these."""
    patterns, member = np.unique(visible.T, axis=0, return_inverse=True)
    for i, rows in enumerate(patterns):
        yield rows, np.flatnonzero(member.ravel() == i)
