"""Log-posteriors of the recent past, ready to be summed over any stretch."""

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Float32

Float64 = NDArray[np.float64]


class PosteriorHistory:
    """Running sums of log-posteriors, so that a segment is one subtraction.

    Parameters
    ----------
    n_units : int
        Columns.
    keep : int
        Frames that stay available; older ones are forgotten. Memory is bounded
        by twice as many.
    """

    def __init__(self, n_units: int, keep: int) -> None:
        self._keep = keep
        self._n_units = n_units
        self.clear()

    def clear(self) -> None:
        """Forget all frames; the next may be any."""
        # Row i: sum over the frames since `clear` that come before first + i.
        self._sums = np.zeros((64, self._n_units))
        self.first = self.stop = 0

    @property
    def empty(self) -> bool:
        """Whether no frame is known."""
        return self.stop == self.first

    def append(self, first: int, log_posteriors: Float64) -> None:
        """Add float64[n_frames, n_units], of `first` and the frames after it.

        `first` is any frame where nothing is known, else the next one.
        """
        if self.empty:
            self.first = self.stop = first
        held = self.stop - self.first
        if held > 2 * self._keep:
            self._sums[: self._keep + 1] = self._sums[held - self._keep : held + 1]
            self.first = self.stop - self._keep
            held = self._keep
        end = held + len(log_posteriors) + 1
        if end > len(self._sums):
            grown = np.zeros((2 * end, self._n_units))
            grown[: held + 1] = self._sums[: held + 1]
            self._sums = grown
        new = self._sums[held + 1 : end]
        np.cumsum(log_posteriors, axis=0, out=new)
        new += self._sums[held]
        self.stop += len(log_posteriors)

    def before(self, frame: int) -> Float64:
        """Sum over the known frames before `frame`, float64[n_units], a copy."""
        row = min(max(frame, self.first), self.stop) - self.first
        sums: Float64 = self._sums[row].copy()
        return sums

    def at(self, frame: int) -> Float64:
        """Log-posteriors of the known frame that is nearest to `frame`."""
        row = min(max(frame, self.first), self.stop - 1) - self.first
        one: Float64 = self._sums[row + 1] - self._sums[row]
        return one


class RowHistory:
    """The last rows of a series that is numbered by frames.

    Parameters
    ----------
    shape : tuple of int
        Of one row.
    keep : int
        Rows that stay available; memory is bounded by about twice as many.
    """

    def __init__(self, shape: tuple[int, ...], keep: int) -> None:
        self._shape = shape
        self._keep = keep
        self.clear()

    def clear(self) -> None:
        """Forget all rows; the next may be of any frame."""
        self._rows = np.empty((64, *self._shape), np.float32)
        self._first = self._stop = 0

    def append(self, first: int, rows: Float32) -> None:
        """Add float32[n, *shape], which begins with frame `first`."""
        held = self._stop - self._first
        if held == 0:
            self._first = self._stop = first
        if held > 2 * self._keep:
            self._rows[: self._keep] = self._rows[held - self._keep : held]
            self._first = self._stop - self._keep
            held = self._keep
        end = held + len(rows)
        if end > len(self._rows):
            grown = np.empty((2 * end, *self._shape), np.float32)
            grown[:held] = self._rows[:held]
            self._rows = grown
        self._rows[held:end] = rows
        self._stop += len(rows)

    def get(self, frame: int) -> Float32 | None:
        """Row of a frame, None when it is not known (any more); a copy."""
        if not self._first <= frame < self._stop:
            return None
        row: Float32 = self._rows[frame - self._first].copy()
        return row
