from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from conftest import square
from equimark.checkpoint import CheckpointError
from equimark.config import RunConfig
from equimark.embedding import ModelError, batches, choose_device
from equimark.geometry import Cells, Frame
from equimark.head import Head, HeadSpec, fit_head
from equimark.model import LandmarkModel
from equimark.networks import Network
from equimark.pairs import PairSpec
from equimark.regression import LinearRegressor
from equimark.run import Run
from equimark.synthetic import Portraits
from equimark.training import fresh_network
from equimark.warps import IDENTITY, WarpSpec

NAMES = ("left eye", "right eye", "nose", "left mouth", "right mouth")


@pytest.fixture(scope="module")
def head(dve_model: LandmarkModel, faces: Portraits) -> Head:
    return dve_model.fit(list(faces.images[:8]), faces.landmarks5[:8], NAMES)


def enlarged(image: np.ndarray) -> np.ndarray:
    return image.repeat(3, 0).repeat(3, 1)


# ---- descriptors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(48, 48), (40, 40), (90, 31), (20, 200), (1, 1)])
def test_images_of_any_size_are_described(dve_model: LandmarkModel, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    described = dve_model.describe(image)
    assert described.shape == (16, 20, 20)
    assert described.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(described, axis=0), 10, rtol=1e-4)


def test_frames_in_other_units_are_refused(dve_model: LandmarkModel, faces: Portraits) -> None:
    frames, _ = dve_model.frames_of(faces.images[:1])
    with pytest.raises(ModelError, match=r"frames are uint8, from 0 to 255, got torch\.float32"):
        dve_model.features(frames.float() / 255)


def test_what_is_no_image_is_refused(dve_model: LandmarkModel) -> None:
    with pytest.raises(ModelError, match=r"must be an array \(H, W, 3\) uint8 RGB, got str: read a file with numpy"):
        dve_model.describe("photo.jpg")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"got \(8, 8\) float64"):
        dve_model.describe(np.zeros((8, 8)))  # type: ignore[arg-type]


def test_points_of_an_image_are_found_on_itself(dve_model: LandmarkModel, faces: Portraits) -> None:
    errors = []
    for image, points in zip(faces.images[:6], faces.landmarks5[:6], strict=True):
        found = dve_model.match(image, points, image)
        assert found.points.shape == (5, 2)
        assert ((found.confidence > 0) & (found.confidence <= 1)).all()
        errors.append(np.linalg.norm(found.points - points, axis=-1))
    assert np.mean(errors) < 1.5  # after fifty steps; an untrained network is many pixels off
    assert np.max(errors) < 2.5  # about the side of a cell, in pixels of these images


def test_answers_are_in_pixels_of_the_target(dve_model: LandmarkModel, faces: Portraits) -> None:
    source, target, points = faces.images[0], faces.images[1], faces.landmarks5[0]
    plain = dve_model.match(source, points, target)
    beside = dve_model.match(source, points, square(target, 11, 10))  # the centre square is the same picture
    np.testing.assert_allclose(beside.points, plain.points + [10.5, 0], atol=1.2)
    exactly = dve_model.match(source, points, square(target, 10, 10))
    # the antialiasing of the outermost pixels sees what lies beside the square
    np.testing.assert_allclose(exactly.points, plain.points + [10, 0], atol=0.2)
    np.testing.assert_allclose(exactly.confidence, plain.confidence, atol=0.05)


def test_points_are_in_pixels_of_the_source(dve_model: LandmarkModel, faces: Portraits) -> None:
    source, target, points = faces.images[0], faces.images[1], faces.landmarks5[0]
    plain = dve_model.match(source, points, target)
    beside = dve_model.match(square(source, 10, 10), points + [10, 0], target)
    np.testing.assert_allclose(beside.points, plain.points, atol=0.2)


def test_one_point_or_many(dve_model: LandmarkModel, faces: Portraits) -> None:
    image = faces.images[0]
    assert dve_model.match(image, [20, 20], image).points.shape == (1, 2)
    assert dve_model.match(image, [[20, 20], [30, 25]], image).points.shape == (2, 2)
    assert dve_model.describe_points(image, [[20, 20], [30, 25]]).shape == (2, 16)


def test_descriptors_of_several_sources(dve_model: LandmarkModel, faces: Portraits) -> None:
    both = torch.cat([dve_model.describe_points(faces.images[i], faces.landmarks5[i]) for i in (0, 1)])
    found = dve_model.match_descriptors(both, faces.images[2])
    alone = dve_model.match(faces.images[1], faces.landmarks5[1], faces.images[2])
    np.testing.assert_allclose(found.points[5:], alone.points, atol=1e-4)


@pytest.mark.parametrize("point", [(-1, 5), (48, 5), (5, 47.6), (np.nan, 5)])
def test_points_outside_the_image(dve_model: LandmarkModel, faces: Portraits, point: tuple[float, float]) -> None:
    with pytest.raises(ModelError, match=r"lies outside the part of the 48 x 48 image .*--frame letterbox"):
        dve_model.match(faces.images[0], [(20, 20), point], faces.images[1])


def test_points_beside_the_frame_are_inside_another_frame(dve_model: LandmarkModel, faces: Portraits) -> None:
    wide = square(faces.images[0], 30, 30)
    with pytest.raises(ModelError, match=r"point 10,20 lies outside .*x 30 to 78, y 0 to 48"):
        dve_model.match(wide, [(10, 20)], wide)
    whole = dve_model.with_frame("letterbox")
    assert whole.match(wide, [(10, 20)], wide).points.shape == (1, 2)
    assert dve_model.frame.fit == "centre"


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((48, 48, 3)),
        np.zeros((48, 48), np.uint8),
        np.zeros((48, 48, 4), np.uint8),
        np.zeros((3, 48, 48), np.uint8),
    ],
)
def test_images_are_uint8_rgb(dve_model: LandmarkModel, image: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"must be \(H, W, 3\) uint8 RGB"):
        dve_model.describe(image)


# ---- sparse -------------------------------------------------------------------------------------------------


def test_landmarks_of_a_sparse_run(sparse_model: LandmarkModel, faces: Portraits) -> None:
    found = sparse_model.detect(faces.images[0])
    assert found.points.shape == (4, 2)
    assert found.confidence.shape == (4,)
    assert found.names is None
    assert ((found.points >= -0.5) & (found.points <= 47.5)).all()


def test_landmarks_move_and_grow_with_the_image(sparse_model: LandmarkModel, faces: Portraits) -> None:
    for image in faces.images[:4]:
        plain = sparse_model.detect(image).points
        beside = sparse_model.detect(square(image, 10, 10)).points
        np.testing.assert_allclose(beside, plain + [10, 0], atol=0.2)
        larger = sparse_model.detect(enlarged(image)).points
        np.testing.assert_allclose(larger, (plain + 0.5) * 3 - 0.5, atol=1.5)


def test_what_a_sparse_run_cannot_do(sparse_model: LandmarkModel, faces: Portraits) -> None:
    image = faces.images[0]
    with pytest.raises(ModelError, match="a sparse run has no descriptors to match: train with --recipe dve"):
        sparse_model.match(image, [(20, 20)], image)


def test_landmarks_are_looked_for_where_training_looked(sparse_model: LandmarkModel, faces: Portraits) -> None:
    frames, _ = sparse_model.frames_of(list(faces.images[:3]))
    margin = sparse_model.config.pairs.margin
    beside = frames.clone()
    beside[..., : margin - 1, :] = 255 - beside[..., : margin - 1, :]
    found, other = sparse_model.landmarks_of(frames), sparse_model.landmarks_of(beside)
    assert torch.equal(found.positions, other.positions)
    pixels = sparse_model.network.cells.to_pixels(found.positions)
    assert ((pixels >= margin) & (pixels <= 39 - margin)).all()


def test_what_a_dense_run_cannot_do(dve_model: LandmarkModel, faces: Portraits) -> None:
    with pytest.raises(ModelError, match=r"a dve run has descriptors, not landmarks of its own: .*equimark fit"):
        dve_model.detect(faces.images[0])


# ---- heads --------------------------------------------------------------------------------------------------


def test_head_answers_in_pixels_of_each_image(head: Head, faces: Portraits) -> None:
    plain = head.predict(list(faces.images[8:11]))
    assert plain.shape == (3, 5, 2)
    mixed = [faces.images[8], square(faces.images[9], 10, 10), enlarged(faces.images[10])]
    found = head.predict(mixed)
    np.testing.assert_allclose(found[0], plain[0], atol=0.05)  # sums in another order, through the ridge
    np.testing.assert_allclose(found[1], plain[1] + [10, 0], atol=0.2)
    np.testing.assert_allclose(found[2], (plain[2] + 0.5) * 3 - 0.5, atol=3)


def test_head_is_near_its_own_labels(head: Head, faces: Portraits) -> None:
    errors = np.linalg.norm(head.predict(list(faces.images[:8])) - faces.landmarks5[:8], axis=-1)
    mean_shape = np.linalg.norm(faces.landmarks5[:8] - faces.landmarks5[:8].mean(0), axis=-1)
    assert errors.mean() < mean_shape.mean()


def test_head_from_frames_is_the_head_from_images(dve_model: LandmarkModel, head: Head, faces: Portraits) -> None:
    frames, places = dve_model.frames_of(list(faces.images[:8]))
    points = np.stack([place.to_frame(p) for place, p in zip(places, faces.landmarks5[:8], strict=True)])
    other = fit_head(dve_model, frames, points)
    found = other.predict_frames(frames)
    np.testing.assert_allclose((found + 0.5) * 48 / 40 - 0.5, head.predict(list(faces.images[:8])), atol=1e-3)


def test_hidden_labels(dve_model: LandmarkModel, faces: Portraits) -> None:
    labels = faces.landmarks5[:6].astype(float)
    labels[0, 2] = np.nan
    found = dve_model.fit(list(faces.images[:6]), labels).predict(list(faces.images[6:8]))
    assert np.isfinite(found).all()
    labels[:, 2] = np.nan
    with pytest.raises(ModelError, match="landmark 2 is visible in none of the 6 labelled images"):
        dve_model.fit(list(faces.images[:6]), labels)


@pytest.mark.parametrize(
    ("images", "points", "names", "says"),
    [
        (2, np.zeros((3, 5, 2)), None, r"2 images need points of shape \(2, K, 2\), got \(3, 5, 2\)"),
        (2, np.zeros((2, 5)), None, r"got \(2, 5\)"),
        (2, np.zeros((2, 5, 3)), None, r"got \(2, 5, 3\)"),
        (0, np.zeros((0, 5, 2)), None, "0 images need points"),
        (2, np.zeros((2, 5, 2)), ("nose",), "5 landmarks were given 1 names"),
    ],
)
def test_labels_that_do_not_fit(
    dve_model: LandmarkModel, faces: Portraits, images: int, points: np.ndarray, names: tuple[str] | None, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        dve_model.fit(list(faces.images[:images]), points, names)


def test_head_round_trip(head: Head, dve_run: Run, faces: Portraits, tmp_path: Path) -> None:
    head.save(tmp_path / "head")
    assert {p.name for p in (tmp_path / "head").iterdir()} == {"head.yaml", "head.safetensors"}
    again = Head.load(tmp_path / "head", LandmarkModel.load(dve_run.folder, device="cpu"))
    assert again.names == NAMES
    np.testing.assert_array_equal(again.predict(list(faces.images[8:])), head.predict(list(faces.images[8:])))


def test_head_keeps_the_frame_that_it_was_fitted_in(dve_model: LandmarkModel, faces: Portraits, tmp_path: Path) -> None:
    wide = [square(image, 20, 20) for image in faces.images[:4]]
    fitted = dve_model.with_frame("letterbox").fit(wide, faces.landmarks5[:4] + [20, 0])
    fitted.save(tmp_path)
    again = Head.load(tmp_path, dve_model)
    assert again.frame.fit == "letterbox"
    assert again.names is None
    np.testing.assert_array_equal(again.predict(wide), fitted.predict(wide))


def test_head_of_another_run(head: Head, dve_model: LandmarkModel, tmp_path: Path) -> None:
    head.save(tmp_path)
    other = LandmarkModel(fresh_network(replace(dve_model.config, seed=99)), dve_model.config)
    with pytest.raises(CheckpointError, match="was fitted on another run"):
        Head.load(tmp_path, other)


def test_no_head(dve_model: LandmarkModel, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no fitted head"):
        Head.load(tmp_path, dve_model)


def cut_weights(folder: Path) -> None:
    path = folder / "head.safetensors"
    path.write_bytes(path.read_bytes()[:-20])


def cut_yaml(folder: Path) -> None:
    (folder / "head.yaml").write_text("names: [")


def drop_a_key(folder: Path) -> None:
    about = yaml.safe_load((folder / "head.yaml").read_text())
    del about["weights"]
    (folder / "head.yaml").write_text(yaml.safe_dump(about))


def other_kind(folder: Path, kind: str = "linear") -> None:
    about = yaml.safe_load((folder / "head.yaml").read_text())
    (folder / "head.yaml").write_text(yaml.safe_dump(about | {"kind": kind}))


@pytest.mark.parametrize("damage", [cut_weights, cut_yaml, drop_a_key, other_kind])
def test_damaged_head(head: Head, dve_model: LandmarkModel, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    head.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=r"the head in .* is damaged"):
        Head.load(tmp_path, dve_model)


def test_head_of_a_kind_that_is_not_known(head: Head, dve_model: LandmarkModel, tmp_path: Path) -> None:
    head.save(tmp_path)
    other_kind(tmp_path, "cubic")
    with pytest.raises(CheckpointError, match=r"is damaged: its kind is 'cubic', known are prototypes, linear"):
        Head.load(tmp_path, dve_model)


# ---- heads on the landmarks of a sparse run -----------------------------------------------------------------


class Spots(Network):
    """Score maps that find a red, a green and a blue spot; cell i looks at pixel 2i."""

    cells = Cells(2, 0.0)

    def __init__(self) -> None:
        super().__init__(nn.Identity(), channels=3)

    def forward(self, images: Tensor) -> Tensor:
        return 60 * images[..., ::2, ::2]


def spotted(second: WarpSpec, *, margin: int = 12) -> LandmarkModel:
    pairs = PairSpec(margin, IDENTITY, second)
    return LandmarkModel(Spots(), RunConfig(method="sparse", frame=Frame(80), pairs=pairs))


def spots(count: int, *, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Frames (N, 3, 80, 80) with a soft spot in each colour, and where they are (N, 3, 2)."""
    centres = np.random.default_rng(seed).uniform(26, 53, (count, 3, 2))
    y, x = np.mgrid[:80, :80]
    squares = (x - centres[..., :1, None]) ** 2 + (y - centres[..., 1:, None]) ** 2
    return torch.from_numpy((255 * np.exp(-squares / 50)).round().astype(np.uint8)), centres


@pytest.fixture(scope="module")
def linear_head(sparse_model: LandmarkModel, faces: Portraits) -> Head:
    return sparse_model.fit(list(faces.images[:8]), faces.landmarks5[:8], NAMES, pairs=24)


def test_named_landmarks_are_linear_in_those_found_and_relative_to_the_centre_of_the_frame() -> None:
    model = spotted(IDENTITY)
    frames, places = spots(40)
    nearer = 39.5 + 0.5 * (places[:, :1] - 39.5)
    head = fit_head(model, frames, np.concatenate([nearer, places[:, 1:2]], 1))
    assert isinstance(head.regressor, LinearRegressor)
    wanted = torch.zeros(4, 6)
    wanted[:2, :2], wanted[2:, 2:4] = 0.5 * torch.eye(2), torch.eye(2)
    torch.testing.assert_close(head.regressor.weights, wanted, atol=0.05, rtol=0)
    unseen, truth = spots(10, seed=1)
    np.testing.assert_allclose(head.predict_frames(unseen)[:, 1], truth[:, 1], atol=0.5)
    np.testing.assert_allclose(head.predict_frames(unseen)[:, 0], 39.5 + 0.5 * (truth[:, 0] - 39.5), atol=0.5)


def test_one_labelled_image_under_warps_is_enough_where_points_move_together() -> None:
    """Warps teach that the midpoint of two landmarks is their mean; the image alone does not."""
    frames, places = spots(1)
    unseen, truth = spots(10, seed=1)
    errors = []
    for second in (WarpSpec(bend=0, extra_bend=0, rotation=20, translation=0.15, scale=0.1), IDENTITY):
        head = fit_head(spotted(second), frames, places[:, :2].mean(1, keepdims=True))
        errors.append(np.linalg.norm(head.predict_frames(unseen)[:, 0] - truth[:, :2].mean(1), axis=-1).mean())
    assert errors[0] < 0.5 * errors[1]


def test_labels_out_of_view_do_not_count() -> None:
    frames, places = spots(30)
    nearby = np.concatenate([places[:, :1], places[:, :1] + [18, 0]], 1)  # the second is often beyond x = 67
    model = spotted(IDENTITY)
    fitted = fit_head(model, frames, nearby).regressor
    nearby[nearby[..., 0] > 67] = np.nan
    assert 0 < np.isnan(nearby).any(-1).sum() < 30
    torch.testing.assert_close(fitted.tensors(), fit_head(model, frames, nearby).regressor.tensors())
    with pytest.raises(ModelError, match="landmark 0 is visible in none of the 800 warped images"):
        fit_head(model, frames[:1], np.array([[[5.0, 40.0]]]))


def test_every_frame_is_seen_equally_often() -> None:
    frames, places = spots(3)
    with pytest.raises(ModelError, match="none of the 24 warped images"):
        fit_head(spotted(IDENTITY), frames, np.full_like(places, np.nan), spec=HeadSpec(pairs=10))
    with pytest.raises(ModelError, match="none of the 6 warped images"):
        fit_head(spotted(IDENTITY), frames, np.full_like(places, np.nan), spec=HeadSpec(pairs=1))


def test_linear_head_answers_in_pixels_of_each_image(linear_head: Head, faces: Portraits) -> None:
    plain = linear_head.predict(list(faces.images[8:11]))
    assert plain.shape == (3, 5, 2) and np.isfinite(plain).all()
    mixed = [faces.images[8], square(faces.images[9], 10, 10), enlarged(faces.images[10])]
    found = linear_head.predict(mixed)
    np.testing.assert_allclose(found[0], plain[0], atol=0.01)
    np.testing.assert_allclose(found[1], plain[1] + [10, 0], atol=0.3)
    np.testing.assert_allclose(found[2], (plain[2] + 0.5) * 3 - 0.5, atol=3)
    frames, placements = linear_head.model.frames_of(mixed)
    points, confidence = linear_head.detect_framed(frames, placements)
    np.testing.assert_array_equal(points, found)
    assert confidence.shape == (3, 5) and ((confidence >= 0) & (confidence <= 1)).all()
    in_frame = [place.to_frame(p) for place, p in zip(placements, found, strict=True)]
    np.testing.assert_allclose(linear_head.predict_frames(frames), in_frame, atol=1e-4)


def test_the_seed_decides_the_warps(linear_head: Head, sparse_model: LandmarkModel, faces: Portraits) -> None:
    again, other = (
        sparse_model.fit(list(faces.images[:8]), faces.landmarks5[:8], seed=seed, pairs=24) for seed in (0, 1)
    )
    first = linear_head.regressor.tensors()["weights"]
    assert torch.equal(again.regressor.tensors()["weights"], first)
    assert not torch.allclose(other.regressor.tensors()["weights"], first, atol=1e-3)


def test_linear_head_round_trip(linear_head: Head, sparse_run: Run, faces: Portraits, tmp_path: Path) -> None:
    linear_head.save(tmp_path)
    about = yaml.safe_load((tmp_path / "head.yaml").read_text())
    assert (about["kind"], about["landmarks"], about["names"]) == ("linear", 5, list(NAMES))
    again = Head.load(tmp_path, LandmarkModel.load(sparse_run.folder, device="cpu"))
    assert again.names == NAMES
    np.testing.assert_array_equal(again.predict(list(faces.images[8:])), linear_head.predict(list(faces.images[8:])))


def test_hidden_labels_of_a_sparse_run(sparse_model: LandmarkModel, faces: Portraits) -> None:
    labels = faces.landmarks5[:6].astype(float)
    labels[0, 2] = np.nan
    found = sparse_model.fit(list(faces.images[:6]), labels, pairs=12).predict(list(faces.images[6:8]))
    assert np.isfinite(found).all()


# ---- small things -------------------------------------------------------------------------------------------


def test_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


def test_batches() -> None:
    assert [range(10)[part] for part in batches(10, 4)] == [range(4), range(4, 8), range(8, 10)]
    assert list(batches(0)) == []


# ---- landmarks beside descriptors -----------------------------------------------------------------------------


def test_a_run_with_both_matches_and_detects(joint_run: Run, faces: Portraits) -> None:
    model = joint_run.model
    assert model.describe(faces.images[0]).shape == (8, 20, 20)
    own = model.match(faces.images[0], [[24, 24]], faces.images[0])
    assert np.linalg.norm(own.points - 24) < 6
    frames, placements = model.frames_of(faces.images[:2])
    maps = model.scores_of(frames[..., 6:-6, 6:-6].float() / 255)
    assert maps.shape == (2, 3, 14, 14)
    shares = maps.flatten(2).softmax(-1).view_as(maps)
    across = (shares.sum(2) * torch.arange(14.0)).sum(-1)
    down = (shares.sum(3) * torch.arange(14.0)).sum(-1)
    in_frame = 2 * torch.stack([across, down], -1) + 0.5 + 6
    expected = [place.to_image(points) for place, points in zip(placements, in_frame.double().numpy(), strict=True)]
    for image, points in zip(faces.images[:2], expected, strict=True):
        np.testing.assert_allclose(model.detect(image).points, points, atol=1e-3)
    fitted = model.fit(list(faces.images[:3]), faces.landmarks5[:3])
    assert fitted.predict(faces.images[:1]).shape == (1, 5, 2)


def test_runs_without_landmarks_have_no_maps_of_them(dve_model: LandmarkModel) -> None:
    with pytest.raises(ModelError, match="this dve run has learned no landmarks of its own"):
        dve_model.scores_of(torch.zeros(1, 3, 28, 28))
