"""When a label is `unknown`: what wrong names and no names cost decides."""

import numpy as np
import pytest

from neurovocal.engine.contracts.bundle import TypicalSpec
from neurovocal.models.classifier.abstention import (
    NamedSegments,
    choose_threshold,
    choose_thresholds,
    choose_typical,
)

Row = tuple[int, float, int, int, float]


def right(posterior: float, n_frames: int = 10) -> Row:
    return 1, posterior, 1, n_frames, -0.1


def wrong(posterior: float, n_frames: int = 10) -> Row:
    return 1, posterior, 2, n_frames, -0.1


def alarm(posterior: float) -> Row:
    return 1, posterior, 0, 10, -0.1


def cost_of(rows: list[Row], threshold: float, cost: float) -> float:
    """Count what names and abstentions cost, one by one."""
    total = 0.0
    for unit, posterior, true, *_ in rows:
        if posterior < threshold:
            total += true != 0
        elif true != unit:
            total += cost
    return total


@pytest.mark.parametrize("cost", [1.0, 1.5, 2.0, 5.0, 20.0])
def test_no_threshold_costs_less(cost: float) -> None:
    rng = np.random.default_rng(4)
    kinds = [right, right, right, wrong, alarm]
    rows = [
        kinds[rng.integers(5)](float(p)) for p in np.sort(rng.beta(4, 1, 200)) * 0.999
    ]
    chosen = choose_threshold(NamedSegments.of(rows), cost, 10.0)
    tried = [cost_of(rows, t, cost) for t in np.linspace(0, 1, 1001)]
    assert cost_of(rows, chosen, cost) <= min(tried)


def test_at_the_default_cost_no_more_right_names_are_lost_than_wrong_ones() -> None:
    rows = [right(0.4), wrong(0.5), right(0.6), right(0.62), *[right(0.99)] * 50]
    assert choose_threshold(NamedSegments.of(rows), 2.0, 10.0) < 0.4
    rows = [wrong(0.3), wrong(0.4), right(0.5), right(0.9)]
    assert 0.4 < choose_threshold(NamedSegments.of(rows), 2.0, 10.0) < 0.5


def test_without_a_wrong_name_the_threshold_lies_below_all_right_ones() -> None:
    named = NamedSegments.of([right(0.8), right(0.999)])
    odds = 0.8 / 0.2 / 10
    assert choose_threshold(named, 2.0, 10.0) == pytest.approx(
        odds / (1 + odds), abs=1e-4
    )
    assert choose_threshold(NamedSegments.of([]), 2.0, 10.0) == 0.0


def test_a_unit_has_a_higher_threshold_if_that_loses_no_right_name() -> None:
    rows = [right(0.5), (2, 0.99, 2, 10, -0.1), (2, 0.999, 2, 10, -0.1)]
    chosen = choose_thresholds(NamedSegments.of(rows), ["", "a", "b", "c"], 2.0, 10.0)
    assert chosen["a"] == chosen["c"] == pytest.approx(0.1 / 1.1, abs=1e-4)
    assert chosen["b"] == pytest.approx(9.9 / 10.9, abs=1e-4)
    rows += [wrong(0.3), wrong(0.4)]
    above = choose_thresholds(NamedSegments.of(rows), ["", "a", "b", "c"], 2.0, 10.0)
    assert 0.4 < above["a"] < 0.5
    assert above["b"] == chosen["b"]


@pytest.mark.parametrize(
    ("rows", "longest"),
    [
        ([right(0.9, 10), right(0.9, 17)], 30),  # 15 would lose a right name
        ([right(0.9, 10), wrong(0.9, 17)], 15),
        ([right(0.9, 10), right(0.9, 17), wrong(0.9, 18), wrong(0.9, 19)], 15),
    ],
)
def test_limits_are_widened_where_they_lose_right_names(
    rows: list[Row], longest: int
) -> None:
    def fit(duration: float, agreement: float) -> dict[str, TypicalSpec]:
        return {
            "a": TypicalSpec(shortest=1, longest=int(10 * duration), agreement=-99.0)
        }

    tried = choose_typical(NamedSegments.of(rows), ["", "a", "b"], 2.0, fit, (1.5, 6.0))
    assert tried["a"].longest == pytest.approx(longest, abs=8)
