"""Repeated messages: told once and counted; no count is lost, the last is told."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.support.repeats import (
    FIRST_WINDOW_NS,
    LONGEST_WINDOW_NS,
    MOST_TEXTS,
    QUIET_NS,
    Repeats,
    Told,
)

NS = 1_000_000_000
SEQUENCES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, NS // 3, NS, 20 * NS, 59 * NS, 61 * NS, 700 * NS]),
        st.sampled_from(["here", "there"]),
        st.sampled_from(["lane a", "lane b", None]),
        st.sampled_from(
            ["lost after 3 s", "back", *(f"'{n}.wav' is no sound" for n in range(14))]
        ),
    ),
    max_size=60,
)


class Replayed:
    """What is told of messages ``(pause_ns, place, subject, text)``, and when.

    A message is its number; `told` has ``(time_ns, Told)``. As a caller does, `due` is
    called at each `next_ns`.
    """

    def __init__(self, messages):
        self.messages = messages
        self.repeats = Repeats()
        self.told = []
        self.at_ns = []  # of each message
        self.now_ns = 0
        for number, (pause_ns, place, subject, text) in enumerate(messages):
            self.wait_until(self.now_ns + pause_ns)
            self.at_ns.append(self.now_ns)
            self.note(
                self.repeats.add(
                    number, text, self.now_ns, place=place, subject=subject
                )
            )

    def note(self, told):
        self.told += [(self.now_ns, one) for one in told]

    def wait_until(self, time_ns):
        while self.repeats.next_ns is not None and self.repeats.next_ns <= time_ns:
            assert self.repeats.next_ns >= self.now_ns
            self.now_ns = self.repeats.next_ns
            told = self.repeats.due(self.now_ns)
            assert told, "next_ns has come, and nothing is told"
            self.note(told)
        self.now_ns = time_ns

    def origin(self, number):
        return self.messages[number][1:3]

    @property
    def lines(self):
        return [f"{self.messages[one.message][3]}{one.note()}" for _, one in self.told]


def every(seconds, times, text="again", place="here", subject="lane"):
    return [(round(seconds * NS), place, subject, text)] * times


@given(SEQUENCES, st.booleans())
def test_no_message_is_lost_and_none_is_counted_twice(messages, waits):
    run = Replayed(messages)
    if waits:
        run.wait_until(run.now_ns + LONGEST_WINDOW_NS)
    else:
        run.note(run.repeats.flush(run.now_ns))
    assert run.repeats.next_ns is None
    assert run.repeats.flush(run.now_ns) == []
    counted = Counter()
    for _, one in run.told:
        counted[run.origin(one.message)] += 1 + one.more
    assert counted == Counter(message[1:3] for message in messages)


@given(SEQUENCES)
def test_the_last_line_of_a_place_is_its_last_message_and_comes_within_a_minute(
    messages,
):
    run = Replayed(messages)
    run.wait_until(run.now_ns + QUIET_NS)
    last = {message[1:3]: number for number, message in enumerate(messages)}
    lines = {run.origin(one.message): one.message for _, one in run.told}
    assert lines == last


@given(SEQUENCES)
def test_a_message_is_told_at_once_or_counted_in_time(messages):
    run = Replayed(messages)
    run.wait_until(run.now_ns + LONGEST_WINDOW_NS)
    waiting = {}
    told = {time_ns: set() for time_ns, _ in run.told}
    for time_ns, one in run.told:
        told[time_ns].add(run.origin(one.message))
    for number, at_ns in enumerate(run.at_ns):
        later = [
            time_ns
            for time_ns, origins in told.items()
            if time_ns >= at_ns and run.origin(number) in origins
        ]
        waiting[number] = min(later) - at_ns
    assert all(wait_ns <= LONGEST_WINDOW_NS for wait_ns in waiting.values())


@given(SEQUENCES)
def test_the_first_message_of_a_text_is_told_at_once(messages):
    run = Replayed(messages)
    at_once = {one.message for time_ns, one in run.told if not one.more}
    seen = set()
    for number, (_, place, subject, text) in enumerate(messages):
        of_place = {one for one in seen if one[:2] == (place, subject)}
        if (place, subject, text) not in seen and len(of_place) < MOST_TEXTS:
            assert number in at_once
            assert (run.at_ns[number], Told(number)) in run.told
        seen.add((place, subject, text))


@given(SEQUENCES)
def test_lines_of_one_subject_are_in_the_order_of_its_messages(messages):
    """Within one instant: a count is told before the new text that ends it."""
    run = Replayed(messages)
    for subject in {message[2] for message in messages}:
        by_time = {}
        for time_ns, one in run.told:
            if run.messages[one.message][2] == subject:
                by_time.setdefault(time_ns, []).append(one.message)
        for numbers in by_time.values():
            assert numbers == sorted(numbers)


def test_a_source_that_reconnects_every_second_for_an_hour_takes_some_lines():
    lost = (NS // 2, "source.py:1", "nv-a", "lost; last sample 12:00:01 (0.5 s ago)")
    back = (NS // 2, "source.py:1", "nv-a", "samples arrive again, after 0.5 s")
    run = Replayed([lost, back] * 3600)
    run.wait_until(run.now_ns + QUIET_NS)
    assert run.lines[:2] == [lost[3], back[3]]
    assert len(run.lines) <= 24
    assert run.lines[2] == f"{lost[3]} (and 58 more times in the last 60 s)"
    assert run.lines[-1].startswith(back[3])
    assert sum(1 + one.more for _, one in run.told) == 7200


def test_each_window_is_twice_as_long_as_the_last_up_to_ten_minutes():
    run = Replayed(every(1, 4000))
    times = [round(time_ns / NS) - 1 for time_ns, _ in run.told]
    assert times == [0, 60, 180, 420, 900, 1500, 2100, 2700, 3300, 3900]


def test_what_comes_less_often_than_a_window_is_told_each_time():
    run = Replayed(every(61, 50))
    assert run.lines == ["again"] * 50


def test_after_a_quiet_window_a_text_is_new_again():
    run = Replayed([*every(1, 5), *every(700, 1)])
    assert run.lines == ["again", "again (and 3 more times in the last 60 s)", "again"]


def test_a_count_is_told_before_the_news_about_its_subject():
    run = Replayed([*every(1, 5, "lost"), *every(2, 1, "back", place="there")])
    assert run.lines == ["lost", "lost (and 3 more times in the last 6 s)", "back"]
    others = [*every(1, 5, "lost"), *every(2, 1, "back", subject="another lane")]
    assert Replayed(others).lines == ["lost", "back"]


def test_of_a_thousand_names_ten_are_told_and_the_others_counted():
    messages = [(NS // 100, "here", "a", f"'{n}.wav' is no sound") for n in range(1000)]
    run = Replayed(messages)
    run.wait_until(run.now_ns + QUIET_NS)
    assert run.lines[:10] == [f"'{n}.wav' is no sound" for n in range(10)]
    assert run.lines[10:] == [
        "'999.wav' is no sound (and 989 more like it in the last 60 s)"
    ]


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("12 samples lost", "13 samples lost", True),
        ("late by 1.5 s at 12:00:01.5", "late by 17 s at 13:00:00", True),
        ("'a1' is lost", "'a2' is lost", False),
        ("it's 5 s late", "it's 6 s late", True),
        ("lost", "found", False),
    ],
)
def test_numbers_outside_of_names_make_no_other_text(text, other, same):
    run = Replayed([(0, "here", None, text), (0, "here", None, other)])
    assert len(run.told) == 1 + (not same)


def test_a_count_of_one_and_of_two():
    assert Told("x", 0).note() == ""
    assert Told("x", 1, False, 3).note() == " (and 1 more time in the last 3 s)"
    assert Told("x", 2, True, 3).note() == " (and 2 more like it in the last 3 s)"


def test_memory_is_bounded_by_the_places_not_by_the_texts():
    repeats = Repeats()
    for number in range(10_000):
        repeats.add(number, f"'{number}'", number, place=number % 3)
    (one, *_), n_groups = repeats._groups.values(), len(repeats._groups)
    assert (n_groups, len(one.texts)) == (3, MOST_TEXTS + 1)
    repeats.due(2 * FIRST_WINDOW_NS)
    repeats.due(4 * FIRST_WINDOW_NS)
    assert repeats._groups == {}
