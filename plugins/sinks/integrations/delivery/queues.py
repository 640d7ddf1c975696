"""Queues of a delivery: in memory, or the journal with a position that is kept."""

from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol

from neurovocal.engine import ConfigError, Message
from neurovocal.engine.journal.follower import JournalFollower, Position
from neurovocal.plugins.sinks.integrations.delivery.items import Outgoing, outgoing
from neurovocal.plugins.sinks.integrations.delivery.state import StateFile

# Events of kinds that are not delivered move the position after so many rows.
_ROWS_BETWEEN_SAVES = 1000


class DeliveryQueue(Protocol):
    """Events that wait for delivery, in order; one thread puts, another one takes."""

    def open(self) -> None:
        """Prepare it; raise ConfigError with one sentence."""
        ...

    def put(self, message: Message) -> None:
        """Note a message of the run; called by the sink's thread."""
        ...

    def take(self, most: int) -> list[Outgoing]:
        """Remove and return the next items; called by the delivery's thread."""
        ...

    def finish(self, items: Sequence[Outgoing]) -> None:
        """Note that these, the oldest taken, need no delivery any more."""
        ...

    def stats(self) -> dict[str, object]:
        """Return counters as JSON values."""
        ...


class MemoryQueue:
    """Queue in memory: the oldest event makes room in a full one, and is counted.

    Parameters
    ----------
    run, station : str
        Names in each item.
    most : int
        Events that wait at most.

    Attributes
    ----------
    dropped : int
        Events that were not delivered.
    """

    def __init__(self, run: str, station: str, most: int) -> None:
        self.dropped = 0
        self._run, self._station = run, station
        self._most = most
        self._lock = Lock()
        self._waiting: deque[Outgoing] = deque()
        self._n_taken = 0  # taken, and not finished yet

    def open(self) -> None:
        """Do nothing: what waits since a failure stays."""

    def put(self, message: Message) -> None:
        """Add a message; drop the oldest one of a full queue."""
        item = outgoing(message, self._run, self._station)
        with self._lock:
            if self._waiting and len(self._waiting) + self._n_taken >= self._most:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(item)

    def take(self, most: int) -> list[Outgoing]:
        """Remove and return the next items."""
        with self._lock:
            count = min(most, len(self._waiting))
            self._n_taken += count
            return [self._waiting.popleft() for _ in range(count)]

    def finish(self, items: Sequence[Outgoing]) -> None:
        """Note that these need no delivery any more."""
        with self._lock:
            self._n_taken -= len(items)

    @property
    def waiting(self) -> int:
        """Number of events that are not delivered."""
        with self._lock:
            return len(self._waiting) + self._n_taken

    def stats(self) -> dict[str, object]:
        """Return the numbers of events that wait and that were dropped."""
        return {"waiting": self.waiting, "dropped": self.dropped}


class JournalQueue:
    """The journal as the queue: what is delivered is kept, what waits is on its disk.

    The first delivery begins with the events of the present run; a later one goes on
    where the last one stopped.

    Parameters
    ----------
    follower : callable
        ``follower(position)`` returns a follower of the journal.
    file : StateFile
        Keeps the position.
    station : str
        Name in each item.
    accepts : callable
        Whether an event is delivered.
    """

    def __init__(
        self,
        follower: Callable[[Position | None], JournalFollower],
        file: StateFile,
        station: str,
        accepts: Callable[[Message], bool],
    ) -> None:
        self._make_follower = follower
        self._file = file
        self._station = station
        self._accepts = accepts
        self._follower: JournalFollower | None = None
        self._n_taken = 0
        self._removed_before = 0

    def open(self) -> None:
        """Read the position; without one, begin after the newest event.

        Raises
        ------
        ConfigError
            State or journal cannot be read, or the state not be written; that of a
            full disk is written later.
        """
        if self._follower is not None:
            return  # opened again after a failure: the thread goes on
        if not self._file.load():
            self._file.state.position = self._make_follower(None).newest()
            self._file.save()
            problem = self._file.trouble
            if problem is not None and not self._file.is_disk_full:
                raise ConfigError(f"{problem}; name another file with the option state")
        self._removed_before = self._file.state.removed
        self._follower = self._make_follower(self._file.state.position)

    def put(self, message: Message) -> None:
        """Do nothing: the journal gets the message, too."""

    def take(self, most: int) -> list[Outgoing]:
        """Return the next events of the journal.

        Raises
        ------
        ConfigError
            The journal cannot be read.
        """
        follower = self._follower
        if follower is None:
            return []
        items: list[Outgoing] = []
        while not items:
            entries = follower.read(most)
            items = [
                outgoing(message, place.run, self._station, place)
                for place, message in entries
                if self._accepts(message)
            ]
            if len(entries) < most:
                break
        self._n_taken += len(items)
        if not self._n_taken:
            self._move_on(follower)
        return items

    def _move_on(self, follower: JournalFollower) -> None:
        """Keep a position behind events that are not delivered."""
        state = self._file.state
        state.removed = self._removed_before + follower.removed
        before = 0 if state.position is None else state.position.row
        reached = follower.reached
        row = 0 if reached is None else reached.row
        if not before <= row < before + _ROWS_BETWEEN_SAVES:
            state.position = reached
            self._file.save()

    def finish(self, items: Sequence[Outgoing]) -> None:
        """Keep the position of the last of these."""
        state = self._file.state
        state.position = items[-1].position or state.position
        if self._follower is not None:
            state.removed = self._removed_before + self._follower.removed
        self._n_taken -= len(items)
        self._file.save()

    def stats(self) -> dict[str, object]:
        """Return the number of events that are being delivered, and of removed ones."""
        return {"waiting": self._n_taken, "removed": self._file.state.removed}
