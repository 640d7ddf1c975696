"""Journal sink: committed events are on disk, and other files are never changed."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from repository import import_path
from stages.journals import INFO, build, count, frames, label, write

from neurovocal.engine.contracts.clock import ManualClock, SystemClock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import (
    Anchor,
    Message,
)
from neurovocal.engine.journal import read_events, runs
from neurovocal.engine.testing import check_sink
from neurovocal.engine.wire.codec import event_json
from neurovocal.plugins.sinks.journal import JournalOptions, plugin


def test_is_installed_under_its_name() -> None:
    assert Registry().get("sink", "journal") is plugin


def test_keeps_the_contract_of_sinks(tmp_path: Path) -> None:
    check_sink(lambda: build(tmp_path / "j.sqlite"), [label(0), frames(0)])


def test_written_events_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    messages = [label(0), frames(0), label(1), Message(INFO, Anchor(5, 77), 0, 5)]
    write(path, messages)
    events = list(read_events(path))
    assert [(e.kind, e.stream, e.seq) for e in events] == [
        ("label", "aviary-3", 0),
        ("frames", "aviary-3", 0),
        ("label", "aviary-3", 1),
        ("anchor", "aviary-3", 0),
    ]
    assert [e.header for e in events] == [event_json(m) for m in messages]
    assert np.frombuffer(events[1].payload, "<f4").tolist() == [1.0] * 6
    (record,) = runs(path)
    assert (record.run, record.config) == ("run-1", "version: 1\n")
    assert record.version


def test_run_utc_and_latency_are_columns_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    write(path, [label(0)])
    connection = sqlite3.connect(path)
    query = "SELECT sample, utc_ns, latency, header FROM messages"
    sample, utc_ns, latency, header = connection.execute(query).fetchone()
    connection.close()
    assert (sample, utc_ns) == (0, 1000)
    assert json.loads(latency)["compute_ms"] == 3.0
    assert not {"run", "utc_ns", "latency"} & set(json.loads(header))


def test_each_run_is_added_to_the_same_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    write(path, [label(0), label(1)], "first")
    write(path, [label(0, posterior=0.25)], "second")
    assert [record.run for record in runs(path)] == ["first", "second"]
    assert len(list(read_events(path, "first"))) == 2
    (newest,) = read_events(path)
    assert json.loads(newest.header)["posterior"] == 0.25


def test_single_event_is_committed_at_once_a_burst_within_the_window(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j.sqlite"
    clock = ManualClock(utc_ns=1_700_000_000_000_000_000)
    sink = build(path, clock=clock, commit_ms=200)
    sink.open()
    clock.advance(1.0)
    sink.write(label(0))
    assert count(path) == 1
    clock.advance(0.1)
    sink.write(label(1))
    assert count(path) == 1
    clock.advance(0.1)
    sink.write(label(2))
    assert count(path) == 3
    sink.write(label(3))
    sink.flush(1.0)
    assert count(path) == 4
    assert (sink.stats()["written"], sink.stats()["waiting"]) == (4, 0)
    sink.close()


def test_long_burst_is_committed_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    sink = build(path, clock=ManualClock(), commit_ms=60000)
    sink.open()
    for seq in range(2500):
        sink.write(label(seq))
    assert count(path) == 2000
    sink.close()
    assert count(path) == 2500


def test_committed_events_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    script = f"""
import os, sys
sys.path[:0] = {import_path(__file__).split(":")!r}
from pathlib import Path
from stages.journals import build, label
sink = build(Path({str(path)!r}), commit_ms=0)
sink.open()
for seq in range(5):
    sink.write(label(seq))
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""
    process = subprocess.run([sys.executable, "-c", script], check=False)
    assert process.returncode == -signal.SIGKILL
    assert [event.seq for event in read_events(path)] == list(range(5))
    write(path, [label(0)], "after")
    assert [record.run for record in runs(path)] == ["run-1", "after"]


def test_journal_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    sink = build(path, commit_ms=0)
    sink.open()
    sink.write(label(0))
    events = read_events(path)
    assert next(events).seq == 0
    sink.write(label(1))
    assert list(events) == []  # a reader sees the state it began with
    assert len(list(read_events(path))) == 2
    sink.close()


def test_failed_commit_loses_only_the_event_that_raised(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    clock = ManualClock()
    sink = build(path, clock=clock)
    sink.open()
    sink.write(label(0))
    # Another program breaks the table, then repairs it.
    other = sqlite3.connect(path)
    other.execute("ALTER TABLE messages RENAME TO hidden")
    clock.advance(1.0)
    with pytest.raises(StageError, match="cannot be written"):
        sink.write(label(1))
    other.execute("ALTER TABLE hidden RENAME TO messages")
    other.close()
    sink.close()
    sink.open()  # as the engine does when `on_error` says restart
    sink.write(label(2))
    sink.close()
    assert [event.seq for event in read_events(path)] == [0, 2]


@pytest.mark.parametrize(
    "content", [b"file,onset_s\n", b"SQLite format 3\0" + b"\0" * 200, b"x"]
)
def test_file_that_is_no_journal_is_refused_and_unchanged(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    for use in (build(path).open, lambda: runs(path), lambda: read_events(path)):
        with pytest.raises(ConfigError, match="is not a journal"):
            list(use() or ())
    options, context = JournalOptions(path=str(path)), BuildContext(SystemClock(), "r")
    (problem,) = plugin.check(options, context)
    assert "is not a journal" in problem
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["other"]


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE messages (text)")
    connection.commit()
    connection.close()
    with pytest.raises(ConfigError, match="is not a journal"):
        build(path).open()


def test_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    write(path, [label(0)])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(ConfigError, match="version 3, this program knows 1 to 2"):
        build(path).open()


def test_empty_file_becomes_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.touch()
    write(path, [label(0)])
    assert len(list(read_events(path))) == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/such/j.sqlite", "does not exist"),
        ("", "it is a folder"),
        ("-", "is a file"),
    ],
)
def test_unwritable_paths_are_refused(tmp_path: Path, name: str, sentence: str) -> None:
    options = JournalOptions(path=name if name == "-" else str(tmp_path / name))
    (problem,) = plugin.check(options, BuildContext(SystemClock(), "run"))
    assert sentence in problem
    if name != "-":
        with pytest.raises(ConfigError, match=r"cannot be|a journal is a file"):
            build(tmp_path / name).open()


def test_unreadable_journals_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with pytest.raises(ConfigError, match="does not exist"):
        runs(path)
    write(path, [label(0)])
    with pytest.raises(ConfigError, match=r"no run 'other' \(it has: run-1\)"):
        read_events(path, "other")


def test_damaged_journal_raises_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    write(path, [label(seq) for seq in range(500)])
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(path.stat().st_size - 100))
    with pytest.raises(ConfigError, match=r"j\.sqlite' is damaged"):
        list(read_events(path))


def test_two_sinks_with_one_path_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    detour = tmp_path / "x" / ".." / "j.sqlite"
    assert plugin.resources(JournalOptions(path=str(path))) == plugin.resources(
        JournalOptions(path=str(detour))
    )
