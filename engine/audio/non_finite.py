"""Samples that are no numbers: gaps in their place."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import (
    GAP_NOT_A_NUMBER,
    Block,
    Float32,
    Gap,
)


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
