"""The history of the labels: every change, on disk, so that undoing goes on after the page or the program was closed.

``history.jsonl`` beside the labels holds a line for each of the last changes, some 10,000 of them:

    {"revision": 7, "time": "2025-05-01T10:20:30+00:00", "turn": "change", "what": "moving nose", "image": "a.jpg",
     "before": {"marks": {"a.jpg": {"p1": [4, 5]}}}, "after": {"marks": {"a.jpg": {"p1": [4, 6]}}}}

Before and after are of exactly the marks that changed, as in ``labels.json``; one that is absent was not labelled. Or
they are of all ``landmarks`` and what was ``dismissed``. An undone change is a line of its own, whose ``turn`` says so.

A line is written before the labels are. The two belong together by the ``revision`` that the change made: a line whose
labels were never written does not count, and what came before a gap is not undone. The labels never depend on this
file: if it is damaged, or cannot be written, there is less to undo.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from equimark.files import write_text

HISTORY_FILE = "history.jsonl"
_KEPT = 10_000  # changes
_MORE = 1_000  # that may come on top before the file is written anew
_UNDOABLE = 200  # changes that a page is given to undo
Turn = Literal["change", "undo", "redo"]
Side = dict[str, Any]  # {"marks": {image: {id: mark}}} or {"landmarks": [...], "dismissed": [...]}


@dataclass(frozen=True)
class Said:
    """What the page says of a change.

    Args:
        what: its name for people.
        image: the one to show when it is undone.
        turn: whether it undoes or redoes another change.
    """

    what: str = "a change"
    image: str | None = None
    turn: Turn = "change"


UNSAID = Said()


@dataclass(frozen=True)
class Change:
    """A line of the history.

    Args:
        revision: that it made.
        said: of it.
        before: of what changed.
        after: of the same.
    """

    revision: int
    said: Said
    before: Side
    after: Side

    @classmethod
    def from_line(cls, line: str) -> Change | None:
        """The change that a line tells; None if it is torn or damaged."""
        try:
            kept = json.loads(line)
            said = Said(str(kept["what"]), kept["image"], kept["turn"])
            change = cls(int(kept["revision"]), said, kept["before"], kept["after"])
            for side in (change.before, change.after):
                if "landmarks" in side:
                    _ = [*side["landmarks"], *side["dismissed"]]
                else:
                    _ = [given.items() for given in side["marks"].values()]
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return change

    def to_line(self) -> str:
        """As :meth:`from_line` reads it."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        sides = {"before": self.before, "after": self.after}
        return json.dumps({"revision": self.revision, "time": time, **asdict(self.said), **sides})

    def reversed(self) -> Change:
        """What it undid."""
        return Change(self.revision, self.said, self.after, self.before)


class History:
    """What can be undone and redone, and its file; not safe in threads by itself.

    Args:
        folder: the work folder.
        revision: of the labels now.
    """

    def __init__(self, folder: Path, revision: int) -> None:
        self._path = folder / HISTORY_FILE
        self._past: deque[Change] = deque(maxlen=_UNDOABLE)
        self._future: list[Change] = []
        lines = self._read()
        self._count = len(lines)
        for change in _leading_to(revision, lines):
            self.take(change)

    def write(self, change: Change) -> None:
        """Put a change on the disk, before its labels are; if that fails, there is less to undo, and that is all."""
        with contextlib.suppress(OSError):
            _append(self._path, change.to_line())
            self._count += 1
            if self._count > _KEPT + _MORE:
                kept = self._read()[-_KEPT:]
                write_text(self._path, "".join(f"{line}\n" for line in kept))
                self._count = len(kept)

    def take(self, change: Change) -> None:
        """A change whose labels are on the disk can be undone, and an undone one redone."""
        if change.said.turn == "undo":
            if self._past:
                self._past.pop()
            self._future.append(change.reversed())
            return
        if change.said.turn == "change":
            self._future.clear()
        elif self._future:
            self._future.pop()
        self._past.append(change)

    def steps(self, marks: Mapping[str, Mapping[str, Any]]) -> tuple[list[Change], list[Change]]:
        """What can be undone and redone, last in the list first, with all marks of each image that changed.

        Args:
            marks: of all images now, as in ``labels.json``.
        """
        undone = _unwind([each.reversed() for each in self._future], marks)
        return _unwind(self._past, marks), [each.reversed() for each in undone]

    def _read(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []


def marks_side(marks: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]]) -> Side:
    """Of the marks of some images, as in ``labels.json``, those that are not the same in ``other``."""

    def differs(image: str, id: str) -> bool:
        there = other.get(image, {})
        return id not in there or there[id] != marks[image][id]

    return {
        "marks": {image: {id: v for id, v in given.items() if differs(image, id)} for image, given in marks.items()}
    }


def _leading_to(revision: int, lines: Sequence[str]) -> list[Change]:
    """The changes that led to a revision without a gap, in order.

    A later line of one revision stands for an earlier one, whose labels were never written.
    """
    found: list[Change] = []
    for line in reversed(lines):
        change = Change.from_line(line)
        if change is not None and change.revision == revision:
            found.append(change)
            revision -= 1
        elif change is not None and change.revision < revision:
            break
    return found[::-1]


def _unwind(changes: Sequence[Change] | deque[Change], marks: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """Changes of which the last led to ``marks``, with all marks of each image that they changed."""
    now, found = dict(marks), []
    for change in reversed(changes):
        before, after = change.before, change.after
        if "marks" in after:
            images = {*before["marks"], *after["marks"]}
            after = {"marks": {image: now.get(image, {}) for image in images}}
            now.update({image: _earlier(now.get(image, {}), change, image) for image in images})
            before = {"marks": {image: now[image] for image in images}}
        found.append(replace(change, before=before, after=after))
    return found[::-1]


def _earlier(marks: Mapping[str, Any], change: Change, image: str) -> dict[str, Any]:
    """The marks of an image before a change."""
    after = change.after["marks"].get(image, {})
    others = {id: mark for id, mark in marks.items() if id not in after}
    return {**others, **change.before["marks"].get(image, {})}


def _append(path: Path, line: str) -> None:
    """Add a line and wait until it is on the disk; one that was torn is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"
        file.write(f"{line}\n".encode())
        file.flush()
        os.fsync(file.fileno())
