"""Texts for people: suggestions for misspelt names, and text that is safe to print."""

import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Control characters (C0, DEL, C1), line separators, and directions of writing.
_ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_FORMULA = ("=", "+", "-", "@")
_LONGEST = 4096  # bytes of a path
_LONG_WORD = re.compile(r"(\S{200})\S{60,}(\S{40})")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "known:") -> str:
    """Return a clause about an unknown name: the most similar one, or all known ones.

    Parameters
    ----------
    name : str
        The unknown name.
    known : iterable of str
        Valid names, in the order in which they are listed.
    otherwise : str
        Start of the list, which is given if no valid name is similar.
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


def plain(text: str) -> str:
    r"""Return text that every output can hold, with undecodable bytes as ``\xNN``.

    Names of files are bytes: Python keeps those that are not UTF-8 as lone surrogates,
    which no table, database or socket takes. Control characters are escaped, too,
    except for line breaks.
    """
    if text.isprintable():
        return text
    try:
        text = text.encode("utf-8", "surrogateescape").decode(
            "utf-8", "backslashreplace"
        )
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        text = text.encode("utf-8", "backslashreplace").decode()
    return escaped(text, kept="\n")


def plain_name(name: str) -> str:
    """Return the name of a file as text of one line, see `plain`."""
    return escaped(plain(name))


def escaped(text: str, kept: str = "") -> str:
    r"""Return text with characters that act on a terminal as ``\xNN`` or ``\uNNNN``.

    These are control characters, among them ESC and line breaks, and those that turn
    the direction of writing. `kept` are left as they are.
    """
    if text.isprintable():
        return text
    return _ACTS.sub(
        lambda found: found[0] if found[0] in kept else _code_of(found[0]), text
    )


def _code_of(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def without_formula(text: str) -> str:
    """Return text that no spreadsheet takes for a formula: an apostrophe goes before.

    As the Open Worldwide Application Security Project recommends ("CSV injection").
    """
    return f"'{text}" if text.lstrip()[:1] in _FORMULA else text


def text_problem(text: str) -> str | None:
    """Return the fault of a text from a user in a sentence; None if it has none."""
    if "\0" in text:
        return "it holds a NUL character, which no name can have"
    try:
        length = len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "it holds half of a character (a lone surrogate)"
    if length > _LONGEST:
        return f"it has {length} bytes, {_LONGEST} at most can be used"
    return None


def with_short_words(text: str) -> str:
    """Return a sentence in which words of more than 300 characters lack their middle.

    Such words are paths, names and values that a user gave by mistake.
    """
    return _LONG_WORD.sub(lambda found: f"{found[1]}...{found[2]}", text)


def shortened(text: str) -> str:
    """Return a text of at most 80 characters for a message, cut at its end."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def control_problem(text: str) -> str | None:
    """Return the fault of a text with control characters; None if it has none.

    Line breaks and tabs are none. Bytes of names that are not UTF-8 are lone
    surrogates of a range of their own, and are none.
    """
    for char in text if not text.isprintable() else "":
        if unicodedata.category(char) == "Cc" and char not in "\t\n\r":
            return f"it holds the control character U+{ord(char):04X}: remove it"
        if "\ud800" <= char <= "\udfff" and not "\udc80" <= char <= "\udcff":
            return "it holds half of a character (a lone surrogate): remove it"
    return None


def printable(text: str) -> str:
    """Replace control characters and line breaks by ``?``.

    Names of files, streams and units, and the output of other programs, may contain
    escape sequences for the terminal or forged lines of a log.
    """
    if text.isprintable():
        return text
    text = plain(text)
    return "".join(char if char.isprintable() else "?" for char in text)
