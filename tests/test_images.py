import io
import shutil
import threading
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from equimark.geometry import Frame
from equimark.images import (
    ImageError,
    ImageSource,
    decode,
    frame_image,
    open_images,
    read_framed,
)
from equimark.images import framing as module
from pictures import BROKEN, encoded, photos, picture

# ---- sources


def test_folder_zip_and_list_are_the_same_images(tmp_path):
    folder = photos(tmp_path / "photos", 12)
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / ".cache").mkdir()
    (folder / ".cache/x.png").write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX/img0.png").write_bytes(b"x")
    sources = [open_images(folder)]
    assert sources[0].names == [f"a/img{i}.png" for i in (0, 2, 4, 6, 8, 10)] + [
        f"b/img{i}.png" for i in (1, 3, 5, 7, 9, 11)
    ]
    sources.append(open_images(shutil.make_archive(str(tmp_path / "photos"), "zip", folder)))
    lines = ["# mine", "", *sources[0].names]
    (folder / "list.txt").write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    sources.append(open_images(folder / "list.txt"))
    for source in sources:
        assert source.names == sources[0].names
        assert [source.read(i) for i in range(len(source))] == [sources[0].read(i) for i in range(12)]


def test_single_file_and_its_name(tmp_path):
    (tmp_path / "one.JPG").write_bytes(b"bytes")
    source = open_images(str(tmp_path / "one.JPG"))
    assert source.names == ["one.JPG"] and source.read(0) == b"bytes"


def test_list_keeps_its_order_and_missing_entries_are_unreadable(tmp_path):
    photos(tmp_path, 2)
    (tmp_path / "l.txt").write_text(f"b/img1.png\ngone.png\n./a/img0.png\n{tmp_path / 'a/img0.png'}\n")
    source = open_images(tmp_path / "l.txt")
    assert source.names[:3] == ["b/img1.png", "gone.png", "a/img0.png"]
    assert source.read(2) == source.read(3)
    with pytest.raises(ImageError, match="no such file"):
        source.read(1)


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    photos(tmp_path / "real", 2)
    (tmp_path / "set").mkdir()
    (tmp_path / "set/link").symlink_to(tmp_path / "real")
    (tmp_path / "real/a/back").symlink_to(tmp_path / "set")
    assert open_images(tmp_path / "set").names == ["link/a/img0.png", "link/b/img1.png"]


def test_zip_is_read_from_many_threads(tmp_path):
    photos(tmp_path / "p", 40)
    source = open_images(shutil.make_archive(str(tmp_path / "p"), "zip", tmp_path / "p"))
    folder = open_images(tmp_path / "p")
    with module.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.read, [*range(40)] * 5))
    assert read == [folder.read(i) for i in range(40)] * 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "is empty"),
        (lambda p: (p.mkdir(), (p / "a.csv").touch(), (p / "b.csv").touch(), (p / "c").touch()), "2 .csv, 1 without"),
    ],
)
def test_errors_of_a_folder(tmp_path, make, message):
    make(tmp_path / "in")
    with pytest.raises(ImageError, match=message):
        open_images(tmp_path / "in")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"PK but no more", "zip archive"),
        ("a.txt", b"# nothing\n\n", "lists no images"),
        ("a.npz", b"", "none of a folder"),
    ],
)
def test_errors_of_a_file(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message):
        open_images(tmp_path / name)


def test_damaged_and_empty_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", b"good")
        archive.writestr("bad.png", b"0123456789")
    content = (tmp_path / "a.zip").read_bytes().replace(b"0123456789", b"0123x56789")
    (tmp_path / "a.zip").write_bytes(content)
    source = open_images(tmp_path / "a.zip")
    assert source.read(source.names.index("good.png")) == b"good"
    with pytest.raises(ImageError, match="CRC"):
        source.read(source.names.index("bad.png"))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("labels.csv", b"")
    with pytest.raises(ImageError, match=r"1 \.csv"):
        open_images(tmp_path / "b.zip")


# ---- decoding


def test_rgb_passes_unchanged():
    pixels = picture()
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        decoded = decode(encoded(pixels, kind))
        assert decoded.size == (24, 30) and np.array_equal(decoded.pixels, pixels)
        assert decoded.pixels.flags.writeable


def test_grey_and_one_bit():
    grey = picture()[..., 0]
    for kind in ("PNG", "PPM", "TIFF"):
        assert np.array_equal(decode(encoded(grey, kind)).pixels, np.repeat(grey[..., None], 3, 2))
    bits = Image.fromarray(grey > 127)
    assert bits.mode == "1"
    assert np.array_equal(decode(encoded(bits)).pixels[..., 1], (grey > 127) * np.uint8(255))


def test_palette_with_and_without_transparency():
    palette = Image.new("P", (4, 2))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    plain = decode(encoded(palette)).pixels
    assert plain[0, 1].tolist() == [200, 100, 50] and plain[0, 0].tolist() == [10, 20, 30]
    for transparency in (1, bytes([255, 0])):
        for kind in ("PNG", "GIF") if transparency == 1 else ("PNG",):
            clear = decode(encoded(palette, kind, transparency=transparency)).pixels
            assert clear[0, 1].tolist() == [255, 255, 255] and clear[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(mode):
    image = Image.new(mode, (3, 1), (0,) * len(mode))
    image.putpixel((1, 0), (100,) * (len(mode) - 1) + (255,))
    image.putpixel((2, 0), (100,) * (len(mode) - 1) + (128,))
    assert decode(encoded(image)).pixels[0, :, 0].tolist() == [255, 100, 177]


@pytest.mark.parametrize("colour", [255, (9, 9, 9)])
def test_transparent_colour_without_alpha_channel(colour):
    image = Image.new("L" if colour == 255 else "RGB", (2, 1), 0)
    image.putpixel((1, 0), colour)
    assert decode(encoded(image, transparency=colour)).pixels[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_cmyk_jpeg():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = decode(encoded(image, "JPEG", quality=95)).pixels[8, 8].astype(int)
    assert np.abs(red - (255, 0, 0)).max() < 8


def test_sixteen_bits_use_their_full_range():
    values = np.array([[0, 257, 65535, 32768]], np.uint16)
    for kind in ("PNG", "TIFF", "PPM"):
        assert decode(encoded(Image.fromarray(values), kind)).pixels[0, :, 2].tolist() == [0, 1, 255, 128]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_use_their_own_range(dtype):
    data = encoded(Image.fromarray(np.array([[-1000, 0, 1000]], dtype)), "TIFF")
    assert decode(data).pixels[0, :, 0].tolist() == [0, 128, 255]
    flat = encoded(Image.fromarray(np.full((2, 2), 7, dtype)), "TIFF")
    assert not decode(flat).pixels.any()


def test_float_with_gaps():
    values = np.array([[np.nan, 1, 3, np.inf]], np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF")).pixels[0, :, 0].tolist() == [0, 0, 255, 0]
    with pytest.raises(ImageError, match="no finite pixel"):
        decode(encoded(Image.fromarray(values[:, :1]), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation(orientation, kind):
    # the stored picture that a viewer, turning it as EXIF says, shows as `upright` (EXIF 2.3, tag 274)
    upright = picture()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(np.ascontiguousarray(stored), kind, exif=exif))
    assert decoded.size == (24, 30) and decoded.pixels.shape == (24, 30, 3)
    assert np.abs(decoded.pixels.astype(int) - upright).mean() < 5


def test_animations_show_their_first_frame():
    frames = [Image.fromarray(picture(seed=i)) for i in range(3)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(decode(data).pixels.astype(int) - picture(seed=0)).mean() < 12


def corrupt_exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    block = bytearray(exif.tobytes())
    block[10:14] = b"\xff\xff\xff\xff"
    return encoded(picture(), "JPEG", exif=bytes(block))


def test_damaged_exif_does_not_matter_and_pillow_stays_silent(monkeypatch):
    assert decode(corrupt_exif()).size[0] > 0
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 30 - 1)  # warns from here, refuses from twice as many
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(encoded(picture())))
    before = list(warnings.filters)
    with module.ThreadPoolExecutor(8) as pool:
        sizes = [decoded.size for decoded in pool.map(decode, [encoded(picture())] * 50)]
    assert set(sizes) == {(24, 30)} and warnings.filters == before


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_why(name):
    data, reason = BROKEN[name]
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)
    assert "0x" not in str(caught.value)


def test_large_jpeg_is_decoded_reduced_but_keeps_its_size():
    data = encoded(picture(810, 1203), "JPEG", quality=95)
    reduced = decode(data, min_side=100)
    assert reduced.size == (810, 1203)
    assert reduced.pixels.shape == (202, 300, 3)  # a quarter: an eighth would leave less than 125
    full, _ = frame_image(decode(data).pixels, Frame(100))
    small, placement = frame_image(reduced.pixels, Frame(100), reduced.size)
    assert placement == Frame(100).place((810, 1203))
    assert np.abs(full.astype(int) - small).max() <= 4


@pytest.mark.parametrize("least", [0, 1, 5])
def test_reduced_least_neither_moves_nor_changes_much(least):
    data = encoded(picture(250 + least, 400, seed=least), "JPEG", quality=95)
    reduced = decode(data, min_side=100)
    assert max(reduced.pixels.shape[:2]) == 200
    full, _ = frame_image(decode(data).pixels, Frame(100))
    small, _ = frame_image(reduced.pixels, Frame(100), reduced.size)
    off = np.abs(full.astype(int) - small)
    assert off.mean() < 1 and off.max() <= 8
    shifted = [np.abs(full[:, 1:].astype(int) - small[:, :-1]).mean(), np.abs(full[1:].astype(int) - small[:-1]).mean()]
    assert min(shifted) > 2 * off.mean()


def test_small_jpeg_and_other_kinds_are_decoded_whole():
    assert decode(encoded(picture(249, 249), "JPEG"), min_side=100).pixels.shape == (249, 249, 3)
    assert decode(encoded(picture(390, 990), "PNG"), min_side=10).pixels.shape == (390, 990, 3)


def test_reduced_and_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(picture(801, 1600), "JPEG", exif=exif), min_side=50)
    assert decoded.size == (1600, 801) and decoded.pixels.shape == (200, 100, 3)


# ---- framing


def test_an_image_of_the_frame_size_passes_unchanged():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    framed, placement = frame_image(pixels, Frame())
    assert np.array_equal(framed, pixels) and placement.box == (0, 0, 100, 100)


def test_centre_square_of_the_frame_size_is_cut_out_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    framed, _ = frame_image(pixels, Frame(20))
    assert np.array_equal(framed, pixels[:, 5:25])


@pytest.mark.parametrize("fill", ["edge", "black", "white"])
@pytest.mark.parametrize("height", [20, 10])
def test_letterbox_bands(fill, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, 20, 3), np.uint8)
    framed, _ = frame_image(pixels, Frame(20, "letterbox", fill=fill))
    above = (20 - height) // 2
    assert np.array_equal(framed[above : above + height], pixels)
    top = {"edge": pixels[:1], "black": 0, "white": 255}[fill]
    bottom = pixels[-1:] if fill == "edge" else top
    assert (framed[:above] == top).all() and (framed[above + height :] == bottom).all()


@pytest.mark.parametrize("fill", ["edge", "black"])
def test_pad_is_filled(fill):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    framed, placement = frame_image(pixels, Frame(40, "stretch", pad=6, fill=fill))
    assert np.array_equal(framed[6:-6, 6:-6], pixels) and placement.box == (-6, -6, 34, 34)
    assert np.array_equal(framed[0, 0], pixels[0, 0] if fill == "edge" else [0, 0, 0])


BOXES = ["-0.3,-0.2,1.1,1.4", "0.5,0.5,3,3", "-9,-9,0.1,0.1"]


# a side that the image just reaches is not blended with black or white: letterbox is compared for edge alone
@pytest.mark.parametrize(
    ("fit", "fill"), [(box, fill) for box in BOXES for fill in ("edge", "black", "white")] + [("letterbox", "edge")]
)
@pytest.mark.parametrize("size", [(7, 5), (60, 90), (200, 33)])
def test_beyond_the_image_equals_resizing_a_wide_margin(size, fit, fill):
    pixels = picture(*size)
    frame = Frame(40, fit, fill=fill)
    framed, placement = frame_image(pixels, frame)
    margin = 10 * max(size)
    padded = module._pad(pixels, (margin, margin), (margin, margin), fill)
    box = tuple(border + margin for border in placement.box)
    wanted = Image.fromarray(padded).resize((40, 40), Image.Resampling.BILINEAR, box=box)
    assert np.abs(framed.astype(int) - np.asarray(wanted)).max() <= 1


def test_flat_colour_stays_flat():
    framed, _ = frame_image(np.full((37, 61, 3), 77, np.uint8), Frame(50, "letterbox", pad=3))
    assert (framed == 77).all()


@settings(max_examples=60)
@given(
    height=st.integers(40, 150),
    width=st.integers(40, 150),
    at=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    fit=st.sampled_from(["centre", "letterbox", "stretch", "0.1,0.1,0.9,0.95", "-0.5,-0.1,1.2,1.3"]),
    pad=st.integers(0, 10),
)
def test_a_painted_dot_lands_where_the_placement_says(height, width, at, fit, pad):
    x, y = int(at[0] * width), int(at[1] * height)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[y, x] = 255
    framed, placement = frame_image(pixels, Frame(64, fit, pad=pad))
    expected = placement.to_frame(np.array([x, y]))
    if not ((expected > 4) & (expected < 59)).all():
        return  # cut off by the frame
    weight = framed[..., 0] / framed[..., 0].sum()
    found = (weight.sum(0) @ np.arange(64), weight.sum(1) @ np.arange(64))
    assert np.abs(found - expected).max() < 0.6
    np.testing.assert_allclose(placement.to_image(expected), (x, y), atol=1e-9)


def test_frame_errors():
    with pytest.raises(ImageError, match="uint8"):
        frame_image(np.zeros((9, 9, 3)), Frame(8))
    with pytest.raises(ImageError, match=r"\(9, 9\)"):
        frame_image(np.zeros((9, 9), np.uint8), Frame(8))
    with pytest.raises(ImageError, match="outside the image"):
        frame_image(np.zeros((9, 9, 3), np.uint8), Frame(8, "1,0,2,1"))


# ---- reading


def counting_source(count: int) -> tuple[ImageSource, list[str]]:
    data = [encoded(np.full((8, 8, 3), i % 256, np.uint8)) for i in range(256)]
    taken: list[str] = []
    lock = threading.Lock()

    def read(name: str) -> bytes:
        with lock:
            taken.append(name)
        return data[int(name) % 256]

    return ImageSource(Path("made up"), [str(i) for i in range(count)], read), taken


def test_order_and_bounded_window_with_many_workers():
    source, taken = counting_source(1000)
    workers = 8
    ahead = workers * module._CHUNK * module._CHUNKS_AHEAD
    for i, image in enumerate(read_framed(source, Frame(8), workers=workers)):
        assert not isinstance(image, str) and image.pixels[0, 0, 0] == i % 256
        assert len(taken) <= i + ahead + module._CHUNK
    assert len(taken) == 1000


def test_stopping_early_stops_the_workers():
    source, taken = counting_source(1000)
    framed = read_framed(source, Frame(8), workers=2)
    next(framed)
    framed.close()
    assert len(taken) < 200 and not [t for t in threading.enumerate() if "ThreadPool" in t.name]
