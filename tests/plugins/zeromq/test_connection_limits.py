"""Connection limits where keys are required, with real CURVE handshakes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import count
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest
import zmq
from network.attackers import close_all, is_cut, silent
from network.curve_peer import CurvePeer
from network.publishers import Engine
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Subscriber
from neurovocal.engine.support.process import process_usage
from neurovocal.engine.wire.keys import add_client, make_engine_keys, use_client_keys


@pytest.fixture(autouse=True)
def close_peers() -> Iterator[None]:
    yield
    close_all()


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    make_engine_keys(tmp_path / "engine")
    add_client(tmp_path / "engine", "alice", "read", tmp_path / "alice")
    return tmp_path / "alice"


@pytest.fixture
def engine(alice: Path, tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "journal").mkdir()
    engine = Engine(tmp_path / "journal", keys=tmp_path / "engine")
    yield engine
    engine.close()


def receives(engine: Engine, subscriber: Subscriber) -> bool:
    """Publish until the subscriber receives a message."""
    for _ in range(2400):
        engine.send()
        if subscriber.receive(0.05) is not None:
            return True
    return False


def cuts(engine: Engine) -> int:
    """Return the number of connections cut at both sockets."""
    server = engine.journal._server
    return engine.zmq._access.limits.cut + server._access.limits.cut


def check_limits(engine: Engine, number: int) -> None:
    """Run the check of the limits `number` times."""
    limits = engine.zmq._access.limits
    for _ in range(number):
        limits.check()


def test_ten_subscribers_within_the_limits_are_not_cut(
    engine: Engine, alice: Path
) -> None:
    engine.send(300, only_record=True)
    with ExitStack() as stack:
        subscribers = [
            stack.enter_context(
                Subscriber(
                    engine.zmq.endpoint,
                    kinds=["label", "onset", "gap", "anchor", "stats", "frames"],
                    replay=engine.replay,
                    start="run",
                    keys=alice,
                )
            )
            for _ in range(10)
        ]
        for one in subscribers:
            messages = [one.receive(PATIENCE_S) for _ in range(300)]
            assert [message.seq for message in messages if message] == list(range(300))
        for _ in range(5):
            assert all(receives(engine, one) for one in subscribers)
            check_limits(engine, 3)
        assert all(one.missed == 0 for one in subscribers)
    assert cuts(engine) == 0


@pytest.mark.parametrize("keyed", [True, False])
def test_many_complete_requests_are_not_cut(
    alice: Path, tmp_path: Path, keyed: bool
) -> None:
    # At once more bytes than one incomplete request may have, all of them complete.
    (tmp_path / "j").mkdir()
    engine = Engine(tmp_path / "j", keys=tmp_path / "engine" if keyed else None)
    question = {"v": 1, "id": "x" * 4000, "command": "topics", "kinds": ["label"]}
    with (
        closing(engine),
        zmq.Context() as context,
        context.socket(zmq.DEALER) as asking,
    ):
        asking.setsockopt(zmq.LINGER, 0)
        if keyed:
            use_client_keys(asking, alice)
        asking.connect(engine.replay)
        for _ in range(500):
            asking.send(json.dumps(question).encode())
        counts, answered = engine.journal._server.counts, 0
        until(lambda: counts.asked == 500 and not counts.waiting)
        while answered < counts.answered:
            assert asking.poll(PATIENCE_S * 1000)
            answered += json.loads(asking.recv())["ok"]
        assert counts.answered + counts.refused == 500
        assert counts.answered > 20
        assert cuts(engine) == 0


def drips(peer: CurvePeer, piece: bytes) -> bool:
    """Return True if a peer that sends a byte each 0.2 s is cut."""
    done = Flag()

    def drip() -> None:
        for place in count():
            if done.wait(0.2):
                return
            try:
                peer.socket.sendall(piece[place % len(piece) :][:1])
            except OSError:
                return

    thread = Thread(target=drip)
    thread.start()
    try:
        return is_cut(peer.socket)
    finally:
        done.set()
        thread.join(PATIENCE_S)


def test_unfinished_handshakes_are_cut_after_five_seconds(
    engine: Engine, alice: Path
) -> None:
    waiting = [CurvePeer(engine.replay, alice, b"DEALER") for _ in range(4)]
    for peer in waiting[1:]:
        peer.greet()
    for peer in waiting[2:]:
        peer.hello()
    # In the middle of INITIATE, which is never completed.
    waiting[3].socket.sendall(b"\x06" + (10_000).to_bytes(8) + b"\x08INITIATE")
    slow = CurvePeer(engine.replay, alice, b"DEALER")
    assert drips(slow, b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE")
    assert all(is_cut(peer.socket) for peer in waiting)
    engine.send(3, only_record=True)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run", keys=alice
    ) as subscriber:
        assert subscriber.receive(PATIENCE_S) is not None


def test_an_endless_request_with_a_key_is_cut(engine: Engine, alice: Path) -> None:
    before_mb = process_usage().rss_mb
    peer = CurvePeer(engine.replay, alice, b"DEALER").handshake()
    asked = b'{"v":1,"id":1,"command":"topics","kinds":["label"]}'
    peer.socket.sendall(peer.part(asked))
    assert b"MESSAGE" in peer.socket.recv(1000)  # admitted and answered
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run", keys=alice
    ) as subscriber:
        assert receives(engine, subscriber)
        assert is_cut(peer.socket, (peer.part(b"x", more=True) for _ in count()))
        assert receives(engine, subscriber)
        assert subscriber.missed == 0
    assert engine.journal._server._access.limits.cut == 1
    assert process_usage().rss_mb - before_mb < 300


def test_endless_topics_with_a_key_are_cut(engine: Engine, alice: Path) -> None:
    done = Flag()

    def publish() -> None:
        while not done.is_set():
            engine.zmq.flush(0.0)
            done.wait(0.01)

    polling = Thread(target=publish)
    polling.start()
    peer = CurvePeer(engine.zmq.endpoint, alice, b"SUB").handshake()
    topics = (peer.part(b"\1nv1/%d/%s" % (n, b"x" * 2000)) for n in count())
    assert is_cut(peer.socket, topics)
    done.set()
    polling.join(PATIENCE_S)
    with Subscriber(engine.zmq.endpoint, keys=alice) as subscriber:
        assert receives(engine, subscriber)
    assert engine.zmq._access.limits.cut == 1


def test_peers_without_a_key_are_cut_before_those_with_one(
    engine: Engine, alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = engine.zmq._access.limits
    monkeypatch.setattr(limits, "most_connections", 20)
    peers = []
    with ExitStack() as stack:
        early = stack.enter_context(Subscriber(engine.zmq.endpoint, keys=alice))
        assert receives(engine, early)
        for _ in range(60):  # they connect as fast as they are cut
            peers += [silent(engine.zmq.endpoint) for _ in range(5)]
            with suppress(OSError):  # it may be cut by now
                peers[-1].sendall(b"\xff")
            limits.check()
        late = stack.enter_context(Subscriber(engine.zmq.endpoint, keys=alice))
        for _ in range(20):
            silent(engine.zmq.endpoint)
            limits.check()
        assert receives(engine, late)
        assert receives(engine, early)
        assert early.missed == 0
        assert limits.cut > 200
        assert all(is_cut(peer) for peer in peers[:200])
