"""One-to-one matching of detected segments with annotated ones, and its scores."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

Span: TypeAlias = tuple[float, float]
"""Onset and offset of a segment, in samples or seconds."""
_Bounds: TypeAlias = NDArray[np.float64]
_Agree: TypeAlias = Callable[
    [tuple[_Bounds, _Bounds], _Bounds, _Bounds], NDArray[np.bool_]
]
_ROWS_AT_ONCE = 256  # segments whose pairs are compared together


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """Counts of matched, reference and detected segments.

    Parameters
    ----------
    hits : int
        Pairs that agree by the rule that was asked for.
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
    reference: Sequence[Span], found: Sequence[Span], tolerance: float
) -> list[tuple[int, int]]:
    """Pair as many segments as possible, one to one, where both ends agree.

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

    def agree(
        span: tuple[_Bounds, _Bounds], onsets: _Bounds, offsets: _Bounds
    ) -> NDArray[np.bool_]:
        near = np.abs(onsets - span[0]) <= tolerance
        return near & (np.abs(offsets - span[1]) <= tolerance)

    return _match(reference, found, tolerance, agree)


def score_segments(
    reference: Sequence[Span], found: Sequence[Span], tolerance: float
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


def score_onsets(
    reference: Sequence[Span], found: Sequence[Span], tolerance: float
) -> SegmentScore:
    """Count matched segments, the onsets of which agree within `tolerance`.

    Parameters
    ----------
    reference, found : sequence of (onset, offset)
        In the same unit (samples or seconds), in any order.
    tolerance : float
        Largest allowed difference of onsets, in that unit.
    """

    def agree(
        span: tuple[_Bounds, _Bounds], onsets: _Bounds, offsets: _Bounds
    ) -> NDArray[np.bool_]:
        return np.abs(onsets - span[0]) <= tolerance

    hits = len(_match(reference, found, tolerance, agree))
    return SegmentScore(hits, len(reference), len(found))


def score_overlaps(
    reference: Sequence[Span], found: Sequence[Span], least: float
) -> SegmentScore:
    """Count matched segments, the overlap of which is at least `least`.

    Parameters
    ----------
    reference, found : sequence of (onset, offset)
        In the same unit (samples or seconds), in any order.
    least : float
        Duration of the intersection divided by that of the union (intersection over
        union, IoU), above 0, at most 1.
    """

    def agree(
        span: tuple[_Bounds, _Bounds], onsets: _Bounds, offsets: _Bounds
    ) -> NDArray[np.bool_]:
        both = np.minimum(offsets, span[1]) - np.maximum(onsets, span[0])
        either = np.maximum(offsets, span[1]) - np.minimum(onsets, span[0])
        return (both > 0) & (both >= least * either)

    # Segments with such an overlap begin within the longer one's duration.
    durations = [offset - onset for onset, offset in (*reference, *found)]
    hits = len(_match(reference, found, max(durations, default=0.0), agree))
    return SegmentScore(hits, len(reference), len(found))


def _match(
    reference: Sequence[Span], found: Sequence[Span], reach: float, agree: _Agree
) -> list[tuple[int, int]]:
    """Return a largest one-to-one matching of segments that agree.

    A maximum matching (Hopcroft and Karp, 1973) keeps a segment between two
    neighbours from costing a pair. Only segments whose onsets are at most `reach`
    apart are compared.
    """
    if not reference or not found:
        return []
    spans = np.asarray(found, dtype=np.float64).reshape(-1, 2)
    order = np.argsort(spans[:, 0], kind="stable")
    onsets, offsets = spans[order].T
    ends = np.asarray(reference, dtype=np.float64).reshape(-1, 2)
    rows, columns = _agreeing_pairs(ends, onsets, offsets, reach, agree)
    row_starts = np.searchsorted(rows, np.arange(len(ends) + 1))
    if len({*rows.tolist()}) == len({*columns.tolist()}) == len(rows):
        return [*zip(rows.tolist(), order[columns].tolist(), strict=True)]
    graph = csr_array(
        (np.ones(len(columns), bool), columns, row_starts),
        shape=(len(reference), len(found)),
    )
    partners = maximum_bipartite_matching(graph, perm_type="column")
    return [(row, int(order[at])) for row, at in enumerate(partners) if at >= 0]


def _agreeing_pairs(
    spans: _Bounds, onsets: _Bounds, offsets: _Bounds, reach: float, agree: _Agree
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs that agree: rows of `spans`, rising, and columns of `onsets`."""
    rows, columns = [], []
    for start in range(0, len(spans), _ROWS_AT_ONCE):
        part = spans[start : start + _ROWS_AT_ONCE]
        first = np.searchsorted(onsets, part[:, 0] - reach, "left")
        last = np.searchsorted(onsets, part[:, 0] + reach, "right")
        counts = last - first
        row = np.repeat(np.arange(len(part)), counts)
        before = np.repeat(counts.cumsum() - counts - first, counts)
        column = np.arange(len(row)) - before
        both = part[row].T
        agreeing = agree((both[0], both[1]), onsets[column], offsets[column])
        rows.append(start + row[agreeing])
        columns.append(column[agreeing])
    return np.concatenate(rows), np.concatenate(columns)
