import errno
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from equimark import checkpoint
from equimark.checkpoint import CheckpointError, DataIdentity
from equimark.config import ConfigError, RunConfig, make_config
from equimark.training import fresh_network

DATA = DataIdentity("/photos", 12, "0123456789abcdef")
CONFIG = make_config({"network.channels": 4, "method": "dense"})


def saved(run: Path, config: RunConfig = CONFIG) -> Path:
    checkpoint.write_config(run, config)
    checkpoint.save_model(run, fresh_network(config), step=17, data=DATA)
    return run


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "sparse"},
        {"method": "dve", "network.vector_length": 20},
    ],
)
def test_round_trip(tmp_path: Path, changes: dict[str, object]) -> None:
    config = make_config({"network.channels": 4} | changes)
    network = fresh_network(config)
    checkpoint.write_config(tmp_path, config)
    checkpoint.save_model(tmp_path, network, step=17, data=DATA)
    kept = checkpoint.load(tmp_path)
    assert (kept.config, kept.step, kept.data) == (config, 17, DATA)
    assert {"python", "torch", "equimark"} <= set(kept.versions)
    assert not kept.network.training
    for name, value in network.state_dict().items():
        assert torch.equal(kept.network.state_dict()[name], value), name
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(kept.network(image), network.eval()(image))


def test_channels_last_weights_are_saved_plain(tmp_path: Path) -> None:
    checkpoint.write_config(tmp_path, CONFIG)
    network = fresh_network(CONFIG).to(memory_format=torch.channels_last)
    checkpoint.save_model(tmp_path, network, step=1, data=DATA)
    assert all(w.is_contiguous() for w in checkpoint.load(tmp_path).network.state_dict().values())


def test_config_file_holds_every_key(tmp_path: Path) -> None:
    checkpoint.write_config(tmp_path, CONFIG)
    content = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert content["network"] == vars(CONFIG.network)
    assert checkpoint.read_config(tmp_path) == CONFIG


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is not a run: it holds no config\.yaml"):
        checkpoint.load(tmp_path)
    with pytest.raises(CheckpointError, match="is not a run: it does not exist"):
        checkpoint.load(tmp_path / "none")


@pytest.mark.parametrize(("content", "says"), [("a: [1", "is damaged"), ("", "holds no configuration")])
def test_damaged_config(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(tmp_path)


def test_unknown_key_in_the_config_names_the_file(tmp_path: Path) -> None:
    saved(tmp_path)
    with (tmp_path / "config.yaml").open("a") as file:
        file.write("colour: blue\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: unknown configuration key 'colour'"):
        checkpoint.load(tmp_path)


def test_weights_missing(tmp_path: Path) -> None:
    checkpoint.write_config(tmp_path, CONFIG)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing.*--resume"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 300, -1])
def test_weights_cut_short(tmp_path: Path, size: int) -> None:
    path = saved(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut short"):
        checkpoint.load(tmp_path)


def test_weights_of_another_writer(tmp_path: Path) -> None:
    path = saved(tmp_path) / "model.safetensors"
    save_file(load_file(path), path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="was not written by equimark"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("changes", [{"network.channels": 5}, {"method": "sparse"}])
def test_weights_that_do_not_fit_the_config(tmp_path: Path, changes: dict[str, object]) -> None:
    saved(tmp_path)
    checkpoint.write_config(tmp_path, make_config({"network.channels": 4, "method": "dense"}, changes))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not fit .*config\.yaml"):
        checkpoint.load(tmp_path)


def test_full_disk_keeps_the_old_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def fill_up(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", fill_up)
    with pytest.raises(CheckpointError, match=r"No space left.*the last saved one is kept"):
        checkpoint.save_model(tmp_path, fresh_network(CONFIG), step=18, data=DATA)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"config.yaml", "model.safetensors"}


# ---- state --------------------------------------------------------------------------------------------------


def write_note(folder: Path) -> None:
    (folder / "note.txt").write_text("complete")


def test_newest_state_counts_and_older_ones_go(tmp_path: Path) -> None:
    assert checkpoint.latest_state(tmp_path) is None
    for step in (5, 999_999, 1_000_000):
        checkpoint.save_state(tmp_path, step, write_note)
        assert checkpoint.latest_state(tmp_path) == (step, tmp_path / "state" / f"step-{step:08d}")
    assert len(list((tmp_path / "state").iterdir())) == 1
    checkpoint.save_state(tmp_path, 1_000_000, write_note)  # the same step again
    assert checkpoint.latest_state(tmp_path) == (1_000_000, tmp_path / "state" / "step-01000000")


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed")]
)
def test_old_state_stays_until_the_new_one_is_complete(tmp_path: Path, failure: Exception) -> None:
    checkpoint.save_state(tmp_path, 5, write_note)

    def fill_up(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        assert checkpoint.latest_state(tmp_path) == (5, tmp_path / "state" / "step-00000005")
        raise failure

    with pytest.raises(CheckpointError, match=r"could not save the state .*the last saved state is kept"):
        checkpoint.save_state(tmp_path, 6, fill_up)
    assert [p.name for p in (tmp_path / "state").iterdir()] == ["step-00000005"]


def test_what_a_killed_write_left_is_cleared_away(tmp_path: Path) -> None:
    half = tmp_path / "state" / ".writing"
    half.mkdir(parents=True)
    (half / "half.bin").write_bytes(b"half")
    assert checkpoint.latest_state(tmp_path) is None
    checkpoint.save_state(tmp_path, 6, write_note)
    assert [p.name for p in (tmp_path / "state" / "step-00000006").iterdir()] == ["note.txt"]
    assert not half.exists()


# ---- log ----------------------------------------------------------------------------------------------------


def test_log(tmp_path: Path) -> None:
    assert checkpoint.read_log(tmp_path) == []
    lines = [json.dumps({"step": step, "loss": 0.5}) for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    assert [entry["step"] for entry in checkpoint.read_log(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_log_whose_last_line_is_cut(tmp_path: Path, cut: int) -> None:
    lines = [json.dumps({"step": step, "loss": 0.5}) for step in (1, 2, 3)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines)[:-cut])
    assert [entry["step"] for entry in checkpoint.read_log(tmp_path)] == [1, 2]
