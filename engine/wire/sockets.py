"""Notices that the other side does not let this one in, and knocks again later.

ZeroMQ gives a connection up for ever, and without a word, once it is refused: a program
that came before its keys were let in would wait until it is started anew.
"""

import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zmq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zmq


log = logging.getLogger("neurovocal")
LOOK_S = 0.5
_KNOCK_S = 3.0

# Greetings in a row that the other side has ended without a word: one may be an
# engine that stops, or a network that breaks.
_MOST_BROKEN = 3


class ConnectionMonitor:
    """Watches one socket that connects; tells once, and connects again.

    Parameters
    ----------
    zmq_socket : Socket
        Not connected yet.
    endpoint : str
        Where it will connect, or has been.
    keyed : bool
        Whether it shows keys.
    """

    def __init__(
        self, zmq_socket: "zmq.Socket[bytes]", endpoint: str, *, keyed: bool
    ) -> None:
        import zmq

        self._refusal = ""
        self._broken = 0
        self._socket = zmq_socket
        self._endpoint = endpoint
        self._keyed = keyed
        self._looked_s = self._knocked_s = float("-inf")
        self._told = False
        self._monitor = zmq_socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED
            | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
            | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )

    def close(self) -> None:
        """Watch no more; before the socket is closed."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)

    def look(self) -> None:
        """See what has happened; cheap, and to be called now and then."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        refusal = self.read()
        if not refusal:
            self._told = False
            return
        if not self._told:
            self._told = True
            log.warning("%s", refusal)
        if now_s - self._knocked_s >= _KNOCK_S:
            self._knocked_s = now_s
            self._knock()

    def read(self) -> str:
        """Why this one is not let in, in a sentence; empty: nobody has said so."""
        import zmq
        from zmq.utils.monitor import recv_monitor_message

        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._refusal = ""
                self._broken = 0
            elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
                self._broken += 1
                if self._broken >= _MOST_BROKEN and self._keyed:
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

    def _knock(self) -> None:
        import zmq

        # What was given up is not known any more: nothing to disconnect.
        with suppress(zmq.ZMQError):
            self._socket.disconnect(self._endpoint)
        with suppress(zmq.ZMQError):
            self._socket.connect(self._endpoint)


# After so long without a byte the other side is asked, and given up after three asks
# without an answer: 20 s after the last sign of life.
_IDLE_S = 8
_ASK_S = 4
_ASKS = 3

# What was sent and is not acknowledged: the kernel alone would try for 15 minutes.
_UNACKNOWLEDGED_MS = 20_000


def keep_alive(zmq_socket: "zmq.Socket[bytes]", *, asks: bool = False) -> None:
    """Set a socket up, before it is bound or connected.

    Parameters
    ----------
    zmq_socket : Socket
        Of any kind; what is not TCP is left alone.
    asks : bool
        Whether it sends questions and waits for answers. Not for a socket that
        publishes: a subscriber that stands still for a while has not gone.
    """
    import zmq

    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _IDLE_S)
    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _ASK_S)
    zmq_socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _ASKS)
    if asks:
        zmq_socket.setsockopt(zmq.TCP_MAXRT, _UNACKNOWLEDGED_MS)
