"""Telemetry of a lane: checks of its samples, and statistics once a second."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np

from neurovocal.engine.audio.signal_checks import (
    RateHealth,
    SignalHealth,
    SignalOptions,
)
from neurovocal.engine.contracts.abilities import KnowsFrequencies, KnowsScale
from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.stages import Features
from neurovocal.engine.contracts.types import (
    SONG_CLOCK_STAGE,
    Anchor,
    Gap,
    Health,
    Stats,
)
from neurovocal.engine.lane.lane import Lane, Part
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.lanes.recovery import LaneRecovery
from neurovocal.engine.runtime.workers.publisher import LanePublisher
from neurovocal.engine.runtime.workers.source_reader import SourceReader
from neurovocal.engine.support.process import process_usage

_INTERVAL_NS = NS
_LAGGING_MS = 1000.0
STALLED = Health(
    SONG_CLOCK_STAGE, "lagging", "the source delivers nothing: songs go on without it"
)

Warn: TypeAlias = Callable[[Health, Sequence[Channel]], None]


class SignalChecks:
    """Measures the level of a source's samples; checks those of a live source.

    Parameters
    ----------
    options : SignalOptions, optional
        Thresholds; None: nothing is checked.
    warn : callable
        ``warn(health, channels)`` logs and publishes; no channels are all of them.
    """

    def __init__(self, options: SignalOptions | None, warn: Warn) -> None:
        self._options = options
        self._warn = warn
        self._rate: RateHealth | None = None

    def begin(self, channels: Sequence[Channel], sample_rate: int) -> None:
        """Check new channels of a source with `sample_rate` Hz."""
        if self._options is None:
            return
        self._rate = RateHealth(sample_rate, self._options)
        for channel in channels:
            channel.signal = SignalHealth(sample_rate, self._options)

    def observe(self, channel: Channel, item: Part) -> None:
        """Measure and check one channel's part of an item of the source."""
        if isinstance(item, Anchor):
            return
        if self._rate is not None and channel.index == 0:
            for change in self._rate.observe(item):
                self._warn(change, ())
        if isinstance(item, Gap):
            if channel.signal is not None:
                channel.signal.skip()
            return
        channel.peak = float(np.maximum.reduce(np.abs(item.samples), None, initial=0.0))
        if channel.signal is not None:
            for change in channel.signal.observe(item.start, item.samples[:, 0]):
                self._warn(change, [channel])


class LagMonitor:
    """Reports when lanes fall behind the audio, by which stage, and when it is over."""

    def __init__(self) -> None:
        self._lagging = False

    def changes(self, channels: Sequence[Channel]) -> list[Health]:
        """Return a Health event if the state has changed since the last call."""
        lag_ms = max((channel.lag_ms for channel in channels), default=0.0)
        if (lag_ms > _LAGGING_MS) == self._lagging:
            return []
        self._lagging = not self._lagging
        behind = f"{lag_ms:.0f} ms behind the audio"
        if self._lagging:
            return [Health("lane", "lagging", f"{behind}; {_slowest_of(channels)}")]
        return [Health("lane", "healthy", behind)]


def _slowest_of(channels: Sequence[Channel]) -> str:
    stages = [stage for channel in channels for stage in channel.lane.stages]
    slowest = max(stages, key=lambda stage: stage.load.now)
    return f"{slowest.name} takes {slowest.load.now:.2f} s per second"


class Telemetry:
    """Publishes statistics, health of lanes and sinks, and the newest anchors.

    Parameters
    ----------
    clock : Clock
        Measures the second.
    publisher : LanePublisher
        Publishes; knows the sinks and the latency of events.
    reader : SourceReader
        Counts the source's samples.
    recovery : LaneRecovery
        Counts the samples that were not processed.
    """

    def __init__(
        self,
        clock: Clock,
        publisher: LanePublisher,
        reader: SourceReader,
        recovery: LaneRecovery,
    ) -> None:
        self._clock = clock
        self._publisher = publisher
        self._reader = reader
        self._recovery = recovery
        self._lag = LagMonitor()
        self._due_ns = 0

    def start(self) -> None:
        """Let the first second begin."""
        self._due_ns = self._clock.monotonic_ns() + _INTERVAL_NS

    def once_a_second(self, channels: Sequence[Channel]) -> None:
        """Publish if a second has passed; to be called more often."""
        now = self._clock.monotonic_ns()
        if now < self._due_ns or not channels:
            return  # before the first stream there is nothing to publish in
        self._due_ns = now + _INTERVAL_NS
        _update_load(channels)
        sinks = self._publisher.sinks
        for change in (*self._lag.changes(channels), *sinks.sinks_health()):
            self._publisher.report(change, channels)
        for channel in channels:
            self._publisher.report(Stats(self.statistics(channel)), [channel])
            if channel.anchored:
                emitted_ns = self._clock.monotonic_ns()
                sinks.repeat(replace(channel.anchored, emitted_ns=emitted_ns))

    def statistics(self, channel: Channel) -> dict[str, object]:
        """Return the counters of one lane, as its ``stats`` message has them."""
        reader, ledgers = self._reader, self._publisher.ledgers
        return {
            **_channel_figures(channel),
            "source": {
                "heard": reader.samples,
                "lost": reader.lost_samples,
                "unheard": self._recovery.missed_samples,
                "state": reader.state.condition,
                "outages": reader.state.outages,
                "repeated": reader.repeated,
            },
            "sinks": self._publisher.sinks.statistics(),
            "latency": {kind: ledgers[kind].summary() for kind in ledgers},
        }


def _channel_figures(channel: Channel) -> dict[str, object]:
    """Return the counters of one lane, and the resources of the process."""
    position, rate = channel.lane.position, channel.lane.info.sample_rate
    frames = _frames_figures(channel.lane)
    return {
        **({} if frames is None else {"frames": frames}),
        "position": position,
        "seconds": round(position / rate, 3),
        "level_db": round(channel.level_db, 1),
        "lag_ms": round(channel.lag_ms, 3),
        "drift_ppm": round(channel.timebase.drift_ppm, 3),
        "privacy": None if channel.gate is None else channel.gate.as_dict(),
        "events": dict(channel.counts),
        "omitted_near_misses": channel.omitted,
        "stages": {s.name: _stage_figures(s) for s in channel.lane.stages},
        "process": process_usage()._asdict(),
    }


def _frames_figures(lane: Lane) -> dict[str, object] | None:
    """Return frequencies and scale of a lane's frames, None where they are unknown."""
    features: Any = None if lane.features is None else lane.features.stage
    if not isinstance(features, KnowsFrequencies) or not len(features.frequencies_hz):
        return None
    hz, shape = features.frequencies_hz, cast(Features, features)
    scaled = features if isinstance(features, KnowsScale) else None
    return {
        "n_bins": len(hz),
        "hop_length": shape.hop_length,
        "frame_length": shape.frame_length,
        "low_hz": round(float(hz[0]), 3),
        "high_hz": round(float(hz[-1]), 3),
        "spacing": features.spacing,
        "scale": None if scaled is None else scaled.value_scale,
        "range": None if scaled is None else scaled.value_range,
    }


def _stage_figures(stage: SupervisedStage) -> dict[str, float]:
    return {**stage.metrics.as_dict(), "load": round(stage.load.now, 4)}


def _update_load(channels: Sequence[Channel]) -> None:
    """Note how much time the stages have spent on how much audio."""
    for channel in channels:
        audio_ns = channel.lane.processed * NS // channel.lane.info.sample_rate
        for stage in channel.lane.stages:
            stage.load.update(stage.metrics.busy_ns, audio_ns)
