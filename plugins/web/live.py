"""Routes of the live page: the WebSocket, events of the past, sound, commands."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import Any, Protocol

from msgspec import Struct
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from neurovocal.engine import NeurovocalError
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.plugins.web.connections import MOST_MESSAGE_BYTES, LimitedWebSocket
from neurovocal.plugins.web.encoding import message_text
from neurovocal.plugins.web.server import page_file
from neurovocal.plugins.web.viewers import Hub, Viewer

MOST_VIEWERS = 50
_MESSAGES_PER_S, _MESSAGE_BURST = 20.0, 100.0
# Close codes of RFC 6455.
_GOING_AWAY, _POLICY, _TRY_LATER = 1001, 1008, 1013
_DROPPED_S = 1.0


class Commander(Protocol):
    """Sends commands to one engine."""

    def command(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        lane: str | None = None,
        model: str | int | None = None,
    ) -> dict[str, Any]:
        """Send a command and return the reply; NeurovocalError if it is refused."""
        ...


class _Request(Struct):
    """Message of a browser."""

    type: str
    id: int = 0
    station: str = ""
    command: str = ""
    lane: str | None = None
    model: str | int | None = None
    arguments: dict[str, Any] = {}
    on: bool = True


_requests: JsonReader[_Request] = JsonReader(_Request, most_bytes=MOST_MESSAGE_BYTES)


class Live:
    """Connections of browsers to a hub.

    Parameters
    ----------
    hub : Hub
        Messages to show.
    commanders : mapping of str to Commander
        By station; stations without one take no commands.
    """

    def __init__(
        self, hub: Hub, commanders: Mapping[str, Commander] | None = None
    ) -> None:
        self._hub = hub
        self._commanders = dict(commanders or {})
        self._version = version("neurovocal")

    def routes(self) -> list[BaseRoute]:
        """Return the routes for a `PageServer`."""
        return [page_file("index.html", "/"), WebSocketRoute("/ws", self._connect)]

    async def _connect(self, socket: WebSocket) -> None:
        await socket.accept()
        if self._hub.n_viewers >= MOST_VIEWERS:
            await socket.close(_TRY_LATER, f"{MOST_VIEWERS} browsers watch already")
            return
        viewer = Viewer(asyncio.get_running_loop())
        await socket.send_text(self._hello())
        self._hub.attach(viewer)
        cut: Callable[[], None] = socket.scope["state"][LimitedWebSocket.CUT]
        try:
            await _first_of(self._send(socket, viewer), self._receive(socket, viewer))
        finally:
            self._hub.detach(viewer)
            if viewer.is_lost:
                cut()

    def _hello(self) -> str:
        return message_text(
            "hello",
            version=self._version,
            now_utc_ns=time.time_ns(),
            stations=list(self._hub.stations.values()),
            control=bool(self._commanders),
        )

    async def _send(self, socket: WebSocket, viewer: Viewer) -> None:
        told, next_s = 0, 0.0
        while not viewer.closed and not viewer.is_lost:
            message = viewer.take()
            if viewer.dropped != told and time.monotonic() >= next_s:
                told, next_s = viewer.dropped, time.monotonic() + _DROPPED_S
                await socket.send_text(message_text("dropped", columns=told))
            if message is None:
                await viewer.wait()
            elif isinstance(message, str):
                await socket.send_text(message)
            else:
                await socket.send_bytes(message)
        if viewer.closed:
            await socket.close(_GOING_AWAY)

    async def _receive(self, socket: WebSocket, viewer: Viewer) -> None:
        allowed, since_s = _MESSAGE_BURST, time.monotonic()
        while True:
            try:
                text = await socket.receive_text()
            except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
                return
            now_s = time.monotonic()
            allowed = min(_MESSAGE_BURST, allowed + (now_s - since_s) * _MESSAGES_PER_S)
            since_s = now_s
            if allowed < 1:
                await socket.close(_POLICY, "too many messages")
                return
            allowed -= 1
            try:
                request = _requests.read(text.encode("utf-8", "replace"))
            except JsonError as error:
                await socket.close(_POLICY, f"malformed message: {error}"[:120])
                return
            if request.type == "columns":
                viewer.wants_columns = request.on
            elif request.type == "command":
                viewer.put_text(await self._command(request))

    async def _command(self, request: _Request) -> str:
        commander = self._commanders.get(request.station)
        if commander is None:
            error = "commands are not allowed here: see 'control' in docs/page.md"
            return message_text("reply", id=request.id, ok=False, error=error)
        try:
            reply = await asyncio.to_thread(
                commander.command,
                request.command,
                request.arguments,
                lane=request.lane,
                model=request.model,
            )
        except NeurovocalError as error:
            return message_text("reply", id=request.id, ok=False, error=str(error))
        kept = {name: value for name, value in reply.items() if name != "type"}
        return message_text("reply", **kept | {"id": request.id, "ok": True})


async def _first_of(*coroutines: Awaitable[None]) -> None:
    """Run coroutines until one of them ends, cancel the others; raise its error."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        error = task.exception()
        if error is not None and not isinstance(error, WebSocketDisconnect):
            raise error
