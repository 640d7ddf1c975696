"""What happens when a stage fails: a policy per stage, never a dead neighbour."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Literal, TypeAlias

from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.types import (
    Event,
    Health,
)
from neurovocal.engine.support.calls import Calls

log = logging.getLogger("neurovocal")
_LOAD_LOOKS = 11  # a second apart
Timer: TypeAlias = Callable[[], int]
State: TypeAlias = Literal["lossy", "restarting"]


class Load:
    """Share of real time that a stage takes, over the last ten seconds or so."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque(maxlen=_LOAD_LOOKS)
        self.now = 0.0

    def look(self, busy_ns: int, audio_ns: int) -> None:
        """Note what was spent so far on how much audio; once a second."""
        self._marks.append((busy_ns, audio_ns))
        busy, audio = (self._marks[-1][i] - self._marks[0][i] for i in range(2))
        self.now = busy / audio if audio > 0 else 0.0


class SupervisedStage:
    """Runs one stage of a lane: counts it, times it, contains its failures.

    Parameters
    ----------
    name : str
        Name in logs and health events.
    stage : Features, Detector or Model
        The stage.
    on_error : {'fail', 'skip', 'restart'}
        ``fail`` raises StageError. ``skip`` drops the item that failed, counts
        it and goes on. ``restart`` drops it and resets the stage, so that no
        state of the failed call survives.
    limit : int
        Failures in a row after which a skipping or restarting stage is switched
        off: one that always fails must not cost time and log lines for ever.
    timer : callable
        Nanoseconds; the benchmark passes CPU time instead of wall time.
    plugin : str
        Name of its plugin, by which commands address it.
    """

    def __init__(
        self,
        name: str,
        stage: Any,
        on_error: OnError = "fail",
        *,
        limit: int = 100,
        timer: Timer = perf_counter_ns,
        plugin: str = "",
    ) -> None:
        self.name = name
        self.plugin = plugin
        self.stage = stage
        self.on_error = on_error
        self.metrics = StageMetrics()
        self.calls = Calls()
        self.load = Load()
        self._limit = limit
        self._in_a_row = 0
        self._timer = timer

    @property
    def failed(self) -> bool:
        """Whether the stage was switched off."""
        return self._in_a_row >= self._limit

    def process(self, item: object) -> list[Event]:
        """Events of the stage for `item`, or what its policy makes of a failure."""
        return self._call(lambda: self.stage.process(item))

    def flush(self) -> list[Event]:
        """Events of the stage at the end of the stream."""
        return self._call(self.stage.flush)

    @property
    def sings(self) -> bool:
        """Whether the stage goes on by itself when no audio comes."""
        return hasattr(self.stage, "advance")

    def advance(self, position: int) -> list[Event]:
        """Events of the stage when time has passed without audio."""
        return self._call(lambda: self.stage.advance(position))

    def reset(self) -> None:
        """Make the stage forget everything; a switched-off stage is tried again."""
        self._in_a_row = 0
        self.stage.reset()

    def _call(self, work: Callable[[], Iterable[Event]]) -> list[Event]:
        if self.failed:
            return []
        start = self._timer()
        self.calls.entered += 1
        try:
            events = list(work())
            if self._in_a_row:
                events.append(Health(self.name, "healthy", "it works again"))
            self._in_a_row = 0
        except BaseException as error:  # a SystemExit of a plugin is a failure
            events = self._contain(error)
        finally:
            self.calls.returned += 1
            self.metrics.busy_ns += self._timer() - start
        self.metrics.items += 1
        self.metrics.events += len(events)
        return events

    def _contain(self, error: BaseException) -> list[Event]:
        """What is published: the first failure in a row, and being switched off."""
        self.metrics.errors += 1
        self._in_a_row += 1
        reason = f"{type(error).__name__}: {error}"
        if self.on_error == "fail":
            raise StageError(f"{self.name} failed: {reason}", self.name) from error
        first = self._in_a_row == 1
        if first:
            log.warning("%s failed and goes on: %s", self.name, reason, exc_info=error)
        if self.on_error == "restart":
            try:
                self.stage.reset()
            except BaseException as again:
                # Its state is unknown: no result of it could be trusted.
                self._in_a_row = self._limit
                reason = f"its reset failed: {type(again).__name__}: {again}"
        if self.failed:
            log.error("%s is switched off: %s", self.name, reason)
            return [Health(self.name, "failed", f"switched off; last error: {reason}")]
        state: State = "restarting" if self.on_error == "restart" else "lossy"
        return [Health(self.name, state, reason)] if first else []


@dataclass(slots=True)
class StageMetrics:
    """What a stage did so far."""

    items: int = 0
    events: int = 0
    errors: int = 0
    busy_ns: int = 0

    def as_dict(self) -> dict[str, float]:
        """Counters, and the time spent in ms."""
        return {
            "items": self.items,
            "events": self.events,
            "errors": self.errors,
            "busy_ms": round(self.busy_ns / 1e6, 3),
        }
