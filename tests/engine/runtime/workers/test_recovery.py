"""Lane recovery: after a failure of front end or detector a lane continues."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stages.runners import EPOCH, INFO, RATE, audio, check_seq, make_runner

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.types import (
    Gap,
    Health,
    Label,
    Offset,
    Onset,
    StreamInfo,
)
from neurovocal.engine.testing import CollectSink, ScriptedSource, recut

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")

SONG = "..####" * 22 + ".."
N_SOUNDS = 22


def crash(stage, at_s, times=1):
    return {"fault": "crash", "at_s": at_s, "stage": stage, "times": times}


def played(clock, lengths=(10,), rate=RATE):
    """Blocks of the song; the clock advances by their length."""
    whole = audio(SONG).samples
    for block in recut(whole, list(lengths)):
        clock.advance(len(block.samples) / rate)
        yield block


def run(faults, lengths=(10,), **more):
    clock, sink = ManualClock(EPOCH), CollectSink()
    source = ScriptedSource(INFO, played(clock, lengths), live=True)
    more = {"models": ["namer"], "clock": clock, **more}
    return make_runner(source, sink, faults=faults, **more).run(), sink


@pytest.mark.parametrize("stage", ["detector", "features"])
def test_audio_missed_by_a_rebuilt_lane_is_a_gap_and_segment_numbers_continue(stage):
    outcome, sink = run([crash(stage, 0.1)])
    # It fails at the quantum that ends at 128, and is rebuilt half a second later.
    gaps = [(gap.start, gap.stop) for gap in sink.events(Gap)]
    (empty, whole) = gaps
    assert empty == (96, 96)
    assert whole[0] == 96
    assert 500 <= whole[1] - 96 < 600
    assert outcome.lost_samples == whole[1] - whole[0]
    assert (outcome.errors, outcome.exit_code) == ([], 3)
    marks = [(o.segment, o.onset, o.sample, o.truncated) for o in sink.events(Offset)]
    assert marks[:2] == [(0, 20, 60, False), (1, 80, 96, True)]
    assert [segment for segment, *_ in marks] == list(range(len(marks)))
    assert all(onset >= whole[1] for _, onset, *_ in marks[2:])
    assert len(marks) > 2
    assert [m.segment for m in sink.events(Label)] == [m[0] for m in marks]
    name = {"detector": "detector 'gate'", "features": "features 'frames'"}[stage]
    said = [e for e in sink.events(Health) if e.stage == name]
    assert [e.state for e in said] == ["restarting", "healthy"]
    assert "failed" in said[0].detail
    check_seq(sink)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_events_of_a_rebuilt_lane_do_not_overlap_for_any_block_lengths(lengths):
    _, sink = run([crash("detector", 0.1, times=2)], lengths)
    here = 0
    for event in sink.events(Onset, Offset, Gap):
        start = event.start if isinstance(event, Gap) else event.sample
        assert start >= here
        here = event.stop if isinstance(event, Gap) else start
    assert [o.segment for o in sink.events(Onset)] == [
        o.segment for o in sink.events(Offset)
    ]


def test_pauses_grow_when_a_rebuilt_lane_fails_again():
    outcome, sink = run([crash("detector", 0.1), crash("detector", 0.75)])
    pauses = [
        e.detail.split("rebuilt in ")[1]
        for e in sink.events(Health)
        if e.state == "restarting"
    ]
    assert pauses == ["0.5 s", "1 s"]
    assert outcome.errors == []
    # The stream ends before the next attempt: the rest is a gap, too.
    last = sink.events(Gap)[-1]
    assert (last.start < last.stop, last.stop) == (True, len(SONG) * 10)


def test_a_failing_detector_of_a_recording_ends_the_run():
    sink = CollectSink()
    source = ScriptedSource(INFO, [audio(SONG)])
    outcome = make_runner(source, sink, faults=[crash("detector", 0.1)]).run()
    assert outcome.exit_code == 2
    assert "detector 'gate' failed" in outcome.errors[0]


def test_a_rebuilt_lane_does_not_disturb_other_lanes():
    clock, sink = ManualClock(EPOCH), CollectSink()
    sources = [
        ScriptedSource(
            StreamInfo(name, RATE), played(clock, (10,), 2 * RATE), live=True
        )
        for name in ("one", "two")
    ]
    fault = {**crash("detector", 0.1), "lane": "lane0"}
    outcome = make_runner(sources, sink, clock=clock, faults=[fault]).run()
    assert outcome.errors == []
    others = [m for m in sink.messages if m.info.stream == "two"]
    assert not [m for m in others if isinstance(m.event, Gap)]
    assert len([m for m in others if isinstance(m.event, Offset)]) == N_SOUNDS


def test_the_stream_after_a_failure_begins_without_a_gap():
    clock, sink = ManualClock(EPOCH), CollectSink()

    def two():
        yield from played(clock)
        yield StreamInfo("next", RATE)
        clock.advance(10)
        yield from played(clock)

    source = ScriptedSource(INFO, two(), live=True)
    runner = make_runner(source, sink, clock=clock, faults=[crash("detector", 0.3)])
    outcome = runner.run()
    assert outcome.errors == []
    after = [m.event for m in sink.messages if m.info.stream == "next"]
    assert not [e for e in after if isinstance(e, Gap)]
    assert [e.segment for e in after if isinstance(e, Offset)] == list(range(N_SOUNDS))
    assert clock.monotonic_ns() > 10 * NS
