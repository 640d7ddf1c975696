"""Many stations to many subscribers: one place to subscribe to, and to ask."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import KINDS
from neurovocal.engine.support.text import printable
from neurovocal.engine.wire.codec import MAX_PAYLOAD, WireError, prefix
from neurovocal.engine.wire.keys import use_client_keys
from neurovocal.engine.wire.sockets import ConnectionMonitor, keep_alive
from neurovocal.plugins.zeromq.access import Guard
from neurovocal.plugins.zeromq.endpoint import bind
from neurovocal.plugins.zeromq.relay.replay import ReplayRelay
from neurovocal.plugins.zeromq.relay.stations import Station, Streams, stream_of
from neurovocal.plugins.zeromq.subscribers import (
    MOST_WAITING,
    TOPIC_MOST_BYTES,
    TOPICS_MOST_BYTES,
    TOPICS_PER_S,
)

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

_QUEUE_LENGTH = 10_000
# Kinds of which the last message of each stream is kept for those who come late.
_KEPT_KINDS = ("anchor", "health", "stats")
_MOST_KEPT = 10_000
_MOST_KEPT_BYTES = 32 * 1024
# A topic is repeated for late ones no more often than this.
_REPEAT_S = 1.0
_MOST_TOLD = 100
_SUBSCRIBE = 1
# Half of what a station lets one subscriber name.
_WHOLE_KINDS = frozenset(prefix(kind).encode() for kind in KINDS.values())
_TOPIC_BYTES = 48  # on the wire, beside its name
_TOPICS_BYTES = TOPICS_MOST_BYTES // 2
# Messages of one station in a row, before the others have their turn.
_BURST = 200
_BLOCKED_S = 0.02


class Relay:
    """Passes on what stations publish, and hands on what subscribers ask.

    Only what somebody subscribed to is fetched from the stations, once for all. A
    subscriber that does not read loses messages of its own and costs the others
    nothing, as with an engine.

    Parameters
    ----------
    stations : sequence of Station
    publish : str
        Endpoint to bind for subscribers.
    replay : str or None
        Endpoint to bind for those who ask for what they missed.
    keys : Path, optional
        The relay's own keys, as an engine's: whom it lets in.
    station_keys : Path, optional
        Keys by which the stations let the relay in.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        publish: str,
        replay: str | None = None,
        *,
        keys: Path | None = None,
        station_keys: Path | None = None,
    ) -> None:
        self.endpoint = publish
        self.forwarded = 0
        self.left_out = 0
        self._stations = stations
        self._streams = Streams()
        self._told: set[tuple[int, str]] = set()
        self._replay = (
            None
            if replay is None
            else ReplayRelay(
                replay,
                [station.replay for station in stations],
                self._streams,
                station_keys,
            )
        )
        self._guard = Guard(keys, "read")
        self._station_keys = station_keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._front: list[zmq.Socket[bytes]] = []
        self._admissions: list[ConnectionMonitor] = []
        self._back: zmq.Socket[bytes] | None = None
        self._kept: dict[bytes, list[bytes]] = {}
        self._topics: dict[bytes, int] = {}  # those that are fetched, and for how many
        self._topics_bytes = 0
        self._repeated_s: dict[bytes, float] = {}

    @property
    def replay_endpoint(self) -> str | None:
        """Where to ask; None: nowhere."""
        return self._replay.endpoint if self._replay else None

    def open(self) -> None:
        """Bind, connect to the stations; those that are not there are waited for.

        Raises
        ------
        ConfigError
            An endpoint is malformed or taken.
        """
        import zmq

        self._context = zmq.Context()
        self._back = self._context.socket(zmq.XPUB)
        # All subscriptions are handed up: the stations' side counts them.
        self._back.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._back.setsockopt(zmq.SNDHWM, _QUEUE_LENGTH)
        self._back.setsockopt(zmq.MAXMSGSIZE, TOPIC_MOST_BYTES)
        self._back.setsockopt(zmq.RCVHWM, MOST_WAITING)
        self._back.setsockopt(zmq.RCVBUF, TOPIC_MOST_BYTES)
        try:
            self._guard.protect(self._context, self._back)
            self.endpoint = bind(self._back, self.endpoint)
            self._guard.watch(self.endpoint, TOPICS_MOST_BYTES, TOPICS_PER_S)
            for station in self._stations:
                self._connect(station.live)
            if self._replay is not None:
                self._replay.open(self._context, self._guard)
        except ConfigError:
            self.close()
            raise
        for kind in _KEPT_KINDS:
            self._subscribe(bytes([_SUBSCRIBE]) + prefix(kind).encode())

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for admission in self._admissions:
            admission.close()
        for end in (*self._front, *([self._back] if self._back else [])):
            end.close(linger=0)
        if self._replay is not None:
            self._replay.close()
        self._guard.close()
        if self._context is not None:
            self._context.term()
        self._front, self._admissions = [], []
        self._back = self._context = None

    def step(self, timeout_s: float) -> None:
        """Wait for something to pass on, at most so long, and pass it on."""
        import zmq

        assert self._back is not None
        poller = zmq.Poller()
        for end in (self._back, *self._front):
            poller.register(end, zmq.POLLIN)
        for end in self._replay.ends if self._replay else ():
            poller.register(end, zmq.POLLIN)
        if self._replay is not None and self._replay.counts.waiting:
            timeout_s = min(timeout_s, _BLOCKED_S)  # until somebody's rate allows more
        ready = dict(poller.poll(round(timeout_s * 1000)))
        calls = self._guard.calls
        calls.entered += 1
        if self._back in ready:
            self._read_subscriptions(self._back)
        for number, end in enumerate(self._front):
            if end in ready:
                self._forward(number, end)
        for admission in self._admissions:
            admission.look()
        calls.returned = calls.entered
        if self._replay is not None:
            self._replay.step(ready)

    def _connect(self, endpoint: str) -> None:
        import zmq

        assert self._context is not None
        end = self._context.socket(zmq.XSUB)
        self._front.append(end)
        end.setsockopt(zmq.RCVHWM, _QUEUE_LENGTH)
        # ZeroMQ drops subscriptions that do not fit; there are not many.
        end.setsockopt(zmq.SNDHWM, 0)
        end.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
        keep_alive(end)
        if self._station_keys is not None:
            use_client_keys(end, self._station_keys)
        keyed = self._station_keys is not None
        self._admissions.append(ConnectionMonitor(end, endpoint, keyed=keyed))
        try:
            end.connect(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"'{endpoint}' is not an endpoint such as tcp://station-1:5556"
            ) from error

    def _read_subscriptions(self, back: "zmq.Socket[bytes]") -> None:
        import zmq

        for _ in range(_BURST):
            try:
                subject = back.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            self._guard.spend(self.endpoint, len(subject))
            if not subject or subject[0] > _SUBSCRIBE:
                continue  # no subscription: subscribers have nothing else to say
            self._subscribe(subject)
            if subject[0] == _SUBSCRIBE:
                self._repeat(back, subject[1:])

    def _subscribe(self, subject: bytes) -> None:
        """Hand a subscription on, the first of its topic, and when the last one ends.

        The stations bound what a subscriber, such as this relay, may name: where it
        would be more, all streams of the kind are fetched.
        """
        wanted, name = subject[0] == _SUBSCRIBE, subject[1:]
        count, size = self._topics.get(name, 0), len(name) + _TOPIC_BYTES
        if wanted and not count and self._is_too_much(name, size):
            whole = b"/".join([*name.split(b"/")[:2], b""])
            if whole in _WHOLE_KINDS:
                self._subscribe(bytes([_SUBSCRIBE]) + whole)  # and never takes it back
            return
        if not wanted and not count:
            return  # one that was too much
        count += 1 if wanted else -1
        self._topics[name] = count
        if count == 1 and wanted:
            self._topics_bytes += size
        elif count == 0:
            self._topics_bytes -= size
            del self._topics[name]
        else:
            return
        for end in self._front:
            end.send(subject)

    def _is_too_much(self, name: bytes, size: int) -> bool:
        if name in _WHOLE_KINDS:
            return False
        return self._topics_bytes + size > _TOPICS_BYTES

    def _forward(self, number: int, end: "zmq.Socket[bytes]") -> None:
        import zmq

        assert self._back is not None
        for _ in range(_BURST):
            try:
                parts = end.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            if not self._is_right(number, parts):
                self.left_out += 1
                continue
            self._back.send_multipart(parts, zmq.DONTWAIT)
            self.forwarded += 1
            kind = parts[0].split(b"/", 2)[1]
            if kind.decode("utf-8", "replace") in _KEPT_KINDS:
                self._keep(parts)

    def _is_right(self, number: int, parts: list[bytes]) -> bool:
        """Whether it is a message, and of a stream that is this station's."""
        station = self._stations[number].live
        try:
            stream = stream_of(parts)
        except WireError as error:
            log.warning("%s: no message, left out: %s", station, printable(str(error)))
            return False
        if self._streams.publishes(number, stream, time.monotonic()):
            return True
        if (number, stream) not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add((number, stream))
            owner = self._streams.owner(stream)
            assert owner is not None
            log.warning(
                "%s and %s both publish a stream '%s': what the second one says of "
                "it is left out; give every station a name of its own ('station:' in "
                "its configuration)",
                self._stations[owner].live,
                station,
                printable(stream),
            )
        return False

    def _keep(self, parts: list[bytes]) -> None:
        """Note the last message of a topic; the stalest topic makes room."""
        if sum(map(len, parts)) > _MOST_KEPT_BYTES:
            return
        self._kept.pop(parts[0], None)
        self._kept[parts[0]] = parts
        if len(self._kept) > _MOST_KEPT:
            gone = next(iter(self._kept))
            del self._kept[gone]
            self._repeated_s.pop(gone, None)

    def _repeat(self, back: "zmq.Socket[bytes]", wanted: bytes) -> None:
        """Tell who comes late where the streams are."""
        import zmq

        now_s = time.monotonic()
        for name, parts in self._kept.items():
            told_s = self._repeated_s.get(name, float("-inf"))
            if name.startswith(wanted) and now_s - told_s >= _REPEAT_S:
                self._repeated_s[name] = now_s
                back.send_multipart(parts, zmq.DONTWAIT)
