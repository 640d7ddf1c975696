"""Clocks: monotonic time and UTC in nanoseconds, of the machine or of a test."""

import time
from threading import Condition
from typing import Protocol

from neurovocal.engine.support.platform import monotonic_ns

NS = 1_000_000_000


class Clock(Protocol):
    """Source of monotonic time and UTC; stages never call the `time` module."""

    def monotonic_ns(self) -> int:
        """Return monotonic time in nanoseconds, from an arbitrary origin."""
        ...

    def utc_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        ...

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        """Wait for an instant, at most `timeout` seconds; return True if it came."""
        ...


class SystemClock:
    """Clock of the machine."""

    def monotonic_ns(self) -> int:
        """Return monotonic time in ns, which goes on while the machine is suspended."""
        # Samples that are lost during a suspension must become a gap, too.
        return monotonic_ns()

    def utc_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        return time.time_ns()

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        """Sleep until an instant, at most `timeout` seconds; return True if it came."""
        left = (monotonic_ns - self.monotonic_ns()) / NS
        if left > 0:
            time.sleep(min(left, timeout))
        return left <= timeout


class ManualClock:
    """Clock of a test, which moves only by `advance`, or by `wait_until`.

    Parameters
    ----------
    utc_ns : int
        UTC at monotonic time 0.
    autojump : bool
        Whether `wait_until` moves the clock instead of waiting until another thread
        calls `advance`.
    """

    def __init__(self, utc_ns: int = 0, *, autojump: bool = True) -> None:
        self._utc_at_zero = utc_ns
        self._now = 0
        self._autojump = autojump
        self._moved = Condition()

    def monotonic_ns(self) -> int:
        """Return nanoseconds since the clock was created."""
        return self._now

    def utc_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        return self._utc_at_zero + self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward and wake the threads that wait for it."""
        with self._moved:
            self._now += round(seconds * NS)
            self._moved.notify_all()

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        """Move the clock to an instant, or (no autojump) wait for `advance`."""
        with self._moved:
            if self._autojump:
                limit = self._now + round(timeout * NS)
                self._now = max(self._now, min(monotonic_ns, limit))
                return monotonic_ns <= limit
            return self._moved.wait_for(lambda: self._now >= monotonic_ns, timeout)


def to_samples(milliseconds: float, sample_rate: int) -> int:
    """Convert milliseconds to samples, rounded."""
    return round(milliseconds * sample_rate / 1000)
