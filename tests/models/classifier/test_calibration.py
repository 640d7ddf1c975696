"""Error measures and calibration against definitions and known results."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.models.classifier.calibration import (
    SegmentScores,
    collect_scores,
    fit_temperature,
    fit_thresholds,
    fit_typical_segments,
    score_segment,
)
from neurovocal.models.data.targets import FrameSpan
from neurovocal.models.toolkit.measures import (
    LinearPredictor,
    confusion,
    edit_distance,
    frame_errors,
    unit_runs,
)

labels = st.text("abc", max_size=7)


def by_definition(a: str, b: str) -> int:
    @lru_cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        change = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, change)

    return distance(len(a), len(b))


@given(labels, labels)
def test_edit_distance_equals_its_recursive_definition(a: str, b: str) -> None:
    assert edit_distance(a, b) == by_definition(a, b)


def test_ignored_frames_are_not_counted() -> None:
    target = np.array([0, 0, 1, 1, -1, -1, 2])
    predicted = np.array([0, 1, 1, 1, 2, 2, 0])
    count = frame_errors(target, predicted)
    assert (count.errors, count.total) == (2, 5)
    assert unit_runs(predicted, target) == [1]
    assert count.percent == pytest.approx(40.0)


def test_confusion_has_true_units_in_rows() -> None:
    table = confusion(np.array([1, 1, 2]), np.array([1, 2, 2]), 3)
    assert table.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_linear_predictor_recovers_the_coefficients_of_a_linear_process() -> None:
    rng = np.random.default_rng(0)
    song = np.zeros((4000, 2), np.float32)
    song[0] = 1
    for t in range(1, len(song)):
        expected = song[t - 1] @ np.array([[0.5, 0.2], [-0.3, 0.6]], np.float32)
        song[t] = expected + rng.normal(0, 0.1, 2)
    found = LinearPredictor.fit([song], 1)
    np.testing.assert_allclose(found.weights[0], [0.5, 0.2], atol=0.05)
    assert found.squared_error([song], 16) == pytest.approx(0.01, rel=0.1)


def test_temperature_recovers_the_scale_of_overconfident_logits() -> None:
    rng = np.random.default_rng(0)
    n, n_units = 20000, 4
    logits = np.concatenate([np.zeros((n, 1)), rng.normal(0, 1.5, (n, n_units))], 1)
    p = SegmentScores(logits, np.ones(n, int)).posteriors(1.0)
    unit = 1 + (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    overconfident = SegmentScores(logits * 8, unit)
    assert fit_temperature(overconfident) == pytest.approx(8, rel=0.1)


def test_temperature_is_finite_without_an_error() -> None:
    scores = np.where(np.eye(4, dtype=bool)[np.arange(60) % 3 + 1], 0.0, -30.0)
    temperature = fit_temperature(SegmentScores(scores, np.arange(60) % 3 + 1))
    assert 0.1 < temperature < 1000
    assert fit_temperature(SegmentScores(np.zeros((0, 4)), np.zeros(0, int))) == 1.0


def test_thresholds_lie_below_all_correct_labels() -> None:
    scores = np.array([[0, 0, -2], [0, 0, -1], [0, -5, 0], [0, 0, -4.0]])
    segments = SegmentScores(scores, np.array([1, 1, 2, 2]))
    names = ["", "a", "b"]
    thresholds = fit_thresholds(segments, 1.0, names, 1.0, 0.999)
    assert thresholds["a"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-3)
    assert thresholds["b"] == pytest.approx(1 / (1 + np.exp(-5)), abs=1e-3)
    lower = fit_thresholds(segments, 1.0, names, 10.0, 0.999)
    assert lower["a"] < thresholds["a"]
    assert fit_thresholds(segments, 1.0, names, 1.0, 0.9)["b"] == 0.9


def test_segment_score_is_the_sum_of_frames_or_the_last_frame() -> None:
    rows = np.log(np.array([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7]]))
    span = FrameSpan(1, 3, 2)
    np.testing.assert_allclose(score_segment(rows, span, "vote"), rows[1] + rows[2])
    np.testing.assert_allclose(score_segment(rows, span, "last"), rows[2])
    segments = collect_scores([rows], [[span]], "last")
    np.testing.assert_allclose(segments.posteriors(1.0), [[0.2 / 0.9, 0.7 / 0.9]])


def test_regression_in_parts_equals_regression_of_the_whole_song() -> None:
    song = np.random.default_rng(0).random((25_003, 2), dtype=np.float32)
    past = np.concatenate(
        [song[1:-1], song[:-2], np.ones((len(song) - 2, 1), np.float32)], axis=1
    ).astype(np.float64)
    expected = np.linalg.solve(past.T @ past + np.eye(5), past.T @ song[2:])
    predictor = LinearPredictor.fit([song], 2)
    np.testing.assert_allclose(predictor.weights, expected, rtol=1e-8)
    error = float(np.square(past @ expected - song[2:])[3:].mean())
    assert predictor.squared_error([song], 5) == pytest.approx(error, rel=1e-9)


def test_typical_limits_have_margins_beyond_the_percentiles() -> None:
    rows = np.full((300, 3), -8.0)
    rows[:, 1] = -0.2
    spans = [FrameSpan(start, start + 10, 1) for start in range(0, 290, 10)]
    (name,) = typical = fit_typical_segments([rows], [spans], ["", "a", "b"], 1.5, 3.0)
    assert name == "a"
    limits = typical["a"]
    assert (limits.shortest, limits.longest) == (6, 15)
    assert limits.agreement == pytest.approx(-0.6)
    (last,) = fit_typical_segments(
        [rows], [spans], ["", "a", "b"], 1, 1, "last"
    ).values()
    assert (last.shortest, last.longest, last.agreement) == (10, 10, -0.2)
