import errno
import shutil

import numpy as np
import pytest
import torch
import yaml

from equimark.geometry import Frame
from equimark.images import ImageError, decode, frame_image, open_images
from equimark.packs import PackedImages, is_pack, pack, packing
from pictures import BROKEN, encoded, photos, picture, unreadable


def test_pack_round_trip(tmp_path):
    folder = photos(tmp_path / "in", 20)
    for name, (data, _) in BROKEN.items():
        (folder / name).write_bytes(data)
    (folder / "a/wide.png").write_bytes(encoded(picture(10, 40)))
    packed = pack(folder, tmp_path / "deep/out", Frame(16), workers=3, progress=False)
    assert sorted(path.name for path in (tmp_path / "deep/out").iterdir()) == [
        "images.u8",
        "index.csv",
        "pack.yaml",
        "unreadable.csv",
    ]
    assert is_pack(tmp_path / "deep/out") and not is_pack(folder)
    source = open_images(folder)
    assert packed.names == [name for name in source.names if name not in BROKEN] and len(packed) == 21
    for i, name in enumerate(packed.names):
        pixels, placement = frame_image(decode((folder / name).read_bytes()).pixels, Frame(16))
        assert np.array_equal(packed.images[i], pixels) and packed.placement(i) == placement
    assert packed.image_size(packed.names.index("a/wide.png")) == (10, 40)
    header, *rows = unreadable(tmp_path / "deep/out")
    assert header == ["file", "reason"] and [file for file, _ in rows] == sorted(BROKEN)
    assert all(BROKEN[file][1] in reason for file, reason in rows)
    again = PackedImages.open(tmp_path / "deep/out")
    assert isinstance(again.images, np.memmap) and not again.images.flags.writeable
    assert again.frame == Frame(16) and again.names == packed.names
    about = yaml.safe_load((tmp_path / "deep/out/pack.yaml").read_text())
    assert about["count"] == 21 and about["frame"] == {"size": 16, "fit": "centre", "pad": 0, "fill": "edge"}


def test_unreadable_is_written_even_when_empty(tmp_path):
    pack(photos(tmp_path / "in"), tmp_path / "out", Frame(8), progress=False)
    assert unreadable(tmp_path / "out") == [["file", "reason"]]


def test_odd_names_survive(tmp_path):
    names = ["a, b.png", 'quo"te.png', "ünïcode.png", "line\nbreak.png"]
    for name in names:
        (tmp_path / name).write_bytes(encoded(picture()))
    (tmp_path / "latin\udce9.png").write_bytes(encoded(picture()))
    packed = pack(tmp_path, tmp_path / "out", Frame(8), progress=False)
    assert set(PackedImages.open(tmp_path / "out").names) == {*names, "latin\udce9.png"} == set(packed.names)


def test_progress_goes_to_standard_error(tmp_path, capsys):
    pack(photos(tmp_path / "in"), tmp_path / "out", Frame(8))
    shown = capsys.readouterr()
    assert shown.out == "" and "6/6" in shown.err


def test_what_stands_at_out_is_kept(tmp_path):
    folder = photos(tmp_path / "in", 2)
    (tmp_path / "out").mkdir()
    pack(folder, tmp_path / "out", Frame(8), progress=False)  # an empty folder may be filled
    with pytest.raises(ImageError, match="--overwrite"):
        pack(folder, tmp_path / "out", Frame(9), progress=False)
    assert pack(folder, tmp_path / "out", Frame(9), progress=False, overwrite=True).images.shape == (2, 9, 9, 3)
    with pytest.raises(ImageError, match="not a pack"):
        pack(folder, folder, Frame(8), progress=False, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_no_readable_image(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes(b"text")
    with pytest.raises(ImageError, match=r"none of the 1 images .* a\.png: not an image"):
        pack(tmp_path / "in", tmp_path / "out", Frame(8), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_behind(tmp_path, monkeypatch, error):
    folder = photos(tmp_path / "in")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(packing, "asdict", fail)  # after the images are written
    expected = ImageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="no space left" if expected is ImageError else None):
        pack(folder, tmp_path / "out", Frame(8), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_disk_too_small_is_noticed_before_the_work(tmp_path, monkeypatch):
    folder = photos(tmp_path / "in")
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(packing, "_write_images", lambda *_: pytest.fail("worked all the same"))
    with pytest.raises(ImageError, match="no space left"):
        pack(folder, tmp_path / "out", Frame(8), progress=False)


def test_batches(tmp_path):
    packed = pack(photos(tmp_path / "in"), tmp_path / "out", Frame(16), progress=False)
    for indices in ([4, 0, 4], np.array([4, 0, 4]), torch.tensor([4, 0, 4])):
        batch = packed.batch(indices)
        assert batch.shape == (3, 3, 16, 16) and batch.dtype == torch.uint8 and batch.is_contiguous()
        assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), packed.images[4])
    assert packed.batch([]).shape == (0, 3, 16, 16)


def test_classes_are_the_first_folders():
    images = np.zeros((3, 8, 8, 3), np.uint8)
    assert PackedImages.from_array(images, ["a/1", "b/x/2", "a/3"]).classes == ["a", "b", "a"]
    assert PackedImages.from_array(images, ["a/1", "a/2", "a/3"]).classes is None
    assert PackedImages.from_array(images, ["a/1", "b/2", "3"]).classes is None
    assert PackedImages.from_array(images).classes is None


def test_from_array():
    images = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)
    packed = PackedImages.from_array(images)
    assert len(packed) == 3 and packed.frame == Frame(12) and packed.names == ["000000", "000001", "000002"]
    assert packed.placement(2).box == (0, 0, 12, 12) and packed.image_size(0) == (12, 12)
    assert np.array_equal(packed.batch([1])[0].permute(1, 2, 0).numpy(), images[1])
    for wrong in (images[..., 0], images[:, :6], images.astype(np.float32)):
        with pytest.raises(ImageError, match="uint8"):
            PackedImages.from_array(wrong)
    with pytest.raises(ImageError, match="2 names"):
        PackedImages.from_array(images, ["a", "b"])


def test_damaged_packs(tmp_path):
    folder = tmp_path / "out"
    pack(photos(tmp_path / "in"), folder, Frame(8), progress=False)
    content, about = (folder / "images.u8").read_bytes(), (folder / "pack.yaml").read_text()
    (folder / "images.u8").write_bytes(content[:-1])
    with pytest.raises(ImageError, match="not complete"):
        PackedImages.open(folder)
    (folder / "images.u8").write_bytes(content)
    for damaged, message in (
        (about.replace("format: 1", "format: 2"), "format 2"),
        (about.replace("size: 8", "size: -8"), "damaged"),
        (about.replace("  fill", "  phill"), "damaged"),
        ("{", "damaged"),
        ("", "damaged"),
    ):
        (folder / "pack.yaml").write_text(damaged)
        with pytest.raises(ImageError, match=message):
            PackedImages.open(folder)
    (folder / "pack.yaml").write_text(about)
    (folder / "index.csv").write_text("image\n")
    with pytest.raises(ImageError, match="6 images"):
        PackedImages.open(folder).placement(0)
    (folder / "pack.yaml").unlink()
    with pytest.raises(ImageError, match="not a pack"):
        PackedImages.open(folder)


def test_a_pack_is_not_packed_again(tmp_path):
    pack(photos(tmp_path / "in"), tmp_path / "out", Frame(16), progress=False)
    with pytest.raises(ImageError, match="is a pack already"):
        pack(tmp_path / "out", tmp_path / "again", Frame(16), progress=False)


def test_small_images_are_counted(tmp_path):
    folder = photos(tmp_path / "in", 3, side=12)
    (folder / "large.png").write_bytes(encoded(picture(40, 20)))
    packed = pack(folder, tmp_path / "out", Frame(16), progress=False)
    assert (packed.smaller_than(12), packed.smaller_than(16), packed.smaller_than(21)) == (0, 3, 4)


# ---- labels and selections ----------------------------------------------------------------------------------


def test_labels_must_fit() -> None:
    images = PackedImages.from_array(np.zeros((3, 16, 16, 3), np.uint8))
    with pytest.raises(ImageError, match=r"flow of these images has shape \(3, 16, 16, 2\), got \(3, 16, 16\)"):
        images.with_labels(flow=np.zeros((3, 16, 16)))
    with pytest.raises(ImageError, match=r"points of these images have shape \(3, K, 2\), got \(2, 5, 2\)"):
        images.with_labels(points=np.zeros((2, 5, 2)))
    with pytest.raises(ImageError, match=r"parts of these images are \(3, 16, 16\) uint8, got .* int64"):
        images.with_labels(parts=np.zeros((3, 16, 16), np.int64))


def test_selected_rows_keep_what_belongs_to_them() -> None:
    levels = np.arange(5, dtype=np.uint8)
    images = np.ascontiguousarray(np.broadcast_to(levels[:, None, None, None], (5, 16, 16, 3)))
    points = np.arange(5)[:, None, None] * np.ones((5, 2, 2))
    packed = PackedImages.from_array(images, [f"{n}/x" for n in "abcde"]).with_labels(
        points=points, parts=images[..., 0], flow=np.stack([images[..., 0]] * 2, -1).astype(np.float16)
    )
    chosen = packed.select([3, 1])
    assert chosen.names == ["d/x", "b/x"]
    assert chosen.folders == ["d", "b"]
    assert chosen.points is not None and chosen.parts is not None and chosen.flow is not None
    for values in (chosen.images, chosen.points, chosen.parts, chosen.flow):
        assert [float(v.ravel()[0]) for v in values] == [3, 1]
    assert chosen.placement(0) == packed.placement(3)
