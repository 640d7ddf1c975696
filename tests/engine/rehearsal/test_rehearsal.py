"""``neurovocal rehearse`` as a user runs it, and how it judges what was recorded."""

import json
import os
import signal
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import yaml
from processes.cli_process import NEUROVOCAL, RECORDING, neurovocal

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.rehearsal.comparison import Sound
from neurovocal.engine.rehearsal.engine_process import Heard
from neurovocal.engine.rehearsal.evidence import Evidence
from neurovocal.engine.rehearsal.scenarios import (
    FAULTS,
    Exercise,
    Stages,
    chosen,
    exercises,
)
from neurovocal.engine.rehearsal.trial import Record
from neurovocal.engine.rehearsal.verdict import judge
from neurovocal.engine.wire.headers import GapHeader, HealthHeader, OffsetHeader

CONFIG = """
version: 1
station: yard
source: {plugin: file, options: {path: RECORDING}}
sinks:
  - {plugin: zmq}
  - {plugin: journal, options: {path: yard.sqlite, replay: "tcp://127.0.0.1:5558"}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rehearse")
    (folder / "yard.yaml").write_text(CONFIG.replace("RECORDING", str(RECORDING)))
    return folder


@pytest.fixture(scope="module")
def rehearsed(folder):
    """Three faults at once, through the command line."""
    done = neurovocal(
        *("rehearse", "yard.yaml", "--only", "drop,network_cut,kill", "--json"),
        *("--seconds", "14", "--keep", "kept"),
        cwd=folder,
    )
    return done, json.loads(done.out)


def row_of(rehearsed, fault):
    done, report = rehearsed
    (row,) = [row for row in report["rows"] if row["fault"] == fault]
    assert row["why"] == [], done.err
    assert row["lost"] == row["double"] == 0
    parts = ("received", "kept", "told", "changed", "lost")
    assert sum(row[part] for part in parts) == row["expected"] > 20
    return row


def test_a_gap_is_told_and_costs_what_lies_in_it(rehearsed):
    row = row_of(rehearsed, "drop")
    assert row["verdict"] == "survived with told loss"
    assert row["said"] == ["gap 0.50 s (injected: drop)"]
    assert 0 < row["told"] < 10


def test_a_cut_network_costs_a_subscriber_nothing(rehearsed):
    row = row_of(rehearsed, "network_cut")
    assert row["verdict"] == "survived"
    assert row["received"] == row["expected"]


def test_a_killed_engine_is_started_again_and_its_journal_opens(rehearsed, folder):
    row = row_of(rehearsed, "kill")
    assert "ended (signal 9), started again" in row["said"]
    assert row["told"] + row["changed"] < row["expected"] / 2
    (journal,) = (folder / "kept" / "kill").glob("*.sqlite")
    done = neurovocal("export", journal, "--kinds", "offset")
    assert len({line.split(",")[0] for line in done.out.splitlines()[1:]}) == 2


def test_the_exit_code_says_whether_all_survived(rehearsed):
    done, _ = rehearsed
    assert done.code == 0, done.err


def test_nothing_was_written_beside_the_configuration(rehearsed, folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["kept", "yard.yaml"]


def test_what_is_kept_can_be_read(rehearsed, folder):
    config = yaml.safe_load((folder / "kept" / "drop" / "config.yaml").read_text())
    assert config["source"]["plugin"] == "playback"
    assert [fault["fault"] for fault in config["faults"]] == ["drop"]


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(folder, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*NEUROVOCAL, "rehearse", "yard.yaml", "--only", "stall"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert b"1 rehearsals, about" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()
    assert b"Traceback" not in said
    assert list(tmp_path.glob("neurovocal-*")) == []


# ---- mistakes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "stal"], "no fault 'stal' (did you mean 'stall'?)"),
        (["--recording", "none.wav"], "recording 'none.wav' does not exist"),
        (["--recording", "short.wav"], "lasts 1.0 s: a rehearsal needs 5 s or more"),
        (["--recording", "still.wav"], "finds no vocalization in 'still.wav'"),
        (["--live", "--recording", "x.wav"], "--live hears the real source"),
        (["--set", "faults=[{fault: kill, at_s: 1}]"], "leave this key out"),
        (
            ["--only", "hang", "--set", "supervise.hang_s=null"],
            "nothing can be rehearsed: hang: supervise.hang_s is null",
        ),
        (["--keep", "full"], "the folder is not empty"),
        (["--set", "sinks.0.options.endpont=x"], "did you mean 'endpoint'?"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, arguments, sentence):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "yard.yaml").write_text(CONFIG.replace("RECORDING", str(RECORDING)))
    soundfile.write(tmp_path / "short.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "still.wav", np.zeros(48_000), 8000)
    done = neurovocal(
        "rehearse", "yard.yaml", "--only", "drop", *arguments, cwd=tmp_path
    )
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.err
    assert sentence in errors[0]
    assert done.code in (1, 2)
    assert "Traceback" not in done.err


# ---- which faults -----------------------------------------------------------------

STAGES = Stages(
    lane=("features", "detector", "classifier"),
    sinks=("zmq", "journal"),
    hang_s=30.0,
    on_disk=True,
    socket="tcp://127.0.0.1:1",
    tape_rate=48_000,
)


def test_every_fault_is_rehearsed_and_every_stage_crashes():
    found, absent = exercises(FAULTS, STAGES, 0)
    assert absent == {}
    assert list(dict.fromkeys(each.fault for each in found)) == list(FAULTS)
    crashed = [each.stage for each in found if each.fault == "crash"]
    assert crashed == ["source", *STAGES.lane, *STAGES.sinks]
    assert len({each.name for each in found}) == len(found)


def test_alone_a_fault_strikes_when_it_does_among_others():
    every, _ = exercises(FAULTS, STAGES, 3)
    alone, _ = exercises(["stall"], STAGES, 3)
    assert alone == [each for each in every if each.fault == "stall"]
    other, _ = exercises(["stall"], STAGES, 4)
    assert other != alone


def test_what_has_nothing_to_strike_is_said():
    bare = replace(STAGES, sinks=("table",), on_disk=False, socket=None, hang_s=None)
    found, absent = exercises(FAULTS, bare, 0)
    assert set(absent) == {"hang", "disk_full", "subscriber_stall", "network_cut"}
    assert not {each.fault for each in found} & set(absent)


def test_only_names_faults_in_their_order():
    assert chosen(" kill,drop") == ["drop", "kill"]
    assert chosen(None) == ["none", *FAULTS]
    with pytest.raises(ConfigError):
        chosen(",")


# ---- what is a failure ------------------------------------------------------------

RATE = 1000
SOUNDS = [Sound("yard", at, at + 50, "") for at in range(100, 15_000, 200)]
DROP = Exercise("drop", 5.0, 0.5)


def heard(header, at):
    return Heard("run", round(at * NS / RATE), header)


def common(sample, at, seq=0):
    return {
        "stream": "yard",
        "seq": seq,
        "sample": sample,
        "at": at,
        "sample_rate": RATE,
    }


def offsets(sounds):
    return [
        heard(
            OffsetHeader(
                **common(s.offset, s.offset, seq),
                segment=seq,
                onset=s.onset,
                truncated=False,
            ),
            s.offset,
        )
        for seq, s in enumerate(sounds)
    ]


def health(stage, state, at):
    return heard(
        HealthHeader(**common(at, at), stage=stage, state=state, detail=""), at
    )


def gap(start, stop):
    return heard(GapHeader(**common(start, stop), start=start, stop=stop, reason=""), 0)


def judged(told, sounds=SOUNDS, exercise=DROP, exits=(0,)):
    struck = [health("fault drop", "degraded", round(exercise.at_s * RATE))]
    record = Record(
        told=[*struck, *told, *offsets(sounds)],
        starts_s={"run": 0.0},
        began_ns={"run": 0},
        exits=list(exits),
        seconds=15.0,
    )
    evidence = Evidence(exercise, record, False, RATE, RATE)
    return judge(evidence, SOUNDS, "sinks", False)


def outside(sounds, start, stop):
    return [s for s in sounds if s.offset <= start or s.onset >= stop]


def test_a_loss_that_was_told_is_survived():
    row = judged([gap(5000, 5500)], outside(SOUNDS, 5000, 5500))
    assert (row.verdict, row.why) == ("survived with told loss", [])
    assert (row.expected, row.lost) == (len(SOUNDS), 0)
    assert row.told == row.expected - row.received > 0


def test_a_gap_of_another_length_is_a_failure():
    row = judged([gap(5000, 5300)], outside(SOUNDS, 5000, 5500))
    assert row.verdict == "FAILED"
    assert row.why == ["'yard': gaps of 0.300 s were told, 0.5 s were lost"]


def test_each_lane_has_gaps_of_its_own():
    there = gap(5000, 5500)
    place = {**common(5000, 5500), "stream": "b"}
    header = GapHeader(**place, start=5000, stop=5500, reason="")
    row = judged([there, heard(header, 0)], outside(SOUNDS, 5000, 5500))
    assert row.why == []


def test_no_gap_at_all_is_a_failure():
    row = judged([], outside(SOUNDS, 5000, 5500))
    assert row.verdict == "FAILED"
    assert "no gap was told" in row.why
    assert row.lost > 0


def test_a_sound_that_is_missing_elsewhere_is_a_failure():
    row = judged([gap(5000, 5500)], outside(SOUNDS[:-1], 5000, 5500))
    assert (row.verdict, row.lost) == ("FAILED", 1)
    assert row.why == ["1 segments lost without a word, the first at 14.9 s"]


def test_what_is_out_of_its_place_afterwards_is_a_failure():
    late = [
        s._replace(onset=s.onset + 15, offset=s.offset + 15) if s.onset > 5500 else s
        for s in outside(SOUNDS, 5000, 5500)
    ]
    row = judged([gap(5000, 5500)], late)
    assert row.verdict == "FAILED"
    assert row.why == ["what follows is +15 ms out of its place"]


def test_a_fault_that_never_struck_proves_nothing():
    record = Record(starts_s={"run": 0.0}, exits=[0], seconds=15.0)
    evidence = Evidence(DROP, record, False, RATE, RATE)
    row = judge(evidence, [], "sinks", False)
    assert row.verdict == "FAILED"
    assert "did not strike" in row.why[0]


def test_a_run_that_ends_with_a_failure_is_one():
    row = judged([gap(5000, 5500)], outside(SOUNDS, 5000, 5500), exits=(2,))
    assert row.verdict == "FAILED"
    assert "ended with code 2" in row.why[0]
