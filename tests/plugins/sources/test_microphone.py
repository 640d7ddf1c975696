"""The microphone: a real PortAudio stream on a virtual device, and its bookkeeping."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from audio_devices.virtual_audio import VirtualMicrophone, needs_virtual_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.engine.contracts.clock import NS, ManualClock
from neurovocal.engine.contracts.errors import DeviceError, Disconnected, EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Anchor, Block, Gap, StreamInfo
from neurovocal.plugins.sources import microphone as source_microphone
from neurovocal.plugins.sources.microphone import plugin

RATE = 32_000


def make(clock=None, **options):
    context = BuildContext(clock or ManualClock(), "run", stream="aviary")
    return plugin.build(plugin.options(**options), context)


# ---- a device that the test plays -----------------------------------------------


class Device:
    """Stands where PortAudio stands and calls the callback when told to."""

    def __init__(self, monkeypatch, clock, channels=2):
        self.clock = clock
        self.channels = channels
        self.latency_high_ms = 600.0
        self.own_rate = RATE
        self.refused = ()
        self.position = 0
        self.closed = False
        monkeypatch.setattr(source_microphone, "find_device", self._find)
        monkeypatch.setattr(source_microphone, "find_again", self._find)
        monkeypatch.setattr(source_microphone, "open_input", self._open)
        monkeypatch.setattr(source_microphone, "close_input", self._close)

    def _find(self, wanted):
        return {
            "index": 0,
            "name": "fake",
            "channels": self.channels,
            "sample_rate": self.own_rate,
            "latency_high_ms": self.latency_high_ms,
        }

    def _open(self, device, sample_rate, channels, **options):
        self.callback, self.finished = options["callback"], options["finished_callback"]
        if sample_rate in self.refused:
            raise DeviceError(f"device 'fake' does not take {sample_rate} Hz")
        self.opened = channels
        # The first block, which is left out: nobody knows how old it is.
        self.position -= 16
        self.deliver(16, paced=False)
        return self

    def _close(self, stream):
        self.closed = True
        self.finished()

    def deliver(self, count, *, age_s=None, overflow=False, adc=True, paced=True):
        """One callback, `count` samples after the one before, or at once."""
        self.clock.advance(count / RATE if paced else 0)
        numbers = np.arange(self.position, self.position + count, dtype=np.float32)
        samples = np.stack([numbers, -numbers], axis=1)[:, : self.opened] / 2**20
        self.position += count
        now = self.clock.monotonic_ns() / NS + 1000
        age = count / RATE if age_s is None else age_s
        time = SimpleNamespace(
            currentTime=now, inputBufferAdcTime=now - age if adc else 0.0
        )
        status = SimpleNamespace(input_overflow=overflow)
        self.callback(samples, count, time, status)


def items_of(source):
    items = []
    while (item := source.read(0)) is not None:
        items.append(item)
    return items


@pytest.fixture
def clock():
    return ManualClock(utc_ns=1_000_000 * NS)


def test_blocks_arrive_in_order_with_their_time_and_an_anchor_each_second(
    monkeypatch, clock
):
    device = Device(monkeypatch, clock)
    source = make(clock, channels=[2])
    with pytest.raises(RuntimeError):
        _ = source.info
    source.open()
    assert source.live
    assert source.info == StreamInfo("aviary", RATE, 1)
    items = []
    for _ in range(250):
        device.deliver(320)
        items += items_of(source)
    blocks = [item for item in items if isinstance(item, Block)]
    got = np.concatenate([block.samples for block in blocks])
    np.testing.assert_array_equal(
        got[:, 0], -np.arange(80_000, dtype=np.float32) / 2**20
    )
    assert [b.arrived_ns for b in blocks] == [b.stop * NS // RATE for b in blocks]
    anchors = [item for item in items if isinstance(item, Anchor)]
    assert [anchor.sample for anchor in anchors] == [0, 32_000, 64_000]
    for anchor in anchors:
        assert anchor.utc_ns == 1_000_000 * NS + anchor.sample * NS // RATE
    assert source.counts.received == source.counts.delivered == 80_000


@pytest.mark.parametrize("adc", [True, False])
def test_an_overflow_becomes_a_gap_of_the_length_that_the_clock_tells(
    monkeypatch, clock, adc
):
    device = Device(monkeypatch, clock)
    source = make(clock)
    source.open()
    device.deliver(320, overflow=True, adc=adc)  # before the first block: no loss
    device.deliver(320, adc=adc)
    clock.advance(1234 / RATE)  # the device threw these away
    device.position += 1234
    device.deliver(320, overflow=True, adc=adc)
    items = items_of(source)
    assert isinstance(items[0], Anchor)
    first, gap, anchor, last = items[1:]
    assert (first.start, first.stop) == (0, 640)
    assert gap == Gap(640, 1874, "device overflow")
    assert anchor == Anchor(1874, 1_000_000 * NS + 1874 * NS // RATE)
    np.testing.assert_array_equal(
        last.samples[:, 0] * 2**20, np.arange(1874, 2194, dtype=np.float32)
    )
    assert source.overflows == 1
    assert source.counts.lost == 1234


def test_a_lasting_lag_is_a_slip_and_a_late_callback_is_none(monkeypatch, clock):
    device = Device(monkeypatch, clock)
    source = make(clock, max_slip_ms=100)
    source.open()
    items = []
    for number in range(1000):
        # Every fifth callback is in time, the others are late by half a second.
        device.deliver(320, age_s=0.1 if number % 5 else 0.6)
        items += items_of(source)
    assert not any(isinstance(item, Gap) for item in items)
    clock.advance(6400 / RATE)  # 200 ms vanish without a word
    for _ in range(500):
        device.deliver(320, age_s=0.6)
        items += items_of(source)
    gaps = [item for item in items if isinstance(item, Gap)]
    assert [gap.reason for gap in gaps] == ["device slip"]
    assert gaps[0].stop - gaps[0].start == pytest.approx(6400, abs=330)
    after = items[items.index(gaps[0]) + 1]
    assert isinstance(after, Anchor)
    truth = clock.utc_ns() - (items[-1].stop - after.sample) * NS // RATE - NS * 6 // 10
    assert after.utc_ns == pytest.approx(truth, abs=20_000_000)


def test_a_backlog_that_a_sound_server_reports_and_forgets_is_no_slip(
    monkeypatch, clock
):
    """A second is claimed to wait somewhere at first, then ever less of it."""
    device = Device(monkeypatch, clock)
    device.latency_high_ms = 20.0
    source = make(clock)
    source.open()
    items = []
    for number in range(1000):
        device.deliver(320, age_s=max(0.01, 1.0 - number / 500))
        items += items_of(source)
    assert not any(isinstance(item, Gap) for item in items)


def test_a_slow_device_clock_is_drift_and_the_anchors_follow_it(monkeypatch, clock):
    """200 ppm for ten minutes are 120 ms: no gap, and UTC stays right."""
    device = Device(monkeypatch, clock)
    source = make(clock, max_slip_ms=100)
    source.open()
    items = []
    for _ in range(6000):
        device.deliver(3200)
        clock.advance(3200 / RATE * 200e-6)
        items += items_of(source)
    assert not any(isinstance(item, Gap) for item in items)
    anchor = [item for item in items if isinstance(item, Anchor)][-1]
    truth = 1_000_000 * NS + round(anchor.sample * NS / RATE * (1 + 200e-6))
    assert anchor.utc_ns == pytest.approx(truth, abs=10_000_000)


def test_a_reader_that_is_late_gets_a_gap_of_exactly_what_was_overwritten(
    monkeypatch, clock
):
    device = Device(monkeypatch, clock)
    source = make(clock, buffer_s=0.1)
    source.open()
    for _ in range(20):
        device.deliver(320)
    gap, anchor, block = items_of(source)
    assert gap == Gap(0, 3200, "overrun")
    assert anchor.sample == 3200
    assert (block.start, block.stop) == (3200, 6400)
    assert source.counts.dropped == 3200


@settings(deadline=None)
@given(
    burst=st.lists(st.integers(16, 600), max_size=8),
    lengths=st.lists(st.integers(16, 600), min_size=2, max_size=6),
    hole=st.integers(0, 20_000),
)
def test_what_a_sound_server_kept_before_a_hole_is_left_out(burst, lengths, hole):
    """All that is heard is of one piece, and what comes at its pace is all there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = ManualClock()
        device = Device(monkeypatch, clock)
        source = make(clock)
        source.open()
        for count in burst:
            device.deliver(count, paced=False)
        device.position += hole
        clock.advance(hole / RATE)
        fresh = device.position
        for count in lengths:
            device.deliver(count)
        items = items_of(source)
    numbers = np.concatenate([b.samples[:, 0] for b in items if isinstance(b, Block)])
    numbers = np.round(numbers * 2**20).astype(int)
    assert not any(isinstance(item, Gap) for item in items)
    assert list(numbers) == list(range(numbers[0], device.position))
    assert numbers[0] == fresh


def test_a_device_that_falls_silent_or_stops_is_disconnected(monkeypatch, clock):
    device = Device(monkeypatch, clock)
    source = make(clock, stall_timeout_s=3)
    source.open()
    device.deliver(320)
    items_of(source)
    clock.advance(2.9)
    assert source.read(0) is None
    clock.advance(0.2)
    with pytest.raises(Disconnected, match=r"'fake' has delivered nothing for 3\.1 s"):
        source.read(0)
    device.deliver(320)
    device.finished()
    assert isinstance(source.read(0), Block)
    with pytest.raises(Disconnected, match="'fake' stopped"):
        source.read(0)


def test_after_close_what_was_heard_is_still_read_and_open_starts_anew(
    monkeypatch, clock
):
    device = Device(monkeypatch, clock)
    source = make(clock)
    source.close()
    with pytest.raises(EndOfStream):
        source.read(0)
    source.open()
    device.deliver(320)
    source.close()
    assert device.closed
    assert isinstance(source.read(0), Anchor)
    assert isinstance(source.read(0), Block)
    with pytest.raises(EndOfStream):
        source.read(0)
    source.open()
    device.deliver(320)
    assert isinstance(source.read(0), Anchor)
    assert source.read(0).start == 0


def test_a_card_that_comes_back_with_another_rate_of_its_own(monkeypatch, clock):
    """It is asked for the rate of before; only what it cannot do is a new stream."""
    device = Device(monkeypatch, clock)
    source = make(clock)
    source.open()
    device.own_rate = 2 * RATE
    source.open()
    assert source.info.sample_rate == RATE
    device.refused = (RATE,)
    source.open()
    assert source.info.sample_rate == 2 * RATE
    device.refused = (RATE, 2 * RATE)
    with pytest.raises(DeviceError):
        source.open()
    assert source.info.sample_rate == 2 * RATE
    asked = make(clock, sample_rate=RATE)
    with pytest.raises(DeviceError, match=f"{RATE} Hz"):
        asked.open()


def test_claims_and_checks(monkeypatch, clock):
    Device(monkeypatch, clock)
    assert Registry().get("source", "microphone") is plugin
    assert plugin.resources(plugin.options(device="UMC404")) == {"device:UMC404"}
    context = BuildContext(clock, "run")
    assert list(plugin.check(plugin.options(channels=[2]), context)) == []
    (problem,) = plugin.check(plugin.options(channels=[3]), context)
    assert problem == "device 'fake' has 2 input channels, there is no channel 3"
    (problem,) = plugin.check(plugin.options(channels=[]), context)
    assert "at least one channel" in problem


# ---- PortAudio itself, in a process of its own ----------------------------------

CAPTURE = """
import json, sys, time
import numpy as np
from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.types import Block, Gap

plugin = Registry().get("source", "microphone")
options = plugin.options(**json.loads(sys.argv[1]))
context = BuildContext(SystemClock(), "run")
source = plugin.build(options, context)
try:
    problems = list(plugin.check(options, context))
    assert len(sys.argv) == 2 or not problems, problems
    source.open()
"""

RECORD = (
    CAPTURE
    + """
    count, values, positions, gaps, stop = int(sys.argv[3]), [], [], [], 0
    while source.counts.received < int(sys.argv[4]):
        time.sleep(0.01)  # a reader that is busy with something else
    while sum(map(len, values)) < count:
        item = source.read(1.0)
        if isinstance(item, (Block, Gap)):
            assert item.start == stop, (item.start, stop)
            stop = item.stop
        if isinstance(item, Block):
            values.append(item.samples)
            positions.append(np.arange(item.start, item.stop))
        elif isinstance(item, Gap):
            gaps.append([item.start, item.stop, item.reason])
    source.close()
    np.savez(
        sys.argv[2],
        values=np.concatenate(values),
        positions=np.concatenate(positions),
    )
    print(json.dumps({"gaps": gaps, "counts": source.counts._asdict()}))
except NeurovocalError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
)

LISTEN = (
    CAPTURE
    + """
    while True:
        source.read(0.1)
except NeurovocalError as error:
    source.close()
    sys.exit(f"{type(error).__name__}: {error}")
"""
)


def record(microphone, options, path, count, busy_until=0):
    """Capture `count` samples, once `busy_until` samples have passed unread."""
    arguments = [json.dumps(options), str(path), str(count), str(busy_until)]
    return microphone.start(
        [sys.executable, "-c", RECORD, *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def marker(count):
    """Samples that no silence and no shift can be taken for."""
    return np.random.default_rng(5).integers(1, 32_767, count, dtype=np.int16)


def found_in(captured, played):
    """Where `played` begins in `captured`, which must hold all of it."""
    at = int(np.flatnonzero(captured[:, 0])[0])
    expected = played.astype(np.float32) / 32768
    np.testing.assert_array_equal(captured[at : at + len(played), 0], expected)
    return at


@needs_virtual_audio
@pytest.mark.parametrize("block_length", [None, 320])
def test_every_sample_that_was_played_is_captured_bit_for_bit(tmp_path, block_length):
    played = marker(RATE)
    options = {"device": "pipemic", "sample_rate": RATE, "block_length": block_length}
    options["max_slip_ms"] = None  # a machine that stands still is late, too
    with VirtualMicrophone(RATE) as microphone:
        process = record(microphone, options, tmp_path / "x.npz", 4 * RATE)
        microphone.wait_until_heard()
        microphone.play(played)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    report = json.loads(out)
    captured = np.load(tmp_path / "x.npz")["values"]
    found_in(captured, played)
    assert report["counts"]["dropped"] == 0
    assert report["gaps"] == []


@needs_virtual_audio
def test_a_forced_overrun_is_a_gap_of_the_right_length(tmp_path):
    """The reader sleeps while ten seconds of audio pass a ring of 0.5 s."""
    buffered = RATE // 2
    options = {"device": "pipemic", "sample_rate": RATE, "buffer_s": 0.5}
    options["max_slip_ms"] = None  # the test plays faster than real time
    played = marker(10 * RATE)
    with VirtualMicrophone(RATE) as microphone:
        path = tmp_path / "x.npz"
        process = record(microphone, options, path, buffered // 2, 8 * RATE)
        microphone.wait_until_heard()
        microphone.play(played, at_once=True)
        microphone.pause()  # or silence would take the recording's place
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    report = json.loads(out)
    counts = report["counts"]
    gaps = report["gaps"]
    assert gaps[0] == [0, gaps[0][1], "overrun"]
    assert gaps[0][1] > 6 * RATE
    assert {reason for _, _, reason in gaps} == {"overrun"}
    assert sum(stop - start for start, stop, _ in gaps) == counts["dropped"]
    assert counts["received"] == (
        counts["delivered"] + counts["dropped"] + counts["queued"]
    )
    # What is left lies exactly where the gaps say: the first samples tell how
    # much silence came before the recording, all others must agree.
    left = np.load(tmp_path / "x.npz")
    captured = (left["values"][:, 0] * 32768).astype(np.int16)
    window = np.lib.stride_tricks.sliding_window_view(played, 64)
    (place,) = np.flatnonzero((window == captured[:64]).all(axis=1))
    index = left["positions"] - left["positions"][0] + place
    inside = index < len(played)
    np.testing.assert_array_equal(captured[inside], played[index[inside]])


@needs_virtual_audio
def test_a_device_that_hangs_is_noticed_and_can_be_closed(tmp_path):
    options = {"device": "pipemic", "sample_rate": RATE, "stall_timeout_s": 0.5}
    with VirtualMicrophone(RATE) as microphone:
        process = microphone.start(
            [sys.executable, "-c", LISTEN, json.dumps(options)],
            stderr=subprocess.PIPE,
            text=True,
        )
        microphone.wait_until_heard()
        microphone.pause()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("Disconnected: device 'pipemic' has delivered nothing for")


@needs_virtual_audio
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"device": "pipemik"}, "no input device 'pipemik' (did you mean 'pipemic'?)"),
        ({"device": 99}, "no input device '99'; there are: 0 "),
        ({"device": "pipemic", "channels": [999]}, "there is no channel 999"),
    ],
)
def test_what_the_device_cannot_do_is_one_sentence(options, sentence):
    with VirtualMicrophone(RATE) as microphone:
        done = microphone.run([sys.executable, "-c", LISTEN, json.dumps(options)])
    assert done.returncode == 1
    assert done.stderr.startswith("DeviceError: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


@needs_virtual_audio
def test_devices_are_listed():
    script = (
        "import json\n"
        "from neurovocal.plugins.sources.microphone import plugin\n"
        "print(json.dumps(plugin.devices()))"
    )
    with VirtualMicrophone(RATE) as microphone:
        done = microphone.run([sys.executable, "-c", script])
    assert done.stderr == ""
    devices = {device["name"]: device for device in json.loads(done.stdout)}
    assert devices["pipemic"]["channels"] > 0
    assert devices["pipemic"]["sample_rate"] > 0


def test_without_portaudio_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    def absent(name, *args):
        raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(DeviceError, match="apt install libportaudio2"):
        make().open()
