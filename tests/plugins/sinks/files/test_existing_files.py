"""Existing files at the path of an output: kept unless they are of its own kind."""

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes.cli_process import RECORDING, ROOT, neurovocal, running
from stages.journals import label, write

from neurovocal.plugins.storage.file_lock import FileLock

WAV, TEXT, JOURNAL = "recording", "text", "journal"


def make(kind: str, path: Path) -> bytes:
    if kind == WAV:
        soundfile.write(path, np.zeros(800), 8000, format="WAV")
    elif kind == TEXT:
        path.write_text("shopping: milk, bread\n" * 9)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE t (x)")
    return path.read_bytes()


@pytest.mark.parametrize("kind", [WAV, TEXT, JOURNAL])
@pytest.mark.parametrize("form", ["csv", "raven", "audacity", "json"])
def test_a_table_replaces_no_file_of_another_kind(
    tmp_path: Path, kind: str, form: str
) -> None:
    path = tmp_path / "t.csv"
    before = make(kind, path)
    done = neurovocal("detect", RECORDING, "--format", form, "--out", path)
    assert done.code == 1
    assert f"'{path}' exists and is " in done.err
    assert path.read_bytes() == before


@pytest.mark.parametrize("form", ["csv", "raven", "audacity", "json"])
def test_a_table_of_the_same_kind_is_replaced(tmp_path: Path, form: str) -> None:
    path = tmp_path / "t"
    for _ in range(2):
        done = neurovocal("detect", RECORDING, "--format", form, "--out", path)
        assert done.code == 0, done.err
    assert path.stat().st_size > 100


@pytest.mark.parametrize(
    "sink",
    [
        "jsonl, options: {path: t}",
        "jsonl, options: {path: t, append: true}",
        "columns, options: {path: t}",
        "columns, options: {path: t, format: parquet}",
        "trigger, options: {name: x, pattern: a, log: t}",
    ],
)
@pytest.mark.parametrize("kind", [WAV, TEXT, JOURNAL])
def test_check_refuses_a_file_of_another_kind(
    tmp_path: Path, sink: str, kind: str
) -> None:
    before = make(kind, tmp_path / "t")
    config = tmp_path / "c.yaml"
    config.write_text(
        f"version: 1\nsource: {{plugin: file, options: {{path: '{RECORDING}'}}}}\n"
        f"bundle: bengalese-finch\nmodels: [{{plugin: classifier}}]\n"
        f"sinks:\n  - {{plugin: {sink}}}\n"
    )
    done = neurovocal("check", config, cwd=tmp_path)
    assert done.code == 1
    assert f"{config}:6:" in done.err
    assert (tmp_path / "t").read_bytes() == before


@pytest.mark.parametrize("name", ["t.parquet.rows", ".t.parquet.part"])
def test_files_with_the_names_that_parquet_needs_are_kept(
    tmp_path: Path, name: str
) -> None:
    before = make(TEXT, tmp_path / name)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"version: 1\nsource: {{plugin: file, options: {{path: '{RECORDING}'}}}}\n"
        "sinks:\n"
        "  - {plugin: columns, options: {path: t.parquet, format: parquet}}\n"
    )
    assert neurovocal("run", config, cwd=tmp_path).code == 1
    assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("sink", ["recording", "wav"])
def test_sound_with_the_name_of_a_stream_is_set_aside(
    tmp_path: Path, sink: str
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    before = make(WAV, kept / "bengalese-finch.flac.wav")
    samples, rate = soundfile.read(RECORDING, frames=2 * 32_000)
    soundfile.write(tmp_path / RECORDING.name, samples, rate)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"version: 1\nsource: {{plugin: file, options: {{path: {RECORDING.name}}}}}\n"
        "bundle: bengalese-finch\n"
        "models:\n"
        "  - {plugin: rnn_rbm, options: {synthesis: predict, sound: true}}\n"
        f"sinks:\n  - {{plugin: {sink}, options: {{path: kept}}}}\n"
    )
    done = neurovocal("run", config, cwd=tmp_path)
    assert done.code == 0, done.err
    aside = [path for path in kept.iterdir() if path.read_bytes() == before]
    assert [path.name for path in aside] == ["bengalese-finch.flac.1.left.wav"]


def test_a_broken_bundle_or_channel_leaves_the_older_table(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    assert neurovocal("label", RECORDING, "--out", path).code == 0
    before = path.read_bytes()
    done = neurovocal("label", RECORDING, "--out", path, "--channels", "3")
    assert (done.code, path.read_bytes()) == (1, before)
    broken = shutil.copytree(ROOT / "models/pretrained/bengalese-finch", tmp_path / "b")
    (broken / "classifier.onnx").write_bytes(b"broken")
    done = neurovocal("label", RECORDING, "--out", path, "--bundle", broken)
    assert (done.code, path.read_bytes()) == (1, before)
    new = tmp_path / "new.csv"
    assert neurovocal("label", RECORDING, "--out", new, "--channels", "3").code == 1
    assert not new.exists()


def journal_with_labels(folder: Path) -> Path:
    path = folder / "j.sqlite"
    write(path, [label(0), label(1)], "first")
    return path


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_export_never_writes_its_journal(tmp_path: Path, end: str) -> None:
    journal = journal_with_labels(tmp_path)
    (tmp_path / "j.sqlite-wal").touch()
    before = journal.read_bytes()
    done = neurovocal("export", journal, "--out", f"{journal}{end}")
    assert done.code == 1
    assert "is the journal that is read" in done.err
    assert journal.read_bytes() == before


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl", "audacity", "raven"])
def test_export_follows_links_and_keeps_files_of_another_kind(
    tmp_path: Path, form: str
) -> None:
    journal = journal_with_labels(tmp_path)
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    assert neurovocal("export", journal, "--format", form, "--out", link).code == 0
    assert link.is_symlink()
    written = real.read_bytes()
    os.link(real, tmp_path / "second name")
    real.write_bytes(written)
    assert neurovocal("export", journal, "--format", form, "--out", link).code == 0
    assert (tmp_path / "second name").read_bytes() == real.read_bytes()
    before = make(WAV, real)
    done = neurovocal("export", journal, "--format", form, "--out", link)
    assert done.code == 1
    assert real.read_bytes() == before


def test_export_writes_into_a_pipe(tmp_path: Path) -> None:
    journal = journal_with_labels(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert neurovocal("export", journal, "--out", pipe).code == 0
        out, _ = reader.communicate()
    assert out.decode() == neurovocal("export", journal).out
    assert pipe.is_fifo()
    assert neurovocal("export", journal, "--format", "parquet", "--out", pipe).code == 1


def test_a_full_device_stays_a_device_and_is_named(tmp_path: Path) -> None:
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    done = neurovocal("export", journal_with_labels(tmp_path), "--out", link)
    assert done.code == 2
    assert f"'{link}' cannot be written: No space left" in done.err
    assert link.is_symlink()


LOCK = """
import sys
from pathlib import Path
from neurovocal.plugins.storage.file_lock import FileLock
lock = FileLock()
lock.acquire(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_lock_is_shared_in_a_process_and_refused_to_another(
    tmp_path: Path, is_folder: bool
) -> None:
    path = tmp_path if is_folder else tmp_path / "t.csv"
    if not is_folder:
        path.touch()
    one, two = FileLock(), FileLock()
    one.acquire(path)
    two.acquire(path)
    one.release()

    def other() -> subprocess.CompletedProcess[bytes]:
        program = [sys.executable, "-c", LOCK, str(path)]
        return subprocess.run(program, capture_output=True, check=False)

    assert b"is in use: another engine or command writes it" in other().stderr
    two.release()
    two.release()
    assert other().returncode == 0
    with path.open() if not is_folder else open(path / "x", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)


@pytest.mark.parametrize(
    ("sink", "name"),
    [
        ("recording", "out"),
        ("clips", "out"),
        ("wav", "out"),
        ("table", "t.csv"),
        ("jsonl", "t.jsonl"),
        ("columns", "t.csv"),
    ],
)
def test_a_second_engine_on_the_same_output_is_refused(
    tmp_path: Path, sink: str, name: str
) -> None:
    recorded = f"{{plugin: file, options: {{path: '{RECORDING}'}}}}"
    sources = [
        "{plugin: synthetic, options: {pace: realtime, duration_s: null}}",
        recorded,
    ]
    config, other = tmp_path / "c.yaml", tmp_path / "d.yaml"
    for path, source in zip((config, other), sources, strict=True):
        path.write_text(
            f"version: 1\nsource: {source}\n"
            f"sinks:\n  - {{plugin: {sink}, options: {{path: {name}}}}}\n"
        )
    with running("run", config, "--json", cwd=tmp_path) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline()
        done = neurovocal("run", other, cwd=tmp_path)
        assert done.code == 1
        assert "is in use: another engine or command writes it" in done.err
        # The first engine goes on writing: none of the files is the second one's.
        paths = [str(path) for path in tmp_path.rglob("*")]
        assert not [path for path in paths if RECORDING.stem in path]
