"""Supervision of calls into plugins: which call is running, and when to try again."""

from types import TracebackType

_NS = 1_000_000_000


class Calls:
    """Counts of the calls of one thread into a plugin: ``with calls: plugin.method()``.

    More calls entered than returned means that one is running; the watchdog measures
    for how long. Written by the thread that calls and read by the watchdog: two
    integers need no lock.
    """

    __slots__ = ("entered", "returned")

    def __init__(self) -> None:
        self.entered = self.returned = 0

    def __enter__(self) -> None:
        """Count a call that begins."""
        self.entered += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Count a call that has returned or raised."""
        self.returned += 1


class Backoff:
    """Growing pauses between attempts: 0.5 s, doubling, at most 30 s.

    Parameters
    ----------
    first_s : float
        Shortest pause in s.
    longest_s : float
        Longest pause in s.
    steady_s : float
        Time in s that a success must last before the next pause is the shortest again.

    Attributes
    ----------
    due_ns : int
        Monotonic time of the next attempt, set by `failed`.
    """

    def __init__(
        self, first_s: float = 0.5, longest_s: float = 30.0, steady_s: float = 0.0
    ) -> None:
        self.due_ns = 0
        self._first_s = first_s
        self._longest_s = longest_s
        self._steady_ns = round(steady_s * _NS)
        self._next_s = first_s
        self._since_ns: int | None = None  # monotonic time of the last success

    def pause_s(self) -> float:
        """Return the seconds to wait before the next attempt, and double them."""
        pause, self._next_s = self._next_s, min(self._next_s * 2, self._longest_s)
        return pause

    def failed(self, now_ns: int) -> float:
        """Set `due_ns` after a failure at monotonic time `now_ns`; return the pause."""
        if self._since_ns is not None and now_ns - self._since_ns > self._steady_ns:
            self.reset()
        self._since_ns = None
        pause_s = self.pause_s()
        self.due_ns = now_ns + round(pause_s * _NS)
        return pause_s

    def succeeded(self, now_ns: int) -> None:
        """Note that an attempt succeeded at monotonic time `now_ns`."""
        self._since_ns = now_ns

    def reset(self) -> None:
        """Start from the shortest pause again."""
        self._next_s = self._first_s
