"""WAV sink: audio is aligned with the stream, and overlaps are added."""

from errno import ENOSPC
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Audio, Message, StreamInfo
from neurovocal.plugins.sinks.wav import WavSink
from neurovocal.plugins.storage import file_lock


def message(start: int, samples: Any, stream: str = "cage") -> Message:
    values = np.asarray(samples, np.float32)[:, None]
    return Message(StreamInfo(stream, 8000), Audio(start, values, "free", "m"), 0, 0)


def written(folder: Path, name: str = "cage") -> Any:
    samples, rate = soundfile.read(folder / f"{name}.wav", dtype="float32")
    assert rate == 8000
    return samples


@settings(max_examples=30, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 200)), min_size=1, max_size=5
    )
)
def test_audio_is_written_at_its_position(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("wav")
    sink = WavSink(folder)
    sink.open()
    expected = np.zeros(max(start + n for start, n in pieces), np.float32)
    for number, (start, n) in enumerate(pieces):
        samples = np.full(n, 2.0**-number + 1.0, np.float32)  # beyond full scale, too
        expected[start : start + n] += samples
        sink.write(message(start, samples))
    sink.close()
    assert np.array_equal(written(folder), expected)


def test_streams_have_files_of_their_own_with_long_silence(tmp_path: Path) -> None:
    sink = WavSink(tmp_path / "new")
    sink.open()
    sink.write(message(200_000, np.ones(10)))
    sink.write(message(3, np.ones(2), "nest/1"))
    sink.close()
    assert len(written(tmp_path / "new")) == 200_010
    assert not written(tmp_path / "new")[:200_000].any()
    assert list(written(tmp_path / "new", "nest%2F1")) == [0, 0, 0, 1, 1]


def test_a_file_that_cannot_be_completed_keeps_no_other_and_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = WavSink(tmp_path)
    sink.open()
    status = tmp_path.stat()
    assert (status.st_dev, status.st_ino) in file_lock._held
    sink.write(message(0, np.ones(4)))
    sink.write(message(0, np.ones(4), "nest"))

    def fail() -> None:
        raise OSError(ENOSPC, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(sink._files["cage"], "close", fail)
        with pytest.raises(OSError, match="No space left"):
            sink.close()
    assert (status.st_dev, status.st_ino) not in file_lock._held
    assert list(written(tmp_path, "nest")) == [1, 1, 1, 1]
    sink.close()


def test_reopened_sink_continues_its_files(tmp_path: Path) -> None:
    sink = WavSink(tmp_path)
    sink.open()
    sink.write(message(0, np.ones(4)))
    sink.close()
    sink.open()
    sink.write(message(2, np.ones(4)))
    sink.close()
    assert list(written(tmp_path)) == [1, 1, 2, 2, 1, 1]


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="sound cannot be written to"):
        WavSink(tmp_path / "file").open()
