"""One static HTML page of text, numbers, tables and figures.

It opens from disk and can be mailed: figures lie in the file itself, and beside it in ``figures/``.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from . import checkpoint
from .files import replace_file, write_text

REPORT_FILE = "report.html"
FIGURES_FOLDER = "figures"

_STYLE = """
:root { color-scheme: light dark; --paper: #f6f7f9; --card: #fff; --ink: #1f2933; --muted: #5d6b7c; --rule: #dfe5ec;
  --accent: #2364d2; --alarm: #b42318; --alarm-paper: #fff1ef; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181e; --card: #1d232b; --ink: #e7ecf2; --muted: #9dabbb;
  --rule: #323b47; --accent: #7db0ff; --alarm: #ff9d92; --alarm-paper: #3a1f1d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 3rem; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 .6rem; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 0 0 .3rem; }
p { margin: .3rem 0 .9rem; max-width: 74ch; }
.lead { font-size: 1.1rem; color: var(--muted); }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.1rem; padding: .6rem 0 0; font-size: .92rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 14px; padding: 1.4rem 1.6rem;
  margin: 1.4rem 0; }
figure { margin: 1rem 0 1.2rem; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 8px; padding: 8px;
  border: 1px solid var(--rule); }
figcaption, .meaning, caption { color: var(--muted); font-size: .92rem; }
figcaption { margin-top: .5rem; max-width: 78ch; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: .9rem; margin: 1rem 0; }
dl div { border-left: 3px solid var(--accent); padding: .1rem 0 .1rem .8rem; }
dt { font-size: .9rem; } dd { margin: 0; } dd b { display: block; font-size: 1.5rem; line-height: 1.25; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; margin: .6rem 0; } caption { text-align: left; padding: .2rem 0; }
th, td { text-align: left; padding: .4rem 1.2rem .4rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; } td.number { font-variant-numeric: tabular-nums; }
aside { background: var(--alarm-paper); border-left: 4px solid var(--alarm); border-radius: 6px; margin: .9rem 0;
  padding: .7rem 1rem; } aside strong { color: var(--alarm); }
footer { color: var(--muted); font-size: .88rem; padding-bottom: 3rem; }
"""


@dataclass
class Page:
    """A page, built from top to bottom.

    Args:
        title: of the page.
        lead: what it is about, in a sentence or two.
    """

    title: str
    lead: str
    _sections: list[tuple[str, list[str]]] = field(default_factory=list, init=False)
    _figures: dict[str, bytes] = field(default_factory=dict, init=False)

    def section(self, title: str, text: str = "") -> None:
        """Begin a section; what is added from now on belongs to it."""
        self._sections.append((title, []))
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._add(f"<p>{html.escape(text)}</p>")

    def warning(self, text: str) -> None:
        """Add a paragraph that must not be overlooked."""
        self._add(f'<aside role="note"><strong>Take care.</strong> {html.escape(text)}</aside>')

    def numbers(self, numbers: Sequence[tuple[str, str, str]]) -> None:
        """Add numbers: what each is, its value, and what it means."""
        items = (
            f'<div><dt>{html.escape(what)}</dt><dd><b>{html.escape(value)}</b> <span class="meaning">'
            f"{html.escape(meaning)}</span></dd></div>"
            for what, value, meaning in numbers
        )
        self._add(f"<dl>{''.join(items)}</dl>")

    def figure(self, name: str, figure: Figure, caption: str, *, alt: str = "") -> None:
        """Add a figure.

        Args:
            name: of its file, without ending.
            figure: drawn now; changes made afterwards do not show.
            caption: below the figure.
            alt: for those who cannot see it; the caption if empty.

        Raises:
            ValueError: if the name is not a plain file name, or is taken.
        """
        if not re.fullmatch(r"[\w-]+", name) or name in self._figures:
            taken = "is taken" if name in self._figures else "must be of letters, digits, - and _"
            raise ValueError(f"the name of a figure {taken}: {name!r}")
        png = io.BytesIO()
        figure.savefig(png, format="png", pil_kwargs={"compress_level": 4})
        self._figures[name] = png.getvalue()
        data = base64.b64encode(png.getvalue()).decode("ascii")
        self._add(
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(alt or caption)}" '
            f'width="{round(figure.get_figwidth() * 110)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        )

    def table(self, rows: Sequence[Sequence[object]], columns: Sequence[str], caption: str = "") -> None:
        """Add a table; floats are shown with three significant digits."""
        head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
        body = "".join(f"<tr>{''.join(map(_table_cell, row))}</tr>" for row in rows)
        title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        self._add(
            f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def write(self, folder: Path) -> Path:
        """Write ``report.html`` and ``figures/*.png``; the path of the page.

        Raises:
            OSError: if the folder cannot be written.
        """
        for name, png in self._figures.items():
            replace_file(folder / FIGURES_FOLDER / f"{name}.png", partial(_write_bytes, content=png))
        write_text(folder / REPORT_FILE, self.render())
        return folder / REPORT_FILE

    def render(self) -> str:
        """The whole page."""
        titles = [html.escape(title) for title, _ in self._sections]
        links = "".join(f'<a href="#s{i}">{title}</a>' for i, title in enumerate(titles))
        sections = "".join(
            f'<section id="s{i}"><h2>{titles[i]}</h2>{"".join(parts)}</section>\n'
            for i, (_, parts) in enumerate(self._sections)
        )
        title, lead = html.escape(self.title), html.escape(self.lead)
        return (
            '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n"
            f'<header><h1>{title}</h1><p class="lead">{lead}</p><nav aria-label="Sections">{links}</nav></header>\n'
            f"<main>\n{sections}</main>\n<footer>Written by Equimark {checkpoint.versions()['equimark']}. "
            f"The figures also lie in the folder {FIGURES_FOLDER}.</footer>\n</body>\n</html>\n"
        )

    def _add(self, part: str) -> None:
        if not self._sections:
            raise ValueError("a page begins with a section")
        self._sections[-1][1].append(part)


def _table_cell(value: object) -> str:
    if isinstance(value, float):
        return f'<td class="number">{value:.3g}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def _write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)
