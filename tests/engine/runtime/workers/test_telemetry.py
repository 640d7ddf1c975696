"""Statistics of a lane: what they tell about its frames."""

import math
from pathlib import Path

import pytest
from stages.lanes import make_lane
from stages.runners import FrameEvery16

from neurovocal.engine.audio.timeline import TimeBase
from neurovocal.engine.lane.stage import SupervisedStage
from neurovocal.engine.runtime.workers.channel import Channel
from neurovocal.engine.runtime.workers.telemetry import _channel_figures
from neurovocal.plugins.features.options import SpectrogramOptions
from neurovocal.plugins.features.spectrogram import Spectrogram

RATE = 32_000


def figures_of(front_end):
    lane = make_lane()
    lane.features = SupervisedStage("features", front_end, "fail")
    return _channel_figures(Channel(lane, TimeBase(RATE)))


def spectrogram(**options):
    checked = SpectrogramOptions(frame_length=256, hop_length=128, **options)
    return Spectrogram(checked, RATE, Path())


def test_linear_bins_are_told_with_their_first_and_last_frequency():
    assert figures_of(spectrogram(scale="log", low_hz=500, high_hz=8000))["frames"] == {
        "n_bins": 61,
        "hop_length": 128,
        "frame_length": 256,
        "low_hz": 500.0,
        "high_hz": 8000.0,
        "spacing": "linear",
        "scale": "log",
        "range": None,
    }


def test_mel_bands_are_told_by_their_centres():
    frames = figures_of(spectrogram(scale="mel", n_mels=20, high_hz=10_000))["frames"]
    assert (frames["spacing"], frames["scale"]) == ("mel", "mel")
    # Corners at equal distances in mel: the first band's centre is the second corner.
    centre = 700 * (10 ** (math.log10(1 + 10_000 / 700) / 21) - 1)
    assert frames["low_hz"] == pytest.approx(centre, rel=1e-3)
    assert frames["high_hz"] < 10_000


def test_a_front_end_that_does_not_know_its_frequencies_leaves_the_key_out():
    assert "frames" not in figures_of(FrameEvery16())


def test_a_lane_without_frames_leaves_the_key_out():
    lane = make_lane(frames=False)
    assert "frames" not in _channel_figures(Channel(lane, TimeBase(RATE)))
