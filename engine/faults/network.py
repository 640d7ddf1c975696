"""Networks that break and readers that do not read, with real sockets."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Coroutine
from threading import Thread
from typing import Any

from neurovocal.engine.client.subscriber import Subscriber
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import KINDS

log = logging.getLogger("neurovocal")

_PIECE = 64 * 1024  # most bytes passed on at once
_PATIENCE_S = 10.0  # for the proxy's thread, which never has much to do
# At the end, what the sink has sent last still has so long to reach its readers.
_LINGER_S = 1.0
# A connection that is being accepted while all are broken shows up within this.
_NOTICE_S = 0.01


class Proxy:
    """Stands at an endpoint and passes all on to a port of this machine, until cut.

    Parameters
    ----------
    host, port : str, int
        Where it listens.
    target : int
        Port on the loopback interface where the real socket is.
    """

    def __init__(self, host: str, port: int, target: int) -> None:
        self._where = host, port
        self.target = target
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None

    def open(self) -> None:
        """Listen.

        Raises
        ------
        ConfigError
            The address is taken, or not this machine's.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(
            target=self._loop.run_forever, name="nv-proxy", daemon=True
        )
        self._thread.start()
        host, port = self._where
        try:
            self._call(self._listen())
        except OSError as error:
            self.close()
            raise ConfigError(
                f"tcp://{host}:{port}: cannot be bound: {error.strerror}: choose "
                "another endpoint"
            ) from error

    def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._call(self._break())

    def mend(self) -> None:
        """Let connections in again."""
        self._call(self._listen())

    def close(self) -> None:
        """Pass on what the sink has sent last, then break everything.

        May be called twice, and before `open`.
        """
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            _wait_for(self._end(), loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(_PATIENCE_S)
        loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "only an open proxy is cut"
        _wait_for(work, self._loop)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, *self._where)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        if pipes := _others():
            # The sink is closed: each ends when its reader has got all.
            await asyncio.wait(pipes, timeout=_LINGER_S)
        await self._break()

    async def _break(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            # asyncio never closes a socket that it has accepted when its server ends,
            # or its task is cancelled, before that task's first step.
            for listening in server.sockets:
                asyncio.get_running_loop().remove_reader(listening.fileno())
            await asyncio.sleep(0)
            server.close()
        # One that is just being accepted becomes another task.
        while pipes := _others():
            await asyncio.sleep(0)
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            await asyncio.sleep(_NOTICE_S)
        if server is not None:
            await server.wait_closed()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ends = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self.target
            )
            ends.append(far_writer)
            ways = (_pass(reader, far_writer), _pass(far_reader, writer))
            await _first(*ways)
            for end in ends:
                end.close()  # what is on its way still goes out
            for end in ends:
                await end.wait_closed()
        except (OSError, asyncio.CancelledError):
            pass  # nobody is there, or the network was cut
        finally:
            for end in ends:
                end.transport.abort()


def _wait_for(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(work, loop).result(_PATIENCE_S)


def _others() -> set[asyncio.Task[Any]]:
    """All connections of this loop, at whatever stage."""
    return asyncio.all_tasks() - {asyncio.current_task()}


async def _first(*ways: Coroutine[Any, Any, None]) -> None:
    """Until one way is at its end; the others are given up."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()


class StalledSubscribers:
    """Subscribers to all that is published, which never read.

    Parameters
    ----------
    endpoints : list of str
        Where to connect, one each.
    keys : str, optional
        Folder of keys that let them in.
    """

    def __init__(self, endpoints: list[str], keys: str | None) -> None:
        self._endpoints = endpoints
        self._keys = keys
        self._readers: list[Subscriber] = []

    def begin(self) -> None:
        """Connect and subscribe.

        Raises
        ------
        ConfigError
            The keys cannot be read.
        """
        for endpoint in self._endpoints:
            reader = Subscriber(
                endpoint, KINDS.values(), queue_length=1, keys=self._keys
            )
            reader.open()
            self._readers.append(reader)

    def end(self) -> None:
        """Go away."""
        for reader in self._readers:
            reader.close()
        self._readers = []


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
