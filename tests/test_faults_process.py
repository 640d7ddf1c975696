"""Faults that come by the clock, with real sockets, files and processes."""

import json
import signal
import socket
from threading import Event as Flag

import pytest
import yaml
from command import neurovocal
from patience import PATIENCE_S

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.client import Subscriber
from neurovocal.engine.config import parse_config
from neurovocal.engine.errors import ConfigError
from neurovocal.engine.journal import read_events, runs
from neurovocal.engine.keys import add_client, make_engine_keys
from neurovocal.engine.located import parse_located
from neurovocal.engine.runner import Runner
from neurovocal.engine.testing import CollectSink
from neurovocal.engine.types import Health, Stats

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")

SONG = {"pace": "realtime", "pause_ms": [50, 100], "song_length": 20, "seed": 3}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def station(seconds, sinks, *faults, **more):
    """A configuration whose bird sings for so many seconds."""
    return {
        "version": 1,
        "source": {"plugin": "synthetic", "options": {**SONG, "duration_s": seconds}},
        "sinks": sinks,
        "faults": list(faults),
        **more,
    }


def runner_of(data, *observers):
    located = parse_located(yaml.safe_dump(data), "station.yaml")
    return Runner(plan_of(parse_config(located), located), observers)


class Watching(CollectSink):
    """Keeps health and statistics, and can be waited for."""

    def __init__(self):
        super().__init__({"health", "stats"})
        self.is_open = Flag()
        self.flags = {"degraded": Flag(), "healthy": Flag()}

    def open(self):
        super().open()
        self.is_open.set()  # as the last of all sinks

    def write(self, message):
        super().write(message)
        event = message.event
        if isinstance(event, Health) and event.stage.startswith("fault"):
            self.flags[event.state].set()

    def await_(self, state):
        assert self.flags[state].wait(PATIENCE_S), f"no fault was ever {state}"


def zmq_sink(port):
    return {"plugin": "zmq", "options": {"endpoint": f"tcp://127.0.0.1:{port}"}}


def test_a_cut_network_is_cut_and_costs_no_label(tmp_path, background):
    live, replay = free_port(), free_port()
    journal = {
        "plugin": "journal",
        "options": {
            "path": str(tmp_path / "j.sqlite"),
            "replay": f"tcp://127.0.0.1:{replay}",
        },
    }
    cut = {"fault": "network_cut", "at_s": 2, "for_s": 0.7}
    watching = Watching()
    runner = runner_of(station(4.5, [zmq_sink(live), journal], cut), watching)
    run = background(runner.run)
    heard, ended = [], Flag()

    def listen():
        with Subscriber(
            f"tcp://127.0.0.1:{live}",
            ("offset",),
            replay=f"tcp://127.0.0.1:{replay}",
            start="run",
        ) as subscriber:
            message = None
            while message is not None or not ended.is_set():
                message = subscriber.receive(0.5)
                if message is not None:
                    heard.append(message.seq)

    listening = background(listen)
    watching.await_("degraded")
    for port in (live, replay):
        # The fault is told a moment before it strikes.
        while not watching.flags["healthy"].wait(0.02):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
            except ConnectionRefusedError:
                break
        else:
            pytest.fail(f"port {port} was never refused")
    watching.await_("healthy")
    outcome = run()
    ended.set()
    listening()
    assert outcome.errors == []
    sent = [seq for kind, seq, _ in kept(tmp_path / "j.sqlite") if kind == "offset"]
    assert heard == sent


def test_connections_break_when_the_network_does(background):
    port = free_port()
    cut = {"fault": "network_cut", "at_s": 1, "for_s": 0.1}
    watching = Watching()
    runner = runner_of(station(1.8, [zmq_sink(port)], cut), watching)
    run = background(runner.run)
    assert watching.is_open.wait(PATIENCE_S)
    greeting = b""
    while not greeting:  # until the sink is there, too
        assert not watching.flags["degraded"].is_set()
        reached = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        greeting = reached.recv(64)
        if not greeting:
            reached.close()
    with reached:
        assert greeting[:1] == b"\xff"  # ZeroMQ's own, through the proxy
        rest = b"x"
        try:
            while rest:
                rest = reached.recv(64)
        except ConnectionResetError:
            pass
    watching.await_("degraded")
    assert run().errors == []


def test_an_endpoint_that_is_taken_is_told_as_ever():
    cut = {"fault": "network_cut", "at_s": 1, "for_s": 0.1}
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        with pytest.raises(ConfigError, match=f"tcp://127.0.0.1:{port}: .* in use"):
            runner_of(station(1, [zmq_sink(port)], cut)).run()


def test_a_subscriber_that_does_not_read_comes_and_goes(tmp_path, background):
    make_engine_keys(tmp_path / "engine")
    add_client(tmp_path / "engine", "deaf", "read", tmp_path / "deaf")
    stall = {"fault": "subscriber_stall", "at_s": 0.5, "for_s": 1.2}
    keys = {"keys": str(tmp_path / "engine")}
    with pytest.raises(ConfigError, match="the engine asks for keys: name the folder"):
        runner_of(station(1, [zmq_sink(free_port())], stall, **keys))
    watching = Watching()
    stall["keys"] = str(tmp_path / "deaf")
    runner = runner_of(station(3.3, [zmq_sink(free_port())], stall, **keys), watching)
    assert runner.run().errors == []
    counts = [
        stats.values["sinks"]["sink 'zmq'"]["subscriptions"]
        for stats in watching.events(Stats)
    ]
    assert max(counts) > 5
    assert (counts[0], counts[-1]) == (0, 0)


def test_a_full_disk_costs_nothing_that_a_queue_can_hold(tmp_path):
    """As a child process: the limit is the process's own."""

    def sinks(name):
        return [
            {
                "plugin": "jsonl",
                "options": {"path": str(tmp_path / f"{name}.jsonl")},
                "on_error": "restart",
            },
            {
                "plugin": "journal",
                "options": {"path": str(tmp_path / f"{name}.sqlite")},
                "on_error": "restart",
            },
        ]

    full = {"fault": "disk_full", "at_s": 0.8, "for_s": 1}
    for name, faults, pace in (("whole", [], "asap"), ("full", [full], "realtime")):
        data = station(3, sinks(name), *faults)
        data["source"]["options"]["pace"] = pace
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
        done = neurovocal("run", tmp_path / f"{name}.yaml", "--json")
        assert done.code == 0, done.err
    assert "File too large" in done.err
    assert "journal" in done.err
    events = [json.loads(line) for line in done.out.splitlines()]
    states = [e["state"] for e in events if e.get("stage") == "fault disk_full"]
    assert states == ["degraded", "healthy"]
    whole, struck = (
        (tmp_path / f"{name}.jsonl").read_text() for name in ("whole", "full")
    )
    assert struck == whole
    assert kept(tmp_path / "full.sqlite") == kept(tmp_path / "whole.sqlite")


def kept(path):
    (record,) = runs(path)
    return [
        (e.kind, e.seq, json.loads(e.header)["sample"])
        for e in read_events(path, record.run)
        if e.kind in ("onset", "offset")
    ]


def test_a_killed_run_keeps_what_was_committed(tmp_path):
    journal = {"plugin": "journal", "options": {"path": str(tmp_path / "j.sqlite")}}
    data = station(30, [journal], {"fault": "kill", "at_s": 1.6})
    (tmp_path / "station.yaml").write_text(yaml.safe_dump(data))
    done = neurovocal("run", tmp_path / "station.yaml", "--plain")
    assert done.code == -signal.SIGKILL
    assert "injected: kill" in done.err
    found = kept(tmp_path / "j.sqlite")
    assert found
    assert max(sample for _, _, sample in found) < 3 * 32_000


def test_check_tells_what_is_going_to_happen(tmp_path):
    journal = {"plugin": "journal", "options": {"path": str(tmp_path / "j.sqlite")}}
    faults = [
        {"fault": "drop", "at_s": 10, "for_s": 0.5},
        {"fault": "crash", "at_s": 1.5, "stage": "journal", "times": 3},
    ]
    data = station(30, [journal], *faults, station="aviary")
    (tmp_path / "station.yaml").write_text(yaml.safe_dump(data))
    done = neurovocal("check", tmp_path / "station.yaml")
    assert done.code == 0, done.err
    assert "injects: drop 0.5 s at 10 s\n" in done.out
    assert "injects: crash of journal x 3 at 1.5 s\n" in done.out


def test_mistakes_are_told_with_their_line(tmp_path):
    (tmp_path / "station.yaml").write_text(
        """version: 1
source: {plugin: synthetic}
sinks: [{plugin: jsonl}]
faults:
  - {fault: stal, at_s: 3}
  - {fault: drop, at_s: 3, fro_s: 2}
  - {at_s: 3}
  - {fault: clip, at_s: -3, for_s: long}
  - {fault: drift, at_s: 3, for_s: 1, ppm: 1000000}
"""
    )
    done = neurovocal("check", tmp_path / "station.yaml")
    assert done.code == 1
    name = tmp_path / "station.yaml"
    assert done.err.splitlines() == [
        f"error: {name}:5: faults.0.fault: unknown: 'stal' (did you mean 'stall'?)",
        f"error: {name}:6: faults.1.for_s: is missing",
        f"error: {name}:6: faults.1.fro_s: unknown option (did you mean 'for_s'?)",
        f"error: {name}:7: faults.2.fault: is missing",
        f"error: {name}:8: faults.3.at_s: input should be greater than or equal to 0 "
        "(got -3)",
        f"error: {name}:8: faults.3.for_s: input should be a valid number, unable to "
        "parse string as a number (got 'long')",
        f"error: {name}:9: faults.4.ppm: input should be less than or equal to 10000 "
        "(got 1000000)",
    ]


def test_a_run_with_faults_is_replayed(tmp_path):
    journal = {"plugin": "journal", "options": {"path": str(tmp_path / "j.sqlite")}}
    faults = [
        {"fault": "drop", "at_s": 3, "for_s": 0.5},
        {"fault": "clip", "at_s": 5, "for_s": 0.5, "level": 0.05},
        {"fault": "wrong_rate", "at_s": 6, "for_s": 0.5, "rate": 30000},
        {"fault": "crash", "at_s": 8, "stage": "classifier", "times": 3},
        {"fault": "hang", "at_s": 8, "stage": "journal", "for_s": 0.1},
        {"fault": "disk_full", "at_s": 600, "for_s": 1},
    ]
    data = station(10, [journal], *faults, bundle="bengalese-finch")
    data["source"]["options"]["pace"] = "asap"
    data["models"] = [{"plugin": "classifier"}]
    (tmp_path / "station.yaml").write_text(yaml.safe_dump(data))
    assert neurovocal("run", tmp_path / "station.yaml", "--plain").code == 3
    done = neurovocal(
        "replay", tmp_path / "j.sqlite", "--json", "--block-length", "777"
    )
    report = json.loads(done.out)
    assert report["differences"] == []
    assert report["identical"]["label"] > 20
    assert report["identical"]["gap"] == 1
