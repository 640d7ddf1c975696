"""Comparison of two lanes: pairs, what one of them missed, and any order of steps."""

from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.contracts.types import Label, Offset, Onset
from neurovocal.engine.lane.comparison import LaneComparison

RATE = 1000


def song(units, shift=0, labelled=True):
    """Return steps (position, events) with a segment of 100 ms each half second."""
    steps = []
    for number, unit in enumerate(units):
        onset = 500 * number + 100 + shift
        if unit is None:
            continue
        steps.append((onset + 10, [Onset(number, onset, 1.0)]))
        events = [Offset(number, onset, onset + 100, False)]
        if unit and labelled:
            events.append(Label(number, onset, onset + 100, unit, 0.5, "final", "m"))
        steps.append((onset + 110, events))
    return [*steps, (500 * len(units) + 5000, [])]


def compared(present, shadow, order=None, *, ends=True):
    """Feed the steps of both in an order of sides; return comparisons and their at."""
    comparison = LaneComparison("new", RATE)
    sides = {"present": list(present), "shadow": list(shadow)}
    found = []
    order = [*(order or []), *["present"] * len(present), *["shadow"] * len(shadow)]
    for side in order:
        if sides[side]:
            at, events = sides[side].pop(0)
            found += comparison.add(side, events, at, -1)
    if ends:
        found += comparison.end_stream()
    return found, comparison


def told(found):
    return [(e.onset, e.unit, e.shadow_unit, e.agrees) for e, _ in found]


def test_segments_are_paired_within_20_ms():
    found, comparison = compared(song("aab"), song("abb", shift=20))
    assert told(found) == [
        (100, "a", "a", True),
        (600, "a", "b", False),
        (1100, "b", "b", True),
    ]
    assert (found[0][0].offset, found[0][0].shadow) == (200, "new")
    assert comparison.counts() == {
        "segments": {"old": 3, "new": 3, "equal": 1.0},
        "labels": {"old": 3, "new": 3, "equal": 0.6667},
        "confusions": [["a", "b", 1]],
    }
    found, comparison = compared(song("a"), song("a", shift=21))
    assert told(found) == [(100, "a", None, False), (121, None, "a", False)]
    assert comparison.counts()["confusions"] == [["a", None, 1], [None, "a", 1]]


def test_what_one_heard_alone_is_null_and_what_nobody_labelled_is_empty():
    found, comparison = compared(song(["a", None, ""]), song([None, "b", ""]))
    assert told(found) == [
        (100, "a", None, False),
        (600, None, "b", False),
        (1100, "", "", True),
    ]
    counts = comparison.counts()
    assert counts["segments"] == {"old": 2, "new": 2, "equal": 0.5}
    assert counts["labels"] == {"old": 1, "new": 1, "equal": 0.0}


def test_a_label_is_waited_for_and_a_late_one_is_not():
    steps = [
        (110, [Onset(0, 100, 1.0)]),
        (210, [Offset(0, 100, 200, False)]),
        (2000, [Label(0, 100, 200, "a", 0.5, "final", "m")]),
        (9000, []),
    ]
    found, _ = compared(steps, song("a"))
    assert told(found) == [(100, "a", "a", True)]
    steps[2] = (2300, steps[2][1])
    found, _ = compared(steps, song("a"))
    assert told(found) == [(100, "", "a", False)]


def test_nothing_is_told_before_both_have_heard_enough():
    found, _ = compared(song("a")[:-1], song("a")[:-1], ends=False)
    assert found == []
    found, _ = compared(song("a"), song("a"), ends=False)
    assert len(found) == 1


def test_what_began_before_the_shadow_is_left_out():
    comparison = LaneComparison("new", RATE)
    found = []
    for at, events in song("ab"):
        found += comparison.add("present", events, at, 300)
    for at, events in song("ab"):
        found += comparison.add("shadow", events, at, 300)
    assert told(found) == [(600, "b", "b", True)]


def test_memory_is_bounded_where_the_other_lane_hears_nothing():
    comparison = LaneComparison("new", RATE)
    found = []
    for at, events in song("a" * 6000):
        found += comparison.add("present", events, at, -1)
    assert len(found) > 1000
    assert len(comparison._lanes["present"].segments) <= 4096


units = st.lists(st.sampled_from(["a", "b", "", None]), max_size=8)


@given(
    units,
    units,
    st.integers(-25, 25),
    st.lists(st.sampled_from(["present", "shadow"]), max_size=40),
)
def test_comparisons_do_not_depend_on_the_order_of_the_threads(one, two, shift, order):
    present, shadow = song(one), song(two, max(-25, shift))
    expected, _ = compared(present, shadow)
    found, _ = compared(present, shadow, order)
    assert [repr(each) for each in found] == [repr(each) for each in expected]
