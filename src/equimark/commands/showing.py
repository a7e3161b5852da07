"""What commands print and write: tables, pictures, remarks on standard error."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from equimark.files import kept_aside, replace_file
from equimark.packs import PackedImages


def mention(notes: Iterable[str]) -> None:
    """Remarks on standard error."""
    for note in notes:
        print(f"equimark: {note}", file=sys.stderr)


_LONGEST_NAME = 40  # characters of what stands in front of a row; what is longer is a sentence


@contextmanager
def keeping_earlier(*paths: Path) -> Iterator[None]:
    """Around the writing of ``paths``: what stands there, perhaps corrected by hand, is kept, and that is said."""
    with kept_aside(*paths) as copies:
        yield
    mention(f"what was there before is kept: {copy}" for copy in copies)


def mention_small(images: PackedImages, side: int) -> None:
    """How many images were enlarged to ``side`` pixels, if any were."""
    if small := images.smaller_than(side):
        print(
            f"equimark: {small} of {len(images)} images are smaller than {side} px and were enlarged", file=sys.stderr
        )


def write_figure(figure: Figure, path: Path) -> None:
    """``figure`` as a PNG file."""
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150))
    print(f"picture: {path}")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output, as wide as the terminal: cells are broken between words, short names are not."""
    console = Console(soft_wrap=False)
    table = Table(title=title, title_justify="left", show_header=any(columns))
    lines = 3 * len(columns) + 1  # with what is left free beside them
    for column, width in zip(columns, _widths(console, columns, rows, console.width - lines), strict=True):
        table.add_column(column, width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _widths(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> Sequence[int | None]:
    """Widths of columns, the widest narrowed until all fit ``room``; None where words have to be broken for that."""
    heads = [console.measure(column) for column in columns]
    cells = [[console.measure(row[place]) for row in rows] for place in range(len(columns))]
    least = [max([head.minimum, *(c.minimum for c in own)]) for head, own in zip(heads, cells, strict=True)]
    widths = [max([head.maximum, *(c.maximum for c in own)]) for head, own in zip(heads, cells, strict=True)]
    names = max([least[0], *(name.maximum for name in cells[0])])
    if names <= _LONGEST_NAME and names + sum(least[1:]) <= room:
        least[0] = names
    if sum(least) > room:
        return [None] * len(columns)
    while sum(widths) > room:
        widest = max((k for k in range(len(widths)) if widths[k] > least[k]), key=lambda k: widths[k])
        widths[widest] -= 1
    return widths


def print_list(entries: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Names and, beside each, texts about it, which are broken to the width of the terminal; the names are not."""
    start = 2 + max(len(name) for name, _ in entries)
    width = max(20, shutil.get_terminal_size().columns - start)
    lines = []
    for name, texts in entries:
        broken = [line for text in texts for line in textwrap.wrap(text, width)]
        lines += [front.ljust(start) + line for front, line in zip_longest([name], broken, fillvalue="")]
    print("\n".join(lines))
