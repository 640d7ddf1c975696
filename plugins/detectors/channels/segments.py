"""Segmenters of several channels, called only where a mark may be due."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Mark, Segmenter

Float64 = NDArray[np.float64]
Scores = Sequence[tuple[int, Float64]]  # first hop, float64[n_channels, n_hops]
_NEVER = -1
_MOST_KEPT = 64  # calls whose scores wait


class ChannelSegments:
    """Segmenters of several channels: those without a mark to come are not called.

    A segmenter that is idle learns from low scores, and one with a segment that goes on
    from high scores, nothing but how far they reached. Otherwise there is a time before
    which it has no mark, whatever the scores are: until then they are kept. It gets all
    of this when it is called again.

    Parameters
    ----------
    segmenters : sequence of Segmenter
        One for each channel, with the same grid and rules.

    Attributes
    ----------
    active : list of int
        Channels that are to be processed.
    """

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        self._segmenters = list(segmenters)
        n = len(segmenters)
        self.active: list[int] = []
        self._is_idle = np.zeros(n, np.bool_)
        self._sounds_until = np.zeros(n)
        self._earliest = np.zeros(n)  # no mark up to this sample
        rules = segmenters[0].rules
        self._off, self._least = rules.off, segmenters[0].least_score
        self._confirm = 0 if rules.early else rules.min_duration
        self._gap_fill = max(rules.gap_fill, 1)
        self._has_near = rules.near is not None
        # Up to where a segmenter has not been told of steady scores, and their largest.
        self._untold = np.full(n, _NEVER)
        self._loudest = np.full(n, -np.inf)
        # Scores that wait, of calls that are numbered, and a channel's first of them.
        self._kept: list[Scores] = []
        self._n_calls = 0
        self._kept_from = np.full(n, _NEVER)
        for channel in range(n):
            self._look_at(channel)

    def add(self, scores: Scores, apart: NDArray[np.bool_]) -> None:
        """Find the active channels of scores ``(first, float64[n_channels, n_hops])``.

        Parameters
        ----------
        scores : sequence
            In order, without holes.
        apart : bool[n_channels]
            Channels that are active whatever their scores are.
        """
        if not scores:
            self.active = apart.nonzero()[0].tolist()
            return
        first, rows = scores[-1]
        end = self._segmenters[0].sample_of(first + rows.shape[1])
        # Of scores that are not numbers none is high, and none matters.
        low = np.minimum.reduce([np.minimum.reduce(x, axis=1) for _, x in scores])
        high = np.maximum.reduce([np.fmax.reduce(x, axis=1) for _, x in scores])
        sounds = (low >= self._off) & (end < self._sounds_until)
        steady = sounds | (self._is_idle & ~(high >= self._least))
        steady &= (self._kept_from == _NEVER) & ~apart
        np.copyto(self._untold, end, where=steady)
        np.maximum(self._loudest, high, out=self._loudest, where=steady)
        if not self._has_near:
            after = np.where(self._is_idle, self._confirm, self._gap_fill)
            np.copyto(self._earliest, end + after, where=steady)
            np.minimum(
                self._earliest,
                self._sounds_until,
                out=self._earliest,
                where=steady & ~self._is_idle,
            )
        waits = ~steady & ~apart & (end < self._earliest)
        if len(self._kept) >= _MOST_KEPT:
            waits[:] = False
        self.active = (~(steady | waits)).nonzero()[0].tolist()
        self._keep(scores, waits)

    def process(
        self, channel: int, scores: Iterable[tuple[int, Float64]]
    ) -> list[Mark]:
        """Return the marks of an active channel from its scores.

        Parameters
        ----------
        channel : int
            The channel.
        scores : iterable
            Those of the last call of `add`, ``(first, float64[n_hops])``.
        """
        segmenter = self._segmenters[channel]
        self._catch_up(channel, self._n_calls - 1)
        marks: list[Mark] = []
        for first, part in scores:
            marks += segmenter.process(first, part)
        self._look_at(channel)
        return marks

    def release(self) -> None:
        """Tell each segmenter what it has not been told."""
        active = frozenset(self.active)
        for channel in range(len(self._segmenters)):
            # An active channel may still be given its last scores.
            until = self._n_calls - (channel in active)
            self._catch_up(channel, until)

    def _keep(self, scores: Scores, waits: NDArray[np.bool_]) -> None:
        """Keep the scores as long as a channel waits for its next mark."""
        begins = waits & (self._kept_from == _NEVER)
        np.copyto(self._kept_from, self._n_calls, where=begins)
        self._n_calls += 1
        self._kept.append(scores)
        waits_since = self._kept_from[self._kept_from != _NEVER]
        needed_from = waits_since.min(initial=self._n_calls)
        del self._kept[: needed_from - (self._n_calls - len(self._kept))]

    def _catch_up(self, channel: int, until: int) -> None:
        """Give a segmenter what it has not been told, before call number `until`."""
        segmenter = self._segmenters[channel]
        untold, kept_from = int(self._untold[channel]), int(self._kept_from[channel])
        if untold != _NEVER:
            if self._is_idle[channel]:
                segmenter.skip_silence(untold)
            else:
                segmenter.skip_sound(untold, float(self._loudest[channel]))
            self._untold[channel], self._loudest[channel] = _NEVER, -np.inf
        if kept_from != _NEVER:
            first_kept = self._n_calls - len(self._kept)
            for scores in self._kept[kept_from - first_kept : until - first_kept]:
                for first, rows in scores:
                    segmenter.process(first, rows[channel])
            self._kept_from[channel] = _NEVER

    def _look_at(self, channel: int) -> None:
        segmenter = self._segmenters[channel]
        self._is_idle[channel] = segmenter.is_idle
        self._sounds_until[channel] = segmenter.sounds_until
        self._earliest[channel] = segmenter.earliest_mark
