"""Logging to stderr: sentences for people, JSON lines for programs."""

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic

from neurovocal.engine.support.credentials import masked
from neurovocal.engine.support.text import printable, with_short_words

_WINDOW_S = 10.0
_MOST = 20


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
        return printable(with_short_words(super().formatMessage(record)))

    def format(self, record: logging.LogRecord) -> str:
        """Format a record with its level in lower case."""
        record.levelname = record.levelname.lower()
        if not self._tracebacks:
            record.exc_info, record.exc_text = None, None
        return masked(super().format(record))


class JsonFormatter(logging.Formatter):
    """Formats records as JSON: ``time``, ``level``, ``thread``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one JSON object."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "where": f"{record.module}:{record.lineno}",
            "message": masked(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = masked(self.formatException(record.exc_info))
        return json.dumps(line)


class RateLimit(logging.Filter):
    """Passes at most 20 lines per place in the code in 10 s and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is logged; the next one names the number dropped."""
        place, now = (record.pathname, record.lineno), monotonic()
        began, count = self._windows.get(place, (now, 0))
        if now - began >= _WINDOW_S:
            if count > _MOST:
                n_dropped = count - _MOST
                record.msg = f"{record.getMessage()} ({n_dropped} more like it before)"
                record.args = ()
            began, count = now, 0
        self._windows[place] = (began, count + 1)
        return count < _MOST


def set_up_logging(
    verbose: bool,
    level: LogLevel = LogLevel.WARNING,
    form: LogFormat = LogFormat.TEXT,
) -> None:
    """Log to stderr.

    Parameters
    ----------
    verbose : bool
        Everything, with tracebacks; goes before `level`.
    level : LogLevel
        The least that is logged.
    form : LogFormat
        Sentences, or JSON lines (tracebacks within).
    """
    handler = logging.StreamHandler()
    sentences = SentenceFormatter(tracebacks=verbose)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else sentences)
    if not verbose:
        handler.addFilter(RateLimit())
    log = logging.getLogger("neurovocal")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else level.upper())
