"""Parts of sources: selection of channels, pacing."""

from collections.abc import Sequence

import numpy as np

from neurovocal.engine.contracts.clock import NS, Clock
from neurovocal.engine.contracts.types import Float32


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

    def begin(self) -> None:
        """Let the first sample be heard now, not when it is first waited for."""
        if self._realtime:
            self._at_ns = self._clock.monotonic_ns()

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
