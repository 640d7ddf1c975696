"""Comparison of published vocalizations with the expected ones. Pure functions.

All positions are samples of the recording, at the rate of the lane: the caller has
removed what a restart or a device of another rate has shifted.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, TypeAlias

# Run, kind, stream and sequence number: identifies a message.
MessageKey: TypeAlias = tuple[str, str, str, int]


class Vocalization(NamedTuple):
    """A segment ``[onset, offset)`` with its unit; "" where no model labels."""

    stream: str
    onset: int
    offset: int
    unit: str


class PublishedVocalization(NamedTuple):
    """A vocalization and the message that published it."""

    key: MessageKey
    vocalization: Vocalization


class SampleSpan(NamedTuple):
    """Samples ``[start, stop)`` of all streams."""

    start: int
    stop: int


@dataclass(slots=True)
class Comparison:
    """Expected vocalizations, sorted by outcome.

    The lengths of the five lists add up to `expected`.

    Attributes
    ----------
    received : list of Vocalization
        The subscriber has them.
    journaled : list of Vocalization
        The journal has them, the subscriber has not.
    reported : list of Vocalization
        Neither has them, but they lie in a reported span, or the subscriber knows
        that their message is missing.
    changed : list of Vocalization
        The subscriber has another one in their place, with other bounds or another
        unit, where that is allowed: a detector learns its background again.
    lost : list of Vocalization
        The rest.
    duplicates : int
        Messages that came twice, and vocalizations in more than one message.
    """

    received: list[Vocalization] = field(default_factory=list)
    journaled: list[Vocalization] = field(default_factory=list)
    reported: list[Vocalization] = field(default_factory=list)
    changed: list[Vocalization] = field(default_factory=list)
    lost: list[Vocalization] = field(default_factory=list)
    duplicates: int = 0

    @property
    def expected(self) -> int:
        """Number of expected vocalizations."""
        parts = (self.received, self.journaled, self.reported, self.changed, self.lost)
        return sum(map(len, parts))


def compare(
    expected: Iterable[Vocalization],
    received: Sequence[PublishedVocalization],
    journaled: Sequence[PublishedVocalization],
    tolerance: int,
    is_reported: Callable[[Vocalization], bool],
    may_change: Callable[[Vocalization], bool] = lambda vocalization: False,
) -> Comparison:
    """Sort expected vocalizations by outcome.

    Parameters
    ----------
    expected : iterable of Vocalization
        Those of the same recording and configuration without a fault.
    received : sequence of PublishedVocalization
        Those of the subscriber, in the order in which they came.
    journaled : sequence of PublishedVocalization
        Those in the journal.
    tolerance : int
        Samples by which onset and offset may differ.
    is_reported : callable
        Whether the engine has reported the loss of a vocalization.
    may_change : callable
        Whether a vocalization may have other bounds or another unit.
    """
    result = Comparison()
    at_subscriber, in_journal = _Index(received), _Index(journaled)
    for one in expected:
        if at_subscriber.contains(one, tolerance):
            result.received.append(one)
        elif in_journal.contains(one, tolerance):
            result.journaled.append(one)
        elif is_reported(one):
            result.reported.append(one)
        elif may_change(one) and at_subscriber.overlaps(one):
            result.changed.append(one)
        else:
            result.lost.append(one)
    result.duplicates = count_duplicates(received)
    return result


def count_duplicates(received: Sequence[PublishedVocalization]) -> int:
    """Count messages that came twice, and vocalizations in more than one message."""
    keys = Counter(each.key for each in received)
    values = Counter({each.key: each.vocalization for each in received}.values())
    repeated = sum(values.values()) - len(values)
    return sum(keys.values()) - len(keys) + repeated


def overlaps(one: Vocalization, other: Vocalization) -> bool:
    """Return whether two vocalizations of a stream share a sample."""
    return (
        one.stream == other.stream
        and one.onset < other.offset
        and other.onset < one.offset
    )


def touches_spans(
    one: Vocalization, spans: Iterable[SampleSpan], before: int, after: int
) -> bool:
    """Return whether a vocalization touches a span, widened at both ends."""
    return any(
        one.onset < span.stop + after and one.offset > span.start - before
        for span in spans
    )


def displacement(
    expected: Sequence[Vocalization],
    received: Sequence[PublishedVocalization],
    reach: int,
) -> float | None:
    """Return by how many samples onsets are late (median), None if unknown.

    Only vocalizations with one candidate within `reach` samples count: a gap of a wrong
    length displaces all that follow it by the same number.
    """
    index = _Index(received)
    differences = []
    for one in expected:
        alike = [each for each in index.near(one, reach) if each.unit == one.unit]
        if len(alike) == 1:
            differences.append(alike[0].onset - one.onset)
    return median(differences) if differences else None


class _Index:
    """Finds vocalizations by stream and onset."""

    def __init__(self, published: Iterable[PublishedVocalization]) -> None:
        self._by_stream: dict[str, list[Vocalization]] = {}
        for _, one in published:
            self._by_stream.setdefault(one.stream, []).append(one)
        for each in self._by_stream.values():
            each.sort(key=_onset)

    def near(self, one: Vocalization, tolerance: int) -> list[Vocalization]:
        """Return those of the same stream with an onset within `tolerance`."""
        all_ = self._by_stream.get(one.stream, [])
        low = bisect_left(all_, one.onset - tolerance, key=_onset)
        high = bisect_right(all_, one.onset + tolerance, key=_onset)
        return all_[low:high]

    def overlaps(self, one: Vocalization) -> bool:
        """Return whether any of them shares a sample with `one`."""
        return any(overlaps(one, each) for each in self._by_stream.get(one.stream, []))

    def contains(self, one: Vocalization, tolerance: int) -> bool:
        """Return whether one has the same unit and both bounds within `tolerance`."""
        return any(
            each.unit == one.unit and abs(each.offset - one.offset) <= tolerance
            for each in self.near(one, tolerance)
        )


def _onset(one: Vocalization) -> int:
    return one.onset
