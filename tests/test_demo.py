import json
from pathlib import Path

import pytest

from equimark import demo
from equimark.cli import main
from equimark.plots import canvas

SMALL = {"frame.size": 40, "pairs.margin": 6, "batch_size": 4, "steps": 3, "network.channels": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration through its command, with little of everything."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"SIDE": 40, "TRAINING_IMAGES": 12, "TEST_IMAGES": 12}.items():
            patch.setattr(demo, name, value)
        for name in ("_DENSE", "_SPARSE"):
            patch.setattr(demo, name, getattr(demo, name) | SMALL)
        patch.setattr(canvas, "_DPI", 30)
        assert main(["demo", "--out", str(out), "--quiet", "--device", "cpu", "--seed", "1"]) == 0
    return out


def test_files(made: Path) -> None:
    assert {"report.html", "results.json", "dense", "dve", "sparse"} <= {p.name for p in made.iterdir()}
    assert "<html" in (made / "report.html").read_text(encoding="utf-8")


def test_results(made: Path) -> None:
    results = json.loads((made / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"dense", "dve", "sparse", "fit_10_labels", "mean_shape", "seconds"}
    for name in ("dense", "dve"):
        assert set(results[name]) == {"same_identity_px", "different_identity_px"}
    assert {"distinct_landmarks", "alignment", "alignment_share"} <= set(results["sparse"])
    assert 1 <= results["sparse"]["distinct_landmarks"] <= 5
    for name in ("fit_10_labels", "mean_shape"):
        assert "error_iod_percent" in results[name]
        assert 0 < results[name]["error_iod_percent"] < 300
    assert set(results["seconds"]) >= {"draw", "train_dense", "train_dve", "train_sparse", "evaluate"}


def test_every_result_has_a_row(made: Path) -> None:
    rows = demo.rows(json.loads((made / "results.json").read_text(encoding="utf-8")))
    assert all(len(row) == len(demo.COLUMNS) for row in rows)
    assert {"without exchange", "with exchange (DVE)", "68 landmarks from 10 labels", "mean shape"} <= {
        row[0] for row in rows
    }
