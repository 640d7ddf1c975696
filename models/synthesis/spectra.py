"""Mean spectrum and modulation spectrum of sequences of frames."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.types import Float32

WINDOW_FRAMES = 64
_HOP = WINDOW_FRAMES // 2


def spectrum_distance(a: Sequence[Float32], b: Sequence[Float32]) -> float:
    """Root mean square over the bins of the difference of the mean frames."""
    difference = np.concatenate(list(a)).mean(0) - np.concatenate(list(b)).mean(0)
    return float(np.sqrt(np.square(difference, dtype=np.float64).mean()))


def modulation_spectrum(songs: Sequence[Float32]) -> NDArray[np.float64]:
    """Logarithm of the mean power of two-dimensional Fourier transforms.

    Over Hann-windowed stretches of `WINDOW_FRAMES` frames, half overlapping, less
    the mean level: how fast, and how closely spaced in frequency, song changes
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
    """Pearson correlation of two modulation spectra; NaN where one is empty."""
    one, other = modulation_spectrum(a), modulation_spectrum(b)
    if not len(one) or len(one) != len(other):
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])
