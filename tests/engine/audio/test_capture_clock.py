"""Capture times of a live source: bursts, buffered blocks and drift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.audio.capture_clock import CaptureClock
from neurovocal.engine.audio.live_input import LiveAnchors
from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.types import Block

RATE = 8000


@settings(deadline=None, max_examples=100)
@given(
    burst=st.lists(st.integers(200, 12_000), min_size=1, max_size=12),
    first_late_ms=st.integers(0, 3000),
    block=st.sampled_from([160, 800, 1024, 4000]),
    seed=st.integers(0, 1000),
)
def test_a_burst_of_buffered_samples_is_not_a_slip(burst, first_late_ms, block, seed):
    """A radio server sends seconds of buffered audio in large reads, then real time.

    Nothing is missing, whatever the sizes of the reads, and in the end the first
    sample is known to have been captured as long ago as the burst lasted.
    """
    clock = CaptureClock(RATE, max_slip_ms=1000)
    rng = np.random.default_rng(seed)
    position, missing = 0, 0
    total = sum(burst)
    for size in burst:  # all there when the connection is made, at second 100
        now = 100 * NS + first_late_ms * NS // 1000
        missing += clock.update(size, now - size * NS // RATE)
        position += size
    while position < total + 30 * RATE:
        position += block
        captured = 100 * NS + (position - total) * NS // RATE
        now = max(captured, now) + int(rng.exponential(0.004) * NS)
        missing += clock.update(block, now - block * NS // RATE)
    assert missing == 0
    truth = 100 * NS - total * NS // RATE
    assert abs(clock.captured_ns(0) - truth) < 0.02 * NS


@pytest.mark.parametrize("speed", [2, 3, 20])
def test_a_backlog_delivered_slowly_is_not_a_slip(speed):
    """Ten seconds of samples are late and arrive at `speed` times real time."""
    clock, block, position, missing = CaptureClock(RATE, 1000), 800, 0, 0
    now, stall = 100 * NS, 110 * NS
    while position < 120 * RATE:
        position += block
        captured = 100 * NS + position * NS // RATE
        if stall <= captured < stall + 10 * NS and now < stall + 10 * NS:
            now = stall + 10 * NS
        now = max(captured, now + block * NS // RATE // speed)
        begin = now - block * NS // RATE
        missing += clock.update(block, begin, backlog=now > captured)
    assert missing == 0
    assert abs(clock.captured_ns(0) - 100 * NS) < 0.01 * NS


def drift_of(ppm, jitter_ms, seconds, seed, step=(0, 0)):
    """Return (s, drift in ppm) each second for a device that is `ppm` fast."""
    rate, block = 48_000, 4800
    clock = ManualClock(1_700_000_000 * NS, autojump=False)
    capture, base = CaptureClock(rate, 200), TimeBase(rate)
    anchors, drifts = LiveAnchors(clock, capture), []
    late = np.random.default_rng(seed).exponential(jitter_ms / 1e3, seconds * 10)
    late[0] += 0.03
    for number, late_s in enumerate(late):
        at_s = 0.1 + (number + 1) * block / (rate * (1 + ppm * 1e-6)) + late_s
        clock.advance(max(0.0, at_s - clock.monotonic_ns() / NS))
        if step[0] and at_s > step[0]:
            clock._utc_at_zero, step = clock._utc_at_zero + step[1], (0, 0)
        now = clock.monotonic_ns()
        assert not capture.update(block, now - block * NS // rate)
        anchor = anchors.anchor_before(
            Block(number * block, np.zeros((1, 1), np.float32))
        )
        if anchor is not None:
            base.add(anchor)
            drifts.append((at_s, base.drift_ppm))
    return np.array(drifts)


@pytest.mark.parametrize("ppm", [200, -200, 40])
@pytest.mark.parametrize("jitter_ms", [0.5, 5])
def test_drift_is_right_within_a_tenth_after_three_minutes(ppm, jitter_ms):
    at_s, drifts = drift_of(ppm, jitter_ms, 600, seed=1).T
    assert np.abs(drifts[at_s > 180] - ppm).max() <= 0.1 * abs(ppm)
    assert abs(drifts[-1] - ppm) <= 2


@pytest.mark.parametrize("step_ms", [-400, 130, 400])
def test_a_corrected_clock_is_not_drift(step_ms):
    """A time server steps a clock that is off by more than 1/8 s."""
    at_s, drifts = drift_of(50, 2, 900, seed=2, step=(500, step_ms * NS // 1000)).T
    assert np.abs(drifts[at_s > 300] - 50).max() <= 5


def test_a_suspended_machine_is_a_slip_of_its_length_and_utc_is_right():
    """The device continues after an hour: its samples are late by that hour."""
    rate, block, hour = 48_000, 4800, 3600
    clock = ManualClock(1_700_000_000 * NS, autojump=False)
    capture, base = CaptureClock(rate, 200), TimeBase(rate)
    anchors, position, gaps = LiveAnchors(clock, capture), 0, []
    for number in range(600):
        clock.advance(block / rate + (hour if number == 300 else 0))
        now = clock.monotonic_ns()
        missing = capture.update(block, now - block * NS // rate)
        if missing:
            gaps.append((number, missing))
            position += missing
        anchor = anchors.anchor_before(Block(position, np.zeros((1, 1), np.float32)))
        if anchor is not None:
            base.add(anchor)
        position += block
    assert gaps == [(pytest.approx(321, abs=3), pytest.approx(hour * rate, abs=2))]
    assert base.utc_ns(position) == pytest.approx(clock.utc_ns(), abs=NS // 100)


def test_setting_the_clock_changes_utc_and_no_gap():
    rate, block = 48_000, 4800
    clock = ManualClock(1_700_000_000 * NS, autojump=False)
    capture, base, moves = CaptureClock(rate, 200), TimeBase(rate), []
    anchors = LiveAnchors(clock, capture)
    for number in range(600):
        clock.advance(block / rate)
        if number == 300:
            clock._utc_at_zero += 3600 * NS
        now = clock.monotonic_ns()
        assert not capture.update(block, now - block * NS // rate)
        anchor = anchors.anchor_before(
            Block(number * block, np.zeros((1, 1), np.float32))
        )
        if anchor is not None:
            base.add(anchor)
            moves += [(number, base.moved_ns)] if base.moved_ns else []
    assert len(moves) == 1
    assert moves[0][0] - 300 < 10  # blocks: within a second
    assert abs(moves[0][1] - 3600 * NS) < NS // 100
    assert base.utc_ns(600 * block) == pytest.approx(clock.utc_ns(), abs=NS // 100)
