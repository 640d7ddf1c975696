"""Replay socket of a relay: passes each request to the station that has the stream."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from neurovocal.engine.support.strict_json import JsonError, JsonReader, objects
from neurovocal.engine.wire.codec import MAX_PAYLOAD
from neurovocal.engine.wire.sockets import ConnectionMonitor, connect
from neurovocal.plugins.zeromq.access import AccessControl
from neurovocal.plugins.zeromq.fair_queue import FairQueue, QueuedRequest, RequestCounts
from neurovocal.plugins.zeromq.relay.stations import StreamOwners
from neurovocal.plugins.zeromq.replay_server import DEFAULT_RATE
from neurovocal.plugins.zeromq.request_socket import RequestSocket, id_of, refusal

if TYPE_CHECKING:
    import zmq

_MOST_WAITING = 64
_MOST_PENDING = 1000
_TIMEOUT_S = 10.0
_TOPICS_TIMEOUT_S = 1.0
# Answers about the topics of a large journal are long.
_answers: JsonReader[dict[str, Any]] = JsonReader(dict, most_bytes=MAX_PAYLOAD)


@dataclass(slots=True)
class _Pending:
    """A request that not all stations it was passed to have answered yet."""

    request: QueuedRequest
    id: Any
    asked_s: float
    waiting: set[int] = field(default_factory=set)
    topics: list[Any] = field(default_factory=list)
    # Request for the owner of its stream, which a search for topics has yet to find.
    then: dict[str, Any] | None = None
    reached_all: bool = False

    def is_late(self, now_s: float) -> bool:
        """Return True after its timeout, which is short where some topics are known."""
        is_listing = self.topics and self.then is None
        return now_s - self.asked_s > (_TOPICS_TIMEOUT_S if is_listing else _TIMEOUT_S)

    def topics_answer(self) -> dict[str, Any]:
        """Return the answer with the topics of all stations."""
        return {"v": 1, "id": self.id, "ok": True, "topics": self.topics}


class ReplayRelay:
    """Passes requests on to the station that has the stream.

    It learns which station that is from what the stations publish, and from their
    answers about topics, which it joins into one. While a station is not connected,
    requests for its streams get no answer: after a refusal a subscriber would give up
    what it missed.

    Parameters
    ----------
    endpoint : str
        Endpoint to bind.
    stations : sequence of str or None
        Endpoints of replay sockets, in the order of the stations.
    streams : StreamOwners
        Stations of the known streams.
    station_keys : Path, optional
        Client keys that the stations admit.
    """

    def __init__(
        self,
        endpoint: str,
        stations: Sequence[str | None],
        streams: StreamOwners,
        station_keys: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._station_keys = station_keys
        self._stations = stations
        self._upstream: dict[int, zmq.Socket[bytes]] = {}
        self._monitors: list[ConnectionMonitor] = []
        self._requests: RequestSocket | None = None
        self._pending: dict[int, _Pending] = {}
        self._queue = FairQueue(DEFAULT_RATE)
        self._last_id = 0
        self._streams = streams

    @property
    def counts(self) -> RequestCounts:
        """Counts of requests since the relay was made."""
        return self._queue.counts

    @property
    def sockets(self) -> "list[zmq.Socket[bytes]]":
        """Sockets to be polled."""
        bound = [] if self._requests is None else [self._requests.socket]
        return [*bound, *self._upstream.values()]

    def open(
        self, context: "zmq.Context[zmq.Socket[bytes]]", access: AccessControl
    ) -> None:
        """Bind, and connect to the stations.

        Raises
        ------
        ConfigError
            An endpoint is malformed or in use.
        """
        self._requests = RequestSocket(
            context, access, self.endpoint, self._queue, _MOST_WAITING
        )
        self.endpoint = self._requests.endpoint
        for station, endpoint in enumerate(self._stations):
            if endpoint is not None:
                self._connect(context, station, endpoint)

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for monitor in self._monitors:
            monitor.close()
        for end in self._upstream.values():
            end.close(linger=0)
        if self._requests is not None:
            self._requests.close()
        self._upstream, self._monitors, self._requests = {}, [], None

    def step(self, ready: "Mapping[Any, int]") -> None:
        """Pass on the requests and answers of the sockets that are ready."""
        assert self._requests is not None
        if self._requests.socket in ready:
            self._requests.receive()
        for station, upstream in self._upstream.items():
            if upstream in ready:
                self._receive_answers(station, upstream)
        self._expire()
        for monitor in self._monitors:
            monitor.poll()
        self._requests.cut_stalled()
        while len(self._pending) < _MOST_PENDING:
            request = self._queue.next(time.monotonic())
            if request is None:
                return
            self._forward(request)

    def _connect(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        station: int,
        endpoint: str,
    ) -> None:
        import zmq

        upstream = self._upstream[station] = context.socket(zmq.DEALER)
        upstream.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
        upstream.setsockopt(zmq.SNDHWM, _MOST_WAITING)
        upstream.setsockopt(zmq.IMMEDIATE, 1)
        self._monitors.append(
            connect(
                upstream,
                endpoint,
                self._station_keys,
                example="tcp://station-1:5558",
                awaits_replies=True,
            )
        )

    def _forward(self, request: QueuedRequest) -> None:
        pending = _Pending(request, None, time.monotonic())
        try:
            question = objects.read(request.parts[-1])
        except JsonError:
            head = refusal(id_of(request.parts[-1]), "a request is a JSON object")
            self._reply(pending, head)
            return
        pending.id = question.get("id")
        if question.get("command") == "topics":
            self._send(pending, question, self._upstream)
        else:
            self._ask_owner(pending, question)

    def _ask_owner(self, pending: _Pending, question: dict[str, Any]) -> None:
        """Ask the station that has the stream; if unknown, ask all which one it is."""
        owner = self._streams.owner(str(question.get("stream")))
        if owner is None and len(self._stations) == 1:
            owner = 0
        if owner is None:
            pending.then = question
            search = {"v": 1, "command": "topics", "kinds": [question.get("kind")]}
            self._send(pending, search, self._upstream)
        elif owner in self._upstream:
            self._send(pending, question, [owner])
        else:
            sentence = (
                "the station of that stream has no replay socket: the relay needs"
            )
            self._reply(pending, refusal(pending.id, f"{sentence} --from LIVE,REPLAY"))

    def _send(
        self, pending: _Pending, question: dict[str, Any], stations: Iterable[int]
    ) -> None:
        import zmq

        self._last_id += 1
        text = msgspec.json.encode({**question, "id": self._last_id})
        for station in stations:
            try:
                self._upstream[station].send(text, zmq.DONTWAIT)
            except zmq.Again:
                continue  # that station is not connected
            pending.waiting.add(station)
        pending.reached_all = len(pending.waiting) == len(self._upstream)
        if pending.waiting:
            self._pending[self._last_id] = pending
        else:
            self._queue.failed(pending.request, ended=False)

    def _receive_answers(self, station: int, upstream: "zmq.Socket[bytes]") -> None:
        import zmq

        while True:
            try:
                head, *parts = upstream.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                answer = _answers.read(head)
            except JsonError:
                continue
            self._accept_answer(station, answer, parts)

    def _accept_answer(
        self, station: int, answer: dict[str, Any], parts: list[bytes]
    ) -> None:
        own_id = answer.get("id")
        if not isinstance(own_id, int):
            return
        pending = self._pending.get(own_id)
        if pending is None or station not in pending.waiting:
            return
        pending.waiting.discard(station)
        for topic in _topics_in(answer):
            pending.topics.append(topic)
            self._streams.add_recorded(station, topic[1])
        if pending.waiting:
            return
        del self._pending[own_id]
        if pending.then is not None:
            self._finish_search(pending, pending.then)
            return
        if pending.topics:
            answer = pending.topics_answer()
        head = msgspec.json.encode({**answer, "id": pending.id})
        self._reply(pending, head, *parts)

    def _finish_search(self, pending: _Pending, question: dict[str, Any]) -> None:
        """Ask the owner of a stream once all connected stations sent their topics."""
        pending.then, pending.topics = None, []
        if self._streams.owner(str(question.get("stream"))) is not None:
            self._ask_owner(pending, question)
        elif pending.reached_all:
            self._reply(pending, refusal(pending.id, "no station has that stream"))
        else:
            self._queue.failed(pending.request, ended=False)

    def _expire(self) -> None:
        now_s = time.monotonic()
        late = [n for n, pending in self._pending.items() if pending.is_late(now_s)]
        for own_id in late:
            pending = self._pending.pop(own_id)
            if pending.topics and pending.then is None:
                self._reply(pending, msgspec.json.encode(pending.topics_answer()))
            else:
                self._queue.failed(pending.request, ended=False)

    def _reply(self, pending: _Pending, *parts: bytes) -> None:
        assert self._requests is not None
        if self._requests.begin_answer(pending.request):
            self._requests.end_answer(pending.request, parts)


def _topics_in(answer: dict[str, Any]) -> list[list[str]]:
    found = answer.get("topics")
    if not isinstance(found, list):
        return []
    return [one for one in found if _is_topic(one)]


def _is_topic(found: object) -> bool:
    match found:
        case [str(), str()]:
            return True
    return False
