import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from animals import PAINTS, SHAPE, SIDE, animals, colour_model, turned
from equimark import directions, geometry
from equimark.directions import stand_alike, turn_frames, turn_points, turns_between, turns_of, upright
from equimark.head import Head, HeadSpec, _turn_slightly, fit_head
from equimark.model import LandmarkModel
from equimark.protocols import Draw, measure_reliability, record_name
from equimark.prototypes import PLACE, PrototypeRegressor, _images, _split
from equimark.symmetry import Symmetry

ANGLES = st.floats(-math.pi + 0.01, math.pi - 0.01)


# ---- points ----------------------------------------------------------------------------------------------------


def test_a_turn_takes_the_x_axis_towards_the_y_axis() -> None:
    points = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[3.0, 2.0], [2.0, 2.0]]], dtype=torch.float64)
    torch.testing.assert_close(
        turn_points(points[:1], torch.tensor([math.pi / 2])),
        torch.tensor([[[0.0, 1.0], [-1.0, 0.0]]], dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )
    torch.testing.assert_close(
        turn_points(points[1:], torch.tensor([math.pi]), 2.0),
        torch.tensor([[[1.0, 2.0], [2.0, 2.0]]], dtype=torch.float64),
        atol=1e-6,
        rtol=0,
    )


@given(st.lists(ANGLES, min_size=1, max_size=4), st.floats(-50, 50))
def test_turns_between_are_found_wherever_shapes_are(angles: list[float], shift: float) -> None:
    shapes = turned(angles, shift)
    torch.testing.assert_close(turns_between(shapes, SHAPE), torch.tensor(angles), atol=1e-3, rtol=0)
    torch.testing.assert_close(turn_points(SHAPE.expand(len(angles), -1, -1), torch.tensor(angles)) + shift, shapes)


def test_turns_between_shapes_that_are_only_partly_visible() -> None:
    shapes = turned([0.7, 0.7, 0.7], 5.0)
    shapes[0, 1], shapes[1, 1:], shapes[2] = torch.nan, torch.nan, torch.nan
    torch.testing.assert_close(turns_between(shapes, SHAPE), torch.tensor([0.7, 0.0, 0.0]), atol=1e-5, rtol=0)


def test_turns_are_relative_to_the_mean_direction() -> None:
    angles = [2.0, 2.4, 2.8]
    torch.testing.assert_close(turns_of(turned(angles, 40)), torch.tensor([-0.4, 0.0, 0.4]), atol=1e-5, rtol=0)
    around = [math.pi - 0.1, -math.pi + 0.3]  # 0.4 apart, across the angle at which numbers jump
    torch.testing.assert_close(turns_of(turned(around)), torch.tensor([-0.2, 0.2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(turns_of(turned([1.0])), torch.zeros(1))


@pytest.mark.parametrize(
    ("angles", "alike"),
    [([0.3], True), ([0.0, 0.2, -0.3], True), ([0.0, 0.8, -0.8], False), ([0.0, math.pi], False)],
)
def test_stand_alike(angles: list[float], alike: bool) -> None:
    assert stand_alike(turned(angles)) is alike


# ---- frames ----------------------------------------------------------------------------------------------------


def test_frames_turn_with_their_points() -> None:
    frames = torch.randint(0, 255, (2, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(turn_frames(frames, torch.zeros(2)), frames)
    quarter = turn_frames(frames, torch.full((2,), math.pi / 2))
    torch.testing.assert_close(quarter, frames.rot90(-1, (-2, -1)), atol=1, rtol=0)
    corner = torch.tensor([[[0.0, 0.0]]])  # top left; a quarter clockwise takes it to the top right
    moved = turn_points(corner, torch.tensor([math.pi / 2]), 5.5)[0, 0]
    torch.testing.assert_close(moved, torch.tensor([11.0, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(quarter[..., 0, 11], frames[..., 0, 0], atol=1, rtol=0)


def test_a_spot_is_found_where_its_point_is_turned_to() -> None:
    centre = torch.tensor([30.0, 14.0])
    squared = (geometry.pixel_grid((40, 40)) - centre).square().sum(-1)
    frame = (255 * torch.exp(-squared / 8)).expand(3, -1, -1)[None].to(torch.uint8)
    for turn in (0.4, 1.9, -2.5):
        drawn = turn_frames(frame, torch.tensor([turn])).float()[0, 0]
        found = (drawn[..., None] * geometry.pixel_grid((40, 40))).sum((0, 1)) / drawn.sum()
        wanted = turn_points(centre.view(1, 1, 2), torch.tensor([turn]), 19.5)[0, 0]
        torch.testing.assert_close(found, wanted, atol=0.1, rtol=0)


# ---- heads -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> LandmarkModel:
    return colour_model()


def error(head: Head, frames: Tensor, points: np.ndarray) -> float:
    return float(np.linalg.norm(head.predict_frames(frames) - points, axis=-1).mean())


@pytest.mark.parametrize("labels", [1, 6])
def test_things_in_any_direction_are_found(model: LandmarkModel, labels: int) -> None:
    frames, points = animals(labels)
    turning = fit_head(model, frames, points, spec=HeadSpec(direction="any"))
    assert turning.turned
    assert error(turning, *animals(12, seed=1)) < 2


def test_corrections_do_not_tell_the_direction(model: LandmarkModel) -> None:
    """These make the usual shape of whatever is found; and only how usual it is tells the direction here."""
    head = fit_head(model, *animals(6), spec=HeadSpec(direction="any"))
    fitted = head.regressor
    assert isinstance(fitted, PrototypeRegressor)
    count, seen = len(SHAPE), len(PAINTS[0]) + 2
    weights, expected = torch.zeros(1, count * seen, 2 * count), torch.zeros(1, count * seen)
    for k in range(count):
        for axis in range(2):
            weights[0, seen * (k + 1) - 2 + axis, 2 * k + axis] = -1 / PLACE
            expected[0, seen * (k + 1) - 2 + axis] = PLACE * fitted.mean[2 * k + axis]
    corrections = {"weights": weights, "expected": expected, "error": torch.zeros(1, 2 * count)}
    usual = replace(fitted, **corrections, belief=torch.zeros(3))
    assert error(Head(model, usual, None, turned=True), *animals(12, seed=1)) < 4


@pytest.mark.parametrize("halves", [1, 2])
def test_slightly_turned_copies_belong_to_their_images(halves: int) -> None:
    frames, points = animals(2 * halves)
    turned, labels = _turn_slightly(frames, points, halves)
    assert turned.shape == (6 * halves, *frames.shape[1:]) and labels.shape == (6 * halves, *points.shape[1:])
    centre = (SIDE - 1) / 2
    for half in range(halves):
        for copy, degrees in enumerate((0, -10, 10)):
            for i in range(2):
                row, angle = 6 * half + 2 * copy + i, torch.tensor([math.radians(degrees)])
                wanted = turn_points(torch.from_numpy(points[None, 2 * half + i]), angle, centre)[0]
                np.testing.assert_allclose(labels[row], wanted, atol=1e-6)
    assert torch.equal(turned[:2], frames[:2])


def test_copies_count_as_one_image() -> None:
    generator = torch.Generator().manual_seed(0)
    features, cells = torch.rand(40, 4, 12, 12, generator=generator), 3 + 6 * torch.rand(40, 2, 2, generator=generator)
    assert not PrototypeRegressor.fit(features, cells, 4).weights.any()  # ten images are too few for corrections
    seen = np.concatenate([fold for _, fold in _split(_images(40, 4), 0)])
    assert sorted(seen.tolist()) == list(range(40))
    for rest, unseen in _split(_images(40, 4), 0):
        assert not set(rest % 10) & set(unseen % 10)


def test_one_label_does_not_tell_of_other_directions(model: LandmarkModel) -> None:
    upright = fit_head(model, *animals(1), spec=HeadSpec(direction="upright"))
    assert not upright.turned
    assert error(upright, *animals(12, seed=1)) > 5


def test_whether_things_lie_in_any_direction_is_seen_from_the_labels(model: LandmarkModel) -> None:
    frames, points = animals(5)
    assert fit_head(model, frames, points).turned
    assert not fit_head(model, frames[:1], points[:1]).turned
    alike = turn_frames(frames[:1].expand(3, -1, -1, -1), torch.tensor([-0.2, 0.0, 0.2]))
    shapes = turn_points(torch.from_numpy(points[:1]).expand(3, -1, -1), torch.tensor([-0.2, 0.0, 0.2]), 39.5)
    assert not fit_head(model, alike, shapes.numpy()).turned


def test_the_mirror_image_of_a_label_is_no_second_direction(model: LandmarkModel) -> None:
    frames, points = animals(5)
    symmetry = Symmetry.of_pairs([], [str(k) for k in range(len(SHAPE))])
    both = np.stack([points, symmetry.mirror(points, SIDE)], 1)
    askew = next(k for k in range(5) if not stand_alike(torch.from_numpy(both[k])))
    assert not fit_head(model, frames[askew, None], points[askew, None], spec=HeadSpec(symmetry)).turned


def test_a_head_for_any_direction_is_kept(model: LandmarkModel, tmp_path: Path) -> None:
    head = fit_head(model, *animals(3))
    head.save(tmp_path)
    again = Head.load(tmp_path, model)
    assert again.turned
    frames, _ = animals(2, seed=2)
    np.testing.assert_array_equal(again.predict_frames(frames), head.predict_frames(frames))
    assert bool(head.tensors()["turned"]) and not bool(Head(model, head.regressor, None).tensors()["turned"])


def test_labels_that_a_turn_takes_out_of_the_frame_do_not_count(model: LandmarkModel) -> None:
    """Of a corner that is in view in one image alone, that image tells."""
    frames, points = animals(4)
    corner = np.full((4, 1, 2), np.nan)
    corner[1] = [[2.0, 2.0]]
    turn = float(turns_of(torch.from_numpy(points))[1])
    inside = geometry.inside(turn_points(torch.tensor([[2.0, 2.0]])[None], torch.tensor([-turn]), 39.5), (SIDE, SIDE))
    assert not inside.any()
    with pytest.raises(ValueError, match="landmark 4 is visible in none of the 4 labelled images"):
        fit_head(model, frames, np.concatenate([points, corner], 1))


def test_looks_go_around_once() -> None:
    looks = directions.looks()
    assert len(looks) == directions.LOOKS
    torch.testing.assert_close(looks.diff(), torch.full((directions.LOOKS - 1,), 2 * math.pi / directions.LOOKS))
    assert float(looks[0]) == 0 and float(looks[-1]) < 2 * math.pi


def test_what_is_right_does_not_depend_on_the_direction_of_the_labels() -> None:
    """The shape is 10 wide and 4 high: a landmark within one pixel is right, however the labelled ones are turned."""
    shape = torch.tensor([[0.0, 0.0], [10.0, 0.0], [10.0, 4.0], [0.0, 4.0]], dtype=torch.float64)
    test = (shape + 20)[None].numpy()
    found = np.concatenate([test, np.full((1, 4, 1), 0.9)], -1)
    found[0, :, 0] += [0.9, 1.1, 0.0, 3.0]
    turns = torch.linspace(0, 2 * math.pi, 13, dtype=torch.float64)[:12]
    draw = Draw("labels_12", 0, np.arange(12))
    for labels in (shape.expand(12, -1, -1), turn_points(shape.expand(12, -1, -1), turns, 7.0)):
        (believed,) = measure_reliability({record_name(draw): found}, [draw], labels.numpy(), test, stride=1).values()
        assert believed.calibration_error == pytest.approx(0.4)  # says 0.9, and half of them are right
    alike = upright(turn_points(shape.expand(12, -1, -1), turns, 7.0))
    assert stand_alike(alike) and (alike - alike[:1] - (alike - alike[:1]).mean(1, keepdim=True)).abs().max() < 1e-6
