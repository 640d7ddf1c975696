"""The command: serve and stop, export, go on later, and what it refuses."""

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from processes.cli_process import neurovocal, running
from processes.waiting import PATIENCE_S, PROCESS_S
from stages.reviews import heard, tones, write_journal

CONFIG = """\
# configuration: {folder}/my.yaml
version: 1
source: {{plugin: file, options: {{path: song.wav}}}}
sinks: [{{plugin: journal, options: {{path: run.sqlite}}}}]
"""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    tones(tmp_path / "song.wav", [(0.5, 0.7), (1.0, 1.2)], 2.0)
    events = [*heard(0, 0.5, 0.7, "a", 0.9), *heard(1, 1.0, 1.2, "b", 0.4)]
    return write_journal(
        tmp_path / "run.sqlite",
        CONFIG.format(folder=tmp_path),
        [("song.wav", each) for each in events],
    )


def url_of(process: subprocess.Popen) -> str:
    line = process.stdout.readline()
    found = re.fullmatch(r"review: (http://\S+) \(open it in a browser\)\n", line)
    assert found, line + process.stderr.read()
    return found[1]


def test_a_review_is_served_stopped_and_continued(journal):
    with running("review", journal, "--port", 0, "--author", "Ada") as process:
        url = url_of(process)
        state = httpx.get(f"{url}review/api/state", timeout=PATIENCE_S).json()
        assert (state["author"], state["total"]) == ("Ada", 2)
        segment = httpx.get(f"{url}review/api/segments", timeout=PATIENCE_S).json()[
            "segments"
        ][1]["id"]
        change = {"action": "label", "author": "Ada", "segment": segment, "unit": "c"}
        assert httpx.post(
            f"{url}review/api/edit", json=change, timeout=PATIENCE_S
        ).json()["ok"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 0
    assert "1 of 2 segments reviewed" in err
    assert journal.with_name("run.review.sqlite").is_file()
    out = journal.with_name("out")
    done = neurovocal("review", journal, "--export", out)
    assert done.code == 0, done.err
    assert "wrote 1 segment (c 1) in 1 file" in done.err
    assert f"now: neurovocal train {out} --out BUNDLE" in done.err
    rows = (out / "annotations.csv").read_text().splitlines()
    assert [row.rpartition(",")[2] for row in rows] == ["label", "c"]


def test_a_table_and_its_folder_share_one_review(journal):
    folder = journal.parent / "songs"
    folder.mkdir()
    tones(folder / "song.wav", [(0.5, 0.7)], 2.0)
    table = folder / "labels.csv"
    table.write_text("file,onset_s,offset_s,label,posterior\nsong.wav,0.5,0.7,a,1\n")
    with running("review", table, "--port", 0) as process:
        url = url_of(process)
        segment = httpx.get(f"{url}review/api/segments", timeout=PATIENCE_S).json()[
            "segments"
        ][0]["id"]
        change = {"action": "confirm", "author": "Ada", "segment": segment}
        assert httpx.post(
            f"{url}review/api/edit", json=change, timeout=PATIENCE_S
        ).json()["ok"]
    done = neurovocal("review", folder, "--export", journal.with_name("out"))
    assert done.code == 0, done.err
    assert folder.with_name("songs.review.sqlite").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none"], "'none' does not exist: name a journal, or a folder of recordings"),
        (["."], "has several tables|holds no recording"),
        (["run.sqlite", "--run", "x"], "has no run 'x'"),
        (["run.sqlite", "--stream", "nowhere"], "has no stream 'nowhere'"),
        (["run.sqlite", "--labels", "l.csv"], "--labels is for folders"),
        (["song.wav"], "is a recording: name its folder"),
        (["run.sqlite", "--since", "noon"], "--since: 'noon' is no time"),
        (["run.sqlite", "--since", "2026-05-01"], "has no time zone"),
        (["run.sqlite", "--host", "0.0.0.0"], "give a token"),
        (["run.sqlite", "--export", "out"], "no segment is reviewed yet"),
        (["run.sqlite", "--events", "nowhere/x"], None),
        (["empty.sqlite"], "is empty"),
    ],
)
def test_refusals_are_one_sentence(journal, arguments, sentence):
    folder = journal.parent
    (folder / "empty.sqlite").touch()
    if arguments == ["."]:
        (folder / "song.wav").unlink()
    if sentence is None:
        (folder / "nowhere").write_text("a file")
        sentence = "cannot be kept in 'nowhere/x'"
    done = neurovocal("review", *arguments, "--port", 0, cwd=folder)
    assert done.code == 1, done.err
    assert re.search(sentence, done.err), done.err
    assert "Traceback" not in done.err


def test_the_default_port_gives_way(journal):
    # The folder of the journal is one of recordings, too.
    with running("review", ".", cwd=journal.parent) as first:
        one = url_of(first)
        with running("review", journal) as second:
            assert url_of(second) != one
            second.send_signal(signal.SIGTERM)
            assert second.wait(PROCESS_S) == 0
        first.send_signal(signal.SIGINT)
        assert first.wait(PROCESS_S) == 0


def test_a_port_that_was_asked_for_does_not(journal):
    with running("review", journal, "--port", 0) as first:
        port = url_of(first).rstrip("/").rpartition(":")[2]
        done = neurovocal("review", journal, "--port", port)
    assert done.code == 1
    assert "which is in use" in done.err
