"""Named landmarks from few labels, on frozen descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from torch import Tensor

from .matching import Located, describe_points, locate, similarity

_PENALTIES = tuple(10.0**e for e in range(-2, 5))
_FEWEST_FOR_CORRECTION = 4


@dataclass(frozen=True)
class PrototypeRegressor:
    """Descriptor prototypes at the labelled points, and a linear correction by the shape of all of them.

    Args:
        prototypes: one descriptor per landmark (K, C): the mean over the labelled images.
        correction: matrix (2K, 2K) from the found shape, less its mean, to the error of each coordinate.
        found_mean: mean found shape (2K,) over the labelled images, in cells.
        error_mean: mean error (2K,) over the labelled images, in cells.
    """

    prototypes: Tensor
    correction: Tensor
    found_mean: Tensor
    error_mean: Tensor

    @classmethod
    def fit(cls, features: Tensor, points: Tensor) -> PrototypeRegressor:
        """Fit to labelled images.

        Args:
            features: descriptors (N, C, h, w).
            points: labels (N, K, 2) in cells; NaN where not visible.

        Raises:
            ValueError: if a landmark is visible in no image.
        """
        visible = ~points.isnan().any(-1)
        if missing := (~visible.any(0)).nonzero().flatten().tolist():
            raise ValueError(f"landmark {missing[0]} is visible in none of the {len(points)} labelled images")
        described = describe_points(features, points.nan_to_num())
        weight = visible.to(described.dtype)[..., None]
        prototypes = (described * weight).sum(0) / weight.sum(0)
        found = locate(similarity(prototypes.expand(len(features), -1, -1), features)).positions
        size = 2 * points.shape[1]
        plain = cls(prototypes, torch.zeros(size, size), torch.zeros(size), torch.zeros(size))
        if len(points) < _FEWEST_FOR_CORRECTION:
            return plain
        return cls(prototypes, *_fit_correction(found, points, visible))

    def predict(self, features: Tensor) -> Located:
        """Landmarks in ``features`` (B, C, h, w): positions (B, K, 2) in cells."""
        located = locate(similarity(self.prototypes.expand(len(features), -1, -1), features))
        found = located.positions.flatten(1)
        error = (found - self.found_mean) @ self.correction + self.error_mean
        return Located((found + error).view_as(located.positions), located.confidence)

    def tensors(self) -> dict[str, Tensor]:
        """What has to be kept, by name."""
        return dict(vars(self))


def _fit_correction(found: Tensor, points: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression, each landmark on the images that show it, with the penalty chosen by leave-one-out."""
    shapes: NDArray[np.float64] = found.flatten(1).double().numpy()
    mean = shapes.mean(0)
    errors = (points - found).double().numpy()
    count = points.shape[1]
    matrix, offset = np.zeros((2 * count, 2 * count)), np.zeros(2 * count)
    for rows, landmarks in _groups(visible.numpy()):
        if rows.sum() < _FEWEST_FOR_CORRECTION:
            continue
        columns = np.stack([2 * landmarks, 2 * landmarks + 1], -1).ravel()
        ridge = RidgeCV(alphas=_PENALTIES).fit(shapes[rows] - mean, errors[rows][:, landmarks].reshape(rows.sum(), -1))
        matrix[:, columns] = np.atleast_2d(ridge.coef_).T
        offset[columns] = ridge.intercept_
    to_tensor = torch.tensor
    dtype = found.dtype
    return to_tensor(matrix, dtype=dtype), to_tensor(mean, dtype=dtype), to_tensor(offset, dtype=dtype)


def _groups(visible: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Images and the landmarks visible in exactly these."""
    patterns, member = np.unique(visible.T, axis=0, return_inverse=True)
    for i, rows in enumerate(patterns):
        yield rows, np.flatnonzero(member.ravel() == i)
