"""What is reviewed of a folder: datasets, tables of `label`, clips, recordings."""

import json
from pathlib import Path

import pytest
import soundfile
from stages.reviews import RATE, tones

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.review.folder import read_folder

SPANS = [(0.5, 0.7), (1.0, 1.2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    songs = tmp_path / "songs"
    songs.mkdir()
    tones(songs / "a.wav", SPANS, 2.0)
    tones(songs / "b.wav", SPANS, 2.0)
    return songs


def units(folder: Path, **values: object) -> list[tuple[str, float, str]]:
    found = read_folder(folder, **values)
    return [(s.recording, s.onset / RATE, s.unit) for s in found.segments]


def test_datasets(folder):
    (folder / "annotations.csv").write_text(
        "file,onset_s,offset_s,label\na.wav,0.5,0.7,x\na.wav,1.0,1.2,sil\n"
    )
    assert units(folder) == [("a.wav", 0.5, "x")]
    assert list(read_folder(folder).recordings) == ["a.wav", "b.wav"]


def test_tables_of_label_and_detect(folder):
    table = folder / "labels.csv"
    table.write_text(
        "file,onset_s,offset_s,label,posterior\n"
        "here/songs/a.wav,0.5,0.7,x,0.75\n"
        "here/songs/b.wav,1.0,1.2,y,\n"
    )
    found = read_folder(folder)
    assert units(folder) == [("a.wav", 0.5, "x"), ("b.wav", 1.0, "y")]
    assert [each.posterior for each in found.segments] == [0.75, None]
    table.write_text("file,onset_s,offset_s,score\na.wav,0.5,0.7,12.5\n")
    (segment,) = read_folder(folder).segments
    assert (segment.unit, segment.score) == ("", 12.5)


def test_several_tables_must_be_chosen_from(folder):
    for name in ("one.csv", "two.csv"):
        (folder / name).write_text(
            f"file,onset_s,offset_s,label,posterior\na.wav,0.5,0.7,{name},1\n"
        )
    with pytest.raises(ConfigError, match="choose one with --labels"):
        read_folder(folder)
    assert units(folder, table=folder / "two.csv") == [("a.wav", 0.5, "two.csv")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "0.5\t0.7\tx\n"),
        (
            "a.Table.1.selections.txt",
            "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tAnnotation\n"
            "1\tSpectrogram 1\t1\t0.5\t0.7\tx\n",
        ),
        ("a.phn", "8000 11200 x\n"),
    ],
)
def test_formats_are_seen_from_the_files(folder, name, text):
    (folder / name).write_text(text)
    assert units(folder) == [("a.wav", 0.5, "x")]


def test_faulty_tables_can_be_mended(folder):
    (folder / "annotations.csv").write_text(
        "file,onset_s,offset_s,label\n"
        "a.wav,0.5,0.7,x\na.wav,0.6,0.8,y\na.wav,1.5,9.0,z\n"
    )
    found = read_folder(folder)
    assert len(found.segments) == 3
    assert found.segments[2].offset == 2 * RATE
    assert any("overlaps" in note for note in found.notes)


def test_recordings_alone(folder):
    found = read_folder(folder)
    assert found.segments == []
    assert list(found.recordings) == ["a.wav", "b.wav"]
    assert any("mark them by dragging" in note for note in found.notes)


def test_channels_are_recordings_of_their_own(folder):
    stereo, _ = soundfile.read(folder / "a.wav", always_2d=True)
    soundfile.write(folder / "s.wav", stereo.repeat(2, axis=1), RATE)
    (folder / "annotations.csv").write_text(
        "file,onset_s,offset_s,label,channel\ns.wav,0.5,0.7,x,1\ns.wav,1.0,1.2,y,2\n"
    )
    found = read_folder(folder)
    assert [s.recording for s in found.segments] == ["s.wav.ch1", "s.wav.ch2"]
    assert found.recordings["s.wav.ch2"].audio[0].channels == (2,)


def test_clips_of_the_sink(tmp_path):
    day = tmp_path / "clips" / "2026-05-01" / "aviary"
    day.mkdir(parents=True)
    name = "20260501T043012.250000Z_aviary_s000000012345"
    tones(day / f"{name}.wav", [(0.5, 0.7)], 1.2)
    sidecar = {
        "audio": f"{name}.wav",
        "stream": "aviary",
        "run": "r",
        "sample_rate": RATE,
        "start": 12345,
        "stop": 12345 + round(1.2 * RATE),
        "utc_ns": 1_777_609_812_250_000_000,
        "segments": [
            {
                "segment": 3,
                "onset_s": 0.5,
                "offset_s": 0.7,
                "labels": [
                    {"unit": "z", "posterior": 0.2, "status": "provisional"},
                    {"unit": "x", "posterior": 0.8, "status": "final"},
                ],
                "surprise": {"mean": 1.5, "max": 3.0},
            }
        ],
    }
    (day / f"{name}.json").write_text(json.dumps(sidecar))
    found = read_folder(tmp_path / "clips")
    (segment,) = found.segments
    assert (segment.unit, segment.posterior, segment.surprise) == ("x", 0.8, 1.5)
    assert segment.onset == RATE // 2


def test_folders_without_audio_or_that_are_none(tmp_path):
    with pytest.raises(ConfigError, match="holds no recording: name the folder"):
        read_folder(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        read_folder(tmp_path / "none")


def test_a_table_of_other_recordings(folder):
    table = folder / "labels.csv"
    table.write_text("file,onset_s,offset_s,label,posterior\nz.wav,0.5,0.7,x,1\n")
    with pytest.raises(ConfigError, match=r"labels\.csv:2: recording 'z\.wav'"):
        read_folder(folder)


def test_keys_stay_the_same(folder):
    (folder / "annotations.csv").write_text(
        "file,onset_s,offset_s,label\na.wav,0.5,0.7,x\na.wav,1.0,1.2,y\n"
    )
    before = {s.id for s in read_folder(folder).segments}
    (folder / "annotations.csv").write_text(
        "file,onset_s,offset_s,label\na.wav,0.2,0.3,n\na.wav,0.5,0.7,x\n"
        "a.wav,1.0,1.2,y\n"
    )
    assert before < {s.id for s in read_folder(folder).segments}
