"""Log lines: sentences or JSON, at a limited rate."""

import io
import json
import logging

import pytest

from neurovocal.engine.cli import logs
from neurovocal.engine.cli.logs import LogFormat, LogLevel, set_up_logging


@pytest.fixture
def lines():
    """Set up logging; the returned function returns the lines logged so far."""
    log = logging.getLogger("neurovocal")
    before = log.handlers, log.propagate, log.level
    stream = io.StringIO()

    def start(*arguments):
        set_up_logging(*arguments)
        log.handlers[0].setStream(stream)
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


def test_lines_of_one_place_are_limited_and_counted(lines, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logs, "monotonic", lambda: now[0])
    read = lines(False)
    log = logging.getLogger("neurovocal")

    def flood(count):
        for _ in range(count):
            log.warning("again")

    flood(100)
    assert read() == ["warning: again"] * 20
    log.warning("another place")
    assert read()[20:] == ["warning: another place"]
    now[0] = 11.0
    flood(1)
    assert read()[21:] == ["warning: again (80 more like it before)"]
