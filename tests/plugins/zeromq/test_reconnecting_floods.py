"""Who is cut and comes again at once: kept out by the kernel, the others served."""

import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest
from network.attackers import GREETING, frame, port_of
from network.publishers import Engine
from network.relays import relaying
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Subscriber
from neurovocal.engine.support.process import usage
from neurovocal.plugins.zeromq.connection_limits import Drawbridge


def test_nobody_new_comes_while_too_much_was_sent() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        early = stack.enter_context(socket.create_connection(server.getsockname()))
        within, _ = server.accept()
        stack.enter_context(within)
        bridge = Drawbridge(1000)
        bridge.spent = 5000
        assert not bridge.turn()  # nobody knows yet where the port is
        bridge.listening = server.fileno()
        assert bridge.turn()
        assert not bridge.turn()
        early.sendall(b"x")
        assert within.recv(1) == b"x"
        with pytest.raises(TimeoutError):
            socket.create_connection(server.getsockname(), timeout=0.2)
        bridge.forget(15.0)
        bridge.gone = 1500
        bridge.turn()
        assert bridge.is_up
        bridge.forget(3.0)
        bridge.turn()
        assert not bridge.is_up
        socket.create_connection(server.getsockname(), timeout=PATIENCE_S).close()
        server.close()
        bridge.spent = 5000
        assert not bridge.turn()  # the socket has gone


class Flood:
    """Connections that come again and again, each with topics, or with what is none."""

    def __init__(self, endpoint: str, first: bytes) -> None:
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
            self._done.wait(0.02)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def hears(engine: Engine, subscriber: Subscriber) -> bool:
    for _ in range(600):
        engine.send()
        if subscriber.receive(0.1) is not None:
            return True
    return False


@pytest.mark.parametrize("first", [b"\1", b"x"], ids=["topics", "nonsense"])
def test_floods_that_come_again_cost_no_memory_and_no_label(
    engine: Engine, first: bytes
) -> None:
    before_mb = usage().rss_mb
    port = port_of(engine.zmq.endpoint)
    bridge = engine.zmq._guard._door._limits[port].bridge
    with Subscriber(engine.zmq.endpoint) as early:
        assert hears(engine, early)
        with closing(Flood(engine.zmq.endpoint, first)):
            until(lambda: hears(engine, early) and bridge.is_up)
            for _ in range(20):
                assert hears(engine, early)
        assert early.missed == 0
    until(lambda: engine.send() or not bridge.is_up)
    with Subscriber(engine.zmq.endpoint) as late:
        assert hears(engine, late)
    assert usage().rss_mb - before_mb < 300


def test_a_relay_withstands_them_too(engine: Engine) -> None:
    before_mb = usage().rss_mb
    with relaying([engine]) as relay, Subscriber(relay.endpoint) as early:
        assert hears(engine, early)
        bridge = relay._guard._door._limits[port_of(relay.endpoint)].bridge
        with closing(Flood(relay.endpoint, b"\1")):
            until(lambda: hears(engine, early) and bridge.is_up)
        assert hears(engine, early)
    assert usage().rss_mb - before_mb < 300
