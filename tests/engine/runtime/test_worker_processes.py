"""Lanes in processes of their own: the same bytes, and what becomes of a lost one."""

import json
import os
import signal
import sqlite3
from collections import defaultdict
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from bundles.tiny_bundle import make_tiny_bundle
from processes.cli_process import running
from processes.waiting import PATIENCE_S, until

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.errors import (
    ConfigError,
    DeviceError,
    StageError,
)
from neurovocal.engine.contracts.types import (
    KINDS,
    Anchor,
    Block,
    Frames,
    Gap,
    Health,
    Ledger,
    Message,
    Offset,
    Onset,
    Stats,
    StreamInfo,
)
from neurovocal.engine.runtime.processes.packing import (
    dumps,
    loads,
    pack_error,
    unpack_error,
)
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.testing import CollectSink

RATE = 32_000
STATUS = {"v": 1, "command": "status"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle, and recordings of bursts that differ in length and pitch."""
    folder = tmp_path_factory.mktemp("workers")
    make_tiny_bundle(folder / "bundle", sample_rate=RATE)
    rng = np.random.default_rng(3)
    for number, seconds in enumerate((0.7, 2.3, 1.1, 1.6)):
        time = np.arange(round(seconds * RATE)) / RATE
        tone = np.sin(2 * np.pi * (3000 + 2500 * number) * time) * (time % 0.2 < 0.08)
        noise = rng.normal(0, 0.001, len(time))
        soundfile.write(folder / f"r{number}.wav", 0.5 * tone + noise, RATE)
    return folder


def config(folder, lanes, name="config.yaml", **shared):
    path = folder / name
    path.write_text(yaml.safe_dump({"version": 1, "lanes": lanes, **shared}))
    return str(path)


def file_lane(folder, out, number):
    return {
        "name": f"lane{number}",
        "source": {"plugin": "file", "options": {"path": f"{folder}/r{number}.wav"}},
        "bundle": str(folder / "bundle"),
        "detector": {"plugin": "energy", "options": {"low_hz": 500, "high_hz": 15000}},
        "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}],
        "sinks": [
            {"plugin": "jsonl", "options": {"path": str(out / f"{number}.jsonl")}},
            {"plugin": "table", "options": {"path": str(out / f"{number}.csv")}},
        ],
    }


def rows(journal):
    query = (
        "SELECT kind, stream, seq, sample, utc_ns, header, payload FROM messages "
        "ORDER BY kind, stream, seq"
    )
    with closing(sqlite3.connect(journal)) as connection:
        return connection.execute(query).fetchall()


def run_recordings(folder, out, workers, order):
    out.mkdir()
    path = config(
        folder,
        [file_lane(folder, out, number) for number in order],
        sinks=[
            {"plugin": "journal", "options": {"path": str(out / "run.sqlite")}},
            {
                "plugin": "jsonl",
                "options": {"path": str(out / "all.jsonl")},
                "events": ["onset", "label", "offset", "surprise", "frames"],
            },
        ],
        workers=workers,
    )
    outcome = Runner(plan_of(locate_config(path))).run()
    assert (outcome.exit_code, outcome.sentences()) == (0, [])
    assert (outcome.streams, round(outcome.seconds, 6)) == (4, 5.7)
    shared = defaultdict(list)
    for line in (out / "all.jsonl").read_text().splitlines():
        shared[json.loads(line)["stream"]].append(line)
    own = {p.name: p.read_bytes() for p in out.iterdir() if p.name[0].isdigit()}
    return own, rows(out / "run.sqlite"), shared


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """What one process writes."""
    return run_recordings(folder, tmp_path_factory.mktemp("out") / "1", 1, range(4))


@pytest.mark.parametrize(
    ("workers", "order"), [(2, (0, 1, 2, 3)), (3, (3, 1, 0, 2)), (200, (2, 0, 3, 1))]
)
def test_any_number_of_processes_writes_the_same_bytes(
    folder, alone, tmp_path, workers, order
):
    own, journal, shared = run_recordings(folder, tmp_path / "out", workers, order)
    assert own == alone[0]  # of a lane's own sinks: each file, byte for byte
    assert len(journal) > 100
    assert journal == alone[1]
    # What all lanes share has the same lines in each stream; between streams the
    # order is that in which the lanes get to run, with one process, too.
    assert shared == alone[2]


def live_lane(folder, number, **source):
    options = {"path": f"{folder}/r{number}.wav", "repeat": 0}
    return {
        "name": f"lane{number}",
        "source": {"plugin": "playback", "options": options, **source},
        "bundle": str(folder / "bundle"),
        "detector": {"plugin": "energy", "options": {"low_hz": 500, "high_hz": 15000}},
        "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}],
    }


SILENT = [{"plugin": "jsonl", "options": {"path": "/dev/null"}, "events": []}]


def start(background, folder, lanes, **shared):
    """Return a runner that runs, with what it publishes, and its outcome."""
    path = config(folder, lanes, sinks=SILENT, workers=2, **shared)
    sink = CollectSink()
    sink.wants = frozenset(KINDS.values()) - {"block", "trace"}
    runner = Runner(plan_of(locate_config(path)), [sink])
    runner.swapper.load = lambda name: plan_of(locate_config(path))
    return runner, sink, background(runner.run)


def pids(runner):
    """Return the process of each lane, as the control command `status` tells it."""
    reply = runner.bus.submit(STATUS)
    if not reply["ok"]:
        return {}
    lanes = [lane for lane in reply["lanes"] if lane.get("streams")]
    return {lane["lane"]: lane["streams"][0]["worker"]["pid"] for lane in lanes}


def temperature(runner, name, told=False):
    """Return what is set in a lane, or what its process has told of that so far."""
    if told:
        lane = next(lane for lane in runner.lanes if lane.name == name)
        return dict(lane.channels[0].settings).get("rnn_rbm", {}).get("temperature")
    reply = runner.bus.submit({**STATUS, "lane": name})
    models = reply["lanes"][0]["models"]
    return models[1]["options"]["temperature"]


def messages(sink, stream):
    return [m for m in list(sink.messages) if m.info.stream.startswith(stream)]


def test_a_killed_process_is_replaced_and_its_live_lanes_go_on(
    folder, background, quiet, no_threads_left
):
    lanes = [live_lane(folder, number) for number in range(3)]
    runner, sink, outcome = start(background, folder, lanes)
    until(lambda: len(pids(runner)) == 3)
    before = pids(runner)
    assert before["lane0"] == before["lane2"] != before["lane1"]
    until(lambda: sum(isinstance(m.event, Offset) for m in messages(sink, "lane0")) > 2)
    change = {"v": 1, "command": "set", "lane": "lane0", "model": "rnn_rbm"}
    change["arguments"] = {"temperature": 0.7}
    assert runner.bus.submit(change)["ok"]
    until(lambda: temperature(runner, "lane0", told=True) == 0.7)
    os.kill(before["lane0"], signal.SIGKILL)

    def healthy(stream):
        return [
            m.event
            for m in messages(sink, stream)
            if isinstance(m.event, Health) and m.event.stage == "worker process"
        ]

    until(lambda: len(healthy("lane0")) == 2 and len(healthy("lane2")) == 2)
    told = len(sink.messages)
    until(lambda: sum(isinstance(m.event, Onset) for m in sink.messages[told:]) > 6)
    after = pids(runner)
    assert after["lane1"] == before["lane1"]
    assert after["lane0"] == after["lane2"] != before["lane0"]
    reply = runner.bus.submit(STATUS)
    restarts = [lane["streams"][0]["worker"]["restarts"] for lane in reply["lanes"]]
    assert restarts == [1, 0, 1]
    # What a command had set holds in the other process, for this lane alone.
    assert temperature(runner, "lane0") == 0.7
    assert temperature(runner, "lane2") == 1.0
    runner.stop()
    done = outcome()
    assert done.errors == []
    assert done.lost_samples > 0
    assert done.exit_code == 3
    assert "SIGKILL" in healthy("lane0")[0].detail
    assert [each.state for each in healthy("lane0")] == ["restarting", "healthy"]
    assert healthy("lane1") == []
    for stream in ("lane0", "lane1", "lane2"):
        check_stream(messages(sink, stream))
    gaps = [m.event for m in messages(sink, "lane0") if isinstance(m.event, Gap)]
    assert [gap.reason for gap in gaps[:2]] == ["worker process lost"] * 2
    assert gaps[0].start == gaps[0].stop <= gaps[1].start < gaps[1].stop
    assert [
        g for g in (m.event for m in messages(sink, "lane1")) if type(g) is Gap
    ] == []


def check_stream(published):
    """Numbers without holes, segments in order and closed, positions that only grow."""
    numbers = defaultdict(list)
    for message in published:
        numbers[message.kind].append(message.seq)
    for kind, found in numbers.items():
        if kind != "anchor":  # it is repeated with its number
            assert found == list(range(len(found))), kind
    marks = [m.event for m in published if isinstance(m.event, Onset | Offset)]
    assert len(marks) > 2
    for one, other in pairwise(marks):
        assert type(one) is not type(other)
        assert one.segment + isinstance(one, Offset) == other.segment
        assert one.sample <= other.sample
    assert isinstance(marks[-1], Offset)


def test_a_recording_fails_with_its_process_and_the_others_end(
    folder, background, quiet, no_threads_left
):
    def slow(number, seconds):
        return {
            "name": f"lane{number}",
            "source": {
                "plugin": "synthetic",
                "options": {"pace": "realtime", "duration_s": seconds},
            },
            "detector": {"plugin": "energy", "options": {"low_hz": 500}},
        }

    runner, sink, outcome = start(background, folder, [slow(0, None), slow(1, 3.0)])
    until(lambda: len(pids(runner)) == 2)
    os.kill(pids(runner)["lane0"], signal.SIGKILL)
    done = outcome()  # nothing waits for the lane that cannot go on
    assert done.exit_code == 2
    assert [e for e in done.errors if "lane0" in e and "killed by SIGKILL" in e]
    assert [e for e in done.errors if "lane1" in e] == []
    events = [m.event for m in messages(sink, "lane0")]
    assert isinstance(events[-1], Health)
    assert events[-1].state == "failed"
    assert runner.lanes[1].summary().seconds == pytest.approx(3.0)


def endless_lane(folder, number):
    options = {"pace": "realtime", "duration_s": None, "seed": number}
    source = {"plugin": "synthetic", "options": options}
    return {**live_lane(folder, number), "source": source}


def test_commands_reach_the_lanes_of_all_processes_or_of_none(
    folder, background, quiet, no_threads_left
):
    # Not live: a slow machine is then no reason to roll a swap back.
    lanes = [endless_lane(folder, number) for number in range(3)]
    runner, sink, outcome = start(background, folder, lanes)
    until(lambda: len(pids(runner)) == 3)
    submit = runner.bus.submit
    status = submit(STATUS)
    assert [lane["lane"] for lane in status["lanes"]] == ["lane0", "lane1", "lane2"]
    counts = status["lanes"][1]["streams"][0]
    assert counts["worker"]["queues"]["events"]["dropped"] == 0
    assert "display" in counts["sinks"]
    wanted = {"synthesis": "continue", "temperature": 0.5}
    done = submit({"v": 1, "command": "set", "model": "rnn_rbm", "arguments": wanted})
    assert done["ok"], done
    assert [each["stream"] for each in done["applied"]] == [
        "lane0",
        "lane1",
        "lane2",
    ]
    assert done["options"]["temperature"] == 0.5
    wrong = submit({"v": 1, "command": "set", "arguments": {"x": 1}, "model": 1})
    assert not wrong["ok"]
    assert "unknown option 'x'" in wrong["error"]
    missing = submit({**STATUS, "lane": "lane7"})
    assert "there is no lane 'lane7' (there is: 'lane0', 'lane1'" in missing["error"]
    one = submit({**STATUS, "lane": "lane2"})
    assert [lane["lane"] for lane in one["lanes"]] == ["lane2"]
    stays = submit({"v": 1, "command": "swap", "arguments": {"shadow": True}})
    assert "workers: 1" in stays["error"]
    swap = {"v": 1, "command": "swap", "arguments": {"shadow_s": 0.3}}
    assert submit(swap)["ok"]
    assert not submit(swap)["ok"]  # one is under way
    until(lambda: (submit(STATUS)["swap"] or {}).get("state") == "swapped")
    swaps = [
        m for m in sink.messages if m.kind == "control" and m.event.command == "swap"
    ]
    assert {m.info.stream for m in swaps} == {"lane0", "lane1", "lane2"}
    refused = submit({"v": 1, "command": "swap", "arguments": {"min_agreement": 2}})
    assert not refused["ok"]
    stopped = submit({"v": 1, "command": "stop"})
    assert [each["stream"] for each in stopped["applied"]] == [
        "lane0",
        "lane1",
        "lane2",
    ]
    assert outcome().exit_code == 0


def test_ctrl_c_to_the_whole_group_ends_all_processes_in_order(folder, tmp_path):
    sinks = [
        {"plugin": "journal", "options": {"path": str(tmp_path / "run.sqlite")}},
        {"plugin": "jsonl", "options": {"path": "-"}, "events": ["stats", "onset"]},
    ]
    lanes = [live_lane(folder, number) for number in range(2)]
    path = config(tmp_path, lanes, sinks=sinks, workers=2)
    with running("run", path, start_new_session=True) as process:
        found, onsets = {}, 0
        while len(found) < 2 or onsets < 3:
            event = json.loads(process.stdout.readline())
            onsets += event["kind"] == "onset"
            if event["kind"] == "stats":
                found[event["stream"]] = event["values"]["worker"]["pid"]
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "error" not in err.lower()
    assert len(set(found.values())) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found.values()))
    found = rows(tmp_path / "run.sqlite")
    for stream in ("lane0", "lane1"):
        kinds = [row[0] for row in found if row[1] == stream]
        assert kinds.count("onset") == kinds.count("offset") > 0
        assert kinds.count("control") == 1  # where it was stopped


def test_processes_end_with_a_main_process_that_is_killed(folder, tmp_path):
    sinks = [{"plugin": "jsonl", "options": {"path": "-"}, "events": ["stats"]}]
    lanes = [live_lane(folder, number) for number in range(2)]
    path = config(tmp_path, lanes, sinks=sinks, workers=2)
    with running("run", path) as process:
        found = set()
        while len(found) < 2:
            values = json.loads(process.stdout.readline())["values"]
            found.add(values["worker"]["pid"])
        process.kill()
        process.wait(PATIENCE_S)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in found))


def test_recordings_of_a_folder_count_as_taken_once_the_sinks_have_them(
    folder, tmp_path, quiet
):
    def lanes():
        for number in range(2):
            inbox = tmp_path / f"inbox{number}"
            inbox.mkdir(exist_ok=True)
            for copy in range(3):
                target = inbox / f"{number}-{copy}.wav"
                target.write_bytes((folder / f"r{number}.wav").read_bytes())
            options = {"path": str(inbox), "follow": False, "settle_s": 0}
            yield {
                "name": f"lane{number}",
                "source": {"plugin": "folder", "options": options},
                "detector": {"plugin": "energy", "options": {"low_hz": 500}},
            }

    journal = {"plugin": "journal", "options": {"path": str(tmp_path / "a.sqlite")}}
    path = config(tmp_path, list(lanes()), sinks=[journal], workers=2)
    first = Runner(plan_of(locate_config(path))).run()
    assert (first.exit_code, first.streams) == (0, 6)
    n_rows = len(rows(tmp_path / "a.sqlite"))
    assert n_rows > 12
    again = Runner(plan_of(locate_config(path))).run()
    assert (again.exit_code, again.streams) == (0, 0)
    assert len(rows(tmp_path / "a.sqlite")) == n_rows


def test_a_lane_that_cannot_begin_is_refused_before_a_sink_opens(folder, tmp_path):
    out = tmp_path / "all.jsonl"
    lanes = [file_lane(folder, tmp_path, 0), file_lane(folder, tmp_path, 1)]
    sinks = [{"plugin": "jsonl", "options": {"path": str(out)}}]
    path = config(folder, lanes, sinks=sinks, workers=2)
    plan = plan_of(locate_config(path))
    recording = folder / "r1.wav"
    kept = recording.read_bytes()
    recording.unlink()
    try:
        with pytest.raises(Exception, match=r"r1\.wav"):
            Runner(plan).run()
    finally:
        recording.write_bytes(kept)
    assert not out.exists()


def test_check_names_what_cannot_be_spread(folder):
    lane = live_lane(folder, 0)
    fault = {"fault": "crash", "at_s": 1.0, "stage": "energy"}
    path = config(folder, [lane], sinks=SILENT, workers=2, faults=[fault])
    with pytest.raises(ConfigError, match="workers: faults are injected into a run of"):
        plan_of(locate_config(path))
    stdin = {**lane, "source": {"plugin": "pipe", "options": {"sample_rate": RATE}}}
    path = config(folder, [stdin], sinks=SILENT, workers=2)
    with pytest.raises(ConfigError, match="reads standard input, which only one"):
        plan_of(locate_config(path))


def test_messages_cross_with_all_that_they_are_made_of():
    info = StreamInfo("a", RATE, 1, (2,), 1.5)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    events = [Onset(1, 2, 3.0), Anchor(1, 2), Stats({"a": 1}), Gap(1, 2, "x")]
    sent = [Message(info, event, 1, 2, 3, Ledger(1, 2, 3), 4) for event in events]
    sent += [Message(info, Frames(1, 2, 3, values), 0, 0), ("ended", 0, ["a"])]
    got = loads(bytes(dumps(sent)))
    assert got[:4] == sent[:4]
    assert got[5] == sent[5]
    assert (got[0].info.numbers, got[0].info.duration_s) == ((2,), 1.5)
    assert np.array_equal(got[4].event.values, values)
    (block,) = loads(bytes(dumps([Block(3, values, 7)])))
    assert (block.start, block.arrived_ns) == (3, 7)


def test_errors_cross_as_errors_of_the_engine():
    config = unpack_error(pack_error(ConfigError(["one", "two"])))
    assert isinstance(config, ConfigError)
    assert config.problems == ["one", "two"]
    stage = unpack_error(pack_error(StageError("it failed", "energy")))
    assert (str(stage), stage.stage) == ("it failed", "energy")
    assert isinstance(unpack_error(pack_error(DeviceError("gone"))), DeviceError)
    assert str(unpack_error(pack_error(ValueError("x")))) == "ValueError: x"
