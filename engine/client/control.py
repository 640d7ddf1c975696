"""Client of the control socket: sends commands to a running engine."""

import os
import time
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from neurovocal.engine.contracts.errors import (
    CommandError,
    NeurovocalError,
)
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.engine.wire.sockets import ConnectionMonitor, connect

if TYPE_CHECKING:
    import zmq

_MOST_BYTES = 16 * 1024 * 1024
_CONNECT_S = 5.0  # to connect, however long a reply may take


class Control:
    """Client that sends commands to a running engine; a context manager.

    It sends one command at a time and must be used from one thread at a time.

    Parameters
    ----------
    endpoint : str
        Control socket of the engine, such as ``tcp://127.0.0.1:5557``.
    timeout : float
        Seconds to wait for a reply.
    keys : path, optional
        Folder made by ``neurovocal keys add --control``, for an engine with keys.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5557",
        *,
        timeout: float = 5.0,
        keys: str | Path | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: ConnectionMonitor | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Connect to the control socket, which need not be there yet.

        Raises
        ------
        ConfigError
            The endpoint is malformed, or the keys cannot be read.
        """
        import zmq

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        # The socket is writable only while it is connected.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        try:
            self._monitor = connect(
                self._socket,
                self.endpoint,
                self._keys,
                example="tcp://127.0.0.1:5557",
                awaits_replies=True,
            )
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. May be called twice."""
        if self._monitor is not None:
            self._monitor.close()
        if self._socket is not None:
            self._socket.close(linger=0)
        if self._context is not None:
            self._context.term()
        self._socket = self._context = self._monitor = None

    def status(self) -> dict[str, Any]:
        """Return lanes with their positions and counters, and the models' options."""
        return self.command("status")

    def set(
        self, *, lane: str | None = None, model: str | int | None = None, **options: Any
    ) -> dict[str, Any]:
        """Change options of a model; the reply has the samples of the change."""
        return self.command("set", options, lane=lane, model=model)

    def swap(
        self,
        config: str | None = None,
        *,
        shadow: bool = False,
        shadow_s: float | None = None,
        min_agreement: float | None = None,
    ) -> dict[str, Any]:
        """Let lanes of another configuration take the place of the present ones.

        Parameters
        ----------
        config : str, optional
            Name of a file beside the run's own configuration; by default that one,
            read again.
        shadow : bool
            The new lanes stay beside the present ones until `promote` or `drop`;
            ``status()["swap"]`` says how they agree.
        shadow_s, min_agreement : float, optional
            Without `shadow`: seconds of audio that both process, and the share of
            equal labels below which the present lanes stay.
        """
        arguments = {
            "config": config,
            "shadow": shadow or None,
            "shadow_s": shadow_s,
            "min_agreement": min_agreement,
        }
        given = {name: one for name, one in arguments.items() if one is not None}
        return self.command("swap", given)

    def promote(self) -> dict[str, Any]:
        """Let the shadow that stays take over, at the next silence of each lane."""
        return self.command("promote")

    def drop(self) -> dict[str, Any]:
        """Drop the shadow that stays; the present lanes go on."""
        return self.command("drop")

    def stop(self) -> dict[str, Any]:
        """Stop the run after everything received so far has been processed."""
        return self.command("stop")

    def command(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        lane: str | None = None,
        model: str | int | None = None,
    ) -> dict[str, Any]:
        """Send a command and wait for its reply.

        Parameters
        ----------
        command : str
            ``ping``, ``status``, ``set``, ``swap``, ``promote``, ``drop``, ``stop``, or
            one of a model's own.
        arguments : dict, optional
            JSON values.
        lane, model : optional
            Lane (default: all) and which of its models (default: the only one that
            takes commands).

        Returns
        -------
        dict
            The reply, as docs/reference/control.md describes it.

        Raises
        ------
        CommandError
            The engine rejects the command; nothing has changed.
        NeurovocalError
            No reply came in time.
        """
        request = {
            "v": 1,
            "id": os.urandom(16).hex(),
            "command": command,
            "arguments": arguments or {},
        }
        if lane is not None:
            request["lane"] = lane
        if model is not None:
            request["model"] = model
        reply = self._exchange(request)
        if not reply.get("ok"):
            raise CommandError(str(reply.get("error", "refused without a reason")))
        return reply

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        import zmq

        if self._socket is None:
            raise NeurovocalError("the control is not open")
        until = time.monotonic() + self.timeout
        connect_s = min(self.timeout, _CONNECT_S)
        try:
            if not self._socket.poll(ceil(connect_s * 1000), zmq.POLLOUT):
                raise self._no_reply(connect_s)
            self._socket.send(msgspec.json.encode(request), zmq.DONTWAIT)
        except zmq.Again:
            raise self._no_reply(self.timeout) from None
        while (left := until - time.monotonic()) > 0:
            if not self._socket.poll(ceil(left * 1000)):
                break
            reply = _read(self._socket.recv_multipart()[-1])
            # A late reply to an earlier command is not a reply to this one.
            if reply.get("id") in (request["id"], None):
                return reply
        raise self._no_reply(self.timeout)

    def _no_reply(self, waited_s: float) -> NeurovocalError:
        assert self._monitor is not None
        if refusal := self._monitor.refusal():
            return NeurovocalError(refusal)
        return NeurovocalError(
            f"no reply from {self.endpoint} within {waited_s:g} s: is an "
            "engine with 'control: {plugin: zmq}' running there?"
        )


_MOST_REPLY_BYTES = 16 * 2**20
_replies: JsonReader[dict[str, Any]] = JsonReader(dict, most_bytes=_MOST_REPLY_BYTES)


def _read(body: bytes) -> dict[str, Any]:
    try:
        return _replies.read(body)
    except JsonError:
        return {}
