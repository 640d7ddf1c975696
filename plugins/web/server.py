"""Server of the page: Starlette routes behind a guard, uvicorn in a thread of its own.

A part of the page (live, review, discover) gives its routes; files of ``page/`` are
served beside them. All addresses on the page are relative, so that it works under any
prefix of a proxy that strips it.
"""

import asyncio
import errno
import logging
import re
import socket
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from neurovocal.engine import ConfigError
from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.web.access import Access, url_of
from neurovocal.plugins.web.connections import (
    MOST_HEADER_BYTES,
    MOST_MESSAGE_BYTES,
    LimitedHttp,
    LimitedWebSocket,
)
from neurovocal.plugins.web.guard import Guard

log = logging.getLogger("neurovocal")

PAGE = Path(__file__).resolve().parent / "page"
# The system's table may have other types, which browsers then refuse for scripts.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_ASSET = re.compile(
    r"(?:[a-z0-9_-]+/)*[a-z0-9_.-]+\.(?:css|js|svg|png|webmanifest|woff2)"
)
_STOP_S = 1.0
_START_S = 10.0
# Unsent bytes that the system keeps for a viewer who does not read.
_SEND_BUFFER = 256 * 1024


def page_file(name: str, path: str | None = None) -> Route:
    """Return a route that serves a file of ``page/``.

    Parameters
    ----------
    name : str
        Name of the file, such as ``review.html``.
    path : str, optional
        Where it is served; by default at its name without ``.html``.
    """

    async def serve(request: Request) -> Response:
        return await run_in_threadpool(_file_response, name, request)

    return Route(path or f"/{name.removesuffix('.html')}", serve, methods=["GET"])


async def read_body(request: Request, most_bytes: int) -> bytes | None:
    """Return the body of a request, None if it has more than `most_bytes`."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            return None
        parts.append(part)
    return b"".join(parts)


class PageServer:
    """HTTP server of a page, in a thread of its own.

    Parameters
    ----------
    address : Address
        Where to listen; port 0: any that is free.
    access : Access
        Who may open the page.
    routes : sequence of BaseRoute
        Routes of the page's parts.
    every_s, task : optional
        A function that the server calls every so many seconds.

    Attributes
    ----------
    url : str
        Address of the page for a browser on this machine, once it is started.
    """

    def __init__(
        self,
        address: Address,
        access: Access,
        routes: Sequence[BaseRoute],
        *,
        every_s: float = 1.0,
        task: Callable[[], None] | None = None,
    ) -> None:
        self._address = address
        self._access = access
        self._routes = [*routes, Route("/{name:path}", _asset, methods=["GET"])]
        self._every_s, self._task = every_s, task
        self._server: _Server | None = None
        self._thread: Thread | None = None
        self._failure: BaseException | None = None
        self.url = url_of(address)

    def start(self) -> None:
        """Listen, and serve from another thread.

        Raises
        ------
        ConfigError
            The address is in use, or not one of this machine.
        """
        listener = _listen(self._address)
        port = listener.getsockname()[1]
        address = Address(self._address.host, port)
        self.url = url_of(address)
        app = Starlette(
            routes=self._routes, exception_handlers={404: _not_found, 500: _failed}
        )
        login_page = (PAGE / "login.html").read_text(encoding="utf-8")
        config = uvicorn.Config(
            Guard(app, address, self._access, login_page),
            http=LimitedHttp,
            ws=LimitedWebSocket,
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # Columns do not get smaller by it, and each viewer would cost its time.
            ws_per_message_deflate=False,
            ws_max_size=MOST_MESSAGE_BYTES,
            h11_max_incomplete_event_size=MOST_HEADER_BYTES,
            timeout_graceful_shutdown=round(_STOP_S),
        )
        self._server = _Server(config)
        self._failure = None
        self._thread = Thread(
            target=self._serve, args=(listener,), name="nv-web", daemon=True
        )
        self._thread.start()
        if not self._server.is_up.wait(_START_S) or self._failure is not None:
            failure = self._failure
            self.stop()
            raise ConfigError(f"the page at {self.url} did not start: {failure!r}")

    def stop(self) -> None:
        """Stop listening, end all connections. May be called twice."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is not None:
            server.should_exit = True
        if thread is not None:
            thread.join(2 * _STOP_S)
            if server is not None and thread.is_alive():
                server.force_exit = True
                thread.join(_STOP_S)

    @property
    def failure(self) -> BaseException | None:
        """Why the server ended by itself; None: it did not."""
        return self._failure

    def _serve(self, listener: socket.socket) -> None:
        server = self._server
        assert server is not None
        try:
            asyncio.run(self._run(server, listener))
        except BaseException as error:
            self._failure = error
            log.warning("the page at %s ended: %r", self.url, error)
        finally:
            listener.close()
            server.is_up.set()

    async def _run(self, server: "_Server", listener: socket.socket) -> None:
        ticking = asyncio.create_task(self._tick())
        try:
            await server.serve(sockets=[listener])
        finally:
            ticking.cancel()

    async def _tick(self) -> None:
        while self._task is not None:
            await asyncio.sleep(self._every_s)
            self._task()


class _Server(uvicorn.Server):
    """Server that tells when it listens, and cuts what does not end in time."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = Flag()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        cutting = loop.call_later(_STOP_S / 2, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()

    def _cut(self) -> None:
        """End the connections of browsers that do not read: they never close."""
        for connection in list(self.server_state.connections):
            transport: Any = connection.transport
            transport.abort()


def _listen(address: Address) -> socket.socket:
    host = address.host.strip("[]")
    host = "0.0.0.0" if host == "*" else host
    try:
        found = socket.getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(
            f"the page cannot be served at '{host}': {error.strerror or error}"
        ) from error
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.bind(place)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ConfigError(_explained(address, error)) from error
    return listener


def _explained(address: Address, error: OSError) -> str:
    where = f"{address.host}:{address.port}"
    if error.errno == errno.EADDRINUSE:
        return (
            f"the page cannot be served at {where}, which is in use: another run? "
            f"choose another port, such as {address.host}:{address.port + 1} (port 0: "
            "any that is free)"
        )
    if error.errno == errno.EACCES:
        return f"the page may not be served at {where}: choose a port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"the page cannot be served at {where}: not an address of this machine"
    return f"the page cannot be served at {where}: {error.strerror or error}"


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if _ASSET.fullmatch(name) is None:
        return _no_such_file()
    return await run_in_threadpool(_file_response, name, request)


def _file_response(name: str, request: Request) -> Response:
    path = PAGE / name
    try:
        content = path.read_bytes()
    except OSError:
        return _no_such_file()
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[path.suffix])


def _no_such_file() -> Response:
    return JSONResponse({"error": "there is no such page"}, 404)


async def _not_found(request: Request, error: Any) -> Response:
    return _no_such_file()


async def _failed(request: Request, error: Any) -> Response:
    return JSONResponse({"error": "the page has failed; the log says why"}, 500)
