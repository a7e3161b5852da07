"""Everything that is open for one page, in the words of the page: plain values, ready for JSON.

An *item* is an image as the page shows it: its key, name, status, marks, predictions, and the box of what is shown.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equimark import formats
from equimark.app import AppError, exports, remarks
from equimark.app.engine import Engine
from equimark.app.exploring import Point, Question, Sight
from equimark.app.gallery import Catalogue, Filter, Order, disagreements
from equimark.app.history import UNSAID, Change, Said, Side
from equimark.app.pictures import Pictures
from equimark.app.remarks import Exchange, Pair
from equimark.app.session import Labels, Landmark, Mark, Session, work_folder
from equimark.app.store import Store
from equimark.app.vision import SparseVision, vision_of
from equimark.checkpoint import MODEL_FILE
from equimark.directions import Direction
from equimark.images import ImageError
from equimark.landmarks import LandmarkTable
from equimark.model import LandmarkModel
from equimark.plots import palette
from equimark.suggestion import suggest

_COLOURS = 60
_LONG = 0.4  # seconds that a person who opens an image waits for a better prediction
Json = dict[str, Any]


class Desk:
    """A run, images, a person's labels on them, and the engine.

    Args:
        model: of the run.
        run: its folder.
        images: a folder, a .zip, a list of paths or a pack.
        table: landmarks to start from, if there are no labels yet.
        work: the work folder, if not the one in the run.
        direction: in which things lie in the images, as in :class:`equimark.head.HeadSpec`.

    Raises:
        AppError, ImageError, LandmarkError, OSError: with a line that says what to do.
    """

    def __init__(
        self,
        model: LandmarkModel,
        run: Path,
        images: Path,
        *,
        table: LandmarkTable | None = None,
        work: Path | None = None,
        direction: Direction = "auto",
    ) -> None:
        self.run, self.images = run, images
        self.work = work or work_folder(run, images)
        vision = vision_of(model, direction)
        self.pictures = Pictures(images, model.frame, self.work / "cache" / "thumbnails")
        names = self.pictures.names
        self.session = Session(self.work, images, names)
        self.left_aside = table is not None and bool(self.session.labels.landmarks)
        if table is not None and not self.left_aside:
            self.session.adopt(table, names, colours(table.points.shape[1]))
        self._stamps = [self.pictures.stamp(i) for i in range(len(names))]
        store = Store(
            self.work / "cache" / "descriptors",
            names,
            self._stamps,
            _identity(run, model),
            shape=vision.shape,
            dtype=vision.dtype,
            summary=vision.summary,
        )
        self._latest_remarks: tuple[Labels, tuple[list[Pair], list[Exchange]]] = Labels(), ([], [])
        self.engine = Engine(vision, self.pictures, store)
        self.engine.learn(self.session.labels)

    # ---- looking --------------------------------------------------------------------------------------------

    def state(self) -> Json:
        """What the page has to know at the beginning, the changes that it may undo and redo among it."""
        labels, past, future = self.session.undoable()
        vision = self.engine.vision
        own = vision.shape[0] if isinstance(vision, SparseVision) else 0
        return {
            "run": str(self.run),
            "images": str(self.images),
            "work": str(self.work),
            "labels_file": str(self.session.path),
            "count": len(self.pictures),
            "method": vision.model.config.method,
            "own_landmarks": own,
            "landmarks_beside": 0 if own else vision.model.config.landmarks,
            "colours": colours(_COLOURS),
            "formats": [{"name": name, "about": each.about} for name, each in formats.FORMATS.items()],
            "past": [self._step(each) for each in past],
            "future": [self._step(each) for each in future],
            **self._labels(labels),
        }

    def _step(self, change: Change) -> Json:
        """A change as the page knows it: images by key, without those that are no longer there."""
        places, keys = self.pictures.index_of_name, self.pictures.keys

        def side(given: Side) -> Side:
            if "landmarks" in given:
                return given
            return {"marks": {keys[places[name]]: marks for name, marks in given["marks"].items() if name in places}}

        image = places.get(change.said.image or "")
        return {
            "what": change.said.what,
            "key": None if image is None else keys[image],
            "before": side(change.before),
            "after": side(change.after),
        }

    def _labels(self, now: Labels) -> Json:
        return {
            "revision": now.revision,
            "landmarks": [asdict(each) for each in now.landmarks],
            "dismissed": list(now.dismissed),
            "remarks": self._remarks(now),
        }

    def _remarks(self, labels: Labels) -> Json:
        """Points that look like a pair, and images whose labels seem to have pairs exchanged."""
        pictures, (pairs, exchanges) = self.pictures, self._remarked(labels)
        return {
            "pairs": [{"key": remarks.key_of_pair(pair), "pair": pair} for pair in pairs],
            "exchanges": [
                {
                    "key": each.key,
                    "image": pictures.keys[pictures.index_of_name[each.image]],
                    "pairs": each.pairs,
                    "whole": each.whole,
                }
                for each in exchanges
            ],
        }

    def _remarked(self, labels: Labels) -> tuple[list[Pair], list[Exchange]]:
        """Of labels; of the same ones found only once."""
        known, found = self._latest_remarks
        if labels is not known:
            names = self.pictures.names
            found = remarks.find_pairs(labels, names), remarks.find_exchanges(labels, names)
            self._latest_remarks = labels, found
        return found

    def progress(self) -> Json:
        """How far the work in the background is, and the revision."""
        return {**asdict(self.engine.progress()), "revision": self.session.labels.revision}

    def find(self, key: str) -> int:
        """The index of an image.

        Raises:
            KeyError: if there is none of that key.
        """
        return self.pictures.index_of[key]

    def item(self, image: int) -> Json:
        """An image as the page shows it; without size and box while nobody has looked at it."""
        name, labels = self.pictures.names[image], self.session.labels
        size, key = self.pictures.known_size(image), self.pictures.keys[image]
        predictions = self.engine.predictions.of(image)
        confidence = [sure for _, _, sure in predictions.values()]
        version = hashlib.sha256(self._stamps[image].encode()).hexdigest()[:8]
        return {
            "key": key,
            "name": name.encode("utf-8", "replace").decode(),
            "index": image,
            "status": labels.status(name),
            "revision": labels.revision,
            "size": size,
            "box": None if size is None else self.pictures.box(image, size),
            "frame": None if size is None else self.pictures.placement(image, size).box,
            "thumbnail": f"/api/images/{key}/thumbnail?{version}",
            "picture": f"/api/images/{key}/picture?{version}",
            # those of deleted landmarks, too: undoing brings them back
            "marks": {id: mark.to_json() for id, mark in labels.marks.get(name, {}).items()},
            "predicted": {id: _rounded(each) for id, each in predictions.items()},
            "confidence": round(sum(confidence) / len(confidence), 4) if confidence else None,
            "unreadable": self.engine.unreadable.get(image),
        }

    def opened(self, image: int) -> Json:
        """An image with all that is known: predicted by what was learned last, its frame, its neighbours.

        While the model is busy for long, with what was predicted before.
        """
        self.engine.want([image])
        with contextlib.suppress(OSError):  # a TimeoutError is one; of others the progress tells
            self.engine.predict(image).result(timeout=_LONG)
        with contextlib.suppress(ImageError):  # which the item says
            self.pictures.size(image)
        keys = self.pictures.keys
        return {
            **self.item(image),
            "previous": keys[image - 1] if image else None,
            "next": keys[image + 1] if image + 1 < len(keys) else None,
        }

    def leaf(
        self, which: Filter, order: Order, *, search: str, low: float | None, seed: int, first: int, count: int
    ) -> Json:
        """One page of the images: see :class:`equimark.app.gallery.Catalogue`."""
        names, labels, predictions = self.pictures.names, self.session.labels, self.engine.predictions
        catalogue = Catalogue(
            names,
            [labels.status(name) for name in names],
            predictions.mean_confidence(),
            disagreements(labels, names, predictions),
            frozenset(self.engine.unreadable),
            frozenset(self.pictures.index_of_name[each.image] for each in self._remarked(labels)[1]),
        )
        low = catalogue.usual_low if low is None else low
        chosen = catalogue.select(which, order, search=search, low=low, seed=seed)
        shown = chosen[first : first + count]
        self.engine.want(shown)
        return {
            "total": len(chosen),
            "counts": catalogue.counts(low),
            "low": low,
            "items": [self.item(image) for image in shown],
        }

    def suggestions(self, count: int) -> list[Json]:
        """The images to label next."""
        labels, engine = self.session.labels, self.engine
        checked = np.array([labels.status(name) not in ("new",) for name in self.pictures.names])
        checked[list(engine.unreadable)] = True
        chosen = suggest(engine.predictions.mean_confidence(), engine.store.summaries, checked, count=count)
        return [self.item(image) for image in chosen]

    def explore(
        self,
        points: Sequence[tuple[str, float, float]],
        targets: Sequence[str],
        *,
        heat_of: int | None = None,
        colours: Sequence[str] | None = None,
        reference: str | None = None,
    ) -> Json:
        """Points (key, x, y) found on other images, by key; see :class:`equimark.app.exploring.Question`."""
        question = Question(
            [Point(self.find(key), x, y) for key, x, y in points],
            [self.find(key) for key in targets],
            heat_of if heat_of is not None and 0 <= heat_of < len(points) else None,
            None if colours is None else np.array([_rgb(colour) for colour in colours], np.uint8),
            None if reference is None else self.find(reference),
        )
        sights = self.engine.explore(question).result()
        return {self.pictures.keys[image]: _sight(sight) for image, sight in sights.items()}

    def own_points(self, image: int) -> Json:
        """Where the landmarks lie that the run has beside descriptors."""
        return {"points": self.engine.own_points(image).result().round(1).tolist()}

    # ---- changing -------------------------------------------------------------------------------------------

    def set_landmarks(
        self,
        landmarks: Sequence[Landmark],
        revision: int,
        dismissed: Sequence[str] | None = None,
        said: Said = UNSAID,
    ) -> Json:
        """See :meth:`equimark.app.session.Session.set_landmarks`; the image of what is said by its key."""
        now = self.session.set_landmarks(landmarks, revision, dismissed, self._by_name(said))
        self.engine.learn(now)
        return self._labels(now)

    def _by_name(self, said: Said) -> Said:
        return said if said.image is None else replace(said, image=self.pictures.names[self.find(said.image)])

    def set_marks(
        self, marks: Mapping[str, Mapping[str, list[Any] | None]], revision: int, said: Said = UNSAID
    ) -> Json:
        """Marks of images, by key: see :meth:`equimark.app.session.Session.set_marks`."""
        names = self.pictures.names
        changed = {
            names[self.find(key)]: {id: Mark.from_json(value) for id, value in given.items()}
            for key, given in marks.items()
        }
        now = self.session.set_marks(changed, revision, self._by_name(said))
        self.engine.learn(now)
        return {
            "revision": now.revision,
            "statuses": {key: now.status(names[self.find(key)]) for key in marks},
            "remarks": self._remarks(now),
        }

    def export(self, format: str, *, everything: bool, least: float) -> Json:
        """Write a landmark file to ``exports/``: of what was checked, or of all images."""
        labels, names = self.session.labels, self.pictures.names
        unreadable, notes = self.engine.unreadable, []
        if everything:
            table = exports.full_table(labels, names, self.engine.predictions, least=least)
            if missing := len(names) - len(unreadable) - self.engine.progress().predicted:
                notes.append(f"{missing} images are not predicted yet by all labels: wait, then write the file again")
        else:
            table = exports.checked_table(labels, names)
        places = [self.pictures.index_of_name[name] for name in table.images]
        table = table.select([place not in unreadable for place in places])
        sizes = [self.pictures.size(place) for place in places if place not in unreadable]
        table = replace(table, sizes=np.array(sizes, np.int64).reshape(-1, 2))
        stem = f"{self.work.name}-{'all' if everything else 'checked'}"
        path, file, losses = exports.write_table(table, self.work / "exports", stem, format)
        return {"path": str(path), "file": file.name, "images": len(table), "notes": [*notes, *losses]}

    def export_head(self, name: str) -> Json:
        """Fit a head to all labels and write it to ``exports/``; and say how to use it."""
        folder = self.work / "exports" / exports.safe_name(name)
        head = self.engine.fit(self.session.labels).result()
        head.save(folder)
        words = ["equimark", "detect", str(self.run), str(self.images), "--head", str(folder), "--out", "landmarks.csv"]
        return {
            "path": str(folder),
            "names": head.names,
            "command": shlex.join(words),
            "pairs": len(head.symmetry.pairs) if head.symmetry else 0,
            "mirrored": head.mirrored,
        }

    def exported(self, file: str) -> Path:
        """A file that was exported.

        Raises:
            KeyError: if there is none of that name.
        """
        path = self.work / "exports" / file
        if Path(file).name != file or not path.is_file():
            raise KeyError(file)
        return path


def colours(count: int) -> list[str]:
    """Colours ``#rrggbb`` of landmarks, the same as in every picture."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (palette(count) * 255).round().astype(int).tolist()]


def _identity(run: Path, model: LandmarkModel) -> str:
    """Changes when what the model sees of an image may change."""
    weights = hashlib.sha256((run / MODEL_FILE).read_bytes()).hexdigest()
    return f"{weights[:24]} {model.frame} {model.config.pairs.margin}"


def _rgb(colour: str) -> tuple[int, int, int]:
    try:
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    except ValueError:
        raise AppError(f"a colour is #rrggbb, got {colour!r}") from None
    return red, green, blue


def _sight(sight: Sight) -> Json:
    sure = np.column_stack([sight.points, sight.confidence]).tolist()
    return {
        "points": [_rounded(each) for each in sure],
        "box": sight.box,
        "heat": None if sight.heat is None else _map(sight.heat),
        "colours": None if sight.colours is None else _map(sight.colours),
    }


def _map(values: NDArray[np.uint8]) -> Json:
    """A map (h, w, ...) as bytes in Base64."""
    data = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return {"height": values.shape[0], "width": values.shape[1], "data": data}


def _rounded(values: Sequence[float]) -> list[float]:
    x, y, sure = values
    return [round(x, 2), round(y, 2), round(sure, 4)]
