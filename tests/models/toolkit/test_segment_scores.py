"""Matching and scores of detected and annotated segments."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.models.toolkit.segment_scores import (
    SegmentScore,
    match_segments,
    score_onsets,
    score_overlaps,
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


def test_onset_agrees_within_the_tolerance_whatever_the_offset() -> None:
    reference = [(100, 200), (300, 400), (305, 310)]
    found = [(110, 900), (304, 305), (500, 600)]
    assert score_onsets(reference, found, 10) == SegmentScore(2, 3, 3)


@pytest.mark.parametrize(
    ("found", "least", "hits"),
    [
        ((100, 200), 1.0, 1),
        ((100, 150), 0.5, 1),  # 50 of 100
        ((100, 149), 0.5, 0),
        ((50, 250), 0.5, 1),  # 100 of 200
        ((50, 251), 0.5, 0),
        ((0, 1000), 0.1, 1),  # begins 100 before
        ((200, 300), 1e-9, 0),  # touches it
    ],
)
def test_overlap_counts_from_the_least_share_on(
    found: tuple[int, int], least: float, hits: int
) -> None:
    assert score_overlaps([(100, 200)], [found], least).hits == hits
    assert score_overlaps([found], [(100, 200)], least).hits == hits


@settings(deadline=None)
@given(SPANS, SPANS, st.sampled_from([0.3, 0.5, 1.0]))
def test_every_pair_that_overlaps_enough_is_considered(
    reference: list[tuple[int, int]], found: list[tuple[int, int]], least: float
) -> None:
    spans = [[(a, a + d) for a, d in each] for each in (reference, found)]
    agreeing = {
        (i, k)
        for i, a in enumerate(spans[0])
        for k, b in enumerate(spans[1])
        if min(a[1], b[1]) - max(a[0], b[0]) > 0
        and min(a[1], b[1]) - max(a[0], b[0])
        >= least * (max(a[1], b[1]) - min(a[0], b[0]))
    }
    padded = [*range(len(found)), *[None] * len(reference)]
    best = max(
        sum((i, k) in agreeing for i, k in enumerate(chosen))
        for chosen in permutations(padded, len(reference))
    )
    assert score_overlaps(*spans, least).hits == best


def test_precision_recall_and_f1_of_added_scores() -> None:
    score = SegmentScore(3, 4, 6) + SegmentScore(0, 1, 0)
    assert (score.precision, score.recall) == (0.5, 0.6)
    assert score.f1 == pytest.approx(2 * 0.5 * 0.6 / 1.1)


def test_scores_without_segments() -> None:
    assert score_segments([], [], 1.0).f1 == 1.0
    assert score_segments([(0, 1)], [], 1.0).f1 == 0.0
    assert score_segments([], [(0, 1)], 1.0).precision == 0.0
