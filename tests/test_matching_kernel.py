"""The streaming kernel against float64: on a GPU if there is one, else by Triton's interpreter in another process.

Triton looks at TRITON_INTERPRET when a kernel is defined, so one process cannot do both.
"""

import importlib.util
import os
import subprocess
import sys
import types

import pytest
import torch

import equimark
from equimark import matching_loss
from equimark.matching_loss import expected_distance
from oracles import literal_dense_loss
from test_matching_loss import LargestTensor, assert_same, value_and_gradients

TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")

SIZE = (5, 8)  # with 37 source cells: two tiles of both, neither full

needs_triton = pytest.mark.skipif(not TRITON, reason="Triton is not installed")
runs_kernels = pytest.mark.skipif(
    not TRITON or not (INTERPRETED or DEVICE.type == "cuda"),
    reason="needs Triton and a GPU; without a GPU test_by_the_interpreter runs it",
)


def problem(count=37, size=SIZE, channels=20, batch=2, seed=0):
    """Inputs in double precision that single precision holds exactly, so that rounding them is not measured."""
    g = torch.Generator().manual_seed(seed)
    source = torch.randn(batch, count, channels, generator=g).double()
    target = torch.randn(batch, size[0] * size[1], channels, generator=g).double() / channels**0.5
    truth = torch.rand(batch, count, 2, generator=g).double() * torch.tensor([size[1] + 2, size[0] + 2]) - 1.5
    return source.requires_grad_(), target.requires_grad_(), truth.float().double()


def streaming(source, target, truth, size, *, dtype=torch.float32, **options):
    """Value and gradients of the kernel on the device, brought back in double precision."""
    inputs = [x.detach().to(DEVICE, dtype).requires_grad_() for x in (source, target)]
    options = {k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    loss = expected_distance(*inputs, truth.to(DEVICE), size, kernel="streaming", **options)
    loss, gradients = value_and_gradients(loss, *inputs)
    return loss.detach().cpu().double(), [g.cpu().double() for g in gradients]


def oracle(source, target, truth, size, *, power=0.5, weights=None):
    """Value and gradients of the literal loss on maps; the source is a map of one row."""
    batch, count, _ = source.shape
    loss = literal_dense_loss(
        source.mT.unflatten(2, (1, count)),
        target.mT.unflatten(2, size),
        truth.view(batch, 1, count, 2),
        stride=1,
        power=power,
        weights=weights,
    )
    return value_and_gradients(loss, source, target)


def chunked(source, target, truth, size, **options):
    return value_and_gradients(expected_distance(source, target, truth, size, **options), source, target)


# ---- values and gradients, where kernels can run


@runs_kernels
@pytest.mark.parametrize("power", [0.5, 1, 2, 0.7])
@pytest.mark.parametrize("channels", [3, 16, 20, 64])
def test_equals_the_literal_loss(channels, power):
    inputs = *problem(channels=channels), SIZE
    assert_same(streaming(*inputs, power=power), oracle(*inputs, power=power))


@runs_kernels
@pytest.mark.parametrize(
    ("count", "size"),
    [(1, SIZE), (37, (1, 1)), (70, (8, 9)), (32, (4, 8)), (33, (1, 40)), (31, (40, 1)), (100, (3, 5)), (7, (9, 9))],
)
def test_maps_that_tiles_do_not_fit(count, size):
    inputs = *problem(count, size), size
    assert_same(streaming(*inputs), oracle(*inputs))


@runs_kernels
@pytest.mark.parametrize("power", [0.5, 0.7])
def test_weights_some_of_which_are_zero(power):
    inputs = *problem(), SIZE
    weights = torch.rand(2, 37).double() * (torch.arange(37) % 3 > 0)
    got = streaming(*inputs, power=power, weights=weights)
    assert_same(got, oracle(*inputs, power=power, weights=weights))
    assert got[1][0][:, ::3].eq(0).all()


@runs_kernels
def test_no_weight_at_all_is_zero_and_not_nan():
    loss, gradients = streaming(*problem(), SIZE, weights=torch.zeros(2, 37))
    assert loss == 0 and all(g.eq(0).all() for g in gradients)


@runs_kernels
@pytest.mark.parametrize("power", [0.5, 1, 2, 0.7])
def test_all_mass_on_one_cell(power):
    """The target is a code book and each source cell names the cell that it wants, with a logit of 1000."""
    size, chosen = (5, 8), torch.arange(40).flip(0)
    target = torch.eye(40).double()[None].requires_grad_()
    source = (1000 * torch.eye(40)[chosen]).double()[None].requires_grad_()
    truth = torch.full((1, 40, 2), -3.0).double()
    got = streaming(source, target, truth, size, power=power)
    distances = torch.stack([chosen % 8 + 3, chosen // 8 + 3]).double().norm(dim=0)
    assert float(got[0]) == pytest.approx(float((distances**power).mean()), rel=1e-6)
    assert all(g.eq(0).all() for g in got[1])


@runs_kernels
@pytest.mark.parametrize("power", [0.5, 1, 2, 0.7])
def test_uniform_maps(power):
    source, target, truth = problem()
    with torch.no_grad():
        source.zero_()
    assert_same(streaming(source, target, truth, SIZE, power=power), oracle(source, target, truth, SIZE, power=power))


@runs_kernels
def test_all_logits_far_below_zero():
    """Beyond the last cell the logits are zero: they must not count, however low the others are."""
    source, target, truth = problem(count=40, size=(5, 7))
    with torch.no_grad():
        source.copy_(10 + source.sign() / 4)
        target.copy_(-1 + target.sign() / 16)
        assert (source @ target.mT).max() < -100
    inputs = source, target, truth, (5, 7)
    assert_same(
        streaming(*inputs), oracle(*inputs), rtol=1e-5, gradient_rtol=1e-4
    )  # logits of 200 keep five digits behind the point


@runs_kernels
@pytest.mark.parametrize("power", [0.5, 1, 2, 0.7])
def test_truth_outside_the_map(power):
    source, target, truth = problem()
    inputs = source, target, truth + torch.tensor([30.0, -20.0]), SIZE
    assert_same(streaming(*inputs, power=power), oracle(*inputs, power=power))


@runs_kernels
@pytest.mark.parametrize("power", [0.5, 1, 2, 0.7])
@pytest.mark.parametrize("sharp", [1.0, 100.0])
def test_truth_on_a_cell(power, sharp):
    source, target, truth = problem()
    inputs = (sharp * source).detach().requires_grad_(), target, truth.round().clamp(0, 4), SIZE
    tolerance = {"rtol": 1e-6 * sharp, "gradient_rtol": 1e-5 * sharp}
    assert_same(streaming(*inputs, power=power), chunked(*inputs, power=power), **tolerance)


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_only_that_of_the_inputs(dtype):
    source, target, truth = problem(channels=64)
    rounded = [x.detach().to(dtype).double().requires_grad_() for x in (source, target)]
    got = streaming(*rounded, truth, SIZE, dtype=dtype)
    wanted = oracle(*rounded, truth, SIZE)
    assert_same(got, wanted, gradient_rtol=0.01)  # the loss is single, the gradients are of the inputs' type


@runs_kernels
def test_incoming_gradient_is_passed_on():
    source, target, truth = problem()
    source = source.detach().to(DEVICE, torch.float32).requires_grad_()
    target, truth = target.detach().to(DEVICE, torch.float32), truth.to(DEVICE)
    loss = expected_distance(source, target, truth, SIZE, kernel="streaming")
    once = torch.autograd.grad(loss, source, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(4 * loss, source)[0], 4 * once)


@runs_kernels
def test_non_contiguous_descriptors():
    source, target, truth = (x.detach().to(DEVICE, torch.float32) for x in problem())
    wide = [torch.stack([x, x], dim=2).mT.contiguous().mT[:, :, 1].requires_grad_() for x in (source, target)]
    assert not any(x.is_contiguous() for x in wide)
    got = value_and_gradients(expected_distance(*wide, truth, SIZE, kernel="streaming"), *wide)
    narrow = [x.requires_grad_() for x in (source, target)]
    wanted = value_and_gradients(expected_distance(*narrow, truth, SIZE, kernel="streaming"), *narrow)
    assert torch.equal(got[0], wanted[0])
    assert all(torch.equal(a, b) for a, b in zip(got[1], wanted[1], strict=True))


@runs_kernels
@pytest.mark.parametrize("frozen", [0, 1])
def test_one_side_may_be_frozen(frozen):
    inputs = *problem(), SIZE
    sides = [x.detach().to(DEVICE, torch.float32).requires_grad_(i != frozen) for i, x in enumerate(inputs[:2])]
    loss = expected_distance(*sides, inputs[2].to(DEVICE), SIZE, kernel="streaming")
    (got,) = torch.autograd.grad(loss, sides[1 - frozen])
    torch.testing.assert_close(got.cpu().double(), streaming(*inputs)[1][1 - frozen], rtol=0, atol=0)


@runs_kernels
def test_mixed_precision_does_not_coarsen_the_loss():
    inputs = *problem(), SIZE
    with torch.autocast(DEVICE.type, torch.bfloat16):
        got = streaming(*inputs)
    assert_same(got, oracle(*inputs))


@runs_kernels
def test_the_same_input_gives_the_same_bits():
    first, second = streaming(*problem(), SIZE), streaming(*problem(), SIZE)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


@runs_kernels
def test_there_is_no_second_derivative():
    source, target, truth = (x.detach().to(DEVICE, torch.float32) for x in problem())
    source.requires_grad_()
    loss = expected_distance(source, target, truth, SIZE, kernel="streaming")
    (gradient,) = torch.autograd.grad(loss.square(), source, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@runs_kernels
def test_nothing_is_larger_than_the_descriptors():
    size, channels = (8, 12), 4
    source, target, truth = (x.detach().to(DEVICE, torch.float32) for x in problem(96, size, channels, batch=1))
    inputs = [x.requires_grad_() for x in (source, target)]
    with LargestTensor() as seen:
        expected_distance(*inputs, truth, size, kernel="streaming").backward()
    assert seen.elements <= 96 * channels * 4  # the interpreter counts bytes; there are 96^2 matches


@runs_kernels
def test_a_trial_finds_nothing_wrong():
    for dtype, channels, power in [(torch.float32, 3, 0.5), (torch.float32, 64, 0.7), (torch.bfloat16, 20, 2.0)]:
        assert matching_loss._streaming_works(DEVICE, dtype, channels, power)
    assert not matching_loss._streaming_works(DEVICE, torch.float64, 3, 0.5)
    assert not matching_loss._streaming_works(DEVICE, torch.float32, 129, 0.5)


@runs_kernels
def test_what_the_kernel_does_not_take():
    source, target, truth = (x.to(DEVICE) for x in problem())
    with pytest.raises(ValueError, match="float64"):
        expected_distance(source, target, truth, SIZE, kernel="streaming")
    with pytest.raises(ValueError, match="at most 128"):
        wide = source.detach().float().repeat(1, 1, 7)
        expected_distance(wide, wide[:, :1].repeat(1, 40, 1), truth, SIZE, kernel="streaming")


@runs_kernels
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_the_kernel_is_chosen_on_a_gpu():
    source, target, truth = (x.detach().to(DEVICE, torch.float32) for x in problem(1000, (40, 40), batch=4))
    with LargestTensor() as seen:
        expected_distance(source, target, truth, (40, 40), chunk_elements=10**9)
    assert seen.elements < 4 * 1000 * 1600


# ---- where kernels cannot run


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="this is that process")
def test_by_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "needs Triton" not in done.stdout


@needs_triton
@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", ["_expect", "_differentiate_source", "_differentiate_target"])
def test_compiles_for_gpus_that_are_not_here(name, capability, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from equimark import matching_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(matching_kernel, name)
    constants = {"CHANNELS": 64, "PADDED": 64, "POWER": 0.5, "TILE": matching_kernel._TILE}
    integers = dict.fromkeys(("count", "cells", "width"), "i32")
    signature = {n: "constexpr" if n in constants else integers.get(n, "*fp32") for n in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=matching_kernel._OPTIONS)
    assert compiled.metadata.shared <= 48 * 1024
    assert "mma" not in compiled.asm["ptx"]  # tensor cores would round single precision to 10 bits
    assert "atom" not in compiled.asm["ptx"]


def test_without_triton_chunks_are_used(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "equimark.matching_kernel", raising=False)
    monkeypatch.delattr(equimark, "matching_kernel", raising=False)
    assert not matching_loss._streaming_works.__wrapped__(torch.device("cpu"), torch.float32, 8, 0.5)


def stand_in(monkeypatch, kernel):
    """Puts a kernel in the streaming kernel's place."""
    fake = types.ModuleType("equimark.matching_kernel")
    fake.TYPES, fake.MOST_CHANNELS, fake.streaming_expected_distance = (torch.float32,), 128, kernel
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(equimark, "matching_kernel", fake, raising=False)


def test_a_kernel_that_does_not_compile_is_not_used(monkeypatch):
    def broken(*_, **__):
        raise OSError("no C compiler")

    stand_in(monkeypatch, broken)
    with pytest.warns(RuntimeWarning, match="OSError: no C compiler"):
        assert not matching_loss._streaming_works.__wrapped__(torch.device("cpu"), torch.float32, 8, 0.5)


@pytest.mark.parametrize(
    ("error", "name"), [(1.1, "the loss"), (1.0, "the target's gradient"), (float("nan"), "the loss")]
)
def test_a_kernel_that_is_wrong_is_not_used(monkeypatch, error, name):
    def wrong(source, target, *arguments, **options):
        return error * expected_distance(source, target + 0.1 * (target - target.detach()), *arguments, **options)

    stand_in(monkeypatch, wrong)
    with pytest.warns(RuntimeWarning, match=name):
        assert not matching_loss._streaming_works.__wrapped__(torch.device("cpu"), torch.float32, 8, 0.5)


def test_a_trial_draws_no_random_number_and_needs_no_gradient_mode(monkeypatch):
    def right(source, target, *arguments, **options):
        return expected_distance(source, target, *arguments, **options)

    stand_in(monkeypatch, right)
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert matching_loss._streaming_works.__wrapped__(torch.device("cpu"), torch.float32, 8, 0.5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_chunks_take_half_precision_in_single(dtype):
    source, target, truth = problem()
    half = [x.detach().to(dtype).requires_grad_() for x in (source, target)]
    double = [x.detach().double().requires_grad_() for x in half]
    got = value_and_gradients(expected_distance(*half, truth, SIZE), *half)
    assert got[0].dtype == torch.float32 and all(g.dtype == dtype for g in got[1])
    got = got[0].double(), [g.double() for g in got[1]]
    assert_same(got, oracle(*double, truth, SIZE), gradient_rtol=0.01)
