"""Programs that open a page as a browser does: WebSocket, HTTP, and bare sockets."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from processes.waiting import PATIENCE_S
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.web.access import Access, Credentials
from neurovocal.plugins.web.encoding import Station
from neurovocal.plugins.web.history import History
from neurovocal.plugins.web.live import Live, StationParts
from neurovocal.plugins.web.server import PageServer
from neurovocal.plugins.web.sound import SoundKeeper
from neurovocal.plugins.web.steering import EngineControl
from neurovocal.plugins.web.viewers import Hub

TOKEN = "a token of many letters"
LOCKED = Access(Credentials(token=TOKEN, user="bird", password="hay and seed"))


class Columns:
    """Binary message: its header, and its values as an array."""

    def __init__(self, message: bytes) -> None:
        length = int.from_bytes(message[:4], "little")
        self.header = json.loads(message[4 : 4 + length])
        start = 4 + length + (-(4 + length) % 4)
        assert not any(message[4 + length : start]), "the padding is not zero"
        values = np.frombuffer(message[start:], self.header["dtype"])
        self.values = values.reshape(self.header["shape"])
        self.kind = self.header["kind"]
        self.first, self.stop = (
            self.header["first"],
            self.header["first"] + len(self.values),
        )


class Browser:
    """WebSocket of a page, with all messages that have come."""

    def __init__(self, socket_: ClientConnection) -> None:
        self.socket = socket_
        self.texts: list[dict[str, Any]] = []
        self.columns: list[Columns] = []

    def read(self, timeout: float = PATIENCE_S) -> dict[str, Any] | Columns:
        """Receive one message; TimeoutError if none comes."""
        message = self.socket.recv(timeout)
        if isinstance(message, bytes):
            self.columns.append(Columns(message))
            return self.columns[-1]
        self.texts.append(json.loads(message))
        return self.texts[-1]

    def until(self, is_there: Callable[["Browser"], object]) -> None:
        """Read messages until a condition is true."""
        while not is_there(self):
            self.read()

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Headers of the events of a kind that have come."""
        headers = [text["header"] for text in self.texts if text["type"] == "event"]
        return [header for header in headers if header["kind"] == kind]

    def end(self) -> ConnectionClosed:
        """Read messages until the connection is closed; return how."""
        while True:
            try:
                self.read()
            except ConnectionClosed as closed:
                return closed

    def of_type(self, name: str) -> list[dict[str, Any]]:
        """Text messages of a type that have come."""
        return [text for text in self.texts if text["type"] == name]

    def send(self, **message: object) -> None:
        """Send a message."""
        self.socket.send(json.dumps(message))


@contextmanager
def browser(url: str, **headers: str) -> Iterator[Browser]:
    """Open the WebSocket of the page at `url`, and close it at the end."""
    address = url.replace("http", "ws", 1) + "ws"
    with connect(
        address,
        compression=None,
        max_size=None,
        additional_headers=headers,
        open_timeout=PATIENCE_S,
    ) as socket_:
        yield Browser(socket_)


class LivePage:
    """Hub, sound and server of a live page with one station, without an engine."""

    def __init__(
        self,
        access: Access | None = None,
        control: EngineControl | None = None,
        names: tuple[str, ...] = ("demo",),
        **hub: Any,
    ) -> None:
        stations = [Station(id=f"s{n}", name=name) for n, name in enumerate(names)]
        self.hub = Hub(stations, **hub)
        self.sound = SoundKeeper(60.0)
        parts = {
            one.id: StationParts(History(self.hub, one.id), self.sound, control)
            for one in stations
        }
        self.server = PageServer(
            Address("127.0.0.1", 0),
            access or Access(),
            Live(self.hub, parts).routes(),
            every_s=0.02,
            task=self.hub.flush_columns,
        )

    def __enter__(self) -> "LivePage":
        self.server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.hub.close()
        self.server.stop()

    @property
    def url(self) -> str:
        """Address of the page."""
        return self.server.url

    @property
    def port(self) -> int:
        """Port of the page."""
        return int(self.url.rstrip("/").rpartition(":")[2])


def half_open(port: int, content: bytes = b"") -> socket.socket:
    """Connect, and send the beginning of a request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    connection.sendall(content)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Return True if the server has closed a connection, or does so in time."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True
