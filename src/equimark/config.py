"""What a run is: one frozen, typed object, read from a recipe, a file or the command line.

Unknown keys are errors that name the nearest known one; impossible values are refused when the object is made.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from .geometry import Frame
from .pairs import PairSpec

Method = Literal["sparse", "dense", "dve", "supervised", "segmentation"]


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says what was given, what is wanted and the way out."""


@dataclass(frozen=True)
class NetworkSpec:
    """Which network, and what becomes of its last layer.

    Args:
        name: ``smallnet`` or ``hourglass``; for a supervised run also ``smallnet-plus``.
        channels: of the descriptors (C); for a sparse or supervised run the number of landmarks (K), for a
            segmentation the number of parts.
        vector_length: descriptors are scaled to this length; raw if absent.
        padding: what SmallNet's convolutions see beyond the picture: ``zeros``, ``reflect`` or ``replicate``. Zeros
            tell the network where the border is.
        leak: slope of SmallNet's ReLUs for negative values; if absent, that of the method's paper.
        freeze: keep the first three convolutions of a segmentation as they were in the run it starts from.
        landmarks: a dense or DVE run learns so many sparse landmarks beside its descriptors.
    """

    name: Literal["smallnet", "smallnet-plus", "hourglass"] = "smallnet"
    channels: int = 64
    vector_length: float | None = None
    padding: Literal["zeros", "reflect", "replicate"] = "zeros"
    leak: float | None = None
    freeze: bool = False
    landmarks: int = 0

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels (descriptor length or number of landmarks) must be at least 1: {self.channels}")
        if self.landmarks < 0:
            raise ValueError(f"landmarks beside the descriptors must not be negative: {self.landmarks}")
        if self.padding != "zeros" and self.name != "smallnet":
            raise ValueError(f"{self.name} pads with zeros; padding: {self.padding} is for smallnet")
        if self.vector_length is not None and self.vector_length <= 0:
            raise ValueError(f"vector_length must be positive, or null for raw vectors: {self.vector_length}")

    def __str__(self) -> str:
        beside = f", {self.landmarks} landmarks beside" if self.landmarks else ""
        return f"{self.name}, {self.channels} channels{beside}"


@dataclass(frozen=True)
class ObjectiveSpec:
    """Constants of the objectives.

    Args:
        power: of the distance in the dense objectives; 1 as printed, 0.5 as released.
        outside: whether source pixels whose place lies outside the other view count in the objectives:
            ``kept``, as in the papers, or ``dropped``.
        auxiliaries: number of images through which the descriptors of a pair are exchanged, or ``all`` there are.
        pool: how many further images are warped for each batch to take auxiliaries from; 0 takes them from the batch.
        auxiliaries_from: where there are several processes, auxiliaries are taken from the ``batch`` of all, so that
            the objective does not depend on their number, or from what the same ``process`` sees of it, so that they
            need not send each other their descriptors.
        alignment: of sparse landmarks, by their heat ``maps`` (2017, eq. 6) or as ``landmarks`` (eq. 5).
        diversity: of sparse landmarks, ``pooled`` (eq. 8) or ``overlap`` (eq. 7), both after sum pooling.
        gamma: weight of the diversity, about what two landmarks at one place cost, on the alignment summed over
            landmarks in squared pixels of an 80 px crop.
        window: side of the sum pooling before the diversity, in cells; 1 is eq. 8 or 7 itself.
        appearance_weight: of pairs whose motion is unknown: squared pixels of misalignment, in an 80 px crop, for
            which an appearance error of 1 stands.
        landmark_weight: of the objective of landmarks beside descriptors (``network.landmarks``), in that of these.
    """

    power: float = 0.5
    outside: Literal["kept", "dropped"] = "kept"
    auxiliaries: int | Literal["all"] = 1
    pool: int = 0
    auxiliaries_from: Literal["batch", "process"] = "batch"
    alignment: Literal["maps", "landmarks"] = "maps"
    diversity: Literal["pooled", "overlap"] = "pooled"
    gamma: float = 500.0
    window: int = 5
    appearance_weight: float = 5e3
    landmark_weight: float = 1e-3

    def __post_init__(self) -> None:
        if self.power <= 0 or self.gamma < 0 or self.window < 1:
            given = f"{self.power:g}, {self.gamma:g} and {self.window}"
            raise ValueError(f"power must be positive, gamma not negative and window at least 1, got {given}")
        if not self.landmark_weight > 0:
            given = f"{self.landmark_weight:g}"
            raise ValueError(f"landmark_weight must be positive, got {given}; network.landmarks 0 does without")
        if self.pool < 0 or (self.auxiliaries != "all" and self.auxiliaries < 1):
            given = f"{self.pool} and {self.auxiliaries}"
            raise ValueError(f"pool must not be negative and auxiliaries at least 1, or all, got {given}")


@dataclass(frozen=True)
class OptimiserSpec:
    """Adam and its schedule.

    Args:
        lr: learning rate (the peak, for ``one-cycle``).
        bias_lr: learning rate of the biases of convolutions; the same as the rest if absent.
        weight_decay: L2 penalty.
        amsgrad: keep the largest second moment seen.
        schedule: ``step`` multiplies by 0.1 at each milestone; ``one-cycle`` rises over the first 30 % and
            falls to nothing; ``constant``.
        milestones: as fractions of the whole run, so that a run of any length has the recipe's shape.
    """

    lr: float = 1e-3
    bias_lr: float | None = None
    weight_decay: float = 0.0
    amsgrad: bool = True
    schedule: Literal["step", "one-cycle", "constant"] = "step"
    milestones: tuple[float, ...] = (0.7, 0.9)

    def __post_init__(self) -> None:
        if not (self.lr > 0 and self.weight_decay >= 0):
            given = f"{self.lr:g} and {self.weight_decay:g}"
            raise ValueError(f"lr must be positive and weight_decay not negative, got {given}")
        if self.bias_lr is not None and not self.bias_lr > 0:
            raise ValueError(f"bias_lr must be positive, or null for the rate of the rest: {self.bias_lr}")
        if not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones are fractions of the run between 0 and 1: {self.milestones}")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run, apart from the images.

    Args:
        method: ``sparse`` (2017), ``dense`` (Dense3D) or ``dve``; with labels, ``supervised`` (landmarks) or
            ``segmentation`` (parts).
        network: see :class:`NetworkSpec`.
        frame: the square in which the network sees an image.
        pairs: how a frame becomes a training pair.
        objective: constants of the objective.
        optimiser: and its schedule.
        steps: length of the run; if absent, ``epochs`` passes over the images.
        epochs: length of the run when ``steps`` is absent.
        batch_size: pairs per step, over all processes.
        accumulation: how many micro-batches a batch is cut into, one after the other, to need less memory. The
            gradient is that of the whole batch, but batch norm and the exchange with auxiliaries see a micro-batch.
        batch_norm: where there are several processes, the statistics of batch norm are those of what each sees
            (``separate``) or of what all see (``synchronised``), as if they were one.
        sampling: ``shuffled``; by class, which is the folder of an image, ``proportional`` or ``balanced``: each
            batch has the share of each class that all images have, or equal shares.
        seed: of weights, order, warps and photometric change, each with a generator of its own.
        precision: of the networks: ``no`` (float32), ``bf16`` (newer processors and cards) or ``fp16`` (cards).
        log_every: steps between lines of the log.
        save_every: steps between saved states.
    """

    method: Method = "dve"
    network: NetworkSpec = field(default_factory=NetworkSpec)
    frame: Frame = field(default_factory=Frame)
    pairs: PairSpec = field(default_factory=PairSpec)
    objective: ObjectiveSpec = field(default_factory=ObjectiveSpec)
    optimiser: OptimiserSpec = field(default_factory=OptimiserSpec)
    steps: int | None = None
    epochs: int = 100
    batch_size: int = 32
    accumulation: int = 1
    batch_norm: Literal["separate", "synchronised"] = "separate"
    sampling: Literal["shuffled", "proportional", "balanced"] = "shuffled"
    seed: int = 0
    precision: Literal["no", "bf16", "fp16"] = "no"
    log_every: int = 20
    save_every: int = 500

    def __post_init__(self) -> None:
        self.pairs.crop_size(self.frame.size)
        counts = {"epochs": self.epochs, "log_every": self.log_every, "save_every": self.save_every}
        counts |= {"batch_size": self.batch_size, "accumulation": self.accumulation}
        counts |= {"steps": 1 if self.steps is None else self.steps}
        for key, count in counts.items():
            if count < 1:
                raise ValueError(f"{key} must be at least 1, got {count}")
        if self.method == "dve":
            self._check_auxiliaries()
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if (self.network.name == "smallnet-plus" and self.method != "supervised") or (
            self.network.name == "hourglass" and self.is_supervised
        ):
            raise ValueError(f"method: {self.method} cannot use network.name: {self.network.name}")
        if self.pairs.motion == "unknown" and self.method != "sparse":
            raise ValueError("motion: unknown is fitted through sparse landmarks: method: sparse")
        if self.network.landmarks and not self.has_descriptors:
            raise ValueError(
                f"network.landmarks are learned beside descriptors, by method: dve or dense, not {self.method}; "
                "network.channels is the number of landmarks there"
            )

    def _check_auxiliaries(self, parts: int = 1) -> None:
        wanted, pool, size = self.objective.auxiliaries, self.objective.pool // parts, self.batch_size // parts
        where = "the batch" if parts == 1 else f"one of the {parts} parts of the batch"
        if pool == 0 and size < 2:
            raise ValueError(f"batch_size must be at least {2 * parts} for dve: the auxiliary image comes from {where}")
        others = pool or size - 1
        if wanted != "all" and wanted > others:
            within = "" if parts == 1 else f" in {where}"
            raise ValueError(
                f"objective.auxiliaries is {wanted}, but there are {others} images{within} to take them from: use a "
                "larger batch_size or objective.pool"
            )

    def check_division(self, processes: int) -> None:
        """Refuse a batch that so many processes cannot share equally.

        Raises:
            ConfigError: with the sizes that they can share.
        """
        parts = processes * self.accumulation
        sizes = {"batch_size": self.batch_size, "objective.pool": self.objective.pool if self.method == "dve" else 0}
        for key, size in sizes.items():
            if size % parts:
                raise ConfigError(
                    f"{key} is {size}, which cannot be cut into equal parts for processes x accumulation = "
                    f"{processes} x {self.accumulation}: choose a multiple of {parts}"
                )
        if self.method == "dve":
            try:
                self._check_auxiliaries(parts if self.objective.auxiliaries_from == "process" else self.accumulation)
            except ValueError as error:
                raise ConfigError(str(error)) from None

    @property
    def landmarks(self) -> int:
        """How many landmarks of its own, without labels, the run learns."""
        return self.network.channels if self.method == "sparse" else self.network.landmarks

    @property
    def has_descriptors(self) -> bool:
        """Whether the run learns to describe every place."""
        return self.method in ("dense", "dve")

    @property
    def is_supervised(self) -> bool:
        """Whether training needs labels."""
        return self.method in ("supervised", "segmentation")

    def resolve_steps(self, images: int) -> int:
        """Length of the run on that many images."""
        return self.steps if self.steps is not None else max(1, self.epochs * images // self.batch_size)


@dataclass(frozen=True)
class Recipe:
    """A named configuration and what is known about it.

    Args:
        name: of the recipe.
        settings: the keys of :class:`RunConfig` that it sets, nested.
        about: ``title``, ``data`` and ``expected``, for people.
    """

    name: str
    settings: dict[str, Any]
    about: dict[str, str]


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(f.name.removesuffix(".yaml") for f in _recipe_folder().iterdir() if f.name.endswith(".yaml"))


def load_recipe(name_or_file: str) -> Recipe:
    """A recipe of the package by name, or a YAML file. ``base:`` in it names the recipe that it changes.

    Raises:
        ConfigError: if there is no such recipe, or it is not a mapping.
    """
    return _load_recipe(name_or_file, ())


def _load_recipe(name_or_file: str, above: tuple[str, ...]) -> Recipe:
    """A recipe that is, by way of others, the base of those ``above``."""
    if name_or_file in above:
        raise ConfigError(f"recipe {name_or_file} is, by way of base, built on itself")
    if name_or_file.endswith((".yaml", ".yml")):
        path = Path(name_or_file)
        if not path.is_file():
            raise ConfigError(f"there is no recipe file {path}")
        text, name = path.read_text(encoding="utf-8"), path.stem
    elif name_or_file in recipe_names():
        text, name = (_recipe_folder() / f"{name_or_file}.yaml").read_text(encoding="utf-8"), name_or_file
    else:
        raise ConfigError(
            f"unknown recipe {name_or_file!r}{nearest(name_or_file, recipe_names())}; "
            "`equimark recipes` lists them, and a file must end in .yaml"
        )
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name_or_file} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{name_or_file} must hold a mapping of configuration keys")
    about, base = content.pop("about", {}), content.pop("base", None)
    if not isinstance(about, dict) or not isinstance(base, str | None):
        raise ConfigError(f"{name_or_file}: about must be a mapping, and base the name of a recipe or a file")
    if base is None:
        return Recipe(name, content, about)
    parent = _load_recipe(base, (*above, name_or_file))
    return Recipe(name, _merge(parent.settings, content), parent.about | about)


def _recipe_folder() -> Any:
    return resources.files("equimark") / "recipes"


def make_config(*layers: Mapping[str, Any]) -> RunConfig:
    """The configuration with these settings, nested mappings or dotted keys, later layers over earlier ones.

    What no layer sets is left at its default.

    Raises:
        ConfigError: for an unknown key or an impossible value.
    """
    nested: dict[str, Any] = {}
    for key, value in ((key, value) for layer in layers for key, value in layer.items()):
        nested = _merge(nested, _nest(str(key), value))
    known = set(config_keys())
    for key in _leaves(nested):
        if key not in known:
            raise ConfigError(f"unknown configuration key {key!r}{nearest(key, known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(RunConfig, fail_untyped=True)
    try:
        namespace = parser.instantiate(parser.parse_object(nested))
        return RunConfig(**_arguments(namespace))
    except (ArgumentError, ValueError, TypeError) as error:
        raise ConfigError(explain(error)) from None


def _arguments(namespace: Namespace) -> dict[str, Any]:
    return {f.name: namespace[f.name] for f in dataclasses.fields(RunConfig)}


def explain(error: Exception) -> str:
    """The part of a parser's message that speaks of the value."""
    text = " ".join(line.strip(" -") for line in str(error).splitlines() if line.strip())
    found = _UNFIT.fullmatch(text)
    kinds = _KIND.findall(found["one"] or found["several"]) if found else []
    if not found or not kinds:
        return text
    wanted = " or ".join(_KINDS.get(kind, choices or kind) for kind, choices in kinds)
    return f"{found['key']} must be {wanted}, got {found['got'] or found['given'] or ''!r}"


# Two messages of jsonargparse, and the types that they name.
_UNFIT = re.compile(
    r'Parser key "(?P<key>[^"]+)": (?:Expected a (?P<one>\S.*)\. Got value: (?P<got>.*)'
    r"|Does not validate against any of the Union subtypes Subtypes: \[(?P<several>.*)\] Errors: .* "
    r"Given value: (?P<given>.*))"
)
_KIND = re.compile(r"<class '(\w+)'>|typing\.Literal\[([^\]]*)\]")
_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}


def config_keys(kind: type = RunConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of all configuration keys."""
    hints = {f.name: f for f in dataclasses.fields(kind)}
    defaults = kind()
    for name in hints:
        value = getattr(defaults, name)
        if dataclasses.is_dataclass(value):
            yield from config_keys(type(value), f"{prefix}{name}.")
        else:
            yield prefix + name


def to_mapping(config: RunConfig) -> dict[str, Any]:
    """All keys, nested, as plain YAML values."""
    return cast(dict[str, Any], _plain(dataclasses.asdict(config)))


def differing_keys(a: RunConfig, b: RunConfig) -> list[str]:
    """Dotted keys in which two configurations differ, with both values."""
    left, right = dict(_flatten(to_mapping(a))), dict(_flatten(to_mapping(b)))
    return [f"{key}: {left[key]} -> {right[key]}" for key in left if left[key] != right[key]]


def _nest(dotted: str, value: Any) -> dict[str, Any]:
    *outer, last = dotted.split(".")
    nested = {last: value}
    for part in reversed(outer):
        nested = {part: nested}
    return nested


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _leaves(mapping: Mapping[str, Any]) -> list[str]:
    return [key for key, _ in _flatten(mapping)]


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word most like this one, or nothing."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
