"""Summaries of journals: periods, counts, outages, repeats, and damaged rows."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from network.publishers import Engine

from neurovocal.engine import ConfigError
from neurovocal.engine.contracts.types import (
    Anchor,
    Event,
    Gap,
    Health,
    Label,
    Message,
    NearMiss,
    Offset,
    Onset,
    Withheld,
)
from neurovocal.engine.journal import Selection, summarize
from neurovocal.engine.journal.reader import _where
from neurovocal.engine.journal.repeats import repeat_sentence

RATE = 32000
HOUR = 3600 * RATE
NS = 10**9


def utc(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * NS


class Journal:
    """A journal that several runs write one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "j.sqlite"

    def run(
        self,
        name: str,
        events: Iterable[tuple[Event, int]],
        start: int | None = None,
        stream: str = "roof",
        *,
        killed: bool = False,
        began: int | None = None,
    ) -> None:
        """Write events, each with the position at which it was known."""
        engine = Engine(self.folder, name, stream)
        seqs: dict[str, int] = {}
        for event, at in events:
            message = Message(engine.info, event, 0, at)
            seq = seqs[message.kind] = seqs.get(message.kind, -1) + 1
            utc_ns = None if start is None else start + message.sample * NS // RATE
            engine.journal.write(Message(engine.info, event, seq, at, utc_ns))
        engine.close()
        with closing(sqlite3.connect(self.path)) as connection, connection:
            if killed:
                self._set(connection, "ended_utc_ns", None, name)
            if began is not None:
                self._set(connection, "started_utc_ns", began, name)

    @staticmethod
    def _set(
        connection: sqlite3.Connection, column: str, value: object, run: str
    ) -> None:
        connection.execute(f"UPDATE runs SET {column} = ? WHERE run = ?", (value, run))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def anchors(start: int, stop: int, start_utc: int) -> list[tuple[Event, int]]:
    return [
        (Anchor(sample, start_utc + sample * NS // RATE), sample)
        for sample in range(start, stop + 1, 60 * RATE)
    ]


def song(
    segment: int, onset: int, unit: str | None, *, label_first: bool = False
) -> list[tuple[Event, int]]:
    """Return the events of a segment of 0.1 s."""
    offset = onset + RATE // 10
    events: list[Event] = [Onset(segment, onset, 9.0)]
    end: Event = Offset(segment, onset, offset, False)
    if unit is None:
        events.append(end)
    else:
        label: Event = Label(segment, onset, offset, unit, 0.9, "final", "m")
        early = Label(segment, onset, None, unit, 0.5, "provisional", "m")
        events += [early, *([label, end] if label_first else [end, label])]
    return [(event, offset) for event in events]


def test_counts_and_seconds_lie_in_their_hours(journal: Journal) -> None:
    start = utc("2026-05-01T04:30Z")
    events = [
        *anchors(0, HOUR // 4, start),
        *song(0, HOUR // 4, "a"),
        *anchors(HOUR // 4 + 60 * RATE, HOUR // 2, start),
        *song(1, HOUR // 2, "b", label_first=True),
        *song(2, HOUR // 2 + RATE, "a"),
        *song(3, HOUR // 2 + 2 * RATE, None),
        (
            NearMiss(HOUR // 2, HOUR // 2 + 9, 5.0, 6.0, "quiet", 2),
            HOUR // 2 + 3 * RATE,
        ),
        *anchors(HOUR, HOUR, start),
    ]
    journal.run("one", events, start)
    result = summarize(journal.path)

    assert [period.start for period in result.periods] == [
        "2026-05-01T04:00:00+00:00",
        "2026-05-01T05:00:00+00:00",
    ]
    first, second = result.periods
    assert first.heard_s == second.heard_s == 1800
    assert (first.units, second.units) == ({"a": 1}, {"b": 1, "a": 1})
    assert (first.segments, first.unlabelled, first.near_misses) == (1, 0, 0)
    assert (second.segments, second.unlabelled, second.near_misses) == (3, 1, 3)
    assert result.total.heard_s == 3600
    assert result.total.units == {"a": 2, "b": 1}
    assert result.units() == ["a", "b"]
    assert result.streams == {"roof": result.total}
    active = {one.hour: (one.segments, one.heard_s) for one in result.activity}
    assert active[4] == (1, 1800)
    assert active[5] == (3, 1800)
    assert sum(heard for _, heard in active.values()) == 3600


def test_days_are_those_of_the_time_zone(journal: Journal) -> None:
    start = utc("2026-05-01T21:30Z")
    journal.run("one", [*anchors(0, 2 * HOUR, start), *song(0, 2 * HOUR, "a")], start)
    days = summarize(journal.path, by="day").periods
    assert [(day.start, day.heard_s) for day in days] == [
        ("2026-05-01T00:00:00+00:00", 7200.0 + 0.1)
    ]
    result = summarize(journal.path, by="day", timezone=ZoneInfo("Europe/Berlin"))
    assert [(day.start, day.heard_s) for day in result.periods] == [
        ("2026-05-01T00:00:00+02:00", 1800.0),
        ("2026-05-02T00:00:00+02:00", pytest.approx(5400.1)),
    ]
    assert result.timezone == "Europe/Berlin"
    assert result.activity[1].segments == 1
    # Half past three in Kathmandu: hours do not begin with those of UTC.
    hours = summarize(journal.path, timezone=ZoneInfo("Asia/Kathmandu")).periods
    assert hours[0].start == "2026-05-02T03:00:00+05:45"
    assert hours[0].heard_s == 45 * 60


def test_an_hour_that_summer_time_repeats_is_two(journal: Journal) -> None:
    start = utc("2026-10-25T00:00Z")
    journal.run("one", anchors(0, 2 * HOUR, start), start)
    result = summarize(journal.path, timezone=ZoneInfo("Europe/Berlin"))
    assert [(hour.start, hour.heard_s) for hour in result.periods] == [
        ("2026-10-25T02:00:00+02:00", 3600),
        ("2026-10-25T02:00:00+01:00", 3600),
    ]
    assert result.activity[2].heard_s == 7200


def test_what_a_gap_took_is_not_heard(journal: Journal) -> None:
    start = utc("2026-05-01T04:00Z")
    gap = Gap(100 * RATE, 160 * RATE, "device lost")
    cut = Offset(0, 99 * RATE, 100 * RATE, True)
    events: list[tuple[Event, int]] = [
        (Anchor(0, start), 0),
        (Onset(0, 99 * RATE, 9.0), 99 * RATE),
        # A lane closes what is open at a gap in the step that ends with the gap.
        (cut, gap.stop),
        (gap, gap.stop),
        (Gap(200 * RATE, 200 * RATE + RATE // 2, "overrun"), 201 * RATE),
        (Withheld(10 * RATE, 12 * RATE, "speech"), 201 * RATE),
        (Anchor(300 * RATE, start + 300 * NS), 300 * RATE),
    ]
    journal.run("one", events, start)
    result = summarize(journal.path)
    assert result.total.heard_s == pytest.approx(239.5)
    assert result.total.lost_s == pytest.approx(60.5)
    assert result.total.withheld_s == 2
    assert result.lost == {
        "device lost": (1, 60),
        "overrun": (1, 0.5),
        "withheld: speech": (1, 2),
    }
    lost, withheld = result.outages
    assert (lost.reason, lost.start, lost.sample, lost.seconds) == (
        "device lost",
        "2026-05-01T04:01:40+00:00",
        100 * RATE,
        60,
    )
    assert withheld.start == "2026-05-01T04:00:10+00:00"


def test_times_between_runs_are_outages(journal: Journal) -> None:
    starts = [utc(f"2026-05-01T0{hour}:00Z") for hour in (4, 6, 9)]
    for number, start in enumerate(starts):
        journal.run(
            f"run{number}",
            anchors(0, HOUR, start),
            start,
            killed=number != 1,
            began=start - NS,
        )
    with closing(sqlite3.connect(journal.path)) as connection, connection:
        connection.execute(
            "UPDATE runs SET ended_utc_ns = ? WHERE run = 'run1'",
            (utc("2026-05-01T07:30Z"),),
        )
    result = summarize(journal.path)
    assert [(one.reason, one.run, one.seconds) for one in result.outages] == [
        ("killed", "run0", 3599),
        ("not running", "run1", 5399),
    ]
    assert [run.state for run in result.runs] == ["killed", "ended", "open"]


def test_recordings_are_summarized_without_pauses_between_runs(
    journal: Journal,
) -> None:
    start = utc("2020-05-01T04:00Z")
    journal.run("dated", [*anchors(0, HOUR, start), *song(0, HOUR, "a")], start)
    journal.run("undated", song(0, RATE, "b"), None, "x.wav")
    result = summarize(journal.path)
    assert result.outages == []
    last = result.periods[-1]
    assert (last.start, last.units) == (None, {"b": 1})
    assert last.heard_s == pytest.approx(1.1)
    assert sum(one.segments for one in result.activity) == 1


def test_a_selection_counts_what_it_selects(journal: Journal) -> None:
    start = utc("2026-05-01T04:00Z")
    events = [*anchors(0, HOUR, start), *song(0, HOUR, "a")]
    journal.run("one", events, start)
    journal.run("two", events, start, "pond")
    since = Selection(since_ns=utc("2026-05-01T04:45Z"))
    assert summarize(journal.path, since).total.heard_s == pytest.approx(1800.2)
    pond = summarize(journal.path, Selection(streams=("pond",)))
    assert pond.total.heard_s == pytest.approx(3600.1)
    one = summarize(journal.path, Selection(runs=("one",)))
    assert [run.run for run in one.runs] == ["one"]
    assert one.total.units == {"a": 1}


def test_times_beyond_the_journal_select_all_or_nothing(journal: Journal) -> None:
    start = utc("2026-05-01T04:00Z")
    journal.run("one", [*anchors(0, HOUR, start), *song(0, HOUR, "a")], start)
    first, last = utc("0001-01-01T00:00Z"), utc("9999-12-31T00:00Z")
    everything = Selection(since_ns=first, until_ns=last)
    assert summarize(journal.path, everything).total.units == {"a": 1}
    assert summarize(journal.path, Selection(since_ns=last)).periods == []
    assert summarize(journal.path, Selection(until_ns=first)).periods == []


def test_a_recording_that_was_processed_twice_is_counted_once(
    journal: Journal,
) -> None:
    journal.run("one", song(0, RATE, "a"), None, "x.wav", killed=True)
    again = Health(
        "source",
        "recovering",
        repeat_sentence("/card/x.wav", ["one"], name_was_used=False),
    )
    whole: list[tuple[Event, int]] = [(again, 0), *song(0, RATE, "a")]
    journal.run("two", [*whole, *song(1, 3 * RATE, "b")], None, "x.wav")
    once = summarize(journal.path)
    assert once.total.units == {"a": 1, "b": 1}
    assert once.total.heard_s == pytest.approx(3.1)
    both = summarize(journal.path, Selection(heard="all"))
    assert both.total.units == {"a": 2, "b": 1}
    assert both.total.heard_s == pytest.approx(4.2)


def test_a_stream_that_begins_anew_is_heard_again(journal: Journal) -> None:
    journal.run("one", [*song(0, 9 * RATE, "a"), *song(0, 5 * RATE, "a")])
    assert summarize(journal.path).total.heard_s == pytest.approx(9.1 + 5.1)


def test_memory_of_segments_is_bounded(journal: Journal) -> None:
    events = [each for n in range(5000) for each in song(n, n * RATE, None)]
    late = Label(4999, 4999 * RATE, 4999 * RATE + 9, "a", 0.9, "final", "m")
    journal.run("one", [*events, (late, 5000 * RATE)])
    result = summarize(journal.path)
    assert (result.total.segments, result.total.unlabelled) == (5000, 4999)


def test_two_models_may_label_one_segment(journal: Journal) -> None:
    other = Label(0, RATE, RATE + 9, "finch", 0.9, "final", "other")
    journal.run("one", [*song(0, RATE, "a", label_first=True), (other, 2 * RATE)])
    total = summarize(journal.path).total
    assert (total.segments, total.unlabelled) == (1, 0)
    assert total.units == {"a": 1, "finch": 1}


def test_values_are_those_of_json(journal: Journal) -> None:
    start = utc("2026-05-01T04:00Z")
    gap = Gap(RATE, 3 * RATE + 1, "device lost")
    journal.run("one", [(Anchor(0, start), 0), (gap, gap.stop)], start)
    values = summarize(journal.path, timezone=UTC).as_dict()
    assert values["timezone"] == "UTC"
    assert values["total"]["heard_s"] == 1.0
    assert values["lost"] == {"device lost": [1, 2.0]}
    assert values["outages"][0]["seconds"] == 2.0
    assert values["runs"][0]["state"] == "ended"


@pytest.mark.parametrize(
    "change",
    [
        "header = '{}'",
        "header = 7",
        "header = x'00'",
        "sample = 'x'",
        "utc_ns = 'x'",
        "header = replace(header, '32000', '0')",
        "header = replace(header, '\"at\":35200', '\"at\":9000000000000')",
    ],
)
def test_a_row_that_no_run_wrote_is_one_sentence(journal: Journal, change: str) -> None:
    start = utc("2026-05-01T04:00Z")
    journal.run("one", [(Anchor(0, start), 0), *song(0, RATE, "a")], start)
    with closing(sqlite3.connect(journal.path)) as connection, connection:
        connection.execute(f"UPDATE messages SET {change} WHERE kind = 'offset'")
    with pytest.raises(ConfigError, match="holds an event that cannot be read"):
        summarize(journal.path)


@pytest.mark.parametrize("names", [{}, {"runs": ("one",)}, {"streams": ("roof",)}])
def test_rows_are_not_sorted_in_memory(journal: Journal, names: dict[str, Any]) -> None:
    journal.run("one", song(0, RATE, "a"))
    where, values = _where(Selection(kinds=("label",), **names), in_order=True)
    query = f"EXPLAIN QUERY PLAN SELECT header FROM messages {where} ORDER BY rowid"
    with closing(sqlite3.connect(journal.path)) as connection:
        plan = connection.execute(query, values).fetchall()
    assert [step for _, _, _, step in plan] == ["SCAN messages"]


def test_an_empty_journal_has_an_empty_summary(journal: Journal) -> None:
    journal.run("one", [])
    result = summarize(journal.path)
    assert (result.periods, result.total.heard_s) == ([], 0)
    assert [run.run for run in result.runs] == ["one"]
