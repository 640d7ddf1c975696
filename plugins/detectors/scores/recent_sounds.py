"""Rules of segments that follow the sounds that were lately found."""

from collections import deque
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import SegmenterRules

_MOST_SOUNDS = 60


class RecentSounds:
    """Thresholds and durations from the loudness and length of recent segments.

    The threshold is half the 90 % quantile of their peaks, within `on` and `most_on`.
    The shortest duration is 0.3 of the typical duration, the longest pause that is
    filled 0.1 of the median duration, both between those of `rules` and upper limits.
    Long and loud segments count more, so that a few clicks between calls change little.

    Parameters
    ----------
    rules : SegmenterRules
        For the first sound; lower limits of what follows.
    most_on : float
        Highest threshold, dB.
    most_duration, most_gap : int
        Upper limits of the shortest duration and of the pause, in samples.
    """

    def __init__(
        self, rules: SegmenterRules, most_on: float, most_duration: int, most_gap: int
    ) -> None:
        self._rules = rules
        self._most_on = max(most_on, rules.on)
        self._most_duration = max(most_duration, rules.min_duration)
        self._most_gap = max(most_gap, rules.gap_fill)
        self._sounds: deque[tuple[float, float]] = deque(maxlen=_MOST_SOUNDS)

    @property
    def slowest(self) -> SegmenterRules:
        """The rules that marks may have to wait for longest."""
        return replace(
            self._rules,
            on=self._most_on,
            min_duration=self._most_duration,
            gap_fill=self._most_gap,
        )

    def reset(self) -> None:
        """Forget all sounds."""
        self._sounds.clear()

    def add(self, duration: int, peak: float) -> SegmenterRules:
        """Return the rules after a segment, from its samples and its peak in dB."""
        self._sounds.append((float(duration), peak))
        durations, peaks = np.array(self._sounds).T
        on = 0.5 * _quantile(peaks, durations, 0.9)
        typical = _quantile(durations, durations * peaks, 0.5)
        median = _quantile(durations, np.ones(len(durations)), 0.5)
        least = self._rules
        shortest = _within(0.3 * typical, least.min_duration, self._most_duration)
        return replace(
            least,
            on=min(max(on, least.on), self._most_on),
            min_duration=shortest,
            gap_fill=_within(0.1 * median, least.gap_fill, self._most_gap),
        )


def _within(value: float, least: int, most: int) -> int:
    return min(max(round(value), least), most)


def _quantile(
    values: NDArray[np.float64], weights: NDArray[np.float64], share: float
) -> float:
    """Return the smallest value up to which `share` of the weights lies."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    found = int(np.searchsorted(below, share * below[-1]))
    return float(values[order[min(found, len(order) - 1)]])
