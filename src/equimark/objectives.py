"""The papers' objectives. Each returns its named terms, ``total`` among them.

Correspondence is given as ``target_from_source`` (B, h, w, 2): where each source cell lies in the target,
in target cells. Distances are reported in input pixels: ``stride`` is the number of pixels per cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from . import geometry, thin_plate
from .geometry import Cells
from .matching_loss import expected_distance
from .thin_plate import ThinPlate

Terms = dict[str, Tensor]
Alignment = Literal["maps", "landmarks"]
Diversity = Literal["pooled", "overlap"]

DIVERSITY_WEIGHT = 500.0
APPEARANCE_WEIGHT = 5e3
STIFFNESS, RIGIDITY = 1.0, 0.1  # of the warp through landmarks: each is off by about a pixel of its own
_REFERENCE_SIDE = 80.0  # pixels: the crops for which the paper's weight was chosen


def sparse_equivariance(
    source_scores: Tensor,
    target_scores: Tensor,
    target_from_source: Tensor,
    *,
    stride: int = 2,
    gamma: float = DIVERSITY_WEIGHT,
    window: int = 5,
    alignment: Alignment = "maps",
    diversity: Diversity = "pooled",
    weights: Tensor | None = None,
) -> Terms:
    """K landmarks from equivariance (2017, eq. 9): alignment (eq. 6 or 5) and diversity (pooled eq. 8, or eq. 7).

    Gamma = 500 acts on the alignment *summed* over landmarks in squared pixels of an *80 px* crop, the paper's;
    alignments in crops of other sizes are brought to that size. The paper prints a mean over landmarks, and no unit:
    this is the scale on which its 500 was found to work. With the alignment on a smaller scale the landmarks spread
    and then stand still in the frame; on a larger one they collapse onto each other.
    The overlap is summed over pairs of landmarks likewise, so that gamma is what two landmarks in one block cost.

    Args:
        source_scores: score maps (B, K, h, w).
        target_scores: score maps (B, K, h, w).
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.
        gamma: weight of the diversity terms.
        window: side of the sum pooling before the diversity, in cells; 1 is eq. 8, or eq. 7, as printed.
        alignment: of the heat ``maps`` (eq. 6), which also draws each map together, or of their means alone, the
            ``landmarks`` (eq. 5).
        diversity: ``pooled`` (eq. 8 and after), or the ``overlap`` of pairs (eq. 7, pooled likewise).
        weights: of the source cells (B, h, w) in the alignment, not negative; all alike if absent. Maps are taken
            over the cells that count, so that there is nothing to be had from leaving them; an image without any
            adds nothing.

    Returns:
        ``alignment`` (mean over landmarks, squared input pixels), ``diversity`` (sum of both images', each
        between 0 and K - 1 if pooled, between 0 and 1 - 1/K if overlap), ``total``.

    Raises:
        ValueError: for another ``alignment`` or ``diversity``.
    """
    _check_form("alignment", alignment, get_args(Alignment))
    _check_form("diversity", diversity, get_args(Diversity))
    source, target = geometry.spatial_softmax(source_scores), geometry.spatial_softmax(target_scores)
    align = map_alignment if alignment == "maps" else landmark_alignment
    misaligned = stride**2 * (
        align(source, target, target_from_source)
        if weights is None
        else _align_weighted(align, source_scores, target, target_from_source, weights)
    )
    similar = _diversity(source, target, diversity, window)
    to_reference = (_REFERENCE_SIDE / (stride * source.shape[-1])) ** 2
    landmarks = source.shape[1]
    pairs = landmarks**2 / 2 if diversity == "overlap" else 1
    total = misaligned * (landmarks * to_reference) + similar * (pairs * gamma)
    return {"alignment": misaligned, "diversity": similar, "total": total}


def _check_form(what: str, form: str, known: tuple[str, ...]) -> None:
    if form not in known:
        raise ValueError(f"{what} must be {' or '.join(known)}, got {form!r}")


def _align_weighted(
    align: Callable[[Tensor, Tensor, Tensor], Tensor], scores: Tensor, target: Tensor, truth: Tensor, weights: Tensor
) -> Tensor:
    """``align`` with source maps ``p(u) w(u) / sum p w``, over the images in which any cell counts."""
    counting = weights.flatten(1).any(1)
    if not counting.any():
        return 0 * scores.sum()
    source = geometry.spatial_softmax(scores[counting] + weights[counting].log()[:, None])
    return align(source, target[counting], truth[counting]) * counting.float().mean()


def landmark_alignment(source: Tensor, target: Tensor, target_from_source: Tensor) -> Tensor:
    """Eq. 5, ``|Phi(x)_r - g(Phi(x')_r)|^2``, mean over landmarks and images, squared cells.

    Args:
        source: heat maps (B, K, h, w), whose means are the landmarks Phi(x').
        target: heat maps (B, K, h, w) of x.
        target_from_source: ``g`` (B, h, w, 2) at the cells; between them it is linear.
    """
    moved = _carry(geometry.soft_argmax(source), target_from_source)
    return (geometry.soft_argmax(target) - moved).square().sum(-1).mean()


def _carry(landmarks: Tensor, target_from_source: Tensor) -> Tensor:
    """Where ``landmarks`` (B, K, 2), in cells, lie in the target by the field (B, h, w, 2): (B, K, 2)."""
    return geometry.sample(target_from_source.to(landmarks.dtype).movedim(-1, 1), landmarks).mT


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


def _diversity(source: Tensor, target: Tensor, form: Diversity, window: int) -> Tensor:
    """The sum of both images' diversity terms, of heat maps (B, K, h, w)."""
    if form == "overlap":
        return overlap_diversity(source, window) + overlap_diversity(target, window)
    return pooled_diversity(source, window) + pooled_diversity(target, window)


def overlap_diversity(heatmaps: Tensor, window: int = 1, *, itself: bool = False) -> Tensor:
    """Eq. 7, ``1/K^2 sum_r sum_r' sum_u p(u | r) p(u | r')`` of ``heatmaps`` (B, K, h, w), mean over images.

    With a ``window``, u are blocks, as in :func:`pooled_diversity`: maps overlap if they lie in the same ones.

    In linear time: a sum over pairs is the square of a sum. The printed sum includes r' = r, but those terms are
    never zero, while the paper has eq. 7 vanish for disjoint maps; they only reward maps for being blurred. They are
    left out, unless asked for by ``itself``. Without them, blurred maps overlap little: K uniform maps of N cells
    by (1 - 1/K) / N, K equal points by 1 - 1/K.
    """
    blocks = _in_blocks(heatmaps, window)
    pairs = blocks.sum(1).square()
    if not itself:
        pairs = pairs - blocks.square().sum(1)
    return pairs.sum((-2, -1)).mean() / heatmaps.shape[1] ** 2


def pooled_diversity(heatmaps: Tensor, window: int) -> Tensor:
    """``K - sum_u max_r`` of the m x m sum-pooled ``heatmaps`` (B, K, h, w) (2017, after eq. 8), mean over images.

    The m x m blocks do not overlap. Those at the right and lower border are cut short where the map ends: dropping
    them would count a landmark there as one that overlaps with all others. A window of 1 gives eq. 8.
    """
    return heatmaps.shape[1] - _in_blocks(heatmaps, window).amax(1).sum((-2, -1)).mean()


def _in_blocks(heatmaps: Tensor, window: int) -> Tensor:
    return F.avg_pool2d(heatmaps, window, ceil_mode=True, divisor_override=1)


def unknown_warp(
    source_scores: Tensor,
    target_scores: Tensor,
    source_images: Tensor,
    target_images: Tensor,
    *,
    cells: Cells,
    gamma: float = DIVERSITY_WEIGHT,
    window: int = 5,
    appearance_weight: float = APPEARANCE_WEIGHT,
    stiffness: float = STIFFNESS,
    rigidity: float = RIGIDITY,
) -> Terms:
    """K landmarks from pairs whose warp is not known, such as frames of a video (2017, footnote 1).

    The warp g is what the landmarks say it is: the thin-plate spline that takes those of the source to those of the
    target. It is judged by appearance, ``|x' - x o g|^2``: each source pixel u looks like the target at g(u).

    The spline smooths rather than interpolates. Landmarks start close to each other and miss by a pixel or so; an exact
    spline through such landmarks turns, stretches and shears the whole frame by much more than it moved, and the
    appearance then rewards landmarks for collapsing. The smooth one is never much worse than no warp.

    The appearance is summed over landmarks, as the alignment of :func:`sparse_equivariance` is, but its errors are
    small and saturate: in 80 px crops with values in [0, 1], the first pixel of misalignment costs about 0.001, and
    all of it hardly more than 0.02. Its weight is therefore large, and was found by trial on small crops: with four
    times as much the landmarks spread late, with ten times as much not at all.

    Args:
        source_scores: score maps (B, K, h, w) of x'.
        target_scores: score maps (B, K, h, w) of x.
        source_images: x' (B, C, H, W) in [0, 1], to compare; they may be smoother than those the network saw.
        target_images: x (B, C, H, W).
        cells: which pixel of the images each cell describes.
        gamma: weight of the diversity terms.
        window: side of the sum pooling before the diversity, in cells.
        appearance_weight: of the appearance, for each landmark.
        stiffness: of the spline, in normalised coordinates; see :func:`equimark.thin_plate.fit`.
        rigidity: of the spline; above 0 landmarks may start, as they do, in one place. Stiffness times rigidity is
            what landmarks that are close to each other have to outweigh before they turn, stretch or shear the frame.

    Returns:
        ``appearance`` (mean over the source pixels that g leaves inside), ``inside`` (their share),
        ``diversity`` (sum of both images'), ``total``.
    """
    source, target = geometry.spatial_softmax(source_scores), geometry.spatial_softmax(target_scores)
    size = (source_images.shape[-2], source_images.shape[-1])
    ends = [geometry.normalise(cells.to_pixels(geometry.soft_argmax(p)), size) for p in (source, target)]
    spline = thin_plate.fit(*ends, stiffness=stiffness, rigidity=rigidity)
    appearance, inside = _appearance(source_images, target_images, spline)
    diversity = _diversity(source, target, "pooled", window)
    total = appearance * (source.shape[1] * appearance_weight) + gamma * diversity
    return {"appearance": appearance, "inside": inside, "diversity": diversity, "total": total}


def _appearance(source: Tensor, target: Tensor, spline: ThinPlate) -> tuple[Tensor, Tensor]:
    """Mean square of ``x' - x o g`` over the pixels that g leaves inside, and their share."""
    size = (source.shape[-2], source.shape[-1])
    grid = geometry.pixel_grid(size, device=source.device, dtype=spline.shift.dtype)
    looked_at = spline(geometry.normalise(grid, size)[None])
    inside = (looked_at.detach().abs() <= 1).all(-1).to(source.dtype)
    error = (source - geometry.sample_normalised(target, looked_at)).square().mean(1)
    return (error * inside).sum() / inside.sum().clamp_min(1), inside.mean()


def dense_equivariance(
    source: Tensor,
    target: Tensor,
    target_from_source: Tensor,
    *,
    stride: int = 2,
    power: float = 0.5,
    weights: Tensor | None = None,
) -> Terms:
    """Dense equivariant labelling (Dense3D; DVE eq. 3): descriptors of a pair match where the warp says.

    Args:
        source: descriptors (B, C, h, w).
        target: descriptors (B, C, h, w).
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.
        power: of the distance; 1 as printed, 0.5 as released.
        weights: of the source cells (B, h, w), not negative; all alike if absent.

    Returns:
        ``matching`` (mean over source cells of the expected distance in pixels to the ``power``), ``total``.
    """
    described = source.flatten(2).mT
    matching = _matching(described, target, target_from_source, stride=stride, power=power, weights=weights)
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
    weights: Tensor | None = None,
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
        weights: of the source cells (B, h, w), not negative; all alike if absent.

    Returns:
        ``matching``, ``total``, as of :func:`dense_equivariance`.
    """
    rebuilt = exchange(source.flatten(2).mT, pool, auxiliaries)
    matching = _matching(rebuilt, target, target_from_source, stride=stride, power=power, weights=weights)
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
    channels = source.shape[-1]
    padding = (0, -channels % 8)  # with zeros, which change nothing: fused kernels of GPUs take multiples of 8 alone
    queries = F.pad(source, padding)[:, None]
    keys = F.pad(pool.flatten(2).mT[auxiliaries].flatten(1, 2), padding)[:, None]  # (B, 1, A * h * w, C)
    with torch.autocast(source.device.type, enabled=False):  # half precision would move long vectors by their length
        rebuilt: Tensor = F.scaled_dot_product_attention(queries, keys, keys, scale=1.0)
    return rebuilt[:, 0, :, :channels]


def next_in_batch(count: int, *, device: torch.device | None = None) -> Tensor:
    """Auxiliary indices (B, 1): the next image of the batch, as in the released code.

    Raises:
        ValueError: for a batch of one, whose next image is itself.
    """
    if count < 2:
        raise ValueError("descriptor exchange takes its auxiliary image from the batch: use a batch of at least 2")
    return ((torch.arange(count, device=device) + 1) % count)[:, None]


def _matching(
    source: Tensor, target: Tensor, target_from_source: Tensor, *, stride: int, power: float, weights: Tensor | None
) -> Tensor:
    size, truth = (target.shape[-2], target.shape[-1]), target_from_source.flatten(1, 2)
    cells = target.flatten(2).mT.contiguous()
    flat = None if weights is None else weights.flatten(1)
    in_cells = expected_distance(source.contiguous(), cells, truth, size, power=power, weights=flat)
    in_pixels: Tensor = in_cells * float(stride) ** power
    return in_pixels


@torch.no_grad()
def sparse_health(
    source_scores: Tensor,
    alignment: Tensor,
    target_from_source: Tensor,
    *,
    stride: int = 2,
    weights: Tensor | None = None,
) -> Terms:
    """Whether landmarks collapse or stand still: what to watch beside the terms of :func:`sparse_equivariance`.

    Args:
        source_scores: (B, K, h, w).
        alignment: of this batch, in squared input pixels.
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.
        weights: of the source cells (B, h, w); all alike if absent.

    Returns:
        ``alignment_share`` (of :func:`standing_still`, or of one pixel where that is less, as in a video in which
        hardly anything moves), ``distinct_landmarks``; both stay on the device. The alignment of heat maps (eq. 6)
        contains their widths: the share of wide maps, early in training, is well above 1.
    """
    landmarks = geometry.soft_argmax(geometry.spatial_softmax(source_scores))
    still = standing_still(landmarks, target_from_source, stride=stride, weights=weights)
    return {
        "alignment_share": alignment.detach() / still.clamp_min(1),
        "distinct_landmarks": count_distinct(landmarks * stride),
    }


def distinct_landmarks(landmarks: Tensor, *, closer_than: float = 2.0) -> int:
    """How many of K landmarks are distinct: those that chains of close pairs connect count as one.

    A pair is close if it is closer than 2 px on most images.

    Args:
        landmarks: (B, K, 2) in input pixels.
        closer_than: in input pixels.
    """
    return int(count_distinct(landmarks, closer_than))


def count_distinct(landmarks: Tensor, closer_than: float = 2.0) -> Tensor:
    """As :func:`distinct_landmarks`, without waiting for the device."""
    distances = torch.cdist(landmarks, landmarks)
    connected = ((distances < closer_than).float().mean(0) > 0.5).float()
    for _ in range(landmarks.shape[1].bit_length()):  # each squaring doubles the length of chains
        connected = (connected @ connected > 0).float()
    has_earlier = connected.tril(diagonal=-1).any(1)
    return (~has_earlier).float().sum()


def standing_still(
    source_landmarks: Tensor, target_from_source: Tensor, *, stride: int = 2, weights: Tensor | None = None
) -> Tensor:
    """The alignment that landmarks which ignore the image would score: mean |c - g c|^2, squared input pixels.

    Each landmark is put at its mean position over the batch. An alignment near this value means that
    landmarks stand still in the frame instead of moving with the object.

    Args:
        source_landmarks: (B, K, 2) in cells.
        target_from_source: (B, h, w, 2) in cells.
        stride: input pixels per cell.
        weights: of the source cells (B, h, w), which count as that nearest to them; all alike if absent.
    """
    fixed = source_landmarks.mean(0, keepdim=True).expand_as(source_landmarks)
    moved = _carry(fixed, target_from_source)
    squares = (fixed - moved).square().sum(-1)
    if weights is None:
        return squares.mean() * stride**2
    counting = geometry.sample_nearest(weights[:, None], fixed)[:, 0]
    return (squares * counting).sum() / counting.sum().clamp_min(1e-6) * stride**2
