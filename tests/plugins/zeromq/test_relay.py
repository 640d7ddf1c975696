"""Relay: live messages, late subscribers and replay of several stations."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from network.publishers import Engine
from network.relays import relaying
from processes.cli_process import neurovocal, running
from processes.waiting import PATIENCE_S

from neurovocal.engine.client import Subscriber
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Anchor, Message
from neurovocal.plugins.zeromq.relay.relay import Relay
from neurovocal.plugins.zeromq.relay.stations import (
    Station,
    StreamOwners,
    parse_station,
)


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Engine]]:
    """Two stations with one stream each."""
    made = []
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        made.append(
            Engine(tmp_path / name, f"run-{name}", stream=name, queue_length=5000)
        )
    yield made
    for engine in made:
        engine.close()


def receive_from_all(engines: list[Engine], subscriber: Subscriber) -> set[str]:
    """Publish at all stations until a message of each is received."""
    streams: set[str] = set()
    while len(streams) < len(engines):
        for engine in engines:
            engine.send()
        while (one := subscriber.receive(0.05)) is not None:
            streams.add(one.stream)
    return streams


def test_messages_of_all_stations_are_received_at_one_endpoint(
    engines: list[Engine],
) -> None:
    with relaying(engines) as relay, Subscriber(relay.endpoint) as subscriber:
        assert receive_from_all(engines, subscriber) == {"north", "south"}
        for engine in engines:
            engine.send(20)
        seen: dict[str, list[int]] = {"north": [], "south": []}
        while any(
            not s or s[-1] < e.seq - 1
            for e, s in zip(engines, seen.values(), strict=True)
        ):
            one = subscriber.receive(PATIENCE_S)
            assert one is not None
            seen[one.stream].append(one.seq)
        assert subscriber.missed == 0


def test_a_late_subscriber_receives_the_last_anchors(engines: list[Engine]) -> None:
    with relaying(engines) as relay:
        with Subscriber(relay.endpoint) as early:
            receive_from_all(engines, early)
        for number, engine in enumerate(engines):
            anchor = Message(engine.info, Anchor(number, 10**18), 0, number)
            while relay.forwarded == 0 or len(relay._kept) <= number:
                engine.zmq.write(anchor)
        with Subscriber(relay.endpoint, kinds=["anchor"]) as late:
            found: set[str] = set()
            while found != {"north", "south"}:
                one = late.receive(PATIENCE_S)
                assert one is not None
                found.add(one.stream)


def test_messages_of_two_stations_are_not_taken_for_restarts(
    engines: list[Engine],
) -> None:
    north, south = engines
    south.send(50)
    with relaying(engines) as relay, Subscriber(relay.endpoint) as subscriber:
        receive_from_all(engines, subscriber)
        for engine in (north, south, north):
            engine.send(3)
        last = {engine.info.stream: engine.seq - 1 for engine in engines}
        received: dict[str, int] = {}
        while received != last:
            one = subscriber.receive(PATIENCE_S)
            assert one is not None
            assert not one.restarted
            received[one.stream] = one.seq
        assert subscriber.missed == 0


def test_requests_go_to_the_station_that_has_the_stream(
    engines: list[Engine],
) -> None:
    engines[0].send(700, only_record=True)
    engines[1].send(5, only_record=True)
    with (
        relaying(engines, replay=True) as relay,
        Subscriber(
            relay.endpoint, replay=relay.replay_endpoint, start="run"
        ) as subscriber,
    ):
        seen: dict[str, list[int]] = {"north": [], "south": []}
        while sum(map(len, seen.values())) < 705:
            one = subscriber.receive(PATIENCE_S)
            assert one is not None
            seen[one.stream].append(one.seq)
        assert seen == {"north": list(range(700)), "south": list(range(5))}


def ask(relay: Relay, stream: str, patience_s: float = PATIENCE_S) -> Any:
    """Return the head of the relay's answer; None without an answer in time."""
    assert relay.replay_endpoint is not None
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.linger = 0
        asking.connect(relay.replay_endpoint)
        question = {"v": 1, "id": 7, "command": "replay", "kind": "label"}
        asking.send_json({**question, "stream": stream})
        if not asking.poll(1000 * patience_s):
            return None
        return json.loads(asking.recv_multipart()[0])


def test_a_stream_that_only_a_journal_has_is_found(engines: list[Engine]) -> None:
    engines[1].send(5, only_record=True)
    with relaying(engines, replay=True) as relay:
        found = ask(relay, "south")
        assert (found["ok"], found["id"], found["messages"]) == (True, 7, 5)
        nowhere = ask(relay, "west")
        assert (nowhere["ok"], nowhere["id"]) == (False, 7)
        assert "no station has that stream" in nowhere["error"]


def test_requests_for_a_disconnected_station_are_not_refused(
    engines: list[Engine],
) -> None:
    """A subscriber gives missing messages up after a refusal."""
    engines[0].send(5)
    with relaying(engines, replay=True) as relay:
        assert ask(relay, "north")["messages"] == 5
        engines[0].close()
        while (found := ask(relay, "north", 0.3)) is not None:
            assert found["ok"]  # the last answer, sent before
        assert ask(relay, "west", 0.3) is None  # the disconnected station may have it


def test_a_second_station_of_the_same_name_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        made.append(Engine(tmp_path / name, name, stream="aviary", queue_length=5000))
    first, second = made
    try:
        with relaying(made) as relay, Subscriber(relay.endpoint) as subscriber:
            receive_from_all([first], subscriber)
            while not relay.left_out:
                second.send()
            first.send(20)
            runs = set()
            while True:
                one = subscriber.receive(PATIENCE_S)
                assert one is not None
                runs.add(one.run)
                if one.seq == first.seq - 1:
                    break
        assert runs == {"first"}
        warnings = [r.getMessage() for r in caplog.records if "both publish" in r.msg]
        assert len(warnings) == 1
        assert first.zmq.endpoint in warnings[0]
        assert second.zmq.endpoint in warnings[0]
        assert "'station:'" in warnings[0]
    finally:
        for engine in made:
            engine.close()


def test_a_stream_of_a_silent_station_passes_to_another_after_ten_seconds() -> None:
    streams = StreamOwners()
    assert streams.add_published(0, "a", 0.0)
    assert not streams.add_published(1, "a", 5.0)
    assert not streams.add_published(1, "a", 9.0)
    assert streams.add_published(1, "a", 11.0)
    assert not streams.add_published(0, "a", 12.0)
    assert streams.owner("a") == 1


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.integers(0, 20))),
)
def test_a_stream_belongs_to_one_station_at_a_time(
    published: list[tuple[int, int, int]],
) -> None:
    streams, now_s, last = StreamOwners(), 0.0, {}
    for station, name, after_s in published:
        now_s += after_s
        if streams.add_published(station, str(name), now_s):
            owner, last_s = last.get(name, (station, now_s))
            assert owner == station or now_s - last_s > 10
            last[name] = (station, now_s)
        assert streams.owner(str(name)) == last[name][0]


def test_invalid_messages_of_a_station_are_left_out(engines: list[Engine]) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as rogue:
        rogue.linger = 0
        rogue.bind("tcp://127.0.0.1:*")
        endpoint = rogue.getsockopt_string(zmq.LAST_ENDPOINT)
        with (
            relaying(engines, others=[endpoint]) as relay,
            Subscriber(relay.endpoint) as subscriber,
        ):
            receive_from_all(engines, subscriber)
            garbage: list[list[bytes]] = [
                [b"nv1/label/north"],
                [b"nv1/label/north", b"{}", b""],
                [b"nv1/label/north", b"[" * 5000, b"\xff" * 100],
                [b"nv1/label/x", b"{}", b"", b""],
            ]
            while relay.left_out < 100:
                for parts in garbage:
                    rogue.send_multipart(parts)
            for engine in engines:
                engine.send(20)
            last = {e.info.stream: e.seq - 1 for e in engines}
            while last:
                one = subscriber.receive(PATIENCE_S)
                assert one is not None
                if last.get(one.stream) == one.seq:
                    del last[one.stream]
            assert subscriber.missed == 0


def test_the_command_runs_until_interrupted(engines: list[Engine]) -> None:
    with running(
        "relay", "--from", engines[0].zmq.endpoint, "--to", "tcp://127.0.0.1:*"
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        endpoint = line.split()[-1]
        with Subscriber(endpoint) as subscriber:
            assert receive_from_all(engines[:1], subscriber) == {"north"}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "messages were passed on" in err


def test_each_mistake_is_one_sentence() -> None:
    assert parse_station("tcp://a:1,tcp://a:2") == Station("tcp://a:1", "tcp://a:2")
    done = neurovocal("relay", "--from", "tcp://a:1", "--to", "tcp://*:5600")
    assert done.code == 1
    assert "lets other machines connect" in done.err
    done = neurovocal(
        "relay", "--from", "tcp://a:1", "--replay-to", "tcp://127.0.0.1:5601"
    )
    assert (done.code, "needs a station with one" in done.err) == (1, True)
    done = neurovocal("relay", "--from", "tcp://a:1", "--from", "tcp://a:1,tcp://a:2")
    assert (done.code, "'tcp://a:1' is given twice" in done.err) == (1, True)
    relay = Relay([Station("tcp://nowhere", None)], "tcp://127.0.0.1:*")
    with pytest.raises(ConfigError, match="it has no port"):
        relay.open()
