"""Results of ``equimark evaluate`` read back, tables of them, and the page of results that is made of such tables."""

import csv
import io
import json
import math
import re
import runpy
import statistics
import string
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from conftest import TINY
from equimark import checkpoint, formats, provenance
from equimark.config import ConfigError
from equimark.landmarks import LandmarkTable
from equimark.results import Results, ResultsError, group_seeds, over_seeds
from equimark.run import Run
from equimark.synthetic import Portraits
from equimark.tabulation import Cell, Row, Table, labels_of, tabulate, writer_of

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent
DOCS = runpy.run_path(str(ROOT / "docs/results.py"))

MADE = {
    "command": "equimark evaluate matching runs/dve --data faces.csv",
    "date": "2026-11-22",
    "hardware": {"processor": "an abacus", "cores": 2, "gpu": None},
    "versions": {"equimark": "0.1.0"},
}
TRAINED = {
    "method": "dve",
    "network": "smallnet",
    "channels": 64,
    "steps": 1500,
    "batch_size": 16,
    "seed": 0,
    "images": 23763,
    "data": "celeba",
}
MATCHING = Results(
    "matching, cells",
    "runs/dve",
    "faces.csv",
    1330,
    {"same_identity_px": 1.934, "different_identity_px": 7.376},
    0,
    {"test": "test"},
    made=MADE,
    trained=TRAINED,
)


def entry(error: float, deviation: float = 0.0, draws: int = 1) -> dict[str, float]:
    return {"error_px": error, "error_px_mean": error, "error_px_std": deviation, "mean_shape_px": 9.5, "draws": draws}


FEW_MADE = MADE | {"command": "equimark evaluate landmarks runs/dve --data faces.csv --labels 1,5,10,all"}
FEW = replace(
    MATCHING,
    protocol="landmarks, fit",
    metrics={
        **entry(6.0),
        "forward_nme": 3.25,
        "labels_10": entry(11.25, 0.125, 3),
        "labels_1": entry(20.75, 5.5, 3),
        "labels_all": entry(6.0),
        "labels_5": entry(12.875, 1.0, 3),
    },
    settings={"training_images": 1207},
    made=FEW_MADE,
)
ORIGIN = (
    "`equimark evaluate matching runs/dve --data faces.csv`; faces.csv, 1,330 test images; dve, smallnet with 64 "
    "channels, 1,500 steps x 16 on 23,763 images of celeba, seed 0; measured with seed 0; an abacus, 2 cores; "
    "2026-11-22"
)


def rows_of(**results: Results) -> list[Row]:
    return [Row(label, {"": own}) for label, own in results.items()]


def cells_of(table: Table) -> dict[str, list[float | None]]:
    return {label: [cell and cell.value for cell in cells] for label, cells in table.rows}


# ---- reading ------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(FEW.to_json(), encoding="utf-8")
    assert Results.read(path) == FEW
    assert list(json.loads(FEW.to_json()))[:5] == ["protocol", "run", "data", "images", "metrics"]


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    content = {name: value for name, value in vars(MATCHING).items() if name not in ("made", "trained", "details")}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert Results.read(path) == replace(MATCHING, made={}, trained={})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": [1]}, r"metrics is \[1\], not a mapping"),
        ({"metrics": {"error_px": "low"}}, "metrics.error_px is 'low', not a number"),
        ({"metrics": {"labels_1": {"error_px": None}}}, "metrics.labels_1.error_px is None, not a number"),
        ({"images": 2.5}, "images is 2.5, not a whole number"),
        ({"images": True}, "images is True, not a whole number"),
        ({"run": 3}, "run is 3, not text"),
        ({"made": {"date": 20261122}}, "made.date is 20261122, not text"),
        ({"made": {"hardware": "fast"}}, "made.hardware is 'fast', not a mapping"),
        ({"trained": {"steps": 3}}, "trained lacks method, network, data, channels, batch_size, seed, images"),
        ({"trained": TRAINED | {"steps": "many"}}, "trained.steps is 'many', not a whole number"),
        ({"settings": {"training_images": None}}, "settings.training_images is None, not a whole number"),
    ],
)
def test_damaged_results(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(vars(MATCHING) | change), encoding="utf-8")
    with pytest.raises(ResultsError, match=rf"r\.json is damaged: {message}; measure again"):
        Results.read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"dense": {}, "dve": {}}', "it lacks protocol, run, data, images, metrics, seed, settings"),
        ("[]", "holds no results"),
        ("", "cannot be read as results"),
        (MATCHING.to_json()[:-9], "cannot be read as results"),
        ("[" * 100_000, "cannot be read as results"),
    ],
)
def test_foreign_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=rf"r\.json .*{message}"):
        Results.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultsError, match=r"r\.json cannot be read as results"):
        Results.read(path)
    path.unlink()
    with pytest.raises(ResultsError, match=r"r\.json cannot be read as results"):
        Results.read(path)


TEXT = st.text(string.printable + "é±\x1e", max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*vars(FEW), "more"]), VALUES))
def test_any_other_content_is_refused_or_makes_a_table(
    tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("any") / "r.json"
    path.write_text(json.dumps(vars(FEW) | change), encoding="utf-8")
    try:
        read = Results.read(path)
    except ResultsError as error:
        assert "r.json" in str(error)
    else:
        assert tabulate(rows_of(a=read, b=FEW)).markdown().startswith("| ")


# ---- which numbers stand where ------------------------------------------------------------------------------


def test_metrics_of_several_files_are_columns() -> None:
    other = replace(MATCHING, metrics={"same_identity_px": 2.0, "pck_0.1": 0.5, "pck_0.1_std": 0.25})
    table = tabulate(rows_of(dve=MATCHING, other=other))
    assert (table.corner, table.columns) == ("", ("same_identity_px", "different_identity_px", "pck_0.1"))
    assert table.rows == (
        ("dve", (Cell(1.934), Cell(7.376), None)),
        ("other", (Cell(2.0), None, Cell(0.5, 0.25))),
    )
    chosen = tabulate(rows_of(dve=MATCHING, other=other), ["pck_0.1", "same_identity_px"])
    assert chosen.columns == ("pck_0.1", "same_identity_px")
    assert cells_of(chosen) == {"dve": [None, 1.934], "other": [0.5, 2.0]}
    named = tabulate(rows_of(dve=MATCHING), {"same": "same_identity_px"})
    assert (named.columns, cells_of(named)) == (("same",), {"dve": [1.934]})


def test_numbers_of_labels_are_columns_as_they_grow() -> None:
    more = replace(FEW, metrics={"labels_100": entry(8.0, 0.5, 2), "labels_5": entry(13.0, 2.0, 2)})
    table = tabulate(rows_of(few=FEW, more=more))
    assert (table.corner, table.columns) == ("error_px, labelled images", ("1", "5", "10", "100", "all"))
    assert cells_of(table) == {"few": [20.75, 12.875, 11.25, None, 6.0], "more": [None, 13.0, None, 8.0, None]}
    assert table.rows[0][1][0] == Cell(20.75, 5.5) and table.rows[0][1][-1] == Cell(6.0)


def test_what_does_not_depend_on_the_number_of_labels() -> None:
    supervised = replace(FEW, metrics={"error_px": 5.0})
    table = tabulate(rows_of(few=FEW, supervised=supervised))
    assert table.columns == ("1", "5", "10", "all", "as it is")
    assert cells_of(table)["supervised"] == [None, None, None, None, 5.0]
    table = tabulate(rows_of(few=FEW), ["error_px", "forward_nme"])
    assert cells_of(table) == {
        "few, error_px": [20.75, 12.875, 11.25, 6.0, None],
        "few, forward_nme": [None, None, None, None, 3.25],
    }
    table = tabulate(rows_of(few=FEW), ["forward_nme"])
    assert (table.columns, cells_of(table)) == (("forward_nme",), {"few": [3.25]})


def test_one_number_of_labels_is_no_column() -> None:
    single = replace(FEW, metrics={**entry(6.0), "labels_all": entry(6.0)})
    table = tabulate(rows_of(single=single))
    assert (table.columns, cells_of(table)) == (("error_px", "mean_shape_px"), {"single": [6.0, 9.5]})


EYES = replace(MATCHING, metrics={"error_iod_percent": 4.0, "error_px": 1.0}, settings={"scale": "iod"})
BODY = replace(
    EYES, metrics={"error_iod_percent": 5.0, "mean_shape_error_iod_percent": 20.0}, settings={"scale": "0, 3"}
)


@pytest.mark.parametrize(
    ("scale", "metric", "words"),
    [
        ("iod", "error_iod_percent", "error, % of the distance between the eyes"),
        ("eyes", "error_iod_percent", "error, % of the distance between the eyes"),
        (None, "error_iod_percent", "error, % of the distance between the eyes"),
        ("0,3", "error_iod_percent", "error, % of the distance between points 0 and 3"),
        ("0,13", "mean_shape_error_iod_percent", "error of the mean shape, % of the distance between points 0 and 13"),
        ("box", "error_box_percent", "error, % of the size of the box around the landmarks"),
        ("pupils", "error_pupils_percent", "error, % of the distance between the pupils"),
        ("0,3", "error_px", "error_px"),
        ("0,3", "pixel_accuracy_percent", "pixel_accuracy_percent"),
    ],
)
def test_an_error_in_percent_says_of_what(scale: str | None, metric: str, words: str) -> None:
    results = replace(MATCHING, metrics={metric: 4.0}, settings={"scale": scale} if scale else {})
    assert results.in_words(metric) == words
    assert results.table()[2] == [[words, "4.000"]]
    assert tabulate(rows_of(a=results)).columns == (words,)
    assert tabulate(rows_of(a=results), [metric]).columns == (words,)
    assert tabulate(rows_of(a=results), {"own words": metric}).columns == ("own words",)


def test_rows_whose_errors_are_in_percent_of_different_lengths() -> None:
    table = tabulate(rows_of(faces=EYES, mice=BODY), ["error_iod_percent"])
    assert table.columns == ("error, %",)
    eyes, body = "% of the distance between the eyes", "% of the distance between points 0 and 3"
    assert cells_of(table) == {f"faces ({eyes})": [4.0], f"mice ({body})": [5.0]}
    few = [replace(own, metrics={"labels_1": own.metrics, "labels_all": own.metrics}) for own in (EYES, BODY)]
    mixed = [Row("mean shape", {"": few[1]}, "mean_shape_error_iod_percent"), Row("fit", {"": few[0]})]
    table = tabulate(mixed, ["error_iod_percent"])
    assert (table.corner, [label for label, _ in table.rows]) == (
        "error, %, labelled images",
        [f"mean shape ({body})", f"fit ({eyes})"],
    )
    table = tabulate(rows_of(faces=EYES, mice=BODY), ["error_px", "mean_shape_error_iod_percent"])
    assert table.columns == ("error_px", f"error of the mean shape, {body}")
    assert [label for label, _ in table.rows] == ["faces", "mice"]


def test_a_row_with_a_metric_of_its_own_and_rows_of_two_files() -> None:
    table = tabulate([Row("fit", {"": FEW}), Row("mean shape", {"": FEW}, "mean_shape_px")], {"error": "error_px"})
    assert table.corner == "error, labelled images"
    assert cells_of(table)["mean shape"] == [9.5] * 4
    own = tabulate([Row("a", {"": MATCHING}), Row("b", {"": MATCHING}, "different_identity_px")], ["same_identity_px"])
    assert cells_of(own) == {"a": [1.934], "b": [7.376]}
    with pytest.raises(ConfigError, match="row 'b' has a metric of its own"):
        tabulate([Row("b", {"": MATCHING}, "same_identity_px")])
    other = replace(MATCHING, data="mafl", metrics={"same_identity_px": 1.5})
    table = tabulate([Row("dve", {"300-W": MATCHING, "MAFL": other})])
    assert table.columns == ("300-W, same_identity_px", "300-W, different_identity_px", "MAFL, same_identity_px")
    assert cells_of(table) == {"dve": [1.934, 7.376, 1.5]}
    assert [labels for labels, _ in table.origins] == ["dve (300-W)", "dve (MAFL)"]


def with_seed(results: Results, seed: int, more: float) -> Results:
    """As of a run of another seed, with metrics that are so much higher."""
    plain = {name: value + more for name, value in results.plain.items()}
    entries = {name: own | {"error_px": own["error_px"] + more} for name, own in results.entries.items()}
    return replace(results, metrics=plain | entries, trained=TRAINED | {"seed": seed}, seed=seed)


def test_the_mean_over_seeds_by_hand() -> None:
    mean = over_seeds([with_seed(FEW, seed, more) for seed, more in ((0, 0.0), (1, 1.0), (4, 5.0))])
    assert mean.metrics["forward_nme"] == pytest.approx(5.25)  # 3.25, 4.25, 8.25
    assert mean.metrics["forward_nme_std"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert mean.entries["labels_10"]["error_px"] == pytest.approx(13.25)
    assert mean.entries["labels_10"]["error_px_std"] == pytest.approx(math.sqrt(7))  # of the runs, not of the draws
    assert mean.entries["labels_10"]["draws"] == 3
    assert "1,500 steps x 16 on 23,763 images of celeba, seeds 0, 1, 4;" in tabulate(rows_of(dve=mean)).notes()[0]
    assert over_seeds([FEW]) == FEW
    with pytest.raises(ResultsError, match="are of the seeds 0, 0: give one run of each seed"):
        over_seeds([FEW, FEW])


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(MATCHING, protocol="matching, upsampled"), "protocol"),
        (replace(MATCHING, images=7), "data"),
        (replace(MATCHING, settings={"test": "all"}), "settings"),
        (replace(MATCHING, trained=TRAINED | {"steps": 15}), "training"),
        (replace(MATCHING, metrics={"same_identity_px": 1.0}), "metrics"),
    ],
)
def test_what_differs_in_more_than_the_seed_has_no_mean(other: Results, what: str) -> None:
    with pytest.raises(ResultsError, match=f"differ in more than the seed: in {what}$"):
        over_seeds([MATCHING, other])
    assert group_seeds([MATCHING, other, with_seed(MATCHING, 1, 0.5)]) == [[0, 2], [1]]


def test_what_cannot_be_shown() -> None:
    with pytest.raises(ConfigError, match=r"'same_idenity_px' \(did you mean 'same_identity_px'\?\)"):
        tabulate(rows_of(a=MATCHING), ["same_idenity_px"])
    with pytest.raises(ConfigError, match="none of the results have a metric 'draws'"):
        tabulate(rows_of(a=FEW), ["draws"])
    with pytest.raises(ConfigError, match="digits after the point cannot be -1"):
        tabulate(rows_of(a=FEW), digits=-1)


def test_labels_of_files() -> None:
    assert labels_of([Path("a/dve-3.json"), Path("b/dve.64.json")]) == ["dve-3", "dve.64"]
    assert labels_of([Path("a/results.json"), Path("b/results.json")]) == ["a/results", "b/results"]


# ---- the best -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "best", "bold"),
    [
        ([2.0, 1.0, 3.0], "low", [1]),
        ([2.0, 1.0, 3.0], "high", [2]),
        ([1.001, 1.004, 3.0], "low", [0, 1]),  # alike at two digits
        ([math.nan, 2.0, 1.0], "high", [1]),
        ([math.nan, 2.0, math.nan], "low", []),
        ([2.0, 1.0, 3.0], None, []),
        ([7, 6, 8], "high", [2]),
    ],
)
def test_the_best_of_a_column(values: list[float], best: Any, bold: list[int]) -> None:
    table = Table("", ("x",), tuple((str(i), (Cell(value, 0.5),)) for i, value in enumerate(values)), best=best)
    set_in_bold = table.texts("<{}>".format)
    assert [i for i, (_, text) in enumerate(set_in_bold) if text.startswith("<")] == bold
    assert all(text.strip("<>").endswith(" ± 0.50") for _, text in set_in_bold)


# ---- files --------------------------------------------------------------------------------------------------


def test_markdown_by_hand() -> None:
    worse = replace(MATCHING, metrics={"same_identity_px": 2.25})
    table = tabulate(rows_of(dve=MATCHING, **{"a|b": worse}), best="low")
    assert table.markdown() == (
        "|  | same_identity_px | different_identity_px |\n"
        "| --- | --- | --- |\n"
        "| dve | **1.93** | 7.38 |\n"
        "| a\\|b | 2.25 |  |\n"
        "\n"
        "<details><summary>How it was made</summary>\n"
        "\n"
        f"* {ORIGIN}\n"
        "\n"
        "</details>\n"
    )
    few = tabulate(rows_of(few=FEW), digits=1).markdown()
    assert "| few | 20.8 ± 5.5 | 12.9 ± 1.0 | 11.2 ± 0.1 | 6.0 |\n" in few
    assert "faces.csv, 1,330 test images, 1,207 labelled ones to learn from; dve" in few
    assert "; measured with seeds 0 to 2; " in few


def test_csv_by_hand() -> None:
    table = tabulate(rows_of(**{"few, labels": FEW, "again": replace(FEW, metrics={"labels_5": entry(13.1, 2.0, 2)})}))
    assert table.csv() == (
        '"error_px, labelled images",1,1 std,5,5 std,10,10 std,all\n'
        '"few, labels",20.75,5.5,12.875,1.0,11.25,0.125,6.0\n'
        "again,,,13.1,2.0,,,\n"
    )


def test_latex_by_hand() -> None:
    rows = rows_of(a_b=FEW, **{"50 % & more": replace(FEW, metrics={"labels_1": entry(21.0, 1.0, 2)})})
    lines = tabulate(rows, best="low").latex().splitlines()
    assert lines[:9] == [
        r"\begin{tabular}{lrrrr}",
        r"\hline",
        r"error\_px, labelled images & 1 & 5 & 10 & all \\",
        r"\hline",
        r"a\_b & \textbf{20.75 $\pm$ 5.50} & 12.88 $\pm$ 1.00 & 11.25 $\pm$ 0.12 & 6.00 \\",
        r"50 \% \& more & 21.00 $\pm$ 1.00 &  &  &  \\",
        r"\hline",
        r"\end{tabular}",
        "% a_b: `equimark evaluate landmarks runs/dve --data faces.csv --labels 1,5,10,all`; faces.csv, 1,330 test "
        "images, 1,207 labelled ones to learn from; dve, smallnet with 64 channels, 1,500 steps x 16 on 23,763 images "
        "of celeba, seed 0; measured with seeds 0 to 2; an abacus, 2 cores; 2026-11-22",
    ]
    assert len(lines) == 10 and lines[9].startswith("% 50 % & more: ")


def test_landmarks_beside_descriptors_are_named() -> None:
    rows = rows_of(joint=replace(FEW, trained=FEW.trained | {"landmarks": 10}))
    assert "dve, smallnet with 64 channels and 10 landmarks beside, 1,500 steps" in tabulate(rows).latex()


@given(TEXT, st.floats() | st.integers(-(2**40), 2**40), TEXT)
def test_any_label_and_number_keep_the_form_of_a_table(label: str, value: float, name: str) -> None:
    rows = ((label, (Cell(value), None)), ("plain", (Cell(1.5, 0.5), Cell(2.0))))
    table = Table("", (name, "b"), rows, ((label, "made"),), best="high")
    lines = table.markdown().split("\n")
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines[:4]]
    assert bars == [4] * 4 and lines[5] == "<details><summary>How it was made</summary>" and len(lines) == 11
    read = list(csv.reader(io.StringIO(table.csv(), newline="")))
    assert [read[0][1], read[1][0]] == [" ".join(text.split()) for text in (name, label)]
    assert float(read[1][1]) == value or math.isnan(value)
    assert table.latex().count("\\\\\n") == 3


def test_files_by_their_ending(tmp_path: Path) -> None:
    assert [writer_of(Path(name)) for name in ("a.md", "a.csv", "a.TEX")] == [Table.markdown, Table.csv, Table.latex]
    with pytest.raises(ConfigError, match=r"ends in \.md, \.csv, \.tex, not to a\.xls"):
        writer_of(Path("a.xls"))


# ---- how it was made ----------------------------------------------------------------------------------------


def test_each_origin_is_told_once() -> None:
    table = tabulate(rows_of(a=MATCHING, b=FEW, c=replace(MATCHING, metrics={"error_px": 1.0})))
    assert [labels for labels, _ in table.origins] == ["a; c", "b"]
    assert table.origins[0][1] == ORIGIN
    assert tabulate(rows_of(a=MATCHING, b=MATCHING)).origins == (("", ORIGIN),)


def test_origins_of_which_little_is_known() -> None:
    old = tabulate(rows_of(a=replace(MATCHING, made={}, trained={}))).origins[0][1]
    assert old == (
        "matching, cells, by an unknown command; faces.csv, 1,330 test images; run runs/dve, training unknown; "
        "measured with seed 0; hardware unknown; date unknown"
    )
    called = tabulate(rows_of(a=replace(MATCHING, made=MADE | {"command": ""}))).origins[0][1]
    assert called.startswith("matching, cells, called from Python; ")
    drawn = MADE | {"hardware": {"gpu": "a card", "processor": "an abacus", "cores": 2}, "command": "equimark `x`"}
    gpu = tabulate(rows_of(a=replace(MATCHING, made=drawn))).origins[0][1]
    assert gpu.startswith("`` equimark `x` ``; ") and gpu.endswith("; a card; 2026-11-22")


# ---- the commands -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(dve_run: Run, faces: Portraits, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and portraits by relative paths, in which results are made."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "dve").symlink_to(dve_run.folder)
    (folder / "photos").symlink_to(photos)
    images = tuple(f"{i:06d}.png" for i in range(16))
    table = LandmarkTable(images, faces.landmarks5.astype(float), splits=("train",) * 10 + ("test",) * 6)
    formats.write(table, folder / "labels.csv")
    return folder


LANDMARKS = ("evaluate", "landmarks", "dve", "--data", "labels.csv", "--root", "photos", "--labels", "1,4,all")


@pytest.fixture
def evaluated(measured: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(measured)
    if not Path("few.json").exists():
        words = ("--seeds", 2, "--epochs", 2, "--points", 4, "--quiet", "--out", "few.json")
        assert command(*LANDMARKS, *words)[0] == 0
        words = ("evaluate", "matching", "dve", "--data", "labels.csv", "--root", "photos", "--quiet")
        assert command(*words, "--out", "match.json")[0] == 0
    return measured


def test_evaluate_says_how_its_results_were_made(evaluated: Path, command: Command, dve_run: Run) -> None:
    results = Results.read(Path("few.json"))
    assert results.made["command"] == (
        "equimark evaluate landmarks dve --data labels.csv --root photos --labels 1,4,all --seeds 2 --epochs 2 "
        "--points 4 --quiet --out few.json"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", results.made["date"])
    assert results.made["hardware"]["cores"] >= 1 and {"python", "torch"} <= set(results.made["versions"])
    assert results.trained == {
        "method": "dve",
        "network": "smallnet",
        "channels": 16,
        "steps": 50,
        "batch_size": TINY["batch_size"],
        "seed": 0,
        "images": 16,
        "settings": provenance.training_of(checkpoint.load(dve_run.folder))["settings"],
        "data": "photos",
    }
    quoted = ("matching", "dve", "--data", "labels.csv", "--root", "photos", "--split", "no such", "--quiet")
    assert command("evaluate", *quoted, "--out", "never.json")[0] == 1 and not Path("never.json").exists()


def test_runs_of_other_seeds_have_the_same_settings(dve_run: Run) -> None:
    kept = checkpoint.load(dve_run.folder)

    def told(**changes: Any) -> str:
        other = replace(kept, config=replace(kept.config, **changes))
        return str(provenance.training_of(other)["settings"])

    assert told() == told(seed=7) != told(steps=3)
    assert told() != told(pairs=replace(kept.config.pairs, margin=kept.config.pairs.margin + 1))


def test_a_command_of_the_installed_program(evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from equimark.cli import main

    words = [
        "evaluate",
        "matching",
        "dve",
        "--data=labels.csv",
        "--root",
        "photos",
        "--quiet",
        "--out",
        "my match.json",
    ]
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/equimark", *words])
    assert main() == 0
    made = Results.read(Path("my match.json")).made
    assert made["command"] == f"equimark {' '.join(words[:-1])} 'my match.json'"


def test_tabulate(evaluated: Path, command: Command) -> None:
    few = Results.read(Path("few.json"))
    code, out, err = command("tabulate", "few.json", "--names", " a [few] of labels", "--out", "sub/few.md")
    assert (code, err) == (0, "")
    assert "a [few] of labels" in out and out.splitlines()[-2].endswith(few.made["date"])
    text = Path("sub/few.md").read_text(encoding="utf-8")
    assert text == tabulate([Row("a [few] of labels", {"": few})]).markdown()
    first = few.entries["labels_1"]
    mean, deviation = first["error_iod_percent"], first["error_iod_percent_std"]
    title = "error, % of the distance between the eyes, labelled images"
    assert text.startswith(f"| {title} | 1 | 4 | all |\n| --- | --- | --- | --- |\n")
    assert f"| a [few] of labels | {mean:.2f} ± {deviation:.2f} | " in text
    assert few.made["command"] in out.replace("\n", "") and few.made["command"] in text

    words = ("tabulate", "match.json", "few.json", "--metric", "same_identity_px", "error_px", "--best", "low")
    assert command(*words, "--out", "both.csv", "--digits", 1)[0] == 0
    with Path("both.csv").open(newline="", encoding="utf-8") as file:
        rows = {row[0]: row for row in csv.reader(file)}
    assert float(rows["match, same_identity_px"][-1]) == Results.read(Path("match.json")).plain["same_identity_px"]
    assert rows["labelled images"][1:] == ["1", "1 std", "4", "4 std", "all", "as it is"]
    assert command("tabulate", "match.json", "--out", "match.tex")[0] == 0
    assert Path("match.tex").read_text(encoding="utf-8").startswith(r"\begin{tabular}{lrr}")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["few.json", "none.json"], 1, "none.json cannot be read as results"),
        (["few.json", "labels.csv"], 1, "labels.csv cannot be read as results"),
        (["few.json", "--metric", "eror_px"], 2, "'eror_px' (did you mean 'error_px'?)"),
        (["few.json", "--names", "a,b"], 2, "--names gives 2 names, there are 1 rows"),
        (["few.json", "--digits", "-2"], 2, "digits after the point cannot be -2"),
        (["few.json", "--out", "few.xls"], 2, "ends in .md, .csv, .tex, not to few.xls"),
        (["few.json", "--out", "photos"], 2, "--out photos is a folder"),
    ],
)
def test_what_cannot_be_tabulated(evaluated: Path, command: Command, words: list[str], code: int, message: str) -> None:
    got, out, err = command("tabulate", *words)
    assert (got, out, len(err.splitlines())) == (code, "", 1)
    assert message in err


def test_a_row_of_several_seeds(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"dve-0": MATCHING, "other": replace(MATCHING, data="b.csv"), "dve-1": with_seed(MATCHING, 1, 1.0)}
    for name, own in files.items():
        (tmp_path / f"{name}.json").write_text(own.to_json(), encoding="utf-8")
    words = [*(f"{name}.json" for name in files), "--over-seeds", "--out", "table.csv"]
    assert command("tabulate", *words)[0] == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text(encoding="utf-8"))))
    assert [row[""] for row in rows] == ["dve", "other"]
    assert [float(row["same_identity_px"]) for row in rows] == [pytest.approx(2.434), 1.934]
    assert [row["same_identity_px std"] for row in rows] == [str(statistics.stdev([1.934, 2.934])), ""]
    code, out, _ = command("tabulate", *words[:-2], "--names", "ours,others")
    assert code == 0 and "ours" in out and "2.43 ± 0.71" in out


# ---- the page of results ------------------------------------------------------------------------------------

PAGE = "# Results\n\nBefore.\n\n<!-- table few -->\nold\n<!-- end -->\n\n<!-- table both -->\n<!-- end -->\nAfter.\n"
TABLES = """
few:
  title: Few labels, in pixels.
  metrics: {"% of the eyes": error_px}
  digits: 1
  rows:
    fit: few.json
    mean shape: {file: few.json, metric: mean_shape_px}
both:
  best: low
  rows:
    dve: {files: {here: match.json, there: other.json}}
    mean: [match.json, again.json]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, results in {
        "few": FEW,
        "match": MATCHING,
        "other": replace(MATCHING, data="other.csv"),
        "again": with_seed(MATCHING, 1, 1.0),
    }.items():
        (tmp_path / f"{name}.json").write_text(results.to_json(), encoding="utf-8")
    (tmp_path / "tables.yaml").write_text(TABLES, encoding="utf-8")
    (tmp_path / "page.md").write_text(PAGE, encoding="utf-8")
    return tmp_path


def write_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    words = ["docs/results.py", "--page", str(folder / "page.md"), "--results", str(folder)]
    monkeypatch.setattr(sys, "argv", words)
    DOCS["main"]()
    return (folder / "page.md").read_text(encoding="utf-8")


def test_the_page_has_its_tables_written_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_page(folder, monkeypatch)
    assert page.startswith(
        "# Results\n\nBefore.\n\n<!-- table few -->\nFew labels, in pixels.\n\n"
        "| % of the eyes, labelled images | 1 | 5 | 10 | all |\n| --- | --- | --- | --- | --- |\n"
        "| fit | 20.8 ± 5.5 | 12.9 ± 1.0 | 11.2 ± 0.1 | 6.0 |\n| mean shape | 9.5 | 9.5 | 9.5 | 9.5 |\n\n"
        "<details><summary>How it was made</summary>\n\n* `equimark evaluate landmarks "
    )
    assert page.endswith("<!-- end -->\nAfter.\n") and "| dve | 1.93 | 7.38 | 1.93 | 7.38 |  |  |" in page
    assert "| mean |  |  |  |  | 2.43 ± 0.71 | 7.88 ± 0.71 |" in page
    assert "old" not in page
    assert write_page(folder, monkeypatch) == page


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("tables.yaml", "match.json", "mach.json", r"mach\.json cannot be read as results"),
        ("tables.yaml", "error_px", "eror_px", r"tables\.yaml: table few: .*did you mean 'error_px'"),
        ("tables.yaml", "best", "bset", r"table both: unknown key 'bset' \(did you mean 'best'"),
        ("tables.yaml", "best: low", "best: lower", "best must be low or high, got 'lower'"),
        ("tables.yaml", "digits: 1", "digits: few", "digits must be a whole number, got 'few'"),
        ("tables.yaml", "{file: few.json, ", "{", "row mean shape: give a file"),
        ("tables.yaml", "few:\n", "few: [\n", "is not valid YAML"),
        ("tables.yaml", "both:", "more:", "there is no table 'both' in tables.yaml"),
        ("page.md", "<!-- table both -->\n<!-- end -->\n", "", "table both of tables.yaml is not shown"),
        ("page.md", "old\n<!-- end -->\n", "old\n", "table few does not end before <!-- table both -->"),
        ("page.md", "both -->\n<!-- end -->", "both -->", "table both does not end"),
        ("page.md", "Before.", "<!-- end -->", "there is no table to end at"),
        ("match.json", '"equimark evaluate', '"/usr/bin/equimark evaluate', r"match\.json names a place on a machine"),
        ("match.json", '"date": "2026-11-22"', '"date": ""', r"match\.json does not say date: measure again"),
        ("other.json", '"command": "equim.*",', "", r"other\.json does not say command"),
        ("few.json", '"runs/dve"', '"C:\\\\\\\\runs"', r"few\.json names a place on a machine"),
    ],
)
def test_a_page_that_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str, message: str
) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    changed = re.sub(old if "*" in old else re.escape(old), new, text, count=1)
    assert changed != text
    (folder / name).write_text(changed, encoding="utf-8")
    before = (folder / "page.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit, match=rf"^results\.py: .*{message}") as stopped:
        write_page(folder, monkeypatch)
    assert "\n" not in str(stopped.value)
    assert (folder / "page.md").read_text(encoding="utf-8") == before


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("/tmp/runs/dve", True),
        ("equimark evaluate matching runs/dve --root /data", True),
        ("equimark evaluate matching '/home/a b/dve'", True),
        ("equimark evaluate matching runs/dve --data=~/faces.csv", True),
        ("D:\\faces", True),
        ("runs/dve", False),
        ("../runs/dve", False),
        ("hf:/OWNER/NAME", False),
        ("hf://OWNER/NAME", False),
        ("1 / 2, 3/4", False),
    ],
)
def test_places_on_a_machine(tmp_path: Path, text: str, refused: bool) -> None:
    path = tmp_path / "r.json"
    path.write_text(replace(MATCHING, details={"about": [{text: 1.0}]}).to_json(), encoding="utf-8")
    if not refused:
        assert DOCS["read_results"](path).details == {"about": [{text: 1.0}]}
        return
    with pytest.raises(ResultsError, match="names a place on a machine"):
        DOCS["read_results"](path)


def test_no_tables(tmp_path: Path) -> None:
    assert DOCS["read_tables"](tmp_path) == {}
    (tmp_path / "tables.yaml").write_text("# none yet\n", encoding="utf-8")
    assert DOCS["read_tables"](tmp_path) == {}
    assert DOCS["rewrite"]("# Results\n", {}) == "# Results\n"


def test_the_results_in_the_docs_are_those_that_the_script_writes() -> None:
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    assert DOCS["rewrite"](page, DOCS["read_tables"](ROOT / "docs/results")) == page


MEASURED = sorted((ROOT / "docs/results/speed").glob("*.json"))


@pytest.mark.parametrize("path", MEASURED, ids=lambda path: path.name)
def test_speeds_in_the_docs_say_where_they_were_measured(path: Path) -> None:
    measured = json.loads(path.read_text(encoding="utf-8"))
    assert measured["hardware"]["processor"] and measured.get("made", measured)["versions"]["torch"]
    assert not any(DOCS["_ABSOLUTE"].search(text) for text in DOCS["_texts"](measured))


def test_tables_of_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text(
        '{"results": {"a": {"seconds": 1.26, "spread": [1, 2.04]}, "b": {"seconds": 3}}}'
    )
    rows = {"A": {"file": "speed.json", "of": "results/a"}}
    rows["B"] = {"file": "speed.json", "of": "results/b", "columns": {"spread": ""}}
    columns = {"time": "{seconds:.1f} s", "spread": "to {spread[1]:.1f}"}

    def made() -> str:
        (tmp_path / "tables.yaml").write_text(
            yaml.safe_dump({"t": {"columns": columns, "rows": rows}}, sort_keys=False)
        )
        return str(DOCS["read_tables"](tmp_path)["t"])

    assert made() == "|  | time | spread |\n| --- | --- | --- |\n| A | 1.3 s | to 2.0 |\n| B | 3.0 s |  |\n"
    for of in ("results/c", "results/b"):
        rows["B"] = {"file": "speed.json", "of": of}
        with pytest.raises(ConfigError, match=r"table t, row B: speed\.json has no such number"):
            made()


@pytest.mark.parametrize("path", [*sorted(set((ROOT / "docs/results").rglob("*.json")) - set(MEASURED)), None], ids=str)
def test_results_in_the_docs_say_how_they_were_made(path: Path | None) -> None:
    """Those that no table shows, too; None, so that there is a test while there are no results."""
    results = MATCHING if path is None else DOCS["read_results"](path)
    assert results.made["command"].startswith(("equimark evaluate ", "python benchmarks/"))
    assert results.made["hardware"]["processor"] and re.fullmatch(r"\d{4}-\d\d-\d\d", results.made["date"])
