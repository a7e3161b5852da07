"""The documentation's code runs, and its links lead somewhere."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_conventions_hold() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/conventions.md").read_text(encoding="utf-8"), re.S)
    assert len(blocks) >= 5
    assert sum(block.count("assert") for block in blocks) >= 10
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_scripts_that_the_docs_name_exist() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"(?:benchmarks|docs)/\w+\.py", text))
    assert "benchmarks/orderings.py" in named and [name for name in named if not (ROOT / name).is_file()] == []


def test_the_recipes_that_the_docs_name_exist() -> None:
    from equimark.config import recipe_names

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"--recipe ([\w-]+)", text))
    assert named and named <= set(recipe_names())


def variants() -> list[list[str]]:
    """Rows of the table of every variant: names between backticks, by column."""
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8").split("## Every variant")[1]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    return rows


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_recipe_is_a_variant_and_every_key_exists() -> None:
    from equimark.config import config_keys, recipe_names

    named = [name for row in variants() for name in quoted(row[2])]
    elsewhere = {"equimark fit", "equimark fit --plot", "equimark match"}
    assert sorted(named) == sorted(set(named))
    assert set(named) - elsewhere - set(config_keys()) == set(recipe_names())


def test_every_variant_is_proven_by_a_test_that_is_there() -> None:
    for row in variants():
        (name,) = quoted(row[3])
        file, test = name.split("::")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name


def test_the_pictures_of_the_methods_are_those_that_the_script_draws() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/pictures"))["DRAWN"]
    text = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(images/(\w+)\.png\)", text)) == sorted(drawn)
    assert all((ROOT / f"docs/images/{name}.png").stat().st_size < 120_000 for name in drawn)
