"""Persistent chains and options of the RNN-RBM's loss."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neurovocal.models.rnn_rbm.persistent_chains import PersistentChains
from neurovocal.models.rnn_rbm.training import RnnRbmTask
from neurovocal.models.toolkit.loop import Budget, StopFlag, fit
from neurovocal.models.toolkit.recipe import Phase, RnnRbmConfig


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), max_size=12))
def test_chains_resume_from_the_stored_state_or_restart_at_the_data(batches):
    chains, stored = PersistentChains({}, 7, 2, max_age=3), {}
    for update, batch in enumerate(batches):
        frames = np.array(batch)
        data = torch.full((len(batch), 2), -1.0)
        expected = [
            stored[f % 7][2]
            if stored.get(f % 7, (None,))[0] == f and update - stored[f % 7][1] <= 3
            else -1.0
            for f in batch
        ]
        assert chains.resume(frames, update, data)[:, 0].tolist() == expected
        values = torch.arange(len(batch)) + 100.0 * update
        chains.store(frames, update, values[:, None].expand(-1, 2))
        for f, value in zip(batch, values.tolist(), strict=True):
            stored[f % 7] = (f, update, value)


def song(n=300):
    phase = np.arange(n)[:, None] + np.arange(6)
    return (0.5 + 0.4 * np.sin(phase / 2)).astype(np.float32)


def task(**options):
    phases = [Phase(objective="contrastive", updates=30, learning_rate=0.01)]
    settings = {"phases": phases, "sequence_length": 20, "batch_size": 4, "dropout": 0}
    config = RnnRbmConfig(**{**settings, **options})
    made = RnnRbmTask(config, [song()], [song(60)], 0)
    # With the small initial weights hidden units would not depend on the chains.
    made.module.W.data.mul_(200)
    return made


def run(one, updates=30):
    for update in range(updates):
        one.begin(update / 30)
        one.step(update / 30)
    return one


def test_persistent_chains_are_bounded_and_affect_the_weights():
    persistent = run(task(negative="pcd", persistent_frames=50))
    assert persistent.carried["chain_values"].shape == (50, 6)
    assert (persistent.carried["chain_owner"] >= 0).all()
    plain = run(task())
    assert not plain.carried
    assert not torch.equal(plain.module.W, persistent.module.W)
    # Without any age allowed, all chains start at the data.
    without_age = run(task(negative="pcd", persistent_updates=0))
    torch.testing.assert_close(without_age.module.W, plain.module.W, rtol=0, atol=0)


def test_a_resumed_training_with_chains_ends_with_the_same_weights(tmp_path):
    whole = task(negative="pcd")
    fit(whole, tmp_path / "whole.pt", Budget(), StopFlag(), 1e9)
    stop = StopFlag()

    def at_twelve(progress, history, loss):
        stop.raised = history.update == 12

    with pytest.raises(Exception, match="stopped at update 12"):
        fit(task(negative="pcd"), tmp_path / "a.pt", Budget(), stop, 1e9, at_twelve)
    resumed = task(negative="pcd")
    fit(resumed, tmp_path / "a.pt", Budget(), StopFlag(), 1e9)
    torch.testing.assert_close(resumed.module.W, whole.module.W, rtol=0, atol=0)


def test_smoothness_reduces_the_change_of_predictions():
    def change(one):
        v = torch.from_numpy(song(60))[:, None]
        with torch.no_grad():
            u = one.module.states(v, one.module.initial_state())[:, -1]
            bv, _ = one.module.biases(u)
        return float((bv[1:] - bv[:-1]).square().sum(-1).mean())

    phases = [Phase(objective="deterministic", updates=30, learning_rate=0.02)]
    free, held = (run(task(phases=phases, smoothness=s)) for s in (0.0, 10.0))
    assert change(held) < 0.5 * change(free)


def test_dropout_of_the_conditioning_state_is_active_in_training_only():
    one = task(dropout=0.5)
    u = torch.ones(1000, one.module.n_recurrent)
    one.module.train()
    with torch.no_grad():
        training_bv, _ = one.module.biases(u)
        one.module.eval()
        evaluation_bv, _ = one.module.biases(u)
    assert float(training_bv.std(0).min()) > 0
    assert float(evaluation_bv.std(0).max()) < 1e-6
