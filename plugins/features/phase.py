"""Phase reconstruction: magnitudes, frame by frame, to a signal with that spectrogram.

Real-time iterative spectrogram inversion with look-ahead, RTISI-LA (Zhu, Beauregard
and Wyse, 2007, "Real-time signal estimation from modified short-time Fourier transform
magnitude spectra", IEEE Trans. Audio, Speech, Lang. Process. 15, 1645-1653). Samples
that were output never change; the newest frames are made consistent with them and with
each other by the projections of Griffin and Lim (1984), with the inertia of Perraudin,
Balazs and Sondergaard (2013, "A fast Griffin-Lim algorithm", eq. 6). With the inertia,
few iterations on few frames reach the quality of a hundred on the whole recording
(docs/how-to/synthesis.md has the figures).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import ConfigError, Float32

# A sample with less than this share of the largest sum of squared windows is uncovered.
_LEAST_COVER = 1e-3
# Level of the fixed noise that decides the phase after digital silence.
_SEED_LEVEL = 1e-6
# Added to squared magnitudes, so that the division by them stays finite.
_TINY = 1e-24


class PhaseReconstruction:
    """Streaming inverse of a magnitude spectrogram.

    All arrays are allocated once and have one size, so that a frame's samples do not
    depend on how frames are cut into calls.

    Parameters
    ----------
    window : float32[frame_length]
        Window of the analysis; the synthesis uses the same, divided by the sum of
        its squares (the dual window).
    hop_length, n_fft : int
        Samples between frames, and length of the transform.
    look_ahead : int
        Number of frames after the one whose samples are output next, from 0.
    iterations : int
        Projections per frame.
    inertia : float
        Weight of the previous projection's change; 0 gives plain RTISI-LA.

    Attributes
    ----------
    latency : int
        Samples by which the output lags behind ``n_frames * hop_length``.

    Raises
    ------
    ConfigError
        Frames overlap so little that no window covers some samples.
    """

    def __init__(
        self,
        window: Float32,
        hop_length: int,
        n_fft: int,
        *,
        look_ahead: int,
        iterations: int,
        inertia: float,
    ) -> None:
        length, hop = len(window), hop_length
        n_frames, parts = look_ahead + 1, -(-length // hop)
        squares = np.zeros(parts * hop)
        squares[:length] = window.astype(np.float64) ** 2
        cover = squares.reshape(parts, hop)
        full = cover.sum(axis=0)
        if full.min() < _LEAST_COVER * full.max():
            raise ConfigError(
                f"sound cannot be made of these frames: hop_length {hop} leaves "
                f"samples that no window of {length} covers; train with a "
                f"hop_length of at most {length // 2}"
            )
        self.latency = look_ahead * hop
        self._length, self._hop, self._parts, self._n_fft = length, hop, parts, n_fft
        self._iterations, self._inertia = iterations, np.float32(inertia)
        self._tail = length - hop

        self._window = window.copy()
        self._scale = (1.0 / full).astype(np.float32)
        # Fewer windows overlap in the newest samples, which are therefore scaled by
        # the sum of those windows: the asymmetric window of the paper.
        n_parts = n_frames + parts - 1
        sums = np.zeros((n_parts, hop))
        for frame in range(1 - parts, n_frames):
            for part in range(max(0, -frame), parts):
                sums[frame + part] += cover[part]
        floor = _LEAST_COVER * full.max()
        self._local_scale = (1.0 / np.maximum(sums, floor)).astype(np.float32)

        n_bins = n_fft // 2 + 1
        angle = 2 * np.pi * np.random.Generator(np.random.SFC64(1)).random(n_bins)
        angle[0] = angle[-1] = 0.0
        self._seed = (_SEED_LEVEL * np.exp(1j * angle)).astype(np.complex64)

        self._magnitudes = np.zeros((n_frames, n_bins), np.float32)
        self._spectra = np.zeros((n_frames, n_bins), np.complex64)
        # Overlap-added output of the frames before the first one held.
        self._fixed = np.zeros((n_parts, hop), np.float32)
        self._signal = np.zeros((n_parts, hop), np.float32)
        self._frames = np.lib.stride_tricks.as_strided(
            self._signal, (n_frames, length), (hop * 4, 4), writeable=False
        )
        self._padded = np.zeros((n_frames, n_fft), np.float32)
        self._windowed = self._padded[:, :length]
        self._time: NDArray[Any] = np.zeros((n_frames, n_fft), np.float32)
        pieces = np.zeros((n_frames, parts * hop), np.float32)
        self._synthesized = pieces[:, :length]
        self._pieces = pieces.reshape(n_frames, parts, hop)
        # (Any, because NumPy's stubs have transforms in double precision only.)
        self._analysed: NDArray[Any] = np.zeros((n_frames, n_bins), np.complex64)
        self._before = np.zeros_like(self._analysed)
        self._squares = np.zeros((n_frames, 2 * n_bins), np.float32)
        self._gains = np.zeros((n_frames, n_bins), np.float32)
        self._out = np.empty(hop, np.float32)
        self._none = self._out[:0]
        self.reset()

    def reset(self) -> None:
        """Forget all frames; the next one follows silence."""
        self._magnitudes[:] = 0
        self._spectra[:] = 0
        self._before[:] = 0
        self._fixed[:] = 0
        self._waiting = 0  # frames whose first samples are not output yet
        self._has_frames = False

    def push(self, magnitudes: Float32) -> Float32:
        """Add the next frame's magnitudes, float32[n_fft // 2 + 1].

        Returns
        -------
        float32[hop_length]
            The next samples, valid until the next call; none until the look-ahead is
            full.
        """
        # The last row is free between calls.
        self._has_frames = True
        self._magnitudes[-1] = magnitudes
        for iteration in range(self._iterations):
            self._overlap_add()
            np.multiply(self._signal, self._local_scale, out=self._signal)
            self._project(iteration)
        self._overlap_add()
        filled = self._waiting == len(self._magnitudes) - 1
        if filled:
            np.multiply(self._signal[0], self._scale, out=self._out)
            for part in range(self._parts):
                self._fixed[part] += self._pieces[0, part]
            self._fixed[:-1] = self._fixed[1:]
            self._fixed[-1] = 0
        else:
            self._waiting += 1
        for rows in (self._magnitudes, self._spectra, self._before):
            rows[:-1] = rows[1:]
            rows[-1] = 0
        return self._out if filled else self._none

    def flush(self) -> Float32:
        """Return the samples of the frames held back, and reset.

        Returns
        -------
        float32[n_samples]
            In all there are ``(n_frames - 1) * hop_length + frame_length`` samples.
        """
        if not self._has_frames:
            return self._none.copy()
        self._overlap_add()
        signal = self._signal * self._scale
        first = len(self._magnitudes) - 1 - self._waiting
        n_samples = self._waiting * self._hop + self._tail
        tail: Float32 = signal[first:].ravel()[:n_samples]
        self.reset()
        return tail

    def _overlap_add(self) -> None:
        """Compute the unscaled signal of the held frames after the fixed part."""
        np.fft.irfft(self._spectra, self._n_fft, axis=-1, out=self._time)
        np.multiply(self._time[:, : self._length], self._window, out=self._synthesized)
        np.copyto(self._signal, self._fixed)
        n_frames = len(self._pieces)
        for part in range(self._parts):
            self._signal[part : part + n_frames] += self._pieces[:, part]

    def _project(self, iteration: int) -> None:
        """Compute the spectra of the signal and replace their magnitudes."""
        np.multiply(self._frames, self._window, out=self._windowed)
        np.fft.rfft(self._padded, axis=-1, out=self._analysed)
        spectra, analysed = self._spectra, self._analysed
        if iteration == 0:
            self._before[-1] = analysed[-1]  # a new frame has no inertia
        np.subtract(analysed, self._before, out=spectra)
        np.multiply(spectra, self._inertia, out=spectra)
        np.add(spectra, analysed, out=spectra)
        if iteration == 0:
            spectra[-1] += self._seed
        self._before, self._analysed = analysed, self._before
        parts = spectra.view(np.float32)
        squares = np.multiply(parts, parts, out=self._squares)
        gains = np.add(squares[:, 0::2], squares[:, 1::2], out=self._gains)
        np.add(gains, _TINY, out=gains)
        np.sqrt(gains, out=gains)
        np.divide(self._magnitudes, gains, out=gains)
        np.multiply(spectra, gains, out=spectra)
