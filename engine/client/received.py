"""What a subscriber receives, and how it knows what it did not."""

from dataclasses import dataclass
from typing import Any, TypeVar

from neurovocal.engine.contracts.types import Event, Float32
from neurovocal.engine.wire.codec import Header, Latency, to_event, topic

K = TypeVar("K")
V = TypeVar("V")

MOST_TOPICS = 10_000
MOST_RUNS = 1000


@dataclass(frozen=True, slots=True)
class LostMessages:
    """Messages ``first_seq, ..., first_seq + count - 1`` of a topic never came."""

    topic: str
    first_seq: int
    count: int


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it came.

    Parameters
    ----------
    kind, stream, run : str
        What it is, whose audio it speaks of, which run of the engine sent it.
    seq : int
        Number of the message in its topic and run, from 0.
    sample, at : int
        First sample it speaks of; stream position at which it was known.
    utc_ns : int or None
        Time of `sample`, None when the engine does not know it.
    sample_rate : int
        Of the stream, in Hz.
    latency : Latency or None
        The ledger in ms; None for an offline run.
    event : Event
        The event itself, as in `neurovocal.engine.contracts.types`.
    missed : Missed or None
        The hole in the topic right before this message.
    restarted : bool
        Whether this is the first message of a run that brings a stream of a run
        before: the engine was started again.
    header : Header
        All fields as they stood on the wire.
    replayed : bool
        Whether it came from the journal rather than as it happened.
    """

    kind: str
    stream: str
    run: str
    seq: int
    sample: int
    at: int
    utc_ns: int | None
    sample_rate: int
    latency: Latency | None
    event: Event
    missed: LostMessages | None
    restarted: bool
    header: Header
    replayed: bool = False


def received_of(
    header: Header, values: Float32 | None, *, replayed: bool = False
) -> Received:
    """A checked message as its reader sees it; what is missing is not known yet."""
    fields: dict[str, Any] = {
        name: getattr(header, name)
        for name in ("run", "utc_ns", "latency")  # never absent on the wire
    }
    return Received(
        kind=header.kind,
        stream=header.stream,
        seq=header.seq,
        sample=header.sample,
        at=header.at,
        sample_rate=header.sample_rate,
        event=to_event(header, values),
        missed=None,
        restarted=False,
        header=header,
        replayed=replayed,
        **fields,
    )


class Sequences:
    """Finds holes in the numbering of topics, and restarts of the engine.

    What was heard longest ago is forgotten: nobody can fill a reader's memory by
    naming ever new streams or runs.
    """

    def __init__(self) -> None:
        # Per topic, not per run: bulky messages of the run before may still come
        # after light ones of the next.
        self._next: dict[tuple[str, str], tuple[str, int]] = {}
        self._streams: dict[str, None] = {}
        self._heard: dict[tuple[str, str], None] = {}  # streams and their runs
        self._restarts: dict[str, None] = {}

    def check(self, received: Received) -> tuple[LostMessages | None, bool]:
        """What is missing right before a message, and whether its run is new."""
        run, key = received.run, (received.kind, received.stream)
        restarted = self._has_restarted(received.stream, run)
        known_run, expected = self._next.get(key, ("", 0))
        if known_run != run:
            # Who heard the run before would have heard this one from its beginning.
            expected = 0 if run in self._restarts else received.seq
        _remember(self._next, key, (run, received.seq + 1), MOST_TOPICS)
        if received.seq <= expected:
            return None, restarted
        name = topic(*key).decode()
        return LostMessages(name, expected, received.seq - expected), restarted

    def _has_restarted(self, stream: str, run: str) -> bool:
        """Whether a run takes the place of another, and that was not told yet.

        Runs that stand beside each other, of several stations, have streams of
        their own; a run that brings a known stream is the next of the same engine.
        """
        follows = stream in self._streams and (stream, run) not in self._heard
        _remember(self._streams, stream, None, MOST_TOPICS)
        _remember(self._heard, (stream, run), None, MOST_TOPICS)
        if not follows or run in self._restarts:
            return False
        _remember(self._restarts, run, None, MOST_RUNS)
        return True


def _remember(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Put `key` behind all others, and forget the foremost if there are too many."""
    known.pop(key, None)
    known[key] = value
    if len(known) > most:
        del known[next(iter(known))]
