"""Comparison of two lanes over the same audio, segment by segment, in flat memory.

A segment of one lane is paired with that of the other whose onset is nearest, within
20 ms. What is decided, and in which order, depends on the events of both lanes and
never on when they came.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from neurovocal.engine.contracts.types import (
    Comparison,
    Event,
    Label,
    Offset,
    Onset,
)

# Onsets that are at most so far apart belong to the same segment.
SAME_S = 0.02
# After an onset the other lane has told its own by then; after an offset, the label.
_ONSET_S = 1.0
_LABEL_S = 2.0
_MOST_CONFUSIONS = 1000
_MOST_OPEN = 4096

Side: TypeAlias = Literal["present", "shadow"]


@dataclass(slots=True)
class _Segment:
    """Segment of one lane, as far as it is known."""

    number: int
    onset: int
    known_at: int  # position at which the newest of this became known
    offset: int | None = None
    unit: str | None = None
    posterior: float = math.nan

    def is_known(self, position: int, patience: int) -> bool:
        """Return whether nothing more will be known of it at `position`."""
        if self.unit is not None:
            return True
        return self.offset is not None and position >= self.offset + patience


class _Lane:
    """Segments of one lane that are not compared yet, by onset."""

    def __init__(self, patience: int) -> None:
        self.segments: deque[_Segment] = deque()
        self.position = 0
        self._patience = patience

    def add(self, events: Iterable[Event], at: int, since: int) -> None:
        self.position = max(self.position, at)
        for event in events:
            if isinstance(event, Onset):
                if event.sample > since:
                    self.segments.append(_Segment(event.segment, event.sample, at))
            elif isinstance(event, Offset | Label):
                self._complete(event, at)

    def _complete(self, event: Offset | Label, at: int) -> None:
        for segment in reversed(self.segments):
            if segment.number == event.segment:
                break
        else:
            return  # it began before the comparison
        if isinstance(event, Offset):
            segment.offset = event.sample
        elif segment.offset is not None and at > segment.offset + self._patience:
            return  # whether it was waited for must not depend on the threads
        elif event.status == "final" and segment.unit is None:
            segment.unit, segment.posterior = event.unit, event.posterior
            segment.offset = segment.offset or event.offset
        else:
            return
        segment.known_at = at


class LaneComparison:
    """Compares the segments and labels of a present lane and of its shadow.

    Parameters
    ----------
    name : str
        Of the shadow, for the events.
    sample_rate : int
        Of both lanes, in Hz.

    Attributes
    ----------
    confusions : Counter
        How many segments there were, by unit and the shadow's unit; None: not heard.
    """

    def __init__(self, name: str, sample_rate: int) -> None:
        self.confusions: Counter[tuple[str | None, str | None]] = Counter()
        self._name = name
        self._near = round(SAME_S * sample_rate)
        self._onset_wait = round(_ONSET_S * sample_rate) + self._near
        self._label_wait = round(_LABEL_S * sample_rate)
        self._lanes: dict[Side, _Lane] = {
            "present": _Lane(self._label_wait),
            "shadow": _Lane(self._label_wait),
        }
        self._heard: Counter[str] = Counter()  # segments of each, and of both
        self._labelled: Counter[str] = Counter()

    def add(
        self, side: Side, events: Iterable[Event], at: int, since: int
    ) -> Iterator[tuple[Comparison, int]]:
        """Add the events of a step; yield what is decided now.

        Parameters
        ----------
        side : {'present', 'shadow'}
            Lane that the events come from.
        events : iterable of Event
            Of one step.
        at : int
            Stream position of the step.
        since : int
            Onsets up to this sample are left out: both lanes hear what comes later.

        Yields
        ------
        (Comparison, int)
            In order of onset, with the position at which it could be known.
        """
        self._lanes[side].add(events, at, since)
        yield from self._decide(ended=False)

    def end_stream(self) -> Iterator[tuple[Comparison, int]]:
        """Yield the comparisons that are left at the end of a stream."""
        yield from self._decide(ended=True)
        for lane in self._lanes.values():
            lane.segments.clear()
            lane.position = 0

    def counts(self) -> dict[str, Any]:
        """Return ``segments`` and ``labels``, as `Agreement.compare`, and confusions.

        ``confusions`` lists unit, the shadow's unit and their number, the most
        frequent first, of segments that were named differently; None: not heard.
        """
        different = [
            [unit, other, number]
            for (unit, other), number in self.confusions.most_common()
            if unit != other
        ]
        return {
            "segments": _shares(self._heard),
            "labels": _shares(self._labelled),
            "confusions": different,
        }

    # ---- decisions -------------------------------------------------------------------

    def _decide(self, *, ended: bool) -> Iterator[tuple[Comparison, int]]:
        while (found := self._next(ended=ended)) is not None:
            yield found

    def _next(self, *, ended: bool) -> tuple[Comparison, int] | None:
        """Return the comparison of the earliest segment, once all of it is known."""
        present, shadow = self._lanes["present"], self._lanes["shadow"]
        first = present.segments[0] if present.segments else None
        other = shadow.segments[0] if shadow.segments else None
        if first is None and other is None:
            return None
        leads = other is None or (first is not None and first.onset <= other.onset)
        own, opposite = (present, shadow) if leads else (shadow, present)
        segment = own.segments[0]
        settled = segment.onset + self._onset_wait
        is_crowded = max(len(own.segments), len(opposite.segments)) > _MOST_OPEN
        forced = ended or is_crowded
        if not forced and min(own.position, opposite.position) < settled:
            return None
        match = self._nearest(segment, opposite)
        for one, lane in ((segment, own), (match, opposite)):
            if one is None or forced:
                continue
            if not one.is_known(lane.position, self._label_wait):
                return None
        own.segments.popleft()
        if match is not None:
            opposite.segments.remove(match)
        heard, echoed = (segment, match) if leads else (match, segment)
        return self._compared(heard, echoed, settled)

    def _nearest(self, segment: _Segment, lane: _Lane) -> _Segment | None:
        near = None
        for one in lane.segments:
            if one.onset > segment.onset + self._near:
                break
            distance = abs(one.onset - segment.onset)
            if distance <= self._near and (
                near is None or distance < abs(near.onset - segment.onset)
            ):
                near = one
        return near

    def _compared(
        self, present: _Segment | None, shadow: _Segment | None, settled: int
    ) -> tuple[Comparison, int]:
        either = present or shadow
        assert either is not None
        units = [None if one is None else one.unit or "" for one in (present, shadow)]
        agrees = units[0] is not None and units[0] == units[1]
        for place, unit in zip(("old", "new"), units, strict=True):
            self._heard[place] += unit is not None
            self._labelled[place] += bool(unit)
        if present is not None and shadow is not None:
            self._heard["equal"] += 1
            self._labelled["equal"] += agrees and units[0] != ""
        pair = (units[0], units[1])
        if pair in self.confusions or len(self.confusions) < _MOST_CONFUSIONS:
            self.confusions[pair] += 1
        known = [one.known_at for one in (present, shadow) if one is not None]
        event = Comparison(
            onset=either.onset,
            offset=either.offset,
            unit=units[0],
            posterior=math.nan if present is None else present.posterior,
            shadow_unit=units[1],
            shadow_posterior=math.nan if shadow is None else shadow.posterior,
            agrees=agrees,
            shadow=self._name,
        )
        return event, max(settled, *known)


def _shares(counts: Counter[str]) -> dict[str, Any]:
    most = max(counts["old"], counts["new"])
    share = round(counts["equal"] / most, 4) if most else None
    return {"old": counts["old"], "new": counts["new"], "equal": share}
