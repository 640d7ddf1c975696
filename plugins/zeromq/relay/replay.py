"""The relay's side of the replay socket: questions go to the right station."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.wire.codec import MAX_PAYLOAD
from neurovocal.engine.wire.keys import use_client_keys
from neurovocal.engine.wire.sockets import ConnectionMonitor, keep_alive
from neurovocal.plugins.zeromq.access import Guard
from neurovocal.plugins.zeromq.connection_limits import socket_of
from neurovocal.plugins.zeromq.endpoint import bind
from neurovocal.plugins.zeromq.fair_queue import (
    Line,
    TurnCounts,
    Turns,
    begin_answer,
    end_answer,
    prepare,
)
from neurovocal.plugins.zeromq.relay.stations import Streams
from neurovocal.plugins.zeromq.replay_server import (
    MOST_UNREAD_BYTES,
    TOO_MANY,
    USUAL_RATE,
)

if TYPE_CHECKING:
    import zmq

_MOST_REQUEST_BYTES = 16 * 1024
_MOST_WAITING = 64
_MOST_PENDING = 1000
# Questions of one connection that are with the stations at a time.
_MOST_UNDER_WAY = 16
# Questions that are put in line at a time.
_MOST_AT_ONCE = 200
_PATIENCE_S = 10.0
_LISTING_S = 1.0
_NO_REPLAY = "that station has no replay socket: the relay needs --from LIVE,REPLAY"


@dataclass(slots=True)
class _Pending:
    """A question that stations have not all answered yet."""

    line: Line
    envelope: list[bytes]
    id: Any
    asked_s: float
    waiting: set[int]
    topics: list[Any] = field(default_factory=list)
    # What the station that turns out to have it is asked; whether all were searched.
    then: dict[str, Any] | None = None
    everywhere: bool = False

    def is_late(self, now_s: float) -> bool:
        """Whether it is over; who asks for topics is told those that are known soon."""
        listing = self.topics and self.then is None
        return now_s - self.asked_s > (_LISTING_S if listing else _PATIENCE_S)


class ReplayRelay:
    """Hands questions on to the station that has the stream.

    Which station that is, it learns from what stations publish, and from their own
    answers about topics, which it puts together into one. As long as a station is not
    there, questions about its streams have no answer: a refusal would say that what is
    missing is nowhere.

    Parameters
    ----------
    endpoint : str
        Where to bind.
    stations : sequence of str or None
        Replay sockets, in the order of the stations.
    streams : Streams
        What the relay knows of who has which stream.
    station_keys : Path, optional
        Keys by which the stations let the relay in.
    """

    def __init__(
        self,
        endpoint: str,
        stations: Sequence[str | None],
        streams: Streams,
        station_keys: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._station_keys = station_keys
        self._stations = stations
        self._front: dict[int, zmq.Socket[bytes]] = {}
        self._admissions: list[ConnectionMonitor] = []
        self._back: zmq.Socket[bytes] | None = None
        self._guard: Guard | None = None
        self._pending: dict[int, _Pending] = {}
        self._turns = Turns(USUAL_RATE, _MOST_UNDER_WAY)
        self._number = 0
        self._streams = streams

    @property
    def counts(self) -> TurnCounts:
        """What became of questions."""
        return self._turns.counts

    @property
    def ends(self) -> "list[zmq.Socket[bytes]]":
        """Sockets to be polled."""
        return [*([self._back] if self._back else []), *self._front.values()]

    def open(self, context: "zmq.Context[zmq.Socket[bytes]]", guard: Guard) -> None:
        """Bind and connect; ConfigError when an endpoint is malformed or taken."""
        import zmq

        self._back = context.socket(zmq.ROUTER)
        self._back.setsockopt(zmq.MAXMSGSIZE, _MOST_REQUEST_BYTES)
        prepare(self._back)
        self._back.setsockopt(zmq.RCVHWM, _MOST_WAITING)
        guard.protect(context, self._back)
        self.endpoint = bind(self._back, self.endpoint)
        guard.watch(self.endpoint, MOST_UNREAD_BYTES)
        self._guard = guard
        for number, station in enumerate(self._stations):
            if station is None:
                continue
            end = self._front[number] = context.socket(zmq.DEALER)
            end.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
            end.setsockopt(zmq.SNDHWM, _MOST_WAITING)
            end.setsockopt(zmq.IMMEDIATE, 1)
            keep_alive(end, asks=True)
            if self._station_keys is not None:
                use_client_keys(end, self._station_keys)
            keyed = self._station_keys is not None
            self._admissions.append(ConnectionMonitor(end, station, keyed=keyed))
            try:
                end.connect(station)
            except zmq.ZMQError as error:
                raise ConfigError(
                    f"'{station}' is not an endpoint such as tcp://station-1:5558"
                ) from error

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for admission in self._admissions:
            admission.close()
        for end in self.ends:
            end.close(linger=0)
        self._front, self._admissions, self._back = {}, [], None

    def step(self, ready: "Mapping[Any, int]") -> None:
        """Pass on what has come."""
        if self._back is not None and self._back in ready:
            self._line_up(self._back)
        for number, end in self._front.items():
            if end in ready:
                self._take_answers(number, end)
        self._expire()
        for admission in self._admissions:
            admission.look()
        for line in self._turns.too_much():
            assert self._guard is not None
            self._guard.end(line.socket, "it does not take its answers")
        while len(self._pending) < _MOST_PENDING:
            turn = self._turns.next(time.monotonic())
            if turn is None:
                return
            self._ask(*turn)

    def _line_up(self, back: "zmq.Socket[bytes]") -> None:
        """Put questions that have come in line."""
        import zmq

        assert self._guard is not None
        for _ in range(_MOST_AT_ONCE):
            try:
                frames = back.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.ZMQError:
                return
            parts = self._guard.take(frames)
            now_s = time.monotonic()
            if len(parts) < 2 or self._turns.put(parts, socket_of(frames), now_s):
                continue
            if begin_answer(back, parts[0]) == "begun":
                end_answer(back, [*parts[1:-1], _refusal(None, TOO_MANY)])

    def _ask(self, line: Line, parts: list[bytes]) -> None:
        *envelope, body = parts
        own = _Pending(line, envelope, None, time.monotonic(), set())
        try:
            question = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._reply(own, _refusal(None, "a request is a JSON object"))
            return
        own.id = question.get("id")
        if question.get("command") == "topics":
            self._hand_on(own, question, self._front)
        else:
            self._ask_owner(own, question)

    def _ask_owner(self, own: _Pending, question: dict[str, Any]) -> None:
        """Ask the station that has the stream; all of them who that is, if need be."""
        owner = self._streams.owner(str(question.get("stream")))
        if owner is None and len(self._stations) == 1:
            owner = 0
        if owner is None:
            own.then = question
            search = {"v": 1, "command": "topics", "kinds": [question.get("kind")]}
            self._hand_on(own, search, self._front)
        elif owner in self._front:
            self._hand_on(own, question, [owner])
        else:
            sentence = (
                "the station of that stream has no replay socket: the relay needs"
            )
            self._reply(own, _refusal(own.id, f"{sentence} --from LIVE,REPLAY"))

    def _hand_on(
        self, own: _Pending, question: dict[str, Any], targets: Iterable[int]
    ) -> None:
        import zmq

        self._number += 1
        text = msgspec.json.encode({**question, "id": self._number})
        for number in targets:
            try:
                self._front[number].send(text, zmq.DONTWAIT)
            except zmq.Again:
                continue  # that station is not there
            own.waiting.add(number)
        own.everywhere = len(own.waiting) == len(self._front)
        if own.waiting:
            self._pending[self._number] = own
        else:
            self._turns.failed(own.line, ended=False)

    def _take_answers(self, number: int, end: "zmq.Socket[bytes]") -> None:
        import zmq

        while True:
            try:
                head, *parts = end.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                answer = msgspec.json.decode(head, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                continue
            self._answered(number, answer, parts)

    def _answered(
        self, number: int, answer: dict[str, Any], parts: list[bytes]
    ) -> None:
        own = answer.get("id")
        if not isinstance(own, int):
            return
        asked = self._pending.get(own)
        if asked is None or number not in asked.waiting:
            return
        asked.waiting.discard(number)
        for topic in _topics_in(answer):
            asked.topics.append(topic)
            self._streams.keeps(number, topic[1])
        if asked.waiting:
            return
        del self._pending[own]
        if asked.then is not None:
            self._found(asked, asked.then)
            return
        if asked.topics:
            answer = _topics_answer(asked)
        head = msgspec.json.encode({**answer, "id": asked.id})
        self._reply(asked, head, *parts)

    def _found(self, asked: _Pending, question: dict[str, Any]) -> None:
        """All stations that are there have said what they have."""
        asked.then, asked.topics = None, []
        if self._streams.owner(str(question.get("stream"))) is not None:
            self._ask_owner(asked, question)
        elif asked.everywhere:
            self._reply(asked, _refusal(asked.id, "no station has that stream"))
        else:
            self._turns.failed(asked.line, ended=False)

    def _expire(self) -> None:
        now_s = time.monotonic()
        gone = [n for n, asked in self._pending.items() if asked.is_late(now_s)]
        for number in gone:
            asked = self._pending.pop(number)
            if asked.topics and asked.then is None:
                self._reply(asked, msgspec.json.encode(_topics_answer(asked)))
            else:
                self._turns.failed(asked.line, ended=False)

    def _reply(self, asked: _Pending, *parts: bytes) -> None:
        """Send an answer, unless who asked has gone, or does not read."""
        assert self._back is not None
        state = begin_answer(self._back, asked.line.name)
        if state != "begun":
            self._turns.failed(asked.line, ended=state == "ended")
            return
        delivery = end_answer(self._back, [*asked.envelope[1:], *parts])
        now_s = time.monotonic()
        self._turns.done(asked.line, sum(map(len, parts)), now_s, delivery)


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


def _topics_answer(asked: _Pending) -> dict[str, Any]:
    return {"v": 1, "id": asked.id, "ok": True, "topics": asked.topics}


def _refusal(name: object, sentence: str) -> bytes:
    answer = {"v": 1, "id": name, "ok": False, "error": sentence}
    return msgspec.json.encode(answer)
