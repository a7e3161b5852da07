"""Landmarks that change places in a mirror: in pairs, declared or shown by labels, and labels that exchange them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .config import nearest
from .landmarks import Floats, LandmarkError, few, quote
from .matching import Located

Pair = tuple[str | int, str | int]
_Shapes = NDArray[np.complex128]

CLEARLY = 4.0  # times smaller: the squared distances that make labels fit better with a pair exchanged
UNUSUAL = 9.0  # times the median over the images: squared distances that need an explanation
TOO_NEAR = 0.25  # of their usual distance: landmarks of a pair found nearer are probably found at one place
ITSELF = 0.1  # of that distance, root mean square: a shape that lies as near to its mirror image is its own
_SLACK = 0.02  # of the root mean square distance from the centre: within, a label is always as good as another
_ROUNDS = 5  # in which shapes are aligned to their median
_AXES = 36  # of reflection that are tried
_LEAST = 3  # labelled images: of two that differ, neither is the odd one

# A side in a name: the word anywhere, or its first letter apart from others (l_eye, eye-L, eyeL, lEye).
_SIDE = re.compile(
    r"left|right|LEFT|RIGHT|Left|Right|(?<![A-Za-z])[lrLR](?![A-Za-z])|(?<=[a-z])[LR](?![A-Za-z])|\b[lr](?=[A-Z])"
)
_OTHER_SIDE = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_OTHER_SIDE |= {right: left for left, right in _OTHER_SIDE.items()}


@dataclass(frozen=True)
class Symmetry:
    """Which landmark becomes which in a mirror.

    Args:
        partner: of each of K landmarks the one on the other side; on the midline, itself.

    Raises:
        LandmarkError: if a landmark is not the partner of its partner.
    """

    partner: tuple[int, ...]

    def __post_init__(self) -> None:
        for k, other in enumerate(self.partner):
            if not 0 <= other < len(self.partner) or self.partner[other] != k:
                raise LandmarkError(f"landmark {k} has partner {other}, which is not the partner of {k}")

    @classmethod
    def of_pairs(cls, pairs: Sequence[Pair], labels: Sequence[str]) -> Symmetry:
        """The symmetry of landmarks with these ``labels``, of which the two of a pair are named or numbered.

        Raises:
            LandmarkError: if a landmark is not there, stands in two pairs, or is paired with itself.
        """
        partner = list(range(len(labels)))
        for pair in pairs:
            if len(pair) != 2 or isinstance(pair, str):
                raise LandmarkError(f"two landmarks make a symmetric pair, got {pair!r}")
            a, b = (_find(each, labels) for each in pair)
            if a == b:
                raise LandmarkError(
                    f"landmark {quote(labels[a])} is paired with itself; leave out those on the midline"
                )
            for k in (a, b):
                if partner[k] != k:
                    raise LandmarkError(f"landmark {quote(labels[k])} stands in two symmetric pairs")
            partner[a], partner[b] = b, a
        return cls(tuple(partner))

    @classmethod
    def parse(cls, text: str, labels: Sequence[str], points: Floats) -> Symmetry:
        """The symmetry that ``left eye=right eye, left ear=right ear`` declares.

        ``auto`` takes it from the names, or if no two of them are of a left and a right one, from the labelled shapes.

        Args:
            text: what is declared.
            labels: names or numbers of K landmarks.
            points: labels (N, K, 2) in pixels of the images; NaN where not visible.

        Raises:
            LandmarkError: as :meth:`of_pairs`, or if the text says something else, or names and shapes say nothing.
        """
        if text.strip() == "auto":
            told: Sequence[Pair] = pairs_of_names(labels) or pairs_of_shapes(points)
            if not told:
                raise LandmarkError(
                    f"no two of the landmarks {few(labels)} have names of a left and a right one, and the labelled "
                    "shapes are not clearly their own mirror images; write the pairs as "
                    "'left eye=right eye, left ear=right ear', by name or by number"
                )
            return cls.of_pairs(told, labels)
        pairs = [tuple(side.strip() for side in part.split("=")) for part in text.split(",") if part.strip()]
        if not pairs or any(len(pair) != 2 for pair in pairs):
            raise LandmarkError(
                f"symmetric pairs are written 'left eye=right eye, left ear=right ear', got {quote(text)}"
            )
        return cls.of_pairs([(a, b) for a, b in pairs], labels)

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Each pair once, the lower number first."""
        return tuple((k, other) for k, other in enumerate(self.partner) if k < other)

    def mirror(self, points: Floats, width: float) -> Floats:
        """Landmarks (..., K, 2) of the mirror image, given those of an image of ``width`` pixels."""
        mirrored = points[..., list(self.partner), :].copy()
        mirrored[..., 0] = width - 1 - mirrored[..., 0]
        return mirrored


def pairs_of_names(labels: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The pairs of landmarks whose names differ by left and right, or l and r, in this order."""
    known = set(labels)
    others = {label: _SIDE.sub(lambda side: _OTHER_SIDE[side[0]], label) for label in labels}
    found: list[tuple[str, str]] = []
    for label, other in others.items():
        if other != label and other in known and (other, label) not in found:
            found.append((label, other))
    return tuple(found)


def pairs_of_shapes(points: Floats) -> tuple[tuple[int, int], ...]:
    """The pairs of landmarks that change places when the usual labelled shape is laid onto its mirror image.

    There are none unless it then nearly coincides with itself, and does so in one way only, as a square does not. Few
    faces seen from the side are not symmetric enough; the usual shape of several faces is.

    Args:
        points: labels (N, K, 2) in pixels of the images; NaN where not visible.
    """
    shapes = points[..., 0] + 1j * points[..., 1]
    usual = _usual_shape(shapes)
    if not np.isfinite(usual).all():
        return ()
    usual = usual - usual.mean()
    near = ITSELF**2 * np.square(np.abs(usual)).mean()
    tried = dict(_reflect(usual, angle) for angle in np.arange(_AXES) * (2 * np.pi / _AXES))
    partners = [np.array(partner) for partner, misfit in tried.items() if misfit <= near]
    if len(partners) != 1 or (partners[0][partners[0]] != np.arange(len(usual))).any():
        return ()
    return Symmetry(tuple(partners[0].tolist())).pairs


def _reflect(shape: _Shapes, angle: float) -> tuple[tuple[int, ...], float]:
    """Which landmark of a centred shape (K,) each becomes when it is mirrored, and by how much it then misses it.

    The mirror image lies at ``angle`` first, and then as near as it can to the landmarks that it has come to lie on.

    Returns:
        The landmarks, and the mean squared distance to them.
    """
    from scipy.optimize import linear_sum_assignment  # a third of a second to import, which few need

    factor = np.exp(1j * angle)
    for _ in range(_ROUNDS):
        mirrored = factor * shape.conj()
        partner = linear_sum_assignment(np.square(np.abs(mirrored[:, None] - shape)))[1]
        factor = np.exp(1j * np.angle((shape * shape[partner]).sum()))
    misfit = np.square(np.abs(factor * shape.conj() - shape[partner])).mean()
    return tuple(partner.tolist()), float(misfit)


def _find(which: str | int, labels: Sequence[str]) -> int:
    if isinstance(which, str) and which in labels:
        return list(labels).index(which)
    if str(which).isdecimal() and int(which) < len(labels):
        return int(which)
    raise LandmarkError(
        f"no landmark {quote(str(which))}{nearest(str(which), labels)}; there are {few(labels)}, or the numbers 0 to "
        f"{len(labels) - 1}"
    )


# ---- labels that have a pair exchanged ------------------------------------------------------------------------


@dataclass(frozen=True)
class Swap:
    """Labels of an image that fit the others better with pairs exchanged.

    Args:
        row: of the image.
        pairs: that seem to be exchanged.
        whole: whether these are all pairs that the image shows, of several: the image is labelled as its mirror image.
    """

    row: int
    pairs: tuple[tuple[int, int], ...]
    whole: bool


def find_swaps(points: Floats, symmetry: Symmetry) -> list[Swap]:
    """The images whose labels have pairs exchanged.

    The usual shape is the median of all, aligned by similarities. Of each image those pairs are exchanged that let its
    shape fit the usual one best. An exchanged pair counts if it then lies clearly nearer to its usual places, and was
    farther off than is usual for this pair. What is left or right in most images is taken as right.

    Args:
        points: labels (N, K, 2) in pixels of the images; NaN where not visible.
        symmetry: of the landmarks.
    """
    shapes = points[..., 0] + 1j * points[..., 1]  # a similarity is then a factor and a summand
    shown = np.isfinite(shapes).sum(1) > 2
    if not symmetry.pairs or shown.sum() < _LEAST:
        return []
    usual = _usual_shape(shapes[shown])
    pairs = np.array(symmetry.pairs)
    given = _distances(shapes, usual)[:, pairs].sum(-1)
    slack = _SLACK**2 * np.nanmean(np.square(np.abs(usual - np.nanmean(usual))))
    odd = given > UNUSUAL * np.maximum(_median(given[shown]), slack)
    found = []
    for row in np.flatnonzero(shown & odd.any(1)).tolist():
        visible = np.isfinite(given[row])
        tried = _best_exchange(shapes[row], usual, pairs[visible])
        then = _distances(_exchanged(shapes[row], tried), usual)[pairs].sum(-1)
        sure = odd[row] & (given[row] > CLEARLY * then) & np.isin(pairs[:, 0], tried[:, 0])
        if sure.any():
            found.append(Swap(row, tuple(map(tuple, pairs[sure].tolist())), sure.sum() == visible.sum() > 1))
    return found


def describe_swap(swap: Swap, image: str, labels: Sequence[str]) -> str:
    """A line that says what seems to be exchanged in an image."""
    if swap.whole:
        return f"{image}: left and right seem to be exchanged, compared with the other labelled images"
    what = ", ".join(f"{labels[a]} and {labels[b]}" for a, b in swap.pairs)
    return f"{image}: {what} seem to be exchanged, compared with the other labelled images"


def _usual_shape(shapes: _Shapes) -> _Shapes:
    """The median (K,) of ``shapes`` (N, K), each turned, scaled and moved to fit it; NaN where none shows anything."""
    usual: _Shapes = shapes[np.isfinite(shapes).sum(1).argmax()]
    for _ in range(_ROUNDS):
        aligned = _align(shapes, usual)
        usual = _median(aligned.real) + 1j * _median(aligned.imag)
    return usual


def _align(shapes: _Shapes, usual: _Shapes) -> _Shapes:
    """``shapes`` (..., K) by the similarities that bring them nearest to ``usual`` (K,), where both are known."""
    both = np.isfinite(shapes) & np.isfinite(usual)
    count = both.sum(-1, keepdims=True).clip(1)
    middle, target = (np.where(both, each, 0).sum(-1, keepdims=True) / count for each in (shapes, usual))
    source, goal = np.where(both, shapes - middle, 0), np.where(both, usual - target, 0)
    size = np.square(np.abs(source)).sum(-1, keepdims=True)
    factor = (source.conj() * goal).sum(-1, keepdims=True) / np.where(size > 0, size, 1)
    return np.asarray((shapes - middle) * factor + target)


def _distances(shapes: _Shapes, usual: _Shapes) -> Floats:
    """Squared distances (..., K) of ``shapes`` (..., K) from the usual one, once aligned; NaN where not visible."""
    return np.asarray(np.square(np.abs(_align(shapes, usual) - usual)))


def _median(values: Floats) -> Floats:
    """Of each column of ``values`` (N, K), NaN left out; NaN where there is nothing else."""
    empty = np.isnan(values).all(0)
    return np.where(empty, np.nan, np.nanmedian(np.where(empty, 0, values), 0))


def _exchanged(shape: _Shapes, pairs: NDArray[np.int64]) -> _Shapes:
    changed = shape.copy()
    changed[pairs] = shape[pairs[:, ::-1]]
    return changed


def _best_exchange(shape: _Shapes, usual: _Shapes, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of ``pairs`` (P, 2) to exchange for the best fit of a shape (K,).

    One after the other is exchanged, or back again, as long as it helps: beginning with none, and with all.
    """
    ends = []
    for start in (False, True):
        chosen, left = np.full(len(pairs), start), np.inf
        while True:
            trials = np.concatenate([chosen[None], chosen ^ np.eye(len(pairs), dtype=bool)])
            misfits = np.nansum(_distances(np.stack([_exchanged(shape, pairs[t]) for t in trials]), usual), -1)
            if misfits.min() >= left:
                break
            chosen, left = trials[misfits.argmin()], misfits.min()
        ends.append((left, chosen))
    best: NDArray[np.int64] = pairs[min(ends, key=lambda end: end[0])[1]]
    return best


# ---- pairs found at one place ---------------------------------------------------------------------------------


def doubt_pairs_at_one_place(found: Located, usual: Tensor, symmetry: Symmetry) -> Located:
    """Landmarks (B, K), less sure where both of a pair lie at one place.

    At a quarter of their usual distance the confidence of both begins to fall, and at the same place it is 0.

    Args:
        found: positions (B, K, 2) and confidence (B, K).
        usual: shape (K, 2), in the same unit.
        symmetry: of the landmarks.
    """
    partner = list(symmetry.partner)
    apart = (found.positions - found.positions[:, partner]).norm(dim=-1)
    expected = TOO_NEAR * (usual - usual[partner]).norm(dim=-1)
    share = (apart / expected.clamp_min(1e-6)).clamp(max=1).where(expected > 0, 1)  # on the midline there is no pair
    return Located(found.positions, found.confidence * share)
