"""Relay: publishes the messages of many stations at one endpoint."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neurovocal.engine import KINDS
from neurovocal.engine.support.text import printable
from neurovocal.engine.wire.codec import MAX_PAYLOAD, WireError, prefix
from neurovocal.engine.wire.sockets import ConnectionMonitor, connect
from neurovocal.plugins.zeromq.access import AccessControl
from neurovocal.plugins.zeromq.endpoint import bind
from neurovocal.plugins.zeromq.relay.replay import ReplayRelay
from neurovocal.plugins.zeromq.relay.stations import Station, StreamOwners, stream_of
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
# Kinds of which the last message of each stream is kept for late subscribers.
_KEPT_KINDS = ("anchor", "health", "stats")
_MOST_KEPT = 10_000
_MOST_KEPT_BYTES = 32 * 1024
# Shortest time between two repeats of a topic for late subscribers.
_REPEAT_S = 1.0
_MOST_WARNINGS = 100
_SUBSCRIBE = 1
_WHOLE_KINDS = frozenset(prefix(kind).encode() for kind in KINDS.values())
_TOPIC_BYTES = 48  # on the wire, beside its name
# Half of the topics that a station accepts from one subscriber.
_TOPICS_BYTES = TOPICS_MOST_BYTES // 2
# Messages of one station in a row, before those of the others.
_BURST = 200
_BLOCKED_S = 0.02


class Relay:
    """Forwards messages of stations to subscribers, and their requests to stations.

    Each topic that a subscriber wants is fetched from the stations once for all. A
    subscriber that does not read loses messages of its own and costs the others
    nothing, as with an engine.

    Parameters
    ----------
    stations : sequence of Station
        Engines to subscribe to.
    publish : str
        Endpoint to bind for subscribers.
    replay : str or None
        Endpoint to bind for requests for missed messages.
    keys : Path, optional
        The relay's own keys: clients that it admits, as with an engine.
    station_keys : Path, optional
        Client keys that the stations admit.
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
        self._streams = StreamOwners()
        self._warned: set[tuple[int, str]] = set()
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
        self._access = AccessControl(keys, "read")
        self._station_keys = station_keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._upstream: list[zmq.Socket[bytes]] = []
        self._monitors: list[ConnectionMonitor] = []
        self._publisher: zmq.Socket[bytes] | None = None
        self._kept: dict[bytes, list[bytes]] = {}
        self._topics: dict[bytes, int] = {}  # fetched topics, with subscribers
        self._topics_bytes = 0
        self._repeated_s: dict[bytes, float] = {}

    @property
    def replay_endpoint(self) -> str | None:
        """Endpoint of the replay socket, if there is one."""
        return self._replay.endpoint if self._replay else None

    def open(self) -> None:
        """Bind, and connect to the stations, which need not be running yet.

        Raises
        ------
        ConfigError
            An endpoint is malformed or in use.
        """
        import zmq

        self._context = zmq.Context()
        self._publisher = self._context.socket(zmq.XPUB)
        # Report all subscriptions, repeated ones too: they are counted per topic.
        self._publisher.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._publisher.setsockopt(zmq.SNDHWM, _QUEUE_LENGTH)
        self._publisher.setsockopt(zmq.MAXMSGSIZE, TOPIC_MOST_BYTES)
        self._publisher.setsockopt(zmq.RCVHWM, MOST_WAITING)
        self._publisher.setsockopt(zmq.RCVBUF, TOPIC_MOST_BYTES)
        try:
            self._access.secure(self._context, self._publisher)
            self.endpoint = bind(self._publisher, self.endpoint)
            self._access.limits.add(self.endpoint, TOPICS_MOST_BYTES, TOPICS_PER_S)
            for station in self._stations:
                self._connect(station.live)
            if self._replay is not None:
                self._replay.open(self._context, self._access)
        except Exception:
            self.close()
            raise
        for kind in _KEPT_KINDS:
            self._subscribe(bytes([_SUBSCRIBE]) + prefix(kind).encode())

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for monitor in self._monitors:
            monitor.close()
        for upstream in self._upstream:
            upstream.close(linger=0)
        self._access.stop()
        if self._publisher is not None:
            self._publisher.close(linger=0)
        if self._replay is not None:
            self._replay.close()
        self._access.close()
        if self._context is not None:
            self._context.term()
        self._upstream, self._monitors = [], []
        self._publisher = self._context = None

    def step(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for messages or requests, and forward them."""
        import zmq

        assert self._publisher is not None
        poller = zmq.Poller()
        for socket in (self._publisher, *self._upstream):
            poller.register(socket, zmq.POLLIN)
        for socket in self._replay.sockets if self._replay else ():
            poller.register(socket, zmq.POLLIN)
        if self._replay is not None and self._replay.counts.waiting:
            timeout_s = min(timeout_s, _BLOCKED_S)  # until a rate allows more
        ready = dict(poller.poll(round(timeout_s * 1000)))
        if self._publisher in ready:
            self._read_subscriptions(self._publisher)
        for station, upstream in enumerate(self._upstream):
            if upstream in ready:
                self._forward(station, upstream)
        for monitor in self._monitors:
            monitor.poll()
        if self._replay is not None:
            self._replay.step(ready)

    def _connect(self, endpoint: str) -> None:
        import zmq

        assert self._context is not None
        upstream = self._context.socket(zmq.XSUB)
        self._upstream.append(upstream)
        upstream.setsockopt(zmq.RCVHWM, _QUEUE_LENGTH)
        # ZeroMQ drops subscriptions that do not fit; there are not many.
        upstream.setsockopt(zmq.SNDHWM, 0)
        upstream.setsockopt(zmq.MAXMSGSIZE, MAX_PAYLOAD)
        self._monitors.append(
            connect(
                upstream, endpoint, self._station_keys, example="tcp://station-1:5556"
            )
        )

    def _read_subscriptions(self, publisher: "zmq.Socket[bytes]") -> None:
        import zmq

        for _ in range(_BURST):
            try:
                subject = publisher.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            if not subject or subject[0] > _SUBSCRIBE:
                continue  # not a subscription
            self._subscribe(subject)
            if subject[0] == _SUBSCRIBE:
                self._repeat(publisher, subject[1:])

    def _subscribe(self, subject: bytes) -> None:
        """Forward the first subscription to a topic, and the end of the last one.

        The stations limit the topics of a subscriber, such as this relay: beyond the
        limit all streams of a kind are fetched.
        """
        is_wanted, name = subject[0] == _SUBSCRIBE, subject[1:]
        count, size = self._topics.get(name, 0), len(name) + _TOPIC_BYTES
        if is_wanted and not count and self._is_too_much(name, size):
            whole = b"/".join([*name.split(b"/")[:2], b""])
            if whole in _WHOLE_KINDS:
                self._subscribe(bytes([_SUBSCRIBE]) + whole)  # until the relay stops
            return
        if not is_wanted and not count:
            return  # a topic beyond the limit
        count += 1 if is_wanted else -1
        self._topics[name] = count
        if count == 1 and is_wanted:
            self._topics_bytes += size
        elif count == 0:
            self._topics_bytes -= size
            del self._topics[name]
        else:
            return
        for upstream in self._upstream:
            upstream.send(subject)

    def _is_too_much(self, name: bytes, size: int) -> bool:
        if name in _WHOLE_KINDS:
            return False
        return self._topics_bytes + size > _TOPICS_BYTES

    def _forward(self, station: int, upstream: "zmq.Socket[bytes]") -> None:
        import zmq

        assert self._publisher is not None
        for _ in range(_BURST):
            try:
                parts = upstream.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            if not self._is_valid(station, parts):
                self.left_out += 1
                continue
            with self._access.limits.busy():
                self._publisher.send_multipart(parts, zmq.DONTWAIT)
            self.forwarded += 1
            kind = parts[0].split(b"/", 2)[1]
            if kind.decode("utf-8", "replace") in _KEPT_KINDS:
                self._keep(parts)

    def _is_valid(self, station: int, parts: list[bytes]) -> bool:
        """Return True for a message of a stream that belongs to this station."""
        endpoint = self._stations[station].live
        try:
            stream = stream_of(parts)
        except WireError as error:
            log.warning("%s: no message, left out: %s", endpoint, printable(str(error)))
            return False
        if self._streams.add_published(station, stream, time.monotonic()):
            return True
        if (station, stream) not in self._warned and len(self._warned) < _MOST_WARNINGS:
            self._warned.add((station, stream))
            owner = self._streams.owner(stream)
            assert owner is not None
            log.warning(
                "%s and %s both publish a stream '%s': what the second one says of "
                "it is left out; give every station a name of its own ('station:' in "
                "its configuration)",
                self._stations[owner].live,
                endpoint,
                printable(stream),
            )
        return False

    def _keep(self, parts: list[bytes]) -> None:
        """Keep the last message of a topic; drop the topic with the oldest one."""
        if sum(map(len, parts)) > _MOST_KEPT_BYTES:
            return
        self._kept.pop(parts[0], None)
        self._kept[parts[0]] = parts
        if len(self._kept) > _MOST_KEPT:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._repeated_s.pop(oldest, None)

    def _repeat(self, publisher: "zmq.Socket[bytes]", wanted: bytes) -> None:
        """Publish the kept messages of topics that begin with `wanted` again."""
        import zmq

        now_s = time.monotonic()
        for name, parts in self._kept.items():
            repeated_s = self._repeated_s.get(name, float("-inf"))
            if name.startswith(wanted) and now_s - repeated_s >= _REPEAT_S:
                self._repeated_s[name] = now_s
                publisher.send_multipart(parts, zmq.DONTWAIT)
