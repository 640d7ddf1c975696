"""Client of the replay socket: fetches messages that a subscriber did not get."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from neurovocal.engine.client.received import Received, received_of
from neurovocal.engine.client.resume import Position, Resumer, StartPoint, TopicKey
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.engine.support.text import printable
from neurovocal.engine.wire.codec import MAX_PAYLOAD, WireError, decode
from neurovocal.engine.wire.sockets import ConnectionMonitor, connect

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

_PARTS = 3  # of a message
# Requests in the socket's queue at most.
_MOST_QUEUED = 100
# A warning is logged when a request has had no reply for so long.
_REPLY_TIMEOUT_S = 5.0
_MOST_ERROR_CHARS = 200  # of a peer's error that are logged


class _Reply(msgspec.Struct):
    """First part of a reply (docs/reference/wire.md)."""

    ok: bool
    id: int | None = None
    error: str = ""
    topics: list[tuple[str, str]] | None = None
    more: bool = False


# Answers about the topics of a large journal are long.
_replies = JsonReader(_Reply, most_bytes=MAX_PAYLOAD)


class ReplayClient:
    """Client of a replay socket, owned by a `Subscriber`.

    Parameters
    ----------
    endpoint : str
        Replay socket of the journal, such as ``tcp://127.0.0.1:5558``.
    kinds, streams, start, positions
        As for `Resumer`.
    keys : path, optional
        Folder of the client's keys.
    log_silence : bool
        Whether a socket that sends nothing is logged; `problem` tells it anyway.
    """

    def __init__(
        self,
        endpoint: str,
        kinds: frozenset[str],
        streams: frozenset[str] | None,
        start: StartPoint,
        positions: Mapping[TopicKey, Position],
        keys: str | Path | None = None,
        *,
        log_silence: bool = True,
    ) -> None:
        self.endpoint = endpoint
        self._log_silence = log_silence
        self._keys = keys
        self._resumer = Resumer(kinds, streams, start, positions)
        self._socket: zmq.Socket[bytes] | None = None
        self._unanswered_s: float | None = None  # when the wait for a reply began
        self.malformed = 0  # replies that were left out
        # Why nothing comes, as it was logged last; empty while replies come.
        self.problem = ""
        self._monitor: ConnectionMonitor | None = None

    @property
    def connection(self) -> "zmq.Socket[bytes]":
        """The open socket, for pollers."""
        assert self._socket is not None
        return self._socket

    def open(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """Connect to the replay socket.

        Raises
        ------
        ConfigError
            The endpoint is malformed, or the keys cannot be read.
        """
        import zmq

        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
        self._socket.setsockopt(zmq.SNDHWM, _MOST_QUEUED)
        # A request that was queued for an absent engine would be answered twice.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._monitor = connect(
            self._socket,
            self.endpoint,
            self._keys,
            example="tcp://127.0.0.1:5558",
            awaits_replies=True,
        )

    def close(self) -> None:
        """Disconnect. May be called twice."""
        if self._monitor is not None:
            self._monitor.close()
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket = self._monitor = None

    def put_live(self, message: Received) -> None:
        """Add a live message; `next` returns it after those that precede it."""
        self._resumer.put_live(message, time.monotonic())

    def next(self) -> Received | None:
        """Return the next message in order, or None while there is none."""
        if not self._resumer.ready:
            self._read_replies()
            self._send_requests()
        return self._resumer.ready.popleft() if self._resumer.ready else None

    def _send_requests(self) -> None:
        import zmq

        assert self._monitor is not None
        self._monitor.poll()
        now_s = time.monotonic()
        self._check_timeout(now_s)
        if not self.connection.poll(0, zmq.POLLOUT):
            return  # not connected
        for request in self._resumer.requests(now_s):
            try:
                self.connection.send(msgspec.json.encode(request), zmq.DONTWAIT)
            except zmq.Again:
                return  # the queue is full: the resumer repeats the request

    def _check_timeout(self, now_s: float) -> None:
        """Log once that requests get no reply."""
        if not self._resumer.waiting:
            self._unanswered_s = None
        elif self._unanswered_s is None:
            self._unanswered_s = now_s
        elif now_s - self._unanswered_s > _REPLY_TIMEOUT_S:
            self._log_once("does not answer: messages wait for those before them")

    def _log_once(self, what: str) -> None:
        problem = (
            f"the replay socket {self.endpoint} {what} (is it the 'replay' endpoint of "
            "the engine's journal, or of a relay?)"
        )
        if problem != self.problem:
            self.problem = problem
            if self._log_silence:
                log.warning("%s", problem)

    def _read_replies(self) -> None:
        import zmq

        while True:
            try:
                head, *parts = self.connection.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                self._process(_reply_of(head), parts)
            except WireError as error:
                self.malformed += 1
                self._log_once(f"sends what is no reply: {printable(str(error))}")

    def _process(self, reply: _Reply, parts: list[bytes]) -> None:
        self._unanswered_s = None
        if not reply.ok:
            # No journal yet, or a failing disk: the request is repeated.
            if reply.id is not None:
                self._resumer.put_refusal(reply.id, time.monotonic())
            self._log_once(f"refuses: {printable(reply.error[:_MOST_ERROR_CHARS])}")
            return
        self.problem = ""
        if reply.id is None:
            return
        if reply.topics is not None:
            self._resumer.put_topics(reply.id, reply.topics)
            return
        if len(parts) % _PARTS:
            raise WireError(f"a reply of {len(parts)} parts is not made of messages")
        messages = [
            received_of(*decode(parts[first : first + _PARTS]), replayed=True)
            for first in range(0, len(parts), _PARTS)
        ]
        self._resumer.put_page(
            reply.id, messages, more=reply.more, now_s=time.monotonic()
        )


def _reply_of(head: bytes) -> _Reply:
    try:
        return _replies.read(head)
    except JsonError as error:
        raise WireError(f"the replay socket's reply cannot be read: {error}") from error
