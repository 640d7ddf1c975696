"""Rows of the recent past by frame number."""

import numpy as np

from neurovocal.engine.types import Float32


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
