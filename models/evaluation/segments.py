"""How well found segments agree with annotated ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SegmentScore:
    """Agreement of found segments with reference segments.

    Parameters
    ----------
    hits : int
        Pairs whose onsets and offsets both agree within the tolerance.
    n_reference, n_found : int
        Segments on either side.
    """

    hits: int
    n_reference: int
    n_found: int

    @property
    def precision(self) -> float:
        """Share of found segments that are hits; 0.0 when none was found."""
        return self.hits / self.n_found if self.n_found else 0.0

    @property
    def recall(self) -> float:
        """Share of reference segments that are hits; 0.0 when there is none."""
        return self.hits / self.n_reference if self.n_reference else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1.0 when both sides are empty."""
        total = self.n_reference + self.n_found
        return 2 * self.hits / total if total else 1.0

    def __add__(self, other: "SegmentScore") -> "SegmentScore":
        """Pool the counts of two recordings."""
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
    """Pair segments one to one where both ends agree.

    Parameters
    ----------
    reference, found : sequence of (onset, offset)
        In the same unit (samples or seconds), in any order.
    tolerance : float
        Largest allowed difference of onsets, and of offsets, in that unit.

    Returns
    -------
    list of (int, int)
        Indices into `reference` and `found`. As many pairs as possible
        (Kuhn's augmenting paths for bipartite matching, 1955), so that one
        segment between two neighbours never costs a pair.
    """
    if not reference or not found:
        return []
    spans = np.asarray(found, dtype=np.float64).reshape(-1, 2)
    order = np.argsort(spans[:, 0], kind="stable")
    spans = spans[order]
    choices = [_near(span, spans, tolerance) for span in reference]
    owner: dict[int, int] = {}
    for index in range(len(reference)):
        _augment(index, choices, owner, set())
    return sorted((r, int(order[f])) for f, r in owner.items())


def score_segments(
    reference: Sequence[tuple[float, float]],
    found: Sequence[tuple[float, float]],
    tolerance: float,
) -> SegmentScore:
    """Precision, recall and F1 of found segments, both ends within `tolerance`.

    Parameters
    ----------
    reference, found : sequence of (onset, offset)
        In the same unit (samples or seconds), in any order.
    tolerance : float
        Largest allowed difference of onsets, and of offsets, in that unit.
    """
    hits = len(match_segments(reference, found, tolerance))
    return SegmentScore(hits, len(reference), len(found))


def _near(
    span: tuple[float, float], spans: NDArray[np.float64], tolerance: float
) -> list[int]:
    """Indices of `spans` (sorted by onset) whose both ends agree with `span`."""
    first = int(np.searchsorted(spans[:, 0], span[0] - tolerance, "left"))
    last = int(np.searchsorted(spans[:, 0], span[0] + tolerance, "right"))
    agree = np.abs(spans[first:last, 1] - span[1]) <= tolerance
    return [first + int(i) for i in np.flatnonzero(agree)]


def _augment(
    index: int, choices: list[list[int]], owner: dict[int, int], tried: set[int]
) -> bool:
    """Give reference `index` a partner, moving others to theirs if need be."""
    for candidate in choices[index]:
        if candidate in tried:
            continue
        tried.add(candidate)
        holder = owner.get(candidate)
        if holder is None or _augment(holder, choices, owner, tried):
            owner[candidate] = index
            return True
    return False
