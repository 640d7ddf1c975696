"""Replay socket over real connections: lost messages are fetched, once."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from network.bad_network import BadNetwork
from network.publishers import INFO, Engine
from processes.waiting import PATIENCE_S

from neurovocal.engine.client import Position, Received, Subscriber
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Gap, Label, Message
from neurovocal.plugins.sinks import journal as sink_journal

KEY = ("label", INFO.stream)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    engine.close()


def port_of(endpoint: str) -> int:
    return int(endpoint.rsplit(":", 1)[1])


def receive_until(
    subscriber: Subscriber, until: int, run: str = "run0"
) -> list[Received]:
    received: list[Received] = []
    while not received or (received[-1].run, received[-1].seq) != (run, until):
        one = subscriber.receive(PATIENCE_S)
        assert one is not None, [m.seq for m in received]
        received.append(one)
    return received


def seqs(received: list[Received]) -> list[int]:
    return [m.seq for m in received]


def meet(engine: Engine, subscriber: Subscriber) -> list[Received]:
    """Send until the subscriber receives: then its subscription has arrived."""
    while True:
        engine.send()
        one = subscriber.receive(0.02)
        if one is not None:
            return [one]


def test_a_late_subscriber_gets_all_messages_from_the_journal(engine: Engine) -> None:
    engine.send(1200)
    with Subscriber(engine.zmq.endpoint, replay=engine.replay, start="run") as late:
        received = receive_until(late, 1199)
        assert seqs(received) == list(range(1200))
        assert all(m.replayed and m.missed is None for m in received)
        first = received[0].event
        assert isinstance(first, Label)
        assert (first.unit, received[0].utc_ns) == ("é", 10**18)
        engine.send(5)
        assert seqs(receive_until(late, 1204)) == list(range(1200, 1205))
        assert late.missed == 0


def test_lost_live_messages_are_fetched(engine: Engine) -> None:
    with Subscriber(engine.zmq.endpoint, replay=engine.replay) as subscriber:
        received = meet(engine, subscriber)
        engine.send(40, only_record=True)
        engine.send(3)
        received += receive_until(subscriber, engine.seq - 1)
        assert seqs(received) == list(range(received[0].seq, engine.seq))
        assert subscriber.missed == 0


def test_a_lost_last_message_is_fetched(engine: Engine) -> None:
    with Subscriber(engine.zmq.endpoint, replay=engine.replay) as subscriber:
        meet(engine, subscriber)
        engine.send(2, only_record=True)
        assert seqs(receive_until(subscriber, engine.seq - 1))[-2:] == [
            engine.seq - 2,
            engine.seq - 1,
        ]


def test_a_suspended_subscriber_loses_no_message(engine: Engine) -> None:
    # Far more than the queues of both sides and TCP hold.
    endpoint = engine.zmq.endpoint
    with Subscriber(endpoint, replay=engine.replay, queue_length=20) as subscriber:
        received = meet(engine, subscriber)
        engine.send(20_000)
        received += receive_until(subscriber, engine.seq - 1)
        assert seqs(received) == list(range(received[0].seq, engine.seq))
        assert any(m.replayed for m in received)
        assert subscriber.missed == 0


def test_a_broken_network_loses_no_message(engine: Engine) -> None:
    with (
        BadNetwork(port_of(engine.zmq.endpoint)) as live,
        BadNetwork(port_of(engine.replay)) as replay,
        Subscriber(live.endpoint, replay=replay.endpoint) as subscriber,
    ):
        received = meet(engine, subscriber)
        for number in range(12):
            engine.send(15)
            (live if number % 3 else replay).cut()
            while (one := subscriber.receive(0.01)) is not None:
                received.append(one)
        engine.send(1)
        if received[-1].seq < engine.seq - 1:
            received += receive_until(subscriber, engine.seq - 1)
        assert seqs(received) == list(range(received[0].seq, engine.seq))
        assert live.cuts + replay.cuts == 12


def test_messages_continue_after_a_restart_of_the_engine(tmp_path: Path) -> None:
    before = Engine(tmp_path)
    with (
        BadNetwork(port_of(before.zmq.endpoint)) as live,
        BadNetwork(port_of(before.replay)) as replay,
        Subscriber(live.endpoint, replay=replay.endpoint) as subscriber,
    ):
        received = meet(before, subscriber)
        before.send(5, only_record=True)
        before.close()
        after = Engine(tmp_path, "run1")
        live.target, replay.target = port_of(after.zmq.endpoint), port_of(after.replay)
        live.cut()
        replay.cut()
        after.send(3, only_record=True)
        received += receive_until(subscriber, 2, "run1")
        last = before.seq - 1
        expected = [("run0", seq) for seq in range(received[0].seq, last + 1)]
        expected += [("run1", seq) for seq in range(3)]
        assert [(m.run, m.seq) for m in received] == expected
        assert [m.seq for m in received if m.restarted] == [0]
        after.close()


def test_positions_continue_where_another_subscriber_stopped(engine: Engine) -> None:
    engine.send(30)
    with Subscriber(engine.zmq.endpoint, replay=engine.replay, start="run") as first:
        receive_until(first, 10)
        kept = json.loads(json.dumps([[*k, *p] for k, p in first.positions.items()]))
    assert kept == [["label", INFO.stream, "run0", 10]]
    positions = {(k, s): Position(run, seq) for k, s, run, seq in kept}
    engine.send(5)
    with Subscriber(
        engine.zmq.endpoint, replay=engine.replay, positions=positions
    ) as second:
        assert seqs(receive_until(second, 34)) == list(range(11, 35))
    assert positions == {KEY: Position("run0", 10)}


def test_a_run_killed_before_its_first_commit_doubles_no_message(
    tmp_path: Path,
) -> None:
    for run in ("run0", "killed", "run2"):
        engine = Engine(tmp_path, run)
        if run != "killed":  # one of its messages was received, none was kept
            engine.send(3)
        if run == "killed":
            with Subscriber(
                engine.zmq.endpoint,
                replay=engine.replay,
                positions={KEY: Position("killed", 0)},
                timeout=0.7,
            ) as subscriber:
                assert [m.seq for m in subscriber] == []
        if run != "run2":
            engine.close()
    try:
        with Subscriber(
            engine.zmq.endpoint,
            replay=engine.replay,
            positions={KEY: Position("killed", 0)},
        ) as subscriber:
            received = receive_until(subscriber, 2, "run2")
        assert [(m.run, m.seq) for m in received] == [("run2", n) for n in range(3)]
    finally:
        engine.close()


def test_asynchronous_iteration_fetches_lost_messages(engine: Engine) -> None:
    engine.send(7, only_record=True)

    async def listen() -> list[int]:
        found: list[int] = []
        with Subscriber(
            engine.zmq.endpoint, replay=engine.replay, start="run", timeout=PATIENCE_S
        ) as subscriber:
            async for message in subscriber:
                found.append(message.seq)
                if len(found) == 7:
                    break
        return found

    assert asyncio.run(listen()) == list(range(7))


def test_unrecorded_kinds_are_delivered_live(engine: Engine) -> None:
    with Subscriber(
        engine.zmq.endpoint, kinds=["label", "gap"], replay=engine.replay
    ) as subscriber:
        meet(engine, subscriber)
        gap = Message(INFO, Gap(5, 9, "overrun"), 0, 9)
        engine.journal.write(gap)
        engine.zmq.write(gap)
        while (one := subscriber.receive(PATIENCE_S)) is not None:
            if one.kind == "gap":
                break
        assert one is not None
        assert one.event == gap.event


@contextmanager
def asking(endpoint: str) -> "Iterator[zmq.Socket[bytes]]":
    with zmq.Context() as context, context.socket(zmq.REQ) as connection:
        connection.setsockopt(zmq.LINGER, 0)
        connection.setsockopt(zmq.REQ_RELAXED, 1)
        connection.connect(endpoint)
        yield connection


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 5000, "cannot be read"),
        (b'{"v":1,"id":1,"command":"drop"}', "'command' cannot be 'drop'"),
        (
            b'{"v":2,"id":1,"command":"topics","kinds":["label"]}',
            "'v' cannot be 2",
        ),
        (b'{"v":1,"command":"replay","kind":"lable","stream":"a"}', "unknown kind"),
        (b'{"v":1,"command":"replay","kind":"label","stream":"a","most":9999}', "1000"),
        (
            b'{"v":1,"command":"replay","kind":"label","stream":"a",'
            b'"after":{"run":"x","seq":-1}}',
            ">= 0",
        ),
    ],
)
def test_invalid_requests_are_rejected_without_effect(
    engine: Engine, request_: bytes, sentence: str
) -> None:
    engine.send(3, only_record=True)
    with asking(engine.replay) as connection:
        connection.send(request_)
        assert connection.poll(10_000)
        (reply,) = connection.recv_multipart()
        decoded = json.loads(reply)
        assert not decoded["ok"]
        assert sentence in decoded["error"]
        connection.send(b'{"v":1,"id":"x","command":"topics","kinds":["label"]}')
        assert connection.poll(10_000)
        (reply,) = connection.recv_multipart()
        assert json.loads(reply) == {
            "v": 1,
            "id": "x",
            "ok": True,
            "topics": [["label", INFO.stream]],
        }


@pytest.mark.parametrize(
    "request_",
    [
        {"command": "drop"},
        {"v": 2, "command": "topics"},
        {"v": 1, "command": "topics", "kinds": 3},
        {"v": 1, "command": "topics", "kinds": []},
        {"v": 1, "command": "replay", "kind": "lable", "stream": "a"},
        {"v": 1, "command": "replay", "kind": "label", "stream": "a", "most": 5000},
        {"v": 1, "command": "topics", "kinds": ["label"], "more": "x" * 20_000},
        {"v": 1, "command": "topics", "kinds": ["label"], "more": "x" * 60_000},
    ],
)
@pytest.mark.parametrize("request_id", [8, "eight"])
def test_the_reply_to_an_invalid_request_has_its_id(
    engine: Engine, request_: dict[str, object], request_id: int | str
) -> None:
    with asking(engine.replay) as connection:
        connection.send(json.dumps({**request_, "id": request_id}).encode())
        assert connection.poll(10_000)
        answer = json.loads(connection.recv())
    assert (answer["ok"], answer["id"]) == (False, request_id)


def test_bytes_that_are_not_zeromq_are_ignored(engine: Engine) -> None:
    engine.send(3, only_record=True)
    strangers = []
    for _ in range(5):
        stranger = socket.create_connection(("127.0.0.1", port_of(engine.replay)))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        strangers.append(stranger)
    with Subscriber(engine.zmq.endpoint, replay=engine.replay, start="run") as good:
        assert seqs(receive_until(good, 2)) == [0, 1, 2]
    for stranger in strangers:
        stranger.close()


def test_positions_without_a_replay_socket_are_rejected() -> None:
    with pytest.raises(ConfigError, match="need 'replay'"):
        Subscriber("tcp://127.0.0.1:5556", start="run")
    with (
        pytest.raises(ConfigError, match="is neither tcp"),
        Subscriber("tcp://127.0.0.1:5556", replay="nowhere"),
    ):
        pass


def test_a_replay_socket_on_the_network_needs_permission(tmp_path: Path) -> None:
    options = sink_journal.JournalOptions(
        path=str(tmp_path / "j.sqlite"), replay="tcp://*:5558"
    )
    context = BuildContext(SystemClock(), "run")
    (problem,) = sink_journal.plugin.check(options, context)
    assert "lets other machines connect" in problem
