"""Landmarks without labels, on a surface whose colour is its coordinate and a network that reads it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coordinates import ByColour, moving
from equimark.config import make_config
from equimark.discovery import discover
from equimark.embedding import ModelError
from equimark.formats import read
from equimark.head import Head
from equimark.model import LandmarkModel
from equimark.run import Run

SIDE = 48


@pytest.fixture(scope="module")
def model() -> LandmarkModel:
    settings = {"method": "dve", "network": {"channels": 12}, "frame": {"size": SIDE}, "pairs": {"margin": 4}}
    return LandmarkModel(ByColour(), make_config(settings))


def surface(count: int, seed: int) -> torch.Tensor:
    return moving(count, SIDE, np.array([[0.5, 0.5]]), seed).frames


def colour_at(frames: torch.Tensor, points: np.ndarray) -> np.ndarray:
    """(N, K, 2): which place of the surface lies at points (N, K, 2)."""
    x, y = np.rint(points).clip(0, SIDE - 1).astype(int).transpose(2, 0, 1)
    rows = np.arange(len(frames))[:, None]
    return frames.movedim(1, -1).numpy()[rows, y, x, :2] / 255


def test_discovered_landmarks_belong_to_the_surface(model: LandmarkModel) -> None:
    head = discover(model, surface(10, seed=0), 4)
    unseen = surface(12, seed=1)
    points = head.predict_frames(unseen)
    assert points.shape == (12, 4, 2)
    places = colour_at(unseen, points)
    assert places.std(0).max() < 0.05  # the same place of the surface on every image, while that moves by 0.1
    apart = np.linalg.norm(places.mean(0)[:, None] - places.mean(0), axis=-1)[~np.eye(4, dtype=bool)]
    assert apart.min() > 0.1


def test_they_are_ordered_from_top_to_bottom_and_repeat(model: LandmarkModel) -> None:
    frames = surface(10, seed=0)
    first, second = (discover(model, frames, 4, seed=3).predict_frames(frames) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert (np.diff(first[..., 1].mean(0)) > 0).all()


def test_what_cannot_be_told_apart(model: LandmarkModel) -> None:
    grey = torch.full((3, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    with pytest.raises(ModelError, match="1 different descriptors only: 3 landmarks cannot be told apart"):
        discover(model, grey, 3)


def test_no_descriptors(sparse_model: LandmarkModel) -> None:
    with pytest.raises(ModelError, match="a sparse run has no descriptors to discover landmarks in"):
        discover(sparse_model, torch.zeros(3, 3, 64, 64, dtype=torch.uint8), 3)


def test_command(command, dve_run: Run, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out, kept = tmp_path / "found.csv", tmp_path / "head"
    arguments = ["detect", dve_run.folder, photos, "--discover", "3", "--head", kept, "--quiet"]
    code, said, _ = command(*arguments, "--out", out)
    assert code == 0 and "3 landmarks discovered" in said
    table = read(out)
    assert table.points.shape[1] == 3 and table.visible.all()
    again = tmp_path / "again.csv"
    assert command("detect", dve_run.folder, photos, "--head", kept, "--out", again, "--quiet")[0] == 0
    np.testing.assert_allclose(read(again).points, table.points, atol=0.01)
    code, _, error = command(*arguments, "--out", again)
    assert code == 2 and "holds a head already" in error


def test_discovered_landmarks_are_named_then_or_later(command, dve_run: Run, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out, kept = tmp_path / "found.csv", tmp_path / "head"
    found = ["detect", dve_run.folder, photos, "--out", out, "--quiet"]
    assert command(*found, "--discover", "2", "--head", kept, "--names", "brow, chin")[0] == 0
    assert read(out).names == ("brow", "chin")
    points = read(out).points
    assert command(*found, "--head", kept, "--names", "forehead,jaw")[0] == 0
    assert command(*found, "--head", kept)[0] == 0  # they are kept
    assert read(out).names == ("forehead", "jaw")
    np.testing.assert_allclose(read(out).points, points, atol=0.01)
    for given in ("one", "same,same", "a,b,c", "a,"):
        code, _, error = command(*found, "--head", kept, "--names", given)
        assert code == 2 and "--names wants 2 different names" in error
    assert Head.load(kept, LandmarkModel.load(dve_run.folder)).names == ("forehead", "jaw")


def test_names_need_a_head(command, sparse_run: Run, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ["detect", sparse_run.folder, photos, "--out", tmp_path / "found.csv", "--quiet", "--names", "a,b"]
    code, _, error = command(*words)
    assert code == 2 and "--names are kept in a head" in error


def test_doubtful_landmarks_are_left_blank(command, dve_run: Run, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "found.csv"
    arguments = ["detect", dve_run.folder, photos, "--discover", "2", "--out", out, "--quiet"]
    assert command(*arguments)[0] == 0
    sure = np.median(read(out).confidence)
    assert command(*arguments, "--min-confidence", f"{sure:.4f}")[0] == 0
    table = read(out)
    assert not table.visible.all() and table.visible.any()
    assert (table.confidence[table.visible] >= sure - 1e-3).all()
    code, _, error = command(*arguments, "--min-confidence", "70")
    assert code == 2 and "must lie between 0 and 1" in error
