import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from equimark import formats, prototypes
from equimark.checkpoint import CheckpointError
from equimark.head import Head, HeadSpec, fit_head
from equimark.landmarks import LandmarkError
from equimark.matching import Located
from equimark.model import LandmarkModel
from equimark.prototypes import PrototypeRegressor
from equimark.run import Run
from equimark.symmetry import (
    Swap,
    Symmetry,
    describe_swap,
    doubt_pairs_at_one_place,
    find_swaps,
    pairs_of_names,
    pairs_of_shapes,
)
from equimark.synthetic import Portraits, portraits

NAMES = ("left eye", "right eye", "nose", "left mouth", "right mouth")
SHAPES = np.array([[[10.0, 10], [30, 10], [20, 24], [14, 33], [26, 33]]])
FACE = Symmetry((1, 0, 2, 4, 3))
PAIRS = (("left eye", "right eye"), ("left mouth", "right mouth"))


# ---- declaring ------------------------------------------------------------------------------------------------


def test_pairs_by_name_and_by_number() -> None:
    assert Symmetry.of_pairs(PAIRS, NAMES) == FACE
    assert Symmetry.of_pairs([(0, 1), ("3", "right mouth")], NAMES) == FACE
    assert Symmetry.parse(" left eye=right eye, 4 = 3 ,", NAMES, SHAPES) == FACE
    assert FACE.pairs == ((0, 1), (3, 4))
    assert Symmetry.of_pairs([(2, 0)], "abc").partner == (2, 1, 0)
    assert Symmetry.of_pairs([("1", "2")], ("2", "1", "0")).partner == (1, 0, 2)  # a name goes before a number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("left eye=rigth eye", "no landmark 'rigth eye' .did you mean 'right eye'.*; there are 'left eye', .* 0 to 4"),
        ("0=5", "no landmark '5'"),
        ("0=-1", "no landmark '-1'"),
        ("nose=nose", "'nose' is paired with itself; leave out those on the midline"),
        ("0=1, 2=1", "landmark 'right eye' stands in two"),
        ("0=1, 1=0", "landmark 'right eye' stands in two"),
        ("left eye", "are written 'left eye=right eye, .*', got 'left eye'"),
        ("0=1=2", "are written"),
        ("", "are written"),
        (",", "are written"),
    ],
)
def test_pairs_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        Symmetry.parse(text, NAMES, SHAPES)


@pytest.mark.parametrize("pair", [("0",), ("0", "1", "2"), "01"])
def test_two_make_a_pair(pair: tuple[str, str]) -> None:
    with pytest.raises(LandmarkError, match="two landmarks make a symmetric pair"):
        Symmetry.of_pairs([pair], "01")


@pytest.mark.parametrize("partner", [(1, 2, 0), (0, 3), (-1, 0), (1, 1)])
def test_a_symmetry_is_its_own_inverse(partner: tuple[int, ...]) -> None:
    with pytest.raises(LandmarkError, match="which is not the partner of"):
        Symmetry(partner)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left eye", "right eye"),
        ("Left Eye", "Right Eye"),
        ("LEFT_EYE", "RIGHT_EYE"),
        ("leftear", "rightear"),
        ("earLeft", "earRight"),
        ("l_eye", "r_eye"),
        ("L-eye", "R-eye"),
        ("eye.L", "eye.R"),
        ("eyeL", "eyeR"),
        ("lEye", "rEye"),
        ("left corner of left eye", "right corner of right eye"),
    ],
)
def test_names_propose_pairs(left: str, right: str) -> None:
    assert pairs_of_names((right, "nose", left)) == ((right, left),)
    assert Symmetry.parse("auto", (left, "nose", right), SHAPES[:, :3]).partner == (2, 1, 0)


def test_names_that_propose_nothing() -> None:
    assert pairs_of_names(("left eye", "tail", "rail", "bright", "learn", "rearn", "0")) == ()


def turned(shape: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    return shape @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


@given(
    st.lists(st.tuples(st.floats(2, 30), st.floats(-30, 30)), min_size=2, max_size=12),
    st.lists(st.floats(-30, 30), max_size=4),
    st.floats(-180, 180),
    st.randoms(use_true_random=False),
)
def test_shapes_show_pairs(
    right: list[tuple[float, float]], middle: list[float], degrees: float, order: random.Random
) -> None:
    """A shape, its mirror image and points between them, in any order and direction: as told by trying every point."""
    half = np.array(right)
    shape = np.concatenate([half, half * [-1, 1], np.array([(0.0, y) for y in middle]).reshape(-1, 2)])
    apart = np.linalg.norm(shape[:, None] - shape, axis=-1) + 1e9 * np.eye(len(shape))
    assume(apart.min() > 3)
    places = order.sample(range(len(shape)), len(shape))
    mirrored = {tuple(np.round(point * [-1, 1], 6)): k for k, point in enumerate(shape[places])}
    wanted = Symmetry(tuple(mirrored[tuple(np.round(point, 6))] for point in shape[places])).pairs
    found = pairs_of_shapes(turned(shape[places], degrees)[None] + 50)
    assert found in (wanted, ())  # none if it can be laid onto itself in another way, too


def test_shapes_that_show_pairs_or_none(faces: Portraits) -> None:
    assert pairs_of_shapes(faces.landmarks5[:20]) == ((0, 1), (3, 4))
    assert pairs_of_shapes(SHAPES) == ((0, 1), (3, 4))
    assert pairs_of_shapes(SHAPES[:, [0, 2, 1]]) == ((0, 2),)
    askew = SHAPES + np.array([[0, 0], [0, 9], [9, 0], [0, 0], [0, 3]])
    assert pairs_of_shapes(askew) == ()
    square = np.array([[[0.0, 0], [9, 0], [9, 9], [0, 9]]])
    assert pairs_of_shapes(square) == ()  # in four ways
    line = np.array([[[0.0, 0], [4, 4], [9, 9]]])
    assert pairs_of_shapes(line) == ()  # each landmark is its own mirror image
    hidden = SHAPES.copy()
    hidden[:, 4] = np.nan
    assert pairs_of_shapes(hidden) == ()


def test_auto_takes_what_shapes_show_if_names_show_nothing() -> None:
    assert Symmetry.parse("auto", "01234", SHAPES) == FACE
    with pytest.raises(LandmarkError, match="and the labelled shapes are not clearly their own"):
        Symmetry.parse("auto", "01", SHAPES[:, :2])


# ---- mirroring ------------------------------------------------------------------------------------------------


def test_mirror_worked_by_hand() -> None:
    """In an image of 10 columns, column 0 becomes column 9."""
    points = np.array([[1.0, 2], [7, 3], [4.5, 5], [np.nan, np.nan], [9, 8]])
    mirrored = FACE.mirror(points, 10)
    np.testing.assert_array_equal(mirrored, [[2, 3], [8, 2], [4.5, 5], [0, 8], [np.nan, np.nan]])
    assert points[0, 0] == 1


@st.composite
def symmetries(draw: st.DrawFn) -> Symmetry:
    order = draw(st.permutations(range(draw(st.integers(1, 9)))))
    count = draw(st.integers(0, len(order) // 2))
    pairs = [(order[2 * i], order[2 * i + 1]) for i in range(count)]
    return Symmetry.of_pairs(pairs, [str(k) for k in range(len(order))])


@given(symmetries(), st.integers(1, 300), st.integers(0, 99))
def test_mirrored_twice_is_as_before(symmetry: Symmetry, width: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(-50, 350, (3, len(symmetry.partner), 2)) / 4
    np.testing.assert_array_equal(symmetry.mirror(symmetry.mirror(points, width), width), points)
    assert Symmetry.of_pairs(symmetry.pairs, [str(k) for k in range(len(symmetry.partner))]) == symmetry


# ---- labels that have a pair exchanged ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return portraits(30, seed=5, size=24).landmarks5.astype(np.float64)


def exchanged(points: np.ndarray, row: int, *pairs: tuple[int, int]) -> np.ndarray:
    changed = points.copy()
    for a, b in pairs:
        changed[row, [a, b]] = points[row, [b, a]]
    return changed


def test_right_labels_raise_no_alarm(labels: np.ndarray) -> None:
    assert find_swaps(labels, FACE) == []
    for first in range(0, 30, 3):
        assert find_swaps(labels[first : first + 3], FACE) == []


@pytest.mark.parametrize("count", [3, 5, 20])
def test_exchanged_pairs_are_noticed(labels: np.ndarray, count: int) -> None:
    for first in range(0, 30 - count + 1, count):
        some = labels[first : first + count]
        row = first % count
        assert find_swaps(exchanged(some, row, (0, 1)), FACE) == [Swap(row, ((0, 1),), False)]
        assert find_swaps(exchanged(some, row, (3, 4)), FACE) == [Swap(row, ((3, 4),), False)]
        assert find_swaps(exchanged(some, row, (0, 1), (3, 4)), FACE) == [Swap(row, ((0, 1), (3, 4)), True)]


@settings(max_examples=20)
@given(st.floats(0, 6.28), st.floats(0.2, 5), st.integers(0, 19))
def test_turned_and_scaled_images_are_no_exception(labels: np.ndarray, angle: float, scale: float, row: int) -> None:
    points = labels[:20].copy()
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points[row] = points[row] @ turn + [30, -7]
    assert find_swaps(points, FACE) == []
    assert find_swaps(exchanged(points, row, (0, 1)), FACE) == [Swap(row, ((0, 1),), False)]


def test_hidden_landmarks_say_nothing(labels: np.ndarray) -> None:
    some = exchanged(labels[:8], 2, (0, 1))
    some[2, 4] = some[3, 0] = some[5] = np.nan
    assert find_swaps(some, FACE) == [Swap(2, ((0, 1),), False)]
    some[:, 1] = np.nan
    assert find_swaps(some, FACE) == []


def test_two_labelled_images_cannot_say_which_is_odd(labels: np.ndarray) -> None:
    assert find_swaps(exchanged(labels[:2], 0, (0, 1)), FACE) == []
    assert find_swaps(labels, Symmetry((0, 1, 2, 3, 4))) == []


def test_what_is_said_of_exchanged_labels() -> None:
    said = describe_swap(Swap(0, ((0, 1),), False), "a.jpg", NAMES)
    assert said == "a.jpg: left eye and right eye seem to be exchanged, compared with the other labelled images"
    said = describe_swap(Swap(0, ((0, 1), (3, 4)), True), "a.jpg", NAMES)
    assert said == "a.jpg: left and right seem to be exchanged, compared with the other labelled images"


# ---- pairs found at one place -----------------------------------------------------------------------------------


def test_pairs_at_one_place_are_doubted_by_hand() -> None:
    """Eyes are usually 8 apart, so that the confidence falls from a distance of 2 on."""
    usual = torch.tensor([[0.0, 0], [8, 0], [4, 3], [2, 6], [6, 6]])
    found = usual.repeat(3, 1, 1)
    found[1, 1] = torch.tensor([0.0, 0.5])
    found[2, 3] = found[2, 4]
    sure = doubt_pairs_at_one_place(Located(found, torch.full((3, 5), 0.8)), usual, FACE).confidence
    wanted = torch.tensor([[0.8, 0.8, 0.8, 0.8, 0.8], [0.2, 0.2, 0.8, 0.8, 0.8], [0.8, 0.8, 0.8, 0, 0]])
    torch.testing.assert_close(sure, wanted)


# ---- learning from mirror images --------------------------------------------------------------------------------


def hills(shapes: torch.Tensor) -> torch.Tensor:
    """Descriptors (N, 3, 20, 20): a hill around each landmark and a little noise."""
    y, x = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    maps = 4 * (-(torch.stack([x, y], -1) - shapes[:, :, None, None]).square().sum(-1) / 8).exp()
    return maps + 0.05 * torch.randn(maps.shape, generator=torch.Generator().manual_seed(0))


FRONTAL = torch.tensor([[[6.0, 6], [13, 6], [9, 12]]])  # in the mirror: 6, 6 and 13, 6 and 10, 12
ASKEW = torch.tensor([[[14.0, 4], [14, 9], [4, 7]]])  # in the mirror: 5, 9 and 5, 4 and 15, 7
TRIANGLE = Symmetry((1, 0, 2))


def with_mirrored(shapes: torch.Tensor) -> torch.Tensor:
    return torch.cat([shapes, torch.from_numpy(TRIANGLE.mirror(shapes.numpy(), 20))])


@pytest.mark.parametrize(("shape", "helps"), [(FRONTAL, True), (ASKEW, False)])
def test_a_single_label_is_mirrored_if_it_looks_like_its_mirror_image(shape: torch.Tensor, helps: bool) -> None:
    both = with_mirrored(shape)
    regressor, used = PrototypeRegressor.fit_mirrored(hills(both), both)
    assert used is helps
    wanted = PrototypeRegressor._fit(hills(both), both, np.zeros(2, int))[0] if helps else None
    wanted = wanted or PrototypeRegressor.fit(hills(both)[:1], shape)
    torch.testing.assert_close(regressor.tensors(), wanted.tensors())


@pytest.mark.parametrize("misleading", [False, True])
def test_mirror_images_are_used_if_they_help(misleading: bool) -> None:
    """Noses are told by their place alone, which is learned better from twice as many, if these are right."""
    generator = torch.Generator().manual_seed(1)
    shapes = FRONTAL + 1.5 * torch.randn(4, 3, 2, generator=generator)
    both = with_mirrored(shapes)
    features = hills(both)
    features[:, 2] = 0
    if misleading:
        both[4:, 2, 1] -= 7
    assert PrototypeRegressor.fit_mirrored(features, both)[1] is not misleading


def test_an_image_and_its_mirror_image_stay_together() -> None:
    group = np.tile(np.arange(11), 2)
    parts = prototypes._split(group, 0)
    assert sorted(row for _, unseen in parts for row in unseen) == list(range(22))
    for seen, unseen in parts:
        assert set(group[seen]).isdisjoint(group[unseen])
        assert len(seen) + len(unseen) == 22


@pytest.fixture(scope="module")
def head(dve_model: LandmarkModel, faces: Portraits) -> Head:
    return dve_model.fit(list(faces.images[:4]), faces.landmarks5[:4], NAMES, symmetric=PAIRS)


def test_fit_shows_mirror_images_to_the_network(dve_model: LandmarkModel, faces: Portraits, head: Head) -> None:
    frames, placements = dve_model.frames_of(list(faces.images[:4]))
    points = np.stack([place.to_frame(p) for place, p in zip(placements, faces.landmarks5[:4], strict=True)])
    mirrored = points[:, [1, 0, 2, 4, 3]] * [-1, 1] + [39, 0]
    columns = dve_model.hypercolumns(torch.cat([frames, frames.flip(-1)])).half()
    cells = dve_model.network.cells.to_cells(torch.from_numpy(np.concatenate([points, mirrored])).float())
    wanted, used = PrototypeRegressor.fit_mirrored(columns, cells)
    assert head.mirrored is used
    torch.testing.assert_close(head.regressor.tensors(), wanted.tensors())


def test_a_head_keeps_its_symmetry(dve_model: LandmarkModel, faces: Portraits, head: Head, tmp_path: Path) -> None:
    head.save(tmp_path)
    again = Head.load(tmp_path, dve_model)
    assert again.symmetry == head.symmetry == FACE
    assert again.mirrored is head.mirrored
    np.testing.assert_array_equal(again.predict(list(faces.images[4:6])), head.predict(list(faces.images[4:6])))
    about = yaml.safe_load((tmp_path / "head.yaml").read_text())
    assert about["symmetric"] == [[0, 1], [3, 4]]
    del about["symmetric"], about["mirrored"]
    (tmp_path / "head.yaml").write_text(yaml.safe_dump(about))
    assert Head.load(tmp_path, dve_model).symmetry is None
    (tmp_path / "head.yaml").write_text(yaml.safe_dump(about | {"symmetric": [[0, 9]]}))
    with pytest.raises(CheckpointError, match="damaged: no landmark '9'"):
        Head.load(tmp_path, dve_model)


def test_a_sparse_run_learns_from_mirror_images(sparse_model: LandmarkModel, faces: Portraits) -> None:
    frames, placements = sparse_model.frames_of(list(faces.images[:3]))
    points = np.stack([place.to_frame(p) for place, p in zip(placements, faces.landmarks5[:3], strict=True)])
    head = fit_head(sparse_model, frames, points, spec=HeadSpec(FACE, pairs=6))
    both = np.concatenate([points, FACE.mirror(points, 40)])
    wanted = fit_head(sparse_model, torch.cat([frames, frames.flip(-1)]), both, spec=HeadSpec(pairs=6))
    assert head.mirrored
    assert not wanted.mirrored
    torch.testing.assert_close(head.regressor.tensors(), wanted.regressor.tensors())


def test_fit_command_names_exchanged_labels(
    dve_run: Run, photos: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    table = formats.read(photos / "landmarks.csv").select(range(5))
    points = exchanged(table.points, 3, (0, 1))
    formats.write(replace(table, points=points, names=NAMES), tmp_path / "labels.csv")
    fit = (
        "fit",
        dve_run.folder,
        "--landmarks",
        tmp_path / "labels.csv",
        "--images",
        photos,
        "--out",
        tmp_path / "head",
    )
    code, out, err = command(*fit, "--symmetric", "auto")
    assert code == 0
    assert "symmetric: left eye = right eye, left mouth = right mouth" in out
    assert "mirror images" in out
    assert f"{table.images[3]}: left eye and right eye seem to be exchanged" in err
    code, _, err = command(*fit, "--symmetric", "left eye=rigth eye")
    assert code == 1
    assert "did you mean 'right eye'" in err
