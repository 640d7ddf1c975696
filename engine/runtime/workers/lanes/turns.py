"""Turns: lanes of one process compute short blocks one after the other.

Python runs one thread at a time, and transforms, networks and locks give the
interpreter away many times in a block. Where several lanes compute a few milliseconds
of sound at the same time, each of these calls passes the interpreter to another lane,
and getting it back takes longer than the call. With turns a lane computes its block to
the end while the others sleep.
"""

from collections import deque
from threading import Lock
from time import monotonic

# A block of more sound gains more from a second core than it loses to other lanes.
LONGEST_BLOCK_S = 0.02
# A lane that computes for longer is overtaken: it holds up no other.
_PATIENCE_S = 0.005


class Turn:
    """A lane's request to compute, and its turn once it was called."""

    __slots__ = ("called",)

    def __init__(self) -> None:
        self.called = Lock()
        self.called.acquire()


class Turns:
    """Gives lanes their turns, in the order in which they ask.

    A turn that lasts longer than the patience does not hold up the others: one of them
    goes on beside it. So a stage that hangs, or a queue without room, delays the other
    lanes once, by the patience.

    Parameters
    ----------
    patience_s : float
        In s.

    Attributes
    ----------
    n_lanes : int
        Lanes that run: one alone needs no turns.
    """

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self.n_lanes = 0
        self._lock = Lock()
        self._present: Turn | None = None
        self._since_s = 0.0
        self._waiting: deque[Turn] = deque()

    def enter(self) -> None:
        """Count a lane that begins to run."""
        with self._lock:
            self.n_lanes += 1

    def leave(self) -> None:
        """Count a lane that has ended."""
        with self._lock:
            self.n_lanes -= 1

    def begin(self) -> Turn:
        """Wait for a turn and return it, to be ended in any case."""
        turn = Turn()
        with self._lock:
            if self._present is None:
                self._give_to(turn)
                return turn
            self._waiting.append(turn)
        while not turn.called.acquire(timeout=self._patience_s):
            with self._lock:
                is_late = monotonic() - self._since_s >= self._patience_s
                if turn in self._waiting and is_late:
                    self._waiting.remove(turn)
                    self._give_to(turn)
                    return turn
        return turn

    def end(self, turn: Turn) -> None:
        """End a turn; the next lane in order begins, unless this one was overtaken."""
        with self._lock:
            if self._present is not turn:
                return
            self._present = None
            if self._waiting:
                following = self._waiting.popleft()
                self._give_to(following)
                following.called.release()

    def _give_to(self, turn: Turn) -> None:
        self._present, self._since_s = turn, monotonic()


# There is one interpreter in a process.
TURNS = Turns()
