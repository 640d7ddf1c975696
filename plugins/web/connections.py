"""Connections to the page: limits that the HTTP server itself does not have."""

import asyncio
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import (
    WebSocketsSansIOProtocol,
)

# A request, header and body, must be there after this time.
REQUEST_S = 10.0
MOST_CONNECTIONS = 200
MOST_HEADER_BYTES = 16 * 1024
MOST_MESSAGE_BYTES = 64 * 1024


class LimitedHttp(H11Protocol):
    """HTTP connection that is closed if its request does not come in time.

    At more than `MOST_CONNECTIONS` the oldest connection without a request makes room
    for a new one; if there is none, the new one is closed.
    """

    _deadline: asyncio.TimerHandle | None = None
    _is_websocket = False

    def connection_made(self, transport: Any) -> None:
        """Take a connection, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            idle = [
                one
                for one in self.connections
                if isinstance(one, LimitedHttp) and one is not self and one.is_waiting
            ]
            oldest = min(idle, key=lambda one: one.since_s, default=self)
            self.connections.discard(oldest)  # before the transport says so
            oldest.transport.abort()
        self.since_s = self.loop.time()
        self._deadline = self.loop.call_later(REQUEST_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; its time begins with its first byte."""
        super().data_received(data)
        if not self.is_waiting:
            self._cancel()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_S, self._give_up)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to a WebSocket, which has no time limit."""
        self._is_websocket = True
        self._cancel()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel()
        super().connection_lost(exc)

    @property
    def is_waiting(self) -> bool:
        """Return True while no complete request is there."""
        is_incomplete = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        return is_incomplete and not self._is_websocket

    def _give_up(self) -> None:
        self._deadline = None
        if self.is_waiting:
            self.transport.abort()

    def _cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """WebSocket connection that its route can cut, however much waits to be sent."""

    CUT: ClassVar[str] = "cut"

    def connection_made(self, transport: Any) -> None:
        """Take a connection over from HTTP, and let the route cut it."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, self.CUT: transport.abort}
