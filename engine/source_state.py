"""How a source is doing, judged by the samples that arrive and by nothing else."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from neurovocal.engine.timebase import NS, Clock
from neurovocal.engine.types import Health

log = logging.getLogger("neurovocal")

SourceCondition: TypeAlias = Literal["healthy", "stalled", "recovering", "failed"]

_STALLED_NS = 2 * NS
_BLOCKS_MISSED = 4
_ATTEMPTS = 10


class SourceState:
    """``healthy``, ``stalled``, ``recovering`` or ``failed``, each change told once.

    A program that runs or a device that is open says nothing about its audio:
    only a sample makes a source healthy. It is *stalled* after two seconds without
    one (or four times the length of its last block), *recovering* from the moment
    its connection was lost until the first sample after, and *failed* when ten
    attempts to reach it were in vain (it goes on being tried) or it was given up.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    clock : Clock
        Measures silence.
    live : bool
        Whether time passes by itself: only then does silence mean anything.
    report : callable
        Takes the Health events.
    """

    def __init__(
        self, name: str, clock: Clock, live: bool, report: Callable[[Health], None]
    ) -> None:
        self.condition: SourceCondition = "healthy"
        self.outages = 0
        self._name = name
        self._clock = clock
        self._live = live
        self._report = report
        self._heard_ns = clock.monotonic_ns()
        self._patience_ns = _STALLED_NS
        self._attempts = 0

    def opened(self) -> None:
        """Silence counts from now on: the source has been opened."""
        self._heard_ns = self._clock.monotonic_ns()

    def heard(self, block_ns: int) -> None:
        """Samples of a length of `block_ns` have arrived."""
        now = self._clock.monotonic_ns()
        if self.condition != "healthy":
            away_s = (now - self._heard_ns) / NS
            self._change("healthy", f"samples arrive again, after {away_s:.1f} s")
        self._heard_ns = now
        self._attempts = 0
        self._patience_ns = max(_STALLED_NS, _BLOCKS_MISSED * block_ns)

    def waited(self) -> None:
        """A read has brought nothing."""
        if not self._live or self.condition != "healthy":
            return
        silent_ns = self._clock.monotonic_ns() - self._heard_ns
        if silent_ns >= self._patience_ns:
            self._change("stalled", f"no sample since {self._since()}")

    def lost(self, reason: str) -> None:
        """The connection is lost, and is going to be sought."""
        if self.condition in ("healthy", "stalled"):
            self.outages += 1
            self._change("recovering", f"{reason}; last sample at {self._since()}")

    def missed(self, reason: str, pause_s: float) -> None:
        """An attempt failed; the next follows in `pause_s` seconds."""
        self._attempts += 1
        log.warning(
            "lane '%s': %s (next attempt in %.1f s)", self._name, reason, pause_s
        )
        if self._attempts == _ATTEMPTS and self.condition != "failed":
            since = f"{_ATTEMPTS} attempts failed; last sample at {self._since()}"
            self._change("failed", f"{reason}; {since}; it goes on being tried")

    def gave_up(self, reason: str) -> None:
        """The source is not opened again."""
        self._change("failed", f"{reason}; last sample at {self._since()}")

    def _change(self, condition: SourceCondition, detail: str) -> None:
        self.condition = condition
        level = logging.INFO if condition == "healthy" else logging.WARNING
        log.log(level, "lane '%s': source is %s: %s", self._name, condition, detail)
        self._report(Health("source", condition, detail))

    def _since(self) -> str:
        """UTC of the last sample's arrival, and how long ago it was."""
        silent_ns = self._clock.monotonic_ns() - self._heard_ns
        at_s = (self._clock.utc_ns() - silent_ns) // 1_000_000 / 1000
        text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
        return f"{text.replace('+00:00', 'Z')} ({silent_ns / NS:.1f} s ago)"
