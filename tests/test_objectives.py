import pytest
import torch

import oracles
from equimark import objectives
from equimark.geometry import Cells, pixel_grid, sample, soft_argmax, spatial_softmax
from equimark.methods import cells_correspondence
from equimark.networks import SmallNet
from equimark.pairs import PairBatch

H, W = 4, 5


def maps(batch: int = 2, channels: int = 3, seed: int = 0, size=(H, W), scale: float = 2.0):
    g = torch.Generator().manual_seed(seed)
    source = torch.randn(batch, channels, *size, generator=g, dtype=torch.float64) * scale
    target = torch.randn(batch, channels, *size, generator=g, dtype=torch.float64) * scale
    truth = pixel_grid(size, dtype=torch.float64) + torch.randn(batch, *size, 2, generator=g, dtype=torch.float64)
    return source.requires_grad_(), target.requires_grad_(), truth


def assert_same(got, wanted, inputs, rtol: float = 1e-6, gradient_rtol: float = 1e-5, least: float = 0.0):
    """Gradients to ``gradient_rtol`` of the largest, or of ``least``."""
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=1e-12)
    mine, theirs = (torch.autograd.grad(loss, inputs, retain_graph=True) for loss in (got, wanted))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=gradient_rtol, atol=gradient_rtol * max(float(b.abs().max()), least))


def identity_truth(batch: int, size=(H, W)):
    return pixel_grid(size, dtype=torch.float64).expand(batch, *size, 2)


def delta(*cells, size=(H, W)):
    """Heat maps (1, K, h, w) with all mass on one (x, y) each."""
    out = torch.zeros(1, len(cells), *size, dtype=torch.float64)
    for k, (x, y) in enumerate(cells):
        out[0, k, y, x] = 1
    return out


# ---- sparse


@pytest.mark.parametrize("landmarks", [1, 3])
@pytest.mark.parametrize("window", [1, 2, 3])
@pytest.mark.parametrize("term", ["alignment", "diversity", "total"])
def test_sparse_terms_equal_the_literal_sums(landmarks, window, term):
    source, target, truth = maps(channels=landmarks)
    constants = {"stride": 2, "gamma": 7.0, "window": window}
    got = objectives.sparse_equivariance(source, target, truth, **constants)[term]
    wanted = oracles.sparse_terms(source, target, truth, **constants)[term]
    if landmarks == 1 and term == "diversity":  # one landmark overlaps with nothing
        assert abs(got.item()) < 1e-12 and abs(wanted.item()) < 1e-12
        return
    assert_same(got, wanted, (source, target))


@pytest.mark.parametrize(
    ("alignment", "diversity", "window", "outside"),
    [
        ("maps", "overlap", 1, 0.0),
        ("maps", "overlap", 2, 0.0),
        ("landmarks", "pooled", 1, 0.0),
        ("landmarks", "overlap", 3, 30.0),
    ],
)
def test_other_forms_equal_the_literal_sums(alignment, diversity, window, outside):
    source, target, truth = maps()
    constants = {"stride": 2, "gamma": 70.0, "window": window, "alignment": alignment, "diversity": diversity}
    got = objectives.sparse_equivariance(source, target, truth + outside, **constants)
    wanted = oracles.sparse_terms(source, target, truth + outside, **constants)
    assert set(got) == set(wanted)
    for term, value in got.items():
        assert_same(value, wanted[term], (source, target) if term != "diversity" else (source,))


@pytest.mark.parametrize("alignment", ["maps", "landmarks"])
@pytest.mark.parametrize("blind", [(), (1,), (0, 1)])
def test_weights_of_cells_equal_the_literal_sums(alignment, blind):
    source, target, truth = maps()
    weights = torch.rand(2, H, W, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    weights[weights < 0.4] = 0
    weights[list(blind)] = 0  # images of which no cell counts
    constants = {"stride": 2, "gamma": 7.0, "window": 2, "alignment": alignment, "weights": weights}
    got = objectives.sparse_equivariance(source, target, truth, **constants)
    wanted = oracles.sparse_terms(source, target, truth, **constants)
    torch.testing.assert_close(got["alignment"], wanted["alignment"])
    assert (got["alignment"].item() == 0) == (len(blind) == 2)
    assert_same(got["total"], wanted["total"], (source, target))


def test_cells_of_no_weight_may_lie_anywhere():
    source, target, truth = maps()
    weights = (torch.rand(2, H, W, generator=torch.Generator().manual_seed(5)) > 0.5).double()
    elsewhere = truth + 1e3 * (1 - weights)[..., None]
    got = (objectives.sparse_equivariance(source, target, t, weights=weights)["total"] for t in (truth, elsewhere))
    torch.testing.assert_close(*got)


EXTREMES = {"all mass on one cell": 30 * delta((1, 2), (4, 0), (0, 3)), "uniform": torch.zeros(1, 3, H, W).double()}


def assert_same_at_extremes(got, wanted, inputs):
    """Where gradients vanish, they are compared with a millionth of the value."""
    assert_same(got, wanted, inputs, least=1e-6 * wanted.item())


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("alignment", ["maps", "landmarks"])
@pytest.mark.parametrize("diversity", ["pooled", "overlap"])
@pytest.mark.parametrize("landmarks", [1, 3])
def test_sparse_extremes_equal_the_literal_sums(extreme, alignment, diversity, landmarks):
    source = EXTREMES[extreme][:, :landmarks].expand(2, -1, -1, -1).clone().requires_grad_()
    target = source.detach().roll(1, -1).requires_grad_()
    truth = maps()[2]
    constants = {"stride": 2, "gamma": 7.0, "window": 2, "alignment": alignment, "diversity": diversity}
    got = objectives.sparse_equivariance(source, target, truth, **constants)["total"]
    wanted = oracles.sparse_terms(source, target, truth, **constants)["total"]
    assert_same_at_extremes(got, wanted, (source, target))


@pytest.mark.parametrize("window", [4, 5, 7])  # to the map's edge, beyond it in one direction, beyond it in both
def test_windows_as_large_as_the_map(window):
    source = maps()[0]
    p = spatial_softmax(source)
    wanted = torch.stack([oracles.pooled_diversity(oracles.spatial_softmax(s), window) for s in source]).mean()
    got = objectives.pooled_diversity(p, window)
    if window < max(H, W):
        assert_same(got, wanted, (source,))
    else:  # one block holds every map whole, whatever the scores
        assert got.item() == pytest.approx(p.shape[1] - 1)
        assert wanted.item() == pytest.approx(p.shape[1] - 1)


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("landmarks", [2, 5])
def test_overlap_equals_the_literal_sum(itself, landmarks):
    source = maps(channels=landmarks)[0]
    wanted = [oracles.overlap_diversity(oracles.spatial_softmax(s), itself=itself) for s in source]
    got = objectives.overlap_diversity(spatial_softmax(source), itself=itself)
    assert_same(got, torch.stack(wanted).mean(), (source,))


def test_landmark_alignment_equals_the_literal_sum():
    source, target, truth = maps()
    p, q = spatial_softmax(source), spatial_softmax(target)
    wanted = []
    for b in range(len(p)):
        moved = [oracles.bilinear(truth[b].movedim(-1, 0), oracles.soft_argmax(m)) for m in p[b]]
        found = torch.stack([oracles.soft_argmax(m) for m in q[b]])
        wanted.append(oracles.landmark_alignment(found, torch.stack(moved)))
    assert_same(objectives.landmark_alignment(p, q, truth), torch.stack(wanted).mean(), (source, target))


def test_one_landmark_has_no_diversity():
    p = spatial_softmax(maps(channels=1)[0])
    for diversity in (objectives.overlap_diversity(p), objectives.pooled_diversity(p, 3)):
        assert abs(diversity.item()) < 1e-12


def test_default_gamma_is_the_papers():
    source, target, truth = maps()
    terms = objectives.sparse_equivariance(source, target, truth)
    wanted = oracles.sparse_terms(source, target, truth, stride=2, gamma=500.0, window=5)
    torch.testing.assert_close(terms["total"], wanted["total"])


def test_sparse_in_single_precision():
    """float32 agrees with float64 to 1e-4 on 40 x 40 maps, where the squares are large and their differences small."""
    source, target, truth = maps(channels=4, size=(40, 40), scale=30.0)
    with torch.no_grad():
        target.copy_(source)
    truth = identity_truth(2, (40, 40)) + 0.5
    for term in ("alignment", "diversity", "total"):
        got = objectives.sparse_equivariance(source.float(), target.float(), truth.float())[term]
        wanted = objectives.sparse_equivariance(source, target, truth)[term]
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


def test_alignment_of_single_cells_is_the_landmarks_distance():
    """With all mass on one cell, eq. 6 is eq. 5 on the soft-argmax."""
    source, target = delta((1, 2), (4, 0)), delta((3, 1), (0, 3))
    truth = identity_truth(1) + torch.tensor([0.25, -0.5], dtype=torch.float64)
    moved = soft_argmax(source)[0] + torch.tensor([0.25, -0.5], dtype=torch.float64)
    for k in range(2):
        torch.testing.assert_close(oracles.soft_argmax(source[0, k]), soft_argmax(source)[0, k])
    wanted = oracles.landmark_alignment(soft_argmax(target)[0], moved)
    torch.testing.assert_close(objectives.map_alignment(source, target, truth), wanted)
    torch.testing.assert_close(objectives.landmark_alignment(source, target, truth), wanted)
    # by hand: (3 - 1.25, 1 - 1.5) and (0 - 4.25, 3 + 0.5)
    assert float(wanted) == pytest.approx((1.75**2 + 0.5**2 + 4.25**2 + 3.5**2) / 2)


def test_alignment_bounds_the_landmarks_distance():
    """Eq. 6 >= eq. 5 (2017, after eq. 6): the maps' variances come on top."""
    source, target, _ = maps()
    p, q = spatial_softmax(source), spatial_softmax(target)
    whole = objectives.map_alignment(p, q, identity_truth(2))
    assert whole.item() > objectives.landmark_alignment(p, q, identity_truth(2)).item()


def test_alignment_of_uniform_maps():
    # Two independent uniform coordinates of n cells differ by (n^2 - 1) / 6 in the mean square.
    flat = torch.full((2, 3, H, W), 1 / (H * W), dtype=torch.float64)
    got = objectives.map_alignment(flat, flat, identity_truth(2))
    assert float(got) == pytest.approx((H**2 - 1) / 6 + (W**2 - 1) / 6)
    assert float(objectives.landmark_alignment(flat, flat, identity_truth(2))) == pytest.approx(0, abs=1e-12)


def test_alignment_with_a_correspondence_far_outside():
    source, target, truth = maps()
    truth = truth + 1e3
    got = objectives.sparse_equivariance(source, target, truth)["alignment"]
    wanted = oracles.sparse_terms(source, target, truth, stride=2, gamma=1, window=5)["alignment"]
    assert_same(got, wanted, (source, target))


def test_diversity_forms_agree():
    p = spatial_softmax(maps()[0].detach())
    unpooled = objectives.pooled_diversity(p, 1)
    eq8 = torch.stack([oracles.sum_minus_max_diversity(m) for m in p]).mean()
    torch.testing.assert_close(unpooled, eq8)


def test_diversity_of_known_maps():
    apart, together = delta((0, 0), (4, 3)), delta((2, 2), (2, 2))
    flat = torch.full((1, 2, H, W), 1 / (H * W), dtype=torch.float64)
    for p, maximum, overlap, printed in (
        (apart, 0.0, 0.0, 0.5),
        (together, 1.0, 0.5, 1.0),
        (flat, 1.0, 0.5 / (H * W), 1 / (H * W)),
    ):
        assert float(objectives.pooled_diversity(p, 1)) == pytest.approx(maximum)
        assert float(objectives.overlap_diversity(p)) == pytest.approx(overlap)
        assert float(objectives.overlap_diversity(p, itself=True)) == pytest.approx(printed)
    # Neighbours in one block count as one after pooling, and only then.
    near = delta((0, 0), (1, 1))
    assert float(objectives.pooled_diversity(near, 1)) == pytest.approx(0.0)
    assert float(objectives.pooled_diversity(near, 2)) == pytest.approx(1.0)
    # The last, incomplete block keeps its mass.
    assert float(objectives.pooled_diversity(delta((4, 3), (4, 3)), 3)) == pytest.approx(1.0)


@pytest.mark.parametrize("form", ["pooled", "overlap"])
@pytest.mark.parametrize("window", [1, 2])
def test_gamma_is_what_two_landmarks_at_one_place_cost(form, window):
    at = ([(2, 1), (2, 1), (0, 3), (4, 0)], [(3, 2), (3, 2), (0, 0), (4, 0)])
    scores = [torch.where(delta(*cells) > 0, 100.0, 0.0) for cells in at]  # one pair in each view
    still = torch.zeros(1, H, W, 2, dtype=torch.float64)
    shares = {"gamma": 7.0, "window": window, "diversity": form}
    terms = objectives.sparse_equivariance(*scores, still, **shares)
    without = objectives.sparse_equivariance(*scores, still, **(shares | {"gamma": 0.0}))
    assert float(terms["total"] - without["total"]) == pytest.approx(2 * 7.0)


def test_only_overlap_moves_a_landmark_that_stands_behind_another():
    scores = torch.zeros(1, 2, H, W, dtype=torch.float64)
    scores[0, 0, 1, 2], scores[0, 1, 1, 2] = 6.0, 5.0  # the second is less sure than the first, at the same place

    def pull(form):
        heatmaps = spatial_softmax(scores).requires_grad_()
        form(heatmaps).backward()
        return heatmaps.grad[0, 1, 1, 2].item()

    assert pull(lambda p: objectives.pooled_diversity(p, 2)) == 0
    assert pull(objectives.overlap_diversity) > 0.1


@pytest.mark.parametrize(("what", "message"), [("alignment", "maps or landmarks"), ("diversity", "pooled or overlap")])
def test_forms_that_do_not_exist(what, message):
    source, target, truth = maps()
    with pytest.raises(ValueError, match=f"{what} must be {message}, got 'largest'"):
        objectives.sparse_equivariance(source, target, truth, **{what: "largest"})


def test_exchange_keeps_its_precision_within_autocast():
    generator = torch.Generator().manual_seed(0)
    source, pool = 20 * torch.randn(2, 6, 8, generator=generator), 20 * torch.randn(2, 8, 3, 2, generator=generator)
    others = objectives.next_in_batch(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = objectives.exchange(source, pool, others)
    torch.testing.assert_close(got, objectives.exchange(source, pool, others))


def test_sparse_matches_under_the_true_warp():
    """The direction of the correspondence: a landmark at source cell s is right at target cell g(s)."""
    truth = identity_truth(1) + torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert float(objectives.map_alignment(delta((1, 1)), delta((3, 2)), truth)) == pytest.approx(0, abs=1e-12)
    assert float(objectives.map_alignment(delta((3, 2)), delta((1, 1)), truth)) > 1


# ---- sparse, the warp unknown


CELLS = Cells(2, 0.5)
UNKNOWN = {"gamma": 7.0, "window": 2, "appearance_weight": 300.0, "stiffness": 0.02, "rigidity": 0.1}


def pictures(seed: int = 0, batch: int = 2, size=(2 * H, 2 * W)):
    g = torch.Generator().manual_seed(seed)
    source, target = torch.rand(2, batch, 3, *size, generator=g, dtype=torch.float64)
    return source, target


@pytest.mark.parametrize(("landmarks", "rigidity"), [(1, 0.1), (2, 0.1), (4, 0.1), (4, 0.0)])
def test_unknown_warp_equals_the_literal_sums(landmarks, rigidity):
    source, target, _ = maps(channels=landmarks)
    constants = UNKNOWN | {"rigidity": rigidity}
    got = objectives.unknown_warp(source, target, *pictures(), cells=CELLS, **constants)
    wanted = oracles.unknown_warp_terms(source, target, *pictures(), stride=2, offset=0.5, **constants)
    assert set(got) == set(wanted)
    assert 0.1 < got["inside"].item() < 1
    torch.testing.assert_close(got["inside"], wanted["inside"])
    torch.testing.assert_close(got["diversity"], wanted["diversity"])
    for term in ("appearance", "total"):
        assert_same(got[term], wanted[term], (source, target))


def spots(cells, size=(8, 8)):
    """Scores whose softmax is all on one cell each."""
    return delta(*cells, size=size) * 1e3


def test_unknown_warp_is_found_from_the_right_side():
    """x' shows x at g(u): landmarks that moved as the images did explain them, their inverse does not."""
    y, x = torch.meshgrid(*(torch.arange(16, dtype=torch.float64),) * 2, indexing="ij")
    target = torch.stack([(x / 3).sin() * (y / 4).cos()] * 3)[None] * 0.4 + 0.5
    shift = torch.tensor([4.0, -2.0], dtype=torch.float64)
    source = sample(target, (pixel_grid((16, 16), dtype=torch.float64) + shift)[None])
    here, there = spots([(1, 2), (4, 3), (2, 6)]), spots([(3, 1), (6, 2), (4, 5)])  # 2 px per cell
    right = objectives.unknown_warp(here, there, source, target, cells=CELLS)
    wrong = objectives.unknown_warp(there, here, source, target, cells=CELLS)
    assert float(right["appearance"]) == pytest.approx(0, abs=1e-12)
    assert float(right["inside"]) == pytest.approx(12 * 14 / 16**2, abs=0.02)  # rounding decides at the border itself
    assert float(wrong["appearance"]) > 0.01


def test_one_landmark_explains_a_shift():
    target = pictures(batch=1, size=(16, 16))[1]
    source = target.roll((0, -2), (-2, -1))  # x' shows x two pixels to the right
    terms = objectives.unknown_warp(spots([(3, 4)]), spots([(4, 4)]), source, target, cells=CELLS)
    assert float(terms["appearance"]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("scores", [torch.zeros(2, 4, 8, 8), spots([(3, 3)] * 4).float().expand(2, -1, -1, -1)])
def test_unknown_warp_of_landmarks_in_one_place(scores):
    """Uniform maps, or all mass on one cell: g is the identity, and everything stays finite."""
    source, target = (image.float() for image in pictures(size=(16, 16)))
    leaf = scores.clone().requires_grad_()
    terms = objectives.unknown_warp(leaf, leaf, source, target, cells=CELLS)
    torch.testing.assert_close(terms["appearance"], (source - target).square().mean(), rtol=0.02, atol=0)
    assert torch.autograd.grad(terms["total"], leaf)[0].isfinite().all()


def test_landmarks_that_are_close_do_not_tear_the_frame_by_missing():
    """Two that are a cell apart in one frame and two cells in the next would double its scale."""
    y, x = torch.meshgrid(*(torch.arange(16, dtype=torch.float64),) * 2, indexing="ij")
    target = torch.stack([(x / 3).sin() * (y / 4).cos()] * 3)[None] * 0.4 + 0.5
    source = sample(target, (pixel_grid((16, 16), dtype=torch.float64) + torch.tensor([1.0, 0.0]))[None])
    still = float((source - target).square().mean())
    ends = spots([(3, 3), (4, 3)]), spots([(3, 3), (5, 3)])  # on average they moved with the image, by 1 px
    smooth = objectives.unknown_warp(*ends, source, target, cells=CELLS)
    exact = objectives.unknown_warp(*ends, source, target, cells=CELLS, stiffness=0, rigidity=1e-6)
    assert float(smooth["appearance"]) < 0.5 * still
    assert float(exact["appearance"]) > 1.5 * still


def test_unknown_warp_that_leaves_nothing_inside():
    far = Cells(100, 0.0)
    here, there = spots([(0, 0), (1, 0), (0, 1)]).requires_grad_(), spots([(6, 6), (7, 6), (6, 7)])
    terms = objectives.unknown_warp(here, there, *pictures(batch=1, size=(16, 16)), cells=far, rigidity=0)
    assert terms["inside"].item() == 0
    assert terms["appearance"].item() == 0
    assert torch.autograd.grad(terms["total"], here)[0].isfinite().all()


# ---- dense


@pytest.mark.parametrize("power", [0.5, 1, 2, 1.3])
@pytest.mark.parametrize("channels", [3, 6])
def test_dense_equals_the_literal_loss(power, channels):
    source, target, truth = maps(channels=channels)
    terms = objectives.dense_equivariance(source, target, truth, stride=2, power=power)
    wanted = oracles.literal_dense_loss(source, target, truth, stride=2, power=power)
    assert set(terms) == {"matching", "total"}
    assert_same(terms["total"], wanted, (source, target))
    torch.testing.assert_close(terms["matching"], terms["total"])


def test_power_half_is_the_default():
    source, target, truth = maps()
    got = objectives.dense_equivariance(source, target, truth)["total"]
    torch.testing.assert_close(got, oracles.literal_dense_loss(source, target, truth, stride=2, power=0.5))


def test_perfect_descriptors_cost_nothing():
    perfect = torch.eye(H * W, dtype=torch.float64).view(1, H * W, H, W) * 100
    matched = objectives.dense_equivariance(perfect, perfect, identity_truth(1), power=1)["total"]
    assert float(matched) == pytest.approx(0, abs=1e-9)
    shifted = identity_truth(1) + torch.tensor([3.0, 4.0], dtype=torch.float64)
    off = objectives.dense_equivariance(perfect, perfect, shifted, stride=2, power=1)["total"]
    assert float(off) == pytest.approx(10)  # 5 cells of 2 pixels


def test_channels_last_features_give_the_same():
    source, target, truth = maps()
    wanted = objectives.dense_equivariance(source, target, truth)["total"]
    s, t = (x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in (source, target))
    got = objectives.dense_equivariance(s, t, truth)["total"]
    torch.testing.assert_close(got, wanted)
    for a, b in zip(torch.autograd.grad(got, (s, t)), torch.autograd.grad(wanted, (source, target)), strict=True):
        torch.testing.assert_close(a, b)


def dense_extreme(extreme):
    """Descriptors that match one cell alone, or every cell alike."""
    scale = 30.0 if extreme == "all mass on one cell" else 0.0
    cells = scale * torch.eye(H * W, dtype=torch.float64).view(1, H * W, H, W)
    return cells.expand(2, -1, -1, -1).clone().requires_grad_(), cells.roll(1, -1).repeat(2, 1, 1, 1).requires_grad_()


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize("outside", [0.0, 50.0])
def test_dense_extremes_equal_the_literal_loss(extreme, exchanged, outside):
    source, target = dense_extreme(extreme)
    truth = maps()[2] + outside
    if exchanged:
        sets = objectives.next_in_batch(2)
        got = objectives.descriptor_exchange(source, target, truth, source, sets)["total"]
        wanted = oracles.literal_dve_loss(source, target, source, truth)
    else:
        got = objectives.dense_equivariance(source, target, truth)["total"]
        wanted = oracles.literal_dense_loss(source, target, truth)
    assert_same_at_extremes(got, wanted, (source, target))


# ---- exchange


@pytest.mark.parametrize("power", [0.5, 1, 2, 1.3])
@pytest.mark.parametrize("batch", [2, 3])
@pytest.mark.parametrize("channels", [3, 6])
def test_exchange_with_the_next_image_equals_the_literal_loss(power, batch, channels):
    source, target, truth = maps(batch, channels)
    sets = objectives.next_in_batch(batch)
    got = objectives.descriptor_exchange(source, target, truth, source, sets, stride=2, power=power)
    assert_same(
        got["total"],
        oracles.literal_dve_loss(source, target, source, truth, stride=2, power=power),
        (source, target),
    )


@pytest.mark.parametrize("sets", [[[0, 3], [2, 1]], [[1, 2, 3], [0, 2, 1]], [[2, 2], [0, 3]]])
def test_exchange_with_sets_from_a_pool_equals_the_literal_loss(sets):
    source, target, truth = maps()
    pool = torch.randn(4, 3, 3, 4, dtype=torch.float64, requires_grad=True)  # maps of another size
    got = objectives.descriptor_exchange(source, target, truth, pool, torch.tensor(sets))["total"]
    assert_same(got, oracles.literal_dve_loss(source, target, pool, truth, sets=sets), (source, target, pool))


def test_an_image_as_its_own_auxiliary_equals_the_literal_loss():
    source, target, truth = maps(channels=6)
    itself = torch.arange(2)[:, None]
    got = objectives.descriptor_exchange(source, target, truth, source, itself)["total"]
    assert_same(got, oracles.literal_dve_loss(source, target, source, truth, sets=itself), (source, target))


def test_exchange_in_single_precision():
    """float32 agrees with float64 to 1e-5 of the value and 1e-4 of the largest gradient."""
    source, target, truth = maps(channels=8)
    sets = objectives.next_in_batch(2)
    single = [x.detach().float().requires_grad_() for x in (source, target)]
    got = objectives.descriptor_exchange(*single, truth.float(), single[0], sets)["total"]
    wanted = objectives.descriptor_exchange(source, target, truth, source, sets)["total"]
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=0)
    mine, theirs = torch.autograd.grad(got, single), torch.autograd.grad(wanted, (source, target))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_exchange_with_the_image_itself_leaves_sharp_descriptors_alone():
    sharp = torch.eye(H * W, dtype=torch.float64).view(1, H * W, H, W) * 30
    rebuilt = objectives.exchange(sharp.flatten(2).mT, sharp, torch.tensor([[0]]))
    torch.testing.assert_close(rebuilt, sharp.flatten(2).mT)
    truth = identity_truth(1) + 1
    with_itself = objectives.descriptor_exchange(sharp, sharp, truth, sharp, torch.tensor([[0]]))
    torch.testing.assert_close(with_itself["total"], objectives.dense_equivariance(sharp, sharp, truth)["total"])


def test_exchange_of_a_uniform_auxiliary_is_its_constant():
    source = maps(1)[0]
    constant = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    pool = constant.view(1, 3, 1, 1).expand(1, 3, H, W)
    rebuilt = objectives.exchange(source.flatten(2).mT, pool, torch.tensor([[0]]))
    torch.testing.assert_close(rebuilt, constant.expand(1, H * W, 3))


def test_next_in_batch():
    assert objectives.next_in_batch(3).tolist() == [[1], [2], [0]]
    with pytest.raises(ValueError, match="at least 2"):
        objectives.next_in_batch(1)


# ---- health


def test_distinct_landmarks_by_hand():
    # 0 and 1 stand together on two of three images, 2 is alone, 3 meets 2 on one image only.
    landmarks = torch.tensor(
        [
            [[0.0, 0.0], [1.0, 1.0], [10.0, 10.0], [10.0, 11.0]],
            [[5.0, 5.0], [5.0, 6.9], [20.0, 10.0], [30.0, 11.0]],
            [[5.0, 5.0], [9.0, 9.0], [20.0, 10.0], [30.0, 11.0]],
        ]
    )
    assert objectives.distinct_landmarks(landmarks) == 3
    assert objectives.distinct_landmarks(landmarks, closer_than=1.0) == 4
    assert objectives.distinct_landmarks(landmarks[1:2]) == 3
    assert objectives.distinct_landmarks(landmarks[1:2], closer_than=100.0) == 1
    assert objectives.distinct_landmarks(landmarks[:, :1]) == 1
    assert objectives.distinct_landmarks(torch.zeros(4, 6, 2)) == 1


def test_exactly_two_pixels_apart_is_distinct():
    assert objectives.distinct_landmarks(torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])) == 2


def test_standing_still_by_hand():
    # Mean positions (1, 1) and (3, 2); the fields shift by (1, 0) and (0, 2) cells of 2 pixels.
    landmarks = torch.tensor([[[0.0, 1.0], [3.0, 1.0]], [[2.0, 1.0], [3.0, 3.0]]], dtype=torch.float64)
    shifts = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    truth = identity_truth(2) + shifts[:, None, None]
    assert float(objectives.standing_still(landmarks, truth, stride=2)) == pytest.approx((1 + 4) / 2 * 4)
    # x' = 1.5 x: a landmark at x moves by x / 2, so the place counts: (0.5^2 + 1.5^2) / 2.
    stretched = identity_truth(2) * torch.tensor([1.5, 1.0], dtype=torch.float64)
    assert float(objectives.standing_still(landmarks, stretched, stride=1)) == pytest.approx((0.25 + 2.25) / 2)


def test_standing_still_where_cells_count():
    # Landmark 0 stands on a cell that counts in the first image alone, landmark 1 on one that never does.
    landmarks = torch.tensor([[[1.0, 1.0], [3.0, 2.0]]] * 2, dtype=torch.float64)
    truth = identity_truth(2) + torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)[:, None, None]
    weights = torch.zeros(2, H, W, dtype=torch.float64)
    weights[0, 1, 1] = 0.5
    assert float(objectives.standing_still(landmarks, truth, stride=2, weights=weights)) == pytest.approx(4)
    assert float(objectives.standing_still(landmarks, truth, stride=2, weights=0 * weights)) == 0


def test_the_share_is_of_one_pixel_at_least():
    """In a video in which nothing moves there is nothing to follow, and nothing to divide by."""
    source, _, _ = maps()
    health = objectives.sparse_health(source, torch.tensor(3.0), identity_truth(2), stride=2)
    assert float(health["alignment_share"]) == pytest.approx(3)


def test_landmarks_that_stand_still_score_the_standing_still_value():
    p = delta((1, 1), (3, 2)).expand(2, -1, -1, -1)
    truth = identity_truth(2) + torch.tensor([0.5, -1.0], dtype=torch.float64)
    still = objectives.standing_still(soft_argmax(p), truth, stride=2)
    torch.testing.assert_close(objectives.map_alignment(p, p, truth) * 4, still)


# ---- the correspondence of cells


@pytest.mark.parametrize("cells", [SmallNet.cells, Cells(2, 0.0), Cells(4, 1.5)])
def test_cells_correspondence_of_an_affine_field(cells):
    side = 24
    size = (side // cells.stride, side // cells.stride)
    matrix = torch.tensor([[0.9, 0.2], [-0.1, 1.1]])
    shift = torch.tensor([3.0, -2.0])
    field = (pixel_grid((side, side)) @ matrix.T + shift)[None]
    image = torch.zeros(1, 3, side, side)
    pairs = PairBatch(image, image, field, torch.ones(1, side, side, dtype=torch.bool))
    got = cells_correspondence(pairs, cells, size)
    for y, x in ((0, 0), (1, 3), (4, 2), (5, 5)):
        pixel = torch.tensor([x * cells.stride + cells.offset, y * cells.stride + cells.offset])
        wanted = (matrix @ pixel + shift - cells.offset) / cells.stride
        torch.testing.assert_close(got[0, y, x], wanted, rtol=0, atol=1e-4)
