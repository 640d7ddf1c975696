"""HTTP server that takes webhooks, as a service of a user would, or refuses them."""

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from processes.waiting import until

Answer = tuple[int, dict[str, str]]


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class HttpReceiver:
    """Server on loopback that records requests; it can go away and come back.

    Parameters
    ----------
    answer
        ``answer(request)`` returns the status and further headers of an answer.
    tls
        Certificate and key (PEM files) for HTTPS.
    """

    def __init__(
        self,
        answer: Callable[[Request], Answer] = lambda request: (204, {}),
        tls: tuple[str, str] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.answer = answer
        self.port = 0
        self._tls = tls
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "HttpReceiver":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http{'s' * bool(self._tls)}://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        """Listen, at the same port as before."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                names = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.path, names, self.rfile.read(length))
                if len(request.body) < length:  # the client was killed meanwhile
                    self.close_connection = True
                    return
                status, headers = receiver.answer(request)
                receiver.requests.append(request)
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True
            )
        Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def stop(self) -> None:
        """Close the port and all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def wait_for(self, number: int) -> list[Request]:
        """Return the requests when there are at least `number`."""
        until(lambda: len(self.requests) >= number)
        return self.requests


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._open: list[Any] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass
