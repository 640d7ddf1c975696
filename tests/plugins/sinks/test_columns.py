"""Parquet tables of the columns sink: no kill and no failing disk loses a row."""

import json
import os
import signal
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from errno import EIO, ENOSPC
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes.failing_disks import INFO, deliver, label, no_file_above
from processes.waiting import PROCESS_S
from repository import import_path

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import (
    ConfigError,
    NeurovocalError,
    StageError,
)
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Gap, Message, StreamInfo
from neurovocal.plugins.sinks.columns import parquet as parquet_file

parquet = pytest.importorskip("pyarrow.parquet")


def build(folder: Path, run: str = "run1", kinds: tuple[str, ...] = ("label",)) -> Any:
    plugin = Registry().get("sink", "columns")
    options = {"path": str(folder / "t.parquet"), "format": "parquet", "kinds": kinds}
    context = BuildContext(ManualClock(), run)
    return plugin.build(plugin.options.model_validate(options), context)


def write(folder: Path, numbers: range, run: str = "run1") -> None:
    sink = build(folder, run)
    sink.open()
    for number in numbers:
        sink.write(label(number))
    sink.close()


def rows_left_by_a_kill(folder: Path, numbers: range) -> bytes:
    """Return the file of rows of a run that has not ended."""
    sink = build(folder)
    sink.open()
    for number in numbers:
        sink.write(label(number))
    left = (folder / "t.parquet.rows").read_bytes()
    sink.close()
    (folder / "t.parquet").unlink()
    return left


def rows(path: Path) -> list[tuple[str, int]]:
    table = parquet.read_table(path)
    return list(zip(table["run"].to_pylist(), table["seq"].to_pylist(), strict=True))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def seqs_in(lines: bytes) -> list[int]:
    """Return the numbers of all rows that the standard library can read."""
    found = []
    for line in lines.decode(errors="replace").split("\n"):
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and "seq" in row:
                found.append(row["seq"])
    return found


@settings(max_examples=40, deadline=None)
@given(
    group=st.integers(1, 9),
    before=st.integers(0, 12),
    after=st.integers(0, 12),
    cut=st.floats(0, 1),
    torn=st.binary(max_size=60),
)
def test_truncated_rows_lose_at_most_the_last_line(
    tmp_path_factory: pytest.TempPathFactory,
    group: int,
    before: int,
    after: int,
    cut: float,
    torn: bytes,
) -> None:
    folder = tmp_path_factory.mktemp("kill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_file, "BATCH_ROWS", group)
        whole = rows_left_by_a_kill(tmp_path_factory.mktemp("whole"), range(before))
        left = whole[: round(cut * len(whole))]
        # A loss of power may leave bytes behind it, which are not a row.
        damaged = left + torn.replace(b"}", b"?")
        (folder / "t.parquet.rows").write_bytes(damaged)
        write(folder, range(after), "run2")
    expected = seqs_in(damaged)
    assert len(expected) >= left.count(b"\n") - 1  # its first line is the head
    assert rows(folder / "t.parquet") == [
        *(("run1", seq) for seq in expected),
        *(("run2", seq) for seq in range(after)),
    ]
    assert names(folder) == ["t.parquet"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import pyarrow.parquet
from test_columns import build, label

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

sink = build(Path(sys.argv[2]))
sink.open()
for number in range(25):
    sink.write(label(number))

steps = {
    "table": (pyarrow.parquet.ParquetWriter, "write_table"),
    "footer": (pyarrow.parquet.ParquetWriter, "close"),
    "sync": (os, "fsync"),
    "removal": (Path, "unlink"),
    "name": (Path, "replace"),
}
calls = 0

def counted(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if str(calls) == sys.argv[3]:
            die()
        return function(*arguments, **options)
    return call

if sys.argv[3] == "run":
    die()
for name, (owner, method) in steps.items():
    function = die if sys.argv[3] == name else counted(getattr(owner, method))
    setattr(owner, method, function)
sink.close()
"""


def kill_a_run(folder: Path, moment: str) -> int:
    """Write 25 rows as ``run1`` and kill the process; return its exit status.

    `moment` is a step of `KILLED`, or the number of the step during `close`.
    """
    where = [import_path(__file__), str(folder), moment]
    done = subprocess.run([sys.executable, "-c", KILLED, *where], timeout=PROCESS_S)
    return done.returncode


@pytest.mark.parametrize("moment", ["run", "footer", "sync", "removal", "name"])
def test_kill_at_any_moment_loses_or_doubles_no_row(
    tmp_path: Path, moment: str
) -> None:
    assert kill_a_run(tmp_path, moment) == -signal.SIGKILL
    sink = build(tmp_path, "run2")
    sink.open()
    killed = [("run1", seq) for seq in range(25)]
    if moment == "name":  # it had ended: its table is whole
        assert rows(tmp_path / "t.parquet") == killed
        (tmp_path / "t.parquet").rename(tmp_path / "first.parquet")
        killed = []
    sink.write(label(99))
    sink.close()
    assert rows(tmp_path / "t.parquet") == [*killed, ("run2", 99)]
    assert {".t.parquet.part", "t.parquet.rows"}.isdisjoint(names(tmp_path))


def test_three_runs_add_their_rows_to_one_table(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, range(10), f"run{number}")
    assert rows(tmp_path / "t.parquet") == [
        (f"run{number}", seq) for number in range(3) for seq in range(10)
    ]
    assert names(tmp_path) == ["t.parquet"]


@pytest.mark.parametrize("group", range(3))
def test_second_of_three_runs_killed_at_each_step_of_close(
    tmp_path: Path, group: int
) -> None:
    """The three groups together kill a run at every step of `close`."""
    for step in count(1 + group, 3):
        folder = tmp_path / str(step)
        folder.mkdir()
        write(folder, range(5), "run0")
        status = kill_a_run(folder, str(step))
        present = rows(folder / "t.parquet")
        assert present[:5] == [("run0", seq) for seq in range(5)]
        assert len(present) in (5, 30)  # the old table or the new one
        write(folder, range(5), "run2")
        assert rows(folder / "t.parquet") == [
            *(("run0", seq) for seq in range(5)),
            *(("run1", seq) for seq in range(25)),
            *(("run2", seq) for seq in range(5)),
        ]
        assert names(folder) == ["t.parquet"]
        if status == 0:  # all steps were done
            assert step > 8
            return
        assert status == -signal.SIGKILL


def test_rows_of_a_killed_run_are_converted_when_the_next_run_opens(
    tmp_path: Path,
) -> None:
    left = rows_left_by_a_kill(tmp_path, range(3))
    write(tmp_path, range(2), "run0")
    (tmp_path / "t.parquet.rows").write_bytes(left)
    sink = build(tmp_path, "run2")
    sink.open()
    assert [seq for _, seq in rows(tmp_path / "t.parquet")] == [0, 1, 0, 1, 2]
    sink.close()
    assert names(tmp_path) == ["t.parquet"]


def test_a_run_without_rows_does_not_touch_the_table(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    before = (tmp_path / "t.parquet").stat()
    (tmp_path / ".t.parquet.part").write_bytes(b"PAR1 half a table")
    (tmp_path / "t.parquet.rows").touch()
    write(tmp_path, range(0), "run2")
    after = (tmp_path / "t.parquet").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names(tmp_path) == ["t.parquet"]


def test_a_first_run_without_rows_writes_an_empty_table(tmp_path: Path) -> None:
    write(tmp_path, range(0))
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table.num_rows == 0
    assert "unit" in table.column_names


def other_table(path: Path, *, same_names: bool) -> None:
    """Write a Parquet file that no run has written."""
    import pyarrow

    columns = ["run", "stream", "kind", "seq", "utc", "sample_rate", "sample"]
    columns += ["sample_s"] if same_names else []
    parquet.write_table(pyarrow.table({name: ["x"] for name in columns}), path)


def test_file_that_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"my notes")
    with pytest.raises(ConfigError, match="exists and is a text file"):
        build(tmp_path)
    assert path.read_bytes() == b"my notes"


@pytest.mark.parametrize("other", ["other columns", "other types"])
def test_file_that_is_no_event_table_is_set_aside(
    tmp_path: Path, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "t.parquet"
    other_table(path, same_names=other == "other types")
    content = path.read_bytes()
    sink = build(tmp_path)
    sink.open()
    sink.write(label(0))
    assert path.read_bytes() == content
    sink.close()
    assert (tmp_path / "t.1.left.parquet").read_bytes() == content
    assert rows(path) == [("run1", 0)]
    assert "is now 't.1.left.parquet'" in caplog.text


def test_table_that_cannot_be_read_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, range(3))
    content = (tmp_path / "t.parquet").read_bytes()
    sink = build(tmp_path, "run2")
    sink.open()
    sink.write(label(0))
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "read_schema", failing_disk)
        with pytest.raises(StageError, match=r"kept in 't.parquet.rows'"):
            sink.close()
    assert (tmp_path / "t.parquet").read_bytes() == content
    write(tmp_path, range(1), "run3")
    assert [run for run, _ in rows(tmp_path / "t.parquet")] == [
        *["run1"] * 3,
        "run2",
        "run3",
    ]
    assert names(tmp_path) == ["t.parquet"]


def test_table_that_is_replaced_during_the_conversion_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    write(tmp_path, range(3))
    sink = build(tmp_path, "run2")
    sink.open()
    sink.write(label(0))
    write_table = parquet.ParquetWriter.write_table

    def replace_table(*arguments: Any) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(b"my notes")
        write_table(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(parquet.ParquetWriter, "write_table", replace_table)
        with pytest.raises(StageError, match=r"kept in 't.parquet.rows'"):
            sink.close()
    assert path.read_bytes() == b"my notes"
    assert names(tmp_path) == ["t.parquet", "t.parquet.rows"]


def test_path_that_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.parquet")
    sink = build(tmp_path)
    sink.open()
    sink.write(label(0))
    with pytest.raises(StageError, match=r"no regular file; its rows are kept"):
        sink.close()
    assert (tmp_path / "t.parquet").is_fifo()
    assert seqs_in((tmp_path / "t.parquet.rows").read_bytes()) == [0]


def test_incomplete_part_without_rows_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".t.parquet.part").write_bytes(b"PAR1 half a table")
    write(tmp_path, range(2))
    assert rows(tmp_path / "t.parquet") == [("run1", 0), ("run1", 1)]
    assert names(tmp_path) == ["t.parquet"]


def test_left_rows_of_other_kinds_keep_their_columns(tmp_path: Path) -> None:
    left = rows_left_by_a_kill(tmp_path, range(2))
    (tmp_path / "t.parquet.rows").write_bytes(left)
    sink = build(tmp_path, "run2", ("gap",))
    sink.open()
    sink.write(Message(INFO, Gap(5, 9, "device lost"), 0, 5))
    sink.close()
    found = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["unit"] for row in found] == ["a" * 20, "a" * 20, None]
    assert [row["reason"] for row in found] == [None, None, "device lost"]
    assert [row["sample"] for row in found] == [0, 100, 5]


def test_last_of_two_writers_converts_the_rows(tmp_path: Path) -> None:
    """A hung sink is replaced by another in the same process."""
    hung, new = build(tmp_path), build(tmp_path)
    hung.open()
    hung.write(label(0))
    new.open()
    new.write(label(1))
    hung.close()  # it has returned at last
    assert names(tmp_path) == ["t.parquet.rows"]
    new.write(label(2))
    new.close()
    assert rows(tmp_path / "t.parquet") == [("run1", seq) for seq in range(3)]
    assert names(tmp_path) == ["t.parquet"]


def test_rows_that_a_full_disk_refuses_are_converted_by_the_next_run(
    tmp_path: Path,
) -> None:
    sink = build(tmp_path)
    sink.open()
    for number in range(20):
        sink.write(label(number))
    with (
        no_file_above(1000),
        pytest.raises(StageError, match=r"kept in 't.parquet.rows'"),
    ):
        sink.close()
    assert names(tmp_path) == ["t.parquet.rows"]
    expected = [("run1", seq) for seq in range(20)]
    sink = build(tmp_path, "run2")
    sink.open()
    assert rows(tmp_path / "t.parquet") == expected
    sink.write(label(0))
    sink.close()
    assert rows(tmp_path / "t.parquet") == [*expected, ("run2", 0)]


def test_full_disk_at_open_delays_the_conversion_to_close(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    left = rows_left_by_a_kill(tmp_path, range(20))
    write(tmp_path, range(5), "run0")
    (tmp_path / "t.parquet.rows").write_bytes(left)
    sink = build(tmp_path, "run2")
    with no_file_above(len(left) + 1000), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        sink.open()
        sink.write(label(0))
    assert "kept in 't.parquet.rows' until this run ends" in caplog.text
    assert names(tmp_path) == ["t.parquet", "t.parquet.rows"]
    assert len(rows(tmp_path / "t.parquet")) == 5
    sink.close()
    assert rows(tmp_path / "t.parquet") == [
        *(("run0", seq) for seq in range(5)),
        *(("run1", seq) for seq in range(20)),
        ("run2", 0),
    ]


def failing_disk(path: Path) -> None:
    raise OSError(EIO, os.strerror(EIO))


def full_disk(descriptor: int) -> None:
    raise OSError(ENOSPC, os.strerror(ENOSPC))


def test_temporary_disk_failure_leaves_one_table(tmp_path: Path) -> None:
    sink = build(tmp_path)
    sink.open()
    sink.write(label(0))
    with no_file_above((tmp_path / "t.parquet.rows").stat().st_size):
        with pytest.raises(StageError):
            sink.write(label(1))
        with pytest.raises(NeurovocalError):
            deliver(sink, label(1))
    deliver(sink, label(1))
    sink.close()
    assert rows(tmp_path / "t.parquet") == [("run1", 0), ("run1", 1)]
    assert names(tmp_path) == ["t.parquet"]


def test_sink_that_is_closed_twice_adds_to_its_own_table(tmp_path: Path) -> None:
    sink = build(tmp_path)
    for number in range(2):
        sink.open()
        sink.write(label(number))
        sink.close()
    assert rows(tmp_path / "t.parquet") == [("run1", 0), ("run1", 1)]
    assert names(tmp_path) == ["t.parquet"]


def test_runs_with_different_kinds_share_one_table(tmp_path: Path) -> None:
    write(tmp_path, range(1))
    sink = build(tmp_path, "run2", ("gap",))
    sink.open()
    sink.write(Message(INFO, Gap(5, 9, "device lost"), 0, 5))
    sink.close()
    write(tmp_path, range(1), "run3")
    found = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["unit"] for row in found] == ["a" * 20, None, "a" * 20]
    assert [row["reason"] for row in found] == [None, "device lost", None]


def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "BATCH_ROWS", 200)
    write(tmp_path, range(500))  # imports and caches
    tracemalloc.start()
    try:
        write(tmp_path, range(8000))
        write(tmp_path, range(8000), "run2")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000 < 8000 * 200


def test_name_that_is_not_utf8_is_written_with_replacement_characters(
    tmp_path: Path,
) -> None:
    sink = build(tmp_path)
    sink.open()
    info = StreamInfo("caf\udce9.wav", 1000)
    sink.write(Message(info, label(0).event, 0, 0))
    sink.close()
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table["stream"].to_pylist() == ["caf\ufffd.wav"]
