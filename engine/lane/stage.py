"""Supervised stage of a lane: counts and times its calls, contains its failures."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import current_thread, main_thread
from time import perf_counter_ns
from typing import Any, Literal, TypeAlias

from neurovocal.engine.contracts.abilities import Advances, Consumes, Follows, Traces
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.options import OnError
from neurovocal.engine.contracts.types import Event, Health
from neurovocal.engine.support.calls import Calls

log = logging.getLogger("neurovocal")
_LOAD_SAMPLES = 11  # a second apart
Timer: TypeAlias = Callable[[], int]
State: TypeAlias = Literal["lossy", "restarting"]


class StageLoad:
    """Share of real time that a stage takes, over the last ten seconds or so.

    Attributes
    ----------
    now : float
        Seconds of processing per second of audio.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque(maxlen=_LOAD_SAMPLES)
        self.now = 0.0

    def update(self, busy_ns: int, audio_ns: int) -> None:
        """Add the totals of processing time and of audio; call it once a second."""
        self._samples.append((busy_ns, audio_ns))
        busy, audio = (self._samples[-1][i] - self._samples[0][i] for i in range(2))
        self.now = busy / audio if audio > 0 else 0.0


@dataclass(slots=True)
class StageMetrics:
    """Totals of a stage: calls, events, failed calls, time in its methods."""

    items: int = 0
    events: int = 0
    errors: int = 0
    busy_ns: int = 0

    def as_dict(self) -> dict[str, float]:
        """Return the counters, and the time in ms."""
        return {
            "items": self.items,
            "events": self.events,
            "errors": self.errors,
            "busy_ms": round(self.busy_ns / 1e6, 3),
        }


class SupervisedStage:
    """Stage of a lane: counts and times its calls, contains its failures.

    Parameters
    ----------
    name : str
        Name in logs and health events.
    stage : Features, Detector, Model or Watcher
        Stage that is called.
    on_error : {'fail', 'skip', 'restart'}
        ``fail`` raises StageError. ``skip`` drops the item that failed, counts
        it and goes on. ``restart`` drops it and resets the stage, so that no
        state of the failed call survives.
    limit : int
        Failures in a row after which a skipping or restarting stage is switched
        off: one that always fails must not cost time and log lines for ever.
    timer : callable
        Returns nanoseconds; the benchmark passes CPU time instead of wall time.
    plugin : str
        Name of the stage's plugin, by which commands address it.

    Attributes
    ----------
    advances : bool
        The stage can go on without audio (`Advances`).
    consumes_samples : bool
        The stage takes blocks of samples (`Consumes`).
    follows : bool
        The stage answers the events of other models (`Follows`).
    traces : bool
        The stage can show the values from which it decides (`Traces`).
    metrics : StageMetrics
        Totals since the stage was built.
    calls : Calls
        Read by the watchdog.
    load : StageLoad
        Share of real time, updated by telemetry.
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
        self.advances = isinstance(stage, Advances)
        self.consumes_samples = (
            isinstance(stage, Consumes) and stage.consumes == "samples"
        )
        self.follows = isinstance(stage, Follows)
        self.traces = isinstance(stage, Traces)
        self.metrics = StageMetrics()
        self.calls = Calls()
        self.load = StageLoad()
        self._limit = limit
        self._consecutive_failures = 0
        self._timer = timer

    @property
    def failed(self) -> bool:
        """True if the stage has been switched off."""
        return self._consecutive_failures >= self._limit

    def process(self, item: object) -> list[Event]:
        """Return the stage's events for `item`; act on a failure as the policy says."""
        return self.call(self.stage.process, item)

    def flush(self) -> list[Event]:
        """Return the stage's events at the end of the stream."""
        return self.call(self.stage.flush)

    def advance(self, position: int) -> list[Event]:
        """Return the stage's events up to `position`, in samples, without audio."""
        return self.call(self.stage.advance, position)

    def follow(self, step: object) -> list[Event]:
        """Return the stage's events for those of a step (`StepEvents`)."""
        return self.call(self.stage.follow, step)

    def trace(self) -> list[Event]:
        """Return the values from which the stage has decided since the last call."""
        return self.call(self.stage.trace)

    def reset(self) -> None:
        """Reset the stage to its initial state; a switched-off stage is tried again."""
        self._consecutive_failures = 0
        self.stage.reset()

    def call(
        self, method: Callable[..., Iterable[Event]], *arguments: object
    ) -> list[Event]:
        """Return the events of a method that acts for the stage; contain its failure.

        Raises
        ------
        StageError
            It failed, and the policy is to fail.
        """
        if self._consecutive_failures >= self._limit:
            return []
        calls, metrics, start = self.calls, self.metrics, self._timer()
        calls.entered += 1  # by hand: `with` would cost two calls more
        try:
            events = list(method(*arguments))
            if self._consecutive_failures:
                events.append(Health(self.name, "healthy", "it works again"))
                self._consecutive_failures = 0
        except BaseException as error:  # a SystemExit of a plugin is a failure
            if is_users_interrupt(error):
                raise
            events = self._contain(error)
        finally:
            calls.returned += 1
            metrics.busy_ns += self._timer() - start
        metrics.items += 1
        metrics.events += len(events)
        return events

    def _contain(self, error: BaseException) -> list[Event]:
        """Return a Health event for the first failure in a row and for switching off.

        Raises
        ------
        StageError
            The policy is to fail.
        """
        self.metrics.errors += 1
        self._consecutive_failures += 1
        reason = f"{type(error).__name__}: {error}"
        if self.on_error == "fail":
            raise StageError(f"{self.name} failed: {reason}", self.name) from error
        first = self._consecutive_failures == 1
        if first:
            log.warning("%s failed and goes on: %s", self.name, reason, exc_info=error)
        if self.on_error == "restart":
            try:
                self.stage.reset()
            except BaseException as second:
                # Its state is unknown: no result of it could be trusted.
                self._consecutive_failures = self._limit
                reason = f"its reset failed: {type(second).__name__}: {second}"
        if self.failed:
            log.error("%s is switched off: %s", self.name, reason)
            return [Health(self.name, "failed", f"switched off; last error: {reason}")]
        state: State = "restarting" if self.on_error == "restart" else "lossy"
        return [Health(self.name, state, reason)] if first else []


def is_users_interrupt(error: BaseException) -> bool:
    """Return whether Ctrl-C raised this error: signals reach the main thread alone."""
    return isinstance(error, KeyboardInterrupt) and current_thread() is main_thread()
