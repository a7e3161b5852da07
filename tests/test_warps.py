import math

import pytest
import torch

import oracles
from equimark import warps
from equimark.geometry import pixel_grid
from equimark.warps import IDENTITY, PRESETS, Warp, WarpSpec, draw

HALF_EXTENT = 49.5  # pixels of a 100-px frame per normalised unit
EACH = [(name, i) for name in PRESETS for i in (0, 1)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frame_points(side: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (pixel_grid((side, side), dtype=dtype) / ((side - 1) / 2) - 1).reshape(1, -1, 2)


def jacobian(warp: Warp, points: torch.Tensor, step: float = 1e-4) -> torch.Tensor:
    offsets = torch.eye(2, dtype=points.dtype) * step
    return torch.stack([(warp(points + o) - warp(points - o)) / (2 * step) for o in offsets], -1)


def select(warp: Warp, chosen: torch.Tensor) -> Warp:
    return Warp(warp.weights[chosen], warp.linear[chosen], warp.shift[chosen])


def test_presets_are_the_papers():
    """The papers' table: sigma_w, sigma_W, sigma_r, sigma_t, sigma_s, perturbation, grid; typed a second time."""
    table = {
        ("faces", 0): (0.001, 0.001, 0, 0, 0, "added", 10),
        ("faces", 1): (0.001, 0.01, 20, 0.1, 0.05, "added", 10),
        ("mnist", 0): (0.005, 0.01, 15, 0.1, 0.05, "added", 5),
        ("mnist", 1): (0.005, 0.02, 20, 0.1, 0.05, "added", 5),
        ("dve", 0): (0.0005, 0.005, 5, 0.1, 0.1, "replaced", 10),
        ("dve", 1): (0.001, 0.01, 5, 0.1, 0.1, "replaced", 10),
        ("dve-evaluation", 0): (0.0005, 0.005, 2.5, 0.05, 0.05, "replaced", 10),
        ("dve-evaluation", 1): (0.0005, 0.005, 2.5, 0.05, 0.05, "replaced", 10),
        ("identity", 0): (0, 0, 0, 0, 0, "replaced", 10),
        ("identity", 1): (0, 0, 0, 0, 0, "replaced", 10),
    }
    assert {(name, i) for name, i in EACH} == set(table)
    for (name, i), row in table.items():
        s = PRESETS[name][i]
        assert (s.bend, s.extra_bend, s.rotation, s.translation, s.scale, s.perturbation, s.grid) == row


def test_identity_is_the_identity():
    points = frame_points(9)
    warp = draw(IDENTITY, 3, generator=generator(), dtype=torch.float64)
    for g in (warp, warp.inverse, warp.tabulate()):
        torch.testing.assert_close(g(points.expand(3, -1, -1)), points.expand(3, -1, -1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [2, 5, 10])
def test_formula(grid):
    g = generator()
    angles, scales = [0.0, 30.0, -75.0], [1.0, 0.8, 1.3]
    weights = torch.randn(3, grid**2, 2, generator=g, dtype=torch.float64) * 0.05
    shift = torch.randn(3, 2, generator=g, dtype=torch.float64)
    radians = [math.radians(a) for a in angles]
    linear = torch.tensor(
        [
            [[s * math.cos(a), -s * math.sin(a)], [s * math.sin(a), s * math.cos(a)]]
            for a, s in zip(radians, scales, strict=True)
        ],
        dtype=torch.float64,
    )
    # Also on a kernel centre, where r = 0, and outside the image.
    points = torch.tensor([[0.3, -0.7], [-1.0, -1.0], [1.0, 1.0], [1.7, -1.9]], dtype=torch.float64)
    got = Warp(weights, linear, shift)(points[None])
    wanted = [
        [oracles.thin_plate_warp(p, weights[b], shift[b], angles[b], scales[b]) for p in points.tolist()]
        for b in range(3)
    ]
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_points_keep_their_shape():
    warp = draw(WarpSpec(), 2, generator=generator())
    points = torch.rand(2, 3, 4, 2)
    flat = warp(points.flatten(1, 2))
    torch.testing.assert_close(warp(points), flat.unflatten(1, (3, 4)))
    torch.testing.assert_close(warp(points[:1])[1], warp(points[:1].expand(2, -1, -1, -1))[1])
    table = warp.tabulate()
    assert table(points).shape == points.shape
    torch.testing.assert_close(table(points[:1])[1], table(points[:1].expand(2, -1, -1, -1))[1])


@pytest.mark.parametrize(("name", "i"), EACH)
def test_inverse_finds_every_point_of_a_warp_that_does_not_fold(name, i):
    count, points = 60, frame_points(11)
    warp = draw(PRESETS[name][i], count, generator=generator(1), dtype=torch.float64)
    dense = frame_points(21) * 1.05
    proper = (torch.linalg.det(jacobian(warp, dense)) > 0.02).all(1)
    assert proper.double().mean() > 0.6
    warp, points = select(warp, proper), points.expand(int(proper.sum()), -1, -1)
    error = (warp.inverse(warp(points)) - points).norm(dim=-1).max() * HALF_EXTENT
    assert float(error) < 0.01


@pytest.mark.parametrize("name", ["faces", "dve-evaluation", "dve", "mnist"])
def test_inverse_in_single_precision(name):
    warp = draw(PRESETS[name][0], 30, generator=generator(4))
    points = frame_points(9, torch.float32).expand(30, -1, -1) * 0.7
    error = (warp.inverse(warp(points)) - points).norm(dim=-1).max() * HALF_EXTENT
    assert float(error) < 0.01


def test_forward_of_the_inverse_is_the_identity():
    warp = draw(PRESETS["dve-evaluation"][0], 8, generator=generator(2), dtype=torch.float64)
    points = frame_points(9).expand(8, -1, -1) * 0.7
    torch.testing.assert_close(warp(warp.inverse(points)), points, rtol=0, atol=1e-5)


def test_inverse_of_a_similarity_is_exact():
    spec = WarpSpec(bend=0, extra_bend=0, rotation=90, translation=1, scale=0.1)
    warp = draw(spec, 4, generator=generator(), dtype=torch.float64)
    points = frame_points(5).expand(4, -1, -1)
    wanted = torch.linalg.solve(warp.linear[:, None], (points - warp.shift[:, None])[..., None])[..., 0]
    torch.testing.assert_close(warp.inverse(points), wanted)


def test_composition_is_undone_in_reverse_order():
    first, second = (draw(PRESETS["dve-evaluation"][i], 5, generator=generator(i), dtype=torch.float64) for i in (0, 1))
    points = frame_points(7).expand(5, -1, -1) * 0.7
    there = first(second(points))
    torch.testing.assert_close(second.inverse(first.inverse(there)), points, rtol=0, atol=0.01 / HALF_EXTENT)
    assert (there - second(first(points))).abs().max() > 1e-3  # the order matters


def test_a_point_that_is_nowhere_is_nan_and_the_others_are_found():
    # x - 5 r^2 log r^2 has a largest value: nothing is mapped to x = 50.
    warp = Warp(torch.tensor([[[-5.0, 0.0]]]), torch.eye(2)[None], torch.zeros(1, 2))
    here = torch.tensor([[[0.1, 0.0]]])
    found = warp.inverse(torch.cat([torch.tensor([[[50.0, 0.0]]]), warp(here)], dim=1))
    assert found[0, 0].isnan().all()
    torch.testing.assert_close(warp(found[:, 1:]), warp(here), rtol=0, atol=1e-4)


def test_jacobian_is_the_derivative():
    warp = draw(PRESETS["mnist"][1], 4, generator=generator(), dtype=torch.float64)
    points = torch.rand(4, 50, 2, generator=generator(1), dtype=torch.float64) * 3 - 1.5
    torch.testing.assert_close(warp.jacobian(points), jacobian(warp, points, 1e-6), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "i"), EACH)
def test_the_table_is_close_to_the_warp_inside_the_frame(name, i):
    warp = draw(PRESETS[name][i], 30, generator=generator(3), dtype=torch.float64)
    points = torch.rand(30, 600, 2, generator=generator(5), dtype=torch.float64) * 2 - 1
    error = (warp.tabulate()(points) - warp(points)).norm(dim=-1).max() * HALF_EXTENT
    assert float(error) < (0.01, 0.03)[i]  # only the first warp of a pair is ever tabulated


def test_statistics_of_the_similarity():
    spec = WarpSpec(bend=0, extra_bend=0, rotation=12, translation=0.3, scale=0.05)
    warp = draw(spec, 20_000, generator=generator(), dtype=torch.float64)
    scale = torch.linalg.det(warp.linear).sqrt()
    angle = torch.rad2deg(torch.atan2(warp.linear[:, 1, 0], warp.linear[:, 0, 0]))
    torch.testing.assert_close(warp.linear[:, 0, 0], warp.linear[:, 1, 1])
    torch.testing.assert_close(warp.linear[:, 0, 1], -warp.linear[:, 1, 0])
    # Twenty thousand draws: deviations are known to 0.5 %, means to 0.7 % of a deviation.
    for values, mean, deviation in (
        (scale, 1, 0.05),
        (angle, 0, 12),
        (warp.shift[:, 0], 0, 0.3),
        (warp.shift[:, 1], 0, 0.3),
    ):
        assert float(values.std()) == pytest.approx(deviation, rel=0.025)
        assert float(values.mean()) == pytest.approx(mean, abs=0.035 * deviation)
    assert abs(float(torch.corrcoef(warp.shift.T)[0, 1])) < 0.035


@pytest.mark.parametrize("perturbation", ["added", "replaced"])
def test_statistics_of_the_bending(perturbation):
    spec = WarpSpec(bend=1.0, extra_bend=3.0, perturbation=perturbation)
    w = draw(spec, 1000, generator=generator(), dtype=torch.float64).weights
    assert w.shape == (1000, 100, 2)
    # Half of the coordinates have variance 1; the others 1 + 9 (added) or 9 (replaced).
    other = 10.0 if perturbation == "added" else 9.0
    assert float(w.var()) == pytest.approx((1 + other) / 2, rel=0.02)
    assert float((w**4).mean()) == pytest.approx(3 * (1 + other**2) / 2, rel=0.05)  # a mixture, not one normal
    assert float(w.mean()) == pytest.approx(0, abs=0.03)
    # Each coordinate is perturbed on its own.
    large = (w.abs() > 4).double()
    assert abs(float(torch.corrcoef(large.reshape(-1, 2).T)[0, 1])) < 0.02


def test_draws_are_a_function_of_the_generator():
    one, same, other = (draw(WarpSpec(), 3, generator=generator(s)) for s in (7, 7, 8))
    for field in ("weights", "linear", "shift"):
        assert torch.equal(getattr(one, field), getattr(same, field))
        assert not torch.equal(getattr(one, field), getattr(other, field))


def test_milder_scales_the_bending_alone():
    assert WarpSpec(0.2, 0.4, 5, 0.1, 0.1).milder(0.5) == WarpSpec(0.1, 0.2, 5, 0.1, 0.1)


@pytest.mark.parametrize("wrong", [{"bend": -1}, {"scale": -0.1}, {"rotation": -5}, {"grid": 0}])
def test_impossible_specs(wrong):
    with pytest.raises(ValueError, match="negative"):
        WarpSpec(**wrong)


def test_a_single_kernel_sits_in_the_middle():
    warp = Warp(torch.tensor([[[1.0, 0.0]]]), torch.eye(2)[None], torch.zeros(1, 2))
    got = warp(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]]))
    wanted = torch.tensor([[[0.0, 0.0], [1 + math.log(1 + 1e-5), 0.0], [4 * math.log(4 + 1e-5), 2.0]]])
    torch.testing.assert_close(got, wanted)
    assert warps.PRESETS["mnist"][0].grid == 5


def test_points_that_are_not_known_stay_so_and_leave_the_others_alone() -> None:
    warp = draw(WarpSpec(), 2, generator=generator(), dtype=torch.float64)
    points = torch.rand(2, 5, 2, generator=generator(1), dtype=torch.float64) - 0.5
    found = warp.inverse(points)
    points[0, 3] = torch.nan
    again = warp.inverse(points)
    assert again[0, 3].isnan().all()
    known = ~again.isnan()
    assert known.sum() == 18
    torch.testing.assert_close(again[known], found[known])
