"""The main job as a user sees it: recordings, sockets, microphones, Ctrl-C."""

import csv
import json
import os
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Thread

import numpy as np
import pytest
import soundfile
from audio_devices.virtual_audio import VirtualMicrophone, needs_virtual_audio
from processes.cli_process import NEUROVOCAL, RECORDING, neurovocal, running
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.client import Received, Subscriber

KINDS = ("onset", "offset", "label", "frames", "surprise", "synthesis")


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def units_in(out: str) -> list[str]:
    """Of the lines of a run those that tell a label: a busy machine lags, too."""
    return [line.split()[3] for line in out.splitlines() if line.endswith(" ms")]


@pytest.fixture
def excerpt(tmp_path: Path) -> Path:
    """Six seconds of the shipped recording, in the middle of a song."""
    samples, rate = soundfile.read(RECORDING, dtype="int16", frames=6 * 32000)
    path = tmp_path / "excerpt.flac"
    soundfile.write(path, samples, rate)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Labels of the shipped recording, read in the blocks that are the default."""
    out = tmp_path_factory.mktemp("whole") / "labels.csv"
    done = neurovocal("label", RECORDING, "--out", out)
    assert done.code == 0, done.err
    return out.read_bytes()


@pytest.mark.parametrize("length", [64, 333, 1024, 48000, 2**24])
def test_labels_do_not_depend_on_the_blocks(tmp_path, whole, length):
    out = tmp_path / "labels.csv"
    done = neurovocal("label", RECORDING, "--out", out, "--block-length", length)
    assert done.code == 0, done.err
    assert out.read_bytes() == whole


def test_labels_are_those_that_the_authors_gave(whole):
    found = list(csv.DictReader(whole.decode().splitlines()))
    annotations = (RECORDING.parent / "annotations.csv").read_text()
    truth = list(csv.DictReader(annotations.splitlines()))
    right = sum(
        any(
            row["label"] == ref["label"]
            and abs(float(row["onset_s"]) - float(ref["onset_s"])) < 0.01
            and abs(float(row["offset_s"]) - float(ref["offset_s"])) < 0.01
            for row in found
        )
        for ref in truth
    )
    assert right >= 0.9 * len(truth)
    assert len(found) <= 1.1 * len(truth)


def test_live_over_zeromq_equals_the_table(tmp_path, excerpt):
    endpoint = free_endpoint()
    table = tmp_path / "labels.csv"
    assert neurovocal("label", excerpt, "--out", table).code == 0
    journal = tmp_path / "run.sqlite"
    options = f"{{endpoint: '{endpoint}', wait_for_subscribers: 2, linger_s: 60}}"
    events = ", ".join(KINDS)

    def kept(kinds: tuple[str, ...]) -> int:
        with closing(sqlite3.connect(journal)) as connection:
            rows = connection.execute("select kind, count(*) from messages group by 1")
            return sum(number for kind, number in rows if kind in kinds)

    with (
        Subscriber(endpoint, kinds=KINDS) as first,
        Subscriber(endpoint, kinds=("label",)) as second,
        running(
            *("run", "demo", "--plain"),
            *("--set", f"source.options.path={excerpt}"),
            *(
                "--set",
                f"sinks=[{{plugin: zmq, options: {options}}}, "
                f"{{plugin: journal, options: {{path: '{journal}'}}, "
                f"events: [{events}]}}]",
            ),
        ) as process,
    ):
        heard: list[Received] = []
        labels: list[Received] = []
        threads = [
            Thread(target=_drain, args=(subscriber, into, process, kept))
            for subscriber, into in ((first, heard), (second, labels))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        out, err = process.communicate()
    assert process.returncode == 0, err
    final = [m.event for m in labels if m.event.status == "final"]
    rows = [
        [f"{e.onset / 32000:.6f}", f"{e.offset / 32000:.6f}", e.unit] for e in final
    ]
    expected = list(csv.reader(table.read_text().splitlines()))[1:]
    assert rows == [row[1:4] for row in expected]
    assert all(m.missed is None for m in heard + labels)
    for kind in KINDS:
        numbers = [m.seq for m in heard if m.kind == kind]
        assert numbers == list(range(len(numbers)))
        assert numbers, f"no {kind} came"
    frames = [m for m in heard if m.kind == "frames"]
    assert sum(len(m.event.values) for m in frames) == 6 * 250 - 1
    assert all(m.latency.wait_ms >= 0 for m in heard if m.latency)
    assert len(units_in(out)) == len(expected)
    assert kept(("label",)) == len(labels)


def _drain(
    subscriber: Subscriber,
    into: list[Received],
    process: Popen,
    kept: Callable[[tuple[str, ...]], int],
) -> None:
    """Receive until the engine has ended and all that it kept has come."""
    while process.poll() is None:
        if (message := subscriber.receive(timeout=0.5)) is not None:
            into.append(message)
    while len(into) < kept(tuple(subscriber.kinds)):
        message = subscriber.receive(timeout=PATIENCE_S)
        assert message is not None, "what was sent last has not come"
        into.append(message)


@needs_virtual_audio
@pytest.mark.timeout(240)
def test_microphone_is_labelled(tmp_path, excerpt):
    samples, rate = soundfile.read(excerpt, dtype="int16")
    kept = tmp_path / "events.jsonl"
    with VirtualMicrophone(rate) as microphone:
        process = microphone.start(
            [
                *NEUROVOCAL,
                *("run", "microphone", "--plain"),
                *("--set", "source.options.device=pipemic"),
                *("--set", f"source.options.sample_rate={rate}"),
                *("--set", f"sinks=[{{plugin: jsonl, options: {{path: '{kept}'}}}}]"),
            ],
            stdout=PIPE,
            stderr=PIPE,
            text=True,
        )
        microphone.wait_until_captured()
        microphone.play(samples)
        # A segment that is cut by the silence after the song ends the excerpt.
        microphone.play(np.zeros(rate, np.int16))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err
    assert process.returncode in (0, 3), err  # 3: the card itself lost samples
    units = units_in(out)
    wanted = neurovocal("label", excerpt).out.splitlines()[1:]
    assert _agreement(units, [row.split(",")[3] for row in wanted]) > 0.9, units
    events = [json.loads(line) for line in kept.read_text().splitlines()]
    assert {"onset", "offset", "label"} <= {event["kind"] for event in events}


def _agreement(found: list[str], wanted: list[str]) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, found, wanted, autojunk=False).ratio()


def interrupt(process: Popen) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


def test_ctrl_c_while_it_runs_flushes_and_closes(tmp_path):
    journal = tmp_path / "run.sqlite"
    with running(
        *("run", "demo", "--plain"),
        *("--set", f"sinks=[{{plugin: journal, options: {{path: '{journal}'}}}}]"),
        *("--set", f"stop_timeout_s={PATIENCE_S}"),
    ) as process:
        printed = [process.stdout.readline() for _ in range(5)]
        code, err = interrupt(process)
    assert code == 0, err
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("stopped: heard ")
    rows = sqlite3.connect(journal).execute(
        "select kind, count(*) from messages group by kind"
    )
    counts = dict(rows.fetchall())
    assert counts["onset"] == counts["offset"]  # nothing was left open
    assert counts["label"] >= len(printed)


def test_ctrl_c_while_it_waits_for_subscribers():
    with running(
        *("run", "demo", "--plain", "--set"),
        "sinks=[{plugin: zmq, options: {endpoint: 'tcp://127.0.0.1:*', "
        "wait_for_subscribers: 1}}]",
        *("--set", "stop_timeout_s=0.5"),
    ) as process:
        _wait_for_threads(process)
        code, err = interrupt(process)
    assert "Traceback" not in err
    assert (code, err.splitlines()[-1]) == (3, "stopped"), err


def test_ctrl_c_while_a_pipe_is_silent(excerpt):
    samples, _ = soundfile.read(excerpt, dtype="int16")
    with running(
        *("run", "demo", "--plain", "--set"),
        "source={plugin: pipe, options: {sample_rate: 32000, sample_format: s16le}}",
        *("--set", "sinks=[{plugin: jsonl, options: {path: '-'}}]"),
        *("--set", f"stop_timeout_s={PATIENCE_S}"),
    ) as process:
        process.stdin.buffer.write(samples.tobytes())
        process.stdin.flush()
        heard = process.stdout.readline()
        code, err = interrupt(process)
    assert json.loads(heard)["kind"] == "onset"
    assert "Traceback" not in err
    assert code == 0, err


def test_ctrl_c_in_the_middle_of_a_table(tmp_path):
    out = tmp_path / "labels.csv"
    with running(
        *("label", *[RECORDING] * 400, "--out", out, "--block-length", 64)
    ) as process:
        until(lambda: out.exists() and out.stat().st_size >= 1000)
        code, err = interrupt(process)
    assert code == 3, err
    assert "Traceback" not in err
    # A machine that stood still for longer than its time to stop forces it.
    assert f"'{out}' is partial" in err or "stopped by force" in err
    rows = list(csv.reader(out.read_text().splitlines()))
    assert len(rows) > 5
    assert all(len(row) == 5 for row in rows)


@pytest.mark.parametrize("sink", ["table", "columns"])
def test_ctrl_c_in_a_run_names_the_table_that_it_cuts_short(tmp_path, sink):
    with running(
        *("run", "demo", "--plain", "--set"),
        f"sinks=[{{plugin: {sink}, options: {{path: labels.csv}}}}]",
        *("--set", f"stop_timeout_s={PATIENCE_S}"),
        cwd=tmp_path,
    ) as process:
        process.stdout.readline()
        code, err = interrupt(process)
    assert (code, err.splitlines()[-1]) == (3, "stopped: 'labels.csv' is partial"), err
    assert len((tmp_path / "labels.csv").read_text().splitlines()) > 1


def _wait_for_threads(process: Popen) -> None:
    """Until the run has threads and its signal handlers, of which SIGHUP is last."""

    def is_ready() -> bool:
        assert process.poll() is None, process.stderr.read()
        threads = os.listdir(f"/proc/{process.pid}/task")
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught & (1 << (signal.SIGHUP - 1))) and len(threads) > 1

    until(is_ready)


def test_pipe_from_standard_input(excerpt):
    samples, _ = soundfile.read(excerpt, dtype="int16")
    done = neurovocal(
        *("run", "demo", "--plain"),
        *(
            "--set",
            "source={plugin: pipe, options: "
            "{sample_rate: 32000, sample_format: s16le}}",
        ),
        *("--set", "sinks=[{plugin: jsonl, options: {path: '/dev/null'}}]"),
        stdin=samples.tobytes(),
    )
    assert done.code == 0, done.err
    wanted = neurovocal("label", excerpt).out.splitlines()[1:]
    assert units_in(done.out) == [row.split(",")[3] for row in wanted]
