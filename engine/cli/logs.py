"""What a run logs, to stderr: sentences for people, JSON lines for programs."""

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic

from neurovocal.engine.support.text import printable

_WINDOW_S = 10.0
_MOST = 20


class LogFormat(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Sentences(logging.Formatter):
    """``warning: sentence``, without a traceback unless asked for."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__("%(levelname)s: %(message)s")
        self._tracebacks = tracebacks

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """One line, whatever the message holds."""
        return printable(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """One line in lower case, or with its traceback."""
        record.levelname = record.levelname.lower()
        if not self._tracebacks:
            record.exc_info, record.exc_text = None, None
        return super().format(record)


class JsonLines(logging.Formatter):
    """One JSON object per line: ``time``, ``level``, ``thread``, ``message``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "thread": record.threadName,
            "where": f"{record.module}:{record.lineno}",
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class RateLimit(logging.Filter):
    """Lets one place log at most 20 lines in 10 s, then says how many it kept back."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be logged."""
        place, now = (record.pathname, record.lineno), monotonic()
        began, count = self._windows.get(place, (now, 0))
        if now - began >= _WINDOW_S:
            if count > _MOST:
                kept_back = count - _MOST
                record.msg = f"{record.getMessage()} ({kept_back} more like it before)"
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
    sentences = Sentences(tracebacks=verbose)
    handler.setFormatter(JsonLines() if form is LogFormat.JSON else sentences)
    if not verbose:
        handler.addFilter(RateLimit())
    log = logging.getLogger("neurovocal")
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.DEBUG if verbose else level.upper())
