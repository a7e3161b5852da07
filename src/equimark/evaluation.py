"""Annotated images in a model's frame; the matching protocol; whether sparse landmarks are healthy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import geometry, matching, objectives
from .embedding import ModelError, batches
from .geometry import Frame, Size, frame_by_landmarks
from .images import ImageError, ImageSource, frame_image, open_images
from .landmarks import LandmarkError, LandmarkTable, match_images, quote
from .methods import cells_correspondence
from .metrics import Points, by_point
from .model import LandmarkModel
from .pairs import PairSpec, draw_warps
from .progress import progress_bar
from .warps import PRESETS

FARTHEST = 0.5  # of the longer side of an image: a landmark farther outside is a mistake
REFERENCE_SIDE = 70.0  # errors of the matching protocol are given in pixels of a 70 x 70 frame
MatchingVariant = Literal["cells", "upsampled"]
FrameOf = Callable[[int, Size], Frame]


@dataclass(frozen=True)
class AnnotatedFrames:
    """Images in a model's frame, with their landmarks there.

    Args:
        frames: (N, 3, S, S) uint8.
        points: (N, K, 2) in pixels of the frames; NaN where not visible.
    """

    frames: Tensor
    points: Points

    def __len__(self) -> int:
        return len(self.frames)


def draw_labels(complete: NDArray[np.bool_], wanted: int, seed: int) -> NDArray[np.int64]:
    """Which ``wanted`` of N labelled images are used, in order: the same for every method.

    Images that show all landmarks come first. Of one seed, a smaller draw is a part of every larger one.

    Args:
        complete: (N,) which images show all landmarks.
        wanted: how many to draw.
        seed: of the draw.

    Raises:
        LandmarkError: if there are not as many.
    """
    if not 1 <= wanted <= len(complete):
        raise LandmarkError(f"--labels must lie between 1 and {len(complete)}, the labelled images: {wanted}")
    rows = np.random.default_rng(seed).permutation(len(complete))
    return np.sort(rows[np.argsort(~complete[rows], kind="stable")][:wanted])


def around_landmarks(table: LandmarkTable, size: int) -> FrameOf:
    """The frame of each image by its landmarks: see :func:`~equimark.geometry.frame_by_landmarks`."""
    return lambda row, image_size: frame_by_landmarks(table.points[row], image_size, size)


def load_annotated(
    table: LandmarkTable, images: str | Path | ImageSource, frame: Frame | FrameOf, *, progress: bool = False
) -> AnnotatedFrames:
    """The images of a landmark table, in a frame.

    Args:
        table: landmarks in pixels of the images as stored.
        images: where the images are: a folder, a .zip, a list, or opened already.
        frame: of all images, or the frame of a row of the table, whose image has a size (H, W).
        progress: show a progress bar.

    Raises:
        LandmarkError: if an image of the table is missing or ambiguous, or a landmark lies far outside its image.
        ImageError: if an image of the table cannot be read.
    """
    source = images if isinstance(images, ImageSource) else open_images(images)
    frames, points = [], []
    indices = match_images(table, source.names)
    with progress_bar("reading", len(table), shown=progress) as advance:
        for row, index in enumerate(indices):
            try:
                pixels = source.decoded(int(index)).pixels
            except ImageError as error:
                raise ImageError(f"{source.names[int(index)]}: {error}") from None
            _check_near(table, row, pixels.shape[:2])
            own = frame if isinstance(frame, Frame) else frame(row, (pixels.shape[0], pixels.shape[1]))
            framed, placement = frame_image(pixels, own)
            frames.append(framed)
            points.append(placement.to_frame(table.points[row]))
            advance()
    return AnnotatedFrames(torch.from_numpy(np.stack(frames)).movedim(-1, 1).contiguous(), np.stack(points))


def _check_near(table: LandmarkTable, row: int, size: tuple[int, int]) -> None:
    """Refuse landmarks far outside their image: typing errors, or those of another image."""
    height, width = size
    points, reach = table.points[row], FARTHEST * max(size)
    far = ((points < -reach) | (points > [width + reach, height + reach])).any(-1)
    if far.any():
        x, y = points[far.argmax()]
        name = quote(table.labels[int(far.argmax())])
        raise LandmarkError(
            f"landmark {name} of {table.images[row]} lies at {x:g},{y:g}, far outside "
            f"the image of {width} x {height} pixels: correct it, or leave it blank"
        )


@dataclass(frozen=True)
class MatchingResult:
    """Errors in pixels of a 70 x 70 frame; rows are pairs of images, columns landmarks; NaN where not in view.

    Args:
        same_identity: (P, K), between two warps of one image.
        different_identity: (P, K), between two images.
    """

    same_identity: Points
    different_identity: Points

    def metrics(self) -> dict[str, float]:
        """The two figures of DVE table 1."""
        return {
            "same_identity_px": float(np.nanmean(self.same_identity)),
            "different_identity_px": float(np.nanmean(self.different_identity)),
        }

    def by_point(self) -> dict[str, Points]:
        """The same two figures of each landmark (K,)."""
        return {
            "same_identity_px": by_point(self.same_identity),
            "different_identity_px": by_point(self.different_identity),
        }


def evaluate_matching(
    model: LandmarkModel,
    data: AnnotatedFrames,
    *,
    variant: MatchingVariant = "cells",
    seed: int = 0,
    pairs: int | None = None,
    progress: bool = False,
) -> MatchingResult:
    """Matching between two warps of an image and between two images (DVE section 4.1, table 1).

    Images are taken two at a time in their order. Both are warped (preset ``dve-evaluation``) and cropped
    by the run's margin; the descriptor at each landmark of the first is looked for in another warp of the
    first and in a warp of the second.

    Args:
        model: with descriptors.
        data: annotated images; an odd last one is left out.
        variant: ``cells`` as released with DVE: the descriptor of the cell nearest to the landmark, dot
            products, the cell of the maximum. ``upsampled`` as in newer papers: descriptors enlarged to
            the view and compared by cosine, pixel by pixel.
        seed: of the warps, and of the choice of pairs.
        pairs: take so many of the pairs, drawn at random; all if absent.
        progress: show a progress bar.

    Raises:
        ModelError: for a sparse run, fewer than two images, or fewer pairs than are asked for.
    """
    check_matching(model)
    if len(data) < 2:
        raise ModelError(f"the matching protocol takes images two at a time, got {len(data)}")
    chosen = _choose_pairs(len(data) // 2, pairs, seed)
    errors = []
    with progress_bar("matching", len(chosen), unit="pairs", shown=progress) as advance:
        for views in _view_pairs(model, data, chosen, seed):
            errors.append(_match_batch(model, views, variant))
            advance(len(errors[-1][0]))
    same, different = (np.concatenate(parts) for parts in zip(*errors, strict=True))
    return MatchingResult(same, different)


def check_matching(model: LandmarkModel) -> None:
    """Refuse a run without descriptors.

    Raises:
        ModelError: if it has none.
    """
    if not model.has_descriptors:
        raise ModelError(f"the matching protocol needs descriptors; a {model.config.method} run has none")


def _choose_pairs(count: int, wanted: int | None, seed: int) -> Tensor:
    """Which of ``count`` pairs of images, in order."""
    if wanted is None:
        return torch.arange(count)
    if not 1 <= wanted <= count:
        raise ModelError(f"{wanted} pairs were asked for, but these images make 1 to {count}")
    return torch.from_numpy(draw_labels(np.ones(count, np.bool_), wanted, seed))


@dataclass(frozen=True)
class _Views:
    """Warped crops (B, 3, s, s) and where the landmarks (B, K, 2) lie in them."""

    images: Tensor
    points: Tensor


def _view_pairs(
    model: LandmarkModel, data: AnnotatedFrames, pairs: Tensor, seed: int
) -> Iterator[tuple[_Views, _Views, _Views]]:
    """Source views of the first images, target views of the first, target views of the second."""
    first, second = PRESETS["dve-evaluation"]
    spec = PairSpec(model.config.pairs.margin, first, second)
    generator = torch.Generator().manual_seed(seed)
    for part in batches(len(pairs)):
        chosen = pairs[part]
        both = torch.stack([2 * chosen, 2 * chosen + 1]).flatten()
        images = data.frames[both].float() / 255
        points = torch.from_numpy(data.points[both.numpy()]).float()
        warps = draw_warps(spec, len(both), images.shape[-1], generator=generator)
        views = warps.views(images)
        sources, targets = warps.move_to_source(points), warps.move_to_target(points)
        half = len(chosen)
        yield (
            _Views(views.source[:half], sources[:half]),
            _Views(views.target[:half], targets[:half]),
            _Views(views.target[half:], targets[half:]),
        )


def _match_batch(
    model: LandmarkModel, views: tuple[_Views, _Views, _Views], variant: MatchingVariant
) -> tuple[Points, Points]:
    described = model.features_of(torch.cat([v.images for v in views])).chunk(3)
    side = views[0].images.shape[-1]
    find = _find_by_cell if variant == "cells" else _find_upsampled
    errors = []
    for view, features in zip(views[1:], described[1:], strict=True):
        found = find(model, described[0], views[0].points.nan_to_num(), features, side)
        error = (found - view.points).norm(dim=-1) * (REFERENCE_SIDE / side)
        seen = geometry.inside(views[0].points, (side, side)) & geometry.inside(view.points, (side, side))
        errors.append(error.masked_fill(~seen, torch.nan).double().numpy())
    return errors[0], errors[1]


def _find_by_cell(model: LandmarkModel, source: Tensor, points: Tensor, target: Tensor, side: int) -> Tensor:
    limit = torch.tensor([source.shape[-1] - 1.0, source.shape[-2] - 1.0])
    cells = model.network.cells.to_cells(points).round().clamp_min(0).minimum(limit)
    scores = matching.similarity(matching.describe_points(source, cells), target)
    return model.network.cells.to_pixels(matching.nearest_cell(scores))


def _find_upsampled(model: LandmarkModel, source: Tensor, points: Tensor, target: Tensor, side: int) -> Tensor:
    descriptors = matching.describe_points(_enlarge(model, source, side), points.round().clamp(0, side - 1))
    return matching.nearest_cell(matching.cosine_similarity(descriptors, _enlarge(model, target, side)))


def _enlarge(model: LandmarkModel, features: Tensor, side: int) -> Tensor:
    """Descriptors (B, C, side, side), one per pixel, each cell at the pixel that it describes."""
    pixels = geometry.pixel_grid((side, side)).expand(len(features), -1, -1, -1)
    return geometry.sample(features, model.network.cells.to_cells(pixels))


@dataclass(frozen=True)
class SparseHealth:
    """Whether sparse landmarks are distinct and move with the object.

    Args:
        distinct_landmarks: how many of K stand apart on most images.
        alignment: squared distance between a landmark and where the warp says it should be, input pixels.
        alignment_share: that, relative to landmarks that stand still in the frame: 1 is standing still; NaN for a run
            whose pairs do not move.
    """

    distinct_landmarks: int
    alignment: float
    alignment_share: float


def evaluate_sparse(model: LandmarkModel, frames: Tensor, *, seed: int = 0) -> SparseHealth:
    """Warp unseen images (B, 3, S, S) uint8 as in training and see whether the landmarks follow.

    Raises:
        ModelError: for a run that has no landmarks of its own.
    """
    if not model.config.landmarks:
        raise ModelError("only a sparse run, or one with network.landmarks, has landmarks of its own")
    generator = torch.Generator().manual_seed(seed)
    views = draw_warps(model.config.pairs, len(frames), frames.shape[-1], generator=generator).views(frames / 255)
    cells = model.network.cells
    source, target = model.scores_of(torch.cat([views.source, views.target])).chunk(2)
    at_cells = cells_correspondence(views, cells, (source.shape[-2], source.shape[-1]))
    alignment = objectives.sparse_equivariance(source, target, at_cells, stride=cells.stride)["alignment"]
    health = objectives.sparse_health(source, alignment, at_cells, stride=cells.stride)
    share = math.nan if model.config.pairs.is_still else float(health["alignment_share"])
    return SparseHealth(int(health["distinct_landmarks"]), float(alignment), share)
