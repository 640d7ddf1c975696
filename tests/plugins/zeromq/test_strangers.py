"""Hostile peers at every socket: others are served, and memory is bounded."""

import json
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from threading import Event as Flag
from threading import Thread
from urllib.request import urlopen

import pytest
import zmq
from network.attackers import close_all, frame, handshaken, is_cut, silent
from network.publishers import Engine
from network.relays import relaying
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Control, Received, Subscriber, received, resume
from neurovocal.engine.client.received import received_of
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Label, Message, StreamInfo
from neurovocal.engine.support.process import process_usage
from neurovocal.engine.wire.codec import decode, encode
from neurovocal.plugins.controls import zmq as control_zmq
from neurovocal.plugins.controls.zmq import ControlSocket
from neurovocal.plugins.sinks import prometheus
from neurovocal.plugins.sinks.prometheus import PrometheusOptions, PrometheusSink
from neurovocal.plugins.zeromq.connection_limits import ConnectionLimits, inode_of

CROWD = 500


@pytest.fixture(autouse=True)
def strangers_leave() -> Iterator[None]:
    yield
    close_all()


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
    """Connect 500 peers: half send nothing, half the first byte of a greeting."""
    peers = [silent(endpoint) for _ in range(CROWD)]
    for peer in peers[::2]:
        with suppress(OSError):  # it may have had to make room already
            peer.sendall(b"\xff")
    return peers


def receives(engine: Engine, subscriber: Subscriber) -> bool:
    """Publish until the subscriber receives a message."""
    for _ in range(2400):
        engine.send()
        if subscriber.receive(0.05) is not None:
            return True
    return False


def test_five_hundred_silent_connections_do_not_keep_a_subscriber_out(
    engine: Engine,
) -> None:
    peers = crowd(engine.zmq.endpoint) + crowd(engine.replay)
    engine.send(20, only_record=True)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run"
    ) as subscriber:
        messages = [subscriber.receive(PATIENCE_S) for _ in range(20)]
        assert [one.seq for one in messages if one] == list(range(20))
        assert receives(engine, subscriber)
    # Unfinished handshakes time out.
    assert all(map(is_cut, peers))


def test_five_hundred_silent_connections_do_not_keep_commands_out(
    control: ControlSocket,
) -> None:
    crowd(control.endpoint)
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        assert asked.command("ping")["ok"]


def test_five_hundred_silent_connections_do_not_keep_a_subscriber_of_a_relay_out(
    engine: Engine,
) -> None:
    with relaying([engine], replay=True) as relay:
        crowd(relay.endpoint)
        crowd(relay.replay_endpoint or "")
        with Subscriber(relay.endpoint) as subscriber:
            assert receives(engine, subscriber)


def test_five_hundred_silent_connections_do_not_keep_the_metrics_out(
    page: PrometheusSink,
) -> None:
    endpoint = f"127.0.0.1:{page.port}"
    peers = crowd(endpoint)
    with urlopen(f"http://{endpoint}/metrics", timeout=PATIENCE_S) as answer:
        assert answer.status == 200
    server = page._server
    assert server is not None
    assert server.connections <= prometheus.MOST_CONNECTIONS
    # A peer that sends a byte each 0.2 s gets no more time than a silent one.
    done = Flag()

    def drip() -> None:
        while not done.wait(0.2):
            try:
                peers[-1].sendall(b"G")
            except OSError:
                return

    dripping = Thread(target=drip)
    dripping.start()
    assert is_cut(peers[-1])
    done.set()
    dripping.join(PATIENCE_S)


def test_connections_without_a_handshake_are_cut_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = engine.zmq._access.limits
    monkeypatch.setattr(limits, "most_connections", 50)
    for _ in range(CROWD):
        silent(engine.zmq.endpoint)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        for _ in range(5):
            limits.check()
            assert receives(engine, subscriber)
        assert limits.cut > 400
        assert subscriber.missed == 0


def test_a_message_without_a_known_connection_is_not_accounted() -> None:
    """Under a flood ZeroMQ does not report the connection of each message."""
    limits = ConnectionLimits()
    limits.account([zmq.Frame(b"x")])
    assert inode_of([zmq.Frame(b"x")]) is None
    limits.close()


def test_connections_above_the_cap_are_cut_and_the_oldest_stays(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = engine.zmq._access.limits
    monkeypatch.setattr(limits, "most_connections", 50)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert receives(engine, subscriber)
        for _ in range(100):
            handshaken(engine.zmq.endpoint, b"SUB")
        # Newer ones are cut, the oldest stays. Which of those that came between two
        # checks is the newest cannot be told.
        until(lambda: limits.cut >= 51)
        assert receives(engine, subscriber)
        assert subscriber.missed == 0


@pytest.mark.parametrize("part", [b"x", b"x" * 16000])
def test_an_endless_command_is_cut(control: ControlSocket, part: bytes) -> None:
    before_mb = process_usage().rss_mb
    peer = handshaken(control.endpoint, b"DEALER")
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        assert asked.command("ping")["ok"]
        assert is_cut(peer, repeat(frame(part, more=True) * 100))
        assert asked.command("ping")["ok"]
    assert process_usage().rss_mb - before_mb < 500


@pytest.mark.parametrize("n_peers", [30, 100])
def test_small_parts_of_many_peers_take_bounded_memory_and_give_it_back(
    engine: Engine, control: ControlSocket, n_peers: int
) -> None:
    before_mb = process_usage().rss_mb
    parts = frame(b"x", more=True) * 100_000
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        for endpoint, kind in (
            (control.endpoint, b"DEALER"),
            (engine.zmq.endpoint, b"SUB"),
        ):
            peers = [handshaken(endpoint, kind) for _ in range(n_peers)]
            with ThreadPoolExecutor(n_peers) as pool:
                cut = pool.map(lambda peer: is_cut(peer, repeat(parts)), peers)
                assert all(cut)
            assert asked.command("ping")["ok"]
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert receives(engine, subscriber)
    # Of all peers together: 2 MiB on the wire, of which ZeroMQ keeps 64 bytes a part.
    until(lambda: process_usage().rss_mb - before_mb < 150)


def test_an_endless_request_is_cut(engine: Engine) -> None:
    peer = handshaken(engine.replay, b"DEALER")
    assert is_cut(peer, repeat(frame(b"x", more=True) * 1000))
    engine.send(3, only_record=True)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, start="run"
    ) as subscriber:
        assert subscriber.receive(PATIENCE_S) is not None


def test_many_complete_commands_are_not_cut(control: ControlSocket) -> None:
    # More bytes than one incomplete command may have, all of them complete.
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        for _ in range(90):
            assert asked.command("ping", {"x": "x" * 60_000})["ok"] or True
    assert control._access.limits.cut == 0


@pytest.mark.parametrize("length", [10, 2_000])
def test_endless_topics_are_cut(engine: Engine, length: int) -> None:
    rng = random.Random(0)
    before_mb = process_usage().rss_mb
    peer = handshaken(engine.zmq.endpoint, b"SUB")
    done = Flag()

    def publish() -> None:
        while not done.is_set():
            engine.zmq.flush(0.0)
            done.wait(0.01)

    polling = Thread(target=publish)
    polling.start()
    topics = (b"\1" + rng.randbytes(length) for _ in range(200_000))
    assert is_cut(peer, map(frame, topics))
    done.set()
    polling.join(PATIENCE_S)
    with Subscriber(engine.zmq.endpoint) as subscriber:
        assert receives(engine, subscriber)
    assert process_usage().rss_mb - before_mb < 500


def test_a_relay_does_not_forward_a_flood_of_topics(engine: Engine) -> None:
    with relaying([engine]) as relay:
        peers = [handshaken(relay.endpoint, b"SUB") for _ in range(2)]
        for number, peer in enumerate(peers):
            for topic in range(10_000):
                peer.sendall(frame(b"\1nv1/label/%d-%d" % (number, topic)))
        with Subscriber(relay.endpoint) as subscriber:
            assert receives(engine, subscriber)
        assert relay._topics_bytes <= 257 * 1024
        # The station has not cut the relay.
        assert engine.zmq._access.limits.cut == 0


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
def test_a_malformed_command_is_answered_at_once(
    control: ControlSocket, body: bytes
) -> None:
    peer = handshaken(control.endpoint, b"DEALER")
    peer.sendall(frame(body))
    peer.settimeout(PATIENCE_S)
    assert peer.recv(1 << 16)


def test_a_command_of_ten_megabytes_is_cut(
    control: ControlSocket,
) -> None:
    peer = handshaken(control.endpoint, b"DEALER")
    peer.sendall(b"\2" + (10 * 2**20).to_bytes(8))
    assert is_cut(peer)
    with Control(control.endpoint, timeout=PATIENCE_S) as asked:
        assert asked.command("ping")["ok"]


def test_connections_to_other_ports_are_not_limited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with (
            socket.create_connection(("127.0.0.1", port)) as client,
            server.accept()[0] as ours,
        ):
            limits = ConnectionLimits()
            limits.add(f"tcp://127.0.0.1:{port + 1 if port < 65535 else 1}", 10)
            client.sendall(b"x" * 100_000)
            limits.check()
            assert limits.cut == 0
            assert ours.recv(10) == b"x" * 10
            limits.close()


def message(kind: type, stream: str, run: str, seq: int) -> Received:
    event = kind(seq, seq, seq + 9, "a", 0.5, "final", "m")
    parts = encode(
        Message(StreamInfo(stream, 32000), event, seq, seq + 20, 0), run, 1.0
    )
    return received_of(*decode(parts))


def test_streams_and_runs_that_a_client_remembers_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "MOST_TOPICS", 100)
    monkeypatch.setattr(received, "MOST_RUNS", 10)
    sequences = received.Sequences()
    for number in range(1000):
        received_message = message(Label, f"stream{number // 2}", f"run{number}", 0)
        assert sequences.check(received_message) == (None, number % 2 == 1)
    assert len(sequences._next) == len(sequences._streams) == 100
    assert len(sequences._seen) == 100
    assert len(sequences._restarts) == 10


def test_messages_that_a_client_holds_for_missing_ones_are_bounded() -> None:
    resumer = resume.Resumer(frozenset({"label"}), None, "journal", {})
    for number in range(5000):
        resumer.put_live(message(Label, f"stream{number}", "run", 1000), 0.0)
    assert sum(len(known.held) for known in resumer._topics.values()) == 4000
    # Once the missing messages are given up, all held messages are delivered.
    for _ in range(5000):
        for request in resumer.requests(10.0):
            if request["command"] == "replay":
                resumer.put_page(request["id"], [], more=False, now_s=10.0)
        if len(resumer.ready) == 4000:
            break
    assert len(resumer.ready) == 4000
    assert resumer._n_held == 0
