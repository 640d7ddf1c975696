"""Raw ZeroMQ sockets that speak the documented wire format."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq
import zmq.auth

Parts = list[bytes]


@contextmanager
def peer(
    kind: int, endpoint: str, keys: Path | None = None
) -> Iterator["zmq.Socket[bytes]"]:
    """Connect a socket, with the keys of a client's folder."""
    with zmq.Context() as context:
        socket = context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        if keys is not None:
            public, secret = zmq.auth.load_certificate(keys / "client.key_secret")
            server, _ = zmq.auth.load_certificate(keys / "server.key")
            assert secret is not None
            socket.curve_publickey = public
            socket.curve_secretkey = secret
            socket.curve_serverkey = server
        socket.connect(endpoint)
        try:
            yield socket
        finally:
            socket.close()


def subscribe(socket: "zmq.Socket[bytes]", *prefixes: str) -> None:
    """Subscribe to topics, then announce that this was all (docs/reference/wire.md)."""
    for prefix in prefixes:
        socket.setsockopt_string(zmq.SUBSCRIBE, prefix)
    socket.setsockopt_string(zmq.SUBSCRIBE, f"nv1~ready/{uuid.uuid4()}/1/1")


def received(
    socket: "zmq.Socket[bytes]",
    ended: "Ended",
    timeout_s: float = 60.0,
    quiet_s: float = 0.3,
) -> list[Parts]:
    """Receive messages until the program has ended and nothing more comes."""
    messages: list[Parts] = []
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        if socket.poll(int(quiet_s * 1000)):
            messages.append(socket.recv_multipart())
        elif ended():
            return messages
    raise TimeoutError(f"the program goes on after {timeout_s} s")


class Ended:
    """Tells whether a process has ended."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def __call__(self) -> bool:
        """Look at the process."""
        return self._process.poll() is not None


def asked(
    socket: "zmq.Socket[bytes]", *parts: bytes, timeout_s: float = 20.0
) -> Parts | None:
    """Send a request and wait for its reply; None where none comes in time."""
    socket.send_multipart(list(parts))
    if not socket.poll(int(timeout_s * 1000)):
        return None
    return socket.recv_multipart()


def request(**fields: Any) -> bytes:
    """Write a request."""
    return json.dumps(fields).encode()


def by_topic(messages: Sequence[Parts]) -> dict[str, list[Parts]]:
    """Sort messages by their topic; the order within each is kept."""
    found: dict[str, list[Parts]] = {}
    for message in messages:
        found.setdefault(message[0].decode(), []).append(message)
    return dict(sorted(found.items()))
