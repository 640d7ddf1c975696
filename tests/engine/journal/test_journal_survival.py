"""Journal: power failure, damage, full disks, retention, older versions."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stages.journals import build, count, label, write

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.types import Message
from neurovocal.engine.journal.store import (
    is_journal,
    open_journal,
    read_events,
    runs,
)

DAY_NS = 86_400 * 10**9
NOW_NS = 1_700_000_000_000_000_000


def seqs(path: Path, run: str | None = None) -> list[int]:
    return [event.seq for event in read_events(path, run)]


@pytest.fixture(scope="module")
def log_of_commits(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, bytes, list[int]]:
    """Return a journal, its write-ahead log, and the log's length after each commit."""
    folder = tmp_path_factory.mktemp("power")
    path = folder / "j.sqlite"
    write(path, [], "before")
    sink = build(path, "torn", commit_ms=0)
    sink.open()
    lengths = []
    for seq in range(12):
        sink.write(label(seq))
        lengths.append((folder / "j.sqlite-wal").stat().st_size)
    copy = folder / "copy.sqlite"
    shutil.copyfile(path, copy)
    log = (folder / "j.sqlite-wal").read_bytes()
    sink.close()
    return copy, log, lengths


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(cut=st.floats(0, 1), torn=st.binary(max_size=4096))
def test_a_power_failure_at_any_byte_loses_only_uncommitted_events(
    tmp_path: Path,
    log_of_commits: tuple[Path, bytes, list[int]],
    cut: float,
    torn: bytes,
) -> None:
    # What was synchronised is on the disk; behind it may stand anything: a part of
    # the next commit, or what the disk held before.
    copy, log, lengths = log_of_commits
    path = tmp_path / "j.sqlite"
    shutil.copyfile(copy, path)
    stop = lengths[0] + round(cut * (len(log) - lengths[0]))
    (tmp_path / "j.sqlite-wal").write_bytes(log[:stop] + torn)
    (tmp_path / "j.sqlite-shm").unlink(missing_ok=True)
    write(path, [label(0)], "after")
    committed = sum(length <= stop for length in lengths)
    found = seqs(path, "torn")
    assert found == list(range(len(found)))
    assert committed <= len(found) <= committed + 1
    assert seqs(path, "after") == [0]


# What people do with a journal that an engine is writing: look into it.
LOOK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM runs").fetchone()
connection.close()
"""


def test_another_program_never_removes_the_log_of_a_journal_that_is_read_and_written(
    tmp_path: Path,
) -> None:
    # The kernel releases a process's locks on a file when the process closes any
    # descriptor of it: a request to the replay socket must not do that.
    path = tmp_path / "j.sqlite"
    sink = build(path, "run", commit_ms=0)
    sink.open()
    for seq in range(4):
        sink.write(label(seq))
        assert seqs(path) == list(range(seq + 1))
        assert is_journal(path)
        subprocess.run([sys.executable, "-c", LOOK, path], check=True)
        assert (tmp_path / "j.sqlite-wal").stat().st_size
    sink.close()
    assert seqs(path) == [0, 1, 2, 3]


def test_reading_a_closed_journal_leaves_no_file_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    write(path, [label(0)])
    content, status = path.read_bytes(), path.stat()
    assert seqs(path) == [0]
    assert [each.name for each in tmp_path.iterdir()] == ["j.sqlite"]
    assert path.read_bytes() == content
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def test_reading_leaves_the_log_of_a_killed_engine_as_it_is(
    tmp_path: Path, log_of_commits: tuple[Path, bytes, list[int]]
) -> None:
    copy, log, _ = log_of_commits
    path, log_path = tmp_path / "j.sqlite", tmp_path / "j.sqlite-wal"
    shutil.copyfile(copy, path)
    log_path.write_bytes(log)
    assert seqs(path, "torn") == list(range(12))
    assert path.read_bytes() == copy.read_bytes()
    assert log_path.read_bytes() == log


def test_a_journal_is_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in (
        (tmp_path, "a folder"),
        (tmp_path / "pipe", "a pipe or device"),
        (Path("/dev/null"), "a pipe or device"),
    ):
        with pytest.raises(ConfigError, match=f"is {kind}, and a journal is a file"):
            is_journal(path)


def test_every_commit_is_synchronized_by_default(tmp_path: Path) -> None:
    connection = open_journal(tmp_path / "j.sqlite")
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_journal_of_version_1_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    write(path, [label(0)], "old")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("ALTER TABLE runs DROP COLUMN ended_utc_ns")
        connection.execute("ALTER TABLE runs DROP COLUMN removed")
        connection.execute("PRAGMA user_version = 1")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert [r.run for r in runs(path)] == ["old"]  # can be read as it is
    write(path, [label(0)], "new")
    old, new = runs(path)
    assert (old.ended_utc_ns, old.removed) == (None, 0)
    assert new.ended_utc_ns is not None
    assert (seqs(path, "old"), seqs(path, "new")) == ([0], [0])


def test_a_killed_run_has_no_end_time(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    sink = build(path, commit_ms=0)
    sink.open()
    sink.write(label(0))
    (record,) = runs(path)
    assert record.ended_utc_ns is None
    sink.close()
    (record,) = runs(path)
    assert record.ended_utc_ns is not None
    assert record.ended_utc_ns >= record.started_utc_ns


def test_a_damaged_journal_is_set_aside_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "j.sqlite"
    write(path, [label(seq) for seq in range(500)])
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = os.urandom(len(damaged) - 4096)
    path.write_bytes(damaged)
    write(path, [label(0)], "after")
    assert seqs(path) == [0]
    (aside,) = tmp_path.glob("j.damaged-*.sqlite")
    assert aside.read_bytes() == damaged
    assert "is damaged" in caplog.text
    assert aside.name in caplog.text


def test_events_above_the_age_limit_are_removed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    clock = ManualClock(utc_ns=NOW_NS)
    old = [label_at(seq, NOW_NS - 3 * DAY_NS) for seq in range(5000)]
    young = [label_at(seq, NOW_NS) for seq in range(5000, 5010)]
    sink = build(path, clock=clock, keep_days=2.0, commit_ms=60000)
    sink.open()
    for message in [*old, *young]:
        sink.write(message)
    for _ in range(4):
        clock.advance(11)
        sink.flush(1.0)
    assert seqs(path) == list(range(5000, 5010))
    assert sink.stats()["removed"] == 5000
    sink.close()
    (record,) = runs(path)
    assert record.removed == 5000


def test_the_oldest_events_are_removed_above_the_size_limit(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    clock = ManualClock(utc_ns=NOW_NS)
    sink = build(path, clock=clock, keep_mb=1.0, commit_ms=60000)
    sink.open()
    for seq in range(20_000):
        sink.write(label(seq))
        if seq % 500 == 499:
            clock.advance(11)
            sink.flush(1.0)
    kept = seqs(path)
    assert kept == list(range(kept[0], 20_000))
    assert sink.stats()["removed"] == kept[0] > 0
    sink.close()
    assert path.stat().st_size <= 1.5 * 2**20
    assert len(kept) > 1000


def test_without_a_limit_nothing_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    clock = ManualClock(utc_ns=NOW_NS)
    sink = build(path, clock=clock)
    sink.open()
    sink.write(label_at(0, 0))
    clock.advance(100 * 86_400)
    sink.flush(1.0)
    assert seqs(path) == [0]
    sink.close()


def test_a_deleted_journal_is_detected_and_created_again(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    path = folder / "j.sqlite"
    sink = build(path, commit_ms=0)
    sink.open()
    sink.write(label(0))
    shutil.rmtree(folder)
    with pytest.raises(StageError, match="was deleted while it was written"):
        sink.write(label(1))
    with pytest.raises(StageError):
        sink.close()
    sink.open()
    sink.write(label(1))
    sink.close()
    assert seqs(path) == [1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        subprocess.run(["mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_only_the_events_that_are_reported(small_disk: Path) -> None:
    path = small_disk / "j.sqlite"
    ballast = small_disk / "ballast"
    sink = build(path, commit_ms=0)
    sink.open()
    for seq in range(5):
        sink.write(label(seq))
    fill(ballast)
    refused = []
    for seq in range(5, 200):
        try:
            sink.write(label(seq))
        except StageError:
            refused.append(seq)
    assert refused
    ballast.unlink()
    sink.write(label(200))
    sink.close()
    assert sorted([*seqs(path), *refused]) == list(range(201))


def test_a_read_only_disk_is_an_error_until_it_is_writable(small_disk: Path) -> None:
    path = small_disk / "j.sqlite"
    sink = build(path, commit_ms=0)
    sink.open()
    sink.write(label(0))
    sink.close()
    remount(small_disk, "ro")
    with pytest.raises(ConfigError, match="cannot be written"):
        sink.open()
    remount(small_disk, "rw")
    sink.open()
    sink.write(label(1))
    sink.close()
    assert seqs(path) == [0, 1]
    assert count(path) == 2


def label_at(seq: int, utc_ns: int) -> Message:
    return replace(label(seq), utc_ns=utc_ns)


def fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(folder)], check=True)
