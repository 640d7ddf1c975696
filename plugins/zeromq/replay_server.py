"""The replay socket: hands out what a journal kept to subscribers that missed it.

Requests and replies are described in docs/wire.md, "Getting back what was missed".
"""

import logging
import sqlite3
import time
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from neurovocal.engine.contracts.errors import ConfigError, NeurovocalError
from neurovocal.engine.contracts.types import KINDS
from neurovocal.engine.journal.pages import Page, page_after, topics
from neurovocal.engine.journal.store import open_to_read
from neurovocal.engine.wire.codec import encode
from neurovocal.plugins.zeromq.access import Guard
from neurovocal.plugins.zeromq.connection_limits import socket_of
from neurovocal.plugins.zeromq.endpoint import bind
from neurovocal.plugins.zeromq.fair_queue import (
    Line,
    Rate,
    TurnCounts,
    Turns,
    begin_answer,
    end_answer,
    prepare,
)

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

VERSION = 1
_MOST_REQUEST_BYTES = 16 * 1024
# Requests that may wait in the socket for each connection; more wait in its line.
_MOST_WAITING = 16
# Requests that are put in line at a time, before the next answer.
_MOST_AT_ONCE = 200
# Those, what the kernel holds, and the parts of a request that has no end yet.
MOST_UNREAD_BYTES = 2**20
_MOST_PAGE = 1000
_MOST_PAGE_BYTES = 2 * 2**20
_WAIT_MS = 100
# When all that wait must wait on, for their rates or their readers.
_BLOCKED_MS = 20
# Of the time, so much at most is spent answering: the run needs the interpreter.
_SHARE = 0.25

# A subscriber to a hundred topics in which nothing happens asks 50 times a second.
USUAL_RATE = Rate(questions=200, bytes=8e6)
TOO_MANY = "too many requests of this connection wait: send it again later"

_Name = Annotated[str, Meta(max_length=4096)]
_Kinds = Annotated[list[_Name], Meta(min_length=1, max_length=32)]


class After(msgspec.Struct, forbid_unknown_fields=True):
    """The last message that a subscriber knows."""

    run: _Name
    seq: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Ask(msgspec.Struct, tag_field="command", kw_only=True):
    """What all requests have."""

    v: Literal[1]
    id: int | _Name | None = None


class Topics(Ask, kw_only=True, tag="topics"):
    """Which kinds and streams there are."""

    kinds: _Kinds


class Replay(Ask, kw_only=True, tag="replay"):
    """Messages of one kind and stream after a position."""

    kind: _Name
    stream: _Name
    after: After | None = None
    start: Literal["run", "journal"] = "journal"
    most: Annotated[int, Meta(ge=1, le=_MOST_PAGE)] = 500


_decoder: msgspec.json.Decoder[Topics | Replay] = msgspec.json.Decoder(Topics | Replay)


class ReplayServer:
    """Answers from a journal, in a thread of its own.

    It reads by a connection of its own, so that neither waits for the other; every
    answer is bounded, one request is answered at a time, and whose it is, `Turns`
    decides. A quarter of the time at most is spent so.

    Parameters
    ----------
    endpoint : str
        Where to bind.
    journal : Path
        The journal; it may be removed and made anew.
    keys : Path, optional
        Folder of keys; None: whoever reaches the endpoint may ask.
    rate : Rate
        How much one connection may ask for.
    """

    def __init__(
        self,
        endpoint: str,
        journal: Path,
        keys: Path | None = None,
        rate: Rate = USUAL_RATE,
    ) -> None:
        self.endpoint = endpoint
        self._guard = Guard(keys, "read")
        self._turns = Turns(rate)
        self._journal = journal
        self._stopping = Flag()
        self._thread: Thread | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    @property
    def counts(self) -> TurnCounts:
        """What became of requests."""
        return self._turns.counts

    def open(self) -> None:
        """Bind and begin to answer.

        Raises
        ------
        ConfigError
            The endpoint is taken, or not this machine's.
        """
        import zmq

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.RCVHWM, _MOST_WAITING)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_REQUEST_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
        prepare(self._socket)
        try:
            self._guard.protect(self._context, self._socket)
            self.endpoint = bind(self._socket, self.endpoint)
            self._guard.watch(self.endpoint, MOST_UNREAD_BYTES)
        except ConfigError:
            self.close()
            raise
        self._stopping.clear()
        self._thread = Thread(target=self._serve, name="nv-replay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering. May be called twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        self._guard.close()
        if self._context is not None:
            self._context.term()
        self._thread = self._socket = self._context = None

    def _serve(self) -> None:
        socket = self._socket
        assert socket is not None
        while not self._stopping.is_set():
            began_s = time.monotonic()
            self._line_up(socket)
            turn = self._turns.next(began_s)
            if turn is None:
                socket.poll(_BLOCKED_MS if self.counts.waiting else _WAIT_MS)
                continue
            self._reply(socket, *turn)
            for line in self._turns.too_much():
                self._guard.end(line.socket, "it does not take its answers")
            spent_s = time.monotonic() - began_s
            self._stopping.wait(spent_s * (1 / _SHARE - 1))

    def _line_up(self, socket: "zmq.Socket[bytes]") -> None:
        """Put what has come in line."""
        import zmq

        for _ in range(_MOST_AT_ONCE):
            try:
                frames = socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.ZMQError:
                return
            parts = self._guard.take(frames)
            now_s = time.monotonic()
            if len(parts) < 2 or self._turns.put(parts, socket_of(frames), now_s):
                continue
            if begin_answer(socket, parts[0]) == "begun":
                end_answer(socket, [*parts[1:-1], _refusal(None, TOO_MANY)])

    def _reply(
        self, socket: "zmq.Socket[bytes]", line: Line, parts: list[bytes]
    ) -> None:
        """Answer, unless nobody would take it."""
        began_s = time.monotonic()
        state = begin_answer(socket, line.name)
        if state != "begun":
            self._turns.failed(line, ended=state == "ended")
            return
        answer = self._answer(parts[-1])
        delivery = end_answer(socket, [*parts[1:-1], *answer])
        size, now_s = sum(map(len, answer)), time.monotonic()
        self._turns.done(line, size, now_s, delivery, now_s - began_s)

    def _answer(self, body: bytes) -> list[bytes]:
        number: object = None
        try:
            request = _decoder.decode(body)
            number = request.id
            return self._found(request)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return [_refusal(number, f"the request cannot be read: {error}")]
        except (NeurovocalError, sqlite3.Error) as error:
            return [_refusal(number, str(error))]
        except Exception:  # nothing that is asked may end the answering
            log.exception("the replay socket failed to answer")
            return [_refusal(number, "the engine failed to answer; see its log")]

    def _found(self, request: Topics | Replay) -> list[bytes]:
        head: dict[str, Any] = {"v": VERSION, "id": request.id, "ok": True}
        connection = open_to_read(self._journal)
        try:
            if isinstance(request, Topics):
                found = topics(connection, request.kinds)
                return [msgspec.json.encode({**head, "topics": found})]
            page = self._page(connection, request)
        finally:
            connection.close()
        head |= {"more": page.more, "messages": len(page.messages)}
        parts = [msgspec.json.encode(head)]
        for run, message in page.messages:
            parts += encode(message, run, None)
        return parts

    def _page(self, connection: sqlite3.Connection, request: Replay) -> Page:
        if request.kind not in KINDS.values():
            known = ", ".join(KINDS.values())
            raise ConfigError(f"unknown kind '{request.kind}' (there are: {known})")
        after = request.after
        return page_after(
            connection,
            (request.kind, request.stream),
            (after.run, after.seq) if after else None,
            newest_run=request.start == "run",
            most=request.most,
            most_bytes=_MOST_PAGE_BYTES,
        )


def _refusal(number: object, sentence: str) -> bytes:
    return msgspec.json.encode(
        {"v": VERSION, "id": number, "ok": False, "error": " ".join(sentence.split())}
    )
