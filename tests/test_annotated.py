import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equimark import formats
from equimark.annotated import Data, open_data, open_parts
from equimark.benchmarks import BenchmarkError
from equimark.config import ConfigError
from equimark.geometry import Frame
from equimark.images import ImageError
from equimark.landmarks import LandmarkError, LandmarkTable
from equimark.synthetic import Portraits


def label_file(faces: Portraits, path: Path, splits: tuple[str, ...] | None = None) -> Path:
    images = tuple(f"{i:06d}.png" for i in range(16))
    formats.write(LandmarkTable(images, faces.landmarks5.astype(float), splits=splits), path)
    return path


def test_a_file_with_splits(faces: Portraits, photos: Path, tmp_path: Path) -> None:
    splits = ("test", "train") * 7 + ("other",) * 2
    data = open_data(str(label_file(faces, tmp_path / "l.csv", splits)), photos)
    assert data.eyes == (0, 1)
    train, test = data.train_and_test()
    assert (train.name, len(train), test.name, len(test)) == ("train", 7, "test", 7)
    loaded = test.load(Frame(48))
    np.testing.assert_array_equal(loaded.frames.movedim(1, -1).numpy(), faces.images[0:14:2])
    np.testing.assert_allclose(loaded.points, faces.landmarks5[0:14:2], atol=1e-3)
    assert data.train_and_test("other")[1].name == data.test("other").name == "other"
    with pytest.raises(LandmarkError, match="no split 'tset'; this data has other, test, train"):
        data.test("tset")


def test_images_are_held_out_where_there_are_no_splits(faces: Portraits, photos: Path, tmp_path: Path) -> None:
    data = open_data(str(label_file(faces, tmp_path / "l.csv")), photos)
    assert len(data.test()) == 16
    train, test = data.train_and_test(seed=2)
    assert (len(train), len(test)) == (13, 3)
    assert sorted([*train.table.images, *test.table.images]) == [f"{i:06d}.png" for i in range(16)]
    np.testing.assert_array_equal(test.rows, data.train_and_test(seed=2)[1].rows)
    assert {*test.rows.tolist()} != {*data.train_and_test(seed=3)[1].rows.tolist()}
    own = test.load(Frame(48))
    np.testing.assert_allclose(own.points, faces.landmarks5[test.rows], atol=1e-3)
    single = replace(data.splits["all"], rows=np.array([3]))
    with pytest.raises(LandmarkError, match="cannot be both learned from and tested on"):
        Data({"all": single}).train_and_test()


def test_splits_that_are_not_enough(faces: Portraits, photos: Path, tmp_path: Path) -> None:
    data = open_data(str(label_file(faces, tmp_path / "a.csv", ("a",) * 8 + ("b",) * 8)), photos)
    with pytest.raises(LandmarkError, match="no split 'test'; this data has a, b: choose one with --split"):
        data.test()
    with pytest.raises(LandmarkError, match="no split 'train' beside 'a'"):
        data.train_and_test("a")


def test_frames(faces: Portraits, photos: Path, tmp_path: Path) -> None:
    part = open_data(str(label_file(faces, tmp_path / "l.csv")), photos).test()
    half = part.load(Frame(24))
    np.testing.assert_allclose(half.points, (part.table.points + 0.5) / 2 - 0.5)
    around = part.load(Frame(100), "landmarks")
    middle = (around.points.min(1) + around.points.max(1)) / 2
    np.testing.assert_allclose(middle, np.tile([49.5, 51.5], (16, 1)), atol=1e-6)
    corner = part.load(Frame(24), "0,0,0.5,0.5")
    np.testing.assert_allclose(corner.points, part.table.points, atol=1e-6)
    with pytest.raises(ConfigError, match="'center'"):
        part.load(Frame(24), "center")


def test_a_published_set_has_its_own_crop(faces: Portraits, photos: Path) -> None:
    data = open_data("landmarks", photos)
    assert data.eyes == (0, 1) and data.splits["all"].has_frame
    np.testing.assert_allclose(data.test().load(Frame(24, "letterbox")).points, (faces.landmarks5 + 0.5) / 2 - 0.5)
    with pytest.raises(ConfigError, match="landmarks is a published set: give the folder that holds it with --root"):
        open_data("landmarks")
    with pytest.raises(BenchmarkError):
        open_data("mafl", photos)
    with pytest.raises(LandmarkError, match="has no landmarks"):
        open_data("folder", photos).test().load(Frame(24))


def test_parts(faces: Portraits, photos: Path, label_images: Path) -> None:
    part = open_parts(str(photos), parts=label_images).test()
    loaded = part.load_parts(Frame(48))
    np.testing.assert_array_equal(loaded.parts, faces.parts)
    np.testing.assert_array_equal(loaded.frames.movedim(1, -1).numpy(), faces.images)
    corner = part.load_parts(Frame(24), "0,0,0.5,0.5")
    np.testing.assert_array_equal(corner.parts, faces.parts[:, :24, :24])


def test_parts_that_do_not_fit(photos: Path, label_images: Path, tmp_path: Path) -> None:
    parts = Path(shutil.copytree(label_images, tmp_path / "parts"))
    with pytest.raises(ConfigError, match="give its label images with --parts"):
        open_parts(str(photos))
    with pytest.raises(ImageError, match="has no parts"):
        open_parts("folder", photos).test().load_parts(Frame(24))
    Image.new("L", (9, 7)).save(parts / "000003.png")
    with pytest.raises(ImageError, match=r"label image of 000003\.png has another size \(\(9, 7\)\)"):
        open_parts(str(photos), parts=parts).test().load_parts(Frame(24))
    (parts / "000003.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"^000003\.png: "):
        open_parts(str(photos), parts=parts).test().load_parts(Frame(24))
    (parts / "000003.png").unlink()
    with pytest.raises(ImageError, match=r"holds no label image for 000003\.png"):
        open_parts(str(photos), parts=parts)
