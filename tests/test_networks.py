import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimark.geometry import Cells, normalise
from equimark.networks import (
    Hourglass,
    Network,
    SegmentationNet,
    SmallNet,
    SupervisedSmallNet,
    _Pyramid,
    build_network,
    build_supervised,
)
from equimark.synthetic import Portraits, portraits

# Weights, biases, batch norm: 3 x 20 x 25 + 20 + 40, 20 x 48 x 25 + 48 + 96, 48 x 64 x 25 + 64 + 128,
# 64 x 80 x 9 + 80 + 160 and 80 x 256 x 9 + 256 + 512.
FIRST_FIVE = 1_560 + 24_144 + 76_992 + 46_320 + 185_088
FROZEN = 10  # layers of the first three convolutions: 3 x (convolution, batch norm, ReLU) and one pooling


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def symmetric(network: nn.Module) -> nn.Module:
    """The network with positive weights that do not change when a kernel is turned by half a circle."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                weight = torch.rand_like(module.weight)
                weight = weight + weight.flip(-1, -2)
                module.weight.copy_(weight / weight.sum((1, 2, 3), keepdim=True))
                if module.bias is not None:
                    module.bias.fill_(1.0)
    return network.double().eval()


@pytest.mark.parametrize(("channels", "count"), [(3, 334_875), (16, 338_216), (32, 342_328), (64, 350_552)])
def test_smallnet_parameters(channels, count):
    assert parameters(SmallNet(channels)) == count


def test_hourglass_parameters():
    with torch.device("meta"):
        assert round(parameters(Hourglass(64)) / 1e6, 1) == 12.6


@pytest.mark.parametrize("size", [70, 80, 96, 100, 136])
def test_smallnet_halves_the_image(size):
    with torch.no_grad():
        assert SmallNet(5).eval()(torch.rand(1, 3, size, size + 2)).shape == (1, 5, size // 2, size // 2 + 1)


@pytest.mark.parametrize("size", [70, 80, 96, 100, 136])
def test_hourglass_halves_the_image(size):
    with torch.device("meta"):
        assert Hourglass(5).eval()(torch.empty(1, 3, size, size + 2)).shape == (1, 5, size // 2, size // 2 + 1)


@pytest.mark.parametrize(("kind", "side"), [(SmallNet, 32), (SmallNet, 70), (Hourglass, 31)])
def test_turning_the_image_turns_the_map(kind, side):
    """Cell i of a map of w cells becomes w - 1 - i, its pixel p becomes W - 1 - p: so offset = (W - 1 - s (w - 1)) / 2.

    A network of symmetric kernels shows where its cells lie exactly, poolings and all. (The hourglass' stem is centred
    on even pixels, which only an odd side maps onto themselves.)
    """
    network = symmetric(kind(2))
    with torch.no_grad():
        image = torch.rand(1, 3, side, side, dtype=torch.float64)
        features, turned = network(image), network(image.flip(-1, -2))
    assert features.std((-2, -1)).min() > 1e-9  # the map says something
    torch.testing.assert_close(turned.flip(-1, -2), features, rtol=1e-9, atol=1e-12)
    cells: Cells = network.cells
    assert cells.offset == (side - 1 - cells.stride * (features.shape[-1] - 1)) / 2


@pytest.mark.parametrize("kind", [SmallNet, Hourglass])
@pytest.mark.parametrize("cell", [(15, 16), (16, 16), (17, 15)])
def test_the_gradient_of_a_cell_is_centred_on_its_pixel(kind, cell):
    """With pooling by means (a maximum has no centre) and without the hourglass' detour through coarser maps."""
    network = symmetric(kind(2))
    for i, layer in enumerate(network.body):
        if isinstance(layer, nn.MaxPool2d):
            network.body[i] = nn.AvgPool2d(2)
        elif type(layer).__name__ == "_Pyramid":
            network.body[i] = nn.Identity()
    image = torch.full((1, 3, 64, 64), 0.8, dtype=torch.float64, requires_grad=True)
    y, x = cell
    (gradient,) = torch.autograd.grad(network(image)[0, :, y, x].sum(), image)
    mass = gradient.abs().sum((0, 1))
    along = torch.arange(64, dtype=torch.float64)
    centre = (mass.sum(0) @ along / mass.sum(), mass.sum(1) @ along / mass.sum())
    wanted = [network.cells.stride * i + network.cells.offset for i in (x, y)]
    assert [c.item() for c in centre] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    "size",
    [
        (8, 8),
        (9, 9),
    ],
)
def test_the_hourglass_puts_coarse_cells_back_where_they_came_from(size):
    """Pooled cell k comes from cells 2k and 2k + 1, and is added to them and no others."""
    pyramid = _Pyramid(8, depth=1)
    pyramid.level = nn.Identity()
    pyramid.inner, pyramid.up = nn.Identity(), nn.Identity()
    pyramid.down = pyramid.down[:1]
    ramp = torch.arange(float(size[1])).expand(1, 8, *size)
    added = pyramid(ramp) - ramp
    even = size[1] // 2 * 2
    assert added[0, 0, 0, :even].tolist() == [2 * (i // 2) + 1 for i in range(even)]


@pytest.mark.parametrize("name", ["smallnet", "hourglass"])
def test_vector_length(name):
    torch.manual_seed(0)
    network = build_network(name, 4, vector_length=20.0).eval()
    with torch.no_grad():
        features = network(torch.rand(1, 3, 32, 32))
    torch.testing.assert_close(features.norm(dim=1), torch.full((1, 16, 16), 20.0))
    raw = build_network(name, 4).eval()
    raw.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.manual_seed(0)
        assert raw(torch.rand(1, 3, 32, 32)).norm(dim=1).std() > 0


@pytest.mark.parametrize("name", ["smallnet", "hourglass"])
def test_landmarks_beside_the_features(name):
    torch.manual_seed(0)
    network = build_network(name, 4, vector_length=20.0, landmarks=3)
    with torch.no_grad():
        found = network(torch.rand(2, 3, 32, 32))
    assert found.shape == (2, 7, 16, 16)
    torch.testing.assert_close(found[:, :4].norm(dim=1), torch.full((2, 16, 16), 20.0))
    assert found[:, 4:].min() >= 0 and found[:, 4:].std() > 0
    alone, both = (sum(p.numel() for p in build_network(name, 4, landmarks=k).parameters()) for k in (0, 3))
    assert both - alone == 3 * (256 + 1 + 2)  # a convolution of 1 x 1 and batch norm


@pytest.mark.parametrize(("name", "details", "field"), [("smallnet", 48, 14), ("hourglass", 64, 7)])
def test_details_after_the_features(name, details, field):
    """They are of the same cells, and see little around them."""
    torch.manual_seed(0)
    network = build_network(name, 4, vector_length=20.0, landmarks=3).eval()
    images = torch.rand(2, 3, 40, 40, requires_grad=True)
    columns = network.hypercolumns(images)
    assert columns.shape == (2, 4 + details, 20, 20)
    assert torch.equal(columns[:, :4], network(images)[:, :4])
    (slope,) = torch.autograd.grad(columns[0, 4:, 10, 10].sum(), images, retain_graph=True)
    seen = slope[0].abs().sum(0).nonzero()
    cell = 20 + network.cells.offset
    assert (seen - cell).abs().max() == (field - 1) / 2
    (slope,) = torch.autograd.grad(columns[0, :4, 10, 10].sum(), images)
    assert (slope[0].abs().sum(0) > 0).sum() > 2 * field**2


def test_a_network_without_early_layers_has_no_details():
    network = Network(nn.AvgPool2d(2), 3)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(network.hypercolumns(images), network(images))


def test_input_is_normalised():
    network = SmallNet(2)
    network.body = nn.Identity()
    mean, std = torch.tensor([0.5084, 0.4224, 0.3769]), torch.tensor([0.2599, 0.2371, 0.2323])
    got = network((mean + 2 * std).view(1, 3, 1, 1))
    torch.testing.assert_close(got, torch.full((1, 3, 1, 1), 2.0))


def test_sparse_smallnet_is_the_one_of_2017():
    sparse, dense = build_network("smallnet", 10, sparse=True), build_network("smallnet", 10)
    slopes = {m.negative_slope for m in sparse.modules() if isinstance(m, nn.LeakyReLU)}
    assert slopes == {0.0}
    assert {m.negative_slope for m in dense.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert sum(isinstance(m, nn.BatchNorm2d) for m in sparse.modules()) == 6
    assert sum(isinstance(m, nn.BatchNorm2d) for m in dense.modules()) == 5
    with torch.no_grad():
        assert sparse(torch.rand(2, 3, 32, 32)).min() >= 0


def test_pooling_is_after_the_first_convolution_and_dilations_are_the_papers():
    convolutions = [m for m in SmallNet(7).modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [20, 48, 64, 80, 256, 7]
    assert [c.kernel_size[0] for c in convolutions] == [5, 5, 5, 3, 3, 1]
    assert [c.dilation[0] for c in convolutions] == [1, 1, 2, 4, 2, 1]
    layers = list(SmallNet(7).body)
    pool = next(i for i, m in enumerate(layers) if isinstance(m, nn.MaxPool2d))
    assert sum(isinstance(m, nn.Conv2d) for m in layers[:pool]) == 1


def test_unknown_network():
    with pytest.raises(ValueError, match=r"'bignet'.*smallnet or hourglass"):
        build_network("bignet", 3)


@pytest.mark.parametrize("name", ["smallnet", "hourglass"])
def test_no_channels(name):
    with pytest.raises(ValueError, match="at least one"), torch.device("meta"):
        build_network(name, 0)


@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_a_plain_image_has_no_border(padding):
    """What lies beyond a picture of one colour has that colour too, unless it is zeros."""
    torch.manual_seed(0)
    network, zeros = SmallNet(4, padding=padding).eval(), SmallNet(4).eval()
    zeros.load_state_dict(network.state_dict())
    image = torch.full((1, 3, 32, 40), 0.9)
    with torch.no_grad():
        features, bordered = network(image), zeros(image)
    torch.testing.assert_close(features, features[..., :1, :1].expand(1, 4, 16, 20))
    assert bordered[0, 0].std() > 1e-3


@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate"])
def test_padding_is_that_of_all_convolutions(padding):
    network = build_network("smallnet", 4, padding=padding)
    assert {m.padding_mode for m in network.modules() if isinstance(m, nn.Conv2d)} == {padding}
    with torch.no_grad():
        assert network.eval()(torch.rand(1, 3, 21, 30)).shape == (1, 4, 10, 15)


def test_reflection_needs_a_picture_larger_than_itself():
    network = SmallNet(2, padding="reflect").eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 10, 11)).shape == (1, 2, 5, 5)
    with pytest.raises(ValueError, match="at least 10 x 10 pixels, got 20 x 9; choose replicate"):
        network(torch.rand(1, 3, 20, 9))
    with torch.no_grad():
        assert SmallNet(2, padding="replicate").eval()(torch.rand(1, 3, 2, 2)).shape == (1, 2, 1, 1)


def test_the_hourglass_refuses_other_paddings():
    with pytest.raises(ValueError, match="'reflect' is for smallnet"):
        build_network("hourglass", 4, padding="reflect")


@pytest.mark.parametrize(
    ("name", "size", "cells"), [("supervised-smallnet", 80, 20 * 20), ("supervised-smallnet-plus", 64, 8 * 8)]
)
def test_supervised_parameters_and_shape(name, size, cells):
    network = build_supervised(name, 5, input_size=size).eval()
    sixth = 256 * 51 + 51 + 2 * 51
    assert parameters(network) == FIRST_FIVE + sixth + (cells * 51) * 10 + 10
    with torch.no_grad():
        assert network(torch.rand(2, 3, size, size)).shape == (2, 5, 2)


def test_where_the_supervised_networks_pool():
    """After the first and the last convolution in the main text, after the first three in the supplement."""
    letters = {nn.Conv2d: "c", nn.MaxPool2d: "p"}
    for plus, wanted in ((False, "cpcccccp"), (True, "cpcpcpccc")):
        network = SupervisedSmallNet(5, input_size=40, plus=plus)
        assert "".join(letters.get(type(layer), "") for layer in network.body) == wanted
        assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.body) == 6
        assert {layer.negative_slope for layer in network.body if isinstance(layer, nn.LeakyReLU)} == {0.0}


def test_supervised_networks_know_their_images():
    network = SupervisedSmallNet(5, input_size=64, plus=True)
    with pytest.raises(ValueError, match="64 x 64 pixels, got 64 x 80"):
        network(torch.rand(1, 3, 64, 80))
    with pytest.raises(ValueError, match="7 pixels leave nothing"):
        SupervisedSmallNet(5, input_size=7, plus=True)
    with pytest.raises(ValueError, match="at least one landmark"):
        SupervisedSmallNet(0, input_size=64)
    with pytest.raises(ValueError, match=r"'smallnet'.*supervised-smallnet or supervised-smallnet-plus"):
        build_supervised("smallnet", 5, input_size=64)


@pytest.fixture(scope="module")
def people() -> Portraits:
    return portraits(8, seed=0, size=40)


def pictures(people: Portraits) -> Tensor:
    return torch.from_numpy(people.images).movedim(-1, 1) / 255


@pytest.mark.parametrize("plus", [False, True])
def test_supervised_networks_learn_landmarks(plus, people):
    """Further than the mean shape, which is the best for a network that does not look."""
    torch.manual_seed(0)
    network = SupervisedSmallNet(68, input_size=40, plus=plus)
    images, points = pictures(people), normalise(torch.from_numpy(people.landmarks), (40, 40))
    standing_still = F.mse_loss(points.mean(0).expand_as(points), points)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    for _ in range(30):
        loss = F.mse_loss(network(images), points)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.8 * standing_still


def test_segmentation_parameters_and_shape():
    network = SegmentationNet(7).eval()
    assert parameters(network) == FIRST_FIVE + 256 * 7 + 7
    with torch.no_grad():
        assert network(torch.rand(2, 3, 40, 33)).shape == (2, 7, 40, 33)
    assert network.cells == Cells(stride=1, offset=0.0)


@pytest.mark.parametrize("size", [(16, 16), (17, 15)])
def test_segmentation_puts_logits_where_their_pixels_are(size):
    """Means over 2 x 2 pixels of a ramp, enlarged, are the ramp again, but for the rim beyond the outermost cells."""
    network = SegmentationNet(3)
    network.body = nn.AvgPool2d(2)
    x, y = torch.arange(float(size[1])), torch.arange(float(size[0]))
    ramp = (x + 100 * y[:, None]).expand(1, 3, *size)
    enlarged = network(ramp) * network.std + network.mean
    torch.testing.assert_close(enlarged[..., 1:-2, 1:-2], ramp[..., 1:-2, 1:-2], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(enlarged[0, 0, 0, 1], torch.tensor(51.0))  # the outermost cells lie at 0.5


def trained_smallnet(*, sparse: bool) -> SmallNet:
    """With statistics of its own."""
    torch.manual_seed(0)
    network = build_network("smallnet", 10, sparse=sparse, padding="reflect")
    assert isinstance(network, SmallNet)
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 24, 24))
    return network


@pytest.mark.parametrize("sparse", [False, True])
def test_segmentation_starts_from_the_features_of_its_source(sparse):
    source = trained_smallnet(sparse=sparse).eval()
    network = SegmentationNet.from_smallnet(source, 7, freeze=True).eval()
    image = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        for layers in (FROZEN, FROZEN + 6):
            assert torch.equal(network.body[:layers](image), source.body[:layers](image))
    assert isinstance(network.body[-1], nn.Conv2d) and len(network.body) == FROZEN + 7
    assert (network.leak, network.padding) == (0.0 if sparse else 0.2, "reflect")


def test_segmentation_starts_from_a_source_with_landmarks_beside_its_features():
    torch.manual_seed(0)
    source = SmallNet(4, landmarks=3).eval()
    network = SegmentationNet.from_smallnet(source, 7, freeze=False).eval()
    image = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(network.body[: FROZEN + 6](image), source.body[: FROZEN + 6](image))
        assert network(image).shape == (1, 7, 24, 24)


@pytest.mark.parametrize("freeze", [False, True])
def test_what_is_frozen_stays_and_the_rest_learns(freeze):
    source = trained_smallnet(sparse=True)
    network = SegmentationNet.from_smallnet(source, 7, freeze=freeze)
    network.eval()
    network.train()
    assert [layer.training for layer in network.body] == [not freeze] * FROZEN + [True] * 7
    before, source_before = copy.deepcopy(network.state_dict()), copy.deepcopy(source.state_dict())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(network(torch.rand(2, 3, 24, 24)), torch.randint(7, (2, 24, 24))).backward()
        optimiser.step()
    stayed = {name for name, tensor in network.state_dict().items() if torch.equal(tensor, before[name])}
    assert stayed == {name for name in before if freeze and int(name.split(".")[1]) < FROZEN}
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, source_before[name])


@pytest.mark.parametrize("freeze", [False, True])
def test_segmentation_learns_the_parts_of_a_face(freeze, people):
    torch.manual_seed(0)
    network = SegmentationNet.from_smallnet(SmallNet(10, leak=0.0), 7, freeze=freeze)
    images, parts = pictures(people), torch.from_numpy(people.parts).long()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(network(images), parts)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
