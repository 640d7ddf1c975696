"""CURVE peers over real TCP sockets, with a handshake that can stop at each step.

Written from rfc.zeromq.org/spec/26 (CurveZMQ), with the libsodium of pyzmq's wheel.
"""

import ctypes
import socket
import struct
from ctypes.util import find_library
from functools import cache
from pathlib import Path

import pytest
import zmq
from network.attackers import frame, silent
from zmq.auth import load_certificate
from zmq.utils import z85

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)


@cache
def _sodium() -> ctypes.CDLL:
    beside = Path(zmq.__file__).parents[1] / "pyzmq.libs"
    for name in [*map(str, beside.glob("libsodium*")), find_library("sodium")]:
        if name:
            return ctypes.CDLL(name)
    pytest.skip("there is no libsodium")


def _sealed(text: bytes, nonce: bytes, theirs: bytes, ours: bytes) -> bytes:
    out = ctypes.create_string_buffer(len(text) + 16)
    arguments = (out, text, ctypes.c_ulonglong(len(text)), nonce, theirs, ours)
    assert not _sodium().crypto_box_easy(*arguments)
    return out.raw


def _opened(text: bytes, nonce: bytes, theirs: bytes, ours: bytes) -> bytes:
    out = ctypes.create_string_buffer(len(text) - 16)
    arguments = (out, text, ctypes.c_ulonglong(len(text)), nonce, theirs, ours)
    assert not _sodium().crypto_box_open_easy(*arguments)
    return out.raw


class CurvePeer:
    """Connection with a client's keys; each step of the handshake is a method.

    Parameters
    ----------
    endpoint : str
        Endpoint of the server.
    keys : Path
        Folder that ``neurovocal keys add`` made.
    kind : bytes
        Socket type that it claims.
    """

    def __init__(self, endpoint: str, keys: Path, kind: bytes) -> None:
        public, secret = load_certificate(keys / "client.key_secret")
        self._public, self._secret = z85.decode(public), z85.decode(secret)
        self._server = z85.decode(load_certificate(keys / "server.key")[0])
        brief_public, brief_secret = map(z85.decode, zmq.curve_keypair())
        self._brief_public, self._brief_secret = brief_public, brief_secret
        self._kind = kind
        self._number = 0
        self.socket: socket.socket = silent(endpoint)

    def greet(self) -> None:
        self.socket.sendall(GREETING)
        self._read(len(GREETING))

    def hello(self) -> None:
        number = self._next()
        box = self._box(b"CurveZMQHELLO---" + number, bytes(64), self._server)
        hello = b"\x05HELLO\x01\x00" + bytes(72) + self._brief_public + number + box
        self.socket.sendall(frame(hello, command=True))
        welcome = self._read_command()
        nonce, box = welcome[8:24], welcome[24:]
        opened = _opened(box, b"WELCOME-" + nonce, self._server, self._brief_secret)
        self._brief_server, self._cookie = opened[:32], opened[32:]

    def initiate(self) -> None:
        nonce = bytes(16)
        vouch = _sealed(
            self._brief_public + self._server,
            b"VOUCH---" + nonce,
            self._brief_server,
            self._secret,
        )
        metadata = b"\x0bSocket-Type" + struct.pack(">I", len(self._kind)) + self._kind
        number = self._next()
        text = self._public + nonce + vouch + metadata
        box = self._box(b"CurveZMQINITIATE" + number, text, self._brief_server)
        initiate = b"\x08INITIATE" + self._cookie + number + box
        self.socket.sendall(frame(initiate, command=True))
        assert self._read_command().startswith(b"\x05READY")

    def handshake(self) -> "CurvePeer":
        """Do the whole handshake."""
        self.greet()
        self.hello()
        self.initiate()
        return self

    def part(self, body: bytes, *, more: bool = False) -> bytes:
        """Encrypt and frame one part of a message."""
        number = self._next()
        nonce = b"CurveZMQMESSAGEC" + number
        box = self._box(nonce, bytes([more]) + body, self._brief_server)
        return frame(b"\x07MESSAGE" + number + box)

    def _box(self, nonce: bytes, text: bytes, theirs: bytes) -> bytes:
        return _sealed(text, nonce, theirs, self._brief_secret)

    def _next(self) -> bytes:
        self._number += 1
        return struct.pack(">Q", self._number)

    def _read_command(self) -> bytes:
        flags, length = self._read(2)
        assert flags == 4
        return self._read(length)

    def _read(self, length: int) -> bytes:
        found = b""
        while len(found) < length:
            piece = self.socket.recv(length - len(found))
            assert piece
            found += piece
        return found
