"""Audit of files after a kill: complete files pass, damaged ones are counted."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes.cli_process import neurovocal
from repository import ROOT

from neurovocal.engine.journal import read_events, runs

pytest.importorskip("pyarrow")
SECONDS, RATE = 6, 32_000


@pytest.fixture(scope="module")
def bench() -> Any:
    """Import the modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench" / "reliability" / "outputs"))
        import torture_files
        from torture_killed import KilledRun, config_text

        # The run of this test ends by itself, and with it the last song.
        whole = torture_files.played(7, SECONDS)
        patch.setattr(torture_files, "played", lambda seed, seconds: whole)
        files = torture_files.SinkFiles
        yield SimpleNamespace(
            SinkFiles=files, KilledRun=KilledRun, config_text=config_text
        )
    for name in ("torture_files", "torture_killed", "disk_audit"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def left(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run an engine for some seconds; return the folder of its files."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "out").mkdir()
    text = bench.config_text(7, 5999, folder / "j.sqlite", folder / "out")
    text = text.replace("realtime", "asap").replace("null", str(SECONDS))
    zmq = next(i for i, line in enumerate(text.splitlines()) if "zmq" in line)
    lines = text.splitlines()
    (folder / "c.yaml").write_text("\n".join(lines[:zmq] + lines[zmq + 2 :]))
    done = neurovocal("run", str(folder / "c.yaml"))
    assert done.code == 0, done.err
    return folder


def audited(bench: Any, left: Path, damage: Callable[[Path], object]) -> Any:
    """Audit damaged files, as if the run had been killed long after its last event."""
    folder = left.parent / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(left, folder)
    damage(folder / "out")
    files = bench.SinkFiles(folder / "out")
    journal = list(read_events(folder / "j.sqlite"))
    received = [
        SimpleNamespace(kind=e.kind, seq=e.seq, at=SECONDS * RATE, event=None)
        for e in journal
    ]
    (record,) = runs(folder / "j.sqlite")
    files.audit(bench.KilledRun(record.run, journal, received, received, 7))
    files.finish()
    return files


def test_complete_files_pass(bench: Any, left: Path) -> None:
    files = audited(bench, left, lambda out: None)
    assert files.ok(), files.problems
    assert {name for name, count in files.counts.items() if not count.kept} == {"wav"}
    assert files.counts["jsonl"].kept > 30
    assert files.counts["recording"].kept == SECONDS * RATE


def without_line(name: str) -> Callable[[Path], object]:
    def damage(out: Path) -> None:
        lines = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join(lines[:3] + lines[4:]))

    return damage


def with_line_twice(name: str) -> Callable[[Path], object]:
    def damage(out: Path) -> None:
        lines = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join([*lines, lines[-1]]))

    return damage


def cut(pattern: str, n_bytes: int) -> Callable[[Path], object]:
    def damage(out: Path) -> None:
        (path,) = list(out.glob(pattern))[:1]
        path.write_bytes(path.read_bytes()[:-n_bytes])

    return damage


def other_byte(pattern: str) -> Callable[[Path], object]:
    def damage(out: Path) -> None:
        (path,) = list(out.glob(pattern))[:1]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 64
        path.write_bytes(data)

    return damage


def without(*patterns: str) -> Callable[[Path], object]:
    def damage(out: Path) -> None:
        for pattern in patterns:
            sorted(out.glob(pattern))[0].unlink()

    return damage


@pytest.mark.parametrize(
    ("sink", "what", "damage"),
    [
        ("jsonl", "lost", without_line("e.jsonl")),
        ("jsonl", "doubled", with_line_twice("e.jsonl")),
        ("jsonl", "wrong", cut("e.jsonl", 5)),
        ("columns", "lost", without_line("l.csv")),
        ("columns", "doubled", with_line_twice("l.csv")),
        ("columns", "wrong", cut("l.csv", 5)),
        ("table", "lost", without_line("t.csv")),
        ("table", "doubled", with_line_twice("t.csv")),
        ("parquet", "lost", without("l.parquet")),
        ("parquet", "wrong", cut("l.parquet", 5)),
        ("clips", "lost", without("clips/*/*/*.flac", "clips/*/*/*.json")),
        ("clips", "wrong", without("clips/*/*/*.flac")),
        ("clips", "wrong", without("clips/*/*/*.json")),
        ("clips", "wrong", other_byte("clips/*/*/*.flac")),
        ("recording", "wrong", other_byte("r/*.wav")),
        ("recording", "lost", without("r/*.wav")),
        ("wav", "wrong", cut("w/*.wav", 8)),
    ],
)
def test_damaged_files_are_counted(
    bench: Any, left: Path, sink: str, what: str, damage: Callable[[Path], object]
) -> None:
    files = audited(bench, left, damage)
    assert not files.ok()
    assert getattr(files.counts[sink], what), files.counts
