"""What became of expected sounds: told apart whatever is lost, doubled or displaced."""

from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.rehearsal.comparison import (
    Comparison,
    Delivery,
    Sound,
    Span,
    compare,
    displacement,
    doubled,
    in_spans,
)

TOLERANCE = 20
# Far enough apart that no sound is within the tolerance of another.
SONGS = st.lists(
    st.tuples(st.integers(50, 400), st.integers(50, 300), st.sampled_from("abc")),
    min_size=1,
    max_size=30,
)


def song(parts):
    sounds, at = [], 0
    for pause, length, unit in parts:
        sounds.append(Sound("aviary", at + pause, at + pause + length, unit))
        at += pause + length
    return sounds


def delivered(sounds, run="one"):
    return [
        Delivery((run, "label", sound.stream, seq), sound)
        for seq, sound in enumerate(sounds)
    ]


def never(sound):
    return False


def together(result: Comparison):
    return [
        *result.received,
        *result.kept,
        *result.told,
        *result.changed,
        *result.lost,
    ]


@given(SONGS, st.data())
def test_every_sound_is_accounted_for_once(parts, data):
    sounds = song(parts)
    fate = st.sampled_from(["received", "kept", "told", "lost"])
    fates = data.draw(st.lists(fate, min_size=len(sounds), max_size=len(sounds)))

    def those(name):
        return [s for s, f in zip(sounds, fates, strict=True) if f == name]

    told = set(those("told"))
    result = compare(
        sounds,
        delivered(those("received")),
        delivered([*those("received"), *those("kept")]),
        TOLERANCE,
        told.__contains__,
    )
    assert result.received == those("received")
    assert result.kept == those("kept")
    assert result.told == those("told")
    assert result.lost == those("lost")
    assert result.expected == len(sounds)
    assert result.double == 0


@given(SONGS, st.integers(-3 * TOLERANCE, 3 * TOLERANCE))
def test_bounds_may_be_off_by_the_tolerance_and_no_more(parts, by):
    sounds = song(parts)
    moved = [s._replace(onset=s.onset + by, offset=s.offset + by) for s in sounds]
    result = compare(sounds, delivered(moved), [], TOLERANCE, never)
    if abs(by) <= TOLERANCE:
        assert result.received == sounds
    elif abs(by) < 30:  # pauses are longer: no sound is taken for its neighbour
        assert result.lost == sounds


@given(SONGS, st.data())
def test_what_comes_twice_is_counted(parts, data):
    sounds = song(parts)
    messages = delivered(sounds)
    again = data.draw(st.lists(st.sampled_from(messages), max_size=5))
    assert doubled([*messages, *again]) == len(again)
    # The same sounds as other messages: another run told them, too.
    other = delivered(data.draw(st.lists(st.sampled_from(sounds), unique=True)), "two")
    assert doubled([*messages, *other]) == len(other)
    result = compare(sounds, [*messages, *again], [], TOLERANCE, never)
    assert (result.received, result.double) == (sounds, len(again))


@given(SONGS)
def test_another_unit_is_another_sound_unless_that_may_be(parts):
    sounds = song(parts)
    other = [s._replace(unit="z") for s in sounds]
    strict = compare(sounds, delivered(other), [], TOLERANCE, never)
    assert strict.lost == sounds
    lenient = compare(sounds, delivered(other), [], TOLERANCE, never, lambda s: True)
    assert lenient.changed == sounds
    assert together(lenient) == sounds


@given(SONGS, st.integers(-45, 45))
def test_a_gap_of_a_wrong_length_displaces_what_follows(parts, by):
    sounds = song(parts)
    moved = [s._replace(onset=s.onset + by, offset=s.offset + by) for s in sounds]
    found = displacement(sounds, delivered(moved), 49)
    # Every pause and every sound is at least 50 long: none is mistaken.
    assert found == by
    assert displacement(sounds, [], 49) is None


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 20), st.integers(0, 20))
def test_a_sound_is_in_a_span_if_they_share_a_sample(onset, start, before, after):
    sound, span = Sound("s", onset, onset + 10, ""), Span(start, start + 7)
    shared = set(range(onset, onset + 10)) & set(
        range(start - before, start + 7 + after)
    )
    assert in_spans(sound, [span], before, after) == bool(shared)
    assert not in_spans(sound, [], before, after)


def test_streams_are_apart():
    here, there = Sound("a", 0, 10, "x"), Sound("b", 0, 10, "x")
    result = compare([here, there], delivered([there]), [], TOLERANCE, never)
    assert (result.received, result.lost) == ([there], [here])
