"""What a lane tells of itself: counters, timings, and who is too slow."""

from collections.abc import Iterator, Sequence

from neurovocal.engine.channel import Channel
from neurovocal.engine.process import usage
from neurovocal.engine.supervise import StageShell
from neurovocal.engine.timebase import NS
from neurovocal.engine.types import SONG_CLOCK, Health

_LAGGING_MS = 1000.0

STALLED = Health(
    SONG_CLOCK, "lagging", "the source delivers nothing: songs go on without it"
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


class LagWatch:
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


def _figures_of_stage(stage: StageShell) -> dict[str, float]:
    return {**stage.metrics.as_dict(), "load": round(stage.load.now, 4)}
