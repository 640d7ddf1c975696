"""Messages as a subscriber receives them, and detection of lost messages."""

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
    """Messages ``first_seq, ..., first_seq + count - 1`` of a topic that were lost."""

    topic: str
    first_seq: int
    count: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message of a running engine, decoded.

    Parameters
    ----------
    kind, stream, run : str
        Kind of the event, name of its stream, name of the run that sent it.
    seq : int
        Number of the message in its topic and run, from 0.
    sample, at : int
        First sample of the event; stream position at which it was known.
    utc_ns : int or None
        Time of `sample`; None where the engine does not know it.
    sample_rate : int
        Rate of the stream, in Hz.
    latency : Latency or None
        Latency ledger in ms; None for an offline run.
    event : Event
        The event, as in `neurovocal.engine`.
    missed : LostMessages or None
        Messages of the topic that were lost right before this one.
    restarted : bool
        True for the first message of a run that continues a stream of an earlier run:
        the engine was restarted.
    header : Header
        All fields of the header on the wire.
    replayed : bool
        True where it was fetched from the journal.
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
    """Return a decoded message for a subscriber; losses before it are not set yet."""
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
    """Detects holes in the numbering of topics, and restarts of the engine.

    The streams and runs without a message for longest are forgotten, so that no
    publisher can exhaust a subscriber's memory with new names.
    """

    def __init__(self) -> None:
        # Per topic, not per run: bulky messages of a run may still arrive after light
        # ones of the next.
        self._next: dict[tuple[str, str], tuple[str, int]] = {}
        self._streams: dict[str, None] = {}
        self._seen: dict[tuple[str, str], None] = {}  # streams and their runs
        self._restarts: dict[str, None] = {}

    def check(self, received: Received) -> tuple[LostMessages | None, bool]:
        """Return the messages lost before `received`, and whether its run is new."""
        run, key = received.run, (received.kind, received.stream)
        restarted = self._has_restarted(received.stream, run)
        known_run, expected = self._next.get(key, ("", 0))
        if known_run != run:
            # A subscriber of the earlier run is there from the start of the next.
            expected = 0 if run in self._restarts else received.seq
        _remember(self._next, key, (run, received.seq + 1), MOST_TOPICS)
        if received.seq <= expected:
            return None, restarted
        name = topic(*key).decode()
        return LostMessages(name, expected, received.seq - expected), restarted

    def _has_restarted(self, stream: str, run: str) -> bool:
        """Return True for the first message of a run that follows another.

        Runs of several stations have different streams; a run with a known stream is
        the next run of the same engine.
        """
        follows = stream in self._streams and (stream, run) not in self._seen
        _remember(self._streams, stream, None, MOST_TOPICS)
        _remember(self._seen, (stream, run), None, MOST_TOPICS)
        if not follows or run in self._restarts:
            return False
        _remember(self._restarts, run, None, MOST_RUNS)
        return True


def _remember(known: dict[K, V], key: K, value: V, most: int) -> None:
    """Add `key` as the newest, and drop the oldest key beyond the limit."""
    known.pop(key, None)
    known[key] = value
    if len(known) > most:
        del known[next(iter(known))]
