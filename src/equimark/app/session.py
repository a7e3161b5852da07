"""A person's labels, and the file that holds them.

``labels.json`` is written anew after every change, all or nothing and through to the disk: whenever the program is
killed, the file holds everything up to the last change that was answered. It is meant to be read by people, too:

    {"format": 1, "revision": 12, "images": "/data/wings",
     "landmarks": [{"id": "p1", "name": "left eye", "colour": "#e6194b", "mirror": "p2"}, ...], "dismissed": [],
     "labels": {"a.jpg": {"p1": [412.5, 530]}, "b.jpg": {"p1": [398, 541, "accepted"]}, "c.jpg": {"p1": null}}}

Positions are (x, y) pixels of the image as stored, pixel centres at integers; ``accepted`` were found by the model
and taken as they were; null is not visible. Landmarks are known by ``id``, so that renaming one touches no label, and
the labels of a deleted one stay in the file, so that deleting can be undone. Two that change places in a mirror name
each other as ``mirror``. What the page remarked and the person dismissed (:mod:`equimark.app.remarks`) stands in
``dismissed``.

Every change names the revision that it was made on, and makes the next. A change made on an older one is refused
(:class:`Conflict`): two windows never overwrite each other in silence. What it changed is kept in the history
(:mod:`equimark.app.history`), so that it can be undone later on.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from equimark.app import AppError
from equimark.app.history import UNSAID, Change, History, Said, Side, marks_side
from equimark.files import replace_file
from equimark.landmarks import LandmarkTable, match_images
from equimark.symmetry import Symmetry

LABELS_FILE = "labels.json"
_FORMAT = 1
_ACCEPTED = "accepted"


class Conflict(AppError):
    """A change that was made on an older state than the one at hand."""


@dataclass(frozen=True)
class Landmark:
    """One named point.

    Args:
        id: by which labels know it; never changes.
        name: for people and files.
        colour: ``#rrggbb``.
        mirror: id of the landmark that it becomes in a mirror; None on the midline, or if nobody has said.
    """

    id: str
    name: str
    colour: str
    mirror: str | None = None


@dataclass(frozen=True)
class Mark:
    """Where a person says a landmark is on an image.

    Args:
        position: (x, y) in pixels of the image; None = not visible.
        accepted: found by the model and taken as it was.
    """

    position: tuple[float, float] | None
    accepted: bool = False

    def __post_init__(self) -> None:
        if self.position is not None and not all(map(math.isfinite, self.position)):
            raise AppError(f"a position is two finite numbers, got {self.position}")

    @classmethod
    def from_json(cls, value: list[Any] | None) -> Mark:
        """The mark that is written as [x, y], [x, y, 'accepted'] or null.

        Raises:
            AppError: if it is anything else.
        """
        if value is None:
            return cls(None)
        try:
            x, y, *origin = value
            if origin not in ([], [_ACCEPTED]):
                raise ValueError
            return cls((float(x), float(y)), accepted=bool(origin))
        except (TypeError, ValueError):
            raise AppError(f"a label is [x, y], [x, y, 'accepted'] or null, got {value!r}") from None

    def to_json(self) -> list[float | str] | None:
        """As :meth:`from_json` reads it."""
        if self.position is None:
            return None
        return [*self.position, *([_ACCEPTED] if self.accepted else [])]


Marks = Mapping[str, Mark]  # of one image, by id of the landmark


@dataclass(frozen=True)
class Labels:
    """All labels at one moment.

    Args:
        landmarks: in the order of the person.
        marks: by name of the image; landmarks that are absent there were not labelled.
        revision: how many changes came before.
        dismissed: remarks that are not to be made again.
    """

    landmarks: tuple[Landmark, ...] = ()
    marks: Mapping[str, Marks] = field(default_factory=dict)
    revision: int = 0
    dismissed: tuple[str, ...] = ()

    def of(self, image: str) -> Marks:
        """The marks of an image, of the landmarks there are, in their order."""
        given = self.marks.get(image, {})
        return {each.id: given[each.id] for each in self.landmarks if each.id in given}

    def status(self, image: str) -> str:
        """``new``; ``partial``: some landmarks given; ``accepted``: all taken from the model; else ``labelled``."""
        given = self.of(image)
        if not given:
            return "new"
        if len(given) < len(self.landmarks):
            return "partial"
        return "accepted" if all(mark.accepted for mark in given.values()) else "labelled"

    def labelled(self) -> Iterator[str]:
        """The images with a mark of any landmark there is, in the order in which they were first labelled."""
        return (image for image in self.marks if self.of(image))


class Session:
    """The labels of a work folder; safe in threads.

    Args:
        folder: the work folder.
        images: what the person gave as IMAGES.
        names: of the images there.

    Raises:
        AppError: if the file of labels is damaged, or belongs to other images.
    """

    def __init__(self, folder: Path, images: Path, names: Sequence[str]) -> None:
        self.path = folder / LABELS_FILE
        self._images = str(images.resolve())
        self._lock = threading.Lock()
        self._labels = Labels()
        self._lines: dict[str, str] = {}  # of the file, by image: a change writes one anew, not thousands
        self._stamp = _stamp(self.path)
        if self._stamp is not None:
            self._labels, self._lines = self._read(names)
        self._history = History(folder, self._labels.revision)

    @property
    def labels(self) -> Labels:
        """The labels now."""
        return self._labels

    def undoable(self) -> tuple[Labels, list[Change], list[Change]]:
        """The labels now, and the last changes that led to them and that were undone; marks of whole images."""
        with self._lock:
            marks = {image: _json(given) for image, given in self._labels.marks.items()}
            return self._labels, *self._history.steps(marks)

    def set_landmarks(
        self,
        landmarks: Sequence[Landmark],
        revision: int,
        dismissed: Sequence[str] | None = None,
        said: Said = UNSAID,
    ) -> Labels:
        """Add, rename, recolour, pair, reorder or delete landmarks by giving all that there shall be.

        Args:
            landmarks: in order.
            revision: on which the change was made.
            dismissed: all remarks that shall be; None leaves them as they are.
            said: for the history.

        Raises:
            Conflict: if ``revision`` is not the present one.
            AppError: if names or ids are empty or occur twice, or one mirrors another that does not mirror it.
        """
        _check_landmarks(landmarks)
        with self._lock:
            kept = self._labels.dismissed if dismissed is None else tuple(dict.fromkeys(dismissed))
            now = replace(self._labels, landmarks=tuple(landmarks), dismissed=kept)
            change = Change(revision + 1, said, _landmarks_side(self._labels), _landmarks_side(now))
            return self._save(now, revision, change)

    def set_marks(self, changed: Mapping[str, Marks], revision: int, said: Said = UNSAID) -> Labels:
        """Give images, by name, all the marks that they shall have; those of deleted landmarks stay.

        Args:
            changed: all marks of some images.
            revision: on which the change was made.
            said: for the history.

        Raises:
            Conflict: if ``revision`` is not the present one.
            AppError: if a mark belongs to no landmark.
        """
        with self._lock:
            now = self._labels
            known = {each.id for each in now.landmarks}
            if unknown := {id for marks in changed.values() for id in marks} - known:
                raise AppError(f"there is no landmark {min(unknown)!r}; it may have been deleted")
            deleted = {
                image: {id: mark for id, mark in now.marks.get(image, {}).items() if id not in known}
                for image in changed
            }
            changed = {image: {**deleted[image], **marks} for image, marks in changed.items()}
            marks = {image: given for image, given in {**now.marks, **changed}.items() if given}
            before, after = ({i: _json(every.get(i, {})) for i in changed} for every in (now.marks, marks))
            change = Change(revision + 1, said, marks_side(before, after), marks_side(after, before))
            return self._save(replace(now, marks=marks), revision, change, changed)

    def adopt(self, table: LandmarkTable, names: Sequence[str], colours: Sequence[str]) -> None:
        """Begin with the landmarks of a file; what is blank there is not visible.

        Args:
            table: the landmarks.
            names: of the images there are.
            colours: of the landmarks.

        Raises:
            LandmarkError: if images of the table are not among them.
        """
        points = table.points.round(2).tolist()
        titles = table.names or tuple(f"point {k + 1}" for k in range(table.points.shape[1]))
        landmarks = tuple(Landmark(f"p{k + 1}", *each) for k, each in enumerate(zip(titles, colours, strict=True)))
        marks = {
            names[row]: {
                each.id: Mark((x, y) if shown else None)
                for each, (x, y), shown in zip(landmarks, points[i], table.visible[i], strict=True)
            }
            for i, row in enumerate(match_images(table, names).tolist())
            if table.visible[i].any()
        }
        with self._lock:
            self._save(Labels(landmarks, marks, self._labels.revision), self._labels.revision, None, marks)

    def _save(
        self, labels: Labels, revision: int, change: Change | None, changed: Mapping[str, Marks] | None = None
    ) -> Labels:
        if revision != self._labels.revision:
            raise Conflict("the labels were changed in another window; look at them as they are now, then try again")
        if _stamp(self.path) != self._stamp:
            raise Conflict(
                f"{self.path} was changed by another program, perhaps a second page of this run: close one of the two "
                "and start the other again"
            )
        labels = replace(labels, revision=revision + 1)
        lines = self._lines
        if changed is not None:
            lines = lines | {image: _line(marks) for image, marks in changed.items()}
            lines = {image: line for image, line in lines.items() if image in labels.marks}
        text = _text(labels, self._images, lines)
        if change is not None:
            self._history.write(change)
        replace_file(self.path, lambda temporary: _write_through(temporary, text))
        self._labels, self._lines, self._stamp = labels, lines, _stamp(self.path)
        if change is not None:
            self._history.take(change)
        return labels

    def _read(self, names: Sequence[str]) -> tuple[Labels, dict[str, str]]:
        try:
            kept: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["format"] != _FORMAT:
                raise ValueError(f"its format is {kept['format']!r}, this version knows {_FORMAT}")
            landmarks = tuple(Landmark(**each) for each in kept["landmarks"])
            marks = {
                image: {id: Mark.from_json(value) for id, value in given.items()}
                for image, given in kept["labels"].items()
            }
            dismissed = tuple(map(str, kept.get("dismissed", [])))  # older files have none
            labels = Labels(landmarks, marks, int(kept["revision"]), dismissed)
            images = str(kept["images"])
            _check_landmarks(landmarks)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AppError(f"{self.path} is damaged ({error}); repair it, or move it away to start anew") from None
        known = set(names)
        missing = [image for image in labels.labelled() if image not in known]
        if missing and images != self._images:
            raise AppError(
                f"{self.path} holds labels of other images ({images}; {missing[0]!r} is not among these): "
                "give these another work folder with --work"
            )
        return labels, {image: _line(given) for image, given in marks.items()}


def work_folder(run: Path, images: Path) -> Path:
    """Where the page of a run keeps its work on images."""
    return run / "app" / (images.resolve().stem or "images")


def to_table(labels: Labels, images: Sequence[str]) -> LandmarkTable:
    """The marks of ``images``; NaN where not visible or not labelled."""
    points = np.full((len(images), len(labels.landmarks), 2), np.nan)
    for row, image in enumerate(images):
        given = labels.of(image)
        for k, landmark in enumerate(labels.landmarks):
            if (mark := given.get(landmark.id)) is not None and mark.position is not None:
                points[row, k] = mark.position
    return LandmarkTable(tuple(images), points, names=tuple(each.name for each in labels.landmarks))


def symmetry_of(landmarks: Sequence[Landmark]) -> Symmetry | None:
    """Which of these becomes which in a mirror; None if no two of them are a pair."""
    places = {each.id: k for k, each in enumerate(landmarks)}
    symmetry = Symmetry(tuple(places.get(each.mirror or "", k) for k, each in enumerate(landmarks)))
    return symmetry if symmetry.pairs else None


def _check_landmarks(landmarks: Sequence[Landmark]) -> None:
    for what in ("id", "name"):
        values = [str(getattr(each, what)).strip() for each in landmarks]
        if "" in values:
            raise AppError(f"the {what} of a landmark is empty")
        if again := next((value for value in values if values.count(value) > 1), None):
            raise AppError(f"there are two landmarks {again!r}; each needs its own {what}")
    mirrors = {each.id: each.mirror for each in landmarks}
    for each in landmarks:
        if each.mirror is not None and (each.mirror == each.id or mirrors.get(each.mirror) != each.id):
            raise AppError(
                f"landmark {each.name!r} mirrors {each.mirror!r}, which does not mirror it: the two of a pair name "
                "each other"
            )


def _json(marks: Marks) -> dict[str, list[float | str] | None]:
    """The marks of an image as in the file."""
    return {id: mark.to_json() for id, mark in marks.items()}


def _landmarks_side(labels: Labels) -> Side:
    return {"landmarks": [asdict(each) for each in labels.landmarks], "dismissed": list(labels.dismissed)}


def _line(marks: Marks) -> str:
    return json.dumps(_json(marks))


def _text(labels: Labels, images: str, lines: Mapping[str, str]) -> str:
    """The file: a line per landmark and per image."""
    landmarks = ",\n".join(json.dumps(vars(each)) for each in labels.landmarks)
    marks = ",\n".join(f"{json.dumps(image)}: {line}" for image, line in lines.items())
    return (
        f'{{"format": {_FORMAT}, "revision": {labels.revision},\n"images": {json.dumps(images)},\n'
        f'"landmarks": [\n{landmarks}\n],\n"dismissed": {json.dumps(labels.dismissed)},\n'
        f'"labels": {{\n{marks}\n}}}}\n'
    )


def _write_through(path: Path, text: str) -> None:
    """Write ``text`` and wait until it is on the disk, so that even a power cut loses nothing."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when another program writes the file."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino
