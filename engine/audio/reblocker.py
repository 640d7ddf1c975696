"""Cutting a stream of blocks anew, on a grid that belongs to the stream."""

from collections.abc import Iterator

import numpy as np

from neurovocal.engine.contracts.types import Block


class Reblocker:
    """Turns blocks of any length into blocks ``[i * length, (i + 1) * length)``.

    Everything behind it sees the same blocks however the source cut them: this
    is where the engine's chunk invariance comes from. After a discontinuity the
    first block is short, so that the grid stays the stream's own.

    Parameters
    ----------
    length : int
        Samples per block.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._parts: list[Block] = []
        self._start = 0
        self._stop = 0

    def push(self, block: Block) -> Iterator[Block]:
        """Blocks that `block` completes; views of it where it spans them whole.

        Raises
        ------
        ValueError
            `block` does not start where the one before stopped.
        """
        if self._stop == self._start:
            self._start = self._stop = block.start
        if block.start != self._stop:
            raise ValueError(
                f"block starts at {block.start}, expected {self._stop}: a source "
                "must declare missing samples as a Gap"
            )
        taken = 0
        n_samples = len(block.samples)
        while taken < n_samples:
            edge = (self._start // self.length + 1) * self.length
            count = min(edge - self._stop, n_samples - taken)
            part = block.samples[taken : taken + count]
            self._parts.append(Block(self._stop, part, block.arrived_ns))
            taken += count
            self._stop += count
            if self._stop == edge:
                yield from self.flush()
        # The source may reuse its array: what waits here must be ours.
        if self._parts and self._parts[-1].samples.base is not None:
            last = self._parts[-1]
            self._parts[-1] = Block(last.start, last.samples.copy(), last.arrived_ns)

    def flush(self) -> Iterator[Block]:
        """The unfinished block, if any; the next push may start anywhere."""
        if self._parts:
            last = self._parts[-1]
            joined = (
                last.samples
                if len(self._parts) == 1
                else np.concatenate([part.samples for part in self._parts])
            )
            start, self._parts = self._start, []
            self._start = self._stop
            yield Block(start, joined, last.arrived_ns)
