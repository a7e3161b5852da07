from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch
from matplotlib.text import Text
from torch import Tensor

from coordinates import ByColour, BySurface, Fixed, config
from equimark import plots
from equimark.embedding import ModelError
from equimark.figures import DRAWINGS, Curve, Exhibit, curve_of, marks
from equimark.figures.dense import reference_grid, share_out
from equimark.figures.exhibits import choose
from equimark.geometry import Cells
from equimark.head import Head
from equimark.model import LandmarkModel
from equimark.regression import LinearRegressor
from equimark.results import Results
from equimark.warps import turned

SIDE, MARGIN = 40, 6
VIEW = SIDE - 2 * MARGIN
PLACES = np.array([[15.0, 16], [25, 15], [20, 21], [16, 25]]) / (SIDE - 1)
SETTINGS = {"frame.size": SIDE, "pairs.margin": MARGIN, "pairs.second.translation": 0.02}


def shifted(*shifts: tuple[float, float]) -> Tensor:
    """Frames of a surface coloured by its coordinates, moved by so many pixels; blue is the number of the frame."""
    grid = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).astype(float)
    frames = np.zeros((len(shifts), 3, SIDE, SIDE), np.uint8)
    for i, shift in enumerate(shifts):
        frames[i, :2] = np.rint(255 * ((grid - shift) / (SIDE - 1)).clip(0, 1)).transpose(2, 0, 1)
        frames[i, 2] = i
    return torch.from_numpy(frames)


STEPS = tuple((float(i % 3), float(-(i % 4))) for i in range(9))


def places(shifts: tuple[tuple[float, float], ...] = STEPS) -> np.ndarray:
    """Where the surface's places (N, 4, 2) lie in the frames, in their pixels."""
    return PLACES * (SIDE - 1) + np.array(shifts)[:, None]


def sparse(found: np.ndarray = PLACES) -> LandmarkModel:
    return LandmarkModel(BySurface(found), config(method="sparse", **SETTINGS))


def dense(cells: Cells = Cells(1, 0.0)) -> LandmarkModel:  # noqa: B008 - frozen
    return LandmarkModel(ByColour(cells), config(**SETTINGS))


def found_by(model: LandmarkModel, **more: Any) -> Exhibit:
    return Exhibit(model, shifted(*STEPS), places(), **more)


def off_by(errors: dict[int, float], truth: np.ndarray) -> Any:
    """A head that is wrong by so many pixels in x; frames are known by their blue."""

    def predict(frames: Tensor) -> np.ndarray:
        rows = frames[:, 2, 0, 0].tolist()
        return np.stack([truth[row] + [errors.get(row, 1.0), 0] for row in rows])

    return SimpleNamespace(predict_frames=predict)


def marks_of(ax: Axes) -> np.ndarray:
    """All marks on a tile, in the order in which they were drawn: up to eight landmarks in theirs."""
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def marks_of_any(axes: list[Axes]) -> list[Any]:
    return [collection for ax in axes for collection in ax.collections]


def number_of(ax: Axes) -> int:
    """Which frame a tile shows."""
    return int(np.asarray(ax.images[0].get_array())[VIEW // 2, VIEW // 2, 2])


def colours_below(ax: Axes) -> np.ndarray:
    """The colours of a tile's image at its marks."""
    x, y = marks_of(ax).round().astype(int).T
    return np.asarray(ax.images[0].get_array())[y, x, :2]


def notes(axes: list[Axes]) -> list[str]:
    return [ax.get_title() for ax in axes]


def is_framed(ax: Axes) -> bool:
    return bool(ax.spines["left"].get_visible())


def check_texts(figure: Figure) -> None:
    """No text is cut off."""
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.y0 >= -1, text
            assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, text


# ---- instances -----------------------------------------------------------------------------------------------


def test_landmarks_are_drawn_where_their_places_are_on_turned_warped_and_other_images():
    rows = [[0, 30, "warped", "warped"], ["other", "other"]]
    figure = DRAWINGS["instances"]({"four": found_by(sparse())}, rows=rows, seed=None)
    assert len(figure.axes) == 6
    for ax in figure.axes:
        assert np.allclose(colours_below(ax), 255 * PLACES, atol=6)
    assert [number_of(ax) for ax in figure.axes] == [0, 0, 0, 0, 1, 2]
    assert notes(figure.axes) == ["original", "+30°", "warped", "warped", "", ""]
    first, second = (figure.axes[i].images[0].get_array() for i in (2, 3))
    assert not np.array_equal(first, second)
    assert np.allclose(marks_of(figure.axes[4]), places()[1] - MARGIN, atol=0.1)
    check_texts(figure)


def test_a_number_turns_the_image_counter_clockwise():
    exhibit = Exhibit(sparse(), shifted((0, 0)))
    figure = DRAWINGS["instances"]({"four": exhibit}, rows=[[0, 90]])
    middle = (VIEW - 1) / 2
    x, y = (marks_of(figure.axes[0]) - middle).T
    assert np.allclose(marks_of(figure.axes[1]) - middle, np.stack([y, -x], -1), atol=0.2)  # up goes to the left
    assert np.allclose(turned([0.0]).linear, torch.eye(2))


def test_landmarks_differ_in_colour_and_in_shape_and_have_the_same_in_every_picture():
    figure = DRAWINGS["instances"]({"four": found_by(sparse())}, rows=[[0, "other"]])
    for ax in figure.axes:
        drawn = ax.collections
        assert [to_hex(c.get_facecolors()[0]) for c in drawn] == list(marks.NAMED[:4])
        assert len({c.get_paths()[0].vertices.tobytes() for c in drawn}) == 4
    looks = [(tuple(colour), k % len(marks.MARKERS)) for k, colour in enumerate(marks.colours_of(56))]
    assert len(set(looks)) == 56


def test_several_runs_have_names_and_notes_are_not_repeated():
    runs = {"three": found_by(sparse(PLACES[:3])), "four": found_by(sparse())}
    figure = DRAWINGS["instances"](runs, rows=[[0, 20], ["other", "other"], [0, -20]], seed=None)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["three", "four"]
    assert [len(ax.collections) for ax in figure.axes] == 6 * [3] + 6 * [4]
    texts = ["original", "+20°", "", "", "original", "−20°", "", "+20°", "", "", "original", "−20°"]
    assert notes(figure.axes) == texts
    alone = DRAWINGS["instances"]({"four": runs["four"]}, rows=[[0]])
    assert alone.axes[0].get_ylabel() == ""
    check_texts(figure)


def test_the_seed_decides_which_images_are_shown_and_all_come_before_one_comes_again():
    exhibit = {"four": found_by(sparse())}
    shown = [
        [number_of(ax) for ax in DRAWINGS["instances"](exhibit, rows=[["other"] * 9, ["other"]], seed=seed).axes]
        for seed in (1, 1, 2)
    ]
    assert shown[0] == shown[1] != shown[2]
    assert sorted(shown[0][:9]) == list(range(9)) and shown[0][9] == shown[0][0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"rows": [["shaken"]]}, "'warped' or 'other'"), ({"rows": []}, "at least one"), ({"preset": "dogs"}, "faces")],
)
def test_what_instances_cannot_show(settings, words):
    with pytest.raises(ModelError, match=words):
        DRAWINGS["instances"]({"four": found_by(sparse())}, **settings)


def test_a_warp_that_does_nothing_in_training_is_replaced_to_be_shown():
    still = {f"pairs.second.{name}": 0 for name in ("bend", "extra_bend", "rotation", "translation", "scale")}
    model = LandmarkModel(BySurface(PLACES), config(method="sparse", **(SETTINGS | still)))
    original, warped = DRAWINGS["instances"]({"four": found_by(model)}, rows=[[0, "warped"]]).axes
    assert not np.array_equal(original.images[0].get_array(), warped.images[0].get_array())


# ---- regression ----------------------------------------------------------------------------------------------


def test_regression_shows_landmarks_prediction_and_truth_and_the_worst_image_last():
    exhibit = found_by(sparse(), head=off_by({4: 6.0, 7: 2.5}, places()))
    figure = DRAWINGS["regression"]({"four": exhibit}, examples=2, columns=3, seed=0)
    left, right = figure.axes[::2], figure.axes[1::2]
    rows = [number_of(ax) for ax in left]
    assert len(rows) == len(set(rows)) == 3 and rows[-1] == 4 and rows == [number_of(ax) for ax in right]
    for row, found, predicted in zip(rows, left, right, strict=True):
        assert np.allclose(marks_of(found), places()[row] - MARGIN, atol=0.1)
        green, blue = predicted.collections
        error = {4: 6.0, 7: 2.5}.get(row, 1.0)
        assert np.allclose(green.get_offsets(), places()[row] + [error, 0] - MARGIN)
        assert np.allclose(blue.get_offsets(), places()[row] - MARGIN)
        assert to_hex(green.get_facecolors()[0]) == marks.PREDICTED and to_hex(blue.get_facecolors()[0]) == marks.TRUE
        assert green.get_sizes()[0] > blue.get_sizes()[0]
        assert predicted.get_title() == f"{error:.1f} px"
    assert [is_framed(ax) for ax in figure.axes] == 4 * [False] + 2 * [True]
    assert notes(left) == ["", "", "failure case"]
    check_texts(figure)


def test_errors_of_the_regression_are_in_percent_of_the_distance_between_the_eyes():
    truth = places(((0, 0), (0, 0)))
    truth[:, 1] = truth[:, 0] + [10, 0]
    truth[1, 3] = np.nan
    exhibit = Exhibit(sparse(), shifted((0, 0), (0, 0)), truth, off_by({0: 2.0, 1: 3.0}, np.nan_to_num(truth)))
    figure = DRAWINGS["regression"]({"four": exhibit}, eyes=(0, 1))
    assert notes(figure.axes) == ["", "20.0 %", "failure case", "30.0 %"]
    hidden = figure.axes[3]
    assert len(hidden.lines) == 6 and len(hidden.collections[0].get_offsets()) == 4  # two lines a visible landmark


def test_regressions_of_several_runs_stand_below_each_other():
    runs = {name: found_by(sparse(), head=off_by({}, places())) for name in ("a", "b")}
    figure = DRAWINGS["regression"](runs, examples=3, columns=2)
    assert len(figure.axes) == 16
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["a", "b"]
    assert len({round(ax.get_position().y0, 6) for ax in figure.axes}) == 4


def test_a_figure_says_what_it_lacks():
    bare = Exhibit(sparse(), shifted((0, 0), (1, 0)))
    for kind, exhibit, words in [
        ("regression", bare, "annotated landmarks"),
        ("regression", found_by(sparse()), "landmarks fitted on the run"),
        ("contributions", found_by(sparse()), "landmarks fitted on the run"),
        ("instances", found_by(dense()), "a dense run has none"),
        ("mosaic", found_by(sparse()), "a sparse run has none"),
        ("mosaic", Exhibit(dense(), shifted((0, 0))), "1 images"),
        ("species", Exhibit(dense(), shifted((0, 0), (1, 0))), "annotated landmarks"),
    ]:
        with pytest.raises(ModelError, match=words):
            DRAWINGS[kind]({"run": exhibit})
    with pytest.raises(ModelError, match="one run, got 2: a, b"):
        DRAWINGS["contributions"]({"a": bare, "b": bare})
    with pytest.raises(ModelError, match="a 2, b 9"):
        DRAWINGS["lighting"]({"a": bare, "b": found_by(sparse())})


# ---- contributions -------------------------------------------------------------------------------------------


def test_contributions_lead_from_landmarks_to_annotated_ones_on_the_most_typical_image():
    shifts = ((0.0, 0.0), (4.0, 0.0), (1.0, 0.0))
    truth = places(shifts)[:, 2:] + [3, 1]
    weights = torch.zeros(4, 8)
    weights[0, 0] = weights[1, 1] = 0.3  # the first annotated one: 3 parts of landmark 0, 7 of landmark 1
    weights[0, 2] = weights[1, 3] = 0.7
    weights[2, 4] = weights[3, 5] = 1  # the second one: landmark 2 alone
    head = Head(sparse(), LinearRegressor(weights), None)
    figure = DRAWINGS["contributions"]({"four": Exhibit(sparse(), shifted(*shifts), truth, head)})
    ax, colours = figure.axes[0], plots.palette(4)
    centres = {tuple(np.round(patch.center, 3)) for patch in ax.patches if isinstance(patch, Circle)}
    assert centres == {tuple(np.round(point - MARGIN, 3)) for point in truth[2]}  # (1, 0) is nearest to the mean
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert {tuple(arrow.get_facecolor()[:3]) for arrow in arrows} == {tuple(c) for c in colours[:3]}
    assert np.allclose(ax.collections[-1].get_offsets(), places(shifts)[2] - MARGIN, atol=0.1)


# ---- lighting ------------------------------------------------------------------------------------------------


def test_lighting_has_a_block_for_each_subject_and_says_by_how_much_landmarks_move():
    shifts = ((0.0, 0.0), (4.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    labels = ("s1", "s1", "s2", "s2", "s3")
    follows, still = sparse(), LandmarkModel(Fixed([(4, 5), (7, 8)]), config(method="sparse", **SETTINGS))
    runs = {name: Exhibit(model, shifted(*shifts), labels=labels) for name, model in (("a", follows), ("b", still))}
    figure = DRAWINGS["lighting"](runs, seed=None)
    assert len(figure.axes) == 8  # two subjects, two lights, two runs
    assert [number_of(ax) for ax in figure.axes] == [0, 0, 2, 2, 1, 1, 3, 3]
    assert notes(figure.axes[:4]) == ["a", "b", "a", "b"]
    below = [ax.get_xlabel() for ax in figure.axes]
    assert below == ["", "", "", "", "moves 2.0 px", "moves 0.0 px", "moves 0.0 px", "moves 0.0 px"]
    assert np.allclose(marks_of(figure.axes[4]) - marks_of(figure.axes[0]), [4, 0], atol=0.1)
    assert np.allclose(marks_of(figure.axes[1]), [[8.5, 10.5], [14.5, 16.5]])
    check_texts(figure)


def test_lighting_without_labels_is_one_subject():
    figure = DRAWINGS["lighting"]({"a": Exhibit(sparse(), shifted(*STEPS))}, lights=4)
    assert len(figure.axes) == 4


# ---- mosaic --------------------------------------------------------------------------------------------------


def test_reference_points_are_a_grid_in_a_circle():
    points = reference_grid(11, 2.5, 1.0)
    assert len(points) == 13 and np.allclose(points.mean(0), 5)  # of 5 x 5, without corners and their neighbours
    assert {tuple(p) for p in points} >= {(0.0, 5.0), (10.0, 5.0), (5.0, 0.0), (7.5, 2.5)}
    assert reference_grid(11, 2.5, 0).tolist() == [[5.0, 5.0]]
    with pytest.raises(ModelError, match="got 0 and"):
        reference_grid(11, 0, 1)


def test_points_are_shared_out_among_images_the_surest_first():
    cosines = np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.65]])
    assert share_out(cosines).tolist() == [0, 0, 1]  # each image at most twice
    assert share_out(np.array([[0.1, 0.2], [0.3, 0.9], [0.2, 0.8]])).tolist() == [2, 1]
    assert share_out(np.full((1, 4), -1.0)).tolist() == [0, 0, 0, 0]


def test_mosaic_shows_the_points_found_and_is_made_of_what_lies_there():
    figure = DRAWINGS["mosaic"]({"run": found_by(dense())}, spacing=4.0, reach=0.5, seed=None)
    points = reference_grid(VIEW, 4.0, 0.5)
    *small, middle, right = sorted(figure.axes, key=lambda ax: ax.get_position().width > 0.2)
    assert [number_of(ax) for ax in small] == [1, 2, 3, 4, 5, 6, 7, 8]
    for ax in small:
        assert np.allclose(marks_of(ax), points + STEPS[number_of(ax)], atol=0.5)
        assert np.array_equal(ax.collections[0].get_facecolors(), middle.collections[0].get_facecolors())
    assert np.allclose(marks_of(middle), points) and number_of(middle) == 0
    assert len({tuple(c) for c in middle.collections[0].get_facecolors()}) == len(points)
    reference = np.asarray(middle.images[0].get_array())
    donors = set()
    for patch, (x, y) in zip(right.images, points, strict=True):
        assert patch.get_extent() == [x - 2, x + 2, y + 2, y - 2]
        pixels = np.asarray(patch.get_array()).astype(float)
        donors |= set(np.unique(pixels[..., 2]).tolist())
        assert np.allclose(pixels[..., :2].mean((0, 1)), reference[round(y), round(x), :2], atol=6)
        assert pixels[0, -1, 0] > pixels[0, 0, 0] and pixels[-1, 0, 1] > pixels[0, 0, 1]  # neither turned nor mirrored
    assert 0 not in donors and len(donors) > 4
    assert right.get_xlim() == middle.get_xlim() and right.get_ylim() == middle.get_ylim()
    assert f"{len(donors)} images" in right.get_title()
    check_texts(figure)


def test_cells_of_any_stride_are_found_where_they_are():
    exhibit = found_by(dense(Cells(2, 0.5)))
    figure = DRAWINGS["mosaic"]({"run": exhibit}, spacing=6.0, reach=0.5, reference=3, seed=None)
    ax = figure.axes[0]
    assert number_of(ax) == 0
    moved = np.array(STEPS[0]) - STEPS[3]
    assert np.allclose(marks_of(ax), reference_grid(VIEW, 6.0, 0.5) + moved, atol=0.8)


# ---- without and with exchange -------------------------------------------------------------------------------


class Blind(ByColour):
    """The same descriptor everywhere, so that the first cell is taken for every match."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros_like(super().forward(images))


def blind() -> LandmarkModel:
    return LandmarkModel(Blind(), config(**SETTINGS))


def test_the_same_points_are_matched_by_each_run_in_its_row():
    runs = {"without": found_by(blind()), "with": found_by(dense())}
    figure = DRAWINGS["with_and_without"](runs, examples=3, spacing=6.0, reach=0.6, seed=None)
    assert len(figure.axes) == 8 and [number_of(ax) for ax in figure.axes] == [0, 1, 2, 3] * 2
    points = reference_grid(VIEW, 6.0, 0.6)
    assert np.allclose(marks_of(figure.axes[0]), points) and np.allclose(marks_of(figure.axes[4]), points)
    assert marks_of(figure.axes[1]).max() < 3
    for ax in figure.axes[5:]:
        assert np.allclose(marks_of(ax), points + STEPS[number_of(ax)], atol=0.5)
    assert [ax.get_ylabel() for ax in figure.axes[::4]] == ["without", "with"]
    assert figure.axes[0].get_title() == "reference"
    check_texts(figure)


def test_annotated_points_are_joined_to_where_they_belong_and_descriptors_shown_as_colours():
    truth = places()
    truth[2] += [3, 4]
    truth[0, 3] = np.nan
    run = Exhibit(dense(), shifted(*STEPS), truth)
    figure = DRAWINGS["with_and_without"]({"run": run}, examples=2, points="annotated", maps=True, seed=None)
    assert len(figure.axes) == 6
    assert [float(ax.get_title().removesuffix(" px")) for ax in figure.axes[1:3]] == pytest.approx([0, 5], abs=0.3)
    assert len(marks_of(figure.axes[2])) == 3
    ends = [line.get_xydata()[1] for line in figure.axes[2].lines[::2]]
    assert np.allclose(ends, truth[2, :3] - MARGIN)
    maps = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[3:]]
    assert [each.shape for each in maps] == 3 * [(VIEW, VIEW, 3)] and not marks_of_any(figure.axes[3:])
    (x, y), (u, v) = (truth[row, 0].astype(int) - MARGIN for row in (0, 1))
    assert np.allclose(maps[0][y, x], maps[1][v, u], atol=0.05)  # equal descriptors, equal colours
    with pytest.raises(ModelError, match="grid, annotated"):
        DRAWINGS["with_and_without"]({"run": run}, points="all")
    check_texts(figure)


# ---- other kinds ---------------------------------------------------------------------------------------------


def test_points_of_the_first_image_are_found_on_other_kinds():
    truth = np.full((9, 4, 2), np.nan)
    truth[0] = places()[0]
    truth[0, 1] = [2, 20]  # in the margin: out of view
    first = Exhibit(dense(), shifted(*STEPS), truth, labels=("person", *8 * ["cat"]))
    second = Exhibit(dense(), shifted(*STEPS[:3]), places()[:3], labels=("cat", "bear", "wolf"))
    figure = DRAWINGS["species"]({"from a person": first, "from a cat": second}, columns=5)
    assert len(figure.axes) == 12
    assert notes(figure.axes) == ["person", *8 * ["cat"], "cat", "bear", "wolf"]
    assert [is_framed(ax) for ax in figure.axes] == [i in (0, 9) for i in range(12)]
    for row, ax in enumerate(figure.axes[:9]):
        assert np.allclose(marks_of(ax), np.delete(places()[row], 1, 0) - MARGIN, atol=0.3)
    colours = [to_hex(c.get_facecolors()[0]) for c in figure.axes[3].collections]
    assert colours == [marks.NAMED[k] for k in (0, 2, 3)]  # a landmark that is not seen keeps its colour for itself
    assert np.allclose(marks_of(figure.axes[11]), places()[2] - MARGIN, atol=0.3)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["from a person", "from a cat"]
    check_texts(figure)


# ---- arm -----------------------------------------------------------------------------------------------------


def test_arm_has_a_column_for_each_run_with_its_error():
    truth = places()
    truth[4] += [6, 8]
    runs = {name: Exhibit(model, shifted(*STEPS), truth) for name, model in (("3-D", blind()), ("20-D", dense()))}
    figure = DRAWINGS["arm"](runs, pairs=[(1, 2), (3, 4)])
    assert len(figure.axes) == 6 and [number_of(ax) for ax in figure.axes] == [1, 2, 2, 3, 4, 4]
    assert np.allclose(marks_of(figure.axes[0]), places()[1] - MARGIN)
    assert np.allclose(marks_of(figure.axes[5]), places()[4] - MARGIN, atol=0.3)
    first, wrong, right = notes(figure.axes[:3])
    assert first == "first frame" and right.startswith("20-D: ")
    assert float(right.split()[1]) == pytest.approx(5, abs=0.3)  # 0 and 10 px
    assert float(wrong.split()[1]) > 10
    check_texts(figure)
    with pytest.raises(ModelError, match="rows from 0 to 8"):
        DRAWINGS["arm"](runs, pairs=[(0, 9)])


# ---- learning curve ------------------------------------------------------------------------------------------


def curves() -> list[Curve]:
    return [
        Curve("ours", {10: 5.0, 1: 9.0, 10122: 3.0}, {1: 2.0, 10: 0.5}),
        Curve("printed", {1: 8.0, 10122: 4.0}, printed=True, like="ours"),
        Curve("supervised", {1: 20.0, 5: 18.0}),
    ]


def test_learning_curve_draws_means_and_deviations_at_their_numbers_of_labels():
    (ax,) = DRAWINGS["learning_curve"](curves()).axes
    ours, printed, supervised = ax.containers
    x, y = ours.lines[0].get_data()
    assert np.allclose(np.log10(x), np.log10([1, 10, 10122]), atol=0.02) and list(y) == [9, 5, 3]
    bars = [segment[:, 1].tolist() for segment in ours.lines[2][0].get_segments()]
    assert bars == [[7, 11], [4.5, 5.5], [3, 3]]
    assert not printed.has_yerr and list(printed.lines[0].get_ydata()) == [8, 4]
    assert printed.lines[0].get_linestyle() == "--" and printed.lines[0].get_markerfacecolor() == "white"
    assert ours.lines[0].get_linestyle() == "-" and ours.lines[0].get_markerfacecolor() == marks.NAMED[0]
    colours = [container.lines[0].get_color() for container in (ours, printed, supervised)]
    assert colours == [marks.NAMED[0], marks.NAMED[0], marks.NAMED[1]]
    assert ax.get_xscale() == "log" and ax.get_ylim()[0] == 0
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "printed", "supervised"]


def test_ticks_are_the_numbers_of_labels_as_far_as_they_do_not_touch():
    figure = DRAWINGS["learning_curve"]([Curve("a", {1: 3.0, 5: 2.0, 6: 2.0, 10122: 1.0})])
    figure.draw_without_rendering()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "5", "10,122"]
    check_texts(figure)


def test_the_names_of_many_curves_stand_below_them():
    figure = DRAWINGS["learning_curve"]([Curve(f"method {k}", {1: 20.0 - k, 100: 5.0 + k}) for k in range(10)])
    figure.draw_without_rendering()
    (ax,) = figure.axes
    assert ax.get_legend().get_window_extent().y1 < ax.get_window_extent().y0


def test_curve_of_results():
    metrics = {
        "error_iod_percent": 3.0,
        "labels_5": {"error_iod_percent": 6.0, "error_iod_percent_std": 0.5},
        "labels_all": {"error_iod_percent": 3.0, "error_iod_percent_std": 0.0},
    }
    results = Results("landmarks", "run", "data", 9, metrics, 0, {"training_images": 700})
    assert curve_of("ours", results, like="b") == Curve("ours", {5: 6.0, 700: 3.0}, {5: 0.5, 700: 0.0}, like="b")
    with pytest.raises(ModelError, match="error_px"):
        curve_of("ours", results, metric="error_px")


def test_a_learning_curve_says_what_its_errors_are_in_percent_of():
    metrics = {"labels_5": {"error_iod_percent": 6.0}}
    eyes, body = (Results("landmarks", "run", "data", 9, metrics, 0, {"scale": scale}) for scale in ("iod", "0,3"))

    def title_of(*drawn: Curve, **settings: str) -> str:
        return DRAWINGS["learning_curve"](drawn, **settings).axes[0].get_title(loc="left")

    printed = Curve("printed", {1: 8.0}, printed=True)
    assert title_of(printed) == title_of(curve_of("a", eyes), printed) == "Error (% of the distance between the eyes)"
    assert title_of(curve_of("a", body)) == "Error (% of the distance between points 0 and 3)"
    assert title_of(curve_of("a", body), unit="% of the body") == "Error (% of the body)"
    with pytest.raises(ModelError, match="between the eyes and in % of the distance between points 0 and 3 cannot"):
        title_of(curve_of("a", eyes), curve_of("b", body))


def test_curves_that_cannot_be_drawn():
    with pytest.raises(ModelError, match="at least one"):
        DRAWINGS["learning_curve"]([])
    with pytest.raises(ModelError, match="look like b"):
        DRAWINGS["learning_curve"]([Curve("a", {1: 2.0}, like="b")])


# ---- all -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": shifted((0, 0))[..., :30, :30]}, "3, 40, 40"),
        ({"frames": shifted((0, 0)).float()}, "float32"),
        ({"points": places()[:2]}, "landmarks of 2"),
        ({"labels": ("a", "b")}, "labels of 2"),
    ],
)
def test_an_exhibit_whose_parts_do_not_fit(change, words):
    with pytest.raises(ModelError, match=words):
        Exhibit(**({"model": sparse(), "frames": shifted((0, 0))} | change))


def test_images_are_chosen_by_the_seed_or_in_their_order():
    assert choose(5, 3, None).tolist() == [0, 1, 2] and choose(2, 3, None).tolist() == [0, 1]
    assert sorted(choose(6, 6, 1).tolist()) == list(range(6))
    assert choose(6, 6, 1).tolist() == choose(6, 6, 1).tolist() != choose(6, 6, 2).tolist()


@pytest.mark.parametrize("kind", ["instances", "mosaic", "with_and_without"])
def test_the_same_arguments_draw_the_same_picture(kind, tmp_path: Path, coarse_figures: Callable[[], None]):
    for name in ("a.png", "b.png"):
        run = {"run": found_by(sparse() if kind == "instances" else dense())}
        DRAWINGS[kind](run, seed=5).savefig(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# What protanopes and deuteranopes see of linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1).
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]


def lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB of linear sRGB (N, 3)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    f = np.cbrt(linear.clip(0, 1) @ to_xyz.T / to_xyz.sum(1))
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], -1)


@pytest.mark.parametrize("seen", [np.eye(3), PROTAN, DEUTAN], ids=["all", "without red", "without green"])
def test_readers_of_any_colour_vision_tell_the_colours_apart(seen):
    colours = np.array([*map(to_rgb, marks.NAMED), (1, 1, 1), (0, 0, 0)])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    places = lab(linear @ np.array(seen).T)
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) + 999 * np.eye(len(places))
    assert gaps.min() > 15
    assert np.gcd(len(marks.NAMED), len(marks.MARKERS)) == 1


def test_every_kind_is_documented():
    page = (Path(__file__).parents[1] / "docs/figures.md").read_text(encoding="utf-8")
    assert [kind for kind in DRAWINGS if f"`{kind}`" not in page] == []
