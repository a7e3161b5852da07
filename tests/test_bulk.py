"""Parts of a large job: what they hold, and what is left of them when processes are killed."""

import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from torch import Tensor

from equimark import bulk, formats
from equimark.bulk import detect_in_parts
from equimark.embedding import Found, ModelError
from equimark.formats import parquet
from equimark.geometry import Placement
from equimark.head import Head
from equimark.images import ImageError
from equimark.landmarks import LandmarkError, LandmarkTable
from equimark.model import LandmarkModel
from equimark.prediction import Matcher, detect_all, match_all
from equimark.run import Run
from equimark.synthetic import Portraits
from landmark_tables import NAN, assert_same, small_table

pytest.importorskip("pyarrow")

Command = Callable[..., tuple[int, str, str]]
NAMES = tuple(f"{i:06d}.png" for i in range(16))


class Watched(Matcher):
    """A detector that remembers how many images it saw, and may be stopped."""

    seen = 0
    stop_after = 10**9

    def detect_framed(self, frames: Tensor, placements: Sequence[Placement]) -> Found:
        if Watched.seen >= Watched.stop_after:
            raise KeyboardInterrupt
        Watched.seen += len(frames)
        return super().detect_framed(frames, placements)


@pytest.fixture
def watched(dve_model: LandmarkModel, faces: Portraits) -> Iterator[Watched]:
    Watched.seen, Watched.stop_after = 0, 10**9
    points = faces.landmarks5[3].astype(float)
    yield Watched(dve_model, dve_model.describe_points(faces.images[3], points))
    Watched.seen = 0


def rounded(table: LandmarkTable) -> LandmarkTable:
    assert table.confidence is not None
    return replace(table, points=table.points.round(4), confidence=table.confidence.round(4))


def parts_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".parquet")


# ---- what the parts hold


def test_parts_hold_what_is_found_at_once(sparse_model: LandmarkModel, photos: Path, tmp_path: Path) -> None:
    done = detect_in_parts(sparse_model, photos, tmp_path / "out", part_size=5, progress=False)
    assert (done.count, done.images, done.unreadable, done.landmarks) == (4, 16, 0, 4)
    assert parts_in(tmp_path / "out") == [f"part-0000{i}-of-00004.parquet" for i in range(4)]
    one = formats.read(tmp_path / "out" / "part-00001-of-00004.parquet")
    assert one.images == NAMES[5:10]
    wanted = detect_all(sparse_model, photos, progress=False).table
    assert_same(formats.read(tmp_path / "out"), rounded(wanted), atol=2e-3)


def test_a_part_as_other_programs_read_it(dve_model: LandmarkModel, faces: Portraits, photos: Path, tmp_path: Path):
    import pyarrow.dataset
    import pyarrow.parquet

    head = dve_model.fit(list(faces.images[:4]), faces.landmarks5[:4, :2], ("left eye", "right eye"))
    detect_in_parts(head, photos, tmp_path, part_size=9, progress=False)
    rows = pyarrow.parquet.read_table(tmp_path / "part-00001-of-00002.parquet")
    eyes = [f"{side} eye_{letter}" for side in ("left", "right") for letter in "xyc"]
    assert rows.column_names == ["image", "width", "height", *eyes, "reason"]
    assert rows.num_rows == 7
    assert {str(rows.schema.field(name).type) for name in eyes} == {"float"}
    assert rows.slice(0, 1).select(["image", "width", "height", "reason"]).to_pylist() == [
        {"image": "000009.png", "width": 48, "height": 48, "reason": None}
    ]
    assert pyarrow.dataset.dataset(tmp_path).to_table()["image"].to_pylist() == list(NAMES)  # of the folder


def test_points_of_an_image(dve_model: LandmarkModel, faces: Portraits, watched: Watched, photos: Path, tmp_path: Path):
    detect_in_parts(watched, photos, tmp_path / "out", part_size=6, progress=False)
    assert Watched.seen == 1 + 16  # one to count the landmarks
    wanted = match_all(dve_model, faces.images[3], faces.landmarks5[3].astype(float), photos, progress=False).table
    assert_same(formats.read(tmp_path / "out"), rounded(wanted), atol=2e-3)


def test_every_kind_of_source(sparse_model: LandmarkModel, photos: Path, photo_pack: Path, tmp_path: Path) -> None:
    archive, listing = tmp_path / "photos.zip", tmp_path / "photos.txt"
    with zipfile.ZipFile(archive, "w") as file:
        for path in photos.glob("*.png"):
            file.write(path, path.name)
    listing.write_text("\n".join(str(photos / name) for name in NAMES))
    wanted = rounded(detect_all(sparse_model, photos, progress=False).table)
    for source in (archive, listing, photo_pack):
        out = tmp_path / f"{source.name}-out"
        detect_in_parts(sparse_model, source, out, part_size=10, progress=False)
        found = formats.read(out)
        assert [Path(name).name for name in found.images] == list(NAMES)
        np.testing.assert_allclose(found.points, wanted.points, atol=2e-3)


def test_unreadable_images_keep_their_rows(sparse_model: LandmarkModel, photos: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for i in range(5):
        (images / f"{i}.png").write_bytes((photos / NAMES[i]).read_bytes() if i in (0, 2) else b"nothing")
    done = detect_in_parts(sparse_model, images, out, part_size=3, progress=False)
    assert (done.count, done.images, done.unreadable) == (2, 5, 3)  # the second part has no readable image
    import pyarrow.parquet

    rows = [row for name in parts_in(out) for row in pyarrow.parquet.read_table(out / name).to_pylist()]
    assert [row["image"] for row in rows] == [f"{i}.png" for i in range(5)]
    reason = "not an image, or of a kind that Pillow cannot open here"
    assert [row["reason"] for row in rows] == [None, reason, None, reason, reason]
    assert rows[1]["x0"] is None and rows[1]["width"] is None
    table, notes = formats.read_noted(out)
    assert table.images == ("0.png", "2.png")
    assert len(notes) == 1 and "3 (1.png: not an image" in notes[0]


def test_doubtful_landmarks_are_blank(sparse_model: LandmarkModel, photos: Path, tmp_path: Path) -> None:
    wanted = detect_all(sparse_model, photos, progress=False).table
    assert wanted.confidence is not None
    least = float(np.median(wanted.confidence))
    detect_in_parts(sparse_model, photos, tmp_path, part_size=16, min_confidence=least, progress=False)
    found = formats.read(tmp_path)
    assert found.confidence is not None
    clear = np.abs(wanted.confidence - least) > 1e-3
    np.testing.assert_array_equal(found.visible[clear], (wanted.confidence >= least)[clear])
    np.testing.assert_allclose(found.confidence, wanted.confidence, atol=1e-3)


# ---- again, and by several


def test_an_interrupted_job_goes_on(watched: Watched, photos: Path, tmp_path: Path) -> None:
    Watched.stop_after = 1 + 2 * 4  # in the third part
    with pytest.raises(KeyboardInterrupt):
        detect_in_parts(watched, photos, tmp_path, part_size=4, progress=False)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in parts_in(tmp_path)}
    assert len(before) == 2
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
    Watched.seen, Watched.stop_after = 0, 10**9
    detect_in_parts(watched, photos, tmp_path, part_size=4, progress=False)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before
    assert formats.read(tmp_path).images == NAMES
    missing = 16 - sum(len(formats.read(tmp_path / name)) for name in before)
    assert Watched.seen == 1 + missing


def test_a_damaged_part_is_made_again(watched: Watched, photos: Path, tmp_path: Path) -> None:
    detect_in_parts(watched, photos, tmp_path, part_size=6, progress=False)
    whole = formats.read(tmp_path)
    for name, keep in (("part-00000-of-00003.parquet", 0), ("part-00002-of-00003.parquet", 300)):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:keep])
    Watched.seen = 0
    detect_in_parts(watched, photos, tmp_path, part_size=6, progress=False)
    assert Watched.seen == 1 + 6 + 4
    assert_same(formats.read(tmp_path), whole)


WORKER = """
import sys, time
from equimark import bulk
from equimark.model import LandmarkModel
model = LandmarkModel.load(sys.argv[1], device="cpu")
find, calls = LandmarkModel.detect_framed, []
def stuck(self, frames, placements):
    calls.append(0)
    time.sleep(600 if len(calls) == 4 else 0)  # the first is no part
    return find(self, frames, placements)
LandmarkModel.detect_framed = stuck
bulk.detect_in_parts(model, sys.argv[2], sys.argv[3], part_size=1, progress=False)
"""


def test_others_take_over_when_a_process_is_killed(sparse_run: Run, photos: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", WORKER, str(sparse_run.folder), str(photos), str(tmp_path)]
    with subprocess.Popen(words) as worker:
        while len(parts_in(tmp_path)) < 2 and worker.poll() is None:
            time.sleep(0.01)
        Timer(random.uniform(0, 1), worker.kill).start()
        done = detect_in_parts(sparse_run.model, photos, tmp_path, part_size=1, progress=False)
        assert worker.wait() == -9  # while it was at a part
    assert done.images == 16
    assert_same(formats.read(tmp_path), rounded(detect_all(sparse_run.model, photos, progress=False).table), 2e-3)


def test_a_part_that_another_process_is_at_is_waited_for(
    watched: Watched, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []
    hold = bulk._Locks.hold

    def other_is_at_part_one(self: bulk._Locks, number: int, *, wait: bool):  # type: ignore[no-untyped-def]
        asked.append((number, wait))
        return taken() if number == 2 and not wait else hold(self, number, wait=wait)

    @bulk.contextmanager
    def taken() -> Iterator[bool]:
        yield False

    monkeypatch.setattr(bulk._Locks, "hold", other_is_at_part_one)
    detect_in_parts(watched, photos, tmp_path, part_size=6, progress=False)
    assert Watched.seen == 1 + 16
    assert [number for number, wait in asked[1:] if wait] == [2]  # the only one left


def test_without_locks(watched: Watched, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(bulk.fcntl, "lockf", no_locks)
    assert detect_in_parts(watched, photos, tmp_path, part_size=6, progress=False).images == 16


# ---- what is refused


def test_another_job_is_refused(
    sparse_model: LandmarkModel, watched: Watched, photos: Path, photo_pack: Path, tmp_path: Path
) -> None:
    detect_in_parts(sparse_model, photos, tmp_path, part_size=8, progress=False)
    other = (photos / NAMES[0], sparse_model)
    for images, detector, settings, says in (
        (photos, watched, {}, "another run, head or points; give a new folder"),
        (photos, replace(watched, descriptors=-watched.descriptors), {}, "another run, head or points"),
        (photos, sparse_model.with_frame("stretch"), {}, "another frame"),
        (*other, {}, "other images"),
        (photos, sparse_model, {"part_size": 4}, "another size of parts"),
        (photos, sparse_model, {"min_confidence": 0.5}, "another least confidence"),
    ):
        before = parts_in(tmp_path)
        with pytest.raises(LandmarkError, match=says):
            detect_in_parts(detector, images, tmp_path, **({"part_size": 8} | settings), progress=False)
        assert parts_in(tmp_path) == before
    detect_in_parts(sparse_model, photos, tmp_path, part_size=8, progress=False)


def test_heads_on_the_same_run_are_told_apart(
    dve_model: LandmarkModel, faces: Portraits, photos: Path, tmp_path: Path
) -> None:
    heads: list[Head] = [dve_model.fit(faces.images[i : i + 1], faces.landmarks5[i : i + 1, :2]) for i in range(2)]
    detect_in_parts(heads[0], photos, tmp_path, part_size=16, progress=False)
    with pytest.raises(LandmarkError, match="another run, head or points"):
        detect_in_parts(heads[1], photos, tmp_path, part_size=16, progress=False)


def test_other_folders_are_refused(sparse_model: LandmarkModel, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LandmarkError, match=r"holds other things \('notes.txt'\); give a new folder"):
        detect_in_parts(sparse_model, photos, tmp_path, progress=False)
    with pytest.raises(LandmarkError, match="is a file; give a folder"):
        detect_in_parts(sparse_model, photos, tmp_path / "notes.txt", progress=False)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for text, says in (("", "is damaged"), ("format: 2", "has format 2, this version writes 1")):
        (damaged / "_job.yaml").write_text(text)
        with pytest.raises(LandmarkError, match=says):
            detect_in_parts(sparse_model, photos, damaged, progress=False)


def test_other_things_are_refused(
    sparse_model: LandmarkModel, dve_model: LandmarkModel, photos: Path, tmp_path: Path
) -> None:
    out, listing = tmp_path / "out", tmp_path / "list.txt"
    listing.write_text(f"{photos / NAMES[0]}\n{photos / NAMES[1]}\n{photos / NAMES[0]}\n")
    with pytest.raises(LandmarkError, match=r"names images more than once.*000000\.png"):
        detect_in_parts(sparse_model, listing, out, progress=False)
    with pytest.raises(ModelError, match="has descriptors, not landmarks"):
        detect_in_parts(dve_model, photos, out, progress=False)
    with pytest.raises(ImageError, match="does not exist"):
        detect_in_parts(sparse_model, tmp_path / "none", out, progress=False)
    with pytest.raises(LandmarkError, match="at least one image, got 0"):
        detect_in_parts(sparse_model, photos, out, part_size=0, progress=False)
    assert not out.exists()


# ---- Parquet


def test_a_missing_part_is_noticed(sparse_model: LandmarkModel, photos: Path, tmp_path: Path) -> None:
    detect_in_parts(sparse_model, photos, tmp_path, part_size=4, progress=False)
    (tmp_path / "part-00002-of-00004.parquet").unlink()
    with pytest.raises(LandmarkError, match="lacks 1 of 4 parts, the first of them 2"):
        formats.read(tmp_path)
    parquet.write(small_table(), tmp_path / "part-00000-of-00007.parquet")
    with pytest.raises(LandmarkError, match="parts of several tables: of 4, 7 parts"):
        formats.read(tmp_path)


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LandmarkError, match=r"Parquet needs pyarrow: pip install 'equimark\[scale\]'"):
        formats.write(small_table(), tmp_path / "a.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"nothing"])
def test_damaged_parquet(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(LandmarkError, match=r"a\.parquet cannot be read as landmarks in Parquet"):
        formats.read(tmp_path / "a.parquet")


def test_parquet_of_other_things(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"name": ["a"], "nose_x": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(LandmarkError, match="has no columns 'image', 'nose_y'; wanted are image, and x0"):
        formats.read(tmp_path)


def test_parquet_of_names_that_are_not_text(tmp_path: Path) -> None:
    table = LandmarkTable(("caf\udce9.png",), np.array([[[1.0, 2.0], [NAN, NAN]]]))
    formats.write(table, tmp_path / "a.parquet")
    found = formats.read(tmp_path / "a.parquet")
    assert found.images == ("caf\\xe9.png",)
    np.testing.assert_array_equal(found.points, table.points)


# ---- commands


def test_the_commands(command: Command, sparse_run: Run, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "landmarks"
    words = ("detect", sparse_run.folder, photos, "--out", out, "--part-size", 6, "--quiet")
    for _ in range(2):
        code, says, err = command(*words)
        assert (code, says, err) == (0, f"4 points on 16 images: 3 parts in {out}\n", "")
    code, says, err = command("convert", out, tmp_path / "landmarks.csv")
    assert (code, err) == (0, "")
    assert_same(formats.read(tmp_path / "landmarks.csv"), replace(formats.read(out), sizes=None))
    code, says, err = command("detect", sparse_run.folder, photos / NAMES[0], *words[3:])
    assert code == 1 and err.count("\n") == 1 and "holds landmarks of other images" in err
    matches = ("match", dve_run.folder, photos / NAMES[0], "--points", "20,20 30,30", "--targets", photos, "--quiet")
    code, says, err = command(*matches, "--out", tmp_path / "matches", "--part-size", 10)
    assert (code, says) == (0, f"2 points on 16 images: 2 parts in {tmp_path / 'matches'}\n")


def test_the_commands_say_what_they_left_out(command: Command, sparse_run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "good.png").write_bytes((photos / NAMES[0]).read_bytes())
    (tmp_path / "images" / "bad.png").write_bytes(b"nothing")
    words = (sparse_run.folder, tmp_path / "images", "--out", tmp_path / "out", "--part-size", 1, "--quiet")
    code, says, err = command("detect", *words)
    assert code == 0 and says.startswith("4 points on 1 images")
    assert err == "equimark: left out 1 images that could not be read; the column 'reason' says why\n"
    code, says, err = command("convert", tmp_path / "out", tmp_path / "out.csv")
    assert code == 0 and "could not be read are left out: 1 (bad.png" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--part-size", "0"), "--part-size must be at least 1"),
        (("--part-size", "5", "--discover", "3"), "--discover them into a --head first"),
    ],
)
def test_wrong_usage(
    command: Command, words: tuple[str, ...], says: str, sparse_run: Run, photos: Path, tmp_path: Path
) -> None:
    code, _, err = command("detect", sparse_run.folder, photos, "--out", tmp_path / "out", *words)
    assert code == 2 and says in err
    assert not (tmp_path / "out").exists()
