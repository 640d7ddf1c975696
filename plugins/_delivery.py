"""Answers of a ROUTER socket that do not wait for who does not read them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from neurovocal.plugins._turns import Delivery

if TYPE_CHECKING:
    import zmq

# Small answers, such as refusals, that may wait for one connection.
MOST_ANSWERS = 64


def prepare(socket: "zmq.Socket[bytes]") -> None:
    """Set a ROUTER socket up, before it is bound, so that `begin_answer` can tell."""
    import zmq

    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, MOST_ANSWERS)


def begin_answer(
    socket: "zmq.Socket[bytes]", name: bytes
) -> Literal["begun", "full", "ended"]:
    """Begin an answer, or tell why it would be for nothing.

    Once it is begun it must be ended, by `end_answer`.
    """
    import zmq

    try:
        socket.send(name, zmq.SNDMORE | zmq.DONTWAIT)
    except zmq.Again:
        return "full"
    except zmq.ZMQError:
        return "ended"
    return "begun"


def end_answer(socket: "zmq.Socket[bytes]", parts: Sequence[bytes]) -> Delivery:
    """Send the other parts; what is returned tells when the kernel has them all."""
    import zmq

    last = max(place for place, part in enumerate(parts) if part)
    # ZeroMQ copies all but one: it is told when that one has been read.
    told = zmq.Frame(parts[last], track=True, copy=False, copy_threshold=0)
    socket.send_multipart([*parts[:last], told, *parts[last + 1 :]], zmq.DONTWAIT)
    tracker: Delivery = told.tracker
    return tracker
