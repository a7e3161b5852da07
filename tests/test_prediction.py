import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import square
from equimark import prediction
from equimark.geometry import Frame
from equimark.head import Head
from equimark.images import ImageError
from equimark.model import LandmarkModel
from equimark.packs import pack
from equimark.prediction import detect_all, match_all
from equimark.synthetic import Portraits


@pytest.fixture(scope="module")
def head(dve_model: LandmarkModel, faces: Portraits) -> Head:
    return dve_model.fit(list(faces.images[:8]), faces.landmarks5[:8], ("a", "b", "c", "d", "e"))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "BATCH", 5)


def test_a_folder_gives_what_its_images_give(head: Head, faces: Portraits, photos: Path) -> None:
    found = detect_all(head, photos, progress=False)
    assert found.table.images == tuple(f"{i:06d}.png" for i in range(16))
    assert found.table.names == ("a", "b", "c", "d", "e")
    assert found.unreadable == ()
    np.testing.assert_allclose(found.table.points, head.predict(list(faces.images)), atol=0.05)
    assert found.table.confidence is not None
    assert found.table.confidence.shape == (16, 5)


def test_a_sparse_run(sparse_model: LandmarkModel, faces: Portraits, photos: Path) -> None:
    found = detect_all(sparse_model, photos, progress=False)
    single = [sparse_model.detect(image) for image in faces.images]
    np.testing.assert_allclose(found.table.points, [s.points for s in single], atol=1e-3)
    np.testing.assert_allclose(found.table.confidence, [s.confidence for s in single], atol=1e-4)


def test_matches(dve_model: LandmarkModel, faces: Portraits, photos: Path) -> None:
    source, points = faces.images[3], faces.landmarks5[3].astype(float)
    found = match_all(dve_model, source, points, photos, progress=False)
    single = [dve_model.match(source, points, image) for image in faces.images]
    np.testing.assert_allclose(found.table.points, [s.points for s in single], atol=1e-3)
    np.testing.assert_allclose(found.table.confidence, [s.confidence for s in single], atol=1e-4)


def test_every_kind_of_source(sparse_model: LandmarkModel, photos: Path, photo_pack: Path, tmp_path: Path) -> None:
    archive, listing = tmp_path / "photos.zip", tmp_path / "photos.txt"
    with zipfile.ZipFile(archive, "w") as file:
        for path in photos.glob("*.png"):
            file.write(path, path.name)
    listing.write_text("\n".join(str(path) for path in sorted(photos.glob("*.png"))))
    wanted = detect_all(sparse_model, photos, progress=False).table.points
    for source in (archive, listing, photo_pack):
        np.testing.assert_allclose(detect_all(sparse_model, source, progress=False).table.points, wanted, atol=1e-3)
    one = detect_all(sparse_model, photos / "000002.png", progress=False).table
    np.testing.assert_allclose(one.points, wanted[2:3], atol=1e-3)


def test_a_pack_answers_in_pixels_of_the_original(
    sparse_model: LandmarkModel, faces: Portraits, tmp_path: Path
) -> None:
    (tmp_path / "wide").mkdir()
    for i, image in enumerate(faces.images[:3]):
        Image.fromarray(square(image, 4, 16)).save(tmp_path / "wide" / f"{i}.png")
    pack(tmp_path / "wide", tmp_path / "pack", Frame(40, "centre"), progress=False)
    framed = detect_all(sparse_model, tmp_path / "pack", progress=False).table.points
    np.testing.assert_allclose(
        framed, detect_all(sparse_model, tmp_path / "wide", progress=False).table.points, atol=1e-3
    )


def test_pack_of_another_size(sparse_model: LandmarkModel, photos: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "pack", Frame(48), progress=False)
    with pytest.raises(ImageError, match="is packed at 48 px, the model sees 40 px"):
        detect_all(sparse_model, tmp_path / "pack", progress=False)


def test_unreadable_images_are_listed(sparse_model: LandmarkModel, photos: Path, tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"good{i}.png").write_bytes((photos / f"{i:06d}.png").read_bytes())
    (tmp_path / "bad.png").write_bytes(b"nothing")
    found = detect_all(sparse_model, tmp_path, progress=False)
    assert found.table.images == tuple(f"good{i}.png" for i in range(6))
    assert [item.name for item in found.unreadable] == ["bad.png"]
    assert found.unreadable[0].reason


def test_nothing_readable(sparse_model: LandmarkModel, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"none of the 2 images of .* can be read; a\.png: .*; b\.png: "):
        detect_all(sparse_model, tmp_path, progress=False)


def test_progress(sparse_model: LandmarkModel, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    detect_all(sparse_model, photos)
    err = capfd.readouterr().err
    assert "detecting" in err
    assert "16/16" in err


def test_suggestions_are_unlabelled_and_begin_with_the_doubtful(head: Head, photos: Path, tmp_path: Path) -> None:
    labelled = [f"{i:06d}.png" for i in range(8)]
    order = prediction.suggest_images(head, photos, labelled, 20, progress=False)
    assert sorted(order) == [f"{i:06d}.png" for i in range(8, 16)]
    found = detect_all(head, photos, progress=False).table
    assert found.confidence is not None
    sure = found.confidence.mean(1)
    rank = [sure[found.images.index(name)] for name in order]
    assert np.mean(rank[:4]) < np.mean(rank[4:]) + 0.05
    assert prediction.suggest_images(head, photos, labelled, 2, progress=False) == order[:2]


def test_suggestions_of_a_sparse_run(sparse_model: LandmarkModel, faces: Portraits, photos: Path) -> None:
    head = sparse_model.fit(list(faces.images[:4]), faces.landmarks5[:4], pairs=8)
    names = [f"{i:06d}.png" for i in range(4)]
    assert not set(prediction.suggest_images(head, photos, names, 3, progress=False)) & set(names)
