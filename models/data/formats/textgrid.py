"""Praat's TextGrids, in the long and the short text format."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.label_words import clean_label, is_silence
from neurovocal.models.data.formats.segments import (
    AnnotationChoice,
    Findings,
    NotOfFormatError,
    SegmentRow,
    label_problem,
    number_problem,
    shown,
    where,
)
from neurovocal.models.data.formats.text_table import read_text

# A text in quotes, a flag such as <exists>, or a word; comments begin with "!".
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|![^\r\n]*|([^\s"]+)')
_LINE_END = re.compile(r"\r\n|\n|\r")
_NO_TEXT = "is no TextGrid in Praat's text format: save it by 'Save as text file'"
_INTERVALS, _POINTS = "IntervalTier", "TextTier"


@dataclass(frozen=True, slots=True)
class _Tier:
    """Tier of a TextGrid: ``(onset, offset, text, position)`` of its intervals."""

    kind: str
    name: str
    intervals: list[tuple[float, float, str, int]]


def read_textgrid(
    path: Path, choice: AnnotationChoice, findings: Findings
) -> list[SegmentRow]:
    """Read the intervals with a label of a tier of a TextGrid.

    Raises
    ------
    NotOfFormatError, ConfigError
        The file is no TextGrid, is damaged, or does not say which tier is meant.
    """
    try:
        text = read_text(path)
    except NotOfFormatError as error:
        raise NotOfFormatError(_NO_TEXT if _is_binary(path) else str(error)) from error
    if "ooTextFile" not in text[:200] or '"TextGrid"' not in text[:400]:
        raise NotOfFormatError(_NO_TEXT)
    ends = [found.end() for found in _LINE_END.finditer(text)]

    def line_at(position: int) -> int:
        return bisect_right(ends, position) + 1

    try:
        tiers = _tiers(_Values(text))
    except _DamagedError as error:
        raise ConfigError(
            f"{where(path, line_at(error.position))}: {error} (the file is cut off, or "
            "was changed by hand)"
        ) from error
    tier = _chosen(path, tiers, choice.tier)
    rows = []
    for onset, offset, written, position in tier.intervals:
        label = clean_label(written)
        if is_silence(label):
            if label:
                findings.tell("labels that mean silence are no units", shown(label))
            continue
        line = line_at(position)
        if problem := label_problem(label):
            findings.refuse(path, line, problem)
            continue
        rows.append(SegmentRow(onset, offset, label, line))
    return rows


def _is_binary(path: Path) -> bool:
    """Return True for a file in Praat's binary format."""
    try:
        with path.open("rb") as stream:
            return stream.read(12) == b"ooBinaryFile"
    except OSError:
        return False


def _chosen(path: Path, tiers: Sequence[_Tier], wanted: str | None) -> _Tier:
    """Return the interval tier that is meant; raises ConfigError if none is."""
    found = [tier for tier in tiers if tier.kind == _INTERVALS]
    names = ", ".join(shown(tier.name) for tier in found)
    if not found:
        there = "holds no tier" if not tiers else "holds point tiers alone"
        raise ConfigError(
            f"{where(path)}: {there}: an interval tier with the labels is missing"
        )
    if wanted is None:
        if len(found) == 1:
            return found[0]
        raise ConfigError(
            f"{where(path)}: has {len(found)} interval tiers ({names}): choose the one "
            "with the labels by --tier"
        )
    named = [tier for tier in found if tier.name.casefold() == wanted.casefold()]
    if not named and wanted.isascii() and wanted.isdigit():
        named = [tier for number, tier in enumerate(tiers, 1) if number == int(wanted)]
        named = [tier for tier in named if tier.kind == _INTERVALS]
    if len(named) != 1:
        reason = "several tiers" if named else "no interval tier"
        raise ConfigError(
            f"{where(path)}: has {reason} {shown(wanted)} (--tier takes a name or a "
            f"number; there are: {names})"
        )
    return named[0]


class _DamagedError(Exception):
    """A value is not what the format has in its place."""

    def __init__(self, sentence: str, position: int) -> None:
        super().__init__(sentence)
        self.position = position


class _Values:
    """Reads the values of a TextGrid one by one; all other words are explanations."""

    def __init__(self, text: str) -> None:
        self._values = self._found(text)
        self.position = 0  # of the value that was read last

    def _found(self, text: str) -> Iterator[str | float | None]:
        """Yield texts, numbers, and None for a flag."""
        stop = 0
        for found in _TOKEN.finditer(text):
            if '"' in text[stop : found.start()]:
                break  # a text that is never closed
            stop = found.end()
            self.position = found.start()
            quoted, word = found.groups()
            if quoted is not None:
                yield quoted.replace('""', '"')
            elif word and word.startswith("<"):
                yield None
            elif word and not number_problem(word):
                yield float(word)

    def _next(self, what: str) -> str | float | None:
        for value in self._values:
            return value
        raise _DamagedError(f"{what} is missing", self.position)

    def text(self, what: str) -> str:
        """Return the next value, a text."""
        value = self._next(what)
        if isinstance(value, str):
            return value
        raise _DamagedError(f"{what} is missing", self.position)

    def number(self, what: str) -> float:
        """Return the next value, a number."""
        value = self._next(what)
        if isinstance(value, float):
            return value
        raise _DamagedError(f"{what} is missing", self.position)

    def count(self, what: str) -> int:
        """Return the next value, a number of things."""
        value = self.number(what)
        if value == int(value) and value >= 0:
            return int(value)
        raise _DamagedError(f"{what} is no count", self.position)

    def flag(self) -> None:
        """Pass a flag such as ``<exists>``."""
        if self._next("the flag <exists>") is not None:
            raise _DamagedError("the flag <exists> is missing", self.position)

    def is_done(self) -> bool:
        """Return True if no value is left."""
        return next(self._values, self) is self


def _tiers(values: _Values) -> list[_Tier]:
    """Read all tiers; raises `_DamagedError` where the text is not as it should be."""
    values.text("the file type")
    values.text("the object class")
    values.number("xmin")
    values.number("xmax")
    values.flag()
    tiers = []
    for number in range(1, values.count("the number of tiers") + 1):
        kind = values.text(f"tier {number}")
        name = values.text(f"the name of tier {number}")
        if kind not in (_INTERVALS, _POINTS):
            raise _DamagedError(
                f"tier {number} is of the unknown class {shown(kind)}", values.position
            )
        what = f"tier {shown(name)}"
        values.number(f"xmin of {what}")
        values.number(f"xmax of {what}")
        n = values.count(f"the number of intervals of {what}")
        noun = "interval" if kind == _INTERVALS else "point"
        tier = _Tier(kind, name, [])
        for k in range(1, n + 1):
            item = f"{noun} {k} of {n} of {what}"
            onset = offset = values.number(f"the time of {item}")
            position = values.position
            if kind == _INTERVALS:
                offset = values.number(f"the end of {item}")
            label = values.text(f"the label of {item}")
            tier.intervals.append((onset, offset, label, position))
        tiers.append(tier)
    if not values.is_done():
        raise _DamagedError(
            "the file holds more than its counts state", values.position
        )
    return tiers
