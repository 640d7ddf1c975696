"""Parquet tables of the columns sink: whatever kills a run, its rows are in a table."""

import json
import signal
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes.failing_disks import INFO, deliver, label, no_file_above
from repository import import_path

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import NeurovocalError, StageError
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
    """What is in the file of rows while a run goes on."""
    sink = build(folder)
    sink.open()
    for number in numbers:
        sink.write(label(number))
    left = (folder / "t.parquet.rows").read_bytes()
    sink.close()
    return left


def rows(path: Path) -> list[tuple[str, int]]:
    table = parquet.read_table(path)
    return list(zip(table["run"].to_pylist(), table["seq"].to_pylist(), strict=True))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def seqs_in(lines: bytes) -> list[int]:
    """Rows that can be read, one by one, with nothing but the standard library."""
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
def test_a_kill_costs_at_most_the_line_that_it_cut(
    tmp_path_factory: pytest.TempPathFactory,
    group: int,
    before: int,
    after: int,
    cut: float,
    torn: bytes,
) -> None:
    folder = tmp_path_factory.mktemp("kill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_file, "_GROUP", group)
        whole = rows_left_by_a_kill(tmp_path_factory.mktemp("whole"), range(before))
        left = whole[: round(cut * len(whole))]
        # Behind it a loss of power may leave anything that is not itself a row.
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
from test_columns import build, label

def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

sink = build(Path(sys.argv[2]))
sink.open()
for number in range(25):
    sink.write(label(number))
if sys.argv[3] == "run":
    die()
if sys.argv[3] == "footer":
    import pyarrow.parquet
    pyarrow.parquet.ParquetWriter.close = die
if sys.argv[3] == "sync":
    os.fsync = die
if sys.argv[3] == "removal":
    Path.unlink = die
if sys.argv[3] == "name":
    Path.replace = die
sink.close()
"""


@pytest.mark.parametrize("moment", ["run", "footer", "sync", "removal", "name"])
def test_killed_at_any_moment_no_row_is_lost_or_doubled(
    tmp_path: Path, moment: str
) -> None:
    where = [import_path(__file__), str(tmp_path), moment]
    done = subprocess.run([sys.executable, "-c", KILLED, *where], timeout=100)
    assert done.returncode == -signal.SIGKILL
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


def test_half_a_table_without_its_rows_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".t.parquet.part").write_bytes(b"half a table")
    write(tmp_path, range(2))
    assert rows(tmp_path / "t.parquet") == [("run1", 0), ("run1", 1)]
    assert names(tmp_path) == ["t.parquet"]


def test_rows_of_other_kinds_keep_their_columns(tmp_path: Path) -> None:
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


def test_the_last_of_two_writers_makes_the_table(tmp_path: Path) -> None:
    """A sink that hangs is replaced by another in the same process."""
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


def test_a_table_that_the_full_disk_refuses_is_made_by_the_next_run(
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
    write(tmp_path, range(1), "run2")
    assert rows(tmp_path / "t.parquet") == [
        *(("run1", seq) for seq in range(20)),
        ("run2", 0),
    ]


def test_a_disk_that_fails_for_a_while_leaves_one_table(tmp_path: Path) -> None:
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


def test_a_sink_that_ends_twice_replaces_nothing_of_its_own(tmp_path: Path) -> None:
    sink = build(tmp_path)
    for number in range(2):
        sink.open()
        sink.write(label(number))
        sink.close()
    assert rows(tmp_path / "t.parquet") == [("run1", 0)]
    assert rows(tmp_path / "t-2.parquet") == [("run1", 1)]


def test_what_a_kill_left_is_caught_up_with_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = rows_left_by_a_kill(tmp_path, range(2000))
    (tmp_path / "t.parquet.rows").write_bytes(left)
    monkeypatch.setattr(parquet_file, "_GROUP", 100)
    part, sizes = tmp_path / ".t.parquet.part", []
    sink = build(tmp_path, "run2")
    sink.open()
    assert not part.exists()  # the run begins at once
    for number in range(25):
        sink.write(label(number))
        sizes.append(part.stat().st_size)
    # A group with each row, until nothing but the newest rows wait.
    growths = [after > before for before, after in pairwise(sizes)]
    assert growths == [True] * 19 + [False] * 5
    sink.close()
    assert len(rows(tmp_path / "t.parquet")) == 2025


def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_file, "_GROUP", 200)
    write(tmp_path, range(500))  # what is imported and cached
    tracemalloc.start()
    try:
        write(tmp_path, range(8000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000 < 8000 * 200


def test_a_name_that_is_no_utf8_is_told_as_well_as_it_can_be(tmp_path: Path) -> None:
    sink = build(tmp_path)
    sink.open()
    info = StreamInfo("caf\udce9.wav", 1000)
    sink.write(Message(info, label(0).event, 0, 0))
    sink.close()
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table["stream"].to_pylist() == ["caf\ufffd.wav"]
