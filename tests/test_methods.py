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
from equimark.sampling import choose_auxiliaries, generator
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
    config = make_config(recipe, settings, changes, {"pairs.photometric.jpeg_probability": 0})
    coarse = torch.rand(PAIRS, 3, 6, 6, generator=generator(0, "order"))
    frames = torch.nn.functional.interpolate(coarse, size=(FRAME, FRAME), mode="bicubic").clamp(0, 1) * 255
    pairs = make_pairs(
        frames.byte(),
        config.pairs,
        warp_generator=generator(0, "warps"),
        photometric_generator=generator(0, "photometric"),
    )
    chosen = choose_auxiliaries(PAIRS, config.objective.auxiliaries, generator=generator(0, "auxiliaries"))
    return config, PairBatch(pairs.source, pairs.target, pairs.target_from_source, pairs.valid, auxiliaries=chosen)


def literal_total(network: Network, pairs: PairBatch, config: RunConfig) -> Tensor:
    """The loss as the papers write it, of a network in double precision."""
    source, target = network(torch.cat([pairs.source, pairs.target]).double()).chunk(2)
    size = (source.shape[-2], source.shape[-1])
    truth, spec = cells_correspondence(pairs, network.cells, size).double(), config.objective
    if config.method == "sparse":
        return literal_sparse(source, target, truth, config, network.cells.stride)
    total = literal_matching(source[:, :CHANNELS], target[:, :CHANNELS], truth, pairs, config, network.cells.stride)
    if config.network.landmarks:
        scores = source[:, CHANNELS:], target[:, CHANNELS:]
        total = total + spec.landmark_weight * literal_sparse(*scores, truth, config, network.cells.stride)
    return total


def literal_sparse(source: Tensor, target: Tensor, truth: Tensor, config: RunConfig, stride: int) -> Tensor:
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
    )["total"]


def literal_matching(
    source: Tensor, target: Tensor, truth: Tensor, pairs: PairBatch, config: RunConfig, stride: int
) -> Tensor:
    power = config.objective.power
    if config.method == "dense":
        return oracles.literal_dense_loss(source, target, truth, stride=stride, power=power)
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
