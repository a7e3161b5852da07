"""The bar that long work shows on standard error: how far, how fast, how much longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Called as work is done; ``note`` is shown beside the bar."""

    def __call__(self, count: int = 1, *, note: str | None = None) -> None:
        """``count`` more items are done."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Items per second, or seconds for each."""
        speed, unit = task.speed or 0, task.fields["unit"]
        return Text(f"{1 / speed:.1f} s each" if 0 < speed < 1 else f"{speed:,.0f} {unit}/s")


@contextmanager
def progress_bar(
    title: str, total: int, *, start: int = 0, unit: str | None = "images", shown: bool = True
) -> Iterator[Advance]:
    """A bar of ``total`` items of which ``start`` are done; ``unit=None`` leaves the rate out."""
    rate = [] if unit is None else [_Rate()]
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *rate]
    columns += [TextColumn("{task.fields[note]}"), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(title, total=total, completed=start, unit=unit, note="")

        def advance(count: int = 1, *, note: str | None = None) -> None:
            bar.advance(task, count)
            if note is not None:
                bar.update(task, note=note)

        yield advance
