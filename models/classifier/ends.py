"""Offsets of each unit's annotated onsets and offsets from the detector's."""

from collections.abc import Sequence

import numpy as np

from neurovocal.engine.contracts.bundle import EndsSpec

# Ends are known from so many segments on, and are not moved further than this.
_LEAST_SEGMENTS = 5
_MOST_MS = 20.0


def pairs_of(
    found: Sequence[tuple[float, float, int]],
    annotated: Sequence[tuple[float, float, int]],
) -> list[tuple[int, float, float]]:
    """Pair segments that overlap no others; rows of unit, onset and offset in ms.

    Parameters
    ----------
    found : sequence of (float, float, int)
        Onset and offset in seconds, and unit, of detected segments in time order.
    annotated : sequence of (float, float, int)
        The same of annotated ones.
    """
    n_over = [0] * len(annotated)
    pairs, first = [], 0
    for number, (onset, offset, _) in enumerate(found):
        while first < len(annotated) and annotated[first][1] <= onset:
            first += 1
        stop = first
        while stop < len(annotated) and annotated[stop][0] < offset:
            n_over[stop] += 1
            stop += 1
        if stop == first + 1:
            pairs.append((number, first))
    rows = []
    for number, at in pairs:
        onset, offset, unit = found[number]
        start, stop_s, true = annotated[at]
        if n_over[at] == 1 and unit == true:
            rows.append((unit, 1000 * (start - onset), 1000 * (stop_s - offset)))
    return rows


def fit_ends(
    rows: Sequence[tuple[int, float, float]], names: Sequence[str]
) -> dict[str, EndsSpec]:
    """Fit the moves of the ends of each unit: medians, where they help other segments.

    Parameters
    ----------
    rows : sequence of (int, float, float)
        Column of the unit, and how much later the annotated onset and offset lie in ms.
    names : sequence of str
        Units by column.

    Returns
    -------
    dict of str to EndsSpec
        Of each unit that medians of every other segment bring nearer to the annotation
        in the segments between. Empty with less than 5 of any unit.
    """
    table = np.array(rows, np.float64).reshape(len(rows), 3)
    ends = {}
    for unit, name in enumerate(names):
        own = table[table[:, 0] == unit, 1:]
        if len(own) < _LEAST_SEGMENTS:
            continue
        moves = np.median(own, axis=0)
        halves = own[::2], own[1::2]
        for one, other in (halves, halves[::-1]):
            moved = np.abs(other - np.median(one, axis=0)).sum(axis=0)
            moves[moved >= np.abs(other).sum(axis=0)] = 0.0
        moves = np.clip(np.round(moves, 2), -_MOST_MS, _MOST_MS)
        if moves.any():
            ends[name] = EndsSpec(onset_ms=float(moves[0]), offset_ms=float(moves[1]))
    return ends
