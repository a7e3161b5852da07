"""Thin-plate splines through given points: the smoothest warp that takes one set of landmarks to another.

    g(p) = p + sum_k U(|p - c_k|) w_k + A p + t,        U(r) = r^2 log r^2

The warps of :mod:`equimark.warps` draw their weights at random; here they are solved for. A fit can be
differentiated with respect to both sets of landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_RIGIDITY = 0.1


@dataclass(frozen=True)
class ThinPlate:
    """A batch of splines, in the coordinates of the points they were fitted to.

    Args:
        centres: control points ``c`` (B, K, 2).
        weights: kernel weights ``w`` (B, K, 2).
        linear: ``1 + A`` (B, 2, 2), applied as ``linear @ p``.
        shift: ``t`` (B, 2).
    """

    centres: Tensor
    weights: Tensor
    linear: Tensor
    shift: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """``g(p)`` of ``points`` (B, ..., 2) or, the same for all, (1, ..., 2): (B, ..., 2)."""
        flat = points.flatten(1, -2)
        moved = _kernels(flat, self.centres) @ self.weights + flat @ self.linear.mT + self.shift[:, None]
        return moved.reshape(len(self.centres), *points.shape[1:])


def fit(source: Tensor, target: Tensor, *, stiffness: float = 0.0, rigidity: float = 0.0) -> ThinPlate:
    """The splines that take ``source`` (B, K, 2) to ``target`` (B, K, 2), from the bordered system

        (U + stiffness) w + [c 1] a = target - source,        [c 1]^T w = rigidity (A; 0)

    At rigidity 0 this is the textbook's spline: affine maps are recovered exactly at any stiffness, and at
    stiffness 0 it passes through its control points. Rigidity prefers the least departure of the linear part from
    the identity; a fit then exists for any landmarks: one alone gives a translation.

    Args:
        source: control points, in coordinates of about [-1, 1], to which the two constants refer.
        target: where they go.
        stiffness: added to the diagonal of the kernels: the larger, the more landmarks are missed for less bending.
            Above 0, landmarks may coincide.
        rigidity: from 0 to 0.1, beyond which the system can be singular. Above 0, landmarks may lie on one line, or
            be fewer than three.

    Raises:
        ValueError: for fewer than three landmarks without rigidity, and for constants out of range.
    """
    if stiffness < 0 or not 0 <= rigidity <= _MOST_RIGIDITY:
        raise ValueError(
            f"stiffness must not be negative and rigidity must lie in [0, {_MOST_RIGIDITY}], "
            f"got {stiffness} and {rigidity}"
        )
    count = source.shape[1]
    if count < 3 and not rigidity:
        raise ValueError(f"a thin-plate spline without rigidity needs at least 3 landmarks, got {count}")
    system = _bordered_system(source, stiffness, rigidity)
    solution = torch.linalg.solve(system, F.pad(target - source, (0, 0, 0, 3)))
    weights, linear, shift = solution[:, :count], solution[:, count:-1], solution[:, -1]
    return ThinPlate(source, weights, linear.mT + torch.eye(2).to(linear), shift)


def _bordered_system(points: Tensor, stiffness: float, rigidity: float) -> Tensor:
    """The matrices (B, K + 3, K + 3) of the equations of :func:`fit` for control ``points`` (B, K, 2)."""
    kernels = _kernels(points, points) + stiffness * torch.eye(points.shape[1]).to(points)
    affine = F.pad(points, (0, 1), value=1.0)  # (B, K, 3)
    corner = points.new_tensor([-rigidity, -rigidity, 0.0]).diag().expand(len(points), 3, 3)
    return torch.cat([torch.cat([kernels, affine], dim=2), torch.cat([affine.mT, corner], dim=2)], dim=1)


def _kernels(points: Tensor, centres: Tensor) -> Tensor:
    """``U(|p - c_k|)`` (B, N, K) of ``points`` (B, N, 2) and ``centres`` (B, K, 2)."""
    apart = [points[..., None, i] - centres[:, None, :, i] for i in range(2)]
    squared = apart[0].square() + apart[1].square()
    # A kernel at its own centre has value and slope 0; the plain logarithm would make the slope NaN.
    return squared * squared.clamp_min(torch.finfo(squared.dtype).tiny).log()
