"""What a lane tells of its source's samples and of their time."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from neurovocal.engine.audio.signal_checks import (
    RateHealth,
    SignalHealth,
    SignalOptions,
)
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.types import (
    SONG_CLOCK_STAGE,
    Anchor,
    Block,
    Event,
    Gap,
    Health,
    Stats,
)
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.publisher import Publisher
from neurovocal.engine.support.process import usage

log = logging.getLogger("neurovocal")


class SignalChecks:
    """Watches the samples of one source; does nothing unless it is live.

    Parameters
    ----------
    name : str
        Name of the lane, for the log.
    options : SignalOptions, optional
        Thresholds; None: nothing is watched.
    report : callable
        ``report(health, channels)`` publishes; no channels are all of them.
    """

    def __init__(
        self,
        name: str,
        options: SignalOptions | None,
        report: Callable[[Health, Sequence[Channel]], None],
    ) -> None:
        self._name = name
        self._options = options
        self._report = report
        self._rate: RateHealth | None = None

    def begin(self, channels: Sequence[Channel], sample_rate: int) -> None:
        """Watch new channels, whose source has `sample_rate` Hz."""
        if self._options is None:
            return
        self._rate = RateHealth(sample_rate, self._options)
        for channel in channels:
            channel.signal = SignalHealth(sample_rate, self._options)

    def hear(self, item: Block | Gap, channels: Sequence[Channel]) -> None:
        """Tell what is wrong with the samples themselves."""
        if self._rate is None:
            return
        for change in self._rate.hear(item):
            self._warn(change, ())
        for index, channel in enumerate(channels):
            if channel.signal is None:
                continue
            if isinstance(item, Gap):
                channel.signal.lose()
                continue
            for change in channel.signal.hear(item.start, item.samples[:, index]):
                self._warn(change, [channel])

    def set_time(self, anchor: Anchor, channel: Channel) -> None:
        """Take an anchor; a live source whose time jumps says so, and when it stops."""
        before = channel.timebase.moved_ns
        channel.timebase.add(anchor)
        moved_s = channel.timebase.moved_ns / NS
        if self._options is None or not (before or moved_s):
            return
        change = Health("clock", "healthy", "time goes on evenly")
        if moved_s:
            detail = f"UTC of the samples moved by {moved_s:+.3f} s (was a clock set?)"
            change = Health("clock", "degraded", detail)
        self._warn(change, [channel])

    def _warn(self, change: Health, channels: Sequence[Channel]) -> None:
        level = logging.INFO if change.state == "healthy" else logging.WARNING
        words = (self._name, change.stage, change.state, change.detail)
        log.log(level, "lane '%s': %s is %s: %s", *words)
        self._report(change, channels)


_LAGGING_MS = 1000.0
STALLED = Health(
    SONG_CLOCK_STAGE, "lagging", "the source delivers nothing: songs go on without it"
)


def figures_of(channel: Channel) -> dict[str, object]:
    """Counters of one lane, and what the process uses."""
    position, rate = channel.lane.position, channel.lane.info.sample_rate
    return {
        "position": position,
        "seconds": round(position / rate, 3),
        "level_db": round(channel.level_db, 1),
        "lag_ms": round(channel.lag_ms, 3),
        "drift_ppm": round(channel.timebase.drift_ppm, 3),
        "privacy": None if channel.gate is None else channel.gate.as_dict(),
        "events": dict(channel.counts),
        "stages": {s.name: _figures_of_stage(s) for s in channel.lane.stages},
        "process": usage()._asdict(),
    }


def look_at_load(channels: Sequence[Channel]) -> None:
    """Note what the stages have spent on how much audio; once a second."""
    for channel in channels:
        audio_ns = channel.lane.heard * NS // channel.lane.info.sample_rate
        for stage in channel.lane.stages:
            stage.load.look(stage.metrics.busy_ns, audio_ns)


class LagMonitor:
    """Says when lanes fall behind the audio, by which stage, and when it is over."""

    def __init__(self) -> None:
        self._lagging = False

    def look(self, channels: Sequence[Channel]) -> Iterator[Health]:
        """Health events, if it has changed since the last look."""
        lag_ms = max((channel.lag_ms for channel in channels), default=0.0)
        if (lag_ms > _LAGGING_MS) == self._lagging:
            return
        self._lagging = not self._lagging
        behind = f"{lag_ms:.0f} ms behind the audio"
        if self._lagging:
            yield Health("lane", "lagging", f"{behind}; {_slowest_of(channels)}")
        else:
            yield Health("lane", "healthy", behind)


def _slowest_of(channels: Sequence[Channel]) -> str:
    stages = [stage for channel in channels for stage in channel.lane.stages]
    slowest = max(stages, key=lambda stage: stage.load.now)
    return f"{slowest.name} takes {slowest.load.now:.2f} s per second"


def _figures_of_stage(stage: SupervisedStage) -> dict[str, float]:
    return {**stage.metrics.as_dict(), "load": round(stage.load.now, 4)}


_EVERY_NS = NS
Report: TypeAlias = Callable[[Event, Sequence[Channel]], None]


class LaneHeartbeat:
    """Statistics, the newest anchor, and how lanes and sinks do.

    Parameters
    ----------
    clock : Clock
        Says when a second has passed.
    dispatcher : Dispatcher
        Repeats anchors; knows how the sinks do.
    report : callable
        ``report(event, channels)`` publishes in these channels' streams.
    statistics : callable
        Counters of one channel, as its ``stats`` message carries them.
    """

    def __init__(
        self,
        clock: Clock,
        dispatcher: Publisher,
        report: Report,
        statistics: Callable[[Channel], dict[str, object]],
    ) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._report = report
        self._statistics = statistics
        self._lag = LagMonitor()
        self._due_ns = 0

    def start(self) -> None:
        """The first second begins."""
        self._due_ns = self._clock.monotonic_ns() + _EVERY_NS

    def beat(self, channels: Sequence[Channel]) -> None:
        """Tell, if a second has passed; to be called more often."""
        now = self._clock.monotonic_ns()
        if now < self._due_ns or not channels:
            return  # before the first stream nobody hears what is told
        self._due_ns = now + _EVERY_NS
        look_at_load(channels)
        for change in (*self._lag.look(channels), *self._dispatcher.sinks_health()):
            self._report(change, channels)
        for channel in channels:
            self._report(Stats(self._statistics(channel)), [channel])
            if channel.anchored:
                emitted_ns = self._clock.monotonic_ns()
                self._dispatcher.repeat(
                    replace(channel.anchored, emitted_ns=emitted_ns)
                )
