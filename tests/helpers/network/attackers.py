"""Strangers who speak just enough ZMTP to do harm, over real sockets.

The framing is that of rfc.zeromq.org/spec/23.
"""

import socket
import struct
from collections.abc import Iterable

from processes.waiting import PATIENCE_S

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def frame(body: bytes, *, more: bool = False, command: bool = False) -> bytes:
    """One ZMTP frame; with `more`, the message has no end yet."""
    flags = more | 4 * command
    if len(body) > 255:
        return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def port_of(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


_OPEN: list[socket.socket] = []


def silent(endpoint: str) -> socket.socket:
    """A connection that says nothing."""
    address = ("127.0.0.1", port_of(endpoint))
    _OPEN.append(socket.create_connection(address, timeout=PATIENCE_S))
    return _OPEN[-1]


def all_leave() -> None:
    """Close all connections of these strangers."""
    while _OPEN:
        _OPEN.pop().close()


def speaking(endpoint: str, kind: bytes) -> socket.socket:
    """A connection that has done its handshake as a socket of some kind."""
    stranger = silent(endpoint)
    stranger.sendall(GREETING)
    left = len(GREETING)
    while left:
        left -= len(stranger.recv(left))
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    stranger.sendall(frame(ready, command=True))
    stranger.recv(1000)
    return stranger


def is_cut(stranger: socket.socket, what: Iterable[bytes] = ()) -> bool:
    """Whether the other side ends it, while or after things are sent."""
    stranger.settimeout(PATIENCE_S)
    try:
        for piece in what:
            stranger.sendall(piece)
        while stranger.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
