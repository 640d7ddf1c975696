"""Lock-free ring buffer between the thread that delivers audio and the lane's thread.

One writer (an audio callback, a reader thread) and one reader. The writer never waits,
locks, logs or allocates an array: it copies, publishes one integer and wakes the
reader. If the reader is late the oldest samples are overwritten, and it gets a gap for
exactly these samples.
"""

from contextlib import suppress
from threading import Lock
from typing import NamedTuple

import numpy as np

from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.types import GAP_OVERRUN, Block, Float32, Gap

_MARKS = 4096


class RingCounts(NamedTuple):
    """Numbers of samples, with ``received == delivered + dropped + queued``.

    ``lost`` counts samples that the device declared missing: they were never received
    and are not part of the sum.
    """

    received: int
    delivered: int
    dropped: int
    queued: int
    lost: int


class _Mark(NamedTuple):
    """Stream position and arrival time of a run of written samples."""

    first: int  # number of the first sample among those written
    position: int  # stream index of that sample, which counts losses, too
    arrived_ns: int  # time of the newest write of the run
    reason: str | None  # reason of the gap before the run, if there is one


class AudioRing:
    """Bounded single-writer, single-reader ring of samples.

    It needs no lock: the writer raises ``_floor`` (the oldest intact sample) *before*
    it overwrites any sample, and ``_head`` *after* it has copied. The reader copies,
    then reads the floor again, and repeats if its samples have been overwritten
    meanwhile. Both are single attribute stores, which the interpreter makes atomic and
    ordered.

    Parameters
    ----------
    capacity : int
        Samples that the ring holds.
    channels : int
        Columns of every block.
    start : int
        Stream index of the first sample.
    """

    def __init__(self, capacity: int, channels: int, start: int = 0) -> None:
        if capacity < 1 or channels < 1:
            raise ValueError("a ring holds at least one sample of one channel")
        self.capacity = capacity
        self.channels = channels
        self._samples = np.zeros((capacity, channels), np.float32)
        # Writer's side.
        self._head = 0
        self._floor = 0
        self._position = start
        self._lost = 0
        self._reason: str | None = None
        self._closed = False
        # A write extends the newest mark until it spans this many samples, so
        # that marks outlive the samples they belong to however small writes are.
        self._granule = max(1, capacity // (_MARKS // 2))
        self._marks: list[_Mark] = [_Mark(0, start, 0, None)] * _MARKS
        self._marked = 0
        # Reader's side: (samples consumed, samples dropped), one atomic store.
        self._consumed = (0, 0)
        self._expected = start
        self._announced = -1
        self._found = 0
        # A raw lock as a binary semaphore: releasing it never waits, while
        # Event and Condition make the writer take a lock that the reader holds.
        self._wake = Lock()
        self._wake.acquire()

    # ---- writer ----------------------------------------------------------------

    def write(self, samples: Float32, arrived_ns: int) -> None:
        """Append samples, overwriting the oldest ones when the ring is full.

        Parameters
        ----------
        samples : float32[n_samples, n_channels]
            Samples to copy; the caller may reuse the array at once.
        arrived_ns : int
            Monotonic time at which they became available.
        """
        for first in range(0, len(samples), self.capacity):
            self._write(samples[first : first + self.capacity], arrived_ns)
        self._signal()

    def _write(self, samples: Float32, arrived_ns: int) -> None:
        head, n_samples = self._head, len(samples)
        self._raise_floor(head + n_samples - self.capacity)
        self._mark(head, arrived_ns)
        at = head % self.capacity
        room = self.capacity - at
        if n_samples <= room:
            self._samples[at : at + n_samples] = samples
        else:
            self._samples[at:] = samples[:room]
            self._samples[: n_samples - room] = samples[room:]
        self._position += n_samples
        self._head = head + n_samples

    def _mark(self, index: int, arrived_ns: int) -> None:
        slot = (self._marked - 1) % _MARKS
        if self._marked and self._reason is None:
            newest = self._marks[slot]
            if index - newest.first < self._granule:
                self._marks[slot] = newest._replace(arrived_ns=arrived_ns)
                return
        slot = self._marked % _MARKS
        if self._marked >= _MARKS:
            # Samples lose their position with their mark: they are dropped.
            self._raise_floor(self._marks[(slot + 1) % _MARKS].first)
        self._marks[slot] = _Mark(index, self._position, arrived_ns, self._reason)
        self._marked += 1
        self._reason = None

    def _raise_floor(self, index: int) -> None:
        if index > self._floor:
            self._floor = index

    def declare_lost(self, count: int, reason: str) -> None:
        """Declare that `count` samples are missing before the next write.

        Parameters
        ----------
        count : int
            Number of samples; 0 for a discontinuity of unknown length.
        reason : str
            Reason of the gap that the reader will get.
        """
        self._position += count
        self._lost += count
        self._reason = reason

    def close(self) -> None:
        """End the stream: the reader gets the queued samples, then `EndOfStream`.

        May be called from any thread, more than once.
        """
        self._closed = True
        self._signal()

    def _signal(self) -> None:
        """Wake the reader; if the lock is free, a wake-up is already pending."""
        if self._wake.locked():
            # Another thread may have closed the ring just now.
            with suppress(RuntimeError):
                self._wake.release()

    # ---- reader ----------------------------------------------------------------

    def read(self, max_samples: int, timeout: float) -> Block | Gap | None:
        """Return the oldest samples, or the gap before them.

        Parameters
        ----------
        max_samples : int
            Longest block to return.
        timeout : float
            Seconds to wait for the first sample.

        Returns
        -------
        Block or Gap or None
            A copy of consecutive samples; or the gap before the next ones; or None if
            no sample arrived within `timeout`.

        Raises
        ------
        EndOfStream
            The ring was closed and everything has been read.
        """
        if (item := self._next_item(max_samples)) is not None:
            return item
        # One wake-up may be stale (its samples were read already), not more.
        for wait in (0.0, max(0.0, timeout)):
            if not self._wake.acquire(timeout=wait):
                continue
            if (item := self._next_item(max_samples)) is not None:
                return item
        return None

    def _next_item(self, max_samples: int) -> Block | Gap | None:
        tail, dropped = self._consumed
        while True:
            closed = self._closed
            head = self._head
            if head == tail:
                return self._end() if closed else None
            start = max(tail, self._floor)
            number = self._find_mark(start)
            mark = self._marks[number % _MARKS]
            position = mark.position + start - mark.first
            reason = GAP_OVERRUN if start > tail else None
            if reason is None and mark.first == start and number > self._announced:
                reason = mark.reason
            samples = None
            if reason is None:
                stop, arrived_ns = self._run(
                    number, start, min(head, start + max_samples)
                )
                samples = self._copy(start, stop)
            if self._floor > start:
                continue  # overwritten while it was copied
            if mark.first == start:
                self._announced = number
            if samples is None:
                self._consumed = (start, dropped + start - tail)
                gap = Gap(self._expected, position, reason or GAP_OVERRUN)
                self._expected = position
                return gap
            self._consumed = (stop, dropped)
            self._expected = position + stop - start
            return Block(position, samples, arrived_ns)

    def _find_mark(self, index: int) -> int:
        """Return the number of the mark of the run that contains sample `index`."""
        marked = self._marked
        # The reader only moves forward: the search goes on where it found the last.
        number = max(self._found, marked - _MARKS)
        while number + 1 < marked and self._marks[(number + 1) % _MARKS].first <= index:
            number += 1
        self._found = number
        return number

    def _run(self, number: int, start: int, stop: int) -> tuple[int, int]:
        """Return the end of the gapless run from `start`, and its arrival time."""
        arrived_ns = self._marks[number % _MARKS].arrived_ns
        for later in range(number + 1, self._marked):
            mark = self._marks[later % _MARKS]
            if mark.first >= stop:
                break
            if mark.reason is not None:
                return mark.first, arrived_ns
            arrived_ns = mark.arrived_ns
        return stop, arrived_ns

    def _copy(self, start: int, stop: int) -> Float32:
        samples = np.empty((stop - start, self.channels), np.float32)
        at = start % self.capacity
        room = min(self.capacity - at, stop - start)
        samples[:room] = self._samples[at : at + room]
        samples[room:] = self._samples[: stop - start - room]
        return samples

    def _end(self) -> Gap:
        """Return the last gap of a closed and empty ring, then raise EndOfStream."""
        if self._reason is None:
            raise EndOfStream
        gap = Gap(self._expected, self._position, self._reason)
        self._expected, self._reason = self._position, None
        return gap

    # ---- any thread ----------------------------------------------------------------

    @property
    def position(self) -> int:
        """Stream index that the next written sample will have (writer's view)."""
        return self._position

    @property
    def counts(self) -> RingCounts:
        """Present counts; may be read from any thread."""
        # In this order: the values read later can only have grown meanwhile.
        tail, dropped = self._consumed
        floor = self._floor
        head = self._head
        oldest = max(tail, floor)
        return RingCounts(
            received=head,
            delivered=tail - dropped,
            dropped=dropped + oldest - tail,
            queued=head - oldest,
            lost=self._lost,
        )
