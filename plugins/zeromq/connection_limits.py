"""Bounds what connections to a bound ZeroMQ socket may cost this process.

ZeroMQ bounds the parts of a message, and the messages that wait, but neither the parts
of one message, nor the topics that a subscriber names, nor the connections: each of
them grows until memory or file handles are gone. What is counted here is what the
kernel knows of each connection (tcp(7), TCP_INFO); one that is too much is shut down,
and ZeroMQ then frees what it kept of it.
"""

import logging
import os
import resource
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING

from neurovocal.engine.support.calls import Calls

if TYPE_CHECKING:
    import zmq
import ctypes

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


log = logging.getLogger("neurovocal")
_LOOK_S = 0.2
_SOON_S = 0.05  # while there is something to see
_BUSY_S = 1.0  # a call that lasts longer is kept busy by those who come
_MOST_CONNECTIONS = 1000

# Of what all connections together may have sent without need: so many times as much
# as each alone.
_ALL_TOGETHER = 4

# Greeting, handshake and a few topics: every connection needs them.
_FREE_BYTES = 2048

# What a part costs on the wire beside its content, when it is encrypted.
_PART_BYTES = 64
_COUNT = struct.Struct("=Q")
_BYTES_RECEIVED_AT = 128  # in struct tcp_info of linux/tcp.h, since Linux 4.1

# What the other side has acknowledged of what we sent, and how much we send before it
# has shown that it may come in: greeting, with CURVE also WELCOME (170 bytes) and
# ERROR (12); READY, which comes then, has 28 bytes, with CURVE 52
# (rfc.zeromq.org/spec/23 and /25).
_BYTES_ACKED_AT = 120
_OUTSIDE_BYTES, _OUTSIDE_CURVE_BYTES = 80, 265
_INFO_BYTES = 256
_RESET = struct.pack("ii", 1, 0)
_LISTENING = 10  # of tcp_info's state


@dataclass(slots=True)
class _Limit:
    most_bytes: int
    per_s: float
    bridge: Drawbridge


@dataclass(slots=True)
class _Connection:
    """One connection, by the inode of its socket, which is never two at a time."""

    inode: int
    port: int
    began_s: float
    handle: int
    credit: int = 0
    surplus: float = 0.0
    is_in: bool = False  # its handshake has ended well: with keys, it has a good one
    cut: bool = False  # it goes when ZeroMQ next looks at it


class Door:
    """Watches the TCP connections to the endpoints of one ZeroMQ context.

    Parameters
    ----------
    keyed : bool
        Whether connections must show a key (CURVE).

    Attributes
    ----------
    cut : int
        Connections that were shut down.
    calls : Calls
        To be counted by who uses a socket that subscribers may keep busy: ZeroMQ
        returns only when it has seen to all that has come, and all that comes
        meanwhile.
    """

    def __init__(self, *, keyed: bool = False) -> None:
        self.cut = 0
        self.calls = Calls()
        self._call, self._call_s = 0, monotonic()  # the newest, and when it was seen
        self._outside_bytes = _OUTSIDE_CURVE_BYTES if keyed else _OUTSIDE_BYTES
        self.most_connections = min(_MOST_CONNECTIONS, _handles() // 8)
        self._limits: dict[int, _Limit] = {}
        self._connections: dict[int, _Connection] = {}  # by inode, the oldest first
        self._others: set[int] = set()
        self._looked_s = monotonic()
        self._lock = Lock()
        self._stopping = Flag()
        self._thread: Thread | None = None

    def watch(self, endpoint: str, most_bytes: int, per_s: float = 0.0) -> None:
        """Bound the connections to an endpoint that is bound.

        Parameters
        ----------
        endpoint : str
            As ZeroMQ knows it; other endpoints than TCP are left alone: who reaches
            them is a user of this machine.
        most_bytes : int
            What a connection may have sent beyond what `credit` was given for.
        per_s : float
            Bytes that are forgiven each second.
        """
        if not endpoint.startswith("tcp://"):
            return
        self._limits[_port(endpoint)] = _Limit(
            most_bytes, per_s, Drawbridge(most_bytes)
        )
        if self._thread is None:
            self._thread = Thread(target=self._run, name="nv-door", daemon=True)
            self._thread.start()

    def credit(self, frames: "Sequence[zmq.Frame]") -> None:
        """Note that a whole message was taken from a connection."""
        found = _socket_of(frames)
        if found is None:
            return
        handle, inode = found
        with self._lock:
            if inode not in self._connections and inode not in self._others:
                self._measure(handle, inode, monotonic())  # no look has seen it yet
            connection = self._connections.get(inode)
            if connection is not None:
                size = sum(len(frame) + _PART_BYTES for frame in frames)
                connection.credit += size

    def spend(self, endpoint: str, n_bytes: int) -> None:
        """Note what costs even when the connection has gone, whoever sent it."""
        with self._lock:
            port = _port(endpoint)
            limit = self._limits.get(port)
            if limit is not None:
                limit.bridge.spent += n_bytes
                self._turn(port, limit.bridge)

    def end(self, inode: int | None, reason: str) -> None:
        """Shut the connection of a socket down, if it is one that is watched."""
        with self._lock:
            connection = self._connections.get(inode or 0)
            if connection is not None and not connection.cut:
                self._cut(connection, reason)

    def close(self) -> None:
        """Watch no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def _run(self) -> None:
        pause_s = _LOOK_S
        while not self._stopping.wait(pause_s):
            try:
                pause_s = _SOON_S if self._look() else _LOOK_S
            except Exception:  # nothing may end the watch
                log.exception("the connections could not be watched")

    def _look(self) -> bool:
        """Judge all connections; whether to look again soon."""
        now_s = monotonic()
        with self._lock:
            seen = set()
            for handle, inode in _sockets():
                seen.add(inode)
                if inode not in self._others:
                    self._measure(handle, inode, now_s)
            self._others &= seen
            for inode in self._connections.keys() - seen:
                gone = self._connections.pop(inode)
                self._limits[gone.port].bridge.gone += gone.surplus
            busy_s = self._busy_s(now_s)
            for port, limit in self._limits.items():
                self._judge(port, limit)
                if busy_s > _BUSY_S:
                    limit.bridge.flooded()
                limit.bridge.forget(now_s - self._looked_s)
                self._turn(port, limit.bridge)
            self._looked_s = now_s
            return any(limit.bridge.is_busy for limit in self._limits.values())

    def _busy_s(self, now_s: float) -> float:
        """For how long a call has not returned."""
        if self._call != self.calls.entered:
            self._call, self._call_s = self.calls.entered, now_s
        is_busy = self.calls.returned < self._call
        return now_s - self._call_s if is_busy else 0.0

    def _measure(self, handle: int, inode: int, now_s: float) -> None:
        try:
            with socket.socket(fileno=os.dup(handle)) as one:
                port, state, received, acked = _facts(one)
        except OSError:
            return  # it has just been closed
        if port not in self._limits or state == _LISTENING:
            self._others.add(inode)
            if port in self._limits:
                self._limits[port].bridge.listening = handle
            return
        known = self._connections.get(inode)
        if known is None:
            known = _Connection(inode, port, now_s, handle)
            self._connections[inode] = known
        known.handle = handle
        known.is_in = acked > self._outside_bytes
        forgiven = (now_s - known.began_s) * self._limits[port].per_s
        known.surplus = max(0.0, received - known.credit - forgiven - _FREE_BYTES)

    def _judge(self, port: int, limit: _Limit) -> None:
        """Cut what is too much: who sent the most, and who keeps others out."""
        every = self._connections.values()
        here = [one for one in every if one.port == port and not one.cut]
        if len(here) > self.most_connections:
            # Who is not in by now, the oldest first; then who came last.
            outside = [one for one in here if not one.is_in]
            inside = [one for one in reversed(here) if one.is_in]
            for connection in (outside + inside)[: len(here) - self.most_connections]:
                self._cut(connection, f"there are more than {self.most_connections}")
        by_size = sorted(here, key=lambda c: c.surplus, reverse=True)
        total = sum(connection.surplus for connection in by_size)
        for connection in by_size:
            alone = connection.surplus > limit.most_bytes
            if not alone and total <= limit.most_bytes * _ALL_TOGETHER:
                break
            total -= connection.surplus
            self._cut(connection, "it sends more than it may")

    def _turn(self, port: int, bridge: Drawbridge) -> None:
        if bridge.turn():
            log.warning(
                "port %d lets nobody new in for a while: too much was sent", port
            )

    def _cut(self, connection: _Connection, reason: str) -> None:
        try:
            with socket.socket(fileno=os.dup(connection.handle)) as one:
                # The handle may be another's by now.
                if os.fstat(one.fileno()).st_ino != connection.inode:
                    return
                # Whoever goes on sending is told at once, by a reset.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                one.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
        self.cut += 1
        connection.cut = True
        log.warning("a connection to port %d was cut: %s", connection.port, reason)


def _port(endpoint: str) -> int:
    """Of an endpoint that is bound; 0: it is none of TCP."""
    return int(endpoint.rsplit(":", 1)[1]) if endpoint.startswith("tcp://") else 0


def socket_of(frames: "Sequence[zmq.Frame]") -> int | None:
    """Inode of the socket by which a message came; None: it has gone."""
    found = _socket_of(frames)
    return None if found is None else found[1]


def _socket_of(frames: "Sequence[zmq.Frame]") -> tuple[int, int] | None:
    """Handle and inode."""
    import zmq

    try:
        handle = int(str(frames[-1].get("__fd")))
        return handle, os.fstat(handle).st_ino
    except (ValueError, OSError, zmq.ZMQError):  # not every message says it
        return None


def _handles() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if soft == resource.RLIM_INFINITY else soft


def _sockets() -> Iterator[tuple[int, int]]:
    """Handle and inode of each socket of this process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode):
            yield int(name), status.st_ino


def _facts(one: socket.socket) -> tuple[int, int, int, int]:
    """Local port, state, bytes received and acknowledged; port 0: no TCP socket."""
    if one.family not in (socket.AF_INET, socket.AF_INET6):
        return 0, 0, 0, 0
    if one.type != socket.SOCK_STREAM:
        return 0, 0, 0, 0
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    received = acked = 0
    if len(info) >= _BYTES_RECEIVED_AT + _COUNT.size:
        (received,) = _COUNT.unpack_from(info, _BYTES_RECEIVED_AT)
        (acked,) = _COUNT.unpack_from(info, _BYTES_ACKED_AT)
    return one.getsockname()[1], info[0], received, acked
