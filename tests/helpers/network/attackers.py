"""Hostile peers over real TCP sockets, with as much ZMTP as they need.

The framing is that of rfc.zeromq.org/spec/23.
"""

import socket
import struct
from collections.abc import Iterable

from processes.waiting import PATIENCE_S

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)


def frame(body: bytes, *, more: bool = False, command: bool = False) -> bytes:
    """Encode one ZMTP frame; with `more`, another frame of the message follows."""
    flags = more | 4 * command
    if len(body) > 255:
        return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def port_of(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


_OPEN: list[socket.socket] = []


def silent(endpoint: str) -> socket.socket:
    """Connect and send nothing."""
    address = ("127.0.0.1", port_of(endpoint))
    _OPEN.append(socket.create_connection(address, timeout=PATIENCE_S))
    return _OPEN[-1]


def close_all() -> None:
    """Close all connections that this module has opened."""
    while _OPEN:
        _OPEN.pop().close()


def handshaken(endpoint: str, kind: bytes) -> socket.socket:
    """Connect and finish the handshake as a socket of type `kind`."""
    peer = silent(endpoint)
    peer.sendall(GREETING)
    left = len(GREETING)
    while left:
        left -= len(peer.recv(left))
    ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    peer.sendall(frame(ready, command=True))
    peer.recv(1000)
    return peer


def is_cut(peer: socket.socket, pieces: Iterable[bytes] = ()) -> bool:
    """Return True if the other side ends the connection, while or after sending."""
    peer.settimeout(PATIENCE_S)
    try:
        for piece in pieces:
            peer.sendall(piece)
        while peer.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
