"""What came, held against what should have come. Pure functions of samples.

All positions are samples of the recording, at the rate of the lane: whoever calls has
taken away what a restart or a device of another rate has shifted.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple, TypeAlias

# Run, kind, stream and number: no message may come twice.
Key: TypeAlias = tuple[str, str, str, int]


class Sound(NamedTuple):
    """A vocalization with its label; without a model that labels the unit is empty."""

    stream: str
    onset: int
    offset: int
    unit: str


class Delivery(NamedTuple):
    """A sound as a message told of it."""

    key: Key
    sound: Sound


class Span(NamedTuple):
    """Samples ``[start, stop)`` of all streams."""

    start: int
    stop: int


@dataclass(slots=True)
class Comparison:
    """What became of the sounds that were expected.

    ``received + kept + told + changed + lost == expected``, as numbers.

    Attributes
    ----------
    received : list of Sound
        The subscriber has them.
    kept : list of Sound
        The subscriber has them not, the journal has.
    told : list of Sound
        Nobody has them, but they lie in a span that was told, or in a hole that the
        subscriber knows of.
    changed : list of Sound
        The subscriber has another one in its place, with other bounds or another
        unit, where that may happen: a detector learns its background anew.
    lost : list of Sound
        The rest.
    double : int
        Messages that came twice, and sounds that were told of twice.
    """

    received: list[Sound] = field(default_factory=list)
    kept: list[Sound] = field(default_factory=list)
    told: list[Sound] = field(default_factory=list)
    lost: list[Sound] = field(default_factory=list)
    changed: list[Sound] = field(default_factory=list)
    double: int = 0

    @property
    def expected(self) -> int:
        """How many sounds there are in the recording."""
        parts = (self.received, self.kept, self.told, self.changed, self.lost)
        return sum(map(len, parts))


def compare(
    expected: Iterable[Sound],
    received: Sequence[Delivery],
    kept: Sequence[Delivery],
    tolerance: int,
    is_told: Callable[[Sound], bool],
    may_change: Callable[[Sound], bool] = lambda sound: False,
) -> Comparison:
    """Sort expected sounds by what became of them.

    Parameters
    ----------
    expected : iterable of Sound
        Of the same recording through the same configuration without a fault.
    received : sequence of Delivery
        At the subscriber, in the order of their coming.
    kept : sequence of Delivery
        In the journal.
    tolerance : int
        Samples by which onset and offset may be off.
    is_told : callable
        Whether the loss of a sound is one that the engine has told.
    may_change : callable
        Whether a sound may come out otherwise than it should.
    """
    result = Comparison()
    at_reader, in_journal = _Index(received), _Index(kept)
    for sound in expected:
        if at_reader.find(sound, tolerance):
            result.received.append(sound)
        elif in_journal.find(sound, tolerance):
            result.kept.append(sound)
        elif is_told(sound):
            result.told.append(sound)
        elif may_change(sound) and at_reader.overlaps(sound):
            result.changed.append(sound)
        else:
            result.lost.append(sound)
    result.double = doubled(received)
    return result


def doubled(received: Sequence[Delivery]) -> int:
    """Messages that came twice, and sounds that two messages told of."""
    keys = Counter(delivery.key for delivery in received)
    sounds = Counter({d.key: d.sound for d in received}.values())
    again = sum(sounds.values()) - len(sounds)
    return sum(keys.values()) - len(keys) + again


def overlap(one: Sound, other: Sound) -> bool:
    """Whether two sounds of a stream share a sample."""
    return (
        one.stream == other.stream
        and one.onset < other.offset
        and other.onset < one.offset
    )


def in_spans(sound: Sound, spans: Iterable[Span], before: int, after: int) -> bool:
    """Whether a sound touches a span, widened by what a stage hears around it."""
    return any(
        sound.onset < span.stop + after and sound.offset > span.start - before
        for span in spans
    )


def displacement(
    expected: Sequence[Sound], received: Sequence[Delivery], reach: int
) -> float | None:
    """Samples by which what was received lies behind where it should; None: unknown.

    The median over sounds that are alone within `reach`: a gap of a wrong length
    displaces all that follows it by one number.
    """
    index = _Index(received)
    apart = []
    for sound in expected:
        near = [d.sound for d in index.near(sound, reach)]
        alike = [s for s in near if s.unit == sound.unit]
        if len(alike) == 1:
            apart.append(alike[0].onset - sound.onset)
    return median(apart) if apart else None


class _Index:
    """Finds deliveries by stream and onset."""

    def __init__(self, deliveries: Iterable[Delivery]) -> None:
        self._by_stream: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            self._by_stream.setdefault(delivery.sound.stream, []).append(delivery)
        for each in self._by_stream.values():
            each.sort(key=_onset)

    def near(self, sound: Sound, tolerance: int) -> list[Delivery]:
        """Deliveries with an onset within `tolerance`, the nearest first."""
        all_ = self._by_stream.get(sound.stream, [])
        low = bisect_left(all_, sound.onset - tolerance, key=_onset)
        high = bisect_right(all_, sound.onset + tolerance, key=_onset)
        return sorted(all_[low:high], key=lambda d: abs(d.sound.onset - sound.onset))

    def overlaps(self, sound: Sound) -> bool:
        """Whether any delivery shares a sample with `sound`."""
        there = self._by_stream.get(sound.stream, [])
        return any(overlap(sound, each.sound) for each in there)

    def find(self, sound: Sound, tolerance: int) -> list[Delivery]:
        """The same sound, within `tolerance` at both ends, the nearest first."""
        return [
            delivery
            for delivery in self.near(sound, tolerance)
            if delivery.sound.unit == sound.unit
            and abs(delivery.sound.offset - sound.offset) <= tolerance
        ]


def _onset(delivery: Delivery) -> int:
    return delivery.sound.onset
