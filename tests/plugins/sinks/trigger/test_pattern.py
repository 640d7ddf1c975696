"""Pattern language and watcher of the trigger sink; the audio alone decides."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import StepEvents
from neurovocal.engine.contracts.types import Gap, Label, Offset, Onset, StreamInfo
from neurovocal.plugins.sinks.trigger.pattern import PatternError, read_pattern

RATE = 1000  # a sample is a millisecond
INFO = StreamInfo("cage", RATE)
PLUGIN = Registry().get("sink", "trigger")


def watcher(pattern, info=INFO, **options):
    checked = PLUGIN.options(pattern=pattern, **options)
    context = BuildContext(
        clock=ManualClock(), run="test", info=info, models=("classifier",)
    )
    return PLUGIN.watch(checked, context)


# ---- language ----------------------------------------------------------------------

atoms = st.sampled_from(["a", "b", "c", ".", "[a b]", "[bc]", "'a'"])
quantified = st.builds(str.__add__, atoms, st.sampled_from(["", "", "", "*", "+", "?"]))
flat = st.lists(quantified, min_size=1, max_size=3).map(" ".join)
groups = st.builds(lambda inner, q: f"({inner}){q}", flat, st.sampled_from("*+?"))
patterns = st.lists(st.one_of(quantified, groups), min_size=1, max_size=4).map(" ".join)
UNITS = "abcx"  # x is named by no pattern


def as_regex(text):
    """Return a pattern as a regular expression, with a letter for each unit."""
    text = text.replace("[a b]", "[ab]").replace("'a'", "a").replace(" ", "")
    return text.replace(".", "[a-x?]")


@settings(deadline=None, max_examples=300)
@given(pattern=patterns, begins=st.booleans(), units=st.text(UNITS + "?", max_size=8))
def test_pattern_matches_as_the_equal_regular_expression(pattern, begins, units):
    expression = as_regex(pattern)
    if re.fullmatch(expression, ""):
        with pytest.raises(PatternError, match="must be required"):
            read_pattern(pattern)
        return
    compiled = read_pattern(("^" if begins else "") + pattern)
    states = {}
    for index, unit in enumerate(units):
        states = compiled.step(states, index, None if unit == "?" else unit)
        starts = [0] if begins else range(index + 1)
        found = [s for s in starts if re.fullmatch(expression, units[s : index + 1])]
        assert compiled.begin_of(states) == (min(found) if found else None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it ends at position 1, a unit was expected"),
        ("a [b c", "'[' at position 3 is never closed"),
        ("a (b", "'(' at position 3 is never closed"),
        ("a ()", "'()' at position 3 holds nothing"),
        ("a []", "'[]' at position 3 holds no unit"),
        ("a 'long", "' at position 3 is never closed"),
        ("a ''", "the name at position 3 is empty"),
        ("+ a", "'+' at position 1 has no meaning there: a unit must come before"),
        ("a ^ b", "'^' at position 3 has no meaning there: ^ stands only at the"),
        ("a $ b", "'b' at position 5 has no meaning there"),
        ("a ) b", r"')' at position 3 has no meaning there: nothing was opened"),
        ("a* b?", "must be required"),
        (" ".join("a" * 257), "more than 256"),
    ],
)
def test_malformed_patterns_are_reported_with_position(text, problem):
    with pytest.raises(PatternError) as caught:
        read_pattern(text)
    assert problem in str(caught.value) or (
        not text and "required" in str(caught.value)
    )


def test_pattern_accepts_long_unit_names():
    pattern = read_pattern("chirp-1 [trill 'low call'] \"it's.\"")
    assert pattern.units == {"chirp-1", "trill", "low call", "it's."}
    assert read_pattern("['trill']").units == {"trill"}
    assert read_pattern("[cd]").units == {"c", "d"}


# ---- decisions -----------------------------------------------------------------------


def lane_events(units, start=100, length=50, pause=50, status=True, first=0):
    """Return onset, labels and offset of each unit as (position, event)."""
    for number, unit in enumerate(units, first):
        onset = start + (number - first) * (length + pause)
        stop = onset + length
        yield onset + 5, Onset(number, onset, 1.0)
        guess = Label(number, onset, None, unit, 0.9, "provisional", "m")
        yield onset + 20, guess
        yield stop + 6, Offset(number, onset, stop, False)
        yield stop + 6, Label(number, onset, stop, unit, 0.95, "final", "m")


def triggers(stage, events, until=None, info=INFO):
    """Return all triggers with the position of their step; one step per position."""
    events = list(events)
    end = until or events[-1][0]
    found = []
    for at in range(0, end + 1, 1):
        now = tuple(event for when, event in events if when == at)
        found += [(at, t) for t in stage.process(StepEvents(info, at, now))]
    return found


def as_tuples(found):
    return [(at, t.units, t.status, t.sample) for at, t in found]


def test_sequence_triggers_at_its_last_final_label():
    found = triggers(watcher("a [b c]"), lane_events("xabacx"))
    assert as_tuples(found) == [
        (356, ("a", "b"), "final", 350),
        (556, ("a", "c"), "final", 550),
    ]
    assert found[0][1].posteriors == (0.95, 0.95)
    assert (found[0][1].segment, found[0][1].onset, found[0][1].offset) == (2, 300, 350)


def test_sequence_triggers_at_its_last_provisional_label():
    found = triggers(watcher("a b", status="provisional"), lane_events("xabb"))
    assert as_tuples(found) == [(320, ("a", "b"), "provisional", 300)]
    assert found[0][1].offset is None
    assert found[0][1].posteriors == (0.95, 0.9)


def test_sequence_triggers_at_the_onset_of_an_unlabelled_unit():
    found = triggers(watcher("b .", status="onset"), lane_events("xaba"))
    assert as_tuples(found) == [(405, ("b", ""), "onset", 400)]
    assert math.isnan(found[0][1].posteriors[1])


def test_onset_trigger_needs_no_labels():
    onsets = [e for e in lane_events("a" * 40) if not isinstance(e[1], Label)]
    found = triggers(watcher(".", status="onset", refractory_ms=0), onsets)
    assert [at for at, _ in found] == [105 + 100 * k for k in range(40)]


def test_final_label_after_the_next_onset_counts():
    late = [
        (at + 70 if isinstance(e, Label) and e.status == "final" else at, e)
        for at, e in lane_events("abcd")
    ]
    late.sort(key=lambda pair: pair[0])
    found = triggers(watcher("a b", status="provisional"), late)
    # The provisional b is known at 220, the final a only at 226.
    assert as_tuples(found) == [(226, ("a", "b"), "provisional", 200)]
    found = triggers(watcher("b c"), late)
    assert as_tuples(found) == [(426, ("b", "c"), "final", 350)]


def test_label_of_low_posterior_matches_only_the_dot():
    unsure = [
        (at, Label(e.segment, e.onset, e.offset, "b", 0.7, e.status, e.model))
        if isinstance(e, Label) and e.segment == 1
        else (at, e)
        for at, e in lane_events("abc")
    ]
    assert not triggers(watcher("a b"), unsure)
    assert [t.units for _, t in triggers(watcher("a . c"), unsure)] == [("a", "b", "c")]
    assert triggers(watcher("a b", posterior=0.7), unsure)


def test_only_labels_of_one_model_count():
    def other(event):
        unit = {"a": "x", "b": "y"}[event.unit]
        return Label(
            *(event.segment, event.onset, event.offset, unit, 0.9),
            event.status,
            "other",
        )

    labels = [(at, other(e)) for at, e in lane_events("ab") if isinstance(e, Label)]
    both = sorted([*lane_events("ab"), *labels], key=lambda pair: pair[0])
    assert len(triggers(watcher("a b"), both)) == 1
    assert not triggers(watcher("x y"), both)
    assert len(triggers(watcher("x y", labels_from="other"), both)) == 1


def test_silence_ends_a_bout_and_completes_a_pattern():
    stage = watcher("a b $", bout_gap_ms=300)
    two = [*lane_events("xab"), *lane_events("abx", start=1000, first=3)]
    found = triggers(stage, two, until=2000)
    assert as_tuples(found) == [(650, ("a", "b"), "silence", 650)]
    begin = watcher("^ a", bout_gap_ms=300)
    assert [t.segment for _, t in triggers(begin, two)] == [3]
    across = [*lane_events("xa"), *lane_events("b", start=800, first=2)]
    assert not triggers(watcher("a b", bout_gap_ms=300), across)
    assert triggers(watcher("a b", bout_gap_ms=900), across)


def test_end_of_stream_does_not_complete_a_bout():
    assert not triggers(watcher("b $", bout_gap_ms=300), lane_events("ab"), until=540)
    assert triggers(watcher("b $", bout_gap_ms=300), lane_events("ab"), until=550)


def test_silence_is_certain_only_after_the_detector_latency():
    context = BuildContext(
        clock=ManualClock(),
        run="t",
        info=INFO,
        models=("classifier",),
        detector_latency=40,
        frame_length=8,
    )
    options = PLUGIN.options(pattern="b $", bout_gap_ms=300)
    found = triggers(PLUGIN.watch(options, context), lane_events("ab"), until=700)
    assert as_tuples(found) == [(598, ("b",), "silence", 550)]


def test_gap_discards_an_unfinished_match():
    before = list(lane_events("a"))
    gap = [(180, Gap(170, 180, "overrun"))]
    after = list(lane_events("b", start=200, first=1))
    assert triggers(watcher("a b"), [*before, *after])
    assert not triggers(watcher("a b"), [*before, *gap, *after])
    assert not triggers(watcher("a $", bout_gap_ms=100), [*before, *gap], until=900)
    assert len(triggers(watcher("^ b"), [*before, *gap, *after])) == 1


def test_refractory_time_counts_from_the_last_effective_trigger():
    found = triggers(watcher("a", refractory_ms=250), lane_events("a" * 7))
    assert [t.decision for _, t in found] == [
        *("act", "refractory", "refractory"),
        *("act", "refractory", "refractory"),
        "act",
    ]


def decisions(units, **options):
    found = triggers(watcher("a", refractory_ms=0, **options), lane_events(units))
    return [t.decision for _, t in found]


def test_catch_trials_are_reproducible():
    drawn = decisions("a" * 150, catch_share=0.2, seed=3)
    assert drawn == decisions("a" * 150, catch_share=0.2, seed=3)
    assert 15 <= drawn.count("catch") <= 50
    assert drawn != decisions("a" * 150, catch_share=0.2, seed=4)
    assert set(decisions("a" * 20)) == {"act"}
    assert set(decisions("a" * 20, catch_share=1.0)) == {"catch"}


def test_refractory_triggers_draw_no_catch_trial():
    drawn = decisions("a" * 40, catch_share=0.5)
    options = {"refractory_ms": 150, "catch_share": 0.5}
    found = triggers(watcher("a", **options), lane_events("a" * 80))
    assert [t.decision for _, t in found if t.decision != "refractory"] == drawn


def test_other_streams_cause_no_trigger():
    stage = watcher("a", streams=["attic"])
    assert not triggers(stage, lane_events("aa"))
    assert triggers(stage, lane_events("aa"), info=StreamInfo("attic", RATE))


@settings(deadline=None, max_examples=60)
@given(
    units=st.text("ab", min_size=1, max_size=10),
    pattern=st.sampled_from(["a b", "a+ b", ". b", "^ a", "b $", "(a b)+"]),
    status=st.sampled_from(["final", "provisional"]),
    quantum=st.integers(1, 90),
)
def test_triggers_do_not_depend_on_step_length(units, pattern, status, quantum):
    """Steps change when a trigger is emitted, but not its match."""
    if "$" in pattern:
        status = "final"
    events = [*lane_events(units), *lane_events("ab", start=3000, first=len(units))]
    options = {"status": status, "bout_gap_ms": 300, "refractory_ms": 0}
    fine = triggers(watcher(pattern, **options), events, until=4000)
    stage, coarse = watcher(pattern, **options), []
    for at in range(quantum, 4000 + quantum, quantum):
        now = tuple(e for when, e in events if at - quantum < when <= at)
        coarse += stage.process(StepEvents(INFO, at, now))
    assert repr(coarse) == repr([t for _, t in fine])


def test_trigger_lists_a_bounded_number_of_units():
    found = triggers(watcher("a+", refractory_ms=0), lane_events("a" * 60))
    assert [len(t.units) for _, t in found] == [min(n, 32) for n in range(1, 61)]


def test_reset_discards_all_state():
    stage = watcher("a b", refractory_ms=10_000)
    once = triggers(stage, lane_events("aab"))
    stage.reset()
    assert repr(triggers(stage, lane_events("aab"))) == repr(once)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"pattern": "a [b"}, "'\\[' at position 3"),
        ({"pattern": "a $", "status": "provisional"}, "waits for silence"),
        ({"pattern": "a", "status": "onset"}, "must end with '.'"),
        (
            {"pattern": "a", "play": {"path": "x", "delay_ms": 300}},
            r"delay_ms \(300\) is above latest_ms \(250\)",
        ),
        ({"pattern": "a", "set": {"arguments": {}}}, "at least 1 item"),
    ],
)
def test_impossible_options_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        PLUGIN.options.model_validate(options)


def test_lane_without_labels_is_refused_if_the_pattern_needs_them():
    context = BuildContext(clock=ManualClock(), run="t", info=INFO)
    with pytest.raises(ConfigError, match="no model that labels"):
        PLUGIN.watch(PLUGIN.options(pattern="a ."), context)
    with pytest.raises(ConfigError, match="no model that labels"):
        PLUGIN.watch(PLUGIN.options(pattern="."), context)
    PLUGIN.watch(PLUGIN.options(pattern=".", status="onset"), context)
    PLUGIN.watch(PLUGIN.options(pattern=". $"), context)
    PLUGIN.watch(PLUGIN.options(pattern="a", streams=["attic"]), context)
