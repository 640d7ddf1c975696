"""Routes of the live page: the WebSocket, events of the past, sound, commands."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from msgspec import Struct
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from neurovocal.engine import ConfigError, NeurovocalError
from neurovocal.engine.support.strict_json import JsonError, JsonReader
from neurovocal.plugins.web.connections import MOST_MESSAGE_BYTES, LimitedWebSocket
from neurovocal.plugins.web.encoding import message_text
from neurovocal.plugins.web.history import (
    EVENT_KINDS,
    MOST_EVENTS,
    History,
    utc_ns_of,
)
from neurovocal.plugins.web.server import page_file
from neurovocal.plugins.web.sound import NoSoundError, SoundKeeper
from neurovocal.plugins.web.steering import EngineControl
from neurovocal.plugins.web.viewers import Hub, Viewer

_AT_A_TIME = 2
MOST_VIEWERS = 50
_MESSAGES_PER_S, _MESSAGE_BURST = 20.0, 100.0
# Close codes of RFC 6455.
_GOING_AWAY, _POLICY, _TRY_LATER = 1001, 1008, 1013
_DROPPED_S = 1.0
_GOODBYE_S = 0.3


@dataclass(frozen=True, slots=True)
class StationParts:
    """What the page can do for one station beside showing its messages.

    Parameters
    ----------
    history : History
        Its past events.
    sound : SoundKeeper, optional
        Its sound; None: none is kept.
    control : EngineControl, optional
        Takes commands; None: the page takes none.
    """

    history: History
    sound: SoundKeeper | None = None
    control: EngineControl | None = None


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
    parts : mapping of str to StationParts
        By station.
    pages : sequence of str
        Names of further pages that the server has, such as ``review``.
    """

    def __init__(
        self, hub: Hub, parts: Mapping[str, StationParts], pages: Sequence[str] = ()
    ) -> None:
        self._pages = list(pages)
        self._hub = hub
        self._parts = dict(parts)
        self._version = version("neurovocal")
        # A few requests at a time: the others wait, and the engine has its time.
        self._turn = asyncio.Semaphore(_AT_A_TIME)

    def routes(self) -> list[BaseRoute]:
        """Return the routes for a `PageServer`."""
        return [
            page_file("index.html", "/"),
            WebSocketRoute("/ws", self._connect),
            Route("/api/events", self._answering(self._events)),
            Route("/api/sound", self._answering(self._sound)),
            Route("/api/summary", self._answering(self._summary)),
        ]

    def _answering(
        self, answer: Callable[[StationParts, QueryParams], Response]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint that calls `answer` in a thread; errors are sentences."""

        async def endpoint(request: Request) -> Response:
            query = request.query_params
            parts = self._parts.get(query.get("station", next(iter(self._parts))))
            if parts is None:
                return JSONResponse({"error": "there is no such station"}, 404)
            try:
                async with self._turn:
                    return await run_in_threadpool(answer, parts, query)
            except NoSoundError as error:
                return JSONResponse({"error": str(error)}, 404)
            except (NeurovocalError, ValueError) as error:
                return JSONResponse({"error": str(error)}, 400)

        return endpoint

    def _events(self, parts: StationParts, query: QueryParams) -> Response:
        kinds = tuple(filter(None, query.get("kinds", "").split(",")))
        limit = _whole(query, "limit", 200)
        page = parts.history.before(
            query.get("before"),
            stream=query.get("stream"),
            kinds=kinds or EVENT_KINDS,
            limit=max(1, min(limit, MOST_EVENTS)),
        )
        return Response(page.to_json(), media_type="application/json")

    def _sound(self, parts: StationParts, query: QueryParams) -> Response:
        if parts.sound is None:
            raise NoSoundError("no sound is kept: see the option 'sound_s' of the page")
        stream = query.get("stream", "")
        station = query.get("station", next(iter(self._parts)))
        rate = _whole(query, "rate", self._hub.sample_rate(station, stream))
        start, stop = _whole(query, "start"), _whole(query, "stop")
        try:
            speed = float(query.get("speed", "1"))
        except ValueError:
            raise ConfigError("'speed' is a number, such as 0.1") from None
        sound = parts.sound.wav(stream, start, stop, rate, speed)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", stream)[:60]
        headers = {
            "Content-Disposition": f'inline; filename="{name}_{start}-{stop}.wav"'
        }
        return Response(sound, headers=headers, media_type="audio/wav")

    def _summary(self, parts: StationParts, query: QueryParams) -> Response:
        by = query.get("by", "hour")
        if by not in ("hour", "day"):
            raise ConfigError("'by' is 'hour' or 'day'")
        times = [query.get(name) for name in ("since", "until")]
        since_ns, until_ns = (utc_ns_of(time) if time else None for time in times)
        stream = query.get("stream")
        summary = parts.history.summary(
            "day" if by == "day" else "hour",
            since_ns,
            until_ns,
            None if stream is None else (stream,),
        )
        return JSONResponse(summary)

    async def _connect(self, socket: WebSocket) -> None:
        await socket.accept()
        if self._hub.n_viewers >= MOST_VIEWERS:
            await socket.close(_TRY_LATER, f"{MOST_VIEWERS} browsers watch already")
            return
        viewer = Viewer(asyncio.get_running_loop())
        # Before the hello: what changes after it must not be missed.
        await run_in_threadpool(self._hub.attach, viewer)
        cut: Callable[[], None] = socket.scope["state"][LimitedWebSocket.CUT]
        try:
            await socket.send_text(self._hello())
            await _first_of(
                self._send(socket, viewer), self._receive(socket, viewer), viewer.end()
            )
        finally:
            self._hub.detach(viewer)
        if viewer.closed:
            # A browser that does not read cannot be told.
            with suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await socket.close(_GOING_AWAY)
                    return
        if viewer.closed or viewer.is_lost:
            cut()

    def _hello(self) -> str:
        return message_text(
            "hello",
            version=self._version,
            now_utc_ns=time.time_ns(),
            stations=list(self._hub.stations.values()),
            control=any(one.control for one in self._parts.values()),
            pages=self._pages,
        )

    async def _send(self, socket: WebSocket, viewer: Viewer) -> None:
        told, next_s = 0, 0.0
        while True:
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
        parts = self._parts.get(request.station)
        control = None if parts is None else parts.control
        if control is None:
            where = "see 'control' in docs/how-to/page.md"
            error = f"commands are not allowed here: {where}"
            return message_text("reply", id=request.id, ok=False, error=error)
        try:
            reply = await asyncio.to_thread(
                control.command,
                request.command,
                request.arguments,
                lane=request.lane,
                model=request.model,
            )
        except NeurovocalError as error:
            return message_text("reply", id=request.id, ok=False, error=str(error))
        kept = {name: value for name, value in reply.items() if name != "type"}
        return message_text("reply", **kept | {"id": request.id, "ok": True})


def _whole(query: QueryParams, name: str, default: int | None = None) -> int:
    """Return a whole number of a request; ConfigError where it is none."""
    text = query.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ConfigError(f"'{name}' is missing, or no whole number")
    return int(text)


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
