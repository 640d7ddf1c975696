"""Connections that want to do harm: everybody else is served, nothing grows."""

import json
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from urllib.request import urlopen

import pytest
import zmq
from network.attackers import all_leave, frame, is_cut, silent, speaking
from network.publishers import Engine
from network.relays import relaying
from processes.waiting import PATIENCE_S

from neurovocal.engine.client import Control, Received, Subscriber, received, resume
from neurovocal.engine.client.received import received_of
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Label, Message, StreamInfo
from neurovocal.engine.support.process import usage
from neurovocal.engine.wire.codec import decode, encode
from neurovocal.plugins.controls import zmq as control_zmq
from neurovocal.plugins.controls.zmq import ControlSocket
from neurovocal.plugins.sinks import prometheus
from neurovocal.plugins.sinks.prometheus import PrometheusOptions, PrometheusSink
from neurovocal.plugins.zeromq.connection_limits import Door, socket_of

CROWD = 500


@pytest.fixture(autouse=True)
def strangers_leave() -> Iterator[None]:
    yield
    all_leave()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def control() -> Iterator[ControlSocket]:
    options = control_zmq.ControlOptions(endpoint="tcp://127.0.0.1:*")
    server = control_zmq.plugin.build(options, BuildContext(SystemClock(), "run"))
    server.open()
    done = Flag()

    def serve() -> None:
        while not done.is_set():
            server.serve(lambda request: {"ok": True, "echo": request}, 0.02)

    thread = Thread(target=serve)
    thread.start()
    yield server
    done.set()
    thread.join(PATIENCE_S)
    server.close()


@pytest.fixture
def page() -> Iterator[PrometheusSink]:
    pytest.importorskip("prometheus_client")
    sink = PrometheusSink(PrometheusOptions(endpoint="127.0.0.1:0"))
    sink.open()
    yield sink
    sink.close()


def crowd(endpoint: str) -> list[socket.socket]:
    """Half of it silent, half in the middle of its first word."""
    strangers = [silent(endpoint) for _ in range(CROWD)]
    for stranger in strangers[::2]:
        with suppress(OSError):  # it may have had to make room already
            stranger.sendall(b"\xff")
    return strangers


def hears(engine: Engine, subscriber: Subscriber) -> bool:
    for _ in range(600):
        engine.send()
        if subscriber.receive(0.05) is not None:
            return True
    return False


def test_five_hundred_who_say_nothing_keep_nobody_from_listening(
    engine: Engine,
) -> None:
    strangers = crowd(engine.zmq.endpoint) + crowd(engine.replay)
    engine.send(20, only_keep=True)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run"
    ) as subscriber:
        heard = [subscriber.receive(PATIENCE_S) for _ in range(20)]
        assert [one.seq for one in heard if one] == list(range(20))
        assert hears(engine, subscriber)
    # Nobody greets for ever.
    assert all(map(is_cut, strangers))


def test_five_hundred_who_say_nothing_keep_nobody_from_steering(
    control: ControlSocket,
) -> None:
    crowd(control.endpoint)
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        assert asked.command("ping")["ok"]


def test_five_hundred_who_say_nothing_keep_nobody_from_a_relay(
    engine: Engine,
) -> None:
    with relaying([engine], replay=True) as relay:
        crowd(relay.endpoint)
        crowd(relay.replay_endpoint or "")
        with Subscriber(relay.endpoint) as subscriber:
            assert hears(engine, subscriber)


def test_five_hundred_who_say_nothing_keep_nobody_from_the_metrics(
    page: PrometheusSink,
) -> None:
    endpoint = f"127.0.0.1:{page.port}"
    strangers = crowd(endpoint)
    with urlopen(f"http://{endpoint}/metrics", timeout=PATIENCE_S) as answer:
        assert answer.status == 200
    server = page._server
    assert server is not None
    assert server.connections <= prometheus.MOST_CONNECTIONS
    # One that says a byte now and then has no longer than one that is silent.
    done = Flag()

    def drip() -> None:
        while not done.wait(0.2):
            try:
                strangers[-1].sendall(b"G")
            except OSError:
                return

    dripping = Thread(target=drip)
    dripping.start()
    assert is_cut(strangers[-1])
    done.set()
    dripping.join(PATIENCE_S)


def test_who_does_not_greet_makes_room(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = engine.zmq._guard._door
    monkeypatch.setattr(door, "most_connections", 50)
    for _ in range(CROWD):
        silent(engine.zmq.endpoint)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        for _ in range(5):
            door._look()
            assert hears(engine, subscriber)
        assert door.cut > 400
        assert subscriber.missed == 0


def test_a_message_that_does_not_say_where_it_came_from_ends_nothing() -> None:
    """ZeroMQ does not know the connection of each message under a flood."""
    door = Door()
    door.credit([zmq.Frame(b"x")])
    assert socket_of([zmq.Frame(b"x")]) is None
    door.close()


def test_there_are_only_so_many_connections(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = engine.zmq._guard._door
    monkeypatch.setattr(door, "most_connections", 50)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert hears(engine, subscriber)
        strangers = [speaking(engine.zmq.endpoint, b"SUB") for _ in range(100)]
        # Who came last goes; who was there stays.
        assert is_cut(strangers[-1])
        assert hears(engine, subscriber)
        assert subscriber.missed == 0


@pytest.mark.parametrize("part", [b"x", b"x" * 16000])
def test_a_command_without_an_end_is_cut_off(
    control: ControlSocket, part: bytes
) -> None:
    before_mb = usage().rss_mb
    stranger = speaking(control.endpoint, b"DEALER")
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        assert asked.command("ping")["ok"]
        assert is_cut(stranger, repeat(frame(part, more=True) * 100))
        assert asked.command("ping")["ok"]
    assert usage().rss_mb - before_mb < 500


def test_a_question_without_an_end_is_cut_off(engine: Engine) -> None:
    stranger = speaking(engine.replay, b"DEALER")
    assert is_cut(stranger, repeat(frame(b"x", more=True) * 1000))
    engine.send(3, only_keep=True)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run"
    ) as subscriber:
        assert subscriber.receive(PATIENCE_S) is not None


def test_many_commands_that_end_are_no_attack(control: ControlSocket) -> None:
    # More bytes than a connection may leave unread, each of them read.
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        for _ in range(90):
            assert asked.command("ping", {"x": "x" * 60_000})["ok"] or True
    assert control._guard._door.cut == 0


@pytest.mark.parametrize("length", [10, 2_000])
def test_topics_without_end_are_cut_off(engine: Engine, length: int) -> None:
    rng = random.Random(0)
    before_mb = usage().rss_mb
    stranger = speaking(engine.zmq.endpoint, b"SUB")
    done = Flag()

    def publish() -> None:
        while not done.is_set():
            engine.zmq.flush(0.0)
            done.wait(0.01)

    looking = Thread(target=publish)
    looking.start()
    topics = (b"\1" + rng.randbytes(length) for _ in range(200_000))
    assert is_cut(stranger, map(frame, topics))
    done.set()
    looking.join(PATIENCE_S)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert hears(engine, subscriber)
    assert usage().rss_mb - before_mb < 500


def test_a_relay_hands_no_flood_of_topics_on(engine: Engine) -> None:
    with relaying([engine]) as relay:
        strangers = [speaking(relay.endpoint, b"SUB") for _ in range(2)]
        for number, stranger in enumerate(strangers):
            for topic in range(10_000):
                stranger.sendall(frame(b"\1nv1/label/%d-%d" % (number, topic)))
        with Subscriber(relay.endpoint) as subscriber:
            assert hears(engine, subscriber)
        assert relay._topics_bytes <= 257 * 1024
        # The station did not have to cut the relay.
        assert engine.zmq._guard._door.cut == 0


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"v":1,"id":1e999,"command":"set"}',
        b'{"v":NaN}',
        b'{"v":1,"command":"' + b"9" * 60_000 + b'"}',
        json.dumps({f"k{n}": n for n in range(4000)}).encode(),
    ],
    ids=["lists", "objects", "infinite", "nan", "long", "many"],
)
def test_a_strange_command_is_refused_at_once(
    control: ControlSocket, body: bytes
) -> None:
    stranger = speaking(control.endpoint, b"DEALER")
    stranger.sendall(frame(body))
    stranger.settimeout(PATIENCE_S)
    assert stranger.recv(1 << 16)


def test_a_command_of_ten_megabytes_ends_the_connection(
    control: ControlSocket,
) -> None:
    stranger = speaking(control.endpoint, b"DEALER")
    stranger.sendall(b"\2" + (10 * 2**20).to_bytes(8))
    assert is_cut(stranger)
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        assert asked.command("ping")["ok"]


def test_a_door_leaves_other_sockets_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.1", port)) as client,
            server.accept()[0] as ours,
        ):
            door = Door()
            door.watch(f"tcp://127.0.0.1:{port + 1 if port < 65535 else 1}", 10)
            client.sendall(b"x" * 100_000)
            door._look()
            assert door.cut == 0
            assert ours.recv(10) == b"x" * 10
            door.close()


def message(kind: type, stream: str, run: str, seq: int) -> Received:
    event = kind(seq, seq, seq + 9, "a", 0.5, "final", "m")
    parts = encode(
        Message(StreamInfo(stream, 32000), event, seq, seq + 20, 0), run, 1.0
    )
    return received_of(*decode(parts))


def test_names_without_end_do_not_fill_a_readers_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "MOST_TOPICS", 100)
    monkeypatch.setattr(received, "MOST_RUNS", 10)
    sequences = received.Sequences()
    for number in range(1000):
        told = message(Label, f"stream{number // 2}", f"run{number}", 0)
        assert sequences.check(told) == (None, number % 2 == 1)
    assert len(sequences._next) == len(sequences._streams) == 100
    assert len(sequences._heard) == 100
    assert len(sequences._restarts) == 10


def test_holes_without_end_do_not_fill_a_readers_memory() -> None:
    resumer = resume.Resumer(frozenset({"label"}), None, "journal", {})
    for number in range(5000):
        resumer.live(message(Label, f"stream{number}", "run", 1000), 0.0)
    assert sum(len(known.held) for known in resumer._topics.values()) == 4000
    # In the end all that was held is handed out, and there is room again.
    for _ in range(5000):
        for question in resumer.questions(10.0):
            if question["command"] == "replay":
                resumer.page(question["id"], [], more=False, now_s=10.0)
        if len(resumer.ready) == 4000:
            break
    assert len(resumer.ready) == 4000
    assert resumer._held == 0
