"""Running noise floors: one low quantile of recent levels for each of many bands."""

import math

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32

LOWEST_DB, HIGHEST_DB, STEP_DB = -140.0, 20.0, 1.0
_N_CELLS = round((HIGHEST_DB - LOWEST_DB) / STEP_DB)
_TINY = 1e-9


class BandFloors:
    """Quantile of the recent levels of each band, with exponential forgetting.

    The floor of a band falls as soon as `quantile` of what is remembered is quieter and
    rises only when all but that share is louder, so that calls with pauses between
    them do not raise it.

    Parameters
    ----------
    n_bands : int
        Number of bands.
    quantile : float
        Share of the remembered levels that lies below the floor.
    memory : float
        Time constant of forgetting, in hops.

    Notes
    -----
    One histogram of levels per band, in steps of 1 dB, interpolated. Cost and memory
    do not depend on `memory`.
    """

    def __init__(self, n_bands: int, quantile: float, memory: float) -> None:
        self._quantile = quantile
        self._memory = memory
        self._counts = np.zeros((n_bands, _N_CELLS))
        self._rows = np.arange(n_bands)
        self._offsets = self._rows * _N_CELLS

    def reset(self) -> None:
        """Forget all levels."""
        self._counts[:] = 0

    def seed(self, floor_db: NDArray[np.float64], weight: float) -> None:
        """Add `weight` hops at the level `floor_db` (dB, float64[n_bands])."""
        cells = np.floor((floor_db - LOWEST_DB) / STEP_DB).astype(np.intp)
        self._counts[self._rows, np.clip(cells, 0, _N_CELLS - 1)] += weight

    def update(self, levels: Float32) -> None:
        """Add levels (dB, float32[n_hops, n_bands]) to the histograms.

        The forgetting depends on how levels are grouped into calls: call it on a grid
        of the stream.
        """
        cells = np.clip(levels, LOWEST_DB, HIGHEST_DB - STEP_DB)
        cells = ((cells - LOWEST_DB) / STEP_DB).astype(np.intp)
        cells += self._offsets
        self._counts *= math.exp(-len(levels) / self._memory)
        added = np.bincount(cells.ravel(), minlength=self._counts.size)
        self._counts += added.reshape(self._counts.shape)

    def values(self) -> NDArray[np.float64]:
        """Return the floor of each band in dB, float64[n_bands].

        `seed` or `update` must have been called before.
        """
        below = self._counts.cumsum(axis=1)
        wanted = self._quantile * below[:, -1]
        found = np.minimum((below < wanted[:, None]).sum(axis=1), _N_CELLS - 1)
        inside = self._counts[self._rows, found]
        before = below[self._rows, found] - inside
        share = np.clip((wanted - before) / np.maximum(inside, _TINY), 0.0, 1.0)
        floors: NDArray[np.float64] = LOWEST_DB + STEP_DB * (found + share)
        return floors
