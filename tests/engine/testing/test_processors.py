"""Conformance check of processors: each violated requirement is named."""

import numpy as np
import pytest
from stages.example_stages import RATE, SONG, Framer, LevelDetector

from neurovocal.engine.contracts.types import (
    Block,
    Frames,
    Gap,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import check_processor

INFO = StreamInfo("cage", RATE)


@pytest.mark.parametrize("make", [Framer, LevelDetector])
def test_a_correct_stage_passes(make):
    check_processor(make, SONG)


def broken_features():
    class Cuts(Framer):
        """Frames start again at each block."""

        def process(self, item):
            if isinstance(item, Block):
                self._forget(item.start)
            return super().process(item)

    class Remembers(Framer):
        """`reset` keeps the running mean."""

        def reset(self):
            self._forget(0)
            self.mean = getattr(self, "mean", np.float32(0))

    class Writes(Framer):
        """Scales its input in place."""

        def process(self, item):
            if isinstance(item, Block):
                item.samples[:] *= 0.5
            return super().process(item)

    class Keeps(Framer):
        """Samples kept for the next block are a view of this one."""

        def process(self, item):
            yield from super().process(item)
            if isinstance(item, Block) and 0 < len(self.rest) <= len(item.samples):
                self.rest = item.samples[-len(self.rest) :]

    class Spans(Framer):
        """Computes frames across a gap."""

        def process(self, item):
            if isinstance(item, Gap):
                item = Block(item.start, np.zeros((item.stop - item.start, 1), "f4"))
            return super().process(item)

    class Restarts(Framer):
        """The first complete frame after a gap is left out."""

        def _forget(self, start):
            super()._forget(start)
            self.frame += start > 0

    class Doubles(Framer):
        """Frames are float64."""

        def process(self, item):
            for frames in super().process(item):
                values = frames.values.astype(np.float64)
                yield Frames(frames.first, 64, 128, values)

    class Narrow(Framer):
        """Fewer bins than stated."""

        n_bins = 3

    class OtherGrid(Framer):
        """Frames state another hop."""

        def process(self, item):
            for frames in super().process(item):
                yield Frames(frames.first, 32, 128, frames.values)

    class Late(Framer):
        """Returns frames later than the stated latency."""

        def process(self, item):
            if isinstance(item, Gap):
                yield from self.flush()
            else:
                self.waiting = getattr(self, "waiting", [])
            self.waiting += super().process(item)
            while sum(len(f.values) for f in self.waiting) > 5:
                yield self.waiting.pop(0)

        def flush(self):
            waiting, self.waiting = getattr(self, "waiting", []), []
            return waiting

        def reset(self):
            super().reset()
            self.waiting = []

    class Overflows(Framer):
        """Silence gives minus infinity."""

        def process(self, item):
            for frames in super().process(item):
                with np.errstate(divide="ignore"):
                    yield Frames(frames.first, 64, 128, np.log(frames.values))

    class Mute(Framer):
        """Returns no event."""

        def process(self, item):
            return ()

    class Poisoned(Framer):
        """A NaN stays in the running mean after `reset`."""

        def reset(self):
            mean = getattr(self, "mean", 0.0)
            super().reset()
            self.mean = np.float32(0) if np.isfinite(mean) else mean

    class OneChannelOnly(Framer):
        """Reads memory without the strides of the array."""

        def process(self, item):
            if isinstance(item, Block):
                base = item.samples if item.samples.base is None else item.samples.base
                if base.shape[-1] > 1:
                    count = len(item.samples)
                    item = Block(item.start, base.reshape(-1)[:count, None].copy())
            return super().process(item)

    return [
        (Cuts, "recut"),
        (Remembers, "reset: something was kept"),
        (Writes, "changed its input"),
        (Keeps, "keeps its input array"),
        (Spans, "spans the gap"),
        (Restarts, "missing, doubled"),
        (Doubles, "not float32"),
        (Narrow, "another shape"),
        (OtherGrid, "another grid"),
        (Late, "later than the stated latency"),
        (Overflows, "not a finite number"),
        (Mute, "found nothing"),
        (Poisoned, "NaN was kept"),
        (OneChannelOnly, "one column of several channels"),
    ]


def broken_detectors():
    class NeverCloses(LevelDetector):
        """The end of the stream leaves a segment open."""

        def flush(self):
            return ()

    class SpansGaps(LevelDetector):
        """A gap does not close a segment."""

        def process(self, item):
            if isinstance(item, Gap):
                self.rest, self.start = np.empty(0, np.float32), item.stop
                return []
            return super().process(item)

    class Revises(LevelDetector):
        """The offset has another onset."""

        def close(self, *, truncated):
            mark = super().close(truncated=truncated)
            return Offset(mark.segment, mark.onset - 1, mark.sample, truncated)

    class Renumbers(LevelDetector):
        """Segments count from 1."""

        def reset(self):
            super().reset()
            self.segment = 1

    class Empty(LevelDetector):
        """Segments are empty."""

        def close(self, *, truncated):
            mark = super().close(truncated=truncated)
            return Offset(mark.segment, mark.onset, mark.onset, truncated)

    class Foresees(LevelDetector):
        """Offsets lie after the last sample."""

        def close(self, *, truncated):
            mark = super().close(truncated=truncated)
            later = mark.sample + (500 if truncated else 0)
            return Offset(mark.segment, mark.onset, later, truncated)

    class Dawdles(LevelDetector):
        """Returns marks later than the stated latency."""

        def process(self, item):
            if isinstance(item, Gap):
                yield from self.flush()
                self._forget(item.stop)
                return
            self.held += super().process(item)
            while self.held and self.held[0].sample <= self.start - 2000:
                yield self.held.pop(0)

        def flush(self):
            held, self.held = self.held, []
            return [*held, *super().flush()]

        def reset(self):
            super().reset()
            self.held = []

    class TellsTwice(LevelDetector):
        """Every onset comes twice."""

        def process(self, item):
            for mark in super().process(item):
                yield mark
                if isinstance(mark, Onset):
                    yield mark

    class FlushesTwice(LevelDetector):
        """Every flush returns events."""

        def flush(self):
            marks = list(super().flush())
            self.last = marks or getattr(self, "last", [])
            return self.last

        def reset(self):
            super().reset()
            self.last = []

    return [
        (NeverCloses, "left a segment open"),
        (SpansGaps, "a gap left a segment open"),
        (Revises, "onset was changed"),
        (Renumbers, "not counted 0, 1, 2"),
        (Empty, "an empty segment"),
        (Foresees, "in the future"),
        (Dawdles, "later than the stated latency"),
        (TellsTwice, "inside an open segment"),
        (FlushesTwice, "second flush|without its onset"),
    ]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [*broken_features(), *broken_detectors()],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_stage_is_found(make, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_processor(make, SONG.copy())


def test_a_stateless_stage_must_be_declared():
    class Plain(Framer):
        def process(self, item):
            for frames in super().process(item):
                values = np.repeat(frames.values[:, 1:], 2, axis=1)
                yield Frames(frames.first, 64, 128, values)

    # What a stage says of later samples differs by their place alone.
    check_processor(Plain, SONG, stateful=False)
