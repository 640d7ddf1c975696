"""Displays of a run: of repeated gaps and changes of health the first and a count."""

import io
import json
from collections import Counter
from types import SimpleNamespace

import pytest
from rich.console import Console

from neurovocal.engine.cli import display
from neurovocal.engine.cli.display import LineDisplay, TableDisplay
from neurovocal.engine.cli.drawing import TableDrawing
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.types import (
    Gap,
    Health,
    Label,
    Message,
    Onset,
    StreamInfo,
)

RATE = 1000


def message(event, at=0, stream="pit", emitted_ns=1):
    return Message(StreamInfo(stream, RATE), event, at, at, None, None, emitted_ns)


@pytest.fixture
def shown(monkeypatch):
    """Make a line display; return it, its clock and a function that reads lines."""

    def start(**options):
        stream, clock = io.StringIO(), ManualClock()
        monkeypatch.setattr(display.sys, "stdout", stream)
        lines = LineDisplay(labelled=True, clock=clock, **options)
        return lines, clock, lambda: stream.getvalue().splitlines()

    return start


def flap(lines, clock, times):
    """Lose and find the device once a second."""
    for second in range(times):
        lines.write(message(Health("source", "recovering", "lost"), second * RATE))
        lines.write(message(Gap(second * RATE, second * RATE + 10, "device lost")))
        lines.write(
            message(Health("source", "healthy", f"after {second} s"), second * RATE)
        )
        clock.advance(1)
        lines.draw()


def test_a_source_that_flaps_takes_some_lines_and_no_event_is_uncounted(shown):
    lines, clock, read = shown()
    flap(lines, clock, 60)
    first, second = read()[:3], read()[3:]
    assert first == [
        "pit      0.000 s  source recovering: lost",
        "pit      0.000 s  gap of 10 samples: device lost",
        "pit      0.000 s  source healthy: after 0 s",
    ]
    count = " (and 58 more times in the last 60 s)"
    assert second == [
        f"pit     59.000 s  source recovering: lost{count}",
        f"pit     59.000 s  gap of 10 samples: device lost{count}",
        f"pit     59.000 s  source healthy: after 59 s{count}",
    ]


def test_the_last_state_is_printed_when_the_display_closes(shown):
    lines, clock, read = shown()
    flap(lines, clock, 2)
    lines.close()
    assert read()[-1] == "pit      1.000 s  source healthy: after 1 s"
    assert len(read()) == 6


def test_labels_and_gaps_of_recordings_are_printed_one_by_one(shown):
    lines, _, read = shown()
    for segment in range(30):
        lines.write(message(Label(segment, 0, 100, "a", 1.0, "final", "m")))
        lines.write(message(Gap(0, 10, "cut"), emitted_ns=0))
        lines.write(message(Onset(segment, 0, 1.0)))
    assert len(read()) == 60


def test_streams_are_told_apart(shown):
    lines, _, read = shown()
    for stream in "abc":
        lines.write(message(Health("source", "stalled", "no sample"), stream=stream))
    assert len(read()) == 3


def test_json_lines_are_printed_one_by_one(shown):
    lines, clock, read = shown(as_json=True)
    flap(lines, clock, 20)
    lines.close()
    assert len([json.loads(line) for line in read()]) == 60


def test_the_table_notes_each_cause_once_with_its_count():
    table = TableDisplay("station")
    for second in range(5):
        table.write(message(Health("source", "recovering", "lost"), second * RATE))
        table.write(message(Gap(0, second, "device lost")))
    table.write(message(Health("lane", "lagging", "behind")))
    assert list(table._notes.values()) == [
        ("pit      4.000 s  source recovering: lost", 5),
        ("pit      0.000 s  gap of 4 samples: device lost", 5),
        ("pit      0.000 s  lane lagging: behind", 1),
    ]


def test_health_of_recordings_names_the_recording_it_is_about(shown):
    lines, _, read = shown()
    info = StreamInfo("good.wav", RATE, duration_s=1.0)
    event = Health("source", "lossy", "set aside: 'in/bad.wav' is empty")
    lines.write(Message(info, event, 0, 0, None, None, 0))
    assert read() == ["source lossy: set aside: 'in/bad.wav' is empty"]


def drawn_on(table, console, monkeypatch):
    """Let a table draw on a console; return what it draws with."""
    table._drawing = TableDrawing("demo")
    monkeypatch.setattr(table._drawing._live, "console", console)
    return table._drawing._live


def test_the_table_ends_in_an_empty_line_for_the_echo_of_ctrl_c(monkeypatch):
    stream = io.StringIO()
    table = TableDisplay("demo")
    console = Console(file=stream, width=80, force_terminal=True)
    live = drawn_on(table, console, monkeypatch)
    table.draw()
    *_, last = console.render_lines(live.renderable, pad=False)
    assert "".join(segment.text for segment in last) == ""


@pytest.mark.parametrize("width", [60, 80, 110, 200])
def test_labels_have_room_at_any_width(monkeypatch, width):
    stream = io.StringIO()
    table = TableDisplay("demo")
    console = Console(file=stream, width=width, force_terminal=True)
    live = drawn_on(table, console, monkeypatch)
    info = StreamInfo("bengalese-finch.flac", 32000, 1)
    lane = SimpleNamespace(info=info, position=90 * 32000)
    counts = Counter(offset=1234)
    channel = SimpleNamespace(lane=lane, level_db=-23.4, lag_ms=12.0, counts=counts)
    reader = SimpleNamespace(lost_samples=0)
    table.watch(
        SimpleNamespace(lanes=[SimpleNamespace(channels=[channel], reader=reader)])
    )
    for segment in range(12):
        at = 100 * segment
        label = Label(segment, at, at + 50, "i", 0.9, "final", "classifier")
        table.write(message(label, at, info.stream))
    table.draw()
    lines = console.render_lines(live.renderable, pad=False)
    texts = ["".join(part.text for part in line) for line in lines]
    assert max(map(len, texts)) <= width
    row = next(text for text in texts if "flac" in text)
    shown = {"90.0 s": 60, "-23 dB": 80, "1234": 80, "12 ms": 110}
    for value, least in shown.items():
        assert (value in row) == (width >= least), value
    assert row.index("i 0.90") < row.index("90.0 s")
    assert "i 0.90   i i i" in row
