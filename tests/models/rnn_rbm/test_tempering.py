"""Parallel tempering against enumeration, and between wells where Gibbs is stuck."""

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


def noise(seed=0):
    return UnitSampler(np.random.Generator(np.random.SFC64(seed)))


def frequencies(frames):
    """Share of each of the 2**n frames."""
    n = frames.shape[1]
    codes = (frames.long() * 2 ** torch.arange(n)).sum(1)
    return torch.bincount(codes, minlength=2**n) / len(frames)


def two_wells(n_frames):
    """All units on, or all off: equally likely, and nothing between them."""
    n, n_hidden, strength = 12, 2, 4.0
    weights = torch.full((n, n_hidden), strength)
    bv = torch.full((n_frames, n), -0.5 * strength * n_hidden)
    return ConditionalRbms(
        weights, bv, torch.full((n_frames, n_hidden), -strength * n / 2)
    )


def test_states_are_as_frequent_as_enumeration_says():
    draw = torch.Generator().manual_seed(0)
    shapes = ((4, 3), (1, 4), (1, 3))
    weights, bv, bh = (torch.randn(*s, generator=draw) for s in shapes)
    one = ConditionalRbms(2 * weights, bv, bh)
    frames = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).flip(1)
    every = one[torch.zeros(16, dtype=torch.long)]
    exact = torch.exp(every.log_weight(frames) - exact_log_partition(every))
    many = one[torch.zeros(20000, dtype=torch.long)]
    drawn = draw_tempered(many, torch.zeros(20000, 4), TemperingOptions(5, 60), noise())
    # Standard error of a share of 20000: at most 0.0035.
    assert float((frequencies(drawn) - exact).abs().max()) < 0.014


def test_it_goes_between_wells_where_gibbs_steps_do_not():
    rbms, start = two_wells(400), torch.zeros(400, 12)
    stuck = gibbs(rbms, start, 300, noise()).mean(1)
    free = draw_tempered(rbms, start, TemperingOptions(16, 300), noise()).mean(1)
    assert float((stuck > 0.5).float().mean()) < 0.05
    assert 0.4 < float((free > 0.5).float().mean()) < 0.6
    assert float(((free - 0.5).abs() > 0.4).float().mean()) > 0.9


def test_expected_accuracy_can_draw_by_tempering():
    rbms = two_wells(50)
    rng = np.random.Generator(np.random.SFC64(0))
    silence, all_on = torch.zeros(50, 12), torch.ones(50, 12)
    walked = expected_accuracy(rbms, all_on, silence, rng, 50, 4)
    found = expected_accuracy(
        rbms, all_on, silence, rng, 50, 4, TemperingOptions(16, 300)
    )
    assert walked.replaced_once < 0.1
    assert found.replaced_once == pytest.approx(0.5, abs=0.12)


def test_the_same_seed_draws_the_same():
    rbms, start = two_wells(20), torch.zeros(20, 12)
    one, other, third = (
        draw_tempered(rbms, start, TemperingOptions(8, 40), noise(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


def test_one_temperature_is_refused():
    with pytest.raises(LikelihoodError, match="two temperatures"):
        TemperingOptions(1, 10)
