import io

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Wedge
from PIL import Image

from equimark import plots
from equimark.geometry import Cells
from equimark.metrics import Reliability
from equimark.plots import colours

SIDE = 20


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8))


def some_points(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(1, SIDE - 2, (*shape, 2))


def drawn(figure: Figure) -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file)


def scatters(ax) -> list[PathCollection]:
    return [c for c in ax.collections if isinstance(c, PathCollection)]


def test_a_colour_of_the_palette_does_not_depend_on_how_many_there_are():
    assert np.array_equal(plots.palette(4), plots.palette(60)[:4])
    assert len({tuple(c) for c in plots.palette(60)}) == 60
    assert plots.palette(0).shape == (0, 3)
    assert plots.palette(60).min() >= 0 and plots.palette(60).max() <= 1


def test_position_colours_change_with_the_position():
    corners = np.array([[0.0, 0], [SIDE - 1, 0], [0, SIDE - 1], [SIDE - 1, SIDE - 1]])
    colours = plots.position_colours(corners, (SIDE, SIDE))
    assert len({tuple(c) for c in colours.round(3)}) == 4
    assert plots.position_colours(np.zeros((0, 2)), (SIDE, SIDE)).shape == (0, 3)


def test_equal_descriptors_have_equal_colours_on_all_images():
    features = np.random.default_rng(0).normal(size=(3, 8, 5, 6))
    features[2, :, 1, 1] = 4 * features[0, :, 3, 2]  # the length does not count
    colours = plots.descriptor_colours(features)
    assert colours.shape == (3, 5, 6, 3) and colours.min() == 0 and colours.max() == 1
    assert np.allclose(colours[2, 1, 1], colours[0, 3, 2])


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_few_or_constant_channels_have_colours(channels):
    features = np.random.default_rng(0).normal(size=(2, channels, 4, 4))
    assert np.isfinite(plots.descriptor_colours(features)).all()
    assert np.isfinite(plots.descriptor_colours(np.zeros_like(features))).all()


def test_landmarks_are_drawn_where_they_are_in_their_colours():
    points = some_points(3, 5)
    confidence = np.linspace(0, 1, 15).reshape(3, 5)
    figure = plots.landmarks(pictures(3), points, confidence=confidence, expected=points + 1, notes="abc", columns=2)
    assert len(figure.axes) == 3
    for i, ax in enumerate(figure.axes):
        rings, dots = scatters(ax)[1], scatters(ax)[2]
        assert np.allclose(dots.get_offsets(), points[i]) and np.allclose(rings.get_offsets(), points[i] + 1)
        assert np.allclose(dots.get_facecolors()[:, :3], plots.palette(5))
        assert (np.diff(dots.get_sizes()) > 0).all() and (np.diff(dots.get_facecolors()[:, 3]) > 0).all()
        assert ax.get_title() == "abc"[i] and ax.get_xlim() == (-0.5, SIDE - 0.5)
    assert drawn(figure).width > 300


def test_points_far_outside_leave_the_view_as_it_is():
    figure = plots.landmarks(pictures(1), np.full((1, 1, 2), 500.0))
    assert figure.axes[0].get_xlim() == (-0.5, SIDE - 0.5)
    assert drawn(figure).width < 400


def test_source_and_matches_share_their_colours():
    source, *targets = pictures(5)
    points, found = some_points(4), some_points(4, 4)
    figure = plots.matches(source, points, targets, found, np.full((4, 4), 0.5), columns=3)
    assert len(figure.axes) == 5 and figure.axes[0].get_title() == "source"
    first, second = (scatters(ax)[0] for ax in figure.axes[:2])
    assert np.allclose(first.get_offsets(), points) and np.allclose(second.get_offsets(), found[0])
    assert np.array_equal(first.get_facecolors()[:, :3], second.get_facecolors()[:, :3])


def test_training_pairs_draw_each_point_where_the_correspondence_puts_it_and_none_that_is_not_valid():
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).astype(float)
    valid = np.ones((2, SIDE, SIDE), bool)
    valid[1, :, : SIDE // 2] = False
    shift = np.array([2.0, 1.0])
    figure = plots.training_pairs(pictures(2), pictures(2), np.stack([grid + shift] * 2), valid)
    assert len(figure.axes) == 4
    for column, count in ((0, 25), (1, 15)):
        above, below = scatters(figure.axes[column])[0], scatters(figure.axes[2 + column])[0]
        assert len(above.get_offsets()) == count
        assert np.allclose(above.get_offsets() + shift, below.get_offsets())
    assert drawn(figure)


def test_heat_lies_over_the_pixels_that_its_cells_describe():
    source, *targets = pictures(3)
    heat = np.zeros((1, 2, 10, 10))
    heat[0, 0, 3, 4] = 1
    figure = plots.heat_maps(source, some_points(1), targets, heat, Cells(stride=2, offset=0.5))
    assert len(figure.axes) == 3
    overlay = figure.axes[1].images[1]
    assert overlay.get_extent() == [-0.5, 19.5, 19.5, -0.5]
    alpha = overlay.get_array()[..., 3]
    assert alpha[3, 4] == alpha.max() and (alpha > 0).sum() == 1
    assert figure.axes[2].images[1].get_array()[..., 3].max() == 0  # nothing found is nothing shown
    assert drawn(figure)


def test_worst_cases_come_first_with_their_error():
    truth = some_points(4, 3)
    predicted = truth + np.array([1, 5, 0, 3])[:, None, None] * [0.6, 0.8]
    truth[1, 0] = np.nan
    truth[2] = np.nan
    through = (pictures(4), some_points(4, 3))
    figure = plots.worst_cases(pictures(4), predicted, truth, through=through, count=3)
    assert [ax.get_title() for ax in figure.axes[:3]] == ["5.0 px", "3.0 px", "1.0 px"]
    assert np.allclose(scatters(figure.axes[4])[0].get_offsets(), through[1][3])
    assert drawn(figure)


def test_worst_cases_of_fewer_images_than_asked_for():
    assert len(plots.worst_cases(pictures(2), some_points(2, 3), some_points(2, 3)).axes) == 2


def patches(ax, kind: type) -> list:
    return [patch for patch in ax.patches if isinstance(patch, kind)]


def test_contributions_are_arrows_and_shares_of_a_ring_in_the_colour_of_their_source():
    sources, targets = np.array([[4.0, 4], [15, 4], [4, 15]]), np.array([[10.0, 10], [4, 4.2], [np.nan, 3]])
    shares = np.array([[0.3, 0.6, 0], [0.9, 0, 0], [0, 0, 1]])
    figure = plots.contribution_graph(pictures(1)[0], sources, targets, shares)
    ax, colours = figure.axes[0], plots.palette(3)
    arrows = patches(ax, FancyArrowPatch)  # none to the second target: its source lies on it; none to a hidden one
    assert [tuple(arrow.get_facecolor()[:3]) for arrow in arrows] == [tuple(colours[0]), tuple(colours[1])]
    assert arrows[0].get_linewidth() < arrows[1].get_linewidth()
    wedges = [(w.center, round(w.theta2 - w.theta1), w.get_facecolor()[:3]) for w in patches(ax, Wedge)]
    first, second = (10, 10), (4, 4.2)
    assert wedges == [
        (first, 108, tuple(colours[0])), (first, 216, tuple(colours[1])), (second, 324, tuple(colours[0]))
    ]  # fmt: skip
    assert {circle.center for circle in patches(ax, Circle)} == {first, second}
    crosses = scatters(ax)[-1]
    assert np.allclose(crosses.get_offsets(), sources)
    assert np.allclose(crosses.get_edgecolors()[:2, :3], colours[:2])
    assert (crosses.get_edgecolors()[2, :3] >= colours[2]).all()  # pale: it contributes to nothing that is shown
    assert drawn(figure)


def test_contributions_of_nothing_to_nothing():
    assert drawn(plots.contribution_graph(pictures(1)[0], some_points(2), np.zeros((0, 2)), np.zeros((0, 2))))


def test_curves_have_a_panel_per_number_and_do_not_show_the_same_curve_twice():
    dense = [{"step": s, "loss": 1 / s, "matching": 1 / s, "pairs_per_second": 9.0, "lr": 0.1} for s in range(1, 40)]
    figure = plots.curves(dense)
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        plots.TERM_LABELS[n] for n in ("matching", "pairs_per_second", "lr")
    ]
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == [e["step"] for e in dense] and list(y) == [e["loss"] for e in dense]
    sparse = [{"step": 5, "loss": 3.0, "alignment_share": 30.0, "some_new_term": -1.0}]
    figure = plots.curves(sparse, limits={"alignment_share": 0.7})
    assert len(figure.axes) == 3 and figure.axes[2].get_title(loc="left") == "Some new term"
    assert figure.axes[1].get_ylim() == (0, 1.75)
    assert drawn(figure)


def test_colour_maps_have_an_image_above_each():
    features = np.random.default_rng(0).normal(size=(3, 6, 10, 10))
    raw = plots.colour_maps(pictures(3), features)
    assert len(raw.axes) == 9 and raw.axes[3].images[0].get_array().shape == (10, 10, 3)
    of_one_length = plots.colour_maps(pictures(3), features / np.linalg.norm(features, axis=1, keepdims=True))
    assert len(of_one_length.axes) == 6


def test_descriptor_lengths_are_greys_relative_to_the_longest():
    features = np.zeros((2, 3, 1, 2))
    features[0, :2, 0, 1], features[1, 2, 0, 0] = (3, 4), -10
    greys = colours.descriptor_lengths(features)
    assert greys.shape == (2, 1, 2, 3)
    assert greys[..., 0].tolist() == [[[0, 0.5]], [[1, 0]]]
    assert (greys[..., 0] == greys[..., 2]).all()
    assert colours.descriptor_lengths(0 * features).max() == 0


def test_bars_compare_runs_by_metric():
    figure = plots.bars({"dense": {"a": 2.0, "b": 1.0}, "dve": {"a": 1.0}}, labels={"a": "Error (px)"})
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [2.0, 1.0] and len(second.patches) == 1
    assert first.get_title(loc="left") == "Error (px)" and second.get_title(loc="left") == "b"
    assert drawn(figure)


def test_reliability_draws_each_bin_where_it_belongs():
    found = Reliability(np.array([0.2, np.nan, 0.9]), np.array([0.25, np.nan, 0.65]), np.array([4, 0, 12]))
    figure = plots.reliability({"5 labels": found, "20 labels": found, "50 labels": found, "all": found})
    assert [ax.get_title("left") for ax in figure.axes] == [
        f"{name}: off by 0.200" for name in ("5 labels", "20 labels", "50 labels", "all")
    ]
    (dots,) = scatters(figure.axes[0])
    assert np.allclose(dots.get_offsets(), [[0.2, 0.25], [0.9, 0.65]])
    assert dots.get_sizes()[1] > dots.get_sizes()[0]
    assert [bar.get_height() for bar in figure.axes[0].patches] == [0.25, 0, 0.75]
    assert drawn(figure).width > 300
