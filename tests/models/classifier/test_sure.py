"""Scores that name units early: as low as few wrong names allow."""

import numpy as np

from neurovocal.engine.contracts.bundle import ClassifierSpec
from neurovocal.models.classifier.sure import EarlyNames, choose_sure

SPEC = ClassifierSpec(units=["", "a", "b"], state={"h": [1]})
N = 200


def names(rows: list[tuple[list[int], list[float], int]]) -> EarlyNames:
    """Return N segments of each row: units and scores by frame, and the truth."""
    unit, score, truth = (
        np.array([row[part] for row in rows for _ in range(N)]) for part in range(3)
    )
    return EarlyNames(unit, score, truth, soon=2)


def test_a_unit_waits_only_where_its_first_name_is_often_wrong() -> None:
    # The first frame of `b` looks like `a`, with less certainty than that of `a`.
    heard = names([([1, 1, 1], [0.6, 0.9, 0.9], 1), ([1, 2, 2], [0.4, 0.9, 0.9], 2)])
    chosen = choose_sure(heard, SPEC, 0.01)
    assert 0.4 < chosen["a"] <= 0.6
    assert chosen["b"] == 0.25
    scores = np.array([1.0, chosen["a"], chosen["b"]])
    assert heard.counts(scores) == (2 * N, 0, 0)


def test_names_of_other_sounds_count_apart_from_wrong_ones() -> None:
    heard = names([([1, 1, 1], [0.3, 0.9, 0.9], 1), ([2, -1, -1], [0.7, 0.0, 0.0], 0)])
    lowest = np.array([1.0, 0.25, 0.25])
    assert heard.counts(lowest) == (N, 0, N)
    chosen = choose_sure(heard, SPEC, 0.01)
    assert chosen["a"] == 0.25
    assert chosen["b"] > 0.7


def test_what_no_score_avoids_ends_the_choice() -> None:
    heard = names([([1, 1, 1], [1.0, 1.0, 1.0], 2)])
    assert set(choose_sure(heard, SPEC, 0.01)) == {"a", "b"}
    nothing = names([([1, 1, 1], [1.0, 1.0, 1.0], 0)])
    assert choose_sure(nothing, SPEC, 0.01) == {}
