"""Recent rows of a series numbered by frames, and running sums of posteriors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from neurovocal.engine import Float32
from neurovocal.engine.support.compiled import Kernel

Float64 = NDArray[np.float64]
_MOST_UNITS = 128  # of the compiled sums


def log_softmax(logits: Float32) -> Float64:
    """Return the log-posteriors float64[..., n_units] of logits."""
    scores = logits.astype(np.float64)
    if scores.size == scores.shape[-1]:  # the same numbers with less handling of axes
        row = scores.reshape(-1)
        row -= row[row.argmax()]
        row -= np.log(np.add.reduce(np.exp(row)))
        return scores
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    scores -= np.log(np.add.reduce(np.exp(scores), axis=-1, keepdims=True))
    return scores


class RowHistory:
    """The last rows of a series that is numbered by frames.

    Parameters
    ----------
    shape : tuple of int
        Shape of one row.
    keep : int
        Rows that stay available; memory is bounded by about twice as many.
    dtype : dtype
        Type of the numbers.

    Attributes
    ----------
    first, stop : int
        Frames whose rows are known: ``[first, stop)``.
    """

    def __init__(
        self, shape: tuple[int, ...], keep: int, dtype: DTypeLike = np.float32
    ) -> None:
        self._shape = shape
        self.keep = keep
        self._dtype = dtype
        self.reset()

    def reset(self) -> None:
        """Drop all rows; the next may be of any frame."""
        self._rows: NDArray[Any] = np.empty((64, *self._shape), self._dtype)
        self.first = self.stop = 0

    def append(self, first: int, rows: NDArray[Any]) -> None:
        """Add the rows ``[n, *shape]`` of `first` and the frames after it.

        `first` is any frame where no row is known, else the frame `stop`.
        """
        self.extend(first, len(rows))[...] = rows

    def extend(self, first: int, n_rows: int) -> NDArray[Any]:
        """Add rows like `append`, and return their memory, to be filled at once."""
        held = self.stop - self.first
        if held == 0:
            self.first = self.stop = first
        if held > 2 * self.keep:
            self._rows[: self.keep] = self._rows[held - self.keep : held]
            self.first = self.stop - self.keep
            held = self.keep
        end = held + n_rows
        if end > len(self._rows):
            grown = np.empty((2 * end, *self._shape), self._dtype)
            grown[:held] = self._rows[:held]
            self._rows = grown
        self.stop += n_rows
        return self._rows[held:end]

    def known(self) -> NDArray[Any]:
        """Return the rows ``[stop - first, *shape]`` of the known frames, as a view."""
        return self._rows[: self.stop - self.first]

    def get(self, frame: int) -> NDArray[Any] | None:
        """Return a copy of the row of a frame; None where it is not known."""
        if not self.first <= frame < self.stop:
            return None
        row: NDArray[Any] = self._rows[frame - self.first].copy()
        return row


class PosteriorHistory:
    """Running sums of log-posteriors, so that the sum of a segment is one subtraction.

    Parameters
    ----------
    n_units : int
        Columns of the posteriors.
    keep : int
        Frames that stay available; memory is bounded by about twice as many.

    Attributes
    ----------
    first, stop : int
        First known frame, and the frame after the last known one.
    is_empty : bool
        No frame is known.
    """

    def __init__(self, n_units: int, keep: int) -> None:
        # Row of frame k: sum over the frames since `reset` that come before k.
        self._sums = RowHistory((n_units,), keep, np.float64)
        self._nothing = np.zeros((1, n_units))
        self.reset()

    def reset(self) -> None:
        """Drop all frames; the next may be any."""
        self._sums.reset()
        self.first = self.stop = 0
        self.is_empty = True
        self._total: Float64 = self._nothing[0]

    def append(self, first: int, log_posteriors: Float64) -> None:
        """Add float64[n_frames, n_units], of `first` and the frames after it.

        `first` is any frame where none is known, else the frame `stop`.
        """
        if self.is_empty:
            self._sums.append(first, self._nothing)
        sums = self._sums.extend(first + 1, len(log_posteriors))
        if len(sums) == 1:
            np.add(log_posteriors, self._total, out=sums)
        else:
            np.add.accumulate(log_posteriors, axis=0, out=sums)
            sums += self._total
        self._total = sums[-1].copy()
        self.first, self.stop = self._sums.first, self._sums.stop - 1
        self.is_empty = False

    def append_logits(self, first: int, logits: Float32) -> Float32:
        """Add the log-posteriors of logits, and return the posteriors.

        Parameters
        ----------
        first : int
            Frame of the first row, as for `append`.
        logits : float32[n_frames, n_units]
            At least one row; all finite.

        Returns
        -------
        float32[n_frames, n_units]
        """
        compiled = _ADD.call
        if compiled is None or logits.shape[1] > _MOST_UNITS:
            log_posteriors = log_softmax(logits)
            self.append(first, log_posteriors)
            return np.exp(log_posteriors).astype(np.float32)
        if self.is_empty:
            self._sums.append(first, self._nothing)
            self._total = self._nothing[0].copy()
        sums = self._sums.extend(first + 1, len(logits))
        posteriors = np.empty(logits.shape, np.float32)
        compiled(logits, self._total, sums, posteriors)
        self.first, self.stop = self._sums.first, self._sums.stop - 1
        self.is_empty = False
        return posteriors

    @property
    def sums(self) -> RowHistory:
        """Sums before each known frame, and before the first unknown one."""
        return self._sums

    @property
    def total(self) -> Float64:
        """Sum over all frames since `reset`."""
        return self._total

    def replace(self, first: int, sums: Float64, total: Float64) -> None:
        """Take over `sums` and `total` of another history, as from frame `first` on."""
        self._sums.reset()
        self._sums.append(first, sums)
        self._total = total
        self.first, self.stop = self._sums.first, self._sums.stop - 1
        self.is_empty = False

    def sum_before(self, frame: int) -> Float64:
        """Return the sum over the known frames before `frame`, float64[n_units]."""
        row: Float64 | None = self._sums.get(min(max(frame, self.first), self.stop))
        return self._nothing[0].copy() if row is None else row

    def nearest(self, frame: int) -> Float64:
        """Return the log-posteriors of the known frame that is nearest to `frame`."""
        known = min(max(frame, self.first), self.stop - 1)
        one: Float64 = self.sum_before(known + 1) - self.sum_before(known)
        return one


def _is_equal(kernel: Callable[..., Any]) -> bool:
    """Return whether the compiled kernel gives the bits of NumPy for noise."""
    rng = np.random.default_rng(0)
    for n_units in (2, 7, 12, 40):
        logits = (10 * rng.standard_normal((200, n_units))).astype(np.float32)
        expected = PosteriorHistory(n_units, 400)
        shift = rng.standard_normal((1, n_units))
        expected.append(0, shift)
        total, sums = shift[0].copy(), np.empty((200, n_units))
        posteriors = np.empty((200, n_units), np.float32)
        kernel(logits, total, sums, posteriors)
        log_posteriors = log_softmax(logits)
        expected.append(1, log_posteriors)
        if not (
            np.array_equal(expected.sums.known()[2:], sums)
            and np.array_equal(expected.total, total)
            and np.array_equal(np.exp(log_posteriors).astype(np.float32), posteriors)
        ):
            return False
    return True


# Where NumPy computes exponentials in vectors (AVX-512), the bits may differ.
_ADD = Kernel(
    "neurovocal.plugins.models.classifier.kernels", "add_log_posteriors", _is_equal
)
