"""Timed faults, with real sockets, files and processes."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from threading import Event as Flag

import pytest
import yaml
from processes.cli_process import neurovocal
from processes.waiting import PATIENCE_S, PROCESS_S, until
from repository import import_path
from stages.manual_time_run import ManualTimeRun

from neurovocal.engine.client import Subscriber
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Health, Stats
from neurovocal.engine.faults.network import TcpProxy, free_port
from neurovocal.engine.journal import read_events, runs
from neurovocal.engine.testing import CollectSink
from neurovocal.engine.wire.keys import add_client, make_engine_keys

pytestmark = pytest.mark.usefixtures("quiet", "no_threads_left")

SONG = {"pace": "realtime", "pause_ms": [50, 100], "song_length": 20, "seed": 3}


def station(seconds, sinks, *faults, **more):
    """Return a configuration with a synthetic source of so many seconds."""
    return {
        "version": 1,
        "source": {"plugin": "synthetic", "options": {**SONG, "duration_s": seconds}},
        "sinks": sinks,
        "faults": list(faults),
        **more,
    }


class HealthSink(CollectSink):
    """Sink that keeps health and statistics and sets a flag at each change."""

    def __init__(self):
        super().__init__({"health", "stats"})
        self.flags = {"degraded": Flag(), "healthy": Flag()}

    def write(self, message):
        super().write(message)
        event = message.event
        if isinstance(event, Health) and event.stage.startswith("fault"):
            self.flags[event.state].set()

    def wait_for(self, state):
        assert self.flags[state].wait(PATIENCE_S), f"no fault was ever {state}"

    def subscriptions(self):
        """Return the number of the ZeroMQ sink's subscriptions in each second."""
        return [
            stats.values["sinks"]["sink 'zmq'"]["subscriptions"]
            for stats in self.events(Stats)
        ]


def zmq_sink(port):
    return {"plugin": "zmq", "options": {"endpoint": f"tcp://127.0.0.1:{port}"}}


def test_a_network_cut_breaks_connections_and_loses_no_segment(tmp_path, background):
    live, replay = free_port(), free_port()
    journal = {
        "plugin": "journal",
        "options": {
            "path": str(tmp_path / "j.sqlite"),
            "replay": f"tcp://127.0.0.1:{replay}",
        },
    }
    cut = {"fault": "network_cut", "at_s": 2, "for_s": 0.7}
    sink = HealthSink()
    run = ManualTimeRun(station(4.5, [zmq_sink(live), journal], cut), sink)
    run.start(background)
    heard, enough = [], Flag()

    def listen():
        with Subscriber(
            f"tcp://127.0.0.1:{live}",
            ("offset",),
            replay=f"tcp://127.0.0.1:{replay}",
            start="run",
        ) as subscriber:
            while not enough.is_set():
                message = subscriber.receive(0.5)
                if message is not None:
                    heard.append((message.seq, message.sample))

    def sent():
        return [
            (seq, sample)
            for kind, seq, sample in kept(tmp_path / "j.sqlite")
            if kind == "offset"
        ]

    listening = background(listen)
    run.advance_to(1.9)
    until(lambda: heard and heard == sent())
    run.advance_to(2)
    sink.wait_for("degraded")
    proxies = run.runner._injection._proxies.values()
    until(lambda: all(proxy._server is None for proxy in proxies))
    assert all(map(refuses, (live, replay)))
    run.advance_to(2.6)
    run.advance_to(2.8)
    sink.wait_for("healthy")
    run.advance_to(4.4)
    until(lambda: heard == sent() and heard[-1][1] > 4 * 32_000)
    enough.set()
    listening()
    assert run.finish().errors == []
    assert any(2 < sample / 32_000 < 2.6 for _, sample in heard)


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_network_cut_breaks_open_connections(background):
    port = free_port()
    cut = {"fault": "network_cut", "at_s": 1, "for_s": 0.1}
    sink = HealthSink()
    run = ManualTimeRun(station(1.8, [zmq_sink(port)], cut), sink)
    run.start(background)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as reached:
        assert reached.recv(64)[:1] == b"\xff"  # ZeroMQ's own, through the proxy
        run.advance_to(1)
        rest = b"x"
        try:
            while rest:
                rest = reached.recv(64)
        except ConnectionResetError:
            pass
    sink.wait_for("degraded")
    assert run.finish().errors == []


def test_a_connection_that_is_just_being_accepted_is_cut():
    with socket.create_server(("127.0.0.1", 0)) as target:
        here = "127.0.0.1", free_port()
        proxy = TcpProxy(*here, target.getsockname()[1])
        proxy.open()
        for _ in range(100):
            with socket.create_connection(here, timeout=PATIENCE_S) as late:
                proxy.cut()
                with suppress(ConnectionResetError):
                    assert late.recv(1) == b""  # a socket left open would be an error
            proxy.restore()
        proxy.close()


def test_a_taken_endpoint_behind_a_proxy_is_a_configuration_error():
    cut = {"fault": "network_cut", "at_s": 1, "for_s": 0.1}
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        with pytest.raises(ConfigError, match=f"tcp://127.0.0.1:{port}: .* in use"):
            ManualTimeRun(station(1, [zmq_sink(port)], cut)).runner.run()


def test_a_stalled_subscriber_connects_and_disconnects(tmp_path, background):
    make_engine_keys(tmp_path / "engine")
    add_client(tmp_path / "engine", "stalled", "read", tmp_path / "stalled")
    stall = {"fault": "subscriber_stall", "at_s": 1.5, "for_s": 20}
    keys = {"keys": str(tmp_path / "engine")}
    with pytest.raises(ConfigError, match="the engine asks for keys: name the folder"):
        ManualTimeRun(station(1, [zmq_sink(free_port())], stall, **keys))
    sink = HealthSink()
    stall["keys"] = str(tmp_path / "stalled")
    run = ManualTimeRun(station(40, [zmq_sink(free_port())], stall, **keys), sink)
    run.start(background)
    run.advance_to(1.2)
    until(sink.subscriptions)
    run.advance_until(lambda: sink.subscriptions()[-1] > 5)
    run.advance_to(22)
    sink.wait_for("healthy")
    run.advance_until(lambda: sink.subscriptions()[-1] == 0)
    assert run.finish().errors == []
    assert sink.subscriptions()[0] == 0


# Limits and kills concern a whole process: these run in processes of their own.
CHILD = """
import json, resource, sys
sys.path[:0] = sys.argv[1].split(":")
from conftest import Background
from stages.manual_time_run import ManualTimeRun
from processes.waiting import until
from test_faults_process import Health, HealthSink, kept

sink = HealthSink()
run = ManualTimeRun(json.loads(sys.argv[2]), sink)
run.start(Background())
"""

FILL = (
    CHILD
    + """
run.advance_to(0.8)
until(lambda: resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0)
run.advance_to(1.6)
sinks = [sink for sink in run.runner.sinks if sink.name.startswith("sink")]
until(lambda: all(sink.supervised.failures for sink in sinks))
outcome = run.finish()
states = [e.state for e in sink.events(Health) if e.stage == "fault disk_full"]
reasons = [sink.supervised.trouble for sink in sinks]
print(json.dumps([states, reasons, outcome.sentences()]))
"""
)

KILL = (
    CHILD
    + """
run.advance_to(1.5)
until(lambda: kept(sys.argv[3]))
run.finish()
"""
)


def child(script, data, *arguments):
    """Return a script's exit code, output and errors."""
    tests = import_path(__file__)
    done = subprocess.run(
        [sys.executable, "-c", script, tests, json.dumps(data), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_full_disk_loses_no_message_that_the_queues_hold(tmp_path):
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

    data = station(3, sinks("whole"))
    data["source"]["options"]["pace"] = "asap"
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(data))
    done = neurovocal("run", tmp_path / "whole.yaml", "--json")
    assert done.code == 0, done.err
    full = {"fault": "disk_full", "at_s": 0.8, "for_s": 1}
    code, out, err = child(FILL, station(3, sinks("full"), full))
    assert code == 0, err
    states, reasons, sentences = json.loads(out)
    assert states == ["degraded", "healthy"]
    assert "File too large" in reasons[0]
    assert "journal" in reasons[1]
    assert sentences == []
    whole, faulty = (
        (tmp_path / f"{name}.jsonl").read_text() for name in ("whole", "full")
    )
    assert faulty == whole
    assert kept(tmp_path / "full.sqlite") == kept(tmp_path / "whole.sqlite")


def kept(path):
    (record,) = runs(path)
    return [
        (e.kind, e.seq, json.loads(e.header)["sample"])
        for e in read_events(path, record.run)
        if e.kind in ("onset", "offset")
    ]


def test_a_killed_run_s_journal_holds_the_committed_events(tmp_path):
    path = tmp_path / "j.sqlite"
    journal = {"plugin": "journal", "options": {"path": str(path)}}
    data = station(30, [journal], {"fault": "kill", "at_s": 1.6})
    code, _, err = child(KILL, data, path)
    assert code == -signal.SIGKILL, err
    assert "injected: kill" in err
    found = kept(path)
    assert found
    assert max(sample for _, _, sample in found) < 3 * 32_000


def test_check_lists_the_faults(tmp_path):
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


def test_mistakes_in_faults_are_reported_with_their_line(tmp_path):
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
        f"error: {name}:6: faults.1.fro_s: unknown option (did you mean 'for_s'?)",
        f"error: {name}:7: faults.2.fault: is missing",
        f"error: {name}:8: faults.3.at_s: must be at least 0 and at most 31622400 "
        "(got -3)",
        f"error: {name}:8: faults.3.for_s: must be a number (got 'long')",
        f"error: {name}:9: faults.4.ppm: must be at least -10000 and at most 10000 "
        "(got 1000000)",
    ]


def test_a_run_with_faults_is_replayed_without_differences(tmp_path):
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
