"""What decides in a lane: labels in, triggers out, by the audio alone."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from neurovocal.engine.contracts.stages import ModelCommand, StepEvents
from neurovocal.engine.contracts.types import (
    Decision,
    Gap,
    Label,
    Offset,
    Onset,
    StreamInfo,
    Trigger,
    TriggerStatus,
)
from neurovocal.plugins.sinks.trigger.pattern import Pattern, States

# As many units of a match are told; a repetition may go on for ever.
_MOST_TOLD = 32
# More segments than this do not wait for labels: none of these will ever come.
_MOST_WAITING = 16


@dataclass(frozen=True, slots=True)
class Rules:
    """What a trigger listens for; times in milliseconds."""

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
class _Segment:
    number: int
    onset: int
    offset: int | None = None
    unit: str = ""
    posterior: float = math.nan
    final: bool = False
    named: bool = False  # by an onset or a provisional label, as the rules say
    fired: bool = False


class PatternWatcher:
    """Follows the segments of a stream, one bout after the other.

    Parameters
    ----------
    rules : Rules
        What to listen for.
    latency : int
        Samples by which an onset may be known later than it was heard: a silence
        is certain only then.
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
        """Forget everything: another stream begins."""
        self._model = self._rules.labels_from
        self._last: int | None = None  # sample of the last one that was not too soon
        self._number = 0  # of triggers that were not too soon
        self._begin_bout()

    def process(self, known: StepEvents, /) -> Iterator[Trigger]:
        """Triggers that the events of a step make due."""
        rules, info = self._rules, known.info
        if rules.streams is not None and info.stream not in rules.streams:
            return
        for event in known.events:
            match event:
                case Onset():
                    yield from self._hear_onset(event, info)
                case Label():
                    yield from self._hear_label(event, info)
                case Offset():
                    self._hear_offset(event)
                case Gap():
                    self._begin_bout()  # nobody knows what was in it
        end = self._silence_from(info)
        if end is not None and known.at - self._latency >= end:
            yield from self._end_bout(info)

    def _begin_bout(self) -> None:
        self._states: States = {}
        self._count = 0  # units of the bout that the states have heard
        self._told: deque[_Segment] = deque(maxlen=_MOST_TOLD)
        self._waiting: deque[_Segment] = deque()
        self._newest: _Segment | None = None

    def _silence_from(self, info: StreamInfo) -> int | None:
        """Where the bout ends if nothing comes until then; None: it goes on."""
        if self._newest is None or self._newest.offset is None:
            return None
        return self._newest.offset + _samples(self._rules.bout_gap_ms, info)

    def _hear_onset(self, onset: Onset, info: StreamInfo) -> Iterator[Trigger]:
        end = self._silence_from(info)
        if end is not None and onset.sample >= end:
            yield from self._end_bout(info)
        segment = _Segment(onset.segment, onset.sample)
        segment.named = self._rules.status == "onset"
        self._newest = segment
        self._waiting.append(segment)
        if len(self._waiting) > _MOST_WAITING:
            self._waiting[0].final = True
        yield from self._advance(info)

    def _hear_offset(self, offset: Offset) -> None:
        if self._newest is not None and self._newest.number == offset.segment:
            self._newest.offset = offset.sample
        for segment in self._waiting:
            if segment.number == offset.segment:
                segment.offset = offset.sample

    def _hear_label(self, label: Label, info: StreamInfo) -> Iterator[Trigger]:
        self._model = self._model or label.model
        segment = next((s for s in self._waiting if s.number == label.segment), None)
        if segment is None or label.model != self._model:
            return
        if label.status == "final":
            segment.final = True
        elif label.status != "provisional" or self._rules.status != "provisional":
            return
        else:
            segment.named = True
        segment.unit, segment.posterior = label.unit, label.posterior
        if label.offset is not None:
            segment.offset = label.offset
        yield from self._advance(info)

    def _advance(self, info: StreamInfo) -> Iterator[Trigger]:
        """Take over final labels in the order of their segments."""
        yield from self._early(info)
        while self._waiting and self._waiting[0].final:
            segment = self._waiting.popleft()
            pattern = self._rules.pattern
            self._states = pattern.step(
                self._states, self._count, self._sure_unit(segment)
            )
            self._count += 1
            self._told.append(segment)
            begin = pattern.begin_of(self._states)
            at_final = self._rules.status == "final" and not pattern.at_end
            if begin is not None and at_final and segment.offset is not None:
                match = list(self._told)[begin - self._count :]
                yield self._fire(match, "final", segment.offset, info)
            yield from self._early(info)

    def _early(self, info: StreamInfo) -> Iterator[Trigger]:
        """Segments whose onset or provisional label completes the pattern.

        Those before them may still wait for their labels: what matches without these
        matches with any.
        """
        status = self._rules.status
        if status not in ("onset", "provisional"):
            return
        pattern = self._rules.pattern
        states, count = self._states, self._count
        told = list(self._told)
        for segment in self._waiting:
            told.append(segment)
            if segment.named and not segment.fired:
                unit = self._sure_unit(segment) if status == "provisional" else None
                begin = pattern.begin_of(pattern.step(states, count, unit))
                if begin is not None:
                    segment.fired = True
                    match = told[begin - count - 1 :]
                    yield self._fire(match, status, segment.onset, info)
            states, count = pattern.step(states, count, None), count + 1

    def _end_bout(self, info: StreamInfo) -> Iterator[Trigger]:
        end = self._silence_from(info)
        pattern = self._rules.pattern
        if pattern.at_end and end is not None:
            states, count = self._states, self._count
            told = [*self._told, *self._waiting]
            for segment in self._waiting:
                unit = self._sure_unit(segment) if segment.final else None
                states, count = pattern.step(states, count, unit), count + 1
            begin = pattern.begin_of(states)
            if begin is not None:
                yield self._fire(told[begin - count :], "silence", end, info)
        self._begin_bout()

    def _sure_unit(self, segment: _Segment) -> str | None:
        return segment.unit if segment.posterior >= self._rules.posterior else None

    def _fire(
        self,
        match: Sequence[_Segment],
        status: TriggerStatus,
        sample: int,
        info: StreamInfo,
    ) -> Trigger:
        newest, match = match[-1], match[-_MOST_TOLD:]
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

    def _decide(self, sample: int, info: StreamInfo) -> Decision:
        """Catch trials are drawn by number: the same in every run of a stream."""
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
