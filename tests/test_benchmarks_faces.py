"""Readers of the sets of faces, on tiny copies of their layouts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from scipy.io import savemat

import layouts
from equimark.benchmarks import BenchmarkError, load


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.shrink(monkeypatch)


def refused(name: str, root: Path, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message) as caught:
        load(name, root)
    assert str(caught.value).startswith(f"{name}: ") or str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- CelebA and MAFL ----------------------------------------------------------------------------------------

LANDMARKS = "Anno/list_landmarks_align_celeba.txt"
PARTITION = "Eval/list_eval_partition.txt"


def test_celeba_trains_on_no_test_image_of_mafl(tmp_path: Path) -> None:
    layouts.celeba(tmp_path)
    celeba, mafl = load("celeba", tmp_path), load("mafl", tmp_path)
    assert celeba.split("train").images.names == ["000001.jpg", "000003.jpg", "000004.jpg"]
    assert celeba.split("validation").images.names == ["000005.jpg", "000006.jpg"]
    assert celeba.split("test").images.names == ["000007.jpg", "000008.jpg"]
    assert mafl.split("train").images.names == ["000003.jpg", "000005.jpg"]
    assert mafl.split("test").images.names == ["000002.jpg", "000007.jpg"]
    assert not set(celeba.split("train").images.names) & set(mafl.split("test").images.names)
    assert celeba.note == "1 test images of MAFL are left out of train"


def test_the_points_and_the_crop_of_celeba(tmp_path: Path) -> None:
    """Pixel (0, 0) of the crop is pixel (0, 30) of the image; at half the size a pixel covers two by two."""
    layouts.celeba(tmp_path)
    benchmark = load("celeba", tmp_path)
    split = benchmark.split("train")
    assert benchmark.eyes == (0, 1) and split.table is not None
    assert benchmark.landmark_names is not None and benchmark.landmark_names[2] == "nose"
    assert split.table.points[0].tolist() == [[69, 109], [106, 113], [77, 142], [73, 152], [108, 154]]
    framed = split.framed(0, 178)
    np.testing.assert_allclose(framed.placement.box, (0, 30, 178, 208), atol=1e-9)
    np.testing.assert_array_equal(framed.pixels, split.pixels(0)[30:208])
    half = split.framed(0, 89).placement.to_frame(split.table.points[0])
    np.testing.assert_allclose(half[:2], [[34.25, 39.25], [52.75, 41.25]])


def test_celeba_in_its_archive_and_with_lists_beside_it(tmp_path: Path) -> None:
    layouts.celeba(tmp_path)
    shutil.make_archive(str(tmp_path / "img_align_celeba"), "zip", tmp_path / "Img", "img_align_celeba")
    shutil.rmtree(tmp_path / "Img")
    for file in (LANDMARKS, PARTITION):
        (tmp_path / file).rename(tmp_path / Path(file).name)
    split = load("celeba", tmp_path).split("test")
    assert split.images.names == ["000007.jpg", "000008.jpg"]
    assert split.pixels(1).shape == (218, 178, 3)
    layouts.cut(tmp_path / "img_align_celeba.zip", 2000)
    refused("celeba", tmp_path, r"img_align_celeba\.zip cannot be read as a zip archive .*; was it copied completely\?")


def without(*names: str) -> Callable[[Path], None]:
    return lambda root: [(root / name).unlink() for name in names] and None


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda root: layouts.replace_text(root / name, old, new)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("celeba", without(LANDMARKS), r"list_landmarks_align_celeba\.txt is missing; .* should hold Anno/"),
        ("celeba", without(PARTITION), r"list_eval_partition\.txt is missing"),
        ("celeba", without("MAFL/testing.txt"), r"MAFL/testing\.txt is missing; .*TCDCN-face-alignment"),
        ("mafl", without("MAFL/training.txt"), r"MAFL/training\.txt is missing"),
        ("celeba", without("Img/img_align_celeba/000004.jpg"), r"000004\.jpg \(1 of 3 images are not there\)"),
        ("celeba", edit(LANDMARKS, "8\n", "9\n"), "says on line 1 that it lists 9 images, but 8 follow"),
        ("celeba", edit(LANDMARKS, "73 152 108 154", "73 152 108"), "line 3: 10 columns, but 11 are wanted"),
        ("celeba", edit(LANDMARKS, "69 109", "nan 109"), "line 3: a coordinate is not finite"),
        ("celeba", edit(LANDMARKS, "69 109", "69 1o9"), "line 3: '1o9' is not a number"),
        (
            "celeba",
            edit(LANDMARKS, "69 109", "200 109"),
            r"000001\.jpg: landmark 0 at \(200, 109\) is not in .* 178 x 2",
        ),
        ("celeba", edit(LANDMARKS, "000002", "000001"), r"lists '000001\.jpg' more than once"),
        ("celeba", edit(PARTITION, "000005.jpg 1", "000005.jpg 0"), "5 of 'train', but the published set has 4"),
        ("celeba", edit(PARTITION, "000005.jpg 1", "000005.jpg 7"), r"line 5: 000005\.jpg 7, but .* 0, 1 or 2"),
        ("celeba", edit(PARTITION, "000005.jpg 1", "000055.jpg 1"), r"line 5: 000055\.jpg 1, but 000005\.jpg"),
        ("celeba", edit(PARTITION, "000008.jpg 2\n", ""), "7 of 'images', but the published set has 8"),
        ("mafl", edit("MAFL/testing.txt", "000007.jpg\n", ""), "1 of 'test', but the published set has 2"),
        ("mafl", edit("MAFL/testing.txt", "000007", "000003"), r"000003\.jpg is in MAFL/training\.txt and in"),
        ("mafl", edit("MAFL/testing.txt", "000007", "999999"), r"999999\.jpg, which is not an image of CelebA"),
        ("mafl", edit("MAFL/testing.txt", "000007", "000002"), r"'000002\.jpg' more than once"),
    ],
)
def test_celeba_that_lies_broken(name: str, damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    layouts.celeba(tmp_path)
    damage(tmp_path)
    refused(name, tmp_path, message)


def test_celeba_resized_or_cut_short(tmp_path: Path) -> None:
    layouts.celeba(tmp_path)
    layouts.cut(tmp_path / "Img/img_align_celeba/000003.jpg", 1500)
    with pytest.raises(BenchmarkError, match=r"000003\.jpg: .*truncated"):
        load("celeba", tmp_path).check()
    layouts.picture(tmp_path / "Img/img_align_celeba/000001.jpg", 128, 157)
    refused("celeba", tmp_path, r"000001\.jpg has 128 x 157 pixels, but the images of this set have 178 x 218")


# ---- AFLW ---------------------------------------------------------------------------------------------------


def test_aflw_m(tmp_path: Path) -> None:
    """Both parts count from 1; MTFL lists all x before all y, the crops x and y in turn."""
    layouts.aflw_m(tmp_path)
    benchmark = load("aflw-m", tmp_path)
    train, test = benchmark.split("train"), benchmark.split("test")
    assert test.images.names[0] == "AFLW/0000-image20050.jpg" and len(test) == 3
    assert train.images.names == ["cropped/40000.jpg", "cropped/40002.jpg"]
    assert test.table is not None and train.table is not None
    points = [[55.5, 42.5], [99.5, 56.5], [78.5, 68.5], [42.5, 85.5], [92.5, 102.5]]
    assert test.table.points[0].tolist() == points
    assert train.table.points[1].tolist() == [[11, 20], [30, 21], [19, 30], [11, 40], [29, 41]]
    np.testing.assert_allclose(test.framed(0, 75).placement.to_frame(test.table.points[0, :1]), [[27.5, 21]])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("MTFL/testing.txt"), r"MTFL/testing\.txt is missing; .*aflw-mtfl\.tar\.gz"),
        (without("aflw_cropped/facedata_cropped.csv"), r"facedata_cropped\.csv is missing"),
        (without("MTFL/AFLW/0002-image20052.jpg"), r"0002-image20052\.jpg \(1 of 3 images are not there\)"),
        (without("aflw_cropped/cropped/40002.jpg"), r"40002\.jpg \(1 of 2"),
        (edit("MTFL/testing.txt", f"20051.jpg {layouts.MTFL_FIRST}", "20051.jpg 1 2"), "line 2: 3 columns, but 15"),
        (edit("aflw_cropped/facedata_cropped.csv", ",42,7", ",42"), "line 2: 14 columns, the header has 15"),
        (edit("aflw_cropped/facedata_cropped.csv", "set", "part"), "no column 'set'; its columns are face_id, image_f"),
        (edit("aflw_cropped/facedata_cropped.csv", "image00002", "image20051"), "line 4: .* is a test image, but set"),
        (edit("aflw_cropped/facedata_cropped.csv", "40002.jpg,1", "40002.jpg,2"), "1 of 'train', but the published"),
        (
            edit("aflw_cropped/facedata_cropped.csv", "12,21", "400,21"),
            r"landmark 0 at \(399, 20\) is not in the image",
        ),
    ],
)
def test_aflw_m_that_lies_broken(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    layouts.aflw_m(tmp_path)
    damage(tmp_path)
    refused("aflw-m", tmp_path, message)


def test_aflw_r(tmp_path: Path) -> None:
    """Row then column in the file, both counted from 0; 60 x 80 pixels become a square of 40."""
    layouts.aflw_r(tmp_path)
    train = load("aflw-r", tmp_path).split("train")
    assert train.images.names == ["0/image00_train.jpg", "1/image01_train.jpg", "2/image02_train.jpg"]
    assert train.table is not None
    assert train.table.points[1].tolist() == [[10, 21.5], [40, 20], [25, 30], [15, 50], [35, 50]]
    placed = train.framed(1, 40).placement.to_frame(train.table.points[1, :1])
    np.testing.assert_allclose(placed, [[10.5 * 40 / 60 - 0.5, 22 / 2 - 0.5]])


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"gt": np.zeros((3, 5, 2)), "hw": np.full((3, 2), 80)}, "do not fit 2 images of five points"),
        ({"gt": np.zeros((2, 21, 2)), "hw": np.full((2, 2), 80)}, "do not fit 2 images"),
        ({"gt": np.zeros((2, 5, 2))}, "cannot be read as a MATLAB file with gt and hw"),
        ({"gt": np.full((2, 5, 2), np.nan), "hw": np.full((2, 2), 80)}, "not finite"),
        ({"gt": np.full((2, 5, 2), 500.0), "hw": np.full((2, 2), 80)}, r"landmark 0 at \(500, 500\) .* 80 x 80"),
    ],
)
def test_aflw_r_with_other_points(held: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    layouts.aflw_r(tmp_path)
    savemat(tmp_path / "aflw_test_keypoints.mat", held)
    refused("aflw-r", tmp_path, message)


def test_aflw_r_cut_short(tmp_path: Path) -> None:
    layouts.aflw_r(tmp_path)
    layouts.cut(tmp_path / "aflw_test_keypoints.mat", 150)
    refused("aflw-r", tmp_path, r"aflw_test_keypoints\.mat cannot be read as a MATLAB file")


def test_aflw_r_images_of_another_size(tmp_path: Path) -> None:
    layouts.aflw_r(tmp_path)
    found = load("aflw-r", tmp_path)
    found.check()
    image = tmp_path / "output" / found.split("test").images.names[0]
    layouts.picture(image, 30, 40)
    with pytest.raises(BenchmarkError, match=r"_test\.jpg has 30 x 40 pixels, but its landmarks are for 60 x 80; take"):
        found.check()


# ---- 300-W --------------------------------------------------------------------------------------------------


def test_300w(tmp_path: Path) -> None:
    """Points count from 1; a box of 52 px is copied pixel for pixel, its middle 2 px below that of the frame."""
    layouts.faces_300w(tmp_path)
    benchmark = load("300w", tmp_path)
    train, test = benchmark.split("train"), benchmark.split("test")
    assert benchmark.eyes == (36, 45)
    assert train.classes == ("afw", "helen", "lfpw") and test.classes == ("helen", "lfpw", "ibug")
    assert train.images.names == ["afw/image_1.jpg", "helen/trainset/image_1.jpg", "lfpw/trainset/image_1.png"]
    assert test.images.names[2] == "ibug/image 1.jpg"
    assert train.table is not None and train.table.points.shape == (3, 68, 2)
    assert train.table.points[0, [0, 17, 67]].tolist() == [[100, 80], [151, 80], [139, 131]]
    framed = train.framed(2, 100)
    np.testing.assert_allclose(framed.placement.box, (76, 54, 176, 154), atol=1e-9)
    np.testing.assert_array_equal(framed.pixels, layouts.coordinates(400, 300)[54:154, 76:176])
    assert framed.placement.to_frame(train.table.points[0, :1]).round(6).tolist() == [[24, 26]]


def test_300w_with_an_image_that_is_shown_upside_down(tmp_path: Path) -> None:
    """(100, 80) of 400 x 300 pixels comes to (299, 219)."""
    layouts.faces_300w(tmp_path)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    layouts.picture(tmp_path / "afw/image_1.jpg", 400, 300, exif=exif)
    table = load("300w", tmp_path).split("train").table
    assert table is not None and table.points[:2, 0].tolist() == [[299, 219], [100, 80]]


def points_file(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(change((root / name).read_text())) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("ibug/image 1.pts"), "ibug: 0 of 'ibug', but the published set has 1"),
        (without("ibug/image 1.pts", "ibug/image 1_mirror.pts"), r"ibug holds no \.pts files"),
        (without("afw/image_1.jpg"), r"the image of .*afw/image_1\.pts is missing"),
        (lambda root: shutil.rmtree(root / "lfpw"), "lfpw/trainset is missing; .* should hold afw/"),
        (points_file("afw/image_1.pts", lambda t: t[:-80]), r"afw/image_1\.pts is not a \.pts file"),
        (points_file("afw/image_1.pts", lambda t: t.replace("101.000 81", "nan 81")), "has only one of x and y"),
        (points_file("afw/image_1.pts", lambda t: t.replace("101.000 81.000", "nan nan")), "does not hold 68 points"),
        (
            points_file("afw/image_1.pts", lambda t: t.replace("104.000 81.000\n", "")),
            "67 points, but says n_points: 68",
        ),
        (
            points_file("afw/image_1.pts", lambda t: t.replace("104.000", "904")),
            r"afw/image_1\.jpg: landmark 1 at \(903",
        ),
        (lambda root: layouts.cut(root / "afw/image_1.jpg", 100), r"afw/image_1\.jpg: not an image, or damaged"),
    ],
)
def test_300w_that_lies_broken(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    layouts.faces_300w(tmp_path)
    damage(tmp_path)
    refused("300w", tmp_path, message)


# ---- Yale B -------------------------------------------------------------------------------------------------


def test_yale_b(tmp_path: Path) -> None:
    """Three lights of subjects 1 and 11, two of 38 and 39; pairs stay within a subject."""
    layouts.yale_b(tmp_path)
    benchmark = load("yale-b", tmp_path)
    train, test = benchmark.split("train"), benchmark.split("test")
    assert train.images.names[:2] == ["yaleB01/yaleB01_P00A+000E+00.pgm", "yaleB01/yaleB01_P00A+110E-20.pgm"]
    assert train.classes == ("yaleB01",) * 3 + ("yaleB11",) * 3 and test.classes == ("yaleB38",) * 2 + ("yaleB39",) * 2
    assert train.pairs is not None and test.pairs is not None
    assert train.pairs.tolist() == [[0, 1], [0, 2], [1, 2], [3, 4], [3, 5], [4, 5]]
    assert test.pairs.tolist() == [[0, 1], [2, 3]]
    assert load("yale-b", tmp_path / "CroppedYale").split("test").images.names == test.images.names
    framed = test.framed(0, 192)
    assert framed.placement.box == (-12, 0, 180, 192)
    np.testing.assert_array_equal(framed.pixels[:, 12:180], test.pixels(0))


def test_yale_b_that_lies_broken(tmp_path: Path) -> None:
    layouts.yale_b(tmp_path)
    (tmp_path / "CroppedYale/yaleB38/yaleB38_P00A+000E+00.pgm").unlink()
    refused("yale-b", tmp_path, "CroppedYale: 9 of 'images', but the published set has 10")
    shutil.rmtree(tmp_path / "CroppedYale/yaleB38")
    refused("yale-b", tmp_path, "3 of 'subjects', but the published set has 4")


# ---- HELEN --------------------------------------------------------------------------------------------------


def test_helen(tmp_path: Path) -> None:
    """127 is not above half, 128 is; where two parts are, the higher; hair is background."""
    layouts.helen(tmp_path)
    benchmark = load("helen", tmp_path)
    assert [len(s) for s in benchmark.splits.values()] == [2, 1, 1]
    assert (
        benchmark.part_names is not None and benchmark.part_names[9] == "lower lip" and len(benchmark.part_names) == 10
    )
    split = benchmark.split("train")
    assert split.images.names == ["100_1.jpg", "200_1.jpg"]
    expected = np.zeros((10, 12), int)
    expected[:, 2:8] = 1
    expected[6] = 9
    np.testing.assert_array_equal(split.parts(1), expected)


def test_helen_in_the_folder_of_its_archive(tmp_path: Path) -> None:
    layouts.helen(tmp_path / "SmithCVPR2013_dataset_resized")
    assert load("helen", tmp_path).split("validation").parts(0) is not None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("tuning.txt"), r"tuning\.txt is missing"),
        (without("labels/300_1/300_1_lbl07.png"), r"labels/300_1/300_1_lbl07\.png is missing"),
        (without("images/400_1.jpg"), r"400_1\.jpg \(1 of 1"),
        (edit("tuning.txt", "1 , 300_1", "300_1"), "line 1: 1 columns, but 2"),
        (edit("tuning.txt", "300_1", "100_1"), r"lists '100_1\.jpg' more than once"),
        (edit("exemplars.txt", "2 , 200_1\n", ""), "1 of 'train', but the published set has 2"),
    ],
)
def test_helen_that_lies_broken(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    layouts.helen(tmp_path)
    damage(tmp_path)
    refused("helen", tmp_path, message)


def test_labels_of_helen_that_do_not_fit(tmp_path: Path) -> None:
    layouts.helen(tmp_path)
    mask = tmp_path / "labels/300_1/300_1_lbl03.png"
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(mask)
    split = load("helen", tmp_path).split("validation")
    with pytest.raises(BenchmarkError, match=r"300_1_lbl03\.png has \(6, 5\) pixels, its image \(12, 10\)"):
        split.parts(0)
    layouts.cut(mask, 40)
    with pytest.raises(BenchmarkError, match=r"helen: .*300_1_lbl03\.png: "):
        split.check()
