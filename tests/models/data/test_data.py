"""Datasets: reading, errors, splits, units, targets and scaling."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset, read_dataset
from neurovocal.models.data.frames import common_rate, fit_scaling, read_samples
from neurovocal.models.data.prepare import prepare_dataset
from neurovocal.models.data.split.recordings import select_recordings, split_recordings
from neurovocal.models.data.targets import Units, targets_of
from neurovocal.models.data.units import choose_units
from neurovocal.models.toolkit.measures import IGNORED
from neurovocal.models.toolkit.recipe import (
    FrontEndConfig,
    SplitConfig,
    TrainConfig,
    UnitsConfig,
)

RATE = 8000


def write_audio(path: Path, seconds: float = 1.0, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate))
    soundfile.write(path, noise.astype(np.float32), rate, subtype="FLOAT")


def dataset(folder: Path, rows: list[str], files: list[str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name in files if files is not None else ["a.wav"]:
        write_audio(folder / name)
    text = "\n".join(["file,onset_s,offset_s,label", *rows])
    (folder / "annotations.csv").write_text(text + "\n")
    return folder


def recording(name: str, onsets: list[float], split: str = "") -> AnnotatedRecording:
    segments = tuple(Annotation(t, t + 0.1, "a") for t in onsets)
    columns = {"split": split} if split else {}
    return AnnotatedRecording(name, Path(name), 10.0, RATE, segments, columns)


def test_annotations_are_read_in_time_order(tmp_path: Path) -> None:
    folder = dataset(tmp_path, ["a.wav,0.5,0.6,b", "a.wav,0.1,0.2,a"])
    (found,) = read_dataset(folder).recordings
    assert [a.unit for a in found.annotations] == ["a", "b"]
    assert found.sample_rate == RATE
    assert found.duration_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["b.wav,0.1,0.2,a"], "annotations.csv:2: recording 'b.wav' does not exist"),
        (
            ["a.wav,0.1,0.3,a", "a.wav,0.2,0.4,b"],
            "annotations.csv:3: segment 'b' of a.wav at 0.2 s overlaps 'a'",
        ),
        (["a.wav,0.9,1.1,a"], "past the end of the recording (1 s)"),
        (["a.wav,0.2,0.1,a"], "ends at 0.1 s, before it begins"),
        (["a.wav,-0.2,0.1,a"], "begins before the recording"),
        (["a.wav,nan,0.1,a"], ":2: onset_s 'nan' is not finite"),
        (["a.wav,x,0.1,a"], ":2: onset_s 'x' is not a number"),
        (["a.wav,0.1,0.2,"], ":2: the label is empty"),
        ([], "has no labelled segments"),
    ],
)
def test_each_mistake_in_the_data_is_one_problem(
    tmp_path: Path, rows: list[str], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_dataset(dataset(tmp_path, rows))
    assert expected in str(caught.value)
    assert len(caught.value.problems) == 1


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    rows = ["a.wav,0.9,1.1,a", "b.wav,0.1,0.2,a", "a.wav,0.1,0.1,a"]
    with pytest.raises(ConfigError) as caught:
        read_dataset(dataset(tmp_path, rows))
    assert len(caught.value.problems) == 3


def test_missing_folders_columns_and_audio_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no annotations\.csv"):
        read_dataset(tmp_path)
    (tmp_path / "annotations.csv").write_text("file,start,stop\n")
    with pytest.raises(
        ConfigError,
        match="columns 'onset_s', 'offset_s', 'label' are missing; there are file",
    ):
        read_dataset(tmp_path)
    folder = dataset(tmp_path / "text", ["t.wav,0.1,0.2,a"], [])
    (folder / "t.wav").write_text("no audio at all")
    with pytest.raises(
        ConfigError, match=r"t\.wav: is not a recording that can be read"
    ):
        read_dataset(folder)


def test_non_finite_samples_are_an_error_with_their_time(tmp_path: Path) -> None:
    folder = dataset(tmp_path, ["a.wav,0.1,0.2,a"])
    samples = np.zeros(RATE, np.float32)
    samples[4000] = np.nan
    soundfile.write(folder / "a.wav", samples, RATE, subtype="FLOAT")
    (found,) = read_dataset(folder).recordings
    with pytest.raises(ConfigError, match=r"not finite \(the first at 0\.500 s\)"):
        read_samples(found, RATE)


def test_recordings_are_resampled_to_the_most_common_rate(tmp_path: Path) -> None:
    folder = dataset(tmp_path, ["a.wav,0.1,0.2,a"], ["a.wav", "b.wav"])
    write_audio(folder / "c.wav", rate=16000)
    with (folder / "annotations.csv").open("a") as stream:
        stream.write("b.wav,0.1,0.2,a\nc.wav,0.1,0.2,a\n")
    recordings = read_dataset(folder).recordings
    rate, notes = common_rate(recordings)
    assert rate == RATE
    assert "1 at 16000 Hz" in notes[0]
    assert len(read_samples(recordings[2], rate)) == pytest.approx(RATE, abs=2)


def test_other_annotation_formats_are_read_with_crowsetta(tmp_path: Path) -> None:
    write_audio(tmp_path / "song.wav")
    (tmp_path / "song.txt").write_text("0.100000\t0.200000\ta\n0.3\t0.4123456\tb\n")
    (found,) = read_dataset(tmp_path, "aud-seq").recordings
    assert [a.unit for a in found.annotations] == ["a", "b"]
    assert found.annotations[1].offset_s == pytest.approx(0.4123456, abs=1e-6)
    with pytest.raises(ConfigError, match="unknown annotation format"):
        read_dataset(tmp_path, "no-such-format")
    with pytest.raises(ConfigError, match=r"annotations\.csv is read without --format"):
        read_dataset(tmp_path, "csv")


def test_files_csv_determines_the_split() -> None:
    recordings = [recording(f"{i}", [1.0, 2.0], "train") for i in range(6)]
    recordings += [recording("t", [1.0], "valid")]
    data = type("D", (), {"recordings": recordings})()
    split = split_recordings(data, SplitConfig(), 0)
    assert [r.file for r in split.test] == ["t"]
    assert len(split.train) + len(split.valid) == 6
    with pytest.raises(ConfigError, match="no column 'day'"):
        split_recordings(data, SplitConfig(column="day"), 0)
    with pytest.raises(ConfigError, match="split = nowhere"):
        split_recordings(data, SplitConfig(test=["nowhere"]), 0)


def test_the_recipe_selects_recordings_by_column() -> None:
    recordings = tuple(recording(f"{i}", [1.0], kind) for i, kind in enumerate("aabc"))
    data = Dataset(Path("d"), recordings)

    def files(**only: list[str]) -> list[str]:
        found = select_recordings(data, SplitConfig(only=only)).recordings
        return [r.file for r in found]

    assert files() == ["0", "1", "2", "3"]
    assert files(split=["a", "c"]) == ["0", "1", "3"]
    with pytest.raises(ConfigError, match=r"split = z \(there are: a, b, c\)"):
        files(split=["z"])
    with pytest.raises(ConfigError, match="no column 'day'"):
        files(day=["a"])


@given(st.integers(0, 1000), st.integers(1, 12))
def test_splits_are_disjoint_and_complete(seed: int, n: int) -> None:
    recordings = [recording(f"{i}", [1.0, 3.0, 5.0, 7.0, 9.0]) for i in range(n)]
    data = type("D", (), {"recordings": recordings})()
    split = split_recordings(data, SplitConfig(min_recordings=4), seed)
    parts = [*split.train, *split.valid, *split.test]
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            apart = one.stop_s <= other.start_s or other.stop_s <= one.start_s
            assert one.file != other.file or apart
    assert sum(r.part_duration_s for r in parts) == pytest.approx(10.0 * n)
    assert sum(len(r.own_annotations) for r in parts) == 5 * n


def test_rare_units_are_left_out_merged_or_kept() -> None:
    segments = [Annotation(i, i + 0.5, "a") for i in range(6)]
    segments += [Annotation(7, 7.5, "x"), Annotation(8, 8.5, "y")]
    one = AnnotatedRecording("r", Path("r"), 10.0, RATE, tuple(segments))
    units, notes = choose_units([one], [one], UnitsConfig())
    assert units.names == ["", "a"]
    assert units.index["x"] == IGNORED
    assert "'x' has 1 example in the training split" in notes[0]
    merged, _ = choose_units([one], [one], UnitsConfig(rare="merge"))
    assert merged.names == ["", "a", "other"]
    assert merged.index["x"] == merged.index["y"] == 2
    kept, notes = choose_units([one], [one], UnitsConfig(rare="keep"))
    assert kept.names == ["", "a", "x", "y"]
    assert notes == []
    with pytest.raises(ConfigError, match="no label has enough examples"):
        choose_units([one], [one], UnitsConfig(min_examples=50))


@given(st.integers(0, 400), st.integers(1, 300))
def test_a_frame_has_the_unit_at_its_centre(onset: int, length: int) -> None:
    hop, frame, n = 16, 32, 40
    a = Annotation(onset / RATE, (onset + length) / RATE, "a")
    one = AnnotatedRecording("r", Path("r"), 10.0, RATE, (a,))
    target, spans = targets_of(one, Units(["", "a"], {"a": 1}), n, RATE, hop, frame)
    centres = np.arange(n) * hop + frame / 2
    expected = (centres >= onset) & (centres < onset + length)
    np.testing.assert_array_equal(target == 1, expected)
    assert sum(s.stop - s.first for s in spans) == expected.sum()


def test_band_scaling_maps_percentiles_to_0_and_1() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(5, [1, 2, 3], (10000, 3)).astype(np.float32)
    frames[:, 2] = 7.0
    offset, gain = fit_scaling([frames], FrontEndConfig())
    scaled = (frames - offset) * gain
    np.testing.assert_allclose(np.percentile(scaled[:, :2], 2, axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.percentile(scaled[:, :2], 99.8, axis=0), 1, atol=1e-3)
    assert not scaled[:, 2].any()  # a constant bin stays at 0


def test_preparation_needs_little_more_memory_than_its_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["file,onset_s,offset_s,label"]
    for number in range(10):
        samples = rng.normal(0, 0.01, 60 * 16000).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", samples, 16000)
        rows += [f"{number}.wav,{t + 0.5},{t + 0.7},a" for t in range(1, 58)]
    (tmp_path / "annotations.csv").write_text("\n".join(rows) + "\n")
    dataset = read_dataset(tmp_path)
    tracemalloc.start()
    try:
        data = prepare_dataset(dataset, TrainConfig(), lambda share, note: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    held = sum(m.frames.nbytes for m in [*data.train, *data.valid])
    # Memory of a block in processing, independent of the length of recordings.
    assert peak - held < 65e6
