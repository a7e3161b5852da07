from pathlib import Path

import numpy as np
import pytest

from equimark.metrics import Points
from equimark.records import Record, RecordError, fingerprint

ABOUT = {"run": "ab12", "data": "cd34", "epochs": "300"}
POINTS = np.arange(12.0).reshape(2, 3, 2) / 7


def never() -> Points:
    raise AssertionError("predicted again")


def test_predicted_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.safetensors"
    record = Record(ABOUT, path)
    assert "labels_10/seed_0" not in record
    np.testing.assert_array_equal(record.get("labels_10/seed_0", lambda: POINTS), POINTS)
    np.testing.assert_array_equal(record.get("labels_10/seed_0", never), POINTS)
    again = Record(ABOUT, path)
    assert "labels_10/seed_0" in again and "labels_10/seed_1" not in again
    np.testing.assert_array_equal(again["labels_10/seed_0"], POINTS)  # to the last bit
    again.get("labels_10/seed_1", lambda: 2 * POINTS)
    np.testing.assert_array_equal(Record(ABOUT, path)["labels_10/seed_1"], 2 * POINTS)


def test_in_memory_alone() -> None:
    record = Record(ABOUT)
    np.testing.assert_array_equal(record.get("all", lambda: POINTS), POINTS)
    np.testing.assert_array_equal(record.get("all", never), POINTS)


@pytest.mark.parametrize(
    ("about", "difference"),
    [
        (ABOUT | {"run": "ef56"}, "run: ab12 -> ef56"),
        (ABOUT | {"data": "ef56", "epochs": "20"}, "data: cd34 -> ef56; epochs: 300 -> 20"),
        (ABOUT | {"points": "50"}, "points: none -> 50"),
        ({"run": "ab12", "data": "cd34"}, "epochs: 300 -> none"),
    ],
)
def test_predictions_of_something_else_are_refused(tmp_path: Path, about: dict[str, str], difference: str) -> None:
    path = tmp_path / "p.safetensors"
    Record(ABOUT, path).get("all", lambda: POINTS)
    with pytest.raises(RecordError) as refused:
        Record(about, path)
    assert f"something else ({difference}): name another file" in str(refused.value)
    np.testing.assert_array_equal(Record(ABOUT, path)["all"], POINTS)


def test_files_that_hold_no_predictions(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "p.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(RecordError, match="holds no predictions, or is damaged"):
        Record(ABOUT, path)
    Record(ABOUT, tmp_path / "whole").get("all", lambda: POINTS)
    path.write_bytes((tmp_path / "whole").read_bytes()[:-8])
    with pytest.raises(RecordError, match="damaged"):
        Record(ABOUT, path)
    save_file({"weights": POINTS}, path)
    with pytest.raises(RecordError, match="holds no predictions, or of a version"):
        Record(ABOUT, path)


def test_fingerprints_change_with_anything() -> None:
    marks = {
        fingerprint({"a": POINTS}),
        fingerprint({"b": POINTS}),
        fingerprint({"a": POINTS + np.eye(3, 2) * 1e-15 + 1e-12}),
        fingerprint({"a": POINTS.reshape(3, 2, 2)}),
        fingerprint({"a": POINTS.astype(np.float32)}),
        fingerprint({"a": POINTS, "b": POINTS}),
        fingerprint({"a": POINTS[:, ::-1]}),
    }
    assert len(marks) == 7
    assert fingerprint({"a": POINTS}) == fingerprint({"a": POINTS.copy(order="F")})
