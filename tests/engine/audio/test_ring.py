"""Audio ring: every sample is counted, and gaps are exactly the lost samples."""

import threading
from collections import deque

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from neurovocal.engine.audio.ring import AudioRing, RingCounts
from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.types import Block, Gap


def ramp(start: int, count: int, channels: int = 1) -> np.ndarray:
    """Return samples with their position as value."""
    numbers = np.arange(start, start + count, dtype=np.float32)
    return np.stack([numbers * (c + 1) for c in range(channels)], axis=1)


def until_end(ring: AudioRing, longest: int):
    """Return all items of a ring until its writer has closed it."""
    while True:
        try:
            item = ring.read(longest, timeout=10)
        except EndOfStream:
            return
        if item is not None:
            yield item


class RingAgainstModel(RuleBasedStateMachine):
    """State machine that compares the ring with a list of one entry per sample."""

    @initialize(capacity=st.integers(1, 40), start=st.integers(0, 1000))
    def make(self, capacity, start):
        self.ring = AudioRing(capacity, 2, start)
        self.capacity = capacity
        # What waits: (position, arrived_ns) for samples, in order.
        self.waiting = deque()
        self.breaks = {}  # position -> reason of the discontinuity before it
        self.position = self.expected = start
        self.received = self.delivered = self.lost = 0
        self.clock = 0
        self.unread_overrun = 0
        self.dropped = 0
        self.pending = None

    @rule(count=st.integers(0, 60))
    def write(self, count):
        self.clock += 1
        self.ring.write(ramp(self.position, count, 2), self.clock)
        if count and self.pending is not None:
            self.breaks[self.position] = self.pending
            self.pending = None
        self.waiting.extend((self.position + i, self.clock) for i in range(count))
        self.position += count
        self.received += count
        while len(self.waiting) > self.capacity:
            self.waiting.popleft()
            self.dropped += 1
            self.unread_overrun += 1

    @rule(count=st.integers(0, 50), reason=st.sampled_from(["device overflow", "slip"]))
    def lose(self, count, reason):
        self.ring.declare_lost(count, reason)
        self.position += count
        self.lost += count
        self.pending = reason

    @rule(longest=st.integers(1, 70))
    def read(self, longest):
        item = self.ring.read(longest, timeout=0)
        if not self.waiting:
            assert item is None
            return
        first = self.waiting[0][0]
        if self.unread_overrun:
            assert item == Gap(self.expected, first, "overrun")
            self.breaks.pop(first, None)
            self.unread_overrun = 0
        elif first in self.breaks:
            assert item == Gap(self.expected, first, self.breaks.pop(first))
        else:
            assert isinstance(item, Block)
            assert item.start == first == self.expected
            taken = [self.waiting.popleft() for _ in range(len(item.samples))]
            assert [p for p, _ in taken] == list(range(item.start, item.stop))
            np.testing.assert_array_equal(
                item.samples, ramp(item.start, len(item.samples), 2)
            )
            assert item.arrived_ns == taken[-1][1]
            more = self.waiting and self.waiting[0][0] == item.stop
            at_break = item.stop in self.breaks
            assert len(item.samples) == longest or not more or at_break
            self.delivered += len(item.samples)
            self.expected = item.stop
            return
        self.expected = item.stop

    @invariant()
    def balance(self):
        if not hasattr(self, "ring"):
            return
        counts = self.ring.counts
        assert counts == RingCounts(
            self.received, self.delivered, self.dropped, len(self.waiting), self.lost
        )
        assert counts.received == counts.delivered + counts.dropped + counts.queued


TestRingAgainstModel = RingAgainstModel.TestCase
TestRingAgainstModel.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None
)


def test_overrun_is_a_gap_of_exactly_the_lost_samples():
    ring = AudioRing(100, 1)
    for start in range(0, 250, 50):
        ring.write(ramp(start, 50), start)
    assert ring.read(1000, 0) == Gap(0, 150, "overrun")
    block = ring.read(1000, 0)
    assert isinstance(block, Block)
    assert (block.start, block.stop) == (150, 250)
    np.testing.assert_array_equal(block.samples, ramp(150, 100))


def test_the_writer_may_reuse_its_array():
    ring = AudioRing(100, 1)
    samples = ramp(0, 10)
    ring.write(samples, 1)
    samples[:] = -1
    block = ring.read(10, 0)
    assert isinstance(block, Block)
    np.testing.assert_array_equal(block.samples, ramp(0, 10))


def test_many_tiny_writes_with_losses_stay_exact():
    """With more marks than the ring keeps, old samples are dropped and counted."""
    ring = AudioRing(20_000, 1)
    position = 0
    for _ in range(10_000):
        ring.declare_lost(1, "device overflow")
        ring.write(ramp(position + 1, 2), 0)
        position += 3
    seen = expected = 0
    ring.close()
    for item in until_end(ring, 64):
        assert item.start == expected
        expected = item.stop
        if isinstance(item, Block):
            seen += len(item.samples)
            np.testing.assert_array_equal(
                item.samples, ramp(item.start, len(item.samples))
            )
    counts = ring.counts
    assert expected == position
    assert counts == RingCounts(20_000, seen, 20_000 - seen, 0, 10_000)
    assert seen > 4000


def test_a_closed_ring_returns_queued_samples_then_the_last_gap_then_the_end():
    ring = AudioRing(100, 1)
    ring.write(ramp(0, 10), 5)
    ring.declare_lost(7, "device overflow")
    ring.close()
    assert isinstance(ring.read(100, 0), Block)
    assert ring.read(100, 0) == Gap(10, 17, "device overflow")
    for _ in range(2):
        with pytest.raises(EndOfStream):
            ring.read(100, 0)


def test_read_waits_for_the_writer_and_close_wakes_the_reader():
    ring = AudioRing(100, 1)
    results = []

    def reader():
        try:
            while True:
                results.append(ring.read(100, timeout=60))
        except EndOfStream:
            results.append("end")

    thread = threading.Thread(target=reader)
    thread.start()
    ring.write(ramp(0, 10), 1)
    ring.close()
    thread.join(30)
    assert not thread.is_alive()
    assert results[-1] == "end"
    assert sum(len(block.samples) for block in results[:-1]) == 10


def test_a_concurrent_writer_never_gives_a_torn_block():
    """The writer overtakes the reader all the time; values show the positions."""
    ring = AudioRing(5000, 1)
    total = 3_000_000
    source = ramp(0, total) % 65536

    def writer():
        for start in range(0, total, 777):
            ring.write(source[start : start + 777], start)
        ring.close()

    thread = threading.Thread(target=writer)
    thread.start()
    expected = delivered = dropped = 0
    for item in until_end(ring, 3000):
        counts = ring.counts
        assert counts.received == counts.delivered + counts.dropped + counts.queued
        assert item.start == expected
        expected = item.stop
        if isinstance(item, Block):
            delivered += len(item.samples)
            np.testing.assert_array_equal(item.samples, source[item.start : item.stop])
        else:
            dropped += item.stop - item.start
    thread.join()
    assert expected == total
    assert ring.counts == RingCounts(total, delivered, dropped, 0, 0)


@pytest.mark.parametrize("shape", [(0, 1), (1, 0)])
def test_a_ring_without_capacity_is_rejected(shape):
    with pytest.raises(ValueError, match="at least one sample"):
        AudioRing(*shape)
