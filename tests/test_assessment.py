"""``equimark evaluate`` from end to end: results, predictions kept, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import TINY
from equimark import assessment, formats, protocols
from equimark.annotated import open_data
from equimark.assessment import parse_labels, parse_scale
from equimark.config import ConfigError
from equimark.evaluation import draw_labels
from equimark.head import HeadSpec, fit_head
from equimark.landmarks import LandmarkTable
from equimark.metrics import BOX, PUPILS, Scale, error_iod_percent, reliability
from equimark.results import Results
from equimark.run import Run, train
from equimark.symmetry import Symmetry
from equimark.synthetic import Portraits

Command = Callable[..., tuple[int, str, str]]
METRICS = {"error_iod_percent", "error_px", "pck_0.1", "failure_rate_0.1", "auc_0.1"}
QUICK = ("--epochs", 2, "--points", 4, "--quiet")


@pytest.fixture(scope="module")
def labels(faces: Portraits, photos: Path) -> Path:
    """A landmark file with splits beside the photos: ten images to learn from, six to test on."""
    path = photos / "splits.csv"
    images = tuple(f"{i:06d}.png" for i in range(16))
    formats.write(LandmarkTable(images, faces.landmarks5.astype(float), splits=("train",) * 10 + ("test",) * 6), path)
    return path


def evaluate(command: Command, out: Path, *words: object) -> dict[str, Any]:
    code, printed, err = command("evaluate", *words, "--out", out)
    assert (code, err) == (0, "")
    results = json.loads(out.read_text())
    assert list(results)[:5] == ["protocol", "run", "data", "images", "metrics"]
    assert all(name in printed.replace("\n", "") for name in results["metrics"] if name in METRICS)
    return dict(results)


def refused(result: tuple[int, str, str], code: int, *parts: str) -> None:
    assert result[0] == code
    assert all(part in result[2] for part in parts), result[2]
    assert len(result[2].strip().splitlines()) == 1


# ---- landmarks ----------------------------------------------------------------------------------------------


def test_landmarks_of_a_run_with_descriptors(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("landmarks", dve_run.folder, "--data", labels, "--labels", "1,4,all", "--seeds", 2, *QUICK)
    results = evaluate(command, tmp_path / "r.json", *words)
    assert (results["protocol"], results["images"], results["seed"]) == ("landmarks, virtual", 6, 0)
    assert results["settings"]["training_images"] == 10
    assert (results["settings"]["points"], results["settings"]["epochs"]) == (4, 2)
    metrics = results["metrics"]
    entries = {name: own for name, own in metrics.items() if name.startswith("labels_")}
    assert {name: own["draws"] for name, own in entries.items()} == {"labels_1": 2, "labels_4": 2, "labels_all": 1}
    for own in entries.values():
        assert set(own) >= METRICS and {f"{name}_std" for name in METRICS} <= set(own)
        assert own["error_iod_percent"] == own["error_iod_percent_mean"] > 0
    assert metrics["error_iod_percent"] == entries["labels_all"]["error_iod_percent"]
    assert entries["labels_1"]["error_iod_percent_std"] > 0
    assert {name: len(own) for name, own in results["details"]["by_point"].items()} == dict.fromkeys(entries, 5)
    points = results["details"]["by_point"]["labels_all"]
    assert np.mean(points) == pytest.approx(metrics["error_iod_percent"])


def test_landmarks_as_fitted_for_people(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("landmarks", dve_run.folder, "--data", labels, "--labels", 5, "--seeds", 1, "--regressor", "fit")
    found = evaluate(command, tmp_path / "r.json", *words, "--quiet")["metrics"]["error_iod_percent"]
    model = dve_run.model
    train, test = (part.load(model.frame) for part in open_data(str(labels)).train_and_test())
    rows = draw_labels(np.ones(10, np.bool_), 5, seed=0)
    head = fit_head(model, train.frames[rows], train.points[rows], seed=0)
    assert found == pytest.approx(error_iod_percent(head.predict_frames(test.frames), test.points, (0, 1)))


def test_landmarks_fitted_with_mirror_images(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("landmarks", dve_run.folder, "--data", labels, "--labels", 5, "--seeds", 1, "--symmetric", "0=1, 3=4")
    results = evaluate(command, tmp_path / "r.json", *words, "--regressor", "fit", "--quiet")
    assert results["settings"]["symmetric"] == [[0, 1], [3, 4]]
    model = dve_run.model
    train, test = (part.load(model.frame) for part in open_data(str(labels)).train_and_test())
    rows = draw_labels(np.ones(10, np.bool_), 5, seed=0)
    symmetry = Symmetry.of_pairs([(0, 1), (3, 4)], [str(i) for i in range(5)])
    head = fit_head(model, train.frames[rows], train.points[rows], spec=HeadSpec(symmetry), seed=0)
    wanted = error_iod_percent(head.predict_frames(test.frames), test.points, (0, 1))
    assert results["metrics"]["error_iod_percent"] == pytest.approx(wanted)
    refused(command("evaluate", *words, "--regressor", "virtual"), 2, "--symmetric", "add --regressor fit")
    refused(command("evaluate", *words[:-1], "0=9", "--regressor", "fit"), 1, "9")


def test_landmarks_of_things_in_any_direction(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("landmarks", dve_run.folder, "--data", labels, "--labels", 5, "--seeds", 1, "--direction", "any")
    results = evaluate(command, tmp_path / "r.json", *words, "--regressor", "fit", "--quiet")
    assert results["settings"]["direction"] == "any"
    model = dve_run.model
    train, test = (part.load(model.frame) for part in open_data(str(labels)).train_and_test())
    rows = draw_labels(np.ones(10, np.bool_), 5, seed=0)
    head = fit_head(model, train.frames[rows], train.points[rows], spec=HeadSpec(direction="any"), seed=0)
    wanted = error_iod_percent(head.predict_frames(test.frames), test.points, (0, 1))
    assert head.turned and results["metrics"]["error_iod_percent"] == pytest.approx(wanted)
    refused(command("evaluate", *words, "--regressor", "virtual"), 2, "--direction", "add --regressor fit")


def test_landmarks_from_suggested_images(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("landmarks", dve_run.folder, "--data", labels, "--labels", 3, "--seeds", 1, "--suggested")
    kept = ("--predictions", tmp_path / "p.npz")
    results = evaluate(command, tmp_path / "r.json", *words, "--regressor", "fit", *kept, "--quiet")
    assert results["settings"]["suggested"]
    model = dve_run.model
    train, test = (part.load(model.frame) for part in open_data(str(labels)).train_and_test())
    drawn = protocols.plan_draws(np.ones(10, np.bool_), (3,), draws=1)
    (draw,) = protocols.suggest_draws(model, train, drawn, HeadSpec())
    head = fit_head(model, train.frames[draw.rows], train.points[draw.rows], seed=0)
    wanted = error_iod_percent(head.predict_frames(test.frames), test.points, (0, 1))
    assert results["metrics"]["error_iod_percent"] == pytest.approx(wanted)
    refused(command("evaluate", *words, "--regressor", "virtual"), 2, "--suggested", "add --regressor fit")
    refused(command("evaluate", *words[:-1], "--regressor", "fit", *kept, "--quiet"), 1, "predictions")


def test_how_far_confidence_can_be_believed(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("landmarks", dve_run.folder, "--data", labels, "--labels", "4,all", "--seeds", 2, "--regressor", "fit")
    results = evaluate(command, tmp_path / "r.json", *words, "--plot", tmp_path / "p.png", "--quiet")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width > 600
    kept = results["details"]["reliability"]
    assert {name: sum(own["count"]) for name, own in kept.items()} == {"labels_4": 2 * 6 * 5, "labels_all": 6 * 5}
    model = dve_run.model
    train, test = (part.load(model.frame) for part in open_data(str(labels)).train_and_test())
    points, confidence = fit_head(model, train.frames, train.points).locate_frames(test.frames)
    mean = (train.points - train.points.mean(1, keepdims=True)).mean(0)
    near = np.linalg.norm(points - test.points, axis=-1) <= 0.1 * np.ptp(mean, axis=0).max()
    expected = reliability(confidence, near).calibration_error
    assert results["metrics"]["labels_all"]["calibration_error"] == pytest.approx(expected)
    assert results["metrics"]["labels_4"]["calibration_error_std"] >= 0


def test_confidence_that_is_no_probability(
    command: Command, dve_run: Run, sparse_run: Run, labels: Path, tmp_path: Path
) -> None:
    words, plot = ("--data", labels, "--labels", "4", "--seeds", 1, "--quiet"), ("--plot", tmp_path / "p.png")
    result = command("evaluate", "landmarks", sparse_run.folder, *words, "--regressor", "fit", *plot)
    refused(result, 2, "only those of descriptors")
    refused(command("evaluate", "landmarks", dve_run.folder, *words, *QUICK[:-1], *plot), 2, "with --regressor fit")
    refused(command("evaluate", "matching", dve_run.folder, "--data", labels, *plot), 2, "with --regressor fit")
    assert not (tmp_path / "p.png").exists()


def test_landmarks_of_a_sparse_run(command: Command, sparse_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("landmarks", sparse_run.folder, "--data", labels, "--labels", "3", "--seeds", 1, "--quiet")
    results = evaluate(command, tmp_path / "r.json", *words)
    assert results["protocol"] == "landmarks, fit"
    assert {"forward_nme", "backward_nme", "distinct_landmarks", "labels_3"} | METRICS <= set(results["metrics"])
    assert 1 <= results["metrics"]["distinct_landmarks"] <= 4
    result = command("evaluate", *words, "--regressor", "virtual")
    refused(result, 1, "a sparse run has no descriptors for virtual points")


def test_landmarks_of_a_supervised_run(command: Command, photos: Path, labels: Path, tmp_path: Path) -> None:
    settings = {name: value for name, value in TINY.items() if name != "network.channels"} | {"steps": 4}
    table = formats.read(labels).split("train")
    run = train(photos, tmp_path / "run", recipe="supervised-smallnet", labels=table, progress=False, **settings)
    words = ("landmarks", run.folder, "--data", labels, "--quiet")
    trained = evaluate(command, tmp_path / "a.json", *words)
    assert trained["protocol"] == "landmarks, as trained"
    assert not any(name.startswith("labels") for name in trained["metrics"])
    anew = evaluate(command, tmp_path / "b.json", *words, "--labels", "2", "--seeds", 2)
    assert anew["protocol"] == "landmarks, trained anew"
    assert anew["metrics"]["labels_2"]["draws"] == 2
    refused(command("evaluate", *words, "--regressor", "fit"), 2, "leave out --regressor")
    formats.write(LandmarkTable(table.images, table.points[:, :3]), photos / "three.csv")
    words = ("landmarks", run.folder, "--data", photos / "three.csv", "--quiet")
    refused(command("evaluate", *words), 1, "trained for 5 landmarks, the data has 3")


def test_predicted_once_scored_twice(
    command: Command, dve_run: Run, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "p.safetensors"
    words = ("landmarks", dve_run.folder, "--data", labels, "--labels", "2", "--seeds", 1, "--predictions", kept)
    first = evaluate(command, tmp_path / "a.json", *words, *QUICK)["metrics"]
    with monkeypatch.context() as patch:
        patch.setattr(protocols, "predictor", None)
        again = evaluate(command, tmp_path / "b.json", *words, *QUICK)["metrics"]
        boxed = evaluate(command, tmp_path / "c.json", *words, *QUICK, "--scale", "box")["metrics"]
    assert again == first
    assert boxed["error_px"] == first["error_px"] and "error_box_percent" in boxed
    refused(command("evaluate", *words, "--epochs", 3, "--points", 4, "--quiet"), 1, "something else", "epochs: 2 -> 3")
    refused(command("evaluate", *words, *QUICK, "--split", "train"), 1, "no split 'train' beside")


# ---- units and numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "eyes", "count", "expected"),
    [
        (None, (0, 1), 5, Scale.between(0, 1)),
        (None, None, 9, BOX),
        ("eyes", (36, 45), 68, Scale.between(36, 45)),
        ("pupils", (36, 45), 68, PUPILS),
        ("box", (0, 1), 5, BOX),
        ("8,2", None, 9, Scale.between(8, 2)),
    ],
)
def test_scales(text: str | None, eyes: tuple[int, int] | None, count: int, expected: Scale) -> None:
    assert parse_scale(text, eyes, count) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eyes", "which landmarks are the eyes is not known"),
        ("pupils", "for the 68 landmarks of 300-W, these are 9"),
        ("nose", "must be eyes, pupils, box or two landmarks I,J; got 'nose'"),
        ("1,9", "two of the landmarks 0 to 8"),
        ("2,2", "two of the landmarks 0 to 8"),
        ("1,2,3", "got '1,2,3'"),
    ],
)
def test_scales_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_scale(text, None, 9)


def test_numbers_of_labels() -> None:
    assert parse_labels("1, 5,all") == [1, 5, None]
    with pytest.raises(ConfigError, match="got '1;5'"):
        parse_labels("1;5")


def test_a_table_of_results() -> None:
    few = {"error_px": 2.0, "error_px_mean": 2.0, "error_px_std": 0.5, "draws": 2}
    metrics = {**few, "labels_1": few, "labels_all": few | {"error_px_std": 0.0}, "forward_nme": 3.0}
    title, columns, rows = Results("landmarks, fit", "run", "set", 6, metrics, 0, {}).table()
    assert title == "landmarks, fit, run run, data set, images 6, seed 0"
    assert columns == ["metric", "labels 1", "labels all"]
    assert rows == [["error_px", "2.000 ± 0.500", "2.000"], ["forward_nme", "", "3.000"]]


# ---- matching -----------------------------------------------------------------------------------------------


def test_matching_by_point_and_on_some_pairs(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("matching", dve_run.folder, "--data", labels, "--quiet")
    everything = evaluate(command, tmp_path / "a.json", *words)
    assert everything["settings"]["pairs"] == 3
    by_point = everything["details"]["by_point"]
    assert {name: len(own) for name, own in by_point.items()} == dict.fromkeys(everything["metrics"], 5)
    some = evaluate(command, tmp_path / "b.json", *words, "--pairs", 2)
    assert some["settings"]["pairs"] == 2
    assert some["metrics"] != everything["metrics"]
    again = evaluate(command, tmp_path / "c.json", *words, "--pairs", 2)
    assert [each["made"].pop("command")[-6:] for each in (some, again)] == ["b.json", "c.json"]
    assert again == some
    refused(command("evaluate", *words, "--pairs", 4), 1, "4 pairs were asked for, but these images make 1 to 3")


def test_a_published_set_by_name(command: Command, dve_run: Run, photos: Path, tmp_path: Path) -> None:
    words = ("matching", dve_run.folder, "--data", "landmarks", "--root", photos, "--quiet")
    results = evaluate(command, tmp_path / "r.json", *words)
    assert (results["data"], results["images"]) == ("landmarks", 16)
    refused(command("evaluate", "matching", dve_run.folder, "--data", "mafl"), 2, "--root")
    refused(command("evaluate", "matching", dve_run.folder, "--data", "mafl", "--root", photos), 1, "mafl")


# ---- segmentation -------------------------------------------------------------------------------------------


def test_segmentation(command: Command, sparse_run: Run, photos: Path, label_images: Path, tmp_path: Path) -> None:
    data = ("--data", photos, "--parts", label_images, "--quiet")
    words = ("segmentation", sparse_run.folder, *data, "--labels", "2,all", "--seeds", 1, "--epochs", 5)
    results = evaluate(command, tmp_path / "a.json", *words)
    assert (results["protocol"], results["images"]) == ("segmentation, pretrained", 3)
    metrics = results["metrics"]
    assert {"labels_2", "labels_all", "pixel_accuracy_percent", "mean_iou_percent"} <= set(metrics)
    assert metrics["pixel_accuracy_percent_epoch_5"] == metrics["pixel_accuracy_percent"]
    curve = results["details"]["by_epoch"]["labels_2/seed_0"]
    assert [own["epoch"] for own in curve] == [1, 2, 3, 4, 5]
    assert max(own["pixel_accuracy_percent"] for own in curve) == metrics["labels_2"]["pixel_accuracy_percent_best"]

    settings = TINY | {"steps": 4, "network.channels": 7}
    run = train(photos, tmp_path / "run", recipe="segmentation-scratch", parts=label_images, progress=False, **settings)
    trained = evaluate(command, tmp_path / "b.json", "segmentation", run.folder, *data)
    assert (trained["protocol"], trained["images"]) == ("segmentation, as trained", 16)
    assert set(trained["metrics"]) == {"pixel_accuracy_percent", "mean_iou_percent"}
    assert {row["label"] for row in trained["details"]["by_part"]} == set(range(7))
    refused(command("evaluate", "landmarks", run.folder, "--data", photos / "landmarks.csv"), 1, "finds parts")
    refused(command("evaluate", "segmentation", run.folder, "--data", photos), 2, "--parts")


def test_what_cannot_be_evaluated(command: Command, dve_run: Run, labels: Path, tmp_path: Path) -> None:
    words = ("evaluate", "landmarks", dve_run.folder, "--data", labels, *QUICK)
    refused(command(*words, "--labels", "11"), 1, "--labels must lie between 1 and 10")
    refused(command(*words, "--labels", "few"), 2, "--labels wants numbers")
    refused(command(*words, "--out", tmp_path), 2, "is a folder")
    refused(command(*words, "--points", "0"), 2, "points of virtual points must be at least 1")


def test_there_is_a_function_for_each_protocol() -> None:
    assert {name for name in vars(assessment) if name.startswith("assess_")} == {
        "assess_matching",
        "assess_landmarks",
        "assess_segmentation",
    }
