"""What commands print and write: tables, pictures, remarks on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from equimark.files import replace_file
from equimark.packs import PackedImages


def mention(notes: Iterable[str]) -> None:
    """Remarks on standard error."""
    for note in notes:
        print(f"equimark: {note}", file=sys.stderr)


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
    """A table on standard output, as wide as the terminal."""
    table = Table(*columns, title=title, title_justify="left", show_header=any(columns))
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=False).print(table)
