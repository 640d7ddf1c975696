"""Publish messages over ZeroMQ: labels, segments, frames, synthesis, statistics."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from neurovocal.engine import (
    KINDS,
    NS,
    BuildContext,
    Clock,
    ConfigError,
    Message,
    NeurovocalError,
    Options,
    Plugin,
    StageError,
)
from neurovocal.engine.contracts.options import DAY_S
from neurovocal.engine.contracts.types import ASKED_KINDS, BULK_KINDS
from neurovocal.engine.support.endpoints import TCP, parse_tcp
from neurovocal.engine.wire.codec import encode, topic
from neurovocal.plugins.zeromq.access import AccessControl
from neurovocal.plugins.zeromq.discovery.announcement import (
    Announcement,
    announcement_problems,
)
from neurovocal.plugins.zeromq.endpoint import bind, claim, endpoint_problems
from neurovocal.plugins.zeromq.subscribers import (
    MOST_WAITING,
    TOPIC_MOST_BYTES,
    TOPICS_MOST_BYTES,
    TOPICS_PER_S,
    Subscribers,
)

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

# Subscribers are complete if no subscription comes for so long.
_QUIET_MS = 200
# Subscriptions are read whenever the socket is used, because they wait inside it
# without a bound. So many are read at a time, more than a connection may send in a
# second: a flood must not keep the sink from sending.
_MOST_READS = 20_000
# Quiet polls, and polls at most, for subscribers of a socket that was opened again.
_QUIET_POLLS = 5
_MOST_POLLS = 50


class ZmqOptions(Options):
    """Options of the ZeroMQ sink."""

    endpoint: str = "tcp://127.0.0.1:5556"
    """Where to bind: `tcp://HOST:PORT` (port `*`: any free one) or `ipc://PATH`."""
    queue_length: int = Field(default=1000, ge=1, le=10_000_000)
    """Messages that wait for a slow connection; more are dropped for that
    connection alone, which sees a hole in `seq`."""
    allow_remote: bool = False
    """Whether an endpoint that other machines can reach may be bound."""
    wait_for_subscribers: int = Field(default=0, ge=0, le=10_000)
    """Do not start before so many have subscribed, so that all get the beginning."""
    wait_timeout_s: float = Field(default=30.0, gt=0, le=DAY_S)
    """How long to wait for them before giving up, in seconds."""
    linger_s: float = Field(default=1.0, ge=0, le=3600)
    """Time at closing for slow connections to receive queued messages."""
    announce: bool = False
    """Whether the local network is told where the endpoint is (zeroconf), so that
    `neurovocal stations` and `monitor --find` find it."""


class ZmqSink:
    """Publishes at an XPUB socket, to which any SUB socket can connect.

    Frames and other bulky messages are not encoded while nobody subscribes to them.
    Sending never blocks: a connection that does not read fills its own queue and then
    loses messages, without an effect on the others.

    Parameters
    ----------
    options : ZmqOptions
        Checked options.
    clock : Clock
        Monotonic time, for the latency ledger.
    run : str
        Name of the run, in every header.
    keys : Path, optional
        Folder of keys; None: every program that reaches the endpoint may subscribe.
    station : str
        Name by which it is announced.
    """

    # Audio is published only if the configuration asks for it: it is bulky and private.
    # So is a detector's trace, which tells the level from hop to hop.
    wants = frozenset(KINDS.values()) - ASKED_KINDS

    def __init__(
        self,
        options: ZmqOptions,
        clock: Clock,
        run: str,
        keys: Path | None = None,
        station: str = "",
    ) -> None:
        self._options = options
        self._keyed = keys is not None
        self._clock = clock
        self._run = run
        self._linger_s = options.linger_s
        self._access = AccessControl(keys, "read")
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._subscribers = Subscribers()
        self._dontwait = 0
        self._sent = 0
        self._has_waited = False
        self._n_before = 0  # subscribers when the socket was last open
        self._was_opened = False
        self._station = station
        self._announcement: Announcement | None = None
        self.endpoint = options.endpoint

    def open(self) -> None:
        """Bind, then wait for subscribers if the options say so.

        Opened again after a failure, it waits up to a second for earlier subscribers:
        messages that were queued meanwhile would be sent before they have reconnected.

        Raises
        ------
        ConfigError
            The endpoint is malformed or in use, or can be reached by other machines
            without keys or `allow_remote`.
        NeurovocalError
            Too few subscribers connected in time.
        """
        problems = list(_problems(self._options, self._keyed))
        if problems:
            raise ConfigError(problems)
        is_reopened, self._was_opened = self._was_opened, True
        self._bind()
        self._announce()
        if is_reopened:
            self._await_reconnects()
        if self._options.wait_for_subscribers and not self._has_waited:
            self._await_subscribers()
            self._has_waited = True

    def write(self, message: Message) -> None:
        """Send a message to all subscribers of its topic; StageError if not open."""
        if self._socket is None:
            raise StageError("the ZeroMQ sink is not open")
        is_bulk = message.kind in BULK_KINDS
        if is_bulk and not self._is_wanted(message):
            return
        publish_ms = None
        if message.emitted_ns:
            publish_ms = (self._clock.monotonic_ns() - message.emitted_ns) / 1e6
        parts = encode(message, self._run, publish_ms)
        with self._access.limits.busy():
            self._socket.send_multipart(parts, flags=self._dontwait)
            self._sent += 1
            if not is_bulk:  # `_is_wanted` has just read them
                self._read_subscriptions()

    def _is_wanted(self, message: Message) -> bool:
        # A subscription that ZeroMQ has received is read here before it can matter.
        with self._access.limits.busy():
            self._read_subscriptions()
        return self._subscribers.want(topic(message.kind, message.info.stream))

    def flush(self, timeout: float) -> None:
        """Read subscriptions: ZeroMQ sends by itself, and `close` lingers."""
        with self._access.limits.busy():
            self._read_subscriptions()

    def limit_close(self, seconds: float) -> None:
        """Give slow connections no more time than this when the socket is closed."""
        self._linger_s = min(self._linger_s, seconds)

    def close(self) -> None:
        """Close the socket; slow connections get `linger_s` to read their queue."""
        until_ns = self._clock.monotonic_ns() + round(self._linger_s * NS)
        self._access.stop()
        if self._announcement is not None:
            self._announcement.stop()
            self._announcement = None
        if self._socket is not None:
            self._n_before = self._subscribers.announced + self._subscribers.plain
            left_ns = max(0, until_ns - self._clock.monotonic_ns())
            self._socket.close(linger=left_ns * 1000 // NS)
        self._access.close()
        if self._context is not None:
            self._context.term()
        self._socket = self._context = None

    def stats(self) -> dict[str, object]:
        """Return the number of messages, subscribers and subscriptions."""
        return {
            "sent": self._sent,
            "subscribers": self._subscribers.announced,
            "subscriptions": self._subscribers.subscriptions,
        }

    def _bind(self) -> None:
        import zmq

        endpoint = self._options.endpoint
        self._dontwait = zmq.DONTWAIT
        self._subscribers = Subscribers()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        # The socket passes on all subscriptions, repeated ones too: they are counted.
        self._socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._socket.setsockopt(zmq.SNDHWM, self._options.queue_length)
        self._socket.setsockopt(zmq.MAXMSGSIZE, TOPIC_MOST_BYTES)
        self._socket.setsockopt(zmq.RCVHWM, MOST_WAITING)
        self._socket.setsockopt(zmq.RCVBUF, TOPIC_MOST_BYTES)
        try:
            self._access.secure(self._context, self._socket)
            self.endpoint = bind(self._socket, endpoint)
            self._access.limits.add(self.endpoint, TOPICS_MOST_BYTES, TOPICS_PER_S)
        except ConfigError:
            self.close()
            raise

    def _announce(self) -> None:
        address = parse_tcp(self.endpoint)
        if not self._options.announce or address is None:
            return
        details = {"keys": "1" if self._keyed else "0"}
        self._announcement = Announcement(self._station, "events", address, details)
        self._announcement.start()

    def _await_reconnects(self) -> None:
        """Wait for as many subscribers as before, or for one if that is unknown."""
        assert self._socket is not None
        quiet_polls = 0
        for _ in range(_MOST_POLLS):
            quiet = not self._socket.poll(_QUIET_MS)
            quiet_polls += quiet
            self._read_subscriptions()
            found = self._subscribers.announced
            found += self._subscribers.plain if quiet else 0
            if found >= max(1, self._n_before) or quiet_polls == _QUIET_POLLS:
                return

    def _await_subscribers(self) -> None:
        wanted = self._options.wait_for_subscribers
        log.info("%s waits for %d subscribers", self.endpoint, wanted)
        until = self._clock.monotonic_ns() + round(self._options.wait_timeout_s * NS)
        while True:
            assert self._socket is not None
            quiet = not self._socket.poll(_QUIET_MS)
            self._read_subscriptions()
            found = self._subscribers.announced
            # Plain subscribers do not say when their subscriptions are complete.
            found += self._subscribers.plain if quiet else 0
            if found >= wanted:
                return
            if self._clock.monotonic_ns() >= until:
                self.close()
                raise NeurovocalError(
                    f"only {found} of {wanted} subscribers came to "
                    f"{self.endpoint} within {self._options.wait_timeout_s:g} s"
                )

    def _read_subscriptions(self) -> None:
        """Read the subscriptions that have arrived."""
        import zmq

        if self._socket is None:
            return
        for _ in range(_MOST_READS):
            try:  # unlike asking for its events, this releases the interpreter
                frame = self._socket.recv(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            self._subscribers.count(frame)


def _problems(options: ZmqOptions, keyed: bool) -> Iterator[str]:
    yield from endpoint_problems(
        options.endpoint, allow_remote=options.allow_remote, keyed=keyed
    )
    if options.announce:
        yield from announcement_problems(is_tcp=options.endpoint.startswith(TCP))


def _build(options: ZmqOptions, context: BuildContext) -> ZmqSink:
    return ZmqSink(options, context.clock, context.run, context.keys, context.stream)


plugin = Plugin(
    kind="sink",
    options=ZmqOptions,
    build=_build,
    summary="publishes labels, segments, frames, synthesis and statistics (ZeroMQ)",
    resources=lambda options: claim(options.endpoint),
    check=lambda options, context: _problems(options, context.keys is not None),
)
