"""Log densities of Gaussian models against enumeration and known distributions."""

import math

import numpy as np
import pytest
import torch
from density import (
    DensityTask,
    LinearDensity,
    Whitening,
    conditional_gaussians,
    log_density,
)
from gaussian_annealing import GaussianRbms, log_partition

from neurovocal.models.rnn_rbm.annealing import AnnealingOptions, LikelihoodError
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.measures import LinearPredictor
from neurovocal.models.toolkit.recipe import Phase, RnnRbmConfig


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def random_rbms(n, n_visible, n_hidden, spread):
    draw = torch.Generator().manual_seed(0)
    return GaussianRbms(
        spread * torch.randn(n_visible, n_hidden, generator=draw),
        torch.randn(n, n_visible, generator=draw),
        torch.randn(n, n_hidden, generator=draw),
    )


def test_enumeration_agrees_with_an_integral_over_a_line():
    rbms = random_rbms(3, 1, 4, 1.0)
    x = torch.linspace(-20, 20, 20001)[:, None]
    for i in range(3):
        own = rbms[torch.full((len(x),), i)]
        integral = torch.logsumexp(own.log_weight(x), 0) + math.log(40 / 20000)
        assert abs(float(integral - rbms.exact_log_partition()[i])) < 1e-3


@pytest.mark.parametrize("spread", [0.2, 0.6])
def test_annealing_from_both_ends_meets_the_exact_value(spread):
    rbms = random_rbms(50, 20, 10, spread)
    exact = rbms.exact_log_partition()
    for found in log_partition(
        rbms, rbms.b, AnnealingOptions(300, 4, 100), generator()
    ):
        assert abs(float((found - exact).mean())) < 0.06


def test_enumeration_of_a_large_layer_raises():
    with pytest.raises(LikelihoodError, match="annealed"):
        random_rbms(1, 4, 17, 1.0).exact_log_partition()


def correlated(n, seed=0):
    """AR(1) series of 3 bins with correlated noise, and the noise's covariance."""
    rng = generator(seed)
    factor = np.array([[1, 0, 0], [0.9, 0.3, 0], [0.8, 0.2, 0.3]])
    noise = 0.1 * rng.standard_normal((n, 3)) @ factor.T
    song = np.zeros((n, 3))
    for t in range(1, n):
        song[t] = 0.8 * song[t - 1] + noise[t]
    return song.astype(np.float32), 0.01 * factor @ factor.T


def entropy_of(covariance):
    _, log_determinant = np.linalg.slogdet(2 * math.pi * math.e * covariance)
    return 0.5 * log_determinant


def test_linear_density_equals_the_entropy_of_the_noise():
    song, covariance = correlated(5000)
    test, _ = correlated(5000, seed=1)
    found = LinearDensity.fit([song], 2).log_density(test).mean()
    assert found == pytest.approx(-entropy_of(covariance), abs=0.05)


def test_predictions_and_errors_of_a_linear_predictor_agree():
    song, _ = correlated(100)
    predictor = LinearPredictor.fit([song], 3)
    missed = song[3:] - predictor.predict(song)[2:-1]
    np.testing.assert_allclose(missed, predictor.residual(song), atol=1e-5)


def test_whitened_density_equals_that_of_the_frames():
    """With W = 0 and right biases the model is a Gaussian with a known density."""
    song, _ = correlated(4000)
    linear = LinearDensity.fit([song], 1)
    whitening = Whitening.fit([song], linear)
    missed = linear.predictor.residual(song).astype(np.float32)
    shifted = missed + whitening.mean
    white = whitening(shifted)
    np.testing.assert_allclose(np.cov(white.T), 0.04 * np.eye(3), atol=0.002)
    model = RnnRbm(RnnRbmConfig(visible="gaussian"), 3)
    with torch.no_grad():
        for parameter in (model.W, model.bv, model.bh, model.Wuv, model.Wuh):
            parameter.zero_()
        model.log_sigma.fill_(math.log(0.2))
    rbms, x = conditional_gaussians(model, [white], skip=1)
    found = log_density(
        model, rbms, x, whitening, AnnealingOptions(2, 1, 1), generator()
    )
    expected = -entropy_of(linear.covariance)
    assert found.bracket.low == pytest.approx(expected, abs=0.02)
    assert found.bracket.width < 1e-5


def test_wide_bracket_raises():
    model = RnnRbm(RnnRbmConfig(visible="gaussian", hidden_scalar=4), 10)
    torch.nn.init.normal_(model.W, std=3.0, generator=torch.Generator().manual_seed(0))
    song = generator().random((60, 10), dtype=np.float32)
    rbms, x = conditional_gaussians(model, [song], skip=1)
    same = Whitening(np.zeros(10, np.float32), np.eye(10, dtype=np.float32))
    with pytest.raises(LikelihoodError, match=r"try \d+ temperatures"):
        log_density(model, rbms, x, same, AnnealingOptions(3, 1, 3), generator())


def test_density_of_a_bernoulli_model_raises():
    with pytest.raises(LikelihoodError, match="Gaussian"):
        conditional_gaussians(RnnRbm(RnnRbmConfig(), 3), [], 1)


def test_training_by_contrastive_divergence_finds_two_clouds():
    """A single Gaussian cannot fit them, so W must be used."""
    rng = generator(3)
    side = rng.integers(0, 2, 3000) * 2 - 1
    song = (side[:, None] + 0.2 * rng.standard_normal((3000, 3))).astype(np.float32)
    phases = [
        Phase(objective="deterministic", updates=40, learning_rate=0.02),
        Phase(objective="contrastive", updates=150, learning_rate=0.02),
    ]
    config = RnnRbmConfig(
        visible="gaussian",
        visible_sampling="sampled",
        phases=phases,
        sequence_length=8,
        batch_size=40,
        warm_up=1,
        hidden_scalar=1,
        dropout=0,
    )
    task = DensityTask(config, [song], [song[:500]], 0)
    densities = {}
    for update in range(190):
        task.begin(update / 190)
        task.step(update / 190)
        if update in (39, 189):
            with torch.no_grad():
                densities[update] = task.validate()["density"]
    assert densities[189] > densities[39] + 0.5
