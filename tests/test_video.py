import csv
import shutil
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av", reason="videos are read with PyAV, which is not installed")

from equimark.app.desk import Desk  # noqa: E402
from equimark.app.pictures import Pictures  # noqa: E402
from equimark.geometry import Frame  # noqa: E402
from equimark.images import (  # noqa: E402
    Framed,
    ImageError,
    Unreadable,
    decode,
    frame_image,
    open_images,
    read_framed,
    video,
)
from equimark.landmarks import match_names  # noqa: E402
from equimark.model import LandmarkModel  # noqa: E402
from equimark.packs import pack  # noqa: E402
from equimark.prediction import detect_all  # noqa: E402
from equimark.run import Run  # noqa: E402
from equimark.synthetic.arm import arm  # noqa: E402

COUNT = 20
NAMES = [f"clip.avi/{i:06d}" for i in range(COUNT)]
KINDS = {  # container, codec, pixels, how many frames apart decoding can start
    "avi": ("png", "rgb24", 1),  # each frame on its own
    "mkv": ("ffv1", "bgr0", 12),
    "mp4": ("libx264rgb", "rgb24", 5),  # frames are stored in another order than they are shown
}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return arm(COUNT, seed=1, speed=2.0).images


def film(path: Path, frames: np.ndarray, times: list[int] | None = None, **container: str) -> Path:
    """A video that keeps every pixel; ``times`` in hundredths of a second."""
    codec, pixels, apart = KINDS[path.suffix[1:]]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container) as out:
        options = {"qp": "0", "bf": "2", "g": str(apart)} if codec == "libx264rgb" else {}
        stream = out.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        for i, pixel in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixel, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 100)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clips(frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    return {kind: film(folder / f"clip.{kind}", frames) for kind in KINDS}


def turn(clip: Path, out: Path, matrix: tuple[int, ...]) -> Path:
    """The same video with a display matrix (a, b, c, d), in the header of its track as of ISO 14496-12."""
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # flags; times, number, duration; reserved, layer, group, volume
    a, b, c, d = (value * 65536 for value in matrix)
    numbers = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data[at : at + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    out.write_bytes(data)
    return out


def cut(clip: Path, out: Path, share: float) -> Path:
    data = clip.read_bytes()
    out.write_bytes(data[: int(len(data) * share)])
    return out


# ---- what is in a video


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_frames_in_order(clips: dict[str, Path], frames: np.ndarray, kind: str) -> None:
    source = open_images(clips[kind])
    assert source.names == [f"clip.{kind}/{i:06d}" for i in range(COUNT)]
    for i in range(COUNT):
        decoded = source.decoded(i)
        np.testing.assert_array_equal(decoded.pixels, frames[i])
        assert decoded.size == source.size(i) == (90, 90)
    clip = source.videos[f"clip.{kind}"]
    np.testing.assert_allclose(clip.seconds, np.arange(COUNT) / 25, atol=1e-9)
    assert source.file(3) == clips[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_any_order_gives_the_same_frames(clips: dict[str, Path], frames: np.ndarray, kind: str) -> None:
    source = open_images(clips[kind])
    for i in np.random.default_rng(0).permutation(np.arange(COUNT).repeat(2)):
        np.testing.assert_array_equal(source.decoded(int(i)).pixels, frames[i])


@pytest.mark.parametrize("kind", KINDS)
def test_read_framed_decodes_a_video_once(
    clips: dict[str, Path], frames: np.ndarray, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    decoding = video._decode

    def counting(clip: video.Video, start: int) -> Any:
        begun.append(start)
        return decoding(clip, start)

    monkeypatch.setattr(video, "_decode", counting)
    frame = Frame(40, "0.1,0,1,0.9")
    framed = list(read_framed(open_images(clips[kind]), frame, workers=4))
    assert begun == [0]
    assert [item.name for item in framed] == [f"clip.{kind}/{i:06d}" for i in range(COUNT)]
    for item, pixels in zip(framed, frames, strict=True):
        assert isinstance(item, Framed)
        np.testing.assert_array_equal(item.pixels, frame_image(pixels, frame)[0])


def test_a_leap_is_decoded_from_the_last_place_where_that_can_start(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_images(clips["mp4"])
    clip = source.videos["clip.mp4"]
    np.testing.assert_array_equal(clip.starts, [0, 5, 10, 15])
    begun: list[int] = []
    decoding = video._decode
    monkeypatch.setattr(video, "_decode", lambda clip, start: (begun.append(start), decoding(clip, start))[1])
    for index in (13, 14, 11, 3, 15):  # 11 was passed on the way to 13; 15 follows upon 14
        source.decoded(index)
    assert begun == [10, 0]


def test_read_from_many_threads(clips: dict[str, Path], frames: np.ndarray) -> None:
    source = open_images(clips["mkv"])
    wrong: list[int] = []

    def look(first: int) -> None:
        wrong.extend(i for i in range(first, COUNT, 4) if not np.array_equal(source.decoded(i).pixels, frames[i]))

    threads = [threading.Thread(target=look, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_times_are_those_of_the_file(frames: np.ndarray, tmp_path: Path) -> None:
    times = [20, 24, 28, 40, 44]  # two frames were dropped on the way, and the first came late
    source = open_images(film(tmp_path / "clip.mkv", frames[:5], times))
    np.testing.assert_allclose(source.videos["clip.mkv"].seconds, [0, 0.04, 0.08, 0.20, 0.24])
    np.testing.assert_array_equal(source.decoded(3).pixels, frames[3])


def test_without_time_stamps_frames_are_counted(clips: dict[str, Path], frames: np.ndarray) -> None:
    clip = video.Video(clips["mp4"], np.arange(COUNT) / 25, None, np.zeros(1, np.int64))
    reader = video.VideoReader()
    for i in (4, 17, 2):
        np.testing.assert_array_equal(reader.read(clip, i), frames[i])


# A matrix (a, b, c, d) takes (x, y) to (ax + cy, bx + dy): what it does to the picture, worked by hand.
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # x to the right becomes y downwards: clockwise
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    ],
)
def test_a_telephone_held_upright(
    frames: np.ndarray, tmp_path: Path, matrix: tuple[int, ...], shown: Callable[[np.ndarray], np.ndarray]
) -> None:
    wide = frames[:2, :60]
    source = open_images(turn(film(tmp_path / "as-stored.mp4", wide), tmp_path / "clip.mp4", matrix))
    np.testing.assert_array_equal(source.decoded(1).pixels, shown(wide[1]))
    assert source.size(0) == shown(wide[0]).shape[:2]


# ---- damage


def test_a_video_cut_short_gives_what_it_has_and_lists_the_rest(frames: np.ndarray, tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", frames, movflags="faststart")  # its table of contents comes first
    source = open_images(cut(whole, tmp_path / "clip.mp4", 0.6))
    assert len(source) == COUNT
    framed = list(read_framed(source, Frame(90)))
    lost = [i for i, item in enumerate(framed) if isinstance(item, Unreadable)]
    assert 5 <= len(lost) <= 12 and lost == list(range(lost[0], COUNT))
    for i in range(lost[0]):
        np.testing.assert_array_equal(framed[i].pixels, frames[i])
    assert "was cut short" in framed[-1].reason
    assert np.isnan(source.videos["clip.mp4"].seconds[-1])


def test_a_container_without_a_table_gives_what_it_has(clips: dict[str, Path], frames: np.ndarray, tmp_path) -> None:
    source = open_images(cut(clips["mkv"], tmp_path / "clip.mkv", 0.6))
    assert 8 <= len(source) < COUNT
    for i in range(len(source) - 1):
        np.testing.assert_array_equal(source.decoded(i).pixels, frames[i])


def test_damage_in_the_middle_loses_only_the_frames_it_hits(
    clips: dict[str, Path], frames: np.ndarray, tmp_path: Path
) -> None:
    data = bytearray(clips["avi"].read_bytes())
    starts = [i for i in range(len(data)) if data[i : i + 4] == b"\x89PNG"]
    data[starts[7] + 16 : starts[7] + 20] = bytes(4)  # a width of no pixels
    (tmp_path / "clip.avi").write_bytes(data)
    source = open_images(tmp_path / "clip.avi")
    for order in (range(COUNT), range(COUNT - 1, -1, -1)):
        for i in order:
            if i == 7:
                with pytest.raises(ImageError, match="no picture for this frame"):
                    source.decoded(i)
            else:
                np.testing.assert_array_equal(source.decoded(i).pixels, frames[i])


@pytest.mark.parametrize("content", [b"", b"I am no video\n" * 99])
def test_no_video(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    source = open_images(tmp_path / "clip.mp4")
    assert source.names == ["clip.mp4"] and not source.videos
    with pytest.raises(ImageError, match="no video, or not copied or recorded to its end"):
        source.read(0)


def test_the_end_is_missing_and_with_it_the_table_of_contents(clips: dict[str, Path], tmp_path: Path) -> None:
    source = open_images(cut(clips["mp4"], tmp_path / "clip.mp4", 0.5))
    with pytest.raises(ImageError, match=r"Invalid data .*: no video, or not copied or recorded to its end"):
        source.decoded(0)


def test_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
    with pytest.raises(ImageError, match="no moving picture in it"):
        open_images(tmp_path / "clip.mkv").read(0)


def test_without_pyav(clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(clips["avi"], tmp_path / "clip.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    source = open_images(tmp_path / "clip.avi")
    with pytest.raises(ImageError, match=r"need the package av, .*: pip install 'equimark\[video\]'"):
        source.read(0)


# ---- where videos lie


def test_a_folder_of_videos_and_a_list(clips: dict[str, Path], frames: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    shutil.copy(clips["mkv"], tmp_path / "b/two.MKV")
    shutil.copy(clips["avi"], tmp_path / "one.avi")
    (tmp_path / "broken.mp4").write_bytes(b"no")
    names = [f"b/two.MKV/{i:06d}" for i in range(COUNT)] + ["broken.mp4"] + [f"one.avi/{i:06d}" for i in range(COUNT)]
    source = open_images(tmp_path)
    assert source.names == names
    items = list(read_framed(source, Frame(90), workers=3))
    assert [item.name for item in items] == names
    assert [item.name for item in items if isinstance(item, Unreadable)] == ["broken.mp4"]
    np.testing.assert_array_equal(items[3].pixels, frames[3])
    np.testing.assert_array_equal(items[COUNT + 4].pixels, frames[3])
    Image.fromarray(frames[0]).save(tmp_path / "still.png")
    assert open_images(tmp_path).names == ["still.png"]  # videos beside images are left alone
    (tmp_path / "list.txt").write_text("still.png\none.avi\n")
    assert open_images(tmp_path / "list.txt").names == ["still.png", *(f"one.avi/{i:06d}" for i in range(COUNT))]


def test_a_video_in_an_archive(clips: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(clips["avi"], tmp_path / "in/clip.avi")
    source = open_images(shutil.make_archive(str(tmp_path / "clips"), "zip", tmp_path / "in"))
    with pytest.raises(ImageError, match="unpack it"):
        source.read(0)


def test_a_replaced_video_is_read_anew(frames: np.ndarray, tmp_path: Path) -> None:
    assert len(open_images(film(tmp_path / "clip.avi", frames[:5]))) == 5
    assert len(open_images(film(tmp_path / "clip.avi", frames[:8]))) == 8


def test_a_frame_as_a_file(clips: dict[str, Path], frames: np.ndarray) -> None:
    source = open_images(clips["mkv"])
    np.testing.assert_array_equal(decode(source.read(4)).pixels, frames[4])
    assert source.read_beside(4, ".flo") is None


def test_labels_of_frames_taken_from_videos_find_them() -> None:
    names = [f"{clip}/{i:06d}" for clip in ("days/monday.mp4", "days/friday.MOV") for i in range(3)]
    np.testing.assert_array_equal(match_names(["monday/000002.png", "friday/000000.jpg"], names), [2, 3])
    np.testing.assert_array_equal(match_names(["days/friday.MOV/000001"], names), [4])


# ---- what is done with videos


def test_a_pack_keeps_the_frames_of_a_video_together(
    clips: dict[str, Path], frames: np.ndarray, tmp_path: Path
) -> None:
    packed = pack(clips["mp4"], tmp_path / "pack", Frame(90), progress=False)
    assert packed.names == [f"clip.mp4/{i:06d}" for i in range(COUNT)]
    assert set(packed.folders) == {"clip.mp4"}
    np.testing.assert_array_equal(packed.images, frames)


def test_detecting_in_a_video_is_detecting_in_its_frames(
    clips: dict[str, Path], frames: np.ndarray, sparse_model: LandmarkModel
) -> None:
    table = detect_all(sparse_model, clips["avi"], progress=False).table
    assert list(table.images) == NAMES
    single = [sparse_model.detect(image) for image in frames[:4]]
    np.testing.assert_allclose(table.points[:4], [s.points for s in single], atol=1e-3)


def test_the_page_shows_frames(clips: dict[str, Path], frames: np.ndarray, tmp_path: Path) -> None:
    pictures = Pictures(clips["avi"], Frame(40), tmp_path / "thumbs")
    assert pictures.names == NAMES
    assert pictures.size(3) == (90, 90)
    assert pictures.stamp(3) == pictures.stamp(4) != "missing"
    framed = pictures.framed(3)
    assert isinstance(framed, Framed)
    np.testing.assert_array_equal(framed.pixels, frame_image(frames[3], Frame(40))[0])
    assert pictures.thumbnail(3) != pictures.thumbnail(19)
    shown = decode(pictures.shown(3)).pixels.astype(int)
    assert np.abs(shown - frames[3]).mean() < 5


def test_the_page_looks_at_a_video(clips: dict[str, Path], frames: np.ndarray, sparse_run: Run, tmp_path: Path) -> None:
    desk = Desk(sparse_run.model, sparse_run.folder, clips["mkv"], work=tmp_path)
    desk.engine.start()
    try:
        end = time.monotonic() + 60
        while desk.engine.progress().seen < COUNT:
            assert time.monotonic() < end and desk.engine.progress().fault is None
            time.sleep(0.02)
        key = desk.pictures.keys[COUNT - 2]
        found = np.array(desk.explore([], [key])[key]["points"])
        np.testing.assert_allclose(found[:, :2], sparse_run.model.detect(frames[COUNT - 2]).points, atol=0.01)
    finally:
        desk.engine.close()


# ---- the command


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_points_over_time(
    clips: dict[str, Path], sparse_run: Run, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    points, tracks = tmp_path / "points.csv", tmp_path / "tracks.csv"
    code, out, _ = command("detect", sparse_run.folder, clips["mkv"], "--out", points, "--tracks", tracks, "--quiet")
    assert code == 0 and f"{COUNT} frames of 1 videos over time" in out
    rows, wide = rows_of(tracks), rows_of(points)
    landmarks = len({row["landmark"] for row in rows})
    assert landmarks > 1 and len(rows) == COUNT * landmarks
    assert [float(row["seconds"]) for row in rows[::landmarks]] == [round(i / 25, 6) for i in range(COUNT)]
    third = rows[3 * landmarks + 1]
    assert (third["video"], third["frame"], third["landmark"]) == ("clip.mkv", "3", "1")
    assert wide[3]["image"] == "clip.mkv/000003"
    assert float(wide[3]["x1"]) == pytest.approx(float(third["x"]), abs=1e-4)
    smooth, drawn = tmp_path / "smooth.csv", tmp_path / "drawn.mp4"
    options = ("--tracks", smooth, "--smooth", 4, "--fps", 50, "--overlay", drawn, "--quiet")
    code, out, _ = command("detect", sparse_run.folder, clips["mkv"], "--out", points, *options)
    assert code == 0 and "points drawn" in out
    np.testing.assert_allclose(open_images(drawn).videos["drawn.mp4"].seconds, np.arange(COUNT) / 50, atol=1e-3)
    calm = rows_of(smooth)
    assert calm[-1]["seconds"] == f"{(COUNT - 1) / 50:.6f}"
    assert rows_of(points)[3]["x1"] == pytest.approx(calm[3 * landmarks + 1]["x"], abs=1e-4)

    def unrest(table: list[dict[str, str]]) -> float:
        x = np.array([float(row["x"]) for row in table]).reshape(COUNT, landmarks)
        return float(np.abs(np.diff(x, n=2, axis=0)).mean())

    assert unrest(calm) < unrest(rows)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--smooth", 1), "--smooth takes at least 2 frames on each side, got 1"),
        (("--fps", 0), "--fps must be positive, got 0"),
        (("--overlay", "o.gif"), "--overlay writes .mp4, .mov, .mkv, not o.gif"),
        (("--tracks", "t.csv", "--part-size", 5), "--tracks, --overlay and --smooth take all frames at once"),
    ],
)
def test_wrong_usage(
    options: tuple[object, ...], says: str, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = command("detect", tmp_path, tmp_path / "clip.mp4", "--out", tmp_path / "p.csv", *options)
    assert code == 2 and says in err


def test_a_video_that_is_cut_short_is_not_listed_frame_by_frame(
    frames: np.ndarray, sparse_run: Run, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    clip = cut(film(tmp_path / "whole.mp4", frames, movflags="faststart"), tmp_path / "clip.mp4", 0.35)
    code, _, err = command("detect", sparse_run.folder, clip, "--out", tmp_path / "points.csv", "--quiet")
    lost = COUNT - len(rows_of(tmp_path / "points.csv"))
    assert code == 0 and err.count("left out clip.mp4/") == 10 < lost
    assert f"and {lost - 10} more: {lost} images could not be read" in err
