"""Endpoints to bind: checked before a socket is opened, and bound."""

import errno
import ipaddress
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurovocal.engine import ConfigError
from neurovocal.engine.support.endpoints import IPC, endpoint_problem, parse_tcp
from neurovocal.engine.support.names import resolved
from neurovocal.engine.wire.sockets import keep_alive, set_address_family

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

_LOOPBACK_NAMES = {"localhost", "lo"}


def endpoint_problems(
    endpoint: str, *, allow_remote: bool, keyed: bool = False
) -> Iterator[str]:
    """Yield a sentence for each mistake in an endpoint that is to be bound.

    Parameters
    ----------
    endpoint : str
        ``tcp://HOST:PORT`` (port ``*``: any that is free) or ``ipc://PATH``.
    allow_remote : bool
        Whether other machines may connect without keys.
    keyed : bool
        Whether clients need a key.
    """
    problem = endpoint_problem(endpoint, binds=True, example="tcp://127.0.0.1:5556")
    if problem is not None:
        yield problem
        return
    if allow_remote or keyed:
        return
    address = parse_tcp(endpoint)
    if address is not None and not is_loopback(address.host):
        yield (
            f"endpoint '{endpoint}' lets other machines connect, unencrypted: bind "
            "127.0.0.1, or make keys ('neurovocal keys new') and name their folder by "
            "'keys', or say 'allow_remote: true'"
        )
    elif endpoint.startswith(f"{IPC}@"):
        yield (
            f"endpoint '{endpoint}' (an abstract socket) lets every user of this "
            "machine connect: name a path in a folder of your own, such as "
            "ipc:///run/user/1000/neurovocal, or make keys ('neurovocal keys "
            "new'), or say 'allow_remote: true'"
        )


def is_loopback(host: str) -> bool:
    """Return True for a host name or address that only this machine can reach."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_chosen(endpoint: str) -> bool:
    """Return True for a TCP endpoint with a port chosen by the system: ``*`` or 0."""
    address = parse_tcp(endpoint)
    return address is not None and address.port == 0


def claim(endpoint: str) -> frozenset[str]:
    """Return the resource that an endpoint uses: no two stages may have the same."""
    address = parse_tcp(endpoint)
    if address is not None:
        return frozenset({f"tcp:{address.port}"} if address.port else ())
    path = endpoint.removeprefix(IPC)
    if path == endpoint or path.startswith("@"):
        return frozenset({endpoint})
    return frozenset({f"file:{resolved(Path(path))}"})


def bind(zmq_socket: "zmq.Socket[bytes]", endpoint: str) -> str:
    """Bind a socket and return its endpoint, with the port chosen for ``*``.

    Raises
    ------
    ConfigError
        The endpoint is in use, or not one of this machine.
    """
    import zmq

    if _ipc_in_use(endpoint):
        raise ConfigError(_in_use(endpoint))
    keep_alive(zmq_socket)
    set_address_family(zmq_socket, endpoint)
    try:
        if is_chosen(endpoint):
            zmq_socket.bind(endpoint.rpartition(":")[0] + ":*")
        else:
            zmq_socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise ConfigError(_explained(endpoint, error)) from error
    bound: str = zmq_socket.getsockopt_string(zmq.LAST_ENDPOINT)
    if is_chosen(endpoint):
        log.warning("'%s' is bound at %s", endpoint, bound)
    return bound


def _ipc_in_use(endpoint: str) -> bool:
    """Return True if a process listens at an ipc endpoint.

    Binding would silently replace its socket.
    """
    if not endpoint.startswith(IPC):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            path = endpoint.removeprefix(IPC)
            probe.connect("\0" + path[1:] if path.startswith("@") else path)
        except OSError:
            return False
    return True


def _in_use(endpoint: str) -> str:
    return f"{endpoint}: address in use: another run? choose another endpoint"


def _explained(endpoint: str, error: Any) -> str:
    if error.errno == errno.EADDRINUSE:
        return _in_use(endpoint)
    if error.errno in (errno.ENODEV, errno.EADDRNOTAVAIL):
        return f"{endpoint}: this machine has no such address"
    if error.errno == errno.EACCES:
        return f"{endpoint}: not allowed: choose a port above 1023 or another path"
    return f"{endpoint} cannot be bound: {error.strerror}"
