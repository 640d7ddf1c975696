"""Samples that are no numbers: values between their neighbours, or gaps."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.clock import to_samples
from neurovocal.engine.contracts.types import (
    GAP_NOT_A_NUMBER,
    Block,
    Float32,
    Gap,
)

# Less than what detectors fill by default.
_LONGEST_INTERPOLATED_MS = 5.0


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
    if _are_finite(samples):
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


class ShortRuns:
    """Interpolates short runs of samples that are no numbers, in one recording.

    A few damaged values would cut a sound in two. A run of up to 5 ms is therefore
    given values on lines between its neighbours; a longer one, and one at either end of
    the recording, is left for `finite_items`. The result depends on the samples alone,
    not on how they are divided into calls.

    Parameters
    ----------
    sample_rate : int
        Hz.
    channels : sequence of int
        Numbers of the columns, for `sentence`; empty if they are mixed.
    """

    def __init__(self, sample_rate: int, channels: Sequence[int]) -> None:
        self._sample_rate = sample_rate
        self._channels = channels
        self._longest = to_samples(_LONGEST_INTERPOLATED_MS, sample_rate)
        self._before: Float32 | None = None  # the last row that was returned, if good
        self._held: Float32 | None = None  # a run that may go on
        self._position = 0  # of the next row to be returned
        self._first: int | None = None
        self._n_interpolated = self._n_left = 0
        self._columns: set[int] = set()  # that have such samples

    def process(self, samples: Float32) -> Float32:
        """Return float32[n_samples, n_channels]; a run at the end waits for its end."""
        if self._held is not None:
            samples, self._held = np.concatenate([self._held, samples]), None
        elif _are_finite(samples):
            return self._passed(samples)
        return self._passed(self._interpolated(samples, at_end=False))

    def flush(self) -> Float32 | None:
        """Return the samples that waited, at the end of the recording; None without."""
        if self._held is None:
            return None
        samples, self._held = self._held, None
        return self._passed(self._interpolated(samples, at_end=True))

    @property
    def sentence(self) -> str | None:
        """What was found, to follow a recording's name; None if all are numbers."""
        if self._first is None:
            return None
        place = f"the first at {self._first / self._sample_rate:.3f} s"
        count, where, left = self._n_interpolated + self._n_left, "", "left as gaps"
        if len(self._columns) == 1 < len(self._channels):
            number = self._channels[next(iter(self._columns))]
            where = f" of channel {number}"
            left += f" in all channels, unless channel {number} is not used"
        done = "interpolated between their neighbours"
        if self._n_interpolated and self._n_left:
            done = f"{self._n_interpolated} {done}, {self._n_left} {left}"
        elif self._n_left:
            done = left
        return f"{count} samples{where} are no numbers, {place}: {done}"

    def _interpolated(self, samples: Float32, *, at_end: bool) -> Float32:
        """Return samples with interpolated runs, less a run that may go on."""
        bad = ~np.isfinite(samples)
        is_bad: NDArray[np.bool_] = np.any(bad, axis=1)
        samples = samples.copy()
        for first, stop in _runs(is_bad):
            before = self._before if first == 0 else samples[first - 1]
            is_short = before is not None and stop - first <= self._longest
            if is_short and stop == len(samples) and not at_end:
                self._held = samples[first:]
                return samples[:first]
            self._columns.update(np.flatnonzero(bad[first:stop].any(axis=0)).tolist())
            if self._first is None:
                self._first = self._position + first
            if before is None or not is_short or stop == len(samples):
                self._n_left += stop - first
                continue
            self._n_interpolated += stop - first
            around = np.concatenate([before[None], samples[first : stop + 1]])
            for column in around.T:
                good = np.isfinite(column)
                known, unknown = np.flatnonzero(good), np.flatnonzero(~good)
                column[unknown] = np.interp(unknown, known, column[known])
            samples[first:stop] = around[1:-1]
        return samples

    def _passed(self, samples: Float32) -> Float32:
        """Keep what is needed of samples that are returned."""
        self._position += len(samples)
        if len(samples):
            last = samples[-1]
            self._before = last.copy() if np.isfinite(last).all() else None
        return samples


def _are_finite(samples: Float32) -> bool:
    # One pass without a temporary: a NaN or an infinity always survives in a
    # sum of squares. One that overflows only costs the slow path.
    with np.errstate(all="ignore"):
        flat = samples.ravel()
        return bool(np.isfinite(np.dot(flat, flat)))


def _runs(is_in: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and stop of each run of True."""
    edges = np.flatnonzero(np.diff(is_in, prepend=False, append=False))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
