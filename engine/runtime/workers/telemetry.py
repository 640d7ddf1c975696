"""What a lane tells of its source's samples and of their time."""

import logging
from collections.abc import Callable, Sequence

from neurovocal.engine.channel import Channel
from neurovocal.engine.signal_health import RateHealth, SignalHealth, SignalOptions
from neurovocal.engine.timebase import NS
from neurovocal.engine.types import Anchor, Block, Gap, Health

log = logging.getLogger("neurovocal")


class LaneSignal:
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
