"""Weights of band levels that tell the hops of examples from those between them.

A logistic regression with a ridge: five examples are few, and neighbouring hops are
alike, so that examples count, and not their hops.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Each example counts as so many observations, and all other sound as much as they.
_PER_EXAMPLE = 4.0
_SCALE_DB = 10.0  # levels in these units have about the same spread
_MOST_OTHERS = 5000  # hops between the examples that are used, evenly chosen
_STEPS = 10
_FURTHEST = 30.0  # logarithm of the odds
_DIGITS = 4

Levels = NDArray[np.float64]


class Weights(NamedTuple):
    """Weights of levels, whose magnitudes have the sum 1, and noise's score.

    Parameters
    ----------
    weights : tuple of float
        What a dB counts.
    zero_db : float
        Median score of the sound between the examples.
    """

    weights: tuple[float, ...]
    zero_db: float

    def scaled(self, factor: float) -> "Weights":
        """Return weights by which scores are larger by a factor."""
        weights = np.round(factor * np.array(self.weights), _DIGITS)
        return Weights(tuple(weights.tolist()), round(factor * self.zero_db, 2))

    def scores(self, levels: Levels) -> Levels:
        """Return the score of each hop, float64[n_hops]."""
        return np.asarray(levels @ np.array(self.weights) - self.zero_db)


def learn_weights(
    examples: Sequence[Levels], others: Levels, unlearned: Levels | None = None
) -> Weights:
    """Return the weights that tell examples from other sound.

    Parameters
    ----------
    examples : sequence of float64[n_hops, n_levels]
        Levels of the hops of each example, in dB; at least one.
    others : float64[n_hops, n_levels]
        Those of other sound, perhaps none.
    unlearned : float64[n_levels], optional
        Weights, not negative, that are part of the result whatever the examples; their
        sum is that part, less than 1.
    """
    others = others[:: max(1, len(others) // _MOST_OTHERS)]
    levels = np.concatenate((*examples, others)) / _SCALE_DB
    levels = np.column_stack((levels, np.ones(len(levels))))
    is_call = np.arange(len(levels)) < len(levels) - len(others)
    total = _PER_EXAMPLE * len(examples)
    counts = [np.full(len(each), _PER_EXAMPLE / len(each)) for each in examples]
    counts.append(np.full(len(others), total / max(len(others), 1)))
    found = _regress(levels, is_call.astype(np.float64), np.concatenate(counts))[:-1]
    size = float(np.abs(found).sum())
    if size == 0:
        # Nothing is heard in the examples.
        found, size = np.ones(len(found)), float(len(found))
    found /= size
    if unlearned is not None:
        found = (1 - unlearned.sum()) * found + unlearned
        found /= np.abs(found).sum()
    weights = np.round(found, _DIGITS)
    zero_db = float(np.median(others @ weights)) if len(others) else 0.0
    return Weights(tuple(weights.tolist()), round(zero_db, 2))


def _regress(levels: Levels, wanted: Levels, counts: Levels) -> Levels:
    """Return coefficients by Newton's method; the last level has no ridge."""
    ridge = np.eye(levels.shape[1])
    ridge[-1, -1] = 1e-6
    found = np.zeros(levels.shape[1])
    for _ in range(_STEPS):
        odds = np.clip(levels @ found, -_FURTHEST, _FURTHEST)
        chance = 1 / (1 + np.exp(-odds))
        slope = levels.T @ (counts * (chance - wanted)) + ridge @ found
        spread = counts * chance * (1 - chance)
        found -= np.linalg.solve((levels * spread[:, None]).T @ levels + ridge, slope)
    return found
