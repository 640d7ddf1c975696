"""Patches: spectrograms of segments, all of one shape, above the recording's noise.

A patch has `N_COLUMNS` columns and `N_BINS` bins. A segment of duration ``d`` fills
``N_COLUMNS * sqrt(d / longest)`` columns in the middle, so that a patch shows the
duration, too, and short segments still have several columns (J. Goffinet, S. Brudner,
R. Mooney and J. Pearson, "Low-dimensional learned feature spaces quantify individual
and group differences in vocal repertoires", eLife 10, 2021, stretch time likewise). A
value is the level above the noise floor of its bin, 0 to `RANGE_DB` as 0 to 255.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32
from neurovocal.plugins.features.spectrum import window_of

N_COLUMNS, N_BINS = 32, 48
RANGE_DB = 60.0
_FLOOR_FRAMES = 2000
_FLOOR_QUANTILE = 0.15
_LEAST_FRAME = 16
_TINY = 1e-10

Patches = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """Time and frequency axes of patches.

    Parameters
    ----------
    frame_ms : float
        Length of the window of a column.
    low_hz, high_hz : float
        Edges of the bins.
    corner_hz : float
        The bins are linearly spaced below and logarithmically above.
    longest_s : float
        Duration that fills a patch.
    """

    frame_ms: float
    low_hz: float
    high_hz: float
    corner_hz: float
    longest_s: float

    @property
    def centres_hz(self) -> NDArray[np.float64]:
        """Frequencies of the bins, float64[N_BINS]."""
        return self.corners_hz[1:-1]

    @property
    def corners_hz(self) -> NDArray[np.float64]:
        """Corners of the triangular filters, float64[N_BINS + 2]."""
        edges = np.log1p(np.array([self.low_hz, self.high_hz]) / self.corner_hz)
        hz: NDArray[np.float64] = self.corner_hz * np.expm1(
            np.linspace(edges[0], edges[1], N_BINS + 2)
        )
        return hz


class PatchMaker:
    """Computes the patches of segments from the samples of one channel.

    Parameters
    ----------
    spec : PatchSpec
        Axes.
    sample_rate : int
        Rate of the samples in Hz.
    """

    def __init__(self, spec: PatchSpec, sample_rate: int) -> None:
        self.frame_length = max(_LEAST_FRAME, round(spec.frame_ms * sample_rate / 1000))
        self._longest = spec.longest_s * sample_rate
        self._n_fft = 2 ** int(np.ceil(np.log2(2 * self.frame_length)))
        self._window = window_of("hann", self.frame_length, 0.0)
        self._filters = _filters(spec, sample_rate, self._n_fft)

    def floor(
        self, samples: Float32, n_frames: int = _FLOOR_FRAMES
    ) -> NDArray[np.float64]:
        """Return the noise floor of each bin in samples, dB, float64[N_BINS].

        Parameters
        ----------
        samples : float32[n_samples]
        n_frames : int
            Most frames that it is measured in.
        """
        there = max(10, 2 * len(samples) // self.frame_length)
        centres = np.linspace(0, len(samples) - 1, min(n_frames, there))
        levels = self.levels(samples, centres)
        floor: NDArray[np.float64] = np.quantile(levels, _FLOOR_QUANTILE, axis=0)
        return floor

    def patch(
        self,
        samples: Float32,
        onset: float,
        offset: float,
        floor: NDArray[np.float64],
    ) -> Patches:
        """Return the patch of a segment ``[onset, offset)`` of samples.

        Returns
        -------
        uint8[N_COLUMNS, N_BINS]
        """
        share = np.sqrt(min(1.0, (offset - onset) / self._longest))
        n = int(np.clip(round(N_COLUMNS * share), 2, N_COLUMNS))
        centres = onset + (np.arange(n) + 0.5) / n * (offset - onset)
        excess = self.levels(samples, centres) - floor
        patch = np.zeros((N_COLUMNS, N_BINS), np.uint8)
        first = (N_COLUMNS - n) // 2
        patch[first : first + n] = np.rint(
            np.clip(excess, 0.0, RANGE_DB) * (255.0 / RANGE_DB)
        )
        return patch

    def levels(
        self, samples: Float32, centres: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the levels of frames around samples, dB, float64[n, N_BINS]."""
        first = np.rint(centres).astype(np.int64) - self.frame_length // 2
        at = first[:, None] + np.arange(self.frame_length)
        inside = (at >= 0) & (at < len(samples))
        frames = np.where(inside, samples[np.clip(at, 0, len(samples) - 1)], 0)
        spectrum = np.fft.rfft(frames * self._window, self._n_fft)
        power = np.square(np.abs(spectrum)) @ self._filters
        levels: NDArray[np.float64] = 10 * np.log10(power + _TINY)
        return levels


def _filters(spec: PatchSpec, rate: int, n_fft: int) -> NDArray[np.float64]:
    """Return triangular filters with sum 1, float64[n_fft // 2 + 1, N_BINS].

    A filter is at least two bins of the transform wide on each side. One above half
    the rate is empty.
    """
    hz = np.arange(n_fft // 2 + 1) * rate / n_fft
    corners = spec.corners_hz
    lower = np.minimum(corners[:-2], corners[1:-1] - rate / n_fft)
    upper = np.maximum(corners[2:], corners[1:-1] + rate / n_fft)
    centre = corners[1:-1]
    rising = (hz[:, None] - lower) / (centre - lower)
    falling = (upper - hz[:, None]) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    total = weights.sum(0)
    filters: NDArray[np.float64] = weights / np.where(total > 0, total, 1.0)
    return filters
