"""Parts of sources: selection of channels, gaps for non-finite samples, pacing."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.types import (
    GAP_NOT_A_NUMBER,
    Block,
    Float32,
    Gap,
)


class Channels:
    """Selection of the columns of a block, which may be averaged.

    Parameters
    ----------
    numbers : sequence of int
        Channels, counted from 1, in the order of the output.
    mix : bool
        Whether to average them to one channel.
    """

    def __init__(self, numbers: Sequence[int], mix: bool = False) -> None:
        self._columns = [number - 1 for number in numbers]
        self._mix = mix and len(numbers) > 1
        self.count = 1 if mix else len(numbers)
        self.numbers = () if self._mix else tuple(numbers)

    def pick(self, samples: Float32) -> Float32:
        """Select columns of float32[n_samples, n_channels]; may return a view."""
        columns = self._columns
        if self._mix:
            # Column by column: the order of additions, and so the last bit of the
            # sum, must not depend on the length of the block.
            total = samples[:, columns[0]].copy()
            for column in columns[1:]:
                total += samples[:, column]
            total /= np.float32(len(columns))
            return total[:, None]
        if columns == list(range(samples.shape[1])):
            return samples
        if len(columns) == 1:
            return samples[:, columns[0] : columns[0] + 1]
        return samples[:, columns]


def channels_problem(numbers: Sequence[int]) -> str | None:
    """Return a sentence if no device can have these channel numbers, else None."""
    if not numbers:
        return "channels: name at least one channel, counted from 1"
    if min(numbers) < 1:
        return f"channels: {min(numbers)} is no channel, they are counted from 1"
    if len(set(numbers)) < len(numbers):
        return f"channels: {list(numbers)} names a channel twice"
    return None


def finite_items(
    start: int, samples: Float32, arrived_ns: int = 0
) -> Iterator[Block | Gap]:
    """Split samples into blocks of finite values and gaps for the others.

    Parameters
    ----------
    start : int
        Stream index of the first sample.
    samples : float32[n_samples, n_channels]
        A sample becomes part of a gap if any of its channels is NaN or infinite.
    arrived_ns : int
        Arrival time of the blocks.
    """
    # One pass without a temporary: a NaN or an infinity always survives in a
    # sum of squares. One that overflows only costs the slow path below.
    with np.errstate(all="ignore"):
        flat = samples.ravel()
        total = np.dot(flat, flat)
    if np.isfinite(total):
        yield Block(start, samples, arrived_ns)
        return
    good: NDArray[np.bool_] = np.all(np.isfinite(samples), axis=1)
    edges = [0, *(np.flatnonzero(np.diff(good)) + 1).tolist(), len(good)]
    for first, stop in pairwise(edges):
        if good[first]:
            yield Block(start + first, samples[first:stop], arrived_ns)
        else:
            yield Gap(start + first, start + stop, GAP_NOT_A_NUMBER)


class JoinedGaps:
    """Joins gaps of samples that are no numbers, however the blocks are cut.

    Parameters
    ----------
    longest : int
        Samples after which a gap is passed on although it goes on.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._gap: Gap | None = None

    def process(self, items: Iterable[Block | Gap]) -> Iterator[Block | Gap]:
        """Yield items; a gap is held until it has ended or is long."""
        for item in items:
            if isinstance(item, Gap) and item.reason == GAP_NOT_A_NUMBER:
                start = item.start if self._gap is None else self._gap.start
                while item.stop - start >= self._longest:
                    yield Gap(start, start + self._longest, GAP_NOT_A_NUMBER)
                    start += self._longest
                rest = Gap(start, item.stop, GAP_NOT_A_NUMBER)
                self._gap = rest if start < item.stop else None
                continue
            yield from self.flush()
            yield item

    def flush(self) -> Iterator[Gap]:
        """Yield the gap that is held."""
        if self._gap is not None:
            gap, self._gap = self._gap, None
            yield gap


class Pacer:
    """Pace of a source: samples are due in real time, or at once.

    Parameters
    ----------
    clock : Clock
        Source of the monotonic time.
    sample_rate : int
        Hz.
    realtime : bool
        False: all samples are due at once, and `due_ns` returns 0.
    """

    def __init__(self, clock: Clock, sample_rate: int, realtime: bool) -> None:
        self._clock = clock
        self._sample_rate = sample_rate
        self._realtime = realtime
        self._position = 0
        self._at_ns: int | None = None

    def due_ns(self, position: int) -> int:
        """Return the monotonic time at which samples up to `position` are due."""
        if not self._realtime:
            return 0
        if self._at_ns is None:
            self._at_ns = self._clock.monotonic_ns()
        ahead = (position - self._position) * NS // self._sample_rate
        return self._at_ns + ahead

    def wait(self, position: int, timeout: float) -> bool:
        """Wait until samples up to `position` are due; False after `timeout` s."""
        if not self._realtime:
            return True
        return self._clock.wait_until(self.due_ns(position), timeout)

    def next_stream(self, position: int, sample_rate: int) -> None:
        """Start the next stream without a pause after `position` of this one."""
        self._at_ns = self.due_ns(position) if self._realtime else None
        self._position, self._sample_rate = 0, sample_rate
