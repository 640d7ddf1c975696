"""A features stage and a detector that keep every promise."""

import numpy as np

from neurovocal.engine.contracts.types import (
    Frames,
    Gap,
    Offset,
    Onset,
)
from neurovocal.engine.testing import song

RATE = 8000


SONG = song(RATE, 2.0, seed=1)


class Framer:
    """A correct features stage: running mean and largest sample of each frame."""

    n_bins, hop_length, frame_length, latency = 2, 64, 128, 0

    def __init__(self):
        self.reset()

    def reset(self):
        self.frame, self.mean = 0, np.float32(0)
        self._forget(0)

    def _forget(self, start):
        self.rest, self.start = np.empty((0, 1), np.float32), start
        self.frame = -(-start // self.hop_length)

    def process(self, item):
        if isinstance(item, Gap):
            self._forget(item.stop)
            return
        self.rest = np.concatenate([self.rest, item.samples])
        rows, first = [], self.frame
        while True:
            at = self.frame * self.hop_length - self.start
            part = self.rest[at : at + self.frame_length]
            if at < 0 or len(part) < self.frame_length:
                break
            self.mean = np.float32(0.9) * self.mean + part.max()
            rows.append((self.mean, part.max()))
            self.frame += 1
        keep = max(0, self.frame * self.hop_length - self.start)
        self.rest, self.start = self.rest[keep:], self.start + min(keep, len(self.rest))
        if rows:
            values = np.array(rows, np.float32)
            yield Frames(first, self.hop_length, self.frame_length, values)

    def flush(self):
        return ()


class LevelDetector:
    """A correct detector: hops of 32 samples, loud or not, with memory of a floor."""

    consumes = "samples"
    latency = 32

    def __init__(self):
        self.reset()

    def reset(self):
        self.segment, self.loudest = 0, np.float32(0)
        self._forget(0)

    def _forget(self, start):
        self.rest, self.start, self.onset = np.empty(0, np.float32), start, None

    def process(self, item):
        if isinstance(item, Gap):
            yield from self.flush()
            self._forget(item.stop)
            return
        self.rest = np.concatenate([self.rest, item.samples[:, 0]])
        while len(self.rest) >= 32:
            level = np.abs(self.rest[:32]).max()
            self.loudest = max(self.loudest, level)
            loud = level > max(0.1 * self.loudest, 0.02)
            if loud and self.onset is None:
                self.onset = self.start
                yield Onset(self.segment, self.onset, float(level))
            elif not loud and self.onset is not None:
                yield self.close(truncated=False)
            self.rest, self.start = self.rest[32:], self.start + 32

    def close(self, *, truncated):
        mark = Offset(self.segment, self.onset, self.start, truncated)
        self.segment, self.onset = self.segment + 1, None
        return mark

    def flush(self):
        if self.onset is not None:
            yield self.close(truncated=True)
