"""Kept sound: intervals as WAV files, what is gone, lost or withheld, and memory."""

import io
import wave

import numpy as np
import pytest

from neurovocal.engine.contracts.types import Block
from neurovocal.plugins.web import sound
from neurovocal.plugins.web.sound import NoSoundError, SoundKeeper

RATE = 1000


def block(start, stop):
    """Samples that encode their index."""
    values = np.arange(start, stop, dtype=np.float32) / 32767
    return Block(start, values[:, None])


def heard(keeper, start, stop, rate=RATE, speed=1.0):
    with wave.open(io.BytesIO(keeper.wav("cage", start, stop, rate, speed))) as file:
        assert file.getnchannels() == 1
        samples = np.frombuffer(file.readframes(10**9), "<i2")
        return file.getframerate(), samples.tolist()


@pytest.fixture
def keeper():
    keeper = SoundKeeper(10.0)
    for start in range(0, 12_000, 100):
        keeper.add("cage", RATE, block(start, start + 100))
    return keeper


def test_an_interval_is_cut_at_its_samples(keeper):
    assert heard(keeper, 5050, 5350) == (RATE, list(range(5050, 5350)))
    assert heard(keeper, 5000, 5100) == (RATE, list(range(5000, 5100)))


def test_slow_sound_has_a_lower_rate_and_the_same_samples(keeper):
    assert heard(keeper, 5050, 5350, speed=0.1) == (100, list(range(5050, 5350)))


def test_positions_at_the_rate_of_the_events_are_converted(keeper):
    assert heard(keeper, 2500, 2600, rate=500) == (RATE, list(range(5000, 5200)))
    assert heard(keeper, 5000, 5100, rate=0) == (RATE, list(range(5000, 5100)))


def test_the_newest_samples_may_be_on_their_way(keeper):
    assert heard(keeper, 11_900, 12_500) == (RATE, list(range(11_900, 12_000)))


@pytest.mark.parametrize(
    ("start", "stop", "speed", "part"),
    [
        (0, 100, 1.0, "gone: 10 s are kept"),
        (12_000, 12_100, 1.0, "has not arrived"),
        (200, 200, 1.0, "empty"),
        (300, 200, 1.0, "empty"),
        (0, 10**15, 1.0, "at most"),
        (5000, 5100, 0.0, "speed"),
        (5000, 5100, 1e9, "speed"),
        (5000, 5100, float("nan"), "speed"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(keeper, start, stop, speed, part):
    with pytest.raises(NoSoundError, match=part):
        heard(keeper, start, stop, speed=speed)


def test_an_unknown_stream_has_no_sound(keeper):
    with pytest.raises(NoSoundError, match="no sound of this stream"):
        keeper.wav("other", 0, 1, RATE)


def test_lost_samples_are_silent():
    keeper = SoundKeeper(10.0)
    keeper.add("cage", RATE, block(100, 200))
    keeper.add("cage", RATE, block(250, 300))
    _, samples = heard(keeper, 150, 300)
    assert samples == [*range(150, 200), *[0] * 50, *range(250, 300)]


def test_withheld_sound_is_refused_and_said_to_be_withheld():
    keeper = SoundKeeper(10.0)
    keeper.add("cage", RATE, block(0, 100))
    keeper.note_withheld("cage", RATE, 100, 500)
    keeper.add("cage", RATE, block(500, 600))
    with pytest.raises(NoSoundError, match="privacy withholds"):
        heard(keeper, 200, 400)
    _, samples = heard(keeper, 50, 550)
    assert samples == [*range(50, 100), *[0] * 400, *range(500, 550)]


def test_a_stream_that_begins_anew_has_the_new_sound():
    keeper = SoundKeeper(10.0)
    keeper.add("cage", RATE, block(0, 1000))
    keeper.add("cage", RATE, Block(0, np.zeros((100, 1), np.float32)))
    assert heard(keeper, 0, 100) == (RATE, [0] * 100)
    with pytest.raises(NoSoundError):
        heard(keeper, 500, 600)


def test_samples_beyond_full_scale_are_clipped():
    keeper = SoundKeeper(10.0)
    values = np.array([[2.0], [-2.0], [1.0]], np.float32)
    keeper.add("cage", RATE, Block(0, values))
    assert heard(keeper, 0, 3)[1] == [32767, -32767, 32767]


def test_memory_is_bounded_for_one_and_for_many_streams(monkeypatch):
    monkeypatch.setattr(sound, "_MOST_BYTES", 40_000)
    keeper = SoundKeeper(5.0)
    for start in range(0, 100_000, 1000):
        keeper.add("cage", RATE, block(start, start + 1000))
    assert keeper._streams["cage"].n_bytes <= 2 * 6 * RATE
    for number in range(100):
        keeper.add(f"file {number}", RATE, block(0, 4000))
    kept = sum(one.n_bytes for one in keeper._streams.values())
    assert kept <= 40_000
    assert keeper._n_bytes == kept
    with wave.open(io.BytesIO(keeper.wav("file 99", 0, 10, RATE))) as file:
        assert file.getnframes() == 10
