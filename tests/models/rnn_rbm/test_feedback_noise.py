"""Training with noise on the inputs that has the covariance of prediction errors."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neurovocal.models.rnn_rbm.training import RnnRbmTask
from neurovocal.models.toolkit.loop import Budget, StopFlag, TrainingInterrupted, fit
from neurovocal.models.toolkit.recipe import Phase, RnnRbmConfig


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def song(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(400)[:, None] / 7.0
    wave = 0.5 + 0.4 * np.sin(t + np.arange(4))
    return np.clip(wave + rng.normal(0, 0.05, wave.shape), 0, 1).astype(np.float32)


def task(noise: float) -> RnnRbmTask:
    phases = [
        Phase(objective="deterministic", updates=12, learning_rate=0.01),
        Phase(objective="contrastive", updates=8, learning_rate=0.001),
    ]
    config = RnnRbmConfig(
        feedback_noise=noise, sequence_length=20, warm_up=4, phases=phases
    )
    return RnnRbmTask(config, [song(0), song(1)], [song(2)], 0)


def trained(one: RnnRbmTask, path: Path) -> dict[str, torch.Tensor]:
    fit(one, path, Budget(), StopFlag(), 1e9)
    return one.module.state_dict()


def test_noise_changes_the_weights_and_has_the_covariance_of_errors(
    tmp_path: Path,
) -> None:
    noisy = task(1.0)
    with_noise = trained(noisy, tmp_path / "noisy.pt")
    without = trained(task(0.0), tmp_path / "plain.pt")
    assert not torch.equal(
        with_noise["layers.0.weight_in"], without["layers.0.weight_in"]
    )
    covariance = noisy.carried["error_covariance"].numpy()
    eigenvalues = np.linalg.eigvalsh(covariance)
    assert eigenvalues.min() > -1e-7
    # Close to the squared error of the predictions, not of the added noise.
    assert 0.001 < np.trace(covariance) / 4 < 0.15


def test_a_resumed_training_uses_the_same_noise(tmp_path: Path) -> None:
    expected = trained(task(1.0), tmp_path / "whole.pt")
    path, stop = tmp_path / "parts.pt", StopFlag()

    def stop_at_40_percent(progress: float, history: object, loss: float) -> None:
        stop.raised = progress > 0.4

    with pytest.raises(TrainingInterrupted):
        fit(task(1.0), path, Budget(), stop, 1e9, stop_at_40_percent)
    for name, value in trained(task(1.0), path).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)
