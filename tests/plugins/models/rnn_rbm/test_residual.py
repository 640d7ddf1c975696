"""Residual noise that depends on the state: fitted, written, read and sampled."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from neurovocal.engine.contracts.errors import BundleError
from neurovocal.models.rnn_rbm.residual import PredictionErrors, fit_residual
from neurovocal.plugins.models.rnn_rbm.residual import Residual, load_residual

N_VISIBLE, N_RECURRENT = 5, 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: at this size more are slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def two_kinds(n_frames: int = 4000) -> tuple[PredictionErrors, np.ndarray]:
    """Make errors that are small around 0, or large around 0.5, by the state."""
    rng = np.random.default_rng(0)
    large = rng.random(n_frames) < 0.4
    state = rng.normal(0, 0.2, (n_frames, N_RECURRENT)) + 0.8 * large[:, None]
    mixing = rng.normal(0, 1, (N_VISIBLE, N_VISIBLE))
    residual = rng.normal(0, 0.05, (n_frames, N_VISIBLE))
    residual[large] = rng.normal(0, 0.5, (large.sum(), N_VISIBLE)) @ mixing + 0.5
    return PredictionErrors(
        residual.astype(np.float32), state.astype(np.float32)
    ), large


def saved(path: Path, arrays: dict[str, np.ndarray]) -> Residual:
    np.savez(path, **arrays)
    return load_residual(path, N_VISIBLE, N_RECURRENT)


def test_sampled_errors_depend_on_the_state_like_the_real_ones(tmp_path: Path) -> None:
    missed, large = two_kinds()
    found = saved(tmp_path / "r.npz", fit_residual(missed, missed, 2, 0))
    assert found.is_mixture
    rng = np.random.default_rng(1)
    drawn = np.stack(
        [found.draw(u, rng.normal(size=N_VISIBLE), rng.random()) for u in missed.state]
    )
    for kind in (large, ~large):
        real = missed.residual[kind]
        np.testing.assert_allclose(drawn[kind].mean(0), real.mean(0), atol=0.15)
        ratio = np.median(np.abs(drawn[kind])) / np.median(np.abs(real))
        assert 0.7 < ratio < 1.4
    assert np.quantile(np.abs(drawn[~large]), 0.95) < 0.3


def test_one_component_is_one_covariance_without_a_gate(tmp_path: Path) -> None:
    missed, _ = two_kinds()
    arrays = fit_residual(missed, missed, 1, 0)
    assert set(arrays) == {"chol"}
    covariance = arrays["chol"] @ arrays["chol"].T
    expected = missed.residual.T @ missed.residual / len(missed.residual)
    np.testing.assert_allclose(covariance, expected, rtol=0.01, atol=1e-3)
    found = saved(tmp_path / "r.npz", arrays)
    drawn = found.draw(np.zeros(N_RECURRENT), np.eye(N_VISIBLE)[0], 0.99)
    np.testing.assert_array_equal(drawn, arrays["chol"][:, 0])


def test_the_level_of_the_noise_is_fitted_to_other_errors() -> None:
    missed, large = two_kinds()
    quiet = PredictionErrors(missed.residual[~large], missed.state[~large])
    louder = PredictionErrors(1.5 * quiet.residual, quiet.state)
    plain = fit_residual(missed, quiet, 2, 0)["mixture_chol"]
    raised = fit_residual(missed, louder, 2, 0)["mixture_chol"]
    np.testing.assert_allclose(raised, 1.5 * plain, rtol=0.1)


def test_few_frames_give_one_component() -> None:
    missed, _ = two_kinds(15)
    assert set(fit_residual(missed, missed, 8, 0)) == {"chol"}


def test_equal_errors_give_equal_arrays() -> None:
    missed, _ = two_kinds(500)
    first, again = (fit_residual(missed, missed, 3, 7) for _ in range(2))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])


def test_components_are_chosen_in_proportion_to_their_weights() -> None:
    zeros = np.zeros((3, N_VISIBLE), np.float32)
    chol = np.stack([np.eye(N_VISIBLE, dtype=np.float32)] * 3)
    gate = np.zeros((N_RECURRENT, 3), np.float32)
    bias = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    found = Residual(zeros[0], zeros, chol, gate, bias)
    chances = np.linspace(0, 1, 1000, endpoint=False)
    chosen = [found.component(np.zeros(N_RECURRENT), chance) for chance in chances]
    np.testing.assert_allclose(np.bincount(chosen), [200, 500, 300], atol=1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gate_bias": None}, "lacks gate_bias"),
        ({"mixture_mean": np.zeros((2, 4), np.float32)}, "is not for 5 bins and 3"),
        ({"gate_weight": np.zeros((9, 2), np.float32)}, "is not for 5 bins and 3"),
        ({"chol": np.zeros((2, 2), np.float32)}, "is not for 5 bins and 3"),
    ],
)
def test_a_residual_file_that_does_not_fit_is_refused(
    tmp_path: Path, change: dict[str, np.ndarray | None], sentence: str
) -> None:
    missed, _ = two_kinds(500)
    arrays = fit_residual(missed, missed, 2, 0) | change
    path = tmp_path / "residual.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(BundleError, match=sentence):
        load_residual(path, N_VISIBLE, N_RECURRENT)
