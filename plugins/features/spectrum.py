"""Constants of a short-time spectrum: window, bins and density scaling."""

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.types import Float32


def window_of(name: str, length: int, tukey_alpha: float) -> Float32:
    """Periodic window, float32[length], as ``scipy.signal.get_window`` gives it."""
    from scipy.signal import get_window  # slow to import

    shape = (name, tukey_alpha) if name == "tukey" else name
    return np.asarray(get_window(shape, length, fftbins=True), dtype=np.float32)


def density_gain(window: Float32, sample_rate: int, n_fft: int) -> Float32:
    """Factor per bin from |S|^2 to one-sided power per Hz, float32[n_fft // 2 + 1].

    ``1 / (sample_rate * sum(window ** 2))``, twice that for every bin that stands
    for two frequencies: all but bin 0 and the one at half the rate (Welch, 1967;
    scaling 'density' of scipy.signal).
    """
    energy = np.sum(window.astype(np.float64) ** 2)
    gain = np.full(n_fft // 2 + 1, 2.0 / (sample_rate * energy))
    gain[0] /= 2
    if n_fft % 2 == 0:
        gain[-1] /= 2
    return gain.astype(np.float32)


def bin_frequencies(sample_rate: int, n_fft: int) -> NDArray[np.float64]:
    """Frequency of each bin in Hz, float64[n_fft // 2 + 1]."""
    return np.arange(n_fft // 2 + 1, dtype=np.float64) * sample_rate / n_fft


def kept_bins(low_hz: float, high_hz: float, sample_rate: int, n_fft: int) -> slice:
    """Bins whose frequency lies in ``[low_hz, high_hz]``.

    Raises
    ------
    ConfigError
        There is none, or `high_hz` is above half the sample rate.
    """
    if high_hz > sample_rate / 2:
        raise ConfigError(
            f"high_hz {high_hz:g} is above half the sample rate of {sample_rate} Hz"
        )
    hz = bin_frequencies(sample_rate, n_fft)
    kept = np.flatnonzero((hz >= low_hz) & (hz <= high_hz))
    if not len(kept):
        raise ConfigError(
            f"no frequency bin lies between {low_hz:g} and {high_hz:g} Hz: bins are "
            f"{hz[1]:g} Hz apart"
        )
    return slice(int(kept[0]), int(kept[-1]) + 1)
