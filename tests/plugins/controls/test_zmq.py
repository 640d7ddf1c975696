"""Control socket: client, command line, a real engine, malformed requests."""

import json
from threading import Thread

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes.cli_process import neurovocal, running
from processes.waiting import PATIENCE_S

from neurovocal.engine.client import Control
from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import (
    CommandError,
    ConfigError,
    NeurovocalError,
)
from neurovocal.plugins.controls.zmq import ControlOptions, ControlSocket

PATIENCE_MS = PATIENCE_S * 1000


@pytest.fixture
def server(tmp_path):
    """A control socket that answers each request with the request."""
    socket = ControlSocket(
        ControlOptions(endpoint=f"ipc://{tmp_path}/control", commands_per_s=1e6),
        ManualClock(),
    )
    socket.open()
    ended = []

    def serve():
        while not ended:
            socket.serve(
                lambda request: {"ok": True, "id": None, "echo": request}, 0.05
            )

    thread = Thread(target=serve, daemon=True)
    thread.start()
    yield socket
    ended.append(True)
    thread.join()
    socket.close()


@pytest.fixture
def peer(server):
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(server.endpoint)

        def ask(*parts):
            socket.send_multipart(parts)
            assert socket.poll(PATIENCE_MS), "no reply"
            return json.loads(socket.recv_multipart()[-1])

        yield ask


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(body=st.binary(max_size=300) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_answered(peer, body):
    reply = peer(body)
    assert reply["ok"] or "cannot be read" in reply["error"]


def test_req_sockets_are_answered_and_other_envelopes_refused(server, peer):
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(server.endpoint)
        socket.send(b'{"v": 1, "command": "ping"}')
        assert socket.poll(PATIENCE_MS)
        assert json.loads(socket.recv())["echo"] == {"v": 1, "command": "ping"}
    assert "one part" in peer(b"1", b"2", b"3")["error"]
    assert "one part" in peer(b"not empty", b"{}")["error"]
    assert peer(b"[" * 30_000)["ok"] is False


def test_an_oversized_request_ends_its_connection_only(server, peer):
    with zmq.Context() as context, context.socket(zmq.DEALER) as oversized:
        oversized.setsockopt(zmq.LINGER, 0)
        oversized.connect(server.endpoint)
        oversized.send(b"x" * 100_000)
        assert peer(b"{}")["ok"]
        assert not oversized.poll(0)


def test_commands_above_the_rate_are_refused(tmp_path):
    clock = ManualClock()
    endpoint = f"ipc://{tmp_path}/control"
    socket = ControlSocket(ControlOptions(endpoint=endpoint, commands_per_s=3), clock)
    socket.open()

    def ask():
        client.send(b"{}")
        socket.serve(lambda request: {"ok": True}, 20.0)
        assert client.poll(PATIENCE_MS)
        return json.loads(client.recv())

    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.connect(endpoint)
        assert [ask()["ok"] for _ in range(4)] == [True, True, True, False]
        assert ask()["error"] == "more than 3 commands per second: send fewer"
        clock.advance(0.4)
        assert [ask()["ok"] for _ in range(2)] == [True, False]
    socket.close()
    assert clock.monotonic_ns() == 0.4 * NS


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("tcp://0.0.0.0:5557", "other machines connect"),
        ("udp://127.0.0.1:1", "neither tcp://HOST:PORT nor ipc://PATH"),
    ],
)
def test_invalid_endpoints_are_found_by_check(endpoint, expected):
    override = f"control={{plugin: zmq, options: {{endpoint: '{endpoint}'}}}}"
    done = neurovocal("check", "demo", "--set", override)
    assert done.code == 1
    assert expected in done.err
    assert "control" in done.err


def test_two_stages_with_the_same_endpoint_are_refused():
    override = "control={plugin: zmq, options: {endpoint: 'tcp://127.0.0.1:5556'}}"
    done = neurovocal("check", "demo", "--set", override)
    assert done.code == 1
    assert "would both bind the TCP port 5556" in done.err


def test_on_error_is_refused():
    done = neurovocal("check", "demo", "--set", "control={plugin: zmq, on_error: skip}")
    assert done.code == 1
    assert "has no policy" in done.err


def test_a_client_without_an_engine_times_out(tmp_path):
    with (
        Control(f"ipc://{tmp_path}/nobody", timeout=0.05) as control,
        pytest.raises(NeurovocalError, match=r"no reply from .* within 0\.05 s"),
    ):
        control.status()
    with pytest.raises(ConfigError, match="is neither tcp"), Control("nonsense"):
        pass


def test_commands_of_a_run_are_repeated_by_its_replay(tmp_path):
    """A run is changed and stopped by commands; its replay is identical."""
    endpoint = f"ipc://{tmp_path}/control"
    journal = f"{{plugin: journal, options: {{path: '{tmp_path}/run.sqlite'}}"
    kept = "label, onset, offset, control, synthesis"
    overrides = [
        f"control={{plugin: zmq, options: {{endpoint: '{endpoint}'}}}}",
        "source={plugin: synthetic, options: {duration_s: null, pace: realtime}}",
        "stop_timeout_s=60",
        f"sinks=[{journal}, events: [{kept}]}}, "
        f"{{plugin: recording, options: {{path: '{tmp_path}/kept'}}}}]",
    ]
    sets = [argument for override in overrides for argument in ("--set", override)]
    with running("run", "demo", "--plain", *sets) as process:
        assert process.stdout.readline()
        shown = neurovocal("control", endpoint, "status")
        assert shown.code == 0, shown.err
        assert "rnn_rbm: continue_frames=50" in shown.out
        assert "synthesis=predict" in shown.out
        changed = neurovocal(
            *("control", endpoint, "set", "synthesis=continue", "temperature=0.5"),
            *("--lane", "demo", "--model", "rnn_rbm", "--json"),
        )
        assert json.loads(changed.out)["options"]["temperature"] == 0.5
        with Control(endpoint, timeout=PATIENCE_S) as control:
            for wrong, sentence in (
                ({"temperature": -1}, "above 0"),
                ({"synthesis": "sing"}, "'synthesis' is wrong"),
                ({"baseline_s": 3}, "cannot be changed while it runs"),
            ):
                with pytest.raises(CommandError, match=sentence):
                    control.set(**wrong)
            with pytest.raises(CommandError, match="there is no lane 'x'"):
                control.command("status", lane="x")
            process.stdout.readline()
            assert control.set(synthesis=False)["options"]["synthesis"] == "off"
            assert control.stop()["applied"][0]["stream"] == "demo"
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    done = neurovocal("replay", tmp_path / "run.sqlite", "--json")
    found = json.loads(done.out)
    assert found["differences"] == []
    assert found["identical"]["control"] == 2
    assert found["identical"]["synthesis"] > 10


def test_a_swap_runs_no_python_file_that_the_run_does_not_name(tmp_path):
    endpoint = f"ipc://{tmp_path}/control"
    text = (
        "version: 1\n"
        "source: {plugin: synthetic, options: {duration_s: null, pace: realtime}}\n"
        f"control: {{plugin: zmq, options: {{endpoint: '{endpoint}'}}}}\n"
        "sinks: [{plugin: jsonl, options: {path: out.jsonl}}]\n"
    )
    (tmp_path / "c.yaml").write_text(text)
    (tmp_path / "d.yaml").write_text(f"{text}detector: {{plugin: 'mine.py:plugin'}}\n")
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with running("run", "c.yaml", "--plain", cwd=tmp_path) as process:
        assert process.stdout.readline()
        with Control(endpoint, timeout=PATIENCE_S) as control:
            with pytest.raises(CommandError, match="that needs a restart"):
                control.command("swap", arguments={"config": "d.yaml"})
            with pytest.raises(CommandError, match=r"name a file beside c\.yaml"):
                control.command("swap", arguments={"config": f"{tmp_path}/d.yaml"})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["set", "temperature"], "is not NAME=VALUE"),
        (["ipc:///tmp/x"], "which command? ping, status,"),
        (["sya", "a", "b"], "'sya' is no command: did you mean 'say'?"),
        (["say"], "say needs units: neurovocal control say a b c"),
        (["set", "a={"], "the value cannot be read"),
    ],
)
def test_mistakes_on_the_command_line_are_refused(arguments, sentence):
    done = neurovocal("control", *arguments)
    assert done.code == 1
    assert sentence in done.err
