"""Release of audio blocks to the sinks, except those withheld by the privacy gate."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from neurovocal.engine.contracts.types import Anchor, Block, Health, StreamInfo
from neurovocal.engine.lane.lane import Part
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.privacy import AudioGate, NoAudio, Released
from neurovocal.engine.runtime.workers.publisher import Publisher

MakeGate: TypeAlias = Callable[[StreamInfo], AudioGate | NoAudio | None]


def no_gate(info: StreamInfo) -> None:
    """Return no gate: all audio is released."""


class AudioRelease:
    """Sends blocks of a lane's channels to the sinks that want them.

    Parameters
    ----------
    publisher : Publisher
        Sends to the sinks.
    make_gate : callable
        ``make_gate(info)`` makes the gate of one channel at the source's rate; None
        means that all audio is released.
    all_channels : bool
        Whether what is withheld of one channel is withheld of all.

    Attributes
    ----------
    is_wanted : bool
        A sink takes audio; else `push` need not be called.
    """

    def __init__(
        self,
        publisher: Publisher,
        make_gate: MakeGate = no_gate,
        *,
        all_channels: bool = True,
    ) -> None:
        self._publisher = publisher
        self._all_channels = all_channels
        self._make_gate = make_gate
        self.is_wanted = publisher.wants("block")

    def attach(self, channels: Sequence[Channel], sample_rate: int) -> None:
        """Give new channels their gates; `sample_rate` is the source's, in Hz."""
        for channel in channels:
            channel.source_info = replace(channel.lane.info, sample_rate=sample_rate)
            channel.gate = self._make_gate(channel.source_info)
        group = [c.gate for c in channels if isinstance(c.gate, AudioGate)]
        for gate in group if self._all_channels else ():
            gate.join(group)

    def push(self, channel: Channel, item: Part) -> None:
        """Send the audio that `item` releases."""
        gate = channel.gate
        if gate is None:
            if isinstance(item, Block):
                self._publisher.send(
                    channel.source_info, item, item.stop, channel.timebase
                )
        elif not isinstance(item, Anchor):
            self._send(gate.push(item), channel, gate.lookahead)

    def finish(self, channel: Channel) -> None:
        """Send the audio that the gate releases at the end of the stream."""
        if channel.gate is not None:
            self._send(channel.gate.flush(), channel, 0)

    def _send(
        self, released: Iterable[Released], channel: Channel, lookahead: int
    ) -> None:
        info, lane = channel.source_info, channel.lane
        for event in _join_blocks(released, info.sample_rate):
            if isinstance(event, Health):
                self._publisher.send(lane.info, event, lane.position, channel.timebase)
            else:
                at = event.stop + lookahead
                self._publisher.send(info, event, at, channel.timebase)


def _join_blocks(released: Iterable[Released], most: int) -> Iterator[Released]:
    """Join consecutive blocks to blocks of at most `most` samples.

    At a gap and at the end a gate releases all that waited: seconds in blocks of
    milliseconds, more than a queue before a sink holds.
    """
    waiting: list[Block] = []
    for event in released:
        block = event if isinstance(event, Block) else None
        if waiting and (
            block is None
            or block.start != waiting[-1].stop
            or block.stop - waiting[0].start > most
        ):
            yield _concatenated(waiting)
            waiting = []
        if block is None:
            yield event
        else:
            waiting.append(block)
    if waiting:
        yield _concatenated(waiting)


def _concatenated(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    samples = np.concatenate([block.samples for block in blocks])
    return Block(blocks[0].start, samples, blocks[-1].arrived_ns)
