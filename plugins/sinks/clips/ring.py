"""The audio of one stream's last seconds, and what is missing in it."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from neurovocal.engine.contracts.types import Block, Float32

LOST = "lost on the way to the sink"
TOO_LONG_AGO = "older than what is kept in memory"
# Gaps are told at the lane's rate: rounding moves their edges by so many samples.
_ROUNDING = 4


@dataclass(frozen=True, slots=True)
class Missing:
    """Samples ``[start, stop)`` that a clip does not have; silence stands there."""

    start: int
    stop: int
    reason: str


class ClipRing:
    """A ring of samples with the positions that they have in their stream.

    Parameters
    ----------
    capacity : int
        Samples that are kept; all memory is taken here.
    """

    def __init__(self, capacity: int) -> None:
        self._values = np.zeros(capacity, np.float32)
        self._missing: deque[Missing] = deque()
        self._declared: deque[Missing] = deque()
        self._start = self._stop = 0

    @property
    def stop(self) -> int:
        """Sample after the newest."""
        return self._stop

    def declare(self, start: int, stop: int, reason: str) -> None:
        """Say why samples will be missing, before the block that comes after them.

        An empty interval is a discontinuity: it is missing nothing, and is told.
        """
        self._declared.append(Missing(start, stop, reason))

    def write(self, block: Block) -> None:
        """Append a block; a jump before it becomes silence with a reason."""
        if block.start > self._stop:
            self._jump(block.start)
        late = max(0, self._stop - block.start)  # never twice: a source that goes back
        self._append(block.samples[late:, 0])
        self._forget()

    def skip(self, start: int, stop: int, reason: str) -> None:
        """Samples that will never come: as `declare`, and on behind them."""
        self.declare(start, stop, reason)
        if stop > self._stop:
            self._jump(stop)
            self._forget()

    def read(self, start: int, stop: int) -> tuple[Float32, list[Missing]]:
        """Samples ``[start, stop)`` and what is missing in them, in order.

        Returns
        -------
        samples : float32[stop - start]
            A copy; silence where nothing is known.
        missing : list of Missing
        """
        missing = [
            Missing(max(m.start, start), min(m.stop, stop), m.reason)
            for m in (*self._missing, *self._empty_declared())
            if m.start < stop and (m.stop > start or start < m.start == m.stop)
        ]
        first = min(max(start, self._start), stop)
        if first > start:
            missing.insert(0, Missing(start, first, TOO_LONG_AGO))
        last = max(first, min(stop, self._stop))
        out = np.zeros(stop - start, np.float32)
        where = np.arange(first, last) % len(self._values)
        out[first - start : last - start] = self._values[where]
        return out, sorted(missing, key=lambda m: (m.start, m.stop))

    def _empty_declared(self) -> list[Missing]:
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

    def _jump(self, to: int) -> None:
        """Silence up to `to`, with the reasons that were declared for it."""
        at = self._stop
        for known in sorted(self._declared, key=lambda m: m.start):
            if known.start == known.stop or known.stop <= at or known.start >= to:
                continue
            if known.start > at + _ROUNDING:
                self._missing.append(Missing(at, known.start, LOST))
                at = known.start
            end = to if to - known.stop <= _ROUNDING else known.stop
            self._missing.append(Missing(at, min(end, to), known.reason))
            at = min(end, to)
        if at < to:
            self._missing.append(Missing(at, to, LOST))
        self._start = max(self._start, to - len(self._values))
        silence = min(to - self._stop, len(self._values))
        self._stop = to - silence
        self._append(np.zeros(silence, np.float32))

    def _forget(self) -> None:
        while self._missing and self._missing[0].stop <= self._start:
            self._missing.popleft()
        while self._declared and self._declared[0].stop <= self._start:
            self._declared.popleft()
