"""Segments of frames by level alone: the same rule for real and drawn song.

Drawn song has no waveform that a detector could hear, so the detector works on the
frames: mean level over the bins, smoothed over three frames, against one
threshold, which is fitted on annotated training song.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.types import Float32
from neurovocal.models.measure import runs_above

_SMOOTHED_FRAMES = 3
# A break of at most this many frames is inside a segment; a shorter sound is none.
_LONGEST_BREAK = 2
_SHORTEST_SEGMENT = 6


@dataclass(frozen=True, slots=True)
class FrameDetector:
    """Segments where the smoothed mean level is above `threshold`."""

    threshold: float

    @classmethod
    def fit(
        cls, songs: Sequence[Float32], voiced: Sequence[NDArray[np.bool_]]
    ) -> "FrameDetector":
        """Threshold that agrees with the annotation in most frames.

        Parameters
        ----------
        songs : sequence of float32[n_frames, n_bins]
        voiced : sequence of bool[n_frames]
            Whether a frame's centre lies in an annotated segment.
        """
        level = np.concatenate([_level(song) for song in songs])
        truth = np.concatenate(list(voiced))
        tried = np.quantile(level, np.linspace(0.05, 0.95, 91))
        agreement = [np.mean((level > threshold) == truth) for threshold in tried]
        return cls(float(tried[int(np.argmax(agreement))]))

    def __call__(self, song: Float32) -> NDArray[np.int64]:
        """First frame of each segment and first after it, int64[n_segments, 2]."""
        runs = runs_above(_level(song) > self.threshold)
        if not len(runs):
            return runs
        breaks = runs[1:, 0] - runs[:-1, 1] > _LONGEST_BREAK
        first = runs[np.concatenate([[True], breaks]), 0]
        stop = runs[np.concatenate([breaks, [True]]), 1]
        joined: NDArray[np.int64] = np.stack([first, stop], axis=1)
        return joined[stop - first >= _SHORTEST_SEGMENT, :]


def _level(song: Float32) -> NDArray[np.float64]:
    level: NDArray[np.float64] = song.mean(1).astype(np.float64)
    if len(song) < _SMOOTHED_FRAMES:  # np.convolve would return the kernel's length
        return level
    kernel = np.full(_SMOOTHED_FRAMES, 1.0 / _SMOOTHED_FRAMES)
    level = np.convolve(level, kernel, "same")
    return level


def largest_gap(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Kolmogorov-Smirnov distance of two samples; 1 when one is empty."""
    if not len(a) or not len(b):
        return 1.0
    at = np.unique(np.concatenate([a, b]))
    shares = [np.searchsorted(np.sort(x), at, "right") / len(x) for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())
