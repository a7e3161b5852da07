"""The whole way from a batch to terms and gradients, for every objective, backbone and precision, on every device."""

from copy import deepcopy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import oracles
from equimark.config import RunConfig, load_recipe, make_config
from equimark.methods import cells_correspondence, compute_terms
from equimark.networks import Network
from equimark.pairs import PairBatch, make_pairs
from equimark.sampling import LabelledBatch, choose_auxiliaries, generator
from equimark.training import fresh_network

PAIRS, FRAME, MARGIN, CHANNELS = 3, 24, 4, 6
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


@dataclass(frozen=True)
class Tolerance:
    """Relative: of the loss, and of the gradients of the first and the last layer, as norms of the difference.

    The objective is always computed in single precision; half precision is that of the network alone. Deep in the
    hourglass batch norm sees a handful of numbers and enlarges what rounding does to them, the more the smaller the
    picture; where None stands, nothing can be said of the gradients of pictures as small as these.
    """

    loss: float
    first: float | None
    last: float | None


TOLERANCES = {
    ("no", "smallnet"): Tolerance(3e-6, 3e-5, 3e-5),
    ("no", "hourglass"): Tolerance(1e-3, 0.2, 5e-3),
    ("bf16", "smallnet"): Tolerance(1e-2, 0.3, 0.1),
    ("bf16", "hourglass"): Tolerance(0.2, None, None),
    ("fp16", "smallnet"): Tolerance(5e-3, 0.1, 0.03),
    ("fp16", "hourglass"): Tolerance(0.4, None, None),
}
PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CASES = {
    "sparse": {"recipe": "sparse-10", "network.channels": 2},
    "sparse, eq. 5 and 7": {
        "recipe": "sparse-10",
        "network.channels": 2,
        "objective.alignment": "landmarks",
        "objective.diversity": "overlap",
    },
    "sparse, flow given": {"recipe": "sparse-flow", "network.channels": 2},
    "sparse, without what is out of view": {
        "recipe": "sparse-10",
        "network.channels": 2,
        "objective.outside": "dropped",
    },
    "dense, flow given": {"recipe": "roboarm-20", "network.channels": CHANNELS, "network.vector_length": 4},
    "dense, without what is out of view": {
        "recipe": "dense-smallnet-64",
        "network.channels": CHANNELS,
        "network.vector_length": 4,
        "objective.outside": "dropped",
    },
    "dense": {"recipe": "dense-smallnet-64", "network.channels": CHANNELS, "network.vector_length": 4},
    "exchange": {"recipe": "dve-smallnet-64", "network.channels": CHANNELS, "network.vector_length": 4},
    "exchange through all others": {
        "recipe": "dve-smallnet-64",
        "network.channels": CHANNELS,
        "network.vector_length": 4,
        "objective.auxiliaries": "all",
    },
    "exchange, and landmarks beside": {
        "recipe": "joint-smallnet-64",
        "network.channels": CHANNELS,
        "network.vector_length": 4,
        "network.landmarks": 2,
    },
}


def make_case(case: str, backbone: str) -> tuple[RunConfig, PairBatch]:
    settings = dict(CASES[case])
    recipe = load_recipe(str(settings.pop("recipe"))).settings
    changes = {"network.name": backbone, "frame.size": FRAME, "pairs.margin": MARGIN, "batch_size": PAIRS}
    if backbone == "hourglass":
        changes["network.padding"] = "zeros"
    light = {"pairs.photometric.jpeg_probability": 0, "pairs.photometric.lighting": 0.1}  # no two views are the same
    config = make_config(recipe, settings, changes, light)
    coarse = torch.rand(PAIRS, 3, 6, 6, generator=generator(0, "order"))
    frames = torch.nn.functional.interpolate(coarse, size=(FRAME, FRAME), mode="bicubic").clamp(0, 1) * 255
    pairs = make_pairs(
        frames.byte(),
        config.pairs,
        partners=frames.byte().roll(1, 0) if config.pairs.motion == "flow" else None,
        warp_generator=generator(0, "warps"),
        photometric_generator=generator(0, "photometric"),
        flow=make_flow() if config.pairs.motion == "flow" else None,
    )
    chosen = choose_auxiliaries(PAIRS, config.objective.auxiliaries, generator=generator(0, "auxiliaries"))
    return config, PairBatch(pairs.source, pairs.target, pairs.target_from_source, pairs.valid, auxiliaries=chosen)


def make_flow() -> Tensor:
    """Displacements (B, 2, S, S), some unknown, of which some lead out of the picture."""
    drawn = torch.randn(PAIRS, 2, FRAME, FRAME, generator=generator(1, "partners")) * 4
    unknown = torch.rand(PAIRS, 1, FRAME, FRAME, generator=generator(1, "pool")) < 0.3
    return drawn.masked_fill(unknown, torch.nan)


def literal_weights(truth: Tensor, pairs: PairBatch, config: RunConfig, network: Network) -> Tensor | None:
    """1 for the source cells (B, h, w) whose place is known and in view; none where all count."""
    if config.objective.outside == "kept" and config.pairs.motion == "none":
        return None
    last = pairs.source.shape[-1] - 1
    weights = torch.zeros(truth.shape[:3], dtype=truth.dtype)
    for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in truth.shape[:3])).tolist():
        place = network.cells.to_pixels(truth[b, y, x])
        weights[b, y, x] = float((place >= -1e-3).all() and (place <= last + 1e-3).all())
    assert 0.1 < weights.mean() < 0.95
    return weights


def literal_total(network: Network, pairs: PairBatch, config: RunConfig) -> Tensor:
    """The loss as the papers write it, of a network in double precision."""
    source, target = network(torch.cat([pairs.source, pairs.target]).double()).chunk(2)
    size = (source.shape[-2], source.shape[-1])
    spec, stride = config.objective, network.cells.stride
    truth = cells_correspondence(pairs, network.cells, size, gaps=config.pairs.motion == "flow").double()
    weights, truth = literal_weights(truth, pairs, config, network), truth.nan_to_num()
    if config.method == "sparse":
        return literal_sparse(source, target, truth, config, stride, weights)
    total = literal_matching(source[:, :CHANNELS], target[:, :CHANNELS], truth, pairs, config, stride, weights)
    if config.network.landmarks:
        scores = source[:, CHANNELS:], target[:, CHANNELS:]
        total = total + spec.landmark_weight * literal_sparse(*scores, truth, config, stride, weights)
    return total


def literal_sparse(
    source: Tensor, target: Tensor, truth: Tensor, config: RunConfig, stride: int, weights: Tensor | None
) -> Tensor:
    spec = config.objective
    return oracles.sparse_terms(
        source,
        target,
        truth,
        stride=stride,
        gamma=spec.gamma,
        window=spec.window,
        alignment=spec.alignment,
        diversity=spec.diversity,
        weights=weights,
    )["total"]


def literal_matching(
    source: Tensor,
    target: Tensor,
    truth: Tensor,
    pairs: PairBatch,
    config: RunConfig,
    stride: int,
    weights: Tensor | None,
) -> Tensor:
    power = config.objective.power
    if config.method == "dense":
        return oracles.literal_dense_loss(source, target, truth, stride=stride, power=power, weights=weights)
    assert pairs.auxiliaries is not None
    sets = pairs.auxiliaries if pairs.auxiliaries.ndim == 2 else pairs.auxiliaries[:, None]
    return oracles.literal_dve_loss(source, target, source, truth, sets=sets, stride=stride, power=power)


def to_device(pairs: PairBatch, device: str) -> PairBatch:
    return PairBatch(
        *(value.to(device) for value in (pairs.source, pairs.target, pairs.target_from_source, pairs.valid)),
        auxiliaries=None if pairs.auxiliaries is None else pairs.auxiliaries.to(device),
    )


def gradients(network: Network) -> dict[str, Tensor]:
    """Of the weights of convolutions; the biases before batch norm have none but rounding."""
    return {
        name: weight.grad.double().cpu()
        for name, weight in network.named_parameters()
        if weight.ndim == 4 and weight.grad is not None
    }


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("precision", "backbone"), TOLERANCES)
@pytest.mark.parametrize("device", DEVICES)
def test_loss_and_gradients_are_those_of_the_formulas(case: str, backbone: str, precision: str, device: str) -> None:
    config, pairs = make_case(case, backbone)
    network = fresh_network(config).train()
    reference = deepcopy(network).double()
    expected = literal_total(reference, pairs, config)
    expected.backward()

    network, kind = network.to(device), PRECISIONS[precision]
    with torch.autocast(device, dtype=kind, enabled=kind is not None):
        total = compute_terms(network, to_device(pairs, device), config, network.cells)["total"]
    scale = 1e3 / total.item()  # so that half precision neither loses small gradients nor overflows
    (total * scale).backward()

    tolerance = TOLERANCES[precision, backbone]
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=tolerance.loss)
    found, wanted = gradients(network), gradients(reference)
    first, *_, last = wanted
    assert found.keys() == wanted.keys()
    for name, allowed in ((first, tolerance.first), (last, tolerance.last)):
        if allowed is not None:
            assert (found[name] / scale - wanted[name]).norm() < allowed * wanted[name].norm(), name


# ---- with labels


def labelled_case(recipe: str) -> tuple[Network, RunConfig, LabelledBatch]:
    config = make_config(load_recipe(recipe).settings, {}, {"frame.size": 60, "network.channels": 4})
    g, side = generator(0, "order"), config.pairs.crop_size(60)
    images = torch.rand(2, 3, side, side, generator=g)
    if config.method == "segmentation":
        batch = LabelledBatch(images, None, torch.randint(0, 4, (2, side, side), generator=g))
    else:
        points = torch.rand(2, 4, 2, generator=g) * side
        points[0, 1] = points[1, 2] = torch.nan  # hidden
        batch = LabelledBatch(images, points, None)
    return fresh_network(config).double().train(), config, batch


@pytest.mark.parametrize("recipe", ["supervised-smallnet", "supervised-smallnet-plus"])
def test_supervised_loss_is_the_squared_error_of_what_is_seen(recipe: str) -> None:
    """2017, section 4.3: landmarks regressed directly; hidden ones count for nothing, in value and gradient."""
    network, config, batch = labelled_case(recipe)
    assert batch.points is not None
    network.forward, answer = lambda images: answer, network(batch.images.double()).detach().requires_grad_()
    got = compute_terms(network, batch, config, network.cells)["total"]
    side, squares = batch.images.shape[-1], []
    for b in range(2):
        for k in range(4):
            if batch.points[b, k].isfinite().all():
                x, y = batch.points[b, k].double() / ((side - 1) / 2) - 1
                squares.append((answer[b, k, 0] - x) ** 2 + (answer[b, k, 1] - y) ** 2)
    assert len(squares) == 6
    wanted = torch.stack(squares).mean()
    assert_terms_agree(got, wanted, answer)


def test_segmentation_loss_is_the_mean_surprise_of_the_parts() -> None:
    network, config, batch = labelled_case("segmentation-scratch")
    assert batch.parts is not None
    network.forward, answer = lambda images: answer, network(batch.images.double()).detach().requires_grad_()
    got = compute_terms(network, batch, config, network.cells)["total"]
    surprises = []
    for b, y, x in torch.cartesian_prod(*(torch.arange(n) for n in batch.parts.shape)).tolist():
        scores = answer[b, :, y, x]
        surprises.append(scores.exp().sum().log() - scores[batch.parts[b, y, x]])
    assert_terms_agree(got, torch.stack(surprises).mean(), answer)


def assert_terms_agree(got: Tensor, wanted: Tensor, answer: Tensor) -> None:
    """The objective is computed in single precision."""
    assert got.item() == pytest.approx(wanted.item(), rel=1e-6)
    mine, theirs = (torch.autograd.grad(loss, answer)[0] for loss in (got, wanted))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))
