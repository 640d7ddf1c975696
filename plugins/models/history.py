"""Log-posteriors of the recent past, ready to be summed over any stretch."""

import numpy as np
from numpy.typing import NDArray

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
