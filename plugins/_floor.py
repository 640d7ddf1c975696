"""The level of the background: a low quantile of the levels heard lately."""

import math

import numpy as np
from numpy.typing import NDArray

LOWEST_DB, HIGHEST_DB, STEP_DB = -140.0, 10.0, 0.25


class NoiseFloor:
    """Running quantile of levels under exponential forgetting.

    A vocalizing animal raises the mean level but leaves gaps between sounds, and
    a low quantile stays in them. It falls as soon as `quantile` of the memory is
    quieter and rises only when all but that share is louder.

    Parameters
    ----------
    quantile : float
        Share of the remembered levels that lies below the floor.
    memory : float
        Time constant of forgetting, in levels.
    least : float
        The floor never falls below this power.

    Notes
    -----
    A histogram in steps of 0.25 dB, interpolated; cost and memory do not depend
    on `memory`.
    """

    def __init__(self, quantile: float, memory: float, least: float) -> None:
        self._quantile = quantile
        self._memory = memory
        self._least = least
        n_bins = round((HIGHEST_DB - LOWEST_DB) / STEP_DB)
        self._edges = 10.0 ** ((LOWEST_DB + STEP_DB * np.arange(1, n_bins)) / 10)
        self._n_bins = n_bins
        self.reset()

    def reset(self) -> None:
        """Forget every level."""
        self._counts = np.zeros(self._n_bins)
        self.value = self._least

    def learn(self, levels: NDArray[np.float64]) -> None:
        """Take levels (mean squares, float64[n]) into account.

        What is remembered depends on how levels are grouped into calls: call it
        on a grid of the stream.
        """
        if len(levels) == 0:
            return
        bins = np.searchsorted(self._edges, levels, side="right")
        self._counts *= math.exp(-len(levels) / self._memory)
        self._counts += np.bincount(bins, minlength=self._n_bins)
        below = np.cumsum(self._counts)
        wanted = self._quantile * float(below[-1])
        found = int(np.searchsorted(below, wanted, side="left"))
        before = float(below[found - 1]) if found else 0.0
        share = (wanted - before) / float(self._counts[found])
        level_db = LOWEST_DB + STEP_DB * (found + share)
        self.value = max(10.0 ** (level_db / 10), self._least)
