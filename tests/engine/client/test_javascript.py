"""Subscriber in JavaScript beside one in Python, over real sockets."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from network.publishers import Engine, has_ipv6
from processes.waiting import PATIENCE_S, PROCESS_S
from repository import ROOT

from neurovocal.engine.client import Received, Subscriber
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Frames, Label, Message, StreamInfo
from neurovocal.engine.wire.keys import add_client, make_engine_keys
from neurovocal.plugins.sinks.zmq import ZmqOptions, plugin

EXAMPLE = ROOT / "examples" / "javascript"
INFO = StreamInfo("aviary 3/été", 32000)
N_FRAMES = 400
PER_LABEL = 4

node, npm = shutil.which("node"), shutil.which("npm")
pytestmark = pytest.mark.skipif(not (node and npm), reason="needs Node.js with npm")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the example with its packages installed."""
    folder = tmp_path_factory.mktemp("javascript")
    for path in EXAMPLE.iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    assert npm is not None
    installed = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--prefer-offline"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    return folder


def endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def javascript(folder: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    assert node is not None
    process = subprocess.Popen(
        [node, "subscriber.mjs", *args],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def label(seq: int) -> Message:
    unit = "abcdeé"[seq % 6]
    event = Label(seq, seq * 100, seq * 100 + 50, unit, 0.5, "final", "m")
    return Message(INFO, event, seq, seq * 100 + 60, 10**18 + seq)


def frames(seq: int) -> Message:
    values = np.full((100, 129), seq, np.float32)
    return Message(INFO, Frames(seq * 100, 128, 256, values), seq, 0)


def take(subscriber: Subscriber, count: int) -> list[Received]:
    found = [subscriber.receive(timeout=PATIENCE_S) for _ in range(count)]
    return [received for received in found if received is not None]


def test_javascript_and_python_both_get_every_label(example: Path) -> None:
    where = endpoint()
    n_labels = N_FRAMES // PER_LABEL
    options = ZmqOptions(
        # Twenty megabytes of frames do not fit into these queues; labels do.
        endpoint=where,
        queue_length=n_labels,
        wait_for_subscribers=3,
        wait_timeout_s=120,
    )
    sink = plugin.build(options, BuildContext(SystemClock(), "run-1"))
    with (
        javascript(example, where, "--json", f"--count={n_labels}") as other,
        Subscriber(where, ["label", "frames"]) as python,
        # This one subscribes to everything and never reads.
        Subscriber(where, ["label", "frames"], queue_length=1),
        ThreadPoolExecutor(1) as pool,
    ):
        lines = pool.submit(other.communicate)
        found: list[Received] = []
        try:
            sink.open()
            for seq in range(N_FRAMES):
                sink.write(frames(seq))
                if seq % PER_LABEL == 0:
                    sink.write(label(seq // PER_LABEL))
                    found += take(python, 1)
                found += take(python, 1)
            out, err = lines.result(timeout=PROCESS_S)
        finally:
            sink.close()
    assert (other.returncode, err) == (0, "")
    headers = [json.loads(line) for line in out.splitlines()]
    assert [header["seq"] for header in headers] == list(range(n_labels))
    assert {header["stream"] for header in headers} == {INFO.stream}
    assert {header["run"] for header in headers} == {"run-1"}

    labels = [received for received in found if received.kind == "label"]
    assert [received.event for received in labels] == [
        label(seq).event for seq in range(n_labels)
    ]
    assert [received.seq for received in found if received.kind == "frames"] == list(
        range(N_FRAMES)
    )
    assert python.missed == 0
    assert [
        (header["unit"], header["posterior"], header["sample"]) for header in headers
    ] == [
        (received.header.unit, received.header.posterior, received.sample)  # type: ignore[attr-defined]
        for received in labels
    ]


def test_javascript_decodes_arrays_and_reports_lost_messages(example: Path) -> None:
    where = endpoint()
    options = ZmqOptions(endpoint=where, wait_for_subscribers=1, wait_timeout_s=120)
    sink = plugin.build(options, BuildContext(SystemClock(), "run-1"))
    with javascript(example, where, "--kinds=label,frames", "--count=3") as other:
        sink.open()
        for message in (frames(7), label(0), label(3)):
            sink.write(message)
        out, err = other.communicate(timeout=PROCESS_S)
        sink.close()
    first, second, third = out.splitlines()
    assert first.endswith("frames  100 x 129 values, first 7")
    assert second.endswith("0.000 s  aviary 3/été  label  a  0.500  final")
    assert "label  d" in third
    assert "missed 2 label messages of aviary 3/été" in err
    assert other.returncode == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_javascript_fetches_lost_messages(
    example: Path, tmp_path: Path, host: str
) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    engine = Engine(tmp_path, host=host)
    engine.send(1100, only_record=True)
    arguments = [f"--replay={engine.replay}", "--start=run", "--count=1160", "--json"]
    with javascript(example, engine.zmq.endpoint, *arguments) as other:
        lines = []
        assert other.stdout is not None
        while len(lines) < 1100:
            lines.append(other.stdout.readline())
        for _ in range(20):  # of three, the last arrives
            engine.send(2, only_record=True)
            engine.send(1)
        out, err = other.communicate(timeout=PROCESS_S)
        engine.close()
    lines += out.splitlines()
    assert err == ""
    assert [json.loads(line)["seq"] for line in lines] == list(range(1160))
    assert other.returncode == 0


def test_javascript_uses_keys_or_reports_that_they_are_needed(
    example: Path, tmp_path: Path
) -> None:
    make_engine_keys(tmp_path / "keys")
    add_client(tmp_path / "keys", "alice", "read", tmp_path / "alice")
    (tmp_path / "journal").mkdir()
    engine = Engine(tmp_path / "journal", keys=tmp_path / "keys")
    where = engine.zmq.endpoint
    try:
        engine.send(30, only_record=True)
        given = ("--json", "--replay", engine.replay, "--start", "run", "--count=30")
        with javascript(example, where, *given, "--keys", f"{tmp_path}/alice") as own:
            out, err = own.communicate(timeout=PROCESS_S)
        assert (own.returncode, err) == (0, "")
        assert [json.loads(line)["seq"] for line in out.splitlines()] == list(range(30))
        with javascript(example, where) as stranger:
            out, err = stranger.communicate(timeout=PROCESS_S)
        assert (stranger.returncode, out) == (2, "")
        assert "--keys DIR" in err
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--kinds", "labels"), "there is no kind 'labels'"),
        (("--start", "begin"), "'begin' is none of now, run, journal"),
        (("--keys", "nowhere"), "nowhere/client.key_secret"),
    ],
)
def test_errors_are_one_sentence(
    example: Path, given: tuple[str, str], said: str
) -> None:
    with javascript(example, *given) as process:
        out, err = process.communicate(timeout=PROCESS_S)
    assert (process.returncode, out, len(err.splitlines())) == (1, "", 1)
    assert said in err
