"""Ring of the last seconds of a stream's audio, with the samples missing in it."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from neurovocal.engine import Block, Float32

LOST = "lost on the way to the sink"
TOO_LONG_AGO = "older than what is kept in memory"
# Gaps come at the lane's rate: rounding moves their edges by at most so many samples.
_ROUNDING = 4


@dataclass(frozen=True, slots=True)
class MissingSamples:
    """Samples ``[start, stop)`` that are missing in a clip and replaced by silence."""

    start: int
    stop: int
    reason: str


class ClipRing:
    """Ring of samples, addressed by their position in the stream.

    Parameters
    ----------
    capacity : int
        Number of samples; all memory is allocated here.
    """

    def __init__(self, capacity: int) -> None:
        self._values = np.zeros(capacity, np.float32)
        self._missing: deque[MissingSamples] = deque()
        self._declared: deque[MissingSamples] = deque()
        self._start = self._stop = 0

    @property
    def stop(self) -> int:
        """Position after the newest sample."""
        return self._stop

    def declare(self, start: int, stop: int, reason: str) -> None:
        """Note the reason of a gap, before the block that follows it.

        An empty interval is a discontinuity without missing samples; `read` returns it.
        """
        self._declared.append(MissingSamples(start, stop, reason))

    def write(self, block: Block) -> None:
        """Append a block; a gap before it becomes silence with a reason."""
        if block.start > self._stop:
            self._skip_to(block.start)
        known = max(0, self._stop - block.start)  # the source went back
        self._append(block.samples[known:, 0])
        self._drop_old()

    def skip(self, start: int, stop: int, reason: str) -> None:
        """Note a gap as `declare` does, and continue behind it."""
        self.declare(start, stop, reason)
        if stop > self._stop:
            self._skip_to(stop)
            self._drop_old()

    def read(self, start: int, stop: int) -> tuple[Float32, list[MissingSamples]]:
        """Return samples ``[start, stop)`` and the gaps in them, in order.

        Returns
        -------
        samples : float32[stop - start]
            A copy; silence where samples are missing.
        missing : list of MissingSamples
        """
        missing = [
            MissingSamples(max(m.start, start), min(m.stop, stop), m.reason)
            for m in (*self._missing, *self._empty_declared())
            if m.start < stop and (m.stop > start or start < m.start == m.stop)
        ]
        first = min(max(start, self._start), stop)
        if first > start:
            missing.insert(0, MissingSamples(start, first, TOO_LONG_AGO))
        last = max(first, min(stop, self._stop))
        out = np.zeros(stop - start, np.float32)
        where = np.arange(first, last) % len(self._values)
        out[first - start : last - start] = self._values[where]
        return out, sorted(missing, key=lambda m: (m.start, m.stop))

    def _empty_declared(self) -> list[MissingSamples]:
        return [m for m in self._declared if m.start == m.stop]

    def _append(self, samples: Float32) -> None:
        capacity = len(self._values)
        kept = samples[-capacity:]
        position = self._stop + len(samples) - len(kept)
        at = position % capacity
        head = min(len(kept), capacity - at)
        self._values[at : at + head] = kept[:head]
        self._values[: len(kept) - head] = kept[head:]
        self._stop += len(samples)
        self._start = max(self._start, self._stop - capacity)

    def _skip_to(self, stop: int) -> None:
        """Append silence up to `stop`, with the reasons that were declared for it."""
        at = self._stop
        for known in sorted(self._declared, key=lambda m: m.start):
            if known.start == known.stop or known.stop <= at or known.start >= stop:
                continue
            if known.start > at + _ROUNDING:
                self._missing.append(MissingSamples(at, known.start, LOST))
                at = known.start
            end = stop if stop - known.stop <= _ROUNDING else known.stop
            self._missing.append(MissingSamples(at, min(end, stop), known.reason))
            at = min(end, stop)
        if at < stop:
            self._missing.append(MissingSamples(at, stop, LOST))
        self._start = max(self._start, stop - len(self._values))
        silence = min(stop - self._stop, len(self._values))
        self._stop = stop - silence
        self._append(np.zeros(silence, np.float32))

    def _drop_old(self) -> None:
        while self._missing and self._missing[0].stop <= self._start:
            self._missing.popleft()
        while self._declared and self._declared[0].stop <= self._start:
            self._declared.popleft()
