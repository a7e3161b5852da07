"""What a report says of a run in plain words, from logs made by hand."""

import html
import re
from typing import Any

import pytest

from equimark import plots
from equimark.config import make_config
from equimark.health import chance_matching, recent_mean
from equimark.page import Page
from equimark.report import curves_section, verdict_section
from equimark.report.verdict import answer, progress_of, summarise

SPARSE = make_config({"method": "sparse", "network.channels": 10, "steps": 2000})
DVE = make_config({"method": "dve", "objective.power": 1.0})
CHANCE = chance_matching(70, 1.0)
FALLING = [8.0, 7.6, 7.2, 6.8, 6.4, 6.0, 5.6, 5.2, 4.8, 4.4]
LEVEL = [8.0, 6.0, 5.0, 5.0, 5.1, 4.9, 5.0, 5.1, 4.9, 5.05]


def log(values: list[float], name: str = "matching", **others: float) -> list[dict[str, float]]:
    more = {"pairs_per_second": 9.0, "lr": 0.001} | others
    return [{"step": 20.0 * (i + 1), "loss": value, name: value, **more} for i, value in enumerate(values)]


def sparse_log(values: list[float], distinct: float, share: float) -> list[dict[str, float]]:
    return log(values, "alignment", diversity=0.1, distinct_landmarks=distinct, alignment_share=share)


def texts_of(page: Page, tag: str) -> list[str]:
    """What stands between the tags of this name, which hold no others."""
    return [html.unescape(text) for text in re.findall(rf"<{tag}[^>]*>([^<]*)</{tag}>", page.render())]


def test_where_a_term_is_going() -> None:
    assert progress_of(FALLING[:9])[0] == "early"
    name, change = progress_of(FALLING)  # 5.4 on average, then 4.6
    assert (name, change) == ("improving", pytest.approx(0.8 / 5.4))
    assert progress_of(LEVEL)[0] == "settled"
    assert progress_of(FALLING[::-1])[0] == "worse"
    assert progress_of([0.0] * 10) == ("settled", 0.0)
    noisy = [5.0, 9.0, 1.0, 8.0, 2.0, 6.0, 4.0, 8.0, 1.0, 7.0]  # 6 then 4, but for the noise
    assert progress_of(noisy)[0] == "settled"


def test_the_last_lines_count() -> None:
    entries = log([9.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    assert recent_mean(entries, "matching") == 3
    assert recent_mean(entries, "nothing") != recent_mean(entries, "nothing")  # NaN


@pytest.mark.parametrize(
    ("values", "trained", "apart", "verdict"),
    [
        ([0.2 * v for v in FALLING], "not yet", "yes", "is learning what it should, and longer training will make it"),
        ([0.2 * v for v in LEVEL], "yes", "yes", "learned what it should, and longer training would hardly"),
        ([0.2 * v for v in FALLING[::-1]], "no", "yes", "but it became worse towards the end"),
        ([0.2 * v for v in FALLING[:3]], "too early to say", "yes", "Nothing is wrong with this run so far"),
        ([0.5 * CHANCE] * 10, "yes", "roughly", "learned what it should"),
        ([0.95 * CHANCE] * 10, "it stopped improving", "no", "is not of use as it is, and it has stopped improving"),
        ([0.95 * CHANCE] * 3, "too early to say", "not yet", "too short to be of use yet"),
        ([0.95 * CHANCE + 3 * v for v in FALLING], "not yet", "no", "not of use yet. It still gets better"),
    ],
)
def test_descriptors(values: list[float], trained: str, apart: str, verdict: str) -> None:
    entries = log(values)
    first, second = answer(DVE, entries)
    assert (first[:2], second[:2]) == (("Trained enough?", trained), ("Are places told apart?", apart))
    assert verdict in summarise(DVE, entries)
    assert f"guesses are {CHANCE:.2g} px off" in second[2]
    assert ("collapsed" in second[2]) == (apart == "no") and ("no collapse" in second[2]) == (
        apart in ("yes", "roughly")
    )


@pytest.mark.parametrize(
    ("distinct", "share", "said", "follows", "why"),
    [
        (10, 0.2, "each sits on a place of its own", "yes", "they go along (0.20; standing still is 1)"),
        (8, 0.6, "some of them sit on the same place", "in part", "not far enough"),
        (3, 0.95, "they have collapsed", "no", "they stand still in the frame"),
        (10, 20.0, "they have not collapsed", "no", "they move about"),
    ],
)
def test_landmarks(distinct: float, share: float, said: str, follows: str, why: str) -> None:
    trained, found, moving = answer(SPARSE, sparse_log(LEVEL, distinct, share))
    fine = distinct == 10 and share < 0.8
    assert trained[:2] == ("Trained enough?", "yes" if fine else "it stopped improving")
    assert trained[2].startswith("200 steps, of 2,000 planned: ")
    assert found[:2] == ("Landmarks distinct?", f"{distinct} of 10") and said in found[2]
    assert moving[:2] == ("Do they follow the picture?", follows) and why in moving[2]


def test_landmarks_beside_descriptors() -> None:
    config = make_config({"method": "dve", "objective.power": 1.0, "network.landmarks": 10})
    entries = log([0.2 * v for v in FALLING], alignment=9.0, distinct_landmarks=10.0, alignment_share=0.2)
    assert [each[:2] for each in answer(config, entries)] == [
        ("Trained enough?", "not yet"),  # by the matching, which falls
        ("Are places told apart?", "yes"),
        ("Landmarks distinct?", "10 of 10"),
        ("Do they follow the picture?", "yes"),
    ]


@pytest.mark.parametrize(
    ("matching", "share", "apart", "follow", "said"),
    [
        (1.0, 0.9, "yes", "no", "The descriptors of this run are of use, its landmarks are not. It has stopped"),
        (CHANCE, 0.2, "no", "yes", "The landmarks of this run are of use, its descriptors are not. It has stopped"),
        (CHANCE, 0.9, "no", "no", "This run is not of use as it is"),
    ],
)
def test_one_of_both_fails(matching: float, share: float, apart: str, follow: str, said: str) -> None:
    """Neither is blamed for the other."""
    config = make_config({"method": "dve", "objective.power": 1.0, "network.landmarks": 10})
    entries = log([matching] * 10, alignment=9.0, distinct_landmarks=10.0, alignment_share=share)
    assert summarise(config, entries).startswith(said)
    answers = {question: found for question, found, _ in answer(config, entries)}
    assert (answers["Are places told apart?"], answers["Do they follow the picture?"]) == (apart, follow)


def test_landmarks_whose_motion_is_not_known() -> None:
    entries = log(FALLING, "appearance", diversity=0.1, distinct_landmarks=10.0)
    assert [each[:2] for each in answer(SPARSE, entries)] == [
        ("Trained enough?", "not yet"),
        ("Landmarks distinct?", "10 of 10"),
    ]


def test_a_run_with_labels() -> None:
    config = make_config({"method": "supervised"})
    assert [each[:2] for each in answer(config, log(FALLING, "regression"))] == [("Trained enough?", "not yet")]


def test_the_verdict_stands_on_the_page() -> None:
    page = Page("title", "lead")
    verdict_section(page, SPARSE, sparse_log(LEVEL, 3, 0.95))
    verdict_section(page, DVE, [], label="another")
    assert texts_of(page, "h2") == ["What you see", "What you see: another"]
    assert "This run is not of use as it is, and it has stopped improving. What helps is said below." in texts_of(
        page, "p"
    )
    assert texts_of(page, "b") == ["it stopped improving", "3 of 10", "no"]
    text = page.render()
    assert "Only 3 of 10 landmarks are distinct" in text and "There is no log of this run" in text


@pytest.mark.parametrize(
    ("config", "entries"),
    [
        (SPARSE, sparse_log(LEVEL, 10, 0.2)),
        (SPARSE, log(LEVEL, "appearance", inside=0.9, diversity=0.1, distinct_landmarks=10.0)),
        (DVE, log(LEVEL)),
        (make_config({"method": "supervised"}), log(LEVEL, "regression")),
        (make_config({"method": "segmentation"}), log(LEVEL, "cross_entropy")),
    ],
)
def test_every_curve_is_explained(config: Any, entries: list[dict[str, float]], coarse_figures: None) -> None:
    page = Page("title", "lead")
    curves_section(page, config, entries)
    cells = texts_of(page, "td")
    titles, sentences = cells[::2], cells[1::2]
    figure = plots.curves(entries)
    assert titles == list(plots.curve_titles(entries).values()) == [ax.get_title(loc="left") for ax in figure.axes]
    assert all(sentence.endswith(".") and "A part of the loss" not in sentence for sentence in sentences)
    assert len(set(sentences)) == len(sentences) > 2


def test_a_curve_that_is_not_known_is_shown_all_the_same(coarse_figures: None) -> None:
    page = Page("title", "lead")
    curves_section(page, DVE, log(LEVEL, sharpness=1.0))
    cells = texts_of(page, "td")
    assert cells[cells.index("Sharpness") + 1].startswith("A part of the loss. Down is good")
