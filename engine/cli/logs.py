"""Logging to stderr: sentences for people, JSON lines for programs."""

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from threading import RLock, Thread

from neurovocal.engine.contracts.clock import Clock, SystemClock
from neurovocal.engine.support.credentials import masked
from neurovocal.engine.support.repeats import Repeats, Told
from neurovocal.engine.support.text import printable, with_short_words

_TELLER = "nv-log"
_POLL_S = 1.0
_FORMATTER = logging.Formatter()


class LogFormat(StrEnum):
    """Form of a log line."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Lowest level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class SentenceFormatter(logging.Formatter):
    """Formats records as ``warning: sentence``, with a traceback on request."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__("%(levelname)s: %(message)s")
        self._tracebacks = tracebacks

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Format the message as one printable line."""
        sentence = printable(with_short_words(super().formatMessage(record)))
        return sentence + _note_of(record)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record with its level in lower case."""
        record.levelname = record.levelname.lower()
        if not self._tracebacks:
            record.exc_info, record.exc_text = None, None
        return masked(super().format(record))


class JsonFormatter(logging.Formatter):
    """Formats records as JSON: ``time``, ``level``, ``thread``, ``where``, ``message``.

    A record that stands for others also has their number and the seconds in which they
    came: ``more`` of the same text, or ``more_like_it``, and ``in_s``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one JSON object."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "where": f"{record.module}:{record.lineno}",
            "message": masked(record.getMessage()),
            **_count_of(record),
        }
        if record.exc_info:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["traceback"] = masked(record.exc_text)
        return json.dumps(line)


class RepeatFolding(logging.Handler):
    """Passes records on to a handler, of repeated ones the first and a count.

    A record that stands for others has their count as its attribute ``repeats``, a
    `neurovocal.engine.support.repeats.Told`. Its subject is its thread, of which each
    lane and each sink has one. Counts are told in time by a thread that lives while
    there are some, and by `flush`, which `logging.shutdown` calls.

    Parameters
    ----------
    target : Handler
        Formats and writes.
    clock : Clock
        Measures for how long records are counted.
    """

    def __init__(self, target: logging.Handler, clock: Clock) -> None:
        super().__init__()
        self._lock = RLock()
        self._target = target
        self._clock = clock
        self._repeats: Repeats[logging.LogRecord] = Repeats()
        self._teller: Thread | None = None
        self._is_closed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Tell or count a record."""
        try:
            text = _text_of(record)
        except Exception:
            self.handleError(record)
            return
        if self._is_closed:
            self._target.handle(record)
            return
        place = record.pathname, record.lineno
        with self._lock:
            now_ns, subject = self._clock.monotonic_ns(), _subject_of(record)
            self._tell(
                self._repeats.add(record, text, now_ns, place=place, subject=subject)
            )
            if self._teller is None and self._repeats.next_ns is not None:
                self._teller = Thread(
                    target=self._tell_in_time, name=_TELLER, daemon=True
                )
                self._teller.start()

    def flush(self) -> None:
        """Tell all counts."""
        with self._lock:
            self._tell(self._repeats.flush(self._clock.monotonic_ns()))
            self._target.flush()

    def close(self) -> None:
        """Tell all counts; further records are told one by one."""
        self._is_closed = True
        self.flush()
        super().close()

    def _tell(self, told: Iterable[Told[logging.LogRecord]]) -> None:
        for one in told:
            one.message.repeats = one
            self._target.handle(one.message)

    def _tell_in_time(self) -> None:
        while True:
            with self._lock:
                self._tell(self._repeats.due(self._clock.monotonic_ns()))
                next_ns = self._repeats.next_ns
                if next_ns is None:
                    self._teller = None
                    return
            self._clock.wait_until(next_ns, _POLL_S)


def _text_of(record: logging.LogRecord) -> str:
    """Return a record's message; let go of the objects that it was made of.

    A record may be kept for minutes, and errors hold the frames that they came through.
    """
    text = record.getMessage()
    record.msg, record.args = text, None
    if record.exc_info:
        record.exc_text = _FORMATTER.formatException(record.exc_info)
        record.exc_info = None
    return text


def _subject_of(record: logging.LogRecord) -> str | None:
    name = record.threadName or ""
    return name if name.startswith("nv-") else None


def _note_of(record: logging.LogRecord) -> str:
    """Return the clause about the records that this one stands for; empty: none."""
    repeats: Told[logging.LogRecord] | None = getattr(record, "repeats", None)
    return "" if repeats is None else repeats.note()


def _count_of(record: logging.LogRecord) -> dict[str, object]:
    """Return the same as fields of a JSON line."""
    repeats: Told[logging.LogRecord] | None = getattr(record, "repeats", None)
    if repeats is None or not repeats.more:
        return {}
    kind = "more_like_it" if repeats.alike else "more"
    return {kind: repeats.more, "in_s": repeats.seconds}


def tell_repeats() -> None:
    """Tell the counts of repeated messages now, as when a run has ended."""
    for handler in logging.getLogger("neurovocal").handlers:
        handler.flush()


def set_up_logging(
    verbose: bool,
    level: LogLevel = LogLevel.WARNING,
    form: LogFormat = LogFormat.TEXT,
) -> None:
    """Log to stderr.

    Parameters
    ----------
    verbose : bool
        Everything, with tracebacks, repeated or not; goes before `level`.
    level : LogLevel
        The least that is logged.
    form : LogFormat
        Sentences, or JSON lines (tracebacks within).
    """
    handler: logging.Handler = logging.StreamHandler()
    sentences = SentenceFormatter(tracebacks=verbose)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else sentences)
    if not verbose:
        handler = RepeatFolding(handler, SystemClock())
    log = logging.getLogger("neurovocal")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else level.upper())
