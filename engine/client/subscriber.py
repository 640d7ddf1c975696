"""Subscriber: messages of a running engine, typed, counted and resumed."""

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
from neurovocal.engine.client.resume import NOT_KEPT, Key, Position, Start
from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.types import BULK_KINDS, KINDS
from neurovocal.engine.wire.codec import (
    MAX_HEADER,
    MAX_PAYLOAD,
    MAX_SUBSCRIPTION,
    decode,
    prefix,
    ready_topic,
    topic,
)
from neurovocal.engine.wire.keys import use_client_keys
from neurovocal.engine.wire.sockets import LOOK_S, ConnectionMonitor, keep_alive

if TYPE_CHECKING:
    import zmq

# In async iteration, others get their turn after so many messages in a row.
_BURST = 16
# With a replay socket there are questions to ask, also when nothing comes.
_LOOK_MS = 50


class Subscriber:
    """Receives messages; a context manager, iterable with ``for`` and ``async for``.

    Light and bulky kinds come over connections of their own, so that a reader
    who cannot keep up with frames loses no label. Between the two there is no
    order in time: what waits of the light kinds is handed out first.

    Lost messages are reported with the next message of their topic
    (`Received.missed`) and counted in `missed`. The first message that is heard
    of a topic sets the count; after a restart of the engine, counting starts at
    0, so that what was sent while reconnecting counts as missed.

    With `replay`, nothing that the engine's journal keeps is lost: messages that did
    not come, for whatever reason, are asked for and handed out in their place, none
    twice, in the order of their topic. Keep `positions` with what you made of the
    messages, and give them to the next subscriber: it goes on where this one
    stopped, also when it was killed.

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
    replay : str, optional
        Replay socket of the engine's journal (its option ``replay``).
    start : {'now', 'run', 'journal'}
        Where topics without a position begin: with what is sent from now on, with
        the newest run, or with the oldest message in the journal.
    positions : mapping, optional
        `positions` of an earlier subscriber.
    keys : path, optional
        Folder that ``neurovocal keys add`` made, for an engine that asks for keys.

    Attributes
    ----------
    received, missed : int
        Messages so far.
    positions : dict of (kind, stream) to Position
        The last message of each topic that was handed out; kinds that a journal
        does not keep are not in it. With `replay` only.
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
        start: Start = "now",
        positions: Mapping[Key, Position] | None = None,
        keys: str | Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.kinds = _known(kinds)
        # A name alone is meant as one, not as its letters.
        named = [streams] if isinstance(streams, str) else streams
        self.streams = None if named is None else frozenset(named)
        self.timeout = timeout
        self.received = 0
        self.missed = 0
        self._queue_length = queue_length
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._sockets: list[zmq.Socket[bytes]] = []
        self._admissions: list[ConnectionMonitor] = []
        self._sequences = Sequences()
        if replay is None and (start != "now" or positions):
            raise ConfigError(
                "'start' and 'positions' need 'replay': the endpoint of a journal's "
                "replay socket, such as tcp://127.0.0.1:5558"
            )
        if start not in get_args(Start):
            raise ConfigError(
                f"start '{start}' is none of {', '.join(get_args(Start))}: from "
                "when on to receive"
            )
        self.positions: dict[Key, Position] = {
            key: Position(*position) for key, position in (positions or {}).items()
        }
        self._replay = (
            None
            if replay is None
            else ReplayClient(
                replay, self.kinds, self.streams, start, self.positions, keys
            )
        )

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
            # ZeroMQ drops subscriptions that do not fit; there are not many.
            connection.setsockopt(zmq.SNDHWM, 0)
            bulky = group & BULK_KINDS
            most = MAX_PAYLOAD if bulky else MAX_HEADER  # no other part is longer
            connection.setsockopt(zmq.MAXMSGSIZE, most)
            keep_alive(connection)
            for subject in self._subjects(group):
                connection.subscribe(subject[:MAX_SUBSCRIPTION])
            connection.subscribe(ready_topic(name, part, len(groups)))
            try:
                if self._keys is not None:
                    use_client_keys(connection, self._keys)
                keyed = self._keys is not None
                self._admissions.append(
                    ConnectionMonitor(connection, self.endpoint, keyed=keyed)
                )
                connection.connect(self.endpoint)
            except ConfigError:
                self.close()
                raise
            except zmq.ZMQError as error:
                self.close()
                raise ConfigError(
                    f"'{self.endpoint}' is not an endpoint such as "
                    "tcp://127.0.0.1:5556 or ipc:///tmp/neurovocal"
                ) from error
        if self._replay is not None:
            try:
                self._replay.open(self._context)
            except ConfigError:
                self.close()
                raise

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for admission in self._admissions:
            admission.close()
        for connection in self._sockets:
            connection.close(linger=0)
        if self._replay is not None:
            self._replay.close()
        if self._context is not None:
            self._context.term()
        self._sockets, self._admissions, self._context = [], [], None

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
        for connection in self._connections():
            poller.register(connection, zmq.POLLIN)
        until = None if timeout is None else time.monotonic() + timeout
        while received is None:
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                return None
            poller.poll(self._pause_ms(left_s))
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
        for connection in self._connections():
            poller.register(connection, zmq.POLLIN)
        heard_s = time.monotonic()
        while True:
            for _ in range(_BURST):
                received = self._take()
                if received is None:
                    break
                yield received
                heard_s = time.monotonic()
            else:
                await asyncio.sleep(0)
                continue
            left_s = None
            if self.timeout is not None:
                left_s = heard_s + self.timeout - time.monotonic()
                if left_s <= 0:
                    return
            await poller.poll(self._pause_ms(left_s))

    def _subjects(self, kinds: frozenset[str]) -> Iterator[bytes]:
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
        """How long to wait for the connections at most."""
        pause_ms = round(1000 * LOOK_S) if self._replay is None else _LOOK_MS
        return pause_ms if left_s is None else min(pause_ms, ceil(left_s * 1000))

    def _take(self) -> Received | None:
        """Next message that has already come, light kinds first."""
        if not self._sockets:
            raise NeurovocalError("the subscriber is not open")
        for admission in self._admissions:
            admission.look()
        while True:
            if self._replay is not None and (old := self._replay.next()) is not None:
                return self._handed_out(old)
            received = self._next_live()
            if received is None or self._replay is None:
                return None if received is None else self._handed_out(received)
            if received.kind in NOT_KEPT:
                return self._handed_out(received)
            self._replay.live(received)

    def _next_live(self) -> Received | None:
        import zmq

        for connection in self._sockets:
            while True:
                try:
                    parts = connection.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    break
                header, values = decode(parts)
                # A subscription to 'a' also lets 'ab' through.
                if self.streams is None or header.stream in self.streams:
                    return received_of(header, values)
        return None

    def _handed_out(self, received: Received) -> Received:
        """Note what is missing before a message, and that it is the user's now."""
        if self._replay is None or received.kind in NOT_KEPT:
            missed, restarted = self._sequences.check(received)
            received = replace(received, missed=missed, restarted=restarted)
        else:
            key = (received.kind, received.stream)
            self.positions[key] = Position(received.run, received.seq)
        self.received += 1
        self.missed += received.missed.count if received.missed else 0
        return received


def _known(kinds: Iterable[str]) -> frozenset[str]:
    asked = frozenset([kinds] if isinstance(kinds, str) else kinds)
    unknown = sorted(asked - set(KINDS.values()))
    if unknown or not asked:
        raise ConfigError(
            f"unknown kind '{', '.join(unknown)}': the kinds are "
            + ", ".join(KINDS.values())
        )
    return asked
