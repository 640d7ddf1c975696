"""Time limits of connections to the page, over real sockets."""

import asyncio
import json

import pytest
import websockets

from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.web import connections
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.encoding import Station
from neurovocal.plugins.web.live import Live
from neurovocal.plugins.web.server import PageServer
from neurovocal.plugins.web.viewers import Hub


@pytest.fixture
def hub() -> Hub:
    return Hub([Station(id="s0", name="aviary")])


@pytest.fixture
def server(hub, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.2)
    server = PageServer(Address("127.0.0.1", 0), Access(), Live(hub, {}).routes())
    server.start()
    yield server
    server.stop()


def test_a_websocket_lives_longer_than_a_request_may_take(hub, server):
    async def watch() -> list[str]:
        address = server.url.replace("http", "ws", 1) + "ws"
        async with websockets.connect(address) as connection:
            types = [json.loads(await connection.recv())["type"]]
            # A request that never comes is cut by then: this one has long ended.
            reader, writer = await asyncio.open_connection(*address_of(server))
            assert await reader.read() == b""
            writer.close()
            hub.add_event("s0", "gap", "a", "run", 0, "{}")
            return [*types, json.loads(await connection.recv())["type"]]

    assert asyncio.run(watch()) == ["hello", "event"]


def address_of(server: PageServer) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").rstrip("/").partition(":")
    return host, int(port)
