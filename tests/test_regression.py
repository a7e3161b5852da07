import pytest
import torch
from torch import Tensor

from equimark.matching import Located
from equimark.prototypes import PrototypeRegressor
from equimark.regression import LinearRegressor, contributions, restore


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mapped(weights: Tensor, found: Tensor) -> Tensor:
    """y = W x, image by image."""
    return torch.stack([(weights @ x.flatten()).view(-1, 2) for x in found])


def test_a_linear_map_is_recovered_exactly() -> None:
    weights, found = drawn(10, 6), drawn(9, 3, 2, seed=1)
    regressor = LinearRegressor.fit(found, mapped(weights, found), decay=0)
    torch.testing.assert_close(regressor.weights, weights)
    assert regressor.landmarks == 5
    unseen = drawn(4, 3, 2, seed=2)
    predicted = regressor.predict(Located(unseen, torch.ones(4, 3, dtype=torch.float64)))
    torch.testing.assert_close(predicted.positions, mapped(weights, unseen))
    torch.testing.assert_close(predicted.confidence, torch.ones(4, 5, dtype=torch.float64))


def test_there_is_no_offset() -> None:
    found = drawn(50, 2, 2)
    regressor = LinearRegressor.fit(found - found.mean(0), torch.ones(50, 1, 2))
    torch.testing.assert_close(regressor.weights, torch.zeros_like(regressor.weights))


@pytest.mark.parametrize("decay", [0.0, 5e-4, 0.3])
def test_weights_minimise_squared_error_and_decay(decay: float) -> None:
    found, points = drawn(30, 3, 2), drawn(30, 2, 2, seed=1)
    weights = LinearRegressor.fit(found, points, decay=decay).weights.requires_grad_()
    error = (mapped(weights, found) - points).square().sum() / len(found)
    (error + decay * weights.square().sum()).backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, torch.zeros_like(weights), atol=1e-12, rtol=0)


def test_of_all_exact_maps_of_one_image_the_smallest_is_taken() -> None:
    found, points = drawn(1, 3, 2), drawn(1, 2, 2, seed=1)
    x, y = found.flatten(), points.flatten()
    regressor = LinearRegressor.fit(found, points, decay=0)
    torch.testing.assert_close(regressor.weights, torch.outer(y, x) / x.square().sum())
    decayed = LinearRegressor.fit(found, points, decay=0.25).weights
    torch.testing.assert_close(decayed, torch.outer(y, x) / (x.square().sum() + 0.25))


def test_landmarks_that_are_always_found_at_the_same_place_share_the_weight() -> None:
    found, points = drawn(40, 2, 2), drawn(40, 1, 2, seed=1)
    twice = torch.cat([found, found[:, :1]], 1)
    weights = LinearRegressor.fit(twice, points).weights
    torch.testing.assert_close(weights[:, 4:], weights[:, :2])


def test_points_count_on_the_images_that_show_them() -> None:
    found, points = drawn(30, 3, 2), drawn(30, 3, 2, seed=1)
    points[:10, 1] = torch.nan
    points[5:, 2, 0] = torch.nan
    weights = LinearRegressor.fit(found, points).weights
    for landmark, rows in ((0, slice(None)), (1, slice(10, None)), (2, slice(0, 5))):
        alone = LinearRegressor.fit(found[rows], points[rows, landmark : landmark + 1]).weights
        torch.testing.assert_close(weights[2 * landmark : 2 * landmark + 2], alone)
    points[:, 1] = torch.nan
    with pytest.raises(ValueError, match="landmark 1 is visible in none of the 30 warped images"):
        LinearRegressor.fit(found, points)


# Of the first target's coordinates, half the weight lies on the first source, 0.3 on the second, 0.2 on the third.
WEIGHTS = torch.tensor(
    [
        [0.5, -0.5, 0.6, 0.0, -0.2, 0.2],
        [0.0, 1.0, 0.0, -0.6, 0.4, 0.0],
        [0.0, 0.0, -3.0, 0.5, 0.2, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.3],
    ]
)


def test_contributions_are_shares_of_the_mean_magnitude() -> None:
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.875, 0.125]])
    torch.testing.assert_close(contributions(WEIGHTS, least=0), shares)
    torch.testing.assert_close(contributions(WEIGHTS, least=0.15), torch.tensor([[0.5, 0.3, 0.2], [0.0, 0.875, 0.0]]))
    torch.testing.assert_close(contributions(WEIGHTS, least=0.25), torch.tensor([[0.5, 0.3, 0.0], [0.0, 0.875, 0.0]]))
    assert contributions(WEIGHTS)[1].tolist() == [0, 0.875, 0]
    assert contributions(torch.zeros(4, 6)).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_a_landmark_is_as_sure_as_those_it_is_derived_from() -> None:
    found = Located(torch.zeros(2, 3, 2), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.4, 0.8]]))
    confidence = LinearRegressor(WEIGHTS).predict(found).confidence
    torch.testing.assert_close(confidence, torch.tensor([[0.8, 0.875], [0.28, 0.45]]))


# ---- kinds --------------------------------------------------------------------------------------------------


def test_regressors_are_restored_by_kind() -> None:
    linear = restore("linear", LinearRegressor(WEIGHTS).tensors())
    assert isinstance(linear, LinearRegressor) and torch.equal(linear.weights, WEIGHTS)
    points = 4 + 8 * torch.rand(3, 2, 2)
    prototypes = PrototypeRegressor.fit(torch.rand(3, 4, 16, 16), points)
    assert isinstance(restore(prototypes.kind, prototypes.tensors()), PrototypeRegressor)
    assert prototypes.landmarks == 2
    with pytest.raises(ValueError, match="its kind is 'cubic', known are prototypes, linear"):
        restore("cubic", {})
