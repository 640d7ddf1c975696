"""Scenes of a detector network: synthetic calls, backgrounds, targets."""

import numpy as np
import pytest

from neurovocal.models.detection.backgrounds import draw_background
from neurovocal.models.detection.calls import draw_call, draw_call_type, place_calls
from neurovocal.models.detection.scenes import (
    CALL,
    SILENCE,
    UNKNOWN,
    draw_scene,
    scene_of,
    targets_of,
)
from neurovocal.plugins.detectors.band_excess import N_BANDS, FloorOptions, framing

FRAME, HOP = 16, 4


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_scenes_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    first, again, other = (draw_scene(random(seed), 300, []) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.levels, again.levels)
    np.testing.assert_array_equal(first.target, again.target)
    assert not np.array_equal(first.levels, other.levels)


def test_scenes_of_all_kinds_have_as_many_targets_as_rows() -> None:
    rain = random().standard_normal(500).astype(np.float32)
    scenes = [draw_scene(random(seed), 200, [rain]) for seed in range(30)]
    for scene in scenes:
        assert scene.levels.shape == (200, N_BANDS)
        assert scene.scores.shape == (200,)
        assert scene.target.shape == (200,)
        assert np.isfinite(scene.levels).all()
    found = {*np.concatenate([scene.target for scene in scenes]).tolist()}
    assert found >= {SILENCE, CALL}


@pytest.mark.parametrize("seed", range(20))
def test_a_call_has_level_1_between_its_onset_and_offset(seed: int) -> None:
    rng = random(seed)
    call = draw_call(rng, draw_call_type(rng, 1 / 64), 32)
    part = call.samples[call.onset : call.offset]
    assert np.sqrt(np.mean(np.square(part))) == pytest.approx(1)
    assert 0 <= call.onset < call.offset <= len(call.samples)


def test_calls_lie_where_they_are_said_to_lie() -> None:
    rng = random(3)
    samples, spans = place_calls(rng, draw_call_type(rng, 1 / 64), 200_000, 32)
    assert spans == sorted(spans)
    assert all(0 <= onset < offset <= len(samples) for onset, offset in spans)
    assert all(np.abs(samples[onset:offset]).max() > 0 for onset, offset in spans)


@pytest.mark.parametrize("seed", range(10))
def test_backgrounds_have_level_1(seed: int) -> None:
    recordings = [np.ones(300, np.float32), random().random(10).astype(np.float32)]
    samples = draw_background(random(seed), 5000, 32, recordings)
    assert np.sqrt(np.mean(np.square(samples))) == pytest.approx(1)


def test_a_row_is_a_call_where_the_centre_of_its_frame_is() -> None:
    excess = np.full((10, N_BANDS), 20, np.float32)
    # Centres are 8, 12, 16, ... 44.
    target = targets_of(excess, [(12.0, 20.0)], FRAME, HOP)
    assert target.tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 0]


def test_a_call_between_two_centres_gets_the_nearest_row() -> None:
    excess = np.full((10, N_BANDS), 20, np.float32)
    target = targets_of(excess, [(17.0, 18.0)], FRAME, HOP)
    assert np.flatnonzero(target == CALL).tolist() == [2]
    assert not targets_of(excess, [(900.0, 901.0)], FRAME, HOP).any()


def test_a_call_that_cannot_be_heard_is_unknown() -> None:
    excess = np.zeros((10, N_BANDS), np.float32)
    target = targets_of(excess, [(12.0, 20.0)], FRAME, HOP)
    assert target.tolist() == [0, UNKNOWN, UNKNOWN, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("sample_rate", [1000, 44_100, 500_000])
def test_a_whole_recording_has_a_row_for_each_frame(sample_rate: int) -> None:
    samples = random().standard_normal(sample_rate).astype(np.float32)
    frame_length, hop, _ = framing(FloorOptions(), sample_rate)
    scene = scene_of(samples, sample_rate, [])
    assert len(scene.levels) == (sample_rate - frame_length) // hop + 1
    assert len(scene.levels) == len(scene.scores) == len(scene.target)
    short = scene_of(samples[: frame_length - 1], sample_rate, [])
    assert short.levels.shape == (0, N_BANDS)
