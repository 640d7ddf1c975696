"""A small HTTP server that strangers cannot fill: few connections, none for long."""

import socket
from collections.abc import Callable
from socketserver import ThreadingMixIn
from threading import Lock, Thread
from time import monotonic
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

# One page is asked for now and then, by one or two programs.
MOST_CONNECTIONS = 32
# Whoever has not asked and been answered by then is cut off, also if it sends a byte
# now and then.
MOST_S = 5.0


class _Handler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class BoundedServer(ThreadingMixIn, WSGIServer):
    """A thread per connection, of a bounded number and for a bounded time.

    A connection beyond the bound ends the oldest one: who asks at once is answered
    at once, so that what is old is not worth keeping.

    Parameters
    ----------
    host, port
        Where to listen.
    app : callable
        WSGI application.

    Raises
    ------
    OSError
        The address is taken, or not this machine's.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, app: Callable[..., Any]) -> None:
        family, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self._lock = Lock()
        self._began_s: dict[Any, float] = {}  # the oldest first
        super().__init__((str(address[0]), port), _Handler)
        self.set_app(app)

    @property
    def connections(self) -> int:
        """How many there are now."""
        with self._lock:
            return len(self._began_s)

    def start(self) -> Thread:
        """Serve in a thread of its own, until `shutdown`."""
        thread = Thread(target=self.serve_forever, name="nv-http", daemon=True)
        thread.start()
        return thread

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection; an old one makes room for it."""
        with self._lock:
            while len(self._began_s) >= MOST_CONNECTIONS:
                self._cut(next(iter(self._began_s)))
            self._began_s[request] = monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Twice a second: end what takes too long."""
        late_s = monotonic() - MOST_S
        with self._lock:
            for request in [r for r, began in self._began_s.items() if began < late_s]:
                self._cut(request)

    def shutdown_request(self, request: Any) -> None:
        """A connection has ended."""
        with self._lock:
            self._began_s.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is no news."""

    def _cut(self, request: Any) -> None:
        """Its thread reads an end, and closes."""
        self._began_s.pop(request, None)
        try:
            request.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself
