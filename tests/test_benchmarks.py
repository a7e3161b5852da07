"""What all readers of published sets share; the sets themselves are in test_benchmarks_faces and _others."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import ExifTags, Image

import layouts
from equimark.benchmarks import NAMES, Benchmark, BenchmarkError, Split, any_size, load
from equimark.benchmarks.animals import KINDS
from equimark.benchmarks.layout import SIZES, Header, Layout
from equimark.benchmarks.split import WHOLE, framing
from equimark.images import ImageSource, decode
from equimark.landmarks import LandmarkTable

WRITERS: dict[str, Callable[[Path], None]] = {
    "celeba": layouts.celeba,
    "mafl": layouts.celeba,
    "aflw-m": layouts.aflw_m,
    "aflw-r": layouts.aflw_r,
    "300w": layouts.faces_300w,
    "cats": layouts.cats,
    "shoes": layouts.shoes,
    "mnist-3": layouts.mnist,
    "mnist-5": layouts.mnist,
    "mnist-6": layouts.mnist,
    "animals": partial(layouts.animals, kinds=KINDS),
    "pets": layouts.pets,
    "yale-b": layouts.yale_b,
    "helen": layouts.helen,
    "roboarm": layouts.roboarm,
    "folder": layouts.shoes,
    "landmarks": layouts.roboarm,
}


def test_published_sizes() -> None:
    """The numbers that the two papers give."""
    assert SIZES["celeba"]["images"] == 202_599 == sum(SIZES["celeba"][s] for s in ("train", "validation", "test"))
    assert (SIZES["mafl"]["train"], SIZES["mafl"]["test"]) == (19_000, 1_000)
    assert (SIZES["aflw-m"], SIZES["aflw-r"]) == ({"train": 10_122, "test": 2_995}, {"train": 10_122, "test": 2_991})
    parts = SIZES["300w"]
    assert parts["afw"] + parts["lfpw/trainset"] + parts["helen/trainset"] == 3_148
    assert parts["ibug"] + parts["lfpw/testset"] + parts["helen/testset"] == 689
    assert SIZES["cats"]["train"] == 8_609 and SIZES["shoes"]["train"] == 49_525
    assert sum(SIZES["helen"].values()) == 2_330 and SIZES["yale-b"]["images"] == 38 * 64 - 18
    digits = {digit: SIZES[f"mnist-{digit}"] for digit in (3, 5, 6)}
    assert {d: s["train"] + s["validation"] for d, s in digits.items()} == {3: 6131, 5: 5421, 6: 5918}
    assert {s["validation"] for s in digits.values()} == {1_000}


@pytest.mark.parametrize("name", NAMES)
def test_every_set_is_read_and_its_crops_are_square(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.shrink(monkeypatch)
    WRITERS[name](tmp_path)
    benchmark = load(name, tmp_path)
    assert benchmark.name == name and benchmark.splits
    seen: set[str] = set()
    for split in benchmark.splits.values():
        assert not seen & set(split.images.names)
        seen |= set(split.images.names)
        framed = split.framed(len(split) - 1, 40)
        assert framed.pixels.shape == (40, 40, 3) and framed.name == split.images.names[-1]
        if split.table is not None:
            assert split.table.visible.all() and split.table.names == benchmark.landmark_names
    benchmark.check()


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_the_set(name: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError) as caught:
        load(name, tmp_path / "nowhere")
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and "\n" not in message and str(tmp_path / "nowhere") in message
    if name not in ("folder", "landmarks", "roboarm"):
        assert "is missing" in message and "should hold" in message and "(from http" in message


@pytest.mark.parametrize("name", sorted(layouts.SMALL))
def test_a_set_of_another_size(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small copies are refused while the published sizes stand."""
    WRITERS[name](tmp_path)
    with pytest.raises(BenchmarkError, match=rf"^{name}: .*(published set has [\d,]+|at least|for training alone)"):
        load(name, tmp_path)
    layouts.shrink(monkeypatch)
    load(name, tmp_path)


def test_unknown_names() -> None:
    with pytest.raises(BenchmarkError, match="no data set 'celebA'; known are celeba, mafl,"):
        load("celebA", ".")
    assert issubclass(BenchmarkError, ValueError)


def test_the_page_on_data_sets_has_them_all() -> None:
    page = (Path(__file__).parent.parent / "docs/datasets.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = Counter(name for row in rows for name in re.findall(r"`([^`]+)`", row))
    assert {name for name in named if "*" not in name} == set(NAMES)
    assert {name for name, count in named.items() if count == 2} == {n for n in NAMES if "mnist" not in n}


# ---- a split ------------------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    file = BytesIO()
    Image.fromarray(layouts.coordinates(width, height)).save(file, format="PNG")
    return file.getvalue()


def source(**files: bytes) -> ImageSource:
    return ImageSource(Path("/set"), list(files), files.__getitem__)


def test_reading_an_image() -> None:
    split = Split(source(a=png(30, 20), b=png(8, 8), c=png(30, 20)[:-30]), WHOLE, size=(20, 30))
    np.testing.assert_array_equal(split.pixels(0), layouts.coordinates(30, 20))
    with pytest.raises(BenchmarkError, match=r"/set/b has 8 x 8 pixels, but the images of this set have 30 x 20"):
        split.pixels(1)
    with pytest.raises(BenchmarkError, match=r"^/set/c: .*truncated"):
        split.pixels(2)
    with pytest.raises(BenchmarkError, match=r"^/set/b has"):
        Benchmark("some", "", {"train": split}).check()
    assert split.parts(0) is None and split.flow(0) is None


def test_the_rows_of_a_split_belong_together() -> None:
    two = source(a=b"", b=b"")
    Split(two, WHOLE, LandmarkTable(("a", "b"), np.zeros((2, 1, 2))), ("x", "y"))
    with pytest.raises(BenchmarkError, match="row by row"):
        Split(two, WHOLE, LandmarkTable(("b", "a"), np.zeros((2, 1, 2))))
    with pytest.raises(BenchmarkError, match="2 images, but 1 classes"):
        Split(two, WHOLE, classes=("x",))
    with pytest.raises(BenchmarkError, match="without images"):
        Split(source(), WHOLE)


def test_an_unknown_split() -> None:
    benchmark = Benchmark("some", "", {"train": Split(source(a=b""), WHOLE)})
    assert len(benchmark.split("train")) == 1
    with pytest.raises(BenchmarkError, match="some has no split 'val'; it has train"):
        benchmark.split("val")


def test_a_crop_with_a_band_around_it() -> None:
    frame = framing("letterbox", 0.25, fill="white")(0, (10, 20), 40)
    assert (frame.size, frame.pad, frame.fill) == (40, 10, "white")
    assert frame.place((10, 20)).box == (-10, -15, 30, 25)


# ---- lists and headers --------------------------------------------------------------------------------------


def layout(root: Path) -> Layout:
    return Layout("mafl", root, "https://example.org", "this and that")


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    layouts.lines(path, "header", "a 1 2", "", " b  3.5 -4 ")
    rows = layout(tmp_path).rows(path, 3, skip=1)
    assert rows == [(2, ["a", "1", "2"]), (4, ["b", "3.5", "-4"])]
    np.testing.assert_array_equal(layout(tmp_path).numbers(path, rows, slice(1, 3)), [[1, 2], [3.5, -4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 2\nb 3\n", "line 2: 2 columns, but 3 are wanted"),
        ("a 1 2\nb 3 x\n", "line 2: 'x' is not a number"),
        ("a 1 2\n\nb 3 nan\n", r"line 3: a coordinate is not finite \(3 nan\)"),
        ("a inf 2\n", "line 1: a coordinate is not finite"),
        ("\n", "lists nothing"),
    ],
)
def test_faults_in_lists(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match=message) as caught:
        layout(tmp_path).numbers(path, layout(tmp_path).rows(path, 3), slice(1, 3))
    assert str(caught.value).startswith(f"mafl: {path}")


def test_images_that_are_not_there(tmp_path: Path) -> None:
    layouts.picture(tmp_path / "a/1.png", 8, 8)
    source = layout(tmp_path).images(tmp_path, ["a/1.png"])
    assert source.names == ["a/1.png"] and decode(source.read(0)).size == (8, 8)
    with pytest.raises(BenchmarkError, match=r"a/2\.png \(2 of 3 images are not there\) is missing"):
        layout(tmp_path).images(tmp_path, ["a/1.png", "a/2.png", "a/3.png"])
    with pytest.raises(BenchmarkError, match="b is missing"):
        layout(tmp_path).images(tmp_path, ["b/1.png"])


def test_landmarks_outside_their_image(tmp_path: Path) -> None:
    """A tenth beyond an image of 50 x 20: from -5.5 to 54.5 and from -2.5 to 21.5."""
    inside = np.array([[[-5.5, -2.5], [54.5, 21.5]], [[0, 0], [49, 19]]])
    layout(tmp_path).table(["a", "b"], inside, (20, 50), None, 0.1)
    for k, beyond in ((0, (-5.6, 0)), (1, (0, 21.6))):
        points = inside.copy()
        points[1, k] = beyond
        with pytest.raises(BenchmarkError, match=rf"b: landmark {k} at \({beyond[0]:g}, {beyond[1]:g}\) .* 50 x 20"):
            layout(tmp_path).table(["a", "b"], points, (20, 50), None, 0.1)
    with pytest.raises(BenchmarkError, match="each image must occur once"):
        layout(tmp_path).table(["a", "a"], inside, [(20, 50), (20, 50)], None, 0.1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_landmarks_turn_with_their_image(orientation: int, tmp_path: Path) -> None:
    """A white dot at (30, 4) of the pixels as stored is where the landmark comes to lie when they are shown."""
    dark = np.zeros((24, 48, 3), np.uint8)
    dark[3:6, 29:32] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(dark).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    header = layout(tmp_path).header(tmp_path / "a.jpg")
    assert header == Header((24, 48), orientation)
    shown = decode((tmp_path / "a.jpg").read_bytes())
    assert header.shown == shown.size
    y, x = np.nonzero(shown.pixels[..., 0] > 128)
    np.testing.assert_allclose(header.turn((30, 4)), (x.mean(), y.mean()), atol=0.01)


def test_headers_of_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(BenchmarkError, match=r"a\.jpg: not an image, or damaged"):
        layout(tmp_path).header(tmp_path / "a.jpg")
    layouts.picture(tmp_path / "b.png", 9, 8)
    assert layout(tmp_path).header(tmp_path / "b.png") == Header((8, 9))


@settings(max_examples=50)
@given(st.integers(1, 8), arrays(np.float64, (3, 2), elements=st.floats(-100, 100)))
def test_turning_keeps_distances(orientation: int, points: np.ndarray) -> None:
    turned = Header((30, 40), orientation).turn(points)
    before, after = (np.linalg.norm(p - p[:1], axis=-1) for p in (points, turned))
    np.testing.assert_allclose(before, after, atol=1e-9)


# ---- a part of a set, and whether it is still the same -------------------------------------------------------


def test_the_first_images_of_a_split(tmp_path: Path) -> None:
    layouts.yale_b(tmp_path / "yale-b")
    layouts.faces_300w(tmp_path / "300w")
    with any_size():
        yale = next(iter(load("yale-b", tmp_path / "yale-b").splits.values()))
        faces = load("300w", tmp_path / "300w").split("train")
    few = yale.first(3)
    assert len(few) == 3 and few.images.names == yale.images.names[:3] and few.classes == yale.classes[:3]
    assert 0 < len(few.pairs) < len(yale.pairs) and few.pairs.max() < 3
    assert np.array_equal(few.pixels(2), yale.pixels(2))
    assert np.array_equal(faces.first(2).table.points, faces.table.points[:2])
    assert faces.first(2).table.images == tuple(faces.first(2).images.names)
    assert len(faces.first(1000)) == len(faces)


def test_a_fingerprint_changes_with_images_landmarks_and_crop(tmp_path: Path) -> None:
    layouts.faces_300w(tmp_path / "300w")

    def read() -> Split:
        with any_size():
            return load("300w", tmp_path / "300w").split("train")

    split = read()
    before = split.fingerprint()
    assert read().fingerprint() == before and len(before) == 16
    moved = replace(split.table, points=split.table.points + 1)
    others = [
        replace(split, table=moved),
        replace(split, frame_of=framing("stretch")),
        replace(split, classes=tuple(reversed(split.classes))),
        split.first(len(split) - 1),
    ]
    image = split.images.file(0)
    image.write_bytes(image.read_bytes() + b"\0")
    assert len({before, read().fingerprint(), *(other.fingerprint() for other in others)}) >= 5
    assert read().fingerprint() != before
