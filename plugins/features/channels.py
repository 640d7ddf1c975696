"""Spectrograms of several channels, computed together."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Block, Event, Float32, Frames
from neurovocal.engine.contracts.batches import ChannelFrames
from neurovocal.plugins.features.spectrum import MEL_TILE, log10

if TYPE_CHECKING:
    from neurovocal.plugins.features.spectrogram import Spectrogram

# Frames of all channels that are transformed together: their arrays stay in the
# processor's cache.
_TOGETHER = 64


class SpectrogramBatch:
    """Spectrograms of several channels on the same grid (a `StageBatch`).

    Each frame goes through the operations of `Spectrogram`, whose results do not depend
    on what else is computed in the same call.

    Parameters
    ----------
    stages : sequence of Spectrogram
        With the same options, at the same sample.
    """

    rows_type: type[Event] | None = Frames

    def __init__(self, stages: "Sequence[Spectrogram]") -> None:
        first = self._first = stages[0]
        self._stages = list(stages)
        self._length, self._hop = first.frame_length, first.hop_length
        # Sample that must follow, next frame, and the samples held of it.
        self._now = first._stop, first._next, first._held
        held = max(0, first._held)
        self._kept = np.array([stage._work[:held] for stage in stages])
        self._most = max(1, _TOGETHER // len(stages))
        n_fft = first._padded.shape[1]
        shape = (len(stages), self._most)
        # Columns beyond the frame stay zero: that is the zero padding.
        self._padded = np.zeros((*shape, n_fft), np.float32)
        self._spectrum: NDArray[Any] = np.empty((*shape, n_fft // 2 + 1), np.complex64)
        self._squares = np.empty((*shape, 2 * first._gain.size), np.float32)
        self._found: ChannelFrames | None = None
        self._next_kept, self._then = self._kept, self._now

    @classmethod
    def of(cls, stages: "Sequence[Spectrogram]") -> "SpectrogramBatch | None":
        """Return a batch; None before the first block, or at different samples."""
        first = stages[0]
        now = first._stop, first._next, first._held
        if first._stop is None or any(
            (each._stop, each._next, each._held) != now for each in stages
        ):
            return None
        return cls(stages)

    def compute(self, item: Block, /) -> ChannelFrames | None:
        """Return the frames that a block float32[n_samples, n_channels] completes.

        Raises
        ------
        ValueError
            It does not start at the end of the previous one.
        """
        expected, first, held = self._now
        if item.start != expected:
            raise ValueError(f"block starts at {item.start}, expected {expected}")
        samples = item.samples[max(0, -held) :]
        n_kept = self._kept.shape[1]
        work = np.empty((len(self._kept), n_kept + len(samples)), np.float32)
        work[:, :n_kept] = self._kept
        work[:, n_kept:] = samples.T
        n_frames = max(0, (work.shape[1] - self._length) // self._hop + 1)
        used = n_frames * self._hop
        held = min(held + len(item.samples), work.shape[1]) - used
        self._then = (item.stop, first + n_frames, held)
        self._next_kept = work[:, used:]
        self._found = None
        if n_frames == 0:
            return None
        row, sample = work.strides
        # Not `as_strided`, which takes as long as a transform.
        shape = (len(work), n_frames, self._length)
        strides = (row, self._hop * sample, sample)
        frames: Float32 = np.ndarray(shape, np.float32, work, strides=strides)
        values = np.empty((len(work), n_frames, self._first.n_bins), np.float32)
        # A sample that is not finite affects its own frames only: no warning.
        with np.errstate(all="ignore"):
            for start in range(0, n_frames, self._most):
                part = slice(start, start + self._most)
                self._transform(frames[:, part], first + start, values[:, part])
        self._found = ChannelFrames(first, self._hop, self._length, values)
        return self._found

    def commit(self) -> None:
        """Hold the samples that the next frames need."""
        self._now, self._kept = self._then, self._next_kept

    def rows(self, channel: int, /) -> Frames:
        """Return the frames of one channel."""
        assert self._found is not None
        return self._found.of(channel)

    def active(self) -> Iterable[int]:
        """Return no channel: there are no events but frames."""
        return ()

    def answers(self, channel: int, /) -> Iterable[Event]:
        """Return nothing."""
        return ()

    def release(self) -> None:
        """Give each stage its samples."""
        for row, stage in zip(self._kept, self._stages, strict=True):
            stage._stop, stage._next, stage._held = self._now
            stage._work[: len(row)] = row

    def _transform(self, frames: Float32, first: int, out: Float32) -> None:
        """Write the spectra of float32[n_channels, n_frames, frame_length] to `out`."""
        spectrogram, n_frames = self._first, frames.shape[1]
        padded = self._padded[:, :n_frames]
        windowed = padded[:, :, : self._length]
        if spectrogram._remove_mean:
            mean = np.add.reduce(frames, axis=2, keepdims=True)
            mean /= self._length
            frames = np.subtract(frames, mean, out=windowed)
        np.multiply(frames, spectrogram._window, out=windowed)
        spectrum = self._spectrum[:, :n_frames]
        np.fft.rfft(padded, axis=-1, out=spectrum)
        parts = spectrum[:, :, spectrogram._bins].view(np.float32)
        squares = np.multiply(parts, parts, out=self._squares[:, :n_frames])
        mel = spectrogram._mel
        power = out if mel is None else np.empty_like(squares[:, :, 0::2])
        np.add(squares[:, :, 0::2], squares[:, :, 1::2], out=power)
        np.multiply(power, spectrogram._gain, out=power)
        if mel is not None:
            _to_mel(power, mel, first, out)
            np.add(out, np.float32(1.0), out=out)
            log10(out)
        if spectrogram._log_floor is not None:
            np.add(out, np.float32(spectrogram._log_floor), out=out)
            log10(out)
        if spectrogram._scaling is not None:
            spectrogram._scaling.apply(out)


def _to_mel(power: Float32, mel: Float32, first: int, out: Float32) -> None:
    """Write power in mel bands, multiplied in tiles of the frame grid."""
    n_channels, n_frames, n_bins = power.shape
    tile = np.zeros((n_channels, MEL_TILE, n_bins), np.float32)
    done = 0
    while done < n_frames:
        row = (first + done) % MEL_TILE
        count = min(MEL_TILE - row, n_frames - done)
        tile[:, row : row + count] = power[:, done : done + count]
        out[:, done : done + count] = (tile @ mel)[:, row : row + count]
        done += count
