"""Compiled loop of the segmenter; importing this module imports numba."""

from typing import Any

from numba import float64, int64, types

from neurovocal.engine.support.compiled import compiled

_SCORES = types.Array(types.float64, 1, "A", readonly=True)


@compiled(int64(_SCORES, float64, float64, int64[:, ::1]))
def find_runs(scores: Any, off: float, on: float, runs: Any) -> int:
    """Write the runs of scores that reach `off`, and return their number.

    Parameters
    ----------
    scores : float64[n]
    off, on : float
        Thresholds.
    runs : int64[n // 2 + 1, 3]
        Gets first score, end, and the first score within the run that reaches `on`,
        counted from its beginning; -1 if none does.

    Returns
    -------
    int
        Number of runs.
    """
    count = 0
    is_within = False
    for i in range(len(scores)):
        if scores[i] >= off:
            if not is_within:
                is_within = True
                runs[count, 0], runs[count, 2] = i, -1
            if runs[count, 2] < 0 and scores[i] >= on:
                runs[count, 2] = i - runs[count, 0]
        elif is_within:
            is_within = False
            runs[count, 1] = i
            count += 1
    if is_within:
        runs[count, 1] = len(scores)
        count += 1
    return count
