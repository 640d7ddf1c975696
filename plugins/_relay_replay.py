"""The relay's side of the replay socket: questions go to the right station."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.keys import use_client_keys
from neurovocal.engine.wire import MAX_PAYLOAD
from neurovocal.plugins._endpoint import bind
from neurovocal.plugins._guard import Guard
from neurovocal.plugins._replay_server import MOST_UNREAD_BYTES

if TYPE_CHECKING:
    import zmq

_MOST_REQUEST_BYTES = 16 * 1024
_MOST_WAITING = 64
_MOST_PENDING = 1000
_PATIENCE_S = 10.0
_MOST_STREAMS = 10_000


@dataclass(slots=True)
class _Pending:
    """A question that stations have not all answered yet."""

    envelope: list[bytes]
    id: Any
    asked_s: float
    waiting: set[int]
    topics: list[Any] = field(default_factory=list)


class ReplayRelay:
    """Hands questions on to the station that has the stream.

    Which station that is, it learns from what stations publish, and from their own
    answers about topics, which it puts together into one.

    Parameters
    ----------
    endpoint : str
        Where to bind.
    stations : sequence of str or None
        Replay sockets, in the order of the stations.
    station_keys : Path, optional
        Keys by which the stations let the relay in.
    """

    def __init__(
        self,
        endpoint: str,
        stations: Sequence[str | None],
        station_keys: Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._station_keys = station_keys
        self._stations = stations
        self._front: dict[int, zmq.Socket[bytes]] = {}
        self._back: zmq.Socket[bytes] | None = None
        self._guard: Guard | None = None
        self._pending: dict[int, _Pending] = {}
        self._number = 0
        self._owners: dict[str, int] = {}

    @property
    def ends(self) -> "list[zmq.Socket[bytes]]":
        """Sockets to be polled."""
        return [*([self._back] if self._back else []), *self._front.values()]

    def open(self, context: "zmq.Context[zmq.Socket[bytes]]", guard: Guard) -> None:
        """Bind and connect; ConfigError when an endpoint is malformed or taken."""
        import zmq

        self._back = context.socket(zmq.ROUTER)
        self._back.setsockopt(zmq.MAXMSGSIZE, _MOST_REQUEST_BYTES)
        self._back.setsockopt(zmq.SNDHWM, _MOST_WAITING)
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
            if self._station_keys is not None:
                use_client_keys(end, self._station_keys)
            try:
                end.connect(station)
            except zmq.ZMQError as error:
                raise ConfigError(
                    f"'{station}' is not an endpoint such as tcp://station-1:5558"
                ) from error

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for end in self.ends:
            end.close(linger=0)
        self._front, self._back = {}, None

    def learn(self, station: int, topic_stream: bytes) -> None:
        """Note that a stream, as written in a topic, is of a station."""
        name = unquote_to_bytes(topic_stream).decode("utf-8", "replace")
        if name in self._owners or len(self._owners) < _MOST_STREAMS:
            self._owners[name] = station

    def step(self, ready: "Mapping[Any, int]") -> None:
        """Pass on what has come."""
        if self._back in ready:
            self._take_questions()
        for number, end in self._front.items():
            if end in ready:
                self._take_answers(number, end)
        self._expire()

    def _take_questions(self) -> None:
        import zmq

        assert self._back is not None
        while True:
            try:
                frames = self._back.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            assert self._guard is not None
            *envelope, body = self._guard.take(frames)
            if envelope:
                self._ask(envelope, body)

    def _ask(self, envelope: list[bytes], body: bytes) -> None:
        import zmq

        try:
            question = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._reply(envelope, _refusal(None, "a request is a JSON object"))
            return
        name = question.get("id")
        targets = self._targets(question)
        if not targets or len(self._pending) >= _MOST_PENDING:
            self._reply(envelope, _refusal(name, "no station can be asked for that"))
            return
        self._number += 1
        asked = _Pending(envelope, name, time.monotonic(), set())
        for number in targets:
            text = msgspec.json.encode({**question, "id": self._number})
            try:
                self._front[number].send(text, zmq.DONTWAIT)
            except zmq.Again:
                continue  # that station is not there
            asked.waiting.add(number)
        if asked.waiting:
            self._pending[self._number] = asked
        else:
            self._reply(envelope, _refusal(name, "the station does not answer"))

    def _targets(self, question: dict[str, Any]) -> list[int]:
        if question.get("command") == "topics":
            return list(self._front)
        owner = self._owners.get(str(question.get("stream")))
        if owner is None and len(self._front) == 1:
            return list(self._front)
        return [owner] if owner in self._front and owner is not None else []

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
        if "topics" in answer:
            asked.topics += answer["topics"]
            for _, stream in answer["topics"]:
                self._owners.setdefault(str(stream), number)
            answer = {**answer, "topics": asked.topics}
        if not asked.waiting:
            del self._pending[own]
            head = msgspec.json.encode({**answer, "id": asked.id})
            self._reply(asked.envelope, head, *parts)

    def _expire(self) -> None:
        late = time.monotonic() - _PATIENCE_S
        gone = [n for n, asked in self._pending.items() if asked.asked_s < late]
        for number in gone:
            asked = self._pending.pop(number)
            if asked.topics:
                answer = {"v": 1, "id": asked.id, "ok": True, "topics": asked.topics}
                self._reply(asked.envelope, msgspec.json.encode(answer))
            else:
                sentence = "the station does not answer"
                self._reply(asked.envelope, _refusal(asked.id, sentence))

    def _reply(self, envelope: list[bytes], *parts: bytes) -> None:
        import zmq

        assert self._back is not None
        try:
            self._back.send_multipart([*envelope, *parts], zmq.DONTWAIT)
        except zmq.ZMQError:
            return  # who asked has gone, or does not read


def _refusal(name: object, sentence: str) -> bytes:
    answer = {"v": 1, "id": name, "ok": False, "error": sentence}
    return msgspec.json.encode(answer)
