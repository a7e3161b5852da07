import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equimark import timing
from equimark.config import ConfigError
from equimark.provenance import hardware
from equimark.timing import Job, Measurement, Plan, Scale, TimingError, measurement
from equimark.timing.machine import peak_memory, restart_peak
from equimark.timing.stages import TOLERANCE
from test_house import PACKAGE, imported_rooms

Command = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parent.parent
TINY = Scale(
    channels=4,
    smallnet_batch=2,
    smallnet_frame=36,
    smallnet_margin=6,
    hourglass_batch=2,
    hourglass_frame=32,
    hourglass_margin=4,
    sparse_margin=6,
    images=2,
    points=3,
    files=3,
    file_side=40,
)
SECONDS = {"step_smallnet_dve": 2.0, "literal_step_smallnet_dve": 20.0, "pairs": 0.5, "pairs_singly": 1.5}
SECONDS |= {"pack": 4.0, "pack_singly": 6.0, "decode": 3.0}


class Pretended:
    """Measures nothing: a repeat takes what ``SECONDS`` says, times a factor; remembers what it was asked."""

    def __init__(self, factor: float = 1.0, losses: tuple[float, float] = (2.0, 2.0)) -> None:
        self.factor, self.losses = factor, losses
        self.jobs: list[Job] = []

    def __call__(self, job: Job) -> Measurement:
        self.jobs.append(job)
        literal = job.task.startswith("literal")
        seconds = self.factor * SECONDS[job.task]
        loss = self.losses[literal] if "step" in job.task else None
        return Measurement((seconds,) * job.repeats, 8, "pairs", 300.0 if literal else 100.0, 50.0, loss)


# ---- one measurement


def test_median_and_quartiles_of_the_repeats():
    made = Measurement((4.0, 1.0, 2.0, 3.0, 10.0), 6, "pairs", 100.0, 1.0)
    assert (made.median, made.spread, made.rate) == (3, (2, 4), 2)
    made = Measurement((1.0, 3.0), 6, "pairs", 100.0, 1.0)
    assert (made.median, made.spread, made.rate) == (2, (1.5, 2.5), 3)


def test_jobs_and_measurements_travel_as_lines():
    job = Job("pack", TINY, "cuda", "bf16", 7)
    assert Job.from_json(job.to_json()) == job
    made = Measurement((1.5, 2.5), 6, "images", None, None, 0.25)
    assert Measurement.from_json(made.to_json()) == made


def test_a_measurement_in_a_process_of_its_own():
    made = timing.in_a_process(Job("decode", TINY, repeats=2))
    assert (len(made.seconds), made.items, made.unit, made.loss) == (2, 3, "images", None)
    assert 0 < made.median < 60
    assert made.peak_mb is None or 50 < made.peak_mb < 5000  # torch alone takes more than 50 MB


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (1, "Traceback\nValueError: frames are too small", ["pack could not be measured: ValueError: frames"]),
        (1, "torch.OutOfMemoryError: CUDA out of memory.", ["out of memory", "smaller --batch-size"]),
        (-9, "", ["stopped by the system", "smaller --batch-size", "--stages"]),
        (3, "", ["exit code 3"]),
    ],
)
def test_a_process_that_fails_says_why(monkeypatch, code, said, words):
    monkeypatch.setattr(
        measurement.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, "", said)
    )
    with pytest.raises(TimingError) as caught:
        timing.in_a_process(Job("pack", TINY))
    assert all(word in str(caught.value) for word in words)


def test_what_a_process_says_is_passed_on(monkeypatch, capsys):
    line = Measurement((1.0,), 6, "images", 1.0, 1.0).to_json()
    done = subprocess.CompletedProcess([], 0, f"drawn\n{line}\n", "a warning\n")
    monkeypatch.setattr(measurement.subprocess, "run", lambda *_, **__: done)
    assert timing.in_a_process(Job("pack", TINY)) == Measurement.from_json(line)
    assert capsys.readouterr().err == "a warning\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets the peak start anew")
def test_memory_counts_from_where_it_restarts():
    cpu = torch.device("cpu")
    earlier = np.ones(16 * 2**20)  # 128 MB
    del earlier
    before = restart_peak(cpu)
    taken = np.ones(8 * 2**20)  # 64 MB
    del taken
    peak = peak_memory(cpu)
    assert before is not None and peak is not None
    assert 60 < peak - before < 90


def test_hardware():
    known = hardware(torch.device("cpu"))
    assert set(known) == {"processor", "cores", "threads", "memory_gb", "device", "gpu"}
    assert known["processor"] and known["cores"] >= 1 and known["threads"] == torch.get_num_threads()
    assert (known["device"], known["gpu"]) == ("cpu", None)


def test_the_literal_formulation_uses_nothing_of_the_package():
    assert imported_rooms(PACKAGE / "timing" / "literal.py") == set()


# ---- the stages


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """Every stage, at tiny sizes, in this process."""
    return timing.run(Plan(scale=TINY, repeats=2), measure=timing.measure, progress=False)


def test_every_stage_is_measured(measured):
    assert set(measured) == {"hardware", "versions", "date", "settings", "results"}
    assert json.loads(json.dumps(measured)) == measured
    assert {"python", "torch", "equimark"} <= set(measured["versions"])
    assert measured["settings"] == {"precision": "no", "repeats": 2} | vars(TINY)
    results = measured["results"]
    usual = {"seconds", "spread", "repeats", "peak_mb", "added_mb"}
    for name in ("step_smallnet_dve", "loss_smallnet_dve", "step_hourglass_dve", "loss_hourglass_dve"):
        names = usual | {f"oracle_{each}" for each in usual} | {"loss", "oracle_loss"}
        names |= {"pairs_per_second", "oracle_pairs_per_second", "ratio", "peak_ratio", "added_ratio"}
        names |= {"relative_difference"}
        assert set(results[name]) == names
    for stage, part, unit in (
        ("pairs", "", "pairs"),
        ("pairs", "singly_", "pairs"),
        ("pairs", "step_", "pairs"),
        ("pack", "", "images"),
        ("pack", "singly_", "images"),
        ("pack", "decoder_", "images"),
        ("inference", "", "images"),
        ("inference", "singly_", "images"),
        ("inference", "detect_", "images"),
        ("inference", "match_", "images"),
    ):
        assert {part + name for name in (*usual, f"{unit}_per_second")} <= set(results[stage])
        assert results[stage][f"{part}seconds"] > 0
    assert list(results) == list(timing.STAGES)
    assert all(results[name]["share"] > 0 for name in ("pairs", "pack"))


def test_both_formulations_have_the_same_loss(measured):
    for name in ("step_smallnet_dve", "loss_smallnet_dve", "step_hourglass_dve", "loss_hourglass_dve"):
        result = measured["results"][name]
        assert result["loss"] > 0.5  # 2 px to the power 0.5 a cell: views of 24 px, descriptors of fresh weights
        assert result["relative_difference"] < 1e-5
    assert timing.differing_losses(measured) == []
    step, loss = (measured["results"][f"{name}_smallnet_dve"]["loss"] for name in ("step", "loss"))
    assert loss == pytest.approx(step, rel=1e-5)


def test_half_precision_is_that_of_the_network_alone():
    plan = Plan(("step_smallnet_dve",), TINY, precision="bf16", repeats=1)
    result = timing.run(plan, measure=timing.measure, progress=False)["results"]["step_smallnet_dve"]
    assert result["relative_difference"] < TOLERANCE


def test_numbers_that_follow_from_the_measurements():
    pretended = Pretended()
    plan = Plan(("step_smallnet_dve", "pairs", "pack"), TINY, repeats=5)
    results = timing.run(plan, measure=pretended, progress=False)["results"]
    step = results["step_smallnet_dve"]
    assert (step["seconds"], step["spread"], step["repeats"], step["pairs_per_second"]) == (2, [2, 2], 5, 4)
    assert (step["oracle_seconds"], step["oracle_repeats"], step["ratio"]) == (20, 3, 10)
    assert (step["peak_mb"], step["oracle_peak_mb"], step["peak_ratio"]) == (100, 300, 3)
    assert results["pairs"]["share"] == 0.5 / (0.5 + 2)
    assert results["pack"]["share"] == 3 / 4
    assert (results["pairs"]["singly_ratio"], results["pack"]["singly_ratio"]) == (3, 1.5)
    # a task of two stages is measured once
    assert [job.task for job in pretended.jobs] == list(SECONDS)


def test_losses_that_differ_are_remarked():
    plan = Plan(("step_smallnet_dve",), TINY)
    for losses, count in (((2.0002, 2.0), 0), ((2.001, 2.0), 1), ((float("nan"), 2.0), 1)):
        made = timing.run(plan, measure=Pretended(losses=losses), progress=False)
        assert len(timing.differing_losses(made)) == count
    assert "step_smallnet_dve: the loss differs" in timing.differing_losses(made)[0]


def test_a_row_for_each_task():
    made = timing.run(Plan(("step_smallnet_dve", "pairs"), TINY), measure=Pretended(), progress=False)
    assert timing.rows(made) == [
        ["step_smallnet_dve", "2 (2–2)", "4 pairs", "100 (50)", ""],
        ["  oracle", "20 (20–20)", "0.4 pairs", "300 (50)", "time 10.0, memory 3.0"],
        ["pairs", "0.5 (0.5–0.5)", "16 pairs", "100 (50)", "share 20%"],
        ["  singly", "1.5 (1.5–1.5)", "5.333 pairs", "100 (50)", "time 3.0"],
        ["  step", "2 (2–2)", "4 pairs", "100 (50)", ""],
    ]
    assert all(len(row) == len(timing.COLUMNS) for row in timing.rows(made))


def test_batches_are_those_of_the_recipes_and_the_device():
    assert (Scale().smallnet_batch, Scale().hourglass_batch) == (32, 4)
    assert timing.choose_scale("cuda").hourglass_batch == 32
    chosen = timing.choose_scale("cpu", batch_size=6, files=10, file_side=80)
    assert (chosen.smallnet_batch, chosen.hourglass_batch, chosen.files, chosen.file_side) == (6, 6, 10, 80)
    assert timing.choose_scale("cpu") == Scale()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stages": ("pair",)}, "unknown stage 'pair' .did you mean 'pairs'.*inference"),
        ({"stages": ()}, "at least one stage"),
        ({"repeats": 0}, "at least one stage and one repeat"),
        ({"precision": "fp16"}, "fp16 is for CUDA"),
        ({"scale": Scale(smallnet_batch=1)}, "batch size of at least 2"),
        ({"scale": Scale(files=0)}, "at least 1"),
    ],
)
def test_plans_that_cannot_be(options, words):
    with pytest.raises(ConfigError, match=words):
        Plan(**options)


# ---- comparison


def benchmark(seconds: float, spread: tuple[float, float], peak: float | None = 100.0) -> dict[str, Any]:
    result = {"seconds": seconds, "spread": list(spread), "peak_mb": peak}
    oracle = {"oracle_seconds": 9.0, "oracle_spread": [9.0, 9.0], "oracle_peak_mb": 1.0}
    about = {"hardware": {"processor": "A", "cores": 2}, "settings": {"channels": 64, "repeats": 10}}
    return about | {"results": {"step_smallnet_dve": result | oracle}}


@pytest.mark.parametrize(
    ("seconds", "spread", "verdict"),
    [
        (1.3, (1.2, 1.4), "slower"),
        (1.3, (1.05, 1.4), "same"),  # the middle halves overlap: 0.9 - 1.1 then
        (1.2, (1.1, 1.3), "same"),  # they touch
        (1.09, (1.12, 1.13), "same"),  # less than a tenth
        (0.8, (0.7, 0.85), "faster"),
        (0.8, (0.7, 0.95), "same"),
        (0.92, (0.8, 0.85), "same"),
    ],
)
def test_slower_and_faster_beyond_the_spreads_alone(seconds, spread, verdict):
    (change,) = timing.compare(benchmark(1.0, (0.9, 1.1)), benchmark(seconds, spread, 150.0))
    assert (change.what, change.verdict, change.memory) == ("step_smallnet_dve", verdict, 1.5)
    assert change.ratio == pytest.approx(seconds)
    row = timing.change_rows([change])[0]
    assert row == ["step_smallnet_dve", "1", f"{seconds:.4g}", f"{seconds:.2f}", "1.50", verdict]
    assert len(row) == len(timing.CHANGE_COLUMNS)


def test_memory_that_is_not_known_is_not_compared():
    (change,) = timing.compare(benchmark(1.0, (0.9, 1.1), None), benchmark(1.0, (0.9, 1.1)))
    assert change.memory is None


def test_what_cannot_be_compared():
    now = benchmark(1.0, (0.9, 1.1))
    assert timing.obstacle(now, now) == ""
    other = now | {"hardware": {"processor": "B", "cores": 2}}
    assert timing.obstacle(other, now) == "measured with other hardware: processor B, here A"
    other = now | {"settings": {"channels": 16, "repeats": 5}}
    assert timing.obstacle(other, now) == "measured with other settings: channels 16, here 64"
    assert timing.obstacle(now | {"settings": {"channels": 64, "repeats": 5}}, now) == ""
    assert timing.obstacle(now | {"results": {}}, now) == "it has none of the stages step_smallnet_dve"
    with pytest.raises(TimingError, match=r"no usable numbers of step_smallnet_dve"):
        timing.compare(now | {"results": {"step_smallnet_dve": {}}}, now)


@pytest.mark.parametrize("content", ["", "[]", '{"results": {}}', "\u0000"])
def test_a_file_that_is_no_benchmark(tmp_path, content):
    path = tmp_path / "b.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TimingError, match=r"b\.json (cannot be read as a|is no) benchmark"):
        timing.read(path)


# ---- the command


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    real = timing.run

    def as_if(**options: Any) -> None:
        monkeypatch.setattr(timing, "run", partial(real, measure=Pretended(**options)))

    return as_if


def test_the_command(command: Command, pretend: Callable[..., None], tmp_path: Path) -> None:
    out = tmp_path / "sub" / "b.json"
    words = ("benchmark", "--device", "cpu", "--stages", "step_smallnet_dve,pairs", "--batch-size", 8, "--quiet")
    pretend()
    code, shown, err = command(*words, "--out", out, "--repeats", 4)
    assert (code, err) == (0, "")
    assert "oracle" in shown and "share 20%" in shown
    kept = json.loads(out.read_text(encoding="utf-8"))
    assert kept["results"]["step_smallnet_dve"]["ratio"] == 10
    assert (kept["settings"]["smallnet_batch"], kept["settings"]["repeats"]) == (8, 4)

    code, shown, err = command(*words, "--against", out, "--fail-slower")
    assert (code, err) == (0, "")
    assert "same" in shown and "slower" not in shown
    pretend(factor=0.5)
    assert "faster" in command(*words, "--against", out)[1]
    pretend(factor=1.5)
    code, shown, err = command(*words, "--against", out)
    assert (code, err) == (0, "")
    assert "slower" in shown
    code, _, err = command(*words, "--against", out, "--fail-slower")
    assert (code, err) == (1, f"equimark: slower than {out}: step_smallnet_dve; pairs; pairs, singly; pairs, step\n")

    kept["hardware"]["processor"] = "an abacus"
    out.write_text(json.dumps(kept), encoding="utf-8")
    code, shown, err = command(*words, "--against", out, "--fail-slower")
    assert code == 0
    assert err.startswith(f"equimark: not compared with {out}: measured with other hardware: processor an abacus, here")


def test_the_command_remarks_on_losses(command: Command, pretend: Callable[..., None]) -> None:
    pretend(losses=(1.0, 2.0))
    code, _, err = command("benchmark", "--device", "cpu", "--stages", "step_smallnet_dve", "--quiet")
    assert code == 0
    assert err.startswith("equimark: step_smallnet_dve: the loss differs")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--stages", "pack,stpe"], 2, "unknown stage 'stpe'"),
        (["--repeats", 0], 2, "one repeat"),
        (["--batch-size", 1], 2, "at least 2"),
        (["--precision", "fp16"], 2, "fp16"),
        (["--out", "."], 2, "is a folder"),
        (["--agianst", "b.json"], 2, "did you mean '--against'"),
        (["--against", "none.json"], 1, "none.json cannot be read as a benchmark"),
    ],
)
def test_what_the_command_refuses(command: Command, words: list[Any], code: int, said: str) -> None:
    got, out, err = command("benchmark", "--device", "cpu", *words)
    assert (got, out, len(err.splitlines())) == (code, "", 1)
    assert said in err


def test_the_docs_name_every_stage() -> None:
    text = (ROOT / "docs/benchmark.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in timing.STAGES)


# ---- growth


@pytest.fixture(scope="module")
def growth() -> Any:
    spec = importlib.util.spec_from_file_location("growth", ROOT / "benchmarks/growth.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_slopes(growth):
    assert growth.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert growth.slope([10, 100], [7, 7]) == pytest.approx(0)
    assert growth.slope([1, 2, 4], [1, None, 4]) is None
    assert growth.slope([1, 2], [0, 1]) is None
    assert growth.slope([2], [1]) is None


def test_growth_over_each_axis(growth, capsys):
    """Time that is linear in channels and pairs and quadratic in the pixels of a view, memory linear in all."""

    def measure(job: Job) -> Measurement:
        scale = job.scale
        pixels = (scale.smallnet_frame - 2 * scale.smallnet_margin) ** 2
        amount = scale.channels * scale.smallnet_batch * pixels
        return Measurement((1e-9 * amount * pixels,), 1, "pairs", 1.0, 1e-3 * amount)

    for axis, expected in (("channels", 1), ("batch", 1), ("pixels", 2)):
        made = growth.grow(axis, Job("loss_smallnet_dve"), growth.AXES[axis], measure)
        assert made["slopes"] == pytest.approx({"seconds": expected, "added_mb": 1})
        assert len(made["rows"]) == 4
    assert made["rows"][0]["size"] == 40**2
    assert capsys.readouterr().out.count("slope") == 3
