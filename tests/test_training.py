import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import TINY, same_weights, weights_of
from equimark import checkpoint, training
from equimark.checkpoint import CheckpointError
from equimark.config import ConfigError, OptimiserSpec, RunConfig, load_recipe, make_config
from equimark.methods import compute_terms
from equimark.objectives import Terms
from equimark.packs import PackedImages
from equimark.pairs import NO_CHANGE, PairBatch
from equimark.training import Interrupted, TrainingError, fresh_network, learning_rate, make_optimiser, train

RECIPES = {"dve": "dve-smallnet-64", "dense": "dense-smallnet-64", "sparse": "sparse-10"}


def tiny(method: str = "dve", **changes: Any) -> RunConfig:
    return make_config(load_recipe(RECIPES[method]).settings, TINY, {"steps": 6}, changes)


def go(images: PackedImages, config: RunConfig, out: Path, **options: Any) -> Path:
    train(images, config, out, progress=False, device="cpu", **options)
    return out


def steps_logged(run: Path) -> list[int]:
    return [entry["step"] for entry in checkpoint.read_log(run)]


class Stop(Exception):
    pass


def stop_at(step: int) -> Callable[[int], None]:
    def on_step(done: int) -> None:
        if done == step:
            raise Stop

    return on_step


# ---- one run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dve", "dense", "sparse"])
def test_run_folder(packed: PackedImages, tmp_path: Path, method: str) -> None:
    config = tiny(method, log_every=4)
    go(packed, config, tmp_path, source="/photos")
    kept = checkpoint.load(tmp_path)
    assert (kept.config, kept.step) == (config, 6)
    assert (kept.data.source, kept.data.count) == ("/photos", len(packed))
    assert {p.name for p in tmp_path.iterdir()} == {"config.yaml", "model.safetensors", "log.jsonl", "state"}
    assert steps_logged(tmp_path) == [4, 6]
    terms = {"alignment", "diversity", "alignment_share", "distinct_landmarks"} if method == "sparse" else {"matching"}
    for entry in checkpoint.read_log(tmp_path):
        assert set(entry) == {"step", "loss", "pairs_per_second", "lr"} | terms
        assert all(math.isfinite(value) for value in entry.values())


def test_lines_of_the_log_are_means_since_the_last(packed: PackedImages, tmp_path: Path) -> None:
    every = go(packed, tiny(), tmp_path / "every")
    third = go(packed, tiny(log_every=3, save_every=99), tmp_path / "third")
    losses = [entry["loss"] for entry in checkpoint.read_log(every)]
    assert [entry["loss"] for entry in checkpoint.read_log(third)] == pytest.approx(
        [sum(losses[:3]) / 3, sum(losses[3:]) / 3], rel=1e-5
    )


def test_same_seed_same_weights_and_another_seed_others(packed: PackedImages, tmp_path: Path) -> None:
    first, again = (go(packed, tiny(), tmp_path / name) for name in ("first", "again"))
    other = go(packed, tiny(seed=1), tmp_path / "other")
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_torchs_own_generator_is_neither_used_nor_moved(packed: PackedImages, tmp_path: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = go(packed, tiny(), tmp_path / "first")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same_weights(first, go(packed, tiny(), tmp_path / "again"))


def test_loss_falls_on_four_images(packed: PackedImages, tmp_path: Path) -> None:
    four = PackedImages.from_array(packed.images[:4])
    changes = {"steps": 30, "save_every": 30, "optimiser.schedule": "constant", "pairs.photometric.brightness": 0}
    go(four, tiny("dense", **changes), tmp_path)
    losses = [entry["loss"] for entry in checkpoint.read_log(tmp_path)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_network_is_trained_channels_last_from_the_weights_given(packed: PackedImages, tmp_path: Path) -> None:
    config = tiny("dense", **{"steps": 1, "optimiser.lr": 1e-9, "optimiser.schedule": "constant"})
    network = fresh_network(replace(config, seed=5))
    before = {name: value.clone() for name, value in network.named_parameters()}
    go(packed, config, tmp_path, initial=network)
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    after = weights_of(tmp_path)
    assert all(torch.allclose(after[name], value, atol=1e-6) for name, value in before.items())


def test_runs_of_different_precision_in_one_process(packed: PackedImages, tmp_path: Path) -> None:
    go(packed, tiny(steps=2), tmp_path / "full")
    go(packed, tiny(steps=2, precision="bf16"), tmp_path / "half")
    go(packed, tiny(steps=2), tmp_path / "again")
    assert same_weights(tmp_path / "full", tmp_path / "again")
    assert not same_weights(tmp_path / "full", tmp_path / "half")


@pytest.mark.parametrize("device", ["cuda", "mps", "tpu"])
def test_device_that_is_not_there(packed: PackedImages, tmp_path: Path, device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has one")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ConfigError, match=device):
        train(packed, tiny(), tmp_path, device=device, progress=False)


def test_tensorboard(packed: PackedImages, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    go(packed, tiny(steps=2), tmp_path, tracker="tensorboard")
    assert list(tmp_path.rglob("events.out.tfevents.*"))


def test_unknown_tracker(packed: PackedImages, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scribe"):
        go(packed, tiny(), tmp_path, tracker="scribe")


def test_images_that_do_not_fit(packed: PackedImages, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="40 px wide and the recipe's 48 px: pack the images again with --size 48"):
        go(packed, tiny(**{"frame.size": 48}), tmp_path)
    with pytest.raises(ConfigError, match="dve needs at least 2 images, got 1"):
        go(PackedImages.from_array(packed.images[:1]), tiny(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_image_is_enough_without_exchange(packed: PackedImages, tmp_path: Path) -> None:
    go(PackedImages.from_array(packed.images[:1]), tiny("dense", steps=1), tmp_path)


# ---- randomness ---------------------------------------------------------------------------------------------


def pairs_of(images: PackedImages, config: RunConfig, monkeypatch: pytest.MonkeyPatch, out: Path) -> list[PairBatch]:
    seen: list[PairBatch] = []

    def note(network: nn.Module, pairs: PairBatch, *rest: Any) -> Terms:
        seen.append(pairs)
        return compute_terms(network, pairs, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(training, "compute_terms", note)
        go(images, config, out)
    return seen


def test_sources_of_randomness_do_not_disturb_each_other(
    packed: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(steps=2)
    plain = replace(config, pairs=replace(config.pairs, photometric=NO_CHANGE))
    wide = replace(config, network=replace(config.network, channels=5))
    runs = [pairs_of(packed, c, monkeypatch, tmp_path / name) for c, name in ((config, "a"), (plain, "b"), (wide, "c"))]
    for full, unchanged, other_weights in zip(*runs, strict=True):
        assert torch.equal(full.target_from_source, unchanged.target_from_source)
        assert not torch.equal(full.source, unchanged.source)
        assert torch.equal(full.source, other_weights.source)
    assert not torch.equal(runs[0][0].target_from_source, runs[0][1].target_from_source)


# ---- learning rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "progress", "factor"),
    [
        (OptimiserSpec(schedule="constant"), 0.99, 1),
        (OptimiserSpec(milestones=(0.7, 0.9)), 0.0, 1),
        (OptimiserSpec(milestones=(0.7, 0.9)), 0.699, 1),
        (OptimiserSpec(milestones=(0.7, 0.9)), 0.7, 0.1),
        (OptimiserSpec(milestones=(0.7, 0.9)), 0.95, 0.01),
        (OptimiserSpec(milestones=()), 0.95, 1),
        (OptimiserSpec(schedule="one-cycle"), 0, 0.04),
        (OptimiserSpec(schedule="one-cycle"), 0.15, 0.52),
        (OptimiserSpec(schedule="one-cycle"), 0.3, 1),
        (OptimiserSpec(schedule="one-cycle"), 0.65, 0.50005),
        (OptimiserSpec(schedule="one-cycle"), 1, 1e-4),
    ],
)
def test_learning_rate(spec: OptimiserSpec, progress: float, factor: float) -> None:
    assert learning_rate(spec, progress) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("steps", [10, 20])
def test_schedule_is_stretched_to_the_steps(packed: PackedImages, tmp_path: Path, steps: int) -> None:
    changes = {"optimiser.schedule": "step", "optimiser.milestones": [0.5], "optimiser.lr": 1e-3, "save_every": 99}
    go(packed, tiny("dense", steps=steps, batch_size=2, **changes), tmp_path)
    rates = [entry["lr"] for entry in checkpoint.read_log(tmp_path)]
    assert rates == pytest.approx([1e-3] * (steps // 2) + [1e-4] * (steps // 2))


def test_biases_of_convolutions_have_their_own_rate(
    packed: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def note(network: nn.Module, spec: OptimiserSpec) -> torch.optim.Adam:
        made.append(make_optimiser(network, spec))
        return made[-1]

    monkeypatch.setattr(training, "make_optimiser", note)
    changes = {"optimiser.schedule": "step", "optimiser.milestones": [0.5], "optimiser.lr": 0.1}
    go(packed, tiny("dense", steps=4, **changes, **{"optimiser.bias_lr": 1e-4}), tmp_path)
    rest, biases = made[0].param_groups
    assert (rest["lr"], biases["lr"]) == pytest.approx((0.01, 1e-5))
    assert [p.shape[0] for p in biases["params"]] == [20, 48, 64, 80, 256, 8]
    assert len(rest["params"]) == 6 + 2 * 5  # weights of the convolutions; scale and shift of the batch norms


def test_one_rate_for_all_when_none_is_given_for_biases() -> None:
    groups = make_optimiser(fresh_network(tiny()), OptimiserSpec(lr=0.25, weight_decay=0.5, amsgrad=False)).param_groups
    assert [(g["lr"], g["weight_decay"], g["amsgrad"]) for g in groups] == [(0.25, 0.5, False)] * 2


# ---- stopping and going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dve", "dense", "sparse"])
def test_a_run_that_dies_goes_on_to_the_same_weights(packed: PackedImages, tmp_path: Path, method: str) -> None:
    config = tiny(method, steps=11, log_every=3)
    whole = go(packed, config, tmp_path / "whole")
    died_at = random.randint(1, 10)
    with pytest.raises(Stop):
        go(packed, config, tmp_path / "parts", on_step=stop_at(died_at))
    go(packed, config, tmp_path / "parts", resume=True)
    assert same_weights(whole, tmp_path / "parts"), f"died at step {died_at}"
    assert steps_logged(tmp_path / "parts") == steps_logged(whole)
    strip = [{k: v for k, v in e.items() if k != "pairs_per_second"} for e in checkpoint.read_log(whole)]
    parts = [{k: v for k, v in e.items() if k != "pairs_per_second"} for e in checkpoint.read_log(tmp_path / "parts")]
    assert parts == strip


def test_resume_of_a_complete_run_changes_nothing(packed: PackedImages, tmp_path: Path) -> None:
    go(packed, tiny(), tmp_path)
    before = weights_of(tmp_path)
    go(packed, tiny(), tmp_path, resume=True)
    after = weights_of(tmp_path)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert steps_logged(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_death_between_state_and_weights(packed: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = go(packed, tiny(), tmp_path / "whole")
    save_model = checkpoint.save_model

    def die_at_the_end(*arguments: Any, step: int, **options: Any) -> None:
        if step == 6:
            raise Stop
        save_model(*arguments, step=step, **options)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(checkpoint, "save_model", die_at_the_end)
        go(packed, tiny(), tmp_path / "parts")
    go(packed, tiny(), tmp_path / "parts", resume=True)
    assert checkpoint.load(tmp_path / "parts").step == 6
    assert same_weights(whole, tmp_path / "parts")


def test_fine_tuning_that_dies_early_goes_on_from_the_same_weights(packed: PackedImages, tmp_path: Path) -> None:
    config = tiny("dense", steps=3, save_every=3)
    start = replace(config, seed=9)
    whole = go(packed, config, tmp_path / "whole", initial=fresh_network(start))
    with pytest.raises(Stop):
        go(packed, config, tmp_path / "parts", initial=fresh_network(start), on_step=stop_at(1))
    go(packed, config, tmp_path / "parts", resume=True)
    assert same_weights(whole, tmp_path / "parts")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_saves_first(packed: PackedImages, tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted, match=rf"stopped at step 3 of 6 by {name}; go on with --resume"):
        go(packed, tiny(), tmp_path, on_step=lambda step: os.kill(os.getpid(), number) if step == 2 else None)
    assert signal.getsignal(number) is handler
    assert checkpoint.load(tmp_path).step == 3
    assert checkpoint.latest_state(tmp_path) == (3, tmp_path / "state" / "step-00000003")


COMMAND = "import sys; from equimark.cli import main; sys.exit(main())"


def start_command(*arguments: object) -> "subprocess.Popen[str]":
    words = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def kill_after(step: int, run: Path, process: "subprocess.Popen[str]", number: signal.Signals) -> tuple[int, str]:
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if steps_logged(run)[-1:] >= [step]:
            process.send_signal(number)
            break
        time.sleep(0.002)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def test_a_command_that_is_killed_twice_goes_on_to_the_same_weights(
    packed: PackedImages, photo_pack: Path, tmp_path: Path
) -> None:
    run = tmp_path / "parts"
    keys = {**TINY, "steps": 40, "save_every": 3}
    options = [f"--{key}={value}" for key, value in keys.items()]
    command = ("train", photo_pack, "--out", run, "--quiet", "--device", "cpu")

    code, err = kill_after(5, run, start_command(*command, *options), signal.SIGTERM)
    assert code == 1
    assert err.startswith("equimark: stopped at step ")
    assert len(err.splitlines()) == 1
    state = checkpoint.latest_state(run)
    assert state is not None
    stopped = state[0]
    assert 5 <= stopped < 40
    assert checkpoint.load(run).step == steps_logged(run)[-1] == stopped

    code, _ = kill_after(stopped + 8, run, start_command(*command, "--resume"), signal.SIGKILL)
    assert code == -signal.SIGKILL

    config = checkpoint.read_config(run)
    whole = go(packed, config, tmp_path / "whole")
    go(packed, config, run, resume=True)
    assert same_weights(whole, run)
    assert steps_logged(run) == list(range(1, 41))


def test_resume_with_another_config_names_the_keys(packed: PackedImages, tmp_path: Path) -> None:
    go(packed, tiny(), tmp_path)
    with pytest.raises(CheckpointError, match=r"another configuration \(optimiser.lr: 0.002 -> 0.5; steps: 6 -> 9\)"):
        go(packed, tiny(steps=9, **{"optimiser.lr": 0.5}), tmp_path, resume=True)


def test_resume_with_other_images(packed: PackedImages, tmp_path: Path) -> None:
    go(packed, tiny(), tmp_path, source="/these")
    fewer = PackedImages.from_array(packed.images[:10])
    with pytest.raises(CheckpointError, match=r"trained on other images \(16 from /these; now 10 from /those\)"):
        go(fewer, tiny(), tmp_path, source="/those", resume=True)
    renamed = PackedImages.from_array(packed.images, [f"x{name}" for name in packed.names], packed.frame)
    with pytest.raises(CheckpointError, match="trained on other images"):
        go(renamed, tiny(), tmp_path, resume=True)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "data.json"])
def test_resume_from_a_damaged_state(packed: PackedImages, tmp_path: Path, name: str) -> None:
    go(packed, tiny(), tmp_path)
    path = tmp_path / "state" / "step-00000006" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="is damaged"):
        go(packed, tiny(), tmp_path, resume=True)


def test_a_run_is_not_overwritten(packed: PackedImages, tmp_path: Path) -> None:
    go(packed, tiny(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="already holds a run"):
        go(packed, tiny(seed=1), tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


# ---- failures -----------------------------------------------------------------------------------------------


def spoil(monkeypatch: pytest.MonkeyPatch, at_step: int, how: Callable[[nn.Module, Terms], Terms]) -> None:
    calls = itertools.count(1)

    def terms(network: nn.Module, *rest: Any) -> Terms:
        good = compute_terms(network, *rest)
        return how(network, good) if next(calls) == at_step else good

    monkeypatch.setattr(training, "compute_terms", terms)


@pytest.mark.parametrize("log_every", [1, 20])
def test_loss_that_is_not_finite(
    packed: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int
) -> None:
    spoil(monkeypatch, 5, lambda _, terms: {n: v * math.nan if n == "total" else v for n, v in terms.items()})
    says = r"not finite at step 5 \((matching = nan, )?total = nan.*the last good state is kept"
    with pytest.raises(TrainingError, match=says):
        go(packed, tiny(steps=20, log_every=log_every), tmp_path)
    assert checkpoint.latest_state(tmp_path) == (4, tmp_path / "state" / "step-00000004")
    kept = checkpoint.load(tmp_path)
    assert kept.step == 4
    assert all(w.isfinite().all() for w in kept.network.state_dict().values())
    assert steps_logged(tmp_path)[-1] == 4
    monkeypatch.undo()
    go(packed, tiny(steps=20, log_every=log_every), tmp_path, resume=True)
    assert checkpoint.load(tmp_path).step == 20


def test_weights_that_are_not_finite_are_not_saved(
    packed: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finite_loss_without_finite_gradient(network: nn.Module, terms: Terms) -> Terms:
        nothing: Tensor = sum(p.sum() for p in network.parameters()) * 0  # type: ignore[assignment]
        return terms | {"total": terms["total"] + nothing.abs().sqrt()}

    spoil(monkeypatch, 8, finite_loss_without_finite_gradient)
    with pytest.raises(TrainingError, match=r"weights are not finite after step 8 \(first: .*last good state is kept"):
        go(packed, tiny(steps=20), tmp_path)
    assert checkpoint.load(tmp_path).step == 4
    assert checkpoint.latest_state(tmp_path) == (4, tmp_path / "state" / "step-00000004")


def test_full_disk_while_saving(packed: PackedImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state = training._Work._write_state
    calls = itertools.count(1)

    def fill_up(*arguments: Any) -> None:
        write_state(*arguments)
        if next(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(training._Work, "_write_state", fill_up)
    with pytest.raises(CheckpointError, match=r"No space left on device; the last saved state is kept"):
        go(packed, tiny(steps=20), tmp_path)
    monkeypatch.undo()
    assert checkpoint.latest_state(tmp_path) == (4, tmp_path / "state" / "step-00000004")
    go(packed, tiny(steps=20), tmp_path, resume=True)
    assert steps_logged(tmp_path) == list(range(1, 21))


def test_progress_bar_says_what_happens(
    packed: PackedImages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(packed, tiny(steps=2), tmp_path, device="cpu", progress=True)
    err = capfd.readouterr().err
    assert "training" in err
    assert "2/2" in err
    assert "pairs/s" in err


def test_log_file_is_json_lines(packed: PackedImages, tmp_path: Path) -> None:
    go(packed, tiny(steps=2), tmp_path)
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
