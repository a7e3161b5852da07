from typing import Any

import numpy as np
import pytest

from equimark.config import make_config
from equimark.health import chance_matching, diagnose

SPARSE: dict[str, Any] = {"method": "sparse", "network.channels": 10}


def entry(**terms: float) -> dict[str, float]:
    return {"step": 1, "loss": 0.0, **terms}


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_chance_is_the_mean_over_all_pairs_of_cells(power: float) -> None:
    places = np.stack(np.meshgrid(np.arange(0, 18, 2), np.arange(0, 18, 2)), -1).reshape(-1, 2)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) ** power
    assert chance_matching(18, power) == pytest.approx(distances.mean())


def test_landmarks_that_coincide() -> None:
    (warning,) = diagnose(make_config(SPARSE), [entry(distinct_landmarks=3, alignment_share=0.2)])
    assert "only 3 of 10 landmarks are distinct" in warning
    assert "--objective.diversity overlap" in warning
    overlapping = make_config(SPARSE, {"objective.diversity": "overlap"})
    (warning,) = diagnose(overlapping, [entry(distinct_landmarks=3, alignment_share=0.2)])
    assert "raise --objective.gamma (now 500)" in warning


def test_landmarks_that_stand_still() -> None:
    log = [entry(distinct_landmarks=10, alignment_share=0.95)]
    (warning,) = diagnose(make_config(SPARSE), log)
    assert "0.95 as far off as landmarks that stand still" in warning
    assert "--network.padding reflect" in warning
    (other,) = diagnose(make_config(SPARSE, {"network.padding": "reflect"}), log)
    assert "--network.padding" not in other


def test_healthy_landmarks() -> None:
    early, late = (entry(distinct_landmarks=n, alignment_share=s) for n, s in ((2, 3.0), (10, 0.3)))
    assert diagnose(make_config(SPARSE), [early] * 9 + [late] * 5) == []


@pytest.mark.parametrize("method", ["dense", "dve"])
def test_descriptors_that_are_alike_everywhere(method: str) -> None:
    chance = chance_matching(70, 0.5)
    config = make_config({"method": method})
    (warning,) = diagnose(config, [entry(matching=0.97 * chance)])
    assert "do not tell places apart" in warning and "--optimiser.lr (now 0.001)" in warning
    assert diagnose(config, [entry(matching=0.4 * chance)]) == []


def test_landmarks_beside_descriptors() -> None:
    config = make_config({"method": "dve", "network.landmarks": 10})
    good = {"distinct_landmarks": 10.0, "alignment_share": 0.3, "matching": 1.0}
    assert diagnose(config, [entry(**good)]) == []
    (few,) = diagnose(config, [entry(**good | {"distinct_landmarks": 3.0})])
    assert "only 3 of 10 landmarks are distinct" in few and "ask for fewer with --network.landmarks" in few
    (alike,) = diagnose(config, [entry(**good | {"matching": 99.0})])
    assert "do not tell places apart" in alike


def test_no_log() -> None:
    assert "no log" in diagnose(make_config({}), [])[0]


def test_nothing_to_say() -> None:
    assert diagnose(make_config({"method": "supervised"}), [entry(regression=9.0)]) == []
