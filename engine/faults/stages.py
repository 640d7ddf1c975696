"""Stages and sinks that raise or hang, once in a run."""

from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock
from typing import Any

from neurovocal.engine.config.faults import Crash, Hang
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Block,
    Event,
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
    begins,
    ends,
)
from neurovocal.engine.faults.sources import forward_attributes, wait


class Charge:
    """A fault of one stage of the configuration, however often the stage is built.

    Parameters
    ----------
    fault : Crash or Hang
        When, and what.
    clock : Clock
        Measures a hang.
    herald : Herald
        Is told when it strikes and when it is over.
    lane : str, optional
        Where that is published; default: in all lanes.
    """

    def __init__(
        self, fault: Crash | Hang, clock: Clock, herald: FaultReporter, lane: str | None
    ) -> None:
        self._fault = fault
        self._clock = clock
        self._tell = partial(herald.tell, lane=lane)
        self._at_ns = round(fault.at_s * NS)
        self._left = fault.times if isinstance(fault, Crash) else 1
        self._begun = self._over = False
        # A sink that hangs is replaced by another one, with a thread of its own.
        self._lock = Lock()

    def pass_by(self, sample: int, sample_rate: int) -> None:
        """A call that reaches up to `sample` begins: strike, if it is time.

        Raises
        ------
        InjectedError
            The stage crashes.
        """
        if self._over or sample * NS <= self._at_ns * sample_rate:
            return
        with self._lock:
            strikes, first = self._left > 0, not self._begun
            self._left -= strikes
            self._begun = True
            self._over = not strikes
        if first:
            self._tell(begins(self._fault))
        if not strikes:
            self._tell(ends(self._fault))
        elif isinstance(self._fault, Hang):
            wait(self._clock, self._fault.for_s)
        else:
            raise InjectedError(f"injected: {self._fault.words}")


class FaultyStage:
    """A stage of a lane with a charge; all else of it shows through.

    Parameters
    ----------
    stage : Features, Detector, Model or Gate
        What fails.
    charge : Charge
        When and how.
    sample_rate : int
        Of the samples that the stage counts, in Hz.
    """

    def __init__(self, stage: Any, charge: Charge, sample_rate: int) -> None:
        self._stage = stage
        self._charge = charge
        self._sample_rate = sample_rate
        forward_attributes(self, stage)

    def process(self, item: Any) -> Iterable[Event]:
        """As the stage's, unless it is time."""
        self._charge.pass_by(_reach(item), self._sample_rate)
        events: Iterable[Event] = self._stage.process(item)
        return events


class FaultySink:
    """A sink with a charge; all else of it shows through."""

    def __init__(self, sink: Any, charge: Charge) -> None:
        self._sink = sink
        self._charge = charge
        forward_attributes(self, sink)

    def write(self, message: Message) -> None:
        """As the sink's, unless it is time."""
        self._charge.pass_by(message.at, message.info.sample_rate)
        self._sink.write(message)


Build = Callable[[Any, BuildContext], Any]


def faulty_stage(build: Build, charge: Charge) -> Build:
    """What builds a stage of a lane, charged."""

    def charged(options: Any, context: BuildContext) -> FaultyStage:
        stage = build(options, context)
        assert context.info is not None, "stages of lanes are told what they hear"
        return FaultyStage(stage, charge, context.info.sample_rate)

    return charged


def faulty_sink(build: Build, charge: Charge) -> Build:
    """What builds a sink, charged."""
    return lambda options, context: FaultySink(build(options, context), charge)


def _reach(item: object) -> int:
    """Sample up to which a stage has heard when it has taken `item`."""
    match item:
        case Block() | Gap():
            return item.stop
        case Frames() | Posteriors():
            return (item.first + len(item.values)) * item.hop_length
        case Onset() | Offset():
            return item.sample
        case _:
            return 0
