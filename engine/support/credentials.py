"""Credentials in addresses and configurations: hidden before text leaves the program.

Two rules: what looks like a credential (`hide_credentials`), and whatever came from an
environment variable of a configuration, ``${NAME}``, whose name then stands in place
of its value (`masked`).
"""

import re
from threading import Lock
from typing import Any
from urllib.parse import quote, urlsplit

_HIDDEN = "***"


# `scheme://user:password@host`; a password may hold an unescaped @.
_USER = re.compile(r"\b([a-z][a-z0-9+.-]*://)([^\s/'\"<>]*)@", re.IGNORECASE)


# Query fields of cameras and services: `?token=...`, `/user=admin&password=...`.
_FIELD = re.compile(
    r"\b((?:access_?key|api_?key|auth|key|pass|passwd|password|pwd|secret|sig|"
    r"signature|token|user|username)=)((?:\$\{\w+\}|[^\s&;,'\"<>\]}])+)",
    re.IGNORECASE,
)


# What follows the host of a web address: path, query, fragment.
_PATH = re.compile(r"^(\s*https?://[^/?#]*[/?#])(.+)", re.DOTALL | re.IGNORECASE)


# HTTP headers, as programs that fetch streams take them.
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization\s*:\s*|cookie\s*:\s*)([^\r\n'\"]+)", re.IGNORECASE
)


_VARIABLE = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})")
_SCHEMES = frozenset({"", ":", "basic", "bearer", "digest", "token"})

# Shorter values stand in too many texts by chance; those below the second limit are
# found only where no letter or digit is beside them.
_SHORTEST, _ANYWHERE = 4, 8
_COMMON = frozenset({"true", "false", "null", "none"})

# How forms, HTML, Python and shells write some characters.
_QUOTED = {
    " ": "+",
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "'": "'\"'\"'",
}

_SECRET_KEYS = frozenset({"password", "passwd", "secret", "token", "api_key"})


def hide_credentials(text: str) -> str:
    """Hide users, passwords and tokens in a text.

    Hidden are the user part of addresses, the values of query fields such as ``token=``
    or ``password=``, and headers of authorization.

    Examples
    --------
    >>> hide_credentials("rtsp://bird:seed@camera/audio: Connection refused")
    'rtsp://***@camera/audio: Connection refused'
    """
    text = _USER.sub(lambda match: f"{match[1]}{_hidden(match[2])}@", text)
    for pattern in (_HEADER, _FIELD):
        text = pattern.sub(lambda match: match[1] + _hidden(match[2]), text)
    return text


def _hidden(secret: str) -> str:
    """Return a secret with all but its ``${NAME}`` and schemes replaced by stars."""
    parts = _VARIABLE.split(secret)
    for index in range(0, len(parts), 2):
        if parts[index].strip().lower() not in _SCHEMES:
            parts[index] = _HIDDEN
    return "".join(parts)


def without_credentials(data: Any) -> Any:
    """Return the data of a configuration with all credentials hidden."""
    if isinstance(data, dict):
        return {key: _without(str(key).lower(), value) for key, value in data.items()}
    if isinstance(data, list):
        return [without_credentials(value) for value in data]
    return hide_credentials(data) if isinstance(data, str) else data


def _without(key: str, value: Any) -> Any:
    """Return the value of a key with its credentials hidden."""
    if key in _SECRET_KEYS and isinstance(value, str):
        return _hidden(value)
    if key == "headers" and isinstance(value, dict):
        # Of HTTP: what they are called tells little about which hold a token.
        return {
            name: _hidden(each) if isinstance(each, str) else each
            for name, each in value.items()
        }
    if key == "url" and isinstance(value, str):
        # Of webhooks: paths of chat services are tokens.
        return _PATH.sub(
            lambda match: match[1] + _hidden(match[2]), hide_credentials(value)
        )
    return without_credentials(value)


class _Variables:
    """Values of the environment variables that configurations have named."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.forget()

    def forget(self) -> None:
        self._names: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        self._groups: list[str] = []

    def add(self, name: str, value: str) -> None:
        parts = {value.strip(), *value.split(), *_passwords(value)}
        with self._lock:
            new = {
                part: name
                for part in parts
                if len(part) >= _SHORTEST and part.lower() not in _COMMON
            }
            if new.items() <= self._names.items():
                return
            self._names = {**new, **self._names}
            longest_first = sorted(self._names, key=len, reverse=True)
            pattern = "|".join(f"({_in_any_form(part)})" for part in longest_first)
            groups = [self._names[part] for part in longest_first]
            self._pattern, self._groups = re.compile(pattern), groups

    def hide(self, text: str) -> str:
        pattern, groups = self._pattern, self._groups
        if pattern is None:
            return text
        return pattern.sub(
            lambda match: f"${{{groups[(match.lastindex or 1) - 1]}}}", text
        )


_variables = _Variables()


def remember_variable(name: str, value: str) -> None:
    """Let `masked` hide the value of an environment variable from now on.

    Its words, and passwords of addresses in it, are hidden alone, too. Values of less
    than four characters are not: they would hide parts of any text.
    """
    _variables.add(name, value)


def forget_variables() -> None:
    """Forget all values; for tests, which share a process."""
    _variables.forget()


def masked(text: str) -> str:
    """Return a text with ``${NAME}`` in place of the values of remembered variables.

    Also where they are quoted for an address, a shell, JSON or Python.

    Examples
    --------
    >>> remember_variable("PW", "hay seed")
    >>> masked("http://bird:hay%20seed@camera: refused")
    'http://bird:${PW}@camera: refused'
    """
    return _variables.hide(text)


def masked_data(data: Any) -> Any:
    """Return data of lists, mappings and texts, with all texts `masked`."""
    if isinstance(data, dict):
        return {key: masked_data(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [masked_data(value) for value in data]
    return masked(data) if isinstance(data, str) else data


def _passwords(value: str) -> set[str]:
    """Return the passwords of the addresses in a value."""
    found = set()
    for word in value.split():
        try:
            found.add(urlsplit(word).password or "")
        except ValueError:
            continue
    return found


def _in_any_form(value: str) -> str:
    """Return a pattern of a value, each of its characters as it is or quoted."""
    pattern = "".join(map(_character, value))
    if len(value) < _ANYWHERE:
        pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"
    return pattern


def _character(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    forms = {char, quote(char, safe="", errors="surrogateescape")}
    forms |= {form.lower() for form in forms if form != char}
    code = ord(char)
    forms |= {f"\\u{code:04x}", f"\\u{code:04X}", f"\\x{code:02x}", f"&#{code};"}
    forms |= {_QUOTED[char]} if char in _QUOTED else set()
    longest_first = sorted(forms, key=len, reverse=True)
    # A backslash before it: quoted for a shell, JSON or Python.
    return rf"\\*(?:{'|'.join(map(re.escape, longest_first))})"
