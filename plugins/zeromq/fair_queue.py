"""Whose question is answered next: nobody's greed is another one's wait.

Each connection has a line of its own. Of those that may be served, the one that has
cost least so far has its turn (start-time fair queueing: Goyal, Vin and Cheng, 1996,
"Start-time fair queuing", section 2). One that asks for more than its rate is served
later, not refused; one that does not take its answers is not served until it does.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import zmq


# Questions that wait for one connection; and of all connections, beyond one each.
MOST_WAITING = 1000
_MOST_WAITING_BYTES = 2**18
_MOST_WAITING_BYTES_IN_ALL = 16 * 2**20

# What a part costs beside its content, and how many a question may have: the names
# on its way back, and itself.
_PART_BYTES = 100
_MOST_PARTS = 8

# Seconds of its rate that a connection may have saved up.
_BURST_S = 2.0

# Of answers that are under way a connection may have so much, all together so much.
_MOST_UNTAKEN_BYTES = 2 * 2**20
_MOST_UNTAKEN_BYTES_IN_ALL = 64 * 2**20

# What may be under way elsewhere together, in seconds of one connection's rate: who
# asks for little should not wait for all that was handed on before.
_MOST_EXPECTED_S = 0.5

# How often lines that are as new are forgotten.
_FORGET_S = 5.0


class Delivery(Protocol):
    """Tells whether an answer has left this process, as ``zmq.MessageTracker``."""

    @property
    def done(self) -> bool:
        """Whether it has."""
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """What one connection may ask for each second.

    Both are shares of the same second: who asks for half of either has had it all.
    """

    questions: float
    bytes: float

    def cost_s(self, n_bytes: int) -> float:
        """Seconds of its rate that one answer takes."""
        return 1 / self.questions + n_bytes / self.bytes


@dataclass(slots=True)
class Line:
    """One connection: what it asks, has cost, and has not taken."""

    name: bytes
    socket: int | None  # of the kernel, by which it can be cut
    saved_s: float
    seen_s: float
    spent_s: float = 0.0  # virtual time of start-time fair queueing
    expected_s: float = 0.0  # what its next answer will cost: as much as its last
    under_way: int = 0  # questions that were handed on and have no answer yet
    charged_s: deque[float] = field(default_factory=deque)  # for them, beforehand
    late: bool = False  # whether its first question has been counted as delayed
    waiting: deque[list[bytes]] = field(default_factory=deque)
    waiting_bytes: int = 0
    untaken: deque[tuple[Delivery, int, float]] = field(default_factory=deque)
    untaken_bytes: int = 0
    cut: bool = False


@dataclass(slots=True)
class TurnCounts:
    """What became of questions: ``asked == answered + refused + gone + waiting``.

    ``delayed`` of the answered ones had to wait for their connection's rate or for
    it to take its answers; ``gone`` are those whose connection ended before.
    ``cut`` connections did not take their answers, and too many waited.
    """

    asked: int = 0
    answered: int = 0
    refused: int = 0
    gone: int = 0
    delayed: int = 0
    waiting: int = 0
    cut: int = 0


class Turns:
    """Lines of questions, and whose turn it is; knows no sockets and no clock.

    Parameters
    ----------
    rate : Rate
        For each connection.
    most_under_way : int
        Questions of one connection that may be without an answer at a time, where
        answers come from elsewhere.
    """

    def __init__(self, rate: Rate, most_under_way: int = 1) -> None:
        self.counts = TurnCounts()
        self._rate = rate
        self._most_under_way = most_under_way
        self._lines: dict[bytes, Line] = {}
        self._waiting_bytes = 0
        self._untaken_bytes = 0
        self._under_way = 0
        self._expected_s = 0.0  # of all that is under way
        self._virtual_s = 0.0
        self._forgot_s = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether there are questions without an answer."""
        return self.counts.waiting > 0

    def put(self, parts: list[bytes], socket: int | None, now_s: float) -> bool:
        """Take a question: envelope and body. False: too many wait already."""
        name, size = parts[0], sum(len(part) + _PART_BYTES for part in parts)
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(name, socket, _BURST_S, now_s)
            line.expected_s = _MOST_EXPECTED_S / 4  # nobody knows yet
        self.counts.asked += 1
        if len(parts) > _MOST_PARTS or (
            line.waiting
            and (
                len(line.waiting) >= MOST_WAITING
                or line.waiting_bytes + size > _MOST_WAITING_BYTES
                or self._waiting_bytes + size > _MOST_WAITING_BYTES_IN_ALL
            )
        ):
            self.counts.refused += 1
            return False
        if not line.waiting and not line.under_way:
            # What it did not ask for while it was silent it has not saved.
            line.spent_s = max(line.spent_s, self._virtual_s)
        line.waiting.append(parts)
        line.waiting_bytes += size
        self._waiting_bytes += size
        self.counts.waiting += 1
        return True

    def next(self, now_s: float) -> tuple[Line, list[bytes]] | None:
        """The question whose turn it is; None while nobody may be served."""
        self._forget(now_s)
        ready = [line for line in self._lines.values() if self._may(line, now_s)]
        if not ready:
            return None
        line = min(ready, key=lambda one: one.spent_s)
        self._virtual_s = max(self._virtual_s, line.spent_s)
        parts = line.waiting.popleft()
        self._shorten(line, sum(len(part) + _PART_BYTES for part in parts))
        self.counts.waiting -= 1
        self.counts.delayed += line.late
        line.late = False
        line.under_way += 1
        self._under_way += 1
        self._charge(line, line.expected_s)
        self._expected_s += line.expected_s
        line.charged_s.append(line.expected_s)
        return line, parts

    def done(
        self,
        line: Line,
        n_bytes: int,
        now_s: float,
        delivery: Delivery | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Note what an answer cost.

        Parameters
        ----------
        line : Line
            From `next`.
        n_bytes : int
            Its length.
        delivery : Delivery, optional
            Tells when it has been taken; None: it need not be waited for.
        seconds : float
            Time that was spent on it.
        """
        cost_s = self._rate.cost_s(n_bytes) + seconds
        self._charge(line, cost_s - self._back_s(line))
        line.expected_s = cost_s
        self.counts.answered += 1
        if delivery is not None:
            line.untaken.append((delivery, n_bytes, now_s))
            line.untaken_bytes += n_bytes
            self._untaken_bytes += n_bytes

    def failed(self, line: Line, *, ended: bool) -> None:
        """Note that a question could not be answered: the connection takes nothing.

        With `ended` it is gone for good, and all its other questions with it.
        """
        self._back_s(line)
        if not ended:
            self.counts.refused += 1
            return
        self.counts.gone += 1 + len(line.waiting)
        self.counts.waiting -= len(line.waiting)
        self._shorten(line, line.waiting_bytes)
        line.waiting.clear()

    def too_much(self) -> Iterator[Line]:
        """Connections to be cut, as all together hold more than they may.

        Those that have left their answers for longest come first.
        """
        if self._untaken_bytes <= _MOST_UNTAKEN_BYTES_IN_ALL:
            return
        for line in self._lines.values():
            self._collect(line)
        holding = [o for o in self._lines.values() if o.untaken and not o.cut]
        excess = sum(o.untaken_bytes for o in holding) - _MOST_UNTAKEN_BYTES_IN_ALL
        for line in sorted(holding, key=lambda one: one.untaken[0][2]):
            if excess <= 0:
                return
            excess -= line.untaken_bytes
            line.cut = True
            self.counts.cut += 1
            yield line

    def _may(self, line: Line, now_s: float) -> bool:
        """Whether a line may be served; if not, its first question is late."""
        line.saved_s = min(_BURST_S, line.saved_s + now_s - line.seen_s)
        line.seen_s = now_s
        self._collect(line)
        if not line.waiting:
            return False
        may = (
            line.saved_s > 0
            and line.under_way < self._most_under_way
            and self._has_room(line)
            and line.untaken_bytes < _MOST_UNTAKEN_BYTES
        )
        line.late |= not may
        return may

    def _has_room(self, line: Line) -> bool:
        expected_s = self._expected_s + line.expected_s
        return not self._under_way or expected_s <= _MOST_EXPECTED_S

    def _charge(self, line: Line, cost_s: float) -> None:
        line.saved_s -= cost_s
        line.spent_s += cost_s

    def _back_s(self, line: Line) -> float:
        """Take a question off what is under way; what was charged for it."""
        line.under_way -= 1
        self._under_way -= 1
        charged_s = line.charged_s.popleft()
        self._expected_s -= charged_s
        return charged_s

    def _collect(self, line: Line) -> None:
        """Forget answers that were taken."""
        while line.untaken and line.untaken[0][0].done:
            _, size, _ = line.untaken.popleft()
            line.untaken_bytes -= size
            self._untaken_bytes -= size

    def _shorten(self, line: Line, size: int) -> None:
        line.waiting_bytes -= size
        self._waiting_bytes -= size

    def _forget(self, now_s: float) -> None:
        if now_s - self._forgot_s < _FORGET_S:
            return
        self._forgot_s = now_s
        for name, line in list(self._lines.items()):
            self._may(line, now_s)
            busy = line.waiting or line.untaken or line.under_way
            if not busy and line.saved_s >= _BURST_S:
                del self._lines[name]


# Small answers, such as refusals, that may wait for one connection.
MOST_ANSWERS = 64


def prepare(socket: "zmq.Socket[bytes]") -> None:
    """Set a ROUTER socket up, before it is bound, so that `begin_answer` can tell."""
    import zmq

    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, MOST_ANSWERS)


def begin_answer(
    socket: "zmq.Socket[bytes]", name: bytes
) -> Literal["begun", "full", "ended"]:
    """Begin an answer, or tell why it would be for nothing.

    Once it is begun it must be ended, by `end_answer`.
    """
    import zmq

    try:
        socket.send(name, zmq.SNDMORE | zmq.DONTWAIT)
    except zmq.Again:
        return "full"
    except zmq.ZMQError:
        return "ended"
    return "begun"


def end_answer(socket: "zmq.Socket[bytes]", parts: Sequence[bytes]) -> Delivery:
    """Send the other parts; what is returned tells when the kernel has them all."""
    import zmq

    last = max(place for place, part in enumerate(parts) if part)
    # ZeroMQ copies all but one: it is told when that one has been read.
    told = zmq.Frame(parts[last], track=True, copy=False, copy_threshold=0)
    socket.send_multipart([*parts[:last], told, *parts[last + 1 :]], zmq.DONTWAIT)
    tracker: Delivery = told.tracker
    return tracker
