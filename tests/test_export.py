import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from conftest import TINY, full_disk, same_weights
from equimark import checkpoint, export, graphs, hub, networks, shapes
from equimark.checkpoint import CheckpointError
from equimark.config import make_config
from equimark.directions import turn_frames
from equimark.export import Exported, ExportError, export_onnx
from equimark.files import replace_file
from equimark.head import Head
from equimark.hub import write_hub_folder
from equimark.model import LandmarkModel
from equimark.run import Run
from equimark.synthetic import Portraits

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'equimark[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'equimark[export]'")

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent
NAMES = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


def made_of(**settings: Any) -> LandmarkModel:
    """An untrained model, its batch norms with the statistics of one batch of noise."""
    torch.manual_seed(1)
    config = make_config(TINY, settings)
    network = checkpoint.build(config)
    side = config.pairs.crop_size(config.frame.size)
    with torch.no_grad():
        network.train()(torch.rand(4, 3, side, side))
    return LandmarkModel(network, config)


def run_file(path: Path, frames: Tensor) -> list[np.ndarray]:
    """What an ONNX file answers to ``frames`` (B, 3, H, W) uint8."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers: list[np.ndarray] = session.run(None, {"image": frames.numpy().astype(np.float32) / 255})
    return answers


def metadata_of(path: Path) -> dict[str, str]:
    return dict(onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(7), dtype=torch.uint8)


@pytest.fixture(scope="module")
def dense(dve_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_onnx(dve_run.folder, tmp_path_factory.mktemp("onnx") / "new" / "dense.onnx")


@pytest.fixture(scope="module")
def reflecting() -> LandmarkModel:
    return made_of(**{"method": "sparse", "network.channels": 4, "network.padding": "reflect"})


@pytest.fixture(scope="module")
def reflecting_run(reflecting: LandmarkModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "reflecting"
    checkpoint.write_config(folder, reflecting.config)
    data = checkpoint.DataIdentity("photos", 16, "0" * 16)
    checkpoint.save_model(folder, reflecting.network, step=1, data=data)
    return folder


@pytest.fixture(scope="module")
def sparse(reflecting: LandmarkModel, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_onnx(reflecting, tmp_path_factory.mktemp("onnx") / "sparse.onnx")


# ---- the file -----------------------------------------------------------------------------------------------


def test_descriptors_are_those_of_the_model(dense: Exported, dve_model: LandmarkModel, faces: Portraits) -> None:
    frames, _ = dve_model.frames_of(list(faces.images[:2]))
    (found,) = run_file(dense.path, frames)
    assert found.shape == (2, 16, 20, 20)
    np.testing.assert_allclose(found[1], dve_model.describe(faces.images[1]), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 10, rtol=1e-5)  # the run's vector_length
    assert dense.outputs == ("descriptors",)
    assert 0 <= dense.difference < 1e-3


@pytest.mark.parametrize("shape", [(1, 40, 40), (5, 40, 40), (2, 28, 61), (1, 97, 64)])
def test_descriptors_of_any_batch_and_size(
    dense: Exported, dve_model: LandmarkModel, shape: tuple[int, int, int]
) -> None:
    frames = noise(shape[0], 3, *shape[1:])
    (found,) = run_file(dense.path, frames)
    assert found.shape == (shape[0], 16, shape[1] // 2, shape[2] // 2)
    np.testing.assert_allclose(found, dve_model.features(frames), atol=1e-4)


def test_landmarks_are_those_of_the_model(
    sparse: Exported, reflecting: LandmarkModel, faces: Portraits, tmp_path: Path
) -> None:
    frames, placements = reflecting.frames_of(list(faces.images[:3]))
    points, confidence = run_file(sparse.path, frames)
    wanted, certain = reflecting.detect_framed(frames, placements)
    in_frame = np.stack([place.to_frame(p) for place, p in zip(placements, wanted, strict=True)])
    np.testing.assert_allclose(points, in_frame, atol=1e-4)
    np.testing.assert_allclose(confidence, certain, atol=1e-4)


def test_landmarks_in_images_of_another_size(sparse: Exported, reflecting: LandmarkModel) -> None:
    frames = noise(2, 3, 61, 61)
    larger = replace(reflecting.config, frame=replace(reflecting.frame, size=61))
    found = LandmarkModel(reflecting.network, larger).landmarks_of(frames)
    points, confidence = run_file(sparse.path, frames)
    np.testing.assert_allclose(points, reflecting.network.cells.to_pixels(found.positions), atol=1e-4)
    np.testing.assert_allclose(confidence, found.confidence, atol=1e-4)


def test_the_file_says_what_it_is(dense: Exported, sparse: Exported) -> None:
    about = metadata_of(dense.path)
    assert about == dense.metadata
    assert (about["method"], about["network"], about["channels"], about["vector_length"]) == (
        *("dve", "smallnet"),
        *("16", "10.0"),
    )
    assert (about["stride"], about["offset"], about["margin"]) == ("2", "0.5", "6")
    assert json.loads(about["frame"]) == {"size": 40, "fit": "centre", "pad": 0, "fill": "edge"}
    assert about["equimark"] == checkpoint.versions()["equimark"]
    assert "0.5084" in about["normalisation"] and "0.2599" in about["normalisation"]
    assert (json.loads(about["names"]), metadata_of(sparse.path)["method"]) == (None, "sparse")


def test_named_landmarks_of_a_sparse_run(faces: Portraits, tmp_path: Path) -> None:
    model = made_of(**{"method": "sparse", "network.channels": 4, "network.padding": "replicate"})
    head = model.fit(list(faces.images[:4]), faces.landmarks5[:4], NAMES, pairs=4)
    made = export_onnx(model, tmp_path / "named.onnx", head)
    frames, _ = model.frames_of(list(faces.images[4:7]))
    points, confidence = run_file(made.path, frames)
    wanted, certain = head.locate_frames(frames)
    np.testing.assert_allclose(points, wanted, atol=1e-3)
    np.testing.assert_allclose(confidence, certain, atol=1e-4)
    assert json.loads(made.metadata["names"]) == list(NAMES)
    with pytest.raises(Exception, match="dimension"):  # it was fitted to the frame
        run_file(made.path, noise(1, 3, 64, 64))


def test_named_landmarks_of_a_dense_run(
    dve_model: LandmarkModel, faces: Portraits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "WIDTHS", (0.28, 0.08))  # a short search: the graph repeats what a loop would
    monkeypatch.setattr(graphs, "_STEPS", 16)
    head = dve_model.fit(list(faces.images[:6]), faces.landmarks5[:6], NAMES)
    head.save(tmp_path / "head")
    made = export_onnx(dve_model, tmp_path / "named.onnx", tmp_path / "head")
    for count in (1, 3):
        frames, _ = dve_model.frames_of(list(faces.images[6 : 6 + count]))
        points, confidence = run_file(made.path, frames)
        wanted, certain = head.locate_frames(frames)
        np.testing.assert_allclose(points, wanted, atol=4e-3)
        np.testing.assert_allclose(confidence, certain, atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "outputs", "shape"),
    [
        ({"method": "supervised", "network.channels": 5}, ("landmarks",), (5, 2)),
        ({"method": "segmentation", "network.channels": 3}, ("scores",), (3, 40, 40)),
    ],
)
def test_the_other_networks(
    settings: dict[str, Any], outputs: tuple[str, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    made = export_onnx(made_of(**settings), tmp_path / "m.onnx")
    (found,) = run_file(made.path, noise(2, 3, 40, 40))
    assert (made.outputs, found.shape) == (outputs, (2, *shape))


def test_hourglass_of_any_batch_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block in place of four, and a single look: exporting takes a time that grows with the graph."""
    monkeypatch.setattr(networks, "_bottlenecks", lambda width: nn.Sequential(networks._Bottleneck(width, width)))
    model = made_of(**{"method": "dense", "network.name": "hourglass", "pairs.margin": 0})
    made = export_onnx(model, tmp_path / "m.onnx")
    for shape in ((1, 3, 40, 40), (2, 3, 37, 58)):  # the second is rounded up on the way down
        (found,) = run_file(made.path, noise(*shape))
        np.testing.assert_allclose(found, model.features(noise(*shape)), atol=1e-4)
        assert found.shape == (shape[0], 8, (shape[2] + 1) // 2, shape[3] // 2)
    assert (made.metadata["network"], made.metadata["offset"]) == ("hourglass", "0.0")


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e5])
def test_linear_systems_by_products_alone(condition: float) -> None:
    generator = torch.Generator().manual_seed(3)
    axes, _ = torch.linalg.qr(torch.randn(2, 12, 12, generator=generator, dtype=torch.float64))
    matrices = axes * torch.logspace(0, float(np.log10(condition)), 12, dtype=torch.float64) @ axes.mT
    wanted = torch.randn(2, 12, 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(graphs.solve(matrices, matrices @ wanted), wanted, rtol=1e-8, atol=1e-8)


# ---- what is refused ----------------------------------------------------------------------------------------


def test_a_file_that_differs_from_the_model_is_not_left_behind(
    dense: Exported, dve_model: LandmarkModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the run, where another network was asked for."""
    monkeypatch.setattr(export, "_write", lambda task, path, *_: path.write_bytes(dense.path.read_bytes()))
    same = export_onnx(dve_model, tmp_path / "same.onnx")
    assert same.difference == pytest.approx(dense.difference)
    other = made_of(**{"network.channels": 16, "network.vector_length": 10})
    (tmp_path / "old.onnx").write_bytes(b"old")
    for name in ("new.onnx", "old.onnx"):
        with pytest.raises(
            ExportError, match=r"by .* in descriptors of images \(1, 3, 40, 40\), .*: nothing was written"
        ):
            export_onnx(other, tmp_path / name, overwrite=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["old.onnx", "same.onnx"]
    assert (tmp_path / "old.onnx").read_bytes() == b"old"


def test_a_file_that_is_off_by_more_than_is_allowed(
    dense: Exported, dve_model: LandmarkModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_write", lambda task, path, *_: path.write_bytes(dense.path.read_bytes()))
    features = LandmarkModel.features
    for shift, refused in ((2e-4, False), (2e-3, True)):  # of values of up to 10: 1e-3 is allowed
        monkeypatch.setattr(LandmarkModel, "features", lambda self, frames, by=shift: features(self, frames) + by)
        if refused:
            with pytest.raises(ExportError, match=r"by 0\.002 in descriptors"):
                export_onnx(dve_model, tmp_path / "m.onnx", overwrite=True)
        else:
            assert export_onnx(dve_model, tmp_path / "m.onnx").difference == pytest.approx(2e-4, abs=1e-4)


def test_a_file_that_does_not_run(reflecting: LandmarkModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_write", lambda task, path, *_: path.write_bytes(b"not an ONNX file"))
    with pytest.raises(ExportError, match="does not load"):
        export_onnx(reflecting, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_head_for_any_direction(dve_model: LandmarkModel, faces: Portraits, tmp_path: Path) -> None:
    """The file looks in all directions itself: of turned images it says what the head says."""
    head = dve_model.fit(list(faces.images[:3]), faces.landmarks5[:3], direction="any")
    found = export_onnx(dve_model, tmp_path / "model.onnx", head=head)
    assert found.outputs == ("landmarks", "confidence") and found.difference < 0.1
    frames, _ = dve_model.frames_of(list(faces.images[4:8]))
    turned = turn_frames(frames, torch.tensor([0.0, 1.0, 2.5, -2.0]))
    wanted, confidence = head.locate_frames(turned)
    points, sure = run_file(found.path, turned)
    np.testing.assert_allclose(points, wanted, atol=0.01)
    np.testing.assert_allclose(sure, confidence, atol=1e-3)
    upright = head.regressor.predict(dve_model.hypercolumns(turned)).positions  # in one direction alone
    assert np.abs(dve_model.network.cells.to_pixels(upright).numpy() - wanted).max() > 1


def test_landmarks_beside_descriptors(tmp_path: Path) -> None:
    model = made_of(**{"method": "dve", "network.landmarks": 3})
    found = export_onnx(model, tmp_path / "model.onnx")
    assert found.outputs == ("descriptors", "landmarks", "confidence") and len(found.shapes) == 4
    frames = noise(2, 3, 40, 40)
    descriptors, points, confidence = run_file(found.path, frames)
    own = model.landmarks_of(frames)
    np.testing.assert_allclose(descriptors, model.features(frames), atol=1e-4)
    np.testing.assert_allclose(points, model.network.cells.to_pixels(own.positions), atol=1e-3)
    np.testing.assert_allclose(confidence, own.confidence, atol=1e-5)


def test_nothing_is_replaced_unasked(dve_model: LandmarkModel, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(ExportError, match="exists already: replace it with --overwrite"):
        export_onnx(dve_model, tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="is a folder"):
        export_onnx(dve_model, tmp_path, overwrite=True)
    assert (tmp_path / "m.onnx").read_text() == "mine"


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages(
    dve_model: LandmarkModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"needs the package {package}: pip install 'equimark\[export\]'"):
        export_onnx(dve_model, tmp_path / "m.onnx")


# ---- the hub folder -----------------------------------------------------------------------------------------


@pytest.fixture
def no_onnx(dense: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ready file in place of one made anew."""

    def copy(model: object, path: Path, head: object = None, **_: object) -> Exported:
        replace_file(path, lambda temporary: temporary.write_bytes(dense.path.read_bytes()))
        return replace(dense, path=path)

    monkeypatch.setattr(hub, "export_onnx", copy)


def front_matter(card: str) -> dict[str, Any]:
    matter: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return matter


@pytest.mark.usefixtures("no_onnx")
def test_hub_folder(dve_run: Run, dve_model: LandmarkModel, faces: Portraits, tmp_path: Path) -> None:
    dve_model.fit(list(faces.images[:2]), faces.landmarks5[:2], NAMES).save(tmp_path / "fitted")
    folder = tmp_path / "hub"
    write_hub_folder(dve_run.folder, folder, tmp_path / "fitted")
    files = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    assert files == {
        *("config.yaml", "model.safetensors", "README.md", "model.onnx"),
        *("head/head.yaml", "head/head.safetensors"),
    }
    assert same_weights(folder, dve_run.folder)
    assert checkpoint.read_config(folder) == checkpoint.read_config(dve_run.folder)
    assert Head.load(folder / "head", LandmarkModel.load(folder, device="cpu")).names == NAMES
    card = (folder / "README.md").read_text()
    matter = front_matter(card)
    assert (matter["library_name"], matter["pipeline_tag"]) == ("equimark", "keypoint-detection")
    assert "dve" in matter["tags"] and "license" not in matter and "# license: to be chosen by you" in card
    for words in ("16 of `photos`", "50, batches of 4", "| last losses | ", "torch 2", 'load("hf://OWNER/NAME")'):
        assert words in card
    assert "left_eye, right_eye" in card and "`model.onnx` gives descriptors" in card


def test_hub_folder_keeps_where_the_images_are_to_itself(sparse_run: Run, tmp_path: Path) -> None:
    source = checkpoint.load(sparse_run.folder).data.source
    assert Path(source).is_absolute()
    write_hub_folder(sparse_run.folder, tmp_path / "hub", onnx=False)
    assert {f.name for f in (tmp_path / "hub").iterdir()} == {"config.yaml", "model.safetensors", "README.md"}
    assert all(source.encode() not in f.read_bytes() for f in (tmp_path / "hub").iterdir())
    assert str(Path(source).parent).encode() not in (tmp_path / "hub" / "model.safetensors").read_bytes()
    kept, own = checkpoint.load(tmp_path / "hub"), checkpoint.load(sparse_run.folder)
    assert kept.data == replace(own.data, source=Path(source).name)
    assert (kept.step, kept.versions) == (own.step, own.versions)


def test_versions_are_those_of_the_training(sparse_run: Run, tmp_path: Path) -> None:
    kept = checkpoint.load(sparse_run.folder)
    checkpoint.write_config(tmp_path, kept.config)
    checkpoint.save_model(tmp_path, kept.network, step=3, data=kept.data, trained_with={"torch": "2.6.0"})
    write_hub_folder(tmp_path, tmp_path / "hub", onnx=False)
    with safe_open(tmp_path / "hub" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["versions"]) == {"torch": "2.6.0"}
    assert "| versions | torch 2.6.0 |" in (tmp_path / "hub" / "README.md").read_text()


def test_hub_folder_that_is_not_empty(sparse_run: Run, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    with pytest.raises(ExportError, match=r"README\.md exists already: replace it with --overwrite"):
        write_hub_folder(sparse_run.folder, tmp_path, onnx=False)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["README.md", "notes.txt"]
    write_hub_folder(sparse_run.folder, tmp_path, onnx=False, overwrite=True)
    assert front_matter((tmp_path / "README.md").read_text())["library_name"] == "equimark"
    assert (tmp_path / "notes.txt").read_text() == "mine too"
    with pytest.raises(ExportError, match="is the run itself"):
        write_hub_folder(sparse_run.folder, sparse_run.folder, onnx=False, overwrite=True)
    with pytest.raises(ExportError, match=r"notes\.txt is a file"):
        write_hub_folder(sparse_run.folder, tmp_path / "notes.txt", onnx=False)


# ---- from the hub, and to it --------------------------------------------------------------------------------


@pytest.mark.parametrize(("revision", "wanted"), [("", None), ("@v1", "v1")])
def test_a_run_of_the_hub(
    sparse_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str, wanted: str | None
) -> None:
    write_hub_folder(sparse_run.folder, tmp_path, onnx=False)
    asked: list[tuple[str, str | None]] = []

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert allow_patterns == ["config.yaml", "model.safetensors"]
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    model = LandmarkModel.load(f"hf://someone/faces{revision}", device="cpu")
    assert torch.equal(model.network.mean, sparse_run.model.network.mean)
    assert model.config == sparse_run.model.config
    assert asked == [("someone/faces", wanted)]


def test_the_hub_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError("no such repository\nsomeone/faces")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    code, _, err = command("info", "hf://someone/faces")
    assert (code, err) == (
        1,
        "equimark: hf://someone/faces could not be fetched: no such repository someone/faces\n",
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"needs huggingface_hub: pip install 'equimark\[hub\]'"):
        checkpoint.load(Path("hf://someone/faces"))


@pytest.mark.parametrize("words", [("report", "hf://me/faces"), ("app", "hf://me/faces", "photos")])
def test_a_run_of_the_hub_is_not_written_to(command: Command, words: tuple[str, ...]) -> None:
    code, _, err = command(*words)
    assert (code, err.count("\n")) == (1, 1)
    assert "hf://me/faces cannot be written to: fetch it with hf download" in err


def test_push(sparse_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def api(**_: str) -> SimpleNamespace:
        return SimpleNamespace(
            create_repo=lambda name, **settings: calls.append((name, settings)),
            upload_folder=lambda **settings: calls.append(("upload", settings)),
        )

    monkeypatch.setattr("huggingface_hub.HfApi", api)
    words = ("export", sparse_run.folder, "--hub", "--no-onnx", "--out")
    code, out, err = command(*words, tmp_path / "hub", "--push", "me/faces")
    assert (code, err) == (0, "")
    assert "uploaded: https://huggingface.co/me/faces" in out
    assert calls[0] == ("me/faces", {"private": True, "exist_ok": True})
    assert (calls[1][1]["repo_id"], calls[1][1]["folder_path"]) == ("me/faces", tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.HfApi", lambda **_: SimpleNamespace(create_repo=full_disk))
    code, _, err = command(*words, tmp_path / "again", "--push", "me/faces")
    assert code == 1
    assert "me/faces could not be uploaded" in err and "hf auth login" in err and err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ExportError, match="--push needs huggingface_hub"):
        hub.push(tmp_path, "me/faces")


# ---- the command and the page of the docs -------------------------------------------------------------------


def test_command(
    command: Command, reflecting_run: Path, sparse: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the file that was made from the same weights: what is new here is the command."""
    monkeypatch.setattr(export, "_write", lambda task, path, *_: path.write_bytes(sparse.path.read_bytes()))
    out_file = tmp_path / "new" / "model.onnx"
    code, out, err = command("export", reflecting_run, "--out", out_file)
    assert (code, err) == (0, "")
    assert f"{out_file}: landmarks, confidence; at most " in out and "1x3x40x40, 3x3x40x40" in out
    assert out_file.read_bytes() == sparse.path.read_bytes()
    code, _, err = command("export", reflecting_run, "--out", out_file)
    assert (code, err.count("\n")) == (1, 1)
    assert "--overwrite" in err
    assert command("export", reflecting_run, "--out", out_file, "--overwrite")[0] == 0


def test_command_on_a_run_just_trained(command: Command, sparse_run: Run, tmp_path: Path) -> None:
    code, _, err = command("export", sparse_run.folder, "--hub", "--out", tmp_path / "hub")
    assert (code, err) == (0, "")
    points, _ = run_file(tmp_path / "hub" / "model.onnx", noise(2, 3, 40, 40))
    assert points.shape == (2, 4, 2)


@pytest.mark.parametrize(
    ("words", "code", "wanted"),
    [
        (("--out", "folder"), 2, "must end in .onnx; --hub writes a folder"),
        (("--out", "m.onnx", "--push", "me/faces"), 2, "give --hub as well"),
        (("--out", "m.onnx", "--no-onnx"), 2, "give --hub as well"),
        (("--out", "folder", "--hub", "--push", "faces"), 2, "OWNER/NAME"),
        (("--out", "m.onnx", "--head", "none"), 1, "holds no fitted head"),
    ],
)
def test_command_misused(
    command: Command,
    sparse_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    wanted: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    got, _, err = command("export", sparse_run.folder, *words)
    assert (got, err.count("\n")) == (code, 1)
    assert wanted in err
    assert list(tmp_path.iterdir()) == []


def test_the_code_of_the_page(
    sparse: Exported,
    dense: Exported,
    reflecting: LandmarkModel,
    dve_model: LandmarkModel,
    faces: Portraits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo = np.pad(faces.images[0], ((3, 0), (20, 9), (0, 0)), mode="edge")
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (tmp_path / "model.onnx").write_bytes(sparse.path.read_bytes())
    (tmp_path / "descriptors.onnx").write_bytes(dense.path.read_bytes())
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2 and not any("torch" in block or "equimark" in block for block in blocks)
    scope: dict[str, Any] = {}
    exec(blocks[0], scope)
    np.testing.assert_allclose(scope["points"], reflecting.detect(photo).points, atol=1e-3)
    exec(blocks[1], scope)
    np.testing.assert_allclose(scope["match"], dve_model.match(photo, scope["point"], photo).points[0], atol=3)
