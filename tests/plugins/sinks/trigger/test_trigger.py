"""Trigger sink: playback times, model commands and the log."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from audio_devices.virtual_speaker import DEVICE, VirtualSpeaker, needs_virtual_speaker
from processes.cli_process import RECORDING, neurovocal

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import ConfigError, StageError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Ledger, Message, StreamInfo, Trigger
from neurovocal.plugins.sinks.trigger import player
from neurovocal.plugins.sinks.trigger import sink as sink_trigger

RATE = 16_000
BLOCK = 80  # 5 ms
MS = 1_000_000
DEVICE_MS = 12  # from callback to output


class Device:
    """Replacement of PortAudio that requests samples when the test says so."""

    latency = 0.01

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        device = {"index": 0, "name": "stepped", "channels": 2, "sample_rate": RATE}
        monkeypatch.setattr(player, "find_device", lambda *_: device)
        monkeypatch.setattr(player, "open_output", self._open)
        self.clock = Clock(self)
        self.heard = np.empty((0, 2), np.float32)

    def _open(self, device: Any, rate: int, channels: int, **options: Any) -> "Device":
        self._callback = options["callback"]
        assert options["blocksize"] == BLOCK
        return self

    def close(self) -> None:
        """Do nothing: a test ends the device."""

    def step(self, blocks: int = 1) -> None:
        """Request blocks of 5 ms, each at its beginning."""
        status = type("Status", (), {"output_underflow": False})
        now = type("Time", (), {"currentTime": 7.0, "outputBufferDacTime": 7.012})
        for _ in range(blocks):
            out = np.full((BLOCK, 2), np.nan, np.float32)
            self._callback(out, BLOCK, now, status)
            self.heard = np.concatenate([self.heard, out])
            self.clock.advance(0.005)


class Clock(ManualClock):
    """Clock that lets the device request a block during each wait."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.advance(1.0)  # 0 is no time at all
        self._device = device

    def wait_until(self, monotonic_ns: int, timeout: float) -> bool:
        self._device.step()
        return True


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """Sound file with 200 samples that are not zero."""
    path = tmp_path / "sound.wav"
    soundfile.write(path, np.linspace(0.1, 0.5, 200), RATE, subtype="FLOAT")
    return path


def opened(device: Device, sound: Path, gain_db: float = 0, **play: Any) -> Any:
    log = str(sound.parent / "log.jsonl")
    play = {"path": str(sound), "gain_db": gain_db, **play}
    options = sink_trigger.plugin.options(pattern="a", play=play, log=log)
    context = BuildContext(clock=device.clock, run="test")
    sink = sink_trigger.plugin.build(options, context)
    sink.open()
    return sink


def lines(sound: Path) -> list[dict[str, Any]]:
    text = (sound.parent / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def triggered(
    device: Device, decision: Any = "act", name: str = "trigger", live: bool = True
) -> Message:
    """Return a trigger that the lane emits now, 9 ms after its instant."""
    units: tuple[Any, ...] = (("a",), (0.9,), "final", decision, "", {})
    event = Trigger(name, 1600, 0, 800, 1600, *units)
    ledger = Ledger(6.0, 1.0, 2.0) if live else None
    emitted_ns = device.clock.monotonic_ns() if live else 0
    return Message(StreamInfo("cage", RATE), event, 0, 1700, 5, ledger, emitted_ns)


def test_sound_begins_with_the_next_block(device: Device, sound: Path) -> None:
    sink = opened(device, sound)
    device.step(3)
    device.clock.advance(0.002)
    sink.write(triggered(device))
    device.clock.advance(0.003)
    device.step(4)
    sink.close()
    expected = np.zeros(7 * BLOCK, np.float32)
    expected[3 * BLOCK : 3 * BLOCK + 200] = np.linspace(0.1, 0.5, 200)
    np.testing.assert_allclose(device.heard[: 7 * BLOCK, 0], expected, atol=1e-7)
    assert not device.heard[7 * BLOCK :].any()
    np.testing.assert_array_equal(device.heard[:, 0], device.heard[:, 1])
    (line,) = lines(sound)
    assert line["outcome"] == "played"
    assert line["output_sample"] == 3 * BLOCK
    assert (line["wait_ms"], line["queue_ms"], line["compute_ms"]) == (6, 1, 2)
    assert (line["handover_ms"], line["device_ms"]) == (3, DEVICE_MS)
    assert line["total_ms"] == 6 + 1 + 2 + 3 + DEVICE_MS
    assert (line["run"], line["utc_ns"], line["units"]) == ("test", 5, ["a"])
    assert sink.stats()["total_ms"]["p99"] == line["total_ms"]


def test_delay_is_exact_to_the_sample(device: Device, sound: Path) -> None:
    """The latency of the stages is part of the delay."""
    sink = opened(device, sound, delay_ms=50)
    for wait_s in (0.0, 0.0013, 0.0049):
        device.clock.advance(wait_s)
        sink.write(triggered(device))
        device.step(10)
    sink.close()
    totals = [line["total_ms"] for line in lines(sound)]
    np.testing.assert_allclose(totals, 50, atol=1000 / RATE)
    first = int(np.argmax(device.heard[:, 0] > 0))
    assert first == lines(sound)[0]["output_sample"]


def test_late_sound_is_not_played(device: Device, sound: Path) -> None:
    sink = opened(device, sound, latest_ms=30)
    sink.write(triggered(device))  # 9 ms old, and 12 more to the output
    device.step()
    message = triggered(device)
    device.clock.advance(0.010)
    sink.write(message)
    device.step()
    sink.close()
    assert [line["outcome"] for line in lines(sound)] == ["played", "late"]
    assert lines(sound)[1]["total_ms"] == 31
    assert sink.stats()["outcomes"] == {"played": 1, "late": 1}


def test_overlapping_sounds_are_added_up_to_a_limit(
    device: Device, sound: Path
) -> None:
    sink = opened(device, sound, gain_db=-20)
    for _ in range(10):
        sink.write(triggered(device))
    device.step(4)
    sink.close()
    outcomes = [line["outcome"] for line in lines(sound)]
    assert outcomes == ["played"] * 8 + ["busy"] * 2
    once = np.linspace(0.01, 0.05, 200)
    np.testing.assert_allclose(device.heard[:200, 0], 8 * once, rtol=1e-5)


def test_catch_trials_and_refractory_triggers_play_nothing(
    device: Device, sound: Path
) -> None:
    sink = opened(device, sound)
    sink.write(triggered(device, "catch"))
    sink.write(triggered(device, "refractory"))
    sink.write(triggered(device, name="another"))
    device.step(2)
    sink.close()
    assert not device.heard.any()
    assert [line["outcome"] for line in lines(sound)] == ["catch", "refractory"]


def test_stream_that_is_not_live_plays_nothing(device: Device, sound: Path) -> None:
    sink = opened(device, sound)
    sink.write(triggered(device, live=False))
    device.step(2)
    sink.close()
    assert not device.heard.any()
    assert [line["outcome"] for line in lines(sound)] == ["not live"]


def test_begun_sound_is_played_to_its_end_at_close(device: Device, sound: Path) -> None:
    sink = opened(device, sound)
    sink.write(triggered(device))
    sink.close()
    assert np.count_nonzero(device.heard[:, 0]) == 200
    assert [line["outcome"] for line in lines(sound)] == ["played"]


def test_stopped_device_raises_and_pending_sounds_are_recorded(
    device: Device, sound: Path
) -> None:
    sink = opened(device, sound)
    sink.write(triggered(device))
    device.clock.advance(1.5)
    with pytest.raises(StageError, match="'stepped' has stopped asking for sound"):
        sink.write(triggered(device))
    sink.close()
    assert [line["outcome"] for line in lines(sound)] == ["stopped"]


def test_sound_that_would_be_clipped_is_refused(device: Device, sound: Path) -> None:
    with pytest.raises(ConfigError, match=r"6\.0 dB beyond full scale"):
        opened(device, sound, gain_db=12.0412)
    opened(device, sound, gain_db=6).close()


# ---- whole runs ------------------------------------------------------------------

TRIGGERS = """[
  {{plugin: journal, options: {{path: '{0}/run.sqlite'}}}},
  {{plugin: trigger, options: {{name: one, pattern: '{1}', status: provisional,
    posterior: 0.5, refractory_ms: 150, catch_share: 0.3, seed: 5,
    log: '{0}/one.jsonl', set: {{arguments: {{synthesis: continue}}}}}}}},
  {{plugin: trigger, options: {{name: two, pattern: '. $', bout_gap_ms: 60,
    log: '{0}/two.jsonl', set: {{arguments: {{synthesis: 'off'}}}}}}}},
  {{plugin: trigger, options: {{name: three, pattern: '[ei]', posterior: 0.5,
    log: '{0}/three.jsonl', say: {{units: 'a b'}}}}}}]"""


def test_replayed_run_sets_options_at_the_same_sample(tmp_path: Path) -> None:
    """Triggers and their commands depend on the audio, not on block length."""
    samples, rate = soundfile.read(RECORDING, dtype="int16", frames=5 * 32000)
    soundfile.write(tmp_path / "song.flac", samples, rate)
    source = f"source={{plugin: file, options: {{path: '{tmp_path}/song.flac'}}}}"
    sinks = TRIGGERS.format(tmp_path, ". [abcde]").replace("", "")
    sets = ["--set", source, "--set", f"sinks={sinks}"]
    done = neurovocal("run", "demo", "--plain", *sets)
    assert done.code == 0, done.err
    ones = [json.loads(t) for t in (tmp_path / "one.jsonl").read_text().splitlines()]
    twos = [json.loads(t) for t in (tmp_path / "two.jsonl").read_text().splitlines()]
    assert {t["outcome"] for t in ones} == {"set", "catch", "refractory"}
    assert {t["status"] for t in twos} == {"silence"}
    three = tmp_path / "three.jsonl"
    threes = [json.loads(t) for t in three.read_text().splitlines()]
    assert "said" in {t["outcome"] for t in threes}
    assert {t["arguments"]["units"] for t in threes} == {"a b"}
    log = tmp_path / "one.jsonl"
    before = log.read_bytes()
    done = neurovocal(
        *("replay", tmp_path / "run.sqlite", "--json", "--block-length", 77)
    )
    found = json.loads(done.out)
    assert (done.code, found["differences"]) == (0, [])
    assert found["identical"]["trigger"] == len(ones) + len(twos) + len(threes)
    assert log.read_bytes() == before, "a replay writes no log"


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("options", "models", "problem"),
    [
        ("set: {model: nobody, arguments: {x: 1}}", None, "no model 'nobody'"),
        ("set: {model: '2', arguments: {x: 1}}", None, "no model '2'"),
        ("say: {model: nobody, units: a}", None, "no model 'nobody'"),
        ("log: '-'", "[]", "lane 'demo': the lane has no model that labels"),
    ],
)
def test_impossible_triggers_are_found_before_devices_open(
    command, options, models, problem
):
    sinks = f"sinks=[{{plugin: trigger, options: {{pattern: 'a [b]', {options}}}}}]"
    changes = ["--set", sinks]
    if models is not None:
        changes += ["--set", f"models={models}"]
    done = neurovocal(command, "demo", *changes)
    assert done.code == 1
    assert problem in done.err
    assert "demo.yaml:" in done.err


# ---- a real PortAudio stream ------------------------------------------------------

SCRIPT = """
import json, sys, time
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.types import Ledger, Message, StreamInfo, Trigger

from neurovocal.plugins.sinks.trigger import player

player._STALL_S = 60.0  # a machine that is busy is no device that has stopped
plugin = Registry().get("sink", "trigger")
play = {"path": sys.argv[2], "device": sys.argv[1], "latest_ms": 60000, "block_ms": 20}
options = plugin.options(pattern="a", play=play, log=sys.argv[3])
sink = plugin.build(options, BuildContext(clock=SystemClock(), run="test"))
sink.open()
for number in range(3):
    time.sleep(0.3)
    event = Trigger("trigger", 0, number, 0, 9, ("a",), (1.0,), "final", "act", "", {})
    ledger = Ledger(1.0, 1.0, 1.0)
    now = SystemClock().monotonic_ns()
    sink.write(Message(StreamInfo("cage", 16000), event, number, 0, 0, ledger, now))
sink.close()
print(json.dumps(sink.stats()))
"""


@needs_virtual_speaker
def test_real_device_plays_the_sound_where_the_log_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sound = rng.uniform(0.2, 0.5, 1000).astype(np.float32)
    soundfile.write(tmp_path / "sound.wav", sound, 44_100, subtype="FLOAT")
    log = tmp_path / "log.jsonl"
    arguments = [DEVICE, str(tmp_path / "sound.wav"), str(log)]
    with VirtualSpeaker(44_100) as speaker:
        stats = json.loads(speaker.run([sys.executable, "-c", SCRIPT, *arguments]))
        played = speaker.played()
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert stats["outcomes"] == {"played": 3}
    (loud,) = np.nonzero(played > 0.1)
    begins = loud[np.diff(loud, prepend=-10_000) > 1]
    if stats["device_underflows"] == 0:  # else the machine was too busy for it
        assert len(begins) == 3
        for begin in begins:
            np.testing.assert_allclose(played[begin : begin + 1000], sound, atol=1e-4)
        positions = [line["output_sample"] for line in found]
        assert list(np.diff(begins)) == list(np.diff(positions))
    for line in found:
        parts = ("wait_ms", "queue_ms", "compute_ms", "handover_ms", "device_ms")
        assert line["total_ms"] == pytest.approx(sum(line[k] for k in parts), abs=0.01)
