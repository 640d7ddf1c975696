"""Latency, cost and choice of settings of detectors, as the benches measure them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from annotated_sets import Recording
from cost import block_times
from detect import Samples, detect
from latency import lags_of
from left_out import SPACE, drawn, hear, mean_by_group

from neurovocal.plugins.detectors.bands import BandsOptions

RATE = 16_000


def calls(seconds: float) -> Samples:
    """Noise with a tone of 60 ms at each half second."""
    samples = 1e-3 * np.random.default_rng(0).standard_normal(round(seconds * RATE))
    for at_s in np.arange(0.4, seconds - 0.1, 0.5):
        first, count = round(at_s * RATE), round(0.06 * RATE)
        samples[first : first + count] += 0.1 * np.sin(0.9 * np.arange(count))
    return samples.astype(np.float32)


def test_lags_are_those_of_the_audio_and_within_the_stated_latency() -> None:
    lags, stated_ms = lags_of("bands", calls(4.0), RATE)
    assert len(lags["onset", False]) == len(lags["offset", False]) == 5
    assert len(lags["onset", True]) == len(lags["offset", True]) == 2
    assert all(0 < lag <= stated_ms for of in lags.values() for lag in of)
    assert max(lags["onset", False]) < 40


def test_both_detectors_get_every_block_after_two_seconds() -> None:
    times = block_times("bands", calls(3.0), RATE)
    assert len(times) == 31
    assert all(own > 0 and other > 0 for own, other in times)


def test_known_levels_give_the_segments_of_the_detector(tmp_path: Path) -> None:
    samples = calls(3.0)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    heard = hear(Recording(tmp_path / "a.wav", []))
    expected = detect("bands", {}, samples, RATE)
    assert len(expected) == 5
    assert heard.segments(BandsOptions()) == expected
    assert heard.segments(BandsOptions()) == expected


def test_settings_that_are_drawn_are_valid_and_groups_count_once() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        options = drawn(rng)
        assert options.on_db in SPACE["on_db"]
        assert options.off_db < options.on_db
    means = mean_by_group({"gy6or6 23+24": (1.0, 0.5), "gy6or6 25": (0.5, 0.5)})
    assert means == {"finch gy": (pytest.approx(0.75), pytest.approx(0.5))}
