"""For programs that listen: messages of a running engine, typed and checked.

from neurovocal.engine.client import Subscriber

with Subscriber("tcp://127.0.0.1:5556", kinds=["label"]) as subscriber:
    for message in subscriber:
        print(message.event)
"""

import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from math import ceil
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from neurovocal.engine.control_client import Control
from neurovocal.engine.errors import ConfigError, NeurovocalError
from neurovocal.engine.types import BULK_KINDS, KINDS, Event
from neurovocal.engine.wire import (
    MAX_PAYLOAD,
    Header,
    Latency,
    decode,
    prefix,
    ready_topic,
    to_event,
    topic,
)

if TYPE_CHECKING:
    import zmq

__all__ = ["Control", "Missed", "Received", "Subscriber"]

# In async iteration, others get their turn after so many messages in a row.
_BURST = 16


@dataclass(frozen=True, slots=True)
class Missed:
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
        The event itself, as in `neurovocal.engine.types`.
    missed : Missed or None
        The hole in the topic right before this message.
    restarted : bool
        Whether this is the first message of another run than before.
    header : Header
        All fields as they stood on the wire.
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
    missed: Missed | None
    restarted: bool
    header: Header


class Subscriber:
    """Receives messages; a context manager, iterable with ``for`` and ``async for``.

    Light and bulky kinds come over connections of their own, so that a reader
    who cannot keep up with frames loses no label. Between the two there is no
    order in time: what waits of the light kinds is handed out first.

    Lost messages are reported with the next message of their topic
    (`Received.missed`) and counted in `missed`. The first message that is heard
    of a topic sets the count; after a restart of the engine, counting starts at
    0, so that what was sent while reconnecting counts as missed.

    Parameters
    ----------
    endpoint : str
        Where the engine publishes, such as ``tcp://127.0.0.1:5556``.
    kinds : iterable of str
        Kinds of events to receive.
    streams : iterable of str, optional
        Streams to receive; None means all.
    timeout : float, optional
        Iteration ends after so many seconds without a message; None: never.
    queue_length : int
        Messages that may wait on this side, for each connection.

    Attributes
    ----------
    received, missed : int
        Messages so far.
    """

    def __init__(
        self,
        endpoint: str,
        kinds: Iterable[str] = ("label",),
        streams: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        queue_length: int = 1000,
    ) -> None:
        self.endpoint = endpoint
        self.kinds = _known(kinds)
        self.streams = None if streams is None else frozenset(streams)
        self.timeout = timeout
        self.received = 0
        self.missed = 0
        self._queue_length = queue_length
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._sequences = _Sequences()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Connect. An engine that is not there yet is waited for.

        Raises
        ------
        ConfigError
            The endpoint is malformed.
        """
        import zmq

        groups = [
            group
            for group in (self.kinds - BULK_KINDS, self.kinds & BULK_KINDS)
            if group
        ]
        name = uuid.uuid4().hex
        self._context = zmq.Context()
        for part, group in enumerate(groups, start=1):
            connection = self._context.socket(zmq.SUB)
            self._sockets.append(connection)
            connection.setsockopt(zmq.RCVHWM, self._queue_length)
            connection.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
            for subject in self._subjects(group):
                connection.subscribe(subject)
            connection.subscribe(ready_topic(name, part, len(groups)))
            try:
                connection.connect(self.endpoint)
            except zmq.ZMQError as error:
                self.close()
                raise ConfigError(
                    f"'{self.endpoint}' is not an endpoint such as "
                    "tcp://127.0.0.1:5556 or ipc:///tmp/neurovocal"
                ) from error

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for connection in self._sockets:
            connection.close(linger=0)
        if self._context is not None:
            self._context.term()
        self._sockets, self._context = [], None

    def receive(self, timeout: float | None = None) -> Received | None:
        """Return the next message, or None when none came in time.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None waits for ever.

        Raises
        ------
        WireError
            Something else than an engine speaks here; the next call goes on.
        """
        import zmq

        received = self._take()
        if received is not None or timeout == 0:
            return received
        poller = zmq.Poller()
        for connection in self._sockets:
            poller.register(connection, zmq.POLLIN)
        until = None if timeout is None else time.monotonic() + timeout
        while received is None:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not poller.poll(None if left is None else ceil(left * 1000)):
                return None
            received = self._take()
        return received

    def __iter__(self) -> Iterator[Received]:
        while (received := self.receive(self.timeout)) is not None:
            yield received

    async def __aiter__(self) -> AsyncIterator[Received]:
        import asyncio

        import zmq
        import zmq.asyncio

        poller = zmq.asyncio.Poller()
        for connection in self._sockets:
            poller.register(connection, zmq.POLLIN)
        wait_ms = None if self.timeout is None else ceil(self.timeout * 1000)
        while True:
            for _ in range(_BURST):
                received = self._take()
                if received is None:
                    break
                yield received
            else:
                await asyncio.sleep(0)
                continue
            if not await poller.poll(wait_ms):
                return

    def _subjects(self, kinds: frozenset[str]) -> Iterator[bytes]:
        for kind in sorted(kinds):
            if self.streams is None:
                yield prefix(kind).encode()
            else:
                yield from (topic(kind, stream) for stream in sorted(self.streams))

    def _take(self) -> Received | None:
        """Next message that has already come, light kinds first."""
        import zmq

        if not self._sockets:
            raise NeurovocalError("the subscriber is not open")
        for connection in self._sockets:
            while True:
                try:
                    parts = connection.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                received = self._read(parts)
                if received is not None:
                    return received
        return None

    def _read(self, parts: list[bytes]) -> Received | None:
        header, values = decode(parts)
        if self.streams is not None and header.stream not in self.streams:
            return None  # a subscription to 'a' also lets 'ab' through
        # Asking a replay socket for what is missing would begin here.
        missed, restarted = self._sequences.check(header)
        self.received += 1
        self.missed += missed.count if missed else 0
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
            missed=missed,
            restarted=restarted,
            header=header,
            **fields,
        )


class _Sequences:
    """Finds holes in the numbering of topics, and restarts of the engine."""

    def __init__(self) -> None:
        # Per topic, not per run: bulky messages of the run before may still come
        # after light ones of the next.
        self._next: dict[tuple[str, str], tuple[str, int]] = {}
        self._runs: list[str] = []

    def check(self, header: Header) -> tuple[Missed | None, bool]:
        run, key = str(header.run), (header.kind, header.stream)
        restarted = bool(self._runs) and run not in self._runs
        if run not in self._runs:
            self._runs.append(run)
        known_run, expected = self._next.get(key, ("", 0))
        if known_run != run:
            expected = header.seq if run == self._runs[0] else 0
        self._next[key] = (run, header.seq + 1)
        if header.seq <= expected:
            return None, restarted
        name = topic(*key).decode()
        return Missed(name, expected, header.seq - expected), restarted


def _known(kinds: Iterable[str]) -> frozenset[str]:
    asked = frozenset([kinds] if isinstance(kinds, str) else kinds)
    unknown = sorted(asked - set(KINDS.values()))
    if unknown or not asked:
        raise ConfigError(
            f"unknown kind '{', '.join(unknown)}': the kinds are "
            + ", ".join(KINDS.values())
        )
    return asked
