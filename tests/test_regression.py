import pytest
import torch
from torch import Tensor

from equimark.matching import locate, similarity
from equimark.regression import PrototypeRegressor

H, W = 16, 18


def planted(cells: Tensor) -> Tensor:
    """Descriptors (N, K, H, W): channel k is 10 at the cell (N, K, 2) of landmark k and 0 elsewhere."""
    features = torch.zeros(len(cells), cells.shape[1], H, W)
    for n, row in enumerate(cells.tolist()):
        for k, (x, y) in enumerate(row):
            features[n, k, int(y), int(x)] = 10
    return features


def bumps(centres: Tensor) -> Tensor:
    """Descriptors (N, K, H, W): channel k is a smooth hill around ``centres`` (N, K, 2)."""
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    squares = (torch.stack([x, y], -1) - centres[:, :, None, None]).square().sum(-1)
    return 10 * (-squares / 8).exp()


def draw_cells(images: int, landmarks: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(images, landmarks, 2, generator=generator)
    return (3 + xy * torch.tensor([W - 7, H - 7])).round()


def test_planted_descriptors_are_found_exactly() -> None:
    labelled, unseen = draw_cells(3, 5), draw_cells(4, 5, seed=1)
    regressor = PrototypeRegressor.fit(planted(labelled), labelled)
    torch.testing.assert_close(regressor.prototypes, 10 * torch.eye(5))
    found = regressor.predict(planted(unseen))
    torch.testing.assert_close(found.positions, unseen)
    torch.testing.assert_close(found.confidence, torch.ones(4, 5))


def test_one_label_is_enough() -> None:
    labelled = draw_cells(1, 3)
    regressor = PrototypeRegressor.fit(planted(labelled), labelled)
    torch.testing.assert_close(regressor.predict(planted(labelled)).positions, labelled)


def test_hidden_landmarks_do_not_count() -> None:
    truth = draw_cells(6, 4)
    labels = truth.clone()
    labels[0, 1] = torch.nan
    labels[3:, 2] = torch.nan  # visible in three images, too few for a correction
    regressor = PrototypeRegressor.fit(planted(truth), labels)
    torch.testing.assert_close(regressor.prototypes, 10 * torch.eye(4))
    torch.testing.assert_close(regressor.predict(planted(truth)).positions, truth, atol=1e-3, rtol=0)


def test_a_landmark_that_is_never_visible() -> None:
    labels = draw_cells(6, 4)
    labels[:, 2] = torch.nan
    with pytest.raises(ValueError, match="landmark 2 is visible in none of the 6 labelled images"):
        PrototypeRegressor.fit(planted(draw_cells(6, 4)), labels)


def error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm(dim=-1).mean())


@pytest.mark.parametrize("hide", [False, True])
def test_correction_learns_a_systematic_error(hide: bool) -> None:
    peaks, unseen = draw_cells(20, 3), draw_cells(20, 3, seed=1)
    offset = torch.tensor([[0.8, -0.6], [-0.5, 0.5], [0.0, 1.0]])
    labels = peaks + offset
    if hide:
        labels[:8, 1] = torch.nan
    regressor = PrototypeRegressor.fit(bumps(peaks), labels)
    features, truth = bumps(unseen), unseen + offset
    plain = locate(similarity(regressor.prototypes.expand(20, -1, -1), features)).positions
    assert error(plain, truth) > 0.7
    assert error(regressor.predict(features).positions, truth) < 0.15


def test_correction_uses_the_whole_shape() -> None:
    """The first landmark lies halfway between the two others, and its own descriptor is a quarter off."""
    generator = torch.Generator().manual_seed(0)
    ends = 4 + 8 * torch.rand(60, 2, 2, generator=generator)
    middle = ends.mean(1, keepdim=True)
    truth = torch.cat([middle, ends], 1)
    shown = truth.clone()
    shown[:, 0] += 0.25 * (ends[:, 0] - ends[:, 1])
    regressor = PrototypeRegressor.fit(bumps(shown[:40]), truth[:40])
    features, wanted = bumps(shown[40:]), truth[40:]
    plain = locate(similarity(regressor.prototypes.expand(20, -1, -1), features)).positions
    corrected = regressor.predict(features).positions
    assert error(corrected[:, 0], wanted[:, 0]) < 0.3 * error(plain[:, 0], wanted[:, 0])


def test_tensors_are_all_that_has_to_be_kept() -> None:
    labelled = draw_cells(8, 3)
    regressor = PrototypeRegressor.fit(bumps(labelled), labelled + 0.5)
    again = PrototypeRegressor(**regressor.tensors())
    features = bumps(draw_cells(4, 3, seed=2))
    assert torch.equal(regressor.predict(features).positions, again.predict(features).positions)
