"""A TCP proxy between real sockets that can be cut, stopped and slowed."""

import contextlib
import select
import socket
from threading import Event as Flag
from threading import Lock, Thread
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024


class BadNetwork:
    """Forwards a port of this machine to another, until it is told not to.

    Parameters
    ----------
    target : int
        Port to forward to.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.passed = Flag()  # cleared: bytes wait
        self.passed.set()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[socket.socket] = []
        self._lock = Lock()
        self._closing = Flag()
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        """Where to connect."""
        return f"tcp://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections; new ones are let in."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self.cuts += 1
        for end in pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Break everything."""
        self._closing.set()
        self.passed.set()
        self._threads[0].join(5)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            ready, _, _ = select.select([self._listener], [], [], 0.1)
            if not ready:
                continue
            near, _ = self._listener.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:  # nobody is there
                near.close()
                continue
            with self._lock:
                self._pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = Thread(target=self._pump, args=(source, sink), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while True:
                if not select.select([source], [], [], 0.1)[0]:
                    if self._closing.is_set():
                        break
                    continue
                self.passed.wait()
                data = source.recv(_CHUNK)
                if not data:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
