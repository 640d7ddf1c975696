"""Many stations at one endpoint: live, late, and asked for again."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import pytest
from command import neurovocal, running
from patience import PATIENCE_S
from publishing import Engine

from neurovocal.engine.client import Subscriber
from neurovocal.engine.errors import ConfigError
from neurovocal.engine.types import Anchor, Message
from neurovocal.plugins._relay import Relay, Station, station_of


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Engine]]:
    """Two stations with streams of their own."""
    made = []
    for name in ("north", "south"):
        (tmp_path / name).mkdir()
        made.append(
            Engine(tmp_path / name, f"run-{name}", stream=name, queue_length=5000)
        )
    yield made
    for engine in made:
        engine.close()


@contextmanager
def relaying(
    engines: list[Engine], *, replay: bool = False, **keys: Path
) -> Iterator[Relay]:
    stations = [Station(e.zmq.endpoint, e.replay) for e in engines]
    endpoint = "tcp://127.0.0.1:*"
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


def meet(engines: list[Engine], subscriber: Subscriber) -> set[str]:
    """Send from all until something of each has been heard."""
    heard: set[str] = set()
    while len(heard) < len(engines):
        for engine in engines:
            engine.send()
        while (one := subscriber.receive(0.05)) is not None:
            heard.add(one.stream)
    return heard


def test_what_several_stations_publish_is_heard_at_one_place(
    engines: list[Engine],
) -> None:
    with relaying(engines) as relay, Subscriber(relay.endpoint) as subscriber:
        assert meet(engines, subscriber) == {"north", "south"}
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


def test_who_comes_late_hears_where_the_streams_are(engines: list[Engine]) -> None:
    with relaying(engines) as relay:
        with Subscriber(relay.endpoint) as early:
            meet(engines, early)
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


def test_stations_beside_each_other_are_no_restarts_of_one(
    engines: list[Engine],
) -> None:
    north, south = engines
    south.send(50)
    with relaying(engines) as relay, Subscriber(relay.endpoint) as subscriber:
        meet(engines, subscriber)
        for engine in (north, south, north):
            engine.send(3)
        last = {engine.info.stream: engine.seq - 1 for engine in engines}
        heard: dict[str, int] = {}
        while heard != last:
            one = subscriber.receive(PATIENCE_S)
            assert one is not None
            assert not one.restarted
            heard[one.stream] = one.seq
        assert subscriber.missed == 0


def test_what_was_missed_is_asked_for_at_the_right_station(
    engines: list[Engine],
) -> None:
    engines[0].send(700, only_keep=True)
    engines[1].send(5, only_keep=True)
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


def test_the_command_runs_until_it_is_told_to_stop(engines: list[Engine]) -> None:
    with running(
        "relay", "--from", engines[0].zmq.endpoint, "--to", "tcp://127.0.0.1:*"
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        endpoint = said.split()[-1]
        with Subscriber(endpoint) as subscriber:
            assert meet(engines[:1], subscriber) == {"north"}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "messages were passed on" in err


def test_mistakes_are_one_sentence() -> None:
    assert station_of("tcp://a:1,tcp://a:2") == Station("tcp://a:1", "tcp://a:2")
    done = neurovocal("relay", "--from", "tcp://a:1", "--to", "tcp://*:5600")
    assert done.code == 1
    assert "lets other machines connect" in done.err
    done = neurovocal("relay", "--from", "x", "--replay-to", "tcp://127.0.0.1:5601")
    assert (done.code, "needs a station with one" in done.err) == (1, True)
    relay = Relay([Station("nowhere", None)], "tcp://127.0.0.1:*")
    with pytest.raises(ConfigError, match="is not an endpoint"):
        relay.open()
