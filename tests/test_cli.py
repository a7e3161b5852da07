import csv
import errno
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import TINY, full_disk, same_weights, weights_of
from equimark import checkpoint, formats, model, report
from equimark.arguments import make_parser
from equimark.commands.showing import print_list, print_table
from equimark.config import config_keys, load_recipe, make_config, recipe_names
from equimark.geometry import Frame
from equimark.landmarks import LandmarkTable
from equimark.model import LandmarkModel
from equimark.packs import PackedImages, pack, packing
from equimark.run import Run
from equimark.synthetic import Portraits
from pictures import encoded, picture

Command = Callable[..., tuple[int, str, str]]
COMMANDS = (
    "demo",
    "pack",
    "train",
    "recipes",
    "detect",
    "match",
    "fit",
    "convert",
    "evaluate",
    "tabulate",
    "report",
    "info",
    "export",
    "benchmark",
    "synthetic",
)
KEYS = [f"--{key}={value}" for key, value in TINY.items()]

pytestmark = pytest.mark.usefixtures("coarse_figures")


def fails(result: tuple[int, str, str], code: int, *words: str) -> None:
    """One line on standard error that holds all ``words``, and no traceback."""
    got, _, err = result
    lines = err.splitlines()
    assert got == code, err
    assert len(lines) == 1, err
    assert lines[0].startswith("equimark: ")
    for word in words:
        assert word in lines[0]


def misused(result: tuple[int, str, str], *words: str) -> None:
    """One line that says what is wrong, and where to see what is right; not how the whole command is used."""
    fails(result, 2, *words, "--help shows what there is")


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# ---- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(command: Command, name: str) -> None:
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert "example:\n  equimark " + name in out


def test_help_names_every_command(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    assert all(name in out for name in COMMANDS)


def test_examples_can_be_parsed() -> None:
    parser, made = make_parser()
    for name, sub in made.items():
        assert sub.epilog
        words = sub.epilog.splitlines()[1].split("equimark ")[1]
        arguments, rest = parser.parse_known_args(words.replace('"40,52 71,50"', "40,52").split())
        assert arguments.command == name
        assert rest == []


def test_train_takes_options_before_the_images() -> None:
    parser, _ = make_parser()
    words = ["train", "--steps", "5", "photos", "--out", "run", "--batch-size", "4", "--pairs.margin", "3"]
    arguments, rest = parser.parse_known_args(words)
    assert (str(arguments.images), arguments.steps, arguments.batch_size) == ("photos", "5", "4")
    assert rest == ["--pairs.margin", "3"]


def test_help_of_train_lists_every_key(command: Command) -> None:
    _, out, _ = command("train", "--help")
    assert all(f"--{key} " in out for key in config_keys())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), ("no command given, such as demo, train or detect; equimark --help",)),
        (("pack",), ("required: images, --out; equimark pack --help",)),
        (("detect", "run"), ("required: images, --out; equimark detect --help",)),
        (("detekt", "run"), ("no command 'detekt' (did you mean 'detect'?); equimark --help",)),
        (("xyzzy",), ("no command 'xyzzy'; equimark --help",)),
        (("fit", "run", "--lables", "5"), ("unknown argument '--lables' (did you mean '--labels'?); equimark fit -",)),
        (("fit", "run", "--lanmarks=l.csv", "--out", "h"), ("'--lanmarks' (did you mean '--landmarks'?)",)),
        (("fit", "run", "-o", "head"), ("unknown argument '-o'",)),
        (("fit", "run", "--out", "head"), ("required: --landmarks; equimark fit --help",)),
        (("fit", "a", "--landmarks", "b", "--out", "c", "--labels", "many"), ("--labels: invalid int value: 'many'",)),
        (
            ("train", "photos", "--pairs.margin=3", "--batch-size", "2", "--ot", "run"),
            ("'--ot' (did you mean '--out'",),
        ),
        (("train", "photos", "--pairs.margn=3"), ("'--pairs.margn' (did you mean '--pairs.margin'?)",)),
        (("train", "photos", "--pairs.margin", "3"), ("required: --out; equimark train --help",)),
    ],
)
def test_wrong_usage(command: Command, words: tuple[str, ...], says: tuple[str, ...]) -> None:
    misused(command(*words), *says)


def test_the_installed_command() -> None:
    code = "import sys; from equimark.cli import main; sys.argv = ['equimark', 'info', 'none']; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["equimark: none is not a run: it does not exist"]


# ---- pack ---------------------------------------------------------------------------------------------------


def test_pack(command: Command, photos: Path, tmp_path: Path) -> None:
    code, out, err = command("pack", photos, "--out", tmp_path / "p", "--size", 32, "--frame", "letterbox", "--quiet")
    assert (code, err) == (0, "")
    assert "packed 16 images of 32 x 32" in " ".join(out.split())
    assert PackedImages.open(tmp_path / "p").frame == Frame(32, "letterbox")
    fails(command("pack", photos, "--out", tmp_path / "p", "--quiet"), 1, "holds a pack already", "--overwrite")
    assert command("pack", photos, "--out", tmp_path / "p", "--size", 24, "--quiet", "--overwrite")[0] == 0
    assert PackedImages.open(tmp_path / "p").frame.size == 24


def test_pack_counts_what_it_could_not_read(command: Command, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "good.png").write_bytes(encoded(picture()))
    (tmp_path / "photos" / "bad.png").write_bytes(b"nothing")
    code, out, _ = command("pack", tmp_path / "photos", "--out", tmp_path / "pack", "--quiet")
    assert code == 0
    assert "1 could not be read, see" in " ".join(out.split())
    assert rows_of(tmp_path / "pack" / "unreadable.csv")[1][0] == "bad.png"


@pytest.mark.parametrize("option", [("--size", 4), ("--frame", "center"), ("--pad", 60), ("--pad", -1)])
def test_pack_in_an_impossible_frame(command: Command, photos: Path, tmp_path: Path, option: tuple[str, Any]) -> None:
    fails(command("pack", photos, "--out", tmp_path / "pack", "--quiet", *option), 2, str(option[1]))


def test_pack_on_a_full_disk(command: Command, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_write_images", full_disk)
    fails(command("pack", photos, "--out", tmp_path / "pack", "--quiet"), 1, "no space left")
    assert list(tmp_path.iterdir()) == []


# ---- images that are not there ------------------------------------------------------------------------------


def source_missing(folder: Path) -> None: ...


def source_empty(folder: Path) -> None:
    folder.mkdir()


def source_without_images(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.md").write_text("text")


def source_unreadable(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.png").write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (source_missing, "does not exist"),
        (source_empty, "is empty"),
        (source_without_images, "holds no images"),
        (source_unreadable, "can be read; a.png: "),
    ],
)
@pytest.mark.parametrize("name", ["pack", "train", "detect", "match"])
def test_no_images(
    command: Command,
    tmp_path: Path,
    sparse_run: Run,
    dve_run: Run,
    photos: Path,
    name: str,
    make: Callable[[Path], None],
    says: str,
) -> None:
    images, out, found = tmp_path / "images", tmp_path / "out", tmp_path / "found.csv"
    make(images)
    words: dict[str, tuple[object, ...]] = {
        "pack": (images, "--out", out),
        "train": (images, "--out", out, *KEYS),
        "detect": (sparse_run.folder, images, "--out", found),
        "match": (dve_run.folder, photos / "000000.png", "--points=9,9", "--targets", images, "--out", found),
    }
    fails(command(name, *words[name], "--quiet"), 1, str(images), says)
    assert not out.is_file() and not found.exists()
    assert name != "pack" or not out.exists()


def test_one_image(command: Command, photos: Path, tmp_path: Path) -> None:
    fails(
        command("train", photos / "000000.png", "--out", tmp_path / "run", "--quiet", *KEYS), 2, "at least 2", "got 1"
    )


# ---- train --------------------------------------------------------------------------------------------------


def test_train_then_report_and_info(command: Command, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", photos, "--out", run, "--recipe", "dense-smallnet-16", "--steps", 3, "--frame", "letterbox")
    code, out, err = command(*words, "--seed=5", "--batch-size", "2", "--quiet", *KEYS[:3])
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "for 3 steps: loss" in text
    assert "matching" in text
    config = checkpoint.read_config(run)
    assert (config.steps, config.batch_size, config.seed, config.frame.fit) == (3, 2, 5, "letterbox")
    assert (config.method, config.network.channels) == ("dense", 16)
    page = run / "report.html"
    assert page.is_file()

    page.unlink()
    code, out, err = command("report", run)
    assert (code, err) == (0, "")
    assert page.is_file()

    code, out, err = command("info", run)
    assert (code, err) == (0, "")
    for words in ("dense", "smallnet, 16 channels", "16 from", "3 of 3, batches of 2", "torch"):
        assert words in out

    fails(command("train", photos, "--out", run, "--quiet"), 1, "already holds a run", "--resume", "--overwrite")


@pytest.fixture
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "write_run_report", lambda run, images: run / "report.html")


@pytest.mark.usefixtures("without_reports")
def test_train_resume_overwrite_and_from(command: Command, photo_pack: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    start = ("train", photo_pack, "--quiet", "--device", "cpu")
    assert command(*start, "--out", first, "--method", "dense", "--steps=2", *KEYS)[0] == 0
    before = weights_of(first)
    code, out, _ = command(*start, "--out", first, "--resume")
    assert (code, "for 2 steps" in " ".join(out.split())) == (0, True)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(first).items())
    fails(command(*start, "--out", first, "--resume", "--optimiser.lr", "0.5"), 1, "optimiser.lr: 0.002 -> 0.5")
    assert command(*start, "--out", second, "--from", first, "--steps", 1, "--optimiser.lr", "1e-9")[0] == 0
    assert checkpoint.read_config(second).method == "dense"
    assert command(*start, "--out", second, "--overwrite", "--method", "dense", "--steps=2", *KEYS)[0] == 0
    assert same_weights(first, second)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--recipe", "dve-smalnet-64"), ("unknown recipe 'dve-smalnet-64'", "did you mean 'dve-smallnet-64'?")),
        (("--recipe", "own.yaml"), ("there is no recipe file own.yaml",)),
        (("--method", "dvee"), ("unknown method 'dvee'",)),
        (("--optimizer.lr", "1e-3"), ("'--optimizer.lr'", "did you mean '--optimiser.lr'?")),
        (("--bach-size", "8"), ("did you mean '--batch-size'?",)),
        (("--recipie", "sparse-10"), ("'--recipie'", "did you mean '--recipe'?")),
        (("--quiett",), ("'--quiett'", "did you mean '--quiet'?")),
        (("--epochs",), ("--epochs needs a value",)),
        (("--epochs", "--precision", "no"), ("--epochs needs a value",)),
        (("more", "words"), ("unexpected argument 'more'",)),
        (("--steps", "0"), ("steps must be at least 1, got 0",)),
        (("--steps", "many"), ("steps", "many")),
        (("--method", "sparse", "--network.channels", "0"), ("number of landmarks", "at least 1")),
        (("--batch-size", "1"), ("batch_size must be at least 2 for dve",)),
        (("--pairs.margin", "45"), ("margin=45 leaves a crop of 10 pixels",)),
        (("--frame", "center"), ("fit must be centre", "'center'")),
        (("--resume", "--overwrite"), ("give one of them",)),
        (("--recipe", "sparse-10", "--method", "dve"), ("not both",)),
        (("--tracker", "scribe"), ("scribe",)),
    ],
)
def test_train_with_what_cannot_be_meant(
    command: Command, photo_pack: Path, tmp_path: Path, words: tuple[str, ...], says: tuple[str, ...]
) -> None:
    size = [] if "--pairs.margin" in words else KEYS[:3]
    fails(command("train", photo_pack, "--out", tmp_path / "run", "--quiet", *size, *words), 2, *says)


def test_train_where_there_is_nothing_to_resume(command: Command, photo_pack: Path, tmp_path: Path) -> None:
    fails(command("train", photo_pack, "--out", tmp_path / "none", "--resume"), 1, "no run to resume", "--resume")


def test_train_from_what_is_no_run(command: Command, photo_pack: Path, tmp_path: Path) -> None:
    fails(command("train", photo_pack, "--out", tmp_path / "r", "--from", tmp_path / "n"), 1, "is not a run")


def test_train_into_a_folder_of_other_files(command: Command, photo_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    fails(command("train", photo_pack, "--out", tmp_path, *KEYS), 1, "holds other files (thesis.tex")


def test_train_on_a_pack_of_another_size(command: Command, photo_pack: Path, tmp_path: Path) -> None:
    fails(
        command("train", photo_pack, "--out", tmp_path / "run"), 2, "40 px wide and the recipe's 100 px", "--size 100"
    )


def test_train_on_a_full_disk(
    command: Command, photo_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    words = ("train", photo_pack, "--out", tmp_path / "run", "--quiet", "--steps=2", *KEYS)
    fails(command(*words), 1, "No space left on device")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
@pytest.mark.parametrize("name", ["train", "detect"])
def test_device_that_is_not_there(
    command: Command, photo_pack: Path, sparse_run: Run, tmp_path: Path, name: str
) -> None:
    words = (photo_pack, *KEYS) if name == "train" else (sparse_run.folder, photo_pack)
    result = command(name, *words, "--out", tmp_path / "out.csv", "--quiet", "--device", "cuda")
    fails(result, 2 if name == "train" else 1, "no cuda device")


@pytest.mark.parametrize("name", ["train", "detect", "demo"])
def test_unknown_device(command: Command, tmp_path: Path, name: str) -> None:
    words = {"train": ("a", "--out", "b"), "detect": ("a", "b", "--out", "c"), "demo": ()}[name]
    misused(command(name, *words, "--device", "tpu"), "--device", "tpu", "cuda")


# ---- recipes, synthetic -------------------------------------------------------------------------------------


def test_recipes(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = command("recipes")
    assert (code, err) == (0, "")
    first, _, *listed, last = out.splitlines()
    assert "joint-smallnet-64" in first and "equimark recipes NAME" in last
    assert [line.split()[0] for line in listed if line[0] != " "] == recipe_names()
    text = " ".join(out.split())
    assert all(f"{name} {load_recipe(name).about['title']}" in text for name in recipe_names())
    assert max(map(len, out.splitlines())) <= 80


def test_output_that_nobody_reads_to_the_end() -> None:
    words = [sys.executable, "-m", "equimark", "recipes"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_recipe_in_full_is_a_recipe(command: Command, tmp_path: Path) -> None:
    known = load_recipe("dve-hourglass-64")
    code, out, err = command("recipes", "dve-hourglass-64")
    assert (code, err) == (0, "")
    assert out.startswith("# equimark train IMAGES --out RUN --recipe dve-hourglass-64\nabout:\n  title: Descriptor")
    (tmp_path / "own.yaml").write_text(out, encoding="utf-8")
    own = load_recipe(str(tmp_path / "own.yaml"))
    assert own.about == known.about and make_config(own.settings) == make_config(known.settings)
    fails(command("recipes", "dve-smalnet-64"), 2, "did you mean 'dve-smallnet-64'?")


def test_tables_cut_nothing_off(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in front stay on their line, and so do words; where there is no room for words, they go on below."""
    name, words = "step_hourglass_dve with exchange", ["0.06667 (0.06487–0.06719)", "1,614 images", "share 4%"]
    columns = ["", "seconds (middle half)", "per second", "of all"]
    for width, whole in ((120, True), (80, True), (73, True), (40, False)):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table("title", columns, [[name, *words]])
        out = capsys.readouterr().out
        assert "…" not in out and max(map(len, out.splitlines())) <= width
        assert all(text in out for text in (name, "(0.06487–0.06719)", "images", "share")) == whole
        given = "".join(["title", *columns, name, *words])
        assert sorted(filter(str.isalnum, out)) == sorted(filter(str.isalnum, given))


def test_names_and_what_is_said_of_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_list([("short", ["one two three four five six"]), ("longer", ["a", "b"])])
    said = ["short   one two three four", "        five six", "longer  a", "        b"]
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize(("kind", "points"), [("portraits", 68), ("arm", 6)])
def test_synthetic(command: Command, tmp_path: Path, kind: str, points: int) -> None:
    code, out, err = command("synthetic", kind, "--out", tmp_path / kind, "--count", 2, "--seed", 4)
    assert (code, err) == (0, "")
    assert "drew 2 " in out
    table = formats.read(tmp_path / kind / "landmarks.csv")
    assert table.points.shape == (2, points, 2)
    assert all((tmp_path / kind / name).is_file() for name in table.images)


TINY_ARM = ("frame.size=40", "pairs.margin=6", "steps=2", "batch_size=2")


@pytest.mark.parametrize("recipe", ["roboarm-20-dve", "roboarm-3", "roboarm-20-dve-identity"])
def test_the_drawn_arm_trains_by_its_recipes(command: Command, tmp_path: Path, recipe: str) -> None:
    assert command("synthetic", "arm", "--out", tmp_path / "arm", "--count", 4, "--speed", 8)[0] == 0
    options = [f"--{option}" for option in TINY_ARM]
    code, _, err = command(
        "train", tmp_path / "arm", "--out", tmp_path / "run", "--recipe", recipe, "--quiet", *options
    )
    assert code == 0, err
    assert (tmp_path / "run" / "pack" / "flow.f16").is_file()


def test_drawn_parts_segment_the_drawn_portraits(command: Command, tmp_path: Path) -> None:
    drawn, parts = tmp_path / "drawn", tmp_path / "parts"
    assert command("synthetic", "portraits", "--out", drawn, "--count", 3, "--parts", parts)[0] == 0
    options = ("--recipe=segmentation-scratch", "--steps=1", "--batch-size=2", "--network.channels=7", "--quiet")
    code, _, err = command("train", drawn, "--out", tmp_path / "run", "--parts", parts, *options)
    assert (code, err) == (0, "")


# ---- detect, match, fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("out", "says"), [("found.doc", "no landmark format"), (".", "no landmark format")])
def test_a_result_that_could_not_be_written_is_refused_at_once(
    command: Command, photos: Path, tmp_path: Path, out: str, says: str
) -> None:
    missing = tmp_path / "no-run"  # would be complained of, had the command got so far
    fails(command("detect", missing, photos, "--out", tmp_path / out), 1, says)
    fails(
        command("match", missing, photos / "000000.png", "--points", "1,1", "--targets", photos, "--out", out), 1, says
    )


def test_detect_lists_what_it_left_out(
    command: Command, sparse_run: Run, photos: Path, faces: Portraits, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        (tmp_path / "images" / f"{i}.png").write_bytes((photos / f"{i:06d}.png").read_bytes())
    (tmp_path / "images" / "bad.png").write_bytes(b"nothing")
    out_file = tmp_path / "new" / "landmarks.csv"
    code, out, err = command("detect", sparse_run.folder, tmp_path / "images", "--out", out_file, "--quiet")
    assert code == 0
    assert "4 points on 3 images" in out
    assert err.splitlines() == ["equimark: left out bad.png: not an image, or of a kind that Pillow cannot open here"]
    header, *rows = rows_of(out_file)
    assert header == ["image", "x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3", "c0", "c1", "c2", "c3"]
    assert [row[0] for row in rows] == ["0.png", "1.png", "2.png"]
    table = formats.read(out_file)
    np.testing.assert_allclose(table.points[1], sparse_run.model.detect(faces.images[1]).points, atol=2e-3)


def test_detect_in_another_frame(command: Command, sparse_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(40, 90)))
    words = ("detect", sparse_run.folder, tmp_path / "a.png", "--quiet", "--out", tmp_path / "a.csv")
    assert command(*words)[0] == 0
    centre = formats.read(tmp_path / "a.csv").points
    assert command(*words, "--frame", "letterbox")[0] == 0
    assert not np.allclose(formats.read(tmp_path / "a.csv").points, centre)
    fails(command(*words, "--frame", "center"), 2, "fit must be centre", "'center'")


def test_detect_with_a_dense_run(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    fails(command("detect", dve_run.folder, photos, "--out", tmp_path / "l.csv", "--quiet"), 1, "equimark fit")


def test_detect_to_an_unknown_format(command: Command, sparse_run: Run, photos: Path, tmp_path: Path) -> None:
    fails(command("detect", sparse_run.folder, photos, "--out", tmp_path / "l.doc", "--quiet"), 1, "known are .csv")


def test_detect_on_a_full_disk(
    command: Command, sparse_run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "l.csv"
    out.write_text("mine")

    def fill_up(_: LandmarkTable, path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setitem(formats.FORMATS, "csv", replace(formats.FORMATS["csv"], write=fill_up))
    fails(command("detect", sparse_run.folder, photos, "--out", out, "--quiet"), 1, "No space left on device")
    assert out.read_text() == "mine"


def test_unknown_options_name_the_nearest(command: Command, sparse_run: Run, photos: Path) -> None:
    words = ("detect", sparse_run.folder, photos, "--out", "l.csv")
    fails(command(*words, "--devise", "cpu"), 2, "unknown argument '--devise'", "did you mean '--device'?")
    fails(command(*words, "--he", "x"), 2, "unknown argument '--he'")


@pytest.mark.parametrize("targets", ["folder", "pack"])
def test_match_with_a_picture(
    command: Command, dve_run: Run, photos: Path, photo_pack: Path, faces: Portraits, tmp_path: Path, targets: str
) -> None:
    out_file, plot = tmp_path / "m.csv", tmp_path / "new" / "m.png"
    words = ("match", dve_run.folder, photos / "000000.png", "--points", "20,20.5 30,22")
    places = photos if targets == "folder" else photo_pack
    code, out, err = command(*words, "--targets", places, "--out", out_file, "--plot", plot, "--quiet")
    assert (code, err) == (0, "")
    assert "2 points on 16 images" in out
    table = formats.read(out_file)
    wanted = dve_run.model.match(faces.images[0], [(20, 20.5), (30, 22)], faces.images[4])
    np.testing.assert_allclose(table.points[4], wanted.points, atol=2e-3)
    with Image.open(plot) as drawn:
        assert min(drawn.size) > 100


def test_match_points_of_a_landmark_file(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    words = ("match", dve_run.folder, photos / "000002.png", "--targets", photos / "000003.png", "--quiet")
    assert command(*words, "--points", photos / "landmarks.csv", "--out", tmp_path / "m.csv")[0] == 0
    assert formats.read(tmp_path / "m.csv").points.shape == (1, 5, 2)
    (tmp_path / "other.csv").write_text("image,x0,y0\nx.png,1,2\n")
    result = command(*words, "--points", tmp_path / "other.csv", "--out", tmp_path / "n.csv")
    fails(result, 1, "other.csv has no row for 000002.png")


def test_other_formats_in_and_out(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    for labels in ("labels.json", "labels.tps"):
        words = ("convert", photos / "landmarks.csv", tmp_path / labels, "--images", photos)
        assert command(*words)[::2] == (0, "")
    words = ("match", dve_run.folder, photos / "000002.png", "--targets", photos, "--quiet")
    for points, out in ((tmp_path / "labels.json", "m.tps"), (photos / "landmarks.csv", "m.csv")):
        assert command(*words, "--points", points, "--out", tmp_path / out)[0] == 0
    found = formats.read(tmp_path / "m.tps", images=photos)
    np.testing.assert_allclose(found.points, formats.read(tmp_path / "m.csv").points, atol=2e-3)
    fit = ("fit", dve_run.folder, "--landmarks", tmp_path / "labels.tps", "--images", photos, "--quiet")
    assert command(*fit, "--out", tmp_path / "head")[0] == 0
    detect = ("detect", dve_run.folder, photos, "--head", tmp_path / "head", "--quiet", "--out")
    assert command(*detect, tmp_path / "d.csv")[::2] == (0, "")
    code, _, err = command(*detect, tmp_path / "d.pts")
    assert code == 0
    assert err.startswith("equimark: the confidence of landmarks is left out: pts has no place for it\n")
    assert err.splitlines()[1:] == [
        "equimark: the endings of the images' names are left out: keep the files beside the images, which have them"
    ]
    found = formats.read(tmp_path / "d.pts")
    np.testing.assert_allclose(found.points, formats.read(tmp_path / "d.csv").points, atol=1e-4)


def test_match_many_points(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    points = " ".join(f"{x}.25,{y}.75" for x in range(3, 40, 3) for y in range(3, 40, 3))
    assert len(points) > 1000  # longer than a file name may be
    words = ("match", dve_run.folder, photos / "000000.png", "--targets", photos / "000001.png", "--quiet")
    assert command(*words, "--points", points, "--out", tmp_path / "m.csv")[0] == 0
    assert formats.read(tmp_path / "m.csv").points.shape == (1, 169, 2)


@pytest.mark.parametrize("points", ["", "nose", "1,2,3", "1,2,3 4,5,6", "1 2", "1,2;3,4", "none.csv", "x" * 5000])
def test_match_bad_points(command: Command, dve_run: Run, photos: Path, tmp_path: Path, points: str) -> None:
    words = (
        "match",
        dve_run.folder,
        photos / "000000.png",
        "--targets",
        photos,
        "--quiet",
        "--out",
        tmp_path / "m.csv",
    )
    fails(command(*words, "--points", points), 2, "--points wants 'x,y x,y ...' or a landmark file")


@pytest.mark.parametrize("points", ["48,20", "20,-0.6", "20,20 20,90", "nan,20"])
def test_match_points_outside(command: Command, dve_run: Run, photos: Path, tmp_path: Path, points: str) -> None:
    words = (
        "match",
        dve_run.folder,
        photos / "000000.png",
        "--targets",
        photos,
        "--quiet",
        "--out",
        tmp_path / "m.csv",
    )
    fails(command(*words, "--points", points), 1, "point ", points.split()[-1], "outside", "48 x 48")
    assert not (tmp_path / "m.csv").exists()


def test_match_a_source_that_cannot_be_read(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nothing")
    words = ("--points", "9,9", "--targets", photos, "--quiet", "--out", tmp_path / "m.csv")
    fails(command("match", dve_run.folder, tmp_path / "bad.png", *words), 1, "bad.png", "not an image")
    fails(command("match", dve_run.folder, tmp_path / "none.png", *words), 1, "there is no image at", "none.png; S")
    fails(command("match", dve_run.folder, photos, *words), 1, f"{photos} is a folder; SOURCE is the image file")


def test_match_with_a_sparse_run(command: Command, sparse_run: Run, photos: Path, tmp_path: Path) -> None:
    words = ("match", sparse_run.folder, photos / "000000.png", "--points", "9,9", "--targets", photos)
    fails(command(*words, "--quiet", "--out", tmp_path / "m.csv"), 1, "a sparse run has no descriptors")


def test_fit_then_detect(command: Command, dve_run: Run, photos: Path, faces: Portraits, tmp_path: Path) -> None:
    names = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    splits = ("train",) * 6 + ("test",) * 10
    labels = LandmarkTable(
        tuple(f"{i:06d}.png" for i in range(16)), faces.landmarks5.astype(float), names=names, splits=splits
    )
    formats.write(labels, tmp_path / "labels.csv")
    fit = ("fit", dve_run.folder, "--landmarks", tmp_path / "labels.csv", "--images", photos, "--quiet")
    code, out, err = command(*fit, "--out", tmp_path / "head")
    assert (code, err) == (0, "")
    assert "5 landmarks from 6 labelled images" in " ".join(out.split())
    assert "have a left and a right: with --symmetric auto" in out
    head = dve_run.model.fit(list(faces.images[:6]), faces.landmarks5[:6], names)

    detect = ("detect", dve_run.folder, photos, "--head", tmp_path / "head", "--quiet")
    assert command(*detect, "--out", tmp_path / "found.csv")[0] == 0
    found = formats.read(tmp_path / "found.csv")
    assert found.names == names
    np.testing.assert_allclose(found.points, head.predict(list(faces.images)), atol=0.05)

    assert command(*fit, "--out", tmp_path / "few", "--labels", 2, "--seed", 3)[0] == 0
    assert (tmp_path / "few" / "head.yaml").is_file()
    for count in (0, 7):
        fails(command(*fit, "--out", tmp_path / "few", "--labels", count), 1, "between 1 and 6")


def test_fit_with_labels_beside_the_images(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    words = ("fit", dve_run.folder, "--landmarks", photos / "landmarks.csv", "--out", tmp_path / "head", "--quiet")
    code, out, _ = command(*words)
    assert code == 0
    assert "from 16 labelled images" in " ".join(out.split())


def test_landmarks_named_by_those_of_a_sparse_run(
    command: Command, sparse_run: Run, photos: Path, tmp_path: Path
) -> None:
    head = tmp_path / "head"
    labels = ("--landmarks", photos / "landmarks.csv")
    plot = tmp_path / "graph.png"
    assert command("fit", sparse_run.folder, *labels, "--out", head, "--plot", plot, "--quiet")[0] == 0
    assert plot.stat().st_size > 1000
    found = ("--head", head, "--out", tmp_path / "found.csv", "--quiet")
    assert command("detect", sparse_run.folder, photos, *found)[0] == 0
    assert formats.read(tmp_path / "found.csv").points.shape == (16, 5, 2)


def test_fit_for_things_in_any_direction(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    head = tmp_path / "head"
    words = ("fit", dve_run.folder, "--landmarks", photos / "landmarks.csv", "--out", head, "--labels", 3, "--quiet")
    code, out, _ = command(*words, "--direction", "any")
    assert code == 0 and "thirteen times as long" in " ".join(out.split())
    assert yaml.safe_load((head / "head.yaml").read_text())["turned"] is True
    found = ("--head", head, "--out", tmp_path / "found.csv", "--quiet")
    assert command("detect", dve_run.folder, photos, *found)[0] == 0
    assert formats.read(tmp_path / "found.csv").points.shape == (16, 5, 2)
    code, out, _ = command(*words)  # people stand upright
    assert code == 0 and "thirteen" not in out
    assert yaml.safe_load((head / "head.yaml").read_text())["turned"] is False


def test_what_a_head_takes_for_hidden_is_left_blank(
    command: Command, dve_run: Run, photos: Path, tmp_path: Path
) -> None:
    head, labels = tmp_path / "head", photos / "landmarks.csv"
    fit = ("fit", dve_run.folder, "--landmarks", labels, "--out", head, "--labels", 3, "--quiet")
    assert command(*fit)[0] == 0
    found = ("detect", dve_run.folder, photos, "--head", head, "--quiet", "--out")
    assert command(*found, tmp_path / "all.csv")[0] == 0
    everything = formats.read(tmp_path / "all.csv")
    assert everything.visible.all()
    assert everything.confidence is not None
    middle = float(np.median(everything.confidence))
    weights = load_file(head / "head.safetensors")
    save_file(weights | {"visible_from": torch.tensor(middle)}, head / "head.safetensors")  # as learned from labels
    assert command(*found, tmp_path / "some.csv")[0] == 0
    assert 0 < formats.read(tmp_path / "some.csv").visible.sum() < everything.visible.sum()
    assert command(*found, tmp_path / "none.csv", "--min-confidence", 0)[0] == 0
    assert formats.read(tmp_path / "none.csv").visible.all()


def test_what_was_found_before_is_kept(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    labels, head, out = photos / "landmarks.csv", tmp_path / "head", tmp_path / "found.csv"
    for count in (3, 2):
        assert (
            command("fit", dve_run.folder, "--landmarks", labels, "--out", head, "--labels", count, "--quiet")[0] == 0
        )
    assert {path.name for path in head.iterdir()} == {
        *("head.yaml", "head.safetensors", "head.earlier-1.yaml", "head.earlier-1.safetensors")
    }
    detect = ("detect", dve_run.folder, photos, "--head", head, "--out", out, "--quiet")
    assert command(*detect)[2] == ""
    before = out.read_bytes()
    code, said, err = command(*detect, "--min-confidence", 1)
    assert (code, "80 of them left blank" in " ".join(said.split())) == (0, True)
    assert "what was there before is kept" in err and "found.earlier-1.csv" in err
    assert (tmp_path / "found.earlier-1.csv").read_bytes() == before != out.read_bytes()


def test_a_single_label_makes_no_probability(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    words = ("fit", dve_run.folder, "--landmarks", photos / "landmarks.csv", "--out", tmp_path / "head", "--quiet")
    code, out, err = command(*words, "--labels", 1)
    assert code == 0 and "from 1 labelled image:" in " ".join(out.split())
    assert "is no probability" in err
    assert command(*words, "--labels", 2)[2].count("is no probability") == 0


def test_fit_that_cannot_work(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    rest = ("--out", tmp_path / "head", "--quiet", "--landmarks")
    fails(command("fit", dve_run.folder, *rest, tmp_path / "none.csv"), 1, "none.csv", "no such landmark file")
    (tmp_path / "bad.csv").write_text("image,x0,y0\n000000.png,one,2\n")
    fails(command("fit", dve_run.folder, *rest, tmp_path / "bad.csv"), 1, "bad.csv, line 2", "'one'")
    (tmp_path / "blank.csv").write_text("image,x0,y0,x1,y1\n000000.png,1,2,,\n")
    words = (*rest, tmp_path / "blank.csv", "--images", photos)
    fails(command("fit", dve_run.folder, *words), 1, "visible on none of the")
    assert not (tmp_path / "head").exists()


def test_head_of_another_run(
    command: Command, dve_run: Run, photo_pack: Path, photos: Path, faces: Portraits, tmp_path: Path
) -> None:
    dve_run.model.fit(list(faces.images[:2]), faces.landmarks5[:2]).save(tmp_path / "head")
    other = tmp_path / "other"
    checkpoint.write_config(other, dve_run.model.config)
    network = checkpoint.build(dve_run.model.config)
    checkpoint.save_model(other, network, step=1, data=checkpoint.load(dve_run.folder).data)
    words = (photos, "--out", tmp_path / "l.csv", "--quiet", "--head")
    fails(command("detect", other, *words, tmp_path / "head"), 1, "was fitted on another run")
    fails(command("detect", other, *words, tmp_path / "none"), 1, "holds no fitted head", "equimark fit")


@pytest.mark.parametrize("name", ["detect", "info", "report", "evaluate", "fit", "match"])
def test_checkpoint_that_is_cut_short(command: Command, dve_run: Run, photos: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_bytes((dve_run.folder / "config.yaml").read_bytes())
    (run / "model.safetensors").write_bytes((dve_run.folder / "model.safetensors").read_bytes()[:-100])
    words: dict[str, tuple[object, ...]] = {
        "detect": (run, photos, "--out", tmp_path / "o.csv"),
        "info": (run,),
        "report": (run,),
        "evaluate": ("matching", run, "--data", photos / "landmarks.csv"),
        "fit": (run, "--landmarks", photos / "landmarks.csv", "--out", tmp_path / "head"),
        "match": (run, photos / "000000.png", "--points", "9,9", "--targets", photos, "--out", tmp_path / "m.csv"),
    }
    fails(command(name, *words[name]), 1, "model.safetensors is damaged or cut short", "--resume")


def test_not_a_run(command: Command, tmp_path: Path) -> None:
    fails(command("info", tmp_path), 1, "is not a run: it holds no config.yaml")
    (tmp_path / "config.yaml").write_text("colour: blue\n")
    fails(command("info", tmp_path), 2, "config.yaml: unknown configuration key 'colour'")


# ---- evaluate -----------------------------------------------------------------------------------------------


def labels_with_splits(faces: Portraits, path: Path) -> Path:
    images = tuple(f"{i:06d}.png" for i in range(16))
    splits = ("train",) * 10 + ("test",) * 6
    formats.write(LandmarkTable(images, faces.landmarks5.astype(float), splits=splits), path)
    return path


@pytest.mark.parametrize("variant", ["cells", "upsampled"])
def test_evaluate_matching(
    command: Command, dve_run: Run, photos: Path, faces: Portraits, tmp_path: Path, variant: str
) -> None:
    data, out_file = labels_with_splits(faces, tmp_path / "l.csv"), tmp_path / "new" / "results.json"
    words = ("evaluate", "matching", dve_run.folder, "--data", data, "--root", photos, "--variant", variant, "--quiet")
    code, out, err = command(*words, "--out", out_file)
    assert (code, err) == (0, "")
    results = json.loads(out_file.read_text())
    assert {"protocol", "run", "data", "images", "metrics"} <= set(results)
    assert results["protocol"] == f"matching, {variant}"
    assert (results["run"], results["data"], results["images"]) == (str(dve_run.folder), str(data), 6)
    assert set(results["metrics"]) == {"same_identity_px", "different_identity_px"}
    assert all(0 < value < 60 for value in results["metrics"].values())
    assert "same_identity_px" in out

    assert command(*words, "--out", out_file, "--split", "train")[0] == 0
    assert json.loads(out_file.read_text())["images"] == 10
    fails(command(*words, "--split", "tset"), 1, "no split 'tset'", "test, train")


@pytest.mark.parametrize("frame", ["letterbox", "landmarks", "0.1,0.1,0.9,0.9"])
def test_evaluate_in_another_frame(command: Command, dve_run: Run, photos: Path, tmp_path: Path, frame: str) -> None:
    words = ("evaluate", "matching", dve_run.folder, "--data", photos / "landmarks.csv", "--out", tmp_path / "r.json")
    assert command(*words, "--frame", frame)[0] == 0
    assert json.loads((tmp_path / "r.json").read_text())["images"] == 16


def test_evaluate_what_cannot_be(command: Command, dve_run: Run, sparse_run: Run, photos: Path, tmp_path: Path) -> None:
    data = photos / "landmarks.csv"
    fails(command("evaluate", "matching", sparse_run.folder, "--data", data), 1, "needs descriptors")
    fails(command("evaluate", "matching", dve_run.folder, "--data", tmp_path / "none.csv"), 1, "no such landmark file")
    result = command("evaluate", "matching", dve_run.folder, "--data", data, "--root", tmp_path / "none")
    fails(result, 1, "none does not exist")
    fails(command("evaluate", "matching", dve_run.folder, "--data", data, "--frame", "center"), 2, "'center'")
    for given, whose in (("--predictions=p.st", "landmarks"), ("--labels", "landmarks and segmentation")):
        more = (given,) if "=" in given else (given, "3")
        result = command("evaluate", "matching", dve_run.folder, "--data", data, *more)
        fails(result, 2, f"{given.partition('=')[0]} is for evaluate {whose}, not for matching: leave it out")
    misused(command("evaluate", "mathcing", dve_run.folder, "--data", data), "mathcing", "matching")
    (tmp_path / "one.csv").write_text("image,x0,y0\n000000.png,5,5\n")
    words = ("evaluate", "matching", dve_run.folder, "--data", tmp_path / "one.csv", "--root", photos, "--quiet")
    fails(command(*words), 1, "two at a time, got 1")
    (tmp_path / "missing.csv").write_text("image,x0,y0\n000000.png,5,5\nnone.png,5,5\n")
    words = ("evaluate", "matching", dve_run.folder, "--data", tmp_path / "missing.csv", "--root", photos, "--quiet")
    fails(command(*words), 1, "none.png", "give the folder that holds them")


# ---- the rest -----------------------------------------------------------------------------------------------


def test_report_without_the_images(command: Command, dve_run: Run, photo_pack: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "log.jsonl"):
        (run / name).write_bytes((dve_run.folder / name).read_bytes())
    gone = checkpoint.DataIdentity(str(tmp_path / "gone"), 16, "0" * 16)
    checkpoint.save_model(run, dve_run.model.network, step=30, data=gone)
    code, _, err = command("report", run)
    assert (code, err) == (0, "")
    alone = (run / "report.html").stat().st_size
    assert command("report", run, "--images", photo_pack)[0] == 0
    assert (run / "report.html").stat().st_size > alone
    fails(command("report", run, "--images", tmp_path / "none"), 1, "none")


def test_report_with_images_of_another_size(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "pack", Frame(48), progress=False)
    fails(command("report", dve_run.folder, "--images", tmp_path / "pack"), 1, "48 px", "--size 40")


def test_ctrl_c(command: Command, sparse_run: Run, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model.LandmarkModel, "detect_framed", interrupt)
    fails(command("detect", sparse_run.folder, photos, "--out", tmp_path / "l.csv", "--quiet"), 1, "interrupted")


def test_values_that_yaml_would_misread(command: Command, photo_pack: Path, tmp_path: Path) -> None:
    """``no`` is a word here, and 1e-3 a number."""
    words = ("train", photo_pack, "--out", tmp_path / "run", "--quiet", "--steps", 1, *KEYS)
    result = command(*words, "--precision", "no", "--optimiser.lr", "1e-3", "--optimiser.bias_lr", "null", "--resume")
    fails(result, 1, "no run to resume")
    text = yaml.safe_dump({"precision": "no"})
    assert yaml.safe_load(text) == {"precision": "no"}


def test_loading_is_on_the_device_asked_for(dve_run: Run) -> None:
    assert LandmarkModel.load(dve_run.folder, device="cpu").device.type == "cpu"


def test_fit_suggests_what_to_label_next(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    table = formats.read(photos / "landmarks.csv")
    formats.write(table.select(range(3)), labels)
    arguments = ["fit", dve_run.folder, "--landmarks", labels, "--images", photos, "--out", tmp_path / "head"]
    code, out, _ = command(*arguments, "--suggest", "2", "--quiet")
    assert code == 0
    named = [line.removeprefix("label next: ") for line in out.splitlines() if line.startswith("label next: ")]
    assert len(named) == 2 and not set(named) & set(table.images[:3])
