"""Percentile method on a whole recording, with its options."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from neurovocal.engine import Options, to_samples
from neurovocal.engine.audio.segmenter import DURATIONS
from neurovocal.engine.contracts.options import DAY_MS, DAY_S


class PercentileOptions(Options):
    """Options of the `percentile` detector."""

    orders = (DURATIONS,)
    scope: Literal["file", "running"] = "file"
    """`file`: the percentile of all samples up to the next gap or the end, so
    that segments are reported only then. `running`: of the recent samples."""
    percentile: float = Field(default=90.0, gt=0, lt=100)
    """Samples with a smoothed amplitude from this percentile on are sound."""
    smooth_ms: float = Field(default=4.0, gt=0, le=10_000)
    """Length of the moving average over the rectified waveform."""
    min_spacing_ms: float = Field(default=2.0, ge=0, le=60_000)
    """Runs that are less than this apart are one segment."""
    min_duration_ms: float = Field(default=15.0, ge=0, le=60_000)
    """Shorter segments are ignored; one of just this length counts."""
    max_duration_ms: float = Field(default=500.0, gt=0, le=DAY_MS)
    """Longer segments are ignored (`file`), or closed as truncated while a new
    one begins (`running`, where the onset has been told already)."""
    buffer_ms: float = Field(default=5.0, ge=0, le=60_000)
    """Added to both ends, as far as neighbours leave room."""
    max_file_s: float = Field(default=600.0, gt=0, le=DAY_S)
    """`file`: audio longer than this without a gap is refused; it is held in
    memory, and segments are told that late."""
    memory_s: float = Field(default=30.0, ge=0.01, le=DAY_S)
    """`running`: time constant of forgetting."""
    settle_s: float = Field(default=1.0, ge=0, le=3600)
    """`running`: marks are held back for so long at the start of a stream."""
    near_misses: bool = False
    """`running`: tell sounds, too, that came within 6 dB of the threshold and
    became no segment, as events of the kind `near_miss`; at most ten in a second, the
    others are counted."""


def smooth(samples: NDArray[np.floating], width: int) -> NDArray[np.float64]:
    """Return the centred moving average of the rectified samples, float64[n].

    Value i is the sum of ``|x|`` over ``[i - width // 2, i + (width + 1) // 2)``
    over `width`; beyond both ends there are zeros. Running sums in float64 are
    exact for what 16 and 24 bit files hold, so that equal levels stay equal.
    """
    before, after = width // 2, (width - 1) // 2
    total = np.zeros(1 + before + len(samples) + after)
    np.abs(samples, out=total[1 + before : 1 + before + len(samples)])
    np.cumsum(total, out=total)
    return np.asarray((total[width:] - total[:-width]) / width)


def percentile_segments(
    samples: NDArray[np.floating],
    sample_rate: int,
    options: PercentileOptions | None = None,
) -> list[tuple[int, int, float]]:
    """Find the segments of a whole recording.

    1. a = moving average of ``|x|`` over `smooth_ms` (`smooth`);
    2. threshold = the `percentile` of a, interpolated linearly between samples;
    3. runs of a >= threshold; runs less than `min_spacing_ms` apart are joined;
    4. runs of `min_duration_ms` to `max_duration_ms`, both included, are kept;
    5. `buffer_ms` is added to both ends, but no segment reaches beyond the
       recording, into the run after it or into the segment before it.

    Parameters
    ----------
    samples : float[n_samples]
        One channel.
    sample_rate : int
        Rate of the samples in Hz.
    options : PercentileOptions, optional
        By default those of the method's description.

    Returns
    -------
    list of (onset, offset, score)
        In samples; the score is the largest a of the run divided by the threshold
        (1.0 where the threshold is zero).

    Notes
    -----
    After the adaptive vocalization detection in the description of the
    NeuroVocal RNN-RBM (section "Spectrogram Preprocessing Pipeline").
    """
    options = options or PercentileOptions()
    if len(samples) == 0:
        return []
    width = max(1, to_samples(options.smooth_ms, sample_rate))
    level = smooth(samples, width)
    threshold = float(np.percentile(level, options.percentile))
    starts, stops = _joined_runs(
        level >= threshold, to_samples(options.min_spacing_ms, sample_rate)
    )
    lengths = stops - starts
    kept = (lengths >= to_samples(options.min_duration_ms, sample_rate)) & (
        lengths <= to_samples(options.max_duration_ms, sample_rate)
    )
    starts, stops = starts[kept], stops[kept]
    buffer = to_samples(options.buffer_ms, sample_rate)
    segments: list[tuple[int, int, float]] = []
    earliest = 0
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        latest = starts[index + 1] if index + 1 < len(starts) else len(samples)
        peak = float(level[start:stop].max())
        score = peak / threshold if threshold > 0 else 1.0
        onset = max(int(start) - buffer, earliest)
        earliest = min(int(stop) + buffer, int(latest))
        segments.append((onset, earliest, score))
    return segments


def _joined_runs(
    above: NDArray[np.bool_], spacing: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and stops of runs of True, joining those closer than `spacing`."""
    padded = np.concatenate(([False], above, [False]))
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    starts, stops = edges[::2], edges[1::2]
    if len(starts) == 0:
        return starts, stops
    apart = starts[1:] - stops[:-1] >= max(spacing, 1)
    return (
        starts[np.concatenate(([True], apart))],
        stops[np.concatenate((apart, [True]))],
    )
