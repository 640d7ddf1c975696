"""Mailbox of a sink: bounded queues that count every item, with one reader."""

from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from threading import Condition, RLock
from typing import Generic, TypeVar

from neurovocal.engine.contracts.options import WhenFull

ItemT = TypeVar("ItemT")


@dataclass(slots=True)
class QueueCounts:
    """Counters of a queue: ``received == delivered + dropped + queued`` always."""

    received: int = 0
    delivered: int = 0
    dropped: int = 0
    queued: int = 0
    dropped_kinds: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, int]:
        """Return the four counters."""
        return {
            "received": self.received,
            "delivered": self.delivered,
            "dropped": self.dropped,
            "queued": self.queued,
        }


class MailboxClosed(Exception):  # noqa: N818 (control flow, like StopIteration)
    """The mailbox is closed and, for a reader, empty."""


class Mailbox(Generic[ItemT]):
    """Bounded queues with one reader, which gets all items in the order of arrival.

    Each queue has its own bound, so that a flood in one (frames) can never push an
    item out of another (labels).

    Parameters
    ----------
    capacity : dict of str to int
        Items that each queue may hold for one channel.
    when_full : {'block', 'drop_oldest'}
        ``block``: `put` waits for room. ``drop_oldest``: it makes room by dropping
        the oldest item of that queue, which is counted under its kind.
    fixed : collection of str
        Queues that hold no more for more channels.
    """

    def __init__(
        self,
        capacity: dict[str, int],
        when_full: WhenFull,
        fixed: Collection[str] = (),
    ) -> None:
        self.when_full = when_full
        self._for_channel = capacity
        self._fixed = fixed
        self.queue_counts = {name: QueueCounts() for name in capacity}
        self._capacity = dict(capacity)
        self._queues: dict[str, deque[tuple[int, str, ItemT]]] = {
            name: deque() for name in capacity
        }
        self._marks: deque[tuple[int, ItemT]] = deque()
        self._ticket = 0
        self._closed = False
        self._lock = RLock()
        self._changed = Condition(self._lock)
        self._n_waiting = 0  # threads that wait for a change

    def set_channels(self, n_channels: int) -> None:
        """Enlarge the queues for the messages of so many channels, which come at once.

        Room is not taken back: messages of the stream before may wait there.
        """
        with self._lock:
            for name, most in self._for_channel.items():
                if name not in self._fixed:
                    room = max(self._capacity[name], most * n_channels)
                    self._capacity[name] = room
            self._changed.notify_all()

    def put(self, queue: str, kind: str, item: ItemT) -> None:
        """Add an item of a kind to one of the queues.

        Raises
        ------
        MailboxClosed
            The mailbox was closed; the item is counted as dropped.
        """
        self.put_all([(queue, kind, item)])

    def put_all(self, items: Sequence[tuple[str, str, ItemT]]) -> None:
        """Add items, each with its queue and kind, and wake the reader once.

        Raises
        ------
        MailboxClosed
            The mailbox was closed; the items that came too late are counted as
            dropped.
        """
        with self._lock:
            for queue, kind, item in items:
                counts, waiting = self.queue_counts[queue], self._queues[queue]
                if len(waiting) >= self._capacity[queue]:
                    self._make_room(queue)
                # Only now: an item that waits for room is not in the mailbox yet.
                counts.received += 1
                if self._closed:
                    self._drop(counts, kind)
                    continue
                waiting.append((self._ticket, kind, item))
                self._ticket += 1
                counts.queued += 1
            if self._closed:
                raise MailboxClosed
            if self._n_waiting:
                self._changed.notify(self._n_waiting)

    def _make_room(self, queue: str) -> None:
        """Drop the oldest items of a full queue, or wait until it has room."""
        counts, waiting = self.queue_counts[queue], self._queues[queue]
        while len(waiting) >= self._capacity[queue] and not self._closed:
            if self.when_full == "drop_oldest":
                _, oldest_kind, _ = waiting.popleft()
                self._drop(counts, oldest_kind)
                counts.queued -= 1
                continue
            if self._n_waiting:  # the reader does not know of the items before
                self._changed.notify(self._n_waiting)
            self._n_waiting += 1
            self._changed.wait()
            self._n_waiting -= 1

    def put_mark(self, item: ItemT) -> None:
        """Add an item that is neither bounded nor counted, behind all others.

        A mailbox that is closed forgets it.
        """
        with self._lock:
            if self._closed:
                return
            self._marks.append((self._ticket, item))
            self._ticket += 1
            if self._n_waiting:
                self._changed.notify(self._n_waiting)

    def get(self, timeout: float) -> ItemT | None:
        """Remove and return the oldest item, or None after `timeout` seconds.

        Raises
        ------
        MailboxClosed
            The mailbox is closed and empty.
        """
        with self._lock:
            self._n_waiting += 1
            readable = self._changed.wait_for(self._is_readable, timeout)
            self._n_waiting -= 1
            if not readable:
                return None
            waiting = [(q[0][0], name) for name, q in self._queues.items() if q]
            if self._marks and (not waiting or self._marks[0][0] < min(waiting)[0]):
                return self._marks.popleft()[1]
            if not waiting:
                raise MailboxClosed
            _, name = min(waiting)
            _, _, item = self._queues[name].popleft()
            self.queue_counts[name].queued -= 1
            self.queue_counts[name].delivered += 1
            if self._n_waiting:  # for room
                self._changed.notify_all()
            return item

    def close(self) -> None:
        """Refuse new items; items that are queued can still be read."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Close, and count all queued items as dropped."""
        self.close()
        with self._lock:
            self._marks.clear()
            for name, waiting in self._queues.items():
                for _, kind, _ in waiting:
                    self._drop(self.queue_counts[name], kind)
                self.queue_counts[name].queued -= len(waiting)
                waiting.clear()

    def note_lost(self, queue: str, kind: str) -> None:
        """Count an item that was read but could not be delivered as dropped."""
        with self._lock:
            self.queue_counts[queue].delivered -= 1
            self._drop(self.queue_counts[queue], kind)

    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped items by kind."""
        with self._lock:
            total: Counter[str] = Counter()
            for counts in self.queue_counts.values():
                total += counts.dropped_kinds
            return total

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the four counters of each queue, all from the same moment."""
        with self._lock:
            return {
                name: counts.as_dict() for name, counts in self.queue_counts.items()
            }

    def _is_readable(self) -> bool:
        return self._closed or bool(self._marks) or any(self._queues.values())

    @staticmethod
    def _drop(counts: QueueCounts, kind: str) -> None:
        counts.dropped += 1
        counts.dropped_kinds[kind] += 1
