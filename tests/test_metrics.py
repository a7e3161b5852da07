"""Every metric on an example worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equimark.metrics import (
    BOX,
    PUPILS,
    MetricError,
    Scale,
    auc,
    backward_nme,
    by_image,
    by_point,
    distances,
    error_iod_percent,
    error_percent,
    error_px,
    failure_rate,
    forward_nme,
    linear_map,
    mean_and_deviation,
    mean_shape,
    pck,
    reliability,
    scaled_errors,
    share_followed,
)

NAN = np.nan
EYES = Scale.between(0, 1)


def faces() -> tuple[np.ndarray, np.ndarray]:
    """Two images with the eyes 10 and 20 px apart; errors of 5 px (50 %) and 2 px (10 %)."""
    truth = np.array([[[0, 0], [10, 0], [5, 5]], [[0, 0], [0, 20], [5, 5]]], float)
    predicted = truth.copy()
    predicted[0, 2] += [3, 4]
    predicted[1, 0] += [0, 2]
    return predicted, truth


def test_distances() -> None:
    predicted = np.array([[[0, 0], [3, 4.0]]])
    truth = np.array([[[0, 0], [0, 0.0]]])
    np.testing.assert_array_equal(distances(predicted, truth), [[0, 5]])
    truth[0, 0] = NAN
    np.testing.assert_array_equal(distances(predicted, truth), [[NAN, 5]])


def test_mean_errors() -> None:
    predicted, truth = faces()
    assert error_px(predicted, truth) == pytest.approx(7 / 6)
    np.testing.assert_allclose(scaled_errors(predicted, truth, EYES), [[0, 0, 0.5], [0.1, 0, 0]])
    assert error_percent(predicted, truth, EYES) == pytest.approx(60 / 6)
    assert error_iod_percent(predicted, truth, (0, 1)) == pytest.approx(60 / 6)


def test_landmarks_and_eyes_that_are_not_visible_do_not_count() -> None:
    truth = np.array([[[0, 0], [10, 0], [5, 5]], [[0, 0], [0, 20], [5, 5]], [[NAN, NAN], [1, 1], [2, 2]]], float)
    predicted = np.nan_to_num(truth)
    predicted[0, 2] += [3, 4]
    predicted[2, 2] += 100  # without both eyes, there is no share of their distance
    truth[1, 2] = NAN
    assert error_iod_percent(predicted, truth, (0, 1)) == pytest.approx(50 / 5)
    assert error_px(predicted, truth) == pytest.approx((5 + 100 * 2**0.5) / 7)


def test_nothing_to_count() -> None:
    truth = np.full((2, 3, 2), NAN)
    for metric in (
        lambda: error_px(truth, truth),
        lambda: error_percent(np.zeros_like(truth), truth, BOX),
        lambda: pck(np.full((2, 3), NAN), 0.1),
        lambda: failure_rate(np.full((2, 3), NAN), 0.1),
        lambda: auc(np.full((2, 3), NAN), 0.1),
    ):
        with pytest.raises(MetricError, match="no landmark counts"):
            metric()


# ---- scales -------------------------------------------------------------------------------------------------


def test_the_box_is_the_root_of_its_area() -> None:
    truth = np.array([[[1, 2], [9, 10], [5, 4]], [[0, 0], [9, 4], [NAN, NAN]], [[3, 3], [NAN, NAN], [NAN, NAN]]])
    np.testing.assert_allclose(BOX.lengths(truth), [8, 6, NAN])  # a single point has no size


def test_pupils_are_the_means_of_the_outlines_of_the_eyes() -> None:
    truth = np.zeros((1, 68, 2))
    truth[0, 36:42] = [[10, 5], [12, 4], [14, 4], [16, 5], [14, 6], [12, 6]]  # mean 13, 5
    truth[0, 42:48] = truth[0, 36:42] + [30, 40]
    assert PUPILS.lengths(truth) == pytest.approx([50])
    assert PUPILS.name == "pupils"
    truth[0, 44] = NAN
    assert np.isnan(PUPILS.lengths(truth)).all()


def test_eyes_at_the_same_place_give_no_scale() -> None:
    truth = np.array([[[4, 4], [4, 4], [5, 5]], [[0, 0], [3, 4], [1, 1]]], float)
    np.testing.assert_array_equal(EYES.lengths(truth), [NAN, 5])
    assert error_percent(truth + [0, 1], truth, EYES) == pytest.approx(20)


def test_landmarks_of_a_scale_that_are_not_there() -> None:
    with pytest.raises(MetricError, match="needs landmark 47, but there are 5"):
        PUPILS.lengths(np.zeros((1, 5, 2)))


# ---- of errors ----------------------------------------------------------------------------------------------

ERRORS = np.array([[0.05, 0.15, NAN], [0.02, 0.04, 0.06], [NAN, NAN, NAN], [0.1, 0.5, NAN]])


def test_means_by_point_and_by_image() -> None:
    np.testing.assert_allclose(by_point(ERRORS), [0.17 / 3, 0.69 / 3, 0.06])
    np.testing.assert_array_equal(by_point(np.array([[NAN, 1]])), [NAN, 1])
    np.testing.assert_allclose(by_image(ERRORS), [0.1, 0.04, 0.3])


def test_correct_key_points() -> None:
    assert pck(ERRORS, 0.1) == pytest.approx(5 / 7)
    assert pck(ERRORS, 0.01) == 0


def test_failures_are_images() -> None:
    assert failure_rate(ERRORS, 0.2) == pytest.approx(1 / 3)
    assert failure_rate(ERRORS, 0.05) == pytest.approx(2 / 3)


def test_area_under_the_cumulative_errors() -> None:
    """Mean errors 0.1, 0.04 and 0.3: none up to 0.04, a third of the images from there, two thirds from 0.1 on."""
    assert auc(ERRORS, 0.2) == pytest.approx((0.06 * 1 / 3 + 0.1 * 2 / 3) / 0.2)
    assert auc(ERRORS, 0.04) == 0
    assert auc(np.zeros((2, 2)), 0.1) == 1


@settings(max_examples=30)
@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=20))
def test_the_area_is_that_of_the_steps(errors: list[float]) -> None:
    thresholds = (np.arange(3000) + 0.5) / 3000 * 0.1
    steps = (np.array(errors)[:, None] <= thresholds).mean()
    assert auc(np.array(errors)[:, None], 0.1) == pytest.approx(steps, abs=1e-3)


# ---- of confidence ------------------------------------------------------------------------------------------


def test_reliability_worked_by_hand() -> None:
    """Four bins; 0.25 belongs to the second, 1 to the last; of the third nothing is known."""
    confidence = np.array([[0.1, 0.2, 0.25], [0.45, 0.9, 1.0]])
    correct = np.array([[True, False, False], [True, True, True]])
    found = reliability(confidence, correct, bins=4)
    np.testing.assert_array_equal(found.count, [2, 2, 0, 2])
    np.testing.assert_allclose(found.confidence, [0.15, 0.35, NAN, 0.95])
    np.testing.assert_allclose(found.correct, [0.5, 0.5, NAN, 1])
    assert found.calibration_error == pytest.approx((2 * 0.35 + 2 * 0.15 + 2 * 0.05) / 6)


def test_who_is_always_sure_and_half_the_time_right() -> None:
    found = reliability(np.ones(8), np.arange(8) % 2 == 0)
    assert found.calibration_error == 0.5
    assert reliability(np.full(8, 0.5), np.arange(8) % 2 == 0).calibration_error == 0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12))
def test_every_prediction_is_in_one_bin(pairs: list[tuple[float, bool]], bins: int) -> None:
    confidence, correct = np.array([c for c, _ in pairs]), np.array([right for _, right in pairs])
    found = reliability(confidence, correct, bins)
    assert found.count.sum() == len(pairs)
    assert np.nansum(found.correct * found.count) == pytest.approx(correct.sum())
    assert np.nansum(found.confidence * found.count) == pytest.approx(confidence.sum())
    assert 0 <= found.calibration_error <= 1
    alone = reliability(confidence, correct, 1).calibration_error  # more bins see more
    assert alone == pytest.approx(abs(confidence.mean() - correct.mean())) and found.calibration_error >= alone - 1e-9


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "cannot be compared"),
        ([0.5, 0.5], [True], "cannot be compared"),
        ([1.2], [True], "between 0 and 1"),
        ([NAN], [True], "between 0 and 1"),
    ],
)
def test_no_confidence_at_all(confidence: list[float], correct: list[bool], message: str) -> None:
    with pytest.raises(MetricError, match=message):
        reliability(np.array(confidence), np.array(correct, bool))


# ---- of discovered landmarks --------------------------------------------------------------------------------


def test_a_linear_map_worked_by_hand() -> None:
    """One landmark in, two out: the same place, and twice as far from the middle, mirrored."""
    found = np.array([[[1, 0]], [[0, 2]], [[3, 1]]], float)
    points = np.concatenate([found, -2 * found], 1)
    np.testing.assert_allclose(linear_map(found, points), [[1, 0], [0, 1], [-2, 0], [0, -2]], atol=1e-12)


def test_each_output_counts_where_it_is_visible() -> None:
    random = np.random.default_rng(0)
    found, weights = random.normal(size=(9, 2, 2)), random.normal(size=(6, 4))
    points = (found.reshape(9, 4) @ weights.T).reshape(9, 3, 2)
    points[:4, 1] = NAN
    points[2, 0] = NAN
    np.testing.assert_allclose(linear_map(found, points), weights)
    found[8, 0] = NAN
    np.testing.assert_allclose(linear_map(found, points), weights)
    points[:, 2] = NAN
    with pytest.raises(MetricError, match="of 9 images none shows landmark 2"):
        linear_map(found, points)


def discovered() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Two landmarks found at the two annotated ones, and a third that stands still; and the same on other images."""
    points = np.random.default_rng(0).normal(size=(20, 2, 2))
    points[10:, 1] = points[10:, 0] + [6, 8]  # 10 apart
    found = np.concatenate([points, np.full((20, 1, 2), 0.5)], 1)
    return (found[:10], points[:10]), (found[10:], points[10:])


def test_annotated_from_discovered_landmarks() -> None:
    train, test = discovered()
    assert forward_nme(train, test, EYES) == pytest.approx(0, abs=1e-8)
    test[1][:, 0] += [0, 1]  # the eyes are then sqrt(36 + 49) apart: one of two landmarks is 1 off
    assert forward_nme(train, test, EYES) == pytest.approx(50 / 85**0.5)


def test_landmarks_that_do_not_follow_show_in_the_backward_error_alone() -> None:
    train, test = discovered()
    train[0][:, 2], test[0][:, 2] = 0, 0
    assert backward_nme(train, test, EYES) == pytest.approx(0, abs=1e-8)
    test[0][:, 2] += [3, 4]  # 5 off, of 10, one of three
    assert forward_nme(train, test, EYES) == pytest.approx(0, abs=1e-8)
    assert backward_nme(train, test, EYES) == pytest.approx(50 / 3)


def test_images_that_hide_a_landmark_cannot_tell_the_discovered_ones() -> None:
    train, test = discovered()
    train[0][:, 2], test[0][:, 2] = 0, 0
    test[0][0] += 100
    test[1][0, 0] = NAN
    assert backward_nme(train, test, EYES) == pytest.approx(0, abs=1e-8)


# ---- over images and draws ----------------------------------------------------------------------------------


def test_how_much_of_a_movement_is_followed_worked_by_hand() -> None:
    """One landmark has to go 2 to the right and goes 1, with 5 downwards; the other has to go 1 up, and does."""
    before, wanted = np.array([[[3.0, 0.0], [0.0, 4.0]]]), np.array([[[5.0, 0.0], [0.0, 5.0]]])
    assert share_followed(before, wanted, np.array([[[4.0, -5.0], [0.0, 5.0]]])) == pytest.approx((2 * 1 + 1) / 5)
    assert share_followed(before, wanted, wanted) == 1
    assert share_followed(before, wanted, before) == 0
    assert np.isnan(share_followed(before, before, wanted))


def test_the_mean_shape_is_of_visible_landmarks() -> None:
    truth = np.array([[[0, 0], [1, 1]], [[2, 4], [NAN, NAN]]])
    np.testing.assert_array_equal(mean_shape(truth), [[1, 2], [1, 1]])


def test_mean_and_deviation() -> None:
    assert mean_and_deviation([1, 2, 6]) == (3, pytest.approx(7**0.5))  # of a sample: (4 + 1 + 9) / 2
    assert mean_and_deviation([4]) == (4, 0)
