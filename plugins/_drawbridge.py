"""Lets nobody new in at a listening socket while too much was sent to it.

Who is cut and comes again at once would otherwise send without end. A filter on the
socket (socket(7), SO_ATTACH_FILTER) has the kernel drop all that asks for a connection.
Who asks does so again after 1, 2, 4 seconds and so on, and comes in when the filter is
gone. Connections that exist have sockets of their own.
"""

import ctypes
import os
import socket
import struct

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # asm-generic/socket.h
_TAKE_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)
_PROGRAM = struct.pack("HP", 1, ctypes.addressof(_TAKE_NOTHING))
# All that one connection may send is forgotten in so long.
_FORGIVEN_IN_S = 4.0


class Drawbridge:
    """What was sent to a port lately, and whether anybody new may come.

    Parameters
    ----------
    most_bytes : int
        What one connection may send. From twice that much on nobody new is let in,
        until it is once.

    Attributes
    ----------
    listening : int or None
        Handle of the listening socket, once it is known.
    spent : float
        Bytes that have cost something, whether their connection is there or not.
    gone : float
        Bytes that connections had sent which have gone; much of it is both.
    is_up : bool
        Whether nobody new is let in.
    """

    def __init__(self, most_bytes: int) -> None:
        self.listening: int | None = None
        self.spent = self.gone = 0.0
        self.is_up = False
        self._most_bytes = most_bytes

    @property
    def is_busy(self) -> bool:
        """Whether more was sent lately than there is reason for."""
        return max(self.spent, self.gone) > self._most_bytes / 8

    def flooded(self) -> None:
        """More comes than can be seen to, however little each sends."""
        self.gone = max(self.gone, 3.0 * self._most_bytes)

    def forget(self, seconds: float) -> None:
        """Some time has passed."""
        forgiven = self._most_bytes * seconds / _FORGIVEN_IN_S
        most = (
            3.0 * self._most_bytes
        )  # for what came before it was up it is up no longer
        self.spent = max(0.0, min(self.spent, most) - forgiven)
        self.gone = max(0.0, min(self.gone, most) - forgiven)

    def turn(self) -> bool:
        """Draw it up or let it down, if it is time to; whether it was drawn up."""
        most = self._most_bytes * (1 if self.is_up else 2)
        up = max(self.spent, self.gone) > most
        if up == self.is_up or self.listening is None:
            return False
        option, value = (_SO_ATTACH_FILTER, _PROGRAM) if up else (_SO_DETACH_FILTER, 0)
        try:
            with socket.socket(fileno=os.dup(self.listening)) as listening:
                listening.setsockopt(socket.SOL_SOCKET, option, value)
        except OSError:
            return False  # an old kernel: connections are still cut one by one
        self.is_up = up
        return up
