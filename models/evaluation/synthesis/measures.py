"""Measures of sequences of frames: segments, spectra and transitions of units.

Segments are found in frames, because generated song has no waveform for a detector:
mean level over the bins, smoothed over three frames, above one threshold, which is
fitted on annotated training song.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.measures import true_runs

_SMOOTHED_FRAMES = 3

# Longer breaks separate segments; shorter sounds are no segments.
_LONGEST_BREAK = 2
_SHORTEST_SEGMENT = 6


@dataclass(frozen=True, slots=True)
class FrameDetector:
    """Detector of segments in frames: smoothed mean level above `threshold`."""

    threshold: float

    @classmethod
    def fit(
        cls, songs: Sequence[Float32], voiced: Sequence[NDArray[np.bool_]]
    ) -> "FrameDetector":
        """Choose the threshold that agrees with the annotation in most frames.

        Parameters
        ----------
        songs : sequence of float32[n_frames, n_bins]
        voiced : sequence of bool[n_frames]
            Whether a frame's centre lies in an annotated segment.
        """
        level = np.concatenate([_level(song) for song in songs])
        truth = np.concatenate(list(voiced))
        tried = np.quantile(level, np.linspace(0.05, 0.95, 91))
        agreement = [np.mean((level > threshold) == truth) for threshold in tried]
        return cls(float(tried[int(np.argmax(agreement))]))

    def __call__(self, song: Float32) -> NDArray[np.int64]:
        """Return first frame and stop of each segment, int64[n_segments, 2]."""
        runs = true_runs(_level(song) > self.threshold)
        if not len(runs):
            return runs
        breaks = runs[1:, 0] - runs[:-1, 1] > _LONGEST_BREAK
        first = runs[np.concatenate([[True], breaks]), 0]
        stop = runs[np.concatenate([breaks, [True]]), 1]
        joined: NDArray[np.int64] = np.stack([first, stop], axis=1)
        return joined[stop - first >= _SHORTEST_SEGMENT, :]


def _level(song: Float32) -> NDArray[np.float64]:
    level: NDArray[np.float64] = song.mean(1).astype(np.float64)
    if len(song) < _SMOOTHED_FRAMES:  # np.convolve would return the kernel's length
        return level
    kernel = np.full(_SMOOTHED_FRAMES, 1.0 / _SMOOTHED_FRAMES)
    level = np.convolve(level, kernel, "same")
    return level


def kolmogorov_smirnov(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples; 1 when one is empty."""
    if not len(a) or not len(b):
        return 1.0
    at = np.unique(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(x), at, "right") / len(x) for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


WINDOW_FRAMES = 64
_HOP = WINDOW_FRAMES // 2


def spectrum_distance(a: Sequence[Float32], b: Sequence[Float32]) -> float:
    """Return the root mean square over bins of the difference of the mean frames."""
    difference = np.concatenate(list(a)).mean(0) - np.concatenate(list(b)).mean(0)
    return float(np.sqrt(np.square(difference, dtype=np.float64).mean()))


def modulation_spectrum(songs: Sequence[Float32]) -> NDArray[np.float64]:
    """Compute the logarithm of the mean power of 2-D Fourier transforms of frames.

    Transforms are of Hann-windowed stretches of `WINDOW_FRAMES` frames, half
    overlapping, less the mean level. They measure temporal and spectral modulation
    (N. C. Singh and F. E. Theunissen, "Modulation spectra of natural sounds",
    Journal of the Acoustical Society of America 114, 2003).

    Returns
    -------
    float64[n_values]
        Without the constant term; empty when every song is too short.
    """
    window = np.hanning(WINDOW_FRAMES + 2)[1:-1, None]
    power, count = np.zeros(0), 0
    for song in songs:
        for first in range(0, len(song) - WINDOW_FRAMES + 1, _HOP):
            part = song[first : first + WINDOW_FRAMES].astype(np.float64)
            found = np.square(np.abs(np.fft.rfft2((part - part.mean()) * window)))
            power = power + found if count else found
            count += 1
    if not count:
        return np.zeros(0)
    return np.log(power / count + 1e-9).ravel()[1:]


def modulation_correlation(a: Sequence[Float32], b: Sequence[Float32]) -> float:
    """Return the Pearson correlation of modulation spectra; NaN where one is empty."""
    one, other = modulation_spectrum(a), modulation_spectrum(b)
    if not len(one) or len(one) != len(other):
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


PairCounts = NDArray[np.float64]


def pair_counts(sequences: Sequence[Sequence[int]], n_units: int) -> PairCounts:
    """Count how often unit j follows unit i, float64[n_units, n_units]."""
    table = np.zeros((n_units, n_units))
    for sequence in sequences:
        np.add.at(table, (list(sequence[:-1]), list(sequence[1:])), 1.0)
    return table


def independent_pairs(pairs: PairCounts) -> PairCounts:
    """Return the expected counts of pairs if units were independent (order 0)."""
    table: PairCounts = np.outer(pairs.sum(1), pairs.sum(0)) / max(pairs.sum(), 1.0)
    return table


def divergence_bits(a: PairCounts, b: PairCounts) -> float:
    """Return the Jensen-Shannon divergence of two tables of counts, in bits.

    NaN where one is empty.
    """
    if not a.sum() or not b.sum():
        return float("nan")
    p, q = a.ravel() / a.sum(), b.ravel() / b.sum()
    middle = (p + q) / 2
    return float((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def transition_gain_nats(found: PairCounts, pairs: PairCounts) -> float:
    """Return the gain of the bird's transitions over order 0, for found pairs.

    Mean over the found pairs of ``log p(j | i) - log p(j)``, in nats, with half a
    count added to each of the bird's pairs; above 0, song follows the bird's order.

    Parameters
    ----------
    found, pairs : float64[n_units, n_units]
        Counts of the measured song, and of the bird's song.
    """
    if not found.sum():
        return float("nan")
    smoothed = pairs + 0.5
    given = smoothed / smoothed.sum(1, keepdims=True)
    alone = smoothed.sum(0) / smoothed.sum()
    return float((found * np.log(given / alone)).sum() / found.sum())


def _relative_entropy(p: PairCounts, q: PairCounts) -> float:
    used = p > 0
    return float((p[used] * np.log2(p[used] / q[used])).sum())
