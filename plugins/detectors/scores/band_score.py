"""Score of a hop from the excesses of its bands, with forward masking."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32

Scores: TypeAlias = NDArray[np.float64]
Peaks: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

# 0 dB is the level that steady noise exceeds in so many of the hops.
_NOISE_SHARE = 1e-4
# Lowest score: a band that is masked counts as much as digital silence.
MASKED_DB = -20.0
# Largest excess that is told apart: beyond the range of 32-bit samples.
_HIGHEST_DB = 200.0


class BandScore:
    """Mean of the loudest bands' excess, without echoes and tails of louder sounds.

    Parameters
    ----------
    cells : float64[n_bands]
        Independent values in each band, as in `BandExcess`: the power of few values
        scatters more, and 0 dB is accordingly higher above the mean.
    n_loudest : int
        Number of bands whose mean is the score.
    mask_db, decay_db : float
        A band is masked where it lies more than `mask_db` below its recent peak, which
        decays by `decay_db` per hop.
    broad_mask_db : float
        The same for the score itself, which masks sound in other bands, too.

    Attributes
    ----------
    usual_db : float32[n_bands]
        Excess of each band that is 0 dB in the score.

    Notes
    -----
    A sound of 30 dB is followed by its own echo, 20 dB weaker, in the same bands. Per
    band, a faint note of another pitch right after a loud one is still found.
    """

    def __init__(
        self,
        cells: NDArray[np.float64],
        n_loudest: int,
        mask_db: float,
        decay_db: float,
        broad_mask_db: float,
    ) -> None:
        from scipy.special import chdtri  # slow to import

        degrees = 2 * cells
        usual = 10 * np.log10(chdtri(degrees, _NOISE_SHARE) / degrees)
        self.usual_db = usual.astype(np.float32)
        self._n_loudest = n_loudest
        self._mask_db, self._decay_db = mask_db, decay_db
        self._broad_mask_db = broad_mask_db
        self.reset()

    def reset(self) -> None:
        """Forget earlier peaks."""
        # Peaks with the decay taken out, so that a later hop only needs the largest.
        self._peaks = np.full(len(self.usual_db), -np.inf)
        self._broad_peak = -np.inf

    def push(self, first: int, excess: Float32) -> NDArray[np.float64]:
        """Return the scores of hops ``first, first + 1, ...`` in dB, float64[n_hops].

        Parameters
        ----------
        first : int
            Index of the first hop; calls must follow each other without holes.
        excess : float32[n_hops, n_bands]
            Level of each band over the mean of its noise, in dB.
        """
        if len(excess) == 0:
            return np.empty(0)
        peaks = self._peaks[None], np.array([self._broad_peak])
        scores, peaks = self.scored(first, excess[None], peaks)
        self._peaks, self._broad_peak = peaks[0][0], float(peaks[1][0])
        row: Scores = scores[0]
        return row

    @property
    def peaks(self) -> tuple[NDArray[np.float64], float]:
        """Peaks that mask what follows: of each band, float64[n_bands], and of all."""
        return self._peaks, self._broad_peak

    @peaks.setter
    def peaks(self, peaks: tuple[NDArray[np.float64], float]) -> None:
        """Go on from the peaks of another object."""
        self._peaks, self._broad_peak = peaks

    def scored(self, first: int, excess: Float32, peaks: Peaks) -> tuple[Scores, Peaks]:
        """Return the scores of several channels, and their peaks afterwards.

        Parameters
        ----------
        first : int
            Index of the first hop.
        excess : float32[n_channels, n_hops, n_bands]
            As in `push`; at least one hop.
        peaks : float64[n_channels, n_bands], float64[n_channels]
            Peaks before the first hop, which are not changed.

        Returns
        -------
        scores : float64[n_channels, n_hops]
        peaks : float64[n_channels, n_bands], float64[n_channels]
        """
        levels = excess - self.usual_db
        n_channels, n_hops, n_bands = levels.shape
        hops = np.arange(first, first + n_hops, dtype=np.float64)
        hops *= self._decay_db
        decayed = hops[:, None]
        masking = levels + decayed
        np.maximum(masking[:, 0], peaks[0], out=masking[:, 0])
        np.maximum.accumulate(masking, axis=1, out=masking)
        of_bands = masking[:, -1].copy()
        masking -= decayed
        masking -= self._mask_db
        levels[levels < masking] = MASKED_DB
        loudest = _loudest_mean(levels.reshape(-1, n_bands), self._n_loudest)
        scores = loudest.reshape(n_channels, n_hops)
        # A score is masked, too, where it follows a louder one too closely.
        masking = scores + hops
        np.maximum(masking[:, 0], peaks[1], out=masking[:, 0])
        np.maximum.accumulate(masking, axis=1, out=masking)
        of_scores = masking[:, -1].copy()
        masking -= hops
        masking -= self._broad_mask_db
        scores[scores < masking] = MASKED_DB
        return scores, (of_bands, of_scores)


def _loudest_mean(levels: Float32, count: int) -> NDArray[np.float64]:
    """Return the mean of the `count` largest values of each row, float64[n_rows]."""
    if count < levels.shape[1]:
        levels = np.partition(levels, -count, axis=1)[:, -count:]
    total: NDArray[np.float64] = np.add.reduce(levels, axis=1, dtype=np.float64)
    total /= count
    return total
