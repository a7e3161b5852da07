import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equimark.matching_loss import expected_distance
from oracles import literal_dense_loss

SIZE = (3, 4)
CELLS = SIZE[0] * SIZE[1]


def problem(batch: int = 2, count: int = CELLS, channels: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(seed)
    source = torch.randn(batch, count, channels, generator=g, dtype=dtype)
    target = torch.randn(batch, CELLS, channels, generator=g, dtype=dtype)
    truth = torch.rand(batch, count, 2, generator=g, dtype=dtype) * 5 - 1
    return source.requires_grad_(), target.requires_grad_(), truth


def oracle(source, target, truth, power, weights=None):
    """The literal loss on maps; the source is a map of one row."""
    batch, count, _ = source.shape
    return literal_dense_loss(
        source.mT.unflatten(2, (1, count)),
        target.mT.unflatten(2, SIZE),
        truth.view(batch, 1, count, 2),
        stride=1,
        power=power,
        weights=weights,
    )


def value_and_gradients(loss, *inputs):
    return loss, torch.autograd.grad(loss, inputs)


def assert_same(got, wanted, rtol: float = 1e-6, gradient_rtol: float = 1e-5):
    torch.testing.assert_close(got[0], wanted[0], rtol=rtol, atol=rtol * 1e-3)
    for a, b in zip(got[1], wanted[1], strict=True):
        torch.testing.assert_close(a, b, rtol=gradient_rtol, atol=gradient_rtol * float(b.abs().max()))


@pytest.mark.parametrize("power", [0.5, 1, 2, 1.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_literal_loss(power, weighted):
    source, target, truth = problem()
    weights = torch.rand(2, CELLS, dtype=torch.float64) if weighted else None
    got = value_and_gradients(
        expected_distance(source, target, truth, SIZE, power=power, weights=weights), source, target
    )
    wanted = value_and_gradients(oracle(source, target, truth, power, weights), source, target)
    assert_same(got, wanted)


@pytest.mark.parametrize("rows", [1, 2, 5, CELLS, 1000])
def test_chunks_do_not_change_value_or_gradient(rows):
    source, target, truth = problem()
    got = expected_distance(source, target, truth, SIZE, chunk_elements=rows * 2 * CELLS)
    wanted = oracle(source, target, truth, 0.5)
    assert_same(value_and_gradients(got, source, target), value_and_gradients(wanted, source, target))


@pytest.mark.parametrize("power", [0.5, 1, 2, 1.3])
def test_gradcheck(power):
    source, target, truth = problem(batch=1, count=3, channels=2)
    assert torch.autograd.gradcheck(lambda s, t: expected_distance(s, t, truth, SIZE, power=power), (source, target))


def test_incoming_gradient_is_passed_on():
    source, target, truth = problem()
    once = torch.autograd.grad(expected_distance(source, target, truth, SIZE), source)[0]
    thrice = torch.autograd.grad(3 * expected_distance(source, target, truth, SIZE), source)[0]
    torch.testing.assert_close(thrice, 3 * once)


def test_single_precision():
    """float32 agrees with float64 to 1e-5 of the value and 1e-4 of the largest gradient."""
    source, target, truth = problem()
    single = [x.detach().float().requires_grad_() for x in (source, target)]
    got = value_and_gradients(expected_distance(*single, truth, SIZE), *single)
    wanted = value_and_gradients(expected_distance(source, target, truth, SIZE), source, target)
    got = got[0].double(), [g.double() for g in got[1]]
    assert_same(got, wanted, rtol=1e-5, gradient_rtol=1e-4)


def test_non_contiguous_descriptors():
    source, target, truth = problem()
    s, t = (x.detach().mT.contiguous().mT.requires_grad_() for x in (source, target))
    assert not s.is_contiguous()
    got = value_and_gradients(expected_distance(s, t, truth, SIZE, chunk_elements=3 * 2 * CELLS), s, t)
    assert_same(got, value_and_gradients(oracle(source, target, truth, 0.5), source, target))


def test_fewer_source_cells_than_target_cells():
    source, target, truth = problem(count=5)
    got = value_and_gradients(expected_distance(source, target, truth, SIZE), source, target)
    assert_same(got, value_and_gradients(oracle(source, target, truth, 0.5), source, target))


def test_uniform_maps_give_the_mean_distance():
    source, target = torch.zeros(1, 1, 3), torch.randn(1, 4, 3)
    truth = torch.zeros(1, 1, 2)
    # 2 x 2 cells seen from (0, 0): distances 0, 1, 1, sqrt 2.
    got = expected_distance(source, target, truth, (2, 2), power=1)
    assert float(got) == pytest.approx((2 + 2**0.5) / 4)


def test_all_mass_on_one_cell_gives_its_distance():
    source, target = torch.full((1, 1, 1), 1000.0), torch.tensor([[[0.0], [0.0], [0.0], [1.0]]])
    got = expected_distance(source, target, torch.tensor([[[-2.0, -3.0]]]), (2, 2), power=1)
    assert float(got) == pytest.approx(5.0)  # the mass is at (1, 1): 3 and 4 away


@pytest.mark.parametrize("power", [0.5, 1, 1.3])
@pytest.mark.parametrize("sharp", [1.0, 1000.0])
def test_truth_on_a_cell_has_a_finite_gradient(power, sharp):
    source, target, truth = problem(batch=1)
    truth = truth.round().clamp(0, 2)
    with torch.no_grad():
        source *= sharp
    loss = expected_distance(source, target, truth, SIZE, power=power)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (source, target)))


def test_truth_far_outside_the_map():
    source, target, truth = problem()
    far = truth + 1e4
    got = value_and_gradients(expected_distance(source, target, far, SIZE), source, target)
    assert_same(got, value_and_gradients(oracle(source, target, far, 0.5), source, target))
    assert got[0].item() == pytest.approx(2**0.25 * 100, rel=1e-3)


def test_cells_of_weight_zero_count_for_nothing():
    source, target, truth = problem()
    weights = torch.zeros(2, CELLS, dtype=torch.float64)
    weights[:, :4] = 7.0
    got = expected_distance(source, target, truth, SIZE, weights=weights)
    wanted = expected_distance(source[:, :4], target, truth[:, :4], SIZE)
    torch.testing.assert_close(got, wanted)
    (gradient,) = torch.autograd.grad(got, source)
    assert gradient[:, 4:].eq(0).all() and gradient[:, :4].ne(0).any()


def test_no_weight_at_all_is_zero_and_not_nan():
    source, target, truth = problem()
    loss = expected_distance(source, target, truth, SIZE, weights=torch.zeros(2, CELLS))
    assert loss.item() == 0
    assert all(g.eq(0).all() for g in torch.autograd.grad(loss, (source, target)))


@pytest.mark.parametrize("frozen", ["source", "target"])
def test_one_side_may_be_frozen(frozen):
    source, target, truth = problem()
    wanted = torch.autograd.grad(expected_distance(source, target, truth, SIZE), (source, target))
    if frozen == "source":
        got = torch.autograd.grad(expected_distance(source.detach(), target, truth, SIZE), target)[0]
        torch.testing.assert_close(got, wanted[1])
    else:
        got = torch.autograd.grad(expected_distance(source, target.detach(), truth, SIZE), source)[0]
        torch.testing.assert_close(got, wanted[0])


def test_without_gradient():
    source, target, truth = problem()
    with torch.no_grad():
        quiet = expected_distance(source, target, truth, SIZE)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, expected_distance(source, target, truth, SIZE).detach())


class LargestTensor(TorchDispatchMode):
    """Records the elements of the largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_no_table_of_all_matches_is_made():
    side, channels = 24, 4
    source = torch.randn(1, side**2, channels, requires_grad=True)
    target = torch.randn(1, side**2, channels, requires_grad=True)
    truth = torch.rand(1, side**2, 2) * side
    chunk = 8 * side**2

    def largest(limit):
        with LargestTensor() as seen:
            expected_distance(source, target, truth, (side, side), chunk_elements=limit).backward()
        return seen.elements

    assert largest(chunk) <= chunk
    assert largest(10**9) == side**4  # the probe sees the table when it is made


@pytest.mark.parametrize("power", [0, -1])
def test_power_must_be_positive(power):
    with pytest.raises(ValueError, match="power"):
        expected_distance(*problem(), SIZE, power=power)


def test_shapes_must_fit():
    source, target, truth = problem()
    with pytest.raises(ValueError, match="do not fit"):
        expected_distance(source, target, truth, (4, 4))
    with pytest.raises(ValueError, match="do not fit"):
        expected_distance(source, target, truth[:, :-1], SIZE)
    with pytest.raises(ValueError, match="do not fit"):
        expected_distance(source[..., :-1], target, truth, SIZE)


def test_mixed_precision_does_not_coarsen_the_loss():
    """Logits of up to 400 (Hourglass) lose all meaning in bfloat16: the loss stays in the descriptors' type."""
    source, target, truth = (x.detach().float() for x in problem())
    wanted = expected_distance(source, target, truth, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        got = expected_distance(source, target, truth, SIZE)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)
