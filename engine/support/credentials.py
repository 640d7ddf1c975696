"""Credentials in addresses and configurations: hidden before anything is recorded."""

import re
from typing import Any

_HIDDEN = "***"


# `scheme://user:password@host`; a password may hold an unescaped @.
_USER = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/'\"<>]*@", re.IGNORECASE)


# Query fields of cameras and services: `?token=...`, `/user=admin&password=...`.
_FIELD = re.compile(
    r"\b((?:access_?key|api_?key|auth|key|pass|passwd|password|pwd|secret|sig|"
    r"signature|token|user|username)=)[^\s&;,'\"<>\]}]+",
    re.IGNORECASE,
)


# HTTP headers, as programs that fetch streams take them.
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization\s*:\s*|cookie\s*:\s*)[^\r\n'\"]+", re.IGNORECASE
)


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
    text = _USER.sub(rf"\1{_HIDDEN}@", text)
    text = _HEADER.sub(rf"\1{_HIDDEN}", text)
    return _FIELD.sub(rf"\1{_HIDDEN}", text)


def without_credentials(data: Any) -> Any:
    """Return the data of a configuration with all credentials hidden."""
    if isinstance(data, dict):
        return {
            key: _HIDDEN
            if str(key).lower() in _SECRET_KEYS and isinstance(value, str)
            else without_credentials(value)
            for key, value in data.items()
        }
    if isinstance(data, list):
        return [without_credentials(value) for value in data]
    return hide_credentials(data) if isinstance(data, str) else data
