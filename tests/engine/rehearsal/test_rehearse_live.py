"""``neurovocal rehearse --live``: real sources are read, their files unchanged."""

import json
import shlex
import sys

import pytest
import soundfile
from processes.cli_process import RECORDING, neurovocal

# A program that plays a recording repeatedly in real time.
PLAYER = """
import sys, time
import soundfile
samples, rate = soundfile.read(sys.argv[1], dtype="int16", stop=480_000)
began, block = time.monotonic(), rate // 20
for number in range(10_000):
    at = number * block % (len(samples) - block)
    sys.stdout.buffer.write(samples[at : at + block].tobytes())
    sys.stdout.buffer.flush()
    time.sleep(max(0.0, began + number * block / rate - time.monotonic()))
"""

CONFIG = """
version: 1
station: yard
lanes:
  - name: pipe
    source:
      plugin: pipe
      options: {command: PLAY, sample_format: s16le, sample_rate: RATE, endless: true}
  - name: cards
    source: {plugin: folder, options: {path: cards, set_aside: unusable}}
sinks:
  - {plugin: zmq}
  - {plugin: journal, options: {path: yard.sqlite, replay: "tcp://127.0.0.1:5558"}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "player.py").write_text(PLAYER)
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "broken.wav").write_bytes(b"RIFF")
    samples, rate = soundfile.read(RECORDING, stop=48_000)
    soundfile.write(tmp_path / "cards" / "song.wav", samples, rate)
    play = shlex.join([sys.executable, str(tmp_path / "player.py"), str(RECORDING)])
    config = CONFIG.replace("PLAY", json.dumps(play)).replace("RATE", str(rate))
    (tmp_path / "yard.yaml").write_text(config)
    return tmp_path


def files(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_live_trials_judge_reports_and_leave_the_source_s_files_alone(folder):
    before = files(folder)
    options = ("--live", "--json", "--seconds", "10", "--jobs", "3")
    done = neurovocal(
        *("rehearse", "yard.yaml", "--only", "none,drop,kill", *options), cwd=folder
    )
    report = json.loads(done.out)
    rows = {row["fault"]: row for row in report["rows"]}
    assert done.code == 0, report
    assert {name: row["why"] for name, row in rows.items()} == {
        "none": [],
        "drop": [],
        "kill": [],
    }
    assert rows["drop"]["said"] == ["gap 0.50 s (injected: drop)"]
    assert "ended (signal 9), started again" in rows["kill"]["said"]
    assert [row["expected"] for row in rows.values()] == [0, 0, 0]
    assert any("cannot be compared" in note for note in report["notes"])
    assert any("finds an empty folder" in note for note in report["notes"])
    assert files(folder) == before  # the folder source got an empty folder


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("options.command=null", "reads standard input, which many runs cannot share"),
        ("={plugin: synthetic}", "live sources, and there is none: leave it out"),
    ],
)
def test_live_is_refused_without_a_source_that_many_runs_can_share(
    folder, setting, sentence
):
    done = neurovocal(
        *("rehearse", "yard.yaml", "--live", "--only", "drop"),
        *("--set", f"lanes.0.source.{setting}".replace(".=", "=")),
        cwd=folder,
    )
    assert done.code == 1
    assert done.err.count("error: ") == 1
    assert sentence in done.err
