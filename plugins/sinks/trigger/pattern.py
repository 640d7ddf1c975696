"""Patterns of units: a small language, and an automaton that matches it.

Units stand one after the other, separated by spaces::

    a b         a, then b                 a? b* c+    as usual
    [a b] c     a or b, then c            (a b)+ c    a b, once or more, then c
    [ab] c      the same: one word in     ^ a         a is the first of its bout
                brackets is its letters   b $         after b the bout ends
    . b         any unit, then b          'long call' a name with other characters

The automaton is Glushkov's (V. M. Glushkov, "The abstract theory of automata", 1961):
one state for each position in the pattern, no empty transitions. A match ends at the
newest unit; of several, the longest is reported.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

_QUANTIFIERS = "*+?"
_SPECIAL = set("[]()*+?^$.'\"")
# Units in a pattern at most; a longer one is a mistake.
_MOST_PLACES = 256

# For each position that the last unit matched: index of the unit its match began at.
States: TypeAlias = Mapping[int, int]


class PatternError(ValueError):
    """Malformed pattern; the message names the position, counted from 1."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Compiled pattern.

    Parameters
    ----------
    symbols : tuple of frozenset of str or None
        Units that match at each position; None: any unit, also an unlabelled one.
    first, last : frozenset of int
        Positions that a match may begin and end at.
    follow : tuple of frozenset of int
        Positions that may follow each position.
    at_begin, at_end : bool
        Whether a match must begin or end with its bout.
    """

    symbols: tuple[frozenset[str] | None, ...]
    first: frozenset[int]
    last: frozenset[int]
    follow: tuple[frozenset[int], ...]
    at_begin: bool
    at_end: bool

    @property
    def units(self) -> frozenset[str]:
        """Units that the pattern names."""
        return frozenset(unit for names in self.symbols if names for unit in names)

    @property
    def may_end_unlabelled(self) -> bool:
        """True if a match can end with a segment that has no label yet."""
        return any(self.symbols[place] is None for place in self.last)

    def step(self, states: States, index: int, unit: str | None) -> dict[int, int]:
        """Return the states after one more unit.

        Parameters
        ----------
        states : States
            Previous states; empty at the beginning of a bout.
        index : int
            Index of the unit in its bout.
        unit : str or None
            Unit of the segment; None if it has no label of sufficient posterior.
        """
        after: dict[int, int] = {}
        if not self.at_begin or index == 0:
            for place in self.first:
                if self._fits(place, unit):
                    after[place] = index
        for before, start in states.items():
            for place in self.follow[before]:
                if self._fits(place, unit):
                    after[place] = min(start, after.get(place, start))
        return after

    def begin_of(self, states: States) -> int | None:
        """Return the index of the first unit of the longest match; None: no match."""
        starts = [start for place, start in states.items() if place in self.last]
        return min(starts, default=None)

    def _fits(self, place: int, unit: str | None) -> bool:
        names = self.symbols[place]
        return names is None or (unit is not None and unit in names)


def read_pattern(text: str) -> Pattern:
    """Read a pattern.

    Raises
    ------
    PatternError
        The text is not a pattern; the message names the position.
    """
    return _Reader(text).read()


class _Part(NamedTuple):
    """Part of a pattern: whether it may be absent, its first and last positions."""

    nullable: bool
    first: frozenset[int]
    last: frozenset[int]


_NOTHING = _Part(True, frozenset(), frozenset())


@dataclass
class _Reader:
    text: str
    at: int = 0
    symbols: list[frozenset[str] | None] = field(default_factory=list)
    follow: list[set[int]] = field(default_factory=list)

    def read(self) -> Pattern:
        at_begin = self._accept("^")
        whole = self._sequence()
        at_end = self._accept("$")
        if self._peek():
            self._raise_unexpected()
        if whole.nullable:
            raise PatternError(
                "it matches where there is no unit at all: one of its units must be "
                "required (neither ? nor *)"
            )
        return Pattern(
            tuple(self.symbols),
            whole.first,
            whole.last,
            tuple(map(frozenset, self.follow)),
            at_begin,
            at_end,
        )

    def _sequence(self) -> _Part:
        whole = _NOTHING
        while (char := self._peek()) and char not in ")$":
            part = self._repeated(self._item())
            self._link(whole.last, part.first)
            whole = _Part(
                whole.nullable and part.nullable,
                whole.first | part.first if whole.nullable else whole.first,
                whole.last | part.last if part.nullable else part.last,
            )
        return whole

    def _item(self) -> _Part:
        begin = self.at
        if self._accept("("):
            part = self._sequence()
            if not self._accept(")"):
                raise PatternError(f"'(' at position {begin + 1} is never closed")
            if not part.first:
                raise PatternError(f"'()' at position {begin + 1} holds nothing")
            return part
        if self._accept("."):
            return self._place(None)
        if self._accept("["):
            return self._place(self._alternatives(begin))
        return self._place(frozenset([self._name()]))

    def _alternatives(self, begin: int) -> frozenset[str]:
        names, quoted = [], False
        while not self._accept("]"):
            if not self._peek():
                raise PatternError(f"'[' at position {begin + 1} is never closed")
            quoted |= self._peek() in "'\""
            names.append(self._name())
        if not names:
            raise PatternError(f"'[]' at position {begin + 1} holds no unit")
        if len(names) == 1 and not quoted:
            return frozenset(names[0])  # one word: its letters
        return frozenset(names)

    def _name(self) -> str:
        quote = self._peek()
        begin = self.at
        if quote in "'\"":
            end = self.text.find(quote, begin + 1)
            if end < 0:
                raise PatternError(f"{quote} at position {begin + 1} is never closed")
            self.at = end + 1
            if end == begin + 1:
                raise PatternError(f"the name at position {begin + 1} is empty")
            return self.text[begin + 1 : end]
        while self.at < len(self.text) and not self._is_delimiter(self.text[self.at]):
            self.at += 1
        if self.at == begin:
            self._raise_unexpected()
        return self.text[begin : self.at]

    @staticmethod
    def _is_delimiter(char: str) -> bool:
        return char.isspace() or char in _SPECIAL

    def _repeated(self, part: _Part) -> _Part:
        while (char := self._peek()) and char in _QUANTIFIERS:
            self.at += 1
            if char in "*+":
                self._link(part.last, part.first)
            if char in "*?":
                part = part._replace(nullable=True)
        return part

    def _place(self, names: frozenset[str] | None) -> _Part:
        if len(self.symbols) == _MOST_PLACES:
            raise PatternError(f"more than {_MOST_PLACES} units are too many")
        place = frozenset([len(self.symbols)])
        self.symbols.append(names)
        self.follow.append(set())
        return _Part(False, place, place)

    def _link(self, before: frozenset[int], after: frozenset[int]) -> None:
        for place in before:
            self.follow[place] |= after

    def _peek(self) -> str:
        """Return the next character that is not a space; empty at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _accept(self, char: str) -> bool:
        found = self._peek() == char
        self.at += found
        return found

    def _raise_unexpected(self) -> None:
        char, position = self._peek(), self.at + 1
        if not char:
            raise PatternError(f"it ends at position {position}, a unit was expected")
        raise PatternError(
            f"'{char}' at position {position} has no meaning there"
            + next((f": {hint}" for hint in self._hints(char)), "")
            + " (a unit with such a name is written in quotes)"
        )

    @staticmethod
    def _hints(char: str) -> Iterator[str]:
        if char == "^":
            yield "^ stands only at the beginning"
        if char in _QUANTIFIERS:
            yield "a unit must come before it"
        if char in "])":
            yield "nothing was opened"
