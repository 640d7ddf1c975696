"""Output files of the previous run when an engine is started again."""

import csv
import shutil
from pathlib import Path

import pytest
from processes.cli_process import RECORDING, neurovocal
from processes.failing_disks import KINDS, Kind, ready

from neurovocal.plugins.storage.folder import is_set_aside, set_aside
from neurovocal.plugins.storage.text_file import TextOutput


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    return ready(request.param, monkeypatch)


def files_set_aside(folder: Path, number: int) -> Path:
    """Copy the files that were set aside to a folder, under their former names."""
    back = folder / f"back{number}"
    for path in [p for p in folder.rglob(f"*.{number}.left.*") if p.is_file()]:
        name = path.name.replace(f".{number}.left", "")
        target = back / path.relative_to(folder).with_name(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return back


def one_run(kind: Kind, folder: Path, pieces: int, *, unrepeatable: bool) -> None:
    sink = kind.build(folder, unrepeatable=unrepeatable)
    sink.open()
    for number in range(pieces):
        sink.write(kind.give(number))
        sink.flush(1.0)
        sink.close()
        sink.open()  # as after a failure: that is still the same run
    sink.close()


def test_files_of_an_unrepeatable_run_are_kept(kind: Kind, tmp_path: Path) -> None:
    for pieces in (1, 2, 3):
        one_run(kind, tmp_path, pieces, unrepeatable=True)
    if kind.name in ("parquet", "journal"):  # they keep runs apart themselves
        assert not files_set_aside(tmp_path, 1).exists()
        return
    assert kind.kept(files_set_aside(tmp_path, 1)) == [0]
    assert kind.kept(files_set_aside(tmp_path, 2)) == [0, 1]
    assert kind.kept(tmp_path) == [0, 1, 2]


def test_files_of_a_repeatable_run_are_replaced(kind: Kind, tmp_path: Path) -> None:
    for pieces in (1, 2):
        one_run(kind, tmp_path, pieces, unrepeatable=False)
    assert not files_set_aside(tmp_path, 1).exists()
    if kind.name not in ("parquet", "journal"):
        assert kind.kept(tmp_path) == [0, 1]


def test_a_link_stays_a_link_and_an_absent_file_stays_absent(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    link = tmp_path / "e.jsonl"
    link.symlink_to(disk / "e.jsonl")
    for number in range(2):
        for _ in range(2):  # the second finds an empty file
            output = TextOutput(str(link), existing="set aside")
            output.open()
            output.close()
        with link.open("a") as file:
            file.write(f"{number}\n")
    assert link.is_symlink()
    assert sorted(p.name for p in disk.iterdir()) == [
        "e.1.left.jsonl",
        "e.jsonl",
    ]
    null = TextOutput("/dev/null", existing="set aside")
    null.open()
    null.close()
    assert Path("/dev/null").is_char_device()


def test_files_of_one_recording_get_one_number(tmp_path: Path) -> None:
    pair = [tmp_path / "a b.x.wav", tmp_path / "a b.x.jsonl"]
    (tmp_path / "a b.x.1.left.jsonl").touch()
    for path in pair:
        path.touch()
    assert set_aside(*pair) == "a b.x.2.left.wav"
    assert (tmp_path / "a b.x.2.left.jsonl").exists()
    assert is_set_aside(tmp_path / "a b.x.2.left.jsonl")
    assert not any(map(is_set_aside, pair))


def streams_in(path: Path) -> set[str]:
    with path.open(newline="") as file:
        return {Path(row["file"]).stem for row in csv.DictReader(file)}


@pytest.mark.parametrize("source", ["folder", "file"])
def test_a_folder_source_is_unrepeatable_and_a_file_source_is_not(
    tmp_path: Path, source: str
) -> None:
    options = "{path: in}"
    if source == "folder":
        options = "{path: in, follow: false, settle_s: 0, confirm_s: 0}"
    (tmp_path / "c.yaml").write_text(f"""
version: 1
source: {{plugin: {source}, options: {options}}}
sinks:
  - {{plugin: table, options: {{path: t.csv, content: segments}}}}
""")
    (tmp_path / "in").mkdir()
    for name in ("a.flac", "b.flac"):
        shutil.copy(RECORDING, tmp_path / "in" / name)
        done = neurovocal("run", "c.yaml", cwd=tmp_path)
        assert done.code == 0, done.err
    before, now = tmp_path / "t.1.left.csv", tmp_path / "t.csv"
    if source == "folder":
        assert (streams_in(before), streams_in(now)) == ({"a"}, {"b"})
        assert "is now 't.1.left.csv'" in done.err
    else:
        assert streams_in(now) == {"a", "b"}
        assert not before.exists()
