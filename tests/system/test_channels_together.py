"""Channels of a recording or a sound card: messages of a run are those of each channel.

A run whose channels process together is compared with one in which each does by itself.
"""

import json
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
import soundfile
import yaml
from audio_devices.virtual_audio import VirtualMicrophone, needs_virtual_audio
from processes.waiting import PROCESS_S
from repository import CONFIGS

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.lane.lane_set import LaneSet
from neurovocal.engine.runtime.runner import Runner
from neurovocal.engine.wire.codec import encode

N_CHANNELS = 8
RATE = 32_000
KINDS = {"onset", "label", "offset", "frames", "surprise", "synthesis", "posteriors"}


def array_of_song(seconds):
    path = CONFIGS / "recordings" / "bengalese-finch.flac"
    song, rate = soundfile.read(path, stop=40 * RATE, dtype="float32")
    assert rate == RATE
    length = round(seconds * RATE)
    starts = np.linspace(0, len(song) - length, N_CHANNELS).astype(int)
    columns = [song[start : start + length] for start in starts]
    columns[3] = np.zeros(length, np.float32)
    return np.stack(columns, axis=1)


class Messages:
    """Observer that keeps the wire form of each topic's messages."""

    def __init__(self, kinds):
        self.wants = frozenset(kinds)
        self.topics = defaultdict(list)

    def open(self):
        pass

    def write(self, message):
        topic, header, payload = encode(message, "a run", None)
        self.topics[bytes(topic)].append((bytes(header), bytes(payload)))

    def flush(self, timeout):
        pass

    def close(self):
        pass


def messages_of(config, kinds):
    plan = plan_of(locate_config(str(config), []))
    sink = Messages(kinds)
    outcome = Runner(plan, [sink]).run()
    assert outcome.exit_code == 0
    return sink.topics


@pytest.mark.parametrize("rate", [RATE, 44_100], ids=["rate", "resampled"])
@pytest.mark.parametrize("kinds", [KINDS, {"label"}], ids=["all", "labels"])
def test_messages_of_an_array_are_those_of_each_channel(
    tmp_path, monkeypatch, rate, kinds
):
    recording = tmp_path / "array.wav"
    soundfile.write(recording, array_of_song(2.5), rate, subtype="FLOAT")
    config = tmp_path / "array.yaml"
    options = {"path": str(recording), "channels": list(range(1, N_CHANNELS + 1))}
    content = {
        "version": 1,
        "source": {"plugin": "file", "options": options},
        "bundle": "bengalese-finch",
        "models": [{"plugin": "classifier"}, {"plugin": "rnn_rbm"}],
        "sinks": [{"plugin": "jsonl", "options": {"path": str(tmp_path / "x.jsonl")}}],
    }
    config.write_text(yaml.safe_dump(content))
    joined = []
    real = LaneSet.join.__func__

    def join(cls, lanes, wants):
        found = real(cls, lanes, wants)
        joined.append(found is not None)
        return found

    monkeypatch.setattr(LaneSet, "join", classmethod(join))
    together = messages_of(config, kinds)
    assert any(joined)
    (tmp_path / "x.jsonl").unlink()
    monkeypatch.setattr(LaneSet, "can_join", classmethod(lambda cls, lanes: False))
    alone = messages_of(config, kinds)
    assert len(together) >= (N_CHANNELS - 1 if kinds == {"label"} else 30)
    assert together == alone


@needs_virtual_audio
def test_a_sound_card_of_sixteen_channels_has_onsets_in_each(tmp_path):
    n_channels = 16
    config = tmp_path / "card.yaml"
    events = tmp_path / "events.jsonl"
    options = {"device": "pulse", "sample_rate": RATE}
    options["channels"] = list(range(1, n_channels + 1))
    content = {
        "version": 1,
        "source": {"plugin": "microphone", "options": options},
        "detector": {"plugin": "energy"},
        "sinks": [{"plugin": "jsonl", "options": {"path": str(events)}}],
    }
    config.write_text(yaml.safe_dump(content))
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 1e-3, (5 * RATE, n_channels))
    starts = 2 * RATE + np.arange(n_channels) * 3200
    for channel, start in enumerate(starts):
        sound[start : start + 1600, channel] += rng.normal(0, 0.2, 1600)
    with VirtualMicrophone(RATE, n_channels) as microphone:
        code = "from neurovocal.engine.cli import main; main()"
        process = microphone.start(
            [sys.executable, "-c", code, "run", str(config), "--plain"],
            stderr=subprocess.PIPE,
            text=True,
        )
        microphone.wait_until_captured()
        microphone.play(sound)
        process.terminate()
        _, errors = process.communicate(timeout=PROCESS_S)
    assert events.exists(), errors
    found = [json.loads(line) for line in events.read_text().splitlines()]
    onsets = {each["stream"]: each for each in found if each["kind"] == "onset"}
    # PulseAudio mixes the first eight, as loudspeakers of a room, and not the others.
    streams = [f"neurovocal.ch{number}" for number in range(9, n_channels + 1)]
    assert set(streams) <= set(onsets), errors
    samples = [onsets[stream]["sample"] for stream in streams]
    assert np.allclose(np.diff(samples), 3200, atol=64)
