"""Preferred sounds of the units of an RNN-RBM: triggered averages and syllables."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.report.network import NetworkTrace, Weights

PATCH_FRAMES = 16
_ALIKE = 0.9
_LEAST_FRAMES = 20  # of a syllable and of the rest, for an area under the curve


@dataclass(frozen=True, slots=True, eq=False)
class UnitPreference:
    """Preferred sound of one unit.

    Parameters
    ----------
    number : int
        Index of the unit.
    patch : float32[n_patch, n_visible]
        Average of the frames up to those at which the unit is strongly active, less
        the average of all frames.
    syllable : str
        Syllable that its activation separates best from all other frames; empty
        where none has enough frames.
    auc : float
        Area under the ROC curve of the activation for that syllable, by frame.
        Below 0.5 the activation is lower during the syllable.
    """

    number: int
    patch: Float32
    syllable: str
    auc: float


def rank_hidden_units(weights: Weights, hidden: Float32) -> NDArray[np.int64]:
    """Rank hidden units by their effect on the visible units, largest first.

    The effect is the variance of E[h] times the squared norm of its filter.
    """
    moved = hidden.var(axis=0) * np.square(weights.W).sum(axis=0)
    return np.argsort(-moved, kind="stable")


def rank_recurrent_units(weights: Weights, states: Float32) -> NDArray[np.int64]:
    """Rank recurrent units by their effect on the biases, largest first."""
    reach = np.square(weights.Wuv).sum(axis=1) + np.square(weights.Wuh).sum(axis=1)
    return np.argsort(-states.var(axis=0) * reach, kind="stable")


def choose_dissimilar(rows: Float32, order: NDArray[np.int64], count: int) -> list[int]:
    """Choose the first `count` units of an order that differ from those before them.

    Two units are alike where the correlation of their activations over
    float32[n_frames, n_units] is above 0.9 or below -0.9.
    """
    centred = rows - rows.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=0), 1e-9)
    chosen: list[int] = []
    for unit in order.tolist():
        likeness = centred[:, chosen].T @ centred[:, unit]
        if not (np.abs(likeness) > _ALIKE).any():
            chosen.append(unit)
        if len(chosen) == count:
            break
    return chosen


def unit_preferences(
    songs: Sequence[NetworkTrace],
    activations: Sequence[Float32],
    targets: Sequence[NDArray[np.int64]],
    names: Sequence[str],
    units: Sequence[int],
) -> list[UnitPreference]:
    """Compute the triggered average and the best syllable of `units`.

    Parameters
    ----------
    songs : sequence of Heard
    activations : sequence of float32[n_frames, n_units]
        Activations of all units, one array per song.
    targets : sequence of int64[n_frames]
        Index into `names` of the syllable under each frame; 0 is none, below 0
        unknown.
    names : sequence of str
    units : sequence of int
        Indices of the units.
    """
    rows = np.concatenate([a[:, units] for a in activations])
    target = np.concatenate(list(targets))
    aucs = syllable_aucs(rows, target, len(names))
    patches = triggered_averages(
        [song.frames for song in songs], [a[:, units] for a in activations]
    )
    found = []
    for place, unit in enumerate(units):
        column = aucs[place]
        best = int(np.nanargmax(np.abs(column - 0.5))) if _any_finite(column) else 0
        found.append(
            UnitPreference(
                int(unit),
                patches[place],
                names[best] if best else "",
                float(column[best]) if best else 0.5,
            )
        )
    return found


def syllable_aucs(
    rows: Float32, target: NDArray[np.int64], n_names: int
) -> NDArray[np.float64]:
    """Return the area under the ROC curve of each unit for each syllable.

    Computed from ranks, ties counted as one half (Mann and Whitney 1947). Frames whose
    target is below 0 are left out.

    Returns
    -------
    float64[n_units, n_names]
        NaN for 0 (no syllable) and for syllables with few frames.
    """
    rows, target = rows[target >= 0], target[target >= 0]
    aucs = np.full((rows.shape[1], n_names), np.nan)
    if not len(target):
        return aucs
    ranks = rankdata(rows, axis=0)
    for name in range(1, n_names):
        own = target == name
        n_own, n_rest = int(own.sum()), int((~own).sum())
        if n_own >= _LEAST_FRAMES and n_rest >= _LEAST_FRAMES:
            above = ranks[own].sum(axis=0) - n_own * (n_own + 1) / 2
            aucs[:, name] = above / (n_own * n_rest)
    return aucs


def triggered_averages(
    songs: Sequence[Float32], activations: Sequence[Float32]
) -> list[Float32]:
    """Return the average spectrogram before activity, less the mean frame, per unit.

    The spike-triggered average (de Boer and Kuyper 1968) with strong activation in
    place of a spike: the mean of ``v_{t-L+1} .. v_t`` weighted by
    ``max(0, a_t - mean(a) - std(a))``.
    """
    stacked = np.concatenate(list(activations))
    strong = stacked.mean(axis=0) + stacked.std(axis=0)
    frames_mean = np.concatenate(list(songs)).mean(axis=0)
    n_units, n_visible = stacked.shape[1], songs[0].shape[1]
    total = np.zeros((n_units, PATCH_FRAMES, n_visible))
    weight = np.zeros(n_units)
    for frames, rows in zip(songs, activations, strict=True):
        if len(frames) < PATCH_FRAMES:
            continue
        active = np.maximum(0, rows[PATCH_FRAMES - 1 :] - strong)
        weight += active.sum(axis=0)
        for lag in range(PATCH_FRAMES):
            total[:, lag] += active.T @ frames[lag : lag + len(active)]
    # A unit of constant activation has an average of 0.
    average = total - weight[:, None, None] * frames_mean
    average /= np.maximum(weight, 1e-9)[:, None, None]
    return [patch.astype(np.float32) for patch in average]


def _any_finite(column: NDArray[np.float64]) -> bool:
    return bool(np.isfinite(column).any())
