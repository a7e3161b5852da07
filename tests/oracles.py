"""Slow, literal transcriptions of the papers' formulas: plain loops over their sums, in whatever type they are given.

"2017" is Thewlis, Bilen, Vedaldi, *Unsupervised learning of object landmarks by factorized spatial embeddings*;
"DVE" is Thewlis, Albanie, Bilen, Vedaldi, *Unsupervised learning of landmarks by descriptor vector exchange*.
Positions are (x, y); maps (h, w). In the 2017 formulas x' = x o g, so u = g(v): ``g[v]`` is where v of x' lies in x.
"""

import math
from functools import partial

import torch
from torch import Tensor

# The dense objectives, written out as their authors released them: `equimark benchmark` times them too.
from equimark.timing.literal import literal_dense_loss as literal_dense_loss
from equimark.timing.literal import literal_dve_loss as literal_dve_loss


def thin_plate_warp(point: tuple[float, float], weights: Tensor, shift: Tensor, angle: float, scale: float):
    """2017 supplement, section 2: g(p) = sum_k U(|p - c_k|) w_k + t + s R(theta) p, U(r) = r^2 log(r^2 + 1e-5).

    ``weights`` (M, 2) belong to a regular grid over [-1, 1]^2, row by row; ``angle`` in degrees.
    """
    px, py = point
    side = math.isqrt(len(weights))
    theta = math.radians(angle)
    gx = scale * (math.cos(theta) * px - math.sin(theta) * py) + float(shift[0])
    gy = scale * (math.sin(theta) * px + math.cos(theta) * py) + float(shift[1])
    for row in range(side):
        for column in range(side):
            cx, cy = -1 + 2 * column / (side - 1), -1 + 2 * row / (side - 1)
            r = math.hypot(px - cx, py - cy)
            u = r**2 * math.log(r**2 + 1e-5)
            gx += u * float(weights[row * side + column, 0])
            gy += u * float(weights[row * side + column, 1])
    return gx, gy


def thin_plate_spline(source: Tensor, target: Tensor, stiffness: float, rigidity: float = 0.0):
    """The textbook's spline through (K, 2) and (K, 2) (Bookstein 1989): g(p) = a + A p + sum_k w_k U(|p - c_k|).

    U(r) = r^2 log r^2, with sum_k w_k = 0 and sum_k w_k c_k = rigidity (A - 1)^T; a function of a point (2,).
    """
    if rigidity:
        return _rigid_plate_spline(source, target, stiffness, rigidity)
    return _plate_spline(source, target, stiffness)


def _plate_spline(source: Tensor, target: Tensor, stiffness: float):
    count = len(source)
    rows = []
    for i in range(count):
        kernels = [_plate_kernel(source[i], source[k]) + stiffness * (i == k) for k in range(count)]
        rows.append(torch.stack([*kernels, source.new_tensor(1.0), *source[i]]))
    one, zero = source.new_ones(count), source.new_zeros(3)
    rows += [torch.cat([side, zero]) for side in (one, source[:, 0], source[:, 1])]
    solution = torch.linalg.inv(torch.stack(rows)) @ torch.cat([target, source.new_zeros(3, 2)])

    def g(point: Tensor) -> Tensor:
        moved = solution[count] + point[0] * solution[count + 1] + point[1] * solution[count + 2]
        return moved + sum(solution[k] * _plate_kernel(point, source[k]) for k in range(count))

    return g


def _rigid_plate_spline(source: Tensor, target: Tensor, stiffness: float, rigidity: float):
    """Eliminating A from the bordered system leaves the kernel U(|p - q|) + p . q / rigidity, for displacements."""
    count = len(source)

    def kernel(p: Tensor, q: Tensor) -> Tensor:
        return _plate_kernel(p, q) + (p * q).sum() / rigidity

    rows = []
    for i in range(count):
        kernels = [kernel(source[i], source[k]) + stiffness * (i == k) for k in range(count)]
        rows.append(torch.stack([*kernels, source.new_tensor(1.0)]))
    rows.append(torch.cat([source.new_ones(count), source.new_zeros(1)]))
    solution = torch.linalg.inv(torch.stack(rows)) @ torch.cat([target - source, source.new_zeros(1, 2)])

    def g(point: Tensor) -> Tensor:
        return point + solution[count] + sum(solution[k] * kernel(point, source[k]) for k in range(count))

    return g


def _plate_kernel(p: Tensor, q: Tensor) -> Tensor:
    squared = ((p - q) ** 2).sum()
    return squared * squared.log() if squared > 0 else p.new_zeros(())


def bilinear(values: Tensor, point: Tensor) -> Tensor:
    """``values`` (C, H, W) at a pixel (x, y) inside: (C,)."""
    x0 = min(int(point[0]), values.shape[2] - 2)
    y0 = min(int(point[1]), values.shape[1] - 2)
    right, down = point[0] - x0, point[1] - y0
    above = (1 - right) * values[:, y0, x0] + right * values[:, y0, x0 + 1]
    below = (1 - right) * values[:, y0 + 1, x0] + right * values[:, y0 + 1, x0 + 1]
    return (1 - down) * above + down * below


def spatial_softmax(scores: Tensor) -> Tensor:
    """2017, eq. 1: p(u | x, r) of one image's ``scores`` (K, h, w)."""
    maps = [(s - s.max()).exp() for s in scores]
    return torch.stack([m / m.sum() for m in maps])


def soft_argmax(heatmap: Tensor) -> Tensor:
    """2017, eq. 2: sum_u u p(u), as (x, y) in cells, of one map (h, w)."""
    mean = heatmap.new_zeros(2)
    for y in range(heatmap.shape[0]):
        for x in range(heatmap.shape[1]):
            mean = mean + heatmap.new_tensor([x, y]) * heatmap[y, x]
    return mean


def landmark_alignment(landmarks: Tensor, moved: Tensor) -> Tensor:
    """2017, eq. 5: mean_r |Phi(x o g)_r - g(Phi(x)_r)|^2 of (K, 2) and (K, 2)."""
    total = landmarks.new_zeros(())
    for r in range(len(landmarks)):
        total = total + ((landmarks[r] - moved[r]) ** 2).sum()
    return total / len(landmarks)


def map_alignment(p_source: Tensor, p_target: Tensor, g: Tensor) -> Tensor:
    """2017, eq. 6 of one pair: mean_r sum_{u, v} |u - g(v)|^2 p(u | x, r) p(v | x', r), all four loops written out.

    ``p_source`` (K, h, w) are the maps of x', whose positions v the field ``g`` (h, w, 2) moves; ``p_target`` of x.
    """
    landmarks, height, width = p_source.shape
    total = p_source.new_zeros(())
    for r in range(landmarks):
        for vy in range(height):
            for vx in range(width):
                for uy in range(p_target.shape[1]):
                    for ux in range(p_target.shape[2]):
                        square = (ux - g[vy, vx, 0]) ** 2 + (uy - g[vy, vx, 1]) ** 2
                        total = total + square * p_target[r, uy, ux] * p_source[r, vy, vx]
    return total / landmarks


def overlap_diversity(p: Tensor, m: int = 1, *, itself: bool = True) -> Tensor:
    """2017, eq. 7: 1/K^2 sum_r sum_r' sum_u p(u | x, r) p(u | x, r') of maps (K, h, w), with or without r' = r.

    u are blocks of m x m cells.
    """
    rows, columns = range(0, p.shape[1], m), range(0, p.shape[2], m)
    p = torch.stack([torch.stack([p[:, y : y + m, x : x + m].sum((1, 2)) for x in columns], 1) for y in rows], 1)
    total = p.new_zeros(())
    for r in range(len(p)):
        for other in range(len(p)):
            if itself or other != r:
                total = total + (p[r] * p[other]).sum()
    return total / len(p) ** 2


def sum_minus_max_diversity(p: Tensor) -> Tensor:
    """2017, eq. 8: sum_u (sum_r p(u | x, r) - max_r p(u | x, r))."""
    total = p.new_zeros(())
    for y in range(p.shape[1]):
        for x in range(p.shape[2]):
            total = total + p[:, y, x].sum() - p[:, y, x].max()
    return total


def pooled_diversity(p: Tensor, m: int) -> Tensor:
    """2017, after eq. 8: K - sum_u max_r sum_du p(m u + du | x, r), du in {0, ..., m - 1}^2.

    Blocks that the map cuts short keep what mass they have, so that the maps still sum to one.
    """
    total = p.new_zeros(()) + len(p)
    for y in range(0, p.shape[1], m):
        for x in range(0, p.shape[2], m):
            total = total - torch.stack([block[y : y + m, x : x + m].sum() for block in p]).max()
    return total


def sparse_terms(
    source_scores,
    target_scores,
    g,
    *,
    stride: int,
    gamma: float,
    window: int,
    alignment: str = "maps",
    diversity: str = "pooled",
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """2017, eq. 9 without the regulariser: alignment summed over K, in pixels of an 80 px crop, overlap over pairs.

    With ``weights`` (B, h, w) of the source cells, the alignment takes p(u) w(u) / sum_u p(u) w(u) for p(u | x', r); an
    image of no weight adds nothing to it.
    """
    aligned, similar = [], []
    for b in range(len(source_scores)):
        p_source, p_target = spatial_softmax(source_scores[b]), spatial_softmax(target_scores[b])
        known = p_source
        if weights is not None and weights[b].sum() > 0:
            known = torch.stack([p * weights[b] / (p * weights[b]).sum() for p in p_source])
        if weights is not None and weights[b].sum() == 0:
            aligned.append(0 * p_source.sum())
        elif alignment == "maps":
            aligned.append(map_alignment(known, p_target, g[b]) * stride**2)
        else:
            moved = torch.stack([bilinear(g[b].permute(2, 0, 1), soft_argmax(p)) for p in known])
            landmarks = torch.stack([soft_argmax(p) for p in p_target])
            aligned.append(landmark_alignment(landmarks, moved) * stride**2)
        for p in (p_source, p_target):
            form = pooled_diversity if diversity == "pooled" else partial(overlap_diversity, itself=False)
            similar.append(form(p, window))
    terms = {"alignment": torch.stack(aligned).mean(), "diversity": torch.stack(similar).sum() / len(source_scores)}
    crop = stride * source_scores.shape[-1]
    summed = terms["alignment"] * source_scores.shape[1] * (80 / crop) ** 2
    pairs = source_scores.shape[1] ** 2 / 2 if diversity == "overlap" else 1
    total = summed + gamma * pairs * terms["diversity"]
    return terms | {"total": total}


def unknown_warp_terms(
    source_scores,
    target_scores,
    source_images,
    target_images,
    *,
    stride: int,
    offset: float,
    gamma: float,
    window: int,
    appearance_weight: float,
    stiffness: float,
    rigidity: float,
) -> dict[str, Tensor]:
    """2017, footnote 1: g from the landmarks, then |x' - x o g|^2 over the pixels u of x' whose g(u) is in x.

    Splines are fitted in coordinates that are -1 and 1 at the centres of the first and last pixels.
    """
    height, width = source_images.shape[-2:]
    half = source_images.new_tensor([(width - 1) / 2, (height - 1) / 2])
    errors, similar = [], []
    for b in range(len(source_scores)):
        maps = [spatial_softmax(scores[b]) for scores in (source_scores, target_scores)]
        ends = [torch.stack([(stride * soft_argmax(m) + offset) / half - 1 for m in p]) for p in maps]
        g = thin_plate_spline(*ends, stiffness, rigidity)
        for y in range(height):
            for x in range(width):
                place = (g(source_images.new_tensor([x, y]) / half - 1) + 1) * half
                if 0 <= place[0] <= width - 1 and 0 <= place[1] <= height - 1:
                    errors.append(((source_images[b, :, y, x] - bilinear(target_images[b], place)) ** 2).mean())
        similar += [pooled_diversity(p, window) for p in maps]
    appearance = torch.stack(errors).mean()
    diversity = torch.stack(similar).sum() / len(source_scores)
    return {
        "appearance": appearance,
        "inside": appearance.new_tensor(len(errors) / (len(source_scores) * height * width)),
        "diversity": diversity,
        "total": source_scores.shape[1] * appearance_weight * appearance + gamma * diversity,
    }
