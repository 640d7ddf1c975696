"""Export: which stretches, their sound, and tables that other programs read."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stages.reviews import RATE, collection, session, tones

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.datasets import read_dataset
from neurovocal.plugins.review.audio import RecordingAudio
from neurovocal.plugins.review.export import export_dataset, stretches
from neurovocal.plugins.review.session import Edit, ReviewSession

SEGMENTS = [(0.5, 0.7, "a"), (1.0, 1.2, "b"), (2.0, 2.3, "a"), (3.0, 3.1, "b")]


@pytest.fixture
def review(tmp_path: Path) -> ReviewSession:
    path = tones(tmp_path / "song.wav", [each[:2] for each in SEGMENTS], 4.0)
    return session(tmp_path / "r.sqlite", collection(path, SEGMENTS))


def do(target: ReviewSession, action: str, segment: str, **values: object) -> None:
    target.edit(Edit(action, "Ada", segment, **values))


def spans(target: ReviewSession, context_s: float, **values: bool):
    (recording,) = target.collection.recordings.values()
    found = stretches(recording, target.segments(), context_s, **values)
    return [
        (
            round(each.start / RATE, 3),
            round(each.stop / RATE, 3),
            [s.unit for s in each.segments],
        )
        for each in found
    ]


def test_stretches_end_before_segments_that_nobody_reviewed(review):
    assert spans(review, 1.0) == []
    do(review, "confirm", "s0")
    do(review, "confirm", "s2")
    assert spans(review, 0.2) == [(0.3, 0.9, ["a"]), (1.8, 2.5, ["a"])]
    assert spans(review, 9.0) == [(0.0, 0.98, ["a"]), (1.22, 2.98, ["a"])]
    do(review, "delete", "s1")  # reviewed silence
    assert spans(review, 0.4)[0] == (0.1, 2.7, ["a", "a"])
    assert spans(review, 0.4, everything=True) == [(0.0, 4.0, ["a", "a", "b"])]


def test_the_dataset_is_read_by_train_and_sounds_alike(review, tmp_path):
    for key in ("s0", "s2", "s3"):
        do(review, "confirm", key)
    do(review, "label", "s3", unit="unknown")
    done = export_dataset(review, RecordingAudio(), tmp_path / "out")
    assert (done.files, done.segments) == (2, 3)
    assert done.units == {"a": 2, "unknown": 1}
    dataset = read_dataset(tmp_path / "out")
    labels = [a for r in dataset.recordings for a in r.annotations]
    assert [a.unit for a in labels] == ["a", "a", "unknown"]
    whole, _ = soundfile.read(tmp_path / "song.wav", dtype="int16")
    for recording in dataset.recordings:
        part, rate = soundfile.read(recording.path, dtype="int16")
        assert rate == RATE
        start = round(float(recording.columns["start_s"]) * RATE)
        assert np.array_equal(part, whole[start : start + len(part)])
        for each in recording.annotations:
            first, stop = round(each.onset_s * RATE), round(each.offset_s * RATE)
            assert np.abs(part[first:stop]).max() > 5000
            assert np.abs(part[first - 1600 : first - 10]).max() < 500


@pytest.mark.parametrize(
    "form", ["csv", "raven", "audacity", "aud-seq", "simple-seq", "generic-seq"]
)
def test_every_format_is_read_back(review, tmp_path, form):
    for key in ("s0", "s1", "s2", "s3"):
        do(review, "confirm", key)
    export_dataset(review, RecordingAudio(), tmp_path / "out", form, 0.2)
    dataset = read_dataset(tmp_path / "out", None if form == "csv" else form)
    found = [
        (a.unit, round(a.offset_s - a.onset_s, 3))
        for r in dataset.recordings
        for a in r.annotations
    ]
    assert found == [("a", 0.2), ("b", 0.2), ("a", 0.3), ("b", 0.1)]


@pytest.mark.filterwarnings("ignore:The inplace keyword")
@pytest.mark.parametrize("form", ["aud-seq", "simple-seq", "generic-seq", "raven"])
def test_crowsetta_reads_them(review, tmp_path, form):
    crowsetta = pytest.importorskip("crowsetta")
    for key in ("s0", "s1", "s2", "s3"):
        do(review, "confirm", key)
    export_dataset(review, RecordingAudio(), tmp_path / "out", form, 9.0)
    ends = {"raven": "*.txt", "aud-seq": "*.txt"}
    (table,) = (tmp_path / "out").glob(ends.get(form, "*.csv"))
    kwargs = {"annot_col": "Annotation"} if form == "raven" else {}
    if form == "simple-seq":
        kwargs = {"columns_map": {"onset_s": "onset_s", "offset_s": "offset_s"}}
        kwargs["columns_map"]["label"] = "label"
    read = crowsetta.Transcriber(form).from_file(table, **kwargs)
    annotation = read.to_annot()
    if isinstance(annotation, list):
        (annotation,) = annotation
    if form == "raven":
        labels = [box.label for box in annotation.bboxes]
    else:
        sequence = annotation.seq
        sequence = sequence[0] if isinstance(sequence, list) else sequence
        labels = list(sequence.labels)
    assert labels == ["a", "b", "a", "b"]


def test_nothing_of_the_users_is_overwritten(review, tmp_path):
    do(review, "confirm", "s0")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty: export to another one"):
        export_dataset(review, RecordingAudio(), full)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_an_export_without_reviewed_segments_says_so(review, tmp_path):
    with pytest.raises(ConfigError, match="no segment is reviewed yet"):
        export_dataset(review, RecordingAudio(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing(review, tmp_path, monkeypatch):
    do(review, "confirm", "s0")
    do(review, "confirm", "s3")
    written = []

    def full(path: Path, samples: object, rate: int) -> None:
        written.append(path)
        path.write_bytes(b"RIFF")
        if len(written) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("neurovocal.plugins.review.export._write_audio", full)
    with pytest.raises(Exception, match="No space left on device: nothing of it"):
        export_dataset(review, RecordingAudio(), tmp_path / "out", "csv", 0.2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["r.sqlite", "song.wav"]


def test_float_recordings_stay_bit_for_bit(tmp_path):
    rng = np.random.default_rng(3)
    samples = rng.normal(0, 0.1, 2 * RATE).astype(np.float32)
    path = tmp_path / "f.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    review = session(tmp_path / "r.sqlite", collection(path, [(0.5, 0.7, "a")], 2.0))
    do(review, "confirm", "s0")
    export_dataset(review, RecordingAudio(), tmp_path / "out")
    (out,) = (tmp_path / "out").glob("*.wav")
    assert np.array_equal(soundfile.read(out, dtype="float32")[0], samples)


def test_overlaps_of_the_table_must_be_mended_first(tmp_path):
    path = tones(tmp_path / "song.wav", [(0.5, 0.7)], 2.0)
    found = collection(path, [(0.5, 0.7, "a"), (0.6, 0.8, "b")], 2.0)
    review = session(tmp_path / "r.sqlite", found)
    do(review, "confirm", "s0")
    do(review, "confirm", "s1")
    with pytest.raises(ConfigError, match=r"'a' and 'b' overlap at 0\.600 s"):
        export_dataset(review, RecordingAudio(), tmp_path / "out")
    do(review, "move", "s1", onset=round(0.7 * RATE), offset=round(0.8 * RATE))
    done = export_dataset(review, RecordingAudio(), tmp_path / "out")
    assert done.segments == 2
    with (tmp_path / "out" / "annotations.csv").open() as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["a", "b"]
