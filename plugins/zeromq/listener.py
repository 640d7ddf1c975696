"""Listening sockets of ZeroMQ, at which connections can be refused for a while.

ZeroMQ accepts every connection at once, and closing its listener would end those that
it has accepted. While connections are refused, another socket, to which nothing can
connect, takes the place of the listening one under its descriptor, and what arrives at
the real one is accepted here and closed.
"""

import ctypes
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

RESET = struct.pack("ii", 1, 0)
# Connections refused at a time, before the others are looked at again.
_MOST_REFUSED = 1000
# Time to accept some ten connections.
_WINDOW_S = 0.0002


class Listener:
    """One listening socket; open at first.

    Parameters
    ----------
    handle : int
        ZeroMQ's descriptor, which must not be closed while connections are refused.

    Attributes
    ----------
    refused : int
        Connections that were refused.
    """

    def __init__(self, handle: int) -> None:
        self.refused = 0
        self._handle = handle
        self._real = socket.socket(fileno=os.dup(handle))
        self._real.setblocking(False)  # for ZeroMQ's descriptor, too
        self._other = _unreachable()
        self._is_closed = False

    def fileno(self) -> int:
        """Return a descriptor that is readable when a connection arrives."""
        return self._real.fileno()

    def hold(self) -> None:
        """Let connections wait in the kernel until `accept` or `accept_some`."""
        if not self._is_closed:
            os.dup2(self._other.fileno(), self._handle, inheritable=False)
            self._is_closed = True

    def accept_some(self) -> None:
        """Let ZeroMQ accept some connections of those that wait, then hold the others.

        The interpreter is not released in between: that it is busy elsewhere must not
        let more of them in.
        """
        if not self._is_closed:
            return
        # Unlike os.dup2, it keeps the interpreter's lock.
        dup3 = ctypes.PyDLL(None).dup3
        dup3(self._real.fileno(), self._handle, os.O_CLOEXEC)
        until_s = perf_counter() + _WINDOW_S
        while perf_counter() < until_s:
            pass
        dup3(self._other.fileno(), self._handle, os.O_CLOEXEC)

    def refuse(self) -> None:
        """Refuse the connections that have arrived, and those until `accept`."""
        self.hold()
        for _ in range(_MOST_REFUSED):
            try:
                one, _ = self._real.accept()
            except OSError:
                return
            with one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.refused += 1

    def accept(self) -> None:
        """Let ZeroMQ accept connections again."""
        if self._is_closed:
            os.dup2(self._real.fileno(), self._handle, inheritable=False)
            self._is_closed = False

    def close(self) -> None:
        """Let ZeroMQ accept again, so that it can close its descriptor."""
        with suppress(OSError):
            self.accept()
        self._real.close()
        self._other.close()


def _unreachable() -> socket.socket:
    """Return a listening socket that has no address any more."""
    other = socket.socket(socket.AF_UNIX)
    other.setblocking(False)
    with TemporaryDirectory(prefix="neurovocal-") as folder:
        other.bind(str(Path(folder) / "s"))
        other.listen(1)
    return other
