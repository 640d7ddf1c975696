"""Segmenters of several channels, called only where something happens."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Mark, Segmenter

Float64 = NDArray[np.float64]
_NEVER = -1


class SteadyChannels:
    """Segmenters of several channels: those in which nothing changes are not called.

    A segmenter that is idle learns from low scores, and one with a segment that goes on
    from high scores, nothing but how far they reached. It is told so when it is called
    again.

    Parameters
    ----------
    segmenters : sequence of Segmenter
        One for each channel, with the same grid.

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
        self._least = np.zeros(n)  # score that matters while it is idle
        self._off = np.zeros(n)
        for channel in range(n):
            self._look_at(channel)
        # Up to where it has not been told the scores, and the largest of them.
        self._untold = np.full(n, _NEVER)
        self._loudest = np.full(n, -np.inf)

    def add(
        self, scores: Sequence[tuple[int, Float64]], apart: NDArray[np.bool_]
    ) -> None:
        """Find the active channels of scores ``(first, float64[n_channels, n])``.

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
        lows, highs = [], []
        for _, rows in scores:
            # Of scores that are not numbers none is high, and none matters.
            lows.append(np.fmin.reduce(rows, axis=1))
            highs.append(np.fmax.reduce(rows, axis=1))
        low, high = np.minimum.reduce(lows), np.maximum.reduce(highs)
        is_quiet = self._is_idle & ~(high >= self._least)
        sounds = (low >= self._off) & (end < self._sounds_until)
        active = apart | ~(is_quiet | sounds)
        self.active = active.nonzero()[0].tolist()
        np.copyto(self._untold, end, where=~active)
        np.maximum(self._loudest, high, out=self._loudest, where=~active)

    def process(
        self, channel: int, scores: Iterable[tuple[int, Float64]]
    ) -> list[Mark]:
        """Return the marks of an active channel from its scores."""
        segmenter = self._segmenters[channel]
        self._tell(channel)
        marks: list[Mark] = []
        for first, part in scores:
            marks += segmenter.process(first, part)
        self._look_at(channel)
        return marks

    def release(self) -> None:
        """Tell each segmenter what it has not been told."""
        for channel in (self._untold != _NEVER).nonzero()[0]:
            self._tell(int(channel))

    def _look_at(self, channel: int) -> None:
        segmenter = self._segmenters[channel]
        self._is_idle[channel] = segmenter.is_idle
        self._sounds_until[channel] = segmenter.sounds_until
        self._least[channel] = segmenter.least_score
        self._off[channel] = segmenter.rules.off

    def _tell(self, channel: int) -> None:
        until = int(self._untold[channel])
        if until == _NEVER:
            return
        if self._is_idle[channel]:
            self._segmenters[channel].skip_silence(until)
        else:
            loudest = float(self._loudest[channel])
            self._segmenters[channel].skip_sound(until, loudest)
        self._untold[channel] = _NEVER
        self._loudest[channel] = -np.inf
