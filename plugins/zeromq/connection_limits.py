"""Limits on TCP connections to bound ZeroMQ sockets, so that their memory is bounded.

ZeroMQ bounds the size of a part and the number of messages that wait, but neither the
parts of one message, nor the topics that a subscriber names, nor the connections. What
a connection has sent is read from the kernel (tcp(7), TCP_INFO); a connection over its
limit is shut down, and ZeroMQ then frees what it kept of it.
"""

import ctypes
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event as Flag
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from neurovocal.engine.support.platform import (
    IS_LINUX,
    handle_limit,
    open_handles,
    read_clock,
    readable,
    thread_clock,
)
from neurovocal.plugins.zeromq.listener import RESET, Listener

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

_CHECK_S = 0.1
_SOON_S = 0.02  # while any connection has sent much, or is new
_RECENT_S = 1.0
# Largest share of the time that is spent on checks.
_SHARE = 0.2

# Connections are refused while more of the descriptors are in use; the rest is for
# files, devices and the connections that are refused.
_MOST_HANDLES_SHARE = 0.75
# With fewer, connections are let in some at a time: a burst fills the table faster than
# it can be looked at.
_MANY_HANDLES = 8192
# A call into ZeroMQ that computes for longer is kept busy by peers: new connections are
# then refused for the first of these times, each time for longer until none was for
# 10 s. Time in which its thread got no processor does not count.
_MOST_BUSY_S = 0.1
_REFUSE_S, _LONGEST_REFUSE_S, _CALM_S = 1.0, 8.0, 10.0
# Connections that keep it busy: younger than this, and more than this was sent.
_YOUNG_S, _BUSY_BYTES = 10.0, 16 * 1024
_MOST_CONNECTIONS = 1000

# Surplus of all connections of an endpoint together, in limits of one connection.
_ALL_TOGETHER = 2

# Greeting, handshake and a few topics: every connection needs them.
_FREE_BYTES = 2048

# What a part costs on the wire beside its content, when it is encrypted.
_PART_BYTES = 64

# Offsets in struct tcp_info of linux/tcp.h, since Linux 4.1.
_COUNT = struct.Struct("=Q")
_BYTES_ACKED_AT, _BYTES_RECEIVED_AT = 120, 128
_INFO_BYTES = 256
_LISTENING = 10  # value of its state

# Bytes sent to a client before it is admitted: greeting, with CURVE also WELCOME (170
# bytes) and ERROR (12). READY, which follows, has 28 bytes, with CURVE 52
# (rfc.zeromq.org/spec/23 and /25).
_HANDSHAKE_BYTES, _HANDSHAKE_CURVE_BYTES = 80, 265


class _Limit(NamedTuple):
    most_bytes: int
    per_s: float


@dataclass(slots=True)
class _Connection:
    """One connection, by the inode of its socket, which is unique while it is open."""

    inode: int
    port: int
    began_s: float
    handle: int
    accounted_bytes: int = 0
    surplus: float = 0.0
    is_admitted: bool = False  # its handshake succeeded: with keys, it has a good one
    is_cut: bool = False  # shut down; ZeroMQ closes it when it next polls it


class ConnectionLimits:
    """Thread that watches the TCP connections to the endpoints of a ZeroMQ context.

    Linux alone tells what a connection has sent: elsewhere nothing is limited.

    Parameters
    ----------
    keyed : bool
        Whether connections must show a key (CURVE).

    Attributes
    ----------
    cut : int
        Connections that were shut down.
    most_connections : int
        Connections that each endpoint may have.
    """

    def __init__(self, *, keyed: bool = False) -> None:
        self.cut = 0
        self.most_connections = min(_MOST_CONNECTIONS, handle_limit() // 8)
        self._handshake_bytes = _HANDSHAKE_CURVE_BYTES if keyed else _HANDSHAKE_BYTES
        self._limits: dict[int, _Limit] = {}  # by port
        self._connections: dict[int, _Connection] = {}  # by inode, the oldest first
        self._others: set[int] = set()
        self._listeners: dict[int, Listener] = {}  # by inode
        self._is_small = handle_limit() < _MANY_HANDLES
        self._most_handles = round(handle_limit() * _MOST_HANDLES_SHARE)
        self._call: tuple[int, float] | None = None  # clock of its thread, and start
        self._refuse_until_s = self._calm_since_s = float("-inf")
        self._refuse_s = _REFUSE_S
        self._is_refusing = self._has_cut_much = False
        self._lock = Lock()
        self._stopping = Flag()
        self._thread: Thread | None = None

    def add(self, endpoint: str, most_bytes: int, per_s: float = 0.0) -> None:
        """Limit the connections to a bound endpoint.

        Parameters
        ----------
        endpoint : str
            As ZeroMQ knows it. Endpoints other than TCP are not limited: only users
            of this machine reach them.
        most_bytes : int
            Bytes that a connection may send beyond those of accounted messages.
        per_s : float
            Bytes per second that are deducted from what it sent.
        """
        if not endpoint.startswith("tcp://"):
            return
        self._limits[int(endpoint.rsplit(":", 1)[1])] = _Limit(most_bytes, per_s)
        if self._thread is None and IS_LINUX:
            self._thread = Thread(target=self._run, name="nv-limits", daemon=True)
            self._thread.start()

    def account(self, frames: "Sequence[zmq.Frame]") -> None:
        """Deduct a message that was received whole from its connection's sent bytes."""
        found = _handle_of(frames) if IS_LINUX else None
        if found is None:
            return
        handle, inode = found
        with self._lock:
            if inode not in self._connections and inode not in self._others:
                self._measure(handle, inode, monotonic())
            connection = self._connections.get(inode)
            if connection is not None:
                size = sum(len(frame) + _PART_BYTES for frame in frames)
                connection.accounted_bytes += size

    def disconnect(self, inode: int | None, reason: str) -> None:
        """Shut down the connection with that socket inode, if it is a limited one."""
        with self._lock:
            connection = self._connections.get(inode or 0)
            if connection is not None and not connection.is_cut:
                self._cut(connection, reason)

    def close(self) -> None:
        """Stop the thread, before the sockets are closed. May be called twice."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Measure a call into ZeroMQ, which peers may keep from returning."""
        clock = thread_clock()
        if clock is not None:
            self._call = clock, read_clock(clock)
        try:
            yield
        finally:
            self._call = None

    def check(self) -> bool:
        """Measure all connections and cut those over a limit.

        Returns
        -------
        bool
            Whether an endpoint's connections have sent an eighth of one's limit.
        """
        now_s = monotonic()
        with self._lock:
            seen = set()
            n_handles = len(open_handles())
            for handle, inode in _sockets():
                seen.add(inode)
                if inode not in self._others:
                    self._measure(handle, inode, now_s)
            self._refuse(now_s, is_full=n_handles > self._most_handles)
            self._others &= seen
            for inode in self._connections.keys() - seen:
                del self._connections[inode]
            sent = [self._enforce(port, limit) for port, limit in self._limits.items()]
            newest = next(reversed(self._connections.values()), None)
            is_recent = newest is not None and now_s - newest.began_s < _RECENT_S
            return any(sent) or is_recent

    def _run(self) -> None:
        pause_s = _CHECK_S
        while not self._stopping.is_set():
            self._wait(pause_s)
            began_s = monotonic()
            try:
                pause_s = _SOON_S if self.check() else _CHECK_S
                self._return_memory()
            except Exception:  # the limits must outlast any failure
                log.exception("the connections could not be watched")
            # A burst of connections is checked often, not all of the time.
            self._stopping.wait((monotonic() - began_s) * (1 / _SHARE - 1))

    def _wait(self, seconds: float) -> None:
        """Wait for a new connection, or for so long."""
        readable(*self._listeners.values(), timeout_s=seconds)

    def _refuse(self, now_s: float, *, is_full: bool) -> None:
        """Refuse new connections where descriptors or the time of a call run out."""
        if self._is_busy() and now_s >= self._refuse_until_s:
            if now_s - self._calm_since_s > _CALM_S:
                self._refuse_s = _REFUSE_S
            self._refuse_until_s = now_s + self._refuse_s
            self._refuse_s = min(2 * self._refuse_s, _LONGEST_REFUSE_S)
            for connection in self._connections.values():
                is_young = now_s - connection.began_s < _YOUNG_S
                if is_young and connection.surplus > _BUSY_BYTES:
                    self._cut(connection, "it keeps the engine from sending")
        is_refusing = is_full or now_s < self._refuse_until_s
        if is_refusing:
            self._calm_since_s = now_s
        if is_refusing and not self._is_refusing:
            reason = "descriptors run out" if is_full else "peers send too much"
            log.warning("new connections are refused for a while: %s", reason)
        self._is_refusing = is_refusing
        for listener in self._listeners.values():
            if is_refusing:
                listener.refuse()
            elif self._is_small:
                listener.hold()
                listener.accept_some()
            else:
                listener.accept()

    def _is_busy(self) -> bool:
        """Return whether a call into ZeroMQ has computed for long."""
        call = self._call
        if call is None:
            return False
        clock, began_s = call
        try:
            return read_clock(clock) - began_s > _MOST_BUSY_S
        except OSError:  # the thread has ended
            return False

    def _return_memory(self) -> None:
        """Give the memory of connections that were cut back to the system."""
        if self._has_cut_much:
            self._has_cut_much = False
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).malloc_trim(0)

    def _measure(self, handle: int, inode: int, now_s: float) -> None:
        try:
            with socket.socket(fileno=os.dup(handle)) as one:
                port, state, received, acked = _tcp_info(one)
        except OSError:
            return  # it has just been closed
        limit = self._limits.get(port)
        if limit is not None and state == _LISTENING:
            self._listeners[inode] = Listener(handle)
        if limit is None or state == _LISTENING:
            self._others.add(inode)
            return
        known = self._connections.get(inode)
        if known is None:
            known = _Connection(inode, port, now_s, handle)
            self._connections[inode] = known
        known.handle = handle
        known.is_admitted = acked > self._handshake_bytes
        allowed = known.accounted_bytes + (now_s - known.began_s) * limit.per_s
        known.surplus = max(0.0, received - allowed - _FREE_BYTES)

    def _enforce(self, port: int, limit: _Limit) -> bool:
        """Cut the connections of a port that are over a limit."""
        known = self._connections.values()
        here = [one for one in known if one.port == port and not one.is_cut]
        if len(here) > self.most_connections:
            # First those without a handshake, the oldest first; then the newest.
            outside = [one for one in here if not one.is_admitted]
            inside = [one for one in reversed(here) if one.is_admitted]
            for connection in (outside + inside)[: len(here) - self.most_connections]:
                self._cut(connection, f"there are more than {self.most_connections}")
        total = sent = sum(connection.surplus for connection in here)
        for connection in sorted(here, key=lambda c: c.surplus, reverse=True):
            alone = connection.surplus > limit.most_bytes
            if not alone and total <= limit.most_bytes * _ALL_TOGETHER:
                break
            total -= connection.surplus
            self._cut(connection, "it sends more than it may")
        return sent > limit.most_bytes / 8

    def _cut(self, connection: _Connection, reason: str) -> None:
        try:
            with socket.socket(fileno=os.dup(connection.handle)) as one:
                # The handle may belong to another socket by now.
                if os.fstat(one.fileno()).st_ino != connection.inode:
                    return
                # A reset stops a peer that goes on sending at once.
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                one.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
        self.cut += 1
        self._has_cut_much |= connection.surplus > _BUSY_BYTES
        connection.is_cut = True
        log.warning("a connection to port %d was cut: %s", connection.port, reason)


def inode_of(frames: "Sequence[zmq.Frame]") -> int | None:
    """Return the inode of the socket by which a message came; None: it is closed."""
    found = _handle_of(frames)
    return None if found is None else found[1]


def _handle_of(frames: "Sequence[zmq.Frame]") -> tuple[int, int] | None:
    """Return handle and inode of the socket by which a message came."""
    import zmq

    try:
        handle = int(str(frames[-1].get("__fd")))
        return handle, os.fstat(handle).st_ino
    except (ValueError, OSError, zmq.ZMQError):  # not every message has it
        return None


def _sockets() -> Iterator[tuple[int, int]]:
    """Yield handle and inode of each socket of this process."""
    for handle in open_handles():
        try:
            status = os.fstat(handle)
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode):
            yield handle, status.st_ino


def _tcp_info(one: socket.socket) -> tuple[int, int, int, int]:
    """Return local port, state, bytes received and acknowledged; port 0: not TCP."""
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
