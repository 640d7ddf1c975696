"""Log lines: sentences or JSON, of repeated ones the first and a count."""

import io
import json
import logging
import threading
import weakref

import pytest
from processes.waiting import until

from neurovocal.engine.cli.logs import (
    JsonFormatter,
    LogFormat,
    LogLevel,
    RepeatFolding,
    set_up_logging,
    tell_repeats,
)
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.runtime.workers.sink_worker import SupervisedSink
from neurovocal.engine.runtime.workers.source_reader import SourceState
from neurovocal.engine.testing import CollectSink


@pytest.fixture
def lines():
    """Set up logging; the returned function returns the lines logged so far."""
    log = logging.getLogger("neurovocal")
    before = log.handlers, log.propagate, log.level
    stream = io.StringIO()

    def start(*arguments):
        set_up_logging(*arguments)
        handler = log.handlers[0]
        getattr(handler, "_target", handler).setStream(stream)
        return lambda: stream.getvalue().splitlines()

    yield start
    log.handlers, log.propagate = before[0], before[1]
    log.setLevel(before[2])


def test_json_lines_hold_newlines_and_the_traceback(lines):
    read = lines(False, LogLevel.INFO, LogFormat.JSON)
    log = logging.getLogger("neurovocal")
    log.debug("not this")
    log.info("two\nlines of '%s'", "a")
    try:
        raise ValueError("oh")
    except ValueError:
        log.exception("it failed")
    first, second = map(json.loads, read())
    assert (first["level"], first["message"]) == ("info", "two\nlines of 'a'")
    assert first["time"].endswith("+00:00")
    assert "ValueError: oh" in second["traceback"]


def test_sentences_without_traceback_are_the_default(lines):
    read = lines(False)
    log = logging.getLogger("neurovocal")
    log.info("not this")
    log.warning("mind that", exc_info=ValueError("oh"))
    assert read() == ["warning: mind that"]


def folding(clock):
    """Log to a `RepeatFolding` of this clock; return the log and its target's lines."""
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(JsonFormatter())
    log = logging.getLogger("test of repeats")
    log.propagate, log.handlers = False, [RepeatFolding(target, clock)]
    return log, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_repeated_line_is_told_once_and_then_counted_when_the_run_ends(lines):
    read = lines(False)
    log = logging.getLogger("neurovocal")
    for number in range(413):
        log.warning("device 'x' stopped delivering for %d s", number)
    log.warning("another place")
    first = "warning: device 'x' stopped delivering for 0 s"
    assert read() == [
        first,
        "warning: device 'x' stopped delivering for 412 s (and 411 more times in the "
        "last 1 s)",
        "warning: another place",
    ]


def test_at_the_end_of_a_run_the_last_state_is_told(lines):
    read = lines(False)
    log = logging.getLogger("neurovocal")
    for number in range(5):
        log.warning("sink 'j' failed %d times", number)
    tell_repeats()
    assert read() == [
        "warning: sink 'j' failed 0 times",
        "warning: sink 'j' failed 4 times (and 3 more times in the last 1 s)",
    ]
    tell_repeats()
    assert len(read()) == 2


def test_counts_are_told_in_time_without_a_further_line():
    clock = ManualClock(autojump=False)
    log, read = folding(clock)
    for _ in range(3):
        log.warning("again")
    assert [line["message"] for line in read()] == ["again"]
    clock.advance(60)
    until(lambda: len(read()) == 2)
    assert [(line.get("more"), line.get("in_s")) for line in read()] == [
        (None, None),
        (1, 60),
    ]
    until(lambda: "nv-log" not in {each.name for each in threading.enumerate()})


class FailedError(Exception):
    """An error that can be referred to weakly."""


def test_a_counted_line_keeps_no_object_and_its_newest_traceback():
    log, read = folding(ManualClock(autojump=False))
    alive = []
    for number in range(3):
        try:
            error = FailedError(number)
            alive.append(weakref.ref(error))
            raise error
        except FailedError as failed:
            log.exception("it failed: %s", type(failed).__name__)
            del error
    assert [ref() for ref in alive] == [None] * 3
    log.handlers[0].flush()
    assert "FailedError: 0" in read()[0]["traceback"]
    assert "FailedError: 2" in read()[1]["traceback"]
    assert read()[1]["more"] == 1


def test_a_line_after_the_end_of_logging_is_told_at_once():
    log, read = folding(ManualClock(autojump=False))
    log.warning("again")
    log.handlers[0].close()
    log.warning("again")
    assert [line["message"] for line in read()] == ["again", "again"]


def test_a_line_that_cannot_be_formatted_ends_nothing(capsys, monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log, read = folding(ManualClock(autojump=False))
    log.warning("%d", "no number")
    log.warning("fine")
    assert [line["message"] for line in read()] == ["fine"]


@pytest.fixture
def counted():
    """Return a clock and a function: the lines of this program's log, folded by it."""
    log = logging.getLogger("neurovocal")
    before = log.handlers, log.propagate, log.level
    clock, stream = ManualClock(1_700_000_000 * NS, autojump=False), io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(JsonFormatter())
    log.handlers, log.propagate = [RepeatFolding(target, clock)], False
    log.setLevel(logging.INFO)

    def read():
        log.handlers[0].flush()
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield clock, read
    log.handlers, log.propagate = before[0], before[1]
    log.setLevel(before[2])


def total(lines):
    return sum(1 + line.get("more", 0) + line.get("more_like_it", 0) for line in lines)


def test_a_source_that_reconnects_every_second_for_an_hour(counted):
    clock, read = counted
    events = []
    state = SourceState("pit", clock, True, events.append)
    state.on_samples(NS // 10)
    for _ in range(3600):
        state.on_loss("device 'x' stopped delivering")
        clock.advance(0.5)
        state.on_samples(NS // 10)
        clock.advance(0.5)
    lines = read()
    assert total(lines) == len(events) == 7200, "on the wire each is an event"
    assert len(lines) <= 24
    assert "recovering: device 'x' stopped delivering" in lines[0]["message"]
    assert "healthy: samples arrive again" in lines[-1]["message"]


def test_a_sink_that_fails_at_every_other_event(counted):
    clock, read = counted
    sink = SupervisedSink("sink 'j'", CollectSink(), clock, threading.Event())
    for number in range(1000):
        sink.warn("failed", OSError(f"block {number} is full"))
        sink.failing = False  # the next one was written
        clock.advance(0.01)
    lines = read()
    assert (len(lines), total(lines)) == (2, 1000)
    assert lines[-1]["message"] == "sink 'j' failed: block 999 is full"
    assert (lines[-1]["more"], lines[-1]["in_s"]) == (998, 10)
