import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from equimark import suggestion
from equimark.suggestion import suggest

NAN = np.nan


def test_first_the_most_typical_image():
    summaries = np.array([[0.0, 0], [5, 5], [4, 6], [10, 10]])
    assert suggest(np.full(4, NAN), summaries, np.zeros(4, bool), count=1) == [1]


def test_then_what_is_unsure_and_unlike():
    summaries = np.array([[0.0], [0.1], [0.1], [9.0], [NAN]])
    labelled = np.array([True, False, False, False, False])
    assert suggest(np.array([1, 0.9, 0.2, 0.9, 0]), summaries, labelled) == [3, 2, 1]
    alike = np.zeros((5, 1))
    assert suggest(np.array([1, 0.9, 0.2, 0.5, NAN]), alike, labelled) == [2, 3, 4, 1]


def test_suggestions_do_not_resemble_each_other():
    summaries = np.array([[0.0], [9.0], [9.1], [-8.0]])
    order = suggest(np.full(4, 0.5), summaries, np.array([True, False, False, False]), count=2)
    assert sorted(order) in ([1, 3], [2, 3])


def test_nothing_to_suggest():
    assert suggest(np.ones(2), np.zeros((2, 1)), np.ones(2, bool)) == []
    assert suggest(np.full(2, NAN), np.full((2, 1), NAN), np.zeros(2, bool)) == []


@given(st.integers(0, 1000))
def test_each_brings_unsure_images_nearest_to_something_labelled(seed: int) -> None:
    """As defined: the sum over all images of how unsure they are, times how far they are from what is labelled."""
    rng = np.random.default_rng(seed)
    summaries, confidence = rng.normal(size=(12, 3)), rng.random(12)
    labelled = rng.random(12) < 0.3

    def left(rows: list[int]) -> float:
        return sum(
            (1 - confidence[i]) * min(np.linalg.norm(summaries[i] - summaries[k]) for k in rows) for i in range(12)
        )

    rows = np.flatnonzero(labelled).tolist()
    for found in suggest(confidence, summaries, labelled, count=3):
        others = {i: left([*rows, i]) for i in range(12) if i not in rows}
        assert found in others and np.isclose(others[found], min(others.values()))
        rows.append(found)


def test_of_very_many_some_stand_for_all(monkeypatch) -> None:
    monkeypatch.setattr(suggestion, "_EXAMPLES", 50)
    monkeypatch.setattr(suggestion, "_CANDIDATES", 40)
    groups = np.repeat([[0.0, 0], [9, 0], [0, 9]], 400, axis=0) + np.random.default_rng(0).normal(size=(1200, 2))
    found = suggest(np.full(1200, NAN), groups, np.zeros(1200, bool), count=3)
    assert sorted(row // 400 for row in found) == [0, 1, 2]
