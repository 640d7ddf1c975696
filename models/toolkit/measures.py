"""Error measures of labels and predictions, on arrays and sequences."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.rows import Rows

Float64: TypeAlias = NDArray[np.float64]
IGNORED = -1
# A row of eight frames of 129 bins in double precision takes 8 kB.
_PART_FRAMES = 10_000


def edit_distance(reference: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """Return the fewest insertions, deletions and substitutions (Levenshtein 1966).

    Few edits are found at once: only prefixes whose lengths differ by at most as many
    are compared, and by twice as many until that suffices (Ukkonen 1985).
    """
    most = max(len(reference), len(found))
    band = max(abs(len(reference) - len(found)), 4)
    while (distance := _distance_within(reference, found, band)) > band < most:
        band *= 2
    return distance


def _distance_within(
    reference: Sequence[Hashable], found: Sequence[Hashable], band: int
) -> int:
    """Return the edit distance if it is at most `band`, or a number above it."""
    n, beyond = len(found), len(reference) + len(found) + 1
    row = [j if j <= band else beyond for j in range(n + 1)]
    for i, expected in enumerate(reference, start=1):
        first, last = max(1, i - band), min(n, i + band)
        previous = row[first - 1]
        row[first - 1] = i if first == 1 and i <= band else beyond
        left = row[first - 1]
        for j in range(first, last + 1):
            above = row[j]
            best = previous + (expected != found[j - 1])
            left = min(above + 1, left + 1, best)
            row[j], previous = left, above
    return row[n]


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """Number of errors among a total of counted items."""

    errors: int = 0
    total: int = 0

    def __add__(self, other: "ErrorCount") -> "ErrorCount":
        """Add errors and totals."""
        return ErrorCount(self.errors + other.errors, self.total + other.total)

    @property
    def percent(self) -> float | None:
        """Errors in percent of the total; None if the total is 0."""
        return 100.0 * self.errors / self.total if self.total else None


def frame_errors(target: NDArray[np.int64], predicted: NDArray[np.int64]) -> ErrorCount:
    """Count frames with a wrong unit; silence is a unit, `IGNORED` is not counted."""
    counted = target != IGNORED
    wrong = (target != predicted) & counted
    return ErrorCount(int(wrong.sum()), int(counted.sum()))


def unit_runs(predicted: NDArray[np.int64], target: NDArray[np.int64]) -> list[int]:
    """Return the units of the runs of equal, non-silent frames.

    Runs of which more than half lies on `IGNORED` frames are left out.
    """
    edges = np.flatnonzero(np.diff(predicted)) + 1
    starts = [0, *edges.tolist()]
    stops = [*edges.tolist(), len(predicted)]
    found = []
    for start, stop in zip(starts, stops, strict=True):
        if stop > start and predicted[start] > 0:
            ignored = target[start:stop] == IGNORED
            if 2 * int(ignored.sum()) <= stop - start:
                found.append(int(predicted[start]))
    return found


def true_runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the ranges ``[first, stop)`` of true values, int64[n_runs, 2]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return edges.reshape(-1, 2)


def confusion(
    true: NDArray[np.int64], found: NDArray[np.int64], n_units: int
) -> NDArray[np.int64]:
    """Count pairs of units, int64[n_units, n_units]: rows are true, columns found."""
    flat = np.bincount(true * n_units + found, minlength=n_units * n_units)
    return flat.reshape(n_units, n_units)


@dataclass(frozen=True, slots=True)
class LinearPredictor:
    """Ridge regression of the next frame on the last `order` frames, over all bins.

    An AR(`order`) model is the baseline of one-step prediction.
    """

    weights: Float64
    order: int

    @classmethod
    def fit(
        cls, songs: Sequence[Rows], order: int, ridge: float = 1.0
    ) -> "LinearPredictor":
        """Fit by least squares on `songs`, with penalty `ridge` on squared weights."""
        n = songs[0].shape[1] * order + 1
        gram = ridge * np.eye(n)
        cross = np.zeros((n, songs[0].shape[1]))
        for song in songs:
            for part in _parts(song, order):
                past = _lagged_frames(part, order)
                gram += past.T @ past
                cross += past.T @ part[order:]
        return cls(np.linalg.solve(gram, cross).astype(np.float64), order)

    def residual(self, song: Float32) -> Float64:
        """Return the prediction errors of frames `order`, `order` + 1, ..."""
        return song[self.order :] - _lagged_frames(song, self.order) @ self.weights

    def squared_error(self, songs: Sequence[Rows], skip: int) -> float:
        """Return the mean squared error of frames `skip`, `skip` + 1, ... of all songs.

        NaN if the songs have no such frame.
        """
        total, count = 0.0, 0
        for song in songs:
            for part in _parts(song, self.order, skip - self.order):
                error = self.residual(part)
                total += float(np.square(error).sum())
                count += error.size
        return total / count if count else float("nan")

    def predict(self, song: Float32) -> Float32:
        """Predict the frame after each frame, float32[n_frames, n_bins].

        `order` - 1 frames of silence (0) are put before the first frame.
        """
        before = np.zeros((self.order - 1, song.shape[1]), song.dtype)
        after = np.zeros((1, song.shape[1]), song.dtype)
        padded = np.concatenate([before, song, after])
        return (_lagged_frames(padded, self.order) @ self.weights).astype(np.float32)


def _parts(song: Rows, order: int, start: int = 0) -> Iterator[Float32]:
    """Yield pieces that overlap by `order` frames, to limit memory."""
    for first in range(start, len(song) - order, _PART_FRAMES):
        yield song[first : first + _PART_FRAMES + order]


def _lagged_frames(song: Float32, order: int) -> Float64:
    """Stack the `order` frames before each frame, newest first, and a constant 1."""
    n = len(song) - order
    columns = [song[order - 1 - lag : order - 1 - lag + n] for lag in range(order)]
    return np.concatenate([*columns, np.ones((n, 1), np.float32)], axis=1).astype(float)
