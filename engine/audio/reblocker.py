"""Reblocker: cuts a stream of blocks of any length into blocks on a fixed grid."""

from collections.abc import Sequence

import numpy as np

from neurovocal.engine.contracts.types import Block, Float32


class Reblocker:
    """Turns blocks of any length into blocks ``[i * length, (i + 1) * length)``.

    All later stages get the same blocks whatever the source's block lengths are:
    results do not depend on them. After a discontinuity the first block is short, so
    that the grid stays that of the stream.

    Parameters
    ----------
    length : int
        Samples per block.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._start = 0  # stream index of the unfinished block
        self._stop = 0  # and where the next sample goes
        self._edge = 0  # where the unfinished block will end
        self._samples: Float32 = np.empty((0, 1), np.float32)
        self._arrived_ns = 0

    def push(self, block: Block) -> list[Block]:
        """Return the blocks that `block` completes.

        Those that lie whole within `block` are views of its samples; all others are
        copies, because a source may reuse its array.

        Raises
        ------
        ValueError
            `block` does not start where the one before stopped.
        """
        samples, start = block.samples, block.start
        stop = start + len(samples)
        if self._stop == self._start:
            self._begin(start)
        if start != self._stop:
            raise ValueError(
                f"block starts at {start}, expected {self._stop}: a source "
                "must declare missing samples as a Gap"
            )
        if stop == self._edge and start == self._start:
            self._start = self._stop = stop
            self._edge = stop + self.length
            return [block]
        complete = []
        while self._edge <= stop:
            first, edge = self._start, self._edge
            if first >= start:
                whole = samples[first - start : edge - start]
            else:
                whole = self._samples
                whole[self._stop - first :] = samples[: edge - start]
            complete.append(Block(first, whole, block.arrived_ns))
            self._start = self._stop = edge
            self._edge = edge + self.length
        if self._stop < stop:
            if self._stop == self._start:
                shape = (self._edge - self._start, *samples.shape[1:])
                self._samples = np.empty(shape, samples.dtype)
            at = self._stop - self._start
            rest = samples[self._stop - start :]
            self._samples[at : at + len(rest)] = rest
            self._stop = stop
            self._arrived_ns = block.arrived_ns
        return complete

    def flush(self) -> list[Block]:
        """Return the unfinished block, if any; the next push may start anywhere."""
        if self._stop == self._start:
            return []
        samples = self._samples[: self._stop - self._start]
        rest = Block(self._start, samples, self._arrived_ns)
        self._start = self._stop
        return [rest]

    def is_like(self, other: "Reblocker") -> bool:
        """Return whether both hold the samples of the same stretch of a stream."""
        if self._stop == self._start:
            return other._stop == other._start
        return (self._start, self._stop, self._edge) == (
            other._start,
            other._stop,
            other._edge,
        )

    def joined(self, parts: "Sequence[Reblocker]") -> "Reblocker":
        """Return one for all channels of `parts`, which are alike, side by side."""
        joined = Reblocker(self.length)
        if self._stop != self._start:
            joined._start, joined._stop = self._start, self._stop
            joined._edge, joined._arrived_ns = self._edge, self._arrived_ns
            joined._samples = np.concatenate([each._samples for each in parts], axis=1)
        return joined

    def divide(self, parts: "Sequence[Reblocker]") -> None:
        """Give each of `parts`, one for each channel, the samples of its channel."""
        for channel, part in enumerate(parts):
            part._start, part._stop = self._start, self._stop
            part._edge, part._arrived_ns = self._edge, self._arrived_ns
            if self._stop != self._start:
                part._samples = self._samples[:, channel : channel + 1].copy()

    def _begin(self, start: int) -> None:
        self._start = self._stop = start
        self._edge = (start // self.length + 1) * self.length
