"""Near misses from the detector to files, journal, client and terminal."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from processes.cli_process import neurovocal, running
from processes.waiting import PATIENCE_S

from neurovocal.engine.cli.display import TableDisplay
from neurovocal.engine.client import Subscriber
from neurovocal.engine.contracts.types import Message, NearMiss, StreamInfo

RATE = 16_000
CONFIG = """\
version: 1
station: room
source: {plugin: file, options: {path: room.wav}}
detector: {plugin: energy, options: {near_misses: true}}
sinks:
"""


def write_room(path: Path) -> None:
    """Noise with a loud tone at 2 s, a quiet one at 2.5 s and a short one at 3 s."""
    samples = 0.01 * np.random.default_rng(5).standard_normal(4 * RATE)
    for at_s, seconds, level in ((2.0, 0.1, 0.2), (2.5, 0.1, 0.018), (3.0, 0.004, 0.2)):
        first, count = round(at_s * RATE), round(seconds * RATE)
        tone = level * np.sin(2 * np.pi * 3000 * np.arange(count) / RATE)
        samples[first : first + count] += tone
    soundfile.write(path, samples, RATE, "PCM_24")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    write_room(tmp_path / "room.wav")
    return tmp_path


def configure(folder: Path, *sinks: str, more: str = "") -> Path:
    path = folder / "room.yaml"
    lines = "".join(f"  - {{plugin: {sink}}}\n" for sink in sinks)
    path.write_text(CONFIG + lines + more)
    return path


def test_all_files_of_a_run_have_them_and_a_replay_gives_the_same(folder: Path) -> None:
    config = configure(
        folder,
        "jsonl, options: {path: events.jsonl}",
        "journal, options: {path: run.sqlite}",
        "columns, options: {path: near.csv, kinds: [near_miss]}",
        "table, options: {path: segments.csv, content: segments}",
    )
    done = neurovocal("run", config, cwd=folder)
    assert done.code == 0, done.err
    near_misses = [line for line in done.out.splitlines() if "near miss" in line]
    assert "too quiet, score 7.51 of 10" in near_misses[0]
    assert "too short, score 25.2 of 10" in near_misses[1]
    lines = (folder / "events.jsonl").read_text().splitlines()
    told = [e for e in map(json.loads, lines) if e["kind"] == "near_miss"]
    assert [(e["reason"], e["omitted"]) for e in told] == [("quiet", 0), ("short", 0)]
    assert all(e["sample"] == e["onset"] < e["offset"] <= e["at"] for e in told)
    assert len((folder / "segments.csv").read_text().splitlines()) == 2
    exported = neurovocal("export", "run.sqlite", "--kinds", "near_miss", cwd=folder)
    assert exported.out == (folder / "near.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(exported.out)))
    assert [(row["reason"], row["threshold"]) for row in rows] == [
        ("quiet", "10.0"),
        ("short", "10.0"),
    ]
    assert float(rows[0]["onset_s"]) == pytest.approx(2.5, abs=0.01)
    replayed = neurovocal("replay", "run.sqlite", cwd=folder)
    assert "identical: 1 onset, 1 offset, 2 near_miss" in replayed.out


def test_a_table_leaves_them_out_and_says_so(folder: Path) -> None:
    config = configure(folder, "table")
    text = config.read_text()
    without = folder / "without.yaml"
    without.write_text(text.replace("near_misses: true", "near_misses: false"))
    plain = neurovocal("detect", "room.wav", "--config", without, cwd=folder)
    assert "near" not in plain.err
    done = neurovocal("detect", "room.wav", "--config", config, cwd=folder)
    assert done.out == plain.out
    assert "note: 2 near misses are not in the table (`--explain F` draws" in done.err


def test_without_the_option_there_are_none(folder: Path) -> None:
    config = configure(folder, "jsonl, options: {path: events.jsonl}")
    done = neurovocal(
        "run", config, "--set", "detector.options.near_misses=false", cwd=folder
    )
    assert done.code == 0, done.err
    assert "near" not in done.out + (folder / "events.jsonl").read_text()


@pytest.mark.parametrize("privacy", ["", "privacy: {mode: labels_only}\n"])
def test_a_client_gets_them_and_a_trace_only_without_privacy(
    folder: Path, privacy: str
) -> None:
    endpoint = f"ipc://{folder}/live"
    config = configure(
        folder,
        f"zmq, events: [near_miss, offset, trace], options: {{endpoint: '{endpoint}', "
        "wait_for_subscribers: 1}",
        more=privacy,
    )
    with (
        running("run", config, cwd=folder),
        Subscriber(endpoint, ["near_miss", "trace"], timeout=PATIENCE_S) as subscriber,
    ):
        received = []
        while sum(m.kind == "near_miss" for m in received) < 2:
            received.append(message := subscriber.receive(PATIENCE_S))
            assert message is not None
        traces = 0
        while (message := subscriber.receive(2)) is not None:
            traces += message.kind == "trace"
    traces += sum(m.kind == "trace" for m in received)
    assert (traces == 0) == bool(privacy)
    found = [m.event for m in received if isinstance(m.event, NearMiss)]
    assert [event.reason for event in found] == ["quiet", "short"]
    assert found[0].score == pytest.approx(7.51, abs=0.01)


def test_the_live_table_counts_them_and_shows_the_newest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = TableDisplay("room")
    display.open()
    info = StreamInfo("room", RATE)
    for seq, omitted in enumerate((0, 30)):
        event = NearMiss(40_000, 41_600, 7.5, 10.0, "quiet", omitted)
        display.write(Message(info, event, seq, 42_000))
    display.close()
    assert "near misses: 32; room      2.500 s  near miss" in capsys.readouterr().out
