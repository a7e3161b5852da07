import pytest
import torch
from torch import nn

from equimark.geometry import Cells
from equimark.networks import Hourglass, SmallNet, _Pyramid, build_network


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
