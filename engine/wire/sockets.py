"""Clients' connections with ZeroMQ: keys, keep-alive, reconnection after a refusal.

ZeroMQ never retries a connection whose CURVE handshake was rejected and reports it to
monitors only: a program that starts before its keys are allowed would wait forever.
"""

import logging
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.support.endpoints import endpoint_problem, parse_tcp
from neurovocal.engine.wire.keys import use_client_keys

if TYPE_CHECKING:
    import zmq

log = logging.getLogger("neurovocal")

MONITOR_PERIOD_S = 0.5
_RECONNECT_S = 3.0
# Handshakes in a row that the peer has ended without a reason: one alone may be an
# engine that stops, or a network that breaks.
_MOST_BROKEN_HANDSHAKES = 3

# Keep-alive: probes begin after so long without a byte, and the connection is closed
# after three without an answer, 20 s after the last byte.
_IDLE_S = 8
_PROBE_PERIOD_S = 4
_PROBES = 3
# Limit for data that is not acknowledged; the kernel's default is 15 minutes.
_UNACKNOWLEDGED_MS = 20_000


def connect(
    zmq_socket: "zmq.Socket[bytes]",
    endpoint: str,
    keys: str | Path | None,
    *,
    example: str,
    awaits_replies: bool = False,
) -> "ConnectionMonitor":
    """Connect a socket, with keep-alive, the client's keys and a connection monitor.

    Parameters
    ----------
    zmq_socket : Socket
        Not connected yet, with its own options set. The caller closes it, also when
        this fails.
    endpoint : str
        Address of the peer, which need not be there yet.
    keys : path or None
        Folder of the client's keys; None connects without.
    example : str
        A valid endpoint, for the error message.
    awaits_replies : bool
        Passed to `keep_alive`.

    Returns
    -------
    ConnectionMonitor
        To be polled while the socket is open, and closed before it.

    Raises
    ------
    ConfigError
        The endpoint is malformed, or the keys cannot be read.
    """
    import zmq

    problem = endpoint_problem(endpoint, binds=False, example=example)
    if problem is not None:
        raise ConfigError(problem)
    keep_alive(zmq_socket, awaits_replies=awaits_replies)
    set_address_family(zmq_socket, endpoint)
    if keys is not None:
        use_client_keys(zmq_socket, keys)
    monitor = ConnectionMonitor(zmq_socket, endpoint, keyed=keys is not None)
    try:
        zmq_socket.connect(endpoint)
    except zmq.ZMQError as error:
        monitor.close()
        raise ConfigError(
            f"'{endpoint}' cannot be reached ({error.strerror}): name an endpoint "
            f"such as {example}"
        ) from error
    return monitor


def keep_alive(
    zmq_socket: "zmq.Socket[bytes]", *, awaits_replies: bool = False
) -> None:
    """Set TCP keep-alive, so that a peer that lost power is noticed within 20 s.

    Parameters
    ----------
    zmq_socket : Socket
        Not bound or connected yet; of no effect for transports other than TCP.
    awaits_replies : bool
        Whether the socket sends requests: sent data must then be acknowledged within
        20 s, too. Not for a publisher: a subscriber that is suspended for a while is
        not gone.
    """
    import zmq

    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _IDLE_S)
    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _PROBE_PERIOD_S)
    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _PROBES)
    if awaits_replies:
        zmq_socket.setsockopt(zmq.TCP_MAXRT, _UNACKNOWLEDGED_MS)


def set_address_family(zmq_socket: "zmq.Socket[bytes]", endpoint: str) -> None:
    """Set the option for IPv6 where an endpoint's host has no IPv4 address.

    With the option set, ZeroMQ prefers IPv6 where a name has both, and would not reach
    an engine that is bound at the IPv4 address.
    """
    import zmq

    address = parse_tcp(endpoint)
    if address is None:
        return
    host = address.host
    families = {socket.AF_INET6} if ":" in host else _families(host)
    if families == {socket.AF_INET6}:
        zmq_socket.setsockopt(zmq.IPV6, 1)


def _families(host: str) -> set[int]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return set()  # no name of a host, or not yet
    return {family for family, *_ in found}


class ConnectionMonitor:
    """Detects that the peer rejects a socket, logs it once, and reconnects.

    Parameters
    ----------
    zmq_socket : Socket
        Not connected yet.
    endpoint : str
        Address that the socket will be connected to.
    keyed : bool
        Whether the socket has client keys.
    """

    def __init__(
        self, zmq_socket: "zmq.Socket[bytes]", endpoint: str, *, keyed: bool
    ) -> None:
        import zmq

        self._socket = zmq_socket
        self._endpoint = endpoint
        self._keyed = keyed
        self._refusal = ""
        self._broken_handshakes = 0
        self._polled_s = self._reconnected_s = float("-inf")
        self._logged = False
        self._monitor = zmq_socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )

    def close(self) -> None:
        """Stop monitoring; to be called before the socket is closed."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)

    def poll(self) -> None:
        """Log a refusal once, and reconnect while it lasts.

        Cheap enough to be called for every message; it does something twice a second.
        """
        now_s = time.monotonic()
        if now_s - self._polled_s < MONITOR_PERIOD_S:
            return
        self._polled_s = now_s
        refusal = self.refusal()
        if not refusal:
            self._logged = False
            return
        if not self._logged:
            self._logged = True
            log.warning("%s", refusal)
        if now_s - self._reconnected_s >= _RECONNECT_S:
            self._reconnected_s = now_s
            self._reconnect()

    def refusal(self) -> str:
        """Return why the peer rejects the socket, in a sentence; empty: it does not."""
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._refusal = ""
                self._broken_handshakes = 0
            elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._broken_handshakes += 1
                if self._broken_handshakes >= _MOST_BROKEN_HANDSHAKES and self._keyed:
                    self._refusal = (
                        f"{self._endpoint} ends the connection before it is made: "
                        "were these keys made for another engine (server.key)?"
                    )
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._refusal = (
                    f"{self._endpoint} does not let these keys in: 'neurovocal keys "
                    "add' at the engine does (with --control to steer)"
                )
            elif self._keyed:
                self._refusal = (
                    f"{self._endpoint} has no keys, or others than these were made for"
                )
            else:
                self._refusal = (
                    f"{self._endpoint} asks for keys: 'neurovocal keys add' at the "
                    "engine makes them, '--keys DIR' (in Python keys=) shows them"
                )
        return self._refusal

    def _reconnect(self) -> None:
        import zmq

        # ZeroMQ has forgotten a rejected endpoint: there may be nothing to disconnect.
        with suppress(zmq.ZMQError):
            self._socket.disconnect(self._endpoint)
        with suppress(zmq.ZMQError):
            self._socket.connect(self._endpoint)
