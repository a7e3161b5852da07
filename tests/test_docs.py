"""The documentation's code runs, and its links lead somewhere."""

import re
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


def test_the_recipes_that_the_docs_name_exist() -> None:
    from equimark.config import recipe_names

    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"--recipe ([\w-]+)", text))
    assert named and named <= set(recipe_names())
