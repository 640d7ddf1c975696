"""Checks of the signal: each problem is reported once, for any block lengths."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.runners import EPOCH, INFO, audio, make_runner

from neurovocal.engine.audio.signal_checks import (
    RateHealth,
    SignalHealth,
    SignalOptions,
)
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.types import Block, Gap, Health
from neurovocal.engine.testing import CollectSink, ScriptedSource

RATE = 1000
NOISE = np.random.default_rng(0).normal(0, 0.05, 60 * RATE).astype(np.float32)


def seconds(n, change=lambda samples: samples):
    return change(NOISE[: n * RATE].copy()).astype(np.float32)


def changes_in(signal, samples, start=0, block=100):
    """Return (second, stage, state) of each change."""
    changes = []
    for at in range(0, len(samples), block):
        for health in signal.observe(start + at, samples[at : at + block]):
            changes.append(((start + at + block) // RATE, health.stage, health.state))
    return changes


def clipped(samples):
    samples[::200] = 1.0
    return samples


@pytest.mark.parametrize(
    ("stage", "trouble", "begins"),
    [
        ("flat", np.zeros_like, 15),
        ("flat", lambda samples: np.full_like(samples, 0.01), 15),
        ("clipped", clipped, 8),
        ("clipped", lambda samples: -clipped(samples), 8),
        ("offset", lambda samples: samples - 0.06, 8),
        ("quiet", lambda samples: samples * 1e-4, 8),
    ],
)
def test_a_lasting_problem_is_reported_at_its_start_and_its_end(stage, trouble, begins):
    samples = np.concatenate([seconds(5), seconds(20, trouble), seconds(10)])
    assert changes_in(SignalHealth(RATE, SignalOptions()), samples) == [
        (begins, f"signal {stage}", "degraded"),
        (28, f"signal {stage}", "healthy"),
    ]


def test_an_intermittent_problem_is_reported_once():
    parts = [seconds(1, clipped if second % 2 else np.copy) for second in range(30)]
    assert changes_in(SignalHealth(RATE, SignalOptions()), np.concatenate(parts)) == []
    # Between the two thresholds nothing changes either way.
    half = [seconds(4, clipped), *[seconds(1, lambda s: np.r_[1, s[1:]])] * 20]
    options = SignalOptions(clipped_share=0.0015)
    changes = changes_in(SignalHealth(RATE, options), np.concatenate(half))
    assert [state for _, _, state in changes] == ["degraded"]


def test_sound_is_healthy_and_null_thresholds_are_not_checked():
    assert changes_in(SignalHealth(RATE, SignalOptions()), seconds(60)) == []
    off = {"flat_s": None, "clipped_share": None, "offset": None, "quiet_db": None}
    signal = SignalHealth(RATE, SignalOptions(**off))
    assert changes_in(signal, np.ones(30 * RATE, np.float32)) == []


@settings(deadline=None, max_examples=50)
@given(
    cuts=st.lists(st.integers(0, 20 * RATE), max_size=30),
    gap=st.tuples(st.integers(0, 20 * RATE), st.integers(0, 3000)),
)
def test_gaps_affect_only_their_seconds_and_block_lengths_none(cuts, gap):
    samples = seconds(20, lambda s: np.where(np.arange(len(s)) < 9000, s, 0))
    lost_from, lost_to = gap[0], min(sum(gap), len(samples))

    def play(edges):
        signal = SignalHealth(RATE, SignalOptions(flat_s=3, hold_s=1))
        found = []
        edges = {0, lost_from, lost_to, len(samples), *edges}
        for first, stop in pairwise(sorted(edges)):
            if lost_from <= first < lost_to:
                signal.skip()
            else:
                found += signal.observe(first, samples[first:stop])
        return found

    assert play(cuts) == play([])


def arriving(rate, n_seconds, start_ns=NS, gap_at=None):
    """Yield blocks of a tenth of a second from a source that runs at `rate` Hz."""
    position = 0
    for index in range(1, n_seconds * 10 + 1):
        n_samples = round(rate * index / 10) - position
        yield Block(position, np.zeros((n_samples, 1)), start_ns + index * NS // 10)
        position += n_samples
        if index == gap_at:
            yield Gap(position, position + 5000, "device lost")


@pytest.mark.parametrize(
    ("rate", "n_changes"), [(1000, 0), (1005, 0), (985, 1), (1100, 1)]
)
def test_a_rate_other_than_the_nominal_one_is_reported(rate, n_changes):
    health = RateHealth(1000, SignalOptions(rate_window_s=10))
    changes = [
        change for block in arriving(rate, 65) for change in health.observe(block)
    ]
    assert len(changes) == n_changes
    if n_changes:
        assert changes[0].state == "degraded"
        assert f"{rate} samples a second arrive instead of 1000" in changes[0].detail
        for block in arriving(1000, 25, start_ns=100 * NS):
            changes += health.observe(block)
        assert changes[-1].state == "healthy"


def test_an_outage_is_not_reported_as_a_wrong_rate():
    health = RateHealth(1000, SignalOptions(rate_window_s=10))
    blocks = list(arriving(1000, 15, gap_at=80))
    assert not [change for item in blocks for change in health.observe(item)]


def test_a_live_lane_publishes_signal_health_and_a_file_does_not():
    def health_of(live):
        sink = CollectSink({"health"})
        items = [audio("." * 100, start) for start in range(0, 20_000, 1000)]
        for item in items:
            item.samples[:] = 0.25
        source = ScriptedSource(INFO, items, live=live)
        make_runner(source, sink, clock=ManualClock(EPOCH)).run()
        return [(e.stage, e.state) for e in sink.events(Health)]

    assert health_of(live=False) == []
    assert health_of(live=True) == [
        ("signal offset", "degraded"),
        ("signal flat", "degraded"),
    ]


def test_signal_checks_take_far_less_than_a_hundredth_of_real_time():
    rate = 48_000
    samples = np.random.default_rng(0).normal(0, 0.1, rate * 20).astype(np.float32)
    signal = SignalHealth(rate, SignalOptions())
    began = time.process_time()
    assert changes_in(signal, samples, block=480) == []
    # Really about 1/3000 of real time; the limit is that of the design.
    assert time.process_time() - began < 0.01 * 20
