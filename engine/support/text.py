"""Texts for people: suggestions for misspelt names, and text that is safe to print."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "known:") -> str:
    """Clause for the brackets behind an unknown name.

    Parameters
    ----------
    name : str
        What was written.
    known : iterable of str
        What could have been written, in the order in which it is listed.
    otherwise : str
        Begins the list, where nothing is like `name`.
    """
    names = list(known)
    if close := get_close_matches(name, names, n=1):
        return f"did you mean '{close[0]}'?"
    return f"{otherwise} {', '.join(names)}"


def utc_text(utc_ns: int, timespec: str = "milliseconds") -> str:
    """Format nanoseconds since the epoch as ISO 8601 in UTC, ending with ``Z``.

    Parameters
    ----------
    utc_ns : int
        Time to format; digits that are not shown are cut off.
    timespec : {'milliseconds', 'microseconds'}
        Number of digits of the seconds, as in `datetime.isoformat`.
    """
    when = _EPOCH + timedelta(microseconds=utc_ns // 1000)
    return when.isoformat(timespec=timespec).replace("+00:00", "Z")


def printable(text: str) -> str:
    """`text` with what would steer a terminal, or begin a new line, as ``?``.

    Names of files, streams and units, and what other programs say, may hold anything:
    escape sequences that rename the window, forged lines in a log.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)
