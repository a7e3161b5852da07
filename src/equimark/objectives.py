"""The papers' objectives. Each returns its named terms, ``total`` among them.

Correspondence is given as ``target_from_source`` (B, h, w, 2): where each source cell lies in the target,
in target cells. Distances are reported in input pixels: ``stride`` is the number of pixels per cell.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import geometry
from .matching_loss import expected_distance

Terms = dict[str, Tensor]

DIVERSITY_WEIGHT = 500.0
_REFERENCE_SIDE = 80.0  # pixels: the crops for which the paper's weight was chosen


def sparse_equivariance(
    source_scores: Tensor,
    target_scores: Tensor,
    target_from_source: Tensor,
    *,
    stride: int = 2,
    gamma: float = DIVERSITY_WEIGHT,
    window: int = 5,
) -> Terms:
    """K landmarks from equivariance (2017, eq. 9): alignment (eq. 6) and diversity (pooled eq. 8).

    The paper's gamma = 500 acts on the alignment *summed* over landmarks in squared pixels of an *80 px* crop,
    the paper's; alignments in crops of other sizes are brought to that size. With the alignment on a smaller
    scale the landmarks spread and then stand still in the frame; on a larger one they collapse onto each other.

    Args:
        source_scores: score maps (B, K, h, w).
        target_scores: score maps (B, K, h, w).
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.
        gamma: weight of the diversity terms.
        window: side of the sum pooling before the diversity, in cells.

    Returns:
        ``alignment`` (mean over landmarks, squared input pixels), ``diversity`` (sum of both images', each
        between 0 and K - 1), ``total``.
    """
    source, target = geometry.spatial_softmax(source_scores), geometry.spatial_softmax(target_scores)
    alignment = map_alignment(source, target, target_from_source) * stride**2
    diversity = pooled_diversity(source, window) + pooled_diversity(target, window)
    to_reference = (_REFERENCE_SIDE / (stride * source.shape[-1])) ** 2
    total = alignment * (source.shape[1] * to_reference) + gamma * diversity
    return {"alignment": alignment, "diversity": diversity, "total": total}


def map_alignment(source: Tensor, target: Tensor, target_from_source: Tensor) -> Tensor:
    """Eq. 6 in linear time: ``E|v|^2 + E|g u|^2 - 2 E[v] . E[g u]``, mean over landmarks and images, squared cells.

    Args:
        source: heat maps (B, K, h, w), u under them.
        target: heat maps (B, K, h, w), v under them.
        target_from_source: ``g u`` (B, h, w, 2).
    """
    grid = geometry.pixel_grid((target.shape[-2], target.shape[-1]), device=target.device, dtype=target.dtype)
    # Squares of large coordinates cancel badly in single precision: measure from the middle of the map.
    middle = grid.mean((0, 1))
    v, gu = grid - middle, target_from_source.to(source.dtype) - middle
    v_moments = geometry.expectation(target, _with_square(v))
    gu_moments = geometry.expectation(source, _with_square(gu))
    cross = (v_moments[..., :2] * gu_moments[..., :2]).sum(-1)
    return (v_moments[..., 2] + gu_moments[..., 2] - 2 * cross).mean()


def _with_square(points: Tensor) -> Tensor:
    return torch.cat([points, points.square().sum(-1, keepdim=True)], dim=-1)


def pooled_diversity(heatmaps: Tensor, window: int) -> Tensor:
    """``K - sum_u max_r`` of the m x m sum-pooled ``heatmaps`` (B, K, h, w) (2017, after eq. 8), mean over images."""
    pooled = F.avg_pool2d(heatmaps, window, ceil_mode=True, divisor_override=1)
    return heatmaps.shape[1] - pooled.amax(1).sum((-2, -1)).mean()


def dense_equivariance(
    source: Tensor, target: Tensor, target_from_source: Tensor, *, stride: int = 2, power: float = 0.5
) -> Terms:
    """Dense equivariant labelling (Dense3D; DVE eq. 3): descriptors of a pair match where the warp says.

    Args:
        source: descriptors (B, C, h, w).
        target: descriptors (B, C, h, w).
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.
        power: of the distance; 1 as printed, 0.5 as released.

    Returns:
        ``matching`` (mean over source cells of the expected distance in pixels to the ``power``), ``total``.
    """
    matching = _matching(source.flatten(2).mT, target, target_from_source, stride=stride, power=power)
    return {"matching": matching, "total": matching}


def descriptor_exchange(
    source: Tensor,
    target: Tensor,
    target_from_source: Tensor,
    pool: Tensor,
    auxiliaries: Tensor,
    *,
    stride: int = 2,
    power: float = 0.5,
) -> Terms:
    """Descriptor Vector Exchange (DVE eq. 5-6): source descriptors are rebuilt from auxiliary images, then matched.

    Args:
        source: descriptors (B, C, h, w).
        target: descriptors (B, C, h, w).
        target_from_source: (B, h, w, 2) in cells.
        pool: descriptors (P, C, h, w) of the images from which auxiliaries are taken.
        auxiliaries: indices (B, A) into the pool: the set of each pair.
        stride: input pixels per cell.
        power: of the distance.

    Returns:
        ``matching``, ``total``, as of :func:`dense_equivariance`.
    """
    rebuilt = exchange(source.flatten(2).mT, pool, auxiliaries)
    matching = _matching(rebuilt, target, target_from_source, stride=stride, power=power)
    return {"matching": matching, "total": matching}


def exchange(source: Tensor, pool: Tensor, auxiliaries: Tensor) -> Tensor:
    """Eq. 5, ``sum_w Phi_w(x_a) p(w | u; x, x_a)`` over all cells w of a set of images: attention with keys = values.

    Args:
        source: descriptors (B, N, C).
        pool: descriptors (P, C, h, w).
        auxiliaries: indices (B, A) into the pool.

    Returns:
        Descriptors (B, N, C).
    """
    keys = pool.flatten(2).mT[auxiliaries].flatten(1, 2)  # (B, A * h * w, C)
    rebuilt: Tensor = F.scaled_dot_product_attention(source[:, None], keys[:, None], keys[:, None], scale=1.0)
    return rebuilt[:, 0]


def next_in_batch(count: int, *, device: torch.device | None = None) -> Tensor:
    """Auxiliary indices (B, 1): the next image of the batch, as in the released code.

    Raises:
        ValueError: for a batch of one, whose next image is itself.
    """
    if count < 2:
        raise ValueError("descriptor exchange takes its auxiliary image from the batch: use a batch of at least 2")
    return ((torch.arange(count, device=device) + 1) % count)[:, None]


def _matching(source: Tensor, target: Tensor, target_from_source: Tensor, *, stride: int, power: float) -> Tensor:
    size = (target.shape[-2], target.shape[-1])
    truth = target_from_source.flatten(1, 2)
    in_cells = expected_distance(source.contiguous(), target.flatten(2).mT.contiguous(), truth, size, power=power)
    in_pixels: Tensor = in_cells * float(stride) ** power
    return in_pixels


@torch.no_grad()
def sparse_health(source_scores: Tensor, alignment: Tensor, target_from_source: Tensor, *, stride: int = 2) -> Terms:
    """Whether landmarks collapse or stand still: what to watch beside the terms of :func:`sparse_equivariance`.

    Args:
        source_scores: (B, K, h, w).
        alignment: of this batch, in squared input pixels.
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.

    Returns:
        ``alignment_share`` (of :func:`standing_still`), ``distinct_landmarks``; both stay on the device.
    """
    landmarks = geometry.soft_argmax(geometry.spatial_softmax(source_scores))
    still = standing_still(landmarks, target_from_source, stride=stride)
    return {"alignment_share": alignment.detach() / still, "distinct_landmarks": _count_distinct(landmarks * stride)}


def distinct_landmarks(landmarks: Tensor, *, closer_than: float = 2.0) -> int:
    """How many of K landmarks are distinct: those that chains of close pairs connect count as one.

    A pair is close if it is closer than 2 px on most images.

    Args:
        landmarks: (B, K, 2) in input pixels.
        closer_than: in input pixels.
    """
    return int(_count_distinct(landmarks, closer_than))


def _count_distinct(landmarks: Tensor, closer_than: float = 2.0) -> Tensor:
    """As :func:`distinct_landmarks`, without waiting for the device."""
    distances = torch.cdist(landmarks, landmarks)
    connected = ((distances < closer_than).float().mean(0) > 0.5).float()
    for _ in range(landmarks.shape[1].bit_length()):  # each squaring doubles the length of chains
        connected = (connected @ connected > 0).float()
    has_earlier = connected.tril(diagonal=-1).any(1)
    return (~has_earlier).float().sum()


def standing_still(source_landmarks: Tensor, target_from_source: Tensor, *, stride: int = 2) -> Tensor:
    """The alignment that landmarks which ignore the image would score: mean |c - g c|^2, squared input pixels.

    Each landmark is put at its mean position over the batch. An alignment near this value means that
    landmarks stand still in the frame instead of moving with the object.

    Args:
        source_landmarks: (B, K, 2) in cells.
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.
    """
    fixed = source_landmarks.mean(0, keepdim=True).expand_as(source_landmarks)
    moved = geometry.sample(target_from_source.movedim(-1, 1), fixed).mT
    return (fixed - moved).square().sum(-1).mean() * stride**2
