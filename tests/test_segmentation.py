import math

import numpy as np
import pytest

from equimark.segmentation import ClassScore, class_table, confusion, mean_iou_percent, pixel_accuracy_percent

# Two images of 2 x 3 pixels. Of the 12 pixels, 8 are right.
TRUTH = np.array([[[0, 0, 1], [0, 1, 1]], [[2, 2, 0], [2, 2, 0]]], np.uint8)
PREDICTED = np.array([[[0, 1, 1], [0, 1, 0]], [[2, 0, 0], [2, 1, 0]]], np.uint8)


def test_pixel_accuracy_by_hand():
    assert pixel_accuracy_percent(PREDICTED, TRUTH) == pytest.approx(100 * 8 / 12)


def test_confusion_by_hand():
    assert confusion(PREDICTED, TRUTH, 4).tolist() == [[4, 1, 0, 0], [1, 2, 0, 0], [1, 1, 2, 0], [0, 0, 0, 0]]


def test_table_by_hand():
    """Class 3 occurs nowhere and has no row."""
    assert class_table(PREDICTED, TRUTH, 4) == [
        ClassScore(0, pixels=5, found=6, accuracy_percent=80.0, iou_percent=100 * 4 / 7),
        ClassScore(1, pixels=3, found=4, accuracy_percent=100 * 2 / 3, iou_percent=40.0),
        ClassScore(2, pixels=4, found=2, accuracy_percent=50.0, iou_percent=50.0),
    ]


def test_mean_iou_by_hand():
    assert mean_iou_percent(PREDICTED, TRUTH, 4) == pytest.approx((100 * 4 / 7 + 40 + 50) / 3)


def test_a_class_that_is_only_predicted_counts_as_missed():
    truth, predicted = np.zeros((1, 2, 2), int), np.array([[[0, 0], [0, 3]]])
    row = class_table(predicted, truth, 4)[1]
    assert (row.label, row.pixels, row.found, row.iou_percent) == (3, 0, 1, 0.0)
    assert math.isnan(row.accuracy_percent)
    assert mean_iou_percent(predicted, truth, 4) == pytest.approx((75 + 0) / 2)


def test_ignored_pixels_do_not_count():
    """Unlabelled: the first row of the first image, one of its three pixels wrong."""
    truth = TRUTH.copy()
    truth[0, 0] = 255
    assert pixel_accuracy_percent(PREDICTED, truth, ignore=255) == pytest.approx(100 * 6 / 9)
    assert [row.pixels for row in class_table(PREDICTED, truth, 3, ignore=255)] == [3, 2, 4]
    assert mean_iou_percent(PREDICTED, truth, 3, ignore=255) == pytest.approx((100 * 3 / 5 + 100 * 1 / 3 + 50) / 3)


def test_an_ignored_class_is_not_scored_either():
    """Without the background the 7 pixels of classes 1 and 2 remain; 2 of these are said to be background."""
    assert pixel_accuracy_percent(PREDICTED, TRUTH, ignore=0) == pytest.approx(100 * 4 / 7)
    assert [row.label for row in class_table(PREDICTED, TRUTH, 3, ignore=0)] == [1, 2]
    assert mean_iou_percent(PREDICTED, TRUTH, 3, ignore=0) == pytest.approx((100 * 2 / 4 + 50) / 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint64])
def test_labels_of_any_integer_type(dtype):
    """20 x 20 = 400 pairs of labels are more than a byte can tell apart."""
    truth = np.arange(20, dtype=dtype).reshape(1, 4, 5)
    assert mean_iou_percent(truth, truth, 20) == 100
    assert pixel_accuracy_percent(truth, truth[:, ::-1]) == 0
    assert np.array_equal(confusion(truth, truth, 20), np.eye(20))


def test_labels_that_cannot_be_scored():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\) do not fit the true ones \(2, 2, 3\)"):
        pixel_accuracy_percent(PREDICTED[..., :2], TRUTH)
    with pytest.raises(ValueError, match="predicted labels must be integers, got float64"):
        pixel_accuracy_percent(PREDICTED / 1.0, TRUTH)
    with pytest.raises(ValueError, match="true labels run from 0 to 2, not from 0 to 1"):
        mean_iou_percent(np.minimum(PREDICTED, 1), TRUTH, 2)
    with pytest.raises(ValueError, match="predicted labels run from -1 to 0"):
        mean_iou_percent(np.array([[[-1, 0]]]), np.array([[[0, 0]]]), 2)
    with pytest.raises(ValueError, match="no pixel counts"):
        mean_iou_percent(PREDICTED, np.full_like(TRUTH, 9), 3, ignore=9)
