"""Conformance checks of sources and sinks, test doubles and test signals."""

import numpy as np
import pytest
from processes.waiting import PATIENCE_S

from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.types import (
    Block,
    Frames,
    Gap,
    Message,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import (
    CollectSink,
    FailingSink,
    ScriptedSource,
    StalledSink,
    canonical,
    check_sink,
    check_source,
    gather,
    recut,
    song,
)

RATE = 8000
SONG = song(RATE, 2.0, seed=1)
INFO = StreamInfo("cage", RATE)


def blocks(*spans, dtype=np.float32, columns=1):
    return [Block(a, np.zeros((b - a, columns), dtype)) for a, b in spans]


class Ending(ScriptedSource):
    """Returns items after the end of the stream."""

    def read(self, timeout):
        self.ended = getattr(self, "ended", 0)
        try:
            return super().read(timeout)
        except EndOfStream:
            self.ended += 1
            if self.ended == 1:
                raise
            return None


class NeverOpened(ScriptedSource):
    """Cannot be closed before `open`."""

    def close(self):
        if not self.opened:
            raise RuntimeError("not open")
        super().close()


class ClosedOnce(ScriptedSource):
    """Cannot be closed twice."""

    def close(self):
        super().close()
        if self.closed > 2:
            raise RuntimeError("closed already")


def test_a_correct_source_passes():
    items = [
        *blocks((0, 10), (10, 15)),
        Gap(15, 20, "overrun"),
        None,
        *blocks((20, 25)),
        StreamInfo("next", RATE, 2),
        *blocks((0, 5), columns=2),
    ]
    check_source(lambda: ScriptedSource(INFO, items))


@pytest.mark.parametrize(
    ("items", "sentence"),
    [
        (blocks((0, 10), (11, 20)), "hole at sample 10"),
        ([*blocks((0, 10)), Gap(12, 20, "")], "hole before the gap at 10"),
        ([*blocks((0, 10)), Gap(10, 5, "")], "runs backwards"),
        (blocks((0, 10), dtype=np.float64), "not float32"),
        (blocks((0, 10), columns=2), "wrong number of channels"),
        ([Block(0, np.zeros(10, np.float32))], r"not \[n_samples, n_channels\]"),
        ([Block(0, np.full((5, 1), np.nan, np.float32))], "not a finite sample"),
        ([*blocks((0, 5)), INFO, *blocks((5, 10))], "hole at sample 0"),
    ],
)
def test_a_broken_source_is_found(items, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_source(lambda: ScriptedSource(INFO, items))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (Ending, "EndOfStream again"),
        (NeverOpened, "closing what was never opened"),
        (ClosedOnce, "closing twice"),
    ],
)
def test_a_source_that_cannot_be_closed_twice_is_found(make, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_source(lambda: make(INFO, blocks((0, 10))))


def test_a_source_that_differs_between_readings_is_found():
    turns = iter(range(1, 10))
    with pytest.raises(AssertionError, match="second reading differs"):
        check_source(lambda: ScriptedSource(INFO, blocks((0, next(turns)))))


# ---- sinks and doubles -----------------------------------------------------------

MESSAGES = [Message(INFO, Onset(0, 5, 1.0), 0, 8), Message(INFO, Gap(8, 9, ""), 0, 9)]


class OpenOnce(CollectSink):
    """Cannot be opened again."""

    def open(self):
        super().open()
        assert self.opened == 1, "opened again"


class CloseOnce(CollectSink):
    """Cannot be closed twice."""

    def close(self):
        super().close()
        if self.closed > 2:
            raise OSError("closed already")


class CloseLate(CollectSink):
    """Cannot be closed before `open`."""

    def close(self):
        if not self.opened:
            raise OSError("not open")


def test_a_correct_sink_passes_and_gets_every_message():
    made = []

    def make():
        made.append(CollectSink())
        return made[-1]

    check_sink(make, MESSAGES)
    assert [sink.messages for sink in made] == [MESSAGES * 2, MESSAGES]
    assert all(sink.flushed for sink in made)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (OpenOnce, AssertionError, "opened again"),
        (CloseOnce, AssertionError, "closing twice"),
        (CloseLate, AssertionError, "closing what was never opened"),
        (FailingSink, OSError, "the disk is full"),
    ],
)
def test_a_broken_sink_is_found(make, error, sentence):
    with pytest.raises(error, match=sentence):
        check_sink(make, MESSAGES)


def test_a_scripted_source_raises_the_exceptions_of_its_script():
    source = ScriptedSource(INFO, [*blocks((0, 5)), OSError("gone"), None], live=True)
    source.open()
    assert source.live
    assert source.read(0).stop == 5
    with pytest.raises(OSError, match="gone"):
        source.read(0)
    assert source.read(0) is None
    for _ in range(2):
        with pytest.raises(EndOfStream):
            source.read(0)


def test_a_stalled_sink_blocks_until_it_is_released(background):
    sink = StalledSink()
    wait = background(lambda: sink.write(MESSAGES[0]))
    assert sink.entered.wait(PATIENCE_S)
    assert sink.messages == []
    sink.release.set()
    wait()
    assert sink.events(Onset) == [MESSAGES[0].event]
    assert sink.events(Gap) == []


def test_canonical_events_compare_by_value_without_arrival_times():
    samples = np.arange(6, dtype=np.float32)[:, None]
    block = canonical(Block(3, samples, arrived_ns=5))
    assert block == canonical(Block(3, samples.copy(), arrived_ns=9))
    assert block != canonical(Block(4, samples))
    assert block != canonical(Block(3, samples + 1e-6))
    assert block != canonical(Block(3, samples.reshape(3, 2)))


def test_gather_joins_consecutive_frames():
    class Echo:
        def process(self, item):
            return [item]

        def flush(self):
            return ()

    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    whole = [Frames(3, 64, 128, values)]
    parts = [Frames(3, 64, 128, values[:1]), Frames(4, 64, 128, values[1:])]
    apart = [Frames(3, 64, 128, values[:1]), Frames(5, 64, 128, values[1:])]
    assert gather(Echo(), parts) == gather(Echo(), whole)
    assert len(gather(Echo(), apart)) == 2


def test_recut_loses_no_sample():
    samples = SONG[:1000]
    cut = recut(samples, [7, 100], start=50)
    assert [b.start for b in cut[:3]] == [50, 57, 157]
    assert np.array_equal(np.concatenate([b.samples for b in cut]), samples)
    assert not any(np.shares_memory(b.samples, samples) for b in cut)
    assert all(
        np.shares_memory(b.samples, samples) for b in recut(samples, [9], copy=False)
    )
