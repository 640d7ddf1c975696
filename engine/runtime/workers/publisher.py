"""From a lane's events to the sinks' queues: numbering, timing and fan-out."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from threading import Lock

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.types import (
    Event,
    Health,
    Ledger,
    Message,
    StreamInfo,
    instant_of,
    kind_of,
    sample_of,
)
from neurovocal.engine.runtime.workers.sink_worker import SinkHealth, SinkWorker


class SequenceNumbers:
    """Counts messages per (kind, stream), for all lanes of a run."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[str, str], count[int]] = defaultdict(count)
        self._lock = Lock()

    def next(self, kind: str, stream: str) -> int:
        """Return 0, 1, 2, ... for each kind and stream."""
        with self._lock:
            return next(self._counts[kind, stream])


class Publisher:
    """Gives each event of a lane its number, its time and its ledger.

    ``seq`` counts per (kind, stream) without holes over the whole run; a message
    that a full queue drops leaves a hole that its subscriber can see.

    Parameters
    ----------
    sinks : sequence of SinkWorker
        Who gets the events.
    numbers : Numbers
        Shared by all lanes, whose streams may have the same name.
    """

    def __init__(self, sinks: Sequence[SinkWorker], numbers: SequenceNumbers) -> None:
        self._sinks = sinks
        self._numbers = numbers
        self._health = SinkHealth(sinks)

    def wants(self, kind: str) -> bool:
        """Whether any sink asked for this kind of event."""
        return any(kind in sink.wants for sink in self._sinks)

    def statistics(self) -> dict[str, object]:
        """Counters of each sink, by its name."""
        return {sink.name: sink.statistics() for sink in self._sinks}

    def sinks_health(self) -> list[Health]:
        """Sinks whose state has changed since the last call."""
        return list(self._health.changes())

    def send(
        self,
        info: StreamInfo,
        event: Event,
        at: int,
        timebase: TimeBase,
        *,
        ledger: Ledger | None = None,
        emitted_ns: int = 0,
    ) -> Message:
        """Number an event and put it into the queue of each sink that wants it."""
        kind = kind_of(event)
        message = Message(
            info=info,
            event=event,
            seq=self._numbers.next(kind, info.stream),
            at=at,
            utc_ns=timebase.utc_ns(sample_of(event, at), info.sample_rate),
            ledger=ledger,
            emitted_ns=emitted_ns,
        )
        for sink in self._sinks:
            if kind in sink.wants:
                sink.accept(message)
        return message

    def repeat(self, message: Message) -> None:
        """Send a message once more, with its old number, for those who came late.

        It goes where statistics go, too, and not into records: how often it is
        repeated depends on the time of day, not on the audio.
        """
        for sink in self._sinks:
            if message.kind in sink.wants and "stats" in sink.wants:
                sink.accept(message)


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
