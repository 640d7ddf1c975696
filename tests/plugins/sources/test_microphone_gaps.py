"""Microphone source: gaps and anchors when samples are lost, late or stale."""

import numpy as np
import pytest
from audio_devices.fake_device import RATE, FakeDevice, items_of, make
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.types import Anchor, Block, Gap


@pytest.fixture
def clock():
    return ManualClock(utc_ns=1_000_000 * NS)


@pytest.mark.parametrize("adc", [True, False])
def test_an_overflow_becomes_a_gap_of_the_length_on_the_clock(monkeypatch, clock, adc):
    device = FakeDevice(monkeypatch, clock)
    source = make(clock)
    source.open()
    device.deliver(320, overflow=True, adc=adc)  # before the first block: no loss
    device.deliver(320, adc=adc)
    clock.advance(1234 / RATE)  # the device threw these away
    device.position += 1234
    device.deliver(320, overflow=True, adc=adc)
    items = items_of(source)
    assert isinstance(items[0], Anchor)
    first, gap, anchor, last = items[1:]
    assert (first.start, first.stop) == (0, 640)
    assert gap == Gap(640, 1874, "device overflow")
    assert anchor == Anchor(1874, 1_000_000 * NS + 1874 * NS // RATE)
    np.testing.assert_array_equal(
        last.samples[:, 0] * 2**20, np.arange(1874, 2194, dtype=np.float32)
    )
    assert source.overflows == 1
    assert source.counts.lost == 1234


def test_a_lasting_lag_is_a_slip_and_a_late_callback_is_not(monkeypatch, clock):
    device = FakeDevice(monkeypatch, clock)
    source = make(clock, max_slip_ms=100)
    source.open()
    items = []
    for number in range(1000):
        # Every fifth callback is in time, the others are late by half a second.
        device.deliver(320, age_s=0.1 if number % 5 else 0.6)
        items += items_of(source)
    assert not any(isinstance(item, Gap) for item in items)
    clock.advance(6400 / RATE)  # 200 ms vanish without a word
    for _ in range(500):
        device.deliver(320, age_s=0.6)
        items += items_of(source)
    gaps = [item for item in items if isinstance(item, Gap)]
    assert [gap.reason for gap in gaps] == ["device slip"]
    assert gaps[0].stop - gaps[0].start == pytest.approx(6400, abs=330)
    after = items[items.index(gaps[0]) + 1]
    assert isinstance(after, Anchor)
    truth = clock.utc_ns() - (items[-1].stop - after.sample) * NS // RATE - NS * 6 // 10
    assert after.utc_ns == pytest.approx(truth, abs=20_000_000)


def test_a_fading_backlog_of_a_sound_server_is_no_slip(monkeypatch, clock):
    """The server reports a backlog of a second, which fades."""
    device = FakeDevice(monkeypatch, clock)
    device.latency_high_ms = 20.0
    source = make(clock)
    source.open()
    items = []
    for number in range(1000):
        device.deliver(320, age_s=max(0.01, 1.0 - number / 500))
        items += items_of(source)
    assert not any(isinstance(item, Gap) for item in items)


def test_anchors_follow_the_drift_of_a_slow_device_clock(monkeypatch, clock):
    """200 ppm for ten minutes are 120 ms: no gap, and anchors stay right."""
    device = FakeDevice(monkeypatch, clock)
    source = make(clock, max_slip_ms=100)
    source.open()
    items = []
    for _ in range(6000):
        device.deliver(3200)
        clock.advance(3200 / RATE * 200e-6)
        items += items_of(source)
    assert not any(isinstance(item, Gap) for item in items)
    anchor = [item for item in items if isinstance(item, Anchor)][-1]
    truth = 1_000_000 * NS + round(anchor.sample * NS / RATE * (1 + 200e-6))
    assert anchor.utc_ns == pytest.approx(truth, abs=10_000_000)


def test_an_overrun_becomes_a_gap_of_the_overwritten_samples(monkeypatch, clock):
    device = FakeDevice(monkeypatch, clock)
    source = make(clock, buffer_s=0.1)
    source.open()
    for _ in range(20):
        device.deliver(320)
    gap, anchor, block = items_of(source)
    assert gap == Gap(0, 3200, "overrun")
    assert anchor.sample == 3200
    assert (block.start, block.stop) == (3200, 6400)
    assert source.counts.dropped == 3200


@settings(deadline=None)
@given(
    burst=st.lists(st.integers(16, 600), max_size=8),
    lengths=st.lists(st.integers(16, 600), min_size=2, max_size=6),
    hole=st.integers(0, 20_000),
)
def test_stale_audio_of_a_sound_server_is_dropped(burst, lengths, hole):
    """The samples are contiguous and include all that came in real time."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = ManualClock()
        device = FakeDevice(monkeypatch, clock)
        source = make(clock)
        source.open()
        for count in burst:
            device.deliver(count, paced=False)
        device.position += hole
        clock.advance(hole / RATE)
        fresh = device.position
        for count in lengths:
            device.deliver(count)
        items = items_of(source)
    numbers = np.concatenate([b.samples[:, 0] for b in items if isinstance(b, Block)])
    numbers = np.round(numbers * 2**20).astype(int)
    assert not any(isinstance(item, Gap) for item in items)
    assert list(numbers) == list(range(numbers[0], device.position))
    assert numbers[0] == fresh
