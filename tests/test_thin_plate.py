import pytest
import torch
from scipy.interpolate import RBFInterpolator

import oracles
from equimark import thin_plate
from equimark.geometry import pixel_grid


def landmarks(batch: int = 2, count: int = 6, seed: int = 0, dtype=torch.float64):
    """Control points in [-1, 1]^2, where they go, and other points."""
    g = torch.Generator().manual_seed(seed)
    source = torch.rand(batch, count, 2, generator=g, dtype=torch.float64) * 2 - 1
    target = source + 0.2 * torch.randn(batch, count, 2, generator=g, dtype=torch.float64)
    points = torch.rand(batch, 3, 4, 2, generator=g, dtype=torch.float64) * 3 - 1.5
    return source.to(dtype), target.to(dtype), points.to(dtype)


AFFINE = torch.tensor([[0.7, 0.4], [-0.3, 1.2]], dtype=torch.float64)
SHIFT = torch.tensor([0.2, -0.1], dtype=torch.float64)


@pytest.mark.parametrize("count", [3, 6, 20])
@pytest.mark.parametrize("stiffness", [0.0, 0.05])
def test_agrees_with_scipy(count, stiffness):
    source, target, points = landmarks(count=count)
    got = thin_plate.fit(source, target, stiffness=stiffness)(points)
    for b in range(len(source)):
        # Theirs is r^2 log r, half of r^2 log r^2.
        theirs = RBFInterpolator(source[b], target[b], kernel="thin_plate_spline", degree=1, smoothing=stiffness / 2)
        wanted = torch.from_numpy(theirs(points[b].flatten(0, 1).numpy())).view_as(got[b])
        torch.testing.assert_close(got[b], wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("count", "rigidity"), [(3, 0.0), (6, 0.0), (1, 0.1), (2, 0.1), (3, 0.02), (6, 0.1)])
@pytest.mark.parametrize("stiffness", [0.0, 0.05])
def test_equals_the_textbook(count, rigidity, stiffness):
    source, target, points = (x.requires_grad_() for x in landmarks(1, count))
    got = thin_plate.fit(source, target, stiffness=stiffness, rigidity=rigidity)(points)
    g = oracles.thin_plate_spline(source[0], target[0], stiffness, rigidity)
    wanted = torch.stack([g(p) for p in points[0].flatten(0, 1)]).view_as(got)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-9)
    mine, theirs = (torch.autograd.grad(x.square().sum(), (source, target, points)) for x in (got, wanted))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("rigidity", [0.0, 0.1])
def test_passes_through_its_control_points(rigidity):
    source, target, _ = landmarks()
    torch.testing.assert_close(thin_plate.fit(source, target, rigidity=rigidity)(source), target)
    missed = thin_plate.fit(source, target, stiffness=0.1, rigidity=rigidity)(source) - target
    assert float(missed.abs().max()) > 0.01


@pytest.mark.parametrize("stiffness", [0.0, 0.1])
@pytest.mark.parametrize("count", [3, 8])
def test_affine_maps_are_exact(stiffness, count):
    source, _, points = landmarks(count=count)
    spline = thin_plate.fit(source, source @ AFFINE.T + SHIFT, stiffness=stiffness)
    torch.testing.assert_close(spline(points), points @ AFFINE.T + SHIFT)
    torch.testing.assert_close(spline.linear, AFFINE.expand(2, 2, 2))


def test_gradient():
    def moved(source, target, points):
        return thin_plate.fit(source, target, stiffness=0.02, rigidity=0.05)(points)

    inputs = [x.requires_grad_() for x in landmarks(1, 4)]
    assert torch.autograd.gradcheck(moved, inputs)


def test_gradient_at_the_control_points_themselves():
    source, target, _ = (x.requires_grad_() for x in landmarks())
    gradients = torch.autograd.grad(thin_plate.fit(source, target)(source).sum(), (source, target))
    torch.testing.assert_close(gradients[0], torch.zeros_like(source), rtol=0, atol=1e-9)
    torch.testing.assert_close(gradients[1], torch.ones_like(target))


@pytest.mark.parametrize("stiffness", [0.0, 0.05])
def test_one_landmark_is_a_translation(stiffness):
    source, target, points = landmarks(count=1)
    got = thin_plate.fit(source, target, stiffness=stiffness, rigidity=0.1)(points)
    torch.testing.assert_close(got, points + (target - source)[:, None])


def test_landmarks_on_a_line():
    """Along the line the spline stretches; across it, where nothing is known, it leaves things as they are."""
    along = torch.tensor([[[-0.8, 0.0], [-0.1, 0.0], [0.5, 0.0], [0.9, 0.0]]], dtype=torch.float64)
    spline = thin_plate.fit(along, along * 1.5, rigidity=0.01)
    torch.testing.assert_close(spline(along), along * 1.5)
    torch.testing.assert_close(spline.linear[0, :, 1], torch.tensor([0.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coinciding_landmarks(dtype):
    source, target, points = landmarks(dtype=dtype)
    with torch.no_grad():
        source[:, 1] = source[:, 0]
    source.requires_grad_()
    moved = thin_plate.fit(source, target, stiffness=0.01)(points)
    assert moved.isfinite().all()
    assert torch.autograd.grad(moved.sum(), source)[0].isfinite().all()


def test_all_landmarks_in_one_place_move_by_their_mean():
    source, target, points = landmarks()
    together = source[:, :1].expand_as(source)
    moved = thin_plate.fit(together, target, stiffness=0.01, rigidity=0.1)(points)
    torch.testing.assert_close(moved, points + (target - together).mean(1)[:, None, None])


def test_single_precision():
    source, target, points = landmarks()
    wanted = thin_plate.fit(source, target, stiffness=0.01, rigidity=0.1)(points)
    got = thin_plate.fit(source.float(), target.float(), stiffness=0.01, rigidity=0.1)(points.float())
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5)


def test_points_shared_by_the_batch():
    source, target, _ = landmarks()
    grid = pixel_grid((3, 5), dtype=torch.float64)[None]
    spline = thin_plate.fit(source, target)
    torch.testing.assert_close(spline(grid), spline(grid.expand(2, -1, -1, -1)))


def test_what_has_no_spline():
    source, target, _ = landmarks(count=2)
    with pytest.raises(ValueError, match="at least 3 landmarks, got 2"):
        thin_plate.fit(source, target, stiffness=0.1)
    for constants in ({"stiffness": -1.0}, {"rigidity": -0.1}, {"rigidity": 0.2}):
        with pytest.raises(ValueError, match="must lie in"):
            thin_plate.fit(source, target, **constants)
