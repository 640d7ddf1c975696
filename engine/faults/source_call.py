"""Sources whose `read` raises, or does not return for a while."""

from neurovocal.engine.faults.herald import InjectedError, ends
from neurovocal.engine.faults.options import Crash, Hang
from neurovocal.engine.faults.source import FaultySource
from neurovocal.engine.timebase import NS, Clock


class CrashingSource(FaultySource[Crash]):
    """A read raises."""

    def _strike(self) -> None:
        super()._strike()
        self._ready.extend([self._crash] * self._fault.times)
        self._active = False

    def _crash(self) -> None:
        raise InjectedError(f"injected: {self._fault.words}")


class HangingSource(FaultySource[Hang]):
    """A read does not return for a while."""

    _ends_by_samples = False

    def _strike(self) -> None:
        super()._strike()
        self._ready.append(lambda: wait(self._clock, self._fault.for_s))
        self._ready.append(ends(self._fault))
        self._active = False


def wait(clock: Clock, seconds: float) -> None:
    """Return after `seconds`, whatever happens."""
    until_ns = clock.monotonic_ns() + round(seconds * NS)
    while not clock.wait_until(until_ns, 1.0):
        pass
