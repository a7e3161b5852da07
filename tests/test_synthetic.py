import csv

import numpy as np
import pytest
from PIL import Image

from equimark.synthetic import PARTS, arm, portraits, write

SKIN, HAIR, BROWS, EYES, NOSE, MOUTH = range(1, 7)
FACES = portraits(40, seed=11)
VIDEO = arm(40, seed=2)


def shown(parts, points):
    """The part (N, K) at the pixels nearest to points (N, K, 2)."""
    x, y = np.moveaxis(np.rint(points).astype(int), -1, 0)
    return parts[np.arange(len(parts))[:, None], y, x]


def bilinear(values, points):
    """Values (H, W, C) at points (..., 2) inside the array."""
    low = np.clip(np.floor(points).astype(int), 0, np.array(values.shape[1::-1]) - 2)
    (x, y), (u, v) = np.moveaxis(low, -1, 0), np.moveaxis(points - low, -1, 0)[..., None]
    top = values[y, x] * (1 - u) + values[y, x + 1] * u
    return top * (1 - v) + (values[y + 1, x] * (1 - u) + values[y + 1, x + 1] * u) * v


def spread(points, steps=(-1, 0, 1)):
    """Points (..., 2) -> (..., 9, 2): each with its neighbours."""
    return points[..., None, :] + np.array([(x, y) for y in steps for x in steps])


# Portraits


def test_portraits_have_the_promised_shapes_and_types():
    faces = portraits(3, size=64)
    assert faces.images.shape == (3, 64, 64, 3) and faces.images.dtype == np.uint8
    assert faces.landmarks.shape == (3, 68, 2) and faces.landmarks.dtype == np.float32
    assert faces.landmarks5.shape == (3, 5, 2)
    assert faces.parts.shape == (3, 64, 64) and faces.parts.dtype == np.uint8
    assert faces.identities.tolist() == [0, 1, 2] and faces.identities.dtype == np.int64
    assert set(np.unique(FACES.parts)) == set(range(len(PARTS)))
    assert portraits(0).images.shape == (0, 100, 100, 3)


@pytest.mark.parametrize("identities", [None, 2])
def test_an_image_depends_on_the_seed_and_its_place_only(identities):
    few, many = portraits(3, seed=4, identities=identities), portraits(5, seed=4, identities=identities)
    for name in ("images", "landmarks", "parts", "identities"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[:3])
    assert (portraits(3, seed=5, identities=identities).images != few.images).any(axis=(1, 2, 3)).all()


def test_no_identities_is_an_error():
    with pytest.raises(ValueError, match="identities is 0"):
        portraits(1, identities=0)


def test_landmarks_lie_in_the_frame_in_the_order_of_a_face():
    points = FACES.landmarks
    assert points.min() >= 0 and points.max() <= 99
    height = points[..., 1]
    eyes, mouth = height[:, 36:48].mean(1), height[:, 48:].mean(1)
    assert (height[:, 17:27].mean(1) < eyes).all()
    assert (eyes < height[:, 30]).all() and (height[:, 30] < mouth).all() and (mouth < height[:, 8]).all()
    x = points[..., 0]
    for row in ([0, 8, 16], [17, 21, 22, 26], [31, 33, 35], [36, 39, 42, 45], [48, 54], [60, 64]):
        assert (np.diff(x[:, row]) > 0).all(), row
    five = FACES.landmarks5
    np.testing.assert_allclose(five[:, 0], points[:, 36:42].mean(1))
    np.testing.assert_array_equal(five[:, 2:], points[:, [30, 48, 54]])
    assert (five[:, 0, 0] < five[:, 1, 0]).all()


def test_landmarks_lie_on_what_is_drawn():
    parts, points = FACES.parts, FACES.landmarks
    eyes = np.stack([points[:, 36:42].mean(1), points[:, 42:48].mean(1)], axis=1)
    assert (shown(parts, eyes) == EYES).all()
    assert (shown(parts, points[:, 48:].mean(1, keepdims=True)) == MOUTH).all()
    assert (shown(parts, points[:, 29:31]) == NOSE).all()
    brows = shown(parts, points[:, [18, 19, 20, 23, 24, 25]])
    assert np.isin(brows, [BROWS, HAIR]).all() and (brows == BROWS).mean() > 0.7
    for which, part in ((slice(36, 48), EYES), (slice(48, 60), MOUTH), (slice(31, 36), NOSE)):
        around = shown(parts, spread(points[:, which]).reshape(len(points), -1, 2)).reshape(len(points), -1, 9)
        assert ((around == part).any(-1) & (around != part).any(-1)).mean() > 0.97  # on the outline of the part


def test_the_jaw_is_where_the_head_ends():
    points = FACES.landmarks
    centre = points[:, 27:28]
    inner, outer = (centre + (points[:, 1:16] - centre) * factor for factor in (0.93, 1.07))
    assert np.isin(shown(FACES.parts, inner), [SKIN, HAIR, MOUTH]).all()
    bare = shown(FACES.parts, np.clip(outer[:, [3, 11]], 0, 99))  # beside the cheeks, over the neck
    assert (bare != NOSE).all() and (bare == SKIN).mean() < 0.5


def test_the_picture_scales_with_its_size():
    small, large = portraits(2, size=60), portraits(2, size=120)
    np.testing.assert_allclose((small.landmarks + 0.5) * 2, large.landmarks + 0.5, rtol=1e-5)
    assert (np.kron(small.parts, np.ones((1, 2, 2), np.uint8)) == large.parts).mean() > 0.95


def test_people_differ_and_one_person_does_not():
    images = FACES.images.astype(float)
    pairs = np.abs(images[:, None, 20:90, 25:75] - images[None, :, 20:90, 25:75]).mean(axis=(2, 3, 4))
    assert pairs[np.triu_indices(len(images), 1)].min() > 10
    same = portraits(12, seed=3, identities=2)
    assert same.identities.tolist() == [0, 1] * 6
    assert (np.abs(same.landmarks[0] - same.landmarks[2]).max() > 1) and (same.images[0] != same.images[2]).any()
    hair = (same.parts == HAIR).mean(axis=(1, 2))
    assert hair[0::2].std() + hair[1::2].std() < np.abs(hair[0::2].mean() - hair[1::2].mean())


# The arm


def test_an_arm_has_the_promised_shapes_and_types():
    assert VIDEO.images.shape == (40, 90, 90, 3) and VIDEO.images.dtype == np.uint8
    assert VIDEO.landmarks.shape == (40, len(VIDEO.names), 2) and VIDEO.landmarks.dtype == np.float32
    assert arm(0).images.shape == (0, 90, 90, 3)


def test_a_video_is_the_start_of_a_longer_one():
    short = arm(3, seed=2)
    np.testing.assert_array_equal(short.images, VIDEO.images[:3])
    np.testing.assert_array_equal(short.landmarks, VIDEO.landmarks[:3])
    assert (arm(1, seed=3).images != short.images[:1]).any()


def test_the_arm_moves_smoothly_within_the_frame():
    steps = np.linalg.norm(np.diff(VIDEO.landmarks, axis=0), axis=-1)
    assert 0.3 < steps.max() < 5
    assert VIDEO.landmarks.min() > 3 and VIDEO.landmarks.max() < 86


def test_flow_to_itself_is_the_identity():
    position, visible = VIDEO.flow(7, 7)
    assert position.dtype == np.float32 and visible.dtype == bool
    np.testing.assert_allclose(position, np.stack(np.meshgrid(np.arange(90), np.arange(90)), -1), atol=1e-4)
    assert visible.all()


@pytest.mark.parametrize(("source", "target"), [(0, 1), (0, 20), (35, 5)])
def test_warping_a_frame_back_gives_the_other_frame(source, target):
    position, visible = VIDEO.flow(source, target)
    grid = np.stack(np.meshgrid(np.arange(90.0), np.arange(90.0)), -1)
    units = 100 / 90  # the arm's poses are in hundredths of the frame
    around = [
        VIDEO._labels(frame, (spread(at).reshape(-1, 2) + 0.5) * units).reshape(90, 90, 9)
        for frame, at in ((source, grid), (target, position.astype(float)))
    ]
    same = [(labels == labels[..., 4:5]).all(-1) for labels in around]
    inside = visible & same[0] & same[1]
    moving = inside & (around[0][..., 4] >= 0)
    after, before = VIDEO.images[target].astype(float), VIDEO.images[source].astype(float)
    error = np.abs(bilinear(after, position) - before).max(-1)
    assert moving.sum() > 300 and error[inside & ~moving].max() < 1e-3
    assert error[moving].mean() < 4  # of 255: both frames are anti-aliased, and one is resampled
    for shift in ([0.4, 0], [-0.4, 0], [0, 0.4], [0, -0.4]):  # a wrong flow does worse
        assert np.abs(bilinear(after, position + shift) - before).max(-1)[moving].mean() > error[moving].mean() + 0.4


def test_the_displacement_is_that_of_the_arm_alone():
    moved = VIDEO.displacement(0, 20)
    position, visible = VIDEO.flow(0, 20)
    grid = np.stack(np.meshgrid(np.arange(90), np.arange(90)), -1)
    arm_pixels = VIDEO._labels(0, (grid.reshape(-1, 2) + 0.5) * 100 / 90).reshape(90, 90) >= 0
    known = np.isfinite(moved).all(-1)
    assert moved.dtype == np.float32 and 300 < known.sum() < 3000
    np.testing.assert_array_equal(known, visible & arm_pixels)
    np.testing.assert_allclose((grid + moved)[known], position[known], atol=1e-4)


def test_what_is_hidden_is_not_visible():
    position, visible = VIDEO.flow(0, 20)
    moved = np.abs(VIDEO.images[20].astype(float) - VIDEO.images[0]).max(-1) > 60
    grid = np.stack(np.meshgrid(np.arange(90), np.arange(90)), -1)
    wall = (np.abs(position - grid).max(-1) < 1e-4) & moved
    assert (~visible[wall]).mean() > 0.9


def test_landmarks_move_with_the_flow():
    checked = 0
    for source, target in ((0, 1), (3, 30), (39, 10)):
        position, _ = VIDEO.flow(source, target)
        points = VIDEO.landmarks[source].astype(float)
        near = (spread(np.floor(points), (0, 1)).reshape(-1, 2) + 0.5) * 100 / 90
        own = (VIDEO._labels(source, near).reshape(-1, 4) == np.arange(len(points))[:, None]).all(-1)
        np.testing.assert_allclose(bilinear(position, points)[own], VIDEO.landmarks[target][own], atol=1e-3)
        checked += own.sum()
    assert checked > 9


# Files


def test_written_pictures_are_read_back(tmp_path):
    faces = portraits(2, size=40)
    write(tmp_path / "set", faces.images, faces.landmarks5)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["000000.png", "000001.png", "landmarks.csv"]
    for i, image in enumerate(faces.images):
        with Image.open(tmp_path / "set" / f"{i:06d}.png") as file:
            np.testing.assert_array_equal(np.asarray(file), image)
    with (tmp_path / "set" / "landmarks.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", *(f"{axis}{k}" for k in range(5) for axis in "xy")]
    assert [row[0] for row in rows] == ["000000.png", "000001.png"]
    read = np.array([row[1:] for row in rows], np.float32).reshape(2, 5, 2)
    np.testing.assert_array_equal(read, faces.landmarks5)


def test_pictures_may_be_named(tmp_path):
    faces = portraits(1, size=40)
    write(tmp_path, faces.images, faces.landmarks, names=["anna"])
    assert (tmp_path / "anna.png").exists()
    with pytest.raises(ValueError, match="1 images, 1 rows of landmarks and 2 names"):
        write(tmp_path, faces.images, faces.landmarks, names=["anna", "ben"])
