"""Source reader: outages become gaps, positions continue after them."""

import itertools
import sys
from threading import Event as Flag

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network.broadcast import FETCH, BroadcastServer

from neurovocal.engine.contracts.clock import NS, ManualClock, SystemClock
from neurovocal.engine.contracts.errors import DeviceError, Disconnected
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Anchor, Block, Gap, Health, StreamInfo
from neurovocal.engine.runtime.workers.source_reader import SourceReader
from neurovocal.engine.testing import ScriptedSource
from neurovocal.plugins.sources.pipe.source import plugin as pipe

RATE = 1000
EPOCH = 1_700_000_000 * NS


class Radio:
    """A simulated live source: sample k of the world has the value k.

    `script` says, in ms, how long it is on and off in turn. While it is off it
    cannot be opened; the sample number is the time since the world began. Like a
    server with a burst it begins `burst_ms` in the past, at once.
    """

    live = True

    def __init__(self, clock, script, block_ms=20, burst_ms=0):
        self._burst_ms = burst_ms
        self.info = StreamInfo("radio", RATE)
        self._clock, self._block_ms = clock, block_ms
        edges = list(itertools.accumulate(script, initial=0))
        self._on = list(zip(edges[0::2], edges[1::2], strict=False))
        self._first = None
        self.position = 0

    def _now_ms(self):
        return self._clock.monotonic_ns() // 1_000_000

    def _until(self):
        now = self._now_ms()
        return next((stop for start, stop in self._on if start <= now < stop), None)

    @property
    def over(self):
        return self._now_ms() >= self._on[-1][1]

    def open(self):
        if self._until() is None:
            raise DeviceError("there is no radio")
        self._first, self.position = max(0, self._now_ms() - self._burst_ms), 0

    def captured_ns(self, sample):
        return None if not self.position else (self._first + sample) * 1_000_000

    def read(self, timeout):
        start = self._first + self.position
        until = self._until()
        if until is None or start + self._block_ms > until:
            raise Disconnected("the radio is off")
        due = (start + self._block_ms) * 1_000_000
        if not self._clock.wait_until(due, timeout):
            return None
        values = np.arange(start, start + self._block_ms, dtype=np.float32)
        block = Block(self.position, values[:, None], self._clock.monotonic_ns())
        self.position += self._block_ms
        return block

    def close(self):
        self._first = None


def play(reader, source):
    """Read all items until the script is over."""
    reader.open()
    items = []
    while not source.over:
        if (item := reader.read(0.1)) is not None:
            items.append(item)
    return items


@settings(deadline=None, max_examples=30)
@given(
    script=st.lists(st.integers(700, 20_000), min_size=1, max_size=7).filter(
        lambda times: len(times) % 2
    ),
    block_ms=st.sampled_from([10, 40, 130]),
    burst_ms=st.sampled_from([0, 300, 4000]),
)
def test_each_outage_is_a_gap_of_its_length_followed_by_an_anchor(
    script, block_ms, burst_ms
):
    clock, reported = ManualClock(EPOCH), []
    source = Radio(clock, script, block_ms, burst_ms)
    reader = SourceReader("lane", source, clock, "restart", Flag(), reported.append)
    items = play(reader, source)
    position = 0
    for item in items:
        if isinstance(item, Anchor):
            # Sample k was captured k ms after the beginning.
            assert item == Anchor(position, EPOCH + position * 1_000_000)
            continue
        assert item.start == position
        position = item.stop
        if isinstance(item, Block):  # at its place in the world
            np.testing.assert_array_equal(
                item.samples[:, 0], np.arange(item.start, item.stop)
            )
    gaps = [item for item in items if isinstance(item, Gap)]
    outages = reader.state.outages
    assert len(gaps) in (2 * outages, 2 * outages - 1)  # the end may come first
    assert all(gap.start == gap.stop for gap in gaps[0::2])
    again = [health for health in reported if "heard before the loss" in health.detail]
    assert bool(again) == bool(reader.repeated)
    reported = [health for health in reported if health not in again]
    states = [health.state for health in reported if health.state != "stalled"]
    assert states == (["recovering", "healthy"] * outages)[: len(states)]


def test_a_stall_of_a_source_and_its_end_are_reported():
    clock, reported = ManualClock(EPOCH), []
    block = Block(0, np.zeros((10, 1), np.float32))
    source = ScriptedSource(StreamInfo("x", RATE), [block, *[None] * 4], live=True)
    reader = SourceReader("lane", source, clock, "restart", Flag(), reported.append)
    reader.open()
    reader.read(1)
    for _ in range(4):
        clock.advance(0.9)
        assert reader.read(1) is None
    source.read = lambda timeout: Block(10, np.zeros((10, 1), np.float32))
    reader.read(1)
    assert reported == [
        Health(
            "source", "stalled", "no sample since 2023-11-14T22:13:20.000Z (2.7 s ago)"
        ),
        Health("source", "healthy", "samples arrive again, after 3.6 s"),
    ]


def test_a_source_is_failed_after_ten_attempts_and_still_reopened():
    clock, reported = ManualClock(EPOCH), []
    source = Radio(clock, [1000, 600_000, 5000])
    reader = SourceReader("lane", source, clock, "restart", Flag(), reported.append)
    items = play(reader, source)
    assert [health.state for health in reported] == ["recovering", "failed", "healthy"]
    assert (
        "10 attempts failed; last sample at 2023-11-14T22:13:21" in reported[1].detail
    )
    last = [item for item in items if isinstance(item, Gap)][-1]
    assert 600_000 <= last.stop - last.start < 600_000 + 30_000


def test_a_source_without_a_sample_has_no_last_sample():
    clock, reported = ManualClock(EPOCH), []
    source = Radio(clock, [1, 3000, 20_000])  # lost before its first block
    reader = SourceReader("lane", source, clock, "restart", Flag(), reported.append)
    play(reader, source)
    assert reported[0].detail == "the radio is off; no sample yet"


def test_a_lost_source_with_policy_fail_raises():
    reported = []
    source = Radio(ManualClock(EPOCH), [1000, 1000, 1000])
    reader = SourceReader(
        "lane", source, source._clock, "fail", Flag(), reported.append
    )
    with pytest.raises(Disconnected):
        play(reader, source)
    assert [health.state for health in reported] == ["failed"]


# ---- a real server that cuts the stream -----------------------------------------


def read_until_cut(reader, station, cuts):
    """Read items while the stream is cut, each time after half a second."""
    items, returns, since = [], 0, 0
    while returns < cuts or since < station.rate // 2:
        item = reader.read(1)
        if item is not None:
            items.append(item)
        if isinstance(item, Block):
            since += len(item.samples)
            if since >= station.rate // 2 and returns < cuts:
                station.cut.set()
        elif isinstance(item, Gap) and item.stop > item.start:
            returns, since = returns + 1, 0
    return items


def test_a_cut_http_stream_is_reopened_with_a_gap_of_the_missed_samples():
    clock, reported = SystemClock(), []
    with BroadcastServer() as station:
        options = pipe.options(
            sample_rate=station.rate,
            sample_format="s24le",
            command=[sys.executable, "-c", FETCH, station.url],
            endless=True,
        )
        source = pipe.build(options, BuildContext(clock, "run"))
        reader = SourceReader("lane", source, clock, "restart", Flag(), reported.append)
        reader.open()
        try:
            items = read_until_cut(reader, station, cuts=2)
        finally:
            reader.close()
    blocks, gaps, anchors = (
        [item for item in items if isinstance(item, kind)]
        for kind in (Block, Gap, Anchor)
    )
    for cut, gap in zip(gaps[0::2], gaps[1::2], strict=True):
        assert cut == Gap(gap.start, gap.start, "device lost")
        before = next(b for b in blocks if b.stop == gap.start)
        after = next(b for b in blocks if b.start == gap.stop)
        numbers = [
            round(float(b.samples[i, 0]) * 2**23) for b, i in ((before, -1), (after, 0))
        ]
        missed = numbers[1] - numbers[0] - 1
        assert missed > 0.4 * station.rate  # the first pause alone is half a second
        assert abs(gap.stop - gap.start - missed) < options.block_length
        assert any(a.sample == gap.stop for a in anchors)
    assert [h.state for h in reported if h.state != "stalled"] == [
        "recovering",
        "healthy",
    ] * 2
