"""``neurovocal rehearse`` as a user runs it, and its verdicts on recorded trials."""

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
from processes.waiting import PROCESS_S

from neurovocal.engine.contracts.clock import NS
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.rehearsal.comparison import Vocalization
from neurovocal.engine.rehearsal.engine_process import EngineEvent
from neurovocal.engine.rehearsal.evidence import TrialEvidence
from neurovocal.engine.rehearsal.scenarios import (
    FAULTS,
    FaultTargets,
    Scenario,
    make_scenarios,
    parse_fault_names,
)
from neurovocal.engine.rehearsal.trial import TrialRecord
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
    """Output of a rehearsal of three faults by the command line."""
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


def test_a_drop_is_survived_with_the_loss_of_its_gap(rehearsed):
    row = row_of(rehearsed, "drop")
    assert row["verdict"] == "survived with told loss"
    assert row["said"] == ["gap 0.50 s (injected: drop)"]
    assert 0 < row["told"] < 10


def test_a_subscriber_loses_nothing_in_a_network_cut(rehearsed):
    row = row_of(rehearsed, "network_cut")
    assert row["verdict"] == "survived"
    assert row["received"] == row["expected"]


def test_a_killed_engine_is_restarted_and_its_journal_has_both_runs(rehearsed, folder):
    row = row_of(rehearsed, "kill")
    assert "ended (signal 9), started again" in row["said"]
    assert row["told"] + row["changed"] < row["expected"] / 2
    (journal,) = (folder / "kept" / "kill").glob("*.sqlite")
    done = neurovocal("export", journal, "--kinds", "offset")
    assert len({line.split(",")[0] for line in done.out.splitlines()[1:]}) == 2


def test_the_exit_code_is_0_if_every_fault_was_survived(rehearsed):
    done, _ = rehearsed
    assert done.code == 0, done.err


def test_only_the_kept_folder_is_written_beside_the_configuration(rehearsed, folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["kept", "yard.yaml"]


def test_kept_configurations_have_playback_and_the_fault(rehearsed, folder):
    config = yaml.safe_load((folder / "kept" / "drop" / "config.yaml").read_text())
    assert config["source"]["plugin"] == "playback"
    assert [fault["fault"] for fault in config["faults"]] == ["drop"]


def test_ctrl_c_stops_a_rehearsal_and_removes_its_folder(folder, tmp_path):
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
    assert b"1 rehearsal, about" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 3, said.decode()
    assert said.endswith(b"stopped\n")
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
        (["--live", "--recording", "x.wav"], "--live uses the real source"),
        (["--set", "faults=[{fault: kill, at_s: 1}]"], "leave this key out"),
        (
            ["--only", "hang", "--set", "supervise.hang_s=null"],
            "nothing can be rehearsed: hang: supervise.hang_s is null",
        ),
        (["--keep", "full"], "the folder is not empty"),
        (["--set", "sinks.0.options.endpont=x"], "did you mean 'endpoint'?"),
    ],
)
def test_each_mistake_is_one_error_line(tmp_path, arguments, sentence):
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


# ---- scenarios -----------------------------------------------------------------

TARGETS = FaultTargets(
    lane=("features", "detector", "classifier"),
    sinks=("zmq", "journal"),
    hang_s=30.0,
    on_disk=True,
    socket="tcp://127.0.0.1:1",
    recording_rate=48_000,
)


def test_there_is_a_scenario_of_each_fault_and_a_crash_of_each_stage():
    found, absent = make_scenarios(FAULTS, TARGETS, 0)
    assert absent == {}
    assert list(dict.fromkeys(each.fault for each in found)) == list(FAULTS)
    crashed = [each.stage for each in found if each.fault == "crash"]
    assert crashed == ["source", *TARGETS.lane, *TARGETS.sinks]
    assert len({each.name for each in found}) == len(found)


def test_the_time_of_a_fault_depends_on_its_kind_and_the_seed_alone():
    every, _ = make_scenarios(FAULTS, TARGETS, 3)
    alone, _ = make_scenarios(["stall"], TARGETS, 3)
    assert alone == [each for each in every if each.fault == "stall"]
    other, _ = make_scenarios(["stall"], TARGETS, 4)
    assert other != alone


def test_faults_without_a_target_are_listed_with_a_reason():
    bare = replace(TARGETS, sinks=("table",), on_disk=False, socket=None, hang_s=None)
    found, absent = make_scenarios(FAULTS, bare, 0)
    assert set(absent) == {"hang", "disk_full", "subscriber_stall", "network_cut"}
    assert not {each.fault for each in found} & set(absent)


def test_fault_names_are_parsed_into_the_table_s_order():
    assert parse_fault_names(" kill,drop") == ["drop", "kill"]
    assert parse_fault_names(None) == ["none", *FAULTS]
    with pytest.raises(ConfigError):
        parse_fault_names(",")


# ---- verdicts ------------------------------------------------------------

RATE = 1000
EXPECTED = [Vocalization("yard", at, at + 50, "") for at in range(100, 15_000, 200)]
DROP = Scenario("drop", 5.0, 0.5)


def event(header, at):
    return EngineEvent("run", round(at * NS / RATE), header)


def common(sample, at, seq=0):
    return {
        "stream": "yard",
        "seq": seq,
        "sample": sample,
        "at": at,
        "sample_rate": RATE,
    }


def offsets(vocalizations):
    return [
        event(
            OffsetHeader(
                **common(s.offset, s.offset, seq),
                segment=seq,
                onset=s.onset,
                truncated=False,
            ),
            s.offset,
        )
        for seq, s in enumerate(vocalizations)
    ]


def health(stage, state, at):
    return event(
        HealthHeader(**common(at, at), stage=stage, state=state, detail=""), at
    )


def gap(start, stop):
    return event(GapHeader(**common(start, stop), start=start, stop=stop, reason=""), 0)


def judged(reports, vocalizations=EXPECTED, scenario=DROP, exits=(0,)):
    announced = [health("fault drop", "degraded", round(scenario.at_s * RATE))]
    record = TrialRecord(
        events=[*announced, *reports, *offsets(vocalizations)],
        run_starts_s={"run": 0.0},
        origins_ns={"run": 0},
        exits=list(exits),
        seconds=15.0,
    )
    evidence = TrialEvidence(scenario, record, False, RATE, RATE)
    return judge(evidence, EXPECTED, "sinks", False)


def outside(vocalizations, start, stop):
    return [s for s in vocalizations if s.offset <= start or s.onset >= stop]


def test_losses_within_a_reported_gap_are_survived():
    row = judged([gap(5000, 5500)], outside(EXPECTED, 5000, 5500))
    assert (row.verdict, row.why) == ("survived with told loss", [])
    assert (row.expected, row.lost) == (len(EXPECTED), 0)
    assert row.told == row.expected - row.received > 0


def test_a_reported_gap_of_a_wrong_length_is_a_failure():
    row = judged([gap(5000, 5300)], outside(EXPECTED, 5000, 5500))
    assert row.verdict == "FAILED"
    assert row.why == ["'yard': gaps of 0.300 s were reported, 0.5 s were lost"]


def test_gaps_of_two_streams_are_not_added():
    there = gap(5000, 5500)
    place = {**common(5000, 5500), "stream": "b"}
    header = GapHeader(**place, start=5000, stop=5500, reason="")
    row = judged([there, event(header, 0)], outside(EXPECTED, 5000, 5500))
    assert row.why == []


def test_a_drop_without_a_reported_gap_is_a_failure():
    row = judged([], outside(EXPECTED, 5000, 5500))
    assert row.verdict == "FAILED"
    assert "no gap was reported" in row.why
    assert row.lost > 0


def test_a_loss_outside_the_reported_gap_is_a_failure():
    row = judged([gap(5000, 5500)], outside(EXPECTED[:-1], 5000, 5500))
    assert (row.verdict, row.lost) == ("FAILED", 1)
    assert row.why == ["1 segments lost without a word, the first at 14.9 s"]


def test_onsets_displaced_after_the_fault_are_a_failure():
    late = [
        s._replace(onset=s.onset + 15, offset=s.offset + 15) if s.onset > 5500 else s
        for s in outside(EXPECTED, 5000, 5500)
    ]
    row = judged([gap(5000, 5500)], late)
    assert row.verdict == "FAILED"
    assert row.why == ["what follows is +15 ms out of its place"]


def test_a_fault_that_was_never_announced_is_a_failure():
    record = TrialRecord(run_starts_s={"run": 0.0}, exits=[0], seconds=15.0)
    evidence = TrialEvidence(DROP, record, False, RATE, RATE)
    row = judge(evidence, [], "sinks", False)
    assert row.verdict == "FAILED"
    assert "did not strike" in row.why[0]


def test_a_run_that_ends_with_an_exit_code_of_2_is_a_failure():
    row = judged([gap(5000, 5500)], outside(EXPECTED, 5000, 5500), exits=(2,))
    assert row.verdict == "FAILED"
    assert "ended with code 2" in row.why[0]
