"""Matching and scores of detected and annotated segments."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.models.evaluation.segments import (
    SegmentScore,
    match_segments,
    score_segments,
)

SPANS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=5)


@settings(deadline=None)
@given(SPANS, SPANS, st.integers(0, 3))
def test_matching_has_as_many_pairs_as_the_best_assignment(
    reference: list[tuple[int, int]], found: list[tuple[int, int]], tolerance: int
) -> None:
    pairs = match_segments(reference, found, tolerance)
    assert len({r for r, _ in pairs}) == len({f for _, f in pairs}) == len(pairs)
    for r, f in pairs:
        assert abs(reference[r][0] - found[f][0]) <= tolerance
        assert abs(reference[r][1] - found[f][1]) <= tolerance
    padded = [*range(len(found)), *[None] * len(reference)]
    best = max(
        sum(
            f is not None
            and abs(span[0] - found[f][0]) <= tolerance
            and abs(span[1] - found[f][1]) <= tolerance
            for span, f in zip(reference, chosen, strict=True)
        )
        for chosen in permutations(padded, len(reference))
    )
    assert len(pairs) == best


def test_hit_needs_both_ends_within_the_tolerance_inclusive() -> None:
    reference = [(100, 200), (300, 400)]
    assert score_segments(reference, [(110, 190), (300, 411)], 10) == SegmentScore(
        1, 2, 2
    )


def test_precision_recall_and_f1_of_added_scores() -> None:
    score = SegmentScore(3, 4, 6) + SegmentScore(0, 1, 0)
    assert (score.precision, score.recall) == (0.5, 0.6)
    assert score.f1 == pytest.approx(2 * 0.5 * 0.6 / 1.1)


def test_scores_without_segments() -> None:
    assert score_segments([], [], 1.0).f1 == 1.0
    assert score_segments([(0, 1)], [], 1.0).f1 == 0.0
    assert score_segments([], [(0, 1)], 1.0).precision == 0.0
