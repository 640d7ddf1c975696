"""Release audio blocks to the sinks, withholding what the privacy gate detects."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from neurovocal.engine.contracts.types import (
    Block,
    Frames,
    Gap,
    Health,
    StreamInfo,
)
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.privacy import AudioGate, NoAudio, Released
from neurovocal.engine.runtime.workers.publisher import Publisher

MakeGate: TypeAlias = Callable[[StreamInfo], AudioGate | NoAudio | None]


def everything(info: StreamInfo) -> None:
    """No gate: all audio may leave."""


class AudioRelease:
    """Sends blocks of a lane's channels to the sinks that want them.

    Parameters
    ----------
    dispatcher : Dispatcher
        Where they go.
    make_gate : callable
        ``make_gate(info)`` makes the gate of one channel at the source's rate; None
        means that all may leave.
    """

    def __init__(self, dispatcher: Publisher, make_gate: MakeGate) -> None:
        self._dispatcher = dispatcher
        self._make_gate = make_gate

    def attach(self, channel: Channel, sample_rate: int) -> None:
        """Give a new channel its gate; `sample_rate` is the source's."""
        channel.source_rate = sample_rate
        channel.gate = self._make_gate(_at_source(channel))

    def hear(self, item: Block | Gap, channel: Channel) -> None:
        """Take what the source delivered, send what may leave by now."""
        if not self._dispatcher.wants("block"):
            return
        if channel.gate is not None:
            self._send(channel.gate.push(item), channel, channel.gate.lookahead)
        elif isinstance(item, Block):
            self._send([item], channel, 0)

    def finish(self, channel: Channel) -> None:
        """End of the stream: what waits is decided."""
        if channel.gate is not None:
            self._send(channel.gate.flush(), channel, 0)

    def keeps_back(self, event: object, channel: Channel) -> bool:
        """Whether an event of the lane is as telling as audio, and may not leave."""
        return channel.gate is not None and isinstance(event, Frames)

    def _send(
        self, released: Iterable[Released], channel: Channel, lookahead: int
    ) -> None:
        info = _at_source(channel)
        for event in _joined(released, channel.source_rate):
            if isinstance(event, Health):
                lane = channel.lane
                self._dispatcher.send(lane.info, event, lane.position, channel.timebase)
            else:
                at = event.stop + lookahead
                self._dispatcher.send(info, event, at, channel.timebase)


def _joined(released: Iterable[Released], most: int) -> Iterator[Released]:
    """Blocks that are let out together as one, of at most `most` samples.

    At a gap and at the end a gate lets out all that waited: seconds in blocks of
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
            yield _whole(waiting)
            waiting = []
        if block is None:
            yield event
        else:
            waiting.append(block)
    if waiting:
        yield _whole(waiting)


def _whole(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    samples = np.concatenate([block.samples for block in blocks])
    return Block(blocks[0].start, samples, blocks[-1].arrived_ns)


def _at_source(channel: Channel) -> StreamInfo:
    return replace(channel.lane.info, sample_rate=channel.source_rate)
