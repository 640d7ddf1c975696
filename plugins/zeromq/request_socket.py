"""ROUTER socket of a replay server: requests into a fair queue, answers out."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.plugins.zeromq.access import AccessControl
from neurovocal.plugins.zeromq.connection_limits import inode_of
from neurovocal.plugins.zeromq.endpoint import bind
from neurovocal.plugins.zeromq.fair_queue import Delivery, FairQueue, QueuedRequest

if TYPE_CHECKING:
    import zmq

_MOST_REQUEST_BYTES = 16 * 1024
# Longer ones end their connection; those in between are refused with a reason.
_MOST_PART_BYTES = 64 * 1024
# Requests that are moved to the queue before the next answer.
_MOST_AT_ONCE = 200
# Small answers, such as refusals, that may wait for one connection.
_MOST_ANSWERS = 64
# Requests in ZeroMQ and the kernel, and the parts of a request that is not complete.
_MOST_UNREAD_BYTES = 2**19
# In the kernel, for each connection; it doubles that.
RECEIVE_BUFFER_BYTES = 64 * 1024
_TOO_LONG = f"a request has at most {_MOST_REQUEST_BYTES} bytes"
_TOO_MANY = "too many requests of this connection wait: send it again later"


class RequestSocket:
    """Bound ROUTER socket with a fair queue of its requests.

    Parameters
    ----------
    context : zmq.Context
    access : AccessControl
        Keys and limits of the socket.
    endpoint : str
        Endpoint to bind.
    queue : FairQueue
        Receives the requests.
    most_waiting : int
        Requests of each connection that may wait in ZeroMQ.

    Attributes
    ----------
    endpoint : str
        Endpoint as it was bound.
    socket : zmq.Socket
        To be polled.

    Raises
    ------
    ConfigError
        The endpoint is in use, or not one of this machine.
    """

    def __init__(
        self,
        context: "zmq.Context[zmq.Socket[bytes]]",
        access: AccessControl,
        endpoint: str,
        queue: FairQueue,
        most_waiting: int,
    ) -> None:
        import zmq

        self._access = access
        self._queue = queue
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.RCVHWM, most_waiting)
        self.socket.setsockopt(zmq.MAXMSGSIZE, _MOST_PART_BYTES)
        self.socket.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER_BYTES)
        self.socket.setsockopt(zmq.LINGER, 0)
        # Sending fails where a connection has gone or does not read.
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.SNDHWM, _MOST_ANSWERS)
        try:
            access.secure(context, self.socket)
            self.endpoint = bind(self.socket, endpoint)
        except Exception:
            self.socket.close()
            raise
        access.limits.add(self.endpoint, _MOST_UNREAD_BYTES)

    def close(self) -> None:
        """Close the socket; answers that wait are dropped. May be called twice."""
        self.socket.close(linger=0)

    def receive(self) -> None:
        """Move requests that have arrived to the queue; reply to refused ones."""
        import zmq

        for _ in range(_MOST_AT_ONCE):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.ZMQError:
                return
            parts = self._access.receive(frames)
            if len(parts) < 2:
                continue
            if len(parts[-1]) > _MOST_REQUEST_BYTES:
                self._refuse(parts, refusal(id_of(parts[-1]), _TOO_LONG))
            elif not self._queue.put(parts, inode_of(frames), time.monotonic()):
                self._refuse(parts, refusal(None, _TOO_MANY))

    def _refuse(self, parts: Sequence[bytes], answer: bytes) -> None:
        if self._begin(parts[0]) is None:
            self._send([*parts[1:-1], answer])

    def begin_answer(self, request: QueuedRequest) -> bool:
        """Begin an answer, which `end_answer` must follow.

        Returns
        -------
        bool
            False where the connection has gone or does not read: the request is done.
        """
        error = self._begin(request.connection.name)
        if error is None:
            return True
        self._queue.failed(request, ended=error != "full")
        return False

    def end_answer(self, request: QueuedRequest, parts: Sequence[bytes]) -> None:
        """Send the parts of an answer."""
        delivery = self._send([*request.parts[1:-1], *parts])
        size = sum(map(len, parts))
        self._queue.done(request, size, time.monotonic(), delivery)

    def cut_stalled(self) -> None:
        """Disconnect peers that leave too many answers unread."""
        for connection in self._queue.connections_to_cut():
            self._access.limits.disconnect(
                connection.socket, "it does not take its answers"
            )

    def _begin(self, name: bytes) -> str | None:
        """Send the routing id; return 'full' or 'ended' where that is not possible."""
        import zmq

        try:
            self.socket.send(name, zmq.SNDMORE | zmq.DONTWAIT)
        except zmq.Again:
            return "full"
        except zmq.ZMQError:
            return "ended"
        return None

    def _send(self, parts: Sequence[bytes]) -> Delivery:
        """Send the rest of a message; return its progress to the kernel."""
        import zmq

        last = max(index for index, part in enumerate(parts) if part)
        # ZeroMQ copies all parts but one, and reports when that one has been read.
        tracked = zmq.Frame(parts[last], track=True, copy=False, copy_threshold=0)
        self.socket.send_multipart(
            [*parts[:last], tracked, *parts[last + 1 :]], zmq.DONTWAIT
        )
        delivery: Delivery = tracked.tracker
        return delivery


def id_of(body: bytes) -> int | str | None:
    """Return the id of a request, also of a faulty one, as far as it can be read."""
    try:
        return _identified.read(body).id
    except JsonError:
        return None


class _Identified(msgspec.Struct):
    """Any request: a JSON object that may have an id."""

    id: int | Annotated[str, Meta(max_length=4096)] | None = None


_identified = JsonReader(_Identified)


def refusal(request_id: object, sentence: str) -> bytes:
    """Return the answer to a request that is refused, with the reason in one line."""
    text = " ".join(sentence.split())
    return msgspec.json.encode({"v": 1, "id": request_id, "ok": False, "error": text})
