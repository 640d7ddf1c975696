"""Rolling spectrogram: windowed frames on the stream's frame grid.

With default options a frame equals the column that
``scipy.signal.spectrogram(x, rate, nperseg=256, noverlap=128)`` gives.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import (
    Block,
    BuildContext,
    Bundle,
    ConfigError,
    Float32,
    Frames,
    Gap,
    Plugin,
)
from neurovocal.engine.contracts.batches import StageBatch
from neurovocal.engine.support.compiled import Kernel
from neurovocal.plugins.features.options import SpectrogramOptions
from neurovocal.plugins.features.scaling import load_scaling
from neurovocal.plugins.features.spectrum import (
    LOG10_OF_E,
    MEL_TILE,
    bin_frequencies,
    density_gain,
    kept_bins,
    log10,
    mel_filters,
    real_transform,
    window_of,
)

# Frames that are transformed together: their arrays stay in the processor's cache.
_BATCH = 64


@dataclass(frozen=True, slots=True, eq=False)
class _Views:
    """First rows of the work arrays of a `Spectrogram`, for a number of frames."""

    frames: Float32
    mean: Float32
    padded: Float32
    windowed: Float32
    spectrum: NDArray[Any]
    parts: Float32
    """Real and imaginary parts of the kept bins, side by side."""
    squares: Float32
    real_squares: Float32
    imaginary_squares: Float32
    power: Float32
    wide: NDArray[np.float64]
    """The same as `padded` and `spectrum` for the compiled kernels."""
    wide_spectrum: NDArray[np.complex128]


class Spectrogram:
    """Streaming spectrogram of one channel.

    Every frame is computed from its own samples by operations whose result does not
    depend on the rest of the call, so that the frames are the same to the last bit
    however blocks are cut.

    Parameters
    ----------
    options : SpectrogramOptions
        Frames, scale and scaling.
    sample_rate : int
        Rate of the samples in Hz.
    place : Bundle or Path
        Bundle, or folder, of the scaling file.

    Attributes
    ----------
    n_bins, hop_length, frame_length : int
        Shape of the frames.
    latency : int
        Look-ahead of a frame in samples: `frame_length`.
    frequencies_hz : float64[n_bins]
        Frequency of each bin, or centre of each mel band.
    spacing : {'linear', 'mel'}
        Scale on which the bins are equally far apart.
    value_scale : {'linear', 'log', 'mel', 'scaled'}
        Meaning of the values: that of the option `scale`, or scaled per bin.
    value_range : tuple of float, optional
        Smallest and largest value, where they are clipped.

    Raises
    ------
    ConfigError
        Options that are impossible at this rate, or a scaling of another shape.
    """

    def __init__(
        self, options: SpectrogramOptions, sample_rate: int, place: Bundle | Path
    ) -> None:
        length, hop, n_fft = options.lengths(sample_rate)
        self.frame_length = self.latency = length
        self.hop_length = hop
        is_log = options.scale == "log"
        self._log_floor = np.float32(options.floor) if is_log else None
        self._remove_mean = options.detrend == "constant"
        self._window = window_of(options.window, length, options.tukey_alpha)

        high_hz = options.high_hz or sample_rate / 2
        self._bins = kept_bins(options.low_hz, high_hz, sample_rate, n_fft)
        hz = bin_frequencies(sample_rate, n_fft)[self._bins]
        self._gain = density_gain(self._window, sample_rate, n_fft)[self._bins]
        if options.power_kind == "magnitude":
            self._gain = np.ones_like(self._gain)
        self._mel: Float32 | None = None
        if options.scale == "mel":
            self._mel, hz = mel_filters(hz, options.n_mels, options.low_hz, high_hz)
        self.frequencies_hz = hz
        self.n_bins = len(hz)
        self.spacing: Literal["linear", "mel"] = (
            "mel" if options.scale == "mel" else "linear"
        )
        self.value_scale: Literal["linear", "log", "mel", "scaled"] = options.scale
        self.value_range: tuple[float, float] | None = None
        self._scaling = None
        if options.scaling is not None:
            name, clip = options.scaling.file, options.scaling.clip
            self._scaling = load_scaling(place, name, self.n_bins, clip)
            self.value_scale, self.value_range = "scaled", clip

        self._stop: int | None = None  # where the next block must start
        self._work = np.zeros((_BATCH - 1) * hop + length, np.float32)
        self._frames = np.lib.stride_tricks.as_strided(
            self._work, (_BATCH, length), (hop * 4, 4), writeable=False
        )
        # Columns beyond the frame stay zero: that is the zero padding.
        self._padded = np.zeros((_BATCH, n_fft), np.float32)
        self._spectrum: NDArray[Any] = np.empty((_BATCH, n_fft // 2 + 1), np.complex64)
        self._wide = np.zeros(self._padded.shape)
        self._wide_spectrum = np.empty(self._spectrum.shape, np.complex128)
        self._mean = np.empty((_BATCH, 1), np.float32)
        self._squares = np.empty((_BATCH, 2 * self._gain.size), np.float32)
        self._power = np.empty((_BATCH, self._gain.size), np.float32)
        self._mel_tile = np.zeros((MEL_TILE, self._gain.size), np.float32)
        self._views: dict[int, _Views] = {}
        # What the compiled kernels compute.
        self._is_simple = self._remove_mean and self._log_floor is not None
        self.reset()

    def process(self, item: Block | Gap, /) -> Iterable[Frames]:
        """Return the frames that `item` completes, as one Frames.

        A gap discards the incomplete frame.

        Raises
        ------
        ValueError
            A block does not start at the end of the previous one, and there was no
            gap between them.
        """
        if isinstance(item, Gap):
            self.reset()
            return ()
        if item.start != self._stop:
            self._begin(item.start)
        self._stop = stop = item.start + len(item.samples)
        first = self._next
        complete = (stop - self.frame_length) // self.hop_length + 1
        values = np.empty((max(0, complete - first), self.n_bins), np.float32)
        # A sample that is not finite affects its own frames only: no warning.
        with np.errstate(all="ignore"):
            self._fill(item.samples[:, 0], values)
        if not len(values):
            return ()
        return (Frames(first, self.hop_length, self.frame_length, values),)

    def flush(self) -> Iterable[Frames]:
        """Return nothing: an incomplete frame is discarded."""
        return ()

    def reset(self) -> None:
        """Discard the incomplete frame; the next block may start anywhere."""
        self._stop = None
        self._next = 0  # frame that work[0] belongs to
        self._held = 0  # samples in work; below 0: samples to skip before it

    def batch(self, stages: Sequence["Spectrogram"], /) -> StageBatch | None:
        """Return a batch of the spectrograms of several channels (`Batches`)."""
        from neurovocal.plugins.features.channels import SpectrogramBatch

        return SpectrogramBatch.of(stages)

    def _begin(self, start: int) -> None:
        """Align the frame grid to a first block; refuse one after a hole."""
        if self._stop is not None:
            raise ValueError(
                f"block starts at {start}, expected {self._stop}: missing samples "
                "must be declared as a Gap"
            )
        self._next = -(-start // self.hop_length)
        self._held = start - self._next * self.hop_length

    def _fill(self, samples: Float32, values: Float32) -> None:
        """Write the frames of held samples and `samples` to `values`, in batches."""
        taken = done = 0
        while taken < len(samples):
            if self._held < 0:
                skipped = min(-self._held, len(samples) - taken)
                taken += skipped
                self._held += skipped
                continue
            count = min(len(self._work) - self._held, len(samples) - taken)
            stop = self._held + count
            self._work[self._held : stop] = samples[taken : taken + count]
            taken += count
            self._held = stop
            n_frames = (stop - self.frame_length) // self.hop_length + 1
            if n_frames > 0:
                self._transform(n_frames, values[done : done + n_frames])
                done += n_frames
                self._next += n_frames
                used = n_frames * self.hop_length
                self._held = stop - used
                if self._held > 0:
                    self._work[: self._held] = self._work[used:stop]

    def _transform(self, n_frames: int, out: Float32) -> None:
        """Write the first `n_frames` frames of the work buffer to `out`."""
        views = self._views.get(n_frames) or self._views_of(n_frames)
        if self._is_simple and _WINDOW.call and _POWER.call and _SCALE.call:
            window, power_above, scale = _WINDOW.call, _POWER.call, _SCALE.call
            self._transform_compiled(window, power_above, scale, views, out)
            return
        frames = views.frames
        if self._remove_mean:
            np.add.reduce(frames, axis=1, keepdims=True, out=views.mean)
            np.true_divide(views.mean, self.frame_length, out=views.mean)
            np.subtract(frames, views.mean, out=views.windowed)
            frames = views.windowed
        np.multiply(frames, self._window, out=views.windowed)
        real_transform(views.padded, views.spectrum)
        np.multiply(views.parts, views.parts, out=views.squares)
        power = out if self._mel is None else views.power
        np.add(views.real_squares, views.imaginary_squares, out=power)
        np.multiply(power, self._gain, out=power)
        if self._mel is not None:
            self._to_mel(power, out)
            np.add(out, np.float32(1.0), out=out)
            log10(out)
        if self._log_floor is not None:
            np.add(out, self._log_floor, out=out)
            log10(out)
        if self._scaling is not None:
            self._scaling.apply(out)

    def _transform_compiled(
        self,
        window_frames: Callable[..., None],
        power_above: Callable[..., None],
        scale_and_clip: Callable[..., None],
        views: "_Views",
        out: Float32,
    ) -> None:
        """Write the same with loops that go over each array once."""
        wide, spectrum = views.wide, views.wide_spectrum
        window_frames(self._work, self.hop_length, self._window, wide)
        real_transform(wide, spectrum)
        first = self._bins.start
        power_above(spectrum, first, self._gain, self._log_floor, out)
        scaling = self._scaling
        if scaling is not None and scaling.clip is not None:
            low, high = scaling.clip
            np.log(out, out=out)
            scale_and_clip(out, LOG10_OF_E, scaling.offset, scaling.gain, low, high)
            return
        log10(out)
        if scaling is not None:
            scaling.apply(out)

    def _views_of(self, n_frames: int) -> "_Views":
        """Return the first rows of the work arrays; slicing each call would cost."""
        squares = self._squares[:n_frames]
        padded = self._padded[:n_frames]
        views = self._views[n_frames] = _Views(
            frames=self._frames[:n_frames],
            mean=self._mean[:n_frames],
            padded=padded,
            windowed=padded[:, : self.frame_length],
            spectrum=self._spectrum[:n_frames],
            parts=self._spectrum[:n_frames, self._bins].view(np.float32),
            squares=squares,
            real_squares=squares[:, 0::2],
            imaginary_squares=squares[:, 1::2],
            power=self._power[:n_frames],
            wide=self._wide[:n_frames],
            wide_spectrum=self._wide_spectrum[:n_frames],
        )
        return views

    def _to_mel(self, power: Float32, out: Float32) -> None:
        """Write the power in mel bands, multiplying in tiles of the frame grid."""
        assert self._mel is not None
        done = 0
        while done < len(power):
            row = (self._next + done) % MEL_TILE
            count = min(MEL_TILE - row, len(power) - done)
            self._mel_tile[row : row + count] = power[done : done + count]
            bands = self._mel_tile @ self._mel
            out[done : done + count] = bands[row : row + count]
            done += count


def _build(options: SpectrogramOptions, context: BuildContext) -> Spectrogram:
    if context.info is None:
        raise ConfigError("the spectrogram needs a stream with a known sample rate")
    return _at_rate(options, context, context.info.sample_rate)


def _at_rate(
    options: SpectrogramOptions, context: BuildContext, sample_rate: int
) -> Spectrogram:
    return Spectrogram(options, sample_rate, context.bundle or context.base)


def _check(options: SpectrogramOptions, context: BuildContext) -> Iterable[str]:
    """Yield problems of a trial build, if the rate is known before the source opens."""
    front_end = context.bundle.manifest.stated_front_end if context.bundle else None
    rate = front_end.sample_rate if front_end else None
    rate = context.info.sample_rate if context.info else rate
    if rate is None:
        return
    try:
        _at_rate(options, context, rate)
    except ConfigError as error:
        yield from error.problems


plugin = Plugin(
    kind="features",
    options=SpectrogramOptions,
    build=_build,
    summary="rolling spectrogram: linear, log or mel, on the stream's frame grid",
    check=_check,
)


def _is_equal(kernel: Callable[..., Any]) -> bool:
    """Return whether the compiled kernels give the bits of NumPy for noise."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(256 + 128 * 3).astype(np.float32)
    window = rng.uniform(0, 1, 256).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(noise, 256)[::128]
    found: NDArray[Any]
    expected: NDArray[Any]
    if kernel.__name__ == "window_frames":
        mean = np.add.reduce(frames, axis=1, keepdims=True)
        expected = np.multiply(frames - mean / np.float32(256), window)
        found = np.zeros((4, 256))
        kernel(noise, 128, window, found)
    elif kernel.__name__ == "power_above":
        rows = frames.astype(np.float64)
        wide, spectrum = np.fft.rfft(rows), np.empty((4, 129), np.complex64)
        real_transform(frames.copy(), spectrum)
        parts = np.square(spectrum[:, 2:].view(np.float32))
        expected = (parts[:, 0::2] + parts[:, 1::2]) * window[:127] + np.float32(0.1)
        found = np.zeros((4, 127), np.float32)
        kernel(wide, 2, window[:127].copy(), np.float32(0.1), found)
    else:
        low, high = np.float32(-0.3), np.float32(0.4)
        found, offset = frames.copy(), window - np.float32(0.5)
        expected = ((found * LOG10_OF_E - offset) * window).clip(low, high)
        kernel(found, LOG10_OF_E, offset, window, low, high)
    return np.array_equal(found, expected)


_KERNELS = "neurovocal.plugins.features.kernels"
_WINDOW = Kernel(_KERNELS, "window_frames", _is_equal)
_POWER = Kernel(_KERNELS, "power_above", _is_equal)
_SCALE = Kernel(_KERNELS, "scale_and_clip", _is_equal)
