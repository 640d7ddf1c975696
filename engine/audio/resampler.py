"""Streaming sample-rate conversion with exact positions, independent of block edges.

The filter is libsoxr's: a linear-phase polyphase FIR that compensates its own delay, so
that output sample k is the input at time k / out_rate. This module adds the stream:
integer positions, gaps, anchors, and runs of exact length between gaps. Each output
sample depends on the audio alone, not on the blocks; the number of samples that one
call returns does depend on them.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from math import gcd
from typing import Any, Literal, TypeAlias

import numpy as np

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo

Quality: TypeAlias = Literal["MQ", "HQ", "VHQ"]
ResamplerItem: TypeAlias = Block | Gap | Anchor | StreamInfo


def scaled(sample: int, in_rate: int, out_rate: int) -> int:
    """Return the output sample nearest to an input sample, halves rounded up."""
    return (2 * sample * out_rate + in_rate) // (2 * in_rate)


@lru_cache(maxsize=32)
def _held(in_rate: int, out_rate: int, quality: Quality) -> int:
    """Measure the largest number of output samples that the filter holds back.

    libsoxr emits samples in bursts and does not document its delay: silence is fed in
    small pieces until the bursts repeat.
    """
    stream = _soxr_stream(in_rate, out_rate, 1, quality)
    piece = np.zeros((64, 1), np.float32)
    fed = emitted = bursts = held = 0
    while bursts < 12:
        fed += len(piece)
        held = max(held, -(-fed * out_rate // in_rate) - emitted)
        count = len(stream.resample_chunk(piece))
        emitted += count
        bursts += count > 0
    return held


def _soxr_stream(in_rate: int, out_rate: int, channels: int, quality: Quality) -> Any:
    import soxr

    return soxr.ResampleStream(
        in_rate, out_rate, channels, dtype="float32", quality=quality
    )


class Resampler:
    """Converter of a stream from one sample rate to another.

    Parameters
    ----------
    in_rate, out_rate : int
        Rates in Hz. Equal rates are allowed: items then pass unchanged.
    channels : int
        Channels of the blocks.
    quality : {'MQ', 'HQ', 'VHQ'}
        Recipes of libsoxr, for 16, 20 and 28 bit.

    Attributes
    ----------
    latency : int
        Largest number of output samples that the filter holds back.
    """

    def __init__(
        self, in_rate: int, out_rate: int, channels: int = 1, quality: Quality = "HQ"
    ) -> None:
        if min(in_rate, out_rate, channels) < 1:
            raise ValueError("rates and channels are positive integers")
        self.out_rate = out_rate
        self.quality: Quality = quality
        self._configure(in_rate, channels)

    def _configure(self, in_rate: int, channels: int) -> None:
        self.in_rate = in_rate
        self.channels = channels
        same = in_rate == self.out_rate
        self.latency = 0 if same else _held(in_rate, self.out_rate, self.quality)
        self._stream = (
            None
            if same
            else _soxr_stream(in_rate, self.out_rate, channels, self.quality)
        )
        # Input samples after which both grids coincide again.
        self._period = in_rate // gcd(in_rate, self.out_rate)
        self.reset()

    def process(self, item: ResamplerItem) -> Iterator[ResamplerItem]:
        """Convert one item.

        A gap flushes the filter and is converted to output samples. A `StreamInfo`
        flushes it and starts a new stream at its own input rate.

        Raises
        ------
        ValueError
            A block does not start where the one before stopped.
        """
        match item:
            case StreamInfo():
                yield from self.flush()
                self._configure(item.sample_rate, item.channels)
                yield replace(item, sample_rate=self.out_rate)
            case _ if self._stream is None:
                yield item
            case Block():
                yield from self._convert(item)
            case Gap():
                yield from self.flush()
                yield Gap(
                    self._scaled(item.start), self._scaled(item.stop), item.reason
                )
            case Anchor():
                yield self._anchor(item)

    def flush(self) -> Iterator[Block]:
        """Return the samples that the filter still holds, and end the run."""
        if self._stop is None or self._stream is None:
            return
        # At least one output sample more than needed; the result is cut to length.
        tail = np.zeros((self.in_rate // self.out_rate + 2, self.channels), np.float32)
        samples = self._stream.resample_chunk(tail, last=True)
        end = self._scaled(self._stop)
        arrived_ns = self._arrived_ns
        block = self._emit(samples, end, arrived_ns)
        self.reset()
        if block is not None:
            yield block

    def reset(self) -> None:
        """Drop the samples in the filter; the next block may start anywhere."""
        if self._stream is not None:
            self._stream.clear()
        self._stop: int | None = None
        self._next = 0
        self._skip = 0
        self._arrived_ns = 0

    def _convert(self, block: Block) -> Iterator[Block]:
        if self._stop is None:
            samples = self._begin(block)
        elif self._stop != block.start:
            raise ValueError(
                f"block starts at {block.start}, expected {self._stop}: a source "
                "must declare missing samples as a Gap"
            )
        else:
            samples = block.samples
        self._stop = block.stop
        self._arrived_ns = block.arrived_ns
        assert self._stream is not None
        converted = self._stream.resample_chunk(np.ascontiguousarray(samples))
        out = self._emit(converted, None, block.arrived_ns)
        if out is not None:
            yield out

    def _begin(self, block: Block) -> Any:
        """Return the first samples of a run, after zeros from where the grids coincide.

        Without the zeros a run that starts between two output samples would be shifted
        by that fraction. The filter assumes zeros before its first sample, so they
        change no output sample.
        """
        lead = block.start % self._period
        self._next = self._scaled(block.start)
        self._skip = self._next - (block.start - lead) * self.out_rate // self.in_rate
        if not lead:
            return block.samples
        zeros = np.zeros((lead, self.channels), np.float32)
        return np.concatenate([zeros, block.samples])

    def _emit(self, samples: Any, end: int | None, arrived_ns: int) -> Block | None:
        """Return converted samples as a block, without lead-in and tail."""
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        samples = samples[skipped:]
        if end is not None:
            samples = samples[: end - self._next]
        if not len(samples):
            return None
        start, self._next = self._next, self._next + len(samples)
        return Block(start, samples, arrived_ns)

    def _scaled(self, sample: int) -> int:
        return scaled(sample, self.in_rate, self.out_rate)

    def _anchor(self, anchor: Anchor) -> Anchor:
        """Move an anchor to the nearest output sample, and its time accordingly."""
        sample = self._scaled(anchor.sample)
        ahead = sample * self.in_rate - anchor.sample * self.out_rate
        shift_ns = ahead * NS // (self.in_rate * self.out_rate)
        return Anchor(sample, anchor.utc_ns + shift_ns)
