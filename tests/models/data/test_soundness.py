"""Reading of every recording before a training: damage, silence, copies."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.data.soundness import (
    leave_out_copies,
    read_recordings,
    silent_note,
)

RATE = 8000
SECONDS = 6.0


def write(path: Path, samples: np.ndarray | None = None, **options: str) -> Path:
    if samples is None:
        samples = np.random.default_rng(0).normal(0, 0.1, round(SECONDS * RATE))
    soundfile.write(path, samples, RATE, **options)
    return path


def recording(path: Path, *segments: tuple[float, float, str]) -> AnnotatedRecording:
    annotations = tuple(Annotation(*segment) for segment in segments)
    return AnnotatedRecording(path.name, path, SECONDS, RATE, annotations)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 20_000, round(SECONDS * RATE) - 1])
def test_values_that_are_not_finite_are_told_with_number_and_time(
    tmp_path: Path, value: float, at: int
) -> None:
    samples = np.zeros(round(SECONDS * RATE), np.float32)
    samples[at] = value
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    with pytest.raises(ConfigError, match=rf"1 samples .* at {at / RATE:.3f} s"):
        read_recordings([recording(path)])


def test_another_channel_does_not_matter(tmp_path: Path) -> None:
    samples = np.zeros((round(SECONDS * RATE), 2), np.float32)
    samples[9, 1] = np.nan
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    read_recordings([recording(path)])


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.wav"])
@pytest.mark.parametrize("share", [0.4, 0.75])
def test_damaged_recordings_are_told(tmp_path: Path, name: str, share: float) -> None:
    path = write(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    with pytest.raises(ConfigError, match=r"is damaged, .* of 6.000 s can be read"):
        read_recordings([recording(path)])


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    bad = [tmp_path / "gone.wav", tmp_path / "text.wav"]
    bad[1].write_text("no sound")
    good = write(tmp_path / "good.wav")
    with pytest.raises(ConfigError) as refused:
        read_recordings([recording(path) for path in (*bad, good)])
    assert [p.partition(":")[0] for p in refused.value.problems] == list(map(str, bad))


def test_names_are_bytes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    good = write(tmp_path / "good.wav")
    good.rename(path)
    assert not read_recordings([recording(path)])[path.name].is_silent


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_recordings_without_sound_are_told_or_refused(
    tmp_path: Path, level: float
) -> None:
    silent = write(tmp_path / "s.wav", np.full(round(SECONDS * RATE), level))
    song = write(tmp_path / "a.wav")
    sounds = read_recordings([recording(silent), recording(song)])
    (note,) = silent_note(sounds)
    assert "1 of 2 recordings hold no sound" in note
    assert "(s.wav)" in note
    with pytest.raises(ConfigError, match="1 of 1 recordings hold no sound"):
        silent_note({"s.wav": sounds["s.wav"]})
    assert silent_note({"a.wav": sounds["a.wav"]}) == []


def copies(folder: Path, how: str) -> list[Path]:
    path = write(folder / "a.wav")
    other = folder / "b.wav"
    match how:
        case "link":
            os.link(path, other)
        case "symbolic link":
            other.symlink_to(path)
        case "copy":
            other.write_bytes(path.read_bytes())
        case _:  # the same samples in another format
            other = folder / "b.flac"
            soundfile.write(other, soundfile.read(path, dtype="int16")[0], RATE)
    return [path, other]


@pytest.mark.parametrize("how", ["link", "symbolic link", "copy", "format"])
def test_one_sound_is_in_one_part_only(tmp_path: Path, how: str) -> None:
    paths = copies(tmp_path, how)
    found = tuple(recording(path, (0.5, 1.0, "a")) for path in paths)
    sounds, dataset = read_recordings(found), Dataset(tmp_path, found)
    first, second = (path.name for path in paths)
    kept, (note,) = leave_out_copies(dataset, sounds, {})
    assert [r.file for r in kept.recordings] == [first]
    assert (
        note == f"'{first}' and '{second}' hold the same sound: '{second}' is left out"
    )
    with pytest.raises(ConfigError, match="one is for train, one for test"):
        leave_out_copies(dataset, sounds, {first: "train", second: "test"})
    other = recording(paths[1], (0.5, 1.0, "b"))
    with pytest.raises(ConfigError, match="with different annotations"):
        leave_out_copies(Dataset(tmp_path, (found[0], other)), sounds, {})
