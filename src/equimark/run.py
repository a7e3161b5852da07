"""A run folder: images and a recipe in, a trained model out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checkpoint, training
from .checkpoint import CheckpointError
from .config import ConfigError, RunConfig, load_recipe, make_config, to_mapping
from .health import diagnose
from .images import ImageError, decode_labels, frame_labels, open_images
from .landmarks import LandmarkTable, match_images
from .model import LandmarkModel
from .networks import Network, SegmentationNet, SmallNet
from .packs import PackedImages, is_pack, locate, pack
from .processes import Processes
from .shards import is_url

PACK_FOLDER = "pack"
RUN_FILES = (checkpoint.CONFIG_FILE, checkpoint.MODEL_FILE, checkpoint.LOG_FILE, "report.html", "results.json")
RUN_FOLDERS = (checkpoint.STATE_FOLDER, PACK_FOLDER, "figures", "tracker")
_RECIPE_OF_METHOD = {
    None: "joint-smallnet-64",
    "dve": "dve-smallnet-64",
    "dense": "dense-smallnet-64",
    "sparse": "sparse-10",
}

Images = str | Path | PackedImages | NDArray[np.uint8]


@dataclass(frozen=True)
class Run:
    """A folder that training made.

    Args:
        folder: of the run.
    """

    folder: Path

    @cached_property
    def model(self) -> LandmarkModel:
        """The trained model."""
        return LandmarkModel.load(self.folder)

    @property
    def warnings(self) -> list[str]:
        """What is wrong with what was learned, by the log, and what to change."""
        return diagnose(checkpoint.read_config(self.folder), checkpoint.read_log(self.folder))

    def images(self, elsewhere: str | Path | None = None, *, most: int = 200) -> PackedImages | None:
        """Images to look at: those of the training, if they are still where they were, or some from ``elsewhere``."""
        if elsewhere is not None:
            return PackedImages.read(elsewhere, self.model.frame, most)
        source = checkpoint.load(self.folder).data.source
        try:
            return PackedImages.find(self.folder / PACK_FOLDER) or PackedImages.find(source)
        except ImageError:
            if is_url(source):
                return None  # out of reach today
            raise


def train(
    images: Images,
    out: str | Path,
    *,
    recipe: str | None = None,
    method: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    start_from: str | Path | None = None,
    labels: LandmarkTable | None = None,
    parts: str | Path | None = None,
    device: str = "auto",
    tracker: str | None = None,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Learn from unlabelled images; or, for comparison, with labels. Of several processes, all must call this.

    Args:
        images: a folder, a .zip, a list of paths, a pack (in shards: also its URL), or frames (N, S, S, 3) uint8.
        out: folder of the run.
        recipe: a name (see :func:`equimark.config.recipe_names`) or a YAML file; ``joint-smallnet-64``, descriptors and
            landmarks together, if neither this nor a method is named.
        method: ``dve``, ``dense`` or ``sparse``: its plain recipe.
        resume: go on with the run in ``out``.
        overwrite: replace the run in ``out``.
        start_from: a run whose weights to start from (unlabelled fine-tuning).
        labels: landmarks of a supervised run's images; only those that have a row are used.
        parts: folder of a segmentation's label images, named like the images: the value of a pixel is its part.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        tracker: of Accelerate to log to as well, for example ``tensorboard``.
        progress: show progress bars.
        **settings: configuration keys over the recipe's: ``steps=2000``, ``pairs={"margin": 10}``.

    Raises:
        ImageError, ConfigError, CheckpointError, TrainingError: with a line that says what to do.
    """
    folder = Path(out)
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it: give one of them")
    processes = training.join(device)
    with processes.together():
        _check_out(folder, resume=resume, overwrite=overwrite)
        config = _choose_config(recipe, method, settings, folder if resume else None, start_from)
        config, initial = _fit_network(config, labels, start_from, resume=resume)
        config.check_division(processes.count)
    packed, source = _pack(images, folder, config, processes, resume=resume, progress=progress)
    with processes.together():
        packed = _with_labels(packed, config, labels, parts)
        training.check(packed, config, device, processes)
    with processes.together():
        if overwrite and processes.is_main:  # only now: what cannot be trained must not cost the run that stands there
            _remove_run(folder, packed)
    if packed.frame.size == config.frame.size:  # the model then frames new images as the pack was framed
        config = replace(config, frame=packed.frame)
    training.train(
        packed,
        config,
        folder,
        source=source,
        resume=resume,
        initial=None if resume else initial,
        device=device,
        tracker=tracker,
        progress=progress,
        processes=processes,
    )
    return Run(folder)


def _check_out(folder: Path, *, resume: bool, overwrite: bool) -> None:
    is_run = (folder / checkpoint.CONFIG_FILE).is_file()
    if resume:
        if not is_run:
            raise CheckpointError(f"there is no run to resume in {folder}; leave out --resume to start one")
        return
    if folder.is_file():
        raise CheckpointError(f"{folder} is a file; --out names a folder to make")
    if is_run and not overwrite:
        raise CheckpointError(f"{folder} already holds a run: go on with --resume, or replace it with --overwrite")
    names = {f.name for f in folder.iterdir()} if folder.is_dir() else set()
    # a write that was killed leaves hidden files
    foreign = {name for name in names - {*RUN_FILES, *RUN_FOLDERS} if not name.startswith(".")}
    if foreign:
        raise CheckpointError(
            f"{folder} holds other files ({min(foreign)}, ...): choose a new or empty folder for --out"
        )


def _remove_run(folder: Path, packed: PackedImages) -> None:
    """Remove what a run left in ``folder``, but for the pack, if these are its images."""
    in_use = Path(getattr(packed.images, "filename", None) or "").resolve().parent
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    for name in RUN_FOLDERS:
        if (folder / name).resolve() != in_use:
            shutil.rmtree(folder / name, ignore_errors=True)


def _choose_config(
    recipe: str | None,
    method: str | None,
    settings: Mapping[str, Any],
    resumed: Path | None,
    start_from: str | Path | None,
) -> RunConfig:
    """Recipe or the method's, or else the run that is gone on with or started from, or else ours; then ``settings``."""
    if recipe is not None and method is not None:
        raise ConfigError("give a recipe or a method, not both")
    if method not in _RECIPE_OF_METHOD:
        raise ConfigError(f"unknown method {method!r}: choose dve, dense or sparse")
    earlier = resumed or start_from
    if recipe is not None or method is not None or earlier is None:
        base = load_recipe(recipe or _RECIPE_OF_METHOD[method]).settings
    else:
        base = to_mapping(checkpoint.read_config(Path(earlier)))
        if resumed is None:
            base["steps"] = None  # how long the earlier run was says nothing about the fine-tuning
    return make_config(base, settings)


def _fit_network(
    config: RunConfig, labels: LandmarkTable | None, start_from: str | Path | None, *, resume: bool
) -> tuple[RunConfig, Network | None]:
    """``config`` with the network that labels and the run to start from demand; that run's network, if there is one."""
    if labels is not None and config.method == "supervised":
        config = replace(config, network=replace(config.network, channels=labels.points.shape[1]))
    if start_from is not None and (not resume or config.method == "segmentation"):  # its network is as the old
        return _start_from(checkpoint.load(Path(start_from)), config)
    return config, None


def _start_from(earlier: checkpoint.Checkpoint, config: RunConfig) -> tuple[RunConfig, Network]:
    """The network of an earlier run for a new one: as it is, or its convolutions for a segmentation.

    Raises:
        ConfigError: if the new run has another network.
    """
    old, new = earlier.config, config
    if new.method == "segmentation" and isinstance(earlier.network, SmallNet) and old.method != "segmentation":
        padding, leak = earlier.network.padding, earlier.network.leak
        spec = replace(new.network, padding=padding, leak=leak)
        return replace(new, network=spec), SegmentationNet.from_smallnet(
            earlier.network, spec.channels, freeze=spec.freeze
        )
    if (old.network, old.method == "sparse") != (new.network, new.method == "sparse"):
        raise ConfigError(
            f"the run to start from has another network ({old.method}: {old.network}) than the new run "
            f"({new.method}: {new.network}): leave out --recipe to fine-tune it as it is"
        )
    return config, earlier.network


def _with_labels(
    packed: PackedImages, config: RunConfig, labels: LandmarkTable | None, parts: str | Path | None
) -> PackedImages:
    """The images that are labelled, with their labels in pixels of the frame."""
    if not config.is_supervised:
        if labels is not None or parts is not None:
            raise ConfigError(f"method: {config.method} learns without labels; use fit to name landmarks afterwards")
        return packed
    if labels is not None:
        rows = match_images(labels, packed.names)
        points = [packed.placement(row).to_frame(own) for row, own in zip(rows.tolist(), labels.points, strict=True)]
        return packed.select(rows).with_labels(points=np.stack(points))
    return packed if parts is None else packed.with_labels(parts=_read_parts(packed, Path(parts)))


def _read_parts(packed: PackedImages, folder: Path) -> NDArray[np.uint8]:
    """Label images of the same names, brought to the frame: (N, S, S).

    Raises:
        ImageError: if one is missing, or differs in size from its image.
    """
    source = open_images(folder)
    places = {PurePosixPath(name).with_suffix("").as_posix(): i for i, name in enumerate(source.names)}
    framed = []
    for row, name in enumerate(packed.names):
        place = places.get(PurePosixPath(name).with_suffix("").as_posix())
        if place is None:
            raise ImageError(f"{folder} holds no label image for {name}; it must have the same name")
        try:
            labels = decode_labels(source.read(place))
        except ImageError as error:
            raise ImageError(f"{source.names[place]}: {error}") from None
        if labels.shape != packed.image_size(row):
            raise ImageError(f"the label image of {name} has another size ({labels.shape[::-1]}) than the image")
        framed.append(frame_labels(labels, packed.placement(row)))
    return np.stack(framed)


def _pack(
    images: Images, folder: Path, config: RunConfig, processes: Processes, *, resume: bool, progress: bool
) -> tuple[PackedImages, str]:
    """The images as a pack, which the main process makes, if need be, while the others wait; and where they are."""
    if isinstance(images, PackedImages):
        return images, "memory"
    if isinstance(images, np.ndarray):
        return PackedImages.from_array(images), "memory"
    if is_url(images) or is_pack(images):
        with processes.together():
            return PackedImages.open(images), locate(images)
    own, source = folder / PACK_FOLDER, locate(images)
    with processes.together():
        if processes.is_main and resume and is_pack(own):
            _check_same(images, folder, own)
        elif processes.is_main:
            pack(images, own, config.frame, progress=progress, overwrite=True)
    with processes.together():
        return PackedImages.open(own), source


def _check_same(images: str | Path, folder: Path, own: Path) -> None:
    """Refuse to resume on other images than those of the pack ``own``."""
    if not set(PackedImages.open(own).names) <= set(open_images(images).names):
        raise CheckpointError(
            f"{folder} was trained on other images than those of {images}: resume with the same, or fine-tune on "
            "these with --from"
        )
