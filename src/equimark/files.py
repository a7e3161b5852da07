"""Writing files and folders so that an interrupted write leaves what was there before."""

from __future__ import annotations

import csv
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary sibling of ``path``, then rename it; the folder is made if need be.

    Raises:
        OSError: if the disk is full or the folder cannot be written; ``path`` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` to fill, which takes its place in the end.

    If anything goes wrong before that, the new folder vanishes, and what stood at ``path`` is as it was.
    """
    mark = secrets.token_hex(8)
    folder, old = (path.with_name(f".{path.name}.{mark}.{part}") for part in ("partial", "replaced"))
    try:
        folder.mkdir(parents=True)
        yield folder
        if path.exists():
            path.rename(old)
        folder.rename(path)
    except BaseException:
        if old.exists():
            old.rename(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def kept_aside(*paths: Path) -> Iterator[list[Path]]:
    """While new files are written, copies of what stands at ``paths``, under other names beside them.

    The copies stay; if anything goes wrong, they vanish.
    """
    copies: list[Path] = []
    try:
        for path in filter(Path.exists, paths):
            names = (path.with_name(f"{path.stem}.earlier-{n}{path.suffix}") for n in count(1))
            copies.append(next(name for name in names if not name.exists()))
            shutil.copytree(path, copies[-1]) if path.is_dir() else shutil.copy2(path, copies[-1])
        yield copies
    except BaseException:
        for copy in copies:
            shutil.rmtree(copy) if copy.is_dir() else copy.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, by way of :func:`replace_file`."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a table to ``path``, by way of :func:`replace_file`."""

    def write(temporary: Path) -> None:
        with csv_writer(temporary, header) as writer:
            writer.writerows(rows)

    replace_file(path, write)


@contextmanager
def csv_writer(path: Path, header: Sequence[str]) -> Iterator[Any]:
    """A :func:`csv.writer` of the rows below ``header``, for files that nobody sees before they are complete.

    The file is UTF-8, with names of files that are not as the operating system has them, and lines end in ``\\n``.
    """
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        yield writer
