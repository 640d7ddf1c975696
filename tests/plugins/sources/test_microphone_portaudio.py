"""Microphone source with PortAudio and a virtual device, in a process of its own."""

import json
import subprocess
import sys

import numpy as np
import pytest
from audio_devices.fake_device import RATE, make
from audio_devices.virtual_audio import VirtualMicrophone, needs_virtual_audio
from processes.waiting import PROCESS_S

from neurovocal.engine.contracts.errors import DeviceError

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
    """Return noise that contains no zeros and identifies each position."""
    return np.random.default_rng(5).integers(1, 32_767, count, dtype=np.int16)


def position_of(captured, played):
    """Return where `played` begins in `captured`; assert that it is complete."""
    at = int(np.flatnonzero(captured[:, 0])[0])
    expected = played.astype(np.float32) / 32768
    np.testing.assert_array_equal(captured[at : at + len(played), 0], expected)
    return at


@needs_virtual_audio
@pytest.mark.parametrize("block_length", [None, 320])
def test_every_sample_that_was_played_is_captured_bit_for_bit(tmp_path, block_length):
    played = marker(RATE)
    options = {"device": "pipemic", "sample_rate": RATE, "block_length": block_length}
    options["max_slip_ms"] = None  # a halted machine makes the callback late, too
    with VirtualMicrophone(RATE) as microphone:
        process = record(microphone, options, tmp_path / "x.npz", 4 * RATE)
        microphone.wait_until_captured()
        microphone.play(played)
        out, _ = process.communicate(timeout=PROCESS_S)
    assert process.returncode == 0
    report = json.loads(out)
    captured = np.load(tmp_path / "x.npz")["values"]
    position_of(captured, played)
    assert report["counts"]["dropped"] == 0
    assert report["gaps"] == []


@needs_virtual_audio
def test_a_forced_overrun_becomes_a_gap_of_its_length(tmp_path):
    """The reader sleeps while ten seconds of audio are written to a ring of 0.5 s."""
    buffered = RATE // 2
    options = {"device": "pipemic", "sample_rate": RATE, "buffer_s": 0.5}
    options["max_slip_ms"] = None  # the test plays faster than real time
    played = marker(10 * RATE)
    with VirtualMicrophone(RATE) as microphone:
        path = tmp_path / "x.npz"
        process = record(microphone, options, path, buffered // 2, 8 * RATE)
        microphone.wait_until_captured()
        microphone.play(played, at_once=True)
        microphone.pause()  # or silence would take the recording's place
        out, _ = process.communicate(timeout=PROCESS_S)
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
    # The samples that are left are at the positions between the gaps: the first ones
    # give the length of the silence before the recording, all others must agree.
    left = np.load(tmp_path / "x.npz")
    captured = (left["values"][:, 0] * 32768).astype(np.int16)
    window = np.lib.stride_tricks.sliding_window_view(played, 64)
    (place,) = np.flatnonzero((window == captured[:64]).all(axis=1))
    index = left["positions"] - left["positions"][0] + place
    inside = index < len(played)
    np.testing.assert_array_equal(captured[inside], played[index[inside]])


@needs_virtual_audio
def test_a_device_that_hangs_is_disconnected_and_can_be_closed(tmp_path):
    options = {"device": "pipemic", "sample_rate": RATE, "stall_timeout_s": 0.5}
    with VirtualMicrophone(RATE) as microphone:
        process = microphone.start(
            [sys.executable, "-c", LISTEN, json.dumps(options)],
            stderr=subprocess.PIPE,
            text=True,
        )
        microphone.wait_until_captured()
        microphone.pause()
        _, err = process.communicate(timeout=PROCESS_S)
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
def test_unsupported_options_are_refused_in_one_sentence(options, sentence):
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


def test_without_portaudio_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    def absent(name, *args):
        raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(DeviceError, match="apt install libportaudio2"):
        make().open()
