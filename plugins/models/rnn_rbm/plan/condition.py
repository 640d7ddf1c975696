"""Input that tells the frame-level RNN-RBM where it is in the plan.

A plan is a sequence of items: units and the silences between them, each with its
number of frames. The row of a frame has the item's unit with the phase within it, the
unit that follows, and the frames since the item's beginning and up to its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine import Float32

SILENCE = 0
"""Unit of an item that is a silence; units count from 1."""

LEAD_IN_FRAMES = 10
"""Silence before the first of commanded units."""

_PHASES = 5
# Beyond these frames from either edge, a silence has the phase of its middle: the
# length of a pause is then no matter of its phase.
_EDGE_FRAMES = 25


@dataclass(frozen=True, slots=True)
class PlanItem:
    """Unit or silence of a plan.

    Parameters
    ----------
    unit : int
        From 1; `SILENCE` for a silence.
    n_frames : int
        Its length, at least 1.
    """

    unit: int
    n_frames: int


def n_condition(n_units: int) -> int:
    """Return the values of a row, for `n_units` units without silence."""
    return (n_units + 1) * (_PHASES + 1) + 2


def condition_rows(item: PlanItem, following: int, n_units: int) -> Float32:
    """Return the rows of an item's frames, float32[n_frames, n_condition].

    Parameters
    ----------
    item : PlanItem
    following : int
        The unit after the item, after a unit that after the silence; `SILENCE` where
        none follows.
    n_units : int
        Number of units without silence.
    """
    n = item.n_frames
    rows = np.zeros((n, n_condition(n_units)), np.float32)
    since = np.arange(n, dtype=np.float32) + np.float32(0.5)
    until = n - since
    phase = since / n
    if item.unit == SILENCE and n > 2 * _EDGE_FRAMES:
        phase = np.full(n, 0.5, np.float32)
        near = since < _EDGE_FRAMES
        phase[near] = 0.5 * since[near] / _EDGE_FRAMES
        near = until < _EDGE_FRAMES
        phase[near] = 1 - 0.5 * until[near] / _EDGE_FRAMES
    peaks = np.linspace(0, 1, _PHASES, dtype=np.float32)
    hats = np.maximum(0, 1 - (_PHASES - 1) * np.abs(phase[:, None] - peaks))
    first = item.unit * _PHASES
    rows[:, first : first + _PHASES] = hats
    rows[:, (n_units + 1) * _PHASES + following] = 1
    rows[:, -2] = np.minimum(since, _EDGE_FRAMES) / _EDGE_FRAMES
    rows[:, -1] = np.minimum(until, _EDGE_FRAMES) / _EDGE_FRAMES
    return rows


def is_silence(rows: Float32) -> NDArray[np.bool_]:
    """Return whether rows are those of a silence, bool[n_frames]."""
    silent: NDArray[np.bool_] = rows[:, :_PHASES].sum(axis=1) > 0
    return silent


def following_units(items: Sequence[PlanItem]) -> list[int]:
    """Return the unit that follows each item, `SILENCE` where none does."""
    following, after = [], SILENCE
    for item in reversed(items):
        following.append(after)
        if item.unit != SILENCE:
            after = item.unit
    return following[::-1]


def plan_rows(items: Sequence[PlanItem], n_units: int) -> Float32:
    """Return the rows of all frames of a plan, float32[n_frames, n_condition]."""
    rows = [
        condition_rows(item, following, n_units)
        for item, following in zip(items, following_units(items), strict=True)
    ]
    return np.concatenate([np.zeros((0, n_condition(n_units)), np.float32), *rows])
