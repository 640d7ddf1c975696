"""Order of units: whether drawn song follows the bird's own transitions.

Pairs of neighbouring units are counted; two sets of pairs are compared by their
Jensen-Shannon divergence in bits (J. Lin, "Divergence measures based on the
Shannon entropy", IEEE Transactions on Information Theory 37, 1991), which is 0 for
equal distributions, at most 1, and finite where a pair is missing. The yardstick
is an order-0 song: the bird's units, drawn independently.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]


def pair_counts(sequences: Sequence[Sequence[int]], n_units: int) -> Table:
    """How often unit j follows unit i, float64[n_units, n_units]."""
    table = np.zeros((n_units, n_units))
    for sequence in sequences:
        np.add.at(table, (list(sequence[:-1]), list(sequence[1:])), 1.0)
    return table


def order_0(pairs: Table) -> Table:
    """Pairs of the same units in no order."""
    table: Table = np.outer(pairs.sum(1), pairs.sum(0)) / max(pairs.sum(), 1.0)
    return table


def divergence_bits(a: Table, b: Table) -> float:
    """Jensen-Shannon divergence of two tables of counts; NaN where one is empty."""
    if not a.sum() or not b.sum():
        return float("nan")
    p, q = a.ravel() / a.sum(), b.ravel() / b.sum()
    middle = (p + q) / 2
    return float((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def gain_nats(found: Table, pairs: Table) -> float:
    """How much better the bird's transitions explain found ones than order 0 does.

    Mean over the found pairs of ``log p(j | i) - log p(j)``, in nats, with half a
    count added to each of the bird's pairs: above 0, the order helps.

    Parameters
    ----------
    found, pairs : float64[n_units, n_units]
        Counts of the song that is judged, and of the bird's.
    """
    if not found.sum():
        return float("nan")
    smoothed = pairs + 0.5
    given = smoothed / smoothed.sum(1, keepdims=True)
    alone = smoothed.sum(0) / smoothed.sum()
    return float((found * np.log(given / alone)).sum() / found.sum())


def _relative_entropy(p: Table, q: Table) -> float:
    here = p > 0
    return float((p[here] * np.log2(p[here] / q[here])).sum())
