"""Segmenter: equal to a simple implementation of its rules, for any block lengths."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neurovocal.engine.audio.segmenter import Segmenter, SegmenterRules
from neurovocal.engine.contracts.types import Mark, Offset, Onset

HOP = 10
LEVELS = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0])
SCORES = hnp.arrays(np.float64, st.integers(1, 120), elements=LEVELS)


@st.composite
def any_rules(draw: st.DrawFn, *, plain: bool = False) -> SegmenterRules:
    """Strategy for rules; plain ones limit neither duration nor silence."""
    off = draw(st.sampled_from([1.0, 2.0]))
    times = st.integers(0, 60)
    rules = SegmenterRules(
        on=draw(st.sampled_from([2.0, 3.0, 4.0])),
        off=off,
        min_duration=draw(times),
        gap_fill=draw(times),
        lookback=draw(times),
        pre=draw(times),
        post=draw(times),
    )
    if plain:
        return rules
    return replace(
        rules,
        max_duration=draw(st.none() | st.integers(60, 300)),
        min_silence=draw(times),
        early=draw(st.booleans()),
    )


def run(
    rules: SegmenterRules,
    scores: np.ndarray[Any, Any],
    cuts: list[int] | None = None,
    *,
    first: int = 0,
) -> list[Mark]:
    segmenter = Segmenter(rules, HOP)
    segmenter.begin(first * HOP)
    marks: list[Mark] = []
    position = 0
    for part in np.split(scores, sorted(c % (len(scores) + 1) for c in cuts or [])):
        marks += segmenter.process(first + position, part)
        position += len(part)
    return marks + segmenter.close((first + len(scores)) * HOP)


def spans(marks: list[Mark]) -> list[tuple[int, int]]:
    return [(m.onset, m.sample) for m in marks if isinstance(m, Offset)]


def by_hand(
    rules: SegmenterRules, scores: np.ndarray[Any, Any]
) -> list[tuple[int, int, bool]]:
    """Apply plain rules one after the other to the scores of a whole recording."""
    loud = scores >= rules.off
    runs: list[list[int]] = []
    for hop in range(len(scores)):
        if loud[hop]:
            if runs and runs[-1][1] == hop:
                runs[-1][1] = hop + 1
            else:
                runs.append([hop, hop + 1])
    starts = [start * HOP for start, _ in runs]
    joined: list[list[int]] = []
    for start, stop in runs:
        if joined and (start - joined[-1][1]) * HOP < rules.gap_fill:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    end_of_audio = len(scores) * HOP
    found: list[tuple[int, int, bool]] = []
    for first, last in joined:
        reached = [h for h in range(first, last) if scores[h] >= rules.on]
        if not reached:
            continue
        start = max(first * HOP, reached[0] * HOP - rules.lookback)
        stop = last * HOP
        if stop - start < rules.min_duration:
            continue
        after = [s for s in starts if s >= stop]
        onset = max(start - rules.pre, found[-1][1] if found else 0)
        offset = min([stop + rules.post, end_of_audio, *after])
        quiet = (after[0] if after else end_of_audio) - stop
        closed = quiet >= rules.gap_fill and quiet > 0
        waited = bool(after) or quiet >= rules.post
        found.append((onset, offset, not (closed and waited)))
    return found


@settings(max_examples=400, deadline=None)
@given(any_rules(plain=True), SCORES)
def test_marks_equal_those_of_a_reference_implementation(
    rules: SegmenterRules, scores: np.ndarray[Any, Any]
) -> None:
    marks = run(rules, scores)
    found = [(m.onset, m.sample, m.truncated) for m in marks if isinstance(m, Offset)]
    assert found == by_hand(rules, scores)


@settings(max_examples=400, deadline=None)
@given(any_rules(), SCORES, st.lists(st.integers(0, 200), max_size=8))
def test_marks_do_not_depend_on_the_block_lengths(
    rules: SegmenterRules, scores: np.ndarray[Any, Any], cuts: list[int]
) -> None:
    whole = run(rules, scores)
    assert run(rules, scores, cuts) == whole
    assert run(rules, scores, list(range(len(scores)))) == whole


@settings(max_examples=300, deadline=None)
@given(any_rules(), SCORES, st.integers(0, 5))
def test_each_onset_has_one_offset_and_segments_never_overlap(
    rules: SegmenterRules, scores: np.ndarray[Any, Any], first: int
) -> None:
    marks = run(rules, scores, first=first)
    end = first * HOP
    assert len(marks) % 2 == 0
    for number, (onset, offset) in enumerate(zip(marks[::2], marks[1::2], strict=True)):
        assert isinstance(onset, Onset)
        assert isinstance(offset, Offset)
        assert onset.segment == offset.segment == number
        assert onset.sample == offset.onset < offset.sample
        assert onset.sample >= end
        assert onset.score >= rules.off  # the rest of a long sound may be softer
        end = offset.sample
    assert end <= (first + len(scores)) * HOP


@settings(max_examples=200, deadline=None)
@given(any_rules(), SCORES)
def test_marks_are_within_the_stated_latency(
    rules: SegmenterRules, scores: np.ndarray[Any, Any]
) -> None:
    segmenter = Segmenter(rules, HOP)
    for hop in range(len(scores)):
        now = (hop + 1) * HOP
        for mark in segmenter.process(hop, scores[hop : hop + 1]):
            assert mark.sample >= now - rules.latency - HOP


def test_a_long_sound_is_truncated_and_the_rest_is_the_next_segment() -> None:
    rules = SegmenterRules(on=3, off=1, min_duration=30, max_duration=100)
    scores = np.array([0, 3, *[1] * 24, 0, 0], dtype=np.float64)
    marks = run(rules, scores)
    assert spans(marks) == [(10, 110), (110, 210), (210, 260)]
    assert [m.truncated for m in marks if isinstance(m, Offset)] == [True, True, False]


def test_a_rest_below_the_minimum_duration_is_ignored() -> None:
    rules = SegmenterRules(on=3, off=1, min_duration=30, max_duration=100)
    scores = np.array([0, *[3] * 12, 0, 0], dtype=np.float64)
    assert spans(run(rules, scores)) == [(10, 110)]


def test_an_onset_is_reported_when_the_minimum_duration_has_passed() -> None:
    scores = np.array([0, *[3.0] * 9])
    segmenter = Segmenter(SegmenterRules(on=3, off=1, min_duration=30), HOP)
    assert list(segmenter.process(0, scores[:3])) == []
    assert list(segmenter.process(3, scores[3:4])) == [Onset(0, 10, 3.0)]


def test_an_early_onset_is_reported_at_once_and_closed_at_any_length() -> None:
    rules = SegmenterRules(on=3, off=1, min_duration=30, early=True)
    segmenter = Segmenter(rules, HOP)
    assert list(segmenter.process(0, np.array([0, 3.0]))) == [Onset(0, 10, 3.0)]
    assert list(segmenter.process(2, np.array([0.0]))) == [Offset(0, 10, 20, False)]


def test_sound_within_the_minimum_silence_counts_from_its_end() -> None:
    rules = SegmenterRules(on=3, off=1, min_silence=40)
    scores = np.array([3, 0, 3, 3, 3, 3, 3, 0], dtype=np.float64)
    assert spans(run(rules, scores)) == [(0, 10), (50, 70)]


def test_sound_at_the_end_lasts_until_the_last_sample() -> None:
    segmenter = Segmenter(SegmenterRules(on=3, off=1, min_duration=15), HOP)
    assert list(segmenter.process(0, np.array([0, 3.0]))) == []
    marks = segmenter.close(27)
    assert marks == [Onset(0, 10, 3.0), Offset(0, 10, 27, True)]


def test_segments_count_on_after_a_gap_and_from_zero_after_a_reset() -> None:
    segmenter = Segmenter(SegmenterRules(on=3, off=1), HOP)
    loud = np.array([3.0, 3.0])
    segmenter.process(0, loud)
    assert [m.segment for m in segmenter.close(20)] == [0]
    segmenter.begin(101)
    first, second = segmenter.process(10, loud), segmenter.close(120)
    assert first == [Onset(1, 101, 3.0)]
    assert second == [Offset(1, 101, 120, True)]
    segmenter.reset()
    assert segmenter.process(0, loud) == [Onset(0, 0, 3.0)]


def test_contradictory_rules_are_rejected() -> None:
    with pytest.raises(ValueError, match="must not exceed"):
        SegmenterRules(on=1, off=2)
    with pytest.raises(ValueError, match="max_duration"):
        SegmenterRules(on=2, off=1, min_duration=10, max_duration=5)
