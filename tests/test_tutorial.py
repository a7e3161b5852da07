"""The tutorial from its first command to its last file, on drawn pictures that stand for photographs."""

import json
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equimark import formats
from equimark.landmarks import LandmarkTable
from equimark.synthetic import Portraits

PAGE = Path(__file__).parent.parent / "docs/tutorial.md"
HEIGHT, WIDTH = 48, 60
# What a reader lets run for hours, in seconds: words of the page, and what stands in their place.
SHORTER = {
    "--steps 5000": "--steps 16 --batch-size 4 --frame.size 40 --pairs.margin 6 --network.channels 8 "
    "--pairs.photometric.jpeg_probability 0 --quiet"
}

Command = Callable[..., tuple[int, str, str]]


def blocks() -> list[tuple[str, str]]:
    """Language and text of each block that a reader runs, in order."""
    return re.findall(r"```(sh|python)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def specimens(faces: Portraits) -> LandmarkTable:
    """Five landmarks of each wide photograph, and a scale of its own."""
    count = len(faces.images)
    return LandmarkTable(
        tuple(f"specimen-{i:02d}.png" for i in range(count)),
        faces.landmarks5.astype(float) + [(WIDTH - HEIGHT) / 2, 0],
        sizes=np.tile([HEIGHT, WIDTH], (count, 1)),
        scale=0.01 + 0.001 * np.arange(count),
    )


def photograph(folder: Path, faces: Portraits, table: LandmarkTable) -> None:
    folder.mkdir()
    side = (WIDTH - HEIGHT) // 2
    for name, image in zip(table.images, faces.images, strict=True):
        Image.fromarray(np.pad(image, ((0, 0), (side, side), (0, 0)), mode="edge")).save(folder / name)


def mark_rulers(path: Path, table: LandmarkTable) -> None:
    """As tpsDig saves photographs in which only the ruler was marked."""
    assert table.scale is not None
    pairs = zip(table.images, table.scale, strict=True)
    path.write_text("".join(f"LM=0\nIMAGE={name}\nID={i}\nSCALE={s:.6f}\n" for i, (name, s) in enumerate(pairs)))


def read_blocks(path: Path) -> dict[str, tuple[list[str], float]]:
    """Lines of coordinates and scale of each specimen of a ``.tps`` file, read by hand."""
    found = {}
    for block in path.read_text().split("LM=")[1:]:
        count, *lines = block.splitlines()
        keys = dict(line.split("=") for line in lines[int(count) :])
        found[keys["IMAGE"]] = (lines[: int(count)], float(keys["SCALE"]))
    return found


@pytest.mark.usefixtures("coarse_figures")
def test_from_photographs_to_tps(
    faces: Portraits, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, labelled = specimens(faces), list(range(10))
    photograph(tmp_path / "photos", faces, table)
    mark_rulers(tmp_path / "scales.tps", table)
    monkeypatch.chdir(tmp_path)

    def label(rows: Sequence[int], name: str, off: float = 0) -> None:
        chosen = table.select(rows)
        formats.write(LandmarkTable(chosen.images, chosen.points + off, sizes=chosen.sizes), Path(name))

    label(labelled, "labels.tps")
    label(labelled[:6], "again.tps", off=1)
    ran = 0
    for language, text in blocks():
        if language == "python":
            exec(text, scope := {})
            np.testing.assert_allclose(scope["apart"], 2**0.5, atol=1e-3)
            continue
        for words, shorter in SHORTER.items():
            text = text.replace(words, shorter)
        for line in filter(None, text.splitlines()):
            program, *arguments = shlex.split(line)
            assert program == "equimark"
            code, out, err = command(*arguments)
            assert code == 0, err
            ran += 1
            if suggested := re.findall("label next: (.+)", out):
                assert len(suggested) == 5
                labelled += [table.images.index(name) for name in suggested]
                label(labelled, "labels.tps")
    assert ran >= 7 and len(set(labelled)) == 15

    metrics = json.loads(Path("error.json").read_text())["metrics"]
    assert {"labels_5", "labels_10", "labels_all"} < set(metrics)
    assert {"error_box_percent", "mean_shape_error_box_percent", "calibration_error"} < set(metrics["labels_10"])
    with Image.open("confidence.png") as picture:
        assert picture.width > 600

    everything, kept = (formats.read(name) for name in ("all.csv", "landmarks.csv"))
    assert everything.images == kept.images == table.images and everything.confidence is not None
    np.testing.assert_array_equal(kept.visible, everything.confidence >= 0.5)
    written = read_blocks(Path("wings.tps"))
    assert list(written) == list(table.images)
    for row, (lines, scale) in enumerate(written.values()):
        assert len(lines) == 5
        assert scale == pytest.approx(0.01 + 0.001 * row)
        for line, (x, y) in zip(lines, kept.points[row], strict=True):
            if np.isnan(x):
                assert line == "NA NA"
            else:
                assert [float(word) for word in line.split()] == pytest.approx([x, HEIGHT - y], abs=2e-4)


def test_the_shorter_words_stand_on_the_page() -> None:
    text = "".join(text for _, text in blocks())
    assert all(words in text for words in SHORTER)
