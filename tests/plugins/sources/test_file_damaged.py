"""File source: damaged, missing and truncated recordings."""

import numpy as np
import pytest
from stages.file_source import (
    RATE,
    make,
    noise,
    problems,
    read_all,
    rest_of,
    samples_of,
    write,
)

from neurovocal.engine.contracts.errors import AudioFileError
from neurovocal.engine.contracts.types import StreamInfo


def unusable_files(folder):
    write(folder / "empty.wav", noise(0))
    (folder / "nothing.wav").touch()
    (folder / "text.wav").write_text("these are words\n" * 50)
    write(folder / "cut.wav", noise(RATE))
    raw = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(raw[:40])
    return {
        "empty.wav": "holds no samples",
        "nothing.wav": "is empty (0 bytes)",
        "text.wav": "is not a recording that can be read: it is a text file",
        "cut.wav": "",
    }


@pytest.mark.parametrize("name", ["empty.wav", "nothing.wav", "text.wav", "cut.wav"])
def test_an_unusable_file_is_refused_in_one_sentence_with_its_name(tmp_path, name):
    sentence = unusable_files(tmp_path)[name]
    with pytest.raises(AudioFileError) as caught:
        make(path=str(tmp_path / name)).open()
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / name) in message
    assert sentence in message


def test_an_unusable_file_among_several_is_skipped_and_listed(tmp_path):
    bad = unusable_files(tmp_path)
    write(tmp_path / "good.wav", noise(100))
    source = make(path=str(tmp_path))
    items = read_all(source)
    assert [i.stream for i in items if isinstance(i, StreamInfo)] == ["good.wav"]
    assert len(source.failures) == len(bad)
    with pytest.raises(AudioFileError) as caught:
        make(path=str(tmp_path), on_bad_file="fail").open()
    assert len(str(caught.value).splitlines()) == len(bad)


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff"])
def test_a_truncated_recording_is_read_to_its_end_and_reported(tmp_path, suffix):
    values = noise(5 * RATE)
    path = tmp_path / f"x.{suffix}"
    write(path, values, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-60_001])
    source = make(path=str(path), block_length=1000)
    got = samples_of(read_all(source))
    assert 2 * RATE < len(got) < 5 * RATE
    np.testing.assert_allclose(got, values[: len(got)], atol=1e-4)
    (failure,) = source.failures
    assert f"after {len(got) / RATE:.3f} s" in failure
    assert str(path) in failure


def test_a_header_without_a_length_is_no_truncation(tmp_path):
    """Recorders that cannot seek, such as ffmpeg on a pipe, write such headers."""
    path = tmp_path / "x.wav"
    write(path, noise(1000), subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data") + 4
    raw[4:8] = raw[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    source = make(path=str(path))
    assert len(samples_of(read_all(source))) == 1000
    assert source.failures == []


def test_check_reports_missing_files(tmp_path):
    write(tmp_path / "song_01.wav", noise(10))
    (tmp_path / "void").mkdir()
    paths = ["song_1.wav", "void", "*.flac", "song_01.wav"]
    found = problems(base=tmp_path, path=[str(tmp_path / name) for name in paths])
    assert len(found) == 3
    assert "did you mean 'song_01.wav'?" in found[0]
    assert "holds no recording" in found[1]
    assert "no recording matches" in found[2]
    assert problems(path=[])


def test_a_file_removed_between_open_and_read_is_a_failure(tmp_path):
    write(tmp_path / "a.wav", noise(10))
    write(tmp_path / "b.wav", noise(10))
    source = make(path=str(tmp_path))
    source.open()
    (tmp_path / "b.wav").unlink()
    rest_of(source)
    assert len(source.failures) == 1
    assert "b.wav" in source.failures[0]
