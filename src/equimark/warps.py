"""Random warps: thin-plate + similarity fields whose parameters are drawn directly, in a batch.

A warp is a function ``g`` of normalised points (2017 supplement, section 2):

    g(p) = sum_k U(|p - c_k|) w_k + t + s R(theta) p,        U(r) = r^2 log(r^2 + 1e-5)

with ``c_k`` a regular grid over [-1, 1]^2. An image is resampled by inverse warping: the output at ``p``
shows the input at ``g(p)``. A point of the input at ``q`` is therefore found in the output at ``g^-1(q)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from . import geometry

_EPSILON = 1e-5
_TABLE_EXTENT = 2.0  # composed warps reach beyond the image; what lies outside this square is border anyway
_TABLE_CELLS = 128


@dataclass(frozen=True)
class WarpSpec:
    """Standard deviations from which a warp is drawn, in normalised units (rotation in degrees).

    Args:
        bend: of every coordinate of every kernel weight (the papers' sigma_w).
        extra_bend: of the perturbation that half of those coordinates receive (sigma_W).
        rotation: of the angle, in degrees.
        translation: of each coordinate of the shift.
        scale: of the scale, around 1.
        perturbation: whether the perturbation is ``added`` (2017 supplement) or ``replaces`` the first
            draw (the code released with DVE).
        grid: kernel centres per side.
    """

    bend: float = 0.001
    extra_bend: float = 0.01
    rotation: float = 5.0
    translation: float = 0.1
    scale: float = 0.1
    perturbation: Literal["added", "replaced"] = "replaced"
    grid: int = 10

    def __post_init__(self) -> None:
        deviations = (self.bend, self.extra_bend, self.rotation, self.translation, self.scale)
        if min(deviations) < 0 or self.grid < 1:
            raise ValueError(f"standard deviations must not be negative and grid at least 1, got {self}")

    @property
    def is_identity(self) -> bool:
        """Whether every warp drawn leaves all points where they are."""
        return self.bend == self.extra_bend == self.rotation == self.translation == self.scale == 0

    def milder(self, factor: float) -> WarpSpec:
        """The same warp with its bending scaled by ``factor``; the similarity is unchanged."""
        return replace(self, bend=self.bend * factor, extra_bend=self.extra_bend * factor)


IDENTITY = WarpSpec(bend=0, extra_bend=0, rotation=0, translation=0, scale=0)

# (g1, g2), as the papers' supplement and DVE's code have them: x = I o g1, x' = x o g2.
PRESETS: dict[str, tuple[WarpSpec, WarpSpec]] = {
    "faces": (
        WarpSpec(0.001, 0.001, 0, 0, 0, "added"),
        WarpSpec(0.001, 0.01, 20, 0.1, 0.05, "added"),
    ),
    "mnist": (
        WarpSpec(0.005, 0.01, 15, 0.1, 0.05, "added", grid=5),
        WarpSpec(0.005, 0.02, 20, 0.1, 0.05, "added", grid=5),
    ),
    "dve": (
        WarpSpec(0.001, 0.01, 5, 0.1, 0.1).milder(0.5),
        WarpSpec(0.001, 0.01, 5, 0.1, 0.1),
    ),
    "dve-evaluation": (
        WarpSpec(0.0005, 0.005, 2.5, 0.05, 0.05),
        WarpSpec(0.0005, 0.005, 2.5, 0.05, 0.05),
    ),
    "identity": (IDENTITY, IDENTITY),
}


@dataclass(frozen=True)
class Warp:
    """A batch of warps.

    Args:
        weights: kernel weights ``w`` (B, M, 2), M = grid * grid.
        linear: ``s R`` (B, 2, 2), applied as ``linear @ p``.
        shift: ``t`` (B, 2).
    """

    weights: Tensor
    linear: Tensor
    shift: Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, rows: slice) -> Warp:
        return Warp(self.weights[rows], self.linear[rows], self.shift[rows])

    def __call__(self, points: Tensor) -> Tensor:
        """``g(p)`` of normalised ``points`` (B, ..., 2) or, the same for all, (1, ..., 2): (B, ..., 2)."""
        flat = points.flatten(1, -2)
        bend = self._bend(_kernels(flat, self.weights.shape[1]))
        moved = bend + flat @ self.linear.mT + self.shift[:, None]
        out: Tensor = moved.reshape(len(self), *points.shape[1:])
        return out

    def _bend(self, kernels: Tensor) -> Tensor:
        """Displacements (B, N, 2) from ``kernels`` (B, N, M), or (1, N, M) that all warps share."""
        if len(kernels) == len(self):
            return kernels @ self.weights
        together = kernels[0] @ self.weights.movedim(0, 1).flatten(1)  # one product instead of B copies of the kernels
        return together.reshape(-1, len(self), 2).movedim(1, 0)

    def inverse(self, points: Tensor, *, iterations: int = 30, tolerance: float = 1e-5) -> Tensor:
        """Solve ``g(q) = p`` for normalised ``points`` (B, ..., 2) by Newton steps.

        A step is halved until it brings the point closer, so that strong bending does not throw it away.
        Points that are not within ``tolerance`` after ``iterations`` are NaN: a warp that folds, as far
        outside the image as some do, shows them nowhere. Points that are NaN stay so and cost no steps.
        """
        unknown = points.flatten(1, -2).isnan().any(-1, keepdim=True)
        goal = points.flatten(1, -2).masked_fill(unknown, 0)
        solution: Tensor = (goal - self.shift[:, None]) @ torch.linalg.inv(self.linear).mT
        miss = goal - self(solution)
        for _ in range(iterations):
            if miss.abs().max() < tolerance:
                break
            step = torch.linalg.solve_ex(self.jacobian(solution), miss[..., None])[0][..., 0]
            solution, miss = self._closer(goal, solution, miss, step)
        lost = unknown | ~(miss.abs().amax(-1, keepdim=True) < tolerance)
        return solution.masked_fill(lost, torch.nan).reshape(points.shape)

    def jacobian(self, points: Tensor) -> Tensor:
        """Derivative (B, ..., 2, 2) of ``g`` at normalised ``points`` (B, ..., 2); rows are outputs."""
        offsets = points[..., None, :] - _centres(math.isqrt(self.weights.shape[1])).to(points)
        squared = offsets.square().sum(-1)
        slopes = 2 * ((squared + _EPSILON).log() + squared / (squared + _EPSILON))
        extra = (1,) * (points.ndim - 2)
        weights = self.weights.reshape(len(self), *extra, *self.weights.shape[1:])
        bend = weights.mT @ (slopes[..., None] * offsets)
        return bend + self.linear.reshape(len(self), *extra, 2, 2)

    def _closer(self, goal: Tensor, solution: Tensor, miss: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """One step per point, halved where it does not reduce the distance to the goal."""
        for _ in range(6):
            updated = solution + step
            updated_miss = goal - self(updated)
            worse = ~(updated_miss.norm(dim=-1, keepdim=True) <= miss.norm(dim=-1, keepdim=True))
            if not worse.any():
                break
            step = torch.where(worse, step / 2, step)
        return updated, updated_miss

    def tabulate(self) -> TabulatedWarp:
        """This warp as a table that is cheap to evaluate at arbitrary points (see :class:`TabulatedWarp`)."""
        grid, kernels = _table(self.weights.shape[1], self.shift.device, self.shift.dtype)
        moved = self._bend(kernels) + grid @ self.linear.mT + self.shift[:, None]
        return TabulatedWarp(moved.mT.reshape(len(self), 2, _TABLE_CELLS, _TABLE_CELLS))


@dataclass(frozen=True)
class TabulatedWarp:
    """A warp interpolated from a table over [-2, 2]^2; ``table`` (B, 2, T, T).

    Evaluating the kernels at B * H * W scattered points costs more than the rest of pair making. The
    field is smooth: a linear table is within 0.01 px of every preset's g1 at 100 px. Both images of
    a pair go through the *same* table, so the correspondence between them stays exact.
    """

    table: Tensor

    def __call__(self, points: Tensor) -> Tensor:
        """The warp at normalised ``points`` (B, ..., 2): (B, ..., 2)."""
        grid = points.expand(len(self.table), *points.shape[1:]) / _TABLE_EXTENT
        return geometry.sample_normalised(self.table, grid).movedim(1, -1)


def draw(spec: WarpSpec, count: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Warp:
    """Draw ``count`` warps on the generator's device."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=generator.device, dtype=dtype)

    shape = (count, spec.grid**2, 2)
    weights = normal(*shape) * spec.bend
    extra = normal(*shape) * spec.extra_bend
    chosen = torch.rand(shape, generator=generator, device=generator.device) < 0.5
    perturbed = weights + extra if spec.perturbation == "added" else extra
    weights = torch.where(chosen, perturbed, weights)

    angle = normal(count) * (spec.rotation * math.pi / 180)
    scale = 1 + normal(count) * spec.scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return Warp(weights, linear, normal(count, 2) * spec.translation)


def turned(degrees: Sequence[float]) -> Warp:
    """Warps under which images appear turned by so many degrees, counter-clockwise."""
    angles = torch.tensor(degrees, dtype=torch.float32).deg2rad()
    cos, sin = angles.cos(), angles.sin()
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return Warp(torch.zeros(len(angles), 1, 2), linear, torch.zeros(len(angles), 2))


def _kernels(points: Tensor, count: int) -> Tensor:
    """``U(|p - c_k|)`` (..., M) of normalised ``points`` (..., 2)."""
    centres = _centres(math.isqrt(count)).to(points)
    squared = (points[..., :1] - centres[:, 0]).square() + (points[..., 1:] - centres[:, 1]).square()
    return squared * (squared + _EPSILON).log()


@lru_cache
def _table(count: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Points (1, T * T, 2) of the table over [-2, 2]^2 and their kernels (1, T * T, M), the same for every warp."""
    axis = torch.linspace(-_TABLE_EXTENT, _TABLE_EXTENT, _TABLE_CELLS, device=device, dtype=dtype)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x, y], dim=-1).reshape(1, -1, 2)
    return grid, _kernels(grid, count)


@lru_cache
def _centres(side: int) -> Tensor:
    axis = torch.linspace(-1, 1, side, dtype=torch.float64) if side > 1 else torch.zeros(1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)
