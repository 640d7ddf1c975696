"""Client of the publishing socket: typed messages, with losses counted or fetched."""

import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, get_args

from neurovocal.engine.client.received import Received, Sequences, received_of
from neurovocal.engine.client.replay import ReplayClient
from neurovocal.engine.client.resume import (
    UNRECORDED_KINDS,
    Position,
    StartPoint,
    TopicKey,
)
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.types import BULK_KINDS, KINDS
from neurovocal.engine.support.text import printable
from neurovocal.engine.wire.codec import (
    MAX_HEADER,
    MAX_PAYLOAD,
    MAX_SUBSCRIPTION,
    WireError,
    decode,
    prefix,
    ready_topic,
    topic,
)
from neurovocal.engine.wire.sockets import (
    MONITOR_PERIOD_S,
    ConnectionMonitor,
    connect,
)

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

# Asynchronous iteration yields to other tasks after so many messages.
_BURST_LENGTH = 16
# With a replay socket, requests must be sent also while no message arrives.
_POLL_MS = 50


class Subscriber:
    """Receives messages; a context manager, iterable with ``for`` and ``async for``.

    Light and bulky kinds have connections of their own, so that a program that cannot
    keep up with frames loses no label. There is no order in time between the two:
    waiting messages of light kinds are returned first.

    Lost messages are reported with the next message of their topic
    (`Received.missed`) and counted in `missed`. The first message of a topic sets the
    count; after a restart of the engine the count starts at 0, so that messages sent
    while the subscriber reconnects are counted as lost.

    With `replay`, no message that the engine's journal keeps is lost: messages that did
    not arrive are fetched and returned in the order of their topic, none twice. Save
    `positions` with your results and pass them to the next subscriber: it continues
    where this one stopped, also after a kill.

    Parameters
    ----------
    endpoint : str
        Where the engine publishes, such as ``tcp://127.0.0.1:5556``.
    kinds : iterable of str
        Kinds of events to receive.
    streams : iterable of str, optional
        Streams to receive; None means all.
    timeout : float, optional
        Seconds without a message after which iteration ends; None: never.
    queue_length : int
        Messages that may wait in this process, for each connection.
    replay : str, optional
        Replay socket of the engine's journal (its option ``replay``).
    start : {'now', 'run', 'journal'}
        Where topics without a position begin: with the next message that is sent, with
        the newest run, or with the oldest message in the journal.
    positions : mapping, optional
        Attribute `positions` of an earlier subscriber.
    keys : path, optional
        Folder made by ``neurovocal keys add``, for an engine with keys.
    log_silence : bool
        Whether a replay socket that sends nothing is logged; `replay_problem` tells it
        anyway.

    Attributes
    ----------
    received, missed : int
        Numbers of messages so far.
    malformed : int
        Messages that were left out, because they are not as docs/reference/wire.md
        says. The first one is logged.
    positions : dict of (kind, stream) to Position
        Position of the last message of each topic, without the kinds that no journal
        keeps; only with `replay`.
    """

    def __init__(
        self,
        endpoint: str,
        kinds: Iterable[str] = ("label",),
        streams: Iterable[str] | None = None,
        *,
        timeout: float | None = None,
        queue_length: int = 1000,
        replay: str | None = None,
        start: StartPoint = "now",
        positions: Mapping[TopicKey, Position] | None = None,
        keys: str | Path | None = None,
        log_silence: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self.kinds = _checked(kinds)
        # A single name, not a sequence of letters.
        named = [streams] if isinstance(streams, str) else streams
        self.streams = None if named is None else frozenset(named)
        self.timeout = timeout
        self.received = 0
        self.missed = 0
        self._n_malformed = 0
        self._queue_length = queue_length
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._monitors: list[ConnectionMonitor] = []
        self._sequences = Sequences()
        if replay is None and (start != "now" or positions):
            raise ConfigError(
                "'start' and 'positions' need 'replay': the endpoint of a journal's "
                "replay socket, such as tcp://127.0.0.1:5558"
            )
        if start not in get_args(StartPoint):
            raise ConfigError(
                f"start '{start}' is none of {', '.join(get_args(StartPoint))}: from "
                "when on to receive"
            )
        self.positions: dict[TopicKey, Position] = {
            key: Position(*position) for key, position in (positions or {}).items()
        }
        self._replay = (
            None
            if replay is None
            else ReplayClient(
                replay,
                self.kinds,
                self.streams,
                start,
                self.positions,
                keys,
                log_silence=log_silence,
            )
        )

    @property
    def malformed(self) -> int:
        """Number of messages and replies that were left out."""
        replies = 0 if self._replay is None else self._replay.malformed
        return self._n_malformed + replies

    @property
    def replay_problem(self) -> str:
        """Sentence that says why the replay socket sends nothing; empty: it does."""
        return "" if self._replay is None else self._replay.problem

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
        """Connect; the engine need not be running yet.

        Raises
        ------
        ConfigError
            The endpoint is malformed, or the keys cannot be read.
        """
        import zmq

        groups = [
            group
            for group in (self.kinds - BULK_KINDS, self.kinds & BULK_KINDS)
            if group
        ]
        name = os.urandom(16).hex()
        self._context = zmq.Context()
        for part, group in enumerate(groups, start=1):
            connection = self._context.socket(zmq.SUB)
            self._sockets.append(connection)
            connection.setsockopt(zmq.RCVHWM, self._queue_length)
            # ZeroMQ drops subscriptions beyond the limit; 0 is none.
            connection.setsockopt(zmq.SNDHWM, 0)
            bulky = group & BULK_KINDS
            longest_part = MAX_PAYLOAD if bulky else MAX_HEADER
            connection.setsockopt(zmq.MAXMSGSIZE, longest_part)
            for subscription in self._subscriptions(group):
                connection.subscribe(subscription[:MAX_SUBSCRIPTION])
            connection.subscribe(ready_topic(name, part, len(groups)))
            try:
                self._monitors.append(
                    connect(
                        connection,
                        self.endpoint,
                        self._keys,
                        example="tcp://127.0.0.1:5556",
                    )
                )
            except Exception:
                self.close()
                raise
        if self._replay is not None:
            try:
                self._replay.open(self._context)
            except Exception:
                self.close()
                raise

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for monitor in self._monitors:
            monitor.close()
        for connection in self._sockets:
            connection.close(linger=0)
        if self._replay is not None:
            self._replay.close()
        if self._context is not None:
            self._context.term()
        self._sockets, self._monitors, self._context = [], [], None

    def receive(self, timeout: float | None = None) -> Received | None:
        """Return the next message, or None when none came in time.

        Messages that are not as docs/reference/wire.md says are left out and counted.

        Parameters
        ----------
        timeout : float, optional
            Seconds; None waits for ever.
        """
        import zmq

        received = self._next()
        if received is not None or timeout == 0:
            return received
        poller = zmq.Poller()
        for connection in self._connections():
            poller.register(connection, zmq.POLLIN)
        until = None if timeout is None else time.monotonic() + timeout
        while received is None:
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            poller.poll(self._pause_ms(left_s))
            received = self._next()
        return received

    def __iter__(self) -> Iterator[Received]:
        while (received := self.receive(self.timeout)) is not None:
            yield received

    async def __aiter__(self) -> AsyncIterator[Received]:
        import asyncio

        import zmq
        import zmq.asyncio

        poller = zmq.asyncio.Poller()
        for connection in self._connections():
            poller.register(connection, zmq.POLLIN)
        last_s = time.monotonic()
        while True:
            for _ in range(_BURST_LENGTH):
                received = self._next()
                if received is None:
                    break
                yield received
                last_s = time.monotonic()
            else:
                await asyncio.sleep(0)
                continue
            left_s = None
            if self.timeout is not None:
                left_s = last_s + self.timeout - time.monotonic()
                if left_s <= 0:
                    return
            await poller.poll(self._pause_ms(left_s))

    def _subscriptions(self, kinds: frozenset[str]) -> Iterator[bytes]:
        for kind in sorted(kinds):
            if self.streams is None:
                yield prefix(kind).encode()
            else:
                yield from (topic(kind, stream) for stream in sorted(self.streams))

    def _connections(self) -> "Iterator[zmq.Socket[bytes]]":
        yield from self._sockets
        if self._replay is not None:
            yield self._replay.connection

    def _pause_ms(self, left_s: float | None) -> int:
        """Return how long to wait for a message at most, in ms."""
        pause_ms = round(1000 * MONITOR_PERIOD_S) if self._replay is None else _POLL_MS
        return pause_ms if left_s is None else min(pause_ms, ceil(left_s * 1000))

    def _next(self) -> Received | None:
        """Return a message that has arrived, light kinds first, or None."""
        if not self._sockets:
            raise NeurovocalError("the subscriber is not open")
        for monitor in self._monitors:
            monitor.poll()
        while True:
            if self._replay is not None and (past := self._replay.next()) is not None:
                return self._delivered(past)
            received = self._next_live()
            if received is None or self._replay is None:
                return None if received is None else self._delivered(received)
            if received.kind in UNRECORDED_KINDS:
                return self._delivered(received)
            self._replay.put_live(received)

    def _next_live(self) -> Received | None:
        import zmq

        for connection in self._sockets:
            while True:
                try:
                    parts = connection.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                try:
                    header, values = decode(parts)
                except WireError as error:
                    if not self._n_malformed:
                        log.warning(
                            "%s: a message is left out: %s (the next ones are counted)",
                            self.endpoint,
                            printable(str(error)),
                        )
                    self._n_malformed += 1
                    break  # the other connections and commands have their turn
                # A subscription to 'a' also lets 'ab' through.
                if self.streams is None or header.stream in self.streams:
                    return received_of(header, values)
        return None

    def _delivered(self, received: Received) -> Received:
        """Count a message as delivered, with the hole before it."""
        if self._replay is None or received.kind in UNRECORDED_KINDS:
            missed, restarted = self._sequences.check(received)
            received = replace(received, missed=missed, restarted=restarted)
        else:
            key = (received.kind, received.stream)
            self.positions[key] = Position(received.run, received.seq)
        self.received += 1
        self.missed += received.missed.count if received.missed else 0
        return received


def _checked(kinds: Iterable[str]) -> frozenset[str]:
    asked = frozenset([kinds] if isinstance(kinds, str) else kinds)
    unknown = sorted(asked - set(KINDS.values()))
    if unknown or not asked:
        raise ConfigError(
            f"unknown kind '{', '.join(unknown)}': the kinds are "
            + ", ".join(KINDS.values())
        )
    return asked
