import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equimark import geometry
from equimark.geometry import Cells, Frame, Placement

sizes = st.tuples(st.integers(2, 300), st.integers(2, 300))
coordinate = st.floats(-500, 500)
points = st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=4).map(
    lambda p: torch.tensor(p, dtype=torch.float64)
)


@given(points, sizes)
@settings(max_examples=50)
def test_normalise_and_denormalise_are_inverse(p, size):
    torch.testing.assert_close(geometry.denormalise(geometry.normalise(p, size), size), p, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(geometry.normalise(geometry.denormalise(p, size), size), p, rtol=1e-12, atol=1e-10)


@given(sizes)
@settings(max_examples=30)
def test_pixel_centres_of_the_corners_are_plus_minus_one(size):
    corners = torch.tensor([[0, 0], [size[1] - 1, size[0] - 1]], dtype=torch.float64)
    torch.testing.assert_close(geometry.normalise(corners, size), torch.tensor([[-1.0, -1], [1, 1]]).double())


@pytest.mark.parametrize("size", [(1, 5), (5, 1)])
def test_one_pixel_has_no_normalised_coordinates(size):
    with pytest.raises(ValueError, match="at least 2 x 2"):
        geometry.normalise(torch.zeros(1, 2), size)


@given(points, st.integers(1, 8), st.floats(-4, 4))
@settings(max_examples=50)
def test_cells_are_invertible(p, stride, offset):
    cells = Cells(stride, offset)
    torch.testing.assert_close(cells.to_cells(cells.to_pixels(p)), p, rtol=1e-12, atol=1e-9)


def test_cell_centres():
    centres = Cells(2, 0.5).centres((2, 3))
    assert centres.tolist() == [[[0.5, 0.5], [2.5, 0.5], [4.5, 0.5]], [[0.5, 2.5], [2.5, 2.5], [4.5, 2.5]]]


boxes = st.tuples(st.floats(-300, 300), st.floats(-300, 300), st.floats(1, 500), st.floats(1, 500)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes, st.integers(8, 300), points)
@settings(max_examples=50)
def test_placement_is_invertible(box, size, p):
    placement = Placement(box, size)
    np.testing.assert_allclose(placement.to_image(placement.to_frame(p.numpy())), p.numpy(), rtol=1e-9, atol=1e-6)


@given(boxes, st.integers(8, 300))
@settings(max_examples=30)
def test_placement_maps_borders_to_borders(box, size):
    corners = np.array([[box[0], box[1]], [box[2], box[3]]]) - 0.5
    wanted = [[-0.5, -0.5], [size - 0.5, size - 0.5]]
    np.testing.assert_allclose(Placement(box, size).to_frame(corners), wanted, rtol=1e-9, atol=1e-6)


def test_pixel_grid():
    assert geometry.pixel_grid((2, 3)).tolist() == [[[0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]


def test_samples_at_pixel_centres_are_the_pixels():
    """The align_corners trap: on torch's default an identity lookup moves pixels by up to half a pixel."""
    values = torch.rand(2, 3, 7, 11, dtype=torch.float64)
    grid = geometry.pixel_grid((7, 11), dtype=torch.float64).expand(2, -1, -1, -1)
    torch.testing.assert_close(geometry.sample(values, grid), values, rtol=0, atol=1e-13)
    single = geometry.sample(values.float(), grid.float())
    torch.testing.assert_close(single, values.float(), rtol=0, atol=1e-5)


@given(st.floats(0, 10), st.floats(0, 6))
@settings(max_examples=30)
def test_samples_of_a_ramp_are_their_position(x, y):
    ramp = geometry.pixel_grid((7, 11), dtype=torch.float64).movedim(-1, 0)[None]
    got = geometry.sample(ramp, torch.tensor([[[x, y]]], dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor([[[x], [y]]], dtype=torch.float64), rtol=0, atol=1e-9)


def test_sample_known_is_the_mean_of_what_is_known():
    values = torch.tensor([[[[1.0, 3.0], [torch.nan, 5.0]], [[2.0, 2.0], [2.0, 2.0]]]])
    points = torch.tensor([[[0.5, 0.5], [0.0, 0.0], [0.0, 0.4], [0.0, 0.6], [1.0, 1.0]]])
    found = geometry.sample_known(values, points)
    nan = torch.nan
    torch.testing.assert_close(found[0, 0], torch.tensor([3.0, 1.0, 1.0, nan, 5.0]), equal_nan=True)
    torch.testing.assert_close(found[0, 1], torch.full((5,), 2.0))
    without_gaps = torch.rand(2, 3, 4, 5)
    anywhere = torch.rand(2, 6, 2) * 3
    torch.testing.assert_close(geometry.sample_known(without_gaps, anywhere), geometry.sample(without_gaps, anywhere))


def test_samples_outside():
    values = torch.arange(6.0).view(1, 1, 2, 3)
    far = torch.tensor([[[-5.0, -5.0], [9.0, 9.0]]])
    assert geometry.sample(values, far).tolist() == [[[0.0, 5.0]]]
    assert geometry.sample(values, far, padding="zeros").tolist() == [[[0.0, 0.0]]]


def test_inside_includes_the_border_pixels():
    p = torch.tensor([[0.0, 0.0], [4.0, 2.0], [4.01, 2.0], [4.0, 2.01], [-0.01, 1.0]])
    assert geometry.inside(p, (3, 5)).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("size", [(5, 9), (40, 33), (3, 3)])
def test_resize_keeps_corners_and_ramps(size):
    ramp = torch.linspace(0, 1, 20, dtype=torch.float64).expand(1, 1, 10, 20)
    got = geometry.resize(ramp, size)
    wanted = torch.linspace(0, 1, size[1], dtype=torch.float64).expand(1, 1, *size)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    noise = torch.rand(1, 2, 10, 20, dtype=torch.float64)
    assert torch.equal(
        geometry.resize(noise, size)[..., [0, 0, -1, -1], [0, -1, 0, -1]], noise[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    )


def test_soft_argmax_of_single_cells():
    heatmaps = torch.zeros(2, 2, 4, 6)
    for (b, k), (x, y) in {(0, 0): (0, 0), (0, 1): (5, 3), (1, 0): (2, 1), (1, 1): (4, 0)}.items():
        heatmaps[b, k, y, x] = 1
    assert geometry.soft_argmax(heatmaps).tolist() == [[[0, 0], [5, 3]], [[2, 1], [4, 0]]]


def test_soft_argmax_of_flat_and_split_maps():
    assert geometry.soft_argmax(torch.full((1, 1, 4, 6), 1 / 24))[0, 0].tolist() == pytest.approx([2.5, 1.5])
    split = torch.zeros(1, 1, 4, 6)
    split[0, 0, 1, 2], split[0, 0, 1, 3] = 0.75, 0.25
    assert geometry.soft_argmax(split)[0, 0].tolist() == pytest.approx([2.25, 1])


def test_spatial_softmax_sums_to_one_and_survives_large_scores():
    heatmaps = geometry.spatial_softmax(torch.randn(2, 3, 4, 5) * 1e4)
    torch.testing.assert_close(heatmaps.sum((-2, -1)), torch.ones(2, 3))


def test_expectation_with_values_per_image():
    heatmaps = geometry.spatial_softmax(torch.randn(2, 3, 4, 5, dtype=torch.float64))
    values = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    wanted = torch.stack([(heatmaps[b][..., None] * values[b]).sum((1, 2)) for b in range(2)])
    torch.testing.assert_close(geometry.expectation(heatmaps, values), wanted)


@pytest.mark.parametrize(
    ("frame", "box"),
    [
        (Frame(100), (50, 0, 150, 100)),
        (Frame(100, "letterbox"), (0, -50, 200, 150)),
        (Frame(100, "stretch"), (0, 0, 200, 100)),
        (Frame(100, "0.1,0.2,0.6,1.2"), (20, 20, 120, 120)),
        (Frame(100, "centre", pad=10), (37.5, -12.5, 162.5, 112.5)),
    ],
)
def test_frames_of_an_image_100_high_and_200_wide(frame, box):
    placement = frame.place((100, 200))
    assert placement.size == 100
    assert placement.box == pytest.approx(box)


def test_an_image_of_the_frames_size_is_in_place():
    p = np.array([[0.0, 0.0], [99.0, 99.0], [3.5, 70.25]])
    np.testing.assert_allclose(Frame(100).place((100, 100)).to_frame(p), p)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 7}, "too small"),
        ({"pad": -1}, "pad=-1"),
        ({"size": 20, "pad": 10}, "pad=10"),
        ({"fit": "center"}, "'center'"),
        ({"fit": "0,0,1"}, "x0,y0,x1,y1"),
        ({"fit": "0.5,0,0.5,1"}, "x0 < x1"),
        ({"fit": "0,0,1,nan"}, "x0 < x1"),
        ({"fit": "0,0,1,inf"}, "x0 < x1"),
        ({"fit": ""}, "x0,y0,x1,y1"),
    ],
)
def test_impossible_frames(arguments, message):
    with pytest.raises(ValueError, match=message):
        Frame(**arguments)


def test_a_frame_on_a_square_of_an_image():
    placement = geometry.frame_square(np.array([50.0, 20.0]), 60, (100, 200), 30).place((100, 200))
    np.testing.assert_allclose(placement.box, (20, -10, 80, 50), atol=1e-9)
    np.testing.assert_allclose(placement.to_frame(np.array([49.5, 19.5])), (14.5, 14.5))


def test_the_300w_frame_worked_by_hand():
    """A box of 52 px stays 52 px wide; its centre comes to the middle of the frame, 2 px further down."""
    points = np.array([[100, 80], [151, 131], [120, 100]], float)
    placement = geometry.frame_by_landmarks(points, (300, 400), 100).place((300, 400))
    np.testing.assert_allclose(placement.box, (76, 54, 176, 154), atol=1e-9)
    np.testing.assert_allclose(placement.to_frame(points)[:2], [[24, 26], [75, 77]], atol=1e-9)


def test_the_300w_frame_of_a_larger_face():
    points = np.array([[100, 80], [203, 180]], float)  # 104 px wide: half the size
    box = geometry.frame_by_landmarks(points, (300, 400), 100).place((300, 400)).box
    np.testing.assert_allclose(box, (52, 26.5, 252, 226.5), atol=1e-9)


def test_the_300w_frame_ignores_what_is_hidden_and_may_reach_beyond_the_image():
    points = np.array([[0, 0], [51, 30], [np.nan, np.nan]], float)
    box = geometry.frame_by_landmarks(points, (60, 80), 100).place((60, 80)).box
    assert box[0] == pytest.approx(26 - 50)
    assert box[1] < 0
