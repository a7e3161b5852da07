"""Two processes train like one. This file is also the program that both run: a list of jobs, one after the other."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import TINY, same_weights, weights_of
from equimark import checkpoint, methods
from equimark.config import ConfigError, RunConfig, load_recipe, make_config
from equimark.networks import SmallNet
from equimark.packs import PackedImages
from equimark.pairs import PairBatch
from equimark.processes import ALONE, Processes, SynchronisedBatchNorm, synchronise
from equimark.sampling import LabelledBatch, Sampler
from equimark.training import fresh_network, train

RECIPES = {"dve": "dve-smallnet-64", "dense": "dense-smallnet-64", "sparse": "sparse-10"}
# Biases before a batch norm have no gradient but rounding, which Adam would make as large as any other.
SAME: dict[str, Any] = {"steps": 3, "batch_norm": "synchronised", "optimiser.lr": 1e-4, "optimiser.bias_lr": 1e-8}
# What two processes do, in this order; ``step`` and ``process`` say when and where something happens.
JOBS: dict[str, dict[str, Any]] = {
    "dve": {"method": "dve", "changes": SAME},
    "dense": {"method": "dense", "changes": SAME | {"objective.outside": "dropped", "pairs.second.translation": 0.2}},
    "sparse": {"method": "sparse", "changes": SAME | {"optimiser.lr": 1e-5}},
    "pool": {"method": "dve", "changes": SAME | {"objective.pool": 4, "objective.auxiliaries": 2}},
    "accumulation": {"method": "dve", "changes": SAME | {"accumulation": 2}},
    "whole": {"method": "dve", "changes": {"steps": 5, "objective.auxiliaries_from": "process"}},
    "stopped": {
        "method": "dve",
        "changes": {"steps": 5, "objective.auxiliaries_from": "process"},
        "event": {"kind": "signal", "process": 1, "step": 2},
    },
    "stopped again": {"resume": "stopped"},
    "half": {"method": "dve", "changes": SAME, "event": {"kind": "signal", "process": 0, "step": 1}},
    "infinite": {"method": "dense", "changes": {}, "event": {"kind": "infinite", "process": 1, "step": 2}},
    "full": {"method": "dense", "changes": {}, "event": {"kind": "full disk", "process": 0, "step": 1}},
    "indivisible": {"method": "dense", "changes": {"batch_size": 6, "accumulation": 2}},
}


def tiny(name: str, /, **changes: Any) -> RunConfig:
    return make_config(load_recipe(RECIPES[name]).settings, TINY, {"steps": 4}, changes)


# ---- what each process runs ---------------------------------------------------------------------------------


@contextmanager
def spoilt(event: dict[str, Any]) -> Iterator[None]:
    """One process's loss is infinite at a step, or its disk is full."""
    name = {"infinite": "compute_terms", "full disk": "_Work._write_state"}[event["kind"]]
    calls = iter(range(1, 100))

    def infinite(*arguments: Any) -> dict[str, Tensor]:
        terms = methods.compute_terms(*arguments)
        bad = next(calls) == event["step"]
        return {key: value * float("inf") for key, value in terms.items()} if bad else terms

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"equimark.training.{name}", infinite if event["kind"] == "infinite" else full)
        yield


def do(name: str, job: dict[str, Any], images: PackedImages, folder: Path) -> dict[str, Any]:
    """Do a job; what came of it, in this process."""
    out = folder / job.get("resume", name)
    config = checkpoint.read_config(out) if "resume" in job else tiny(job["method"], **job["changes"])
    network, rank = fresh_network(config), int(os.environ["RANK"])
    event = job.get("event", {"process": None, "kind": None})
    here = event["process"] == rank

    def on_step(step: int) -> None:
        if here and event["kind"] == "signal" and step == event["step"]:
            os.kill(os.getpid(), signal.SIGTERM)

    failing = spoilt(event) if here and event["kind"] != "signal" else nullcontext()
    initial = None if "resume" in job else network
    try:
        with failing:
            train(images, config, out, initial=initial, resume="resume" in job, on_step=on_step, **QUIET)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    torch.save({n: p.grad for n, p in network.named_parameters()}, folder / f"{name}.{rank}.gradients")
    return {"error": None, "seen": [float(n.running_mean.sum()) for n in norms_of(network)]}


QUIET: dict[str, Any] = {"progress": False, "device": "cpu"}


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def run_jobs(pack: str, folder: str) -> None:
    images, results = PackedImages.open(pack), {}
    for name, job in JOBS.items():
        results[name] = do(name, job, images, Path(folder))
    (Path(folder) / f"results.{os.environ['RANK']}.json").write_text(json.dumps(results), encoding="utf-8")


# ---- starting them ------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(rank: int, port: int, *words: object) -> "subprocess.Popen[str]":
    """One of two processes, as ``torchrun`` starts them."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1, "GLOO_SOCKET_IFNAME": "lo"}
    environment = os.environ | {key: str(value) for key, value in told.items()}
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(processes: "list[subprocess.Popen[str]]", *, seconds: float = 600) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [(process.returncode, *words) for process, words in zip(processes, said, strict=True)]


@pytest.fixture(scope="module")
def done(photo_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of all jobs, and what came of each in both processes."""
    folder, port = tmp_path_factory.mktemp("jobs"), free_port()
    for code, _, err in finish([start(rank, port, __file__, photo_pack, folder) for rank in (0, 1)]):
        assert code == 0, err
    return folder, [json.loads((folder / f"results.{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


# ---- they train like one ------------------------------------------------------------------------------------


def losses(run: Path) -> list[float]:
    return [entry["loss"] for entry in checkpoint.read_log(run)]


def assert_same(run: Path, one: Path, tolerance: float = 1e-5) -> None:
    assert losses(run) == pytest.approx(losses(one), rel=tolerance)
    ours, theirs = weights_of(run), weights_of(one)
    for name, weight in theirs.items():
        torch.testing.assert_close(
            ours[name], weight, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("name", ["dve", "dense", "sparse", "pool", "accumulation"])
def test_two_processes_train_like_one(
    done: tuple[Path, list[dict[str, Any]]], packed: PackedImages, tmp_path: Path, name: str
) -> None:
    folder, results = done
    assert [result[name]["error"] for result in results] == [None, None]
    config = tiny(JOBS[name]["method"], **JOBS[name]["changes"])
    network = fresh_network(config)
    train(packed, config, tmp_path, initial=network, **QUIET)
    assert_same(folder / name, tmp_path)
    assert not same_weights(folder / name, folder / ("dense" if name == "dve" else "dve"))
    wanted = {n: p.grad for n, p in network.named_parameters()}
    for rank in (0, 1):
        gradients = torch.load(folder / f"{name}.{rank}.gradients", weights_only=True)
        assert gradients.keys() == wanted.keys()
        # Where two activations are equal but for rounding, max pooling and ReLUs send the gradient another way.
        ours, theirs = (torch.cat([g[key].flatten() for key in wanted]) for g in (gradients, wanted))
        assert float((ours - theirs).norm()) < 0.01 * float(theirs.norm())


def test_statistics_of_separate_batch_norms_are_averaged(done: tuple[Path, list[dict[str, Any]]]) -> None:
    """The processes saw other images, and yet both have the statistics that were saved."""
    folder, (first, second) = done
    assert first["whole"]["seen"] == second["whole"]["seen"]
    kept = [norm.running_mean for norm in norms_of(checkpoint.load(folder / "whole").network)]
    assert [float(mean.sum()) for mean in kept if mean is not None] == first["whole"]["seen"]


# ---- they stop together and go on ---------------------------------------------------------------------------


def test_a_signal_to_one_process_stops_both_and_loses_nothing(done: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, results = done
    for result in results:
        assert result["stopped"]["error"] == "Interrupted: stopped at step 3 of 5 by SIGTERM; go on with --resume"
        assert result["stopped again"]["error"] is None
    assert same_weights(folder / "stopped", folder / "whole")
    assert losses(folder / "stopped") == losses(folder / "whole")
    assert len(losses(folder / "whole")) == 5


def test_one_process_goes_on_where_two_were_stopped(
    done: tuple[Path, list[dict[str, Any]]], packed: PackedImages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, results = done
    assert {result["half"]["error"] for result in results} == {
        "Interrupted: stopped at step 2 of 3 by SIGTERM; go on with --resume"
    }
    assert checkpoint.load(folder / "half").step == 2
    config = checkpoint.read_config(folder / "half")
    train(packed, config, tmp_path / "whole", **QUIET)
    assert capfd.readouterr().err == ""
    train(packed, config, folder / "half", resume=True, **QUIET)
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(r"goes on with 1 process\(es\) instead of 2: the batches stay the same", line)
    assert_same(folder / "half", tmp_path / "whole")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("infinite", r"TrainingError: the loss is not finite at step 2 \(matching = inf, total = inf\)"),
        ("full", r"CheckpointError: could not save the state .*No space left on device"),
        ("indivisible", r"ConfigError: batch_size is 6, .* processes x accumulation = 2 x 2: choose a multiple of 4$"),
    ],
)
def test_what_fails_in_one_fails_in_both(done: tuple[Path, list[dict[str, Any]]], name: str, says: str) -> None:
    first, second = (result[name]["error"] for result in done[1])
    assert first == second
    assert re.match(says, first)


# ---- the command --------------------------------------------------------------------------------------------


def test_the_command_in_two_processes(photo_pack: Path, tmp_path: Path) -> None:
    """One process writes and prints; the other stays silent."""
    keys = [f"--{key}={value}" for key, value in (TINY | {"steps": 2}).items()]
    words = ["train", photo_pack, "--out", tmp_path / "run", "--quiet", "--device", "cpu", *keys]
    port = free_port()
    (code, out, _), other = finish([start(rank, port, "-m", "equimark", *words) for rank in (0, 1)])
    assert code == 0
    assert other == (0, "", "")
    assert re.match(r"trained .* for 2 steps: .*\nreport: .*report.html\n$", out)
    assert (tmp_path / "run" / "report.html").is_file()
    assert json.loads((tmp_path / "run/state/step-00000002/processes.json").read_text(encoding="utf-8")) == 2


# ---- parts of a batch ---------------------------------------------------------------------------------------


def part_of(images: PackedImages, config: RunConfig, own: int, micro: int) -> PairBatch | LabelledBatch:
    sampler = Sampler(images, config, processes=Processes(2, own), micro_batches=2)
    return sampler.batch(3, micro)


@pytest.mark.parametrize("method", ["dense", "supervised"])
def test_parts_make_the_whole(packed: PackedImages, method: str) -> None:
    points = np.random.default_rng(0).uniform(8, 32, (len(packed), 3, 2))
    change = {"batch_size": 8, "method": method, "pairs.photometric.jpeg_probability": 0.5}
    config, images = tiny("dense", **change), packed.with_labels(points=points)
    whole = Sampler(images, config).batch(3)
    parts = [part_of(images, config, own, micro) for micro in (0, 1) for own in (0, 1)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    names = ("images", "points") if method == "supervised" else ("source", "target", "target_from_source", "valid")
    for name in names:
        joined, wanted = torch.cat([getattr(part, name) for part in parts]).float(), getattr(whole, name).float()
        assert torch.equal(joined.isnan(), wanted.isnan())
        # A mean, as re-encoding rounds: what differs in the last digit may rarely be rounded the other way.
        assert float((joined - wanted).abs().nanmean()) < 1e-4 * float(wanted.abs().nanmean())


def test_each_process_reads_its_own_images_alone(packed: PackedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    batch = PackedImages.batch

    def note(images: PackedImages, rows: Any) -> Tensor:
        read.extend(np.asarray(rows).tolist())
        return batch(images, rows)

    monkeypatch.setattr(PackedImages, "batch", note)
    config = tiny("dense", batch_size=8)
    rows = Sampler(packed, config).rows(3)
    for micro, own in ((0, 0), (0, 1), (1, 0), (1, 1)):
        read.clear()
        part_of(packed, config, own, micro)
        place = 2 * (2 * micro + own)
        assert read == rows[place : place + 2].tolist()


def auxiliaries(images: PackedImages, own: int, micro: int, **changes: Any) -> list[list[int]]:
    pairs = part_of(images, tiny("dve", batch_size=8, **changes), own, micro)
    assert isinstance(pairs, PairBatch) and pairs.auxiliaries is not None
    return pairs.auxiliaries.tolist()


def test_auxiliaries_cross_the_border_between_processes_unless_told_not_to(packed: PackedImages) -> None:
    assert auxiliaries(packed, 0, 0) == [[1], [2]]  # of the four that both see in a micro-batch
    assert auxiliaries(packed, 1, 0) == [[3], [0]]
    assert auxiliaries(packed, 1, 1) == [[3], [0]]
    within = {"objective.auxiliaries_from": "process"}
    assert auxiliaries(packed, 0, 0, **within) == auxiliaries(packed, 1, 1, **within) == [[1], [0]]


def test_auxiliaries_of_several_are_drawn_once_for_all_processes(packed: PackedImages) -> None:
    config = tiny("dve", batch_size=4, **{"objective.auxiliaries": 2})
    whole = Sampler(packed, config).batch(1)
    parts = [Sampler(packed, config, processes=Processes(2, own)).batch(1) for own in (0, 1)]
    assert isinstance(whole, PairBatch) and whole.auxiliaries is not None
    assert torch.equal(torch.cat([part.auxiliaries for part in parts]), whole.auxiliaries)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("processes", "changes", "says"),
    [
        (3, {"batch_size": 8}, r"batch_size is 8, .*= 3 x 1: choose a multiple of 3"),
        (2, {"batch_size": 8, "objective.pool": 5}, r"objective\.pool is 5, .*multiple of 2"),
        (4, {"batch_size": 8, "accumulation": 2, "objective.auxiliaries_from": "process"}, r"at least 16 for dve"),
        (
            2,
            {"batch_size": 8, "accumulation": 4, "objective.auxiliaries": 2},
            r"there are 1 images in one of the 4 parts",
        ),
    ],
)
def test_batches_that_cannot_be_shared(processes: int, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tiny("dve", **changes).check_division(processes)


def test_batches_that_can_be_shared() -> None:
    tiny("dve", batch_size=8, accumulation=2).check_division(4)
    tiny("dense", batch_size=8, accumulation=2, **{"objective.pool": 5}).check_division(4)


# ---- accumulation -------------------------------------------------------------------------------------------


def without_norm(config: RunConfig) -> SmallNet:
    network = fresh_network(config)
    assert isinstance(network, SmallNet)
    for i, layer in enumerate(network.body):
        if isinstance(layer, nn.BatchNorm2d):
            network.body[i] = nn.Identity()
    return network


@pytest.mark.parametrize("method", ["dense", "sparse"])
def test_micro_batches_have_the_gradient_of_the_whole(packed: PackedImages, tmp_path: Path, method: str) -> None:
    config = tiny(method, **{"steps": 2, "optimiser.lr": 1e-5, "optimiser.bias_lr": 1e-5})
    whole, cut = without_norm(config), without_norm(config)
    train(packed, config, tmp_path / "whole", initial=whole, **QUIET)
    train(packed, replace(config, accumulation=4), tmp_path / "cut", initial=cut, **QUIET)
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    for (name, a), b in zip(cut.named_parameters(), whole.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4 * float(b.grad.abs().max()), rtol=1e-4, msg=name)


# ---- synchronised batch norm --------------------------------------------------------------------------------


def test_synchronised_batch_norm_alone_is_batch_norm() -> None:
    draw = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(4, 5, 6, 7, generator=draw) + 10
    towards = torch.randn(4, 5, 6, 7, generator=draw)
    plain = nn.BatchNorm2d(5)
    network = nn.Sequential(nn.Sequential(nn.BatchNorm2d(5)))
    synchronise(network, ALONE)
    (ours,) = norms_of(network)
    assert isinstance(ours, SynchronisedBatchNorm)
    found = []
    for norm in (plain, network):
        given = x.clone().requires_grad_()
        (norm(given) * towards).sum().backward()
        found.append(given.grad)
    torch.testing.assert_close(*found)
    for (name, ours_now), theirs in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours_now, theirs, msg=name)
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
    torch.testing.assert_close(network.eval()(x), plain.eval()(x))


if __name__ == "__main__":
    run_jobs(*sys.argv[1:])
