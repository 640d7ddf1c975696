"""Bounded queues that count: nothing waits without limit, nothing vanishes unseen."""

from collections import Counter, deque
from dataclasses import dataclass, field
from threading import Condition
from typing import Generic, TypeVar

from neurovocal.engine.contracts.options import WhenFull

ItemT = TypeVar("ItemT")


@dataclass(slots=True)
class QueueCounts:
    """``received == delivered + dropped + queued`` holds at every moment."""

    received: int = 0
    delivered: int = 0
    dropped: int = 0
    queued: int = 0
    dropped_kinds: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, int]:
        """The four counters."""
        return {
            "received": self.received,
            "delivered": self.delivered,
            "dropped": self.dropped,
            "queued": self.queued,
        }


class Closed(Exception):  # noqa: N818 (control flow, like StopIteration)
    """The mailbox is closed and, for a reader, empty."""


class Mailbox(Generic[ItemT]):
    """Several bounded queues with one reader, emptied in order of arrival.

    Each queue has its own bound, so that a flood in one can never push an item
    out of another (labels and bulk frames), and still the reader gets all items
    in the order in which they were put.

    Parameters
    ----------
    capacity : dict of str to int
        Items that each queue may hold.
    when_full : {'block', 'drop_oldest'}
        Whether `put` waits for room or makes room by dropping the oldest item
        of that queue, which is counted under its kind.
    """

    def __init__(self, capacity: dict[str, int], when_full: WhenFull) -> None:
        self.when_full = when_full
        self.tally = {name: QueueCounts() for name in capacity}
        self._capacity = capacity
        self._queues: dict[str, deque[tuple[int, str, ItemT]]] = {
            name: deque() for name in capacity
        }
        self._ticket = 0
        self._closed = False
        self._changed = Condition()

    def put(self, queue: str, kind: str, item: ItemT) -> None:
        """Add an item of a kind to one of the queues.

        Raises
        ------
        Closed
            The mailbox was closed; the item is counted as dropped.
        """
        tally, waiting = self.tally[queue], self._queues[queue]
        with self._changed:
            while len(waiting) >= self._capacity[queue] and not self._closed:
                if self.when_full == "drop_oldest":
                    _, oldest_kind, _ = waiting.popleft()
                    self._drop(tally, oldest_kind)
                    tally.queued -= 1
                else:
                    self._changed.wait()
            # Only now: an item that waits for room is not in the mailbox yet.
            tally.received += 1
            if self._closed:
                self._drop(tally, kind)
                raise Closed
            waiting.append((self._ticket, kind, item))
            self._ticket += 1
            tally.queued += 1
            self._changed.notify_all()

    def get(self, timeout: float) -> ItemT | None:
        """Take the item that was put first, or None after `timeout` seconds.

        Raises
        ------
        Closed
            The mailbox is closed and empty.
        """
        with self._changed:
            if not self._changed.wait_for(self._readable, timeout):
                return None
            waiting = [(q[0][0], name) for name, q in self._queues.items() if q]
            if not waiting:
                raise Closed
            _, name = min(waiting)
            _, _, item = self._queues[name].popleft()
            self.tally[name].queued -= 1
            self.tally[name].delivered += 1
            if self.when_full == "block":
                self._changed.notify_all()
            return item

    def close(self) -> None:
        """Refuse new items; what waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Close, and count everything that still waits as dropped."""
        self.close()
        with self._changed:
            for name, waiting in self._queues.items():
                for _, kind, _ in waiting:
                    self._drop(self.tally[name], kind)
                self.tally[name].queued -= len(waiting)
                waiting.clear()

    def note_lost(self, queue: str, kind: str) -> None:
        """Count an item that was taken but could not be delivered as dropped."""
        with self._changed:
            self.tally[queue].delivered -= 1
            self._drop(self.tally[queue], kind)

    @property
    def dropped(self) -> Counter[str]:
        """Items dropped so far, by kind."""
        with self._changed:
            total: Counter[str] = Counter()
            for tally in self.tally.values():
                total += tally.dropped_kinds
            return total

    def counts(self) -> dict[str, dict[str, int]]:
        """The four counters of each queue, all from the same moment."""
        with self._changed:
            return {name: tally.as_dict() for name, tally in self.tally.items()}

    def _readable(self) -> bool:
        return self._closed or any(self._queues.values())

    @staticmethod
    def _drop(tally: QueueCounts, kind: str) -> None:
        tally.dropped += 1
        tally.dropped_kinds[kind] += 1
