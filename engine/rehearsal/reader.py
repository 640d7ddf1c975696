"""The subscriber of a rehearsal: it reads as any user's program does."""

import time
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.wire import WireError

_KINDS = ("label", "offset", "gap", "health", "anchor", "stats")
_WAIT_S = 0.1


class Reader(Thread):
    """Notes every message, and when it came.

    Parameters
    ----------
    endpoint : str
        Where to listen.
    replay : str, optional
        Where to ask for what was missed.
    keys : Path, optional
        The subscriber's keys.

    Attributes
    ----------
    received : list of (int, Received)
        Monotonic time in ns, message.
    error : Exception or None
        What the subscriber could not read, or why it gave up.
    """

    def __init__(self, endpoint: str, replay: str | None, keys: Path | None) -> None:
        super().__init__(daemon=True)
        self.received: list[tuple[int, Received]] = []
        self.error: Exception | None = None
        self._stopping = Flag()
        self._subscriber = Subscriber(
            endpoint,
            _KINDS,
            replay=replay,
            start="now" if replay is None else "journal",
            keys=keys,
        )

    def run(self) -> None:
        """Read until `stop`."""
        try:
            with self._subscriber as subscriber:
                while not self._stopping.is_set():
                    try:
                        one = subscriber.receive(_WAIT_S)
                    except WireError as error:
                        self.error = error
                        continue
                    if one is not None:
                        self.received.append((time.monotonic_ns(), one))
        except Exception as error:
            self.error = error

    def stop(self) -> None:
        """Disconnect."""
        self._stopping.set()
        self.join()
