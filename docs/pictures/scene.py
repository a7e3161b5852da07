"""What the pictures show: the runs and the people of a demonstration, and how they are drawn on tiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from equimark import plots
from equimark.demo import SIDE, TEST_IMAGES, TRAINING_IMAGES
from equimark.model import LandmarkModel
from equimark.pairs import PairBatch, PairSpec, draw_warps
from equimark.synthetic import Portraits, portraits

GOAL = "#19d9f2"  # colour of the place where a point belongs
VISIBLE = (4, 9, 17, 23, 24, 41)  # unseen people that a reader can see well: others are as pale as old photographs


@dataclass(frozen=True)
class Scene:
    """What the pictures show.

    Args:
        runs: ``dense``, ``dve`` and ``sparse``.
        people: of the demonstration; the first 800 are those that the runs learned from.
        frames: all of them (N, 3, S, S) uint8.
    """

    runs: dict[str, LandmarkModel]
    folder: Path
    people: Portraits
    frames: Tensor

    @classmethod
    def of(cls, folder: Path) -> Scene:
        """The runs of a demonstration in a folder, and the people that it draws."""
        runs = {name: LandmarkModel.load(folder / name, device="cpu") for name in ("dense", "dve", "sparse")}
        people = portraits(TRAINING_IMAGES + TEST_IMAGES, seed=0, size=SIDE)
        return cls(runs, folder, people, torch.from_numpy(people.images).movedim(-1, 1).contiguous())

    @property
    def unseen(self) -> Tensor:
        """Frames (B, 3, S, S) of the people that no run has learned from."""
        return self.frames[TRAINING_IMAGES:]

    @property
    def unseen_points(self) -> NDArray[np.float64]:
        """Their 68 landmarks (B, 68, 2)."""
        return self.people.landmarks[TRAINING_IMAGES:].astype(np.float64)


def night(image: plots.Image) -> plots.Image:
    """An image on which colours shine."""
    return np.asarray(0.12 * image + 0.38 * image.mean(-1, keepdims=True), np.uint8)


def say(ax: Axes, text: str) -> None:
    """A short text in the lower left corner of a tile."""
    ax.text(0.03, 0.03, text, transform=ax.transAxes, fontsize=7.5, color="white", zorder=6)


def pairs_of(
    frames: Tensor, spec: PairSpec, *, points: NDArray[np.float64] | None = None, seed: int = 0
) -> tuple[PairBatch, Tensor, Tensor]:
    """Pairs without photometric change, and where points (B, K, 2) of the frames lie in the two views."""
    drawn = draw_warps(spec, len(frames), frames.shape[-1], generator=torch.Generator().manual_seed(seed))
    given = torch.zeros(len(frames), 1, 2) if points is None else torch.from_numpy(points).float()
    return drawn.views(frames.float() / 255), drawn.move_to_source(given), drawn.move_to_target(given)


def inner(frames: Tensor, model: LandmarkModel) -> Tensor:
    """What the margin leaves of frames, as the network saw them in training."""
    margin = model.config.pairs.margin
    return frames[..., margin:-margin, margin:-margin].float() / 255


def draw_goal(ax: Axes, goal: Tensor) -> None:
    """A ring around the place (2,) where a point belongs."""
    x, y = goal.tolist()
    ax.scatter([x], [y], s=230, facecolors="none", edgecolors=GOAL, linewidths=1.2, zorder=5)
