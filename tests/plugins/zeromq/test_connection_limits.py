"""The watch over connections where keys are needed: who behaves stays, others go."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from itertools import count
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest
import zmq
from network.attackers import all_leave, is_cut, silent
from network.curve_peer import CurvePeer
from network.publishers import Engine
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Subscriber
from neurovocal.engine.support.process import usage
from neurovocal.engine.wire.keys import add_client, make_engine_keys, use_client_keys


@pytest.fixture(autouse=True)
def peers_leave() -> Iterator[None]:
    yield
    all_leave()


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


def hears(engine: Engine, subscriber: Subscriber) -> bool:
    for _ in range(600):
        engine.send()
        if subscriber.receive(0.05) is not None:
            return True
    return False


def cuts(engine: Engine) -> int:
    server = engine.journal._server
    return engine.zmq._guard._door.cut + server._guard._door.cut


def looks(engine: Engine, number: int) -> None:
    """Let the watch look some times."""
    door = engine.zmq._guard._door
    for _ in range(number):
        door._look()


def test_a_crowd_that_behaves_stays(engine: Engine, alice: Path) -> None:
    engine.send(300, only_keep=True)
    with ExitStack() as stack:
        crowd = [
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
        for one in crowd:
            heard = [one.receive(PATIENCE_S) for _ in range(300)]
            assert [message.seq for message in heard if message] == list(range(300))
        for _ in range(5):
            assert all(hears(engine, one) for one in crowd)
            looks(engine, 3)
        assert all(one.missed == 0 for one in crowd)
    assert cuts(engine) == 0


@pytest.mark.parametrize("keyed", [True, False])
def test_many_questions_that_end_are_no_attack(
    alice: Path, tmp_path: Path, keyed: bool
) -> None:
    # More than a connection may leave without an end, at once, and all of it ends.
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
        counts, heard = engine.journal._server.counts, 0
        until(lambda: counts.asked == 500 and not counts.waiting)
        while heard < counts.answered:
            assert asking.poll(PATIENCE_S * 1000)
            heard += json.loads(asking.recv())["ok"]
        assert counts.answered + counts.refused == 500
        assert counts.answered > 20
        assert cuts(engine) == 0


def drips(peer: CurvePeer, piece: bytes) -> bool:
    """Whether one that says a byte now and then is let down."""
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


def test_who_does_not_finish_the_handshake_goes(engine: Engine, alice: Path) -> None:
    waiting = [CurvePeer(engine.replay, alice, b"DEALER") for _ in range(4)]
    for peer in waiting[1:]:
        peer.greet()
    for peer in waiting[2:]:
        peer.hello()
    # In the middle of INITIATE, which is longer than it will ever say.
    waiting[3].socket.sendall(b"\x06" + (10_000).to_bytes(8) + b"\x08INITIATE")
    slow = CurvePeer(engine.replay, alice, b"DEALER")
    assert drips(slow, b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE")
    assert all(is_cut(peer.socket) for peer in waiting)
    engine.send(3, only_keep=True)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run", keys=alice
    ) as subscriber:
        assert subscriber.receive(PATIENCE_S) is not None


def test_a_question_without_an_end_is_cut_with_a_key_too(
    engine: Engine, alice: Path
) -> None:
    before_mb = usage().rss_mb
    peer = CurvePeer(engine.replay, alice, b"DEALER").enter()
    asked = b'{"v":1,"id":1,"command":"topics","kinds":["label"]}'
    peer.socket.sendall(peer.part(asked))
    assert b"MESSAGE" in peer.socket.recv(1000)  # it is let in, and answered
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run", keys=alice
    ) as subscriber:
        assert hears(engine, subscriber)
        assert is_cut(peer.socket, (peer.part(b"x", more=True) for _ in count()))
        assert hears(engine, subscriber)
        assert subscriber.missed == 0
    assert engine.journal._server._guard._door.cut == 1
    assert usage().rss_mb - before_mb < 300


def test_topics_without_end_are_cut_with_a_key_too(engine: Engine, alice: Path) -> None:
    done = Flag()

    def publish() -> None:
        while not done.is_set():
            engine.zmq.flush(0.0)
            done.wait(0.01)

    looking = Thread(target=publish)
    looking.start()
    peer = CurvePeer(engine.zmq.endpoint, alice, b"SUB").enter()
    topics = (peer.part(b"\1nv1/%d/%s" % (n, b"x" * 2000)) for n in count())
    assert is_cut(peer.socket, topics)
    done.set()
    looking.join(PATIENCE_S)
    with Subscriber(engine.zmq.endpoint, keys=alice) as subscriber:
        assert hears(engine, subscriber)
    assert engine.zmq._guard._door.cut == 1


def test_who_has_no_key_does_not_take_the_place_of_who_has(
    engine: Engine, alice: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = engine.zmq._guard._door
    monkeypatch.setattr(door, "most_connections", 20)
    strangers = []
    with ExitStack() as stack:
        early = stack.enter_context(Subscriber(engine.zmq.endpoint, keys=alice))
        assert hears(engine, early)
        for _ in range(60):  # they come as fast as they are cut
            strangers += [silent(engine.zmq.endpoint) for _ in range(5)]
            with suppress(OSError):  # it may be cut by now
                strangers[-1].sendall(b"\xff")
            door._look()
        late = stack.enter_context(Subscriber(engine.zmq.endpoint, keys=alice))
        for _ in range(20):
            silent(engine.zmq.endpoint)
            door._look()
        assert hears(engine, late)
        assert hears(engine, early)
        assert early.missed == 0
        assert door.cut > 200
        assert all(is_cut(stranger) for stranger in strangers[:200])
