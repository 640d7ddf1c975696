"""Networks that break and subscribers that do not read, with real sockets."""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from threading import Thread
from typing import Any

from neurovocal.engine.client.subscriber import Subscriber
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import KINDS

_CHUNK_BYTES = 64 * 1024  # most that is forwarded at once
_CALL_TIMEOUT_S = 10.0  # for the proxy's thread, which never has much to do
# At the end, messages that were sent last have so long to reach their subscribers.
_LINGER_S = 1.0
# A connection that is being accepted while all are cut shows up within this time.
_POLL_S = 0.01


class TcpProxy:
    """Forwards a TCP address to a port of this machine until it is cut.

    Parameters
    ----------
    host, port : str, int
        Address to listen at.
    target : int
        Port on the loopback interface to forward to. May be changed; it then holds
        for new connections.

    Attributes
    ----------
    paused : bool
        While True, connections stay open but nothing is forwarded.
    """

    def __init__(self, host: str, port: int, target: int) -> None:
        self._address = host, port
        self.target = target
        self.paused = False
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
        host, port = self._address
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

    def restore(self) -> None:
        """Accept connections again."""
        self._call(self._listen())

    def close(self) -> None:
        """Forward the bytes under way, then break all connections.

        May be called twice, and before `open`.
        """
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            _wait_for(self._drain(), loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(_CALL_TIMEOUT_S)
        loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "only an open proxy is cut"
        _wait_for(work, self._loop)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, *self._address)

    async def _drain(self) -> None:
        if self._server is not None:
            self._server.close()
        if connections := _connections():
            # The sink is closed: each connection ends when all has been forwarded.
            await asyncio.wait(connections, timeout=_LINGER_S)
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
        while connections := _connections():
            await asyncio.sleep(0)
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await asyncio.sleep(_POLL_S)
        if server is not None:
            await server.wait_closed()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1", self.target
            )
            writers.append(far_writer)
            await _first_done(
                self._forward(reader, far_writer), self._forward(far_reader, writer)
            )
            for each in writers:
                each.close()  # what is buffered is still sent
            for each in writers:
                await each.wait_closed()
        except (OSError, asyncio.CancelledError):
            pass  # nothing listens at the target, or the network was cut
        finally:
            for each in writers:
                each.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                while self.paused:
                    await asyncio.sleep(_POLL_S)
                writer.write(data)
                await writer.drain()


def _wait_for(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(work, loop).result(_CALL_TIMEOUT_S)


def _connections() -> set[asyncio.Task[Any]]:
    """Return the tasks of all connections of this loop."""
    return asyncio.all_tasks() - {asyncio.current_task()}


async def _first_done(*work: Coroutine[Any, Any, None]) -> None:
    """Return when one coroutine has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class StalledSubscribers:
    """Subscribers to all kinds of events that never read.

    Parameters
    ----------
    endpoints : list of str
        Where to connect, one subscriber each.
    keys : str, optional
        Folder with the subscribers' keys.
    """

    def __init__(self, endpoints: list[str], keys: str | None) -> None:
        self._endpoints = endpoints
        self._keys = keys
        self._subscribers: list[Subscriber] = []

    def open(self) -> None:
        """Connect and subscribe.

        Raises
        ------
        ConfigError
            The keys cannot be read.
        """
        for endpoint in self._endpoints:
            subscriber = Subscriber(
                endpoint, KINDS.values(), queue_length=1, keys=self._keys
            )
            subscriber.open()
            self._subscribers.append(subscriber)

    def close(self) -> None:
        """Disconnect. May be called twice."""
        for subscriber in self._subscribers:
            subscriber.close()
        self._subscribers = []


def free_port() -> int:
    """Return a port of the loopback interface that is not in use."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
