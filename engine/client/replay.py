"""Asks a replay socket for what a subscriber missed."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from neurovocal.engine.client.received import Received, received_of
from neurovocal.engine.client.resume import Key, Position, Resumer, Start
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.text import printable
from neurovocal.engine.wire.codec import MAX_PAYLOAD, WireError, decode
from neurovocal.engine.wire.keys import use_client_keys
from neurovocal.engine.wire.sockets import ConnectionMonitor, keep_alive

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

_PARTS = 3  # of a message
# Questions that wait for an engine that is not there.
_MOST_WAITING = 100
# So long without an answer that is waited for, the user is told.
_PATIENCE_S = 5.0
_SHOWN = 200  # letters of what a stranger says


class _Reply(msgspec.Struct):
    """Head of a reply; docs/wire.md."""

    ok: bool
    id: int | None = None
    error: str = ""
    topics: list[tuple[str, str]] | None = None
    more: bool = False


class ReplayClient:
    """The asking side of a replay socket; `Subscriber` owns one.

    Parameters
    ----------
    endpoint : str
        Where the journal answers, such as ``tcp://127.0.0.1:5558``.
    kinds, streams, start, positions
        See `Resumer`.
    keys : path, optional
        Folder of the client's keys.
    """

    def __init__(
        self,
        endpoint: str,
        kinds: frozenset[str],
        streams: frozenset[str] | None,
        start: Start,
        positions: Mapping[Key, Position],
        keys: str | Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._keys = keys
        self._resumer = Resumer(kinds, streams, start, positions)
        self._socket: zmq.Socket[bytes] | None = None
        self._unanswered_s: float | None = None  # since when
        self._told = ""
        self._admission: ConnectionMonitor | None = None

    @property
    def connection(self) -> "zmq.Socket[bytes]":
        """The open socket, to be polled."""
        assert self._socket is not None
        return self._socket

    def open(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """Connect; ConfigError when the endpoint is malformed."""
        import zmq

        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
        self._socket.setsockopt(zmq.SNDHWM, _MOST_WAITING)
        # A question to an engine that is not there would only be answered twice.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        keep_alive(self._socket, asks=True)
        if self._keys is not None:
            use_client_keys(self._socket, self._keys)
        keyed = self._keys is not None
        self._admission = ConnectionMonitor(self._socket, self.endpoint, keyed=keyed)
        try:
            self._socket.connect(self.endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"'{self.endpoint}' is not an endpoint such as tcp://127.0.0.1:5558"
            ) from error

    def close(self) -> None:
        """Disconnect. May be called twice."""
        if self._admission is not None:
            self._admission.close()
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = self._admission = None

    def live(self, message: Received) -> None:
        """Take a message as it happens; `next` hands it out when it is its turn."""
        self._resumer.live(message, time.monotonic())

    def next(self) -> Received | None:
        """The next message in its right order, if there is one by now."""
        if not self._resumer.ready:
            self._listen()
            self._ask()
        return self._resumer.ready.popleft() if self._resumer.ready else None

    def _ask(self) -> None:
        import zmq

        assert self._admission is not None
        self._admission.look()
        now_s = time.monotonic()
        self._complain(now_s)
        if not self.connection.poll(0, zmq.POLLOUT):
            return  # nobody is there yet, or any more
        for question in self._resumer.questions(now_s):
            try:
                self.connection.send(msgspec.json.encode(question), zmq.DONTWAIT)
            except zmq.Again:
                return  # more than wait in line: they are asked again

    def _complain(self, now_s: float) -> None:
        """Tell once that what was missed is waited for in vain."""
        if not self._resumer.waiting:
            self._unanswered_s = None
        elif self._unanswered_s is None:
            self._unanswered_s = now_s
        elif now_s - self._unanswered_s > _PATIENCE_S:
            self._tell("does not answer: messages wait for those before them")

    def _tell(self, what: str) -> None:
        if what != self._told:
            self._told = what
            log.warning(
                "the replay socket %s %s (is it the 'replay' endpoint of the engine's "
                "journal, or of a relay?)",
                self.endpoint,
                what,
            )

    def _listen(self) -> None:
        import zmq

        while True:
            try:
                head, *parts = self.connection.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._hear(_reply_of(head), parts)

    def _hear(self, reply: _Reply, parts: list[bytes]) -> None:
        self._unanswered_s = None
        if not reply.ok:
            # No journal yet, or a disk in trouble: the question is asked again.
            if reply.id is not None:
                self._resumer.refused(reply.id, time.monotonic())
            self._tell(f"refuses: {printable(reply.error[:_SHOWN])}")
            return
        self._told = ""
        if reply.id is None:
            return
        if reply.topics is not None:
            self._resumer.topics(reply.id, reply.topics)
            return
        if len(parts) % _PARTS:
            raise WireError(f"a reply of {len(parts)} parts is not made of messages")
        messages = [
            received_of(*decode(parts[first : first + _PARTS]), replayed=True)
            for first in range(0, len(parts), _PARTS)
        ]
        self._resumer.page(reply.id, messages, more=reply.more, now_s=time.monotonic())


def _reply_of(head: bytes) -> _Reply:
    try:
        return msgspec.json.decode(head, type=_Reply)
    except msgspec.MsgspecError as error:
        raise WireError(f"the replay socket's reply cannot be read: {error}") from error
