"""Serve a page until Ctrl-C, for the commands that show one."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from starlette.routing import BaseRoute

from neurovocal.engine import ConfigError
from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.server import PageServer

_PORTS = 20
_STEP_S = 0.5


def start_page(
    routes: Callable[[], list[BaseRoute]],
    access: Access,
    address: Address,
    *,
    fixed: bool,
) -> PageServer:
    """Return a running server; where its port is taken, at one of the 20 after it.

    Parameters
    ----------
    routes : callable
        Returns the routes of the page.
    access : Access
        Who may open it.
    address : Address
        Where it is served.
    fixed : bool
        Only at this port: the user named it.

    Raises
    ------
    ConfigError
        No port is free.
    """
    ports = range(address.port, address.port + (1 if fixed else _PORTS))
    for port in ports:
        server = PageServer(Address(address.host, port), access, routes())
        try:
            server.start()
        except ConfigError:
            if port == ports[-1]:
                raise
        else:
            return server
    raise AssertionError("a range of ports is not empty")


def serve_until_stopped(server: PageServer, announce: Callable[[], None]) -> None:
    """Serve a page until SIGINT or SIGTERM, then stop its server.

    Parameters
    ----------
    server : PageServer
        Has started.
    announce : callable
        Tells the address; called when signals are handled.

    Raises
    ------
    ConfigError
        The server failed.
    """
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [(number, signal.signal(number, stop)) for number in numbers]
    try:
        announce()
        while not stopping.wait(_STEP_S):
            if server.failure is not None:
                raise ConfigError(f"the page ended: {server.failure!r}")
    finally:
        server.stop()
        for number, handler in before:
            signal.signal(number, handler)
