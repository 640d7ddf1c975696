"""Log-mel bands of a window, as common training programs compute them."""

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32
from neurovocal.plugins.models.any_onnx.manifest import LogMel

Float64 = NDArray[np.float64]

# Slaney's scale: linear below 1 kHz, then 27 bands per factor of 6.4.
_LINEAR_HZ = 200.0 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0


class LogMelFrontEnd:
    """Computes the log-mel bands of windows of equal length.

    Parameters
    ----------
    spec : LogMel
        Parameters.
    sample_rate : int
        In Hz.
    """

    def __init__(self, spec: LogMel, sample_rate: int) -> None:
        self._spec = spec
        self._n_fft = spec.n_fft or spec.frame_length
        self._window = _window(spec.window, spec.frame_length)
        self._bands = mel_bands(spec, sample_rate, self._n_fft)

    def __call__(self, samples: Float32) -> Float32:
        """Return the bands of a window, float32[n_columns, n_mels]."""
        spec = self._spec
        given = samples.astype(np.float64)
        if spec.centre:
            half = spec.frame_length // 2
            given = np.pad(given, half, mode="reflect")
        columns = np.lib.stride_tricks.sliding_window_view(given, spec.frame_length)
        columns = columns[:: spec.hop_length] * self._window
        spectrum = np.abs(np.fft.rfft(columns, self._n_fft, axis=1))
        if spec.power == 2:
            spectrum = np.square(spectrum)
        values = np.maximum(spectrum @ self._bands + spec.offset, spec.floor)
        match spec.log:
            case "natural":
                values = np.log(values)
            case "log10":
                values = np.log10(values)
            case "db":
                values = np.log10(values) * (10.0 if spec.power == 2 else 20.0)
            case "none":
                pass
        return ((values - spec.mean) / spec.deviation).astype(np.float32)


def mel_bands(spec: LogMel, sample_rate: int, n_fft: int) -> Float64:
    """Return the weights of triangular bands, float64[n_fft // 2 + 1, n_mels].

    Their edges are equally far apart on the mel scale (M. Slaney, Auditory Toolbox,
    Technical Report 1998-010, or the HTK Book, ``2595 log10(1 + f / 700)``).
    """
    high_hz = spec.high_hz or sample_rate / 2
    to_mel, to_hz = (
        (_htk_mel, _htk_hz) if spec.scale == "htk" else (_slaney_mel, _slaney_hz)
    )
    low, high = to_mel(np.array([spec.low_hz, high_hz]))
    edges = to_hz(np.linspace(low, high, spec.n_mels + 2))
    bins = np.arange(n_fft // 2 + 1)[:, None] * (sample_rate / n_fft)
    widths = np.diff(edges)
    rising = (bins - edges[:-2]) / widths[:-1]
    falling = (edges[2:] - bins) / widths[1:]
    weights = np.maximum(0.0, np.minimum(rising, falling))
    if spec.norm == "slaney":
        weights *= 2.0 / (edges[2:] - edges[:-2])
    return weights


def _window(name: str, length: int) -> Float64:
    if name == "rectangular":
        return np.ones(length)
    mean = 0.5 if name == "hann" else 0.54
    phase = 2 * np.pi * np.arange(length) / length
    return mean - (1.0 - mean) * np.cos(phase)


def _htk_mel(hz: Float64) -> Float64:
    return 2595.0 * np.log10(1.0 + hz / 700.0)


def _htk_hz(mel: Float64) -> Float64:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def _slaney_mel(hz: Float64) -> Float64:
    above = np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, _BREAK_HZ / _LINEAR_HZ + above)


def _slaney_hz(mel: Float64) -> Float64:
    at_break = _BREAK_HZ / _LINEAR_HZ
    above = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, at_break) - at_break))
    return np.where(mel < at_break, mel * _LINEAR_HZ, above)
