"""Faults on purpose: what the source, its stages and the sinks then bring."""

import numpy as np
import pytest
from scripted import EPOCH, INFO, RATE, make_runner

from neurovocal.engine.testing import CollectSink, ScriptedSource
from neurovocal.engine.timebase import NS, ManualClock
from neurovocal.engine.types import Anchor, Block, Gap, Health

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")

SONG = "..##.#..###.##...#.####.."


class Device(ScriptedSource):
    """A sound card in its own time: its blocks move the clock on when they are read.

    Each opening goes on where the clock stands; sample k of the world is heard at
    second k / RATE, and is worth k.
    """

    def __init__(self, clock, seconds, n_samples=50):
        super().__init__(INFO, (), live=True)
        self.clock, self.seconds, self.n_samples = clock, seconds, n_samples
        self.notices = ["it was found under another name"]

    def open(self):
        super().open()
        self._began = self._at = self.clock.monotonic_ns() * RATE // NS
        self._anchored = False

    def heard_ns(self, sample):
        return (self._began + sample) * NS // RATE

    def read(self, timeout):
        if not self._anchored:
            self._anchored = True
            return Anchor(0, EPOCH + self.heard_ns(0))
        if self._at >= self.seconds * RATE:
            return super().read(timeout)
        first, self._at = self._at, self._at + self.n_samples
        late = self._at * NS // RATE - self.clock.monotonic_ns()
        self.clock.advance(max(0, late) / NS)
        values = np.arange(first, self._at, dtype=np.float32)[:, None] / 1e6
        return Block(first - self._began, values, self.clock.monotonic_ns())


def rehearse(seconds, *faults, source=None, sink=None, clock=None, **more):
    """Run a device with faults; its audio as (kind, first value, length) and health."""
    clock = clock or ManualClock(EPOCH)
    sink = sink or CollectSink({"block", "gap", "health", "anchor"})
    source = source or Device(clock, seconds)
    runner = make_runner(
        source, sink, clock=clock, source_policy="restart", faults=list(faults), **more
    )
    outcome = runner.run()
    return sink, outcome


def heard(sink):
    """What the sink was told of the samples, joined: (start, stop, value or reason)."""
    spans = []
    for event in sink.events(Block, Gap):
        if isinstance(event, Gap):
            spans.append((event.start, event.stop, event.reason))
            continue
        first = round(float(event.samples[0, 0]) * 1e6)
        offset = first - event.start
        if spans and spans[-1][1] == event.start and spans[-1][2] == offset:
            spans[-1] = (spans[-1][0], event.stop, offset)
        else:
            spans.append((event.start, event.stop, offset))
    return spans


def health(sink, stage):
    return [(e.state, e.detail) for e in sink.events(Health) if e.stage == stage]


def test_dropped_samples_are_a_gap_of_their_length():
    sink, outcome = rehearse(3, {"fault": "drop", "at_s": 1.23, "for_s": 0.5})
    assert heard(sink) == [
        (0, 1230, 0),
        (1230, 1730, "injected: drop"),
        (1730, 3000, 0),
    ]
    assert health(sink, "fault drop") == [
        ("degraded", "injected: drop 0.5 s"),
        ("healthy", "injected: drop 0.5 s: over"),
    ]
    assert outcome.lost_samples == 500


def test_a_drop_at_the_end_is_no_longer_than_the_audio():
    sink, _ = rehearse(3, {"fault": "drop", "at_s": 2.5, "for_s": 60})
    assert heard(sink) == [(0, 2500, 0), (2500, 3000, "injected: drop")]


def test_a_short_stall_is_noticed_and_a_gap():
    sink, _ = rehearse(9, {"fault": "stall", "at_s": 2, "for_s": 4})
    assert heard(sink) == [
        (0, 2000, 0),
        (2000, 6000, "injected: stall"),
        (6000, 9000, 0),
    ]
    (stalled, back) = health(sink, "source")
    assert (stalled[0], back[0]) == ("stalled", "healthy")


def test_an_unplugged_device_is_sought_until_it_is_back():
    sink, outcome = rehearse(9, {"fault": "unplug", "at_s": 2, "for_s": 3})
    before, empty, gap, after = heard(sink)
    assert before == (0, 2000, 0)
    assert empty == (2000, 2000, "device lost")
    # Attempts after 0.5, 1 and 2 s of pause: the third finds it.
    assert gap == (2000, 5500 + 50, "device lost")
    assert after == (5550, 9000, 0)
    lost, back = health(sink, "source")
    assert lost[0] == "recovering"
    assert lost[1].startswith("injected: unplug 3 s; last sample")
    assert back[0] == "healthy"
    assert len(health(sink, "fault unplug")) == 2
    assert outcome.exit_code == 3
