"""Claims on files: a run never writes a file that it reads, under any name."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes.cli_process import RECORDING, neurovocal

from neurovocal.engine.config.claims import FileClaims, refuse_overlap
from neurovocal.engine.contracts.errors import ConfigError, OutputProblem
from neurovocal.engine.contracts.options import OptionProblem
from neurovocal.engine.contracts.plugin import FileAccess

ALL = ("**/*.wav",)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(8000), 8000)
    return path


def configuration(folder: Path, source: str, *sinks: str) -> Path:
    path = folder / "c.yaml"
    rows = "".join(f"  - {sink}\n" for sink in sinks)
    path.write_text(f"version: 1\nsource: {source}\nsinks:\n{rows}")
    return path


def conflicts(reads: FileAccess, writes: FileAccess) -> bool:
    claims = FileClaims()
    claims.add("source", reads=[reads])
    claims.add("sink", writes=[writes])
    return bool(list(claims.conflicts()))


@pytest.mark.parametrize(
    ("reads", "writes", "expected"),
    [
        (("a.wav",), ("a.wav",), True),
        (("a.wav",), ("./x/../a.wav",), True),
        (("a.wav",), ("b.wav",), False),
        ((".", ("*.wav",)), ("a.wav",), True),
        ((".", ("*.wav",)), ("a.csv",), False),
        ((".", ("*.wav",)), (".", ("*.wav",)), True),
        ((".", ("*.wav",)), ("kept", ("*.wav",)), False),
        ((".", ALL), ("kept", ("*.wav", "*.jsonl")), True),
        ((".", ALL), (".kept", ("*.wav",)), False),
        ((".", ALL), ("clips", ("*/*/*.flac", "*/*/*.json")), False),
        ((".", ALL), ("clips", ("*/*/*.wav",)), True),
        (("clips/day", ("*.wav",)), ("clips", ("*/*/*.wav",)), False),
        (("clips/day/s", ("*.wav",)), ("clips", ("*/*/*.wav",)), True),
        (("x/a.wav",), ("x", ("*.wav",)), True),
        (("x/y/a.wav",), ("x", ("*.wav",)), False),
    ],
)
def test_files_and_patterns_meet(
    tmp_path: Path,
    reads: tuple[str, *tuple[tuple[str, ...], ...]],
    writes: tuple[str, *tuple[tuple[str, ...], ...]],
    expected: bool,
) -> None:
    one = FileAccess(tmp_path / reads[0], *reads[1:])
    other = FileAccess(tmp_path / writes[0], *writes[1:])
    assert conflicts(one, other) is expected


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_to_a_file_are_that_file(
    recording: Path, link: Callable[[Path, Path], None]
) -> None:
    other = recording.with_name("other.csv")
    link(recording, other)
    assert conflicts(FileAccess(recording), FileAccess(other))
    assert conflicts(FileAccess(other), FileAccess(recording))


def test_a_linked_folder_is_that_folder(recording: Path) -> None:
    linked = recording.parent / "linked"
    linked.symlink_to(recording.parent)
    assert conflicts(FileAccess(recording), FileAccess(linked / "a.wav"))
    assert conflicts(FileAccess(recording), FileAccess(linked, ("*.wav",)))


def test_a_command_names_all_outputs_that_are_inputs(recording: Path) -> None:
    outputs = [recording, recording.with_name("new.png")]
    with pytest.raises(ConfigError) as caught:
        refuse_overlap("output", {"recording": [recording]}, outputs)
    assert caught.value.problems == [
        f"output '{recording}' is the recording that is read ('{recording}'): choose "
        "another path"
    ]
    with pytest.raises(ConfigError, match="lies in the bundle"):
        refuse_overlap("output", {"bundle": [recording.parent]}, outputs)


@pytest.mark.parametrize("command", ["detect", "label"])
@pytest.mark.parametrize("name", ["a.wav", "hard.csv", "soft.csv"])
def test_a_table_never_replaces_a_recording_that_is_read(
    recording: Path, command: str, name: str
) -> None:
    os.link(recording, recording.with_name("hard.csv"))
    os.symlink("a.wav", recording.with_name("soft.csv"))
    before = recording.read_bytes()
    files = "*.wav" if command == "detect" else "."
    done = neurovocal(command, files, "--out", name, cwd=recording.parent)
    assert done.code == 1
    assert "Traceback" not in done.err
    assert recording.read_bytes() == before


FOLDER = "folder, options: {path: ., recursive: true}"


@pytest.mark.parametrize(
    ("source", "sink", "word"),
    [
        ("file, options: {path: a.wav}", "jsonl, options: {path: a.wav}", "overwrite"),
        ("file, options: {path: .}", "table, options: {path: ./a.wav}", "overwrite"),
        ("file, options: {path: a.wav}", "recording, options: {path: .}", "another"),
        ("file, options: {path: '*.wav'}", "wav, options: {path: .}", "another"),
        ("playback, options: {path: a.wav}", "wav, options: {path: .}", "another"),
        (FOLDER, "recording, options: {path: kept}", "its own output"),
        (FOLDER, "clips, options: {path: kept}", "its own output"),
        ("folder, options: {path: .}", "wav, options: {path: .}", "its own output"),
        (FOLDER, "journal, options: {path: .neurovocal-taken.jsonl}", "overwrite"),
        ("folder, options: {path: .}", "table, options: {path: c.yaml}", "overwrite"),
    ],
)
def test_check_names_an_output_that_is_an_input_with_its_line(
    recording: Path, source: str, sink: str, word: str
) -> None:
    path = configuration(
        recording.parent, f"{{plugin: {source}}}", f"{{plugin: {sink}}}"
    )
    before = recording.read_bytes()
    done = neurovocal("check", path, cwd=recording.parent)
    assert done.code == 1
    assert f"{path}:4: sinks.0" in done.err
    assert word in done.err
    assert recording.read_bytes() == before


def test_a_recording_that_is_kept_is_not_played_into_itself(tmp_path: Path) -> None:
    source = f"{{plugin: file, options: {{path: '{RECORDING}'}}}}"
    kept = "{plugin: recording, options: {path: kept}}"
    assert (
        neurovocal("run", configuration(tmp_path, source, kept), cwd=tmp_path).code == 0
    )
    before = {path: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    again = configuration(tmp_path, "{plugin: recording, options: {path: kept}}", kept)
    done = neurovocal("run", again, cwd=tmp_path)
    assert done.code == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / "kept").iterdir()}


def without_run_id(text: str) -> str:
    return re.sub(r"\b[0-9a-f]{12}\b", "RUN", text)


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize(
    "sink",
    [
        "table, options: {path: '-', content: segments}",
        "jsonl, options: {path: /dev/stdout}",
        "columns, events: [offset]",
    ],
)
def test_standard_output_holds_the_table_alone(
    tmp_path: Path, sink: str, more: list[str]
) -> None:
    source = f"{{plugin: file, options: {{path: '{RECORDING}'}}}}"
    path = configuration(tmp_path, source, f"{{plugin: {sink}}}")
    named = sink.replace("/dev/stdout", "-")
    done = neurovocal("run", path, *more)
    assert done.code == 0, done.err
    assert done.err.count("\n") > 2  # the lines of the display
    path = configuration(tmp_path, source, f"{{plugin: {named}}}")
    again = neurovocal("run", path, *more)
    assert without_run_id(done.out) == without_run_id(again.out)
    assert len({line[:1] for line in done.out.splitlines()[1:]}) == 1


def test_two_tables_on_standard_output_are_refused(tmp_path: Path) -> None:
    sinks = ["{plugin: jsonl}", "{plugin: table, options: {path: /dev/fd/1}}"]
    source = f"{{plugin: file, options: {{path: '{RECORDING}'}}}}"
    done = neurovocal("check", configuration(tmp_path, source, *sinks))
    assert done.code == 1
    assert "would both write to standard output" in done.err


@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_what_a_journal_keeps_beside_it_is_no_output_of_another(
    tmp_path: Path, end: str
) -> None:
    sinks = [
        "{plugin: journal, options: {path: run.sqlite}}",
        f"{{plugin: jsonl, options: {{path: run.sqlite{end}}}}}",
    ]
    source = f"{{plugin: file, options: {{path: '{RECORDING}'}}}}"
    done = neurovocal("check", configuration(tmp_path, source, *sinks))
    assert done.code == 1
    assert f"run.sqlite{end}'" in done.err


def test_one_clash_is_one_sentence(recording: Path) -> None:
    config = recording.with_name("run.yaml")
    config.write_text(
        "version: 1\nsource: {plugin: file, options: {path: a.wav}}\nsinks:\n"
        " - {plugin: table, options: {path: a.wav}}\n"
        " - {plugin: journal, options: {path: run.yaml}}\n"
        " - {plugin: jsonl, options: {path: notes.txt}}\n"
    )
    recording.with_name("notes.txt").write_text("mine")
    done = neurovocal("check", "run.yaml", cwd=recording.parent)
    assert [line.split(": ", 3)[3] for line in done.err.splitlines()] == [
        "sink 'table' would overwrite 'a.wav', which source 'file' reads: choose "
        "another path",
        "sink 'journal' would overwrite 'run.yaml', which the run reads: "
        "choose another path",
        "'notes.txt' exists and is a text file of another kind, not JSON lines of "
        "events: it would be lost; choose another path",
    ]


def test_problems_keep_their_kind_in_an_error() -> None:
    given = [OptionProblem("low_hz", "too low"), OutputProblem("'a' exists"), "plain"]
    shown = ConfigError(given).problems
    assert shown == given
    assert [type(one) for one in shown] == [type(one) for one in given]
    assert shown[0].option == "low_hz"
