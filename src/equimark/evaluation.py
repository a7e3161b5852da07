"""Metrics, and the papers' protocols that produce them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import geometry, matching, objectives
from .geometry import Frame
from .images import ImageError, decode, frame_image, open_images
from .landmarks import LandmarkTable, match_images
from .methods import cells_correspondence
from .model import LandmarkModel, ModelError, batches
from .pairs import PairSpec, draw_warps
from .warps import PRESETS

REFERENCE_SIDE = 70.0  # errors of the matching protocol are given in pixels of a 70 x 70 frame
MatchingVariant = Literal["cells", "upsampled"]
Points = NDArray[np.float64]


def distances(predicted: Points, truth: Points) -> Points:
    """Euclidean distances (...) of points (..., 2); NaN where the truth is NaN."""
    norms: Points = np.linalg.norm(np.asarray(predicted) - np.asarray(truth), axis=-1)
    return norms


def error_iod_percent(predicted: Points, truth: Points, eyes: tuple[int, int]) -> float:
    """Mean distance as a share of the distance between two landmarks, in % (DVE tables 2-3).

    Args:
        predicted: (N, K, 2).
        truth: (N, K, 2); landmarks that are NaN do not count, nor images without both eyes.
        eyes: indices of the two landmarks: 0 and 1 of the five points, 36 and 45 of the 68.
    """
    between = distances(truth[:, eyes[0]], truth[:, eyes[1]])
    return 100 * float(np.nanmean(distances(predicted, truth) / between[:, None]))


def error_px(predicted: Points, truth: Points) -> float:
    """Mean distance in pixels over the visible landmarks."""
    return float(np.nanmean(distances(predicted, truth)))


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


def load_annotated(
    table: LandmarkTable, images: str | Path, frame: Frame, *, by_landmarks: bool = False
) -> AnnotatedFrames:
    """The images of a landmark table, in a frame.

    Args:
        table: landmarks in pixels of the images as stored.
        images: where the images are: a folder, a .zip, a list.
        frame: of the model.
        by_landmarks: place the frame by the landmarks (see :func:`frame_by_landmarks`).

    Raises:
        LandmarkError: if an image of the table is missing or ambiguous.
        ImageError: if an image of the table cannot be read.
    """
    source = open_images(images)
    frames, points = [], []
    for row, index in enumerate(match_images(table, source.names)):
        try:
            pixels = decode(source.read(int(index))).pixels
        except ImageError as error:
            raise ImageError(f"{source.names[int(index)]}: {error}") from None
        size = (pixels.shape[0], pixels.shape[1])
        framed, placement = frame_image(
            pixels, frame_by_landmarks(table.points[row], size, frame.size) if by_landmarks else frame
        )
        frames.append(framed)
        points.append(placement.to_frame(table.points[row]))
    return AnnotatedFrames(torch.from_numpy(np.stack(frames)).movedim(-1, 1).contiguous(), np.stack(points))


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


def evaluate_matching(
    model: LandmarkModel, data: AnnotatedFrames, *, variant: MatchingVariant = "cells", seed: int = 0
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
        seed: of the warps.

    Raises:
        ModelError: for a sparse run, or fewer than two images.
    """
    if not model.has_descriptors:
        raise ModelError(f"the matching protocol needs descriptors; a {model.config.method} run has none")
    if len(data) < 2:
        raise ModelError(f"the matching protocol takes images two at a time, got {len(data)}")
    errors = [_match_batch(model, batch, variant) for batch in _view_pairs(model, data, seed)]
    same, different = (np.concatenate(parts) for parts in zip(*errors, strict=True))
    return MatchingResult(same, different)


@dataclass(frozen=True)
class _Views:
    """Warped crops (B, 3, s, s) and where the landmarks (B, K, 2) lie in them."""

    images: Tensor
    points: Tensor


def _view_pairs(model: LandmarkModel, data: AnnotatedFrames, seed: int) -> Iterator[tuple[_Views, _Views, _Views]]:
    """Source views of the first images, target views of the first, target views of the second."""
    first, second = PRESETS["dve-evaluation"]
    spec = PairSpec(model.config.pairs.margin, first, second)
    generator = torch.Generator().manual_seed(seed)
    pairs = len(data) // 2
    for part in batches(pairs):
        chosen = torch.arange(part.start, part.stop)
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
        alignment_share: that, relative to landmarks that stand still in the frame: 1 is standing still.
    """

    distinct_landmarks: int
    alignment: float
    alignment_share: float


def evaluate_sparse(model: LandmarkModel, frames: Tensor, *, seed: int = 0) -> SparseHealth:
    """Warp unseen images (B, 3, S, S) uint8 as in training and see whether the landmarks follow.

    Raises:
        ModelError: for a run that has no landmarks of its own.
    """
    if not model.is_sparse:
        raise ModelError("only a sparse run has landmarks of its own")
    generator = torch.Generator().manual_seed(seed)
    views = draw_warps(model.config.pairs, len(frames), frames.shape[-1], generator=generator).views(frames / 255)
    cells = model.network.cells
    source, target = model.features_of(torch.cat([views.source, views.target])).chunk(2)
    at_cells = cells_correspondence(views, cells, (source.shape[-2], source.shape[-1]))
    alignment = objectives.sparse_equivariance(source, target, at_cells, stride=cells.stride)["alignment"]
    health = objectives.sparse_health(source, alignment, at_cells, stride=cells.stride)
    return SparseHealth(int(health["distinct_landmarks"]), float(alignment), float(health["alignment_share"]))


def frame_by_landmarks(
    points: Points, image_size: tuple[int, int], frame_size: int, *, width: float = 0.52, up: float = 0.02
) -> Frame:
    """The 300-W frame of DVE: the box around the landmarks is 52 of 100 px wide, and the frame is moved up by 2 px.

    Args:
        points: landmarks (K, 2) in pixels of the image.
        image_size: (H, W) of the image.
        frame_size: side of the frame in pixels.
        width: of the box, as a share of the frame.
        up: by which the frame is moved up, as a share of its side.
    """
    low, high = np.nanmin(points, 0), np.nanmax(points, 0)
    side = (high[0] - low[0] + 1) / width
    corner = (low + high) / 2 + 0.5 + [0, -up * side] - side / 2
    shares = np.concatenate([corner, corner + side]) / np.tile(image_size[::-1], 2)
    return Frame(frame_size, fit=",".join(map(repr, shares.tolist())))
