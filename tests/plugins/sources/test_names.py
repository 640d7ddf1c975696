"""Names of recordings are bytes: those that are not UTF-8, odd and long ones."""

import csv
import io
import json
import os
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes.cli_process import NEUROVOCAL, neurovocal
from processes.waiting import PROCESS_S

from neurovocal.engine.contracts.errors import AudioFileError
from neurovocal.engine.contracts.options import Options
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.support.text import plain
from neurovocal.plugins.sources.audio_files.file import find_recordings
from neurovocal.plugins.storage.folder import stream_file_name

RATE = 8000
LATIN1 = "caf\udce9.wav"  # bytes that are not UTF-8


def song(path, channels=1, at=0.5):
    values = np.random.default_rng(0).normal(0, 1e-3, (RATE, channels))
    time = np.arange(RATE // 8)
    for channel in range(channels):
        first = round(RATE * (at + 0.1 * channel))
        values[first : first + len(time), channel] += (
            0.3 * np.hanning(len(time)) * np.sin(1.3 * time)
        )
    with open(path, "wb") as file:
        soundfile.write(file, values, RATE, format="WAV")
    return path


def rows(out):
    return list(csv.DictReader(io.StringIO(out)))


def test_a_name_that_is_not_utf8_reaches_every_output_escaped(tmp_path):
    folder = tmp_path / "card"
    folder.mkdir()
    for name in (LATIN1, "good.wav"):
        song(folder / name)
    config = tmp_path / "c.yaml"
    sinks = {
        "jsonl": "path: out.jsonl",
        "journal": "path: out.sqlite",
        "table": "path: out.csv, content: segments",
        "clips": "path: clips",
        "recording": "path: kept",
    }
    listed = "".join(
        f"  - {{plugin: {name}, options: {{{options}}}}}\n"
        for name, options in sinks.items()
    )
    for source in (
        f"{{plugin: file, options: {{path: {folder}}}}}",
        f"{{plugin: folder, options: {{path: {folder}, follow: false, settle_s: 0}}}}",
    ):
        config.write_text(
            f"version: 1\nsource: {source}\n"
            f"detector: {{plugin: energy}}\nsinks:\n{listed}"
        )
        done = neurovocal("run", config, cwd=tmp_path)
        assert done.code == 0, done.err
        assert "Traceback" not in done.err
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert {json.loads(line)["stream"] for line in lines} == {
        "caf\\xe9.wav",
        "good.wav",
    }
    with sqlite3.connect(tmp_path / "out.sqlite") as journal:
        assert journal.execute("select count(*) from sqlite_master").fetchone()[0]
    journal.close()
    clips = {path.parent.name for path in (tmp_path / "clips").rglob("*.flac")}
    assert len(clips) == 2
    assert list((tmp_path / "kept").glob("caf*.wav"))


@pytest.mark.parametrize("command", ["detect", "label"])
def test_commands_read_a_name_that_is_not_utf8(tmp_path, command):
    song(tmp_path / LATIN1)
    name = os.fsencode(tmp_path / LATIN1)
    done = subprocess.run(
        [*NEUROVOCAL, command, name],
        capture_output=True,
        timeout=PROCESS_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (row,) = rows(done.stdout.decode())
    assert row["file"].endswith("caf\\xe9.wav")


def test_a_locale_without_the_characters_of_a_name(tmp_path):
    song(tmp_path / "grün.wav")
    env = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [*NEUROVOCAL, "detect", os.fsencode(tmp_path / "grün.wav")],
        capture_output=True,
        timeout=PROCESS_S,
        env=env,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grün.wav", "grün.wav"),
        (LATIN1, "caf\\xe9.wav"),
        ("gr\udcc3\udcbcn.wav", "grün.wav"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_escaped_text_can_be_encoded(text, expected):
    assert plain(text) == expected
    plain(text).encode()


@pytest.mark.parametrize("name", ["日" * 85, "x" * 255, "caf\udce9" * 60, "a/" * 200])
def test_file_names_of_streams_are_bounded_and_distinct(name):
    stem = stream_file_name(name)
    assert len(os.fsencode(stem)) <= 160
    assert "/" not in stem
    assert stem != stream_file_name(name + "2")
    assert stream_file_name("take 1.wav") == "take 1.wav"


class Named(Options):
    """Options with a name and a list of names."""

    path: str = ""
    paths: list[str] = []


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "x" * 5000])
@pytest.mark.parametrize("key", ["path", "paths"])
def test_text_that_no_name_can_have_is_refused(text, key):
    with pytest.raises(ValueError, match=r"NUL|surrogate|4096 at most"):
        Named(**{key: text if key == "path" else [text]})


def test_odd_names_of_recordings_are_refused_in_one_sentence(tmp_path):
    for name in ("", "  ", str(tmp_path / ("x" * 300))):
        with pytest.raises(AudioFileError) as caught:
            find_recordings(name, BuildContext(None, "run"), recursive=False)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["site [A]", "take?", "all*"])
@pytest.mark.parametrize("pattern", ["*.wav", "**/*.wav", "[ab].wav"])
def test_folders_with_special_characters_are_no_patterns(tmp_path, folder, pattern):
    base = tmp_path / folder
    base.mkdir()
    for name in ("a.wav", "b.wav"):
        song(base / name)
    context = BuildContext(None, "run", base=base)
    for name in (pattern, str(base / pattern)):
        found = find_recordings(name, context, recursive=False)
        assert [path.name for path in found] == ["a.wav", "b.wav"]


def test_folders_of_days_are_searched_by_detect(tmp_path):
    for day in ("20210513", "20210514"):
        (tmp_path / day).mkdir()
        song(tmp_path / day / "190000.wav")
    song(tmp_path / "top.wav")
    assert len(rows(neurovocal("detect", tmp_path).out)) == 3


@pytest.mark.parametrize("form", ["csv", "json", "raven"])
def test_channels_keep_their_numbers(tmp_path, form):
    path = song(tmp_path / "four.wav", channels=4, at=0.2)
    done = neurovocal("detect", path, "--channels", "2,4", "--format", form)
    assert done.code == 0
    if form == "raven":
        found = list(csv.DictReader(io.StringIO(done.out), delimiter="\t"))
        assert [row["Channel"] for row in found] == ["2", "4"]
        assert {row["Begin File"] for row in found} == {path.name}
        assert {row["Begin Path"] for row in found} == {str(path)}
        return
    parse = rows if form == "csv" else lambda out: map(json.loads, out.splitlines())
    onsets = {row["file"]: float(row["onset_s"]) for row in parse(done.out)}
    assert [name.removeprefix(str(path)) for name in onsets] == [".ch2", ".ch4"]
    assert onsets[f"{path}.ch4"] - onsets[f"{path}.ch2"] == pytest.approx(0.2, abs=0.02)


def test_the_note_about_unused_channels_is_short(tmp_path):
    path = song(tmp_path / "many.wav")
    soundfile.write(path, np.zeros((100, 1024)), RATE)
    done = neurovocal("detect", path)
    (note,) = (line for line in done.err.splitlines() if "1024 channels" in line)
    assert len(note) < 300


def test_a_tilde_that_is_nobodys_home_is_part_of_a_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "~1.wav", np.zeros(800), 8000)
    done = neurovocal("detect", "~1.wav", "--out", "~1.csv", cwd=tmp_path)
    assert done.code == 0, done.err
    assert (tmp_path / "~1.csv").is_file()


def test_a_link_that_leads_nowhere_is_missed_in_a_folder(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    (tmp_path / "b.wav").symlink_to("gone.wav")
    done = neurovocal("detect", tmp_path)
    assert done.code == 2
    assert "b.wav' is a link that leads to no file: 'gone.wav'" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--block-length", 2**40), "--block-length: must be at least 1 and at most"),
        (("--timezone", "Mars/X"), "--timezone: no time zone is called 'Mars/X'"),
        (("--explain", "e.png", "--to", "1e9"), "--to: must be above 0 and at most"),
        (("--json", "--format", "raven"), "--json and --format raven are two formats"),
    ],
)
def test_a_refused_value_names_its_option(
    tmp_path: Path, arguments: tuple[object, ...], told: str
) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    done = neurovocal("detect", "a.wav", *arguments, cwd=tmp_path)
    assert done.code == 1
    assert done.err.startswith(f"error: {told}")
