"""How a subscriber gets back what it missed: positions, holes, and questions.

Nothing here knows sockets or clocks: live messages and answers go in, questions to
the replay socket and messages in their right order come out.

Each topic (kind and stream) has a position: run and number of the last message that
was handed out. A live message that follows it is handed out at once. One that does
not is held while the journal is asked for what comes after the position; the answers
are handed out in their order, and what was held follows them. So nothing is
handed out twice, and what is missing in the end is missing in the journal, too.
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

Start: TypeAlias = Literal["now", "run", "journal"]
Key: TypeAlias = tuple[str, str]
Question: TypeAlias = dict[str, Any]

# Kinds that a journal does not keep: they are as they come.
NOT_KEPT = BULK_KINDS | {"stats"}

# Live messages of one topic that wait for older ones; more are asked for again.
_MOST_HELD = 1000
# Of all topics together: no publisher may fill a subscriber's memory.
_MOST_HELD_IN_ALL = 4000
# Each recording of a folder is a stream; a million is no station any more.
_MOST_TOPICS = 1_000_000
_PAGE = 500
# Runs that a topic remembers as over.
_MOST_RUNS = 64
# A question without an answer is asked again: the engine may have been restarted.
_PATIENCE_ANSWER_S = 2.0
# Questions that wait for their answers at a time: the journal answers at a rate.
_MOST_ASKED = 50
# Numbers of questions that are remembered; an answer may come late.
_MOST_NUMBERS = 1000
# The journal commits in less than a second: what it lacks is asked for once more.
_RETRY_S = 0.15
# A topic in which nothing happens may have lost its last message.
_LOOK_S = 2.0
# Without any answer, so much of live messages is held back before they go on: as long
# as a station that is down with its journal is not heard, there is nothing to win.
_STARVED_S = 60.0
# What a silence adds to that at most.
_SILENCE_S = 10.0


class Position(NamedTuple):
    """The last message of a topic that was handed out."""

    run: str
    seq: int


@dataclass(slots=True)
class _Topic:
    position: Position | None = None
    past: deque[str] = field(default_factory=lambda: deque(maxlen=_MOST_RUNS))
    behind: bool = False  # whether older messages must come first
    held: deque[Received] = field(default_factory=lambda: deque(maxlen=_MOST_HELD))
    question: int | None = None  # number of the one that waits for its answer
    asked_s: float = float("-inf")
    due_s: float = float("-inf")  # when to ask next
    held_since_s: float = 0.0
    heard_s: float = 0.0  # when the last live message came
    starved_s: float = 0.0  # how long they have come without an answer


class Resumer:
    """Puts live messages and those of the journal into one order per topic.

    Parameters
    ----------
    kinds : frozenset of str
        What is subscribed to; kinds that no journal keeps are left out.
    streams : frozenset of str or None
        Streams that are wanted; None: all.
    start : {'now', 'run', 'journal'}
        Where a topic without a position begins: with what comes live, with the
        first message of the newest run, or with the oldest in the journal.
    positions : mapping of (kind, stream) to Position
        Where an earlier subscriber stopped.
    patience_s : float
        How long after a hole was seen the journal must still have nothing for it;
        then what is in it counts as missed. What counts is when the journal was
        asked: one who does not listen for a while loses nothing by it.
    """

    def __init__(
        self,
        kinds: frozenset[str],
        streams: frozenset[str] | None,
        start: Start,
        positions: Mapping[Key, Position],
        patience_s: float = 5.0,
    ) -> None:
        self.kinds = kinds - NOT_KEPT
        self.ready: deque[Received] = deque()
        self._streams = streams
        self._start = start
        self._patience_s = patience_s
        self._topics = {
            key: _Topic(Position(*position), behind=True)
            for key, position in positions.items()
            if key[0] in self.kinds and (streams is None or key[1] in streams)
        }
        self._held = 0  # messages in all topics
        self._unbegun = start != "now" or bool(self._topics)  # no answer yet at all
        self._numbers = 0
        self._asked: dict[int, tuple[Key, float]] = {}
        self._listing: int | None = None
        self._listed_s = float("-inf")

    def live(self, message: Received, now_s: float) -> None:
        """Take a message as it happens."""
        key = (message.kind, message.stream)
        known = self._topics.get(key)
        if known is None:
            known = self._new_topic(key, behind=self._start != "now")
        if not known.behind and self._follows(known, message):
            self._hand_out(known, message)
        elif not _is_old(known, message):
            self._hold(known, message, now_s)

    @property
    def waiting(self) -> bool:
        """Whether anything depends on an answer."""
        return self._held > 0 or self._unbegun

    def questions(self, now_s: float) -> list[Question]:
        """What to send to the replay socket now."""
        questions = []
        if self._wants_list(now_s):
            self._listing, self._listed_s = self._next_number(), now_s
            questions.append(
                {
                    "v": 1,
                    "id": self._listing,
                    "command": "topics",
                    "kinds": sorted(self.kinds),
                }
            )
        questions += [
            self._question(key, self._topics[key], now_s) for key in self._due(now_s)
        ]
        return questions

    def _due(self, now_s: float) -> list[Key]:
        """Topics to ask for now: those that miss something, then the longest quiet."""
        asked, due = 0, []
        for key, known in self._topics.items():
            if known.question is not None and (
                now_s - known.asked_s < _PATIENCE_ANSWER_S
            ):
                asked += 1
                continue
            due_s = known.due_s if known.behind else known.asked_s + _LOOK_S
            if now_s >= due_s:
                due.append((not known.behind, due_s, key))
        free = max(0, _MOST_ASKED - asked)
        if len(due) > free:
            due = nsmallest(free, due)
        return [key for *_, key in due]

    def topics(self, number: int, keys: list[Key]) -> None:
        """Take the answer to the question which topics the journal has."""
        if number != self._listing:
            return
        self._listing, self._unbegun = None, False
        for key in keys:
            wanted = self._streams is None or key[1] in self._streams
            if wanted and key[0] in self.kinds and key not in self._topics:
                self._new_topic(key, behind=True)

    def page(
        self, number: int, messages: list[Received], *, more: bool, now_s: float
    ) -> None:
        """Take an answer: messages after the position, the oldest first."""
        key, asked_s = self._asked.pop(number, (None, 0.0))
        known = self._topics.get(key) if key else None
        if known is None:
            return
        # One that was asked again since is as good; its answer says the same.
        if known.question == number:
            known.question = None
        known.starved_s, self._unbegun, goes_on = 0.0, False, False
        for message in messages:
            if not _is_old(known, message):
                self._hand_out(known, message)
                goes_on = True
        self._release(known)
        if goes_on:
            known.held_since_s = now_s  # it goes on: patience begins anew
        elif not more:
            self._give_up(known, asked_s, now_s)
        if known.held:
            known.due_s = now_s if more else now_s + _RETRY_S
        elif more:
            known.behind, known.due_s = True, now_s
        else:
            known.behind = False

    def refused(self, number: int, now_s: float) -> None:
        """Take the answer that there is none now; the question is asked again."""
        key, asked_s = self._asked.pop(number, (None, 0.0))
        known = self._topics.get(key) if key else None
        if known is not None:
            known.starved_s = 0.0
            self._give_up(known, asked_s, now_s)

    def _hold(self, known: _Topic, message: Received, now_s: float) -> None:
        """Keep a live message until those before it have come."""
        if known.held:
            known.starved_s += min(now_s - known.heard_s, _SILENCE_S)
        else:
            known.held_since_s, known.starved_s = now_s, 0.0
        known.heard_s = now_s
        if not known.behind:
            known.behind, known.due_s = True, now_s
        if self._held < _MOST_HELD_IN_ALL:
            self._held += len(known.held) < _MOST_HELD
            known.held.append(message)  # else it is asked for when it is its turn
        if known.starved_s > _STARVED_S:
            self._skip_hole(known, now_s)

    def _wants_list(self, now_s: float) -> bool:
        late = now_s - self._listed_s
        return self._start != "now" and late >= (
            _LOOK_S if self._listing is None else _PATIENCE_ANSWER_S
        )

    def _question(self, key: Key, known: _Topic, now_s: float) -> Question:
        known.question, known.asked_s = self._next_number(), now_s
        self._asked[known.question] = (key, now_s)
        if len(self._asked) > _MOST_NUMBERS:
            del self._asked[next(iter(self._asked))]
        after = known.position._asdict() if known.position else None
        return {
            "v": 1,
            "id": known.question,
            "command": "replay",
            "kind": key[0],
            "stream": key[1],
            "after": after,
            "start": "run" if self._start == "run" else "journal",
            "most": _PAGE,
        }

    def _release(self, known: _Topic) -> None:
        """Hand out what was held, as far as nothing is missing before it."""
        while known.held:
            first = known.held[0]
            if _is_old(known, first):
                self._next_held(known)
            elif self._follows(known, first):
                self._hand_out(known, self._next_held(known))
            else:
                return

    def _give_up(self, known: _Topic, asked_s: float, now_s: float) -> None:
        """A journal that was asked late enough and has nothing never had it."""
        if asked_s - known.held_since_s > self._patience_s:
            self._skip_hole(known, now_s)

    def _skip_hole(self, known: _Topic, now_s: float) -> None:
        """What is missing before the first message that is held is missed."""
        if known.held:
            self._hand_out(known, self._next_held(known))
            self._release(known)
            known.held_since_s, known.starved_s = now_s, 0.0
            known.behind = bool(known.held)

    def _next_held(self, known: _Topic) -> Received:
        self._held -= 1
        return known.held.popleft()

    def _new_topic(self, key: Key, *, behind: bool) -> _Topic:
        if len(self._topics) >= _MOST_TOPICS:
            raise NeurovocalError(
                f"more than {_MOST_TOPICS} streams: is this an engine? Name the "
                "streams that are wanted"
            )
        self._topics[key] = _Topic(behind=behind)
        return self._topics[key]

    def _follows(self, known: _Topic, message: Received) -> bool:
        """Whether nothing can lie between the position and a message."""
        if known.position is None:
            return self._start == "now" or (self._start == "run" and not message.seq)
        return known.position == (message.run, message.seq - 1)

    def _hand_out(self, known: _Topic, message: Received) -> None:
        before = known.position
        known.position = Position(message.run, message.seq)
        restarted = before is not None and before.run != message.run
        expected = message.seq
        if before is not None:
            expected = 0 if restarted else before.seq + 1
        elif self._start != "now":
            expected = 0
        if restarted and before is not None:
            known.past.append(before.run)
        missed = None
        if message.seq > expected:
            name = topic(message.kind, message.stream).decode()
            missed = LostMessages(name, expected, message.seq - expected)
        self.ready.append(replace(message, missed=missed, restarted=restarted))

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _is_old(known: _Topic, message: Received) -> bool:
    """Whether the message, or a later one, was handed out before."""
    if known.position is None:
        return False
    if known.position.run == message.run:
        return message.seq <= known.position.seq
    return message.run in known.past
