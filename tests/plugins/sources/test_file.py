"""File source: formats, names, channels, times and pace; no sample is lost."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
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

from neurovocal.engine import channels_problem
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import AudioFileError, EndOfStream
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo
from neurovocal.engine.testing import check_source
from neurovocal.plugins.sources.file import plugin


def test_registry_finds_the_file_source():
    assert Registry().get("source", "file") is plugin


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 1 / 100),
        ("wav", "PCM_16", 1 / 30_000),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-7),
        ("wav", "FLOAT", 0),
        ("wav", "DOUBLE", 0),
        ("flac", "PCM_24", 1e-6),
        ("aiff", "PCM_16", 1 / 30_000),
        ("caf", "FLOAT", 0),
        ("ogg", "VORBIS", 0.5),
        ("mp3", "MPEG_LAYER_III", 1.0),
    ],
)
def test_formats(tmp_path, suffix, subtype, tolerance):
    values = noise(RATE)
    path = write(tmp_path / f"x.{suffix}", values, subtype=subtype)
    source = make(path=path, channels=[1])
    items = read_all(source)
    assert items[0] == StreamInfo(f"x.{suffix}", RATE, 1)
    got = samples_of(items)
    assert source.failures == source.notices == []
    assert got.dtype == np.float32
    if suffix != "mp3":  # MP3 does not keep the length
        assert got.shape == values.shape
        np.testing.assert_allclose(got, values, atol=tolerance, rtol=0)


@given(st.integers(1, 5000))
@settings(max_examples=25, deadline=None)
def test_samples_do_not_depend_on_the_block_length(tmp_path_factory, length):
    folder = tmp_path_factory.mktemp("cut")
    values = noise(3000, 3)
    values[1000:1200, 1] = values[2000:2010, 1] = np.nan
    path = write(folder / "x.wav", values, subtype="FLOAT")
    options = {"path": path, "channels": [3, 2], "mix": True}
    whole = read_all(make(**options))
    cut = read_all(make(**options, block_length=length))
    assert samples_of(cut).tobytes() == samples_of(whole).tobytes()
    gaps = [item for item in cut if isinstance(item, Gap)]
    assert gaps == [Gap(1000, 1200, "not a number")]


@pytest.mark.parametrize("streams", ["each", "one"])
@pytest.mark.parametrize("pace", ["asap", "realtime"])
def test_conformance(tmp_path, streams, pace):
    values = noise(4000)
    values[77] = np.inf
    write(tmp_path / "a.wav", values, subtype="FLOAT")
    write(tmp_path / "b.wav", noise(100))
    check_source(
        partial(make, path=str(tmp_path), streams=streams, pace=pace, block_length=333)
    )


@pytest.mark.parametrize(
    ("suffix", "container"), [("wav", "WAV"), ("caf", "CAF"), ("w64", "W64")]
)
def test_few_non_finite_samples_are_interpolated_and_told(tmp_path, suffix, container):
    values = noise(400)
    values[[0, 50, 51, 399]] = [[np.nan], [np.inf], [-np.inf], [np.nan]]
    values[100:300] = np.nan
    path = write(tmp_path / f"x.{suffix}", values, subtype="FLOAT", format=container)
    source = make(path=path)
    items = read_all(source)[1:]
    gaps = [(i.start, i.stop) for i in items if isinstance(i, Gap)]
    assert gaps == [(0, 1), (100, 300), (399, 400)]
    values[50:52, 0] = np.interp([1, 2], [0, 3], [values[49, 0], values[52, 0]])
    np.testing.assert_array_equal(
        samples_of(items), values[np.isfinite(values)][:, None]
    )
    (notice,) = source.notices
    assert notice == (
        f"'{path}': 204 samples are no numbers, the first at 0.000 s: 2 interpolated "
        "between their neighbours, 202 left as gaps"
    )


def test_a_recording_that_is_named_twice_is_heard_once_and_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "c.wav"):
        write(tmp_path / name, noise(40))
    paths = ["b.wav", "*.wav", str(tmp_path / "b.wav"), "./a.wav", "c.wav"]
    source = make(path=paths)
    streams = [i.stream for i in read_all(source) if isinstance(i, StreamInfo)]
    assert [*source.recordings] == ["b.wav", "a.wav", "c.wav"] == streams
    assert source.notices == [
        "'b.wav' is named more than once, and so are 2 more: each is heard once"
    ]
    # In one stream it is played as often as it is named.
    again = make(path=["b.wav", "b.wav"], streams="one")
    assert len(samples_of(read_all(again))) == 80


def test_large_finite_values_make_no_gap(tmp_path):
    values = np.full((4, 1), 3e38, np.float32)
    path = write(tmp_path / "x.wav", values, subtype="FLOAT")
    np.testing.assert_array_equal(samples_of(read_all(make(path=path))), values)


def test_folder_is_read_in_natural_order_as_one_stream_per_file(tmp_path):
    (tmp_path / "._take1.wav").write_bytes(b"what macOS leaves on cards")
    for name in ["take10.wav", "take2.wav", "TAKE1.wav"]:
        write(tmp_path / name, noise(50))
    (tmp_path / "notes.txt").write_text("not audio")
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "take3.wav", noise(50))
    source = make(path=str(tmp_path))
    names = [i.stream for i in read_all(source) if isinstance(i, StreamInfo)]
    assert names == ["TAKE1.wav", "take2.wav", "take10.wav"]
    assert source.recordings["take2.wav"] == tmp_path / "take2.wav"
    deep = read_all(make(path=str(tmp_path), recursive=True))
    assert sum(isinstance(item, StreamInfo) for item in deep) == 4


def test_patterns_and_lists_are_relative_to_the_configuration(tmp_path):
    for name in ["a1.wav", "a2.wav", "b.wav"]:
        write(tmp_path / name, noise(50))
    items = read_all(make(base=tmp_path, path=["b.wav", "a?.wav"]))
    names = [item.stream for item in items if isinstance(item, StreamInfo)]
    assert names == ["b.wav", "a1.wav", "a2.wav"]


def test_equal_names_in_two_folders_give_unique_streams(tmp_path):
    for folder in ["day1", "day2"]:
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "x.wav", noise(50))
    items = read_all(make(path=str(tmp_path), recursive=True))
    names = [item.stream for item in items if isinstance(item, StreamInfo)]
    assert names == ["day1/x.wav", "day2/x.wav"]


def test_recordings_of_one_stream_are_separated_by_an_empty_gap(tmp_path):
    first, second = noise(100, seed=1), noise(70, seed=2)
    write(tmp_path / "a.wav", first, subtype="FLOAT")
    write(tmp_path / "b.wav", second, subtype="FLOAT")
    items = read_all(make(path=str(tmp_path), streams="one", repeat=2))
    assert [i for i in items if isinstance(i, StreamInfo)] == [
        StreamInfo("lane", RATE, 1)
    ]
    gaps = [i for i in items if isinstance(i, Gap)]
    assert gaps == [Gap(n, n, "next recording") for n in (100, 170, 270)]
    starts = [i.start for i in items if isinstance(i, Block)]
    assert starts == [0, 100, 170, 270]
    np.testing.assert_array_equal(
        samples_of(items), np.concatenate([first, second] * 2)
    )


def test_repeated_streams_get_unique_names(tmp_path):
    path = write(tmp_path / "a.wav", noise(10))
    items = read_all(make(path=path, repeat=3))
    names = [item.stream for item in items if isinstance(item, StreamInfo)]
    assert names == ["a.wav", "a.wav~2", "a.wav~3"]


def test_endless_repeat_continues(tmp_path):
    source = make(path=write(tmp_path / "a.wav", noise(10)), repeat=0, streams="one")
    source.open()
    blocks = 0
    while blocks < 500:
        blocks += isinstance(source.read(1), Block)
    source.close()
    with pytest.raises(EndOfStream):
        source.read(0)


def test_one_stream_refuses_recordings_of_two_rates(tmp_path):
    write(tmp_path / "a.wav", noise(10), rate=16_000)
    write(tmp_path / "b.wav", noise(10), rate=22_050)
    with pytest.raises(AudioFileError, match=r"b\.wav.* 22050 Hz .*a\.wav' 16000 Hz"):
        make(path=str(tmp_path), streams="one").open()
    items = read_all(make(path=str(tmp_path)))
    rates = [item.sample_rate for item in items if isinstance(item, StreamInfo)]
    assert rates == [16_000, 22_050]


def test_channels_are_selected_and_mixed_only_with_mix(tmp_path):
    values = noise(100, 3)
    path = write(tmp_path / "x.wav", values, subtype="FLOAT")
    source = make(path=path)
    np.testing.assert_array_equal(samples_of(read_all(source)), values[:, :1])
    assert source.notices == [
        f"'{path}' has 3 channels: using channel 1 (choose with channels: [1, 2, 3])"
    ]
    source = make(path=path, channels=[3, 1])
    np.testing.assert_array_equal(samples_of(read_all(source)), values[:, [2, 0]])
    assert source.info.channels == 2
    assert source.notices == []
    mixed = samples_of(read_all(make(path=path, channels=[3, 1], mix=True)))
    np.testing.assert_allclose(mixed[:, 0], values[:, [2, 0]].mean(axis=1), rtol=1e-6)
    with pytest.raises(AudioFileError, match="has 3 channels, there is no channel 4"):
        make(path=path, channels=[4]).open()


@pytest.mark.parametrize(
    ("channels", "sentence"),
    [([], "at least one"), ([2, 2], "twice")],
)
def test_impossible_channels_are_refused(tmp_path, channels, sentence):
    path = write(tmp_path / "x.wav", noise(10))
    (problem,) = problems(path=path, channels=channels)
    assert sentence in problem
    # Sources of others may have options without bounds.
    assert "0 is no channel" in str(channels_problem([0]))


def test_realtime_delivers_each_block_at_its_end(tmp_path):
    path = write(tmp_path / "x.wav", noise(1000))
    clock = ManualClock()
    source = make(clock, path=path, pace="realtime", block_length=160)
    assert source.live is False
    source.open()
    assert isinstance(source.read(0), StreamInfo)
    assert source.read(0) is None  # 10 ms have not passed
    block = source.read(1)
    assert isinstance(block, Block)
    assert clock.monotonic_ns() == block.arrived_ns == 10_000_000
    clock.advance(60)  # a reader that was late loses nothing
    late = rest_of(source, timeout=0)
    assert [block.start for block in late] == list(range(160, 1000, 160))
    for block in late:
        assert block.arrived_ns == block.stop * 10**9 // RATE


def test_realtime_is_heard_from_the_opening(tmp_path):
    """Networks and sinks that open meanwhile cost no further delay."""
    path = write(tmp_path / "x.wav", noise(1000))
    clock = ManualClock()
    source = make(clock, path=path, pace="realtime", block_length=160)
    source.open()
    clock.advance(0.025)
    blocks = [item for item in (source.read(0) for _ in range(4)) if item is not None]
    assert [block.arrived_ns for block in blocks[1:]] == [10_000_000, 20_000_000]


def test_realtime_makes_no_pause_between_streams(tmp_path):
    write(tmp_path / "a.wav", noise(1600))
    write(tmp_path / "b.wav", noise(8000), rate=8000)
    clock = ManualClock()
    read_all(make(clock, path=str(tmp_path), pace="realtime"), timeout=0.005)
    assert clock.monotonic_ns() == 1_100_000_000


def test_start_utc_needs_a_zone(tmp_path):
    path = write(tmp_path / "x.wav", noise(10))
    items = read_all(make(path=path, start_utc="2024-05-01T12:00:00.5+02:00"))
    expected = datetime(2024, 5, 1, 10, 0, 0, 500_000, tzinfo=UTC).timestamp() * 1e9
    assert items[1] == Anchor(0, round(expected))
    assert not any(isinstance(i, Anchor) for i in read_all(make(path=path)))
    with pytest.raises(ValidationError):
        make(path=path, start_utc="2024-05-01T12:00:00")


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("Recorded at 19:17:30 20/02/2019 (UTC) by AudioMoth 24", 1550690250),
        ("Recorded at 19:17:30 20/02/2019 (UTC+1) by AudioMoth 24", 1550686650),
        ("Recorded at 19:17:30 20/02/2019 (UTC-3:30) by AudioMoth", 1550702850),
        ("Recorded at 19:17:30 20/02/2019 by somebody", None),
        ("Recorded at 29:17:30 20/02/2019 (UTC) by AudioMoth", None),
    ],
)
def test_time_from_an_audiomoth_comment(tmp_path, comment, expected):
    with soundfile.SoundFile(tmp_path / "x.wav", "w", RATE, 1) as file:
        file.comment = comment
        file.write(noise(10))
    path = str(tmp_path / "x.wav")
    anchors = [i for i in read_all(make(path=path)) if isinstance(i, Anchor)]
    assert anchors == ([Anchor(0, expected * 10**9)] if expected else [])
    ignored = read_all(make(path=path, start_utc="none"))
    assert not any(isinstance(item, Anchor) for item in ignored)


def test_time_from_a_guano_chunk(tmp_path):
    path = write(tmp_path / "x.wav", noise(10))
    text = b"GUANO|Version: 1.0\nTimestamp: 2018-05-30T20:11:00.250-04:00\n"
    chunk = b"guan" + len(text).to_bytes(4, "little") + text + b"\0" * (len(text) % 2)
    raw = Path(path).read_bytes() + chunk
    Path(path).write_bytes(raw[:4] + (len(raw) - 8).to_bytes(4, "little") + raw[8:])
    expected = datetime(2018, 5, 31, 0, 11, tzinfo=UTC).timestamp()
    assert read_all(make(path=path))[1] == Anchor(
        0, int(expected) * 10**9 + 250_000_000
    )


def test_start_utc_for_several_streams_is_refused(tmp_path):
    write(tmp_path / "a.wav", noise(10))
    write(tmp_path / "b.wav", noise(10))
    options = {"path": str(tmp_path), "start_utc": "2024-05-01T12:00:00Z"}
    assert "cannot all have begun" in problems(**options)[0]
    assert problems(**options, streams="one") == []


def test_progress_ends_at_the_samples_of_all_repeats(tmp_path):
    first = write(tmp_path / "a.wav", noise(RATE))
    second = write(tmp_path / "b.wav", noise(RATE // 2))
    source = make(path=[str(first), str(second)], repeat=2)
    source.open()
    assert source.progress == (0, 3 * RATE)
    read_all(source)
    assert source.progress == (3 * RATE, 3 * RATE)
    endless = make(path=first, repeat=0)
    endless.open()
    assert endless.progress == (0, None)
