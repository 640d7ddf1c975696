"""Speaker sink: each sample is played at its position, or counted as lost."""

import json
import sys
from typing import Any

import numpy as np
import pytest
from audio_devices.virtual_speaker import DEVICE, VirtualSpeaker, needs_virtual_speaker
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Audio, Block, Gap, Message, StreamInfo
from neurovocal.plugins.sinks import speaker as sink_speaker
from neurovocal.plugins.sinks.speaker import PlaybackRing

RATE = 16_000


# ---- ring ------------------------------------------------------------------------


def taken(ring: PlaybackRing, n_samples: int, channels: int = 1) -> Any:
    out = np.full((n_samples, channels), np.nan, np.float32)
    ring.get(out)
    return out[:, 0]


@settings(deadline=None)
@given(
    pieces=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=1, max_size=6
    ),
    blocks=st.lists(st.integers(1, 17), min_size=20, max_size=20),
)
def test_ring_adds_sounds_at_their_positions(
    pieces: list[tuple[int, int]], blocks: list[int]
) -> None:
    ring = PlaybackRing(100, guard=0)
    expected = np.zeros(100, np.float32)
    for number, (position, length) in enumerate(pieces):
        samples = np.full(length, 2.0**-number, np.float32)
        ring.mix(position, samples)
        expected[position : position + length] += samples
    played: list[float] = []
    for length in blocks:
        played += list(taken(ring, length))
    count = min(100, len(played))
    assert played[:count] == list(expected[:count])
    assert not any(played[100:])  # nothing is played twice
    assert ring.late == 0


def test_ring_wraps_around() -> None:
    ring = PlaybackRing(10, guard=2)
    rising = np.arange(1, 41, dtype=np.float32) / 64
    played: list[float] = []
    position = 2
    while position < 42:
        count = min(ring.free_samples(position), 3, 42 - position)
        ring.mix(position, rising[position - 2 : position - 2 + count])
        position += count
        if ring.free_samples(position) < 3 or position == 42:
            played += list(taken(ring, 4))
    while ring.read < 44:
        played += list(taken(ring, 4))
    assert played[2:42] == list(rising)
    assert ring.late == 0


def test_late_samples_are_left_out_and_counted() -> None:
    ring = PlaybackRing(100, guard=5)
    taken(ring, 10)
    ring.mix(12, np.ones(8, np.float32))
    assert ring.late == 3
    assert list(taken(ring, 12)) == [0] * 5 + [1] * 5 + [0] * 2


def test_silence_is_an_underrun_only_inside_a_sound() -> None:
    ring = PlaybackRing(100, guard=0)
    taken(ring, 20)
    assert (ring.underruns, ring.missing) == (0, 0)
    ring.mix(20, np.ones(10, np.float32))
    ring.expected_from = 30
    taken(ring, 8)
    assert (ring.underruns, ring.missing) == (0, 0)
    taken(ring, 8)  # two are there, six are not
    taken(ring, 8)  # none is there: the same underrun continues
    assert (ring.underruns, ring.missing) == (1, 14)
    ring.mix(44, np.ones(8, np.float32))
    taken(ring, 8)
    taken(ring, 8)
    assert (ring.underruns, ring.missing) == (2, 22)
    ring.expected_from = None
    taken(ring, 8)
    assert (ring.underruns, ring.missing) == (2, 22)


def test_clipped_samples_are_counted() -> None:
    ring = PlaybackRing(100, guard=0)
    ring.mix(0, np.array([0.5, 1.5, -2.0, 1.0], np.float32))
    assert ring.clipped == 2


# ---- sink, with a device that is stepped by hand -----------------------------------


class Device:
    """Replacement of PortAudio that reads samples when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: int = RATE) -> None:
        device = {"index": 0, "name": "stepped", "channels": 2, "sample_rate": rate}
        monkeypatch.setattr(sink_speaker, "find_device", lambda *_: device)
        monkeypatch.setattr(sink_speaker, "open_output", self._open)
        self.played = np.empty((0, 2), np.float32)

    def _open(self, device: Any, rate: int, channels: int, **options: Any) -> "Device":
        self._callback, self.block = options["callback"], options["blocksize"]
        self.latency = 0.02
        return self

    def close(self) -> None:
        """Do nothing: a test ends the device."""

    def step(self, blocks: int = 1) -> None:
        status = type("Status", (), {"output_underflow": False})
        for _ in range(blocks):
            out = np.full((self.block, 2), np.nan, np.float32)
            self._callback(out, self.block, None, status)
            self.played = np.concatenate([self.played, out])


class SteppingClock(ManualClock):
    """Clock that lets the device read a block during each wait."""

    device: Device | None = None

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        if self.device is not None:
            self.device.step()
        self.advance(timeout)
        return True


def opened(device: Device, clock: ManualClock | None = None, **options: Any) -> Any:
    if clock is None:
        clock = SteppingClock()
        clock.device = device
    context = BuildContext(clock=clock, run="test")
    checked = sink_speaker.plugin.options.model_validate(options)
    sink = sink_speaker.plugin.build(checked, context)
    sink.open()
    return sink


def message(event: Any, rate: int = RATE, at: int = 0, live: bool = False) -> Message:
    return Message(StreamInfo("cage", rate), event, 0, at, emitted_ns=int(live))


def tone(n_samples: int, rate: int = RATE, hz: float = 1000, level: float = 0.4) -> Any:
    t = np.arange(n_samples) / rate
    return np.asarray(level * np.sin(2 * np.pi * hz * t), np.float32)[:, None]


def test_sound_in_parts_is_played_without_gaps_after_the_latency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch)
    sink = opened(device, latency_ms=50, gain_db=-6.0206)
    song = tone(5 * RATE)  # more than fits: it has to wait for the device
    for first in range(0, len(song), 3001):
        part = song[first : first + 3001]
        last = first + 3001 >= len(song)
        sink.write(message(Audio(500 + first, part, "free", "m", last)))
    sink.close()
    begin = device.block + RATE // 20
    played = device.played[begin : begin + len(song), 0]
    np.testing.assert_allclose(played, song[:, 0] / 2, atol=1e-5)
    assert not device.played[:begin].any()
    assert np.array_equal(device.played[:, 0], device.played[:, 1])
    stats = sink.stats()
    counts = [stats[k] for k in ("underruns", "late_samples", "dropped_samples")]
    assert counts == [0, 0, 0]


def test_sounds_keep_their_distances_and_overlaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch)
    sink = opened(device, latency_ms=100)
    one = np.full((800, 1), 0.25, np.float32)
    sink.write(message(Audio(0, one, "continue", "m", True)))
    sink.write(message(Audio(600, one, "continue", "m", True)))
    device.step(2)
    sink.write(message(Audio(2000, one, "continue", "m", True)))
    sink.close()
    begin = device.block + RATE // 10
    expected = np.zeros(2800, np.float32)
    for start in (0, 600, 2000):
        expected[start : start + 800] += 0.25
    assert np.array_equal(device.played[begin : begin + 2800, 0], expected)


def test_sound_continues_with_full_latency_after_an_underrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch)
    sink = opened(device, latency_ms=50)
    sink.write(message(Audio(0, tone(400), "predict", "m")))
    device.step(20)  # far beyond what there is
    sink.write(message(Audio(400, tone(400), "predict", "m", True)))
    sink.close()
    stats = sink.stats()
    assert stats["underruns"] == 1
    assert stats["begun_anew"] == 1
    assert stats["late_samples"] == 0
    position = 20 * device.block + device.block + RATE // 20
    np.testing.assert_array_equal(
        device.played[position : position + 400, 0], tone(400)[:, 0]
    )


def test_samples_of_a_fast_live_stream_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The device is slower than the stream: its delay stays within bounds."""
    device = Device(monkeypatch)
    sink = opened(device, latency_ms=50)
    for number in range(100):
        first = number * 160
        event = Audio(first, tone(160), "predict", "m")
        sink.write(message(event, at=first + 160, live=True))
        device.step(number % 10 != 0)  # nine blocks where ten were due
    dropped = sink.stats()["dropped_samples"]
    assert dropped > 0
    waiting = sink._ring.written - sink._ring.read
    assert waiting <= 2 * RATE // 20 + 2 * device.block
    # Nothing but what was dropped is missing from what was played or waits.
    assert sink._ring.written == device.block + RATE // 20 + 100 * 160 - dropped


def test_other_sample_rate_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, rate=48_000)
    sink = opened(device, latency_ms=50)
    song = tone(RATE, hz=1000)
    for first in range(0, RATE, 1000):
        last = first + 1000 == RATE
        sink.write(message(Audio(first, song[first : first + 1000], "free", "m", last)))
    sink.close()
    begin = device.block + 2400
    played = device.played[begin : begin + 48_000, 0]
    expected = tone(48_000, 48_000, hz=1000)[:, 0]
    np.testing.assert_allclose(played[500:-500], expected[500:-500], atol=1e-3)


def test_blocks_are_played_with_their_gaps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch)
    sink = opened(device, what="block", latency_ms=50)
    assert sink.wants == {"block", "gap"}
    ones = np.full((400, 1), 0.5, np.float32)
    sink.write(message(Block(0, ones)))
    sink.write(message(Gap(400, 700, "overrun")))
    sink.write(message(Block(700, ones)))
    sink.close()
    begin = device.block + RATE // 20
    expected = np.concatenate([ones, np.zeros((300, 1)), ones])[:, 0]
    assert np.array_equal(device.played[begin : begin + 1100, 0], expected)


def test_stopped_device_raises_a_stage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    sink = opened(device, ManualClock(autojump=True))
    with pytest.raises(StageError, match="'stepped' has played nothing for 5 s"):
        sink.write(message(Audio(0, tone(5 * RATE), "free", "m")))
    sink.close()


def test_silence_before_a_sound_is_no_underrun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch, rate=48_000)
    sink = opened(device, latency_ms=50)
    # So little that nothing of it leaves the resampler yet.
    sink.write(message(Audio(0, tone(10), "free", "m")))
    device.step(4)
    assert sink.stats()["underruns"] == 0
    device.step(10)  # but its position has passed, and no sample is there
    assert sink.stats()["underruns"] == 1
    sink.close()


# ---- sink, on a real PortAudio stream ----------------------------------------------

SCRIPT = """
import json, sys
import numpy as np
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.types import Audio, Message, StreamInfo

plugin = Registry().get("sink", "speaker")
options = plugin.options(device=sys.argv[1], sample_rate=16000, latency_ms=2000)
song = np.load(sys.argv[2])
sink = plugin.build(options, BuildContext(clock=SystemClock(), run="test"))
sink.open()
for first in range(0, len(song), 800):
    last = first + 800 >= len(song)
    audio = Audio(first, song[first : first + 800], "free", "m", last)
    sink.write(Message(StreamInfo("cage", 16000), audio, 0, 0))
sink.close()
print(json.dumps(sink.stats()))
"""


@needs_virtual_speaker
def test_real_device_plays_every_sample() -> None:
    rng = np.random.default_rng(0)
    # Longer than what fits, so that the writer waits for the device; all that fits
    # is seconds, so that a busy machine is no underrun.
    song = rng.uniform(-0.5, 0.5, (3 * RATE, 1)).astype(np.float32)
    song *= np.hanning(len(song))[:, None].astype(np.float32)
    with VirtualSpeaker(RATE) as speaker:
        np.save(speaker.home / "song.npy", song)
        path = str(speaker.home / "song.npy")
        stats = json.loads(speaker.run([sys.executable, "-c", SCRIPT, DEVICE, path]))
        played = speaker.played()
    lags = np.fft.irfft(
        np.fft.rfft(played, 2**20) * np.conj(np.fft.rfft(song[:, 0], 2**20))
    )
    assert_played(song[:, 0], played[int(np.argmax(lags)) :])
    # The sink itself was never late: silence of the sound server's is its own.
    counts = [stats[k] for k in ("underruns", "late_samples", "clipped_samples")]
    assert counts == [0, 0, 0]
    assert stats["played_s"] >= len(song) / RATE


def assert_played(song: Any, played: Any) -> None:
    """Assert that all samples were played in order; silence may be in between."""
    while len(song):
        most = min(len(song), len(played))
        differs = np.abs(song[:most] - played[:most]) > 1e-4
        same = int(differs.argmax()) if differs.any() else most
        rest = played[same:]
        silence = int(rest.any() and (rest != 0).argmax())
        assert same == len(song) or silence, f"{len(song) - same} samples are missing"
        song, played = song[same:], rest[silence:]
