"""Phase reconstruction: magnitudes, frame by frame, to a signal with that spectrogram.

Real-time iterative spectrogram inversion with look-ahead, RTISI-LA (Zhu, Beauregard
and Wyse, 2007, "Real-time signal estimation from modified short-time Fourier transform
magnitude spectra", IEEE Trans. Audio, Speech, Lang. Process. 15, 1645-1653). Samples
that were output never change; the newest frames are made consistent with them and with
each other by relaxed averaged alternating reflections (RAAR; Luke, 2005, "Relaxed
averaged alternating reflections for diffraction imaging", Inverse Problems 21, 37-50),
which Peer, Welker, Kolhoff and Gerkmann (2024, arXiv 2309.07043) brought into the
online frame. docs/research/resynthesis.md compares it with other algorithms.
"""

from collections.abc import Sequence
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
        Reflections per frame.
    relaxation : sequence of float
        Share of the reflections (beta), from the frame that is output next to newer
        ones; the last holds for all further frames. A frame explores with a share near
        1 and settles with a lower one.

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
        relaxation: Sequence[float],
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
        self._iterations = iterations
        last = len(relaxation) - 1
        shares = [relaxation[min(k, last)] for k in range(n_frames)]
        self._share = np.array(shares, np.float32)[:, None]
        self._rest = 1 - 2 * self._share
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
        # The iterate, and what is overlap-added: of the wanted magnitudes, or mirrored.
        self._iterate = np.zeros((n_frames, n_bins), np.complex64)
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
        self._mirrored = np.zeros_like(self._analysed)
        self._squares = np.zeros((n_frames, 2 * n_bins), np.float32)
        self._gains = np.zeros((n_frames, n_bins), np.float32)
        self._out = np.empty(hop, np.float32)
        self._none = self._out[:0]
        self.reset()

    def reset(self) -> None:
        """Forget all frames; the next one follows silence."""
        self._magnitudes[:] = 0
        self._iterate[:] = 0
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
        # A new frame begins at the phases of the signal that overlaps with it.
        self._restore_magnitudes()
        self._overlap_add(self._spectra)
        self._analyse()
        np.add(self._analysed[-1], self._seed, out=self._iterate[-1])
        self._restore_magnitudes()
        for _ in range(self._iterations):
            self._reflect()
        self._overlap_add(self._spectra)
        filled = self._waiting == len(self._magnitudes) - 1
        if filled:
            np.multiply(self._signal[0], self._scale, out=self._out)
            for part in range(self._parts):
                self._fixed[part] += self._pieces[0, part]
            self._fixed[:-1] = self._fixed[1:]
            self._fixed[-1] = 0
        else:
            self._waiting += 1
        for rows in (self._magnitudes, self._iterate):
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
        self._restore_magnitudes()
        self._overlap_add(self._spectra)
        signal = self._signal * self._scale
        first = len(self._magnitudes) - 1 - self._waiting
        n_samples = self._waiting * self._hop + self._tail
        tail: Float32 = signal[first:].ravel()[:n_samples]
        self.reset()
        return tail

    def _overlap_add(self, spectra: NDArray[Any]) -> None:
        """Compute the unscaled signal of the held frames after the fixed part."""
        np.fft.irfft(spectra, self._n_fft, axis=-1, out=self._time)
        np.multiply(self._time[:, : self._length], self._window, out=self._synthesized)
        np.copyto(self._signal, self._fixed)
        n_frames = len(self._pieces)
        for part in range(self._parts):
            self._signal[part : part + n_frames] += self._pieces[:, part]

    def _analyse(self) -> None:
        """Compute the spectra of the signal."""
        np.multiply(self._signal, self._local_scale, out=self._signal)
        np.multiply(self._frames, self._window, out=self._windowed)
        np.fft.rfft(self._padded, axis=-1, out=self._analysed)

    def _reflect(self) -> None:
        """Advance the iterate: x = beta (P_C(2 P_A x - x) + x) + (1 - 2 beta) P_A x.

        P_A gives spectra the wanted magnitudes, P_C makes them those of a signal; this
        is ``beta / 2 (R_C R_A x + x) + (1 - beta) P_A x`` with ``R = 2 P - 1``.
        """
        iterate, wanted, mirrored = self._iterate, self._spectra, self._mirrored
        np.add(wanted, wanted, out=mirrored)
        np.subtract(mirrored, iterate, out=mirrored)
        self._overlap_add(mirrored)
        self._analyse()
        np.add(iterate, self._analysed, out=iterate)
        np.multiply(iterate, self._share, out=iterate)
        np.multiply(wanted, self._rest, out=wanted)
        np.add(iterate, wanted, out=iterate)
        self._restore_magnitudes()

    def _restore_magnitudes(self) -> None:
        """Compute the spectra with the iterate's phases and the wanted magnitudes."""
        parts = self._iterate.view(np.float32)
        squares = np.multiply(parts, parts, out=self._squares)
        gains = np.add(squares[:, 0::2], squares[:, 1::2], out=self._gains)
        np.add(gains, _TINY, out=gains)
        np.sqrt(gains, out=gains)
        np.divide(self._magnitudes, gains, out=gains)
        np.multiply(self._iterate, gains, out=self._spectra)
