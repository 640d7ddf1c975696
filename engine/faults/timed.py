"""Faults that come by the clock: of the disk, of readers, of the whole process."""

import logging
import os
import resource
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from threading import Thread

from neurovocal.engine.contracts.clock import NS, Clock

log = logging.getLogger("neurovocal")

_LOOK_S = 0.1
_JOIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is done so many nanoseconds after the start."""

    at_ns: int
    do: Callable[[], None]


class Schedule:
    """Does things at their time, in a thread of its own.

    Parameters
    ----------
    acts : sequence of Act
        In any order.
    clock : Clock
        The engine's.
    """

    def __init__(self, acts: Sequence[Act], clock: Clock) -> None:
        self._acts = sorted(acts, key=lambda act: act.at_ns)
        self._clock = clock
        self._stopping = Flag()
        self._thread = Thread(target=self._run, name="nv-faults", daemon=True)

    def start(self) -> None:
        """Time counts from now on."""
        self._began_ns = self._clock.monotonic_ns()
        self._thread.start()

    def stop(self) -> None:
        """Nothing more is done."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        for act in self._acts:
            if not self._wait_until(self._began_ns + act.at_ns):
                return
            try:
                act.do()
            except Exception as error:
                log.error("a fault could not be injected, or ended: %s", error)

    def _wait_until(self, at_ns: int) -> bool:
        while (left_ns := at_ns - self._clock.monotonic_ns()) > 0:
            # Not by the clock: a clock that jumps when it is waited for would run off.
            if self._stopping.wait(min(left_ns / NS, _LOOK_S)):
                return False
        return not self._stopping.is_set()


class FullDisk:
    """No regular file of this process takes a byte: the kernel says EFBIG.

    The limit holds for the process and for programs that it starts meanwhile; pipes,
    sockets and terminals are no files.
    """

    def __init__(self) -> None:
        self._before: int | None = None
        self._full = 0  # how many faults say so at this moment

    def begin(self) -> None:
        """From now on; Python ignores the signal that comes with it."""
        self._full += 1
        if self._full == 1:
            self._before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

    def end(self) -> None:
        """There is room again."""
        self._full -= 1
        if self._full == 0:
            self.clear()

    def clear(self) -> None:
        """There is room, whatever faults still last. May be called at any time."""
        if self._before is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._before, hard))
            self._before = None


def kill() -> None:
    """End this process as a loss of power would: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)
