"""Notices that the other side of a connection has gone without a word.

A machine that loses power, a cable that is pulled, a router that forgets: nothing
tells the one who only listens, and ZeroMQ would wait for ever. The kernel asks instead
(TCP keep-alive, tcp(7)). ZeroMQ's own heartbeats would do the same, but cut a
subscriber off, too, that does not read for a while.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import zmq

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
