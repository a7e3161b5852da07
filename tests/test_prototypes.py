import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from equimark import prototypes
from equimark.prototypes import PrototypeRegressor

H, W = 24, 26
BASE = torch.tensor([[8.0, 8], [16, 8], [12, 12], [9, 16], [15, 16]])


def faces(count: int, seed: int = 0, stretch: float = 0.8) -> Tensor:
    """Shapes (N, 5, 2) in cells that move as a whole and a little by themselves."""
    generator = torch.Generator().manual_seed(seed)
    moves = 2 * torch.randn(count, 1, 2, generator=generator)
    return BASE + moves.clamp(-4, 4) + stretch * torch.randn(count, 5, 2, generator=generator).clamp(-2, 2)


def describe(shapes: Tensor, noise: float = 0.05, seed: int = 0) -> Tensor:
    """Descriptors (N, 6, H, W): channel k is a hill around landmark k, the last is noise like a bit of all others."""
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    squares = (torch.stack([x, y], -1) - shapes[:, :, None, None]).square().sum(-1)
    maps = torch.cat([4 * (-squares / 8).exp(), torch.zeros(len(shapes), 1, H, W)], 1)
    return maps + noise * torch.randn(maps.shape, generator=torch.Generator().manual_seed(seed))


def error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm(dim=-1).nanmean())


@pytest.mark.parametrize(("labels", "most"), [(1, 1.1), (2, 0.7), (5, 0.6), (40, 0.35)])
def test_few_labels_find_unseen_shapes(labels: int, most: float) -> None:
    shapes, unseen = faces(labels), faces(30, seed=1)
    regressor = PrototypeRegressor.fit(describe(shapes), shapes)
    found = regressor.predict(describe(unseen, seed=1)).positions
    assert error(found, unseen) < most
    assert error(shapes.mean(0).expand_as(unseen), unseen) > 2 * most


def test_templates_are_linear_discriminants() -> None:
    """Written out: mean descriptor with its surroundings, less that of all cells, by the inverse covariance."""
    shapes = faces(3).round()
    features = describe(shapes)
    c = prototypes.CONTEXT
    steps = [(0, 0), (0, -c), (0, c), (-c, 0), (c, 0)]

    def seen(image: Tensor, x: int, y: int) -> Tensor:
        at = [(min(max(x + dx, 0), W - 1), min(max(y + dy, 0), H - 1)) for dx, dy in steps]
        return torch.cat([image[:, v, u] for u, v in at])

    cells = torch.stack([seen(image, x, y) for image in features for y in range(H) for x in range(W)]).double()
    covariance = torch.from_numpy(np.cov(cells.numpy().T))
    covariance += prototypes.SHRINKAGE / 3**2 * covariance.diagonal().mean() * torch.eye(30)
    at_label = [seen(image, int(shape[2, 0]), int(shape[2, 1])) for image, shape in zip(features, shapes, strict=True)]
    difference = torch.stack(at_label).double().mean(0) - cells.mean(0)
    wanted = prototypes.SHARPNESS * torch.linalg.solve(covariance, difference)
    regressor = PrototypeRegressor.fit(features, shapes)
    torch.testing.assert_close(
        regressor.templates[2].double(), wanted, rtol=1e-3, atol=1e-3 * wanted.abs().max().item()
    )
    x, y = 11, 7
    score = regressor.scores(features)[1, 2, y, x].double()
    torch.testing.assert_close(score, wanted @ (seen(features[1], x, y).double() - cells.mean(0)), rtol=1e-3, atol=1e-3)


def test_corrections_learn_a_systematic_error() -> None:
    """What is labelled lies beside what is seen, by an amount that the descriptors tell."""
    shapes, unseen = faces(60), faces(30, seed=1)

    def shown(shapes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        amount = torch.rand(len(shapes), 1, generator=torch.Generator().manual_seed(seed))
        features = describe(shapes, seed=seed)
        features[:, 5] = amount[..., None] * 3  # the whole image says how far
        return features, shapes + torch.cat([3 * amount, 0 * amount], -1)[:, None]

    features, labels = shown(shapes, 2)
    regressor = PrototypeRegressor.fit(features, labels)
    features, labels = shown(unseen, 3)
    assert error(regressor.predict(features).positions, labels) < 0.5 * error(
        regressor.uncorrected.predict(features).positions, labels
    )


def test_ridge_agrees_with_ridge_and_chooses_on_unseen_images() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(40, 60))
    inputs -= inputs.mean(0)
    signal = inputs[:, :2] @ generator.normal(size=(2, 4)) + 3
    weights, offset, unseen = prototypes._fit_ridge(inputs, signal)
    extended = np.column_stack([inputs, np.full(40, prototypes.PLACE)])
    unit = np.square(extended).sum(1).mean()
    expected = [
        np.linalg.solve(extended.T @ extended + penalty * unit * np.eye(61), extended.T @ signal)
        for penalty in prototypes.PENALTIES
    ]
    (chosen,) = [each for each in expected if np.allclose(weights, each[:-1], atol=1e-8)]
    np.testing.assert_allclose(offset, prototypes.PLACE * chosen[-1], atol=1e-8)
    assert np.linalg.norm(unseen - signal) < np.linalg.norm(signal - signal.mean(0))


def test_noise_is_not_corrected() -> None:
    generator = np.random.default_rng(0)
    weights, offset, unseen = prototypes._fit_ridge(generator.normal(size=(24, 50)), generator.normal(size=(24, 4)))
    assert not weights.any()
    assert not offset.any()
    assert not unseen.any()


def test_what_is_said_of_unseen_images_does_not_know_them() -> None:
    """Centred on all images, each is the opposite of the sum of the others, and so are errors around their mean."""
    generator = np.random.default_rng(0)
    inputs, errors = generator.normal(size=(12, 500)), generator.normal(size=(12, 8))
    inputs, errors = inputs - inputs.mean(0), errors - errors.mean(0)
    assert not prototypes._fit_ridge(inputs, errors)[0].any()


def test_copies_of_an_image_count_once() -> None:
    errors = np.array([[3.0, 4, 0, 0], [0, 0, 0, 1], [0, 2, 0, 0], [0, 0, 5, 12]])
    np.testing.assert_allclose(prototypes._mean_lengths(errors, np.array([0, 1, 0, 1])), [1.75, 3.5])


def test_too_few_images_are_not_corrected() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(16, 50))
    errors = inputs[:, :1] @ np.full((1, 4), 3.0) + 2
    assert prototypes._fit_ridge(inputs, errors)[0].any()
    few = prototypes.ENOUGH - 1
    assert not prototypes._fit_ridge(inputs[:few], errors[:few])[0].any()


def test_confidence_tells_right_from_wrong() -> None:
    """On half of the images one landmark does not show at all."""
    shapes, unseen = faces(60), faces(60, seed=1)

    def shown(shapes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        features, labels = describe(shapes, seed=seed), shapes.clone()
        features[::2, 4] = 0.05 * torch.randn(len(features[::2]), H, W, generator=torch.Generator().manual_seed(seed))
        labels[::2, 4] = torch.nan
        return features, labels

    regressor = PrototypeRegressor.fit(*shown(shapes, 2))
    confidence = regressor.predict(shown(unseen, 3)[0]).confidence
    assert confidence[::2, 4].mean() < 0.5 < 0.9 < confidence[1::2, 4].mean()
    seen = confidence >= regressor.visible_from  # learned from labels that say "not visible"
    assert seen[1::2].float().mean() > 0.9 and seen[::2, :4].float().mean() > 0.9 and seen[::2, 4].float().mean() < 0.1


def test_the_confidence_from_which_a_landmark_is_visible_by_hand() -> None:
    confidence = torch.tensor([[0.9, 0.2], [0.8, 0.3], [0.7, 0.1], [0.6, 0.75]])
    visible = torch.tensor([[True, False]] * 3 + [[True, True]])
    assert prototypes._visible_from(confidence, visible) == pytest.approx(0.6)
    confidence[0, 1] = 0.65  # a hidden one that looks sure: 5/5 and 2/3 at 0.6, 4/5 and 3/3 at 0.7
    assert prototypes._visible_from(confidence, visible) == pytest.approx(0.7)
    assert prototypes._visible_from(confidence.flip(1), visible) == 0  # hidden ones are surer: they cannot be told
    visible[2, 1] = True  # two hidden labels alone
    assert prototypes._visible_from(confidence, visible) == 0
    assert prototypes._visible_from(confidence, torch.ones(4, 2, dtype=torch.bool)) == 0


def test_hidden_landmarks_do_not_count() -> None:
    shapes, unseen = faces(12), faces(20, seed=1)
    labels = shapes.clone()
    labels[0, 1] = torch.nan
    labels[1:, 2] = torch.nan  # visible in a single image: every fold needs it
    found = PrototypeRegressor.fit(describe(shapes), labels).predict(describe(unseen, seed=1)).positions
    assert error(found, unseen) < 0.7


def test_a_landmark_that_is_never_visible() -> None:
    labels = faces(6)
    labels[:, 2] = torch.nan
    with pytest.raises(ValueError, match="landmark 2 is visible in none of the 6 labelled images"):
        PrototypeRegressor.fit(describe(faces(6)), labels)


def test_tensors_are_all_that_has_to_be_kept() -> None:
    shapes = faces(8)
    regressor = PrototypeRegressor.fit(describe(shapes), shapes)
    again = PrototypeRegressor(**regressor.tensors())
    assert regressor.visible_from == 0  # all labels are visible
    older = {name: value for name, value in regressor.tensors().items() if name != "visible_from"}
    assert PrototypeRegressor(**older).visible_from == 0
    features = describe(faces(4, seed=2))
    assert torch.equal(regressor.predict(features).positions, again.predict(features).positions)


def test_heads_of_earlier_versions_look_at_descriptors_alone() -> None:
    shapes = faces(8)
    regressor = PrototypeRegressor.fit(describe(shapes), shapes)
    features = describe(faces(4, seed=2))
    with_details = torch.cat([features, torch.rand(4, 5, H, W)], 1)
    assert regressor.channels == 6
    assert torch.equal(regressor.predict(with_details).positions, regressor.predict(features).positions)


def test_moments_are_of_all_rows_together() -> None:
    rows = 50 + torch.randn(300, 7, generator=torch.Generator().manual_seed(0))
    mean, covariance = prototypes._moments([rows[:100], rows[100:101], rows[101:]])
    torch.testing.assert_close(mean, rows.double().mean(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(covariance, torch.cov(rows.mT.double()), rtol=1e-5, atol=1e-6)


def test_fit_repeats_exactly() -> None:
    shapes = faces(10)
    first, second = (PrototypeRegressor.fit(describe(shapes), shapes) for _ in range(2))
    assert all(torch.equal(first.tensors()[name], second.tensors()[name]) for name in first.tensors())


# ---- belief -------------------------------------------------------------------------------------------------


def test_what_evidence_does_not_tell_the_offset_does() -> None:
    """Evidence that is always usual: 3 of 4 are right, so worth (s - 3/4) + b / 10 = 0, and the weights stay."""
    found = prototypes._fit_logistic(np.zeros((8, 2)), np.array([1.0, 1, 1, 0] * 2), worth=40)
    np.testing.assert_allclose(found[1:], prototypes.EVIDENCE)
    assert 40 * (1 / (1 + np.exp(-found[0])) - 0.75) + 0.1 * found[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("answer", "sign"), [(1.0, 1), (0.0, -1)])
def test_belief_is_finite_where_all_are_right_or_none(answer: float, sign: int) -> None:
    offset = prototypes._fit_logistic(np.zeros((20, 2)), np.full(20, answer), worth=20)[0]
    assert 0.9 < 1 / (1 + np.exp(-sign * offset)) < 0.99


def contradicting(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Evidence that speaks against what is right, as it may in few images by chance."""
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(count, 2))
    return inputs, (generator.random(count) < 1 / (1 + np.exp(2 * inputs[:, 0] - 1))).astype(float)


def test_few_images_do_not_overturn_what_evidence_means_and_many_do() -> None:
    inputs, answers = contradicting(4000)
    few, many = (prototypes._fit_logistic(inputs, answers, worth) for worth in (8, 4_000_000))
    assert few[1] > 0 > many[1]
    free = LogisticRegression(C=np.inf).fit(inputs, answers)
    np.testing.assert_allclose(many, [*free.intercept_, *free.coef_[0]], atol=0.02)


def test_what_is_right_is_near() -> None:
    """The mean shape is 8 cells wide and 8 high: up to 0.8 cells away; for a single landmark it is one cell."""
    points = BASE + torch.tensor([[[0.0, 0]], [[3, 1]]])
    assert prototypes.tolerance_of(points) == pytest.approx(0.8)
    assert prototypes.tolerance_of(points[:, :1]) == 1
    found = points + torch.tensor([0.79, 0])
    found[0, 0] += 0.02
    points[1, 3] = torch.nan
    wrong = (~prototypes._is_right(found, points)).nonzero().tolist()
    assert wrong == [[0, 0], [1, 3]]
