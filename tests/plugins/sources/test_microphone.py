"""Microphone source: blocks and anchors, lost and reopened devices, checks."""

import numpy as np
import pytest
from audio_devices.fake_device import RATE, FakeDevice, items_of, make

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import DeviceError, Disconnected, EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Anchor, Block, StreamInfo
from neurovocal.plugins.sources.microphone import plugin


@pytest.fixture
def clock():
    return ManualClock(utc_ns=1_000_000 * NS)


def test_blocks_arrive_in_order_with_their_time_and_an_anchor_each_second(
    monkeypatch, clock
):
    device = FakeDevice(monkeypatch, clock)
    source = make(clock, channels=[2])
    with pytest.raises(RuntimeError):
        _ = source.info
    source.open()
    assert source.live
    assert source.info == StreamInfo("aviary", RATE, 1)
    items = []
    for _ in range(250):
        device.deliver(320)
        items += items_of(source)
    blocks = [item for item in items if isinstance(item, Block)]
    got = np.concatenate([block.samples for block in blocks])
    np.testing.assert_array_equal(
        got[:, 0], -np.arange(80_000, dtype=np.float32) / 2**20
    )
    assert [b.arrived_ns for b in blocks] == [b.stop * NS // RATE for b in blocks]
    anchors = [item for item in items if isinstance(item, Anchor)]
    assert [anchor.sample for anchor in anchors] == [0, 32_000, 64_000]
    for anchor in anchors:
        assert anchor.utc_ns == 1_000_000 * NS + anchor.sample * NS // RATE
    assert source.counts.received == source.counts.delivered == 80_000


def test_a_device_that_stalls_or_stops_is_disconnected(monkeypatch, clock):
    device = FakeDevice(monkeypatch, clock)
    source = make(clock, stall_timeout_s=3)
    source.open()
    device.deliver(320)
    items_of(source)
    clock.advance(2.9)
    assert source.read(0) is None
    clock.advance(0.2)
    with pytest.raises(Disconnected, match=r"'fake' has delivered nothing for 3\.1 s"):
        source.read(0)
    device.deliver(320)
    device.finished()
    assert isinstance(source.read(0), Block)
    with pytest.raises(Disconnected, match="'fake' stopped"):
        source.read(0)


def test_samples_are_read_after_close_and_reopening_starts_at_zero(monkeypatch, clock):
    device = FakeDevice(monkeypatch, clock)
    source = make(clock)
    source.close()
    with pytest.raises(EndOfStream):
        source.read(0)
    source.open()
    device.deliver(320)
    source.close()
    assert device.closed
    assert isinstance(source.read(0), Anchor)
    assert isinstance(source.read(0), Block)
    with pytest.raises(EndOfStream):
        source.read(0)
    source.open()
    device.deliver(320)
    assert isinstance(source.read(0), Anchor)
    assert source.read(0).start == 0


def test_a_card_that_returns_with_another_default_rate(monkeypatch, clock):
    """It is opened at the previous rate; only if it cannot, a new stream begins."""
    device = FakeDevice(monkeypatch, clock)
    source = make(clock)
    source.open()
    device.own_rate = 2 * RATE
    source.open()
    assert source.info.sample_rate == RATE
    device.refused = (RATE,)
    source.open()
    assert source.info.sample_rate == 2 * RATE
    device.refused = (RATE, 2 * RATE)
    with pytest.raises(DeviceError):
        source.open()
    assert source.info.sample_rate == 2 * RATE
    asked = make(clock, sample_rate=RATE)
    with pytest.raises(DeviceError, match=f"{RATE} Hz"):
        asked.open()


def test_resources_and_checks(monkeypatch, clock):
    FakeDevice(monkeypatch, clock)
    assert Registry().get("source", "microphone") is plugin
    assert plugin.resources(plugin.options(device="UMC404")) == {"device:UMC404"}
    context = BuildContext(clock, "run")
    assert list(plugin.check(plugin.options(channels=[2]), context)) == []
    (problem,) = plugin.check(plugin.options(channels=[3]), context)
    assert problem == "device 'fake' has 2 input channels, there is no channel 3"
    (problem,) = plugin.check(plugin.options(channels=[]), context)
    assert "at least one channel" in problem
