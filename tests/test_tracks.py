import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import savgol_filter

from equimark.landmarks import LandmarkTable
from equimark.tracks import Tracks, follow, smooth, speeds
from pictures import photos

NAN = np.nan


def line(frames: Any) -> np.ndarray:
    """A point (T, 1, 2) that moves by (2, -1) pixels from frame to frame."""
    return np.stack([10 + 2.0 * np.asarray(frames), 50 - 1.0 * np.asarray(frames)], -1)[:, None]


def smoothed(points: np.ndarray, weights: Any = None, frames: Any = None, times: Any = None, reach: int = 2) -> Any:
    frames = np.arange(len(points)) if frames is None else np.array(frames)
    weights = np.ones(points.shape[:2]) if weights is None else np.array(weights, float)[:, None]
    return smooth(points, weights, frames, frames / 25 if times is None else np.array(times, float), reach)


# ---- smoothing


@pytest.mark.parametrize("reach", [2, 3, 50])
def test_straight_and_accelerated_motion_is_not_changed(reach: int) -> None:
    straight, bent = line(np.arange(12)), line(np.arange(12)) + 0.3 * np.arange(12)[:, None, None] ** 2
    np.testing.assert_allclose(smoothed(straight, reach=reach), straight, atol=1e-9)
    np.testing.assert_allclose(smoothed(bent, reach=reach), bent, atol=1e-8)


def test_motion_is_straight_in_time_not_in_frames() -> None:
    times = np.array([0, 1, 2, 5, 6, 7, 9, 10])
    np.testing.assert_allclose(smoothed(line(times), times=times), line(times), atol=1e-9)


def test_five_points_by_hand() -> None:
    # The weights of Savitzky and Golay for five points and second order: (-3, 12, 17, 12, -3) / 35.
    points = np.zeros((5, 1, 2))
    points[2] = (35, 70)
    np.testing.assert_allclose(smoothed(points)[2, 0], (17, 34), atol=1e-9)
    np.testing.assert_allclose(smoothed(np.roll(points, 1, 0))[2, 0], (12, 24), atol=1e-9)


def test_equals_the_filter_of_savitzky_and_golay() -> None:
    points = np.random.default_rng(0).normal(size=(30, 3, 2)) * 9 + 100
    wanted = savgol_filter(points, 9, 2, axis=0)
    found = smooth(points, np.full((30, 3), 0.4), np.arange(30), np.arange(30) / 25, 4)
    np.testing.assert_allclose(found[4:-4], wanted[4:-4], atol=1e-8)
    assert np.abs(np.diff(found, axis=0)).mean() < 0.6 * np.abs(np.diff(points, axis=0)).mean()


def test_an_outlier_without_confidence_has_no_effect_and_is_led_back() -> None:
    points = line(np.arange(9))
    points[4] = (500, 500)
    weights = [1, 0.5, 1, 1, 0, 0.2, 1, 1, 1]
    np.testing.assert_allclose(smoothed(points, weights), line(np.arange(9)), atol=1e-9)
    assert np.abs(smoothed(points) - line(np.arange(9)))[3].max() > 50  # with confidence it has


def test_blank_points_stay_blank_and_have_no_effect() -> None:
    points = line(np.arange(9))
    points[[0, 4, 5]] = NAN
    found = smoothed(points)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(points))
    np.testing.assert_allclose(found[[1, 2, 3, 6, 7, 8]], line([1, 2, 3, 6, 7, 8]), atol=1e-9)


def test_frames_that_are_missing_are_gaps() -> None:
    frames = [0, 1, 2, 3, 100, 101, 102, 103]
    points = line(frames)
    points[4:] += 1000  # another place, after a gap: not drawn towards the first
    np.testing.assert_allclose(smoothed(points, frames=frames), points, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_points_for_a_parabola_stay(count: int) -> None:
    points = line(np.arange(count))
    np.testing.assert_allclose(smoothed(points, [0.3] * count), points, atol=1e-9)
    np.testing.assert_allclose(smoothed(points, [0] * count), points)  # nothing leads them anywhere


def test_between_two_points_and_nothing_else_lies_their_middle() -> None:
    points = line(np.arange(3))
    points[1] = (0, 0)
    np.testing.assert_allclose(smoothed(points, [1, 0, 1])[1], line([1])[0], atol=1e-9)


def test_reach() -> None:
    with pytest.raises(ValueError, match="at least 2 frames on each side, got 1"):
        smoothed(line(np.arange(3)), reach=1)


@given(
    st.lists(
        st.tuples(st.floats(-500, 500), st.floats(-500, 500), st.booleans(), st.floats(0, 1)), min_size=1, max_size=15
    ),
    st.integers(2, 6),
    st.floats(-1e4, 1e4),
)
def test_a_shift_shifts_and_blanks_stay(rows: list[tuple[float, float, bool, float]], reach: int, far: float) -> None:
    points = np.array([[(x, y) if seen else (NAN, NAN)] for x, y, seen, _ in rows])
    weights = [round(weight, 2) for *_, weight in rows]
    found = smoothed(points, weights, reach=reach)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(points))
    np.testing.assert_allclose(smoothed(points + far, weights, reach=reach), found + far, rtol=1e-6, atol=1e-4)


# ---- speed


def test_speeds_by_hand() -> None:
    points = np.array([(0, 0), (3, 4), (6, 8), (6, 18), (NAN, NAN), (0, 0)])[:, None]
    seconds = np.array([0, 0.5, 1.0, 1.5, 2.0, 2.5])
    found = speeds(points, np.arange(6), seconds)[:, 0]
    # 5 px in 0.5 s at the beginning; 10 px in 1 s; (3, 14) in 1 s; 10 px in 0.5 s; blank; no neighbour
    np.testing.assert_allclose(found, [10, 10, np.hypot(3, 14), 20, NAN, NAN])


def test_speeds_across_missing_frames_are_not_known() -> None:
    points, frames = line([0, 1, 5, 9]), np.array([0, 1, 5, 9])
    found = speeds(points, frames, frames / 10)[:, 0]
    np.testing.assert_allclose(found, [10 * np.sqrt(5), 10 * np.sqrt(5), NAN, NAN])
    assert np.isnan(speeds(points, frames, np.full(4, NAN))).all()


# ---- sources


def table_of(names: tuple[str, ...]) -> LandmarkTable:
    points = np.concatenate([line(np.arange(len(names))), np.full((len(names), 1, 2), NAN)], 1)
    return LandmarkTable(names, points, names=("nose", "tail"), confidence=np.full((len(names), 2), 0.25))


def test_folders_of_frames_are_videos(tmp_path: Path) -> None:
    folder = photos(tmp_path / "mice", 6)
    table = table_of(("a/img0.png", "a/img4.png", "b/img1.png"))  # a/img2.png could not be read
    tracks = follow(table, folder, fps=50)
    assert tracks.videos == ("a", "a", "b")
    np.testing.assert_array_equal(tracks.frames, [0, 2, 0])
    np.testing.assert_allclose(tracks.seconds, [0, 0.04, 0])
    assert np.isnan(follow(table, folder).seconds).all()
    alone = follow(table_of(("img0.png", "img2.png")), folder / "a", fps=10)
    assert alone.videos == ("a", "a")


def test_each_video_is_smoothed_on_its_own() -> None:
    names = tuple(f"{video}/{i}.png" for i in range(4) for video in "ab")
    points = np.concatenate([line([i]) if video == "a" else 400 - line([i]) for i in range(4) for video in "ab"])
    frames = np.arange(8) // 2
    tracks = Tracks(LandmarkTable(names, points), tuple("ab" * 4), frames, frames / 10.0)
    np.testing.assert_allclose(tracks.smoothed(2).table.points, points, atol=1e-9)
    np.testing.assert_allclose(tracks.speeds(), 10 * np.sqrt(5))


def test_the_table_of_points_over_time(tmp_path: Path) -> None:
    tracks = Tracks(table_of(("v/0", "v/1")), ("v", "v"), np.array([0, 1]), np.array([0, 1 / 3]))
    tracks.write(tmp_path / "new/tracks.csv")
    with (tmp_path / "new/tracks.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    speed = f"{3 * np.sqrt(5):.4f}"
    assert rows == [
        ["video", "frame", "seconds", "landmark", "x", "y", "confidence", "speed"],
        ["v", "0", "0.000000", "nose", "10.0000", "50.0000", "0.2500", speed],
        ["v", "0", "0.000000", "tail", "", "", "0.2500", ""],
        ["v", "1", "0.333333", "nose", "12.0000", "49.0000", "0.2500", speed],
        ["v", "1", "0.333333", "tail", "", "", "0.2500", ""],
    ]
