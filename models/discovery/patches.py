"""Patches: spectrograms of segments, all of one shape, above the recording's noise.

A patch has `N_COLUMNS` columns and `N_BINS` bins. A segment of duration ``d`` fills
``N_COLUMNS * sqrt(d / longest)`` columns in the middle, so that a patch shows the
duration, too, and short segments still have several columns (J. Goffinet, S. Brudner,
R. Mooney and J. Pearson, "Low-dimensional learned feature spaces quantify individual
and group differences in vocal repertoires", eLife 10, 2021, stretch time likewise). A
value is the level above the noise floor of its bin, 0 to `RANGE_DB` as 0 to 255.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.errors import AudioFileError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.discovery.segments import Segments, SourceRecording
from neurovocal.plugins.detectors.band_level import ULTRASONIC_RATE, default_band
from neurovocal.plugins.features.spectrum import window_of
from neurovocal.plugins.sources.audio_files.file import Recording, inspect

N_COLUMNS, N_BINS = 32, 48
RANGE_DB = 60.0
_WINDOW_S = 30.0  # of sound in memory; its frames give the noise floor
_FLOOR_FRAMES = 2000
_FLOOR_QUANTILE = 0.15
# Longer segments fill a patch as one of this duration does.
_LONGEST_QUANTILE = 0.98
_LEAST_CORNER_HZ = 2000.0
_HIGHEST = 0.48  # of the rate
_LEAST_FRAME = 16
_TINY = 1e-10

Patches = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """Time and frequency axes of patches.

    Parameters
    ----------
    frame_ms : float
        Length of the window of a column.
    low_hz, high_hz : float
        Edges of the bins.
    corner_hz : float
        The bins are linearly spaced below and logarithmically above.
    longest_s : float
        Duration that fills a patch.
    """

    frame_ms: float
    low_hz: float
    high_hz: float
    corner_hz: float
    longest_s: float

    @property
    def centres_hz(self) -> NDArray[np.float64]:
        """Frequencies of the bins, float64[N_BINS]."""
        return self.corners_hz[1:-1]

    @property
    def corners_hz(self) -> NDArray[np.float64]:
        """Corners of the triangular filters, float64[N_BINS + 2]."""
        edges = np.log1p(np.array([self.low_hz, self.high_hz]) / self.corner_hz)
        hz: NDArray[np.float64] = self.corner_hz * np.expm1(
            np.linspace(edges[0], edges[1], N_BINS + 2)
        )
        return hz


def spec_of(
    recordings: Sequence[SourceRecording],
    durations_s: NDArray[np.float64],
    options: Mapping[str, Any],
) -> PatchSpec:
    """Choose the axes by the commonest sample rate, the detector and the durations.

    Parameters
    ----------
    recordings : sequence of SourceRecording
        One at least has been read.
    durations_s : float64[n_segments]
        Durations of all segments.
    options : mapping
        Options of the detector: patches show its band, if it has one.
    """
    rates = Counter(r.sample_rate for r in recordings if r.sample_rate)
    rate = max(rates, key=lambda each: (rates[each], each))
    low = options.get("call_low_hz") or options.get("low_hz") or default_band(rate)[0]
    high = options.get("call_high_hz") or options.get("high_hz") or _HIGHEST * rate
    high = min(float(high), _HIGHEST * rate)
    low = min(float(low), high / 2)
    longest = float(np.quantile(durations_s, _LONGEST_QUANTILE))
    corner = max(_LEAST_CORNER_HZ, rate / 16)
    return PatchSpec(_frame_ms(rate), low, high, corner, max(longest, 1e-4))


def _frame_ms(rate: int) -> float:
    if rate > ULTRASONIC_RATE:
        return 2.0
    return 12.0 if rate > 16_000 else 25.0


class PatchMaker:
    """Computes the patches of segments from the samples of one channel.

    Parameters
    ----------
    spec : PatchSpec
        Axes.
    sample_rate : int
        Rate of the samples in Hz.
    """

    def __init__(self, spec: PatchSpec, sample_rate: int) -> None:
        self.frame_length = max(_LEAST_FRAME, round(spec.frame_ms * sample_rate / 1000))
        self._longest = spec.longest_s * sample_rate
        self._n_fft = 2 ** int(np.ceil(np.log2(2 * self.frame_length)))
        self._window = window_of("hann", self.frame_length, 0.0)
        self._filters = _filters(spec, sample_rate, self._n_fft)

    def floor(self, samples: Float32) -> NDArray[np.float64]:
        """Return the noise floor of each bin in samples, dB, float64[N_BINS]."""
        n_frames = max(10, 2 * len(samples) // self.frame_length)
        centres = np.linspace(0, len(samples) - 1, min(_FLOOR_FRAMES, n_frames))
        levels = self.levels(samples, centres)
        floor: NDArray[np.float64] = np.quantile(levels, _FLOOR_QUANTILE, axis=0)
        return floor

    def patch(
        self,
        samples: Float32,
        onset: float,
        offset: float,
        floor: NDArray[np.float64],
    ) -> Patches:
        """Return the patch of a segment ``[onset, offset)`` of samples.

        Returns
        -------
        uint8[N_COLUMNS, N_BINS]
        """
        share = np.sqrt(min(1.0, (offset - onset) / self._longest))
        n = int(np.clip(round(N_COLUMNS * share), 2, N_COLUMNS))
        centres = onset + (np.arange(n) + 0.5) / n * (offset - onset)
        excess = self.levels(samples, centres) - floor
        patch = np.zeros((N_COLUMNS, N_BINS), np.uint8)
        first = (N_COLUMNS - n) // 2
        patch[first : first + n] = np.rint(
            np.clip(excess, 0.0, RANGE_DB) * (255.0 / RANGE_DB)
        )
        return patch

    def levels(
        self, samples: Float32, centres: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the levels of frames around samples, dB, float64[n, N_BINS]."""
        first = np.rint(centres).astype(np.int64) - self.frame_length // 2
        at = first[:, None] + np.arange(self.frame_length)
        inside = (at >= 0) & (at < len(samples))
        frames = np.where(inside, samples[np.clip(at, 0, len(samples) - 1)], 0)
        spectrum = np.fft.rfft(frames * self._window, self._n_fft)
        power = np.square(np.abs(spectrum)) @ self._filters
        levels: NDArray[np.float64] = 10 * np.log10(power + _TINY)
        return levels


def _filters(spec: PatchSpec, rate: int, n_fft: int) -> NDArray[np.float64]:
    """Return triangular filters with sum 1, float64[n_fft // 2 + 1, N_BINS].

    A filter is at least two bins of the transform wide on each side. One above half
    the rate is empty.
    """
    hz = np.arange(n_fft // 2 + 1) * rate / n_fft
    corners = spec.corners_hz
    lower = np.minimum(corners[:-2], corners[1:-1] - rate / n_fft)
    upper = np.maximum(corners[2:], corners[1:-1] + rate / n_fft)
    centre = corners[1:-1]
    rising = (hz[:, None] - lower) / (centre - lower)
    falling = (upper - hz[:, None]) / (upper - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    total = weights.sum(0)
    filters: NDArray[np.float64] = weights / np.where(total > 0, total, 1.0)
    return filters


def write_patches(
    out: Patches,
    recordings: Sequence[SourceRecording],
    segments: Segments,
    spec: PatchSpec,
    number: int,
) -> str | None:
    """Compute the patches of one recording's segments.

    Parameters
    ----------
    out : uint8[n_segments, N_COLUMNS, N_BINS]
        Receives the patches, at the places of the segments.
    recordings : sequence of SourceRecording
        All recordings.
    segments : Segments
        All segments.
    spec : PatchSpec
        Axes.
    number : int
        Index of the recording.

    Returns
    -------
    str or None
        Why the recording cannot be read any more; its patches are then empty.
    """
    own = np.flatnonzero(segments.recording == number)
    recording = recordings[number]
    maker = PatchMaker(spec, recording.sample_rate)
    try:
        for channel in np.unique(segments.channel[own]):
            of_channel = own[segments.channel[own] == channel]
            spans = [
                (int(segments.onset[k]), int(segments.offset[k])) for k in of_channel
            ]

            def keep(
                k: int, patch: Patches, places: NDArray[np.int64] = of_channel
            ) -> None:
                out[places[k]] = patch

            each_patch(Path(recording.path), int(channel), spans, maker, keep)
    except AudioFileError as error:
        return str(error)
    return None


def each_patch(
    path: Path,
    channel: int,
    spans: Sequence[tuple[int, int]],
    maker: PatchMaker,
    keep: Callable[[int, Patches], None],
) -> None:
    """Compute the patch of each segment of a channel, with half a minute in memory.

    Parameters
    ----------
    path : Path
        The recording.
    channel : int
        From 1.
    spans : sequence of (int, int)
        Onset and offset in samples, by onset.
    maker : PatchMaker
        Computes them.
    keep : callable
        Receives the index of a segment and its patch.

    Raises
    ------
    AudioFileError
        The recording cannot be read.
    """
    header = inspect(path)
    window = max(1, round(_WINDOW_S * header.sample_rate))
    margin = maker.frame_length
    held = np.zeros(0, np.float32)
    start, done = 0, 0
    with closing(Recording(header)) as recording:
        recording.open()
        while done < len(spans):
            block = recording.read(window)[:, channel - 1]
            block = np.nan_to_num(block, posinf=0.0, neginf=0.0)
            ended = len(block) < window
            held = np.concatenate([held, block])
            if not len(held):
                return
            floor = maker.floor(block if len(block) >= window // 2 else held)
            stop = start + len(held)
            while done < len(spans):
                onset, offset = spans[done]
                # What is longer than the window is seen by its first part.
                offset = min(offset, onset + window)
                if offset + margin > stop and not ended:
                    break
                keep(done, maker.patch(held, onset - start, offset - start, floor))
                done += 1
            if ended:
                return
            needed = spans[done][0] - margin if done < len(spans) else stop
            cut = int(np.clip(needed - start, 0, len(held)))
            held, start = held[cut:], start + cut
