"""What a run leaves on disk: ``config.yaml``, ``model.safetensors`` and what is needed to go on.

Every file is written under a temporary name and renamed, so an interrupted write leaves the old one.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .config import ConfigError, RunConfig, make_config, to_mapping
from .files import replace_file, write_text
from .networks import Network, SegmentationNet, build_network, build_supervised

CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.safetensors"
LOG_FILE = "log.jsonl"
STATE_FOLDER = "state"
HUB = "hf:"  # a path makes one slash of the two in hf://OWNER/NAME
_OPTIMISER_FILE = "optimizer.bin"
_SCALER_FILE = "scaler.pt"


class CheckpointError(ValueError):
    """A run folder that cannot be used; the message says what is wrong and the way out."""


@dataclass(frozen=True)
class DataIdentity:
    """Which images a run was trained on.

    Args:
        source: path that the user gave.
        count: number of images.
        fingerprint: of the images' names and size.
    """

    source: str
    count: int
    fingerprint: str


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and where it comes from.

    Args:
        network: in evaluation mode, on the CPU.
        config: of the run.
        step: number of steps taken.
        data: the images.
        versions: of Python and the packages that matter, at the time of training.
    """

    network: Network
    config: RunConfig
    step: int
    data: DataIdentity
    versions: dict[str, str]


def build(config: RunConfig) -> Network:
    """The network of a configuration, with fresh weights from torch's global generator."""
    spec = config.network
    if config.method == "supervised":
        side = config.pairs.crop_size(config.frame.size)
        return build_supervised(f"supervised-{spec.name}", spec.channels, input_size=side)
    if config.method == "segmentation":
        leak = 0.0 if spec.leak is None else spec.leak
        return SegmentationNet(spec.channels, leak=leak, padding=spec.padding, freeze=spec.freeze)
    return build_network(
        spec.name,
        spec.channels,
        vector_length=spec.vector_length,
        sparse=config.method == "sparse",
        padding=spec.padding,
        leak=spec.leak,
        landmarks=spec.landmarks,
    )


def write_config(run: Path, config: RunConfig) -> None:
    """Write ``config.yaml``: all keys."""
    write_text(run / CONFIG_FILE, yaml.safe_dump(to_mapping(config), sort_keys=False))


def read_config(run: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        CheckpointError: if the folder is not a run.
        ConfigError: if a key is unknown or a value impossible.
    """
    run = local_folder(run)
    path = run / CONFIG_FILE
    if not path.is_file():
        what = "does not exist" if not run.exists() else f"holds no {CONFIG_FILE}"
        raise CheckpointError(f"{run} is not a run: it {what}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} is damaged: it holds no configuration")
    try:
        return make_config(content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("equimark", "torch", "accelerate", "kornia", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def save_model(
    run: Path, network: Network, *, step: int, data: DataIdentity, trained_with: dict[str, str] | None = None
) -> None:
    """Write ``model.safetensors``: the weights, with step, data and versions (those of now if none are given)."""
    metadata = {
        "format": "equimark-1",
        "step": str(step),
        "data": json.dumps(vars(data)),
        "versions": json.dumps(trained_with or versions()),
    }
    try:
        replace_file(run / MODEL_FILE, lambda path: save_file(_weights(network), path, metadata))
    except SafetensorError as error:  # how safetensors reports a full disk
        raise CheckpointError(f"could not write {run / MODEL_FILE}: {error}; the last saved one is kept") from None


def _weights(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def local_folder(run: Path) -> Path:
    """A run's folder on this machine: ``run`` itself, or of ``hf://OWNER/NAME`` a copy, fetched once and kept.

    ``hf://OWNER/NAME@REVISION`` is a branch, tag or commit of what stands on the Hugging Face Hub.

    Raises:
        CheckpointError: if it cannot be fetched.
    """
    if run.parts[:1] != (HUB,):
        return run
    address = _address(run)
    name, _, revision = address.removeprefix("hf://").partition("@")
    try:
        from huggingface_hub import snapshot_download  # an extra: runs on this machine do without
    except ModuleNotFoundError:
        raise CheckpointError(f"{address} needs huggingface_hub: pip install 'equimark[hub]'") from None
    try:
        wanted = [CONFIG_FILE, MODEL_FILE]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=wanted))
    except (OSError, ValueError) as error:  # all of its own are one or the other
        raise CheckpointError(f"{address} could not be fetched: {error}") from None


def _address(run: Path) -> str:
    """``hf://OWNER/NAME`` as it was before a path made one slash of two."""
    return "hf://" + "/".join(run.parts[1:])


def check_here(run: Path) -> None:
    """Refuse a run of the hub where something is written into the run.

    Raises:
        CheckpointError: if it is not on this machine.
    """
    if run.parts[:1] == (HUB,):
        raise CheckpointError(f"{_address(run)} cannot be written to: fetch it with hf download, and name the folder")


def load(run: Path) -> Checkpoint:
    """Read a run, here or of the hub (see :func:`local_folder`).

    Raises:
        CheckpointError: if it is missing, cut short, or does not fit its configuration.
    """
    run = local_folder(run)
    config = read_config(run)
    weights, metadata = _read_model(run / MODEL_FILE)
    network = build(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise CheckpointError(f"{run / MODEL_FILE} does not fit {run / CONFIG_FILE}: {first[0].strip()}") from None
    return Checkpoint(
        network=network.eval(),
        config=config,
        step=int(metadata["step"]),
        data=DataIdentity(**json.loads(metadata["data"])),
        versions=json.loads(metadata["versions"]),
    )


def _read_model(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the run has not saved anything yet; wait until it does or, if it was stopped, go on "
            "with --resume"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short ({error}); copy it again, or go on from the saved state with --resume"
        ) from None
    if metadata.get("format") != "equimark-1":
        raise CheckpointError(f"{path} was not written by equimark, or by a version that this one cannot read")
    return weights, metadata


def save_state(run: Path, step: int, write: Callable[[Path], None]) -> None:
    """Keep the state after ``step``: ``write`` fills a folder, which is renamed when complete.

    Older states are removed only after that.
    """
    folder = run / STATE_FOLDER
    temporary, final = folder / ".writing", folder / f"step-{step:08d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as RuntimeError
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"could not save the state to {final}: {error}; the last saved state is kept") from None
    for old in _states(run):
        if old != final:
            shutil.rmtree(old)


def write_state(
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None
) -> None:
    """Write the parts of a state that move with every step; no process has any of its own."""
    save_file(_weights(network), folder / MODEL_FILE)
    torch.save(optimiser.state_dict(), folder / _OPTIMISER_FILE)
    if scaler is not None:
        torch.save(scaler.state_dict(), folder / _SCALER_FILE)


def read_state(
    folder: Path, network: Network, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None
) -> None:
    """Bring these to where :func:`write_state` found them; whatever is wrong with the files raises."""
    network.load_state_dict(load_file(folder / MODEL_FILE))
    optimiser.load_state_dict(torch.load(folder / _OPTIMISER_FILE, map_location="cpu", weights_only=True))
    if scaler is not None and (folder / _SCALER_FILE).is_file():
        scaler.load_state_dict(torch.load(folder / _SCALER_FILE, weights_only=True))


def latest_state(run: Path) -> tuple[int, Path] | None:
    """Step and folder of the newest saved state, if there is one."""
    states = _states(run)
    return (int(states[-1].name.removeprefix("step-")), states[-1]) if states else None


def _states(run: Path) -> list[Path]:
    return sorted((run / STATE_FOLDER).glob("step-*"))


def describe_terms(entry: Mapping[str, float]) -> str:
    """The loss and its terms of a line of the log, for people."""
    others = ("step", "pairs_per_second", "lr")
    return ", ".join(f"{name} {value:.4g}" for name, value in entry.items() if name not in others)


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of ``log.jsonl``; a last line cut short by a crash is left out."""
    path = run / LOG_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return entries
