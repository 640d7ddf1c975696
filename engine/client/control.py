"""For programs that steer a running engine: commands and their replies."""

import os
import time
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from neurovocal.engine.contracts.errors import (
    CommandError,
    ConfigError,
    NeurovocalError,
)
from neurovocal.engine.wire.keys import use_client_keys
from neurovocal.engine.wire.sockets import ConnectionMonitor, keep_alive

if TYPE_CHECKING:
    import zmq

_MOST_BYTES = 16 * 1024 * 1024
_CONNECT_S = 5.0  # a reply may take long; that an engine is there does not


class Control:
    """Sends commands to a running engine; a context manager.

    One command at a time, from one thread at a time.

    Parameters
    ----------
    endpoint : str
        Where the engine takes commands, such as ``tcp://127.0.0.1:5557``.
    timeout : float
        Seconds to wait for a reply.
    keys : path, optional
        Folder that ``neurovocal keys add --control`` made, for an engine that asks
        for keys.
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
        self._admission: ConnectionMonitor | None = None

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
        """Connect.

        Raises
        ------
        ConfigError
            The endpoint is malformed.
        """
        import zmq

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MOST_BYTES)
        # Without a connection nothing can be sent: that tells whether one is there.
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        keep_alive(self._socket, asks=True)
        try:
            if self._keys is not None:
                use_client_keys(self._socket, self._keys)
            keyed = self._keys is not None
            self._admission = ConnectionMonitor(
                self._socket, self.endpoint, keyed=keyed
            )
            self._socket.connect(self.endpoint)
        except ConfigError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"'{self.endpoint}' is not an endpoint such as "
                "tcp://127.0.0.1:5557 or ipc:///tmp/neurovocal-control"
            ) from error

    def close(self) -> None:
        """Disconnect. May be called twice."""
        if self._admission is not None:
            self._admission.close()
        if self._socket is not None:
            self._socket.close(linger=0)
        if self._context is not None:
            self._context.term()
        self._socket = self._context = self._admission = None

    def status(self) -> dict[str, Any]:
        """Lanes, their positions and counters, and what the models are set to."""
        return self.command("status")

    def set(
        self, *, lane: str | None = None, model: str | int | None = None, **options: Any
    ) -> dict[str, Any]:
        """Change options of a model; the reply says where it took effect."""
        return self.command("set", options, lane=lane, model=model)

    def stop(self) -> dict[str, Any]:
        """End the run, in order."""
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
            ``ping``, ``status``, ``set``, ``stop``, or one of a model's own.
        arguments : dict, optional
            JSON values.
        lane, model : optional
            Which lane (default: all) and which of its models (default: the only
            one that takes commands).

        Returns
        -------
        dict
            The reply, as docs/control.md describes it.

        Raises
        ------
        CommandError
            The engine refuses; nothing has changed.
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
        patience_s = min(self.timeout, _CONNECT_S)
        try:
            if not self._socket.poll(ceil(patience_s * 1000), zmq.POLLOUT):
                raise self._silence(patience_s)
            self._socket.send(msgspec.json.encode(request), zmq.DONTWAIT)
        except zmq.Again:
            raise self._silence(self.timeout) from None
        while (left := until - time.monotonic()) > 0:
            if not self._socket.poll(ceil(left * 1000)):
                break
            reply = _read(self._socket.recv_multipart()[-1])
            # A late reply to a command that was given up says nothing of this one.
            if reply.get("id") in (request["id"], None):
                return reply
        raise self._silence(self.timeout)

    def _silence(self, waited_s: float) -> NeurovocalError:
        assert self._admission is not None
        if refusal := self._admission.read():
            return NeurovocalError(refusal)
        return NeurovocalError(
            f"nobody answered at {self.endpoint} within {waited_s:g} s: is an "
            "engine with 'control: {plugin: zmq}' running there?"
        )


def _read(body: bytes) -> dict[str, Any]:
    try:
        reply = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        reply = None
    return reply if isinstance(reply, dict) else {}
