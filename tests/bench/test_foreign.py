"""Surprise of foreign sounds: stretches, levels and scores."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from bundles.tiny_bundle import make_tiny_bundle
from foreign_sounds import (
    ForeignSound,
    background_of,
    in_active_stretches,
    in_annotated_segments,
    level_of,
    plugin_surprise,
    replace_by_noise,
    scale_to_level,
    scores_of,
)

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.annotations import Annotation
from neurovocal.models.data.datasets import AnnotatedRecording

RATE = 32000


def tone(stretches, level=0.1, n=RATE):
    samples = np.full(n, 1e-4, np.float32)
    for first, stop in stretches:
        samples[first:stop] = level * np.sin(np.arange(stop - first))
    return ForeignSound(samples, stretches)


def recording(folder: Path, columns=None) -> AnnotatedRecording:
    soundfile.write(folder / "a.wav", tone([(8000, 12000)]).samples, RATE)
    marks = (Annotation(0.25, 0.375, "x"), Annotation(0.9, 1.2, "past the end"))
    return AnnotatedRecording(
        "a.wav", folder / "a.wav", 1.0, RATE, marks, columns or {}
    )


def test_stretches_come_from_annotations_or_columns(tmp_path):
    known = recording(tmp_path, {"active_start_s": "0.2", "active_end_s": "0.45"})
    assert in_annotated_segments(known, RATE).stretches == [(8000, 12000)]
    assert in_annotated_segments(known, RATE // 2).stretches == [(4000, 6000)]
    assert in_active_stretches(known, RATE).stretches == [(6400, 9600), (9600, 12800)]
    with pytest.raises(ConfigError, match="active_start_s"):
        in_active_stretches(recording(tmp_path), RATE)


def test_levels_are_measured_in_the_stretches():
    loud, soft = tone([(1000, 3000)], 0.5), tone([(1000, 3000)], 0.01)
    level = level_of([loud])
    assert level == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    (matched,) = scale_to_level([soft], level)
    assert level_of([matched]) == pytest.approx(level, rel=1e-3)
    noise = replace_by_noise(loud, np.random.default_rng(0))
    assert level_of([noise]) == pytest.approx(level, rel=0.05)
    np.testing.assert_array_equal(noise.samples[3000:], loud.samples[3000:])
    quiet = background_of([loud], 5000)
    assert len(quiet) == 5000
    assert np.abs(quiet).max() < 1e-3


def test_scores_are_of_the_frames_with_centres_inside(tmp_path):
    bundle = load_bundle(make_tiny_bundle(tmp_path / "tiny"))
    sounds = [tone([(4096, 8192)]), tone([(10000, 10040)])]  # the second: no centre
    background = np.zeros(6400, np.float32)
    found = scores_of(
        sounds, bundle, background, lambda frames: np.arange(len(frames), dtype="f4")
    )
    # Centres 128 * k + 128 in [6400 + 4096, 6400 + 8192): frames 81 to 112.
    np.testing.assert_array_equal(found.frames, np.arange(81, 113))
    assert (found.mean, found.max) == (96.5, 112)
    surprise = scores_of(sounds[:1], bundle, background, plugin_surprise(bundle))
    assert np.isfinite(surprise.frames).all()
    assert surprise.frames.any()
    with pytest.raises(ConfigError, match="no stretch"):
        scores_of(sounds[1:], bundle, background, lambda frames: frames[:, 0])
