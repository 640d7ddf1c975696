"""Constants of a short-time spectrum: window, bins, density scaling, mel filters."""

import math
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import ConfigError, Float32

# Frames per matrix product. A product's last bits depend on the number of rows
# and on a row's place among them; both are fixed by the frame grid.
MEL_TILE = 8

LOG10_OF_E = np.float32(math.log10(math.e))


def window_of(name: str, length: int, tukey_alpha: float) -> Float32:
    """Return a periodic window, float32[length], as ``scipy.signal.get_window`` does.

    Parameters
    ----------
    name : {'hann', 'hamming', 'tukey'}
        Shape (Harris, 1978).
    length : int
        Samples of a frame.
    tukey_alpha : float
        Share of a Tukey window that is tapered, from 0 (rectangle) to 1 (Hann).
    """
    if name == "tukey" and 0 < tukey_alpha < 1 < length:
        return _tukey(length, tukey_alpha)
    if length == 1 or (name == "tukey" and tukey_alpha <= 0):
        return np.ones(length, np.float32)
    mean = 0.54 if name == "hamming" else 0.5
    phase = np.linspace(-np.pi, np.pi, length + 1)
    return (mean + (1.0 - mean) * np.cos(phase))[:-1].astype(np.float32)


def _tukey(length: int, alpha: float) -> Float32:
    n = np.arange(length + 1, dtype=np.float64)
    width = int(alpha * length / 2.0)
    rise = 0.5 * (1 + np.cos(np.pi * (-1 + 2.0 * n[: width + 1] / alpha / length)))
    last = n[length - width :]
    fall = 0.5 * (1 + np.cos(np.pi * (-2.0 / alpha + 1 + 2.0 * last / alpha / length)))
    flat = np.ones(max(0, length - 2 * width - 1))
    return np.concatenate((rise, flat, fall))[:-1].astype(np.float32)


def density_gain(window: Float32, sample_rate: int, n_fft: int) -> Float32:
    """Return each bin's factor from |S|^2 to power per Hz, float32[n_fft // 2 + 1].

    One-sided: ``1 / (sample_rate * sum(window ** 2))``, doubled for each bin that
    stands for two frequencies, which are all but bin 0 and the one at half the rate
    (Welch, 1967; scaling 'density' of scipy.signal).
    """
    energy = np.sum(window.astype(np.float64) ** 2)
    gain = np.full(n_fft // 2 + 1, 2.0 / (sample_rate * energy))
    gain[0] /= 2
    if n_fft % 2 == 0:
        gain[-1] /= 2
    return gain.astype(np.float32)


def bin_frequencies(sample_rate: int, n_fft: int) -> NDArray[np.float64]:
    """Return the frequency of each bin in Hz, float64[n_fft // 2 + 1]."""
    return np.arange(n_fft // 2 + 1, dtype=np.float64) * sample_rate / n_fft


def kept_bins(low_hz: float, high_hz: float, sample_rate: int, n_fft: int) -> slice:
    """Return the bins with a frequency in ``[low_hz, high_hz]``.

    Raises
    ------
    ConfigError
        No bin lies there, or `high_hz` is above half the sample rate.
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


def mel_of_hz(hz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert Hz to mel, ``2595 * log10(1 + hz / 700)`` (O'Shaughnessy, 1987)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def hz_of_mel(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert mel to Hz; the inverse of `mel_of_hz`."""
    return 700.0 * (10.0 ** (np.asarray(mel, dtype=np.float64) / 2595.0) - 1.0)


def mel_filters(
    frequencies_hz: NDArray[np.float64], n_mels: int, low_hz: float, high_hz: float
) -> tuple[Float32, NDArray[np.float64]]:
    """Compute triangular filters with peak 1 and their centre frequencies.

    The corners are equally spaced in mel from `low_hz` to `high_hz`; filter *i*
    rises from corner *i* to its peak at corner *i + 1* and falls to zero at
    corner *i + 2*, linearly in Hz (Young et al., The HTK Book, section 5.6).

    Parameters
    ----------
    frequencies_hz : float64[n_bins]
        Frequencies of the spectrum's bins.
    n_mels : int
        Number of filters.
    low_hz, high_hz : float
        Lower end of the first filter and upper end of the last.

    Returns
    -------
    weights : float32[n_bins, n_mels]
    centres_hz : float64[n_mels]

    Raises
    ------
    ConfigError
        A filter is so narrow that no bin lies in it: its band would always be
        zero.
    """
    corners = hz_of_mel(np.linspace(mel_of_hz(low_hz), mel_of_hz(high_hz), n_mels + 2))
    lower, centre, upper = corners[:-2], corners[1:-1], corners[2:]
    hz = frequencies_hz[:, None]
    rising = (hz - lower) / (centre - lower)
    falling = (upper - hz) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    empty = np.flatnonzero(~weights.any(axis=0))
    if len(empty):
        band = empty[0]
        raise ConfigError(
            f"mel band {band + 1} of {n_mels} ({lower[band]:.0f} to {upper[band]:.0f} "
            "Hz) contains no frequency bin: ask for fewer bands (n_mels) or a longer "
            "transform (n_fft, frame_length)"
        )
    return np.ascontiguousarray(weights, dtype=np.float32), centre


def log10(values: Float32) -> None:
    """Replace float32 values by their logarithms to base 10.

    NumPy has vector instructions for natural logarithms of float32 alone: they take a
    quarter of the time, and differ by some units in the last place.
    """
    np.log(values, out=values)
    np.multiply(values, LOG10_OF_E, out=values)


def real_transform(rows: NDArray[Any], out: NDArray[Any]) -> None:
    """Write the Fourier transform of real rows, as ``np.fft.rfft`` gives it, to `out`.

    Row by row, whatever their number, and therefore bit-stable, which a transform
    vectorised over rows need not be.

    Parameters
    ----------
    rows : float32 or float64[n_rows, n_fft]
    out : complex64 or complex128[n_rows, n_fft // 2 + 1]
    """
    if _RFFT is None or rows.shape[1] % 2:
        np.fft.rfft(rows, axis=-1, out=out)
    else:
        _RFFT(rows, 1, out)


def _direct_rfft() -> Any:
    """Return the function inside ``np.fft.rfft`` for even lengths, if it is the same.

    The handling of its arguments costs as much as the transform of a short row.
    """
    try:
        rfft_n_even = import_module("numpy.fft._pocketfft_umath").rfft_n_even
        row = np.sin(np.arange(16, dtype=np.float32))[None]
        out = np.empty((1, 9), np.complex64)
        rfft_n_even(row, 1, out)
        return rfft_n_even if np.array_equal(out, np.fft.rfft(row)) else None
    except Exception:  # another version of NumPy has it elsewhere
        return None


_RFFT = _direct_rfft()
