"""Relay that runs for the duration of a test."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag
from threading import Thread

from network.publishers import Engine
from processes.waiting import PATIENCE_S

from neurovocal.plugins.zeromq.relay.relay import Relay
from neurovocal.plugins.zeromq.relay.stations import Station


@contextmanager
def relaying(
    engines: list[Engine],
    *,
    replay: bool = False,
    others: Sequence[str] = (),
    host: str = "127.0.0.1",
    **keys: Path,
) -> Iterator[Relay]:
    """Run a relay of the engines, and of other live endpoints, in a thread."""
    stations = [Station(e.zmq.endpoint, e.replay) for e in engines]
    stations += [Station(endpoint, None) for endpoint in others]
    endpoint = f"tcp://{host}:*"
    relay = Relay(stations, endpoint, endpoint if replay else None, **keys)
    relay.open()
    done = Flag()

    def run() -> None:
        while not done.is_set():
            relay.step(0.02)

    thread = Thread(target=run)
    thread.start()
    try:
        yield relay
    finally:
        done.set()
        thread.join(PATIENCE_S)
        relay.close()
