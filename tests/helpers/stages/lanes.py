"""Lanes of real stages for tests, with models that keep their input."""

import numpy as np

from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    Anchor,
    Frames,
    Gap,
    Label,
    Offset,
    Onset,
    Posteriors,
    StreamInfo,
)
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.engine.testing import canonical, recut, song

RATE = 16_000
INFO = StreamInfo("cage", RATE)
CONTEXT = BuildContext(clock=ManualClock(), run="test", info=INFO)
SONG = song(RATE, 2.5, seed=3)
TILE = 8


def plugin(kind, name, **options):
    found = Registry().get(kind, name)
    return found.build(found.options(**options), CONTEXT)


class RecurrentModel:
    """Recurrent model: posteriors per frame, labels per segment.

    Its posteriors depend on all input since the last gap, so that an item that is
    missing, repeated or out of order changes all that follow.
    """

    latency = 0

    def __init__(self):
        self.items = []
        self.reset()

    def reset(self):
        self._reset_state()
        self.items.clear()

    def _reset_state(self):
        self.state = np.float32(0.0)
        self.onset = None

    def process(self, item):
        self.items.append(item)
        match item:
            case Frames():
                yield self._posteriors(item)
            case Onset():
                self.onset = item.sample
                yield self._label(item.segment, None, "provisional")
            case Offset():
                yield self._label(item.segment, item.sample, "final")
            case Gap():
                self._reset_state()

    def flush(self):
        assert not self.items or not isinstance(self.items[-1], Onset)
        return ()

    def _posteriors(self, frames):
        rows = np.empty((len(frames.values), 2), np.float32)
        for row, frame in zip(rows, frames.values, strict=True):
            self.state = np.float32(0.5) * self.state + frame.max()
            row[:] = self.state, frame.max()
        return Posteriors(frames.first, frames.hop_length, frames.frame_length, rows)

    def _label(self, segment, offset, status):
        unit = f"unit-{float(self.state):.9g}"
        return Label(segment, self.onset, offset, unit, 0.5, status, "listener")


class LoudFrameDetector:
    """Detector of runs of loud frames, from posteriors."""

    consumes = "posteriors"
    latency = 0

    def __init__(self, threshold):
        self.threshold = threshold
        self.reset()

    def reset(self):
        self.segment, self.onset, self.stop = 0, None, 0

    def process(self, item):
        if isinstance(item, Gap):
            return self.flush()
        marks = []
        for index, loud in enumerate(item.values[:, 1] > self.threshold):
            sample = (item.first + index) * item.hop_length
            if loud and self.onset is None:
                self.onset = sample
                marks.append(Onset(self.segment, sample, 1.0))
            elif not loud and self.onset is not None:
                marks.append(self._close(sample, truncated=False))
            self.stop = sample + item.hop_length
        return marks

    def flush(self):
        if self.onset is None:
            return []
        return [self._close(self.stop, truncated=True)]

    def _close(self, sample, *, truncated):
        mark = Offset(self.segment, self.onset, sample, truncated)
        self.segment, self.onset = self.segment + 1, None
        return mark


def make_lane(
    *,
    posteriors=False,
    source_rate=RATE,
    frames=True,
    models=1,
    detector="energy",
    **options,
):
    front_end = plugin("features", "spectrogram")
    detector = (
        LoudFrameDetector(1e-6)
        if posteriors
        else plugin("detector", detector, **options)
    )
    resampler = Resampler(source_rate, RATE) if source_rate != RATE else None
    return Lane(
        INFO,
        TILE * front_end.hop_length,
        SupervisedStage("features", front_end) if frames else None,
        SupervisedStage("detector", detector),
        [SupervisedStage(f"model {i}", RecurrentModel()) for i in range(models)],
        resampler,
    )


def play(lane, items, *, flush=True):
    steps = [step for item in items for step in lane.process(item)]
    return [*steps, *lane.flush()] if flush else steps


def plain(steps):
    """Return steps as plain values, arrays as bytes."""
    return [(step.at, [canonical(event) for event in step.events]) for step in steps]


def events_of(steps, *kinds):
    events = [event for step in steps for event in step.events]
    return [event for event in events if isinstance(event, kinds)]


def script(samples, gaps, lengths, *, anchors=False):
    """Return items of a stream: audio in blocks, with (after, length) gaps."""
    items, position, taken = [], 0, 0
    for after, missing in [*sorted(gaps), (len(samples), None)]:
        piece = samples[taken:after]
        items += recut(piece, lengths, start=position)
        position, taken = position + len(piece), max(taken, after)
        if missing is not None:
            items.append(Gap(position, position + missing, "overrun"))
            position += missing
            if anchors:
                items.append(Anchor(position, 1_700_000_000_000_000_000 + position))
    return items
