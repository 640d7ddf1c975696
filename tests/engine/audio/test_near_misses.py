"""Near misses: those of a simple implementation, and no segment is changed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neurovocal.engine.audio.near_misses import near_level_db, near_probability
from neurovocal.engine.audio.segmenter import (
    Segmenter,
    SegmenterOptions,
    SegmenterRules,
)
from neurovocal.engine.contracts.types import Mark, NearMiss, Offset

HOP = 10
SCORES = hnp.arrays(
    np.float64,
    st.integers(1, 120),
    elements=st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0]),
)


@st.composite
def any_rules(draw: st.DrawFn, *, plain: bool = False) -> SegmenterRules:
    """Strategy for rules with near misses; plain ones have no buffers and limits."""
    on = draw(st.sampled_from([2.0, 3.0, 4.0]))
    times = st.integers(0, 60)
    rules = SegmenterRules(
        on=on,
        off=draw(st.sampled_from([1.0, 2.0])),
        min_duration=draw(times),
        gap_fill=draw(times),
        lookback=draw(times),
        near=draw(st.sampled_from([level for level in (1.0, 2.0, 3.0) if level <= on])),
    )
    if plain:
        return rules
    return replace(
        rules,
        pre=draw(times),
        post=draw(times),
        max_duration=draw(st.none() | st.integers(60, 300)),
        min_silence=draw(times),
        early=draw(st.booleans()),
        second=draw(st.integers(0, 1000)),
    )


def run(
    rules: SegmenterRules, scores: np.ndarray[Any, Any], cuts: list[int] | None = None
) -> list[Mark]:
    segmenter = Segmenter(rules, HOP)
    segmenter.begin(0)
    marks: list[Mark] = []
    position = 0
    for part in np.split(scores, sorted(c % (len(scores) + 1) for c in cuts or [])):
        marks += segmenter.process(position, part)
        position += len(part)
    return marks + segmenter.close(len(scores) * HOP)


def missed(marks: list[Mark]) -> list[NearMiss]:
    return [mark for mark in marks if isinstance(mark, NearMiss)]


def joined(loud: np.ndarray[Any, Any], gap_fill: int) -> list[tuple[int, int]]:
    """Return ``(first, last)`` hops of the runs of True, close ones as one."""
    found: list[list[int]] = []
    for hop in np.flatnonzero(loud).tolist():
        pause = (hop - found[-1][1]) * HOP if found else 0
        if found and (pause == 0 or pause < gap_fill):
            found[-1][1] = hop + 1
        else:
            found.append([hop, hop + 1])
    return [(first, last) for first, last in found]


def by_hand(
    rules: SegmenterRules, scores: np.ndarray[Any, Any]
) -> list[tuple[int, int, float, str]]:
    """Apply plain rules one after the other to the scores of a whole recording."""
    assert rules.near is not None
    found = []
    candidates = joined(scores >= rules.off, rules.gap_fill)
    for begin, end in joined(scores >= min(rules.near, rules.off), rules.gap_fill):
        is_explained = False
        for first, last in candidates:
            reached = [h for h in range(first, last) if scores[h] >= rules.on]
            if not begin <= first < end or not reached:
                continue
            start = max(first * HOP, reached[0] * HOP - rules.lookback)
            is_explained = True
            if last * HOP - start < rules.min_duration:
                peak = float(scores[first:last].max())
                found.append((start, last * HOP, peak, "short"))
        peak = float(scores[begin:end].max())
        is_long = (end - begin) * HOP >= rules.min_duration
        if not is_explained and is_long and peak >= rules.near:
            found.append((begin * HOP, end * HOP, peak, "quiet"))
    return found


@settings(max_examples=400, deadline=None)
@given(any_rules(plain=True), SCORES)
def test_near_misses_equal_those_of_a_reference_implementation(
    rules: SegmenterRules, scores: np.ndarray[Any, Any]
) -> None:
    found = missed(run(rules, scores))
    assert [(m.onset, m.offset, m.score, m.reason) for m in found] == by_hand(
        rules, scores
    )
    assert all(m.threshold == rules.on and m.omitted == 0 for m in found)


@settings(max_examples=400, deadline=None)
@given(any_rules(), SCORES, st.lists(st.integers(0, 200), max_size=8))
def test_near_misses_change_no_segment_and_do_not_depend_on_the_block_lengths(
    rules: SegmenterRules, scores: np.ndarray[Any, Any], cuts: list[int]
) -> None:
    whole = run(rules, scores)
    segments = [mark for mark in whole if not isinstance(mark, NearMiss)]
    assert segments == run(replace(rules, near=None), scores)
    assert run(rules, scores, cuts) == whole
    assert run(rules, scores, list(range(len(scores)))) == whole


@settings(max_examples=300, deadline=None)
@given(any_rules(), SCORES)
def test_near_misses_overlap_neither_segments_nor_each_other(
    rules: SegmenterRules, scores: np.ndarray[Any, Any]
) -> None:
    marks = run(replace(rules, pre=0), scores)
    spans = [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]
    spans += [(m.onset, m.offset) for m in missed(marks)]
    end = 0
    for onset, offset in sorted(spans):
        assert end <= onset < offset
        end = offset
    assert end <= len(scores) * HOP


@settings(max_examples=300, deadline=None)
@given(any_rules(), SCORES, st.integers(1, 400))
def test_those_that_are_not_told_are_counted(
    rules: SegmenterRules, scores: np.ndarray[Any, Any], second: int
) -> None:
    every = missed(run(replace(rules, second=0), scores))
    told = missed(run(replace(rules, second=second), scores))
    assert len(told) + sum(m.omitted for m in told) == len(every)
    alike = [replace(m, omitted=0) for m in told]
    assert [m for m in every if m in alike] == alike
    # The last one of all may come on top, at the end.
    for first, eleventh in zip(told[:-1], told[10:-1], strict=False):
        assert eleventh.onset - first.onset >= second


def test_a_noisy_second_tells_ten_and_counts_the_others() -> None:
    rules = SegmenterRules(on=4, off=3, near=2, second=1000)
    scores = np.tile([3.0, 0.0], 200)  # fifty candidates in each of four seconds
    told = missed(run(rules, scores))
    assert [m.omitted for m in told] == [0] * 10 + ([40] + [0] * 9) * 3 + [39]
    assert told[10].onset == 1000


def test_a_sound_within_the_silence_after_a_segment_came_too_soon() -> None:
    rules = SegmenterRules(
        on=4, off=3, near=2, min_duration=20, min_silence=200, second=1000
    )
    scores = np.array([4.0] * 3 + [0.0] * 3 + [4.0] * 3 + [0.0] * 3)
    (only,) = missed(run(rules, scores))
    assert only == NearMiss(60, 90, 4.0, 4, "soon")


def test_the_rest_of_a_segment_that_was_cut_is_no_near_miss() -> None:
    rules = SegmenterRules(on=4, off=3, near=2, min_duration=30, max_duration=100)
    scores = np.array([4.0] * 12 + [0.0] * 10)
    assert missed(run(rules, scores)) == []


def test_near_is_six_decibels_below_the_threshold() -> None:
    assert near_level_db(10.0) == 4.0
    assert near_level_db(6.0) == 2.0  # a third: 0 dB is the noise floor
    assert near_probability(0.5) == pytest.approx(0.2, abs=0.001)  # odds of a quarter
    assert near_probability(1.0) == 1.0
    rules = SegmenterOptions(near_misses=True).rules(10.0, 8.0, 1000, 2.5)
    assert rules.near == 2.5
    assert SegmenterOptions(near_misses=True).rules(10.0, 8.0, 1000).near == 8.0
    assert SegmenterOptions().rules(10.0, 8.0, 1000, 2.5).near is None


def test_a_near_threshold_above_the_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"near \(5\) must not exceed on \(4\)"):
        SegmenterRules(on=4, off=3, near=5)
