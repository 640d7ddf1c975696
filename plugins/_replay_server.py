"""The replay socket: hands out what a journal kept to subscribers that missed it.

Requests and replies are described in docs/wire.md, "Getting back what was missed".
"""

import logging
import sqlite3
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from neurovocal.engine.errors import ConfigError, NeurovocalError
from neurovocal.engine.journal import open_to_read
from neurovocal.engine.journal_topics import Page, page_after, topics
from neurovocal.engine.types import KINDS
from neurovocal.engine.wire import encode
from neurovocal.plugins._endpoint import bind
from neurovocal.plugins._guard import Guard

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

VERSION = 1
_MOST_REQUEST_BYTES = 16 * 1024
# Requests, and pages, that may wait in the socket for each connection.
_MOST_WAITING = 16
# Those, what the kernel holds, and the parts of a request that has no end yet.
MOST_UNREAD_BYTES = 2**20
_MOST_PAGE = 1000
_MOST_PAGE_BYTES = 2 * 2**20
_WAIT_MS = 100

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
    answer is bounded, and one request is answered at a time.

    Parameters
    ----------
    endpoint : str
        Where to bind.
    journal : Path
        The journal; it may be removed and made anew.
    keys : Path, optional
        Folder of keys; None: whoever reaches the endpoint may ask.
    """

    def __init__(self, endpoint: str, journal: Path, keys: Path | None = None) -> None:
        self.endpoint = endpoint
        self._guard = Guard(keys, "read")
        self.answered = 0
        self._journal = journal
        self._stopping = Flag()
        self._thread: Thread | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None

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
        self._socket.setsockopt(zmq.SNDHWM, _MOST_WAITING)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_REQUEST_BYTES)
        self._socket.setsockopt(zmq.LINGER, 0)
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
        import zmq

        socket = self._socket
        assert socket is not None
        while not self._stopping.is_set():
            if not socket.poll(_WAIT_MS):
                continue
            frames = socket.recv_multipart(copy=False)
            *envelope, body = self._guard.take(frames)
            if not envelope:
                continue
            try:
                # A connection that does not read its answers loses them.
                socket.send_multipart([*envelope, *self._answer(body)], zmq.DONTWAIT)
                self.answered += 1
            except zmq.ZMQError:
                continue

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
