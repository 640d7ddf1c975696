"""What is read of a journal: segments, order, and where the sound is."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stages.reviews import (
    RATE,
    heard,
    near_miss,
    session,
    surprise,
    tones,
    write_journal,
)

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Block, Gap, Message, StreamInfo
from neurovocal.engine.journal.reader import Selection
from neurovocal.plugins.review.audio import RecordingAudio, spectrogram
from neurovocal.plugins.review.journal import read_journal
from neurovocal.plugins.review.server import review_of_run
from neurovocal.plugins.review.session import Edit, Query
from neurovocal.plugins.sinks.recording import RecordingSink

CONFIG = """\
# configuration: {folder}/my.yaml
version: 1
station: aviary
source: {{plugin: file, options: {{path: {path}}}}}
sinks:
  - {{plugin: journal, options: {{path: run.sqlite, }}}}
"""


def journal(folder: Path, **values: object) -> Path:
    """Write a journal of three segments and a near miss in ``song.wav``."""
    tones(folder / "song.wav", [(0.5, 0.7), (1.0, 1.2), (2.0, 2.3)], 4.0)
    events = [
        *heard(0, 0.5, 0.7, "a", 0.9),
        *heard(1, 1.0, 1.2, "b", 0.4),
        near_miss(1.5, 1.6),
        *heard(2, 2.0, 2.3, "a", 0.6),
        surprise([1.0] * 100 + [5.0] * 50 + [2.0] * 250),
    ]
    config = CONFIG.format(folder=folder, path="song.wav")
    return write_journal(
        folder / "run.sqlite", config, [("song.wav", each) for each in events], **values
    )


def test_reads_segments_and_finds_their_recording(tmp_path):
    found = read_journal(journal(tmp_path))
    (recording,) = found.recordings.values()
    assert recording.problem == ""
    assert recording.audio[0].path == str(tmp_path / "song.wav")
    assert recording.n_samples == 4 * RATE
    assert [s.unit for s in found.segments if s.kind == "segment"] == ["a", "b", "a"]
    assert [s.reason for s in found.segments if s.kind == "near_miss"] == ["quiet"]


def test_sorts_by_posterior_unit_surprise_and_near_miss(tmp_path):
    review = session(tmp_path / "r.sqlite", read_journal(journal(tmp_path)))

    def order(name: str, **values: object) -> list[float]:
        found, _ = review.select(Query(name, **values))
        return [each.onset / RATE for each in found]

    assert order("posterior") == [1.0, 2.0, 0.5]
    assert order("unit") == [2.0, 0.5, 1.0]
    assert order("near_miss", kind="near_miss") == [1.5]
    assert order("time", unit="a") == [0.5, 2.0]
    assert order("surprise") == [1.0, 2.0, 0.5]


def test_the_newest_run_of_a_recording_is_reviewed(tmp_path):
    path = journal(tmp_path)
    events = [("song.wav", each) for each in heard(0, 0.5, 0.7, "z", 0.9)]
    config = CONFIG.format(folder=tmp_path, path="song.wav")
    write_journal(path, config, events, run="run2")
    found = read_journal(path)
    assert [s.unit for s in found.segments] == ["z"]
    assert any("1 earlier hearing" in note for note in found.notes)
    assert len(read_journal(path, Selection(runs=("run1",))).segments) == 4


def test_audio_that_is_gone_is_named_and_labels_stay(tmp_path):
    path = journal(tmp_path)
    (tmp_path / "song.wav").unlink()
    found = read_journal(path)
    (recording,) = found.recordings.values()
    assert "song.wav" in recording.problem
    assert recording.problem.startswith("no sound: ")
    assert len(found.segments) == 4


def test_sound_of_a_live_source_is_that_of_the_recording_sink(tmp_path):
    config = (
        f"# configuration: {tmp_path}/my.yaml\n"
        "version: 1\nstation: aviary\nsource: {plugin: microphone}\n"
        "sinks:\n  - {plugin: journal, options: {path: run.sqlite}}\n"
        "  - {plugin: recording, options: {path: kept}}\n"
    )
    sink = RecordingSink(tmp_path / "kept", "run1")
    sink.open()
    info = StreamInfo("aviary", RATE)
    loud = np.full((RATE, 1), 0.25, np.float32)
    sink.write(Message(info, Block(0, loud), 0, RATE))
    sink.write(Message(info, Gap(RATE, 2 * RATE, "overrun"), 0, 2 * RATE))
    sink.write(Message(info, Block(2 * RATE, loud / 2), 1, 3 * RATE))
    sink.end_stream("aviary")
    sink.close()
    events = [("aviary", each) for each in heard(0, 2.5, 2.7, "a", 0.9)]
    found = read_journal(write_journal(tmp_path / "run.sqlite", config, events))
    (recording,) = found.recordings.values()
    assert recording.problem == ""
    audio = RecordingAudio()
    samples = audio.read(recording, 0, 3 * RATE)
    assert samples[[10, RATE + 10, 2 * RATE + 10]].tolist() == [0.25, 0.0, 0.125]
    assert audio.covered(recording, 2 * RATE, 3 * RATE)
    assert not audio.covered(recording, RATE // 2, 3 * RATE)
    audio.close()


def test_a_microphone_whose_sound_was_not_kept(tmp_path):
    config = "version: 1\nsource: {plugin: microphone}\nsinks: []\n"
    events = [("neurovocal", each) for each in heard(0, 0.5, 0.7, "a", 0.9)]
    found = read_journal(write_journal(tmp_path / "run.sqlite", config, events))
    (recording,) = found.recordings.values()
    assert "'microphone' source was not kept" in recording.problem


def test_several_recordings_in_one_stream(tmp_path):
    tones(tmp_path / "a.wav", [(0.2, 0.4)], 1.0)
    tones(tmp_path / "b.wav", [(0.6, 0.8)], 1.0)
    config = CONFIG.format(folder=tmp_path, path="'*.wav', streams: one")
    events = [
        *heard(0, 0.2, 0.4, "a", 0.9),
        Gap(RATE, RATE, "next recording"),
        *heard(1, 1.6, 1.8, "a", 0.9),
    ]
    path = write_journal(
        tmp_path / "run.sqlite", config, [("aviary", each) for each in events]
    )
    found = read_journal(path)
    (recording,) = found.recordings.values()
    samples = RecordingAudio().read(recording, round(1.6 * RATE), round(1.8 * RATE))
    assert np.abs(samples).max() > 0.2
    assert recording.holes == ((RATE, RATE),)


def test_the_spectrogram_shows_a_tone_at_its_place(tmp_path):
    found = read_journal(journal(tmp_path))
    (recording,) = found.recordings.values()
    columns = spectrogram(RecordingAudio(), recording, 0, 2 * RATE, 400)
    loudest = columns.values.argmax(axis=1)
    hz = columns.low_hz + (columns.high_hz - columns.low_hz) * loudest / (
        columns.values.shape[1] - 1
    )
    at_s = (np.arange(len(hz)) + 0.5) * columns.column_s
    inside = (at_s > 0.52) & (at_s < 0.68)
    assert np.abs(hz[inside] - 2000).max() < 100
    level = columns.values.max(axis=1)
    heard_s = at_s[(level > 200) & (at_s < 0.9)]
    assert heard_s.min() == pytest.approx(0.5, abs=0.006)
    assert heard_s.max() == pytest.approx(0.7, abs=0.006)


def test_columns_of_a_wide_view_miss_no_short_call(tmp_path):
    tones(tmp_path / "song.wav", [(31.0, 31.01)], 60.0)
    config = CONFIG.format(folder=tmp_path, path="song.wav")
    events = [("song.wav", each) for each in heard(0, 31.0, 31.01, "a", 0.9)]
    found = read_journal(write_journal(tmp_path / "run.sqlite", config, events))
    (recording,) = found.recordings.values()
    columns = spectrogram(RecordingAudio(), recording, 0, 60 * RATE, 300)
    assert len(columns.values) <= 400
    loudest = columns.values.max(axis=1).argmax()
    assert loudest * columns.column_s == pytest.approx(31.0, abs=columns.column_s)


def test_journals_without_content_and_of_newer_versions(tmp_path):
    (tmp_path / "empty.sqlite").touch()
    with pytest.raises(ConfigError, match="is empty"):
        read_journal(tmp_path / "empty.sqlite")
    none = write_journal(tmp_path / "none.sqlite", "version: 1\n", [])
    with pytest.raises(ConfigError, match="nothing that could be reviewed"):
        read_journal(none)
    path = journal(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="has version 99"):
        read_journal(path)


def test_reviewing_changes_neither_journal_nor_recording(tmp_path):
    path = journal(tmp_path)
    before = path.read_bytes(), (tmp_path / "song.wav").read_bytes()
    found = read_journal(path)
    review = session(tmp_path / "run.review.sqlite", found)
    review.edit(Edit("label", "Ada", found.segments[0].id, unit="q"))
    again = session(tmp_path / "run.review.sqlite", read_journal(path))
    assert again.select(Query())[0][0].unit == "q"
    assert (path.read_bytes(), (tmp_path / "song.wav").read_bytes()) == before
    assert soundfile.info(tmp_path / "song.wav").frames == 4 * RATE


@pytest.mark.parametrize(
    ("privacy", "is_heard"),
    [
        ("privacy: {mode: gate}", False),
        ("privacy: {mode: labels_only}", False),
        ("privacy: {}", False),
        ("privacy: {mode: off}", True),
        ("", True),
    ],
)
def test_the_page_of_a_run_plays_no_sound_that_privacy_withholds(
    tmp_path, privacy, is_heard
):
    tones(tmp_path / "song.wav", [(0.5, 0.7)], 4.0)
    config = CONFIG.format(folder=tmp_path, path="song.wav") + privacy + "\n"
    events = [("song.wav", each) for each in heard(0, 0.5, 0.7, "a", 0.9)]
    path = write_journal(tmp_path / "run.sqlite", config, events)
    page = review_of_run(path, "Ada")
    (recording,) = page.session.collection.recordings.values()
    assert bool(recording.audio) == is_heard
    assert ("privacy withholds" in recording.problem) != is_heard
    assert [each.unit for each in page.session.segments()] == ["a"]
    page.close()
    # Who may read the files themselves hears them.
    (recording,) = read_journal(path).recordings.values()
    assert recording.audio[0].path == str(tmp_path / "song.wav")
