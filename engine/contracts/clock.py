"""Time: samples inside, UTC at the edges, and clocks that tests can hold still."""

import time
from threading import Condition
from typing import Protocol

NS = 1_000_000_000


class Clock(Protocol):
    """The only door to wall-clock time; stages never call `time` themselves."""

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back."""
        ...

    def utc_ns(self) -> int:
        """Nanoseconds since the epoch."""
        ...

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        """Wait for an instant, at most `timeout` seconds; whether it has come."""
        ...


# Time goes on while the machine sleeps, so that what was not heard meanwhile is a gap;
# Linux leaves sleep out of the clock that it calls monotonic.
_PASSING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        """Nanoseconds that never go back, also while the machine sleeps."""
        return time.clock_gettime_ns(_PASSING)

    def utc_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return time.time_ns()

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        """Sleep until an instant, at most `timeout` seconds; whether it has come."""
        left = (monotonic_ns - self.monotonic_ns()) / NS
        if left > 0:
            time.sleep(min(left, timeout))
        return left <= timeout


class ManualClock:
    """A clock that moves only when told to, or by being waited for.

    Parameters
    ----------
    utc_ns : int
        UTC at monotonic time 0.
    autojump : bool
        Whether `wait_until` moves the clock forward instead of waiting for
        another thread to call `advance`.
    """

    def __init__(self, utc_ns: int = 0, *, autojump: bool = True) -> None:
        self._utc_at_zero = utc_ns
        self._now = 0
        self._autojump = autojump
        self._moved = Condition()

    def monotonic_ns(self) -> int:
        """Nanoseconds since this clock was made."""
        return self._now

    def utc_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return self._utc_at_zero + self._now

    def advance(self, seconds: float) -> None:
        """Move forward and wake whoever waits."""
        with self._moved:
            self._now += round(seconds * NS)
            self._moved.notify_all()

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        """Jump there (autojump), or wait until `advance` has come so far."""
        with self._moved:
            if self._autojump:
                limit = self._now + round(timeout * NS)
                self._now = max(self._now, min(monotonic_ns, limit))
                return monotonic_ns <= limit
            return self._moved.wait_for(lambda: self._now >= monotonic_ns, timeout)


def to_samples(milliseconds: float, sample_rate: int) -> int:
    """Convert milliseconds to samples, rounded."""
    return round(milliseconds * sample_rate / 1000)
