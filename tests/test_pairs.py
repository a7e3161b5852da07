from dataclasses import replace

import pytest
import torch

from equimark import geometry, warps
from equimark.pairs import NO_CHANGE, PairSpec, PhotometricSpec, WarpPair, change_photometry, draw_warps, make_pairs
from equimark.warps import IDENTITY, PRESETS, WarpSpec

SIZE, MARGIN = 100, 15
NAMES = [name for name in PRESETS if name != "identity"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair_spec(name: str = "dve", **changes) -> PairSpec:
    first, second = PRESETS[name]
    return replace(PairSpec(MARGIN, first, second, NO_CHANGE), **changes)


def coordinate_images(count: int, size: int = SIZE) -> torch.Tensor:
    """Images (B, 2, S, S) whose colour is the pixel's own position."""
    return geometry.pixel_grid((size, size)).movedim(-1, 0).expand(count, -1, -1, -1).contiguous()


def seen(colours: torch.Tensor, low: float = 0.5, high: float = SIZE - 1.5) -> torch.Tensor:
    """Where the view shows the image itself and not its repeated border."""
    return ((colours > low) & (colours < high)).all(1)


# ---- correspondence


@pytest.mark.parametrize("name", NAMES)
def test_colour_that_is_its_coordinate_survives(name):
    count = 8
    pair = draw_warps(pair_spec(name), count, SIZE, generator=generator(1)).views(coordinate_images(count))
    found = geometry.sample(pair.target, pair.target_from_source)
    # Bilinear sampling at a border cell of the seen part mixes in the repeated border: look at whole cells only.
    clean = geometry.sample(seen(pair.target).float()[:, None], pair.target_from_source)[:, 0] > 0.999
    usable = pair.valid & seen(pair.source) & clean
    assert usable.float().mean() > 0.3
    error = (found - pair.source).norm(dim=1)[usable].max()
    assert float(error) < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_moved_points_show_the_colour_of_where_they_were(name):
    # Gentle bending, so that this test is about directions and not about how hard a warp is to invert.
    first, second = (s.milder(0.2) for s in PRESETS[name])
    count = 8
    drawn = draw_warps(PairSpec(MARGIN, first, second, NO_CHANGE), count, SIZE, generator=generator(2))
    pair = drawn.views(coordinate_images(count))
    points = torch.rand(count, 40, 2, generator=generator(3)) * 40 + 30
    in_target, in_source = drawn.move_to_target(points), drawn.move_to_source(points)
    side = SIZE - 2 * MARGIN
    for view, moved in ((pair.target, in_target), (pair.source, in_source)):
        colours = geometry.sample(view, moved).mT
        visible = geometry.inside(moved, (side, side)) & seen(geometry.sample(view, moved))
        assert visible.float().mean() > 0.6
        assert float((colours - points).norm(dim=-1)[visible].max()) < 0.05
    # The field says the same; it is read between pixels by linear interpolation.
    field = geometry.sample(pair.target_from_source.movedim(-1, 1), in_source).mT
    visible = geometry.inside(in_source, (side, side))
    assert float((field - in_target).norm(dim=-1)[visible].max()) < 0.01


def test_correspondence_is_the_second_warp():
    drawn = draw_warps(pair_spec(), 3, SIZE, generator=generator())
    pair = drawn.views(coordinate_images(3))
    pixel = torch.tensor([20.0, 33.0]) + MARGIN
    moved = drawn.second((pixel / 49.5 - 1).expand(3, 1, 2))[:, 0]
    torch.testing.assert_close(pair.target_from_source[:, 33, 20], (moved + 1) * 49.5 - MARGIN, rtol=0, atol=1e-4)


def test_views_are_not_each_others_mirror():
    """A known shift: the target shows the image moved by g1, the source by g1 o g2."""
    shift = warps.Warp(torch.zeros(1, 4, 2), torch.eye(2)[None], torch.tensor([[10.0, 0.0]]) / 49.5)
    down = warps.Warp(torch.zeros(1, 4, 2), torch.eye(2)[None], torch.tensor([[0.0, 5.0]]) / 49.5)
    drawn = WarpPair(first=shift, second=down, frame_size=SIZE, margin=MARGIN)
    pair = drawn.views(coordinate_images(1))
    torch.testing.assert_close(pair.target[0, :, 0, 0], torch.tensor([25.0, 15.0]), rtol=0, atol=1e-3)
    torch.testing.assert_close(pair.source[0, :, 0, 0], torch.tensor([25.0, 20.0]), rtol=0, atol=1e-3)
    torch.testing.assert_close(pair.target_from_source[0, 0, 0], torch.tensor([0.0, 5.0]), rtol=0, atol=1e-4)
    assert pair.valid[0, :65].all() and not pair.valid[0, 65:].any()
    point = torch.tensor([[[50.0, 50.0]]])
    torch.testing.assert_close(drawn.move_to_target(point), torch.tensor([[[25.0, 35.0]]]), rtol=0, atol=1e-3)
    torch.testing.assert_close(drawn.move_to_source(point), torch.tensor([[[25.0, 30.0]]]), rtol=0, atol=1e-3)


def test_identity_warps_crop_the_centre():
    frames = torch.randint(0, 256, (2, 3, 40, 40), generator=generator(), dtype=torch.uint8)
    spec = PairSpec(8, IDENTITY, IDENTITY, NO_CHANGE)
    pair = make_pairs(frames, spec, warp_generator=generator(), photometric_generator=generator())
    centre = frames[:, :, 8:-8, 8:-8].float() / 255
    for view in (pair.source, pair.target):
        torch.testing.assert_close(view, centre, rtol=0, atol=1e-5)
    grid = geometry.pixel_grid((24, 24)).expand(2, -1, -1, -1)
    torch.testing.assert_close(pair.target_from_source, grid, rtol=0, atol=1e-4)


def test_identity_warps_are_valid_everywhere():
    """Rounding must not declare the border pixels of an unmoved view to lie outside."""
    for margin, size in ((0, 61), (8, 61), (15, 61), (10, 100)):
        pair = draw_warps(PairSpec(margin, IDENTITY, IDENTITY), 1, size, generator=generator()).views(
            coordinate_images(1, size)
        )
        assert pair.valid.all()


# ---- make_pairs


def frames(count: int, seed: int = 0, size: int = 48) -> torch.Tensor:
    small = torch.rand(count, 3, 6, 6, generator=generator(seed))
    return (geometry.resize(small, (size, size)) * 255).round().byte()


def made(images: torch.Tensor, spec: PairSpec, warp_seed: int = 1, photometric_seed: int = 2):
    return make_pairs(
        images, spec, warp_generator=generator(warp_seed), photometric_generator=generator(photometric_seed)
    )


def test_pairs_are_a_function_of_the_generators():
    spec = PairSpec(margin=8)
    one, same = made(frames(3), spec), made(frames(3), spec)
    for field in ("source", "target", "target_from_source", "valid"):
        assert torch.equal(getattr(one, field), getattr(same, field))
    other_light = made(frames(3), spec, photometric_seed=3)
    assert torch.equal(one.target_from_source, other_light.target_from_source)
    assert not torch.equal(one.source, other_light.source)
    other_warps = made(frames(3), spec, warp_seed=3)
    assert not torch.equal(one.target_from_source, other_warps.target_from_source)


def test_pairs_have_the_stated_shapes_and_range():
    pair = made(frames(3), PairSpec(margin=8))
    assert len(pair) == 3
    assert pair.source.shape == pair.target.shape == (3, 3, 32, 32)
    assert pair.target_from_source.shape == (3, 32, 32, 2)
    assert pair.valid.shape == (3, 32, 32) and pair.valid.dtype == torch.bool
    for view in (pair.source, pair.target):
        assert view.min() >= 0 and view.max() <= 1 and view.dtype == torch.float32


def test_a_pair_does_not_depend_on_the_other_images():
    spec = PairSpec(margin=8)
    images = frames(4)
    others = torch.cat([images[:1], frames(3, seed=9)])
    one, two = made(images, spec), made(others, spec)
    torch.testing.assert_close(one.source[0], two.source[0])
    torch.testing.assert_close(one.target[0], two.target[0])
    assert not torch.allclose(one.source[1], two.source[1])


def test_the_two_views_get_photometric_changes_of_their_own():
    spec = PairSpec(8, IDENTITY, IDENTITY, PhotometricSpec(0.4, 0, 0, 0, 0))
    pair = made(torch.full((3, 3, 48, 48), 100, dtype=torch.uint8), spec)
    levels = torch.cat([pair.source, pair.target])[:, 0, 0, 0]
    assert len(levels.unique()) == 6


# ---- photometric change


def test_no_change():
    images = torch.rand(2, 3, 20, 20)
    assert torch.equal(change_photometry(images, NO_CHANGE, generator=generator()), images)


def only(**strengths) -> PhotometricSpec:
    return replace(NO_CHANGE, **strengths)


@pytest.mark.parametrize(
    "spec",
    [
        PhotometricSpec(),
        PhotometricSpec(1, 1, 1, 2.0, 0.5),
        only(brightness=0.4),
        only(contrast=0.4),
        only(saturation=0.4),
        only(lighting=0.5),
        only(jpeg_probability=1.0),
    ],
)
def test_every_change_keeps_the_range_and_the_images_apart(spec):
    images = torch.rand(4, 3, 21, 34, generator=generator())
    others = torch.cat([images[:1], torch.rand(3, 3, 21, 34, generator=generator(1))])
    changed = change_photometry(images, spec, generator=generator(2))
    assert changed.shape == images.shape and changed.isfinite().all()
    assert changed.min() >= 0 and changed.max() <= 1
    assert not torch.allclose(changed[0], images[0], atol=1e-3)
    assert torch.equal(changed, change_photometry(images, spec, generator=generator(2)))
    torch.testing.assert_close(changed[0], change_photometry(others, spec, generator=generator(2))[0])


def test_brightness_by_hand():
    images = torch.full((4000, 3, 1, 1), 0.5)
    factors = change_photometry(images, only(brightness=0.4), generator=generator())[:, 0, 0, 0] / 0.5
    assert 0.6 <= factors.min() < 0.62 and 1.38 < factors.max() <= 1.4001
    assert float(factors.mean()) == pytest.approx(1, abs=0.02)


def test_saturation_leaves_grey_and_contrast_leaves_flat_images():
    grey = torch.rand(3, 1, 20, 20).expand(-1, 3, -1, -1)
    got = change_photometry(grey, only(saturation=0.4), generator=generator())
    torch.testing.assert_close(got, grey.clone(), rtol=0, atol=1e-3)
    flat = torch.tensor([0.3, 0.3, 0.3]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    got = change_photometry(flat, only(contrast=0.4), generator=generator())
    torch.testing.assert_close(got, flat.clone(), rtol=0, atol=1e-3)


def test_lighting_is_one_shift_per_image():
    images = torch.full((3000, 3, 2, 2), 0.5)
    shift = change_photometry(images, only(lighting=0.1), generator=generator()) - 0.5
    assert (shift - shift[:, :, :1, :1]).abs().max() < 1e-6
    covariance = torch.cov(shift[:, :, 0, 0].T)
    # Krizhevsky et al. 2012: eigenvalues are the squares of 0.1 times the listed deviations.
    wanted = torch.tensor([0.0045, 0.0188, 0.2175]) * 0.1
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance).clamp_min(0).sqrt(), wanted, rtol=0.06, atol=0)


def test_share_of_encoded_images():
    images = torch.rand(200, 3, 8, 8, generator=generator())
    changed = change_photometry(images, only(jpeg_probability=0.3), generator=generator())
    share = (changed != images).flatten(1).any(1).float().mean()
    assert 0.2 < float(share) < 0.4


def test_encoding_follows_the_quality():
    images = frames(4).float() / 255 + torch.rand(4, 3, 48, 48, generator=generator()) * 0.1
    images = images.clamp(0, 1)

    def error(quality: float) -> float:
        spec = only(jpeg_probability=1.0, jpeg_quality=(quality, quality), rescale=1.0)
        return float((change_photometry(images, spec, generator=generator()) - images).abs().mean())

    assert error(95) < error(30) < 0.1


# ---- refusals


def test_margins():
    assert PairSpec(margin=15).crop_size(100) == 70
    assert PairSpec(margin=0).crop_size(16) == 16
    with pytest.raises(ValueError, match="negative"):
        PairSpec(margin=-1)
    with pytest.raises(ValueError, match="at most 12"):
        PairSpec(margin=13).crop_size(40)
    with pytest.raises(ValueError, match="margin=50"):
        draw_warps(PairSpec(margin=50, first=WarpSpec(), second=WarpSpec()), 1, 100, generator=generator())


@pytest.mark.parametrize(
    "wrong",
    [
        {"brightness": 1.5},
        {"contrast": -0.1},
        {"saturation": 2},
        {"lighting": -1},
        {"jpeg_probability": 1.1},
        {"jpeg_quality": (0, 50)},
        {"jpeg_quality": (60, 50)},
        {"rescale": 0.05},
        {"rescale": 1.5},
    ],
)
def test_impossible_photometric_changes(wrong):
    with pytest.raises(ValueError, match="lie"):
        PhotometricSpec(**wrong)
