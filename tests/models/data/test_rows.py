"""Frames on disk against frames in memory, and parts of long recordings."""

import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bundles.tone_dataset import make_tone_dataset
from hypothesis import given
from hypothesis import strategies as st
from repository import ROOT

from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset, read_dataset
from neurovocal.models.data.prepare import PreparedDataset, prepare_dataset
from neurovocal.models.data.split.recordings import split_recordings
from neurovocal.models.rnn_rbm.training import trim_songs
from neurovocal.models.toolkit.recipe import SplitConfig, TrainConfig
from neurovocal.models.toolkit.rows import (
    ClippedRows,
    StoredRows,
    mean_and_spread,
    spread_pieces,
)

BENCH = ROOT / "bench" / "speed" / "train_memory.py"
edges = st.none() | st.integers(-25, 25)


def frames(n: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0.5, 0.5, (n, 3))
    return values.astype(np.float32)


@given(first=edges, stop=edges, step=st.none() | st.integers(1, 4))
def test_stored_rows_slice_like_the_array(
    tmp_path_factory: pytest.TempPathFactory,
    first: int | None,
    stop: int | None,
    step: int | None,
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.npy"
    stored, wanted = StoredRows.write(path, frames(20)), slice(first, stop, step)
    np.testing.assert_array_equal(stored[wanted], frames(20)[wanted])
    assert (len(stored), stored.shape) == (20, (20, 3))


@given(first=st.integers(0, 25), stop=edges, inner=edges, last=edges)
def test_clipped_rows_equal_a_clipped_slice(
    first: int, stop: int | None, inner: int | None, last: int | None
) -> None:
    whole = frames(20)
    expected = np.clip(whole[first:stop], 0, 1)
    rows = ClippedRows.select(whole, first, stop)
    np.testing.assert_array_equal(rows[inner:last], expected[inner:last])
    assert len(rows) == len(expected)
    assert rows[:].flags["C_CONTIGUOUS"]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_mean_and_spread_of_songs_equal_those_of_one_array(lengths: list[int]) -> None:
    songs = [frames(n, seed) for seed, n in enumerate(lengths)]
    mean, spread = mean_and_spread(songs)
    together = np.concatenate(songs)
    np.testing.assert_array_equal(mean, together.mean(axis=0))
    np.testing.assert_array_equal(spread, together.std(axis=0))


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    max_frames=st.integers(1, 200),
)
def test_pieces_are_spread_evenly_over_the_songs(
    lengths: list[int], max_frames: int
) -> None:
    songs = [np.full((n, 2), k / 10, np.float32) for k, n in enumerate(lengths)]
    pieces = spread_pieces(songs, max_frames, 25)
    # A single frame at the end has no next frame and is no piece.
    alone = sum(n % 25 == 1 for n in lengths if n > 25)
    n_frames = sum(map(len, pieces))
    assert max(map(len, pieces)) <= 25
    if max_frames >= sum(lengths):
        assert n_frames == sum(lengths) - alone
    elif len(pieces) > 1:
        assert n_frames <= max_frames
        # Spread evenly: few frames are left out at a time.
        assert n_frames > max_frames - 2 * 25 - alone
    values = [float(piece[:][0, 0]) for piece in pieces]
    assert values == sorted(values)


def prepared(folder: Path, store: Path | None = None) -> PreparedDataset:
    dataset = read_dataset(folder)
    return prepare_dataset(
        dataset, TrainConfig(), lambda share, note: None, None, store
    )


def test_frames_on_disk_equal_those_in_memory(tmp_path: Path) -> None:
    folder, store = tmp_path / "tones", tmp_path / "frames"
    folder.mkdir()
    store.mkdir()
    make_tone_dataset(folder)
    held, stored = prepared(folder), prepared(folder, store)
    np.testing.assert_array_equal(held.gain, stored.gain)
    for part in ("train", "valid"):
        pairs = zip(getattr(held, part), getattr(stored, part), strict=True)
        for one, other in pairs:
            assert isinstance(other.frames, StoredRows)
            np.testing.assert_array_equal(one.frames, other.frames[:])
            np.testing.assert_array_equal(one.clipped, other.clipped)
    for one, other in zip(
        trim_songs(held.train, 0.1, 125.0),
        trim_songs(stored.train, 0.1, 125.0),
        strict=True,
    ):
        np.testing.assert_array_equal(one[:], other[:])
        assert 0 < len(one) < len(held.train[0].frames)


def test_preparation_on_disk_does_not_hold_all_frames_in_memory(tmp_path: Path) -> None:
    rng, store = np.random.default_rng(0), tmp_path / "frames"
    store.mkdir()
    rows = ["file,onset_s,offset_s,label"]
    for number in range(12):
        samples = rng.normal(0, 0.01, 30 * 32000).astype(np.float32)
        soundfile.write(tmp_path / f"{number}.wav", samples, 32000)
        rows += [f"{number}.wav,{t + 0.5},{t + 0.7},a" for t in range(1, 28)]
    (tmp_path / "annotations.csv").write_text("\n".join(rows) + "\n")
    dataset = read_dataset(tmp_path)
    tracemalloc.start()
    try:
        data = prepare_dataset(dataset, TrainConfig(), lambda *_: None, None, store)
        songs = trim_songs(data.train, None, 250.0)
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    n_bytes = sum(len(m.frames) * 129 * 4 for m in [*data.train, *data.valid])
    assert sum(map(len, songs)) * 129 * 4 > 0.6 * n_bytes > 20e6
    assert now < 0.2 * n_bytes
    assert peak < 40e6  # one recording, and eight bins of all recordings


@given(
    minutes=st.floats(1, 200),
    sounds=st.lists(
        st.tuples(st.floats(0, 1), st.floats(0.001, 400)), min_size=3, max_size=40
    ),
)
def test_long_recordings_are_cut_in_silences(
    minutes: float, sounds: list[tuple[float, float]]
) -> None:
    marks, free_s = [], 0.0
    for share, length_s in sorted(sounds):
        onset_s = max(free_s, share * minutes * 60)
        free_s = onset_s + length_s
        if free_s <= minutes * 60:
            marks.append(Annotation(onset_s, free_s, "a"))
    one = AnnotatedRecording("a.wav", Path("a.wav"), minutes * 60, 1000, tuple(marks))
    others = [
        AnnotatedRecording(
            f"{part}.wav", Path(part), 5.0, 1000, (Annotation(1, 2, "a"),)
        )
        for part in ("train", "valid", "test")
    ]
    named = [one, *others]
    for recording in named:
        part = "train" if recording is one else recording.file[:-4]
        recording.columns["split"] = part
    split = split_recordings(Dataset(Path(), tuple(named)), SplitConfig(), 0)
    parts = [p for p in split.train if p.file == "a.wav"]
    assert parts[0].start_s == 0
    assert parts[-1].start_s + parts[-1].part_duration_s == pytest.approx(minutes * 60)
    for before, after in pairwise(parts):
        cut_s = before.stop_s
        assert cut_s == after.start_s
        assert not any(a.onset_s < cut_s < a.offset_s for a in marks)
    longest_sound_s = max((a.offset_s - a.onset_s for a in marks), default=0.0)
    if len(marks) < 2 or longest_sound_s < 1:
        # Regular cuts are possible, except within a single long sound.
        limit_s = 400 if longest_sound_s < 1 else 400 + longest_sound_s
        assert max(p.part_duration_s for p in parts) < limit_s
    assert sum(len(p.own_annotations) for p in parts) == len(marks)
    assert (split.valid, split.test) == (others[1:2], others[2:])


@pytest.mark.long
def test_training_memory_does_not_grow_with_the_recording() -> None:
    command = [sys.executable, str(BENCH), "--hours", "0.3333", "--minutes", "0.3"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figure = done.stdout.strip().splitlines()[-1]
    assert float(figure.split(":")[1].split()[0]) < 1.2, figure
