"""Shapes of landmarks: which arrangements are likely, and the likeliest one that score maps allow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import geometry
from .matching import Located

# How much a shape varies before any label has shown it, as shares of the map's side or of the shape's size.
TRANSLATION = 0.06  # of the side
SCALE = 0.08
ROTATION = 0.08  # radians
BEND = 0.05  # of the size: neighbouring landmarks move together ...
REACH = 0.35  # ... as far as this share of the size
JITTER = 0.01  # of the size: each landmark by itself

WIDTHS = (0.28, 0.18, 0.12, 0.08, 0.06, 0.06)  # of the windows of a search, as shares of the map's side
_HIDDEN = 1e8  # variance of a position that is not given, squared cells


@dataclass(frozen=True)
class ShapePrior:
    """A Gaussian over shapes of K landmarks: x_0, y_0, x_1, ... in cells.

    It holds the covariance of the labelled shapes, shrunk as they are few, and what shapes do anyway: they move, turn
    and grow as a whole, and bend smoothly.

    Args:
        mean: (2K,).
        covariance: (2K, 2K).
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def fit(cls, shapes: Tensor, side: float) -> ShapePrior:
        """The prior that labelled ``shapes`` (N, K, 2) in cells suggest; NaN where not visible.

        Args:
            shapes: each landmark is visible in at least one; those that show nothing do not count.
            side: of the map in cells.
        """
        shapes = shapes[(~shapes.isnan().any(-1)).any(-1)].double()
        known = ~shapes.isnan().any(-1)
        mean = _mean_shape(shapes, known)
        alone = cls(mean.flatten(), _usual_covariance(mean, side))
        variance = torch.where(known, JITTER**2, _HIDDEN)
        filled = alone.condition(shapes.where(known[..., None], mean), variance).where(~known[..., None], shapes)
        count = len(shapes)
        deviations = (filled - filled.mean(0)).flatten(1)
        covariance = alone.covariance + deviations.T @ deviations / (count + 1)
        return cls(filled.mean(0).flatten(), covariance)

    def condition(self, positions: Tensor, variance: Tensor) -> Tensor:
        """The likeliest shapes (B, K, 2) when landmarks were found at ``positions``.

        Args:
            positions: (B, K, 2) in cells.
            variance: (B, K) of each coordinate of them, squared cells.
        """
        noise = torch.diag_embed(variance.repeat_interleave(2, -1))
        surprise = positions.flatten(1) - self.mean
        step = torch.linalg.solve(self.covariance + noise, surprise[..., None])[..., 0] @ self.covariance
        likeliest: Tensor = self.mean + step
        return likeliest.view_as(positions)

    def distance(self, positions: Tensor) -> Tensor:
        """The squared Mahalanobis distance (B,) of shapes (B, K, 2) in cells from the mean."""
        away = positions.double().flatten(1) - self.mean
        squared: Tensor = (torch.linalg.solve(self.covariance, away.mT).mT * away).sum(1)
        return squared


def search(prior: ShapePrior, scores: Tensor, noise: float) -> Located:
    """The shapes that score maps show, as far as the prior finds them likely.

    It looks at each map through a Gaussian window around the present guess, moves the guess to the likeliest shape
    given what the windows show, and narrows the windows.

    Args:
        prior: of K landmarks; the search begins at its mean.
        scores: (B, K, h, w), logits.
        noise: how far the peaks of score maps lie from their landmarks, in cells: the more, the more the prior says.

    Returns:
        Positions (B, K, 2) in cells; the confidence is the share of a map's probability in its last window.
    """
    size = (scores.shape[-2], scores.shape[-1])
    cells = geometry.pixel_grid(size, device=scores.device).flatten(0, 1)
    flat = scores.flatten(2)
    guess = prior.mean.to(scores).view(1, -1, 2).expand(scores.shape[0], -1, -1)
    for width in WIDTHS:
        window = _squared_distances(guess, size) / (2 * (width * max(size)) ** 2)
        shares = (flat - window).softmax(-1)
        seen = shares @ cells
        variance = (shares @ cells.square().sum(-1) - seen.square().sum(-1)).clamp_min(0) / 2
        guess = prior.condition(seen.double(), variance.double() + noise**2).to(scores)
    confidence = (flat.softmax(-1) * (-window).exp()).sum(-1)
    return Located(guess, confidence.clamp(max=1))


def _squared_distances(points: Tensor, size: geometry.Size) -> Tensor:
    """(B, K, h w): from each of ``points`` (B, K, 2) to every cell."""
    x, y = (torch.arange(n, device=points.device) for n in reversed(size))
    across, down = (points[..., :1] - x).square(), (points[..., 1:] - y).square()
    return (down[..., :, None] + across[..., None, :]).flatten(2)


def _mean_shape(shapes: Tensor, known: Tensor) -> Tensor:
    """(K, 2): the mean of each landmark over the images that show it, relative to what else they show."""
    centred = shapes - shapes.nanmean(1, keepdim=True)
    return centred.nanmean(0) + shapes.nanmean(1).mean(0)


def _usual_covariance(mean: Tensor, side: float) -> Tensor:
    """(2K, 2K): how shapes like ``mean`` (K, 2) vary anyway."""
    x, y = (mean - mean.mean(0)).T
    size = (x.square() + y.square()).mean().sqrt().clamp_min(0.05 * side)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    modes = torch.stack(
        [
            torch.stack([one, zero], -1).flatten() * TRANSLATION * side,
            torch.stack([zero, one], -1).flatten() * TRANSLATION * side,
            torch.stack([x, y], -1).flatten() * SCALE,
            torch.stack([-y, x], -1).flatten() * ROTATION,
        ]
    )
    near = torch.exp(-torch.cdist(mean, mean).square() / (2 * (REACH * size) ** 2))
    smooth = near * (BEND * size) ** 2 + torch.eye(len(mean), dtype=mean.dtype) * (JITTER * size) ** 2
    return modes.T @ modes + torch.kron(smooth, torch.eye(2, dtype=mean.dtype))
