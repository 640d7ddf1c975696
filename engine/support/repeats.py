"""Repeated messages: the first of a cause is told, further ones are counted.

A device that flaps, a sink that fails at each event or a folder of damaged recordings
would fill a log with what is known already. Here a message is a repetition if it comes
from the same place of the program and subject, and has the same text but for numbers.
It is told at once if that text is new, else counted; the count is told with the newest
of the counted messages, so that the last line is always the present state. Where one
place has many texts, as of files that cannot be read, the first ten are told, and the
others are counted as alike.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import ceil
from typing import Generic, NamedTuple, TypeVar

_NS = 1_000_000_000
# Counts are told after so long, and while messages go on after twice as long each time.
FIRST_WINDOW_NS = 60 * _NS
LONGEST_WINDOW_NS = 600 * _NS
# They are told earlier if no further message came for so long.
QUIET_NS = 60 * _NS
# Different texts of one place and subject that are told one by one in a window.
MOST_TEXTS = 10

# Numbers, but not those in quoted names: other names are other causes.
_NAME_OR_NUMBER = re.compile(r"'[^']*'|\d+(?:[.,:]\d+)*")

T = TypeVar("T")


class Told(NamedTuple, Generic[T]):
    """Message to tell, which stands for ``1 + more`` messages.

    Attributes
    ----------
    message : T
        The newest of them.
    more : int
        How many others are counted by it.
    alike : bool
        They had other texts from the same place.
    seconds : int
        Time over which they came, rounded up.
    """

    message: T
    more: int = 0
    alike: bool = False
    seconds: int = 0

    def note(self) -> str:
        """Return the clause that tells the count, to be appended; empty: none."""
        if not self.more:
            return ""
        what = "more like it" if self.alike else f"more time{'s' * (self.more > 1)}"
        return f" (and {self.more} {what} in the last {self.seconds} s)"


@dataclass(slots=True)
class _Text(Generic[T]):
    """Messages of one text: those that are counted since one was told."""

    told_ns: int
    last_ns: int
    newest: T | None = None  # of the counted ones
    count: int = 0
    is_repeated: bool = False  # in this window


@dataclass(slots=True)
class _Group(Generic[T]):
    """Messages of one place and subject."""

    subject: Hashable
    began_ns: int
    window_ns: int = FIRST_WINDOW_NS
    texts: dict[str | None, _Text[T]] = field(default_factory=dict)  # None: the others

    def due_ns(self) -> int | None:
        """Return when counts must be told; None: there are none."""
        lasts = [text.last_ns for text in self.texts.values() if text.count]
        if not lasts:
            return None
        return min(self.began_ns + self.window_ns, max(lasts) + QUIET_NS)

    def ends_ns(self) -> int:
        """Return when the window ends."""
        return self.began_ns + self.window_ns


class Repeats(Generic[T]):
    """Decides which messages are told, and counts the others; has no clock.

    Every message is accounted for: after `flush`, the sum of ``1 + more`` over all that
    was told is the number of messages that were added. The caller gives the monotonic
    time in ns, which must not go back, and calls `due` when `next_ns` has come.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group[T]] = {}

    @property
    def next_ns(self) -> int | None:
        """Monotonic time at which `due` has something to tell; None: never."""
        times = (group.due_ns() for group in self._groups.values())
        return min((at for at in times if at is not None), default=None)

    def add(
        self,
        message: T,
        text: str,
        now_ns: int,
        *,
        place: Hashable = None,
        subject: Hashable = None,
    ) -> list[Told[T]]:
        """Add a message; return what is to be told now, in this order.

        Parameters
        ----------
        message : T
            What is handed back when it is told.
        text : str
            Its text, by which repetitions are known.
        now_ns : int
            Monotonic time.
        place : hashable
            Where in the program it comes from.
        subject : hashable
            What it is about, as a lane or a sink: before a new text, the counts of its
            subject are told, so that the order of causes is seen.
        """
        told = self.due(now_ns)
        group = self._groups.get((place, subject))
        if group is None:
            group = self._groups[place, subject] = _Group(subject, now_ns)
        key: str | None = _NAME_OR_NUMBER.sub(_without_number, text)
        if key not in group.texts and len(group.texts) >= MOST_TEXTS:
            key = None
        known = group.texts.get(key)
        if known is None:
            known = group.texts[key] = _Text(now_ns, now_ns)
            if key is not None:
                return [*told, *self._tell(now_ns, subject), Told(message)]
        known.newest, known.last_ns = message, now_ns
        known.count, known.is_repeated = known.count + 1, True
        return told

    def due(self, now_ns: int) -> list[Told[T]]:
        """Return the counts that are to be told by now, the newest message last."""
        ready = []
        for key, group in list(self._groups.items()):
            due_ns = group.due_ns()
            if due_ns is not None and now_ns >= due_ns:
                ready.append(group)
            elif due_ns is None and now_ns >= group.ends_ns():
                del self._groups[key]
        told = self._taken(ready, now_ns)
        for group in ready:
            if now_ns >= group.ends_ns():
                _begin_window(group, now_ns)
        return told

    def flush(self, now_ns: int) -> list[Told[T]]:
        """Return all counts, the newest message last."""
        return self._taken(list(self._groups.values()), now_ns)

    def _tell(self, now_ns: int, subject: Hashable) -> list[Told[T]]:
        """Return the counts of one subject."""
        groups = [g for g in self._groups.values() if g.subject == subject]
        return self._taken(groups, now_ns)

    def _taken(self, groups: list[_Group[T]], now_ns: int) -> list[Told[T]]:
        """Return the counts of these groups and begin to count anew."""
        counted = [
            (text.last_ns, key is None, text)
            for group in groups
            for key, text in group.texts.items()
            if text.count
        ]
        counted.sort(key=lambda one: one[0])
        return [_take(text, now_ns, alike=alike) for _, alike, text in counted]


def _take(text: _Text[T], now_ns: int, *, alike: bool) -> Told[T]:
    assert text.newest is not None
    seconds = max(1, ceil((now_ns - text.told_ns) / _NS))
    told = Told(text.newest, text.count - 1, alike, seconds)
    text.told_ns, text.newest, text.count = now_ns, None, 0
    return told


def _begin_window(group: _Group[T], now_ns: int) -> None:
    """Begin the next, longer window; texts that were not repeated are new in it."""
    group.texts = {
        key: text
        for key, text in group.texts.items()
        if key is not None and text.is_repeated
    }
    for text in group.texts.values():
        text.is_repeated = False
    group.began_ns = now_ns
    group.window_ns = min(2 * group.window_ns, LONGEST_WINDOW_NS)


def _without_number(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("'") else "#"
