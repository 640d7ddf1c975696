"""Lane: its events depend on the audio alone, never on the blocks it came in."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.lanes import RATE, SONG, TILE, events_of, make_lane, plain, play, script

from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.types import (
    Anchor,
    Block,
    Frames,
    Gap,
    Label,
    Offset,
    Onset,
    Posteriors,
)
from neurovocal.engine.testing import canonical, recut

GAPS = st.lists(
    st.tuples(
        st.integers(0, len(SONG)),
        st.one_of(st.just(0), st.integers(1, 40), st.integers(1, 9000)),
    ),
    max_size=3,
)
LENGTHS = st.lists(
    st.one_of(st.integers(1, 64), st.integers(1, 5000)), min_size=1, max_size=20
)


@pytest.mark.parametrize("posteriors", [False, True], ids=["samples", "posteriors"])
@pytest.mark.parametrize("length", [1, 64, 333, 1024, 48_000])
def test_events_do_not_depend_on_the_block_length(posteriors, length):
    samples = SONG[: RATE if length == 1 else None]
    whole = play(make_lane(posteriors=posteriors), [Block(0, samples)])
    assert len(events_of(whole, Onset)) >= 3 if length > 1 else events_of(whole, Onset)
    cut = play(make_lane(posteriors=posteriors), recut(samples, [length]))
    assert plain(cut) == plain(whole)


@settings(max_examples=25, deadline=None)
@given(gaps=GAPS, lengths=LENGTHS, posteriors=st.booleans())
def test_steps_do_not_depend_on_block_lengths_with_any_gaps(gaps, lengths, posteriors):
    whole_items = script(SONG, gaps, [len(SONG)], anchors=True)
    whole = play(make_lane(posteriors=posteriors), whole_items)
    items = script(SONG, gaps, lengths, anchors=True)
    assert plain(play(make_lane(posteriors=posteriors), items)) == plain(whole)

    assert len(events_of(whole, Gap)) == len(gaps)
    _check_frames(whole, gaps)
    _check_segments(whole)


def _check_frames(steps, gaps):
    """Check that the frames are those of the grid that lie within audio."""
    edges = [0]
    position, taken = 0, 0
    for after, missing in sorted(gaps):
        position, taken = position + after - taken, after
        edges += [position, position + missing]
        position += missing
    edges.append(position + len(SONG) - taken)
    got = [
        (frames.first + index, frames.hop_length, frames.frame_length)
        for frames in events_of(steps, Frames)
        for index in range(len(frames.values))
    ]
    _, hop, length = got[0]
    expected = []
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        expected += range(-(-start // hop), (stop - length) // hop + 1)
    assert [number for number, _, _ in got] == expected


def _check_segments(steps):
    """Check that segments are in order, closed once, and not across a gap."""
    opened, segments, last = None, 0, 0
    for event in events_of(steps, Onset, Offset, Gap):
        if isinstance(event, Onset):
            assert opened is None
            assert event.segment == segments
            assert event.sample >= last
            opened = event
        elif isinstance(event, Offset):
            assert opened is not None
            assert (event.segment, event.onset) == (opened.segment, opened.sample)
            assert event.sample > event.onset
            opened, segments, last = None, segments + 1, event.sample
        else:
            assert opened is None, "a gap while a segment is open"
            assert last <= event.start, "a segment reaches into a gap"
            last = event.stop
    assert opened is None


@settings(max_examples=15, deadline=None)
@given(gaps=GAPS, lengths=LENGTHS, source_rate=st.sampled_from([22_050, 44_100, 8_000]))
def test_events_after_a_resampler_do_not_depend_on_block_lengths(
    gaps, lengths, source_rate
):
    whole = play(make_lane(source_rate=source_rate), script(SONG, gaps, [len(SONG)]))
    cut = play(make_lane(source_rate=source_rate), script(SONG, gaps, lengths))
    assert plain(cut) == plain(whole)
    expected = sum(missing for _, missing in gaps) + len(SONG)
    assert abs(whole[-1].at - expected * RATE / source_rate) <= 0.5


def test_gaps_and_anchors_are_converted_to_the_lanes_rate():
    lane = make_lane(source_rate=32_000)
    items = [
        Anchor(0, 10**18),
        Block(0, SONG[:3200]),
        Gap(3200, 6400, "overrun"),
        Block(6400, SONG[:3200]),
    ]
    steps = play(lane, items)
    assert events_of(steps, Gap) == [Gap(1600, 3200, "overrun")]
    assert events_of(steps, Anchor) == [Anchor(0, 10**18)]
    assert lane.position == 4800


def test_a_gap_truncates_an_open_segment_before_the_gap_event():
    lane = make_lane()
    marks = events_of(play(make_lane(), [Block(0, SONG)]), Onset, Offset)
    onset, offset = marks[2:4]
    middle = (onset.sample + offset.sample) // 2
    gap = Gap(middle, middle + 8000, "overrun")
    items = [Block(0, SONG[:middle]), gap, Block(gap.stop, SONG[middle:])]
    steps = play(lane, items)
    events = events_of(steps, Onset, Offset, Gap)
    at = events.index(gap)
    assert isinstance(events[at - 1], Offset)
    assert events[at - 1].truncated
    assert events[at - 1].sample <= gap.start
    # The model gets the offset before the gap.
    items = lane.models[0].stage.items
    place = items.index(gap)
    assert events[at - 1] in items[:place]


@pytest.mark.parametrize("posteriors", [False, True], ids=["samples", "posteriors"])
def test_every_model_gets_frames_before_the_marks_found_in_them(posteriors):
    lane = make_lane(posteriors=posteriors, models=2)
    steps = play(lane, recut(SONG, [777]))
    hop = 128
    for step in steps[:-1]:
        for mark in [e for e in step.events if isinstance(e, Onset | Offset)]:
            assert mark.sample <= step.at
    for supervised in lane.models:
        processed_to = 0
        for item in supervised.stage.items:
            if isinstance(item, Frames):
                # Frames of one tile at most, on the grid of tiles.
                assert len(item.values) <= TILE
                processed_to = (item.first + len(item.values)) * hop
            elif posteriors:
                assert item.sample <= processed_to
    first, second = (supervised.stage.items for supervised in lane.models)
    assert [canonical(item) for item in first] == [canonical(item) for item in second]
    # Events have the same order: frames, answers, marks, labels.
    for step in steps[:-1]:
        kinds = [type(event) for event in step.events]
        if Onset in kinds and Frames in kinds:
            assert kinds.index(Frames) < kinds.index(Posteriors) < kinds.index(Onset)
            assert kinds[kinds.index(Onset) + 1] is Label


def test_a_label_directly_follows_the_mark_it_answers():
    events = events_of(play(make_lane(), [Block(0, SONG)]), Onset, Offset, Label)
    assert len(events) >= 12
    for mark, label in zip(events[::2], events[1::2], strict=True):
        assert isinstance(mark, Onset | Offset)
        assert isinstance(label, Label)
        assert label.segment == mark.segment
        assert label.status == ("final" if isinstance(mark, Offset) else "provisional")


@pytest.mark.parametrize("source_rate", [RATE, 44_100])
def test_missing_samples_without_a_gap_raise_a_stage_error(source_rate):
    lane = make_lane(source_rate=source_rate)
    play(lane, [Block(0, SONG[:1000])], flush=False)
    with pytest.raises(StageError, match=r"cage: block starts at 1001, expected 1000"):
        play(lane, [Block(1001, SONG[:10])])


def test_repeated_samples_raise_a_stage_error():
    lane = make_lane()
    play(lane, [Block(0, SONG[:1000])], flush=False)
    with pytest.raises(StageError, match=r"block starts at 500, expected 1000"):
        play(lane, [Block(500, SONG[:1000])])


def test_a_gap_that_does_not_begin_at_the_position_raises_a_stage_error():
    lane = make_lane()
    play(lane, [Block(0, SONG[:1000])], flush=False)
    with pytest.raises(StageError, match=r"gap starts at 1200, expected 1000"):
        play(lane, [Gap(1200, 1300, "overrun")])


@pytest.mark.parametrize("source_rate", [RATE, 44_100])
@pytest.mark.parametrize("n_before", [0, 700, 9_999])
def test_a_reset_lane_gives_the_events_of_a_new_one(source_rate, n_before):
    lane = make_lane(source_rate=source_rate)
    play(lane, recut(SONG[:n_before], [123]), flush=False)
    lane.reset()
    assert lane.position == 0
    fresh = play(make_lane(source_rate=source_rate), [Block(0, SONG)])
    assert plain(play(lane, [Block(0, SONG)])) == plain(fresh)


def test_flush_processes_the_last_samples_and_truncates_the_open_segment():
    marks = events_of(play(make_lane(), [Block(0, SONG)]), Onset, Offset)
    stop = (marks[0].sample + marks[1].sample) // 2
    steps = play(make_lane(), [Block(0, SONG[:stop])])
    assert steps[-1].at == stop
    (offset,) = events_of(steps, Offset)
    assert offset.truncated
    labels = [e.status for e in events_of(steps, Label)]
    assert labels == ["provisional", "final"]


@pytest.mark.parametrize("source_rate", [RATE, 44_100])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 12])
def test_flush_after_interrupted_iteration_ends_at_the_last_step(source_rate, n_steps):
    """Its events are those of the audio that it has processed."""
    lane = make_lane(source_rate=source_rate)
    steps = lane.process(Block(0, SONG))
    taken = [next(steps) for _ in range(n_steps)]
    assert lane.position == taken[-1].at
    del steps
    taken += lane.flush()
    assert taken[-1].at == n_steps * TILE * 128
    _check_segments(taken)
    if source_rate == RATE:
        whole = play(make_lane(), [Block(0, SONG[: taken[-1].at])])
        assert plain(taken) == plain(whole)
    frames = events_of(taken, Frames)
    last = (frames[-1].first + len(frames[-1].values) - 1) * 128 + 256
    assert last <= taken[-1].at
    # A new stream on the same lane does not depend on it.
    lane.reset()
    fresh = play(make_lane(source_rate=source_rate), [Block(0, SONG[:9000])])
    assert plain(play(lane, [Block(0, SONG[:9000])])) == plain(fresh)


def test_a_stream_without_samples_has_no_events():
    assert events_of(play(make_lane(), []), object) == []
    steps = play(make_lane(), [Gap(0, 500, "overrun")])
    assert events_of(steps, object) == [Gap(0, 500, "overrun")]


def test_a_lane_without_features_detects_the_same_segments():
    with_frames = play(make_lane(models=0), recut(SONG, [480]))
    bare = play(make_lane(models=0, frames=False), recut(SONG, [480]))
    assert not events_of(bare, Frames)
    assert events_of(bare, Onset, Offset) == events_of(with_frames, Onset, Offset)


def test_a_step_carries_the_arrival_time_of_its_last_sample():
    blocks = [
        Block(block.start, block.samples, arrived_ns=1000 + block.stop)
        for block in recut(SONG[:8000], [500])
    ]
    for step in play(make_lane(), blocks, flush=False):
        # The arrival time of the block that holds its last sample.
        assert step.arrived_ns == 1000 + -(-step.at // 500) * 500


def test_events_are_right_when_the_source_reuses_its_array():
    buffer = np.empty((700, 1), np.float32)
    lane, steps = make_lane(), []
    starts = range(0, len(SONG) - 700, 700)
    for start in starts:
        buffer[:] = SONG[start : start + 700]
        # Read step by step, as the engine does, before the array changes.
        steps += [
            (s.at, [canonical(e) for e in s.events])
            for s in lane.process(Block(start, buffer))
        ]
    steps += plain(lane.flush())
    expected = play(make_lane(), [Block(0, SONG[: starts[-1] + 700])])
    assert steps == plain(expected)


def test_step_positions_never_decrease():
    steps = play(make_lane(), script(SONG, [(9000, 0), (20_000, 333)], [1234]))
    assert all(before.at <= after.at for before, after in pairwise(steps))
