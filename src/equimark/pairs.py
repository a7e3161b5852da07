"""Training pairs: images, random warps and photometric change -> two views and the correspondence between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from kornia import enhance
from torch import Tensor

from . import geometry, warps
from .warps import WarpSpec

# Principal directions of RGB in natural images and their deviations (Krizhevsky et al., 2012, section 4.1).
_LIGHT_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_LIGHT_DEVIATIONS = (0.2175, 0.0188, 0.0045)


@dataclass(frozen=True)
class PhotometricSpec:
    """Strengths of the photometric change; 0 (or probability 0) leaves a step out.

    Args:
        brightness, contrast, saturation: factors are drawn from [1 - x, 1 + x].
        lighting: deviation of the noise along the principal colour directions.
        jpeg_probability: share of the images that are re-encoded.
        jpeg_quality: range of the JPEG quality.
        rescale: smallest factor by which a batch is reduced, then enlarged again, before re-encoding.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    lighting: float = 0.1
    jpeg_probability: float = 1.0
    jpeg_quality: tuple[float, float] = (30.0, 99.0)
    rescale: float = 0.7

    def __post_init__(self) -> None:
        factors = (self.brightness, self.contrast, self.saturation)
        if not all(0 <= f <= 1 for f in (*factors, self.jpeg_probability)) or self.lighting < 0:
            raise ValueError(f"brightness, contrast, saturation and jpeg_probability lie in [0, 1], got {self}")
        if not (1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100 and 0.1 <= self.rescale <= 1):
            raise ValueError(f"jpeg_quality lies in [1, 100] and rescale in [0.1, 1], got {self}")


NO_CHANGE = PhotometricSpec(0, 0, 0, 0, 0)


Partner = Literal["itself", "next", "folder"]
Motion = Literal["none", "flow", "unknown"]


@dataclass(frozen=True)
class PairSpec:
    """How images become pairs of views.

    Args:
        margin: pixels cropped from each side of the frame after warping, so that the border of a view
            holds real image content.
        first: the warp g1 of both views.
        second: the further warp g2 of the source view.
        photometric: drawn independently for each view.
        partner: what the target view shows: the source's image ``itself``; the ``next`` image of its folder, as in
            a video; another image of its ``folder``, as of one subject under several lights.
        gap: how many images further the ``next`` one is.
        motion: between the image and its partner: ``none``, they are registered; the ``flow`` that is given with
            the images, or, for an image and ``itself``, none where that flow is known and nothing known elsewhere;
            ``unknown``, for the objective that fits it.
    """

    margin: int = 15
    first: WarpSpec = field(default_factory=lambda: warps.PRESETS["dve"][0])
    second: WarpSpec = field(default_factory=lambda: warps.PRESETS["dve"][1])
    photometric: PhotometricSpec = PhotometricSpec()
    partner: Partner = "itself"
    gap: int = 1
    motion: Motion = "none"

    def __post_init__(self) -> None:
        if self.margin < 0 or self.gap < 1:
            raise ValueError(f"margin must not be negative and gap at least 1, got {self.margin} and {self.gap}")
        if self.motion == "flow" and (self.partner == "folder" or self.gap != 1):
            raise ValueError("motion: flow leads to the next frame, so it needs partner: next (or itself) and gap: 1")
        if self.motion == "flow" and not self.first.is_identity:
            raise ValueError("motion: flow needs a first warp that does nothing; let the second warp bend the source")
        if self.motion == "unknown" and self.partner == "itself":
            raise ValueError("motion: unknown needs another image: partner: next, or partner: folder")

    @property
    def is_still(self) -> bool:
        """Whether all that both views show is at the same place: registered images that no further warp moves."""
        return (self.motion == "none" or self.partner == "itself") and self.second.is_identity

    def crop_size(self, frame_size: int) -> int:
        """Side of the views of a frame of ``frame_size`` pixels.

        Raises:
            ValueError: if the margin leaves fewer than 16 pixels.
        """
        side = frame_size - 2 * self.margin
        if side < 16:
            raise ValueError(
                f"margin={self.margin} leaves a crop of {side} pixels of a frame of {frame_size}: at least 16 are "
                f"needed, so choose a margin of at most {(frame_size - 16) // 2}"
            )
        return side


@dataclass(frozen=True)
class PairBatch:
    """Two views of each image, or of an image and its partner.

    Args:
        source: ``I o g1 o g2`` (B, 3, h, w) in [0, 1].
        target: ``I o g1``, or ``J o g1`` of the partner J (B, 3, h, w).
        target_from_source: where each source pixel lies in the target, in target pixels (B, h, w, 2); NaN where that
            is not known.
        valid: whether that position is known and lies inside the target (B, h, w).
        pool: views (P, 3, h, w) of further images, from which auxiliaries are taken; the sources if absent.
        auxiliaries: indices (B, A) into the pool: the auxiliary images of each pair; none if absent.
    """

    source: Tensor
    target: Tensor
    target_from_source: Tensor
    valid: Tensor
    pool: Tensor | None = None
    auxiliaries: Tensor | None = None

    def __len__(self) -> int:
        return len(self.source)


@dataclass(frozen=True)
class Part:
    """The pairs from ``start`` to before ``stop`` of a batch of ``count``: what one of several processes makes of it.

    Whatever is random is drawn for the whole batch, so that a pair is the same whoever makes it.
    """

    start: int
    stop: int
    count: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def rows(self) -> slice:
        """Of the batch."""
        return slice(self.start, self.stop)

    def of_views(self, drawn: Tensor) -> Tensor:
        """Those of ``drawn`` (V * count, ...), for V views of every pair of the batch, that are for this part."""
        by_view = drawn.reshape(-1, self.count, *drawn.shape[1:])
        return by_view[:, self.rows].flatten(0, 1)


@dataclass(frozen=True)
class WarpPair:
    """The two warps of a batch of pairs, for frames of ``frame_size`` pixels cropped by ``margin``."""

    first: warps.Warp
    second: warps.Warp
    frame_size: int
    margin: int

    def __getitem__(self, rows: slice) -> WarpPair:
        return replace(self, first=self.first[rows], second=self.second[rows])

    def views(self, images: Tensor, partners: Tensor | None = None, flow: Tensor | None = None) -> PairBatch:
        """Both views of frames ``images`` (B, C, S, S), each resampled once, without photometric change.

        Args:
            images: shown by the source views, and by the target views if there are no partners.
            partners: (B, C, S, S), shown by the target views.
            flow: displacements (B, 2, S, S) in frame pixels from the images to their partners, NaN where unknown;
                the first warp must then do nothing.
        """
        size, side = (self.frame_size, self.frame_size), self.frame_size - 2 * self.margin
        table, target_points = self.first.tabulate(), self._crop()
        source_points = self.second(target_points)

        def look(shown: Tensor, points: Tensor) -> Tensor:
            return geometry.sample(shown, geometry.denormalise(table(points), size))

        in_frame = geometry.denormalise(source_points, size)
        moved = torch.zeros_like(in_frame) if flow is None else geometry.sample_nearest(flow, in_frame).movedim(1, -1)
        correspondence = in_frame + moved - self.margin
        return PairBatch(
            source=look(images, source_points),
            target=look(images if partners is None else partners, target_points),
            target_from_source=correspondence,
            valid=geometry.inside(correspondence, (side, side)),
        )

    def source_positions(self) -> Tensor:
        """Frame pixels (B, s, s, 2) that the source view shows."""
        seen = self.first.tabulate()(self.second(self._crop()))
        return geometry.denormalise(seen, (self.frame_size, self.frame_size))

    def _crop(self) -> Tensor:
        """Normalised positions (1, s, s, 2), in the frame, of the pixels that the margin leaves."""
        side = self.frame_size - 2 * self.margin
        crop = geometry.pixel_grid((side, side), device=self.first.shift.device) + self.margin
        return self._from_frame(crop)[None]

    def move_to_target(self, points: Tensor) -> Tensor:
        """Where frame pixels ``points`` (B, K, 2) lie in the target view, in its pixels; solved to < 0.01 px."""
        return self._to_view(self.first.inverse(self._from_frame(points)))

    def move_to_source(self, points: Tensor) -> Tensor:
        """Where frame pixels ``points`` (B, K, 2) lie in the source view, in its pixels; solved to < 0.01 px."""
        return self._to_view(self.second.inverse(self.first.inverse(self._from_frame(points))))

    def _from_frame(self, points: Tensor) -> Tensor:
        return geometry.normalise(points, (self.frame_size, self.frame_size))

    def _to_view(self, points: Tensor) -> Tensor:
        return geometry.denormalise(points, (self.frame_size, self.frame_size)) - self.margin


def draw_warps(spec: PairSpec, count: int, frame_size: int, *, generator: torch.Generator) -> WarpPair:
    """Draw the two warps of ``count`` pairs, on the generator's device."""
    spec.crop_size(frame_size)
    first = warps.draw(spec.first, count, generator=generator)
    second = warps.draw(spec.second, count, generator=generator)
    return WarpPair(first, second, frame_size, spec.margin)


def make_pairs(
    frames: Tensor,
    spec: PairSpec,
    *,
    warp_generator: torch.Generator,
    photometric_generator: torch.Generator,
    partners: Tensor | None = None,
    flow: Tensor | None = None,
    part: Part | None = None,
) -> PairBatch:
    """Pairs of ``frames`` (B, 3, S, S) uint8, made on the frames' device; see :meth:`WarpPair.views`.

    Args:
        frames: uint8.
        spec: how they become pairs.
        warp_generator: of the warps.
        photometric_generator: of the photometric change.
        partners: (B, 3, S, S) uint8.
        flow: see :meth:`WarpPair.views`.
        part: which pairs of a batch these are; a whole one if absent.
    """
    part = part or Part(0, len(frames), len(frames))
    drawn = draw_warps(spec, part.count, frames.shape[-1], generator=warp_generator)[part.rows]
    pair = drawn.views(frames.float() / 255, None if partners is None else partners.float() / 255, flow)
    both = torch.cat([pair.source, pair.target])
    source, target = change_photometry(both, spec.photometric, generator=photometric_generator, part=part).chunk(2)
    return replace(pair, source=source, target=target)


def change_photometry(
    images: Tensor, spec: PhotometricSpec, *, generator: torch.Generator, part: Part | None = None
) -> Tensor:
    """Independent photometric change of ``images`` (B, 3, H, W) in [0, 1].

    Args:
        images: views, all first ones before all second ones.
        spec: the strengths.
        generator: of the change.
        part: which pairs of a batch the views are of; all if absent.
    """
    part = part or Part(0, len(images), len(images))
    views = len(images) // len(part) * part.count

    def draw(kind: Callable[..., Tensor], *shape: int) -> Tensor:
        return part.of_views(kind(views, *shape, generator=generator, device=generator.device))

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * draw(torch.rand)

    jitters: list[tuple[float, Callable[[Tensor, Tensor], Tensor]]] = [
        (spec.brightness, enhance.adjust_brightness_accumulative),
        (spec.contrast, enhance.adjust_contrast_with_mean_subtraction),
        (spec.saturation, enhance.adjust_saturation_with_gray_subtraction),
    ]
    for strength, adjust in jitters:
        if strength:
            images = adjust(images, uniform(1 - strength, 1 + strength))
    if spec.lighting:
        amounts = draw(torch.randn, 3) * spec.lighting
        directions = images.new_tensor(_LIGHT_DIRECTIONS) * images.new_tensor(_LIGHT_DEVIATIONS)
        images = (images + (amounts @ directions.T)[:, :, None, None]).clamp(0, 1)
    if spec.jpeg_probability:
        size = torch.rand(1, generator=generator, device=generator.device)  # the same for all
        encoded = _encode(images, spec.rescale + (1 - spec.rescale) * size, uniform(*spec.jpeg_quality))
        chosen = uniform(0, 1) < spec.jpeg_probability
        images = torch.where(chosen[:, None, None, None], encoded, images)
    return images


def _encode(images: Tensor, factor: Tensor, quality: Tensor) -> Tensor:
    size = (images.shape[-2], images.shape[-1])
    smaller = (round(size[0] * float(factor)), round(size[1] * float(factor)))
    rescaled = geometry.resize(geometry.resize(images, smaller), size)
    with torch.no_grad():
        encoded: Tensor = enhance.jpeg_codec_differentiable(rescaled, quality)
    return encoded
