"""Replay socket: answers subscribers' requests for missed messages from a journal.

Requests and replies: docs/reference/wire.md, "Replaying missed messages".
"""

import logging
import sqlite3
import time
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from neurovocal.engine import KINDS, ConfigError, NeurovocalError
from neurovocal.engine.journal.pages import Page, page_after, topics
from neurovocal.engine.journal.store import open_to_read
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.engine.wire.codec import encode
from neurovocal.plugins.zeromq.access import AccessControl
from neurovocal.plugins.zeromq.fair_queue import FairQueue, Rate, RequestCounts
from neurovocal.plugins.zeromq.request_socket import RequestSocket, id_of, refusal

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

VERSION = 1
# Requests of each connection that may wait in the socket; more wait in its queue.
_MOST_WAITING = 16
_MOST_PAGE = 1000
_MOST_PAGE_BYTES = 2 * 2**20
_WAIT_MS = 100
# While all connections with requests wait for their rates or their readers.
_BLOCKED_MS = 20
# Largest share of the time that is spent on answers: the run needs the interpreter.
_SHARE = 0.25

# A subscriber to a hundred topics in which nothing happens asks 50 times a second.
DEFAULT_RATE = Rate(requests=200, bytes=8e6)

_Name = Annotated[str, Meta(max_length=4096)]
_Kinds = Annotated[list[_Name], Meta(min_length=1, max_length=32)]


class After(msgspec.Struct, forbid_unknown_fields=True):
    """Position of the last message that a subscriber has."""

    run: _Name
    seq: Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Command(msgspec.Struct, tag_field="command", kw_only=True):
    """Fields that all requests have."""

    v: Literal[1]
    id: int | _Name | None = None


class Topics(_Command, kw_only=True, tag="topics"):
    """Request for the kinds and streams in the journal."""

    kinds: _Kinds


class Replay(_Command, kw_only=True, tag="replay"):
    """Request for messages of one kind and stream after a position."""

    kind: _Name
    stream: _Name
    after: After | None = None
    start: Literal["run", "journal"] = "journal"
    most: Annotated[int, Meta(ge=1, le=_MOST_PAGE)] = 500


_requests: JsonReader[Topics | Replay] = JsonReader(
    cast("type[Topics | Replay]", Topics | Replay)
)


class ReplayServer:
    """Thread that answers requests from a journal, one at a time.

    It reads by a database connection of its own, so that neither waits for the other.
    Answers are bounded, `FairQueue` orders the requests, and a quarter of the time at
    most is spent on them.

    Parameters
    ----------
    endpoint : str
        Endpoint to bind.
    journal : Path
        The journal; it may be replaced while the server runs.
    keys : Path, optional
        Folder of keys; None: every peer that reaches the endpoint may ask.
    rate : Rate
        Rate of each connection.
    """

    def __init__(
        self,
        endpoint: str,
        journal: Path,
        keys: Path | None = None,
        rate: Rate = DEFAULT_RATE,
    ) -> None:
        self.endpoint = endpoint
        self._access = AccessControl(keys, "read")
        self._queue = FairQueue(rate)
        self._journal = journal
        self._stopping = Flag()
        self._thread: Thread | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: RequestSocket | None = None

    @property
    def counts(self) -> RequestCounts:
        """Counts of requests since the server was made."""
        return self._queue.counts

    def open(self) -> None:
        """Bind and start the thread.

        Raises
        ------
        ConfigError
            The endpoint is in use, or not one of this machine.
        """
        import zmq

        self._context = zmq.Context()
        try:
            self._socket = RequestSocket(
                self._context, self._access, self.endpoint, self._queue, _MOST_WAITING
            )
        except ConfigError:
            self.close()
            raise
        self.endpoint = self._socket.endpoint
        self._stopping.clear()
        self._thread = Thread(target=self._serve, name="nv-replay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering. May be called twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._access.stop()
        if self._socket is not None:
            self._socket.close()
        self._access.close()
        if self._context is not None:
            self._context.term()
        self._thread = self._socket = self._context = None

    def _serve(self) -> None:
        requests = self._socket
        assert requests is not None
        while not self._stopping.is_set():
            began_s = time.monotonic()
            requests.receive()
            request = self._queue.next(began_s)
            if request is None:
                pause_ms = _BLOCKED_MS if self.counts.waiting else _WAIT_MS
                requests.socket.poll(pause_ms)
                continue
            if requests.begin_answer(request):
                requests.end_answer(request, self._answer(request.parts[-1]))
            requests.cut_stalled()
            spent_s = time.monotonic() - began_s
            self._stopping.wait(spent_s * (1 / _SHARE - 1))

    def _answer(self, body: bytes) -> list[bytes]:
        try:
            return self._execute(_requests.read(body))
        except JsonError as error:
            sentence = f"the request cannot be read: {error}"
        except (NeurovocalError, sqlite3.Error) as error:
            sentence = str(error)
        except Exception:  # no request may end the thread
            log.exception("the replay socket failed to answer")
            sentence = "the engine failed to answer; see its log"
        return [refusal(id_of(body), sentence)]

    def _execute(self, request: Topics | Replay) -> list[bytes]:
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
