"""Every table and figure of the papers, run through on tiny copies of the data sets."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import layouts
from equimark import benchmarks, chains, checkpoint, reproduce
from equimark.benchmarks import BenchmarkError
from equimark.benchmarks.animals import KINDS
from equimark.chains import ChainError
from equimark.cli import main
from equimark.config import load_recipe, make_config
from equimark.networks import build_network, build_supervised
from equimark.packs import PackedImages
from equimark.reproduce import Value
from equimark.results import Results
from equimark.tabulation import Cell
from equimark.workshop import Workshop

PUBLISHED = {
    *(f"2017-table{i}" for i in range(1, 6)),
    *(f"2017-s-table{i}" for i in range(2, 5)),
    *(f"2019-table{i}" for i in range(1, 5)),
    *(f"2017-fig{i}" for i in range(3, 8)),
    *(f"2017-s-fig{i}" for i in range(2, 9)),
    *(f"2019-fig{i}" for i in (1, 4, 5, 6, 7)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny copy of each set."""
    folder = tmp_path_factory.mktemp("sets")
    layouts.celeba(folder / "celeba")
    layouts.aflw_m(folder / "aflw-m")
    layouts.aflw_r(folder / "aflw-r")
    layouts.faces_300w(folder / "300w")
    layouts.cats(folder / "cats")
    layouts.shoes(folder / "shoes")
    layouts.mnist(folder / "mnist")
    layouts.animals(folder / "animals", KINDS)
    layouts.pets(folder / "pets")
    layouts.yale_b(folder / "yale-b")
    layouts.helen(folder / "helen")
    layouts.roboarm(folder / "roboarm", 21)
    return folder


@pytest.fixture(scope="module")
def workshop(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(root, tmp_path_factory.mktemp("papers"), quick=True, progress=False)


def test_every_table_and_figure_is_there() -> None:
    assert set(chains.names()) == PUBLISHED


@pytest.mark.parametrize("name", sorted(chains.names()))
def test_every_chain_runs_through(name: str, workshop: Workshop) -> None:
    chain = chains.load(name)
    values = reproduce.reproduce(chain, workshop)
    for run in chain.runs:
        assert (workshop.run_folder(run) / "model.safetensors").is_file()
    if chain.figure:
        assert min(imread(workshop.out / f"{name}.png").shape[:2]) > 300
    if values:
        assert json.loads((workshop.out / f"{name}.json").read_text())["quick"] is True
    for name, row in values.items():  # ours is there for all that does not need more epochs than a trial has
        for cell in chain.rows[name]:
            if cell.metric and "epoch" not in cell.metric:
                assert row[cell.column].ours is not None, (name, cell)


def test_a_metric_that_was_not_measured_is_no_blank() -> None:
    entry = {"error_px": 4.0, "error_px_std": 0.5}
    results = Results("landmarks, fit", "r", "d", 3, {"error_px": 2.0, "labels_2": entry}, 0, {})
    assert reproduce._number_of(results, "error_px", quick=False) == Cell(2.0)
    assert reproduce._number_of(results, "labels_2.error_px", quick=False) == Cell(4.0, 0.5)
    assert reproduce._number_of(results, "labels_20.error_px", quick=True) == Cell(4.0, 0.5)
    for metric in ("eror_px", "labels_20.error_px", "pixel_accuracy_percent_epoch_5"):
        with pytest.raises(ChainError, match=f"has not measured {metric}"):
            reproduce._number_of(results, metric, quick=False)
    with pytest.raises(ChainError, match="has not measured eror_px"):
        reproduce._number_of(results, "eror_px", quick=True)


def test_runs_are_trained_once(workshop: Workshop) -> None:
    chain = chains.load("2017-table2")
    first = reproduce.reproduce(chain, workshop)
    times = [file.stat().st_mtime_ns for file in sorted(workshop.out.rglob("*.safetensors"))]
    assert reproduce.reproduce(chain, workshop) == first
    assert times == [file.stat().st_mtime_ns for file in sorted(workshop.out.rglob("*.safetensors"))]


def test_a_run_has_the_same_start_in_every_chain() -> None:
    starts: dict[str, set[str | None]] = {}
    for chain in map(chains.load, chains.names()):
        for run, start_from in chain.runs.items():
            starts.setdefault(run, set()).add(start_from)
    assert all(len(each) == 1 for each in starts.values())


def test_missing_data_are_all_named_before_training(root: Path, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, tmp_path / "out", quick=True, progress=False)
    with pytest.raises(
        BenchmarkError, match=r"2017-table5 needs celeba, 300w in .*:\n  celeba: .*\n  300w: "
    ) as caught:
        reproduce.reproduce(chains.load("2017-table5"), workshop)
    assert "list_landmarks_align_celeba" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_sets_of_one_folder_lack_the_same_once(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, tmp_path / "out", quick=True, progress=False)
    with pytest.raises(BenchmarkError, match="needs") as caught:
        workshop.check_data(chains.load("2017-table4"))  # of CelebA and MAFL
    assert len(str(caught.value).splitlines()) == 2


def test_other_data_are_refused_where_results_are(root: Path, tmp_path: Path) -> None:
    sets, out = tmp_path / "sets", tmp_path / "out"
    shutil.copytree(root, sets)
    chain = chains.load("2017-table4")
    first = reproduce.reproduce(chain, Workshop(sets, out, quick=True, progress=False))
    assert reproduce.reproduce(chain, Workshop(root, out, quick=True, progress=False)) == first  # the same elsewhere
    image = sorted((sets / "celeba").rglob("*.jpg"))[0]
    before = image.read_bytes()
    pixels = np.asarray(Image.open(image))
    Image.fromarray(255 - pixels).save(image, quality=95)
    with pytest.raises(BenchmarkError, match=r"^celeba in .*celeba is not what it was when .*out was made: name"):
        reproduce.reproduce(chain, Workshop(sets, out, quick=True, progress=False))
    image.write_bytes(before)
    labels = next((sets / "celeba").rglob("list_landmarks_align_celeba.txt"))
    labels.write_text(labels.read_text().replace("9", "8"))
    with pytest.raises(BenchmarkError, match=r"^(celeba|mafl) in .* is not what it was"):
        reproduce.reproduce(chain, Workshop(sets, out, quick=True, progress=False))


def test_a_damaged_image_is_found_before_anything_is_trained(root: Path, tmp_path: Path) -> None:
    sets, out = tmp_path / "sets", tmp_path / "out"
    shutil.copytree(root / "celeba", sets / "celeba")
    image = sorted((sets / "celeba").rglob("*.jpg"))[-1]
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(BenchmarkError, match=image.name):
        reproduce.reproduce(chains.load("2017-table4"), Workshop(sets, out, quick=True, progress=False))
    assert not (out / "runs").exists() and not (out / "data.json").exists()


def test_a_subset_is_refused_unless_it_is_a_trial(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="the published set has"):
        Workshop(root, tmp_path, progress=False).load("mafl")
    assert len(Workshop(root, tmp_path, quick=True, progress=False).load("mafl").split("test")) == 2
    with pytest.raises(BenchmarkError, match="the published set has"):  # no trial any more
        benchmarks.load("mafl", root / "celeba")


def test_table_for_people() -> None:
    chain = chains.load("2017-table2")
    values = {"TCDCN": {"error": Value(None, 7.95)}, "50 landmarks": {"error": Value(Cell(6.5, 0.04), 6.67)}}
    _, rows = reproduce.table_of(chain, values)
    assert rows == [["TCDCN", "- / 7.95"], ["50 landmarks", "6.50 ± 0.04 / 6.67 (-0.17)"]]
    lines = reproduce.numbers_of(replace(chain, rows={}), values, []).csv().splitlines()
    assert lines[0].endswith(',error,error std,"error, printed","error, difference"')
    assert lines[1].endswith(",,,7.95,") and lines[2].startswith("50 landmarks,6.5,0.04,6.67,-0.1")


def test_seeds(workshop: Workshop) -> None:
    """Each has its own runs, and none is taken for another's; the table has their mean and deviation."""
    chain = chains.load("2019-table4")
    values = reproduce.reproduce(chain, workshop, seeds=2)
    others = workshop.with_seed(1)
    assert others.run_folder(next(iter(chain.runs))) != workshop.run_folder(next(iter(chain.runs)))
    apart = [reproduce.values_of(chain, [each]) for each in (workshop, others)]
    for row, cells in values.items():
        for column, value in cells.items():
            if value.ours is not None:
                first, second = (found[row][column].ours for found in apart)
                assert first is not None and second is not None
                assert value.ours.value == pytest.approx((first.value + second.value) / 2)
                assert value.ours.deviation == pytest.approx(abs(first.value - second.value) / 2**0.5)
    assert json.loads((workshop.out / "2019-table4.json").read_text())["seeds"] == [0, 1]
    assert "seed 1" in (workshop.out / "2019-table4.md").read_text()
    assert r"\begin{tabular}" in (workshop.out / "2019-table4.tex").read_text()


def test_printed_numbers() -> None:
    """Some of both papers, typed once more."""
    table = chains.load("2019-table1")
    printed = {(row, cell.column): cell.printed for row, cells in table.rows.items() for cell in cells}
    assert printed["64-D", "different identity with DVE"] == 2.77
    assert printed["16-D", "different identity"] == 5.65
    few = chains.load("2017-table4")
    assert [cell.printed for cell in few.cells()] == [7.15, 8.06, 8.49, 9.25, 10.82]


def test_hours_are_those_of_the_recipes() -> None:
    """100 passes over 162,770 images of CelebA, at 0.035 s a pair on two cores, 7.1 GFLOP at 10 TFLOP/s on a GPU."""
    hours = reproduce.hours_of(chains.load("2017-table2"))
    assert hours.cpu == pytest.approx(162_770 * 100 * 0.035 / 3600, rel=1e-3)
    assert hours.gpu == pytest.approx(162_770 * 100 * 7.1e9 / 1e13 / 3600, rel=1e-3)


def test_operations_are_those_of_the_networks() -> None:
    """Forward once and backward twice, of both views; of DVE's 7.1 the objective takes 1.9 (benchmarks/roofline.py)."""
    counted = {}
    for recipe in ("dve-smallnet-64", "dve-hourglass-64", "supervised-smallnet", "supervised-smallnet-plus"):
        config = make_config(load_recipe(recipe).settings)
        side, name = config.frame.size - 2 * config.pairs.margin, config.network.name
        if config.is_supervised:
            network = build_supervised(f"supervised-{name}", 5, input_size=side)
        else:
            network = build_network(name, config.network.channels)
        with FlopCounterMode(display=False) as counter:
            network.eval()(torch.rand(1, 3, side, side))
        kind, views = (f"supervised {name}", 1) if config.is_supervised else (name, 2)
        counted[kind] = 3 * views * counter.get_total_flops()
    assert counted.keys() == reproduce._COSTS.keys()
    for kind, operations in counted.items():
        objective = 1.9e9 if kind == "smallnet" else 0
        assert reproduce._COSTS[kind][1] == pytest.approx(operations + objective, rel=0.1), kind


def test_every_training_takes_time() -> None:
    for chain in map(chains.load, chains.names()):
        for run, start_from in chain.runs.items():
            assert min(reproduce.hours_of(replace(chain, runs={run: start_from}))) > 0, run


def test_descriptors_are_fine_tuned_for_fifty_epochs() -> None:
    """As long in every row of a table: one on AFLW takes 50 passes over 10,122 images, whatever its recipe."""
    hours = {
        run: reproduce.hours_of(replace(chains.load("2019-table3"), runs={run: "celeba/dve-smallnet-64"})).cpu
        for run in ("aflw-m/dve-smallnet-3", "aflw-m/finetune-dve-smallnet-64")
    }
    assert list(hours.values()) == [pytest.approx(10_122 * 50 * 0.035 / 3600, rel=1e-2)] * 2
    assert chains.settings_of("aflw-m/dve-smallnet-3", None) == {}


def test_trained_as_printed(workshop: Workshop) -> None:
    """The recipes that have what is printed are what --as-printed makes of the others."""
    for run, paper in (("celeba/sparse-30", "sparse-30-paper"), ("celeba/dve-smallnet-64", "dve-smallnet-64-paper")):
        settings = load_recipe(chains.recipe_of(run)).settings
        assert make_config(settings, chains.printed_settings(run)) == make_config(load_recipe(paper).settings)
    assert chains.printed_settings("celeba/dve-hourglass-64") == {}
    assert chains.printed_settings("aflw-m/supervised-smallnet-plus") == {}
    printed = replace(workshop, out=workshop.out / "as-printed", as_printed=True)
    reproduce.reproduce(chains.load("2017-fig3"), printed)
    kept = checkpoint.load(printed.run_folder("shoes/sparse-shoes-8")).config
    assert (kept.optimiser.lr, kept.optimiser.schedule, kept.network.padding) == (0.0001, "step", "zeros")


def test_curves_are_the_rows_of_their_table(workshop: Workshop) -> None:
    chain = chains.load("2019-fig5")
    values = reproduce.reproduce(chain, workshop)
    curves = {curve.name: curve for curve in reproduce.curves_of(values)}
    assert len(curves) == 10 and all(curve.errors.keys() == {1, 5, 10, 20, 10122} for curve in curves.values())
    assert curves["DVE, Hourglass, printed"].errors[1] == 14.23 and curves["DVE, Hourglass, printed"].printed
    ours, number = curves["Dense 3D"], values["Dense 3D"]["5"].ours
    assert number is not None and ours.errors[5] == number.value and not ours.printed
    assert curves["Dense 3D, printed"].like == "Dense 3D"
    assert json.loads((workshop.out / "2019-fig5.json").read_text())["values"]["Dense 3D"]["5"]["printed"] == 16.9
    alone = {"theirs": {"5": Value(None, 3.0)}}
    (curve,) = reproduce.curves_of(alone)
    assert (curve.name, curve.errors, curve.like) == ("theirs, printed", {5: 3.0}, None)


def test_species_have_the_same_share_whatever_set_they_are_of(workshop: Workshop) -> None:
    reproduce.reproduce(chains.load("2019-fig6"), workshop)
    (packed,) = (workshop.out / "packs").glob("animals+cats+pets+celeba-*")
    kinds = Counter(PackedImages.open(packed).classes)
    assert set(kinds) == {kind.lower() for kind in KINDS}  # cats and dogs of other sets among them, people as humans
    assert kinds["human"] > 2 < kinds["dog"] and kinds["cat"] > kinds["bear"]


def test_command(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["reproduce", "--list"]) == 0
    said = capsys.readouterr().out
    assert "2019-table1    Matching of landmarks" in said and "; 1 training, some" in said and "; 8 trainings" in said
    assert max(map(len, said.splitlines())) <= 80
    assert main(["reproduce", "2019-table4"]) == 2
    assert "--root" in capsys.readouterr().err
    assert main(["reproduce", "2019-tabel4", "--root", str(root)]) == 2
    assert "did you mean 2019-table4?" in capsys.readouterr().err
    arguments = ["reproduce", "2019-table4", "--root", str(root), "--out", str(tmp_path), "--quick", "--quiet"]
    assert main(arguments) == 0
    assert "/ 10.34" in capsys.readouterr().out
    assert "`equimark reproduce 2019-table4 --root" in (tmp_path / "quick" / "2019-table4.md").read_text()
    arguments[1] = "2017-s-fig4"
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "2017-s-fig4.png" in said and "table" not in said.replace("2017-s-table", "")


def test_unknown_chain() -> None:
    with pytest.raises(ChainError, match="no table or figure '2020-table1'"):
        chains.load("2020-table1")
