"""Shell of one sink: calls are counted, failures are said once, it is opened again."""

import logging
from collections.abc import Callable
from threading import Event as Flag
from threading import Lock

from neurovocal.engine.errors import StageError
from neurovocal.engine.protocols import Sink
from neurovocal.engine.supervise import Backoff, Calls
from neurovocal.engine.timebase import NS, Clock
from neurovocal.engine.types import Message

log = logging.getLogger("neurovocal")

_FLUSH_S = 1.0
_STOP_LOOK_S = 0.1


class Replaced(BaseException):
    """The call hung, and another thread has taken the place of its own since."""


class SinkShell:
    """The sink as its thread calls it.

    Every method that calls the sink raises `Replaced` when that took so long that the
    thread was given up: then the shell is another thread's.

    Parameters
    ----------
    name : str
        Name in logs.
    sink : Sink
        The sink.
    clock : Clock
        For the pauses between attempts to open it again.
    stopping : Flag
        Set when a sink that is closed is not to be opened any more.

    Attributes
    ----------
    sink : Sink
        The present one.
    calls : Calls
        Of the present thread.
    lock : Lock
        Held while a call returns, and while another thread takes over.
    down : bool
        Whether it failed and is not open again yet.
    failing : bool
        Whether the last write or flush failed: it is said once, not each time.
    failures : int
        How often it began to fail.
    errors : int
        Calls that failed.
    trouble : str
        Sentence of the last failure, also when it is over.
    """

    def __init__(self, name: str, sink: Sink, clock: Clock, stopping: Flag) -> None:
        self.sink = sink
        self.calls = Calls()
        self.lock = Lock()
        self.down = False
        self.failing = False
        self.failures = 0
        self.errors = 0
        self.trouble = ""
        self._name = name
        self._clock = clock
        self._stopping = stopping

    def write(self, message: Message) -> Exception | None:
        """Write one message; what went wrong, or None."""
        try:
            self._call(lambda: self.sink.write(message))
        except Exception as error:
            self.errors += 1
            return error
        self.failing = False
        return None

    def flush(self) -> Exception | None:
        """Make safe what was written; what went wrong, or None."""
        try:
            self._call(lambda: self.sink.flush(_FLUSH_S))
        except Exception as error:
            return error
        self.failing = False
        return None

    def reopen(self, backoff: Backoff) -> bool:
        """Open the sink again, as often as it takes; False if asked to stop."""
        self.down = True
        while True:
            try:
                self._call(self.sink.close)
            except Exception as error:
                log.warning("%s failed while closing: %s", self._name, error)
            self._pause(backoff.pause_s())
            if self._stopping.is_set():
                return False
            try:
                self._call(self.sink.open)
            except Exception as error:
                self.errors += 1
                log.warning("%s cannot be opened again yet: %s", self._name, error)
            else:
                self.down = False
                log.warning("%s is open again", self._name)
                return True

    def warn(self, what: str, error: Exception) -> None:
        """Log the first failure in a row; the others are counted."""
        self.trouble = str(error)
        if not self.failing:
            self.failures += 1
            log.warning("%s %s: %s", self._name, what, error)
        self.failing = True

    def _call(self, work: Callable[[], None]) -> None:
        calls = self.calls
        calls.entered += 1
        try:
            work()
        except Exception:
            raise
        except BaseException as error:  # a SystemExit of a plugin is a failure
            raise StageError(repr(error)) from error
        finally:
            with self.lock:
                calls.returned += 1
                replaced = calls is not self.calls
            if replaced:
                raise Replaced

    def _pause(self, seconds: float) -> None:
        until = self._clock.monotonic_ns() + round(seconds * NS)
        while not self._stopping.is_set():
            if self._clock.wait_until(until, _STOP_LOOK_S):
                return
