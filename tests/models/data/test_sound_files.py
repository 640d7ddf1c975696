"""Sound files of datasets: headers are compared with the bytes that there are."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.datasets import Dataset, read_dataset
from neurovocal.models.data.frames import read_samples
from neurovocal.models.data.soundness import read_recordings

RATE = 8000
SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE).astype(np.float32)


def dataset(folder: Path, sound: bytes, name: str = "a.wav") -> Dataset:
    (folder / name).write_bytes(sound)
    (folder / "annotations.csv").write_text(
        f"file,onset_s,offset_s,label\n{name},1.5,1.6,a\n"
    )
    return read_dataset(folder)


def wav(folder: Path) -> bytearray:
    path = folder / "made.wav"
    soundfile.write(path, SOUND, RATE, subtype="FLOAT")
    sound = path.read_bytes()
    path.unlink()
    return bytearray(sound)


@pytest.mark.parametrize("stated", [0, 4 * RATE, 0xFFFFFFFF])
def test_sound_behind_a_wrong_size_is_used(tmp_path: Path, stated: int) -> None:
    sound = wav(tmp_path)
    at = sound.index(b"data") + 4
    sound[at : at + 4] = stated.to_bytes(4, "little")
    found = dataset(tmp_path, sound)
    (recording,) = found.recordings
    assert recording.duration_s == 2.0
    read_recordings(found.recordings)
    np.testing.assert_array_equal(read_samples(recording, RATE), SOUND)


def test_a_recording_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    sound = wav(tmp_path)
    with pytest.raises(ConfigError, match=r"a\.wav: is cut off after 1\.9\d+ s"):
        dataset(tmp_path, sound[:-400])


def test_flac_of_a_pipe_is_used_whole(tmp_path: Path) -> None:
    path = tmp_path / "whole.flac"
    soundfile.write(path, SOUND, RATE)
    sound = bytearray(path.read_bytes())
    path.unlink()
    # The header's count of samples is the lower 36 bits of these bytes: 0 is unknown.
    sound[21] &= 0xF0
    sound[22:26] = bytes(4)
    found = dataset(tmp_path, sound, "a.flac")
    assert found.recordings[0].duration_s == 2.0
    assert len(read_samples(found.recordings[0], RATE)) == 2 * RATE
