"""Tiny copies of the published data sets, laid out as their authors distribute them."""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from equimark import flows, synthetic
from equimark.benchmarks.layout import SIZES

SMALL = {
    "celeba": {"images": 8, "train": 4, "validation": 2, "test": 2},
    "mafl": {"train": 2, "test": 2},
    "aflw-m": {"train": 2, "test": 3},
    "aflw-r": {"train": 3, "test": 2},
    "300w": dict.fromkeys(SIZES["300w"], 1),
    "cats": {"train": 3},
    "shoes": {"images": 10, "train": 8},
    "mnist-3": {"train": 2, "validation": 1, "test": 1},
    "mnist-5": {"train": 1, "validation": 1, "test": 1},
    "mnist-6": {"train": 1, "validation": 1, "test": 1},
    "animals": {"least of a class": 2},
    "pets": {"train": 2},
    "yale-b": {"images": 10, "subjects": 4},
    "helen": {"train": 2, "validation": 1, "test": 1},
}
# The first line of the published list.
CELEBA_FIRST = "69 109 106 113 77 142 73 152 108 154"
MTFL_FIRST = "56.5 100.5 79.5 43.5 93.5 43.5 57.5 69.5 86.5 103.5 1 1 2 3"


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the published sizes those of the copies."""
    for name, sizes in SMALL.items():
        monkeypatch.setitem(SIZES, name, sizes)


def coordinates(width: int, height: int) -> np.ndarray:
    """An image whose red is x and whose green is y."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([x, y, np.full_like(x, 128)], -1).clip(0, 255).astype(np.uint8)


def picture(path: Path, width: int, height: int, **settings: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coordinates(width, height)).save(path, **settings)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def celeba(root: Path) -> None:
    """Images 1 to 4 are for training; 2 and 7 are test images of MAFL, 3 and 5 training images."""
    names = [f"{i:06d}.jpg" for i in range(1, 9)]
    header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    points = [CELEBA_FIRST, *(f"{60 + i} 110 105 112 80 140 72 150 106 152" for i in range(7))]
    rows = [f"{name}  {row} " for name, row in zip(names, points, strict=True)]
    lines(root / "Anno/list_landmarks_align_celeba.txt", "8", header + " ", *rows)
    lines(root / "Eval/list_eval_partition.txt", *(f"{n} {p}" for n, p in zip(names, "00001122", strict=True)))
    lines(root / "MAFL/training.txt", names[4], names[2])
    lines(root / "MAFL/testing.txt", names[6], names[1])
    for name in names:
        picture(root / "Img/img_align_celeba" / name, 178, 218, quality=95)


def aflw_m(root: Path) -> None:
    rows = [f"AFLW\\000{i}-image2005{i}.jpg {MTFL_FIRST}" for i in range(3)]
    lines(root / "MTFL/testing.txt", *(f" {row}" for row in rows), " ")
    for i in range(3):
        picture(root / f"MTFL/AFLW/000{i}-image2005{i}.jpg", 150, 150)
    columns = ["face_id", "image_file", "crop_file", "set", *(f"{a}{k}" for k in range(1, 6) for a in "xy"), "box"]
    faces = [
        f"{i},image0000{i}.jpg,cropped/4000{i}.jpg,{part},{10 + i},21,31,22,20,31,12,41,30,42,7"
        for i, part in enumerate((1, 2, 1))
    ]
    lines(root / "aflw_cropped/facedata_cropped.csv", ",".join(columns), *faces)
    for i in range(3):
        picture(root / f"aflw_cropped/cropped/4000{i}.jpg", 150, 150)


def aflw_r(root: Path) -> None:
    for what, count in SMALL["aflw-r"].items():
        names = [f"{i}/image0{i}_{what}.jpg" for i in range(count)]
        lines(root / f"aflw_{what}_images.txt", *names)
        for name in names:
            picture(root / "output" / name, 60, 80)
        points = np.tile([[20.5, 10], [20, 40], [30, 25], [50, 15], [50, 35]], (count, 1, 1))
        points[:, 0, 0] += np.arange(count)
        savemat(root / f"aflw_{what}_keypoints.mat", {"gt": points, "hw": np.tile([80, 60], (count, 1))})


def faces_300w(root: Path) -> None:
    """Boxes of 52 x 52 px, (100, 80) to (151, 131) when counted from 0."""
    rows = [f"{101 + i % 18 * 3}.000 {81 + i // 18 * 17}.000" for i in range(68)]
    for part in SMALL["300w"]:
        stem = root / part / ("image 1" if part == "ibug" else "image_1")
        picture(stem.with_suffix(".png" if part.startswith("lfpw") else ".jpg"), 400, 300)
        lines(stem.with_suffix(".pts"), "version: 1", "n_points:  68", "{", *rows, "}")
        lines(stem.with_name(f"{stem.name}_mirror.pts"), "version: 1", "{", *rows[::-1], "}")


def cats(root: Path) -> None:
    """Five annotated images in two of the folders, and the pair of files with the wrong name."""
    nine = "9 20 30 40 30 30 45 10 20 12 -4 24 14 36 14 48 2 50 20 "
    for i in range(7):
        (root / f"CAT_0{i}").mkdir(parents=True)
    for name in ("CAT_00/00000001_000", "CAT_00/00000001_005", "CAT_02/00000500_001", "CAT_02/00000500_002"):
        picture(root / f"{name}.jpg", 60, 50)
        lines(root / f"{name}.jpg.cat", nine)
    picture(root / "CAT_00/00000003_015.jpg", 60, 50)
    lines(root / "CAT_00/00000003_019.jpg.cat", nine)


def shoes(root: Path) -> None:
    for kind, count in (("Boots", 3), ("Sandals", 2), ("Shoes", 4), ("Slippers", 1)):
        for i in range(count):
            picture(root / f"ut-zap50k-images-square/{kind}/Ankle/A.B./{i}.1.jpg", 68, 34, quality=95)


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
    return bytes((0, 0, 8, values.ndim)) + sizes + values.astype(np.uint8).tobytes()


def mnist(root: Path) -> None:
    """Digits 3 5 6 3 5 6 1 3 for training, the test images packed; image i is filled with 10 i."""
    root.mkdir(parents=True, exist_ok=True)
    for files, digits in (("train", [3, 5, 6, 3, 5, 6, 1, 3]), ("t10k", [6, 5, 3])):
        images = np.broadcast_to(10 * np.arange(len(digits))[:, None, None], (len(digits), 28, 28))
        for what, data in (("images-idx3", idx(images)), ("labels-idx1", idx(np.array(digits)))):
            if files == "train":
                (root / f"{files}-{what}-ubyte").write_bytes(data)
            else:
                (root / f"{files}-{what}-ubyte.gz").write_bytes(gzip.compress(data))


def animals(root: Path, kinds: Iterable[str]) -> None:
    for kind in [*kinds, "Duck", "Elephant"]:
        for i in range(2):
            picture(root / f"AnimalFace/{kind}Head/{kind.lower()}{i}.jpg", 20, 16)


def voc(species: str, box: Sequence[int]) -> str:
    corners = "".join(f"<{a}>{v}</{a}>" for a, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<annotation><object><name>{species}</name><bndbox>{corners}</bndbox></object></annotation>"


def pets(root: Path) -> None:
    for name, species, box in (("Abyssinian_1", "cat", (11, 21, 50, 40)), ("beagle_2", "dog", (1, 1, 80, 60))):
        picture(root / f"images/{name}.jpg", 80, 60)
        lines(root / f"annotations/xmls/{name}.xml", voc(species, box))
    picture(root / "images/beagle_3.jpg", 80, 60)


def yale_b(root: Path) -> None:
    for subject in (1, 11, 38, 39):
        stem = f"CroppedYale/yaleB{subject:02d}/yaleB{subject:02d}_P00"
        for light in ("A+000E+00", "A-005E+10", "A+110E-20")[: 2 if subject > 30 else 3]:
            picture(root / f"{stem}{light}.png", 168, 192)
            Image.open(root / f"{stem}{light}.png").convert("L").save(root / f"{stem}{light}.pgm")
            (root / f"{stem}{light}.png").unlink()
        lines(root / f"{stem}_Ambient.pgm", "not cropped")
        lines(root / f"{stem}.info", "not an image")
    lines(root / "CroppedYale/yaleB11/yaleB11_P00A+050E-40.pgm.bad", "damaged")


def helen(root: Path) -> None:
    """Images of 12 x 10; in each, skin in columns 2 to 7, hair in row 0, the lower lip in row 6 and column 9."""
    masks = np.zeros((11, 10, 12), np.uint8)
    masks[1, :, 2:8] = 255
    masks[9, :, 9], masks[9, 6] = 127, 128
    masks[10, 0] = 255
    for file, stems in (("exemplars", ["100_1", "200_1"]), ("tuning", ["300_1"]), ("testing", ["400_1"])):
        lines(root / f"{file}.txt", *(f"{i} , {stem}" for i, stem in enumerate(stems, 1)), "")
        for stem in stems:
            picture(root / f"images/{stem}.jpg", 12, 10)
            (root / f"labels/{stem}").mkdir(parents=True)
            for i, mask in enumerate(masks):
                Image.fromarray(mask).save(root / f"labels/{stem}/{stem}_lbl{i:02d}.png")


def roboarm(root: Path, count: int = 11) -> None:
    video = synthetic.arm(count, size=30, speed=20)
    synthetic.write(root, video.images, video.landmarks)
    for i in range(count - 1):
        flows.write(root / f"{i:06d}.flo", video.displacement(i, i + 1))
