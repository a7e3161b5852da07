import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import equimark
from conftest import TINY, same_weights, weights_of
from equimark import checkpoint, training
from equimark.checkpoint import CheckpointError
from equimark.config import ConfigError, load_recipe, make_config
from equimark.geometry import Frame
from equimark.images import ImageError
from equimark.packs import PackedImages, is_pack, pack
from equimark.run import Run, train
from pictures import encoded, picture


def go(images: Any, out: Path, **options: Any) -> Run:
    settings = {"method": "dense", "progress": False, "device": "cpu", "steps": 1} | options
    if "resume" not in settings:
        settings = TINY | settings
    if "recipe" in settings:
        del settings["method"]
    return train(images, out, **settings)


@pytest.fixture
def done(photo_pack: Path, tmp_path: Path) -> Path:
    return go(photo_pack, tmp_path / "done").folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---- images -------------------------------------------------------------------------------------------------


def as_zip(photos: Path, folder: Path) -> Path:
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        for path in sorted(photos.glob("*.png")):
            archive.write(path, path.name)
    return folder / "photos.zip"


def as_list(photos: Path, folder: Path) -> Path:
    (folder / "photos.txt").write_text("\n".join(str(path) for path in sorted(photos.glob("*.png"))))
    return folder / "photos.txt"


def test_every_kind_of_images_gives_the_same_run(photos: Path, photo_pack: Path, tmp_path: Path) -> None:
    sources = {"folder": photos, "zip": as_zip(photos, tmp_path), "list": as_list(photos, tmp_path), "pack": photo_pack}
    runs = {name: go(source, tmp_path / name) for name, source in sources.items()}
    array = np.array(PackedImages.open(photo_pack).images)
    runs["array"] = go(array, tmp_path / "array")
    runs["memory"] = go(PackedImages.from_array(array), str(tmp_path / "memory"))
    for name, run in runs.items():
        assert same_weights(runs["folder"].folder, run.folder), name
        assert is_pack(run.folder / "pack") == (name in ("folder", "zip", "list")), name
        assert checkpoint.load(run.folder).data.count == 16
        assert run.model.config.steps == 1
        images = run.images()
        assert (images is None) == (name in ("array", "memory")), name
        assert images is None or len(images) == 16
    assert checkpoint.load(runs["zip"].folder).data.source == str(sources["zip"])


def test_the_model_frames_images_as_the_pack_was_framed(photos: Path, tmp_path: Path) -> None:
    pack(photos, tmp_path / "pack", Frame(40, "letterbox", pad=2, fill="white"), progress=False)
    run = go(tmp_path / "pack", tmp_path / "run")
    assert run.model.frame == Frame(40, "letterbox", pad=2, fill="white")
    assert checkpoint.read_config(run.folder).frame == run.model.frame


def test_frame_of_the_recipe_is_the_frame_of_the_pack(photos: Path, tmp_path: Path) -> None:
    run = go(photos, tmp_path / "run", **{"frame.fit": "0.25,0.25,0.75,0.75"})
    assert PackedImages.open(run.folder / "pack").frame == run.model.frame == Frame(40, "0.25,0.25,0.75,0.75")


def test_pack_of_another_size(photo_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"40 px wide and the recipe's 48 px.*--size 48"):
        go(photo_pack, tmp_path / "run", **{"frame.size": 48})
    assert not (tmp_path / "run").exists()


def test_one_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(50, 60)))
    with pytest.raises(ConfigError, match="dve needs at least 2 images, got 1"):
        go(tmp_path / "a.png", tmp_path / "run", method="dve")
    go(tmp_path / "a.png", tmp_path / "other", method="dense")


def test_images_smaller_than_the_crop_are_enlarged(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded(picture(9, 12, seed=i)))
    run = go(tmp_path, tmp_path / "run")
    assert PackedImages.open(run.folder / "pack").images.shape == (3, 40, 40, 3)
    assert run.model.describe(picture(9, 12)).shape == (8, 20, 20)


@pytest.mark.parametrize("shape", [(3, 40, 40), (3, 40, 30, 3), (3, 3, 40, 40)])
def test_arrays_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"images must be \(N, S, S, 3\) uint8"):
        go(np.zeros(shape, np.uint8), tmp_path / "run")


def test_arrays_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="float64"):
        go(np.zeros((3, 40, 40, 3)), tmp_path / "run")


def test_after_a_failed_start_the_next_images_count(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encoded(picture(50, 60)))
    with pytest.raises(ConfigError, match="at least 2 images"):
        go(tmp_path / "one.png", tmp_path / "run", method="dve")
    run = go(photos, tmp_path / "run", method="dve")
    assert checkpoint.load(run.folder).data.count == 16


def test_unreadable_images_are_left_out(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in sorted(photos.glob("*.png"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"nothing")
    run = go(folder, tmp_path / "run")
    assert checkpoint.load(run.folder).data.count == 3
    assert "broken.png" in (run.folder / "pack" / "unreadable.csv").read_text()


# ---- configuration ------------------------------------------------------------------------------------------


def test_method_stands_for_its_recipe(photo_pack: Path, tmp_path: Path) -> None:
    made = go(photo_pack, tmp_path / "run", method="sparse").model.config
    assert made.method == "sparse"
    assert made.optimiser == make_config(load_recipe("sparse-10").settings).optimiser


def test_recipe_by_name_and_by_file(photo_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: sparse-10\noptimiser: {lr: 0.125}\n")
    assert go(photo_pack, tmp_path / "a", recipe="sparse-10").model.config.method == "sparse"
    assert go(photo_pack, tmp_path / "b", recipe=str(tmp_path / "own.yaml")).model.config.optimiser.lr == 0.125


def test_dve_is_the_default(photo_pack: Path, tmp_path: Path) -> None:
    assert go(photo_pack, tmp_path / "run", method=None).model.config.method == "dve"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recipe": "sparse-10", "method": "dve"}, "a recipe or a method, not both"),
        ({"method": "dvee"}, "unknown method 'dvee': choose dve, dense or sparse"),
        ({"recipe": "sparse-100"}, "unknown recipe 'sparse-100'"),
        ({"stepz": 3}, "unknown configuration key 'stepz'.*'steps'"),
        ({"resume": True, "overwrite": True}, "give one of them"),
    ],
)
def test_what_cannot_be_meant(photo_pack: Path, tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        train(photo_pack, tmp_path / "run", progress=False, **options)
    assert not (tmp_path / "run").exists()


# ---- what stands in the folder ------------------------------------------------------------------------------


def test_another_run_is_kept(photo_pack: Path, done: Path) -> None:
    before = files_of(done)
    with pytest.raises(
        CheckpointError, match="already holds a run: go on with --resume, or replace it with --overwrit"
    ):
        go(photo_pack, done, seed=1)
    assert files_of(done) == before


def test_overwrite(photo_pack: Path, done: Path) -> None:
    (done / "report.html").write_text("old")
    (done / "figures").mkdir()
    (done / "tracker").mkdir()
    before = weights_of(done)
    go(photo_pack, done, seed=1, overwrite=True)
    after = weights_of(done)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert {p.name for p in done.iterdir()} == {"config.yaml", "model.safetensors", "log.jsonl", "state"}
    assert len(checkpoint.read_log(done)) == 1


def test_overwrite_with_other_images(photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photos.glob("*.png"))[:5]:
        (few / path.name).write_bytes(path.read_bytes())
    go(photos, tmp_path / "run")
    go(few, tmp_path / "run", overwrite=True)
    assert checkpoint.load(tmp_path / "run").data.count == 5


def test_overwrite_from_the_runs_own_pack(photos: Path, tmp_path: Path) -> None:
    go(photos, tmp_path / "run")
    go(tmp_path / "run" / "pack", tmp_path / "run", overwrite=True)
    assert checkpoint.load(tmp_path / "run").data.count == 16


@pytest.mark.parametrize(
    ("images", "options"),
    [
        ("none", {}),
        ("empty", {}),
        (None, {"stepz": 1}),
        (None, {"frame.size": 48}),
        (None, {"device": "tpu"}),
    ],
)
def test_overwrite_that_cannot_begin_costs_nothing(
    photo_pack: Path, done: Path, tmp_path: Path, images: str | None, options: dict[str, Any]
) -> None:
    (tmp_path / "empty").mkdir()
    before = files_of(done)
    with pytest.raises((ImageError, ConfigError)):
        go(tmp_path / images if images else photo_pack, done, overwrite=True, **options)
    assert files_of(done) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_with_other_files(photo_pack: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match=r"holds other files \(thesis.tex, ...\)"):
        go(photo_pack, tmp_path, overwrite=overwrite)
    assert files_of(tmp_path) == {"thesis.tex": b"years of work"}


def test_out_is_a_file(photo_pack: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CheckpointError, match="is a file; --out names a folder"):
        go(photo_pack, tmp_path / "run")


def test_what_a_killed_process_left_is_no_obstacle(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / ".pack.77.partial").mkdir(parents=True)
    (tmp_path / "run" / ".model.safetensors.77.tmp").write_bytes(b"half")
    go(photos, tmp_path / "run")
    go(photos, tmp_path / "run", overwrite=True)


# ---- going on -----------------------------------------------------------------------------------------------


def interrupted(images: Any, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """A run of 6 steps that dies after the fifth."""
    plain = training.train

    def dying(*arguments: Any, **more: Any) -> None:
        def on_step(step: int) -> None:
            if step == 5:
                raise KeyboardInterrupt

        plain(*arguments, **more, on_step=on_step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "train", dying)
        go(images, out, steps=6, **options)


def test_resume_needs_nothing_but_the_images(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = go(photos, tmp_path / "whole", steps=6).folder
    interrupted(photos, tmp_path / "run", monkeypatch)
    assert checkpoint.load(tmp_path / "run").step == 4
    train(photos, tmp_path / "run", resume=True, progress=False, device="cpu")
    assert same_weights(whole, tmp_path / "run")


def test_resume_with_the_same_words(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(photos, tmp_path / "run", monkeypatch)
    settings = TINY | {"method": "dense", "steps": 6}
    train(photos, tmp_path / "run", resume=True, progress=False, device="cpu", **settings)
    assert checkpoint.load(tmp_path / "run").step == 6


def test_resume_with_another_configuration(photo_pack: Path, done: Path) -> None:
    with pytest.raises(CheckpointError, match=r"batch_size: 4 -> 2; steps: 1 -> 5|steps: 1 -> 5; batch_size: 4 -> 2"):
        train(photo_pack, done, resume=True, steps=5, batch_size=2, progress=False)


def test_resume_with_other_images(photos: Path, tmp_path: Path) -> None:
    go(photos, tmp_path / "run")
    (tmp_path / "others").mkdir()
    for i in range(3):
        (tmp_path / "others" / f"other{i}.png").write_bytes(encoded(picture(50, 60, seed=i)))
    with pytest.raises(CheckpointError, match="trained on other images"):
        train(tmp_path / "others", tmp_path / "run", resume=True, progress=False)


def test_resume_of_nothing(photo_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"there is no run to resume in .*; leave out --resume"):
        train(photo_pack, tmp_path / "run", resume=True, progress=False)


# ---- fine-tuning --------------------------------------------------------------------------------------------


def test_start_from_another_run(photo_pack: Path, done: Path, tmp_path: Path) -> None:
    rest = {"steps": 1, "progress": False, "device": "cpu", "optimiser.lr": 1e-9, "seed": 7}
    tuned = train(photo_pack, tmp_path / "tuned", start_from=done, **rest)
    config = tuned.model.config
    assert (config.method, config.network.channels, config.seed) == ("dense", 8, 7)
    before, after = weights_of(done), weights_of(tuned.folder)
    assert all(torch.allclose(before[n], after[n], atol=1e-6) for n in before if n.endswith("weight"))
    assert checkpoint.load(tuned.folder).step == 1


def test_length_of_the_first_run_says_nothing_about_the_second(
    photo_pack: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int | None] = []
    monkeypatch.setattr(training, "train", lambda images, config, *_, **__: lengths.append(config.steps))
    train(photo_pack, tmp_path / "tuned", start_from=done, progress=False)
    assert lengths == [None]


def test_exchange_may_be_added_to_descriptors_learned_without(photo_pack: Path, done: Path, tmp_path: Path) -> None:
    assert go(photo_pack, tmp_path / "run", method="dve", start_from=done).model.config.method == "dve"


@pytest.mark.parametrize("options", [{"network.channels": 5}, {"method": "sparse"}])
def test_start_from_another_network(photo_pack: Path, done: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"has another network .*leave out --recipe"):
        go(photo_pack, tmp_path / "run", start_from=done, **options)
    assert not (tmp_path / "run").exists()


def test_resume_does_not_need_the_run_that_it_started_from(photo_pack: Path, done: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"progress": False, "device": "cpu"}
    train(photo_pack, tmp_path / "run", start_from=done, steps=1, **options)
    train(photo_pack, tmp_path / "run", start_from=tmp_path / "gone", resume=True, **options)


def test_start_from_nothing(photo_pack: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a run"):
        go(photo_pack, tmp_path / "run", start_from=tmp_path / "none")


def test_the_two_lines_of_the_documentation(photos: Path, tmp_path: Path, dve_run: Run) -> None:
    again = equimark.LandmarkModel.load(dve_run.folder)
    assert again.config == dve_run.model.config
    made: Callable[..., Run] = equimark.train
    assert made is train
