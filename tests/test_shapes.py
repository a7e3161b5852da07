import pytest
import torch
from torch import Tensor

from equimark import shapes
from equimark.shapes import ShapePrior, search

SQUARE = torch.tensor([[10.0, 10], [20, 10], [20, 20], [10, 20]])
H, W = 30, 32


def hills(peaks: Tensor, height: float = 8.0, width: float = 2.0) -> Tensor:
    """Score maps (B, K, H, W) with one hill each, at ``peaks`` (B, K, 2)."""
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    squares = (torch.stack([x, y], -1) - peaks[:, :, None, None]).square().sum(-1)
    return height * (-squares / (2 * width**2)).exp()


def literal_condition(prior: ShapePrior, positions: Tensor, variance: Tensor) -> Tensor:
    """The maximum of log N(x; mean, covariance) + sum_k log N(positions_k; x_k, variance_k), as normal equations."""
    answers = []
    for found, spread in zip(positions.double(), variance.double(), strict=True):
        evidence = torch.diag(1 / spread.repeat_interleave(2))
        precision = torch.linalg.inv(prior.covariance)
        right = precision @ prior.mean + evidence @ found.flatten()
        answers.append(torch.linalg.solve(precision + evidence, right).view(-1, 2))
    return torch.stack(answers)


def test_condition_is_the_maximum_a_posteriori() -> None:
    generator = torch.Generator().manual_seed(0)
    prior = ShapePrior.fit(SQUARE + torch.randn(6, 4, 2, generator=generator), 32)
    found = SQUARE.double() + torch.randn(3, 4, 2, generator=generator, dtype=torch.float64)
    variance = 0.5 + torch.rand(3, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(prior.condition(found, variance), literal_condition(prior, found, variance))


def test_condition_between_certain_and_unknown() -> None:
    prior = ShapePrior.fit(SQUARE[None], 32)
    elsewhere = SQUARE[None].double() + torch.tensor([3.0, -2])
    certain, unknown = torch.full((1, 4), 1e-9), torch.full((1, 4), 1e9)
    torch.testing.assert_close(prior.condition(elsewhere, certain.double()), elsewhere, atol=1e-4, rtol=0)
    torch.testing.assert_close(prior.condition(elsewhere, unknown.double()), SQUARE[None].double(), atol=1e-4, rtol=0)


def test_three_corners_say_where_the_fourth_is() -> None:
    prior = ShapePrior.fit(SQUARE[None], 32)
    moved = SQUARE[None].double() + torch.tensor([2.0, 1])
    variance = torch.tensor([[0.01, 0.01, 0.01, 1e8]], dtype=torch.float64)
    fourth = prior.condition(moved.index_fill(1, torch.tensor([3]), 0), variance)[0, 3]
    torch.testing.assert_close(fourth, moved[0, 3], atol=0.15, rtol=0)


def test_one_shape_may_move_turn_grow_and_bend() -> None:
    prior = ShapePrior.fit(SQUARE[None], 32)
    torch.testing.assert_close(prior.mean, SQUARE.flatten().double())
    size = 50**0.5  # of the square: root mean squared distance from its centre
    local = (shapes.BEND**2 + shapes.JITTER**2) * size**2
    # The corner (-5, -5) from the centre moves by 5 cells per unit of growth and of turn.
    expected = (shapes.TRANSLATION * 32) ** 2 + 25 * (shapes.SCALE**2 + shapes.ROTATION**2) + local
    assert prior.covariance[0, 0].item() == pytest.approx(expected)


def test_labels_widen_the_prior() -> None:
    mouth = torch.zeros(20, 4, 2)
    mouth[:, 3, 1] = torch.linspace(-6, 6, 20)  # one corner goes up and down by itself
    alone, many = ShapePrior.fit(SQUARE[None], 32), ShapePrior.fit(SQUARE + mouth, 32)
    wider = many.covariance.diagonal() - alone.covariance.diagonal()
    assert wider[7] > 10
    assert wider[:7].max() < 0.1


def test_hidden_landmarks_are_filled_in_by_the_others() -> None:
    seen = SQUARE + torch.linspace(-2, 2, 5)[:, None, None]
    hidden = seen.clone()
    hidden[3, 1] = torch.nan
    full, partial = ShapePrior.fit(seen, 32), ShapePrior.fit(hidden, 32)
    torch.testing.assert_close(partial.mean, full.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(partial.covariance, full.covariance, atol=0.3, rtol=0.05)


def test_distance_counts_in_standard_deviations() -> None:
    prior = ShapePrior(torch.zeros(4).double(), torch.diag(torch.tensor([1.0, 4.0, 9.0, 16.0])).double())
    shapes = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 4.0], [3.0, -8.0]]])
    torch.testing.assert_close(prior.distance(shapes), torch.tensor([0.0, 1 + 4 + 1 + 4]).double())


def test_search_finds_what_is_plain() -> None:
    prior = ShapePrior.fit(SQUARE[None], 32)
    truth = SQUARE[None] + torch.tensor([2.0, -1.5])
    found = search(prior, hills(truth), 0.25)
    assert (found.positions - truth).norm(dim=-1).max() < 0.3


def test_search_prefers_a_likely_shape_to_a_higher_peak() -> None:
    """One corner has its own hill, and a higher one where no square has a corner."""
    prior = ShapePrior.fit(SQUARE[None], 32)
    scores = hills(SQUARE[None])
    decoy = torch.tensor([[[27.0, 27]]])
    scores[:, :1] += hills(decoy, height=12)
    assert scores[0, 0].argmax() == 27 * W + 27
    found = search(prior, scores, 0.75).positions[0]
    assert (found - SQUARE).norm(dim=-1).max() < 1


def test_confidence_is_the_probability_around_the_landmark() -> None:
    prior = ShapePrior.fit(SQUARE[None], 32)
    sharp = search(prior, hills(SQUARE[None], height=20, width=1), 0.25).confidence
    flat = search(prior, torch.zeros(1, 4, H, W), 0.25).confidence
    assert sharp.min() > 0.8
    assert flat.max() < 0.05
