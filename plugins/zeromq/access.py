"""Access to bound ZeroMQ sockets: CURVE keys of clients, and limits per connection.

ZeroMQ encrypts the connection (CurveZMQ, rfc.zeromq.org/spec/26) and asks inside this
process (ZAP, rfc.zeromq.org/spec/27) whether a client's public key is known.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neurovocal.engine.wire.keys import Role, allowed_keys, engine_keys
from neurovocal.plugins.zeromq.connection_limits import ConnectionLimits

if TYPE_CHECKING:
    import zmq
    from zmq.auth.thread import ThreadAuthenticator

log = logging.getLogger("neurovocal")

# A connection that has not finished its handshake by then is closed.
HANDSHAKE_MS = 5000


class AccessControl:
    """Keys and connection limits of the bound sockets of one ZeroMQ context.

    Parameters
    ----------
    folder : Path or None
        The engine's keys; None: every peer that reaches the socket may use it.
    role : {'read', 'control'}
        Purpose of the sockets, which decides which keys are allowed.
    """

    def __init__(self, folder: Path | None, role: Role) -> None:
        self._folder = folder
        self._role: Role = role
        self._thread: ThreadAuthenticator | None = None
        self.limits = ConnectionLimits(keyed=folder is not None)

    def secure(
        self, context: "zmq.Context[zmq.Socket[bytes]]", server: "zmq.Socket[bytes]"
    ) -> None:
        """Set keys and handshake timeout of a socket, before it is bound.

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

    def receive(self, frames: "Sequence[zmq.Frame]") -> list[bytes]:
        """Account a message that was received whole, and return its parts."""
        self.limits.account(frames)
        return [frame.bytes for frame in frames]

    def stop(self) -> None:
        """Stop watching connections, before the sockets are closed."""
        self.limits.close()

    def close(self) -> None:
        """Stop both threads, before the context is terminated. May be called twice."""
        self.limits.close()
        self.limits = ConnectionLimits(keyed=self._folder is not None)
        if self._thread is not None:
            self._thread.stop()
        self._thread = None

    def callback(self, domain: str, key: bytes) -> bool:
        """Return True if the client with this public key (Z85) may connect.

        ZeroMQ's authenticator calls it. The folder is read each time: connections are
        rare, and ZeroMQ's clients do not try again after a refusal.
        """
        assert self._folder is not None
        return key in allowed_keys(self._folder, self._role)
