import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import TINY, same_weights
from equimark import checkpoint, sharding, shards
from equimark.arguments import make_parser
from equimark.cli import main
from equimark.config import make_config
from equimark.files import replace_file
from equimark.geometry import Frame
from equimark.images import ImageError, ImageSource, open_images
from equimark.packs import PackedImages, is_pack, pack
from equimark.run import Run, train
from equimark.sampling import Order, Sampler
from equimark.sharding import images_per_shard, write_shards
from equimark.shards import MIXED, ShardedFrames, is_sharded, open_shards
from equimark.training import Interrupted
from pictures import BROKEN, encoded, photos, picture, unreadable

SIDE = 16


def drawn(count: int, folders: int = 1) -> ImageSource:
    """Images of one brightness each, 10 px high and 12 px wide, in folders that share them evenly."""
    names = [f"{i * folders // count}/{i:04d}.png" for i in range(count)]
    levels = {name: i % 251 for i, name in enumerate(names)}
    return ImageSource(Path("drawn"), names, lambda name: encoded(np.full((10, 12, 3), levels[name], np.uint8)))


def sharded(folder: Path, count: int, images: int, folders: int = 1) -> PackedImages:
    write_shards(drawn(count, folders), folder, Frame(SIDE), images, progress=False, workers=1)
    return PackedImages.open(folder)


def frames_of(packed: PackedImages) -> ShardedFrames:
    assert isinstance(packed.images, ShardedFrames)
    return packed.images


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


# ---- what is written ----------------------------------------------------------------------------------------


def test_shards_hold_what_a_pack_holds(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 20)
    for name, (data, _) in BROKEN.items():
        (folder / name).write_bytes(data)
    (folder / "latin\udce9.png").write_bytes(encoded(picture(10, 40)))
    plain = pack(folder, tmp_path / "plain", Frame(16), progress=False)
    packed = pack(folder, tmp_path / "shards", Frame(16), progress=False, shards=5)
    assert is_pack(tmp_path / "shards") and is_sharded(tmp_path / "shards") and not is_sharded(tmp_path / "plain")
    assert len(packed) == len(plain) == 21 and packed.frame == plain.frame
    assert packed.images.shape == plain.images.shape
    assert packed.names == plain.names and packed.classes == plain.classes and packed.folders == plain.folders
    assert np.array_equal(packed.images[:], plain.images)
    for i in range(len(plain)):
        assert packed.image_size(i) == plain.image_size(i) and packed.placement(i) == plain.placement(i)
    assert packed.smaller_than(16) == plain.smaller_than(16) == 1
    assert unreadable(tmp_path / "shards") == unreadable(tmp_path / "plain")
    assert not packed.has_flow.any()
    rows = [20, 3, 3, -1]
    assert np.array_equal(packed.batch(rows), plain.batch(rows))
    assert np.array_equal(packed.images[-2], plain.images[-2]) and packed.images[[]].shape == (0, 16, 16, 3)
    chosen = packed.select([7, 2])
    assert chosen.names == [plain.names[7], plain.names[2]] and np.array_equal(chosen.images[0], plain.images[7])
    with pytest.raises(IndexError, match="21 images"):
        packed.images[21]


def test_other_tools_read_them(tmp_path: Path) -> None:
    packed = sharded(tmp_path / "out", 5, 3)
    table = parquet.read_table(tmp_path / "out" / parts(tmp_path / "out")[1])
    assert table.column_names == ["name", "height", "width", "x0", "y0", "x1", "y1", "image"]
    row = table.to_pylist()[0]
    assert np.array_equal(np.frombuffer(row.pop("image"), np.uint8).reshape(SIDE, SIDE, 3), packed.images[3])
    assert row == {"name": "0/0003.png", "height": 10, "width": 12, "x0": 1, "y0": 0, "x1": 11, "y1": 10}


@pytest.mark.parametrize(("size", "images"), [(16, 4096), (100, 512), (136, 256), (1000, 64), (4000, 64)])
def test_a_shard_has_about_16_mb(size: int, images: int) -> None:
    assert images_per_shard(Frame(size)) == images


def test_the_index_can_be_made_again(tmp_path: Path) -> None:
    packed = sharded(tmp_path, 7, 2)
    index = (tmp_path / "index.json").read_text()
    for content in (None, "{", "[]", index.replace('"format": 1', '"format": 2')):
        (tmp_path / "index.json").unlink() if content is None else (tmp_path / "index.json").write_text(content)
        again = PackedImages.open(tmp_path)
        assert again.fingerprint == packed.fingerprint and frames_of(again).shards == frames_of(packed).shards


# ---- going on and adding ------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


def kill_at(calls: int) -> Callable[[Path, Callable[[Path], object]], None]:
    """A ``replace_file`` that dies in the middle of the file after so many, and leaves what it had written."""
    left = iter(range(calls))

    def replace_file(path: Path, write: Callable[[Path], object]) -> None:
        temporary = path.with_name(f".{path.name}.1.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        if next(left, None) is None:
            os.truncate(temporary, temporary.stat().st_size // 2)
            raise Killed
        temporary.replace(path)

    return replace_file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    sharded(folder, 11, 2)
    return folder


@settings(max_examples=12)
@given(st.lists(st.integers(0, 6), max_size=4))
def test_a_killed_writer_makes_the_same_files_in_the_end(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, kills: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        for calls in kills:
            patch.setattr(sharding, "replace_file", kill_at(calls))
            try:
                sharded(folder, 11, 2)
            except Killed:
                continue
        patch.undo()
        assert len(sharded(folder, 11, 2)) == 11
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert all((folder / name).read_bytes() == (whole / name).read_bytes() for name in parts(whole))


KILLED = """
import os
from pathlib import Path
from PIL import Image
import io
from equimark import sharding
from equimark.geometry import Frame
from equimark.images import ImageSource

def encoded(level):
    file = io.BytesIO()
    Image.new("RGB", (12, 10), (level,) * 3).save(file, "PNG")
    return file.getvalue()

usual, left = sharding.replace_file, [3]

def replace_file(path, write):
    def killed(temporary):
        write(temporary)
        if not left[0]:
            os.truncate(temporary, 100)
            os._exit(9)
        left[0] -= 1
    usual(path, killed)

sharding.replace_file = replace_file
source = ImageSource(Path("drawn"), [f"0/{i:04d}.png" for i in range(11)], lambda name: encoded(int(name[2:6])))
sharding.write_shards(source, Path(FOLDER), Frame(16), 2, progress=False)
"""


def test_a_killed_process_leaves_what_another_goes_on_with(whole: Path, tmp_path: Path) -> None:
    script = KILLED.replace("FOLDER", repr(str(tmp_path)))
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert parts(tmp_path) == parts(whole)[:3] and len(list(tmp_path.glob(".part-*.tmp"))) == 1
    assert len(PackedImages.open(tmp_path)) == 6
    packed = sharded(tmp_path, 11, 2)
    assert parts(tmp_path) == parts(whole) and list(tmp_path.glob(".*")) == []
    assert packed.names == drawn(11).names and packed.fingerprint == PackedImages.open(whole).fingerprint


def test_images_are_added_in_shards_of_their_own(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 5)
    (folder / "late.png").write_bytes(b"not yet")
    first = pack(folder, tmp_path / "out", Frame(16), progress=False, shards=3)
    files = parts(tmp_path / "out")
    assert unreadable(tmp_path / "out")[1:] == [["late.png", first_reason(tmp_path / "out")]]
    (folder / "a/0000.png").write_bytes(encoded(picture(seed=50)))
    (folder / "late.png").write_bytes(encoded(picture(seed=51)))
    packed = pack(folder, tmp_path / "out", Frame(16), progress=False, shards=3)
    assert parts(tmp_path / "out")[: len(files)] == files and len(parts(tmp_path / "out")) == len(files) + 2
    assert packed.names == [*first.names, "a/0000.png", "late.png"]
    assert unreadable(tmp_path / "out") == [["file", "reason"]]
    assert packed.fingerprint != first.fingerprint
    assert pack(folder, tmp_path / "out", Frame(16), progress=False, shards=2).fingerprint == packed.fingerprint


def first_reason(folder: Path) -> str:
    return unreadable(folder)[1][1]


def test_a_removed_shard_is_made_again(tmp_path: Path) -> None:
    packed = sharded(tmp_path, 11, 2)
    for place in (1, 5):
        (tmp_path / parts(tmp_path)[place]).unlink()
        with pytest.raises(ImageError, match=rf"part-0000{place}-\w+\.parquet is missing"):
            PackedImages.open(tmp_path)
        assert sharded(tmp_path, 11, 2).fingerprint == packed.fingerprint


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(tmp_path / "out", 3, 2)
    folder = photos(tmp_path / "in", 2)
    with pytest.raises(ImageError, match="one pack has one frame"):
        pack(folder, tmp_path / "out", Frame(9), progress=False, shards=0)
    with pytest.raises(ImageError, match="not a pack"):
        pack(folder, folder, Frame(SIDE), progress=False, shards=0)
    with pytest.raises(ImageError, match="got -2"):
        pack(folder, tmp_path / "new", Frame(SIDE), progress=False, shards=-2)
    with pytest.raises(ImageError, match="is a pack already"):
        pack(tmp_path / "out", tmp_path / "new", Frame(SIDE), progress=False, shards=0)
    with pytest.raises(ImageError, match="holds a pack already"):
        pack(folder, tmp_path / "out", Frame(SIDE), progress=False)
    assert len(pack(folder, tmp_path / "out", Frame(9), progress=False, shards=0, overwrite=True)) == 2
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.png").write_bytes(b"text")
    with pytest.raises(ImageError, match=r"none of the 1 images .* a\.png: not an image"):
        pack(tmp_path / "bad", tmp_path / "new", Frame(SIDE), progress=False, shards=0)
    (folder / "a/1.flo").write_bytes(b"")
    first = open_images(folder).names[0]
    (folder / first).with_suffix(".flo").write_bytes(b"PIEH")
    with pytest.raises(ImageError, match="has flow beside its images"):
        pack(folder, tmp_path / "new", Frame(SIDE), progress=False, shards=0)

    photos(tmp_path / "bare", 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharding, "replace_file", full)
    with pytest.raises(ImageError, match=r"no space left for .*full: make room .* what is packed stays"):
        pack(tmp_path / "bare", tmp_path / "full", Frame(SIDE), progress=False, shards=0)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("before", [None, 2])
@pytest.mark.parametrize("failure", [Killed(), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_overwrite_leaves_the_old_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int | None, failure: BaseException
) -> None:
    """The old pack, of one file or in shards, is whole after the second of four new shards could not be written."""
    folder, out = photos(tmp_path / "in", 8), tmp_path / "out"
    pack(folder, out, Frame(9), progress=False, shards=before)
    old, left = content(out), iter([True])

    def dies(path: Path, write: Callable[[Path], object]) -> None:
        if next(left, None) is None:
            assert content(out) == old
            raise failure
        replace_file(path, write)

    with monkeypatch.context() as patch:
        patch.setattr(sharding, "replace_file", dies)
        says = (
            "no space left for .*out: the pack that stands there is as it was" if isinstance(failure, OSError) else None
        )
        with pytest.raises(ImageError if says else type(failure), match=says):
            pack(folder, out, Frame(SIDE), progress=False, shards=2, overwrite=True)
    assert content(out) == old and sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    packed = pack(folder, out, Frame(SIDE), progress=False, shards=2, overwrite=True)
    assert packed.frame.size == SIDE and len(parts(out)) == 4 and not (out / "pack.yaml").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


# ---- what is wrong with shards ------------------------------------------------------------------------------


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    packed = sharded(tmp_path, 6, 2)
    name = parts(tmp_path)[1]
    path, content = tmp_path / name, (tmp_path / name).read_bytes()
    flipped = bytearray(content)
    flipped[content.rindex(b"\x28\xb5\x2f\xfd") + 20] ^= 1  # in the last compressed page, which holds pixels
    for damaged in (content[:-10], bytes(flipped), b""):
        path.write_bytes(damaged)
        again = PackedImages.open(tmp_path)
        assert np.array_equal(again.images[:2], packed.images[:2])
        with pytest.raises(ImageError, match=f"{name} is damaged .* make it again"):
            again.batch([2])
    path.write_bytes(content)
    assert np.array_equal(again.images[2:4], packed.images[2:4])  # what failed once is read again


def test_shards_that_do_not_belong_together(tmp_path: Path) -> None:
    sharded(tmp_path / "a", 6, 2)
    write_shards(drawn(6), tmp_path / "b", Frame(9), 2, progress=False)
    (file,) = parts(tmp_path / "b")[2:]
    (tmp_path / "a" / file).write_bytes((tmp_path / "b" / file).read_bytes())
    with pytest.raises(ImageError, match="one pack has one frame"):
        PackedImages.open(tmp_path / "a")
    (tmp_path / "a" / file).unlink()
    twice = parts(tmp_path / "a")[1]
    (tmp_path / "a" / f"part-00001-{'0' * 16}.parquet").write_bytes((tmp_path / "a" / twice).read_bytes())
    with pytest.raises(ImageError, match="two files of number 00001"):
        PackedImages.open(tmp_path / "a")
    with pytest.raises(ImageError, match="holds no part-"):
        open_shards(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sharding, "FORMAT", 2)
        write_shards(drawn(3), tmp_path, Frame(SIDE), 2, progress=False)
    with pytest.raises(ImageError, match="has format 2, this version reads 1"):
        PackedImages.open(tmp_path)


def test_pyarrow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(tmp_path / "out", 3, 2)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for act in (lambda: PackedImages.open(tmp_path / "out"), lambda: sharded(tmp_path / "new", 3, 2)):
        with pytest.raises(ImageError, match=r"pip install 'equimark\[scale\]'"):
            act()


# ---- order and memory ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 9), st.integers(0, 3))
def test_an_epoch_holds_everything_once_a_few_shards_at_a_time(sizes: list[int], batch: int, seed: int) -> None:
    lies_in = np.repeat(np.arange(len(sizes)), sizes)
    count = len(lies_in)
    order = Order(count, seed=seed, stream="order", shards=lies_in)
    places = range(0, 2 * count, batch)
    taken = np.concatenate([order.take(start, batch) for start in places])
    for epoch in range(2):
        things = taken[epoch * count : (epoch + 1) * count]
        assert sorted(things.tolist()) == list(range(count))
        while len(things):  # the first few shards are done with before any other begins
            few = list(dict.fromkeys(lies_in[things].tolist()))[:MIXED]
            block = sum(sizes[shard] for shard in few)
            assert set(lies_in[things[:block]].tolist()) == set(few)
            things = things[block:]
    assert np.array_equal(
        Order(count, seed=seed, stream="order", shards=lies_in).take(places[-1], batch), taken[places[-1] :]
    )


def test_few_shards_are_shuffled_like_one_file() -> None:
    plain = Order(40, seed=3, stream="order")
    few = Order(40, seed=3, stream="order", shards=np.arange(40) // 5)
    assert np.array_equal(few.take(0, 100), plain.take(0, 100))
    more = Order(40, seed=3, stream="order", shards=np.arange(40) // 4)
    assert not np.array_equal(more.take(0, 40), plain.take(0, 40))


class Counting(ShardedFrames):
    """Counts what is read, and how much is held."""

    def __init__(self, frames: ShardedFrames, held: int) -> None:
        super().__init__(frames._store, frames.frame, frames.shards, held)
        self.reads: list[int] = []
        self.most = 0

    def _read(self, shard: int) -> Any:
        self.reads.append(shard)
        return super()._read(shard)

    def __getitem__(self, rows: Any) -> Any:
        found = super().__getitem__(rows)
        self.most = max(self.most, len(self._held))
        return found


SMALL: dict[str, Any] = {"frame.size": SIDE, "pairs.margin": 0, "batch_size": 4}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    """96 images of two folders in 48 shards."""
    return sharded(tmp_path_factory.mktemp("many"), 96, 2, folders=2)


@pytest.mark.parametrize("held", [1, MIXED, 2 * MIXED])
def test_a_few_shards_are_held_and_none_is_read_in_vain(many: PackedImages, held: int) -> None:
    frames = Counting(frames_of(many), held)
    sampler = Sampler(replace(many, images=frames), make_config(SMALL, {}))
    seen = []
    for step in range(1, 25):
        rows = sampler.rows(step)
        assert np.array_equal(frames[rows], many.images[rows])
        seen += rows.tolist()
    assert sorted(seen) == list(range(96))
    assert frames.most <= held
    if held == 2 * MIXED:  # those of this epoch, and the next few
        assert sorted(frames.reads[:48]) == list(range(48)) and len(frames.reads) <= 48 + MIXED


@pytest.mark.parametrize("sampling", ["proportional", "balanced"])
def test_classes_are_spread_over_shards(many: PackedImages, sampling: str) -> None:
    frames = Counting(frames_of(many), 2 * MIXED)
    sampler = Sampler(replace(many, images=frames), make_config(SMALL, {"sampling": sampling}))
    batches = []
    for step in range(1, 25):
        batches.append(sampler.rows(step))
        assert np.array_equal(frames[batches[-1]], many.images[batches[-1]])
    assert sorted(np.concatenate(batches).tolist()) == list(range(96))
    kinds = np.array(many.classes)
    assert all((kinds[rows] == "0").sum() == 2 for rows in batches)
    assert set(frames.reads) == set(range(48)) and len(frames.reads) <= 48 + 2 * MIXED


def test_shards_are_read_by_threads(many: PackedImages) -> None:
    frames = Counting(frames_of(many), 3)
    rows = [np.random.default_rng(seed).integers(0, 96, 12) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for own, found in zip(rows, pool.map(frames.__getitem__, rows), strict=True):
            assert np.array_equal(found, many.images[own])


# ---- training -----------------------------------------------------------------------------------------------


def go(images: Any, out: Path, **options: Any) -> Run:
    return train(images, out, **(TINY | {"method": "dense", "progress": False, "device": "cpu", "steps": 6} | options))


@pytest.fixture(scope="module")
def photo_shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 images in 16 shards, of which 8 are mixed at a time."""
    folder = tmp_path_factory.mktemp("photo_shards")
    pack(photos, folder, Frame(TINY["frame.size"]), progress=False, shards=1)
    return folder


def test_a_run_on_shards_goes_on_in_the_middle_of_an_epoch(
    photo_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(photo_shards, tmp_path / "whole")
    for stop in (1, 3):
        stopping_at(monkeypatch, stop)
        with pytest.raises(Interrupted, match=f"step {stop} of 6"):
            go(photo_shards, tmp_path / "parts", **({"resume": True} if stop == 3 else {}))
        monkeypatch.undo()
    assert same_weights(whole.folder, go(photo_shards, tmp_path / "parts", resume=True).folder)
    images = whole.images()
    assert images is not None and len(images) == 16


def stopping_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the run get a signal in a step."""
    from equimark import training

    usual = training._Work.take_step

    def take(self: Any, number: int) -> Any:
        if number == step:
            os.kill(os.getpid(), 15)
        return usual(self, number)

    monkeypatch.setattr(training._Work, "take_step", take)


def test_few_shards_train_like_a_pack(photos: Path, photo_pack: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "shards", Frame(TINY["frame.size"]), progress=False, shards=2)
    runs = [go(images, tmp_path / f"run{i}", steps=2) for i, images in enumerate((photo_pack, tmp_path / "shards"))]
    assert same_weights(runs[0].folder, runs[1].folder)


# ---- elsewhere ----------------------------------------------------------------------------------------------


@pytest.fixture
def url(photo_shards: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    for path in photo_shards.iterdir():
        memory.pipe(f"/bucket/pack/{path.name}", path.read_bytes())
    yield "memory://bucket/pack"
    memory.rm("/bucket", recursive=True)


def test_shards_at_a_url(url: str, photo_shards: Path, tmp_path: Path) -> None:
    here = PackedImages.open(photo_shards)
    for place in (url, url + "/", f"file://{photo_shards}", f"simplecache::{url}"):
        there = PackedImages.open(place)
        assert is_pack(place) and there.fingerprint == here.fingerprint
        assert np.array_equal(there.images[:], here.images[:]) and there.names == here.names
    run = go(url, tmp_path / "run", steps=1)
    assert checkpoint.load(run.folder).data.source == url
    images = run.images()
    assert images is not None and images.fingerprint == here.fingerprint
    parser, _ = make_parser()
    assert parser.parse_args(["train", url, "--out", "run"]).images == url
    assert parser.parse_args(["report", "run", "--images", "here"]).images == Path("here")


def test_a_url_is_looked_up_once(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = go(url, tmp_path / "run", steps=1)
    looks: list[str] = []
    usual = shards.Store.files

    def files(self: shards.Store) -> list[str] | None:
        looks.append(self.path)
        return usual(self)

    monkeypatch.setattr(shards.Store, "files", files)
    for find in (run.images, lambda: run.images(url), lambda: PackedImages.find(url)):
        assert find() is not None and looks == [url]
        looks.clear()
    fsspec.filesystem("memory").rm(f"/bucket/pack/{parts_at(url)[0]}")
    with pytest.raises(ImageError, match="is missing"):
        PackedImages.find(url)
    assert run.images() is None  # a report goes without


def parts_at(url: str) -> list[str]:
    return sorted(shards.Store.open(url).files() or ())


def test_a_place_without_a_list_of_its_files_needs_the_index(
    url: str, photo_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards.Store, "files", lambda self: None)
    assert PackedImages.open(url).fingerprint == PackedImages.open(photo_shards).fingerprint
    fsspec.filesystem("memory").rm("/bucket/pack/index.json")
    with pytest.raises(ImageError, match="holds no part-"):
        PackedImages.open(url)


@pytest.mark.parametrize("url", ["memory://nothing/here", "nosuchprotocol://x"])
def test_nothing_at_a_url(url: str, tmp_path: Path) -> None:
    assert not is_sharded(url)
    for look in (lambda: go(url, tmp_path / "run"), lambda: PackedImages.find(url)):
        with pytest.raises(ImageError, match=r"holds no part-|nosuchprotocol"):
            look()


def test_a_place_out_of_reach(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is not a place without files, though fsspec's questions of yes or no say no."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("connection\nrefused")

    memory = fsspec.implementations.memory.MemoryFileSystem
    monkeypatch.setattr(memory, "ls", refuse)
    for question in ("isfile", "isdir", "exists"):
        monkeypatch.setattr(memory, question, lambda *_: False)
    with pytest.raises(ImageError, match="memory://bucket/pack cannot be reached: connection refused"):
        PackedImages.open(url)


def test_landmarks_of_shards_at_a_url(url: str, photo_shards: Path, tmp_path: Path, command: Any) -> None:
    run = go(url, tmp_path / "run", steps=1)
    for place, out in ((url, "there.csv"), (photo_shards, "here.csv")):
        code, _, err = command("detect", run.folder, place, "--discover", 3, "--out", tmp_path / out, "--quiet")
        assert (code, err) == (0, "")
    assert (tmp_path / "there.csv").read_text() == (tmp_path / "here.csv").read_text()
    code, _, err = command("detect", run.folder, "memory://bucket/other", "--discover", 3, "--out", tmp_path / "o.csv")
    assert code == 1 and "memory://bucket/other holds no part-*.parquet" in err


def test_the_commands(photos: Path, tmp_path: Path, command: Any) -> None:
    for _ in range(2):
        code, out, err = command("pack", photos, "--out", tmp_path / "out", "--size", 40, "--shards", 6, "--quiet")
        assert (code, err) == (0, "") and "packed 16 images of 40 x 40" in out
        assert len(parts(tmp_path / "out")) == math.ceil(16 / 6)
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert [shard["images"] for shard in index["parts"]] == [6, 6, 4]
    assert main(["pack", str(photos), "--out", str(tmp_path / "one"), "--size", "40", "--shards", "--quiet"]) == 0
    assert len(parts(tmp_path / "one")) == 1
