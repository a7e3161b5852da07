from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equimark.images import ImageError, open_images
from equimark.landmarks import LandmarkTable
from equimark.overlay import draw_dots, write_overlay
from equimark.plots import palette
from equimark.tracks import Tracks

pytest.importorskip("av", reason="videos are written with PyAV, which is not installed")


def frames_in(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    folder.mkdir()
    for i, (width, height) in enumerate(sizes):
        Image.new("RGB", (width, height), (120, 120, 120)).save(folder / f"{i}.png")
    return folder


def moving(count: int, seconds: list[float] | None = None, video: str = "v") -> Tracks:
    """The first of two points goes right by 10 pixels a frame; the second is not visible."""
    points = np.full((count, 2, 2), np.nan)
    points[:, 0] = np.stack([20 + 10.0 * np.arange(count), np.full(count, 30.0)], -1)
    table = LandmarkTable(tuple(f"{i}.png" for i in range(count)), points)
    times = np.full(count, np.nan) if seconds is None else np.array(seconds)
    return Tracks(table, (video,) * count, np.arange(count), times)


def test_dots_lie_on_their_points() -> None:
    picture = Image.new("RGB", (40, 30), (9, 9, 9))
    drawn = np.asarray(draw_dots(picture, np.array([(20.0, 10.0), (np.nan, np.nan)]), [(255, 0, 0), (0, 255, 0)]))
    assert drawn[10, 20].tolist() == drawn[10, 22].tolist() == [255, 0, 0]
    assert drawn[10, 23].tolist() == drawn[13, 20].tolist() == [255, 255, 255]
    assert drawn[10, 24].tolist() == [9, 9, 9]
    assert not (drawn == (0, 255, 0)).all(-1).any()
    assert np.asarray(picture).max() == 9  # the picture itself is not drawn on


def test_a_video_with_its_points(tmp_path: Path) -> None:
    folder = frames_in(tmp_path / "v", [(91, 61)] * 4)
    out = tmp_path / "new/out.mp4"
    write_overlay(moving(4, [0, 0.1, 0.4, 0.5]), folder, out, progress=False)
    source = open_images(out)
    np.testing.assert_allclose(source.videos["out.mp4"].seconds, [0, 0.1, 0.4, 0.5], atol=1e-3)
    for i in range(4):
        shown = source.decoded(i).pixels.astype(int)
        assert shown.shape == (62, 92, 3)
        assert np.abs(shown[30, 20 + 10 * i] - 255 * palette(1)[0]).max() < 60
        assert np.abs(shown[50, 20 + 10 * i] - 120).max() < 12
    assert [path.name for path in out.parent.iterdir()] == ["out.mp4"]


def test_where_the_time_is_not_known(tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    write_overlay(moving(3), frames_in(tmp_path / "v", [(64, 48)] * 3), out, progress=False)
    times = open_images(out).videos["out.mkv"].seconds
    np.testing.assert_allclose(times, [0, float(Fraction(1, 25)), 0.08], atol=1e-3)


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    folder, out = frames_in(tmp_path / "v", [(64, 48), (48, 64)]), tmp_path / "out.mov"
    with pytest.raises(ImageError, match=r"1\.png has another size \(\(48, 64\)\) than the frames before it"):
        write_overlay(moving(2), folder, out, progress=False)
    two = moving(2)
    two = Tracks(two.table, ("a", "b"), two.frames, two.seconds)
    with pytest.raises(ImageError, match=r"one video at a time, but .* holds 2"):
        write_overlay(two, folder, out, progress=False)
    assert not out.exists()
