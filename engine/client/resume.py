"""Order of live and recorded messages: fetch missing ones from the journal.

The class knows neither sockets nor clocks: live messages and replies go in, requests to
the replay socket and messages in their order come out.

Each topic (kind and stream) has a position: run and number of the last message that
was delivered. A live message that follows it is delivered at once. One that does not is
held while the journal is asked for the messages after the position; these are delivered
in order, and then what was held. So no message is delivered twice, and what is still
missing is missing in the journal, too.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import Any, Literal, NamedTuple, TypeAlias

from neurovocal.engine.client.received import LostMessages, Received
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.types import BULK_KINDS
from neurovocal.engine.wire.codec import topic

StartPoint: TypeAlias = Literal["now", "run", "journal"]
TopicKey: TypeAlias = tuple[str, str]
ReplayRequest: TypeAlias = dict[str, Any]

# Kinds that no journal keeps: they are delivered as they come.
UNRECORDED_KINDS = BULK_KINDS | {"stats"}

# Live messages held per topic; what exceeds it is fetched later.
_MOST_HELD = 1000
# Of all topics together: no publisher may exhaust a subscriber's memory.
_MOST_HELD_IN_ALL = 4000
# Each recording of a folder is a stream; no station has a million.
_MOST_TOPICS = 1_000_000
_PAGE_LENGTH = 500
# Finished runs that are remembered per topic.
_MOST_RUNS = 64
# A request without a reply is repeated: the engine may have been restarted.
_REPLY_TIMEOUT_S = 2.0
# Requests without a reply at a time: the journal answers at a limited rate.
_MOST_PENDING = 50
# Requests whose number is remembered, so that a late reply is understood.
_MOST_REMEMBERED = 1000
# The journal commits in less than a second: what it lacks is requested once more.
_RETRY_S = 0.15
# A topic without live messages may have lost its last one: it is checked this often.
_CHECK_PERIOD_S = 2.0
# Without any reply, so many seconds of live messages are held before they are delivered
# with a hole before them.
_LONGEST_HOLD_S = 60.0
# What a pause between two live messages adds to that at most.
_LONGEST_PAUSE_S = 10.0


class Position(NamedTuple):
    """Run and number of the last message of a topic that was delivered."""

    run: str
    seq: int


@dataclass(slots=True)
class _Topic:
    position: Position | None = None
    finished_runs: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_RUNS))
    behind: bool = False  # older messages must be delivered first
    held: deque[Received] = field(default_factory=lambda: deque(maxlen=_MOST_HELD))
    pending: int | None = None  # number of the request without a reply
    requested_s: float = float("-inf")
    due_s: float = float("-inf")  # when to send the next request
    held_since_s: float = 0.0
    last_live_s: float = 0.0
    unanswered_s: float = 0.0  # seconds of live messages without any reply


class Resumer:
    """Merges live messages and those of the journal into one order per topic.

    Parameters
    ----------
    kinds : frozenset of str
        Kinds that are subscribed to; those that no journal keeps are ignored.
    streams : frozenset of str or None
        Streams that are subscribed to; None: all.
    start : {'now', 'run', 'journal'}
        Where a topic without a position begins: with the next live message, with the
        first message of the newest run, or with the oldest in the journal.
    positions : mapping of (kind, stream) to Position
        Where an earlier subscriber stopped.
    patience_s : float
        A request that was sent so many seconds after a hole was detected, and whose
        reply does not fill it, makes the hole final.

    Attributes
    ----------
    ready : deque of Received
        Messages to be delivered, in order.
    """

    def __init__(
        self,
        kinds: frozenset[str],
        streams: frozenset[str] | None,
        start: StartPoint,
        positions: Mapping[TopicKey, Position],
        patience_s: float = 5.0,
    ) -> None:
        self.kinds = kinds - UNRECORDED_KINDS
        self.ready: deque[Received] = deque()
        self._streams = streams
        self._start = start
        self._patience_s = patience_s
        self._topics = {
            key: _Topic(Position(*position), behind=True)
            for key, position in positions.items()
            if key[0] in self.kinds and (streams is None or key[1] in streams)
        }
        self._n_held = 0  # messages in all topics
        # No reply at all so far, and something to fetch.
        self._unanswered = start != "now" or bool(self._topics)
        self._n_requests = 0
        self._requests: dict[int, tuple[TopicKey, float]] = {}
        self._listing: int | None = None  # number of the request for topics
        self._listed_s = float("-inf")

    @property
    def waiting(self) -> bool:
        """Whether messages cannot be delivered before a reply has come."""
        return self._n_held > 0 or self._unanswered

    def put_live(self, message: Received, now_s: float) -> None:
        """Add a live message."""
        key = (message.kind, message.stream)
        state = self._topics.get(key)
        if state is None:
            state = self._new_topic(key, behind=self._start != "now")
        if not state.behind and self._follows(state, message):
            self._deliver(state, message)
        elif not _is_old(state, message):
            self._hold(state, message, now_s)

    def requests(self, now_s: float) -> list[ReplayRequest]:
        """Return the requests that are due, and count them as sent."""
        requests = []
        if self._listing_is_due(now_s):
            self._listing, self._listed_s = self._next_number(), now_s
            requests.append(
                {
                    "v": 1,
                    "id": self._listing,
                    "command": "topics",
                    "kinds": sorted(self.kinds),
                }
            )
        requests += [
            self._request(key, self._topics[key], now_s) for key in self._due(now_s)
        ]
        return requests

    def put_topics(self, number: int, keys: list[TopicKey]) -> None:
        """Add the reply to a request for the topics of the journal."""
        if number != self._listing:
            return
        self._listing, self._unanswered = None, False
        for key in keys:
            subscribed = self._streams is None or key[1] in self._streams
            if subscribed and key[0] in self.kinds and key not in self._topics:
                self._new_topic(key, behind=True)

    def put_page(
        self, number: int, messages: list[Received], *, more: bool, now_s: float
    ) -> None:
        """Add a reply with messages after the position, the oldest first."""
        key, requested_s = self._requests.pop(number, (None, 0.0))
        state = self._topics.get(key) if key else None
        if state is None:
            return
        # The reply to a repeated request is as good as that to the repetition.
        if state.pending == number:
            state.pending = None
        state.unanswered_s, self._unanswered, progress = 0.0, False, False
        for message in messages:
            if not _is_old(state, message):
                self._deliver(state, message)
                progress = True
        self._release(state)
        if progress:
            state.held_since_s = now_s  # the hole that remains, if any, is a new one
        elif not more:
            self._give_up(state, requested_s, now_s)
        if state.held:
            state.due_s = now_s if more else now_s + _RETRY_S
        elif more:
            state.behind, state.due_s = True, now_s
        else:
            state.behind = False

    def put_refusal(self, number: int, now_s: float) -> None:
        """Add a reply without messages: there is no journal now."""
        key, requested_s = self._requests.pop(number, (None, 0.0))
        state = self._topics.get(key) if key else None
        if state is not None:
            state.unanswered_s = 0.0
            self._give_up(state, requested_s, now_s)

    def _due(self, now_s: float) -> list[TopicKey]:
        """Return topics to send requests for: those with holes, then the quietest."""
        n_pending, due = 0, []
        for key, state in self._topics.items():
            if state.pending is not None and (
                now_s - state.requested_s < _REPLY_TIMEOUT_S
            ):
                n_pending += 1
                continue
            due_s = state.due_s if state.behind else state.requested_s + _CHECK_PERIOD_S
            if now_s >= due_s:
                due.append((not state.behind, due_s, key))
        free = max(0, _MOST_PENDING - n_pending)
        if len(due) > free:
            due = nsmallest(free, due)
        return [key for *_, key in due]

    def _hold(self, state: _Topic, message: Received, now_s: float) -> None:
        """Keep a live message until those before it have been delivered."""
        if state.held:
            state.unanswered_s += min(now_s - state.last_live_s, _LONGEST_PAUSE_S)
        else:
            state.held_since_s, state.unanswered_s = now_s, 0.0
        state.last_live_s = now_s
        if not state.behind:
            state.behind, state.due_s = True, now_s
        if self._n_held < _MOST_HELD_IN_ALL:
            self._n_held += len(state.held) < _MOST_HELD
            state.held.append(message)  # otherwise it is fetched from the journal
        if state.unanswered_s > _LONGEST_HOLD_S:
            self._skip_hole(state, now_s)

    def _listing_is_due(self, now_s: float) -> bool:
        late_s = now_s - self._listed_s
        return self._start != "now" and late_s >= (
            _CHECK_PERIOD_S if self._listing is None else _REPLY_TIMEOUT_S
        )

    def _request(self, key: TopicKey, state: _Topic, now_s: float) -> ReplayRequest:
        state.pending, state.requested_s = self._next_number(), now_s
        self._requests[state.pending] = (key, now_s)
        if len(self._requests) > _MOST_REMEMBERED:
            del self._requests[next(iter(self._requests))]
        after = state.position._asdict() if state.position else None
        return {
            "v": 1,
            "id": state.pending,
            "command": "replay",
            "kind": key[0],
            "stream": key[1],
            "after": after,
            "start": "run" if self._start == "run" else "journal",
            "most": _PAGE_LENGTH,
        }

    def _release(self, state: _Topic) -> None:
        """Deliver held messages up to the first hole."""
        while state.held:
            first = state.held[0]
            if _is_old(state, first):
                self._next_held(state)
            elif self._follows(state, first):
                self._deliver(state, self._next_held(state))
            else:
                return

    def _give_up(self, state: _Topic, requested_s: float, now_s: float) -> None:
        """Make a hole final if the journal was asked late enough after it."""
        if requested_s - state.held_since_s > self._patience_s:
            self._skip_hole(state, now_s)

    def _skip_hole(self, state: _Topic, now_s: float) -> None:
        """Deliver the first held message, with the hole before it counted as lost."""
        if state.held:
            self._deliver(state, self._next_held(state))
            self._release(state)
            state.held_since_s, state.unanswered_s = now_s, 0.0
            state.behind = bool(state.held)

    def _next_held(self, state: _Topic) -> Received:
        self._n_held -= 1
        return state.held.popleft()

    def _new_topic(self, key: TopicKey, *, behind: bool) -> _Topic:
        if len(self._topics) >= _MOST_TOPICS:
            raise NeurovocalError(
                f"more than {_MOST_TOPICS} streams: is this an engine? Name the "
                "streams that are wanted"
            )
        self._topics[key] = _Topic(behind=behind)
        return self._topics[key]

    def _follows(self, state: _Topic, message: Received) -> bool:
        """Return True if no message can lie between the position and `message`."""
        if state.position is None:
            return self._start == "now" or (self._start == "run" and not message.seq)
        return state.position == (message.run, message.seq - 1)

    def _deliver(self, state: _Topic, message: Received) -> None:
        before = state.position
        state.position = Position(message.run, message.seq)
        restarted = before is not None and before.run != message.run
        expected = message.seq
        if before is not None:
            expected = 0 if restarted else before.seq + 1
        elif self._start != "now":
            expected = 0
        if restarted and before is not None:
            state.finished_runs.append(before.run)
        missed = None
        if message.seq > expected:
            name = topic(message.kind, message.stream).decode()
            missed = LostMessages(name, expected, message.seq - expected)
        self.ready.append(replace(message, missed=missed, restarted=restarted))

    def _next_number(self) -> int:
        self._n_requests += 1
        return self._n_requests


def _is_old(state: _Topic, message: Received) -> bool:
    """Return True if the message, or a later one, was delivered before."""
    if state.position is None:
        return False
    if state.position.run == message.run:
        return message.seq <= state.position.seq
    return message.run in state.finished_runs
