"""Named landmarks from few labels, on frozen descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_val_predict
from torch import Tensor

from . import geometry
from .matching import Located, describe_points, similarity
from .shapes import ShapePrior, search

CONTEXT = 3  # cells: a template looks this far up, down, left and right of its landmark as well
SHRINKAGE = 0.05  # of the covariance of descriptors, divided by the number of labelled images
SHARPNESS = 0.2  # of score maps: the log-ratio of two Gaussians is far too sure of itself
NOISES = (0.75, 0.25, 1.5)  # cells, of the search: the first is for a single label
FOLDS = 8  # of the labelled images, to see how wrong we are on images that we have not learned from
STAGES = 2  # of correction
PENALTIES = tuple(10.0 ** (e / 2) for e in range(-8, 5))  # relative to the mean squared length of an input
TOLERANCE = 0.1  # of the longer side of the mean shape: a landmark within is right
_MOST_FOR_COVARIANCE = 200  # images
_BATCH = 32

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class PrototypeRegressor:
    """Landmarks by templates, constrained by the shape of all, and corrected by what their places look like.

    1. The template of a landmark is its mean descriptor over the labelled images, with those around it, whitened by
       the covariance of descriptors: the linear discriminant between the landmark and everything else.
    2. :func:`equimark.shapes.search` finds the likeliest shape, with the noise that does best on labelled images that
       the templates have not seen.
    3. Ridge regressions, in stages, learn from the descriptors at the places found on those images how far off these
       are. Their penalty is the one that does best on images that they have not
       seen, or no correction if none helps, as with very few labels.
    4. A logistic regression learns, on unseen images too, how likely a landmark is there and right to within a tenth of
       the shape's longer side: the confidence.

    From one label, 3 and 4 cannot be learned: the confidence is then the share of a score map's probability
    around the landmark.

    Args:
        templates: (K, 5 C).
        offset: (K,) of the score maps.
        mean: of shapes (2K,), in cells.
        covariance: of shapes (2K, 2K).
        noise: of the search (), in cells.
        weights: of the corrections (stages, K C, 2K).
        expected: descriptors (stages, K C) at the places found, on average.
        error: (stages, 2K) of the places found, on average, in cells.
        usual: evidence for each landmark (2, K) on images that show it, on average: log-odds of the share, and score.
        spread: standard deviation (2, 1) of it, over all landmarks.
        belief: (3,) of the logistic regression: offset and weights of both, standardised.
    """

    kind: ClassVar[str] = "prototypes"
    templates: Tensor
    offset: Tensor
    mean: Tensor
    covariance: Tensor
    noise: Tensor
    weights: Tensor
    expected: Tensor
    error: Tensor
    usual: Tensor
    spread: Tensor
    belief: Tensor

    @property
    def landmarks(self) -> int:
        """How many it locates."""
        return len(self.templates)

    @classmethod
    def fit(cls, features: Tensor, points: Tensor) -> PrototypeRegressor:
        """Fit to labelled images.

        Args:
            features: descriptors (N, C, h, w); half precision will do.
            points: labels (N, K, 2) in cells; NaN where not visible.

        Raises:
            ValueError: if a landmark is visible in no image.
        """
        visible = check_visible(points, "labelled images")
        whitening = _Whitening.of(features)
        plain = cls._of_templates(features, points, whitening)
        if len(points) == 1:
            return plain
        parts = [
            (unseen, cls._of_templates(features[rest], points[rest], whitening)) for rest, unseen in _folds(visible)
        ]
        order = torch.cat([unseen for unseen, _ in parts]).argsort()
        trials = []
        for noise in map(plain.noise.new_tensor, NOISES):
            looked = [replace(part, noise=noise).predict(features[unseen]) for unseen, part in parts]
            trials.append((noise, _join(looked, order)))
        noise, found = min(trials, key=lambda trial: float((trial[1].positions - points).norm(dim=-1).nanmean()))
        corrections, positions = _fit_corrections(features, found.positions, points)
        looks = torch.cat([part.evidence(features[unseen], positions[unseen]) for unseen, part in parts])[order]
        evidence = torch.stack([_log_odds(found.confidence), looks], 1)
        belief = _fit_belief(evidence, visible, _is_right(positions, points))
        return replace(plain, noise=noise, **corrections, **belief)

    @classmethod
    def _of_templates(cls, features: Tensor, points: Tensor, whitening: _Whitening) -> PrototypeRegressor:
        """Without correction, and with the share as its confidence."""
        templates, offset = whitening.discriminants(features, points)
        prior = ShapePrior.fit(points, max(features.shape[-2:]))
        count, inputs = len(templates), points.shape[1] * features.shape[1]
        return cls(
            templates=templates,
            offset=offset,
            mean=prior.mean.to(templates),
            covariance=prior.covariance.to(templates),
            noise=templates.new_tensor(NOISES[0]),
            weights=templates.new_zeros(0, inputs, 2 * count),
            expected=templates.new_zeros(0, inputs),
            error=templates.new_zeros(0, 2 * count),
            usual=templates.new_zeros(2, count),
            spread=templates.new_ones(2, 1),
            belief=templates.new_tensor([0.0, 1.0, 0.0]),
        )

    def predict(self, features: Tensor) -> Located:
        """Landmarks in ``features`` (B, C, h, w): positions (B, K, 2) in cells, and confidence."""
        return _join([self._predict(part) for (part,) in _batches(features)])

    def _predict(self, features: Tensor) -> Located:
        scores = self.scores(features)
        found = search(ShapePrior(self.mean.double(), self.covariance.double()), scores, float(self.noise))
        positions = found.positions
        for weights, expected, error in zip(self.weights, self.expected, self.error, strict=True):
            described = describe_points(features, positions).flatten(1)
            positions = positions + ((described - expected) @ weights + error).view_as(positions)
        evidence = torch.stack([_log_odds(found.confidence), _look(scores, positions)], 1)
        standard = (evidence - self.usual) / self.spread
        return Located(positions, (self.belief[0] + self.belief[1:] @ standard).sigmoid())

    def scores(self, features: Tensor) -> Tensor:
        """Score maps (B, K, h, w), logits, of ``features`` (B, C, h, w)."""
        seen = _with_context(features)
        return similarity(self.templates.expand(len(seen), -1, -1), seen) + self.offset[:, None, None]

    def evidence(self, features: Tensor, positions: Tensor) -> Tensor:
        """Scores (B, K) at ``positions`` (B, K, 2) in cells of ``features`` (B, C, h, w)."""
        return torch.cat([_look(self.scores(part), places) for part, places in _batches(features, positions)])

    def tensors(self) -> dict[str, Tensor]:
        """What has to be kept, by name."""
        return dict(vars(self))


@dataclass(frozen=True)
class _Whitening:
    """Mean (D,) and inverse covariance (D, D) of descriptors with context, over all cells of images."""

    mean: Tensor
    precision: Tensor

    @classmethod
    def of(cls, features: Tensor) -> _Whitening:
        """Of ``features`` (N, C, h, w)."""
        chosen = features[torch.linspace(0, len(features) - 1, min(_MOST_FOR_COVARIANCE, len(features))).long()]
        cells = torch.cat([_with_context(part).movedim(1, -1).flatten(0, 2) for (part,) in _batches(chosen)])
        covariance = torch.cov(cells.mT).double()
        ridge = SHRINKAGE / len(features) * covariance.diagonal().mean().clamp_min(1e-12)
        precision = torch.linalg.inv(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))
        return cls(cells.mean(0), precision.to(cells.dtype))

    def discriminants(self, features: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Templates (K, D) and offsets (K,) of points (N, K, 2) in cells of ``features`` (N, C, h, w)."""
        visible = ~points.isnan().any(-1)
        batches = _batches(features, points.nan_to_num())
        described = torch.cat([describe_points(_with_context(part), places) for part, places in batches])
        weight = visible.to(described.dtype)[..., None]
        difference = (described * weight).sum(0) / weight.sum(0) - self.mean
        templates = SHARPNESS * difference @ self.precision
        return templates, -templates @ self.mean


def _batches(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of ``tensors`` side by side, some at a time and in single precision."""
    for start in range(0, len(tensors[0]), _BATCH):
        yield tuple(each[start : start + _BATCH].float() for each in tensors)


def _with_context(features: Tensor) -> Tensor:
    """Descriptors (B, 5 C, h, w) of each cell of ``features`` (B, C, h, w), and of four around it."""
    height, width = features.shape[-2:]
    padded = F.pad(features, (CONTEXT,) * 4, mode="replicate")
    shifts = ((0, 0), (-CONTEXT, 0), (CONTEXT, 0), (0, -CONTEXT), (0, CONTEXT))
    return torch.cat([padded[..., CONTEXT + y :, CONTEXT + x :][..., :height, :width] for y, x in shifts], 1)


def _look(scores: Tensor, positions: Tensor) -> Tensor:
    """Of each map (B, K, h, w) the value (B, K) at its own position (B, K, 2)."""
    maps = scores.flatten(0, 1)[:, None]
    return geometry.sample(maps, positions.flatten(0, 1)[:, None]).view(positions.shape[:2])


def _log_odds(share: Tensor) -> Tensor:
    return share.clamp(1e-4, 1 - 1e-4).logit()


def _join(parts: list[Located], order: Tensor | None = None) -> Located:
    positions, confidence = torch.cat([x.positions for x in parts]), torch.cat([x.confidence for x in parts])
    return Located(positions, confidence) if order is None else Located(positions[order], confidence[order])


def _folds(visible: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows to learn from and rows to look at, given which landmarks (N, K) are labelled.

    Where a landmark is labelled in none of the rows to learn from, these are all rows.
    """
    everything = torch.arange(len(visible))
    for seen, unseen in KFold(min(FOLDS, len(visible)), shuffle=True, random_state=0).split(everything.numpy()):
        enough = bool(visible[seen].any(0).all())
        yield torch.from_numpy(seen) if enough else everything, torch.from_numpy(unseen)


def check_visible(points: Tensor, images: str) -> Tensor:
    """Which labels (N, K) of ``points`` (N, K, 2) are given.

    Raises:
        ValueError: if a landmark is given in none of the ``images``.
    """
    visible = ~points.isnan().any(-1)
    if missing := (~visible.any(0)).nonzero().flatten().tolist():
        raise ValueError(f"landmark {missing[0]} is visible in none of the {len(points)} {images}")
    return visible


def _fit_corrections(features: Tensor, found: Tensor, points: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The stages that lead from places ``found`` to ``points`` (N, K, 2), and where they lead unseen images."""
    stages = []
    for _ in range(STAGES):
        described = torch.cat([describe_points(*each) for each in _batches(features, found)]).flatten(1)
        expected = described.mean(0)
        errors = (points - found).nan_to_num().flatten(1)  # nothing to correct where there is no label
        weights, error, unseen = map(described.new_tensor, _fit_ridge(_array(described - expected), _array(errors)))
        stages.append((weights, expected, error))
        found = found + unseen.view_as(found)
    weights, expected, error = (torch.stack(kept) for kept in zip(*stages, strict=True))
    return {"weights": weights, "expected": expected, "error": error}, found


def _fit_ridge(inputs: _Numbers, errors: _Numbers) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Weights (D, 2K) and offset (2K,) from inputs (N, D) to errors (N, 2K), and answers (N, 2K) on unseen images."""
    turned, scale, axes = np.linalg.svd(inputs, full_matrices=False)  # ridge is the same in any rotation
    turned *= scale
    unit = np.square(scale).sum() / len(inputs) or 1.0
    folds = KFold(min(FOLDS, len(inputs)), shuffle=True, random_state=1)
    answers = [cross_val_predict(Ridge(alpha=each * unit), turned, errors, cv=folds) for each in PENALTIES]
    left = [np.linalg.norm((errors - answer).reshape(len(errors), -1, 2), axis=-1).mean() for answer in answers]
    best = int(np.argmin(left))
    if left[best] >= np.linalg.norm(errors.reshape(len(errors), -1, 2), axis=-1).mean():
        return np.zeros((inputs.shape[1], errors.shape[1])), np.zeros(errors.shape[1]), np.zeros_like(errors)
    ridge = Ridge(alpha=PENALTIES[best] * unit).fit(turned, errors)
    return axes.T @ ridge.coef_.T, ridge.intercept_, answers[best]


def _is_right(positions: Tensor, points: Tensor) -> Tensor:
    """Which landmarks (N, K) are there, and within tolerance of where they are."""
    mean = (points - points.nanmean(1, keepdim=True)).nanmean(0)
    side = (mean.amax(0) - mean.amin(0)).max()
    tolerance = TOLERANCE * side if side > 0 else 1.0
    right: Tensor = (positions - points).norm(dim=-1) <= tolerance  # false where there is no label
    return right


def _fit_belief(evidence: Tensor, visible: Tensor, right: Tensor) -> dict[str, Tensor]:
    """How likely landmarks are ``right`` (N, K), given evidence (N, 2, K) that is usual where they are ``visible``."""
    shown = evidence.where(visible[:, None], torch.nan)
    usual = shown.nanmean(0)
    spread = (shown - usual).square().nanmean((0, 2)).sqrt().clamp_min(1e-3)[:, None]
    inputs = _array(((evidence - usual) / spread).movedim(1, -1).flatten(0, 1))
    answers = right.flatten().numpy()
    if answers.all() or not answers.any():
        odds = (answers.sum() + 1) / (len(answers) - answers.sum() + 1)
        belief = [float(np.log(odds)), 0.0, 0.0]
    else:
        logistic = LogisticRegression().fit(inputs, answers)
        belief = [float(logistic.intercept_[0]), *map(float, logistic.coef_[0])]
    return {"usual": usual, "spread": spread, "belief": evidence.new_tensor(belief)}


def _array(values: Tensor) -> _Numbers:
    numbers: _Numbers = values.double().numpy()
    return numbers
