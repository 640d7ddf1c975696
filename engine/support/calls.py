"""Calls into plugins, and pauses between attempts."""


class Calls:
    """Calls into a plugin, counted: more entered than returned is one that goes on.

    Written by the thread that calls, read by the watchdog: two integers need no lock.
    """

    __slots__ = ("entered", "returned")

    def __init__(self) -> None:
        self.entered = self.returned = 0


class Backoff:
    """Growing pauses between attempts: 0.5 s, doubling, at most 30 s."""

    def __init__(self, first_s: float = 0.5, most_s: float = 30.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def pause_s(self) -> float:
        """Seconds to wait before the next attempt."""
        pause, self._next_s = self._next_s, min(self._next_s * 2, self._most_s)
        return pause

    def succeeded(self) -> None:
        """Start from the shortest pause again."""
        self._next_s = self._first_s
