"""Fair queue of replay requests: connections take turns, each within its rate.

Each connection has a queue and a token bucket. The queues are served round robin, one
request at a time. A connection whose bucket is empty, or that does not read its
answers, is passed over until that changes; its requests wait and are not refused.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

# Bounds on requests that wait: of one connection, and of all beyond one for each.
MOST_WAITING = 1000
_MOST_WAITING_BYTES = 2**18
_MOST_WAITING_BYTES_IN_ALL = 16 * 2**20
_MOST_CONNECTIONS = 4000

# Memory of one part besides its content; parts of a request: its route and itself.
_PART_BYTES = 100
_MOST_PARTS = 8

# Capacity of a token bucket, in seconds of the connection's rate.
_BURST_S = 2.0

# Bounds on answers that were sent and not read: of one connection, and of all.
_MOST_UNREAD_BYTES = 2 * 2**20
_MOST_UNREAD_BYTES_IN_ALL = 64 * 2**20

# Cost of the requests that may be in progress together, elsewhere: a small request
# must not wait for everything that was passed on before it.
_MOST_IN_PROGRESS_S = 0.5

# When connections that were passed over are tried again, and idle ones forgotten.
_RETRY_S = 0.01
_FORGET_S = 5.0


class Delivery(Protocol):
    """Progress of an answer, as ``zmq.MessageTracker`` reports it."""

    @property
    def done(self) -> bool:
        """True if the kernel has the whole answer."""
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests and bytes per second that one connection may ask for.

    Both draw on the same second: half of the requests and half of the bytes use it up.
    """

    requests: float
    bytes: float

    def cost_s(self, n_bytes: int) -> float:
        """Return the cost of an answer of `n_bytes`, in seconds of this rate."""
        return 1 / self.requests + n_bytes / self.bytes


@dataclass(slots=True, eq=False)
class ConnectionQueue:
    """Requests of one connection, its token bucket, and its unread answers."""

    name: bytes  # routing id
    socket: int | None  # inode
    filled_s: float
    tokens_s: float = _BURST_S
    cost_s: float = _MOST_IN_PROGRESS_S / 4  # of its last answer: estimate of the next
    requests: deque[list[bytes]] = field(default_factory=deque)
    request_bytes: int = 0
    in_progress: int = 0
    is_scheduled: bool = False
    is_delayed: bool = False  # its oldest request was passed over
    unread: deque[tuple[Delivery, int, float]] = field(default_factory=deque)
    unread_bytes: int = 0
    is_cut: bool = False

    def refill(self, now_s: float) -> None:
        """Add the tokens of the time since the last call."""
        gained_s, self.filled_s = now_s - self.filled_s, now_s
        self.tokens_s = min(_BURST_S, self.tokens_s + gained_s)


class QueuedRequest(NamedTuple):
    """One request to be answered now: ``parts`` are its route and its body."""

    connection: ConnectionQueue
    parts: list[bytes]
    reserved_s: float


@dataclass(slots=True)
class RequestCounts:
    """Counts of requests: ``asked == answered + refused + gone + waiting``.

    ``delayed`` of the answered ones were passed over before, for their connection's
    rate or its unread answers; ``gone`` are those whose connection ended before.
    ``cut`` counts connections that were ended because too much lay unread.
    """

    asked: int = 0
    answered: int = 0
    refused: int = 0
    gone: int = 0
    delayed: int = 0
    waiting: int = 0
    cut: int = 0


class FairQueue:
    """Round robin over the queues of connections; uses neither sockets nor a clock.

    `put` and `next` take constant time: a connection that is passed over is not
    examined again for 10 ms.

    Parameters
    ----------
    rate : Rate
        Rate of each connection.
    """

    def __init__(self, rate: Rate) -> None:
        self.counts = RequestCounts()
        self._rate = rate
        self._connections: dict[bytes, ConnectionQueue] = {}
        self._ready: deque[ConnectionQueue] = deque()
        self._passed_over: list[ConnectionQueue] = []
        self._waiting_bytes = self._unread_bytes = 0
        self._in_progress, self._in_progress_s = 0, 0.0
        self._retried_s = self._forgotten_s = self._dropped_idle_s = float("-inf")

    def put(self, parts: list[bytes], socket: int | None, now_s: float) -> bool:
        """Queue a request; return False where a bound is reached and it is refused.

        Parameters
        ----------
        parts : list of bytes
            Route, which begins with the connection's routing id, and body.
        socket : int or None
            Inode of the connection's socket.
        now_s : float
            Monotonic time.
        """
        self.counts.asked += 1
        size = _size(parts)
        connection = self._connections.get(parts[0])
        if len(parts) > _MOST_PARTS or not self._has_capacity(connection, size, now_s):
            self.counts.refused += 1
            return False
        if connection is None:
            connection = ConnectionQueue(parts[0], socket, now_s)
            self._connections[parts[0]] = connection
        connection.requests.append(parts)
        connection.request_bytes += size
        self._waiting_bytes += size
        self.counts.waiting += 1
        if not connection.is_scheduled:
            connection.is_scheduled = True
            self._ready.append(connection)
        return True

    def next(self, now_s: float) -> QueuedRequest | None:
        """Take the next request; None while no connection may be served.

        Each request must be followed by one call of `done` or `failed`.
        """
        if now_s - self._forgotten_s >= _FORGET_S:
            self._forgotten_s = now_s
            self._forget_idle(now_s)
        if now_s - self._retried_s >= _RETRY_S:
            self._retried_s = now_s
            self._ready.extend(self._passed_over)
            self._passed_over.clear()
        while self._ready:
            connection = self._ready.popleft()
            if not connection.requests:
                connection.is_scheduled = False
            elif not self._may_be_served(connection, now_s):
                connection.is_delayed = True
                self._passed_over.append(connection)
            else:
                self._ready.append(connection)
                return self._dequeue(connection)
        return None

    def done(
        self,
        request: QueuedRequest,
        n_bytes: int,
        now_s: float,
        delivery: Delivery | None = None,
    ) -> None:
        """Charge an answer to its connection.

        Parameters
        ----------
        request : QueuedRequest
            From `next`.
        n_bytes : int
            Length of the answer.
        now_s : float
            Monotonic time.
        delivery : Delivery, optional
            Progress of the answer; None: it counts as read.
        """
        connection = request.connection
        connection.cost_s = self._rate.cost_s(n_bytes)
        self._release(request, connection.cost_s)
        self.counts.answered += 1
        if delivery is not None:
            connection.unread.append((delivery, n_bytes, now_s))
            connection.unread_bytes += n_bytes
            self._unread_bytes += n_bytes

    def failed(self, request: QueuedRequest, *, ended: bool) -> None:
        """Count a request that cannot be answered, as its connection reads nothing.

        With `ended` the connection has gone, and its other requests are dropped.
        """
        connection = request.connection
        self._release(request, 0.0)
        if not ended:
            self.counts.refused += 1
            return
        self.counts.gone += 1 + len(connection.requests)
        self.counts.waiting -= len(connection.requests)
        self._waiting_bytes -= connection.request_bytes
        connection.request_bytes = 0
        connection.requests.clear()
        self._unread_bytes -= connection.unread_bytes
        connection.unread_bytes = 0
        connection.unread.clear()
        if self._connections.get(connection.name) is connection:
            del self._connections[connection.name]

    def connections_to_cut(self) -> Iterator[ConnectionQueue]:
        """Yield connections to end while the unread answers of all exceed their bound.

        The connections whose oldest answer has been unread for longest come first.
        """
        if self._unread_bytes <= _MOST_UNREAD_BYTES_IN_ALL:
            return
        for connection in self._connections.values():
            self._drop_read(connection)
        unread = [c for c in self._connections.values() if c.unread and not c.is_cut]
        excess = sum(c.unread_bytes for c in unread) - _MOST_UNREAD_BYTES_IN_ALL
        for connection in sorted(unread, key=lambda c: c.unread[0][2]):
            if excess <= 0:
                return
            excess -= connection.unread_bytes
            connection.is_cut = True
            self.counts.cut += 1
            yield connection

    def _has_capacity(
        self, connection: ConnectionQueue | None, size: int, now_s: float
    ) -> bool:
        if connection is None:
            if len(self._connections) >= _MOST_CONNECTIONS:
                self._drop_idle_connections(now_s)
            return len(self._connections) < _MOST_CONNECTIONS
        return not connection.requests or (
            len(connection.requests) < MOST_WAITING
            and connection.request_bytes + size <= _MOST_WAITING_BYTES
            and self._waiting_bytes + size <= _MOST_WAITING_BYTES_IN_ALL
        )

    def _may_be_served(self, connection: ConnectionQueue, now_s: float) -> bool:
        connection.refill(now_s)
        self._drop_read(connection)
        in_progress_s = self._in_progress_s + connection.cost_s
        return (
            connection.tokens_s > 0
            and connection.unread_bytes < _MOST_UNREAD_BYTES
            and (not self._in_progress or in_progress_s <= _MOST_IN_PROGRESS_S)
        )

    def _dequeue(self, connection: ConnectionQueue) -> QueuedRequest:
        parts = connection.requests.popleft()
        connection.request_bytes -= _size(parts)
        self._waiting_bytes -= _size(parts)
        self.counts.waiting -= 1
        self.counts.delayed += connection.is_delayed
        connection.is_delayed = False
        connection.tokens_s -= connection.cost_s
        connection.in_progress += 1
        self._in_progress += 1
        self._in_progress_s += connection.cost_s
        return QueuedRequest(connection, parts, connection.cost_s)

    def _release(self, request: QueuedRequest, cost_s: float) -> None:
        request.connection.in_progress -= 1
        self._in_progress -= 1
        request.connection.tokens_s += request.reserved_s - cost_s
        self._in_progress_s -= request.reserved_s

    def _drop_read(self, connection: ConnectionQueue) -> None:
        while connection.unread and connection.unread[0][0].done:
            _, size, _ = connection.unread.popleft()
            connection.unread_bytes -= size
            self._unread_bytes -= size

    def _drop_idle_connections(self, now_s: float) -> None:
        """Drop connections without requests and unread answers, every `_RETRY_S` s."""
        if now_s - self._dropped_idle_s < _RETRY_S:
            return
        self._dropped_idle_s = now_s
        for name, connection in list(self._connections.items()):
            self._drop_read(connection)
            is_busy = connection.requests or connection.in_progress
            if not is_busy and not connection.unread:
                del self._connections[name]

    def _forget_idle(self, now_s: float) -> None:
        for name, connection in list(self._connections.items()):
            connection.refill(now_s)
            self._drop_read(connection)
            is_busy = connection.is_scheduled or connection.in_progress
            is_new = not connection.unread and connection.tokens_s >= _BURST_S
            if is_new and not is_busy:
                del self._connections[name]


def _size(parts: list[bytes]) -> int:
    return sum(len(part) + _PART_BYTES for part in parts)
