"""Lane recovery: rebuild a lane after its front end or detector has failed.

Those two cannot skip an item that they failed at: it would be a hole that no gap
declares. So the lane ends there, and after a pause that grows from failure to failure
another one goes on in the same stream. The audio between is a gap.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from neurovocal.engine.contracts.clock import Clock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import Anchor, Event, Gap, Health, StreamInfo
from neurovocal.engine.lane.lane import Lane, Part, Step
from neurovocal.engine.runtime.workers.channel import Channel, copy_settings
from neurovocal.engine.support.calls import Backoff, Calls

log = logging.getLogger("neurovocal")

# A lane that fails again sooner than this is built again after a longer pause.
_STEADY_S = 60.0

BuildLane: TypeAlias = Callable[[StreamInfo, int], Lane]
ReportHealth: TypeAlias = Callable[[Health, Sequence[Channel]], None]
TimedStep: TypeAlias = tuple[Step, int]


@dataclass(slots=True)
class _Failure:
    """Failure of one channel's lane."""

    backoff: Backoff = field(default_factory=lambda: Backoff(steady_s=_STEADY_S))
    stage: str = ""  # which one has failed; empty: the lane runs

    @property
    def reason(self) -> str:
        """Reason of the gap."""
        return f"{self.stage} failed"


class LaneRecovery:
    """Builds the lanes of one source, and builds those again that have failed.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    build : callable
        ``build(source_info, channel)`` makes the lane of one channel.
    report : callable
        ``report(health, channels)`` publishes the health of a channel's lane.
    clock : Clock
        Measures pauses, and when the processing of a step began.
    enabled : bool
        Failed lanes are built again: those of live sources, as a rule.

    Attributes
    ----------
    build : callable
        As the parameter; a model swap replaces it.
    info : StreamInfo
        The source's present stream.
    missed_samples : int
        Samples, at the lane's rate, that were not processed.
    clock : Clock
        As the parameter.
    calls : Calls
        Of builds after a failure; read by the watchdog.
    """

    def __init__(
        self,
        name: str,
        build: BuildLane,
        report: ReportHealth,
        clock: Clock,
        *,
        enabled: bool,
    ) -> None:
        self.build = build
        self.info = StreamInfo(name, 1)
        self.missed_samples = 0
        self.calls = Calls()
        self._name = name
        self._report = report
        self.clock = clock
        self._enabled = enabled
        self._failures: dict[Channel, _Failure] = {}

    def build_lanes(self, info: StreamInfo) -> list[Lane]:
        """Build the lanes of all channels of a new stream."""
        self.info = info
        return [self.build(info, index) for index in range(info.channels)]

    def is_recovering(self, channel: Channel) -> bool:
        """Return True while the channel has no running lane."""
        failure = self._failures.get(channel)
        return failure is not None and failure.stage != ""

    def process(self, channel: Channel, item: Part) -> Iterator[TimedStep]:
        """Yield the steps of the channel's lane, and when each began (monotonic ns).

        Raises
        ------
        StageError
            A stage failed without which the lane cannot go on, and failed lanes are
            not built again.
        """
        if self._failures and self.is_recovering(channel):
            if not isinstance(item, Anchor):
                yield from self._rebuild(channel, item.start)
            if self.is_recovering(channel):
                return
        monotonic_ns = self.clock.monotonic_ns
        start_ns = monotonic_ns()
        try:
            alone = channel.shadow is None and not channel.recorded
            runs = channel.lane if alone else channel
            for step in runs.process(item):
                yield step, start_ns
                start_ns = monotonic_ns()
        except StageError as error:
            if not self.can_contain(channel, error):
                raise
            yield self.abandon(channel, error), start_ns

    def finish(self, channel: Channel, position: int) -> Iterator[TimedStep]:
        """Yield the last steps of a stream that ends at `position` of the source."""
        if self.is_recovering(channel):
            self._failures[channel].backoff.due_ns = 0
            yield from self._rebuild(channel, position)
        if not self.is_recovering(channel):
            for step in channel.flush():
                yield step, self.clock.monotonic_ns()

    def forget(self) -> None:
        """Drop all failures: another stream begins."""
        self._failures.clear()

    def can_contain(self, channel: Channel, error: StageError) -> bool:
        """Return whether a lane that failed in this way is built again."""
        return self._enabled and error.stage in _required_stages(channel.lane)

    def abandon(self, channel: Channel, error: StageError) -> Step:
        """Return the last step of a lane that has failed, and schedule the next."""
        failure = self._failures.setdefault(channel, _Failure())
        pause_s = failure.backoff.failed(self.clock.monotonic_ns())
        failure.stage = error.stage
        log.error("lane '%s': %s", self._name, error, exc_info=error)
        detail = f"{error}; the lane is rebuilt in {pause_s:g} s"
        self._report(Health(error.stage, "restarting", detail), [channel])
        return channel.lane.abandon(failure.reason)

    def _rebuild(self, channel: Channel, start: int) -> Iterator[TimedStep]:
        """Build a new lane that continues at sample `start`, once the pause is over."""
        failure, old = self._failures[channel], channel.lane
        start_ns = self.clock.monotonic_ns()
        if start_ns < failure.backoff.due_ns:
            return
        try:
            with self.calls:
                new = self.build(self.info, channel.index)
            new.info = old.info
            copy_settings(old, new)
            new.number_from(old.next_segment)
            steps = list(new.process(Gap(0, start, failure.reason)))
        except Exception as error:
            failure.backoff.failed(self.clock.monotonic_ns())
            log.error("lane '%s' is not rebuilt: %s", self._name, error)
            return
        missed = new.processed - old.processed
        self.missed_samples += missed
        stage, failure.stage = failure.stage, ""
        failure.backoff.succeeded(self.clock.monotonic_ns())
        channel.lane, channel.shadow = new, None
        for step in steps:
            events = [_extend_first_gap(old, event) for event in step.events]
            yield replace(step, events=events), start_ns
        seconds = missed / new.info.sample_rate
        detail = f"the lane was rebuilt; {seconds:.1f} s of audio were not processed"
        self._report(Health(stage, "healthy", detail), [channel])


def _required_stages(lane: Lane) -> set[str]:
    """Return the names of the stages that a lane cannot run without."""
    features = [lane.features.name] if lane.features else []
    return {lane.detector.name, *features}


def _extend_first_gap(old: Lane, event: Event) -> Event:
    """Extend the new lane's first gap back to the end of the old lane."""
    return replace(event, start=old.processed) if isinstance(event, Gap) else event
