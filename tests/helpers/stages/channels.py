"""Channels of one source, run together or each by itself, and their events compared."""

import numpy as np

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.types import Block, Gap, StreamInfo
from neurovocal.engine.runtime.workers.channel import Channel, split
from neurovocal.engine.runtime.workers.lanes.channel_group import ChannelGroup
from neurovocal.engine.runtime.workers.lanes.recovery import LaneRecovery
from neurovocal.engine.testing import canonical, song


def array_of(n_channels, rate, seconds, seed=3):
    """Return float32[n_samples, n_channels]: songs, noise, silence, and what is not."""
    rng = np.random.default_rng(seed)
    n_samples = round(rate * seconds)
    columns = []
    for channel in range(n_channels):
        kind = channel % 4
        if kind == 0:
            column = song(rate, seconds, seed=seed + channel)[:, 0]
        elif kind == 1:
            column = rng.normal(0, 1e-3, n_samples)
        elif kind == 2:  # a card that begins, and stops for a while, with zeros
            column = song(rate, seconds, seed=seed + channel)[:, 0]
            column[: rng.integers(0, n_samples // 4)] = 0
            at = rng.integers(0, n_samples)
            column[at : at + n_samples // 5] = 0
        else:
            column = np.zeros(n_samples)
        columns.append(column)
    return np.stack(columns, axis=1).astype(np.float32)


class Pair:
    """Lanes by themselves, and as many that run together, used again and again."""

    def __init__(self, make, n_channels, rate):
        self._rate = rate
        self.lanes = {
            together: [make() for _ in range(n_channels)] for together in (False, True)
        }

    def play(self, items, after_step=None, **settings):
        """Return the runs of lanes by themselves, and of lanes together."""
        runs = []
        for together, lanes in self.lanes.items():
            for lane in lanes:
                lane.reset()
            run = Run(
                lanes.__getitem__,
                len(lanes),
                rate=self._rate,
                together=together,
                **settings,
            )
            run.play(items, after_step)
            runs.append(run)
        return runs


class Run:
    """Lanes of one source, and what they have published by channel.

    `build` makes the lane of a channel; `together` is whether they may run so.
    """

    def __init__(self, build, n_channels, *, rate, together, wants=lambda kind: True):
        self.events = [[] for _ in range(n_channels)]
        self.reports = []
        self.recovery = LaneRecovery(
            "array",
            lambda info, channel: build(channel),
            self._report,
            ManualClock(),
            enabled=True,
        )
        lanes = self.recovery.build_lanes(StreamInfo("array", rate, n_channels))
        self.channels = [
            Channel(lane, TimeBase(rate), index) for index, lane in enumerate(lanes)
        ]
        self.group = ChannelGroup(self.recovery, wants)
        self._together = together
        self.blocks_together = 0

    def play(self, items, after_step=None):
        position = 0
        for item in items:
            position = getattr(item, "stop", position)
            if self._together and isinstance(item, Block):
                for steps in self.group.process(self.channels, item):
                    for channel, step, _ in steps:
                        self._publish(channel, step)
                    if after_step is not None:
                        after_step(self)
                self.blocks_together += self.group.is_joined
                continue
            if isinstance(item, Gap):
                self.group.forget()
            for channel, part in split(item, self.channels):
                for step, _ in self.recovery.process(channel, part):
                    self._publish(channel, step)
        self.group.release()
        for channel in self.channels:
            for step, _ in self.recovery.finish(channel, position):
                self._publish(channel, step)
        return self.events

    def _publish(self, channel, step):
        if step.events:
            events = [canonical(event) for event in step.events]
            self.events[channel.index].append((step.at, events))

    def _report(self, health, channels):
        for channel in channels:
            self.reports.append((channel.index, health))
