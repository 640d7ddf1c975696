"""Endpoints of sockets as people write them, doubted before a socket is opened.

ZeroMQ itself takes most of what is wrong: it wraps a port above 65535, and waits for
ever at a host that no name can be.
"""

import ipaddress
import re
import stat
from pathlib import Path
from typing import NamedTuple

from neurovocal.engine.support.text import printable, shortened

IPC = "ipc://"
TCP = "tcp://"
_ANY = "*"
_MOST_PORT = 65535
_HOST_MOST = 253
# Longest path that sockaddr_un holds.
_IPC_MOST = 107
_PARTS = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*):([^:]*)")
# Scheme in capitals, or with another number of slashes; blanks, a slash at the end.
_LOOSE = re.compile(r"\A\s*(?:(tcp|ipc):/{0,2})?(.*?)/?\s*\Z", re.I)
_HOST_NAME = re.compile(r"\w[\w-]{0,62}(\.\w[\w-]{0,62})*\.?", re.ASCII)


class Address(NamedTuple):
    """Host and port of a TCP socket."""

    host: str
    """Name or number, without brackets; ``*``: all addresses of the machine."""
    port: int
    """0: any that is free."""


def parse_address(text: str, *, binds: bool) -> Address:
    """Return the address that a text ``HOST:PORT`` names.

    Parameters
    ----------
    text : str
        Address; an IPv6 number stands in brackets.
    binds : bool
        Whether the socket is to be bound: port and host may then be ``*``.

    Raises
    ------
    ValueError
        There can be no such address; the message is a clause that says why.
    """
    match = _PARTS.fullmatch(text)
    if match is None:
        if ":" in text:
            raise ValueError(
                "it is not HOST:PORT; an IPv6 address stands in brackets, such as "
                "[::1]:5556"
            )
        raise ValueError("it has no port: HOST:PORT, such as 127.0.0.1:5556")
    host, port = match.groups()
    if (problem := _host_problem(host, binds)) is not None:
        raise ValueError(problem)
    return Address(host.strip("[]"), _port(port, binds))


def parse_tcp(endpoint: str) -> Address | None:
    """Return the address of an endpoint that can be bound; None if it is not TCP."""
    if not endpoint.startswith(TCP):
        return None
    try:
        return parse_address(endpoint.removeprefix(TCP), binds=True)
    except ValueError:
        return None


def endpoint_problem(endpoint: str, *, binds: bool, example: str) -> str | None:
    """Return a sentence on the mistake in an endpoint; None if it can be used.

    Parameters
    ----------
    endpoint : str
        ``tcp://HOST:PORT`` or ``ipc://PATH``.
    binds : bool
        Whether the socket is to be bound, and not connected.
    example : str
        A valid endpoint, for the sentence.
    """
    clause = None
    if not endpoint.isprintable():  # nor is text that is no UTF-8
        clause = "it holds a character that no endpoint has"
    elif endpoint.startswith(IPC):
        clause = _ipc_problem(endpoint.removeprefix(IPC), binds)
    elif endpoint.startswith(TCP):
        try:
            parse_address(endpoint.removeprefix(TCP), binds=binds)
        except ValueError as error:
            clause = str(error)
    else:
        meant = f"such as {example}"
        if (tidy := _tidied(endpoint, binds)) is not None:
            meant = f"did you mean {shortened(tidy)}?"
        return (
            f"endpoint '{_shown(endpoint)}' is neither {TCP}HOST:PORT nor {IPC}PATH, "
            f"{meant}"
        )
    return None if clause is None else f"endpoint '{_shown(endpoint)}': {clause}"


def _tidied(endpoint: str, binds: bool) -> str | None:
    """Return what an endpoint without a known scheme means; None if nothing does."""
    scheme, rest = _LOOSE.findall(endpoint)[0]
    tidy = f"{scheme.lower() or 'tcp'}://{rest}"
    return None if endpoint_problem(tidy, binds=binds, example=tidy) else tidy


def _shown(endpoint: str) -> str:
    return shortened(printable(endpoint))


def _host_problem(host: str, binds: bool) -> str | None:
    number = host.strip("[]")
    if not number:
        return "it names no host, such as 127.0.0.1"
    if host == _ANY:
        if binds:
            return None
        return "'*' is every machine: name the one to connect to, such as 127.0.0.1"
    if host.startswith("[") or not number.strip("0123456789."):
        version = 6 if host.startswith("[") else 4
        try:
            if ipaddress.ip_address(number).version == version:
                return None
        except ValueError:
            pass
        return f"'{shortened(number)}' is no IPv{version} address"
    if len(host) > _HOST_MOST or _HOST_NAME.fullmatch(host) is None:
        return (
            f"'{_shown(host)}' is no name of a host: letters, digits, '.', '-' and "
            f"'_', {_HOST_MOST} at most"
        )
    return None


def _port(text: str, binds: bool) -> int:
    if text.strip("0") in ("", _ANY) and text and not binds:
        raise ValueError(
            f"port {text} is for an engine, which then chooses one: name the port that "
            "it shows"
        )
    if text == _ANY:
        return 0
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"port '{_shown(text)}' is no number from 1 to {_MOST_PORT}")
    if len(text) > len(str(_MOST_PORT)) or int(text) > _MOST_PORT:
        raise ValueError(f"there is no port above {_MOST_PORT}")
    return int(text)


def _ipc_problem(path: str, binds: bool) -> str | None:
    if path in ("", "@", _ANY):
        return f"it needs a path, such as {IPC}/tmp/neurovocal"
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > _IPC_MOST:
        return f"the path has {length} bytes, {_IPC_MOST} at most can be used"
    if path.startswith("@"):
        return None
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        folder = Path(path).parent
        if binds and not folder.is_dir():
            return f"folder '{_shown(str(folder))}' does not exist"
        return None
    if not stat.S_ISSOCK(mode):
        # Binding would remove it, whatever it is.
        return f"'{path}' exists and is no socket: name another path"
    return None
