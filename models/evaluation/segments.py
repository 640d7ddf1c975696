"""One-to-one matching of detected segments with annotated ones, and its scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """Counts of matched, reference and detected segments.

    Parameters
    ----------
    hits : int
        Pairs whose onsets and offsets both agree within the tolerance.
    n_reference, n_found : int
        Number of reference segments and of detected segments.
    """

    hits: int
    n_reference: int
    n_found: int

    @property
    def precision(self) -> float:
        """Return the share of detected segments that are hits; 0.0 without any."""
        return self.hits / self.n_found if self.n_found else 0.0

    @property
    def recall(self) -> float:
        """Return the share of reference segments that are hits; 0.0 without any."""
        return self.hits / self.n_reference if self.n_reference else 0.0

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision and recall; 1.0 without segments."""
        total = self.n_reference + self.n_found
        return 2 * self.hits / total if total else 1.0

    def __add__(self, other: "SegmentScore") -> "SegmentScore":
        """Add the counts of two recordings."""
        return SegmentScore(
            self.hits + other.hits,
            self.n_reference + other.n_reference,
            self.n_found + other.n_found,
        )


def match_segments(
    reference: Sequence[tuple[float, float]],
    found: Sequence[tuple[float, float]],
    tolerance: float,
) -> list[tuple[int, int]]:
    """Pair as many segments as possible, one to one, where both ends agree.

    A maximum matching (Hopcroft and Karp, 1973) keeps a segment between two
    neighbours from costing a pair.

    Parameters
    ----------
    reference, found : sequence of (onset, offset)
        In the same unit (samples or seconds), in any order.
    tolerance : float
        Largest allowed difference of onsets, and of offsets, in that unit.

    Returns
    -------
    list of (int, int)
        Indices into `reference` and `found`, in order of `reference`.
    """
    if not reference or not found:
        return []
    spans = np.asarray(found, dtype=np.float64).reshape(-1, 2)
    order = np.argsort(spans[:, 0], kind="stable")
    onsets, offsets = spans[order].T
    columns: list[int] = []
    row_starts = [0]
    for onset, offset in reference:
        first = int(np.searchsorted(onsets, onset - tolerance, "left"))
        last = int(np.searchsorted(onsets, onset + tolerance, "right"))
        agree = np.abs(offsets[first:last] - offset) <= tolerance
        columns += (first + np.flatnonzero(agree)).tolist()
        row_starts.append(len(columns))
    graph = csr_array(
        (np.ones(len(columns), bool), columns, row_starts),
        shape=(len(reference), len(found)),
    )
    partners = maximum_bipartite_matching(graph, perm_type="column")
    return [(row, int(order[at])) for row, at in enumerate(partners) if at >= 0]


def score_segments(
    reference: Sequence[tuple[float, float]],
    found: Sequence[tuple[float, float]],
    tolerance: float,
) -> SegmentScore:
    """Count matched segments, both ends of which agree within `tolerance`.

    Parameters
    ----------
    reference, found : sequence of (onset, offset)
        In the same unit (samples or seconds), in any order.
    tolerance : float
        Largest allowed difference of onsets, and of offsets, in that unit.
    """
    hits = len(match_segments(reference, found, tolerance))
    return SegmentScore(hits, len(reference), len(found))
