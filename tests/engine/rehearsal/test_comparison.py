"""Comparison of vocalizations: lost, duplicated and displaced ones are counted."""

from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.rehearsal.comparison import (
    Comparison,
    PublishedVocalization,
    SampleSpan,
    Vocalization,
    compare,
    count_duplicates,
    displacement,
    touches_spans,
)

TOLERANCE = 20
# Far enough apart that no vocalization is within the tolerance of another.
SONGS = st.lists(
    st.tuples(st.integers(50, 400), st.integers(50, 300), st.sampled_from("abc")),
    min_size=1,
    max_size=30,
)


def vocalizations(parts):
    expected, at = [], 0
    for pause, length, unit in parts:
        expected.append(Vocalization("aviary", at + pause, at + pause + length, unit))
        at += pause + length
    return expected


def published(expected, run="one"):
    return [
        PublishedVocalization((run, "label", one.stream, seq), one)
        for seq, one in enumerate(expected)
    ]


def never(one):
    return False


def all_parts(result: Comparison):
    return [
        *result.received,
        *result.journaled,
        *result.reported,
        *result.changed,
        *result.lost,
    ]


@given(SONGS, st.data())
def test_every_expected_vocalization_is_counted_once(parts, data):
    expected = vocalizations(parts)
    fate = st.sampled_from(["received", "kept", "told", "lost"])
    fates = data.draw(st.lists(fate, min_size=len(expected), max_size=len(expected)))

    def those(name):
        return [s for s, f in zip(expected, fates, strict=True) if f == name]

    told = set(those("told"))
    result = compare(
        expected,
        published(those("received")),
        published([*those("received"), *those("kept")]),
        TOLERANCE,
        told.__contains__,
    )
    assert result.received == those("received")
    assert result.journaled == those("kept")
    assert result.reported == those("told")
    assert result.lost == those("lost")
    assert result.expected == len(expected)
    assert result.duplicates == 0


@given(SONGS, st.integers(-3 * TOLERANCE, 3 * TOLERANCE))
def test_bounds_may_differ_by_the_tolerance_at_most(parts, by):
    expected = vocalizations(parts)
    moved = [s._replace(onset=s.onset + by, offset=s.offset + by) for s in expected]
    result = compare(expected, published(moved), [], TOLERANCE, never)
    if abs(by) <= TOLERANCE:
        assert result.received == expected
    elif abs(by) < 30:  # pauses are longer: none matches its neighbour
        assert result.lost == expected


@given(SONGS, st.data())
def test_repeated_messages_and_vocalizations_are_duplicates(parts, data):
    expected = vocalizations(parts)
    messages = published(expected)
    again = data.draw(st.lists(st.sampled_from(messages), max_size=5))
    assert count_duplicates([*messages, *again]) == len(again)
    # The same vocalizations in other messages, of another run.
    other = published(
        data.draw(st.lists(st.sampled_from(expected), unique=True)), "two"
    )
    assert count_duplicates([*messages, *other]) == len(other)
    result = compare(expected, [*messages, *again], [], TOLERANCE, never)
    assert (result.received, result.duplicates) == (expected, len(again))


@given(SONGS)
def test_another_unit_is_a_loss_unless_changes_are_allowed(parts):
    expected = vocalizations(parts)
    other = [s._replace(unit="z") for s in expected]
    strict = compare(expected, published(other), [], TOLERANCE, never)
    assert strict.lost == expected
    lenient = compare(expected, published(other), [], TOLERANCE, never, lambda s: True)
    assert lenient.changed == expected
    assert all_parts(lenient) == expected


@given(SONGS, st.integers(-45, 45))
def test_displacement_is_the_common_shift_of_all_onsets(parts, by):
    expected = vocalizations(parts)
    moved = [s._replace(onset=s.onset + by, offset=s.offset + by) for s in expected]
    found = displacement(expected, published(moved), 49)
    # Pauses and vocalizations have 50 samples or more: none matches another.
    assert found == by
    assert displacement(expected, [], 49) is None


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 20), st.integers(0, 20))
def test_a_vocalization_touches_a_widened_span_if_they_share_a_sample(
    onset, start, before, after
):
    one, span = Vocalization("s", onset, onset + 10, ""), SampleSpan(start, start + 7)
    shared = set(range(onset, onset + 10)) & set(
        range(start - before, start + 7 + after)
    )
    assert touches_spans(one, [span], before, after) == bool(shared)
    assert not touches_spans(one, [], before, after)


def test_vocalizations_of_two_streams_never_match():
    here, there = Vocalization("a", 0, 10, "x"), Vocalization("b", 0, 10, "x")
    result = compare([here, there], published([there]), [], TOLERANCE, never)
    assert (result.received, result.lost) == ([there], [here])
