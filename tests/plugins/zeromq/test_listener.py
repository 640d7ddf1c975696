"""Listening sockets that hold or refuse connections for a while."""

import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import zmq
from network.attackers import close_all, is_cut, silent
from network.publishers import Engine
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Subscriber
from neurovocal.engine.support.platform import handle_limit, raise_handle_limit
from neurovocal.plugins.zeromq.connection_limits import ConnectionLimits
from neurovocal.plugins.zeromq.fair_queue import FairQueue, Rate
from neurovocal.plugins.zeromq.listener import Listener


@pytest.fixture(autouse=True)
def close_peers() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def listener_of(engine: Engine) -> Listener:
    """Return the publisher's listener, once the limits have found it."""
    listeners = engine.zmq._access.limits._listeners
    until(lambda: bool(listeners))
    return next(iter(listeners.values()))


def is_refused(engine: Engine) -> bool:
    """Return True if a new connection is reset, at once or a moment later."""
    try:
        return is_cut(silent(engine.zmq.endpoint))
    except ConnectionResetError:
        return True


def compute_long() -> None:
    """Take more CPU time than a call into ZeroMQ may."""
    until_s = time.thread_time() + 0.2
    while time.thread_time() < until_s:
        sum(range(1000))


def receives(engine: Engine, subscriber: Subscriber) -> bool:
    """Publish until the subscriber receives a message."""
    for _ in range(2400):
        engine.send()
        if subscriber.receive(0.05) is not None:
            return True
    return False


def test_connections_are_refused_until_they_are_accepted_again(engine: Engine) -> None:
    limits, listener = engine.zmq._access.limits, listener_of(engine)
    with Subscriber(engine.zmq.endpoint) as early:
        assert receives(engine, early)
        limits._refuse_until_s = float("inf")
        assert all(is_refused(engine) for _ in range(20))
        assert listener.refused >= 10
        assert receives(engine, early)
        with Subscriber(engine.zmq.endpoint) as late:
            limits._refuse_until_s = float("-inf")
            assert receives(engine, late)
        assert early.missed == 0


def test_a_socket_is_closed_while_its_connections_are_refused(engine: Engine) -> None:
    listener_of(engine)
    engine.zmq._access.limits._refuse_until_s = float("inf")
    assert is_refused(engine)
    engine.zmq.close()
    with pytest.raises(OSError, match="refused"):
        silent(engine.zmq.endpoint)


def test_a_call_that_peers_keep_busy_refuses_new_connections(engine: Engine) -> None:
    limits, listener = engine.zmq._access.limits, listener_of(engine)
    with limits.busy():
        while not limits._is_refusing:  # a call that waits is not busy: it computes
            sum(range(10_000))
        assert is_refused(engine)
    until(lambda: not limits._is_refusing)
    assert listener.refused == 1
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert receives(engine, subscriber)


def test_a_call_that_waits_refuses_nobody(
    background: Callable[..., Callable[[], None]],
) -> None:
    limits = ConnectionLimits()
    with limits.busy():
        background(compute_long)()  # another thread computes, this one waits for it
        assert not limits._is_busy()
        compute_long()
        assert limits._is_busy()
    assert not limits._is_busy()


def test_connections_are_refused_while_descriptors_run_out(engine: Engine) -> None:
    limits = engine.zmq._access.limits
    listener_of(engine)
    enough, limits._most_handles = limits._most_handles, 1
    until(lambda: limits._is_refusing)
    assert is_refused(engine)
    limits._most_handles = enough
    until(lambda: not limits._is_refusing)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert receives(engine, subscriber)


def test_a_small_table_of_descriptors_lets_connections_in_by_and_by(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = engine.zmq._access.limits
    listener_of(engine)
    monkeypatch.setattr(limits, "_is_small", True)
    monkeypatch.setattr(limits, "most_connections", 50)
    for _ in range(300):
        silent(engine.zmq.endpoint)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert receives(engine, subscriber)
        assert len(limits._connections) < 200


def test_a_listener_takes_the_place_of_the_listening_socket() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        limits = ConnectionLimits()
        limits.add(f"tcp://127.0.0.1:{port}", 1000)
        until(lambda: bool(limits._listeners))
        (listener,) = limits._listeners.values()
        limits._stopping.set()
        assert limits._thread is not None
        limits._thread.join(PATIENCE_S)
        address = ("127.0.0.1", port)
        with ExitStack() as stack:
            listener.hold()
            peers = [
                stack.enter_context(socket.create_connection(address)) for _ in range(5)
            ]
            for peer in peers:
                peer.settimeout(0.05)
                with suppress(TimeoutError):
                    assert not peer.recv(1), "nobody greets while it is held"
            listener.accept_some()
            listener.accept()
            for peer in peers:
                peer.settimeout(PATIENCE_S)
                assert peer.recv(1)
        limits.close()
        limits.close()


def test_gone_connections_are_forgotten_at_once() -> None:
    queue = connection_queue()
    for number in range(10_000):
        assert queue.put([b"%d" % number, b"q"], None, 0.0)
        request = queue.next(0.0)
        assert request is not None
        queue.failed(request, ended=True)
    assert not queue._connections


def connection_queue() -> FairQueue:
    return FairQueue(Rate(requests=10, bytes=1e6))


def test_idle_connections_make_room_for_new_ones() -> None:
    queue = connection_queue()
    for number in range(5000):
        now_s = number * 0.001
        assert queue.put([b"%d" % number, b"q"], None, now_s)
        request = queue.next(now_s)
        assert request is not None
        queue.done(request, 10, now_s)


def test_the_limit_on_descriptors_is_raised_to_what_is_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        raise_handle_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert handle_limit() == before[0]
