"""A run as a folder for the Hugging Face Hub: weights, configuration, a card that says what it is, an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from . import checkpoint
from .checkpoint import CONFIG_FILE, LOG_FILE, MODEL_FILE, Checkpoint
from .export import Exported, ExportError, check_free, export_onnx
from .files import write_text
from .head import HEAD_FILES, Head
from .model import LandmarkModel

CARD_FILE = "README.md"
ONNX_FILE = "model.onnx"
HEAD_FOLDER = "head"


def write_hub_folder(
    run: str | Path, folder: str | Path, head: str | Path | None = None, *, onnx: bool = True, overwrite: bool = False
) -> Exported | None:
    """Write what another machine needs of a run, and a model card, to a folder.

    Of the training images it names their number and the last part of their path; the rest of the path stays here, as
    do the state and the log.

    Args:
        run: a run's folder.
        folder: to write; what else it holds stays.
        head: folder of a head fitted on the run.
        onnx: write ``model.onnx`` as well (see :func:`equimark.export.export_onnx`).
        overwrite: replace those of the files that are there.

    Returns:
        What was found of the ONNX file, if one was asked for.

    Raises:
        ExportError: if a file is there already, or the ONNX file cannot be made.
        CheckpointError: if there is no such run or head.
    """
    run, folder = Path(run), Path(folder)
    if run.resolve() == folder.resolve():
        raise ExportError(f"{folder} is the run itself; give another folder to write")
    if folder.is_file():
        raise ExportError(f"{folder} is a file; give a folder to write")
    files = (CONFIG_FILE, MODEL_FILE, CARD_FILE, *((ONNX_FILE,) if onnx else ()))
    for name in (*files, *(f"{HEAD_FOLDER}/{each}" for each in HEAD_FILES if head is not None)):
        check_free(folder / name, overwrite=overwrite)
    kept = checkpoint.load(run)
    model = LandmarkModel(kept.network, kept.config)
    fitted = Head.load(head, model) if head is not None else None
    made = export_onnx(model, folder / ONNX_FILE, fitted, overwrite=overwrite) if onnx else None
    checkpoint.write_config(folder, kept.config)
    data = replace(kept.data, source=Path(kept.data.source).name)
    checkpoint.save_model(folder, kept.network, step=kept.step, data=data, trained_with=kept.versions)
    if fitted is not None:
        fitted.save(folder / HEAD_FOLDER)
    losses = (checkpoint.read_log(run) or [{}])[-1] if (run / LOG_FILE).is_file() else {}
    write_text(folder / CARD_FILE, card(replace(kept, data=data), losses, fitted, made))
    return made


def push(folder: str | Path, name: str) -> str:
    """Upload a folder to the repository ``OWNER/NAME`` of the Hugging Face Hub; its address.

    A repository that does not exist is made, and is private until its owner changes that on its page. The token is the
    one that ``hf auth login`` or ``HF_TOKEN`` has given to huggingface_hub.

    Raises:
        ExportError: if huggingface_hub is missing, or the hub refuses.
    """
    try:
        from huggingface_hub import HfApi  # an extra
    except ModuleNotFoundError:
        raise ExportError("--push needs huggingface_hub: pip install 'equimark[hub]'") from None
    api = HfApi(library_name="equimark")
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload by equimark export")
    except (OSError, ValueError) as error:  # all of the hub's own are one or the other
        raise ExportError(
            f"{name} could not be uploaded: {error}; {folder} is complete, log in with hf auth login and push it again"
        ) from None
    return f"https://huggingface.co/{name}"


# ---- the model card -----------------------------------------------------------------------------------------


def card(kept: Checkpoint, losses: dict[str, float], head: Head | None = None, onnx: Exported | None = None) -> str:
    """The model card: YAML for the hub, and what a reader wants to know, in Markdown.

    Args:
        kept: the run.
        losses: last line of its log.
        head: fitted on it, if the folder holds one.
        onnx: what is known of the ONNX file, if the folder holds one.
    """
    sections = (_title(kept, head), _training(kept, losses), _use(kept, head), _onnx(onnx), _limits(kept, head))
    return _front_matter(kept) + "\n" + "\n\n".join(filter(None, sections)) + "\n"


def _front_matter(kept: Checkpoint) -> str:
    about = {
        "library_name": "equimark",
        "pipeline_tag": "keypoint-detection",
        "tags": ["equimark", "landmarks", "keypoints", "self-supervised", kept.config.method, kept.config.network.name],
    }
    licence = "# license: to be chosen by you (mit, cc-by-4.0, ...); what the training images allow bounds the choice\n"
    return f"---\n{licence}{yaml.safe_dump(about, sort_keys=False)}---\n"


_LEARNED = {
    "sparse": "{channels} landmarks, learned without labels from images and random warps",
    "dense": "descriptors of {channels} numbers for every place, learned without labels from images and random warps",
    "dve": "descriptors of {channels} numbers for every place, which match between individuals, learned without labels",
    "supervised": "{channels} landmarks, learned from labels",
    "segmentation": "{channels} parts, learned from label images",
}


def _title(kept: Checkpoint, head: Head | None) -> str:
    what = _LEARNED[kept.config.method].format(channels=kept.config.network.channels)
    lines = ["# Landmarks by Equimark", "", f"This model gives {what} (method `{kept.config.method}`)."]
    if head is not None:
        lines.append(f"`{HEAD_FOLDER}/` derives from it {head.regressor.landmarks} landmarks{_named(head)}.")
    return "\n".join(lines)


def _named(head: Head) -> str:
    return f": {', '.join(head.names)}" if head.names else ""


def _training(kept: Checkpoint, losses: dict[str, float]) -> str:
    config, data = kept.config, kept.data
    frame = f"{config.frame.size} x {config.frame.size} pixels ({config.frame.fit}), margin {config.pairs.margin}"
    rows = {
        "images": f"{data.count} of `{data.source}` (fingerprint `{data.fingerprint}`)",
        "frame": frame,
        "network": str(config.network),
        "steps": f"{kept.step}, batches of {config.batch_size}, seed {config.seed}",
        "last losses": checkpoint.describe_terms(losses),
        "versions": ", ".join(f"{name} {version}" for name, version in kept.versions.items()),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines, "", f"`{CONFIG_FILE}` holds all settings."])


_CALLS = {
    "sparse": "found = model.detect(image)  # points (K, 2) in pixels of the image, confidence (K,)",
    "supervised": "found = model.detect(image)  # points (K, 2) in pixels of the image",
    "segmentation": "parts = model.segment(image)  # (H, W)",
}
_MATCH = "found = model.match(source, points, target)  # where points (N, 2) of one image lie on another, in pixels"
_COMMANDS = {"sparse": "equimark detect {} photos/ --out landmarks.csv"}
_MATCH_COMMAND = 'equimark match {} photos/a.jpg --points "40,52 71,50" --targets photos/ --out matches.csv'


def _use(kept: Checkpoint, head: Head | None) -> str:
    method = kept.config.method
    python = ['model = LandmarkModel.load("hf://OWNER/NAME")', _CALLS.get(method, _MATCH)]
    lines = ["## Use", "", "```python", "from equimark import LandmarkModel", "", *python, "```"]
    command = _MATCH_COMMAND if kept.config.has_descriptors else _COMMANDS.get(method)
    if command:
        lines += ["", "```sh", "pip install 'equimark[hub]'", command.format("hf://OWNER/NAME"), "```"]
    if head is not None:
        lines += ["", "The named landmarks, from a copy of this repository:", "", "```sh"]
        lines += ["hf download OWNER/NAME --local-dir model"]
        lines += [f"equimark detect model photos/ --head model/{HEAD_FOLDER} --out landmarks.csv", "```"]
    lines += ["", "OWNER/NAME is where this card stands. Images are (H, W, 3) uint8 RGB of any size."]
    return "\n".join(lines)


def _onnx(made: Exported | None) -> str:
    if made is None:
        return ""
    return (
        f"`{ONNX_FILE}` gives {' and '.join(made.outputs)} for frames (B, 3, H, W) of RGB in [0, 1]; its metadata says "
        f"the rest. On {len(made.shapes)} shapes of images it differs from the model by at most {made.difference:.1e}."
    )


def _limits(kept: Checkpoint, head: Head | None) -> str:
    return "## Limits\n\n" + "\n".join(f"* {each}" for each in _limits_of(kept, head))


def _limits_of(kept: Checkpoint, head: Head | None) -> Iterator[str]:
    yield "It knows objects like those of its training images, in like positions and sizes in the frame, and no others."
    yield "It answers for every image, also for one that does not show such an object."
    if kept.config.method == "sparse":
        yield "What its landmarks mean was not chosen by anyone; left and right of a symmetric object may be confused."
    if head is not None:
        yield "The named landmarks come from few labels: measure them on images that were not labelled for them."
    yield "Accuracy was not measured for this card; add what you measured, with the data."
