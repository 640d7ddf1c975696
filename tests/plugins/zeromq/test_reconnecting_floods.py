"""Peers that connect, send and disconnect about 100 times per second.

Memory and subscribers withstand that rate. Faster floods of peers without keys are for
a firewall: the limits are per connection (docs/station/security.md).
"""

import random
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest
from network.attackers import GREETING, frame, port_of
from network.publishers import Engine
from network.relays import relaying
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Subscriber
from neurovocal.engine.support.process import process_usage

CYCLES = 300
MOST_GROWTH_MB = 300


class Flood:
    """Two threads that connect, send 90 KB of subscriptions and disconnect, again."""

    def __init__(self, endpoint: str, first: bytes) -> None:
        self.cycles = 0
        self._address = ("127.0.0.1", port_of(endpoint))
        self._first = first
        self._done = Flag()
        self._threads = [Thread(target=self._run, args=(n,)) for n in range(2)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        ready = frame(b"\x05READY\x0bSocket-Type\0\0\0\x04XSUB", command=True)
        while not self._done.is_set():
            with suppress(OSError), socket.create_connection(self._address, 0.2) as one:
                one.settimeout(1.0)
                one.sendall(GREETING + ready)
                for _ in range(60):
                    one.sendall(frame(self._first + rng.randbytes(1500)))
            self.cycles += 1
            self._done.wait(0.02)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def receives(engine: Engine, subscriber: Subscriber) -> bool:
    """Publish until the subscriber receives a message."""
    for _ in range(2400):
        engine.send()
        if subscriber.receive(0.1) is not None:
            return True
    return False


@pytest.mark.parametrize("first", [b"\1", b"x"], ids=["topics", "nonsense"])
def test_memory_stays_and_subscribers_miss_nothing_at_an_engine(
    engine: Engine, first: bytes
) -> None:
    before_mb = process_usage().rss_mb
    with Subscriber(engine.zmq.endpoint) as early:
        assert receives(engine, early)
        with closing(Flood(engine.zmq.endpoint, first)) as flood:
            until(lambda: receives(engine, early) and flood.cycles > CYCLES)
            with Subscriber(engine.zmq.endpoint) as late:
                assert receives(engine, late)
        assert receives(engine, early)
        assert early.missed == 0
    assert process_usage().rss_mb - before_mb < MOST_GROWTH_MB


def test_memory_stays_and_subscribers_miss_nothing_at_a_relay(engine: Engine) -> None:
    before_mb = process_usage().rss_mb
    with relaying([engine]) as relay, Subscriber(relay.endpoint) as early:
        assert receives(engine, early)
        with closing(Flood(relay.endpoint, b"\1")) as flood:
            until(lambda: receives(engine, early) and flood.cycles > CYCLES)
        assert receives(engine, early)
    assert process_usage().rss_mb - before_mb < MOST_GROWTH_MB
