"""Parallel tempering against enumeration, and between separated modes."""

import itertools

import numpy as np
import pytest
import torch

from neurovocal.models.rnn_rbm.annealing import (
    ConditionalRbms,
    LikelihoodError,
    UnitSampler,
    exact_log_partition,
    gibbs,
)
from neurovocal.models.rnn_rbm.likelihood import expected_accuracy
from neurovocal.models.rnn_rbm.tempering import TemperingOptions, draw_tempered


def sampler(seed=0):
    return UnitSampler(np.random.Generator(np.random.SFC64(seed)))


def frequencies(frames):
    """Return the share of each of the 2**n frames."""
    n = frames.shape[1]
    codes = (frames.long() * 2 ** torch.arange(n)).sum(1)
    return torch.bincount(codes, minlength=2**n) / len(frames)


def two_modes(n_frames):
    """Return RBMs with two equally likely modes: all units on, or all off."""
    n, n_hidden, strength = 12, 2, 4.0
    weights = torch.full((n, n_hidden), strength)
    bv = torch.full((n_frames, n), -0.5 * strength * n_hidden)
    return ConditionalRbms(
        weights, bv, torch.full((n_frames, n_hidden), -strength * n / 2)
    )


def test_frequencies_of_frames_agree_with_enumeration():
    draw = torch.Generator().manual_seed(0)
    shapes = ((4, 3), (1, 4), (1, 3))
    weights, bv, bh = (torch.randn(*s, generator=draw) for s in shapes)
    one = ConditionalRbms(2 * weights, bv, bh)
    frames = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).flip(1)
    states = one[torch.zeros(16, dtype=torch.long)]
    exact = torch.exp(states.log_weight(frames) - exact_log_partition(states))
    many = one[torch.zeros(20000, dtype=torch.long)]
    drawn = draw_tempered(
        many, torch.zeros(20000, 4), TemperingOptions(5, 60), sampler()
    )
    # Standard error of a share of 20000: at most 0.0035.
    assert float((frequencies(drawn) - exact).abs().max()) < 0.014


def test_tempering_mixes_between_modes_where_gibbs_does_not():
    rbms, start = two_modes(400), torch.zeros(400, 12)
    gibbs_mean = gibbs(rbms, start, 300, sampler()).mean(1)
    tempered_mean = draw_tempered(
        rbms, start, TemperingOptions(16, 300), sampler()
    ).mean(1)
    assert float((gibbs_mean > 0.5).float().mean()) < 0.05
    assert 0.4 < float((tempered_mean > 0.5).float().mean()) < 0.6
    assert float(((tempered_mean - 0.5).abs() > 0.4).float().mean()) > 0.9


def test_expected_accuracy_with_tempering():
    rbms = two_modes(50)
    rng = np.random.Generator(np.random.SFC64(0))
    silence, all_on = torch.zeros(50, 12), torch.ones(50, 12)
    by_gibbs = expected_accuracy(rbms, all_on, silence, rng, 50, 4)
    by_tempering = expected_accuracy(
        rbms, all_on, silence, rng, 50, 4, TemperingOptions(16, 300)
    )
    assert by_gibbs.replaced_once < 0.1
    assert by_tempering.replaced_once == pytest.approx(0.5, abs=0.12)


def test_the_same_seed_gives_the_same_frames():
    rbms, start = two_modes(20), torch.zeros(20, 12)
    one, other, third = (
        draw_tempered(rbms, start, TemperingOptions(8, 40), sampler(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_a_single_temperature_is_an_error():
    with pytest.raises(LikelihoodError, match="two temperatures"):
        TemperingOptions(1, 10)
