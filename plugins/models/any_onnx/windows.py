"""Windows of a stream at the rate of a network, on a grid from the stream's start."""

from collections.abc import Iterator

import numpy as np

from neurovocal.engine import Block, Float32, Resampler


class WindowCutter:
    """Resamples blocks and cuts them into windows with the context before them.

    Window ``k`` covers samples ``[k * hop, k * hop + length)`` of the stream at the
    network's rate, also behind a gap; none covers a gap.

    Parameters
    ----------
    in_rate, out_rate : int
        Rates of the stream and of the network in Hz.
    length, hop, context : int
        Samples at the network's rate.

    Attributes
    ----------
    latency : int
        Samples at the stream's rate that the resampler may hold back.
    next : int
        Number of the next window.
    """

    def __init__(
        self, in_rate: int, out_rate: int, length: int, hop: int, context: int
    ) -> None:
        self._resampler = Resampler(in_rate, out_rate)
        self.latency = -(-self._resampler.latency * in_rate // out_rate)
        self._length, self._hop, self._context = length, hop, context
        self.reset()

    def process(self, block: Block) -> Iterator[tuple[int, Float32]]:
        """Yield number and samples, float32[context + length], of complete windows."""
        for part in self._resampler.process(block):
            assert isinstance(part, Block)
            yield from self._push(part)

    def end_run(self) -> Iterator[tuple[int, Float32]]:
        """Yield the windows that the audio before a gap, or the end, completes.

        The last one is filled with silence, so that it covers the rest of the audio;
        it has at least one sample.
        """
        for part in self._resampler.flush():
            yield from self._push(part)
        rest = self._stop - self.next * self._hop
        if self._start is not None and rest > 0:
            yield self.next, self._cut(self.next, min(rest, self._length))
            self.next += 1

    def reset(self) -> None:
        """Drop all samples; the next block may start anywhere."""
        self._resampler.reset()
        self._start: int | None = None  # of the run of audio
        self._kept: Float32 = np.empty(0, np.float32)
        self._first = self._stop = 0  # of the kept samples
        self.next = 0

    def _push(self, part: Block) -> Iterator[tuple[int, Float32]]:
        if self._start is None:
            self._start = self._first = part.start
            self.next = -(-part.start // self._hop)
        self._kept = np.concatenate([self._kept, part.samples[:, 0]])
        self._stop = part.stop
        while self.next * self._hop + self._length <= self._stop:
            yield self.next, self._cut(self.next, self._length)
            self.next += 1
        needed = self.next * self._hop - self._context
        if needed > self._first:
            self._kept = self._kept[needed - self._first :].copy()
            self._first = min(needed, self._stop)

    def _cut(self, number: int, count: int) -> Float32:
        """Return a window whose first `count` samples are known, zeros behind."""
        window = np.zeros(self._context + self._length, np.float32)
        start = number * self._hop
        first = max(start - self._context, self._first)
        known = self._kept[first - self._first : start + count - self._first]
        at = first - (start - self._context)
        window[at : at + len(known)] = known
        return window
