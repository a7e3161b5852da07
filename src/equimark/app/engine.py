"""The one thread that owns the model.

What is asked of it comes first. While nobody asks, it learns from new labels, predicts all images anew, and looks at
the images that it has not seen; all of it in small portions, so that an answer never waits for more than one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from equimark.app import AppError
from equimark.app.exploring import Question, Sight, explore, own_landmarks
from equimark.app.learning import Lesson, Predictions, lesson_of
from equimark.app.pictures import Pictures
from equimark.app.session import Labels
from equimark.app.store import Store
from equimark.app.vision import DenseVision, SparseVision
from equimark.geometry import Placement
from equimark.head import Head, HeadSpec, fit_head
from equimark.images import Framed, Unreadable

_PORTION = 8  # images looked at, or 8 times as many predicted, between two answers
_TURNED_PORTION = 1  # images that are looked at in all directions, between two answers
_PATIENCE = 0.3  # seconds without a change before learning: more may follow at once
_SHARE = 1.0  # seconds kept free for answers and predictions for each second of learning
_RETRY = 5.0  # seconds after a fault
_ENOUGH = 120  # labelled images to learn from while a person waits; a head to be saved learns from all
_ENOUGH_WITH_MIRRORED = 40  # of which the mirror images, too: to see whether they help takes three times as long
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Args:
        images: how many there are.
        seen: how many the model has looked at.
        unreadable: how many cannot be read.
        predicted: how many are predicted by the last lesson.
        lesson: counts the lessons.
        learning: whether labels wait to be learned.
        turned: whether things are looked for in any direction.
        visible_from: confidence below which labels that say "not visible" suggest to leave a point blank; else 0.
        fault: what went wrong in the background.
    """

    images: int
    seen: int
    unreadable: int
    predicted: int
    lesson: int
    learning: bool
    turned: bool
    visible_from: float
    fault: str | None


class Engine:
    """A model at work on the images of the page.

    Args:
        vision: of the model.
        pictures: the images.
        store: what the model has seen of them.
    """

    def __init__(self, vision: DenseVision | SparseVision, pictures: Pictures, store: Store) -> None:
        self.vision = vision
        self.pictures = pictures
        self.store = store
        self._turn = threading.Condition()  # guards what other threads hand over: the next four
        self._asked: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._labels: Labels | None = None  # not yet learned
        self._due = 0.0
        self._closing = False
        self._wanted: tuple[int, ...] = ()
        self._unreadable: dict[int, str] = {}
        self._frames: dict[int, Tensor] = {}  # of labelled images, (3, S, S)
        self._mirrored: dict[int, NDArray[Any]] = {}  # records of the mirror images of those last learned from
        self._coming: dict[int, Future[Framed | Unreadable]] = {}
        self._readers = ThreadPoolExecutor(2, "reader")
        self._lesson, self._lessons = Lesson(), 0
        self._rested = 0.0  # when there is time for the next lesson
        self._head: Head | None = None
        self._predictions = Predictions(len(pictures))
        self._fault: str | None = None
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        for image in np.flatnonzero(store.seen).tolist():
            pictures.remember_size(image, store.size(image))

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the portion at hand."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._readers.shutdown(cancel_futures=True)

    # ---- what may be read from any thread -------------------------------------------------------------------

    @property
    def predictions(self) -> Predictions:
        """Of all images; to be read only."""
        return self._predictions

    @property
    def unreadable(self) -> dict[int, str]:
        """Images that cannot be read, and why."""
        return dict(self._unreadable)

    def progress(self) -> Progress:
        """How far the work is."""
        with self._turn:
            learning = self._labels is not None
        predicted = int((self._predictions.lesson == self._lessons).sum()) if self._head else 0
        seen, unreadable = int(self.store.seen.sum()), len(self._unreadable)
        head = self._head
        return Progress(
            images=len(self.pictures),
            seen=seen,
            unreadable=unreadable,
            predicted=predicted,
            lesson=self._lessons,
            learning=learning,
            turned=head is not None and head.turned,
            visible_from=0.0 if head is None else head.visible_from,
            fault=self._fault,
        )

    # ---- what may be asked from any thread ------------------------------------------------------------------

    def learn(self, labels: Labels) -> None:
        """Labels have changed: predict by them, soon."""
        with self._turn:
            self._labels, self._due = labels, max(time.monotonic() + _PATIENCE, self._rested)
            self._turn.notify_all()

    def want(self, images: Sequence[int]) -> None:
        """These are on the screen: they come first."""
        self._wanted = tuple(images)

    def predict(self, image: int) -> Future[None]:
        """Have an image predicted by the last lesson."""
        return self._ask(lambda: self._predict_one(image))

    def explore(self, question: Question) -> Future[dict[int, Sight]]:
        """Find points on other images, or, with a sparse run, its own landmarks."""
        return self._ask(lambda: self._explore(question))

    def own_points(self, image: int) -> Future[NDArray[np.float64]]:
        """The landmarks (K, 2) in pixels of an image that a run has beside descriptors.

        The future raises AppError if it has none, or the image cannot be read.
        """
        return self._ask(lambda: self._own_points(image))

    def fit(self, labels: Labels) -> Future[Head]:
        """A head to be saved: as good as can be, with the names and in the order of the person.

        The future raises AppError if no landmark has a label in view.
        """
        return self._ask(lambda: self._fit_to_save(labels))

    def _ask(self, function: Callable[[], _Answer]) -> Future[_Answer]:
        future: Future[_Answer] = Future()
        with self._turn:
            if self._closing:
                raise AppError("the page is closing")
            self._asked.append((future, function))
            self._turn.notify_all()
        return future

    # ---- the thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing:
            with self._turn:
                asked = self._asked.popleft() if self._asked else None
            if asked is not None:
                _answer(*asked)
            elif not self._step_safely():
                self._rest()
        for future, _ in self._asked:
            future.cancel()

    def _rest(self, seconds: float | None = None) -> None:
        """Wait until something is asked, or labels are due."""
        with self._turn:
            if self._labels is not None and seconds is None:
                seconds = max(0.01, self._due - time.monotonic())
            if not self._asked and not self._closing:
                self._turn.wait(seconds)

    def _step_safely(self) -> bool:
        try:
            worked = self._step()
        except Exception as error:  # the page must go on answering, and say what is wrong
            self._fault = str(error) or type(error).__name__
            self._rest(_RETRY)
            return True
        if worked:
            self._fault = None
        return worked

    def _step(self) -> bool:
        """One portion of work, if there is any."""
        with self._turn:
            labels = self._labels if time.monotonic() >= self._due else None
        if labels is not None:
            self._learn(labels)
            return True
        seen = self.store.seen
        stale = seen & (self._predictions.lesson < self._lessons)
        if self._head is not None:
            portion = _TURNED_PORTION if self._head.turned else 8 * _PORTION
            if images := self._first(stale, portion):
                self._predict(images)
                return True
        unseen = ~seen
        unseen[list(self._unreadable)] = False
        if images := self._first(unseen, 2 * _PORTION):
            self._look(images[:_PORTION], images[_PORTION:])
            return True
        return False

    def _first(self, which: NDArray[np.bool_], count: int) -> list[int]:
        """Some of the images of a mask (N,), first those on the screen."""
        wanted = [image for image in self._wanted if which[image]]
        others = np.flatnonzero(which)[: count + len(wanted)].tolist()
        return list(dict.fromkeys([*wanted, *others]))[:count]

    # ---- looking --------------------------------------------------------------------------------------------

    def _look(self, images: Sequence[int], next_ones: Sequence[int] = ()) -> None:
        """Let the model see images, while the next are read."""
        for image in (*images, *next_ones):
            if image not in self._coming:
                self._coming[image] = self._readers.submit(self.pictures.framed, image)
        framed: dict[int, Framed] = {}
        for image in images:
            found = self._coming.pop(image).result()
            if isinstance(found, Framed):
                framed[image] = found
            else:
                self._unreadable[image] = found.reason
        if framed:
            records = self.vision.look(_frames(list(framed.values())))
            sizes = [each.size for each in framed.values()]
            self.store.write(list(framed), records, self.vision.summarise(records), sizes)

    def _records(self, images: Sequence[int]) -> tuple[list[int], NDArray[Any], list[Placement]]:
        """Of those ``images`` that can be read: indices, records, placements."""
        there, placements = self._place(images)
        return there, self.store.read(there), placements

    def _place(self, images: Sequence[int]) -> tuple[list[int], list[Placement]]:
        """Of those ``images`` that can be read: indices and placements."""
        seen = self.store.seen
        missing = [image for image in images if not seen[image] and image not in self._unreadable]
        for first in range(0, len(missing), _PORTION):
            self._look(missing[first : first + _PORTION])
        there = [image for image in images if image not in self._unreadable]
        return there, [self.pictures.placement(image, self.store.size(image)) for image in there]

    def _explore(self, question: Question) -> dict[int, Sight]:
        if isinstance(self.vision, SparseVision):
            return own_landmarks(self.vision, self._records, question.targets)
        return explore(self.vision, self._records, question)

    def _own_points(self, image: int) -> NDArray[np.float64]:
        vision = self.vision
        if isinstance(vision, SparseVision) or not vision.model.config.landmarks:
            raise AppError("this run has no landmarks beside descriptors")
        frames, (_, placements) = self._read_frames([image]), self._place([image])
        points, _ = vision.own_landmarks(frames, placements)
        return np.asarray(points[0])

    # ---- learning and predicting ----------------------------------------------------------------------------

    def _learn(self, labels: Labels) -> None:
        lesson = self._lesson_of(labels)
        begun = time.monotonic()
        if not lesson.teaches_as(self._lesson):
            before, self._head = self._head, self._fit(lesson.at_most(_ENOUGH)) if lesson.images else None
            # what was found upright is of no use once things are seen to lie in any direction
            earlier = self._predictions if _looks_alike(before, self._head) else None
            self._predictions = Predictions(len(self.pictures), lesson.landmarks, earlier)
            self._lesson, self._lessons = lesson, self._lessons + 1
        now = time.monotonic()
        with self._turn:
            self._rested = now + _SHARE * (now - begun)
            self._due = max(self._due, self._rested)
            if self._labels is labels:
                self._labels = None

    def _lesson_of(self, labels: Labels) -> Lesson:
        return lesson_of(labels, self.pictures.names, self.pictures.frame.size, self._place)

    def _fit(self, lesson: Lesson) -> Head:
        images = lesson.images
        mirror = lesson.symmetry if len(images) <= _ENOUGH_WITH_MIRRORED else None

        def records() -> NDArray[Any]:
            own = self.store.read(images)
            return own if mirror is None else np.concatenate([own, self._mirrored_of(images)])

        return self.vision.fit(lesson, mirror, records, lambda: self._frames_of(images))

    def _fit_to_save(self, labels: Labels) -> Head:
        lesson = self._lesson_of(labels)
        if not lesson.images:
            raise AppError("there is nothing to learn from yet: place at least one point by hand on one image")
        names = {each.id: each.name for each in labels.landmarks}
        frames = self._frames_of(lesson.images)
        chosen = [names[id] for id in lesson.landmarks]
        spec = HeadSpec(lesson.symmetry, self.vision.direction)
        return fit_head(self.vision.model, frames, lesson.points, chosen, spec)

    def _frames_of(self, images: Sequence[int]) -> Tensor:
        """What the model sees of labelled images (N, 3, S, S) uint8."""
        if missing := [image for image in images if image not in self._frames]:
            self._frames.update(zip(missing, self._read_frames(missing), strict=True))
        return torch.stack([self._frames[image] for image in images])

    def _read_frames(self, images: Sequence[int]) -> Tensor:
        """Frames (N, 3, S, S) uint8 of images that could be read before."""
        framed: list[Framed] = []
        for each in self._readers.map(self.pictures.framed, images):
            if isinstance(each, Unreadable):
                raise AppError(f"{each.name} can no longer be read: {each.reason}")
            framed.append(each)
        return _frames(framed)

    def _mirrored_of(self, images: Sequence[int]) -> NDArray[Any]:
        """Records (N, ...) of the mirror images of labelled images; looked at once while they are learned from."""
        self._mirrored = {image: self._mirrored[image] for image in images if image in self._mirrored}
        missing = [image for image in images if image not in self._mirrored]
        for first in range(0, len(missing), _PORTION):
            part = missing[first : first + _PORTION]
            records = self.vision.look(self._frames_of(part).flip(-1))
            self._mirrored.update(zip(part, records, strict=True))
        return np.stack([self._mirrored[image] for image in images])

    def _predict(self, images: Sequence[int]) -> None:
        there, placements = self._place(images)
        if self._head is None or not there:
            return
        if self._head.turned:
            found = self._head.detect_framed(self._read_frames(there), placements)
        else:
            found = self.vision.predict(self._head, self.store.read(there), placements)
        self._predictions.put(there, found, self._lessons)

    def _predict_one(self, image: int) -> None:
        if self._predictions.lesson[image] < self._lessons:
            self._predict([image])


def _looks_alike(head: Head | None, other: Head | None) -> bool:
    return head is None or other is None or head.turned == other.turned


def _answer(future: Future[Any], function: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)


def _frames(framed: Sequence[Framed]) -> Tensor:
    """(B, 3, S, S) uint8."""
    return torch.from_numpy(np.stack([each.pixels for each in framed])).movedim(-1, 1)
