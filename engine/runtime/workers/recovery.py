"""A lane whose front end or detector has failed is built anew; what it misses is a gap.

Those two cannot skip what they failed at: it would be a hole that no gap declares. So
the lane ends there, open segment and all, and after a pause that grows from failure to
failure another one goes on in the same stream.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import Anchor, Block, Event, Gap, Health
from neurovocal.engine.lane.lane import Lane, Step
from neurovocal.engine.runtime.workers.channel import Channel, inherit
from neurovocal.engine.support.calls import Backoff

log = logging.getLogger("neurovocal")

# One that fails again sooner than this is tried again after a longer pause.
_STEADY_NS = 60 * NS

Rebuild: TypeAlias = Callable[[int], Lane]
Tell: TypeAlias = Callable[[Health, Channel], None]


@dataclass(slots=True)
class _LaneRecoveryState:
    """What became of one channel's lane."""

    backoff: Backoff = field(default_factory=Backoff)
    stage: str = ""  # which one has failed; empty: the lane hears
    due_ns: int = 0  # when the next attempt is
    back_ns: int = 0  # when the last one succeeded

    @property
    def reason(self) -> str:
        """What the gap says."""
        return f"{self.stage} failed"


class LaneRecovery:
    """Watches over the lanes of one source.

    Parameters
    ----------
    name : str
        Of the lane, for the log.
    rebuild : callable
        ``rebuild(index)`` builds the lane of one of the source's channels.
    tell : callable
        Publishes the Health of a channel's lane.
    clock : Clock
        Measures the pauses.
    willing : bool
        Whether lanes are built anew at all: those of live sources, as a rule.
    """

    def __init__(
        self, name: str, rebuild: Rebuild, tell: Tell, clock: Clock, *, willing: bool
    ) -> None:
        self.missed = 0  # samples, at the lane's rate, that no stage has heard
        self._name = name
        self._rebuild = rebuild
        self._tell = tell
        self._clock = clock
        self._willing = willing
        self._patients: dict[Channel, _LaneRecoveryState] = {}

    def forget(self) -> None:
        """All channels have new lanes: another stream has begun."""
        self._patients.clear()

    def away(self, channel: Channel) -> bool:
        """Whether nobody hears this channel at the moment."""
        return bool(self._patients) and bool(self._of(channel).stage)

    def process(
        self, index: int, channel: Channel, item: Block | Gap | Anchor
    ) -> Iterator[Step]:
        """As the lane's `process`, whichever lane it is by now.

        Raises
        ------
        StageError
            A stage failed that is not built anew.
        """
        if self.away(channel) and not isinstance(item, Anchor):
            yield from self._again(index, channel, item.start)
        if self.away(channel):
            return
        try:
            yield from channel.lane.process(item)
        except StageError as error:
            if not self._willing or error.stage not in _essential(channel.lane):
                raise
            yield self._lose(channel, error)

    def finish(self, index: int, channel: Channel, position: int) -> Iterator[Step]:
        """The stream ends at `position` of the source: who is away misses the rest."""
        if self.away(channel):
            self._of(channel).due_ns = 0
            yield from self._again(index, channel, position)
        if not self.away(channel):
            yield from channel.lane.flush()

    def _lose(self, channel: Channel, error: StageError) -> Step:
        patient, now = self._of(channel), self._clock.monotonic_ns()
        if now - patient.back_ns > _STEADY_NS:
            patient.backoff.succeeded()
        pause_s = patient.backoff.pause_s()
        patient.stage = error.stage
        patient.due_ns = now + round(pause_s * NS)
        log.error("lane '%s': %s", self._name, error, exc_info=error)
        self._tell(
            Health(
                error.stage,
                "restarting",
                f"{error}; the lane is built anew in {pause_s:g} s",
            ),
            channel,
        )
        return channel.lane.abandon(patient.reason)

    def _again(self, index: int, channel: Channel, start: int) -> Iterator[Step]:
        """Once it is time, let a new lane go on at `start` of the source."""
        patient, old = self._of(channel), channel.lane
        if self._clock.monotonic_ns() < patient.due_ns:
            return
        try:
            new = self._rebuild(index)
            new.info = old.info
            inherit(old, new)
            new.number_from(old.next_segment)
            steps = list(new.process(Gap(0, start, patient.reason)))
        except Exception as error:
            pause_s = patient.backoff.pause_s()
            patient.due_ns = self._clock.monotonic_ns() + round(pause_s * NS)
            log.error("lane '%s' is not built anew: %s", self._name, error)
            return
        self.missed += new.heard - old.heard
        failed, patient.stage = patient.stage, ""
        patient.back_ns = self._clock.monotonic_ns()
        channel.lane = new
        for step in steps:
            yield replace(step, events=[_since(old, event) for event in step.events])
        seconds = (new.heard - old.heard) / new.info.sample_rate
        told = f"the lane was built anew; {seconds:.1f} s were not heard"
        self._tell(Health(failed, "healthy", told), channel)

    def _of(self, channel: Channel) -> _LaneRecoveryState:
        return self._patients.setdefault(channel, _LaneRecoveryState())


def _essential(lane: Lane) -> set[str]:
    """Names of the stages without which a lane cannot go on."""
    features = [lane.features.name] if lane.features else []
    return {lane.detector.name, *features}


def _since(old: Lane, event: Event) -> Event:
    """The new lane's first gap begins where the old lane has stopped hearing."""
    return replace(event, start=old.heard) if isinstance(event, Gap) else event
