import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from equimark.config import (
    ConfigError,
    NetworkSpec,
    ObjectiveSpec,
    OptimiserSpec,
    RunConfig,
    config_keys,
    differing_keys,
    load_recipe,
    make_config,
    nearest,
    recipe_names,
    to_mapping,
)
from equimark.geometry import Frame
from equimark.pairs import NO_CHANGE, PairSpec
from equimark.warps import PRESETS


def test_nothing_given_is_the_default() -> None:
    assert make_config() == make_config({}) == RunConfig()


def test_layers_later_over_earlier_nested_or_dotted() -> None:
    config = make_config(
        {"method": "dense", "network": {"name": "hourglass", "channels": 32}, "optimiser": {"lr": 0.1}},
        {"network.channels": 16},
        {"optimiser": {"amsgrad": False}},
    )
    assert config.method == "dense"
    assert config.network == NetworkSpec("hourglass", 16)
    assert (config.optimiser.lr, config.optimiser.amsgrad) == (0.1, False)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optimiser.lr", "1e-3", 1e-3),
        ("optimiser.lr", "2", 2.0),
        ("optimiser.bias_lr", "null", None),
        ("optimiser.bias_lr", "1e-5", 1e-5),
        ("optimiser.milestones", "[0.5]", (0.5,)),
        ("optimiser.milestones", "[0.25, 0.5]", (0.25, 0.5)),
        ("optimiser.amsgrad", "false", False),
        ("steps", "null", None),
        ("steps", "20", 20),
        ("precision", "no", "no"),
        ("precision", "bf16", "bf16"),
        ("frame.fit", "letterbox", "letterbox"),
        ("frame.fit", "0.1,0.1,0.9,0.9", "0.1,0.1,0.9,0.9"),
        ("network.vector_length", "20", 20.0),
        ("pairs.first.perturbation", "added", "added"),
        ("pairs.photometric.jpeg_quality", "[50, 60]", (50.0, 60.0)),
    ],
)
def test_overrides_as_text(key: str, text: str, value: object) -> None:
    config: object = make_config({key: text})
    for part in key.split("."):
        config = getattr(config, part)
    assert config == value
    assert type(config) is type(value)


@pytest.mark.parametrize(
    ("given_key", "meant"),
    [
        ("optimizer.lr", "optimiser.lr"),
        ("bach_size", "batch_size"),
        ("pairs.margins", "pairs.margin"),
        ("network.chanels", "network.channels"),
        ("pairs.photometric.brightnes", "pairs.photometric.brightness"),
    ],
)
def test_unknown_key_names_the_nearest(given_key: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown configuration key '{given_key}' \(did you mean '{meant}'\?\)"):
        make_config({given_key: 1})


def test_unknown_key_deep_in_a_mapping() -> None:
    with pytest.raises(ConfigError, match=r"'pairs\.first\.bent' \(did you mean 'pairs\.first\.bend'\?\)"):
        make_config({"pairs": {"first": {"bent": 1}}})


@pytest.mark.parametrize("content", [{"pairs": 5}, {"optimiser": None}, {"optimiser.lr": {"peak": 1}}])
def test_value_where_a_section_is_wanted(content: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="unknown configuration key"):
        make_config(content)


@pytest.mark.parametrize("content", [{5: 3}, {"pairs": {5: 3}}])
def test_keys_that_are_not_words(content: dict) -> None:
    with pytest.raises(ConfigError, match=r"unknown configuration key '(pairs\.)?5'"):
        make_config(content)


@pytest.mark.parametrize(
    ("settings_given", "says"),
    [
        ({"network.channels": 0}, "number of landmarks.*at least 1: 0"),
        ({"network.vector_length": -1}, "vector_length must be positive"),
        ({"network.name": "resnet"}, "network.name.*smallnet.*resnet"),
        ({"method": "dense", "batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"method": "dve", "batch_size": 1}, "batch_size must be at least 2 for dve"),
        ({"pairs.margin": 45}, r"margin=45 leaves a crop of 10 pixels .* choose a margin of at most 42"),
        ({"pairs.margin": -1}, "margin must not be negative"),
        ({"frame.size": 4}, "too small"),
        ({"frame.fit": "center"}, "fit must be centre.*'center'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": "many"}, "steps.*many"),
        ({"steps": 2.5}, r"steps.*2\.5"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"save_every": 0}, "save_every must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"optimiser.lr": 0}, "lr must be positive"),
        ({"optimiser.lr": float("nan")}, "lr"),
        ({"optimiser.bias_lr": -1}, "bias_lr"),
        ({"optimiser.bias_lr": 0}, "bias_lr"),
        ({"optimiser.milestones": [1.5]}, "milestones are fractions"),
        ({"optimiser.schedule": "cosine"}, "optimiser.schedule.*cosine"),
        ({"objective.power": 0}, "power must be positive"),
        ({"objective.window": 0}, "window at least 1"),
        ({"pairs.first.bend": -1}, "must not be negative"),
        ({"pairs.photometric.brightness": 2}, r"lie in \[0, 1\]"),
        ({"precision": "fp64"}, "precision.*fp64"),
    ],
)
def test_impossible_values(settings_given: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_config(settings_given)


def test_a_batch_of_one_is_enough_without_exchange() -> None:
    assert make_config({"method": "dense", "batch_size": 1}).batch_size == 1


def test_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().steps = 3  # type: ignore[misc]


def test_config_keys_are_all_leaves() -> None:
    keys = list(config_keys())
    assert len(set(keys)) == len(keys)
    assert {"method", "steps", "frame.size", "optimiser.lr", "pairs.second.rotation"} <= set(keys)
    assert "pairs" not in keys


def test_differing_keys_names_both_values() -> None:
    a = make_config({"steps": 5})
    assert differing_keys(a, a) == []
    b = make_config({"steps": 7, "optimiser.lr": 0.5, "pairs.first.bend": 0.25})
    assert differing_keys(a, b) == [
        f"pairs.first.bend: {a.pairs.first.bend} -> 0.25",
        "optimiser.lr: 0.001 -> 0.5",
        "steps: 5 -> 7",
    ]


@pytest.mark.parametrize(
    ("config", "images", "steps"),
    [
        ({"steps": 7}, 1000, 7),
        ({"epochs": 3, "batch_size": 10}, 100, 30),
        ({"epochs": 3, "batch_size": 32}, 100, 9),
        ({"epochs": 1, "batch_size": 32}, 5, 1),
    ],
)
def test_resolve_steps(config: dict[str, int], images: int, steps: int) -> None:
    assert make_config(config).resolve_steps(images) == steps


def test_nearest() -> None:
    assert nearest("dve-smalnet-64", ["dve-smallnet-64", "sparse-10"]) == " (did you mean 'dve-smallnet-64'?)"
    assert nearest("xyzzy", ["dve-smallnet-64"]) == ""


# ---- recipes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_round_trips(name: str) -> None:
    recipe = load_recipe(name)
    config = make_config(recipe.settings)
    assert recipe.name == name
    assert make_config(yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config


def test_the_papers_constants() -> None:
    dve = make_config(load_recipe("dve-smallnet-64").settings)
    assert (dve.method, dve.network, dve.frame.size, dve.pairs.crop_size(100)) == ("dve", NetworkSpec(), 100, 70)
    hourglass = make_config(load_recipe("dve-hourglass-64").settings)
    assert (hourglass.network.name, hourglass.pairs.crop_size(hourglass.frame.size)) == ("hourglass", 96)
    sparse = make_config(load_recipe("sparse-10").settings)
    assert (sparse.method, sparse.network.channels, sparse.objective.gamma) == ("sparse", 10, 500)
    assert sparse.pairs.photometric == NO_CHANGE.__class__(0, 0, 0, 0, 0)


# Which warps each recipe has (2017 supplement, table 1; 2019: those of Dense3D), typed a second time.
WARPED = {
    "faces": [
        *("sparse-10", "sparse-10-paper", "sparse-30", "sparse-30-paper", "sparse-50", "sparse-50-paper"),
        *("sparse-aflw-51", "sparse-cats-10", "sparse-cats-20", "sparse-shoes-8", "finetune-sparse-50"),
        *("supervised-smallnet", "supervised-smallnet-plus"),
        *("segmentation-scratch", "segmentation-pretrained", "segmentation-finetuned"),
    ],
    "mnist": ["sparse-mnist"],
    "dve": [
        *("dense3d-smallnet", "dense-smallnet-16", "dense-smallnet-32", "dense-smallnet-64", "joint-smallnet-64"),
        *("dve-smallnet-3", "dve-smallnet-16", "dve-smallnet-32", "dve-smallnet-64", "dve-smallnet-64-paper"),
        *("dve-hourglass-64", "dve-animals", "finetune-dve-smallnet-64", "finetune-dve-hourglass-64"),
    ],
    "identity": [
        *("roboarm-3", "roboarm-3-dve", "roboarm-3-dve-identity", "roboarm-20", "roboarm-20-dve"),
        *("roboarm-20-dve-identity", "sparse-pairs", "sparse-unknown-warp"),
    ],
}


@pytest.mark.parametrize("preset", WARPED)
def test_recipes_warp_as_the_papers(preset: str) -> None:
    for name in WARPED[preset]:
        spec = make_config(load_recipe(name).settings).pairs
        if preset == "identity":
            assert spec.first.is_identity and spec.second.is_identity, name
        else:
            assert (spec.first, spec.second) == PRESETS[preset], name


def test_every_recipe_has_warps_of_a_preset() -> None:
    flow = make_config(load_recipe("sparse-flow").settings).pairs  # bends the source alone, as the flow asks for
    assert flow.first.is_identity and flow.second == PRESETS["faces"][1]
    assert sorted(["sparse-flow", *(name for names in WARPED.values() for name in names)]) == sorted(recipe_names())


def test_other_categories_are_framed_as_the_paper_frames_them() -> None:
    """2017 supplement, section 1: number of landmarks, side of the crop, window of the pooling, what stands around."""
    for name, row in {
        "sparse-mnist": (7, 35, 3, "black"),
        "sparse-shoes-8": (8, 64, 5, "white"),
        "sparse-cats-10": (10, 80, 5, "edge"),
        "sparse-cats-20": (20, 80, 5, "edge"),
        "sparse-aflw-51": (51, 80, 3, "edge"),
    }.items():
        config = make_config(load_recipe(name).settings)
        crop = config.pairs.crop_size(config.frame.size)
        assert (config.network.channels, crop, config.objective.window, config.frame.fill) == row, name


@pytest.mark.parametrize(
    ("recipe", "rate", "bias_rate", "decay", "amsgrad", "milestones", "batch"),
    [
        ("sparse-10-paper", 1e-4, None, 5e-4, False, (0.8,), 16),
        ("sparse-30-paper", 1e-4, None, 5e-4, False, (0.8,), 16),
        ("sparse-50-paper", 1e-4, None, 5e-4, False, (0.8,), 16),
        ("dve-smallnet-64-paper", 1e-3, 1e-5, 0, True, (0.7, 0.9), 32),
        ("dve-hourglass-64", 1e-3, None, 0, True, (0.5,), 16),
    ],
)
def test_optimisers_are_the_papers(
    recipe: str, rate: float, bias_rate: float | None, decay: float, amsgrad: bool, milestones: Any, batch: int
) -> None:
    """2017, section 4.1; 2019, section 4 and its released code."""
    config = make_config(load_recipe(recipe).settings)
    spec = config.optimiser
    assert (spec.lr, spec.bias_lr, spec.weight_decay, spec.amsgrad) == (rate, bias_rate, decay, amsgrad)
    assert (spec.schedule, spec.milestones, config.batch_size, config.epochs) == ("step", milestones, batch, 100)
    assert config.network.padding == "zeros"
    if config.method == "sparse":
        assert (config.objective.diversity, config.objective.gamma, config.objective.window) == ("pooled", 500, 5)


def test_landmarks_beside_descriptors() -> None:
    joint = make_config(load_recipe("joint-smallnet-64").settings)
    assert (joint.landmarks, joint.has_descriptors) == (10, True)
    assert str(joint.network) == "smallnet, 64 channels, 10 landmarks beside"
    dve, sparse = (make_config(load_recipe(name).settings) for name in ("dve-smallnet-64", "sparse-30"))
    assert (dve.landmarks, sparse.landmarks, sparse.has_descriptors) == (0, 30, False)
    for wrong, message in (
        ({"method": "sparse", "network.landmarks": 3}, "network.channels is the number of landmarks there"),
        ({"network.landmarks": -1}, "must not be negative"),
        ({"objective.landmark_weight": 0}, "network.landmarks 0 does without"),
    ):
        with pytest.raises(ConfigError, match=message):
            make_config(wrong)


def test_recipe_file_with_a_base(tmp_path: Path) -> None:
    own = tmp_path / "birds.yaml"
    own.write_text(
        "base: dve-smallnet-16\nabout: {data: my birds}\noptimiser: {lr: 0.5}\npairs: {first: {rotation: 9}}\n"
    )
    recipe = load_recipe(str(own))
    config, parent = make_config(recipe.settings), make_config(load_recipe("dve-smallnet-16").settings)
    assert recipe.name == "birds"
    assert recipe.about["data"] == "my birds"
    assert "2.79 px different" in recipe.about["expected"]
    assert [d.split(":")[0] for d in differing_keys(parent, config)] == ["pairs.first.rotation", "optimiser.lr"]


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe 'dve-smalnet-64' \(did you mean 'dve-smallnet-64'\?\)"):
        load_recipe("dve-smalnet-64")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("- a list", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("a: [1", "not valid YAML"),
        ("base: nonsense", "unknown recipe 'nonsense'"),
        ("base: 5", "base"),
        ("base: {file}", "itself"),
        ("about: words", "about"),
    ],
)
def test_recipe_files_that_cannot_be_used(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content.replace("{file}", str(path)))
    with pytest.raises(ConfigError, match=says):
        load_recipe(str(path))


def test_missing_recipe_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))


# ---- round trip ---------------------------------------------------------------------------------------------

positive = st.floats(1e-6, 1e3)
optimisers = st.builds(
    OptimiserSpec,
    lr=positive,
    bias_lr=st.none() | positive,
    weight_decay=st.floats(0, 1),
    amsgrad=st.booleans(),
    schedule=st.sampled_from(["step", "one-cycle", "constant"]),
    milestones=st.lists(st.floats(0.01, 0.99), max_size=3).map(tuple),
)
frames = st.builds(
    Frame,
    size=st.integers(60, 200),
    fit=st.sampled_from(["centre", "letterbox", "stretch", "0.25,0.0,0.5,1.0"]),
    pad=st.integers(0, 20),
    fill=st.sampled_from(["edge", "black", "white"]),
)
configs = st.builds(
    RunConfig,
    method=st.sampled_from(["sparse", "dense", "dve"]),
    network=st.builds(
        NetworkSpec,
        name=st.sampled_from(["smallnet", "hourglass"]),
        channels=st.integers(1, 100),
        vector_length=st.none() | positive,
    ),
    frame=frames,
    pairs=st.builds(PairSpec, margin=st.integers(0, 20)),
    objective=st.builds(ObjectiveSpec, power=positive, gamma=st.floats(0, 1e4), window=st.integers(1, 9)),
    optimiser=optimisers,
    steps=st.none() | st.integers(1, 10**7),
    epochs=st.integers(1, 1000),
    batch_size=st.integers(2, 100),
    seed=st.integers(0, 2**31),
    precision=st.sampled_from(["no", "bf16", "fp16"]),
)


@settings(max_examples=25)
@given(configs)
def test_any_config_survives_yaml(config: RunConfig) -> None:
    written = yaml.safe_dump(to_mapping(config))
    assert make_config(yaml.safe_load(written)) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": "five"}, "steps must be a whole number or null, got 'five'"),
        ({"optimiser": {"lr": "fast"}}, "optimiser.lr must be a number, got 'fast'"),
        (
            {"optimiser": {"schedule": "x"}},
            "optimiser.schedule must be 'step', 'one-cycle', 'constant', got 'x'",
        ),
        ({"objective": {"auxiliaries": "many"}}, "objective.auxiliaries must be a whole number or 'all', got 'many'"),
    ],
)
def test_values_of_another_kind(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_config(settings)
    assert str(error.value) == message
