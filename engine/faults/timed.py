"""Faults that start at a time: of the disk, of subscribers, of the whole process."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from threading import Thread

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.support.platform import end_at_once, limit_file_size

log = logging.getLogger("neurovocal")

_POLL_S = 0.1
_JOIN_S = 5.0


@dataclass(frozen=True, slots=True)
class TimedAction:
    """A function to call so many nanoseconds after the start."""

    at_ns: int
    run: Callable[[], None]


class Schedule:
    """Calls functions at their times, in a thread of its own.

    Parameters
    ----------
    actions : sequence of TimedAction
        In any order.
    clock : Clock
        The engine's clock.
    """

    def __init__(self, actions: Sequence[TimedAction], clock: Clock) -> None:
        self._actions = sorted(actions, key=lambda action: action.at_ns)
        self._clock = clock
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name="nv-faults", daemon=True)

    def start(self) -> None:
        """Start the thread; times count from now on."""
        self._started_ns = self._clock.monotonic_ns()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; actions still to come are dropped."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        for action in self._actions:
            if not self._wait_until(self._started_ns + action.at_ns):
                return
            try:
                action.run()
            except Exception as error:
                log.error("a fault could not be injected, or ended: %s", error)

    def _wait_until(self, at_ns: int) -> bool:
        while (left_ns := at_ns - self._clock.monotonic_ns()) > 0:
            # Not by the clock: a manual clock would jump ahead when it is waited for.
            if self._stopping.wait(min(left_ns / NS, _POLL_S)):
                return False
        return not self._stopping.is_set()


class FullDisk:
    """Makes every write of this process to a regular file fail with EFBIG.

    The limit (RLIMIT_FSIZE) holds for the process and for programs that it starts
    meanwhile; pipes, sockets and terminals are no files.
    """

    def __init__(self) -> None:
        self._before: int | None = None
        self._active = 0  # number of faults that last at this moment

    def start(self) -> None:
        """Let writes fail; Python ignores the signal (SIGXFSZ) that comes with it."""
        self._active += 1
        if self._active == 1:
            self._before = limit_file_size(0)

    def stop(self) -> None:
        """End one fault; writes succeed again when none is left."""
        self._active -= 1
        if self._active == 0:
            self.reset()

    def reset(self) -> None:
        """Let writes succeed, whatever faults still last. May be called at any time."""
        if self._before is not None:
            limit_file_size(self._before)
            self._before = None


def kill() -> None:
    """End this process as a loss of power would: without any cleanup."""
    end_at_once()
