"""Small files as the original tools write them, with values worked by hand; and files with one fault each."""

import builtins
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from equimark.formats import check_writable, read, read_noted, write
from equimark.formats.text import settle
from equimark.images import ImageError, decode, stored_size
from equimark.landmarks import LandmarkError, LandmarkTable
from landmark_tables import NAN, small_table


def noted(folder: Path, name: str, text: str, images: Path | None = None) -> tuple[LandmarkTable, tuple[str, ...]]:
    (folder / name).write_text(text, encoding="utf-8")
    return read_noted(folder / name, images=images)


def refuses(folder: Path, name: str, text: str, message: str, images: Path | None = None) -> None:
    with pytest.raises(LandmarkError, match=message) as caught:
        noted(folder, name, text, images)
    assert name.partition("/")[0] in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images a.png and b.png of 60 x 40 pixels (width, height)."""
    (tmp_path / "photos").mkdir()
    for name in "ab":
        Image.new("RGB", (60, 40)).save(tmp_path / f"photos/{name}.png")
    return tmp_path / "photos"


# ---- COCO


COCO: dict[str, Any] = {
    "info": {"year": 2024},
    "images": [
        {"id": 397133, "file_name": "a.jpg", "width": 640, "height": 427},
        {"id": 7, "file_name": "b.jpg", "width": 64, "height": 48},
        {"id": 8, "file_name": "c.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "keypoints": [3, 4, 1, 0, 0, 0], "num_keypoints": 1},
        {"id": 2, "image_id": 397133, "category_id": 1, "keypoints": [100.5, 2, 2, 30, 40, 2], "bbox": [1, 2, 3, 4]},
        {"id": 3, "image_id": 397133, "category_id": 1, "keypoints": [0, 0, 0, 0, 0, 0], "iscrowd": 1},
        {"id": 4, "image_id": 8, "category_id": 2, "bbox": [1, 2, 3, 4]},
    ],
    "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "tail"]}, {"id": 2, "name": "box"}],
}


def test_coco(tmp_path: Path) -> None:
    table, notes = noted(tmp_path, "a.json", json.dumps(COCO))
    assert (table.images, table.names) == (("b.jpg", "a.jpg"), ("nose", "tail"))
    np.testing.assert_array_equal(table.points, [[[3, 4], [NAN, NAN]], [[100.5, 2], [30, 40]]])  # nothing shifted
    assert table.sizes is not None and table.sizes.tolist() == [[48, 64], [427, 640]]
    assert notes == (
        "1 images have no keypoints and are left out",
        "1 landmarks are labelled as occluded (v = 1) and count as visible here",
        "the name of the category, 'person', is left out: written again it is 'object'",
        "boxes of 1 objects are left out: written again they are those of the landmarks",
        "other parts of the file are left out: 'info'",
    )


def test_coco_says_what_is_not_kept(tmp_path: Path) -> None:
    """What is written is read without a word; links, other entries and boxes of any kind are named."""
    write(small_table(), tmp_path / "own.json", "coco")
    own = json.loads((tmp_path / "own.json").read_text())
    assert read_noted(tmp_path / "own.json")[1] == ()
    own["categories"][0]["skeleton"] = [[1, 2]]
    own["images"][0]["coco_url"], own["annotations"][1]["track_id"] = "http://x", 7
    for annotation, box in zip(own["annotations"], ([1, 2, "x", 4], None, [1, 2]), strict=False):
        annotation["bbox"] = box
    assert noted(tmp_path, "more.json", json.dumps(own))[1] == (
        "the links between keypoints (skeleton) are left out",
        "boxes of 3 objects are left out: written again they are those of the landmarks",
        "other entries of images are left out: 'coco_url'",
        "other entries of objects are left out: 'track_id'",
    )


def test_coco_as_written(tmp_path: Path) -> None:
    points = np.array([[[1, 2], [NAN, NAN], [5, 10.5]]])
    table = LandmarkTable(("a.jpg",), points, ("l", "m", "r"), np.array([[0.5, NAN, 1]]), ("train",))
    notes = write(table, tmp_path / "a.json")
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["images"] == [{"id": 1, "file_name": "a.jpg", "split": "train"}]
    (annotation,) = document["annotations"]
    assert annotation["keypoints"] == [1, 2, 2, 0, 0, 0, 5, 10.5, 2] and annotation["num_keypoints"] == 2
    assert (annotation["bbox"], annotation["area"], annotation["iscrowd"]) == ([1, 2, 4, 8.5], 34, 0)
    assert (annotation["keypoint_scores"], annotation["score"]) == ([0.5, None, 1], 0.75)
    assert document["categories"][0]["keypoints"] == ["l", "m", "r"]
    assert notes == ("width and height of 1 images are left out, they are not known: give the images (--images)",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "'images' must be a list"),
        ({"categories": [{"id": 1, "keypoints": ["nose"]}]}, "annotation 1: 2 keypoints, but 1 are expected"),
        ({"images": COCO["images"][1:]}, "annotation 2: no image has the id '397133'"),
        ({"annotations": COCO["annotations"][3:]}, "no annotation with 'keypoints'"),
        ({"annotations": [COCO["annotations"][1]] * 2}, "2 objects on the image 'a.jpg'"),
        ({"annotations": [{"id": 1, "image_id": 7, "keypoints": [1, 2]}]}, "annotation 1: 'keypoints' must be a list"),
        ({"annotations": [{"id": 1, "image_id": 7, "keypoints": [1, "2", 2]}]}, "annotation 1: .* is '2'; it must be"),
        ({"annotations": [{"id": 1, "image_id": 7, "keypoints": [1, NAN, 2]}]}, "annotation 1: .* is nan"),
        ({"annotations": [{"id": 1, "image_id": 7, "keypoints": [1, 2, -1]}]}, "annotation 1: v .* 0, 1 or 2"),
        ({"images": [{"id": i, "file_name": "a"} for i in (7, 397133, 8)]}, "annotation 2: 'a' again"),
        ({"images": [{"id": 7}, {"id": 397133}, {"id": 8}]}, "annotation 1: no image named"),
        (
            {"categories": [*COCO["categories"], {"id": 3, "keypoints": ["x", "y"]}]}
            | {"annotations": [COCO["annotations"][0], COCO["annotations"][1] | {"category_id": 3}]},
            r"other keypoints \('1', '3'\)",
        ),
    ],
)
def test_faults_of_coco(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    refuses(tmp_path, "a.json", json.dumps(COCO | change), message)


def test_faults_of_json(tmp_path: Path) -> None:
    refuses(tmp_path, "a.json", '{"images": [\n1,\n}', "line 3: not JSON .* complete")
    refuses(tmp_path, "a.json", '{"results": 1}', "not a COCO file: it must hold 'images'")


# ---- .pts


PTS = "version: 1\nn_points:  3\n{\n1 1\n336.820955 240.864510\n10.5 2.25\n}\n"


def test_pts_count_from_one(tmp_path: Path) -> None:
    table, notes = noted(tmp_path, "image_0010.pts", PTS)
    assert (table.images, table.names, notes) == (("image_0010",), None, ())
    np.testing.assert_array_equal(table.points, [[[0, 0], [335.820955, 239.86451], [9.5, 1.25]]])


def test_pts_beside_their_images(tmp_path: Path) -> None:
    for name, x in (("b/7", 2), ("7", 3), ("a.b", 4), (".hidden", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.pts").write_text(f"version: 1\r\nn_points: 1\r\n{{\r\n{x},5 1\r\n}}\r\n")
    for name in ("b/7.jpg", "a.b.png", "7.jpg", "7.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    table = read(tmp_path)
    assert table.images == ("7", "a.b.png", "b/7.jpg")  # two images are called 7
    assert table.points[:, 0].tolist() == [[2.5, 0], [3.5, 0], [1.5, 0]]


def test_pts_as_written(tmp_path: Path) -> None:
    points = np.array([[[0, 0.12345], [9.5, 2]], [[NAN, NAN], [1, 1]]])
    notes = write(LandmarkTable(("in\\a.jpg", "b.c"), points), tmp_path / "out", "pts")
    files = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.pts"))
    assert files == ["out/b.c.pts", "out/in/a.pts"]
    assert (tmp_path / "out/in/a.pts").read_text() == "version: 1\nn_points: 2\n{\n1 1.1235\n10.5 3\n}\n"
    assert (tmp_path / "out/b.c.pts").read_text().splitlines()[3] == "nan nan"
    assert write(LandmarkTable(("c",), points[:1]), tmp_path / "out", "pts") == (
        f"{tmp_path / 'out'} holds 2 other .pts files, which stay there",
    )
    assert notes == (
        "1 images ('b.c') have landmarks that are not visible; they are written as 'nan nan', which few other "
        "programs read",
        "the endings of the images' names are left out: keep the files beside the images, which have them",
    )


@pytest.mark.parametrize(
    "names", [("../a",), ("/a",), ("C:\\a.jpg",), (".a",), ("x/../../a",), ("a.jpg", "a.png"), ("x/.git/a",), ("..",)]
)
def test_pts_stay_in_their_folder(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(LandmarkError, match=r"leads out of the folder|two images"):
        write(LandmarkTable(names, np.zeros((len(names), 1, 2))), tmp_path / "out", "pts")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{", "(", "between lines of { and }"),
        ("3", "4", "holds 3 points, but says n_points: 4"),
        ("1 1\n", "1 1 1\n", "line 4: 3 numbers; each line needs x and y"),
        ("1 1\n", "1 one\n", "line 4: 'one' is not a number"),
        ("1 1\n", "nan 1\n", "landmark 0 has only one"),
        ("1 1\n", "1e400 1\n", "landmark 0 is infinite"),
        ("1 1\n", "1 1e30\n", "landmark 0 lies beyond any image"),
        ("version: 1", "version: 2", "of version 2"),
        ("version: 1", "68", "line 1: expected 'version: 1'"),
    ],
)
def test_faults_of_pts(tmp_path: Path, old: str, new: str, message: str) -> None:
    refuses(tmp_path, "a.pts", PTS.replace(old, new), message)


def test_faults_of_folders_of_pts(tmp_path: Path) -> None:
    with pytest.raises(LandmarkError, match=r"holds no \.pts files"):
        read(tmp_path)
    (tmp_path / "a.pts").write_text(PTS)
    (tmp_path / "b.pts").write_text("n_points: 1\n{\n1 1\n}")
    with pytest.raises(LandmarkError, match=r"b\.pts has 1 points, but a\.pts has 3"):
        read(tmp_path)


# ---- .tps


TPS = """LM=2
10.00000 39.00000
0.50000 0.00000
IMAGE=a.png
ID=0
SCALE=0.004512
LM=2
NA NA
-1.00000 -1.00000
IMAGE=b.png
ID=1
"""


def test_tps_count_from_the_bottom(tmp_path: Path, photos: Path) -> None:
    table, notes = noted(tmp_path, "a.tps", TPS, photos)
    assert (table.images, table.names, notes) == (("a.png", "b.png"), None, ())
    np.testing.assert_array_equal(table.points, [[[10, 1], [0.5, 40]], [[NAN, NAN], [NAN, NAN]]])  # 40 - y
    assert table.scale is not None and table.sizes is not None
    np.testing.assert_array_equal(table.scale, [0.004512, NAN])
    assert table.sizes.tolist() == [[40, 60], [40, 60]]


def test_tps_of_windows_with_decimal_commas(tmp_path: Path, photos: Path) -> None:
    text = "\nlm=1\r\n  10,25\t39,5 \r\n\r\nImage=C:\\photos\\a.png\r\nID=specimen 1\r\nScale=0,5\r\nCOMMENT=good\r\n"
    table, notes = noted(tmp_path, "a.tps", text, photos)
    assert (table.images, table.points.tolist()) == (("C:\\photos\\a.png",), [[[10.25, 0.5]]])
    assert table.scale is not None and table.scale.tolist() == [0.5]
    assert notes == (
        "lines that say no landmark are left out: 'COMMENT='",
        "the ID= of specimens is left out, their images name them: 'specimen 1'",
    )


def test_tps_of_geomorph_names_specimens_by_id(tmp_path: Path, photos: Path) -> None:
    table, notes = noted(tmp_path, "a.tps", "LM=1\n1 39\nID=b\n\nLM=1\nNA NA\nID=a\n\n", photos)
    assert (table.images, table.visible.tolist(), notes) == (("b", "a"), [[True], [False]], ())


CURVES = """LM=1
1 39
CURVES=2
POINTS=2
2 38
3 37
POINTS=1
4 NA
IMAGE=a.png
ID=0
"""


def test_tps_curves_become_landmarks_and_curves_again(tmp_path: Path, photos: Path) -> None:
    text = CURVES.replace("4 NA", "4 36")
    table, notes = noted(tmp_path, "a.tps", text, photos)
    assert table.names == ("landmark0", "curve0_0", "curve0_1", "curve1_0") and notes == ()
    assert table.points.tolist() == [[[1, 1], [2, 2], [3, 3], [4, 4]]]
    assert write(table, tmp_path / "b.tps") == ()
    assert (tmp_path / "b.tps").read_text() == text


def test_tps_outlines_and_chains_are_left_out(tmp_path: Path, photos: Path) -> None:
    text = "LM=1\n1 39\nOUTLINES=1\nPOINTS=2\n2 38\n3 37\nCHAIN=3\n0123\n4567\nIMAGE=a.png\n"
    table, notes = noted(tmp_path, "a.tps", text, photos)
    assert table.points.tolist() == [[[1, 1]]]
    assert notes == ("lines that say no landmark are left out: 'OUTLINES=', 'CHAIN='",)


def test_tps_names_that_are_no_curves(tmp_path: Path) -> None:
    def notes(*names: str) -> tuple[str, ...]:
        points = np.ones((1, len(names), 2))
        return write(LandmarkTable(("a",), points, names, sizes=np.array([[9, 9]])), tmp_path / "a.tps")

    assert notes("curve0_0", "curve0_1") == ()
    assert notes("nose", "curve0_0") == ("names of landmarks are left out, their order stays: 'nose'",)
    for broken in (("curve0_0", "nose"), ("curve0_1", "curve0_0"), ("curve1_0", "curve1_1"), ("nose", "tail")):
        assert len(notes(*broken)) == 1
        assert "CURVES" not in (tmp_path / "a.tps").read_text()


def test_tps_cannot_tell_what_is_left_and_below_from_missing(tmp_path: Path) -> None:
    points = np.array([[[-1.0, 12.0], [-1.0, 3.0], [NAN, NAN]]])
    table = LandmarkTable(("a",), points, sizes=np.array([[9, 9]]))
    notes = write(table, tmp_path / "a.tps")
    assert (tmp_path / "a.tps").read_text().startswith("LM=3\nNA NA\n-1 6\nNA NA\n")
    assert notes[0].startswith("1 landmarks that are not visible") and notes[1].startswith("1 landmarks left of and")
    for name in (" a", "a\nb"):
        with pytest.raises(LandmarkError, match=r"cannot stand in a \.tps file"):
            write(LandmarkTable((name,), points, sizes=np.array([[9, 9]])), tmp_path / "b.tps")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("LM=2\n10", "LM=3\n10", "line 1: LM=3, but 2 lines"),
        ("LM=2\n10", "LM=1\n10", "line 3: '0.50000 0.00000' is more than"),
        ("LM=2\nNA NA\n", "LM=1\n", "line 7: a specimen of 1 landmarks, but the first has 2"),
        ("LM=2\nNA", "LM=two\nNA", "line 7: 'LM=two' should say how many"),
        ("LM=2\nNA", "LM3=2\nNA", "line 7: landmarks in three dimensions"),
        ("10.00000 39.00000", "10.00000", "line 2: '10.00000' should be x and y"),
        ("10.00000 39.00000", "10.00000 39.00000 1.0", "line 2: .* should be x and y"),
        ("39.00000", "x39", "line 2: 'x39' is not a number"),
        ("NA NA", "NA 1", "line 7: landmark 0 has only one"),
        ("IMAGE=b.png\nID=1\n", "", "line 7: no image named"),
        ("b.png", "a.png", "line 7: 'a.png' again, after .*line 1"),
        ("b.png", "c.png", "not among the 2 images"),
        ("LM=2\nNA NA\n-1.00000 -1.00000\n", "", "line 7: IMAGE= again; each specimen must begin"),
        ("SCALE=0.004512", "SCALE=0", "line 1: SCALE=0 must be positive"),
        ("SCALE=0.004512", "CURVES=1", "line 1: CURVES=1, but 0 lists of POINTS="),
        ("SCALE=0.004512", "CURVES=1\nPOINTS=2\n1 1", "line 7: POINTS=2, but 1 lines"),
        ("LM=2\n10", "10", "must begin with LM="),
    ],
)
def test_faults_of_tps(tmp_path: Path, photos: Path, old: str, new: str, message: str) -> None:
    assert old in TPS
    refuses(tmp_path, "photos.tps", TPS.replace(old, new), message, photos)


def test_other_faults_of_tps(tmp_path: Path, photos: Path) -> None:
    refuses(tmp_path, "a.tps", "LM=0\nIMAGE=a.png\n", "holds no landmarks", photos)
    refuses(tmp_path, "a.tps", CURVES, "landmark 3 has only one", photos)
    (photos / "a.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"a\.png: not an image"):
        noted(tmp_path, "a.tps", TPS, photos)


# ---- DeepLabCut


DLC = """scorer,,,anna,anna,anna,anna
bodyparts,,,nose,nose,tail,tail
coords,,,x,y,x,y
labeled-data,film,img020.png,,,300.579,506.171
labeled-data,film,img099.png,280.5,521.695,330.612,495.885
"""


def test_deeplabcut_labels(tmp_path: Path) -> None:
    table, notes = noted(tmp_path, "CollectedData_anna.csv", DLC)
    assert table.images == ("labeled-data/film/img020.png", "labeled-data/film/img099.png")
    assert (table.names, table.confidence) == (("nose", "tail"), None)
    assert notes == ("the scorer, 'anna', is left out: written again it is 'equimark'",)
    np.testing.assert_array_equal(table.points[0], [[NAN, NAN], [300.579, 506.171]])
    write(table, tmp_path / "again.csv", "deeplabcut")
    assert (tmp_path / "again.csv").read_text() == DLC.replace("anna", "equimark")
    assert read_noted(tmp_path / "again.csv")[1] == ()


def test_deeplabcut_points_of_two_scorers(tmp_path: Path) -> None:
    text = "scorer,anna,anna,ben,ben\nbodyparts,nose,nose,nose,nose\ncoords,x,y,x,y\na.png,1,2,3,4\n"
    refuses(tmp_path, "a.csv", text, "several scorers .'anna', 'ben'.: keep the columns of one")


def test_deeplabcut_predictions_of_one_animal_in_a_video(tmp_path: Path) -> None:
    text = "scorer,net,net,net\nindividuals,mouse,mouse,mouse\nbodyparts,nose,nose,nose\ncoords,y,x,likelihood\n"
    table, notes = noted(tmp_path, "a.csv", text + "0,2.5,1,0.99\n1,4,3,\n")
    assert (table.images, table.points.tolist()) == (("0", "1"), [[[1, 2.5]], [[3, 4]]])
    np.testing.assert_array_equal(table.confidence, [[0.99], [NAN]])
    assert notes == (
        "the scorer, 'net', is left out: written again it is 'equimark'",
        "the rows are numbers of frames of a video: name the images so to use them together",
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("coords,,,x,y,x,y\n", "", "lacks a row 'bodyparts' or 'coords'"),
        ("x,y,x,y", "x,y,x,z", "columns that are missing: 'tail y'"),
        ("nose,nose,tail,tail", "nose,nose,nose,nose", "body part that occurs twice"),
        ("img099.png,280.5,", "img099.png,", "line 5: 6 cells, but the first row has 7"),
        ("280.5", "left", "line 5: 'left' is not a number"),
        ("280.5", "", "line 5: landmark 0 has only one"),
        ("img099", "img020", "line 5: 'labeled-data/film/img020.png' again"),
        ("labeled-data,film,img099.png", ",,", "line 5: no image named"),
        (
            "bodyparts,,,nose,nose,tail,tail",
            "individuals,,,a,a,b,b\nbodyparts,,,nose,nose,nose,nose",
            "several animals",
        ),
    ],
)
def test_faults_of_deeplabcut(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in DLC
    refuses(tmp_path, "a.csv", DLC.replace(old, new), message)


def test_deeplabcut_header_without_rows(tmp_path: Path) -> None:
    refuses(tmp_path, "a.csv", "".join(DLC.splitlines(keepends=True)[:3]), "header but no rows")


def test_deeplabcut_h5_as_pandas_writes_it(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    columns = pandas.MultiIndex.from_product([["anna"], ["nose", "tail"], ["x", "y"]])
    columns.names = ["scorer", "bodyparts", "coords"]
    rows = pandas.MultiIndex.from_tuples([("labeled-data", "film", "a.png")])
    frame = pandas.DataFrame([[1.5, 2, NAN, NAN]], rows, columns)
    older = pandas.DataFrame(frame.to_numpy(), ["labeled-data/film/a.png"], columns)
    frame.to_hdf(tmp_path / "fixed.h5", key="df_with_missing", mode="w")
    older.to_hdf(tmp_path / "table.h5", key="df_with_missing", format="table", mode="w")
    for layout in ("fixed", "table"):
        table = read(tmp_path / f"{layout}.h5")
        assert (table.images, table.names) == (("labeled-data/film/a.png",), ("nose", "tail"))
        np.testing.assert_array_equal(table.points, [[[1.5, 2], [NAN, NAN]]])
    write(table, tmp_path / "again.h5")
    again = pandas.read_hdf(tmp_path / "again.h5")
    np.testing.assert_array_equal(again.to_numpy(), frame.to_numpy())
    assert again.index.equals(frame.index) and list(again.columns.droplevel(0)) == list(columns.droplevel(0))


def test_deeplabcut_h5_without_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "tables":
            raise ImportError(name)
        return usual(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    refuses(tmp_path, "a.h5", "", r"pip install 'equimark\[formats\]'; or use the .csv")


# ---- Label Studio


def task(**change: Any) -> dict[str, Any]:
    """A task whose image of 200 x 100 (width, height) has its nose in the middle."""
    value = {"x": 50, "y": 50, "width": 0.6, "keypointlabels": ["nose"]}
    result = {"original_width": 200, "original_height": 100, "image_rotation": 0, "value": value}
    result |= {"id": "Dx_aB91ISN", "from_name": "label", "to_name": "image", "type": "keypointlabels"}
    annotation = {"id": 1001, "result": [result], "was_cancelled": False, "completed_by": 10}
    return {"id": 1, "data": {"image": "a.jpg"}, "annotations": [annotation], "predictions": []} | change


def label_studio(folder: Path, *tasks: dict[str, Any]) -> tuple[LandmarkTable, tuple[str, ...]]:
    return noted(folder, "a.json", json.dumps(list(tasks)))


def changed(result: dict[str, Any]) -> dict[str, Any]:
    """A task with one more result."""
    (annotation,) = task()["annotations"]
    (first,) = annotation["result"]
    return task(annotations=[annotation | {"result": [first, first | result]}])


def test_label_studio_gives_shares_from_border_to_border(tmp_path: Path) -> None:
    tail = {"value": {"x": 0.25, "y": 99.5, "keypointlabels": ["tail"]}}
    table, notes = label_studio(tmp_path, changed(tail))
    assert (table.images, table.names, table.confidence, notes) == (("a.jpg",), ("nose", "tail"), None, ())
    # The middle of 200 pixels lies between the centres 99 and 100; 0.25 % of 200 is the middle of the first pixel.
    assert table.points.tolist() == [[[99.5, 49.5], [0, 99]]]
    assert table.sizes is not None and table.sizes.tolist() == [[100, 200]]


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("/data/upload/3/1a2b3c4d-photo_1.jpg", "photo_1.jpg"),
        ("/data/upload/photo.jpg", "photo.jpg"),
        ("/data/local-files/?d=photos%2Fa%20b.jpg", "photos/a b.jpg"),
        ("https://example.com/set/a%20b.jpg?size=1", "set/a b.jpg"),
        ("s3://bucket/set/a.jpg", "set/a.jpg"),
        ("set/a b.jpg", "set/a b.jpg"),
        ("C:\\set\\a.jpg", "C:\\set\\a.jpg"),
        ("http://[broken/a.jpg", "http://[broken/a.jpg"),
    ],
)
def test_label_studio_names_of_images(tmp_path: Path, link: str, name: str) -> None:
    assert label_studio(tmp_path, task(data={"image": link}))[0].images == (name,)
    assert label_studio(tmp_path, task(data={"picture": link, "who": "anna"}))[0].images == (name,)


def test_label_studio_leaves_out(tmp_path: Path) -> None:
    cancelled = task(id=2, data={"image": "b.jpg"}, annotations=[{"was_cancelled": True, "result": []}])
    predicted = task(id=3, data={"image": "c.jpg"}, annotations=[], predictions=[{"result": []}])
    table, notes = label_studio(tmp_path, changed({"type": "rectanglelabels"}), cancelled, predicted)
    assert table.images == ("a.jpg", "c.jpg") and table.visible.tolist() == [[True], [False]]
    assert notes == (
        "1 tasks are not annotated and are left out",
        "1 tasks are not annotated; their predictions are taken",
        "annotations that are no keypoints are left out: 'rectanglelabels'",
    )


def test_label_studio_before_version_1_needs_the_images(tmp_path: Path, photos: Path) -> None:
    result = {"type": "keypointlabels", "value": {"x": 50, "y": 25, "keypointlabels": ["0"]}}
    old = {"id": 0, "data": {"image": "https://x.org/a.png"}, "completions": [{"result": [result]}]}
    with pytest.raises(LandmarkError, match="sizes of the images are needed"):
        label_studio(tmp_path, old)
    table = read(tmp_path / "a.json", images=photos)
    assert table.points.tolist() == [[[29.5, 9.5]]] and table.names is None  # of 60 x 40


def test_label_studio_as_written(tmp_path: Path) -> None:
    points = np.array([[[99.5, 49.5], [NAN, NAN]]])
    table = LandmarkTable(("in/é.jpg",), points, ("nose", "tail"), splits=("test",), sizes=np.array([[100, 200]]))
    assert write(table, tmp_path / "a.json", "label-studio") == ()
    (made,) = json.loads((tmp_path / "a.json").read_text())
    assert made["data"]["image"] == "/data/local-files/?d=in/%C3%A9.jpg" and "predictions" not in made
    (result,) = made["annotations"][0]["result"]
    assert (result["original_width"], result["original_height"], result["type"]) == (200, 100, "keypointlabels")
    assert result["value"] == {"x": 50, "y": 50, "width": 0.5, "keypointlabels": ["nose"]}
    sure = LandmarkTable(("a",), points, confidence=np.array([[0.25, 0.5]]), sizes=np.array([[100, 200]]))
    notes = write(sure, tmp_path / "a.json", "label-studio")
    (made,) = json.loads((tmp_path / "a.json").read_text())
    assert made["predictions"][0]["result"][0]["score"] == 0.25 and "annotations" not in made
    assert notes == ("the confidence of landmarks that are not visible is left out",)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ([task(annotations=task()["annotations"] * 2)], "task 1 has 2 annotations; keep one"),
        ([changed({})], "task 1: 'nose' occurs twice"),
        ([changed({"value": {"x": 1, "y": 2, "keypointlabels": []}})], "task 1: a keypoint must have one label"),
        ([changed({"value": {"x": "1", "y": 2, "keypointlabels": ["t"]}})], "task 1: x of 't' is '1'"),
        ([changed({"value": {"y": 2, "keypointlabels": ["t"]}})], "task 1: x of 't' is None"),
        (
            [changed({"image_rotation": 90, "value": {"x": 1, "y": 2, "keypointlabels": ["t"]}})],
            "task 1: the image was turned",
        ),
        ([task(), task(id=2)], "task 2: 'a.jpg' again, after .*task 1"),
        ([task(data={"text": "hello"})], "task 1: which of its data is the image"),
        ([task(data="a.jpg")], "task 1: no 'data'"),
        ([task(annotations=[])], "no task in it has any"),
    ],
)
def test_faults_of_label_studio(tmp_path: Path, tasks: list[dict[str, Any]], message: str) -> None:
    refuses(tmp_path, "a.json", json.dumps(tasks), message)


# ---- CVAT


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><name>flies</name><labels><label><name>fly</name><type>skeleton</type></label></labels></task></meta>
  <image id="0" name="a.jpg" subset="train" width="640" height="480">
    <skeleton label="fly" source="manual" z_order="0">
      <points label="nose" source="manual" outside="0" occluded="1" points="372.40,221.12">
        <attribute name="sure">yes</attribute>
      </points>
      <points label="tail" source="manual" outside="1" occluded="0" points="0.50,640.00"></points>
    </skeleton>
    <box label="fly" xtl="1" ytl="2" xbr="3" ybr="4"></box>
  </image>
  <image id="1" name="b.jpg" width="640" height="480"></image>
</annotations>
"""


def test_cvat_counts_from_the_border(tmp_path: Path) -> None:
    table, notes = noted(tmp_path, "a.xml", CVAT)
    assert (table.images, table.names, table.splits) == (("a.jpg",), ("nose", "tail"), ("train",))
    np.testing.assert_array_equal(table.points, [[[371.9, 220.62], [NAN, NAN]]])  # half a pixel less
    assert table.sizes is not None and table.sizes.tolist() == [[480, 640]]
    assert notes == (
        "1 images have no skeleton or points and are left out",
        "1 landmarks are marked as occluded and count as visible here",
        "attributes are left out",
        "shapes that are no points are left out: 'box'",
    )


def test_cvat_points(tmp_path: Path) -> None:
    def points(*shapes: str) -> LandmarkTable:
        return noted(tmp_path, "a.xml", f"<annotations><image name='a'>{''.join(shapes)}</image></annotations>")[0]

    table = points("<points label='wheel' points='574.90,939.48;0.5,1.5'/>")
    assert (table.names, table.sizes, table.points.tolist()) == (None, None, [[[574.4, 938.98], [0, 1]]])
    table = points("<points label='r' points='1.5,2.5'/>", "<points label='l' points='3.5,4.5'/>")
    assert (table.names, table.points.tolist()) == (("r", "l"), [[[1, 2], [3, 4]]])


def test_cvat_as_written(tmp_path: Path) -> None:
    points = np.array([[[0, 1.25], [NAN, NAN]]])
    table = LandmarkTable(("<a>.jpg",), points, ("nose", "tail"), splits=("test",), sizes=np.array([[48, 64]]))
    assert write(table, tmp_path / "a.xml") == ()
    assert [line.strip() for line in (tmp_path / "a.xml").read_text().splitlines()] == [
        "<?xml version='1.0' encoding='utf-8'?>",
        "<annotations>",
        "<version>1.1</version>",
        '<image id="0" name="&lt;a&gt;.jpg" subset="test" width="64" height="48">',
        '<skeleton label="landmarks" source="manual" z_order="0">',
        '<points label="nose" source="manual" outside="0" occluded="0" points="0.5,1.75" />',
        '<points label="tail" source="manual" outside="1" occluded="0" points="0,0" />',
        "</skeleton>",
        "</image>",
        "</annotations>",
    ]
    with pytest.raises(LandmarkError, match="characters that XML cannot"):
        write(LandmarkTable(("a\x07",), points), tmp_path / "b.xml")


POINT = "<points label='nose' points='1,2'/>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CVAT.replace("</annotations>", ""), "not XML .* complete"),
        (CVAT.replace("372.40,221.12", "372.40"), "image 'a.jpg': '372.40' should be 'x,y'"),
        (CVAT.replace("372.40,221.12", "left,221.12"), "image 'a.jpg': 'left' is not a number"),
        (CVAT.replace('"tail"', '"nose"'), "image 'a.jpg': 'nose' occurs twice"),
        (CVAT.replace("</skeleton>", "</skeleton><skeleton/>"), "2 skeletons and 0 points; keep one object"),
        (CVAT.replace("</skeleton>", f"</skeleton>{POINT}"), "1 skeletons and 1 points"),
        (CVAT.replace('label="nose"', ""), "must have a label and one position"),
        (CVAT.replace("<image", "<track id='0'/><image", 1), "tracks of a video"),
        ("<annotations><image name=''>" + POINT + "</image></annotations>", "no image named"),
        ("<annotations>" + f"<image name='a'>{POINT}</image>" * 2 + "</annotations>", "'a' again"),
        ("<dataset><annotations/></dataset>", "whose root is <annotations>"),
        ("<annotations><image name='a'/></annotations>", "no skeleton or points"),
        ("<?xml version='1.0' encoding='klingon'?><annotations/>", "not XML"),
    ],
)
def test_faults_of_cvat(tmp_path: Path, text: str, message: str) -> None:
    refuses(tmp_path, "a.xml", text, message)


# ---- MorphoJ


@pytest.mark.parametrize(
    "text",
    [
        "ID\tx1\ty1\tx2\ty2\na\t1.5\t39\t\t\nb\t3\t38\t4\t0\n",
        "a\t1,5\t39\t\t\nb\t3\t38\t4\t0\n",
        "Id;X1;Y1;X2;Y2\r\na; 1,5 ;39;NA;NA\r\n\r\nb;3;38;4;0;\r\n",
        "id,x1,y1,x2,y2\na,1.5,39,,\nb,3,38,4,0\n",
    ],
)
def test_morphoj_counts_from_the_bottom(tmp_path: Path, photos: Path, text: str) -> None:
    table, notes = noted(tmp_path, "a.txt", text, photos)
    assert (table.images, notes) == (("a", "b"), ())
    np.testing.assert_array_equal(table.points, [[[1.5, 1], [NAN, NAN]], [[3, 2], [4, 40]]])  # 40 - y


def test_morphoj_as_written(tmp_path: Path) -> None:
    points = np.array([[[1.5, 1], [2, 2]], [[NAN, NAN], [3, 3]]])
    notes = write(LandmarkTable(("a b.png", "c"), points, sizes=np.array([[40, 60], [9, 9]])), tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "ID\tx1\ty1\tx2\ty2\na b.png\t1.5\t39\t2\t38\nc\t\t\t3\t6\n"
    assert notes == ("1 images ('c') have landmarks that are not visible; MorphoJ wants all of them",)
    with pytest.raises(LandmarkError, match="no tabs, quotes or spaces"):
        write(LandmarkTable(("a\tb",), points[:1], sizes=np.array([[9, 9]])), tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID\tx1\ty1\n", "has no rows"),
        ("ID\ty1\tx1\na\t1\t2\n", "line 1: 'y1' stands before 'x1'; x must come first"),
        ("ID\tx1\ty1\tz1\na\t1\t2\t3\n", "line 1: .*three dimensions"),
        ("a\t1\t2\nb\t1\n", "line 2: 2 cells"),
        ("a\t1\t2\t3\n", "line 1: 4 cells"),
        ("a 1 2\n", "line 1|no rows"),
        ("a\t1\ttwo\n", "line 1: 'two' is not a number"),
        ("a\t1\t2\n\nb\t1\t\n", "line 3: landmark 0 has only one"),
        ("a\t1\t2\na\t1\t2\n", "line 2: 'a' again, after line 1"),
        ("\t1\t2\n", "line 1: no identifier"),
        ("a\t1\t2\nc\t1\t2\n", "'c'; give the folder"),
    ],
)
def test_faults_of_morphoj(tmp_path: Path, photos: Path, text: str, message: str) -> None:
    with pytest.raises(LandmarkError, match=message):
        noted(tmp_path, "a.txt", text, photos)


# ---- what they share


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_the_size_of_an_image_is_that_of_its_pixels(kind: str, orientation: int) -> None:
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.new("RGB", (30, 20)).save(buffer, kind, exif=exif)
    height, width = (30, 20) if orientation >= 5 else (20, 30)
    assert stored_size(buffer.getvalue()) == decode(buffer.getvalue()).size == (height, width)


@pytest.mark.parametrize("data", [b"", b"text", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_has_no_size(data: bytes) -> None:
    with pytest.raises(ImageError):
        stored_size(data)


def test_settled_numbers_are_those_that_were_written() -> None:
    written = np.arange(-20_000, 20_000, 7) / 10_000
    assert (written - 0.5 + 0.5 != written).any()  # the dust
    np.testing.assert_array_equal(settle(written - 0.5 + 0.5), written)
    np.testing.assert_array_equal(settle([NAN, 1e300, -0.0]), [NAN, 1e300, 0])
    assert not np.signbit(settle([-0.0]))[0]


def test_many_files_of_pts_are_checked_before_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    check_writable(tmp_path / "out", "pts")
    with pytest.raises(LandmarkError, match="leads out"):
        write(LandmarkTable(("a", "../b"), np.zeros((2, 1, 2))), tmp_path / "out", "pts")
    assert not list((tmp_path / "out").iterdir())
