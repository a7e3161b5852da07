from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coordinates import ByColour, Fixed, annotated, config, coordinate_images
from equimark import evaluation
from equimark.embedding import ModelError
from equimark.evaluation import (
    AnnotatedFrames,
    MatchingResult,
    around_landmarks,
    evaluate_matching,
    evaluate_sparse,
    load_annotated,
)
from equimark.geometry import Cells, Frame
from equimark.images import ImageError
from equimark.landmarks import LandmarkError, LandmarkTable
from equimark.model import LandmarkModel
from equimark.synthetic import Portraits
from equimark.warps import PRESETS

NAN = np.nan


def test_matching_metrics_leave_out_what_is_not_in_view() -> None:
    result = MatchingResult(np.array([[1, NAN], [3, 5]]), np.array([[NAN, NAN], [2, 4.0]]))
    assert result.metrics() == {"same_identity_px": 3, "different_identity_px": 3}


# ---- matching -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["cells", "upsampled"])
def test_descriptors_that_know_the_place_score_below_a_pixel(variant: evaluation.MatchingVariant) -> None:
    result = evaluate_matching(LandmarkModel(ByColour(), config()), annotated(12), variant=variant)
    for errors in (result.same_identity, result.different_identity):
        assert errors.shape == (6, 7)
        assert np.isfinite(errors).mean() > 0.9
        assert np.nanmean(errors) < 1
        assert np.nanmax(errors) < 2


@pytest.mark.parametrize(("variant", "limit"), [("cells", 1.3), ("upsampled", 0.8)])
def test_cells_of_two_pixels(variant: evaluation.MatchingVariant, limit: float) -> None:
    model = LandmarkModel(ByColour(Cells(2, 0.5)), config())
    result = evaluate_matching(model, annotated(12), variant=variant)
    assert max(result.metrics().values()) < limit
    # the same cells, said to lie elsewhere, are as good for themselves but for the rounding
    shifted = evaluate_matching(LandmarkModel(ByColour(Cells(2, 12.5)), config()), annotated(12), variant="cells")
    assert np.nanmean(shifted.different_identity) > 1.3 * np.nanmean(result.different_identity) or variant == "cells"


def test_descriptors_that_know_nothing_score_badly() -> None:
    data = annotated(12)
    grey = AnnotatedFrames(torch.full_like(data.frames, 90), data.points)
    metrics = evaluate_matching(LandmarkModel(ByColour(), config()), grey).metrics()
    assert min(metrics.values()) > 10


def test_same_and_different_identity_are_told_apart() -> None:
    """Every second image has its colours exchanged: places are then found on the same image only."""
    data = annotated(12)
    data.frames[1::2] = data.frames[1::2].flip(1).roll(-1, 1).flip(1).roll(1, 1)[:, [1, 0, 2]]
    metrics = evaluate_matching(LandmarkModel(ByColour(), config()), data).metrics()
    assert metrics["same_identity_px"] < 1
    assert metrics["different_identity_px"] > 5


@pytest.mark.parametrize(("side", "margin"), [(100, 15), (40, 6), (48, 0)])
def test_errors_are_on_the_scale_of_a_frame_of_70(side: int, margin: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "dve-evaluation", PRESETS["identity"])

    def three_four_off(model: object, source: object, points: Tensor, target: object, side: int) -> Tensor:
        return points + torch.tensor([3.0, 4.0])

    monkeypatch.setattr(evaluation, "_find_by_cell", three_four_off)
    model = LandmarkModel(ByColour(), config(**{"frame.size": side, "pairs.margin": margin}))
    result = evaluate_matching(model, annotated(2, side=side))
    np.testing.assert_allclose(result.same_identity, 5 * 70 / (side - 2 * margin), rtol=1e-3)
    np.testing.assert_allclose(result.different_identity, 5 * 70 / (side - 2 * margin), rtol=1e-3)


def test_hidden_landmarks_do_not_count() -> None:
    data = annotated(4)
    full = evaluate_matching(LandmarkModel(ByColour(), config()), data)
    data.points[0, 2] = NAN  # first of the first pair
    data.points[3, 4] = NAN  # second of the second pair
    result = evaluate_matching(LandmarkModel(ByColour(), config()), data)
    same, different = np.isnan(result.same_identity), np.isnan(result.different_identity)
    assert same[0, 2]
    assert different[0, 2]
    assert different[1, 4]
    assert not same[1, 4] or np.isnan(full.same_identity[1, 4])
    seen = ~different
    np.testing.assert_allclose(result.different_identity[seen], full.different_identity[seen], atol=1e-4)


def test_landmarks_outside_the_view_do_not_count() -> None:
    data = annotated(2)
    data.points[:, 0] = 2  # in the margin
    result = evaluate_matching(LandmarkModel(ByColour(), config()), data)
    assert np.isnan(result.same_identity[:, 0]).all()


def test_an_odd_image_is_left_out_and_the_seed_counts() -> None:
    model, data = LandmarkModel(ByColour(), config()), annotated(5)
    result = evaluate_matching(model, data)
    assert result.same_identity.shape == (2, 7)
    four = evaluate_matching(model, AnnotatedFrames(data.frames[:4], data.points[:4]))
    np.testing.assert_array_equal(result.different_identity, four.different_identity)
    assert evaluate_matching(model, data, seed=1).metrics() != result.metrics()


def test_images_that_are_too_few_and_runs_without_descriptors() -> None:
    with pytest.raises(ModelError, match="two at a time, got 1"):
        evaluate_matching(LandmarkModel(ByColour(), config()), annotated(1))
    with pytest.raises(ModelError, match="needs descriptors; a sparse run has none"):
        evaluate_matching(LandmarkModel(Fixed([(3, 3)]), config(method="sparse")), annotated(4))


def test_a_trained_run(dve_model: LandmarkModel, faces: Portraits) -> None:
    frames, places = dve_model.frames_of(list(faces.images))
    points = np.stack([place.to_frame(p) for place, p in zip(places, faces.landmarks5, strict=True)])
    metrics = evaluate_matching(dve_model, AnnotatedFrames(frames, points)).metrics()
    assert 0 < metrics["same_identity_px"] < metrics["different_identity_px"] < 40


# ---- sparse -------------------------------------------------------------------------------------------------


def sparse_model(peaks: list[tuple[int, int]]) -> LandmarkModel:
    return LandmarkModel(Fixed(peaks), config(method="sparse"))


def test_landmarks_that_stand_still() -> None:
    health = evaluate_sparse(sparse_model([(10, 12), (20, 22), (30, 9)]), coordinate_images(8))
    assert health.alignment_share == pytest.approx(1, rel=1e-3)
    assert health.alignment > 1
    assert health.distinct_landmarks == 3


def test_landmarks_that_have_collapsed() -> None:
    assert evaluate_sparse(sparse_model([(10, 12)] * 4), coordinate_images(4)).distinct_landmarks == 1


def test_sparse_health_needs_landmarks() -> None:
    with pytest.raises(ModelError, match="only a sparse run"):
        evaluate_sparse(LandmarkModel(ByColour(), config()), coordinate_images(2))


# ---- loading ------------------------------------------------------------------------------------------------


def table_of(faces: Portraits, rows: list[int]) -> LandmarkTable:
    return LandmarkTable(tuple(f"{i:06d}.png" for i in rows), faces.landmarks5[rows].astype(float))


def test_load_annotated(faces: Portraits, photos: Path) -> None:
    data = load_annotated(table_of(faces, [5, 2]), photos, Frame(48))
    assert len(data) == 2
    np.testing.assert_array_equal(data.frames.movedim(1, -1).numpy(), faces.images[[5, 2]])
    np.testing.assert_allclose(data.points, faces.landmarks5[[5, 2]], atol=1e-6)
    half = load_annotated(table_of(faces, [5, 2]), photos, Frame(24))
    np.testing.assert_allclose(half.points, (data.points + 0.5) / 2 - 0.5)


def test_load_by_landmarks(faces: Portraits, photos: Path) -> None:
    table = table_of(faces, [0, 1, 2])
    data = load_annotated(table, photos, around_landmarks(table, 100))
    middle = (data.points.min(1) + data.points.max(1)) / 2
    np.testing.assert_allclose(middle, np.tile([49.5, 51.5], (3, 1)), atol=1e-6)
    widths = data.points[..., 0].max(1) - data.points[..., 0].min(1)
    assert ((widths > 40) & (widths < 52)).all()


def test_load_what_is_missing_or_unreadable(faces: Portraits, photos: Path, tmp_path: Path) -> None:
    table = table_of(faces, [0, 1])
    with pytest.raises(LandmarkError, match="images with landmarks are not among"):
        load_annotated(replace(table, images=("000000.png", "none.png")), photos, Frame(40))
    Image.fromarray(faces.images[0]).save(tmp_path / "000000.png")
    (tmp_path / "000001.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"000001\.png: not an image"):
        load_annotated(table, tmp_path, Frame(40))


def test_landmarks_far_outside_their_image(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    points = np.array([[[3.0, 4.0], [59.0, -19.0]]])  # 20 pixels, half of the longer side, beyond the border
    table = LandmarkTable(("a.png",), points, names=("head", "tail"))
    frame = Frame(40, fit="stretch")
    assert load_annotated(table, tmp_path, frame).points.shape == (1, 2, 2)
    points[0, 1, 0] = 590.0
    with pytest.raises(LandmarkError, match=r"landmark 'tail' of a\.png lies at 590,-19, far outside .* 40 x 20"):
        load_annotated(table, tmp_path, frame)
