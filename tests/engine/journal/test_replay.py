"""Replay of recorded runs: identical events, and a report of differences."""

import json
import sqlite3

import pytest
import soundfile
from processes.cli_process import RECORDING, neurovocal, running
from processes.waiting import PROCESS_S

from neurovocal.engine.journal.replay import ReplayComparison
from neurovocal.engine.journal.store import RecordedEvent, read_events

SINKS = "sinks=[{{plugin: journal, options: {{path: '{0}/run.sqlite'}}}}{1}]"
ONSETS = (
    ", {{plugin: journal, options: {{path: '{0}/onsets.sqlite'}}, events: [onset]}}"
)
KEEP = ", {{plugin: recording, options: {{path: '{0}/kept'}}}}"


def record(folder, *overrides):
    sets = [part for override in overrides for part in ("--set", override)]
    done = neurovocal("run", "demo", "--plain", *sets)
    assert done.code == 0, done.err
    return folder / "run.sqlite"


def report(journal, *arguments):
    done = neurovocal("replay", journal, "--json", *arguments)
    assert "Traceback" not in done.err, done.err
    return done.code, json.loads(done.out)


def excerpt(folder):
    samples, rate = soundfile.read(RECORDING, dtype="int16", frames=5 * 32000)
    soundfile.write(folder / "song.flac", samples, rate)
    return folder / "song.flac"


def test_a_run_over_a_file_is_reproduced_for_any_blocks(tmp_path):
    journal = record(
        tmp_path,
        f"source={{plugin: file, options: {{path: '{excerpt(tmp_path)}'}}}}",
        SINKS.format(tmp_path, ONSETS.format(tmp_path)),
    )
    code, found = report(journal, "--block-length", 77)
    assert code == 0
    assert found["differences"] == []
    assert found["identical"]["label"] > 50
    assert found["identical"]["onset"] == found["identical"]["offset"]
    n_onsets = found["identical"]["onset"]
    for name in ("onsets.sqlite", "renamed.sqlite"):
        (tmp_path / "onsets.sqlite").replace(tmp_path / name)
        code, found = report(tmp_path / name)
        assert (code, found["differences"]) == (0, [])
        assert found["identical"] == {"onset": n_onsets}


def test_an_interrupted_run_is_reproduced_from_its_recording(tmp_path):
    with running(
        *("run", "demo", "--plain", "--set"),
        SINKS.format(tmp_path, KEEP.format(tmp_path)),
        *("--set", "stop_timeout_s=60"),
    ) as process:
        labels = 0
        while labels < 6:
            labels += process.stdout.readline().endswith(" ms\n")
        process.send_signal(2)
        _, err = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 0, err
    code, found = report(tmp_path / "run.sqlite")
    assert (code, found["differences"]) == (0, [])
    assert found["identical"]["label"] >= 6


@pytest.mark.parametrize("by", ["Ctrl-C", "control socket"])
def test_a_stopped_run_over_recordings_is_reproduced_up_to_the_stop(tmp_path, by):
    endpoint = f"ipc://{tmp_path}/control"
    song = excerpt(tmp_path)
    source = f"{{plugin: file, options: {{path: ['{song}', '{RECORDING}']"
    with running(
        *("run", "demo", "--plain", "--set"),
        f"source={source}, pace: realtime}}}}",
        *("--set", f"control={{plugin: zmq, options: {{endpoint: '{endpoint}'}}}}"),
        *("--set", SINKS.format(tmp_path, ""), "--set", "stop_timeout_s=60"),
    ) as process:
        # The second recording's noise floor has not settled when the run is stopped.
        while not process.stdout.readline().startswith(RECORDING.name):
            pass
        if by == "Ctrl-C":
            process.send_signal(2)
        else:
            assert neurovocal("control", endpoint, "stop").code == 0
        _, err = process.communicate(timeout=PROCESS_S)
    journal = tmp_path / "run.sqlite"
    stops = [e for e in read_events(journal) if e.kind == "control"]
    assert [each.stream for each in stops] == [RECORDING.name], err
    for more in ((), ("--block-length", 77)):
        code, found = report(journal, *more)
        assert (code, found["differences"]) == (0, [])
        assert found["identical"]["label"] > 50


def test_a_difference_is_found_and_reported(tmp_path):
    journal = record(
        tmp_path,
        f"source={{plugin: file, options: {{path: '{excerpt(tmp_path)}'}}}}",
        SINKS.format(tmp_path, ""),
    )
    with sqlite3.connect(journal) as connection:
        connection.execute(
            "update messages set header = replace(header, '\"segment\":3', "
            "'\"segment\":9') where kind = 'onset' and seq = 3"
        )
        connection.execute("delete from messages where kind = 'offset' and seq = 5")
    code, found = report(journal)
    assert code == 2
    assert [text.split(":")[0] for text in found["differences"]] == [
        "onset 3 of 'song.flac' differs from the recorded",
        "offset 5 of 'song.flac' was not recorded",
    ]


def test_what_a_killed_run_did_not_record_is_counted_in_one_sentence(tmp_path):
    journal = record(
        tmp_path,
        f"source={{plugin: file, options: {{path: '{excerpt(tmp_path)}'}}}}",
        SINKS.format(tmp_path, ""),
    )
    with sqlite3.connect(journal) as connection:
        (middle,) = connection.execute(
            "select rowid from messages where kind = 'offset' and seq = 5"
        ).fetchone()
        connection.execute(f"delete from messages where rowid >= {middle}")
    code, found = report(journal)  # a run that ended in order records all
    assert code == 2
    (sentence,) = found["differences"]
    assert sentence.startswith("not recorded: ")
    assert " events of 'song.flac' after the last recorded one, from " in sentence
    with sqlite3.connect(journal) as connection:
        connection.execute("update runs set ended_utc_ns = null")
    code, found = report(journal)
    assert (code, found["differences"]) == (0, [])
    assert found["not_recorded"]["song.flac"] > 50
    assert found["identical"]["offset"] == 5
    done = neurovocal("replay", journal)
    (line,) = [line for line in done.err.splitlines() if "song.flac" in line]
    assert "killed" in line
    assert "not compared" in line


def test_a_stream_whose_process_was_lost_ends_with_what_the_loss_made():
    def recorded(kind, seq, sample, stream="a", **more):
        fields = {"v": 1, "kind": kind, "stream": stream, "seq": seq}
        fields |= {"sample": sample, "at": sample, "sample_rate": 8000, **more}
        return RecordedEvent(kind, stream, seq, json.dumps(fields).encode(), b"")

    def loss(stream="a"):
        made = {"start": 900, "stop": 900, "reason": "worker process lost"}
        cut = {"segment": 1, "onset": 800, "truncated": True}
        return [
            recorded("offset", 0, 700, stream, segment=0, onset=600, truncated=False),
            recorded("offset", 1, 900, stream, **cut),
            recorded("gap", 0, 900, stream, **made),
        ]

    events = [*loss("a"), *loss("b"), recorded("label", 0, 1200, "b")]
    comparison = ReplayComparison(events, frozenset({"offset", "gap", "label"}))
    assert comparison.lost == {"a"}  # the other one went on in another process
    missing = [sentence for sentence in comparison.missing() if "'a'" in sentence]
    assert missing == ["offset 0 of 'a' did not come again"]


def test_the_replay_of_a_live_run_without_recording_is_rejected(tmp_path):
    pipe = "source={plugin: pipe, options: {sample_rate: 32000}}"
    done = neurovocal(
        *("run", "demo", "--plain", "--set", pipe),
        *("--set", SINKS.format(tmp_path, "")),
        stdin=bytes(64000),
    )
    assert done.code == 0, done.err
    done = neurovocal("replay", tmp_path / "run.sqlite")
    assert done.code == 1
    assert "recording" in done.err


def test_a_missing_journal_is_an_error(tmp_path):
    done = neurovocal("replay", tmp_path / "none.sqlite")
    assert done.code == 1
    assert "none.sqlite" in done.err
