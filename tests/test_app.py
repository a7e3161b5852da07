import json
import os
import re
import socket
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi", reason="the page is an extra: pip install 'equimark[app]'")
pytest.importorskip("uvicorn", reason="the page is an extra: pip install 'equimark[app]'")
from fastapi.testclient import TestClient

from animals import animals, colour_model
from equimark import formats
from equimark.app import AppError, exports, session, vision
from equimark.app.desk import Desk
from equimark.app.exploring import Point, Question
from equimark.app.gallery import Catalogue, disagreements
from equimark.app.history import Change, Said, Turn
from equimark.app.learning import Lesson, Predictions, lesson_of
from equimark.app.pictures import THUMBNAIL_SIDE, Pictures
from equimark.app.remarks import Exchange, find_exchanges, find_pairs, key_of_pair
from equimark.app.server import make_app
from equimark.app.session import Conflict, Labels, Landmark, Mark, Session, symmetry_of, to_table, work_folder
from equimark.app.store import Store
from equimark.geometry import Frame, Placement
from equimark.head import PAIRS, Head, HeadSpec
from equimark.images import ImageError, Unreadable, decode
from equimark.landmarks import LandmarkError, LandmarkTable
from equimark.model import LandmarkModel
from equimark.run import Run
from pictures import encoded, picture

NOSE, TAIL = Landmark("p1", "nose", "#ff0000"), Landmark("p2", "tail", "#00ff00")
LEFT, RIGHT = Landmark("l", "left eye", "#ff0000", "r"), Landmark("r", "right eye", "#00ff00", "l")
NAMES = ["a.jpg", "b.jpg", "c.jpg"]
NAN = float("nan")


def opened(folder: Path, names: list[str] = NAMES, images: str = "photos") -> Session:
    return Session(folder, folder / images, names)


# ---- the labels of a person


def test_what_was_saved_is_there_again(tmp_path):
    first = opened(tmp_path)
    first.set_landmarks([NOSE, TAIL], 0)
    marks = {"p1": Mark((1.25, 2.0)), "p2": Mark(None)}
    first.set_marks({"b.jpg": marks, "a.jpg": {"p1": Mark((3.0, 4.0), accepted=True)}}, 1)
    again = opened(tmp_path).labels
    assert again == first.labels and again.revision == 2
    assert again.landmarks == (NOSE, TAIL) and again.of("b.jpg") == marks
    assert json.loads((tmp_path / "labels.json").read_text()) == {
        "format": 1,
        "revision": 2,
        "images": str(tmp_path / "photos"),
        "landmarks": [vars(NOSE), vars(TAIL)],
        "dismissed": [],
        "labels": {"b.jpg": {"p1": [1.25, 2.0], "p2": None}, "a.jpg": {"p1": [3.0, 4.0, "accepted"]}},
    }


positions = st.floats(-1e5, 1e5).map(lambda v: round(v, 2))
a_mark = st.one_of(st.just(Mark(None)), st.builds(Mark, st.tuples(positions, positions), accepted=st.booleans()))
a_name = st.text(st.characters(codec=None, exclude_characters="\0"), min_size=1, max_size=12)


@settings(max_examples=40)
@given(
    st.lists(a_name.filter(str.strip), min_size=1, max_size=4, unique_by=str.strip),
    st.dictionaries(a_name, st.dictionaries(st.integers(0, 3), a_mark, max_size=3), max_size=4),
)
def test_any_names_and_marks_survive(tmp_path_factory, names, marks):
    folder = tmp_path_factory.mktemp("any")
    landmarks = [Landmark(f"id{k}", name, "#123456") for k, name in enumerate(names)]
    marks = {image: {f"id{k}": m for k, m in given.items() if k < len(names)} for image, given in marks.items()}
    first = opened(folder, list(marks))
    first.set_landmarks(landmarks, 0)
    first.set_marks(marks, 1)
    again = opened(folder, list(marks)).labels
    assert again.landmarks == tuple(landmarks)
    assert again.marks == {image: given for image, given in marks.items() if given}


def test_a_change_on_older_labels_is_refused(tmp_path):
    own = opened(tmp_path)
    own.set_landmarks([NOSE], 0)
    with pytest.raises(Conflict, match="changed in another window"):
        own.set_landmarks([TAIL], 0)
    with pytest.raises(Conflict):
        own.set_marks({"a.jpg": {"p1": Mark(None)}}, 0)
    assert own.labels == Labels((NOSE,), {}, 1) == opened(tmp_path).labels


def test_a_second_program_is_not_overwritten(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    one.set_landmarks([NOSE], 0)
    with pytest.raises(Conflict, match="changed by another program"):
        other.set_landmarks([TAIL], 0)
    assert opened(tmp_path).labels.landmarks == (NOSE,)


def test_a_failed_write_changes_nothing(tmp_path, unwritable):
    own = opened(tmp_path)
    own.set_landmarks([NOSE], 0)
    before = (tmp_path / "labels.json").read_bytes()
    with unwritable(session, "_write_through"), pytest.raises(OSError, match="No space left"):
        own.set_landmarks([NOSE, TAIL], 1)
    assert own.labels.landmarks == (NOSE,) and (tmp_path / "labels.json").read_bytes() == before
    assert own.set_landmarks([TAIL], 1).revision == 2


def test_deleting_a_landmark_can_be_undone(tmp_path):
    own = opened(tmp_path)
    own.set_landmarks([NOSE, TAIL], 0)
    own.set_marks({"a.jpg": {"p1": Mark((1, 2)), "p2": Mark((3, 4))}}, 1)
    own.set_landmarks([TAIL], 2)
    assert own.labels.of("a.jpg") == {"p2": Mark((3, 4))}
    own.set_marks({"a.jpg": {"p2": Mark(None)}}, 3)
    own.set_landmarks([TAIL, NOSE], 4)
    assert opened(tmp_path).labels.of("a.jpg") == {"p2": Mark(None), "p1": Mark((1, 2))}


def test_status():
    def status(**marks: Mark) -> str:
        return Labels((NOSE, TAIL), {"a": marks}).status("a")

    placed, taken = Mark((1, 2)), Mark((1, 2), accepted=True)
    assert status() == "new" and status(gone=placed) == "new"
    assert status(p1=placed) == status(p1=taken) == "partial"
    assert status(p1=taken, p2=taken) == "accepted"
    assert status(p1=taken, p2=placed) == status(p1=Mark(None), p2=taken) == "labelled"
    assert Labels((), {"a": {"p1": placed}}).status("a") == "new"


@pytest.mark.parametrize(
    ("landmarks", "wanted"),
    [
        ([NOSE, replace(TAIL, name="nose")], "two landmarks 'nose'"),
        ([NOSE, replace(TAIL, name=" nose ")], "two landmarks 'nose'"),
        ([NOSE, replace(TAIL, id="p1")], "two landmarks 'p1'"),
        ([replace(NOSE, name=" ")], "name of a landmark is empty"),
        ([LEFT, NOSE], "landmark 'left eye' mirrors 'r', which does not mirror it"),
        ([LEFT, replace(RIGHT, mirror=None)], "landmark 'left eye' mirrors 'r'"),
        ([LEFT, RIGHT, replace(NOSE, mirror="l")], "landmark 'nose' mirrors 'l'"),
        ([replace(NOSE, mirror="p1")], "landmark 'nose' mirrors 'p1'"),
    ],
)
def test_landmarks_that_cannot_be(tmp_path, landmarks, wanted):
    with pytest.raises(AppError, match=wanted):
        opened(tmp_path).set_landmarks(landmarks, 0)


def test_marks_that_cannot_be(tmp_path):
    own = opened(tmp_path)
    with pytest.raises(AppError, match="no landmark 'p1'"):
        own.set_marks({"a.jpg": {"p1": Mark(None)}}, 0)
    for value in ([1], [1, 2, "guessed"], [1, "x"], [1, 2, "accepted", 3], [NAN, 1], 7):
        with pytest.raises(AppError):
            Mark.from_json(value)
    for value in (None, [1.5, 2.0], [1.5, 2.0, "accepted"]):
        assert Mark.from_json(value).to_json() == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 2}',
        '{"format": 1, "revision": 1, "images": "x", "landmarks": [{"id": "a"}], "labels": {}}',
        '{"format": 1, "revision": 1, "images": "x", "landmarks": [], "labels": {"a.jpg": {"p1": [1]}}}',
        '{"format": 1, "revision": 1, "images": "x", "landmarks": [], "labels": []}',
        '{"format": 1, "revision": 1, "images": "x", "landmarks": [], "dismissed": 1, "labels": {}}',
        '{"format": 1, "revision": 1, "images": "x", "labels": {},'
        ' "landmarks": [{"id": "a", "name": "a", "colour": "#000000", "mirror": "b"}]}',
    ],
)
def test_a_damaged_file_is_never_overwritten(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(AppError, match=r"labels\.json is damaged"):
        opened(tmp_path)
    assert (tmp_path / "labels.json").read_text() == text


def test_labels_of_other_images_are_refused_and_moved_images_are_not(tmp_path):
    own = opened(tmp_path)
    own.set_landmarks([NOSE], 0)
    own.set_marks({"b.jpg": {"p1": Mark((1, 2))}}, 1)
    assert opened(tmp_path, ["b.jpg", "new.jpg"], "moved").labels.of("b.jpg") == {"p1": Mark((1, 2))}
    with pytest.raises(AppError, match=r"'b\.jpg' is not among these.*--work"):
        opened(tmp_path, ["x.jpg"], "others")
    assert opened(tmp_path, ["a.jpg"]).labels.marks  # an image of the same folder may be gone for a while


def test_a_landmark_file_to_start_from(tmp_path):
    points = np.array([[[1.234, 2], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]], [[5, 6], [7, 8]]])
    own = opened(tmp_path)
    own.adopt(LandmarkTable(("c.png", "a.jpg", "b.jpg"), points, ("nose", "tail")), NAMES, ["#ff0000", "#00ff00"])
    assert own.labels.landmarks == (NOSE, TAIL)
    assert own.labels.marks == {
        "c.jpg": {"p1": Mark((1.23, 2.0)), "p2": Mark(None)},
        "b.jpg": {"p1": Mark((5.0, 6.0)), "p2": Mark((7.0, 8.0))},
    }
    assert opened(tmp_path).labels == own.labels


def test_pairs_and_what_was_dismissed_are_there_again(tmp_path):
    own = opened(tmp_path)
    own.set_landmarks([LEFT, RIGHT, NOSE], 0, ["p1 = x", "p1 = x", "a.jpg: l = r"])
    own.set_landmarks([replace(LEFT, name="oculus sinister"), RIGHT], 1)
    again = opened(tmp_path).labels
    assert again == own.labels and again.dismissed == ("p1 = x", "a.jpg: l = r")
    assert [each.mirror for each in again.landmarks] == ["r", "l"]
    with pytest.raises(Conflict):
        own.set_landmarks([LEFT, RIGHT], 1, [])
    assert opened(tmp_path).labels.dismissed and not own.set_landmarks([NOSE], 2, []).dismissed


def test_labels_from_before_there_were_pairs(tmp_path):
    nose = {"id": "p1", "name": "nose", "colour": "#ff0000"}
    old = {"format": 1, "revision": 3, "images": "x", "landmarks": [nose], "labels": {}}
    (tmp_path / "labels.json").write_text(json.dumps(old))
    assert opened(tmp_path).labels == Labels((NOSE,), {}, 3)


def test_the_symmetry_of_some_landmarks():
    symmetry = symmetry_of([RIGHT, NOSE, LEFT])
    assert symmetry is not None and symmetry.partner == (2, 1, 0)
    assert symmetry_of([LEFT, NOSE]) is None and symmetry_of([]) is None


# ---- the history


def turn_of(change: Change, turn: Turn) -> Said:
    return replace(change.said, turn=turn)


def undo(own: Session) -> None:
    """As the page does it."""
    now, past, _ = own.undoable()
    step = past[-1]
    if "landmarks" in step.before:
        landmarks = [Landmark(**each) for each in step.before["landmarks"]]
        own.set_landmarks(landmarks, now.revision, step.before["dismissed"], turn_of(step, "undo"))
        return
    known = {each.id for each in now.landmarks}
    given = {
        image: {id: Mark.from_json(value) for id, value in marks.items() if id in known}
        for image, marks in step.before["marks"].items()
    }
    own.set_marks(given, now.revision, turn_of(step, "undo"))


def some_changes(own: Session) -> list[Labels]:
    """Labels after each of seven changes, a deletion and accepted images among them."""
    made = [own.labels, own.set_landmarks([NOSE, TAIL], 0, said=Said("adding"))]
    made.append(own.set_marks({"a.jpg": {"p1": Mark((1, 2)), "p2": Mark((3, 4))}}, 1, Said("placing", "a.jpg")))
    made.append(own.set_marks({"b.jpg": {"p1": Mark(None)}, "c.jpg": {"p2": Mark((5, 6), accepted=True)}}, 2))
    made.append(own.set_landmarks([TAIL], 3, ["x"]))
    made.append(own.set_marks({"a.jpg": {"p2": Mark((7, 8))}}, 4))
    made.append(own.set_marks({"a.jpg": {}, "c.jpg": {}}, 5))
    return [*made, own.set_landmarks([replace(TAIL, name="end")], 6)]


def same(one: Labels, other: Labels) -> bool:
    return replace(one, revision=0) == replace(other, revision=0)


def test_everything_can_be_undone_after_a_restart(tmp_path):
    made = some_changes(opened(tmp_path))
    for wanted in made[-2::-1]:
        own = opened(tmp_path)  # again and again
        undo(own)
        assert same(own.labels, wanted)
    own = opened(tmp_path)
    now, past, future = own.undoable()
    assert not past and [each.said.what for each in future][-2:] == ["placing", "adding"]
    own.set_landmarks([NOSE], now.revision)
    assert not own.undoable()[2]  # what was undone is given up


def test_the_history_tells_only_what_changed(tmp_path):
    own = opened(tmp_path)
    some_changes(own)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [each["revision"] for each in lines] == list(range(1, 8)) and lines[1]["image"] == "a.jpg"
    assert lines[4]["before"] == {"marks": {"a.jpg": {"p2": [3, 4]}}}
    assert lines[4]["after"] == {"marks": {"a.jpg": {"p2": [7, 8]}}}
    step = own.undoable()[1][1]  # with the whole images
    assert step.before == {"marks": {"a.jpg": {}}}
    assert step.after == {"marks": {"a.jpg": {"p1": [1, 2], "p2": [3, 4]}}}


def test_a_damaged_history_leaves_the_labels_alone(tmp_path):
    made, path = some_changes(opened(tmp_path)), tmp_path / "history.jsonl"
    whole = path.read_text()
    for text, undoable in (
        (whole + '{"revision": 8, "what"', 7),  # torn
        (whole[:-40], 0),  # the last change is lost: what came before does not fit
        ("nonsense\n" + whole.split("\n", 3)[3], 4),
        (whole.replace('"after"', '"afterwards"'), 0),
        (whole + whole.splitlines()[-1].replace('"revision": 7', '"revision": 8') + "\n", 7),  # labels never written
        ("", 0),
    ):
        path.write_text(text)
        own = opened(tmp_path)
        assert own.labels == made[-1] and len(own.undoable()[1]) == undoable, text
        before = (tmp_path / "labels.json").read_bytes()
        own.set_marks({"b.jpg": {"p2": Mark((9, 9))}}, 7)
        undo(opened(tmp_path))
        assert same(opened(tmp_path).labels, made[-1])
        (tmp_path / "labels.json").write_bytes(before)


def test_labels_are_saved_where_no_history_can_be(tmp_path):
    (tmp_path / "history.jsonl").mkdir()
    assert opened(tmp_path).set_landmarks([NOSE], 0) == opened(tmp_path).labels
    assert not opened(tmp_path).undoable()[1]


def test_the_history_is_bounded(tmp_path, monkeypatch):
    for name, value in (("_KEPT", 10), ("_MORE", 5)):
        monkeypatch.setattr(f"equimark.app.history.{name}", value)
    own = opened(tmp_path)
    for revision in range(40):
        own.set_landmarks([replace(NOSE, name=f"nose {revision}")], revision)
        assert len((tmp_path / "history.jsonl").read_text().splitlines()) <= 15
    assert len(opened(tmp_path).undoable()[1]) >= 10 and len(own.undoable()[1]) == 40


# ---- what the page remarks


def test_pairs_that_names_propose():
    left, right = replace(LEFT, mirror=None), replace(RIGHT, mirror=None)
    ears = Landmark("b", "ear_L", "#0000ff"), Landmark("a", "ear_R", "#0000ff")
    labels = Labels((left, NOSE, *ears, right))
    assert find_pairs(labels, ()) == [("l", "r"), ("b", "a")] and key_of_pair(("b", "a")) == "a = b"
    assert find_pairs(replace(labels, dismissed=("a = b",)), ()) == [("l", "r")]
    assert find_pairs(replace(labels, landmarks=(LEFT, RIGHT, *ears)), ()) == [("b", "a")]
    taken = replace(left, mirror="p1"), replace(NOSE, mirror="l"), right
    assert find_pairs(Labels(taken), ()) == []  # the left eye mirrors something else


def test_pairs_that_shapes_propose():
    labels = faces_labelled()
    unnamed = tuple(replace(each, name=str(k), mirror=None) for k, each in enumerate(labels.landmarks))
    labels = replace(labels, landmarks=unnamed)
    assert find_pairs(labels, "abcd") == [("l", "r"), ("ml", "mr")]
    assert find_pairs(labels, "ab") == []  # too few images
    assert find_pairs(replace(labels, dismissed=("l = r",)), "abcd") == [("ml", "mr")]
    declared = (replace(unnamed[0], mirror="r"), replace(unnamed[1], mirror="l"), *unnamed[2:])
    assert find_pairs(replace(labels, landmarks=declared), "abcd") == []  # a person who declares pairs knows them all


def faces_labelled(**exchanged: str) -> Labels:
    """Four upright faces of five points, of which some have pairs exchanged: ``b="eyes"`` or ``"all"``."""
    places = {"l": (10, 10), "r": (30, 10), "n": (20, 20), "ml": (13, 32), "mr": (27, 32)}
    names = {"l": "left eye", "r": "right eye", "n": "nose", "ml": "left mouth", "mr": "right mouth"}
    swapped = {"": "l r n ml mr", "eyes": "r l n ml mr", "all": "r l n mr ml"}
    mirrors = {"l": "r", "r": "l", "ml": "mr", "mr": "ml"}
    marks = {
        image: {
            id: Mark((places[at][0] + i, places[at][1] - i))
            for id, at in zip(places, swapped[exchanged.get(image, "")].split(), strict=True)
        }
        for i, image in enumerate("abcd")
    }
    landmarks = tuple(Landmark(id, name, "#000000", mirrors.get(id)) for id, name in names.items())
    return Labels(landmarks, marks)


def test_exchanged_labels_are_remarked():
    assert find_exchanges(faces_labelled(), list("abcd")) == []
    labels = faces_labelled(b="eyes", d="all")
    eyes, both = Exchange("b", (("l", "r"),), False), Exchange("d", (("l", "r"), ("ml", "mr")), True)
    labels = replace(labels, marks=labels.marks | dict.fromkeys("efg", labels.marks["a"]))
    assert find_exchanges(labels, list("abcdefg")) == [eyes, both]
    assert eyes.key == "b: l = r" and both.key == "d: l = r, ml = mr"
    assert find_exchanges(labels, list("acdefg")) == [both]  # an image that is no longer there
    assert find_exchanges(replace(labels, dismissed=(both.key, "b: ml = mr")), list("abcdefg")) == [eyes]
    unpaired = tuple(replace(each, mirror=None) for each in labels.landmarks)
    assert find_exchanges(replace(labels, landmarks=unpaired), list("abcdefg")) == []


def test_the_table_of_labels():
    labels = Labels((TAIL, NOSE), {"b": {"p1": Mark((1, 2)), "p2": Mark(None)}, "a": {"p2": Mark((3, 4))}})
    table = to_table(labels, ["a", "b", "c"])
    assert table.names == ("tail", "nose") and table.images == ("a", "b", "c")
    np.testing.assert_array_equal(table.points, [[[3, 4], [NAN, NAN]], [[NAN, NAN], [1, 2]], [[NAN, NAN], [NAN, NAN]]])


def test_where_the_work_is_kept(tmp_path):
    assert work_folder(Path("runs/x"), tmp_path / "photos.zip") == Path("runs/x/app/photos")


# ---- what the model has seen


def store_at(folder: Path, names: list[str] = NAMES, stamps: str = "111", identity: str = "w") -> Store:
    return Store(folder, names, list(stamps), identity, shape=(2, 3), dtype=np.float16, summary=2)


def test_rows_are_remembered(tmp_path):
    store = store_at(tmp_path / "s")
    assert not store.seen.any() and np.isnan(store.summaries).all() and len(store) == 3
    records = np.arange(12, dtype=np.float16).reshape(2, 2, 3)
    store.write([2, 0], records, np.array([[1, 2], [3, 4]]), [(10, 20), (30, 40)])
    for again in (store, store_at(tmp_path / "s")):
        assert again.seen.tolist() == [True, False, True]
        np.testing.assert_array_equal(again.read([0, 2]), records[[1, 0]])
        np.testing.assert_array_equal(again.summaries, [[3, 4], [NAN, NAN], [1, 2]])
        assert again.size(2) == (10, 20) and again.size(0) == (30, 40)


def test_rows_follow_their_images(tmp_path):
    store_at(tmp_path).write([0, 1], np.ones((2, 2, 3)) * [[[1]], [[2]]], np.zeros((2, 2)), [(1, 1)] * 2)
    more = store_at(tmp_path, ["new", "b.jpg", "a.jpg"])
    assert more.seen.tolist() == [False, True, True]
    assert more.read([1, 2])[:, 0, 0].tolist() == [2, 1]
    more.write([0], np.full((1, 2, 3), 9), np.zeros((1, 2)), [(1, 1)])
    assert store_at(tmp_path, ["a.jpg", "new"], "11").read([0, 1])[:, 0, 0].tolist() == [1, 9]


def test_what_has_changed_is_seen_anew(tmp_path):
    store_at(tmp_path).write([0, 1], np.ones((2, 2, 3)), np.zeros((2, 2)), [(1, 1)] * 2)
    assert store_at(tmp_path, stamps="121").seen.tolist() == [True, False, False]
    assert not store_at(tmp_path, identity="other weights").seen.any()
    (tmp_path / "index.json").write_text("{")
    assert not store_at(tmp_path, identity="other weights").seen.any()


def test_a_full_disk_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.terminal_size((0, 0)) and type("D", (), {"free": 10}))
    with pytest.raises(AppError, match=r"takes 0\.0 GB.*--work"):
        store_at(tmp_path)


# ---- the gallery


CATALOGUE = Catalogue(
    ["b/One.png", "two.png", "three.png", "four.png", "five.png"],
    ["new", "labelled", "accepted", "partial", "new"],
    np.array([0.9, 0.2, NAN, 0.4, 0.1]),
    np.array([NAN, 3, 7, 1, NAN]),
    frozenset({4}),
    frozenset({1, 4}),
)


@pytest.mark.parametrize(
    ("which", "order", "wanted"),
    [
        ("all", "name", [0, 1, 2, 3, 4]),
        ("all", "confidence", [4, 1, 3, 0, 2]),
        ("all", "disagreement", [2, 1, 3, 0, 4]),
        ("predicted", "name", [0, 3]),
        ("low", "name", [3]),
        ("labelled", "name", [1]),
        ("accepted", "name", [2]),
        ("exchanged", "name", [1]),
        ("unreadable", "name", [4]),
    ],
)
def test_filters_and_orders(which, order, wanted):
    assert CATALOGUE.select(which, order) == wanted
    assert CATALOGUE.counts()[which] == len(wanted)


def test_search_random_order_and_the_usual_low():
    assert CATALOGUE.select(search="ONE") == [0] and CATALOGUE.select(search="/") == [0]
    assert sorted(CATALOGUE.select(order="random", seed=1)) == [0, 1, 2, 3, 4]
    assert CATALOGUE.select(order="random", seed=1) == CATALOGUE.select(order="random", seed=1)
    assert CATALOGUE.usual_low == round(0.3 * 0.7, 2)


def predictions_of(*points: list[tuple[float, float, float]], ids: tuple[str, ...] = ("p1", "p2")) -> Predictions:
    found = np.array(points, np.float64)
    made = Predictions(len(points), ids)
    made.put(range(len(points)), (found[..., :2], found[..., 2]), 1)
    return made


def test_how_far_labels_are_from_predictions():
    labels = Labels((NOSE, TAIL), {"a": {"p1": Mark((0, 0)), "p2": Mark((10, 0))}, "b": {"p1": Mark(None)}})
    made = predictions_of([(3, 4, 1), (10, 1, 1)], [(0, 0, 1), (0, 0, 1)], [(0, 0, 1), (0, 0, 1)])
    np.testing.assert_array_equal(disagreements(labels, ["a", "b", "c"], made), [3, NAN, NAN])


# ---- lessons and predictions


def test_a_lesson_holds_what_is_in_view():
    labels = Labels(
        (TAIL, NOSE, Landmark("p3", "wing", "#000000")),
        {
            "b": {"p1": Mark((10, 20)), "p3": Mark(None)},
            "gone": {"p1": Mark((0, 0))},
            "a": {"p2": Mark((999, 0))},
            "c": {"p1": Mark((12, 20)), "p2": Mark((-0.5, 39.5))},
        },
    )
    square = Placement((0, 0, 40, 40), 40)
    lesson = lesson_of(labels, ["a", "b", "c"], 40, lambda images: (list(images), [square] * len(images)))
    assert lesson.landmarks == ("p2", "p1") and lesson.images == (1, 2)
    np.testing.assert_array_equal(lesson.points, [[[NAN, NAN], [10, 20]], [[-0.5, 39.5], [12, 20]]])
    assert lesson.teaches_as(replace(lesson)) and not lesson.teaches_as(Lesson())
    assert not lesson.teaches_as(replace(lesson, points=lesson.points + 1))
    assert lesson.symmetry is None


def test_a_lesson_of_pairs():
    labels = Labels((NOSE, LEFT, RIGHT), {"a": {"l": Mark((1, 2)), "r": Mark((3, 4))}, "b": {"l": Mark((1, 2))}})
    square = Placement((0, 0, 40, 40), 40)

    def lesson(labels: Labels) -> Lesson:
        return lesson_of(labels, ["a", "b"], 40, lambda images: (list(images), [square] * len(images)))

    made = lesson(labels)
    assert made.landmarks == ("l", "r") and made.symmetry is not None and made.symmetry.partner == (1, 0)
    assert made.at_most(1).symmetry == made.symmetry
    assert not made.teaches_as(replace(made, symmetry=None))
    alone = lesson(replace(labels, marks={"b": labels.marks["b"]}))  # the right eye cannot be learned without a label
    assert alone.landmarks == ("l",) and alone.symmetry is None


def test_of_many_labels_some_are_learned():
    points = np.zeros((4, 2, 2))
    points[:3, 1] = NAN  # the second landmark is seen on the last image only
    lesson = Lesson(("p1", "p2"), (3, 5, 7, 9), points)
    assert lesson.at_most(4) is lesson
    few = lesson.at_most(1)
    assert few.images == (3, 9) and np.isfinite(few.points).all(-1).tolist() == [[True, False], [True, True]]


def test_only_what_a_person_corrected_is_learned():
    placed, taken = Mark((1, 2)), Mark((3, 4), accepted=True)
    marks = {
        "a": {"p1": taken, "p2": taken},
        "b": {"p1": placed, "p2": taken},
        "c": {"p1": Mark(None), "p2": taken},
        "d": {"p2": taken},
    }
    square = Placement((0, 0, 40, 40), 40)
    labels = Labels((NOSE, TAIL), marks)
    made = lesson_of(labels, list("abcd"), 40, lambda images: (list(images), [square] * len(images)))
    assert made.images == (1, 2) and made.landmarks == ("p1", "p2")
    np.testing.assert_array_equal(made.points, [[[1, 2], [3, 4]], [[NAN, NAN], [3, 4]]])


def test_earlier_predictions_stand_until_they_are_replaced():
    first = predictions_of([(1, 2, 0.5), (3, 4, 0.7)])
    second = Predictions(1, ("p2", "p9"), first)
    assert second.of(0) == {"p2": (3, 4, 0.7)} and second.lesson.tolist() == [0]
    assert first.mean_confidence().tolist() == [0.6] and second.mean_confidence().tolist() == [0.7]
    assert np.isnan(Predictions(2).mean_confidence()).all() and Predictions(2).of(1) == {}


# ---- files to take away


def test_tables_to_export():
    labels = Labels((NOSE, TAIL), {"a": {"p1": Mark((1, 2))}, "b": {"p2": Mark(None)}})
    made = predictions_of([(9, 9, 0.9), (5, 6, 0.8)], [(7, 8, 0.3), (9, 9, 0.9)], [(1, 1, 0.2), (2, 2, 0.9)])
    checked = exports.checked_table(labels, ["a", "b", "c"])
    assert checked.images == ("a", "b") and checked.visible.tolist() == [[True, False], [False, False]]
    full = exports.full_table(labels, ["a", "b", "c"], made, least=0.25)
    np.testing.assert_array_equal(full.points, [[[1, 2], [5, 6]], [[7, 8], [NAN, NAN]], [[NAN, NAN], [2, 2]]])
    np.testing.assert_array_equal(full.confidence, [[1, 0.8], [0.3, 1], [0.2, 0.9]])
    for empty in (Labels(), Labels((NOSE,))):
        with pytest.raises(AppError, match="nothing is labelled yet"):
            exports.checked_table(empty, ["a"])
        with pytest.raises(AppError, match="nothing is labelled yet"):
            exports.full_table(empty, ["a"], Predictions(1))


@pytest.mark.parametrize("name", formats.FORMATS)
def test_every_format_can_be_exported(tmp_path, name):
    sizes = np.array([[20, 30], [20, 30]])
    table = LandmarkTable(("a.png", "in/b.png"), np.array([[[1.0, 2]], [[3, 4]]]), ("nose",), sizes=sizes)
    try:
        path, file, _ = exports.write_table(table, tmp_path, "my wings/2", name)
    except LandmarkError as error:
        assert "pip install" in str(error)
        pytest.skip(str(error))
    assert path.parent == file.parent == tmp_path and path.name.startswith("my-wings-2") and file.is_file()
    if formats.FORMATS[name].sizes != "needed":
        np.testing.assert_allclose(formats.read(path, name).points, table.points)
    if path != file:
        assert sorted(zipfile.ZipFile(file).namelist()) == ["a.pts", "in/b.pts"]


def test_names_of_files_lead_nowhere_else():
    assert exports.safe_name("../Vögel 2/..") == "Vögel-2"
    for name in ("", " ", "../..", "/"):
        with pytest.raises(AppError):
            exports.safe_name(name)
    with pytest.raises(AppError, match="no format 'doc'"):
        exports.write_table(LandmarkTable(("a",), np.zeros((1, 1, 2))), Path(), "x", "doc")


# ---- images


@pytest.fixture
def album(tmp_path) -> Path:
    """A photograph lying on its side, a 16-bit TIFF, a PNG and a text that calls itself an image."""
    folder = tmp_path / "album"
    (folder / "in").mkdir(parents=True)
    turned = Image.Exif()
    turned[274] = 6
    (folder / "turned.jpg").write_bytes(encoded(picture(600, 900), "JPEG", exif=turned))
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(folder / "deep.tif")
    (folder / "in" / "plain.png").write_bytes(encoded(picture(48, 64)))
    (folder / "in" / "text.png").write_text("nothing")
    return folder


def test_pictures(album, tmp_path):
    pictures = Pictures(album, Frame(40), tmp_path / "thumbs")
    assert pictures.names == ["deep.tif", "in/plain.png", "in/text.png", "turned.jpg"]
    assert [pictures.index_of[key] for key in pictures.keys] == [0, 1, 2, 3]
    assert pictures.known_size(3) is None and pictures.size(3) == (900, 600) == pictures.known_size(3)
    assert pictures.box(3, (900, 600)) == (0, 0, 600, 900)
    small = decode(pictures.thumbnail(3)).pixels
    assert small.shape == (THUMBNAIL_SIDE, round(THUMBNAIL_SIDE * 2 / 3), 3)
    assert pictures.shown(3) == (album / "turned.jpg").read_bytes()
    assert decode(pictures.shown(0)).pixels.shape == (20, 30, 3)
    framed = pictures.framed(1)
    assert not isinstance(framed, Unreadable) and framed.size == (48, 64) and framed.pixels.shape == (40, 40, 3)
    assert isinstance(pictures.framed(2), Unreadable)
    for ask in (pictures.size, pictures.thumbnail):
        with pytest.raises(ImageError, match="not an image"):
            ask(2)


def test_thumbnails_are_made_once_and_anew_when_the_file_changes(album, tmp_path, monkeypatch):
    pictures = Pictures(album, Frame(40), tmp_path / "thumbs")
    before = pictures.thumbnail(1)
    with monkeypatch.context() as patch:
        patch.setattr("equimark.images.sources.decode_picture", None)
        assert pictures.thumbnail(1) == before
    (album / "in" / "plain.png").write_bytes(encoded(picture(48, 64, seed=1)))
    assert pictures.thumbnail(1) != before


def test_pictures_of_a_pack(photo_pack, photos):
    packed, files = (Pictures(path, Frame(40), photo_pack / "none") for path in (photo_pack, photos))
    assert packed.keys == files.keys and packed.size(0) == (48, 48) and packed.box(0, (48, 48)) == (0, 0, 48, 48)
    np.testing.assert_array_equal(packed.framed(3).pixels, files.framed(3).pixels)
    assert decode(packed.shown(0)).pixels.shape == (40, 40, 3)
    with pytest.raises(ImageError, match="packed at 40 px, the model sees 64 px"):
        Pictures(photo_pack, Frame(64), photo_pack / "none")


# ---- the engine


def until(done: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def finish(desk: Desk) -> None:
    """Wait until everything is seen, learned and predicted."""

    def done() -> bool:
        now = desk.engine.progress()
        assert now.fault is None, now.fault
        return not now.learning and now.predicted == now.seen == now.images

    until(done)


@pytest.fixture
def desk(dve_run: Run, photos: Path, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(LandmarkModel.load(dve_run.folder, device="cpu"), dve_run.folder, photos, work=tmp_path / "work")
    made.engine.start()
    yield made
    made.engine.close()


def test_the_store_sees_what_the_model_sees(desk, dve_model):
    until(lambda: desk.engine.progress().seen == 16)
    pixels = decode((desk.images / "000003.png").read_bytes()).pixels
    columns = dve_model.hypercolumns(dve_model.frames_of([pixels])[0])[0]
    np.testing.assert_allclose(desk.engine.store.read([3])[0], columns, atol=0.02)
    np.testing.assert_array_equal(columns[:16], dve_model.describe(pixels))
    np.testing.assert_allclose(desk.engine.store.summaries[3], dve_model.describe(pixels).mean((1, 2)), atol=0.01)


def test_points_are_found_as_by_match(desk, dve_model):
    source, target = (decode((desk.images / f"00000{i}.png").read_bytes()).pixels for i in (0, 5))
    points = [(20.0, 22.0), (31.5, 18.0)]
    wanted = dve_model.match(source, points, target)
    sights = desk.engine.explore(Question([Point(0, *p) for p in points], [5, 0], heat_of=1)).result()
    np.testing.assert_allclose(sights[5].points, wanted.points, atol=0.05)
    np.testing.assert_allclose(sights[5].confidence, wanted.confidence, atol=0.01)
    assert np.abs(sights[0].points - points).max() < 3
    heat = sights[0].heat
    assert heat is not None and heat.max() == 255 and sights[0].box == (0, 0, 48, 48)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    np.testing.assert_allclose([column, row], np.array(points[1]) * heat.shape[0] / 48, atol=2)


def test_colours_go_to_the_nearest(desk):
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    asked = Question([Point(0, 20, 22), Point(0, 31, 18)], [0], colours=colours)
    seen = desk.engine.explore(asked).result()[0].colours
    assert seen is not None and {tuple(c) for c in seen.reshape(-1, 3).tolist()} <= {(255, 0, 0), (0, 0, 255)}
    side = seen.shape[0] / 48
    assert seen[int(22 * side), int(20 * side)].tolist() == [255, 0, 0]
    assert seen[int(18 * side), int(31 * side)].tolist() == [0, 0, 255]
    own = desk.engine.explore(Question([], [0], reference=0)).result()[0].colours
    _, wanted = desk.engine.vision.references(desk.engine.store.read([0])[0])
    np.testing.assert_array_equal(own.reshape(-1, 3), wanted)  # on the reference itself each place is nearest to itself


def test_heat_is_shown_by_its_logarithm():
    heat = np.array([[1.0, 0.1], [1e-2, 0]]) / 3
    assert vision.heat_bytes(heat).tolist() == [[255, 191], [128, 0]]


def label(desk: Desk, images: int = 5) -> np.ndarray:
    """Label five points on the first images; returns them (images, 5, 2)."""
    truth = formats.read(desk.images / "landmarks.csv").points.round(2)
    landmarks = [Landmark(f"p{k}", f"point {k}", "#ff0000") for k in range(5)]
    desk.set_landmarks(landmarks, desk.session.labels.revision)
    marks = {
        desk.pictures.keys[i]: {each.id: truth[i, k].tolist() for k, each in enumerate(landmarks)}
        for i in range(images)
    }
    desk.set_marks(marks, desk.session.labels.revision)
    return truth[:images]


def test_predictions_are_those_of_the_fitted_head(desk, dve_model):
    truth = label(desk)
    finish(desk)
    images = [decode((desk.images / f"{i:06d}.png").read_bytes()).pixels for i in range(16)]
    wanted = dve_model.fit(images[:5], truth).predict(images)
    np.testing.assert_allclose(desk.engine.predictions.points, wanted, atol=0.1)
    item = desk.opened(9)
    assert item["status"] == "new" and item["confidence"] > 0
    np.testing.assert_allclose([each[:2] for each in item["predicted"].values()], wanted[9], atol=0.1)


def test_accepting_without_a_look_makes_nobody_sure(desk):
    label(desk, 1)
    finish(desk)
    before, lesson = desk.engine.predictions.confidence.copy(), desk.engine.progress().lesson
    for row, hand in ((0, False), (6, True)):  # of images 1 to 6 all is accepted, then a point of the last is moved
        given = {
            desk.pictures.keys[i]: {
                id: [x, y] if hand and id == "p0" else [x, y, "accepted"]
                for id, (x, y, _) in desk.engine.predictions.of(i).items()
            }
            for i in range(row or 1, 7)
        }
        desk.set_marks(given, desk.session.labels.revision)
        finish(desk)
        assert desk.engine.progress().lesson == lesson + hand
        assert np.array_equal(desk.engine.predictions.confidence, before) is not hand


def pair_up(desk: Desk) -> None:
    """The eyes and the corners of the mouth mirror each other."""
    partner = (1, 0, None, 4, 3)
    now = desk.session.labels
    landmarks = [
        replace(each, mirror=None if k is None else f"p{k}") for each, k in zip(now.landmarks, partner, strict=True)
    ]
    desk.set_landmarks(landmarks, now.revision)


@pytest.mark.parametrize("enough", [1, 0])
def test_predictions_learn_from_mirror_images_while_labels_are_few(desk, dve_model, monkeypatch, enough):
    monkeypatch.setattr("equimark.app.engine._ENOUGH_WITH_MIRRORED", enough)
    truth = label(desk, 1)
    pair_up(desk)
    finish(desk)
    head = desk.engine.fit(desk.session.labels).result()  # to be saved: from mirror images in any case
    assert head.mirrored and head.symmetry.partner == (1, 0, 2, 4, 3)
    images = [decode((desk.images / f"{i:06d}.png").read_bytes()).pixels for i in range(16)]
    alone, both = (each.predict(images) for each in (dve_model.fit(images[:1], truth), head))
    assert np.abs(alone - both).max() > 1
    np.testing.assert_allclose(desk.engine.predictions.points, both if enough else alone, atol=0.1)
    if enough:
        sure = head.detect_framed(*dve_model.frames_of(images))[1]
        np.testing.assert_allclose(desk.engine.predictions.confidence, sure, atol=0.02)


def test_mirror_images_are_looked_at_once(desk, monkeypatch):
    until(lambda: desk.engine.progress().seen == 16)
    looked: list[int] = []
    look = desk.engine.vision.look
    monkeypatch.setattr(desk.engine.vision, "look", lambda frames: looked.append(len(frames)) or look(frames))
    label(desk, 3)
    finish(desk)
    assert looked == []
    pair_up(desk)
    finish(desk)
    assert looked == [3]
    label(desk, 4)  # without pairs
    pair_up(desk)
    finish(desk)
    assert looked == [3, 1]


def test_predictions_begin_with_one_labelled_image_and_end_with_none(desk):
    key = desk.pictures.keys[0]
    desk.set_landmarks([NOSE, TAIL], 0)
    desk.set_marks({key: {"p1": [20.0, 20.0]}}, 1)
    finish(desk)
    assert set(desk.item(7)["predicted"]) == {"p1"}
    lesson = desk.engine.progress().lesson
    desk.set_landmarks([replace(NOSE, name="beak"), TAIL], 2)  # a name teaches nothing
    until(lambda: not desk.engine.progress().learning)
    assert desk.engine.progress().lesson == lesson
    desk.set_marks({key: {}}, 3)
    until(lambda: desk.engine.progress().lesson > lesson)
    assert desk.item(7)["predicted"] == {} and desk.item(7)["status"] == "new"


def test_what_was_seen_is_not_looked_at_again(desk, dve_run, monkeypatch):
    until(lambda: desk.engine.progress().seen == 16)
    label(desk)
    desk.engine.close()
    monkeypatch.setattr(vision.DenseVision, "look", None)
    again = Desk(LandmarkModel.load(dve_run.folder, device="cpu"), dve_run.folder, desk.images, work=desk.work)
    again.engine.start()
    try:
        finish(again)
        assert again.item(3)["size"] == (48, 48)
    finally:
        again.engine.close()


def test_images_that_cannot_be_read_are_named(dve_run, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes((photos / f"00000{i}.png").read_bytes())
    (folder / "1.png").write_text("nothing")
    desk = Desk(dve_run.model, dve_run.folder, folder, work=tmp_path / "work")
    desk.engine.start()
    try:
        until(lambda: desk.engine.progress().seen == 2 and desk.engine.progress().unreadable == 1)
        assert "not an image" in desk.item(1)["unreadable"] and desk.opened(1)["frame"] is None
        assert [each["name"] for each in desk.suggestions(9)] and all(
            i["key"] != desk.pictures.keys[1] for i in desk.suggestions(9)
        )
        assert set(desk.explore([(desk.pictures.keys[0], 5, 5)], desk.pictures.keys)) == {
            desk.pictures.keys[0],
            desk.pictures.keys[2],
        }
        with pytest.raises(AppError, match="cannot be read"):
            desk.explore([(desk.pictures.keys[1], 5, 5)], desk.pictures.keys)
    finally:
        desk.engine.close()


def test_a_fault_in_the_background_is_told_and_passes(desk, unwritable, monkeypatch):
    monkeypatch.setattr("equimark.app.engine._RETRY", 0.05)
    until(lambda: desk.engine.progress().seen == 16)
    with monkeypatch.context() as patch:
        patch.setattr(desk.engine.vision, "fit", lambda *_: 1 / 0)
        label(desk)
        until(lambda: desk.engine.progress().fault == "division by zero")
        assert desk.leaf("all", "name", search="", low=None, seed=0, first=0, count=5)["total"] == 16
    until(lambda: desk.engine.progress().predicted == 16)
    assert desk.engine.progress().fault is None


def test_a_sparse_run(sparse_run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(vision, "_QUICK_PAIRS", 6)
    model = LandmarkModel.load(sparse_run.folder, device="cpu")
    desk = Desk(model, sparse_run.folder, photos, work=tmp_path)
    desk.engine.start()
    try:
        assert desk.state()["own_landmarks"] == 4
        image = decode((photos / "000002.png").read_bytes()).pixels
        found = desk.explore([], [desk.pictures.keys[2]])[desk.pictures.keys[2]]["points"]
        np.testing.assert_allclose(np.array(found)[:, :2], model.detect(image).points, atol=0.01)
        truth = label(desk, 3)
        finish(desk)
        images = [decode((photos / f"00000{i}.png").read_bytes()).pixels for i in range(3)]
        wanted = model.fit(images, truth, pairs=6).predict(images)
        np.testing.assert_allclose(desk.engine.predictions.points[:3], wanted, atol=1e-3)
        specs: list[HeadSpec] = []
        monkeypatch.setattr("equimark.app.engine.fit_head", lambda *given: specs.append(given[-1]))
        desk.engine.fit(desk.session.labels).result()
        assert [spec.pairs for spec in specs] == [PAIRS]  # a head to keep takes as many views as the command does
    finally:
        desk.engine.close()


def test_things_in_any_direction(sparse_run: Run, tmp_path: Path) -> None:
    """The labels of two animals that lie differently show how the others have to be looked at."""
    frames, points = animals(6)
    for i, frame in enumerate(frames):
        Image.fromarray(frame.movedim(0, -1).numpy()).save(tmp_path / f"{i}.png")
    model = colour_model()
    desk = Desk(model, sparse_run.folder, tmp_path, work=tmp_path / "work")
    desk.engine.start()
    try:
        landmarks = [Landmark(f"p{k}", f"point {k}", "#ff0000") for k in range(4)]
        desk.set_landmarks(landmarks, desk.session.labels.revision)
        for chosen in (range(1), range(3)):
            marks = {desk.pictures.keys[i]: {f"p{k}": points[i, k].tolist() for k in range(4)} for i in chosen}
            desk.set_marks(marks, desk.session.labels.revision)
            finish(desk)
            head = desk.engine.fit(desk.session.labels).result()
            assert head.turned is (len(chosen) > 1)
        wanted = head.predict([frame.movedim(0, -1).numpy() for frame in frames])
        np.testing.assert_allclose(desk.engine.predictions.points, wanted, atol=1e-3)
        np.testing.assert_allclose(wanted, points, atol=3)
    finally:
        desk.engine.close()


@pytest.mark.parametrize(("direction", "labelled", "turned"), [("any", 1, True), ("upright", 3, False)])
def test_a_direction_that_the_person_knows(sparse_run, tmp_path, direction, labelled, turned):
    frames, points = animals(6)
    for i, frame in enumerate(frames):
        Image.fromarray(frame.movedim(0, -1).numpy()).save(tmp_path / f"{i}.png")
    desk = Desk(colour_model(), sparse_run.folder, tmp_path, work=tmp_path / "work", direction=direction)
    desk.engine.start()
    try:
        desk.set_landmarks([Landmark(f"p{k}", f"point {k}", "#ff0000") for k in range(4)], 0)
        keys = desk.pictures.keys
        desk.set_marks({keys[i]: {f"p{k}": points[i, k].tolist() for k in range(4)} for i in range(labelled)}, 1)
        finish(desk)
        head = desk.engine.fit(desk.session.labels).result()
        assert desk.engine.progress().turned is head.turned is turned
        assert desk.progress()["visible_from"] == head.visible_from == 0  # no label says "not visible"
        wanted = head.predict([frame.movedim(0, -1).numpy() for frame in frames])
        np.testing.assert_allclose(desk.engine.predictions.points, wanted, atol=0.1)
        assert not turned or np.abs(wanted - points).max() < 3
    finally:
        desk.engine.close()


# ---- the routes


@pytest.fixture
def page(dve_run: Run, photos: Path, tmp_path: Path) -> Iterator[TestClient]:
    desk = Desk(LandmarkModel.load(dve_run.folder, device="cpu"), dve_run.folder, photos, work=tmp_path / "work")
    with TestClient(make_app(desk), base_url="http://127.0.0.1:7860", raise_server_exceptions=True) as client:
        client.desk = desk
        yield client


def test_the_page_and_its_parts_are_there(page):
    index = page.get("/")
    assert index.status_code == 200 and "default-src 'self'" in index.headers["content-security-policy"]
    parts = re.findall(r'(?:href|src)="(/static/[^"]+)"', index.text)
    assert len(parts) >= 3
    folder = Path(exports.__file__).parent / "static"
    scripts = sorted(folder.glob("*.js"))
    imported = {name for path in scripts for name in re.findall(r'from "\./([\w.]+)"', path.read_text())}
    assert imported | {"main.js"} == {path.name for path in scripts}
    for part in {*parts, *(f"/static/{path.name}" for path in scripts)}:
        assert page.get(part).status_code == 200, part
    everything = "".join(path.read_text() for path in folder.iterdir())
    assert not re.search(r"https?://(?!www\.w3\.org)", everything)  # nothing comes from elsewhere
    wanted = set(re.findall(r'\$\("#([\w-]+)"\)', "".join(path.read_text() for path in scripts)))
    assert wanted <= set(re.findall(r'id="([\w-]+)"', index.text))


def test_from_labels_to_files(page):
    state = page.get("/api/state").json()
    assert state["count"] == 16 and state["method"] == "dve" and state["revision"] == 0
    keys = [item["key"] for item in page.get("/api/images?count=3").json()["items"]]
    answer = page.put("/api/landmarks", json={"revision": 0, "landmarks": [vars(NOSE), vars(TAIL)]}).json()
    remarks = {"pairs": [], "exchanges": []}
    assert answer == {"revision": 1, "landmarks": [vars(NOSE), vars(TAIL)], "dismissed": [], "remarks": remarks}
    marks = {keys[0]: {"p1": [10, 12], "p2": None}, keys[1]: {"p1": [11, 13, "accepted"], "p2": [30, 31, "accepted"]}}
    marks[keys[2]] = {"p2": [29, 30]}
    answer = page.put("/api/marks", json={"revision": 1, "marks": marks}).json()
    statuses = dict(zip(keys, ("labelled", "accepted", "partial"), strict=True))
    assert answer == {"revision": 2, "statuses": statuses, "remarks": remarks}
    item = page.get(f"/api/images/{keys[0]}").json()
    assert item["marks"] == {"p1": [10, 12], "p2": None} and item["box"] == [0, 0, 48, 48] == item["frame"]
    assert item["previous"] is None and item["next"] == keys[1] and set(item["predicted"]) <= {"p1", "p2"}
    counts = page.get("/api/images?filter=accepted&count=5").json()
    assert [each["key"] for each in counts["items"]] == [keys[1]] and counts["counts"]["predicted"] == 14
    made = page.post("/api/export", json={"format": "csv"}).json()
    assert made["images"] == 3 and made["file"] == "work-checked.csv"
    got = page.get(f"/api/exports/{made['file']}")
    rows = ["image,nose_x,nose_y,tail_x,tail_y", "000000.png,10,12,,", "000001.png,11,13,30,31", "000002.png,,,29,30"]
    assert got.text.splitlines() == rows
    assert "attachment" in got.headers["content-disposition"]
    until(lambda: page.get("/api/progress").json()["predicted"] == 16)
    full = page.post("/api/export", json={"format": "csv", "everything": True}).json()
    assert full["images"] == 16 and formats.read(full["path"]).visible.sum() == 31
    head = page.post("/api/head", json={"name": "my head"}).json()
    assert head["names"] == ["nose", "tail"] and "--head" in head["command"]
    assert head["pairs"] == 0 and not head["mirrored"]
    model = LandmarkModel.load(page.desk.run, device="cpu")
    image = decode((page.desk.images / "000004.png").read_bytes()).pixels
    predicted = page.get(f"/api/images/{page.desk.pictures.keys[4]}").json()["predicted"]
    np.testing.assert_allclose(
        Head.load(head["path"], model).predict([image])[0], [predicted[id][:2] for id in ("p1", "p2")], atol=0.1
    )


def test_two_windows(page):
    one = page.put("/api/landmarks", json={"revision": 0, "landmarks": [vars(NOSE)]})
    other = page.put("/api/landmarks", json={"revision": 0, "landmarks": [vars(TAIL)]})
    assert one.status_code == 200 and other.status_code == 409
    assert "changed in another window" in other.json()["message"]
    assert page.get("/api/state").json()["landmarks"] == [vars(NOSE)]


def test_the_page_is_given_what_can_be_undone(page):
    keys = page.desk.pictures.keys
    page.put("/api/landmarks", json={"revision": 0, "landmarks": [vars(NOSE), vars(TAIL)]})
    said = {"what": "placing nose", "key": keys[1], "turn": "change"}
    page.put("/api/marks", json={"revision": 1, "marks": {keys[1]: {"p1": [1, 2]}}, "said": said})
    step = {"what": "placing nose", "key": keys[1]}
    before, after = {"marks": {keys[1]: {}}}, {"marks": {keys[1]: {"p1": [1, 2]}}}
    state = page.get("/api/state").json()
    assert state["past"][1:] == [{**step, "before": before, "after": after}] and state["future"] == []
    page.put("/api/marks", json={"revision": 2, **before, "said": {**said, "turn": "undo"}})
    state = page.get("/api/state").json()
    assert len(state["past"]) == 1 and state["future"] == [{**step, "before": before, "after": after}]
    refused = page.put("/api/marks", json={"revision": 2, **after, "said": {**said, "turn": "redo"}})
    assert refused.status_code == 409 and page.get("/api/state").json()["future"] == state["future"]
    del page.desk.pictures.index_of_name["000001.png"]  # the image is gone
    assert page.get("/api/state").json()["future"] == [
        {"what": "placing nose", "key": None, "before": {"marks": {}}, "after": {"marks": {}}}
    ]


def test_pairs_from_the_question_to_the_head(page):
    labels = faces_labelled(b="all")
    keys = dict(zip("abcd", page.desk.pictures.keys, strict=False))
    alone = [vars(replace(each, mirror=None)) for each in labels.landmarks]
    answer = page.put("/api/landmarks", json={"revision": 0, "landmarks": alone}).json()
    proposed = [{"key": "l = r", "pair": ["l", "r"]}, {"key": "ml = mr", "pair": ["ml", "mr"]}]
    assert answer["remarks"]["pairs"] == proposed
    declined = {"revision": 1, "landmarks": alone, "dismissed": ["ml = mr"]}
    answer = page.put("/api/landmarks", json=declined).json()
    assert [each["key"] for each in answer["remarks"]["pairs"]] == ["l = r"] and answer["dismissed"] == ["ml = mr"]
    given = {keys[image]: {id: m.to_json() for id, m in marks.items()} for image, marks in labels.marks.items()}
    assert page.put("/api/marks", json={"revision": 2, "marks": given}).json()["remarks"]["exchanges"] == []
    both = [vars(each) for each in labels.landmarks]
    exchanges = page.put("/api/landmarks", json={"revision": 3, "landmarks": both}).json()["remarks"]["exchanges"]
    pairs = [["l", "r"], ["ml", "mr"]]
    key = "000001.png: l = r, ml = mr"
    assert exchanges == [{"key": key, "image": keys["b"], "pairs": pairs, "whole": True}]
    assert page.get("/api/state").json()["remarks"]["exchanges"] == exchanges
    found = page.get("/api/images?filter=exchanged").json()
    assert [each["key"] for each in found["items"]] == [keys["b"]] and found["counts"]["exchanged"] == 1
    head = page.post("/api/head", json={"name": "paired"}).json()
    loaded = Head.load(head["path"], LandmarkModel.load(page.desk.run, device="cpu"))
    assert loaded.symmetry is not None and loaded.symmetry.pairs == ((0, 1), (3, 4)) and head["pairs"] == 2
    dismissed = {"revision": 4, "landmarks": both, "dismissed": [key]}
    assert page.put("/api/landmarks", json=dismissed).json()["remarks"]["exchanges"] == []
    assert page.put("/api/landmarks", json={"revision": 5, "landmarks": both[:1]}).status_code == 400


def test_exploring(page):
    keys = [item["key"] for item in page.get("/api/images?order=random&seed=3&count=4").json()["items"]]
    asked = {
        "points": [[keys[0], 20, 22], [keys[1], 30, 20]],
        "targets": keys,
        "heat_of": 0,
        "colours": ["#ff0000", "#0000ff"],
    }
    sights = page.post("/api/explore", json=asked).json()["sights"]
    assert set(sights) == set(keys)
    for sight in sights.values():
        assert np.array(sight["points"]).shape == (2, 3) and sight["box"] == [0, 0, 48, 48]
        assert sight["heat"]["width"] == 20 and sight["colours"]["height"] == 20
    assert page.post("/api/explore", json=asked | {"colours": ["red", "blue"]}).status_code == 400


def test_points_of_its_own(page, joint_run, photos, tmp_path):
    key = page.desk.pictures.keys[2]
    assert page.get("/api/state").json()["landmarks_beside"] == 0
    assert page.get(f"/api/images/{key}/own-points").status_code == 400
    model = LandmarkModel.load(joint_run.folder, device="cpu")
    with TestClient(
        make_app(Desk(model, joint_run.folder, photos, work=tmp_path / "joint")), base_url="http://127.0.0.1:7860"
    ) as client:
        state = client.get("/api/state").json()
        assert state["landmarks_beside"] == 3 and state["own_landmarks"] == 0
        points = client.get(f"/api/images/{key}/own-points").json()["points"]
    wanted = model.detect(decode((photos / "000002.png").read_bytes()).pixels).points
    np.testing.assert_allclose(points, wanted, atol=0.051)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/images/nothing", None, 404),
        ("GET", "/api/images/nothing/thumbnail", None, 404),
        ("GET", "/api/exports/labels.json", None, 404),
        ("GET", "/api/exports/..%2flabels.json", None, 404),
        ("GET", "/api/images?filter=best", None, 422),
        ("GET", "/api/images?count=100000", None, 422),
        ("PUT", "/api/marks", {"revision": 0, "marks": {"nothing": {}}}, 404),
        ("PUT", "/api/marks", {"marks": {}}, 422),
        ("PUT", "/api/landmarks", {"revision": 0, "landmarks": [{"id": "a", "name": "b", "colour": "red"}]}, 422),
        ("PUT", "/api/landmarks", {"revision": 0, "landmarks": [{"id": "a", "name": " ", "colour": "#ff0000"}]}, 400),
        ("POST", "/api/export", {"format": "doc"}, 400),
        ("POST", "/api/export", {"format": "csv", "everything": True}, 400),
        ("POST", "/api/head", {"name": "x"}, 400),
        ("POST", "/api/head", {"name": "../"}, 400),
    ],
)
def test_refusals_say_why(page, method, path, body, status):
    answer = page.request(method, path, json=body)
    assert answer.status_code == status and len(answer.json().get("message") or answer.json()["detail"]) > 5


def test_only_this_page_is_answered(page):
    assert page.get("/api/state", headers={"host": "evil.example"}).status_code == 400
    asked = {"revision": 0, "landmarks": []}
    refused = page.put("/api/landmarks", json=asked, headers={"origin": "http://evil.example"})
    assert refused.status_code == 403, refused.text
    assert page.desk.session.labels.revision == 0
    allowed = page.put("/api/landmarks", json=asked, headers={"origin": "http://127.0.0.1:7860"})
    assert allowed.status_code == 200


def test_pictures_are_kept_by_the_browser(page):
    item = page.get("/api/images?count=1").json()["items"][0]
    for address in (item["thumbnail"], item["picture"]):
        got = page.get(address)
        assert got.headers["content-type"] == "image/jpeg" and "immutable" in got.headers["cache-control"]
        assert decode(got.content).pixels.shape == (48, 48, 3)


# ---- the command


@pytest.mark.parametrize("what", ["run", "images", "port", "labelled", "landmarks"])
def test_failures_are_one_line(what, command, dve_run, photos, tmp_path):
    run, images, more = dve_run.folder, photos, ["--work", tmp_path / "w"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "bad.csv").write_text("image,x0,y0\nother.png,1,2\n")
        if what == "run":
            run = tmp_path
        elif what == "images":
            images = tmp_path / "nothing"
        elif what == "landmarks":
            port, more = 0, [*more, "--landmarks", tmp_path / "bad.csv"]
        elif what == "labelled":
            port, run = 0, tmp_path / "supervised"
            labelled_run(run)
        code, out, err = command("app", run, images, "--port", port if what != "images" else 0, "--no-browser", *more)
    assert code == 1 and out == "" and err.startswith("equimark: ") and err.count("\n") == 1
    wanted = {
        "run": "run",
        "images": "does not exist",
        "port": f"port {port} is taken",
        "labelled": "supervised",
        "landmarks": "not among",
    }
    assert wanted[what] in err


def labelled_run(folder: Path) -> None:
    """A run with labels, untrained."""
    from equimark import checkpoint
    from equimark.checkpoint import DataIdentity, build
    from equimark.config import make_config

    config = make_config({"method": "supervised", "network": {"name": "smallnet", "channels": 2}})
    torch.manual_seed(0)
    checkpoint.write_config(folder, config)
    checkpoint.save_model(folder, build(config), step=1, data=DataIdentity("", 1, ""))


def test_labels_in_a_run_protect_it(command, dve_run, photos, tmp_path):
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / name).write_bytes((dve_run.folder / name).read_bytes())
    opened(work_folder(tmp_path, photos)).set_landmarks([NOSE], 0)
    code, _, err = command("train", photos, "--out", tmp_path, "--overwrite")
    assert code == 1 and "holds other files (app, ...)" in err


def test_the_direction_reaches_the_page(command, dve_run, photos, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("equimark.app.serve", lambda *_, direction, **__: said.append(direction))
    for more in ([], ["--direction", "any"]):
        assert command("app", dve_run.folder, photos, *more)[0] == 0
    assert said == ["auto", "any"]


def test_without_the_extra(command, dve_run, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "equimark.app.server")
    monkeypatch.delattr("equimark.app.server")
    code, _, err = command("app", dve_run.folder, photos, "--no-browser")
    assert code == 1 and "needs the package uvicorn" in err and "pip install 'equimark[app]'" in err


def test_help_has_an_example(command):
    code, out, _ = command("app", "--help")
    assert code == 0 and "equimark app runs/photos photos" in out and "--port" in out
