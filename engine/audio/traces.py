"""Trace keeper: collects a detector's scores and thresholds while somebody asks."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Trace


class TraceKeeper:
    """Collector of the values of a detector, for its method `trace`.

    It collects nothing before `take` is called for the first time.

    Parameters
    ----------
    hop_length, frame_length : int
        Grid of the values, as in `Trace`.
    unit : str
        Unit of score and thresholds.
    """

    def __init__(self, hop_length: int, frame_length: int, unit: str) -> None:
        self._hop_length, self._frame_length = hop_length, frame_length
        self._unit = unit
        self._traces: list[Trace] | None = None

    @property
    def is_asked(self) -> bool:
        """Whether `add` collects anything: its arguments cost time."""
        return self._traces is not None

    def reset(self) -> None:
        """Collect nothing until `take` is called again."""
        self._traces = None

    def add(
        self,
        first: int,
        score: NDArray[np.float64],
        on: NDArray[np.float64] | float,
        off: NDArray[np.float64] | float,
        floor_db: NDArray[np.float64] | float = np.nan,
    ) -> None:
        """Collect the values of hops ``first, first + 1, ...``.

        Parameters
        ----------
        first : int
            Number of the first hop.
        score : float64[n]
            Value that is compared with the thresholds.
        on, off : float or float64[n]
            Thresholds that begin a segment and that it must keep.
        floor_db : float or float64[n]
            Noise floor in dB re full scale; NaN: the detector has none.
        """
        if self._traces is None or len(score) == 0:
            return
        values = np.empty((len(score), 4), np.float32)
        for column, each in enumerate((score, on, off, floor_db)):
            values[:, column] = each
        values.flags.writeable = False
        grid = (first, self._hop_length, self._frame_length)
        self._traces.append(Trace(*grid, values, self._unit))

    def take(self) -> Iterable[Trace]:
        """Return the values collected since the last call, and go on collecting."""
        traces, self._traces = self._traces, []
        return traces or ()
