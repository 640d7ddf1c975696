"""Measures of an RNN-RBM's predictions and states, against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from measures import (
    SongRegressorTask,
    decode,
    one_step_errors,
    roc_auc,
    stack_frames,
)

from neurovocal.models.toolkit.recipe import Phase, RnnRbmConfig

values = st.lists(st.integers(-5, 5), min_size=1, max_size=20)


@settings(deadline=None)  # the first call imports scipy
@given(values, values)
def test_auc_is_the_share_of_pairs_in_the_right_order(own, foreign):
    pairs = [(f > o) + 0.5 * (f == o) for o in own for f in foreign]
    assert roc_auc(own, foreign) == pytest.approx(np.mean(pairs))


def test_auc_of_an_empty_sample_raises():
    with pytest.raises(ValueError, match="both kinds"):
        roc_auc([1.0], [])


def test_one_step_errors_are_split_by_voicing():
    song = np.arange(12, dtype=np.float32)[:, None].repeat(2, axis=1)
    song[10] += 3  # the only unpredictable frame
    mask = np.zeros(12, bool)
    mask[[10, 11]] = True
    found = one_step_errors(lambda frames: frames + 1, [song], [mask], skip=2)
    assert found.silent == 0
    assert found.voiced == pytest.approx(9)  # 10 is too high, 11 then too low
    assert found.all == pytest.approx(1.8)


def test_stack_frames_puts_the_newest_first():
    song = np.array([[1.0], [2.0], [3.0]], np.float32)
    np.testing.assert_array_equal(stack_frames(song, 2), [[1, 0], [2, 1], [3, 2]])


def test_decode_finds_linear_features_only():
    rng = np.random.default_rng(0)
    units = rng.integers(0, 3, 600)
    features = np.eye(3, dtype=np.float32)[units] + rng.normal(0, 0.1, (600, 3))
    features = features.astype(np.float32)
    units[:5] = -1
    right = decode(features[:400], units[:400], features[400:], units[400:], 3)
    assert right.frame == right.voiced == right.balanced == 1.0
    noise = rng.normal(size=(600, 3)).astype(np.float32)
    chance = decode(noise[:400], units[:400], noise[400:], units[400:], 3)
    assert chance.frame < 0.5


def test_regressor_learns_the_next_frame():
    phase = np.arange(200)[:, None] + np.arange(6)
    song = (0.5 + 0.4 * np.sin(phase / 2)).astype(np.float32)
    phases = [Phase(objective="deterministic", updates=60, learning_rate=0.02)]
    config = RnnRbmConfig(phases=phases, sequence_length=30, recurrent_scalar=2)
    task = SongRegressorTask(config, [song], [song], 0)
    with torch.no_grad():
        before = task.validate()["score"]
    for update in range(60):
        task.begin(update / 60)
        task.step(update / 60)
    with torch.no_grad():
        assert task.validate()["score"] < 0.1 * before
    assert not task.module.W.any()
