"""Who may connect, and how much of it: CURVE for a socket that is bound, and a door.

ZeroMQ encrypts the connection (CurveZMQ, rfc.zeromq.org/spec/26) and asks inside this
process (ZAP, rfc.zeromq.org/spec/27) whether a client's public key is known.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neurovocal.engine.support.calls import Calls
from neurovocal.engine.wire.keys import Role, allowed_keys, engine_keys
from neurovocal.plugins.zeromq.connection_limits import Door

if TYPE_CHECKING:
    import zmq
    from zmq.auth.thread import ThreadAuthenticator

log = logging.getLogger("neurovocal")

# A connection that has not shown its key by then is closed.
HANDSHAKE_MS = 5000


class Guard:
    """Lets in whoever has a key; one guard per ZeroMQ context.

    Parameters
    ----------
    folder : Path or None
        The engine's keys; None: whoever can reach the socket may use it.
    role : {'read', 'control'}
        What the socket is for.
    """

    def __init__(self, folder: Path | None, role: Role) -> None:
        self._folder = folder
        self._role: Role = role
        self._thread: ThreadAuthenticator | None = None
        self._door = Door(keyed=folder is not None)

    def protect(
        self, context: "zmq.Context[zmq.Socket[bytes]]", server: "zmq.Socket[bytes]"
    ) -> None:
        """Set a socket up before it is bound; a context may have several.

        Raises
        ------
        ConfigError
            The engine's keys are missing, or not secret.
        """
        import zmq

        server.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        if self._folder is None:
            return
        from zmq.auth.thread import ThreadAuthenticator

        own = engine_keys(self._folder)
        if self._thread is None:
            quiet = logging.getLogger("neurovocal.zap")
            quiet.setLevel(logging.CRITICAL)
            self._thread = ThreadAuthenticator(context, log=quiet)
            self._thread.start()
            self._thread.configure_curve_callback("*", self)
        server.curve_publickey = own.public
        server.curve_secretkey = own.secret
        server.curve_server = True

    def watch(self, endpoint: str, most_bytes: int, per_s: float = 0.0) -> None:
        """Bound what connections to an endpoint may cost, once it is bound.

        See `Door.watch`.
        """
        self._door.watch(endpoint, most_bytes, per_s)

    def take(self, frames: "Sequence[zmq.Frame]") -> list[bytes]:
        """The parts of a message that has been received whole, noted for the door."""
        self._door.credit(frames)
        return [frame.bytes for frame in frames]

    @property
    def calls(self) -> Calls:
        """To be counted by who uses a socket (`Door.calls`)."""
        return self._door.calls

    def spend(self, endpoint: str, n_bytes: int) -> None:
        """Note what costs even when the connection has gone (`Door.spend`)."""
        self._door.spend(endpoint, n_bytes)

    def end(self, socket: int | None, reason: str) -> None:
        """Shut down the connection of a socket, by its inode (`Door.end`)."""
        self._door.end(socket, reason)

    def close(self) -> None:
        """Stop answering; before the context ends. May be called twice."""
        self._door.close()
        self._door = Door(keyed=self._folder is not None)
        if self._thread is not None:
            self._thread.stop()
        self._thread = None

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of a public key (Z85) may connect; asked by ZeroMQ.

        The folder is read each time: connections are rare, and ZeroMQ's clients do
        not try again when they were refused once.
        """
        assert self._folder is not None
        return key in allowed_keys(self._folder, self._role)
