"""What the lanes of a source tell once a second, also for those who came late."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from neurovocal.engine.channel import Channel
from neurovocal.engine.dispatch import Dispatcher
from neurovocal.engine.lane_figures import LagWatch, look_at_load
from neurovocal.engine.timebase import NS, Clock
from neurovocal.engine.types import Event, Stats

_EVERY_NS = NS

Report: TypeAlias = Callable[[Event, Sequence[Channel]], None]


class LanePulse:
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
        dispatcher: Dispatcher,
        report: Report,
        statistics: Callable[[Channel], dict[str, object]],
    ) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._report = report
        self._statistics = statistics
        self._lag = LagWatch()
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
