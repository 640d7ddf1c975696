"""Latency percentiles: exact within one bucket, in constant memory."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.runtime.workers.latency import LedgerMetrics, Percentiles

STEP = 10 ** (1 / 40)
DURATIONS = st.lists(st.floats(1.1e-3, 9e5), min_size=1, max_size=300)


def filled(values):
    percentiles = Percentiles()
    for value in values:
        percentiles.add(value)
    return percentiles


@given(values=DURATIONS, percent=st.floats(0.1, 100))
def test_a_percentile_is_exact_within_one_bucket(values, percent):
    exact = np.percentile(values, percent, method="inverted_cdf")
    found = filled(values).percentile(percent)
    assert exact / 1.000001 <= found <= exact * STEP * 1.000001


@given(values=DURATIONS)
def test_percentiles_increase_up_to_the_largest_duration(values):
    percentiles = filled(values)
    summary = percentiles.summary()
    assert summary["p50"] <= summary["p95"] <= summary["p99"] <= summary["max"]
    assert percentiles.percentile(100) == max(values) == percentiles.largest_ms
    assert percentiles.count == len(values)


def test_percentiles_of_no_duration_are_zero():
    assert Percentiles().summary() == {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0}


@pytest.mark.parametrize("value", [-5.0, 0.0, 1e-9, 1e-3, 1e7, 1e12])
def test_durations_beyond_the_scale_are_counted(value):
    percentiles = filled([value, value])
    assert percentiles.count == 2
    assert percentiles.percentile(50) <= max(value, 0.0) or value == 1e-3
    assert percentiles.percentile(50) >= 0.0


def test_memory_of_percentiles_does_not_grow():
    percentiles = filled([1.0])

    def size():
        return sum(sys.getsizeof(part) for part in vars(percentiles).values())

    before = size()
    for value in np.random.default_rng(0).lognormal(size=20_000):
        percentiles.add(float(value))
    assert size() <= before + 64


def test_ledger_summary_has_percentiles_of_each_part():
    metrics = LedgerMetrics()
    metrics.wait.add(10.0)
    metrics.queue.add(0.5)
    summary = metrics.summary()
    assert set(summary) == {"wait_ms", "queue_ms", "compute_ms"}
    assert summary["wait_ms"]["max"] == 10.0
    assert summary["compute_ms"]["max"] == 0.0
