"""Times of samples in long runs, drift, and the clocks of machine and tests."""

import time
from fractions import Fraction
from threading import Event as Flag

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes.waiting import PATIENCE_S

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import NS, ManualClock, SystemClock
from neurovocal.engine.contracts.types import Anchor

EPOCH = 1_700_000_000 * NS
RATES = st.sampled_from([8_000, 22_050, 32_000, 44_100, 48_000, 250_000, 384_000])
CENTURY = 100 * 365 * 86_400


def test_without_an_anchor_the_time_is_unknown():
    timebase = TimeBase(44_100)
    assert timebase.utc_ns(0) is None
    assert timebase.anchor is None
    assert timebase.drift_ppm == 0.0


@given(
    rate=RATES, anchor=st.integers(0, 10**12), distance=st.integers(-(10**13), 10**13)
)
def test_no_error_accumulates(rate, anchor, distance):
    timebase = TimeBase(rate)
    timebase.add(Anchor(anchor, EPOCH))
    exact = EPOCH + Fraction(distance * NS, rate)
    assert 0 <= exact - timebase.utc_ns(anchor + distance) < 1


@given(rate=RATES, samples=st.lists(st.integers(0, 10**12), min_size=2, max_size=20))
def test_time_never_runs_backwards(rate, samples):
    timebase = TimeBase(rate)
    timebase.add(Anchor(500, EPOCH))
    times = [timebase.utc_ns(sample) for sample in sorted(samples)]
    assert times == sorted(times)


def test_the_newest_anchor_determines_the_time():
    timebase = TimeBase(1000)
    timebase.add(Anchor(0, EPOCH))
    assert timebase.utc_ns(2000) == EPOCH + 2 * NS
    newest = Anchor(1000, EPOCH + NS + 7)
    timebase.add(newest)
    assert timebase.anchor == newest
    assert timebase.utc_ns(2000) == EPOCH + 2 * NS + 7


@given(rate=RATES, ppm=st.integers(-500, 500), seconds=st.integers(60, CENTURY))
def test_drift_is_measured_in_parts_per_million(rate, ppm, seconds):
    """A device that is `ppm` too fast delivers more samples in the same time."""
    timebase = TimeBase(rate)
    timebase.add(Anchor(0, EPOCH))
    samples = rate * seconds * (1_000_000 + ppm) // 1_000_000
    timebase.add(Anchor(samples, EPOCH + seconds * NS))
    resolution = 1e6 / (rate * seconds)
    assert abs(timebase.drift_ppm - ppm) <= resolution + 1e-6


def test_setting_the_clock_is_a_jump_and_not_drift():
    base = TimeBase(1000)
    base.add(Anchor(0, 0))  # a machine that does not know the time yet
    base.add(Anchor(1000, NS + 1000))
    assert base.moved_ns == 0
    base.add(Anchor(2000, 1_700_000_000 * NS))
    assert base.moved_ns == 1_700_000_000 * NS - 2 * NS - 1000
    assert base.drift_ppm == 0.0
    base.add(Anchor(12_000, 1_700_000_010 * NS - 100_000))
    assert base.moved_ns == 0
    assert abs(base.drift_ppm - 10) < 1e-3


def test_anchors_without_elapsed_time_give_no_drift():
    timebase = TimeBase(1000)
    timebase.add(Anchor(0, EPOCH))
    timebase.add(Anchor(10, EPOCH))
    assert timebase.drift_ppm == 0.0
    timebase.add(Anchor(20, EPOCH - NS))
    assert timebase.drift_ppm == 0.0


def test_a_manual_clock_jumps_to_the_awaited_instant():
    clock = ManualClock(utc_ns=EPOCH)
    assert (clock.monotonic_ns(), clock.utc_ns()) == (0, EPOCH)
    assert clock.wait_until(3 * NS, timeout=5)
    assert clock.monotonic_ns() == 3 * NS
    assert not clock.wait_until(10 * NS, timeout=2), "it has not come yet"
    assert clock.monotonic_ns() == 5 * NS
    assert clock.wait_until(1, timeout=0), "it is long past"
    assert clock.monotonic_ns() == 5 * NS
    clock.advance(0.5)
    assert clock.utc_ns() == EPOCH + 5 * NS + NS // 2


def test_a_manual_clock_without_autojump_waits_for_advance(background):
    clock = ManualClock(autojump=False)
    assert not clock.wait_until(NS, timeout=0)
    started = Flag()

    def wait_a_second():
        started.set()
        return clock.wait_until(NS, timeout=20)

    result = background(wait_a_second)
    assert started.wait(PATIENCE_S)
    clock.advance(0.6)
    clock.advance(0.6)
    assert result() is True
    assert clock.monotonic_ns() == 1_200_000_000


def test_the_system_clock_agrees_with_the_time_module():
    clock = SystemClock()
    before = clock.monotonic_ns()
    assert clock.wait_until(before + 1_000_000, timeout=5)
    assert clock.monotonic_ns() >= before + 1_000_000
    assert not clock.wait_until(clock.monotonic_ns() + 3600 * NS, timeout=0.001)
    assert clock.wait_until(before, timeout=0)
    assert clock.utc_ns() > EPOCH


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux has it")
def test_monotonic_time_goes_on_while_the_machine_is_suspended():
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    now = SystemClock().monotonic_ns()
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
