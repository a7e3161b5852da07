"""Every landmark format: what it gives back, what it says it cannot hold, what it refuses."""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from equimark import formats
from equimark.cli import main
from equimark.formats import FORMATS, check_free, check_writable, read, read_noted, write
from equimark.landmarks import LandmarkError, LandmarkTable
from landmark_tables import NAN, assert_same, small_table

OUT = {name: f"out{each.endings[0]}" for name, each in FORMATS.items()}
HEIGHT, WIDTH = 40, 60

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def full_table(format: str) -> LandmarkTable:
    """Everything that a format has a place for, and nothing else."""
    each = FORMATS[format]
    table = small_table()
    return LandmarkTable(
        images=table.images,
        points=table.points + 0.25,
        names=table.names if "names" in each.holds and format != "tps" else None,
        confidence=table.confidence.round(4) if "confidence" in each.holds and table.confidence is not None else None,
        splits=table.splits if "splits" in each.holds else None,
        sizes=None if each.sizes == "unused" else np.array([[HEIGHT, WIDTH]] * 3),
        scale=np.array([0.5, NAN, 0.0045]) if "scale" in each.holds else None,
    )


def draw_images(folder: Path, *names: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name)
    return folder


# ---- there and back


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
# Not what a format must refuse: paths that lead elsewhere, quotes in MorphoJ, keys of .tps, and endings of images.
IMAGES = st.text(st.characters(categories=["L", "N"], include_characters="_-é漢"), min_size=1, max_size=8)


@st.composite
def tables(draw: st.DrawFn, format: str) -> LandmarkTable:
    """What ``format`` can hold, in numbers of 4 decimals."""
    each = FORMATS[format]
    n, k = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    lowest = 0 if format == "tps" else -50_000  # two negative numbers mean a missing landmark there
    inside = st.integers(lowest, 100_000).map(lambda i: i / 10_000)
    points = draw(arrays(np.float64, (n, k, 2), elements=inside))
    points[draw(arrays(np.bool_, (n, k)))] = NAN
    sizes = None
    if each.sizes != "unused":
        sizes = draw(arrays(np.int64, (n, 2), elements=st.integers(1, 5000)))
    given: dict[str, object] = {}
    if "names" in each.holds and format != "tps":
        names = st.lists(WORDS, min_size=k, max_size=k, unique=True).map(tuple)
        given["names"] = draw(st.none() | names.filter(lambda names: names != tuple(map(str, range(k)))))
    if "confidence" in each.holds:
        shares = arrays(np.float64, (n, k), elements=st.integers(0, 10_000).map(lambda i: i / 10_000))
        confidence = draw(st.none() | shares)
        if confidence is not None and format == "label-studio":
            confidence[np.isnan(points[..., 0])] = NAN
            confidence = None if np.isnan(confidence).all() else confidence
        given["confidence"] = confidence
    if "splits" in each.holds:
        given["splits"] = draw(st.none() | st.lists(st.sampled_from(["train", "test"]), min_size=n, max_size=n))
        given["splits"] = given["splits"] and tuple(given["splits"])
    if "scale" in each.holds:
        given["scale"] = draw(st.none() | arrays(np.float64, n, elements=st.floats(1e-9, 1e9)))
    images = draw(st.lists(IMAGES, min_size=n, max_size=n, unique_by=str.casefold))
    return LandmarkTable(tuple(images), points, sizes=sizes, **given)


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "csv"])  # which has a file of its own
def test_round_trip(format: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=8 if format == "deeplabcut-h5" else 30)
    @given(table=tables(format))
    def there_and_back(table: LandmarkTable) -> None:
        folder = tmp_path_factory.mktemp("trip")
        if FORMATS[format].sizes == "needed":
            write_headers(folder / "images", table)
        write(table, folder / OUT[format], format)
        images = folder / "images" if FORMATS[format].sizes == "needed" else None
        found = read(folder / OUT[format], format, images)
        order = sorted(range(len(table)), key=lambda i: f"{table.images[i]}.pts") if FORMATS[format].is_folder else None
        assert_same(found, table if order is None else table.select(order))

    there_and_back()


def write_headers(folder: Path, table: LandmarkTable) -> None:
    """Images of the sizes of a table, without their pixels."""
    assert table.sizes is not None
    folder.mkdir()
    for image, (height, width) in zip(table.images, table.sizes.tolist(), strict=True):
        (folder / f"{image}.pgm").write_bytes(b"P5 %d %d 255\n" % (width, height))


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_holds_is_held_without_a_word(format: str, tmp_path: Path) -> None:
    table = full_table(format)
    if format.startswith("deeplabcut"):
        table = replace(table, images=tuple(f"labeled-data/film/{image}.png" for image in table.images))
    assert write(table, tmp_path / OUT[format]) == ()
    if FORMATS[format].sizes == "needed":
        draw_images(tmp_path / "images", *(f"{image}.png" for image in table.images))
    found, notes = read_noted(tmp_path / OUT[format], images=None if format == "csv" else find(tmp_path / "images"))
    assert notes == ()
    assert_same(found, table)


def find(folder: Path) -> Path | None:
    return folder if folder.exists() else None


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_cannot_hold_is_said(format: str, tmp_path: Path) -> None:
    table = replace(small_table(), sizes=np.full((3, 2), 50), scale=np.ones(3))
    notes = " ".join(write(table, tmp_path / OUT[format], format))
    sentences = {"names": "names of", "confidence": "confidence of", "splits": "the splits", "scale": "scale ("}
    for what, sentence in sentences.items():
        assert (sentence in notes) == (what not in FORMATS[format].holds or (format, what) == ("tps", "names"))


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in ("tps", "morphoj", "label-studio")])
def test_sizes_are_not_needed(format: str, tmp_path: Path) -> None:
    table = LandmarkTable(("a",), np.ones((1, 2, 2)))
    write(table, tmp_path / OUT[format], format)
    assert_same(read(tmp_path / OUT[format], format), table)


@pytest.mark.parametrize("format", ["tps", "morphoj", "label-studio"])
def test_sizes_are_needed(format: str, tmp_path: Path) -> None:
    table = LandmarkTable(("a",), np.ones((1, 2, 2)))
    with pytest.raises(LandmarkError, match=r"sizes of the images are needed.*--images"):
        write(table, tmp_path / OUT[format], format)
    assert not list(tmp_path.iterdir())
    write(table, tmp_path / OUT[format], format, images=draw_images(tmp_path / "images", "a.png"))
    found = read(tmp_path / OUT[format], format, images=tmp_path / "images")
    assert_same(found, replace(table, sizes=np.array([[HEIGHT, WIDTH]])))


def test_sizes_of_images_beside_the_file(tmp_path: Path) -> None:
    table = LandmarkTable(("in/a.png",), np.ones((1, 2, 2)), sizes=np.array([[HEIGHT, WIDTH]]))
    write(table, draw_images(tmp_path, "in/a.png") / "out.tps")
    assert_same(read(tmp_path / "out.tps"), table)


@pytest.mark.parametrize("format", ["coco", "cvat", "label-studio"])
def test_images_of_another_size_than_were_labelled(format: str, tmp_path: Path) -> None:
    table = LandmarkTable(("a.png",), np.ones((1, 2, 2)), sizes=np.array([[HEIGHT, WIDTH]]))
    write(table, tmp_path / OUT[format], format)
    images = draw_images(tmp_path / "half", "a.png", size=(30, 20))
    with pytest.raises(LandmarkError, match=r"a\.png is 30 x 20 pixels .* of 60 x 40"):
        read(tmp_path / OUT[format], format, images)
    with pytest.raises(LandmarkError, match="are not among"):
        read(tmp_path / OUT[format], format, draw_images(tmp_path / "other", "b.png"))


def test_landmarks_outside_their_images_are_mentioned(tmp_path: Path) -> None:
    table = LandmarkTable(("a.png",), np.full((1, 2, 2), 50.0), sizes=np.array([[HEIGHT, WIDTH]]))
    write(table, tmp_path / "out.json")
    assert "2 of 2 landmarks lie outside" in read_noted(tmp_path / "out.json")[1][0]


# ---- which format


@pytest.mark.parametrize("format", FORMATS)
def test_the_content_tells_formats_of_one_ending_apart(format: str, tmp_path: Path) -> None:
    table = full_table(format)
    path = tmp_path / OUT[format]
    write(table, path, format)
    if format == "morphoj":
        path = path.rename(tmp_path / "out.csv")
    if FORMATS[format].sizes == "needed":
        draw_images(tmp_path / "images", *(f"{image}.png" for image in table.images))
    assert_same(read(path, images=find(tmp_path / "images")), table)


def test_endings_and_names_of_formats(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match=r"a\.csv: no such"):
        read(tmp_path / "a.csv")
    for act in (read, check_writable, lambda path: write(small_table(), path)):
        with pytest.raises(LandmarkError, match=r"ending; known are \.csv, \.h5, .*\.xml"):
            act(tmp_path / "a.docx")
        with pytest.raises(LandmarkError, match="'yolo'; known are csv, coco, pts"):
            formats.read(tmp_path / "a.csv", "yolo")
    write(small_table(), tmp_path / "A.JSON")
    assert (tmp_path / "A.JSON").read_text().startswith("{")


def test_files_and_folders_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.pts").write_text("")
    for act in (check_writable, check_free):
        with pytest.raises(LandmarkError, match=r"folder\.csv is a folder"):
            act(tmp_path / "folder.csv")
        with pytest.raises(LandmarkError, match=r"file\.pts is a file; give the name of a folder"):
            act(tmp_path / "file.pts")
    with pytest.raises(LandmarkError, match=r"folder\.csv is a folder"):
        read(tmp_path / "folder.csv", "csv")
    check_free(tmp_path / "folder.csv", "pts")
    write(small_table(), tmp_path / "folder.csv", "pts")
    check_writable(tmp_path / "folder.csv", "pts")
    with pytest.raises(LandmarkError, match=r"exists already; .* --overwrite"):
        check_free(tmp_path / "folder.csv", "pts")


# ---- nonsense


NONSENSE = {
    "nothing": b"",
    "blank": b" \r\n\r\n \t\n",
    "zeros": b"\0" * 1000,
    "noise": bytes(range(256)) * 40,
    "letters": b"a" * 300_000,
    "brackets": b"[" * 200_000,
    "braces": b'{"a":' * 100_000,
    "digits": b"1" * 100_000,
    "rows": b"1,2,3\n" * 1000,
    "json": b'{"images": [], "annotations": []}',
    "list": b"[1, 2]",
    "tasks": b'[{"data": {}}]',
    "tags": b"<annotations>" + b"<a>" * 1000,
    "root": b"<html></html>",
    "cut": b"<annotations><image name='a'",
    "marked": b"\xff\xfea",
    "words": b"LM=1\nIMAGE=a\n",
    "curly": b"version: 1\nn_points: 3\n{\n1 2\n}\n",
    "header": b"scorer,a\nbodyparts,b\ncoords,x\n",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("content", NONSENSE)
def test_nonsense_is_refused_by_name(format: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / OUT[format]
    path.write_bytes(NONSENSE[content])
    with pytest.raises(LandmarkError) as caught:
        read(path, format)
    assert path.name in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("ending", sorted({ending for each in FORMATS.values() for ending in each.endings}))
def test_much_nonsense_is_refused_at_once(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"much{ending}"
    for text in (False, True):
        if text and ending not in (".json", ".xml"):  # which may well be one line
            path.write_bytes(b"lorem ipsum, " * 8_000_000)
        else:
            with path.open("wb") as file:
                file.truncate(100_000_000)
        start = time.process_time()
        with pytest.raises(LandmarkError, match="much"):
            read(path)
        assert time.process_time() - start < 2


def test_exchanged_axes_are_refused_where_images_are_known(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (200, 100)).save(tmp_path / f"{name}.png")
    path = tmp_path / "rows.csv"
    path.write_text("image,nose_x,nose_y,tail_x,tail_y\na.png,10,180,90,150\nb.png,12,170,90,160\n")
    assert len(read(path)) == 2  # nobody can know
    with pytest.raises(LandmarkError, match=r"rows\.csv: 4 of 4 landmarks lie outside .* they seem to be exchanged"):
        read(path, images=tmp_path)
    path.write_text("image,nose_x,nose_y,tail_x,tail_y\na.png,10,80,900,950\nb.png,12,70,90,60\n")
    assert read_noted(path, images=tmp_path)[1] == (
        "1 of 4 landmarks lie outside their images: are these the images that were labelled, and of that size?",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_other_encodings_and_line_ends(encoding: str, end: str, tmp_path: Path) -> None:
    images = draw_images(tmp_path, "café.png")
    for name, text in {
        "a.csv": "image,x0,y0\ncafé.png,1.5,2\n",
        "a.tps": "LM=1\n1.5 38\nIMAGE=café.png\n",
        "a.txt": "ID\tx1\ty1\ncafé.png\t1.5\t38\n",
        "b.csv": "scorer,s,s\nbodyparts,0,0\ncoords,x,y\ncafé.png,1.5,2\n",
        "a.json": '{"images": [{"id": 1, "file_name": "café.png"}],\n'
        '"annotations": [{"image_id": 1, "keypoints": [1.5, 2, 2]}]}\n',
    }.items():
        (tmp_path / name).write_bytes(text.replace("\n", end).encode(encoding))
        table = read(tmp_path / name, images=images)
        assert (table.images, table.points.tolist()) == (("café.png",), [[[1.5, 2]]]), name


# ---- the command


def test_convert(command: Command, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "photos", "a.png", "b.png")
    (tmp_path / "in.csv").write_text("image,nose_x,nose_y,age\na.png,1.5,2,old\nb.png,,,\n")
    code, out, err = command("convert", tmp_path / "in.csv", tmp_path / "new/out.tps", "--images", images)
    assert (code, out) == (0, f"1 landmarks on 2 images: {tmp_path / 'new/out.tps'}\n")
    assert err.splitlines() == [
        f"equimark: {tmp_path / 'in.csv'}: columns that are no landmarks are left out: 'age'",
        f"equimark: {tmp_path / 'new/out.tps'}: 1 landmarks that are not visible are written as NA, which geomorph "
        "reads; tpsDig does not",
        f"equimark: {tmp_path / 'new/out.tps'}: names of landmarks are left out, their order stays: 'nose'",
    ]
    assert (tmp_path / "new/out.tps").read_text() == "LM=1\n1.5 38\nIMAGE=a.png\nID=0\nLM=1\nNA NA\nIMAGE=b.png\nID=1\n"


def test_convert_overwrites_only_when_told(command: Command, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("image,x0,y0\na,1,2\n")
    (tmp_path / "out.json").write_text("mine")
    words = ("convert", tmp_path / "in.csv", tmp_path / "out.json")
    code, _, err = command(*words)
    assert (code, err.count("\n")) == (1, 1) and "exists already" in err
    assert (tmp_path / "out.json").read_text() == "mine"
    assert command(*words, "--overwrite", "--to", "coco")[0] == 0
    assert read(tmp_path / "out.json").points.tolist() == [[[1, 2]]]
    assert command("convert", tmp_path / "out.json", tmp_path / "points", "--to", "pts")[0] == 0
    assert read(tmp_path / "points").points.tolist() == [[[1, 2]]]
    assert command("convert", tmp_path / "in.csv", tmp_path / "points", "--to", "pts")[0] == 1


def test_convert_says_in_one_line_what_is_wrong(command: Command, tmp_path: Path) -> None:
    (tmp_path / "in.tps").write_text("LM=1\n1 2\nIMAGE=a.png\n")
    code, _, err = command("convert", tmp_path / "in.tps", tmp_path / "out.csv")
    assert (code, err.count("\n")) == (1, 1) and "'a.png' is not beside the file" in err
    code, _, err = command("convert", tmp_path / "in.tps", tmp_path / "out.doc")
    assert (code, err.count("\n")) == (1, 1) and "known are .csv" in err


def test_help_lists_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in FORMATS)


def test_the_documentation_lists_every_format() -> None:
    text = (Path(__file__).parent.parent / "docs/formats.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    listed = {row[0].strip("`"): row for row in rows if len(row) == 6 and not row[0].startswith("`--")}
    assert list(listed) == list(FORMATS)
    for name, (_, endings, _, read_too, written_too, missing) in listed.items():
        assert re.findall(r"`(\.\w+)`", endings) == list(FORMATS[name].endings)
        assert (read_too, written_too) == ("yes", "yes")
        lacking = {"names", "confidence", "splits", "scale"} - FORMATS[name].holds
        assert {word.strip() for word in missing.replace("names (but of curves)", "").split(",")} - {""} == lacking
