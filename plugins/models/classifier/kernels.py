"""Compiled loops of the classifier; importing this module imports numba.

Every loop adds and rounds in the order of its equal in NumPy. What calls each other is
in this one file: numba compiles what it has cached again when its own file changes.
"""

from math import exp, inf, log
from typing import Any

import numpy as np
from numba import float64, int64, types

from neurovocal.engine.support.compiled import compiled

_ROWS = types.Array(types.float32, 2, "A", readonly=True)
_SUMS = types.Array(types.float64, 2, "A")
_VALUES = types.Array(types.float64, 1, "A", readonly=True)
_WORK = float64[::1]


@compiled()
def _sum(values: Any) -> Any:
    """Return the sum of up to 128 values in the order of ``np.add.reduce``."""
    count = len(values)
    if count < 8:
        total = values[0]
        for i in range(1, count):
            total += values[i]
        return total
    parts = values[:8].copy()
    whole = count - count % 8
    for i in range(8, whole):
        parts[i % 8] += values[i]
    total = ((parts[0] + parts[1]) + (parts[2] + parts[3])) + (
        (parts[4] + parts[5]) + (parts[6] + parts[7])
    )
    for i in range(whole, count):
        total += values[i]
    return total


@compiled(types.void(_ROWS, _WORK, _SUMS, types.Array(types.float32, 2, "C")))
def add_log_posteriors(logits: Any, total: Any, sums: Any, posteriors: Any) -> None:
    """Add up the log-posteriors of logits, frame by frame.

    Parameters
    ----------
    logits : float32[n_frames, n_units]
        All finite; at most 128 units.
    total : float64[n_units]
        Sum before the first frame; changed to that after the last.
    sums : float64[n_frames, n_units]
        Gets the sum after each frame.
    posteriors : float32[n_frames, n_units]
        Gets the posteriors.
    """
    n_frames, n_units = logits.shape
    row, weights = np.empty(n_units), np.empty(n_units)
    added = np.zeros(n_units)
    for k in range(n_frames):
        largest = -inf
        for i in range(n_units):
            row[i] = logits[k, i]
            largest = max(largest, row[i])
        for i in range(n_units):
            row[i] -= largest
            weights[i] = exp(row[i])
        shift = log(_sum(weights))
        for i in range(n_units):
            value = row[i] - shift
            # As NumPy accumulates: first the frames of the call, then those before.
            added[i] = value if k == 0 else added[i] + value
            sums[k, i] = added[i] + total[i]
            posteriors[k, i] = exp(value)
    for i in range(n_units):
        total[i] = sums[n_frames - 1, i]


@compiled(
    types.Tuple((int64, float64))(  # type: ignore[no-untyped-call]
        _VALUES, types.Array(types.int64, 1, "C", readonly=True), float64, _VALUES
    )
)
def most_probable(
    log_posteriors: Any, columns: Any, temperature: float, prior: Any
) -> Any:
    """Return the place of the most probable unit among `columns`, and its posterior.

    Parameters
    ----------
    log_posteriors : float64[n_units]
    columns : int64[n_voiced]
        Columns of the units, at most 128.
    temperature : float
    prior : float64[n_voiced] or float64[0]
        Log-priors, should there be any.
    """
    scores = np.empty(len(columns))
    best = 0
    for i in range(len(columns)):
        scores[i] = log_posteriors[columns[i]] / temperature
        if len(prior):
            scores[i] += prior[i]
        if scores[i] > scores[best]:
            best = i
    largest = scores[best]
    for i in range(len(columns)):
        scores[i] = exp(scores[i] - largest)
    return best, 1.0 / _sum(scores)
