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
    timeout_s: float = 300.0,
    quiet_s: float = 0.3,
) -> list[Parts]:
    """Receive messages until the program has ended and nothing more comes."""
    messages: list[Parts] = []
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        if socket.poll(int(quiet_s * 1000)):
            messages.append(socket.recv_multipart())
        elif ended():
            while socket.poll(int(quiet_s * 1000)):  # what came while it was looked
                messages.append(socket.recv_multipart())
            return messages
    raise TimeoutError(f"the program goes on after {timeout_s} s")


class Ended:
    """Tells whether a process has ended, and a relay has passed its messages on."""

    def __init__(self, process: Any, relay: Any = None) -> None:
        self._process = process
        self._relay = relay

    def __call__(self) -> bool:
        """Look at the process."""
        if self._process.poll() is None:
            return False
        if self._relay is not None:
            wait_until_idle(self._relay)
        return True


def wait_until_idle(process: Any) -> None:
    """Wait until all threads of a process sleep, as they do when nothing is left.

    A pause alone would be over on a busy machine before the process has run.
    """
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.is_dir():
        time.sleep(2.0)
        return
    looks = 0
    while looks < 10 and process.poll() is None:
        time.sleep(0.05)
        looks = looks + 1 if _all_sleep(tasks) else 0


def _all_sleep(tasks: Path) -> bool:
    for task in list(tasks.iterdir()):
        try:
            state = (task / "stat").read_text(encoding="utf-8").rpartition(")")[2]
        except OSError:  # the thread has ended
            return False
        if state.split()[0] != "S":
            return False
    return True


def asked(
    socket: "zmq.Socket[bytes]", *parts: bytes, timeout_s: float = 120.0
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
