"""Playback source: a recording in real time, with a ring that can overrun."""

from itertools import pairwise
from threading import Event as Flag

import numpy as np
import pytest
import soundfile
from processes.waiting import PATIENCE_S

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import AudioFileError, EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.stages import CaptureTimed, Source
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo
from neurovocal.engine.runtime.workers.source_reader import SourceReader
from neurovocal.plugins.sources.playback import plugin

RATE = 8000


@pytest.fixture
def song(tmp_path):
    samples = np.random.default_rng(0).integers(-3000, 3000, (RATE, 2)).astype("int16")
    soundfile.write(tmp_path / "song.wav", samples, RATE)
    return tmp_path / "song.wav", samples.astype(np.float32) / 32768


def make(path, clock=None, **options):
    clock = clock or ManualClock()
    context = BuildContext(clock, "run", stream="aviary")
    return plugin.build(plugin.options(path=str(path), **options), context)


def play(source):
    """Read all items to the end of the stream."""
    items = []
    while True:
        try:
            item = source.read(0.1)
        except EndOfStream:
            return items
        if item is not None:
            items.append(item)


def joined(items):
    blocks = [item for item in items if isinstance(item, Block)]
    assert all(a.stop == b.start for a, b in pairwise(blocks))
    return np.concatenate([block.samples for block in blocks])


def test_registry_finds_the_live_playback_source(song):
    path, _ = song
    assert Registry().get("source", "playback") is plugin
    source = make(path)
    assert source.live
    with pytest.raises(RuntimeError, match="open"):
        _ = source.info
    source.open()
    assert isinstance(source, Source)
    assert isinstance(source, CaptureTimed)
    assert source.info == StreamInfo("aviary", RATE, 1)
    source.close()
    source.close()


@pytest.mark.parametrize(
    ("options", "start", "times"),
    [({}, 0, 1), ({"repeat": 3}, 0, 3), ({"start_s": 0.25, "repeat": 2}, 2000, 2)],
)
def test_all_samples_are_played_in_order(song, options, start, times):
    path, samples = song
    source = make(path, channels=[2, 1], block_length=77, **options)
    source.open()
    played = joined(play(source))
    whole = np.concatenate([samples[:, ::-1]] * times)[start:]
    np.testing.assert_array_equal(played, whole)
    counts = source.counts
    assert counts.received == counts.delivered == len(whole)
    source.close()


def test_blocks_and_anchors_have_the_time_of_playing(song):
    path, _ = song
    clock = ManualClock(utc_ns=10**18, autojump=False)
    source = make(path, clock)
    source.open()
    assert source.read(0.0) is None
    clock.advance(0.25)
    items = []
    while not items or not isinstance(items[-1], Block) or items[-1].stop < RATE // 4:
        item = source.read(PATIENCE_S)
        assert item is not None
        items.append(item)
    assert isinstance(items[0], Anchor)
    assert items[0].utc_ns == 10**18
    assert source.read(0.0) is None
    assert source.captured_ns(RATE // 8) == NS // 8
    source.close()


def test_samples_not_read_in_time_become_a_gap(song):
    path, samples = song
    source = make(path, buffer_s=0.1)  # the clock jumps: all is played at once
    source.open()
    source._player.join()
    items = play(source)
    gap = next(item for item in items if isinstance(item, Gap))
    kept = [item for item in items if isinstance(item, Block)]
    assert gap == Gap(0, RATE - RATE // 10, "overrun")
    assert kept[0].start == gap.stop
    np.testing.assert_array_equal(
        np.concatenate([block.samples for block in kept]), samples[gap.stop :, :1]
    )
    assert source.counts.dropped == gap.stop
    source.close()


def test_the_recording_continues_while_the_source_is_closed(song):
    """Positions after an outage are those of the recording."""
    path, samples = song
    clock = ManualClock(autojump=False)
    source = make(path, clock, block_length=80)
    source.open()
    clock.advance(0.2)
    before = read_samples(source, RATE // 5)
    source.close()
    clock.advance(0.333)
    source.open()
    clock.advance(0.1)
    after = read_samples(source, 0.09 * RATE)
    at = round(0.533 * RATE)
    np.testing.assert_array_equal(before[:, 0], samples[: len(before), 0])
    np.testing.assert_array_equal(after[:, 0], samples[at : at + len(after), 0])
    assert source.captured_ns(0) == pytest.approx(0.533 * NS, abs=NS / RATE)
    clock.advance(5)
    source.close()
    source.open()  # by now it is over
    assert play(source) == []
    source.close()


def read_samples(source, least):
    blocks, count = [], 0
    while count < least:
        item = source.read(PATIENCE_S)
        assert item is not None
        if isinstance(item, Block):
            blocks.append(item.samples)
            count += len(item.samples)
    return np.concatenate(blocks)


def test_a_source_reader_supervises_the_playback(song):
    path, samples = song
    clock = ManualClock()
    reader = SourceReader(
        "lane", make(path, clock), clock, "restart", Flag(), lambda health: None
    )
    assert reader.open() == StreamInfo("aviary", RATE, 1)
    np.testing.assert_array_equal(joined(play(reader)), samples[:, :1])
    reader.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": [3]}, "there is no channel 3"),
        ({"start_s": 1.5}, "ends after 1.0 s: a start_s of 1.5 lies behind"),
    ],
)
def test_open_refuses_options_that_do_not_fit_the_recording(song, options, sentence):
    path, _ = song
    with pytest.raises(AudioFileError, match=sentence):
        make(path, **options).open()


def test_check_reports_impossible_options(song, tmp_path):
    path, _ = song
    context = BuildContext(ManualClock(), "run")

    def problems(**options):
        return list(plugin.check(plugin.options(**options), context))

    assert problems(path=str(path)) == []
    assert "did you mean 'song.wav'" in problems(path=str(tmp_path / "sng.wav"))[0]
    soundfile.write(tmp_path / "other.wav", np.zeros(10), RATE)
    assert "is 2 recordings: name one" in problems(path=str(tmp_path))[0]


def test_a_truncated_recording_raises_an_error_at_its_end(tmp_path):
    path = tmp_path / "cut.wav"
    soundfile.write(path, np.full(RATE, 0.1), RATE)
    path.write_bytes(path.read_bytes()[: RATE + 44])
    source = make(path)
    source.open()
    with pytest.raises(AudioFileError, match="cut off after"):
        play(source)
    source.close()
