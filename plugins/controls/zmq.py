"""Control socket: JSON requests and replies over ZeroMQ (docs/reference/control.md)."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import Field

from neurovocal.engine import NS, BuildContext, Clock, ConfigError, Options, Plugin
from neurovocal.engine.support.strict_json import JsonError, objects
from neurovocal.plugins.zeromq.access import AccessControl
from neurovocal.plugins.zeromq.endpoint import bind, claim, endpoint_problems
from neurovocal.plugins.zeromq.request_socket import (
    RECEIVE_BUFFER_BYTES,
    id_of,
    refusal,
)

if TYPE_CHECKING:
    import zmq

_MOST_BYTES = 64 * 1024
# Requests of each connection that may wait in the socket.
_MOST_WAITING = 8
# These, those in the kernel, and the parts of a request that is not complete.
_MOST_UNREAD_BYTES = 2 * _MOST_WAITING * _MOST_BYTES
_LINGER_MS = 200

log = logging.getLogger("neurovocal")

Submit = Callable[[object], dict[str, Any]]


class ControlOptions(Options):
    """Options of the control socket."""

    endpoint: str = "tcp://127.0.0.1:5557"
    """Where to bind: `tcp://HOST:PORT` (port `*`: any free one) or `ipc://PATH`."""
    allow_remote: bool = False
    """Whether an endpoint that other machines can reach may be bound: any peer
    that reaches it may stop the engine."""
    commands_per_s: float = Field(default=100.0, ge=0.01, le=1_000_000)
    """Commands that are executed per second, in the long run; more are refused."""


class ControlSocket:
    """ROUTER socket that answers REQ and DEALER sockets.

    Parameters
    ----------
    options : ControlOptions
        Checked options.
    clock : Clock
        Monotonic time for the limit on commands per second.
    keys : Path, optional
        Folder of keys; None: every peer that reaches the endpoint may send commands.
    """

    def __init__(
        self, options: ControlOptions, clock: Clock, keys: Path | None = None
    ) -> None:
        self._options = options
        self._keyed = keys is not None
        self._access = AccessControl(keys, "control")
        self._rate = _TokenBucket(options.commands_per_s, clock)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self.endpoint = options.endpoint

    def open(self) -> None:
        """Bind the socket.

        Raises
        ------
        ConfigError
            The endpoint is malformed, in use, or remote without keys or permission.
        """
        import zmq

        problems = list(_problems(self._options, self._keyed))
        if problems:
            raise ConfigError(problems)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.RCVHWM, _MOST_WAITING)
        self._socket.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER_BYTES)
        self._socket.setsockopt(zmq.SNDHWM, _MOST_WAITING)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        try:
            self._access.secure(self._context, self._socket)
            self.endpoint = bind(self._socket, self._options.endpoint)
            self._access.limits.add(self.endpoint, _MOST_UNREAD_BYTES)
        except ConfigError:
            self.close()
            raise

    def serve(self, submit: Submit, timeout: float) -> None:
        """Wait up to `timeout` seconds for one request, and answer it."""
        import zmq

        assert self._socket is not None
        if not self._socket.poll(round(timeout * 1000)):
            return
        frames = self._socket.recv_multipart(copy=False)
        *envelope, body = self._access.receive(frames)
        # A connection that does not read its replies loses them.
        if envelope:
            reply = self._reply(envelope, body, submit)
            try:
                self._socket.send_multipart([*envelope, reply], zmq.DONTWAIT)
            except zmq.Again:
                return

    def close(self) -> None:
        """Close the socket, after up to 0.2 s in which the last reply is sent."""
        self._access.stop()
        if self._socket is not None:
            self._socket.close(linger=_LINGER_MS)
        self._access.close()
        if self._context is not None:
            self._context.term()
        self._socket = self._context = None

    def _reply(self, envelope: list[bytes], body: bytes, submit: Submit) -> bytes:
        # The connection's name, and for a REQ socket the empty part after it.
        if len(envelope) > 2 or any(envelope[1:]):
            return refusal(None, "a request is one part: a JSON object")
        if not self._rate.take():
            most = self._options.commands_per_s
            return refusal(
                id_of(body), f"more than {most:g} commands per second: send fewer"
            )
        try:
            request = objects.read(body)
        except JsonError as error:
            return refusal(id_of(body), f"the request cannot be read: {error}")
        try:
            return msgspec.json.encode(submit(request))
        except Exception:  # every request is answered
            log.exception("a command could not be answered")
            return refusal(None, "the engine failed to answer; see its log")


class _TokenBucket:
    """Tokens that accumulate with time, up to those of one second."""

    def __init__(self, per_s: float, clock: Clock) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s)
        self._clock = clock
        self._tokens = self._most
        self._filled_ns = clock.monotonic_ns()

    def take(self) -> bool:
        now = self._clock.monotonic_ns()
        gained = (now - self._filled_ns) / NS * self._per_s
        self._filled_ns, self._tokens = now, min(self._most, self._tokens + gained)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _problems(options: ControlOptions, keyed: bool) -> Iterator[str]:
    return endpoint_problems(
        options.endpoint, allow_remote=options.allow_remote, keyed=keyed
    )


def _build(options: ControlOptions, context: BuildContext) -> ControlSocket:
    return ControlSocket(options, context.clock, context.keys)


plugin = Plugin(
    kind="control",
    options=ControlOptions,
    build=_build,
    summary="takes commands while it runs: status, set, prime, stop (ZeroMQ)",
    resources=lambda options: claim(options.endpoint),
    check=lambda options, context: _problems(options, context.keys is not None),
)
