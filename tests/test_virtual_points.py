from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equimark import virtual_points
from equimark.virtual_points import VirtualPointRegressor, VirtualPointSpec

SPEC = VirtualPointSpec(points=4, epochs=3, batch_size=3, temperature=5.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def regressor(landmarks: int = 3, points: int = 4, channels: int = 5, *, shared: bool = False) -> VirtualPointRegressor:
    filters = drawn(1 if shared else landmarks, points, channels)
    return VirtualPointRegressor(filters, drawn(landmarks, 2, 2 * points, seed=1), torch.tensor(5.0).double())


def regress_literally(own: VirtualPointRegressor, features: Tensor) -> Tensor:
    """Image by image, landmark by landmark, virtual point by virtual point, cell by cell."""
    count, _, height, width = features.shape
    out = features.new_zeros(count, len(own.maps), 2)
    for b in range(count):
        for k in range(len(own.maps)):
            virtual = []
            for weights in own.filters[k if len(own.filters) > 1 else 0]:
                x = y = total = torch.zeros((), dtype=features.dtype)
                for row in range(height):
                    for column in range(width):
                        heat = (own.temperature * (weights @ features[b, :, row, column])).exp()
                        x = x + heat * (2 * column / (width - 1) - 1)
                        y = y + heat * (2 * row / (height - 1) - 1)
                        total = total + heat
                virtual += [x / total, y / total]
            out[b, k] = own.maps[k] @ torch.stack(virtual)
    return out


def loss_literally(predicted: Tensor, targets: Tensor, scale: float) -> Tensor:
    """Mean smooth L1 of what is visible: half the square below 1, the magnitude less a half above."""
    terms = []
    for difference in ((predicted - targets) * scale).flatten():
        if not difference.isnan():
            size = difference.abs()
            terms.append(0.5 * size**2 if size < 1 else size - 0.5)
    return torch.stack(terms).mean()


@pytest.mark.parametrize("shared", [False, True])
def test_landmarks_equal_the_literal_sums(shared: bool) -> None:
    own, features = regressor(shared=shared), drawn(2, 5, 4, 3, seed=2) / 3
    expected = regress_literally(own, features)
    torch.testing.assert_close(own.regress(features), expected)
    found = own.predict(features)
    in_cells = (expected + 1) * torch.tensor([1.0, 1.5])
    torch.testing.assert_close(found.positions, in_cells)
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()
    assert found.confidence.shape == (2, 3)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("values", [1, 10**9])
def test_gradients_equal_the_literal_ones(values: int, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the heat maps of one image at a time fit into memory, and where points are hidden."""
    monkeypatch.setattr(virtual_points, "_HEAT_VALUES", values)
    own, features = regressor(shared=shared), drawn(3, 5, 4, 3, seed=2) / 3
    targets = drawn(3, 3, 2, seed=3) / 5
    targets[1, 2] = torch.nan
    leaves = (own.filters.requires_grad_(), own.maps.requires_grad_())
    loss = loss_literally(regress_literally(own, features), targets, SPEC.loss_scale)
    expected = torch.autograd.grad(loss, leaves)
    parts = list(virtual_points._parts(own, features, targets, torch.arange(3)))
    assert len(parts) == (3 if values == 1 else 1)
    total = sum(virtual_points._add_gradient(own, part, SPEC) for part in parts)
    torch.testing.assert_close(total, loss.detach())
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


def test_an_image_that_a_batch_holds_twice_weighs_twice() -> None:
    own, features, targets = regressor(), drawn(2, 5, 4, 3, seed=2) / 3, drawn(2, 3, 2, seed=3) / 5
    targets[0, 1] = torch.nan
    leaves, rows = (own.filters.requires_grad_(), own.maps.requires_grad_()), torch.tensor([1, 0, 1, 1])
    loss = loss_literally(regress_literally(own, features[rows]), targets[rows], SPEC.loss_scale)
    expected = torch.autograd.grad(loss, leaves)
    (part,) = virtual_points._parts(own, features, targets, rows)
    assert len(part[0]) == 2
    torch.testing.assert_close(virtual_points._add_gradient(own, part, SPEC), loss.detach())
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


def test_training_equals_the_literal_loop() -> None:
    """All images in one batch, so that their order does not count; the rate falls after the first and second epoch."""
    features, points = drawn(3, 5, 4, 4).float() / 3, 3 * torch.rand(3, 2, 2)
    own = VirtualPointRegressor.fit(features, points, SPEC, seed=7)
    weights = torch.Generator().manual_seed(7)
    filters = torch.randn(2, 4, 5, generator=weights).double().requires_grad_()
    maps = ((2 * torch.rand(2, 2, 8, generator=weights) - 1) / 8**0.5).double().requires_grad_()
    literal = VirtualPointRegressor(filters, maps, torch.tensor(5.0).double())
    optimiser = torch.optim.Adam([filters, maps], lr=1e-3, weight_decay=5e-4, amsgrad=True)
    targets = points.double() / 1.5 - 1
    for rate in (1e-3, 1e-4, 1e-5):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
        F.smooth_l1_loss(literal.regress(features.double()) * 10, targets * 10).backward()
        optimiser.step()
    torch.testing.assert_close(own.filters, filters.detach().float(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(own.maps, maps.detach().float(), atol=1e-6, rtol=1e-6)


def surface(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Descriptors of the place on a surface that moves, and two points of it, in cells."""
    moves = 0.6 * torch.rand(count, 2, 1, 1, generator=torch.Generator().manual_seed(seed)) - 0.3
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 15), torch.linspace(-1, 1, 15), indexing="ij")
    places = torch.stack([columns, rows]) - moves
    features = torch.cat([f(places * frequency) for frequency in (1.5, 4) for f in (torch.sin, torch.cos)], 1)
    points = torch.tensor([[-0.3, 0.2], [0.25, 0.1]]) + moves.flatten(1)[:, None]
    return features, (points + 1) * 7


@pytest.mark.parametrize("shared", [False, True])
def test_points_of_a_surface_that_the_descriptors_know_are_found(shared: bool) -> None:
    spec = VirtualPointSpec(points=20, shared=shared, temperature=3, epochs=120, lr=0.03, batch_size=8)
    (features, points), (others, wanted) = surface(16, seed=0), surface(20, seed=1)
    own = VirtualPointRegressor.fit(features.half(), points, spec)
    error = (own.predict(others).positions - wanted).norm(dim=-1).mean()
    still = (points.mean(0) - wanted).norm(dim=-1).mean()
    assert error < 0.16 < still / 8


def test_seeds_and_repeated_images() -> None:
    features, points = surface(4, seed=0)
    fit = VirtualPointRegressor.fit
    first, again, other = (fit(features, points, SPEC, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.maps, again.maps) and torch.equal(first.filters, again.filters)
    assert not torch.equal(first.maps, other.maps)
    repeated = fit(features, points, SPEC, epoch_images=11)  # 8 images an epoch
    assert not torch.equal(first.maps, repeated.maps)
    twice = fit(torch.cat([features, features]), torch.cat([points, points]), SPEC)
    torch.testing.assert_close(repeated.maps, twice.maps)


def test_hidden_points_do_not_count() -> None:
    features, points = surface(6, seed=0)
    hidden = points.clone()
    hidden[2:, 1] = torch.nan
    whole = replace(SPEC, batch_size=6)
    own = VirtualPointRegressor.fit(features, hidden, whole)
    assert own.maps.isfinite().all()
    far = torch.where(hidden.isnan(), 1000.0, hidden)
    assert not torch.allclose(own.maps, VirtualPointRegressor.fit(features, far, whole).maps)
    hidden[:, 0] = torch.nan
    with pytest.raises(ValueError, match="landmark 0 is visible in none of 6 images"):
        VirtualPointRegressor.fit(features, hidden, whole)


def test_what_cannot_be_learned() -> None:
    features, points = surface(2, seed=0)
    with pytest.raises(ValueError, match="not finite"):
        VirtualPointRegressor.fit(features * torch.nan, points, SPEC)
    with pytest.raises(ValueError, match="epochs of virtual points must be at least 1, got 0"):
        VirtualPointSpec(epochs=0)


def test_tensors_are_all_that_has_to_be_kept() -> None:
    features, points = surface(3, seed=0)
    own = VirtualPointRegressor.fit(features, points, SPEC)
    assert (own.kind, own.landmarks) == ("virtual-points", 2)
    again = VirtualPointRegressor(**own.tensors())
    assert torch.equal(own.predict(features).positions, again.predict(features).positions)
    assert not any(value.requires_grad for value in own.tensors().values())
