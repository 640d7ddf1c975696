"""Inverse of a bundle's front end: frames to audio, as a stream.

Scaling, logarithm and power are inverted exactly; what the front end discarded (the
phase, bands outside the kept bins, values beyond the clip) is lost.
`PhaseReconstruction` estimates the phases.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from neurovocal.engine import Bundle, ConfigError, Float32
from neurovocal.engine.contracts.bundle import FrontEnd
from neurovocal.plugins.features.options import SpectrogramOptions
from neurovocal.plugins.features.phase import PhaseReconstruction
from neurovocal.plugins.features.scaling import load_scaling
from neurovocal.plugins.features.spectrum import (
    bin_frequencies,
    density_gain,
    kept_bins,
    mel_filters,
    window_of,
)

# Chosen on days 23 and 24 of gy6or6: docs/research/resynthesis.md.
LOOK_AHEAD = 4
_ITERATIONS = 24  # at 50 % overlap
_FEWER_ITERATIONS = 16  # at more overlap, where frames determine each other more
_RELAXATION = (0.7, 0.85, 0.95)


class InverseSpectrogram:
    """Streaming inverse of a bundle's front end.

    Frame *k* of a sequence covers its samples ``[k * hop_length, k * hop_length +
    frame_length)``, at the level that the front end would measure. The first half of
    the first window fades in, the second half of the last one fades out. The samples
    depend on the frames alone, to the last bit, not on how they are cut into calls.

    Parameters
    ----------
    front_end : FrontEnd
        Front end of the bundle's manifest; its plugin must be ``spectrogram``.
    place : Bundle or Path
        The bundle, or a folder that holds the scaling file.
    look_ahead : int
        Number of frames needed beyond the one that is output, from 0.
    iterations : int, optional
        Reflections per frame: more are slower and slightly better. By default 24, or
        16 if frames overlap by more than half.
    relaxation : sequence of float
        See `PhaseReconstruction`.

    Attributes
    ----------
    sample_rate, hop_length, n_bins : int
        Rate, hop and number of bins of the front end.
    latency : int
        ``look_ahead * hop_length``: after n frames, ``n * hop_length - latency``
        samples have been output (none if that is negative).

    Raises
    ------
    ConfigError
        The front end has no inverse.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        place: Bundle | Path,
        look_ahead: int = LOOK_AHEAD,
        *,
        iterations: int | None = None,
        relaxation: Sequence[float] = _RELAXATION,
    ) -> None:
        if front_end.plugin != "spectrogram":
            raise ConfigError(
                f"sound cannot be made of the frames of '{front_end.plugin}': only the "
                "front end 'spectrogram' has an inverse"
            )
        try:
            options = SpectrogramOptions.model_validate(front_end.options)
        except ValidationError as error:
            raise ConfigError(f"front end of the bundle: {error}") from error
        self.sample_rate, self.n_bins = front_end.sample_rate, front_end.n_bins
        length, hop, n_fft = options.lengths(self.sample_rate)
        self.hop_length = hop
        if iterations is None:
            iterations = _ITERATIONS if 2 * hop >= length else _FEWER_ITERATIONS
        window = window_of(options.window, length, options.tukey_alpha)
        self._phase = PhaseReconstruction(
            window,
            hop,
            n_fft,
            look_ahead=look_ahead,
            iterations=iterations,
            relaxation=relaxation,
        )
        self.latency = self._phase.latency
        self._to_magnitudes = _Magnitudes(options, front_end, place, window, n_fft)
        self.reset()

    def reset(self) -> None:
        """Forget all frames; a new sequence may begin."""
        self._phase.reset()

    def process(self, values: Float32) -> Float32:
        """Return the samples that more frames determine.

        Parameters
        ----------
        values : float32[n_frames, n_bins]
            Frames of the front end; a value that is not finite counts as silence.

        Returns
        -------
        float32[n_samples]
            ``n_frames * hop_length``, less the latency at the start of a sequence.

        Raises
        ------
        ValueError
            The frames have another number of bins.
        """
        if values.ndim != 2 or values.shape[1] != self.n_bins:
            raise ValueError(
                f"frames of shape {values.shape}, expected (n_frames, {self.n_bins})"
            )
        samples = np.empty(len(values) * self.hop_length, np.float32)
        done = 0
        for frame in values:  # each frame's phase depends on the one before
            part = self._phase.push(self._to_magnitudes(frame))
            samples[done : done + len(part)] = part
            done += len(part)
        return samples[:done]

    def magnitudes(self, values: Float32) -> Float32:
        """Return the magnitudes of the transform that frames represent.

        Parameters
        ----------
        values : float32[n_frames, n_bins]

        Returns
        -------
        float32[n_frames, n_fft // 2 + 1]
        """
        rows = [self._to_magnitudes(frame).copy() for frame in values]
        return np.array(rows, np.float32).reshape(len(rows), -1)

    def flush(self) -> Float32:
        """Return the samples up to the end of the last frame; a new sequence may begin.

        Returns
        -------
        float32[n_samples]
            n frames make ``(n - 1) * hop_length + frame_length`` samples in all.
        """
        return self._phase.flush()


class _Magnitudes:
    """Converts one frame to magnitudes of the transform, float32[n_fft // 2 + 1]."""

    def __init__(
        self,
        options: SpectrogramOptions,
        front_end: FrontEnd,
        place: Bundle | Path,
        window: Float32,
        n_fft: int,
    ) -> None:
        rate, n_bins = front_end.sample_rate, front_end.n_bins
        high_hz = options.high_hz or rate / 2
        kept = kept_bins(options.low_hz, high_hz, rate, n_fft)
        hz = bin_frequencies(rate, n_fft)[kept]
        gain = density_gain(window, rate, n_fft)[kept]
        if options.power_kind == "magnitude":
            gain = np.ones_like(gain)
        self._per_gain = (1.0 / gain).astype(np.float32)
        self._log_floor = options.floor if options.scale == "log" else 0.0
        self._scale = options.scale
        self._spread: Float32 | None = None
        if options.scale == "mel":
            filters, _ = mel_filters(hz, options.n_mels, options.low_hz, high_hz)
            self._spread = _spread(filters)
        self._slope = np.ones(n_bins, np.float32)
        self._offset = np.zeros(n_bins, np.float32)
        if options.scaling is not None:
            scaling = load_scaling(place, options.scaling.file, n_bins, None)
            # A bin that is scaled by zero keeps its offset.
            live = scaling.gain != 0
            self._slope = np.where(live, 1 / np.where(live, scaling.gain, 1), 0.0)
            self._slope = self._slope.astype(np.float32)
            self._offset = scaling.offset
        # No bin has more power than a constant of full scale has in bin 0.
        self._loudest = np.float32(window.sum() ** 2)
        self._magnitudes = np.zeros(n_fft // 2 + 1, np.float32)
        self._kept = self._magnitudes[kept]

    def __call__(self, frame: Float32) -> Float32:
        values = frame * self._slope + self._offset
        silent = ~np.isfinite(values)
        with np.errstate(over="ignore", invalid="ignore"):
            if self._scale != "linear":
                values = np.power(np.float32(10.0), values)
            if self._scale == "log":
                values -= np.float32(self._log_floor)
            if self._spread is not None:
                values -= np.float32(1.0)
                values[silent] = 0
                values = np.minimum(np.maximum(values, 0), self._loudest)
                power = values @ self._spread
            else:
                values[silent] = 0
                power = values * self._per_gain
        np.maximum(power, 0, out=power)
        np.minimum(power, self._loudest, out=power)
        np.sqrt(power, out=self._kept)
        return self._magnitudes


def _spread(filters: Float32) -> Float32:
    """Return the matrix from mel bands to power in bins, float32[n_mels, n_bins].

    Each bin gets the mean density of its bands, weighted by their filters: smooth and
    never negative, unlike the pseudoinverse. Detail within a band is lost.
    """
    density = filters / filters.sum(axis=0)
    weights = filters.sum(axis=1, keepdims=True)
    spread = density / np.where(weights > 0, weights, 1)
    return np.ascontiguousarray(spread.T, dtype=np.float32)
