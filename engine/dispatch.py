"""From a lane's events to the sinks' queues: numbering, timing and fan-out."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from threading import Lock

from neurovocal.engine.sink_worker import SinkWorker
from neurovocal.engine.timebase import TimeBase
from neurovocal.engine.types import (
    Event,
    Ledger,
    Message,
    StreamInfo,
    instant_of,
    kind_of,
    sample_of,
)


class Dispatcher:
    """Gives each event its number, its time and its ledger, for all lanes.

    ``seq`` counts per (kind, stream) without holes over the whole run; a message
    that a full queue drops leaves a hole that its subscriber can see.
    """

    def __init__(self, sinks: Sequence[SinkWorker]) -> None:
        self._sinks = sinks
        self._counts: defaultdict[tuple[str, str], count[int]] = defaultdict(count)
        self._lock = Lock()

    def wants(self, kind: str) -> bool:
        """Whether any sink asked for this kind of event."""
        return any(kind in sink.wants for sink in self._sinks)

    def statistics(self) -> dict[str, object]:
        """Counters of each sink, by its name."""
        return {sink.name: sink.statistics() for sink in self._sinks}

    def send(
        self,
        info: StreamInfo,
        event: Event,
        at: int,
        timebase: TimeBase,
        *,
        ledger: Ledger | None = None,
        emitted_ns: int = 0,
        only: str | None = None,
    ) -> Message:
        """Number an event and put it into the queue of each sink that wants it.

        Parameters
        ----------
        only : str, optional
            Give it only to sinks that also want this kind: anchors repeated
            for late joiners go where stats go, not into records.
        """
        kind = kind_of(event)
        message = Message(
            info=info,
            event=event,
            seq=self._next(kind, info.stream),
            at=at,
            utc_ns=timebase.utc_ns(sample_of(event, at)),
            ledger=ledger,
            emitted_ns=emitted_ns,
        )
        for sink in self._sinks:
            if kind in sink.wants and (only is None or only in sink.wants):
                sink.accept(message)
        return message

    def _next(self, kind: str, stream: str) -> int:
        with self._lock:
            return next(self._counts[kind, stream])


def ledger_of(
    event: Event, at: int, rate: int, queue_ms: float, compute_ms: float
) -> Ledger:
    """How late an event is when it leaves the lane.

    Parameters
    ----------
    event : Event
        The event.
    at : int
        Stream position up to which audio had been heard when it was known.
    rate : int
        Sample rate of the lane in Hz.
    queue_ms, compute_ms : float
        Time between the arrival of the last sample and the start of its
        processing, and time of processing.
    """
    wait_ms = (at - instant_of(event, at)) * 1000.0 / rate
    return Ledger(round(wait_ms, 3), round(queue_ms, 3), round(compute_ms, 3))
