"""Measures of labels and predictions, on plain arrays and sequences."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.rows import Rows

# A row of eight frames of 129 bins in double precision is 8 kB.
_PART_FRAMES = 10_000


def edit_distance(reference: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions (Levenshtein 1966)."""
    row = list(range(len(found) + 1))
    for i, wanted in enumerate(reference, start=1):
        previous, row[0] = row[0], i
        for j, got in enumerate(found, start=1):
            cost = min(row[j] + 1, row[j - 1] + 1, previous + (wanted != got))
            previous, row[j] = row[j], cost
    return row[-1]


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Errors among things that could have been wrong."""

    errors: int = 0
    total: int = 0

    def __add__(self, other: "ErrorCount") -> "ErrorCount":
        """Pool two counts."""
        return ErrorCount(self.errors + other.errors, self.total + other.total)

    @property
    def percent(self) -> float | None:
        """Errors per hundred; None when nothing was counted."""
        return 100.0 * self.errors / self.total if self.total else None


def frame_errors(target: NDArray[np.int64], answered: NDArray[np.int64]) -> ErrorCount:
    """Frames answered wrongly, silence being a unit; ignored frames left out."""
    counted = target != IGNORED
    wrong = (target != answered) & counted
    return ErrorCount(int(wrong.sum()), int(counted.sum()))


def unit_runs(answered: NDArray[np.int64], target: NDArray[np.int64]) -> list[int]:
    """Units of the runs of equal non-silent frames: labels without any detector.

    Runs that lie on ignored frames for the most part are left out.
    """
    edges = np.flatnonzero(np.diff(answered)) + 1
    starts = [0, *edges.tolist()]
    stops = [*edges.tolist(), len(answered)]
    found = []
    for start, stop in zip(starts, stops, strict=True):
        if stop > start and answered[start] > 0:
            ignored = target[start:stop] == IGNORED
            if 2 * int(ignored.sum()) <= stop - start:
                found.append(int(answered[start]))
    return found


def true_runs(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First index of each run of marks and first after it, int64[n_runs, 2]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marks.astype(np.int8), [0]])))
    return edges.reshape(-1, 2)


def confusion(
    true: NDArray[np.int64], found: NDArray[np.int64], n_units: int
) -> NDArray[np.int64]:
    """Counts [n_units, n_units]: row is the true unit, column the answer."""
    flat = np.bincount(true * n_units + found, minlength=n_units * n_units)
    return flat.reshape(n_units, n_units)


@dataclass(frozen=True, slots=True)
class LinearPredictor:
    """Ridge regression of the next frame on the last `order` frames.

    The yardstick for a one-step prediction: AR(order) over all bins at once.
    """

    weights: NDArray[np.float64]
    order: int

    @classmethod
    def fit(
        cls, songs: Sequence[Rows], order: int, ridge: float = 1.0
    ) -> "LinearPredictor":
        """Least squares on `songs`, with a small penalty on the weights."""
        n = songs[0].shape[1] * order + 1
        gram = ridge * np.eye(n)
        cross = np.zeros((n, songs[0].shape[1]))
        for song in songs:
            for part in _parts(song, order):
                past = _past(part, order)
                gram += past.T @ past
                cross += past.T @ part[order:]
        return cls(np.linalg.solve(gram, cross).astype(np.float64), order)

    def residual(self, song: Float32) -> NDArray[np.float64]:
        """What the prediction of frames `order`, `order` + 1, ... misses."""
        return song[self.order :] - _past(song, self.order) @ self.weights

    def squared_error(self, songs: Sequence[Rows], skip: int) -> float:
        """Mean squared error of frames `skip`, `skip` + 1, ... of each song."""
        total, count = 0.0, 0
        for song in songs:
            for part in _parts(song, self.order, skip - self.order):
                error = self.residual(part)
                total += float(np.square(error).sum())
                count += error.size
        return total / count if count else float("nan")

    def predict(self, song: Float32) -> Float32:
        """Expectation of the frame after each, float32[n_frames, n_bins].

        The first `order` - 1 frames have too short a past: silence (0) is put
        before them.
        """
        before = np.zeros((self.order - 1, song.shape[1]), song.dtype)
        after = np.zeros((1, song.shape[1]), song.dtype)
        padded = np.concatenate([before, song, after])
        return (_past(padded, self.order) @ self.weights).astype(np.float32)


def _parts(song: Rows, order: int, start: int = 0) -> Iterator[Float32]:
    """Pieces that overlap by `order` frames: rows of many frames are large."""
    for first in range(start, len(song) - order, _PART_FRAMES):
        yield song[first : first + _PART_FRAMES + order]


def _past(song: Float32, order: int) -> NDArray[np.float64]:
    """Rows of the `order` frames before each frame, newest first, and a one."""
    n = len(song) - order
    columns = [song[order - 1 - lag : order - 1 - lag + n] for lag in range(order)]
    return np.concatenate([*columns, np.ones((n, 1), np.float32)], axis=1).astype(float)


IGNORED = -1
