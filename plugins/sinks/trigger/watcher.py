"""Pattern watcher of a lane: turns segments and labels into triggers."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from neurovocal.engine import (
    Gap,
    Label,
    ModelCommand,
    Offset,
    Onset,
    StepEvents,
    StreamInfo,
    Trigger,
)
from neurovocal.engine.contracts.types import TriggerDecision, TriggerStatus
from neurovocal.plugins.sinks.trigger.pattern import Pattern, States

# Units of a match that a trigger lists at most; a repetition has no bound.
_MOST_UNITS = 32
# Segments that wait for labels at most; the oldest then counts as unlabelled.
_MOST_PENDING = 16


@dataclass(frozen=True, slots=True)
class Rules:
    """Conditions of a trigger; times in milliseconds."""

    name: str
    pattern: Pattern
    posterior: float
    status: TriggerStatus
    labels_from: str | None
    bout_gap_ms: float
    refractory_ms: float
    catch_share: float
    seed: int
    streams: Sequence[str] | None


@dataclass(slots=True)
class _MatchedSegment:
    number: int
    onset: int
    offset: int | None = None
    unit: str = ""
    posterior: float = math.nan
    is_final: bool = False
    is_early: bool = (
        False  # its onset or provisional label has come, see `Rules.status`
    )
    has_fired: bool = False


class PatternWatcher:
    """Matches the segments of a stream with a pattern, bout by bout.

    Parameters
    ----------
    rules : Rules
        Pattern and conditions.
    latency : int
        Samples between an onset and the time at which it is known: a silence is
        certain only after them.
    command : Wish, optional
        What is set when it acts.
    """

    def __init__(
        self, rules: Rules, latency: int, command: ModelCommand | None = None
    ) -> None:
        self.command = command
        self._rules, self._latency = rules, latency
        self.reset()

    def reset(self) -> None:
        """Reset all state: another stream begins."""
        self._model = self._rules.labels_from
        self._last: int | None = None  # sample of the last trigger not in refractory
        self._number = 0  # triggers so far that were not in refractory
        self._begin_bout()

    def process(self, known: StepEvents, /) -> Iterator[Trigger]:
        """Yield the triggers that the events of a step cause."""
        rules, info = self._rules, known.info
        if rules.streams is not None and info.stream not in rules.streams:
            return
        for event in known.events:
            match event:
                case Onset():
                    yield from self._on_onset(event, info)
                case Label():
                    yield from self._on_label(event, info)
                case Offset():
                    self._on_offset(event)
                case Gap():
                    self._begin_bout()  # the gap may hide segments
        end = self._bout_end(info)
        if end is not None and known.at - self._latency >= end:
            yield from self._end_bout(info)

    def _begin_bout(self) -> None:
        self._states: States = {}
        self._count = 0  # units of the bout that the states include
        self._matched: deque[_MatchedSegment] = deque(maxlen=_MOST_UNITS)
        self._pending: deque[_MatchedSegment] = deque()
        self._newest: _MatchedSegment | None = None

    def _bout_end(self, info: StreamInfo) -> int | None:
        """Return the sample at which the bout ends if no onset comes; None: unknown."""
        if self._newest is None or self._newest.offset is None:
            return None
        return self._newest.offset + _samples(self._rules.bout_gap_ms, info)

    def _on_onset(self, onset: Onset, info: StreamInfo) -> Iterator[Trigger]:
        end = self._bout_end(info)
        if end is not None and onset.sample >= end:
            yield from self._end_bout(info)
        segment = _MatchedSegment(onset.segment, onset.sample)
        segment.is_early = self._rules.status == "onset"
        self._newest = segment
        self._pending.append(segment)
        if len(self._pending) > _MOST_PENDING:
            self._pending[0].is_final = True
        yield from self._advance(info)

    def _on_offset(self, offset: Offset) -> None:
        if self._newest is not None and self._newest.number == offset.segment:
            self._newest.offset = offset.sample
        for segment in self._pending:
            if segment.number == offset.segment:
                segment.offset = offset.sample

    def _on_label(self, label: Label, info: StreamInfo) -> Iterator[Trigger]:
        self._model = self._model or label.model
        segment = next((s for s in self._pending if s.number == label.segment), None)
        if segment is None or label.model != self._model:
            return
        if label.status == "final":
            segment.is_final = True
        elif label.status != "provisional" or self._rules.status != "provisional":
            return
        else:
            segment.is_early = True
        segment.unit, segment.posterior = label.unit, label.posterior
        if label.offset is not None:
            segment.offset = label.offset
        yield from self._advance(info)

    def _advance(self, info: StreamInfo) -> Iterator[Trigger]:
        """Match final labels in the order of their segments."""
        yield from self._early_triggers(info)
        while self._pending and self._pending[0].is_final:
            segment = self._pending.popleft()
            pattern = self._rules.pattern
            self._states = pattern.step(
                self._states, self._count, self._confident_unit(segment)
            )
            self._count += 1
            self._matched.append(segment)
            begin = pattern.begin_of(self._states)
            at_final = self._rules.status == "final" and not pattern.at_end
            if begin is not None and at_final and segment.offset is not None:
                match = list(self._matched)[begin - self._count :]
                yield self._trigger(match, "final", segment.offset, info)
            yield from self._early_triggers(info)

    def _early_triggers(self, info: StreamInfo) -> Iterator[Trigger]:
        """Yield triggers of matches that end with an onset or a provisional label.

        Earlier segments may still wait for their labels: they match as unlabelled, and
        so with any label.
        """
        status = self._rules.status
        if status not in ("onset", "provisional"):
            return
        pattern = self._rules.pattern
        states, count = self._states, self._count
        units = list(self._matched)
        for segment in self._pending:
            units.append(segment)
            if segment.is_early and not segment.has_fired:
                unit = (
                    self._confident_unit(segment) if status == "provisional" else None
                )
                begin = pattern.begin_of(pattern.step(states, count, unit))
                if begin is not None:
                    segment.has_fired = True
                    match = units[begin - count - 1 :]
                    yield self._trigger(match, status, segment.onset, info)
            states, count = pattern.step(states, count, None), count + 1

    def _end_bout(self, info: StreamInfo) -> Iterator[Trigger]:
        end = self._bout_end(info)
        pattern = self._rules.pattern
        if pattern.at_end and end is not None:
            states, count = self._states, self._count
            units = [*self._matched, *self._pending]
            for segment in self._pending:
                unit = self._confident_unit(segment) if segment.is_final else None
                states, count = pattern.step(states, count, unit), count + 1
            begin = pattern.begin_of(states)
            if begin is not None:
                yield self._trigger(units[begin - count :], "silence", end, info)
        self._begin_bout()

    def _confident_unit(self, segment: _MatchedSegment) -> str | None:
        return segment.unit if segment.posterior >= self._rules.posterior else None

    def _trigger(
        self,
        match: Sequence[_MatchedSegment],
        status: TriggerStatus,
        sample: int,
        info: StreamInfo,
    ) -> Trigger:
        newest, match = match[-1], match[-_MOST_UNITS:]
        arguments: Mapping[str, object] = self.command.arguments if self.command else {}
        return Trigger(
            trigger=self._rules.name,
            sample=sample,
            segment=newest.number,
            onset=newest.onset,
            offset=newest.offset,
            units=tuple(segment.unit for segment in match),
            posteriors=tuple(segment.posterior for segment in match),
            status=status,
            decision=self._decide(sample, info),
            model=self.command.model if self.command else "",
            arguments=dict(arguments),
        )

    def _decide(self, sample: int, info: StreamInfo) -> TriggerDecision:
        """Return whether to act; catch trials are drawn by number, reproducibly."""
        rules = self._rules
        refractory = _samples(rules.refractory_ms, info)
        if self._last is not None and sample - self._last < refractory:
            return "refractory"
        self._last = sample
        draw = Random(f"{rules.seed}/{rules.name}/{info.stream}/{self._number}")
        self._number += 1
        return "catch" if draw.random() < rules.catch_share else "act"


def _samples(ms: float, info: StreamInfo) -> int:
    return round(ms / 1000 * info.sample_rate)
