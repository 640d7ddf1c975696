"""Stages and sinks that raise or hang, once in a run."""

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any

from neurovocal.engine.config.faults import Crash, Hang
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.plugin import BuildContext, Kind
from neurovocal.engine.contracts.types import (
    Block,
    Frames,
    Gap,
    Message,
    Offset,
    Onset,
    Posteriors,
)
from neurovocal.engine.faults.injection import (
    FaultReporter,
    InjectedError,
    health_at_end,
    health_at_start,
)
from neurovocal.engine.faults.wrapper import Wrapper, wait


class FaultInjector:
    """Makes calls of one stage fail, however often the stage is built.

    Parameters
    ----------
    fault : Crash or Hang
        When to fail, and how.
    clock : Clock
        Measures a hang.
    reporter : FaultReporter
        Publishes the start and the end of the fault.
    lane : str, optional
        Lane in which they are published; default: all lanes.
    """

    def __init__(
        self,
        fault: Crash | Hang,
        clock: Clock,
        reporter: FaultReporter,
        lane: str | None,
    ) -> None:
        self._fault = fault
        self._clock = clock
        self._report = partial(reporter.report, lane=lane)
        self._at_ns = round(fault.at_s * NS)
        self._left = fault.times if isinstance(fault, Crash) else 1
        self._started = self._over = False
        # A sink that hangs is replaced by another one, with a thread of its own.
        self._lock = Lock()

    def before_call(self, sample: int, sample_rate: int) -> None:
        """Raise or hang if a call that reaches up to `sample` is due to fail.

        Raises
        ------
        InjectedError
            The stage crashes.
        """
        if self._over or sample * NS <= self._at_ns * sample_rate:
            return
        with self._lock:
            fails, first = self._left > 0, not self._started
            self._left -= fails
            self._started = True
            self._over = not fails
        if first:
            self._report(health_at_start(self._fault))
        if not fails:
            self._report(health_at_end(self._fault))
        elif isinstance(self._fault, Hang):
            wait(self._clock, self._fault.for_s)
        else:
            raise InjectedError(f"injected: {self._fault.as_text}")


class FaultyStage(Wrapper):
    """Stage of a lane with a `process` that fails when its fault is due.

    Parameters
    ----------
    stage : Features, Detector, Model or Gate
        The stage that fails.
    injector : FaultInjector
        Decides which call fails.
    sample_rate : int
        Of the samples that the stage counts, in Hz.
    """

    def __init__(self, stage: Any, injector: FaultInjector, sample_rate: int) -> None:
        super().__init__(stage)
        self._injector = injector
        self._sample_rate = sample_rate

    def process(self, item: Any) -> Any:
        """Return the stage's events, unless this call fails."""
        self._injector.before_call(_end_of(item), self._sample_rate)
        return self._wrapped.process(item)


class FaultySink(Wrapper):
    """Sink with a `write` that fails when its fault is due."""

    def __init__(self, sink: Any, injector: FaultInjector) -> None:
        super().__init__(sink)
        self._injector = injector

    def write(self, message: Message) -> None:
        """Write the message, unless this call fails."""
        self._injector.before_call(message.at, message.info.sample_rate)
        self._wrapped.write(message)


Build = Callable[[Any, BuildContext], Any]


def faulty_stage(build: Build, kind: Kind, injector: FaultInjector) -> Build:
    """Return a function that builds a stage or sink; `injector` fails its calls."""

    def build_faulty(options: Any, context: BuildContext) -> Wrapper:
        stage = build(options, context)
        if kind == "sink":
            return FaultySink(stage, injector)
        assert context.info is not None, "stages of lanes are built for a stream"
        return FaultyStage(stage, injector, context.info.sample_rate)

    return build_faulty


def _end_of(item: object) -> int:
    """Return the sample up to which a stage is when it has processed `item`."""
    match item:
        case Block() | Gap():
            return item.stop
        case Frames() | Posteriors():
            return (item.first + len(item.values)) * item.hop_length
        case Onset() | Offset():
            return item.sample
        case _:
            return 0
