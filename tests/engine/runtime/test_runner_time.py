"""Latency ledger, statistics and lag of a run on a manual clock."""

from itertools import chain

import numpy as np
import pytest
from stages.runners import (
    EPOCH,
    INFO,
    QUANTUM,
    RATE,
    STAGES,
    SegmentLabeller,
    audio,
    check_seq,
    make_runner,
    many,
)

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Frames,
    Health,
    Stats,
    StreamInfo,
)
from neurovocal.engine.testing import CollectSink, ScriptedSource

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")


def paced(clock, n_blocks, seconds):
    """Blocks; `seconds` pass on the clock before each is read."""
    for block in many(n_blocks):
        clock.advance(seconds)
        yield block


def test_statistics_and_the_newest_anchor_are_published_once_a_second():
    clock = ManualClock(EPOCH)
    recorder = CollectSink({"anchor", "offset"})  # keeps records: wants no statistics
    publisher = CollectSink()
    items = chain([Anchor(0, EPOCH)], paced(clock, 16, 0.25))
    source = ScriptedSource(INFO, items, live=True)
    make_runner(source, recorder, publisher, clock=clock).run()
    stats = publisher.events(Stats)
    assert len(stats) == 4
    assert [s.values["position"] for s in stats] == [200, 400, 600, 800]
    last = stats[-1].values
    assert last["events"]["onset"] == 16
    samples = {"heard": 800, "lost": 0, "unheard": 0, "repeated": 0}
    assert last["source"] == {**samples, "state": "healthy", "outages": 0}
    assert last["sinks"]["sink 'sink1'"]["events"]["dropped"] == 0
    assert last["stages"]["detector 'gate'"]["errors"] == 0
    # Repeated with its own number, only to sinks that take statistics.
    anchors = [(m.seq, m.event) for m in publisher.messages if m.kind == "anchor"]
    assert anchors == [(0, Anchor(0, EPOCH))] * 5
    assert recorder.events(Anchor) == [Anchor(0, EPOCH)]
    check_seq(publisher)
    check_seq(recorder)


def test_the_ledger_splits_latency_into_wait_queue_and_compute(monkeypatch):
    clock, sink = ManualClock(EPOCH), CollectSink()

    class Slow(SegmentLabeller):
        def process(self, item):
            if isinstance(item, Frames):
                clock.advance(0.007)
            return super().process(item)

    def items():
        yield Anchor(0, EPOCH)
        clock.advance(5.0)
        block = audio("#...", 0)  # 40 samples: one quantum of 32 and a rest
        arrived_ns = clock.monotonic_ns()
        clock.advance(0.003)  # it waits in the device's queue
        yield Block(0, block.samples, arrived_ns)

    monkeypatch.setitem(STAGES, "namer", Slow)
    source = ScriptedSource(INFO, items(), live=True)
    runner = make_runner(source, sink, clock=clock, models=["namer"])
    runner.run()
    first = {m.kind: m for m in reversed(sink.messages) if m.ledger}
    onset, offset = first["onset"].ledger, first["offset"].ledger
    # Processed in quanta of 32: the onset at 0 waited 32 ms, the offset at 10, 22 ms.
    assert (onset.wait_ms, offset.wait_ms) == (32.0, 22.0)
    assert first["label"].ledger.wait_ms == 22.0
    assert onset.queue_ms == offset.queue_ms == 3.0
    assert onset.compute_ms == 7.0
    assert first["onset"].at == 32
    assert first["onset"].emitted_ns == 5_010_000_000
    summary = runner.lanes[0].publisher.ledgers["onset"].summary()
    assert summary["wait_ms"]["max"] == 32.0


def test_lag_is_reported_once_and_so_is_its_end():
    clock, sink = ManualClock(EPOCH), CollectSink()

    def items():
        position = 0
        for late_s in (0.0, 3.0, 3.0, 0.0, 0.0):
            arrived_ns = clock.monotonic_ns() + 1
            clock.advance(max(late_s, 0.001))
            samples = np.zeros((QUANTUM, 2), np.float32)
            yield Block(position, samples, arrived_ns)
            position += QUANTUM
            clock.advance(1.0)
            yield None

    source = ScriptedSource(StreamInfo("cage", RATE, 2), items(), live=True)
    make_runner(source, sink, clock=clock).run()
    first = [m.event for m in sink.messages if m.info.stream == "cage.ch1"]
    states = [(e.stage, e.state) for e in first if isinstance(e, Health)]
    assert states == [("lane", "lagging"), ("lane", "healthy")]


def test_a_jump_of_a_live_sources_time_is_reported_once():
    sink = CollectSink({"health"})
    anchors = [Anchor(0, 0), Anchor(60, EPOCH), Anchor(120, EPOCH + 60_000_000)]
    blocks = [audio("..##..", start) for start in (0, 60, 120)]
    items = [item for pair in zip(anchors, blocks, strict=True) for item in pair]
    make_runner(ScriptedSource(INFO, items, live=True), sink).run()
    assert [(e.state, e.detail) for e in sink.events(Health)] == [
        (
            "degraded",
            "UTC of the samples moved by +1699999999.940 s (was a clock set?)",
        ),
        ("healthy", "time goes on evenly"),
    ]
    # Recordings in one stream may have been made at any time.
    other = CollectSink({"health"})
    make_runner(ScriptedSource(INFO, items), other).run()
    assert not other.events(Health)


def test_a_series_of_jumps_as_of_a_wrong_rate_is_reported_once():
    """Twice the samples that the configuration says: each anchor is a jump."""
    sink, clock = CollectSink({"health"}), ManualClock(EPOCH)

    def items():
        for second in range(90):
            yield Anchor(second * 2 * RATE, EPOCH + second * NS)
            yield Block(second * 2 * RATE, np.zeros((2 * RATE, 1), np.float32))
            clock.advance(1.0)

    make_runner(ScriptedSource(INFO, items(), live=True), sink, clock=clock).run()
    told = [e.detail for e in sink.events(Health) if e.stage == "clock"]
    assert len(told) == 1
    assert "UTC of the samples moved by -1.000 s" in told[0]
