"""The rooms of the package: which may see which, and what the world sees of them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import equimark

PACKAGE = Path(equimark.__file__).parent

# A module imports only from modules above it, so no cycle can appear.
ORDER = (
    "files",
    "progress",
    "processes",
    "geometry",
    "warps",
    "images",
    "landmarks",
    "arrow",
    "formats",
    "flows",
    "shards",
    "sharding",
    "packs",
    "synthetic",
    "benchmarks",
    "pairs",
    "networks",
    "matching_kernel",
    "matching_loss",
    "thin_plate",
    "objectives",
    "config",
    "health",
    "feed",
    "sampling",
    "methods",
    "checkpoint",
    "provenance",
    "log",
    "training",
    "matching",
    "symmetry",
    "directions",
    "detection",
    "virtual_points",
    "shapes",
    "prototypes",
    "regression",
    "segmentation",
    "embedding",
    "head",
    "model",
    "discovery",
    "run",
    "graphs",
    "export",
    "hub",
    "suggestion",
    "prediction",
    "tracks",
    "bulk",
    "metrics",
    "evaluation",
    "records",
    "protocols",
    "retraining",
    "annotated",
    "results",
    "assessment",
    "tabulation",
    "chains",
    "plots",
    "overlay",
    "figures",
    "workshop",
    "reproduce",
    "page",
    "report",
    "demo",
    "app",
    "timing",
    "arguments",
    "commands",
    "__init__",
    "cli",
    "__main__",
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("equimark")):
            module = (node.module or "").removeprefix("equimark").strip(".")
            rooms |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("equimark.")}
    return rooms


def test_every_module_has_its_place() -> None:
    assert {room_of(path) for path in PACKAGE.rglob("*.py")} == set(ORDER)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_import_only_from_above(path: Path) -> None:
    here = room_of(path)
    above = set(ORDER[: ORDER.index(here)])
    inside = {here} if path.parent != PACKAGE else set()
    assert imported_rooms(path) - above - inside == set()


def test_exported_names() -> None:
    assert sorted(equimark.__all__) == equimark.__all__
    assert set(equimark.__all__) == {
        "Frame",
        "Head",
        "ImageError",
        "LandmarkModel",
        "LandmarkTable",
        "Landmarks",
        "Matches",
        "PackedImages",
        "Run",
        "RunConfig",
        "TrainingError",
        "__version__",
        "objectives",
        "pack",
        "read_landmarks",
        "train",
        "write_landmarks",
    }
    for name in equimark.__all__:
        assert getattr(equimark, name) is not None


def test_package_data_is_found() -> None:
    from equimark.config import load_recipe, make_config, recipe_names

    assert len(recipe_names()) >= 10
    for name in recipe_names():
        recipe = load_recipe(name)
        make_config(recipe.settings)
        assert {"title", "data", "expected"} <= set(recipe.about)


def test_a_command_does_not_wait_for_what_few_commands_need() -> None:
    slow = (
        "sklearn",
        "pandas",
        "scipy.stats",
        "fastapi",
        "pyarrow",
        "av",
        "onnx",
        "onnxruntime",
        "tensorboard",
        "triton",
    )
    code = f"import sys, equimark.cli; print([name for name in {slow} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
