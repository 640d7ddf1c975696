"""Channel group: runs the lanes of a source's channels together where that is possible.

Channels whose lanes are in the same state form a `LaneSet`. A channel with a shadow, or
one whose lane has failed, is apart: its lane runs by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import Block
from neurovocal.engine.lane.lane import Step
from neurovocal.engine.lane.lane_set import LaneSet
from neurovocal.engine.runtime.workers.channel import Channel, split
from neurovocal.engine.runtime.workers.lanes.recovery import LaneRecovery

# Blocks after which unpublished events are counted.
_COUNT_BLOCKS = 64
# A step of a channel, and when its processing began (monotonic ns).
ChannelStep: TypeAlias = tuple[Channel, Step, int]


class ChannelGroup:
    """Runs the lanes of one source, together where that is possible.

    Parameters
    ----------
    recovery : LaneRecovery
        Runs lanes that are by themselves, and rebuilds those that have failed.
    wants : callable
        ``wants(kind)`` tells whether a sink takes this kind of event.
    """

    def __init__(
        self,
        recovery: LaneRecovery,
        wants: Callable[[str], bool],
    ) -> None:
        self._recovery = recovery
        self._wants = wants
        self._monotonic_ns = recovery.clock.monotonic_ns
        self._set: LaneSet | None = None
        self._members: list[Channel] = []
        self._apart: set[Channel] = set()
        self._is_possible = True
        self._errors: list[int] = []  # of the members' stages when they were joined
        self._n_blocks = 0

    @property
    def is_joined(self) -> bool:
        """True while lanes run together."""
        return self._set is not None

    def prepare(self, channels: Sequence[Channel]) -> None:
        """Load now what new lanes will need together: it takes up to seconds."""
        LaneSet.prepare([channel.lane for channel in channels])

    def forget(self) -> None:
        """Join anew: another stream begins, or a gap has set all lanes to one state."""
        self.release()
        self._apart.clear()
        self._is_possible = True

    def release(self) -> None:
        """Let each lane be by itself, until the next block."""
        if self._set is not None:
            self._set.release()
            _count_unpublished(self._set, self._members)
            self._set, self._members = None, []

    def process(
        self, channels: Sequence[Channel], block: Block
    ) -> Iterator[list[ChannelStep]]:
        """Yield the steps that a block of all channels completes, in order.

        Between two lists the lanes may be released, and commands be applied.

        Raises
        ------
        StageError
            A stage failed without which a lane cannot go on, and failed lanes are not
            built again.
        """
        lane_set = self._join(channels) if self._is_possible else None
        members = () if lane_set is None else frozenset(self._members)
        if len(members) < len(channels):
            for channel, part in split(block, channels):
                if channel in members:
                    continue
                for step, start_ns in self._recovery.process(channel, part):
                    yield [(channel, step, start_ns)]
        if lane_set is not None:
            yield from self._process_set(lane_set, list(self._members), block)

    def _join(self, channels: Sequence[Channel]) -> LaneSet | None:
        """Return the set of those lanes that can run together; None: there is none."""
        members = [
            channel
            for channel in channels
            if channel.shadow is None and not channel.recorded
        ]
        if self._apart:
            members = [each for each in members if each not in self._apart]
        if self._set is not None:
            if members == self._members:
                return self._set
            self.release()
        lanes = [channel.lane for channel in members]
        if not LaneSet.can_join(lanes):
            # Those that are apart or have a shadow may come back, stages never change.
            self._is_possible = len(members) < len(channels)
            return None
        self._set = LaneSet.join(lanes, self._wants)
        if self._set is not None:
            self._members = members
            self._errors = [_n_errors(channel) for channel in members]
        return self._set

    def _process_set(
        self, lane_set: LaneSet, members: Sequence[Channel], block: Block
    ) -> Iterator[list[ChannelStep]]:
        """Yield the steps of the channels that run together."""
        for part in _at_lane_rate(members, block):
            start_ns = self._monotonic_ns()
            for steps in lane_set.process(part):
                timed: list[ChannelStep] = []
                for index, step in steps:
                    channel = members[index]
                    if isinstance(step, StageError):
                        self._apart.add(channel)
                        if not self._recovery.can_contain(channel, step):
                            yield timed
                            raise step
                        step = self._recovery.abandon(channel, step)
                    timed.append((channel, step, start_ns))
                yield timed
                start_ns = self._monotonic_ns()
        if block.arrived_ns:
            lag_ms = (self._monotonic_ns() - block.arrived_ns) / 1e6
            for channel in members:
                channel.lag_ms = lag_ms
        self._n_blocks += 1
        if lane_set.is_released:
            self._part(lane_set, members)
        elif self._n_blocks % _COUNT_BLOCKS == 0:
            _count_unpublished(lane_set, members)

    def _part(self, lane_set: LaneSet, members: Sequence[Channel]) -> None:
        """Find out which channels can no more run with the others, and why."""
        _count_unpublished(lane_set, members)
        self._set, self._members = None, []
        failed = {
            channel
            for channel, errors in zip(members, self._errors, strict=True)
            if _n_errors(channel) > errors
        }
        self._apart |= failed
        if lane_set.failed and not failed:
            self._is_possible = False


def _at_lane_rate(members: Sequence[Channel], block: Block) -> Iterator[Block]:
    """Yield the members' columns of a block of all channels, at their lanes' rate."""
    columns = [channel.index for channel in members]
    samples = block.samples
    if columns != list(range(samples.shape[1])):
        samples = samples[:, columns]
    block = Block(block.start, samples, block.arrived_ns)
    if not members[0].lane.is_resampled:
        yield block
        return
    resampled = [
        list(channel.lane.resample(part)) for channel, part in split(block, members)
    ]
    for parts in zip(*resampled, strict=True):
        first = parts[0]
        assert isinstance(first, Block)
        columns_at_rate = [part.samples for part in parts if isinstance(part, Block)]
        joined = np.concatenate(columns_at_rate, axis=1)
        yield Block(first.start, joined, first.arrived_ns)


def _count_unpublished(lane_set: LaneSet, members: Sequence[Channel]) -> None:
    """Count the events that no sink takes: statistics show them all the same."""
    if counts := lane_set.take_unpublished():
        for channel in members:
            channel.counts.update(counts)


def _n_errors(channel: Channel) -> int:
    return sum(stage.metrics.errors for stage in channel.lane.stages)
