"""Where chains are run: data, trainings, evaluations and drawings, kept in one folder and shared.

What was interrupted goes on where it stopped, and what is there is not made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from . import assessment, benchmarks, chains, checkpoint, run
from .benchmarks import Benchmark, BenchmarkError, Split
from .chains import Chain
from .config import RunConfig, load_recipe, make_config
from .figures import DRAWINGS, Exhibit
from .files import write_text
from .geometry import Frame
from .head import PAIRS, HeadSpec, fit_head
from .images import Framed
from .landmarks import LandmarkTable
from .metrics import Points
from .model import LandmarkModel
from .packs import PackedImages, is_pack, write_pack
from .results import Results
from .virtual_points import VirtualPointSpec

_QUICK_STEPS, _QUICK_BATCH, _QUICK_EPOCHS, _QUICK_PAIRS = 2, 2, 2, 8
_CHUNK = 256  # images
_SHOWN, _QUICK_SHOWN, _LEARNED = 200, 24, 2_000  # images of a figure, and those that its heads are fitted to
# Folders of sets that are read from the files of another.
_SHARED_FOLDERS = {"mafl": "celeba", "mnist-3": "mnist", "mnist-5": "mnist", "mnist-6": "mnist"}

_KINDS = {"cats": "cat", "celeba": "human"}  # what sets without classes show, as Animal Faces call it


@dataclass(frozen=True)
class Workshop:
    """Where chains are run.

    Args:
        root: a folder with a folder for each data set, named as in :data:`equimark.benchmarks.NAMES` (``celeba`` also
            for MAFL, ``mnist`` for all digits).
        out: runs, packs and results.
        quick: a few steps on a few images, whatever their number: a trial of the chain, not of the method.
        seed: of trainings and evaluations.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: show progress bars.
        command: the words after ``equimark`` by which this is done; none if Python was called.
        as_printed: train with the papers' optimisers, padding and diversity instead of the recipes'.
    """

    root: Path
    out: Path
    quick: bool = False
    seed: int = 0
    device: str = "auto"
    progress: bool = True
    command: tuple[str, ...] = ()
    as_printed: bool = False
    _loaded: dict[str, Benchmark] = field(default_factory=dict, init=False, repr=False, compare=False)

    def with_seed(self, seed: int) -> Workshop:
        """The same with another seed; data sets that are open are shared."""
        other = replace(self, seed=seed)
        other._loaded.update(self._loaded)
        return other

    # ---- data ------------------------------------------------------------------------------------------------

    def folder_of(self, data: str) -> Path:
        """Where a data set lies."""
        return self.root / _SHARED_FOLDERS.get(data, data)

    def load(self, data: str) -> Benchmark:
        """A data set.

        Raises:
            BenchmarkError: if it is not complete.
        """
        if data not in self._loaded:
            with self.sizes():
                self._loaded[data] = benchmarks.load(data, self.folder_of(data))
        return self._loaded[data]

    def sizes(self) -> AbstractContextManager[None]:
        """Within, sets need not be complete if this is a quick trial, which takes the first of their images."""
        return benchmarks.any_size() if self.quick else nullcontext()

    def check_data(self, chain: Chain) -> None:
        """Look for all that a chain needs before anything is trained.

        Raises:
            BenchmarkError: naming every set that is missing, not complete, or not the one that ``out`` was made of.
        """
        faults: dict[Path, str] = {}
        for data in chain.data:
            try:
                self.load(data)
            except BenchmarkError as error:
                faults.setdefault(self.folder_of(data), str(error))  # sets of one folder lack the same
        if faults:
            lines = [f"{chain.name} needs {', '.join(chain.data)} in {self.root}:", *faults.values()]
            raise BenchmarkError("\n  ".join(lines))
        for data in chain.data:
            self._recognise(data)

    def _recognise(self, data: str) -> None:
        """Refuse other images or landmarks than those that the runs, packs and results of this folder were made of.

        What is met for the first time is read as a whole: a damaged image is found before days of training.
        """
        kept = self.out / "data.json"
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        found = self.load(data).fingerprint()
        if known.get(data, found) != found:
            raise BenchmarkError(
                f"{data} in {self.folder_of(data)} is not what it was when {self.out} was made: name another --out, "
                "or remove that folder"
            )
        if data not in known:
            self.load(data).check()
            write_text(kept, json.dumps(known | {data: found}, indent=2) + "\n")

    # ---- training --------------------------------------------------------------------------------------------

    def run_folder(self, name: str) -> Path:
        """Where a run is kept, among those of the same seed."""
        return self.out / "runs" / f"seed-{self.seed}" / name

    def train(self, name: str, start_from: str | None) -> Path:
        """The folder of a run, trained if it is not, gone on with if it was interrupted."""
        folder = self.run_folder(name)
        if (folder / checkpoint.CONFIG_FILE).is_file() and _is_finished(folder):
            return folder
        recipe = chains.recipe_of(name)
        config = make_config(load_recipe(recipe).settings)
        images, table = self._images(name, config.frame)
        own = chains.settings_of(name, start_from) | (chains.printed_settings(name) if self.as_printed else {})
        run.train(
            images,
            folder,
            recipe=recipe,
            resume=(folder / checkpoint.CONFIG_FILE).is_file(),
            start_from=self.run_folder(start_from) if start_from else None,
            labels=table if config.method == "supervised" else None,
            device=self.device,
            progress=self.progress,
            **(own | self._settings(config, len(images))),
        )
        return folder

    def _settings(self, config: RunConfig, images: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"seed": self.seed}
        if self.quick:
            batch = min(_QUICK_BATCH, images)
            settings |= {"steps": _QUICK_STEPS, "batch_size": batch, "log_every": 1}
            if config.objective.pool:
                settings |= {"objective.auxiliaries": 1, "objective.pool": batch}
        return settings

    def _images(self, name: str, frame: Frame) -> tuple[PackedImages, LandmarkTable | None]:
        """The training images of a run, packed, and their landmarks if it has one data set."""
        sets = chains.data_of(name)
        splits = {data: _split_of(self.load(data), "train") for data in sets}
        size = f"{frame.size}" + (f"+{frame.pad}" if frame.pad else "")
        out = self.out / "packs" / f"{'+'.join(sets)}-{size}"
        packed = PackedImages.open(out) if is_pack(out) else self._pack(splits, frame, out)
        return packed, splits[sets[0]].table if len(sets) == 1 else None

    def _pack(self, splits: Mapping[str, Split], frame: Frame, out: Path) -> PackedImages:
        rows = [(data, row) for data, split in splits.items() for row in range(len(split))]
        many = len(splits) > 1

        def framed(place: tuple[str, int]) -> Framed:
            data, row = place
            image = splits[data].framed(row, frame.size)
            return replace(image, name=f"{_kind(data, splits[data], row)}/{data}/{image.name}") if many else image

        split = next(iter(splits.values()))
        by_name = {name: row for row, name in enumerate(split.images.names)}
        height, width = split.pixels(0).shape[:2]
        own = split.frame_of(0, (height, width), frame.size)
        with ThreadPoolExecutor() as pool:
            return write_pack(
                _in_chunks(pool, framed, rows),
                len(rows),
                out,
                own,
                split.images.path,
                (lambda name: split.flow(by_name[name])) if split.read_flow else None,
                progress=self.progress,
            )

    # ---- evaluating ------------------------------------------------------------------------------------------

    def evaluate(self, what: Mapping[str, Any]) -> Results:
        """The results of a protocol, kept for the next time as long as the run stays as it is."""
        settings = dict(what)
        protocol, name, data = (settings.pop(key) for key in ("protocol", "run", "data"))
        folder = self.run_folder(name)
        kept = self.out / "results" / f"{protocol}-{data}-{_digest(folder, what, self.seed)}.json"
        if kept.is_file():
            return Results.read(kept)
        common = {"root": self.folder_of(data), "seed": self.seed, "device": self.device, "progress": self.progress}
        with self.sizes():
            results = _PROTOCOLS[protocol](self, folder, data, common, settings).made_by(self.command)
        write_text(kept, results.to_json())
        return results

    def _matching(self, folder: Path, data: str, common: dict[str, Any], settings: dict[str, Any]) -> Results:
        return assessment.assess_matching(folder, data, **common, **settings)

    def _landmarks(self, folder: Path, data: str, common: dict[str, Any], settings: dict[str, Any]) -> Results:
        labels, other = settings.pop("labels", None), settings.pop("learn_from", None)
        spec = VirtualPointSpec(points=2, epochs=_QUICK_EPOCHS) if self.quick else None
        return assessment.assess_landmarks(
            folder,
            data,
            labels=self._few(labels),
            draws=1 if self.quick else 3,
            spec=spec,
            pairs=_QUICK_PAIRS if self.quick else PAIRS,
            learn_from=(other, self.folder_of(other)) if other else None,
            **common,
            **settings,
        )

    def _segmentation(self, folder: Path, data: str, common: dict[str, Any], settings: dict[str, Any]) -> Results:
        labels = settings.pop("labels", None)
        return assessment.assess_segmentation(
            folder,
            data,
            labels=self._few(labels),
            draws=1 if self.quick else 3,
            epochs=_QUICK_EPOCHS if self.quick else None,
            **common,
            **settings,
        )

    def _few(self, labels: str | None) -> list[int | None] | None:
        """Numbers of labels; in a quick trial there are hardly as many images."""
        wanted = assessment.parse_labels(labels) if labels else None
        return [each and min(each, 2) for each in wanted] if wanted and self.quick else wanted

    # ---- drawing ---------------------------------------------------------------------------------------------

    def draw(self, chain: Chain) -> Figure:
        """The figure of a chain."""
        drawing, settings = DRAWINGS[chain.figure["draw"]], chain.figure.get("settings", {})
        exhibits = {name: self._exhibit(spec) for name, spec in chain.figure["exhibits"].items()}
        return drawing(exhibits, **settings)

    def _exhibit(self, spec: Mapping[str, Any]) -> Exhibit:
        """Images of one set; or one image of the first, and images of the others."""
        model = LandmarkModel.load(self.run_folder(spec["run"]), device=self.device)
        shown = [self.load(data) for data in chains.shown_on(spec)]
        wanted, most = spec.get("split", "test"), min(spec.get("most", _SHOWN), _QUICK_SHOWN if self.quick else _SHOWN)
        parts = [_framed(_split_of(found, wanted), model, most) for found in shown]
        if len(parts) > 1:
            parts = [_first_of(parts[0]), *parts[1:]]
        head = None
        if spec.get("head"):
            learned = _framed(shown[0].split("train"), model, _LEARNED)
            assert learned.points is not None
            fitting = HeadSpec(pairs=_QUICK_PAIRS if self.quick else PAIRS)
            head = fit_head(model, learned.frames, learned.points, shown[0].landmark_names, fitting, seed=self.seed)
        return Exhibit(
            model,
            torch.cat([part.frames for part in parts]),
            _joined_points(parts),
            head,
            tuple(label for part in parts for label in part.labels),
        )


_PROTOCOLS = {
    "matching": Workshop._matching,
    "landmarks": Workshop._landmarks,
    "segmentation": Workshop._segmentation,
}


@dataclass(frozen=True)
class _Shown:
    """Frames (N, 3, S, S), landmarks (N, K, 2) in their pixels, and what they show."""

    frames: Tensor
    points: Points | None
    labels: tuple[str, ...]


def _framed(split: Split, model: LandmarkModel, most: int) -> _Shown:
    """Images from all over a split, in the protocol's crop."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(most, len(split))).round().astype(int)).tolist()
    framed = [split.framed(row, model.frame.size) for row in rows]
    pixels = torch.from_numpy(np.stack([each.pixels for each in framed])).movedim(-1, 1).contiguous()
    table = split.table
    points = None
    if table is not None:
        own = zip(framed, table.points[rows], strict=True)
        points = np.stack([each.placement.to_frame(landmarks) for each, landmarks in own])
    return _Shown(pixels, points, tuple(split.classes[row] for row in rows) if split.classes else ())


def _first_of(shown: _Shown) -> _Shown:
    points = None if shown.points is None else shown.points[:1]
    return _Shown(shown.frames[:1], points, shown.labels[:1] or ("",))


def _joined_points(parts: Sequence[_Shown]) -> Points | None:
    """Landmarks of all images: NaN for sets that have none, where the first has some."""
    if parts[0].points is None:
        return None
    count = parts[0].points.shape[1]
    unknown = (np.full((len(part.frames), count, 2), np.nan) for part in parts[1:])
    return np.concatenate([parts[0].points, *unknown])


def _kind(data: str, split: Split, row: int) -> str:
    """What an image shows, of which the sampling of several sets goes by the same name."""
    return split.classes[row] if split.classes else _KINDS.get(data, data)


def _split_of(found: Benchmark, wanted: str) -> Split:
    return found.split(wanted if wanted in found.splits else next(iter(found.splits)))


def _is_finished(folder: Path) -> bool:
    if not (folder / checkpoint.MODEL_FILE).is_file():
        return False
    kept = checkpoint.load(folder)
    return kept.step >= kept.config.resolve_steps(kept.data.count)


def _in_chunks(
    pool: ThreadPoolExecutor, work: Callable[[tuple[str, int]], Framed], items: Sequence[tuple[str, int]]
) -> Iterator[Framed]:
    """``map(work, items)`` in threads, some at a time, so that a large set need not fit into memory."""
    waiting = iter(items)
    while chunk := list(islice(waiting, _CHUNK)):
        yield from pool.map(work, chunk)


def _digest(folder: Path, what: Mapping[str, Any], seed: int) -> str:
    """Of a run's weights, what is evaluated on it, and the seed."""
    weights = (folder / checkpoint.MODEL_FILE).read_bytes()
    text = json.dumps([dict(what), seed], sort_keys=True).encode()
    return hashlib.sha256(weights + text).hexdigest()[:16]
