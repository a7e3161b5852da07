"""Protocols on a surface that moves, coloured by its coordinates: who knows the place makes no error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coordinates import Both, ByColour, BySurface, Fixed, config, moving
from equimark import protocols
from equimark.embedding import ModelError
from equimark.evaluation import AnnotatedFrames, draw_labels, evaluate_matching
from equimark.geometry import Cells
from equimark.head import HeadSpec, fit_head
from equimark.landmarks import LandmarkError
from equimark.metrics import BOX, MetricError, Scale
from equimark.model import LandmarkModel
from equimark.protocols import Draw, Regression, cached_features, plan_draws, predictor, record_name, score
from equimark.records import Record
from equimark.suggestion import suggest, summarise
from equimark.virtual_points import VirtualPointSpec

SIDE, MARGIN = 48, 6
PLACES = np.array([[0.38, 0.42], [0.62, 0.4], [0.5, 0.52], [0.42, 0.63], [0.6, 0.62]])
EYES = Scale.between(0, 1)
QUICK = VirtualPointSpec(points=20, temperature=1, epochs=100, lr=0.05, batch_size=12)
STILL = {
    f"pairs.{which}.{amount}": 0 for which in ("first", "second") for amount in ("bend", "extra_bend", "translation")
}


def dense_model() -> LandmarkModel:
    return LandmarkModel(ByColour(Cells(2, 0.5)), config(**{"frame.size": SIDE, "pairs.margin": MARGIN}))


def sparse_model(places: np.ndarray = PLACES) -> LandmarkModel:
    changes = {"method": "sparse", "frame.size": SIDE, "pairs.margin": MARGIN, **STILL}
    return LandmarkModel(BySurface(places), config(**changes))


def joint_model() -> LandmarkModel:
    changes = {"frame.size": SIDE, "pairs.margin": MARGIN, "network.landmarks": len(PLACES), **STILL}
    return LandmarkModel(Both(PLACES), config(**changes))


def surfaces(count: int, seed: int) -> AnnotatedFrames:
    return moving(count, SIDE, PLACES, seed)


# ---- which images are labelled ------------------------------------------------------------------------------


def test_draws_are_seeded_and_nested() -> None:
    complete = np.ones(30, np.bool_)
    ten = draw_labels(complete, 10, seed=3)
    assert len(set(ten)) == 10 and (np.diff(ten) > 0).all() and ten.min() >= 0 and ten.max() < 30
    np.testing.assert_array_equal(ten, draw_labels(complete, 10, seed=3))
    assert set(draw_labels(complete, 4, seed=3)) < set(ten)
    assert set(ten) != set(draw_labels(complete, 10, seed=4))
    for wanted in (0, 31):
        with pytest.raises(LandmarkError, match=f"between 1 and 30, the labelled images: {wanted}"):
            draw_labels(complete, wanted, seed=0)


def test_images_that_show_all_landmarks_are_drawn_first() -> None:
    complete = np.isin(np.arange(20), [2, 7, 11])
    for seed in range(4):
        assert set(draw_labels(complete, 2, seed)) < {2, 7, 11}
        assert set(draw_labels(complete, 5, seed)) > {2, 7, 11}


def test_the_plan() -> None:
    plan = plan_draws(np.ones(6, np.bool_), (1, 6, None), draws=2, seed=5)
    assert [(draw.name, draw.seed, len(draw.rows)) for draw in plan] == [
        ("labels_1", 5, 1),
        ("labels_1", 6, 1),
        ("labels_6", 5, 6),  # all of them: nothing is left to chance
        ("labels_all", 5, 6),
    ]


def test_suggested_draws_grow_and_are_chosen_in_a_half_of_the_complete_images() -> None:
    train = surfaces(17, seed=1)
    train.points[3, 0] = np.nan
    plan = plan_draws(np.isfinite(train.points).all((1, 2)), (1, 3, 8, None), draws=2)
    found = protocols.suggest_draws(dense_model(), train, plan, HeadSpec())
    assert [(each.name, each.seed, len(each.rows)) for each in found] == [
        (each.name, each.seed, len(each.rows)) for each in plan
    ]
    rows = {(each.name, each.seed): each.rows.tolist() for each in found}
    for seed in (0, 1):
        one, three, half = (rows[f"labels_{count}", seed] for count in (1, 3, 8))
        assert half[:1] == one and half[:3] == three and len(set(half)) == 8 and 3 not in half
    assert set(rows["labels_8", 0]) != set(rows["labels_8", 1])
    assert rows["labels_all", 0] == list(range(17))
    with pytest.raises(LandmarkError, match=r"a half of the 16 images .* --labels of up to 8, got 9"):
        protocols.suggest_draws(dense_model(), train, plan_draws(np.ones(17, np.bool_), (9,)), HeadSpec())


def test_suggested_draws_are_what_is_suggested() -> None:
    model, train = dense_model(), surfaces(12, seed=2)
    (one, three) = protocols.suggest_draws(model, train, plan_draws(np.ones(12, np.bool_), (1, 3), draws=1), HeadSpec())
    half = np.sort(np.random.default_rng(0).permutation(12)[:6])
    summaries = summarise(model, train.frames[half])
    first = half[suggest(np.full(6, np.nan), summaries, np.zeros(6, np.bool_), count=1)]
    np.testing.assert_array_equal(one.rows, first)
    head = fit_head(model, train.frames[first], train.points[first])
    confidence = head.locate_frames(train.frames[half])[1].mean(1)
    more = half[suggest(confidence, summaries, half == first, count=2)]
    np.testing.assert_array_equal(three.rows, [*first, *more])


# ---- predicting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "regression"),
    [
        (dense_model, "virtual"),
        (dense_model, "fit"),
        (sparse_model, "fit"),
        (joint_model, "virtual"),
        (joint_model, "fit"),
        (joint_model, "linear"),
    ],
)
def test_who_knows_the_place_makes_no_error(make: Callable[[], LandmarkModel], regression: Regression) -> None:
    """Far below a pixel, where the mean shape is off by several."""
    train, test = surfaces(24, seed=0), surfaces(12, seed=1)
    (draw,) = plan_draws(np.ones(24, np.bool_), (None,))
    with predictor(make(), train, test, regression, QUICK) as predict:
        errors = np.linalg.norm(predict(draw)[..., :2] - test.points, axis=-1)
    assert errors.mean() < 0.4
    assert np.linalg.norm(train.points.mean(0) - test.points, axis=-1).mean() > 3


def test_matching_who_knows_the_place() -> None:
    metrics = evaluate_matching(dense_model(), surfaces(12, seed=0), variant="upsampled").metrics()
    assert max(metrics.values()) < 1.5  # of 70 px, where the view has 36


def test_linear_regression_goes_by_the_landmarks_of_the_run() -> None:
    train, test = surfaces(6, 0), surfaces(3, 1)
    draw = Draw("labels_all", 4, np.arange(6))

    def predict(model: LandmarkModel, regression: Regression) -> np.ndarray:
        with predictor(model, train, test, regression, QUICK) as by_draw:
            return by_draw(draw)

    linear = predict(joint_model(), "linear")
    np.testing.assert_array_equal(linear, predict(sparse_model(), "linear"))
    np.testing.assert_array_equal(linear, predict(sparse_model(), "fit"))
    assert linear.shape == test.points.shape  # and no confidence, as that of descriptors
    assert predict(joint_model(), "fit").shape[-1] == 3


@pytest.mark.parametrize(
    ("make", "regression", "fault"),
    [
        (sparse_model, "virtual", "a sparse run has no descriptors for virtual points"),
        (dense_model, "linear", "this dense run has learned no landmarks of its own"),
    ],
)
def test_what_a_regression_needs(make: Callable[[], LandmarkModel], regression: Regression, fault: str) -> None:
    train = surfaces(2, 0)
    with (
        pytest.raises(ModelError, match=fault),
        predictor(make(), train, surfaces(2, 1), regression, QUICK) as predict,
    ):
        predict(Draw("labels_all", 0, np.arange(2)))


def test_a_landmark_that_no_label_shows() -> None:
    train = surfaces(3, 0)
    train.points[:, 2] = np.nan
    with (
        predictor(dense_model(), train, train, "virtual", QUICK) as predict,
        pytest.raises(ModelError, match="landmark 2 is visible in none of 3 images"),
    ):
        predict(Draw("labels_all", 0, np.arange(3)))


def test_few_labels_take_as_many_steps_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int | None]] = []

    def note(features: torch.Tensor, points: torch.Tensor, spec: object, **settings: object) -> None:
        seen.append((len(features), settings["epoch_images"]))  # type: ignore[arg-type]
        raise ValueError("seen")

    monkeypatch.setattr(protocols.VirtualPointRegressor, "fit", note)
    train = surfaces(9, 0)
    with predictor(dense_model(), train, surfaces(2, 1), "virtual", QUICK) as predict:
        for rows in (np.arange(2), np.arange(9)):
            with pytest.raises(ModelError, match="seen"):
                predict(Draw("", 0, rows))
    assert seen == [(2, 9), (9, 9)]


def test_cached_features_are_those_of_the_cropped_frames(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model, frames = dense_model(), surfaces(35, seed=0).frames
    inner = frames[..., MARGIN:-MARGIN, MARGIN:-MARGIN].float() / 255
    expected = model.features_of(inner).half()
    with cached_features(model, frames) as features:
        assert torch.equal(features, expected)
        assert not list(tmp_path.iterdir())
    with cached_features(model, frames, limit=1000) as features:
        assert torch.equal(features, expected)
        (file,) = tmp_path.glob("*/features.f16")
        assert file.stat().st_size == 2 * expected.numel()
        del features
    assert not list(tmp_path.iterdir())


def test_a_disk_too_small_for_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with (
        pytest.raises(OSError, match="point TMPDIR to a larger disk"),
        cached_features(dense_model(), surfaces(3, 0).frames, limit=10),
    ):
        pass


def test_draws_are_predicted_once() -> None:
    plan = plan_draws(np.ones(4, np.bool_), (1, 2), draws=2)
    asked: list[str] = []

    def predict(draw: Draw) -> np.ndarray:
        asked.append(record_name(draw))
        return np.zeros((1, 1, 2))

    record = Record({})
    record.get("labels_1/seed_1", lambda: np.ones((1, 1, 2)))
    protocols.predict_draws(predict, plan, record)
    assert asked == ["labels_1/seed_0", "labels_2/seed_0", "labels_2/seed_1"]


# ---- scoring ------------------------------------------------------------------------------------------------

TRUTH = np.array([[[0, 0], [10, 0], [5, 5]], [[0, 0], [0, 20], [5, 5]]], float)


def with_errors() -> np.ndarray:
    found = TRUTH.copy()
    found[0, 2] += [3, 4]  # 50 % of 10 px
    found[1, 0] += [0, 2]  # 10 % of 20 px
    return found


def test_scores_worked_by_hand() -> None:
    """Mean errors of the images: 50 / 3 % and 10 / 3 %."""
    assert score(with_errors(), TRUTH, EYES, view_side=35) == pytest.approx(
        {
            "error_iod_percent": 10,
            "error_px": 7 / 6 * 2,
            "pck_0.1": 5 / 6,
            "failure_rate_0.1": 1 / 2,
            "auc_0.1": (1 - 1 / 3) / 2,
        }
    )
    assert "error_box_percent" in score(TRUTH, TRUTH, BOX, view_side=70)
    assert "pck_0.05" in score(TRUTH, TRUTH, EYES, view_side=70, threshold=0.05)


def test_predictions_that_are_not_numbers_are_no_score() -> None:
    found = TRUTH.copy()
    found[1, 1] = np.nan
    with pytest.raises(MetricError, match="not numbers"):
        score(found, TRUTH, EYES, view_side=70)


def test_means_and_deviations_over_draws() -> None:
    plan = [Draw("labels_1", 0, np.array([0])), Draw("labels_1", 1, np.array([1])), Draw("labels_all", 0, np.arange(2))]
    record = Record({})
    for draw, found in zip(plan, (TRUTH, with_errors(), TRUTH), strict=True):
        record.get(record_name(draw), found.copy)
    entries = protocols.score_draws(record, plan, TRUTH, TRUTH, EYES, view_side=70)
    one, everything = entries["labels_1"], entries["labels_all"]
    assert (one["draws"], everything["draws"]) == (2, 1)
    assert one["error_iod_percent"] == one["error_iod_percent_mean"] == pytest.approx(5)
    assert one["error_iod_percent_std"] == pytest.approx(50**0.5)  # of 0 and 10
    assert (everything["error_iod_percent"], everything["error_iod_percent_std"]) == (0, 0)
    # The shape of either image is wrong for the other by sqrt(500) in landmark 1 alone: of 20 or 10 px, one in six.
    halves = np.array([500**0.5 / 20, 500**0.5 / 10]) / 6 * 100  # an image's own shape is right
    assert one["mean_shape_error_iod_percent"] == pytest.approx(halves.mean())
    # The mean of both is wrong by half as much, on both images.
    assert everything["mean_shape_error_iod_percent"] == pytest.approx(halves.sum() / 2)


def test_errors_by_point() -> None:
    plan = [Draw("labels_1", seed, np.array([0])) for seed in (0, 1)]
    record, truth = Record({}), TRUTH.copy()
    record.get("labels_1/seed_0", with_errors)
    record.get("labels_1/seed_1", TRUTH.copy)
    by_point = protocols.score_points(record, plan, truth, EYES)["labels_1"]
    assert by_point == pytest.approx([10 / 2 / 2, 0, 50 / 2 / 2])
    truth[:, 2] = np.nan
    assert protocols.score_points(record, plan, truth, EYES)["labels_1"][2] is None


def test_discovered_landmarks_that_are_the_annotated_ones() -> None:
    model, train, test = sparse_model(), surfaces(20, 0), surfaces(10, 1)
    found = [(protocols.found_landmarks(model, data.frames), data.points) for data in (train, test)]
    entry = protocols.score_discovery(*found, EYES, frame_side=SIDE)
    assert entry["forward_nme"] < 3  # a third of a pixel, of 12 between the eyes
    assert entry["backward_nme"] < 3
    assert entry["distinct_landmarks"] == 5


def test_discovered_landmarks_that_stand_still() -> None:
    model = LandmarkModel(Fixed([(5, 5), (12, 9), (5, 5)]), replace(sparse_model().config))
    train, test = surfaces(20, 0), surfaces(10, 1)
    found = [(protocols.found_landmarks(model, data.frames), data.points) for data in (train, test)]
    entry = protocols.score_discovery(*found, EYES, frame_side=SIDE)
    assert entry["forward_nme"] > 20
    assert entry["distinct_landmarks"] == 2
