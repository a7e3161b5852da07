"""Named landmarks from few labels, on a frozen network's descriptors and details."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from . import geometry
from .matching import Located, describe_points, similarity
from .shapes import ShapePrior, search

CONTEXT = 3  # cells: a template looks this far up, down, left and right of its landmark as well
SHRINKAGE = 0.5  # of the covariance of descriptors, divided by the square of the number of labelled images
SHARPNESS = 0.2  # of score maps: the log-ratio of two Gaussians is far too sure of itself
NOISES = (0.75, 0.25, 1.5)  # cells, of the search: the first is for a single label
FOLDS = 8  # of the labelled images, to see how wrong we are on images that we have not learned from
STAGES = 2  # of correction
ENOUGH = 10  # labelled images, to learn corrections from
PENALTIES = tuple(10.0 ** (e / 2) for e in range(-8, 9))  # relative to the mean squared length of an input
PLACE = 2.0  # of a cell, and of being there at all, beside a descriptor of length 1: what corrections go by
TOLERANCE = 0.1  # of the longer side of the mean shape: a landmark within is right
EVIDENCE = (0.25, 0.4)  # weights of both kinds of evidence, standardised: what few labels contradict by chance alone
CERTAINTY = 20.0  # of these, as the inverse of their variance
HIDDEN = 3  # labels, at least, that say "not visible": how confidence tells them from others is then learned
TOLD_APART = 0.75  # mean of the shares of visible and of hidden landmarks that are told to be so, at least
INDEPENDENT = 4  # landmarks of an image, at most, err or are right independently of each other
ALIKE = 1.0  # of the root mean square distance from the centre: shapes whose landmarks differ less are alike
_SHIFTS = ((0, 0), (-CONTEXT, 0), (CONTEXT, 0), (0, -CONTEXT), (0, CONTEXT))  # rows, columns: what a template sees
_MOST_FOR_COVARIANCE = 200  # images
_BATCH = 32

_Numbers = NDArray[np.float64]
_Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PrototypeRegressor:
    """Landmarks by templates, constrained by the shape of all, and corrected by what their places look like.

    1. The template of a landmark is its mean descriptor over the labelled images, with those around it, whitened by
       the covariance of descriptors: the linear discriminant between the landmark and everything else.
    2. :func:`equimark.shapes.search` finds the likeliest shape, with the noise that does best on labelled images that
       the templates have not seen.
    3. Ridge regressions, in stages, learn from the places found on those images, and from the descriptors there, how
       far off these are. Their penalty is the one that does best on images that they have not seen; there is no
       correction if it does not help by more than a standard error, or with fewer than ten images.
    4. A logistic regression learns, on unseen images too, how likely a landmark is there and right to within a tenth of
       the shape's longer side: the confidence.

    From one label, 3 and 4 cannot be learned: the confidence is then the share of a score map's probability
    around the landmark.

    What descriptors are called here may have details after them: see :meth:`equimark.networks.Network.hypercolumns`.

    Args:
        templates: (K, 5 C).
        offset: (K,) of the score maps.
        mean: of shapes (2K,), in cells.
        covariance: of shapes (2K, 2K).
        noise: of the search (), in cells.
        weights: of the corrections (stages, K (C + 2), 2K).
        expected: what they go by (stages, K (C + 2)), on average: descriptors at the places found, and places.
        error: (stages, 2K) of the places found, in cells, where all is as expected.
        usual: evidence for each landmark (2, K) on images that show it, on average: log-odds of the share, and score.
        spread: standard deviation (2, 1) of it, over all landmarks.
        belief: (3,) of the logistic regression: offset and weights of both, standardised.
        visible_from: confidence () from which on a landmark is rather seen than hidden, if labels that say "not
            visible" teach it; else 0.
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
    visible_from: Tensor = field(default_factory=lambda: torch.zeros(()))

    def __post_init__(self) -> None:
        inputs = _inputs(self.templates)
        if self.weights.shape[1] != inputs:
            raise ValueError(f"its corrections go by {self.weights.shape[1]} numbers, now by {inputs}: fit it anew")

    @property
    def landmarks(self) -> int:
        """How many it locates."""
        return len(self.templates)

    @property
    def channels(self) -> int:
        """C, of the features that it looks at."""
        return self.templates.shape[1] // len(_SHIFTS)

    @classmethod
    def fit(cls, features: Tensor, points: Tensor, copies: int = 1) -> PrototypeRegressor:
        """Fit to labelled images.

        Args:
            features: descriptors (N, C, h, w); half precision will do.
            points: labels (N, K, 2) in cells; NaN where not visible.
            copies: how often the rows go through all images: what is learned from one copy has seen the others.

        Raises:
            ValueError: if a landmark is visible in no image.
        """
        return cls._fit(features, points, _images(len(points), copies))[0]

    @classmethod
    def fit_mirrored(cls, features: Tensor, points: Tensor, copies: int = 1) -> tuple[PrototypeRegressor, bool]:
        """Fit to labelled images and their mirror images, if these help, and whether they did.

        They help if landmarks are then found better on labelled images that were not learned from: an image and its
        mirror image are learned from together or not at all. From a single label, they help if its shape is roughly
        its own mirror image, as that of an animal which lies askew is not.

        Args:
            features: descriptors (2N, C, h, w) of the images, then of their mirror images.
            points: labels (2N, K, 2) in cells of each; NaN where not visible.
            copies: how often the N rows go through all images, and the others through all mirror images.

        Raises:
            ValueError: if a landmark is visible in no image.
        """
        count = len(points) // 2
        own, mirrored = points[:count], points[count:]
        images = _images(count, copies)
        alone, found = cls._fit(features[:count], own, images)
        both, found_by_both = cls._fit(features, points, np.tile(images, 2))
        if found is None or found_by_both is None:
            helps = _are_alike(own[0], mirrored[0])
        else:
            helps = _mean_error(found_by_both[:count], own) < _mean_error(found, own)
        return (both, True) if helps else (alone, False)

    @classmethod
    def _fit(cls, features: Tensor, points: Tensor, group: _Rows) -> tuple[PrototypeRegressor, Tensor | None]:
        """As :meth:`fit`, and the positions (N, K, 2) found on each image by what the others teach, of several.

        Args:
            features: see :meth:`fit`.
            points: see :meth:`fit`.
            group: (N,) what is learned from an image counts as unseen by those of other numbers only.
        """
        visible = check_visible(points, f"{len(np.unique(group))} labelled images")
        whitening = _Whitening.of(features, len(np.unique(group)))
        described, side = _describe(features, points), max(features.shape[-2:])
        plain = cls._of_templates(described, points, whitening, side)
        if len(np.unique(group)) == 1:
            return plain, None
        parts = [
            (unseen, cls._of_templates(described[rest], points[rest], whitening, side))
            for rest, unseen in _folds(visible, group)
        ]
        order = torch.cat([unseen for unseen, _ in parts]).argsort()
        looks = [part._search(features[unseen]) for unseen, part in parts]
        trials = [
            (noise, _join(list(found), order)) for noise, found in zip(NOISES, zip(*looks, strict=True), strict=True)
        ]
        noise, found = min(trials, key=lambda trial: _mean_error(trial[1].positions, points))
        corrections, positions = _fit_corrections(features, found.positions, points, group)
        scores = torch.cat([part.evidence(features[unseen], positions[unseen]) for unseen, part in parts])[order]
        evidence = torch.stack([_log_odds(found.confidence), scores], 1)
        belief = _fit_belief(evidence, visible, _is_right(positions, points), images=len(np.unique(group)))
        fitted = replace(plain, noise=plain.noise.new_tensor(noise), **corrections, **belief)
        visible_from = _visible_from(fitted._believe(evidence), visible)
        return replace(fitted, visible_from=plain.noise.new_tensor(visible_from)), positions

    @classmethod
    def _of_templates(cls, described: Tensor, points: Tensor, whitening: _Whitening, side: int) -> PrototypeRegressor:
        """Without correction, and with the share as its confidence.

        Args:
            described: what is seen (N, K, 5 C) at the labels.
            points: labels (N, K, 2) in cells.
            whitening: of descriptors.
            side: of the maps, in cells.
        """
        templates, offset = whitening.discriminants(described, ~points.isnan().any(-1))
        prior = ShapePrior.fit(points, side)
        count, inputs = len(templates), _inputs(templates)
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

    def _search(self, features: Tensor) -> list[Located]:
        """What the search alone finds in ``features`` (B, C, h, w) with each of the noises."""
        maps = (self.scores(part) for (part,) in _batches(features))
        found = [[search(self._prior, scores, noise) for noise in NOISES] for scores in maps]
        return [_join(list(each)) for each in zip(*found, strict=True)]

    def predict(self, features: Tensor) -> Located:
        """Landmarks in ``features`` (B, C, h, w): positions (B, K, 2) in cells, and confidence."""
        return _join([self._predict(part) for (part,) in _batches(features)])

    def _predict(self, features: Tensor) -> Located:
        features = features[:, : self.channels]  # heads fitted by earlier versions know of no details, which come last
        scores = self.scores(features)
        found = search(self._prior, scores, float(self.noise))
        positions = found.positions
        for weights, expected, error in zip(self.weights, self.expected, self.error, strict=True):
            seen = _see(features, positions)
            positions = positions + ((seen - expected) @ weights + error).view_as(positions)
        evidence = torch.stack([_log_odds(found.confidence), _look(scores, positions)], 1)
        return Located(positions, self._believe(evidence))

    def _believe(self, evidence: Tensor) -> Tensor:
        """The confidence (B, K) that evidence (B, 2, K) is worth."""
        standard = (evidence - self.usual) / self.spread
        return (self.belief[0] + self.belief[1:] @ standard).sigmoid()

    @property
    def uncorrected(self) -> PrototypeRegressor:
        """With the search alone. Corrections know only things that stand upright: elsewhere they mislead."""
        return replace(self, weights=self.weights[:0], expected=self.expected[:0], error=self.error[:0])

    @property
    def _prior(self) -> ShapePrior:
        return ShapePrior(self.mean.double(), self.covariance.double())

    def likelihood(self, found: Located) -> Tensor:
        """How much (B,) speaks for landmarks (B, K, 2), found by :meth:`predict`, being the thing and standing upright.

        The log-odds of their confidence, less the squared Mahalanobis distance of their shape from the mean shape.
        """
        return _log_odds(found.confidence).sum(1) - self._prior.distance(found.positions)

    def scores(self, features: Tensor) -> Tensor:
        """Score maps (B, K, h, w), logits, of ``features`` (B, C, h, w)."""
        seen = _with_context(features)
        return similarity(self.templates, seen) + self.offset[:, None, None]

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
    def of(cls, features: Tensor, images: int) -> _Whitening:
        """Of ``features`` (N, C, h, w), which show so many different images."""
        chosen = features[torch.linspace(0, len(features) - 1, min(_MOST_FOR_COVARIANCE, len(features))).long()]
        mean, covariance = _moments(_with_context(part).movedim(1, -1).flatten(0, 2) for (part,) in _batches(chosen))
        ridge = SHRINKAGE / images**2 * covariance.diagonal().mean().clamp_min(1e-12)
        precision = torch.linalg.inv(covariance + ridge * torch.eye(len(covariance), dtype=torch.float64))
        return cls(mean.to(torch.float32), precision.to(torch.float32))

    def discriminants(self, described: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Templates (K, D) and offsets (K,) from what is seen (N, K, D) at labels, if ``visible`` (N, K)."""
        weight = visible.to(described.dtype)[..., None]
        difference = (described * weight).sum(0) / weight.sum(0) - self.mean
        templates = SHARPNESS * difference @ self.precision
        return templates, -templates @ self.mean


def _moments(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of the rows of all ``parts`` (M, D), in double precision."""
    count, total, products, near = 0, torch.zeros(()), torch.zeros(()), None
    for part in parts:
        near = part.mean(0) if near is None else near  # products of numbers far from 0 would lose digits
        part = part - near
        count, total = count + len(part), total + part.sum(0, dtype=torch.float64)
        products = products + (part.mT @ part).double()
    assert near is not None
    mean = total / count
    return near + mean, (products - count * torch.outer(mean, mean)) / (count - 1)


def _batches(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of ``tensors`` side by side, some at a time and in single precision."""
    for start in range(0, len(tensors[0]), _BATCH):
        yield tuple(each[start : start + _BATCH].float() for each in tensors)


def _with_context(features: Tensor) -> Tensor:
    """Descriptors (B, 5 C, h, w) of each cell of ``features`` (B, C, h, w), and of four around it."""
    height, width = features.shape[-2:]
    padded = F.pad(features, (CONTEXT,) * 4, mode="replicate")
    return torch.cat([padded[..., CONTEXT + y :, CONTEXT + x :][..., :height, :width] for y, x in _SHIFTS], 1)


def _describe(features: Tensor, points: Tensor) -> Tensor:
    """What templates see (N, K, 5 C) at ``points`` (N, K, 2) in cells of ``features`` (N, C, h, w)."""
    batches = _batches(features, points.nan_to_num())
    return torch.cat([describe_points(_with_context(part), places) for part, places in batches])


def _look(scores: Tensor, positions: Tensor) -> Tensor:
    """Of each map (B, K, h, w) the value (B, K) at its own position (B, K, 2)."""
    maps = scores.flatten(0, 1)[:, None]
    return geometry.sample(maps, positions.flatten(0, 1)[:, None]).view(positions.shape[:2])


def _see(features: Tensor, positions: Tensor) -> Tensor:
    """What corrections go by, (B, K (C + 2)): descriptors at ``positions`` (B, K, 2) in cells, and these themselves."""
    return torch.cat([describe_points(features, positions), PLACE * positions], -1).flatten(1)


def _inputs(templates: Tensor) -> int:
    """How many numbers K (C + 2) corrections go by, given templates (K, 5 C)."""
    return len(templates) * (templates.shape[1] // len(_SHIFTS) + 2)


def _log_odds(share: Tensor) -> Tensor:
    return share.clamp(1e-4, 1 - 1e-4).logit()


def _join(parts: list[Located], order: Tensor | None = None) -> Located:
    positions, confidence = torch.cat([x.positions for x in parts]), torch.cat([x.confidence for x in parts])
    return Located(positions, confidence) if order is None else Located(positions[order], confidence[order])


def _mean_error(positions: Tensor, points: Tensor) -> float:
    """Mean distance between (N, K, 2) and labels (N, K, 2)."""
    return float((positions - points).norm(dim=-1).nanmean())


def _are_alike(shape: Tensor, other: Tensor) -> bool:
    """Whether two shapes (K, 2) are the same but for a shift and small differences."""
    shape, other = shape - shape.nanmean(0), other - other.nanmean(0)
    return float((shape - other).square().nanmean().sqrt()) < ALIKE * float(shape.square().nanmean().sqrt())


def _images(rows: int, copies: int) -> _Rows:
    """The image of each row (N,), where the rows go through all images so many times."""
    return np.tile(np.arange(rows // copies), copies)


def _split(group: _Rows, seed: int) -> list[tuple[_Rows, _Rows]]:
    """Rows to learn from and rows to look at, several times; rows of one ``group`` (N,) stay together."""
    from sklearn.model_selection import KFold  # takes seconds to import, which only fitting should wait for

    each = np.unique(group)
    parts = KFold(min(FOLDS, len(each)), shuffle=True, random_state=seed).split(each)
    return [(np.flatnonzero(np.isin(group, each[a])), np.flatnonzero(np.isin(group, each[b]))) for a, b in parts]


def _folds(visible: Tensor, group: _Rows) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows to learn from and rows to look at, given which landmarks (N, K) are labelled.

    Where a landmark is labelled in none of the rows to learn from, these are all rows.
    """
    everything = torch.arange(len(visible))
    for seen, unseen in _split(group, 0):
        enough = bool(visible[seen].any(0).all())
        yield torch.from_numpy(seen) if enough else everything, torch.from_numpy(unseen)


def check_visible(points: Tensor, images: str) -> Tensor:
    """Which labels (N, K) of ``points`` (N, K, 2) are given.

    Raises:
        ValueError: if a landmark is given in none of the ``images``.
    """
    visible = ~points.isnan().any(-1)
    if missing := (~visible.any(0)).nonzero().flatten().tolist():
        raise ValueError(f"landmark {missing[0]} is visible in none of the {images}")
    return visible


def _fit_corrections(features: Tensor, found: Tensor, points: Tensor, group: _Rows) -> tuple[dict[str, Tensor], Tensor]:
    """The stages that lead from places ``found`` to ``points`` (N, K, 2), and where they lead unseen images."""
    stages = []
    for _ in range(STAGES):
        seen = torch.cat([_see(*each) for each in _batches(features, found)])
        expected = seen.mean(0)
        errors = (points - found).nan_to_num().flatten(1)  # nothing to correct where there is no label
        weights, error, unseen = map(seen.new_tensor, _fit_ridge(_array(seen - expected), _array(errors), group))
        stages.append((weights, expected, error))
        found = found + unseen.view_as(found)
    weights, expected, error = (torch.stack(kept) for kept in zip(*stages, strict=True))
    return {"weights": weights, "expected": expected, "error": error}, found


def _fit_ridge(inputs: _Numbers, errors: _Numbers, group: _Rows | None = None) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Weights (D, 2K) and offset (2K,) from inputs (N, D) to errors (N, 2K), and answers (N, 2K) on unseen images.

    The offset is penalised as the weights are: the mean error of few images is as doubtful as all else. The penalty is
    the largest that is as good on unseen images as the best. All are 0 if that does not bring these closer, or there
    are too few to tell.

    Args:
        inputs: what the errors are told by, centred.
        errors: of the places found; rows of one image err alike and count as one.
        group: (N,) the image of each row; None if each is of another.
    """
    from sklearn.linear_model import Ridge  # see _split
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    none = np.zeros((inputs.shape[1], errors.shape[1])), np.zeros(errors.shape[1]), np.zeros_like(errors)
    group = np.arange(len(inputs)) if group is None else group
    if len(np.unique(group)) < ENOUGH:
        return none
    turned, scale, axes = np.linalg.svd(inputs, full_matrices=False)  # ridge is the same in any rotation
    turned *= scale
    unit = np.square(scale).sum() / len(inputs) + PLACE**2
    folds = _split(group, 1)
    # centred on what is learned from: centred on all, few inputs would tell what the others, of unseen images, are
    centred, offset = StandardScaler(with_std=False), FunctionTransformer(_with_offset)
    ridges = [make_pipeline(centred, offset, Ridge(alpha=each * unit, fit_intercept=False)) for each in PENALTIES]
    answers = [cross_val_predict(ridge, turned, errors, cv=folds) for ridge in ridges]
    left = [_mean_lengths(errors - answer, group) for answer in answers]
    least = min(left, key=np.mean)
    best = max(i for i, lengths in enumerate(left) if _are_as_good(lengths, least))
    if _are_as_good(_mean_lengths(errors, group), left[best]):
        return none
    weights = ridges[best].fit(turned, errors)[-1].coef_.T
    return axes.T @ weights[:-1], PLACE * weights[-1], answers[best]


def _with_offset(inputs: _Numbers) -> _Numbers:
    return np.column_stack([inputs, np.full(len(inputs), PLACE)])


def _are_as_good(lengths: _Numbers, best: _Numbers) -> bool:
    """Whether errors (M,) are longer than the ``best`` by no more than a standard error of the mean difference."""
    longer = lengths - best
    return bool(longer.mean() <= longer.std(ddof=1) / len(longer) ** 0.5)


def _mean_lengths(errors: _Numbers, group: _Rows) -> _Numbers:
    """Of each of M images the mean distance in ``errors`` (N, 2K), the rows being of the images ``group`` (N,)."""
    lengths = np.linalg.norm(errors.reshape(len(errors), -1, 2), axis=-1).mean(1)
    return np.array([lengths[group == image].mean() for image in np.unique(group)])


def tolerance_of(points: Tensor) -> float:
    """How far a landmark may be from its place to be right, in cells, given labels (N, K, 2); 1 for a single one."""
    mean = (points - points.nanmean(1, keepdim=True)).nanmean(0)
    side = float((mean.amax(0) - mean.amin(0)).max())
    return TOLERANCE * side if side > 0 else 1.0


def _is_right(positions: Tensor, points: Tensor) -> Tensor:
    """Which landmarks (N, K) are there, and within tolerance of where they are."""
    right: Tensor = (positions - points).norm(dim=-1) <= tolerance_of(points)  # false where there is no label
    return right


def _fit_belief(evidence: Tensor, visible: Tensor, right: Tensor, images: int) -> dict[str, Tensor]:
    """How likely landmarks are ``right`` (N, K), given evidence (N, 2, K) that is usual where they are ``visible``.

    The rows show so many different ``images``.
    """
    shown = evidence.where(visible[:, None], torch.nan)
    usual = shown.nanmean(0)
    spread = (shown - usual).square().nanmean((0, 2)).sqrt().clamp_min(1e-3)[:, None]
    inputs = _array(((evidence - usual) / spread).movedim(1, -1).flatten(0, 1))
    belief = _fit_logistic(inputs, _array(right.flatten()), min(INDEPENDENT, right.shape[1]) * images)
    return {"usual": usual, "spread": spread, "belief": evidence.new_tensor(belief)}


def _visible_from(confidence: Tensor, visible: Tensor) -> float:
    """The confidence that tells ``visible`` (N, K) landmarks best from hidden ones; 0 with too few, or if none does.

    Args:
        confidence: (N, K) on images that were not learned from.
        visible: (N, K) by their labels.
    """
    shown, hidden = confidence[visible].sort().values, confidence[~visible].sort().values
    if len(hidden) < HIDDEN:
        return 0.0
    told_shown = 1 - torch.searchsorted(shown, shown).double() / len(shown)  # of those as sure, or surer
    told_hidden = torch.searchsorted(hidden, shown).double() / len(hidden)  # of those less sure
    told = (told_shown + told_hidden) / 2
    best = int(told.argmax())
    return float(shown[best]) if told[best] >= TOLD_APART else 0.0


def _fit_logistic(inputs: _Numbers, answers: _Numbers, worth: float) -> _Numbers:
    """Offset and weights (1 + D,) by which ``inputs`` (M, D) tell ``answers`` (M,), 0 or 1: likeliest given the usual.

    The answers together are worth as much as ``worth`` independent ones. The usual weights are Gaussian around
    :data:`EVIDENCE`; the offset is nearly free, but finite where all answers are the same.
    """
    design = np.column_stack([np.ones(len(inputs)), inputs])
    usual, certainty = np.array([0.0, *EVIDENCE]), np.array([0.1, *[CERTAINTY] * len(EVIDENCE)])
    found = usual
    for _ in range(50):  # Newton's steps; the objective is convex
        said = np.exp(-np.logaddexp(0, -design @ found))
        slope = worth / len(answers) * design.T @ (said - answers) + certainty * (found - usual)
        curvature = worth / len(answers) * (design.T * (said * (1 - said))) @ design + np.diag(certainty)
        step = np.linalg.solve(curvature, slope)
        found = found - step
        if np.abs(step).max() < 1e-9:
            break
    return found


def _array(values: Tensor) -> _Numbers:
    numbers: _Numbers = values.double().numpy()
    return numbers
