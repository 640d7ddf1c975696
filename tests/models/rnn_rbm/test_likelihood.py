"""Likelihoods against enumeration, their errors, and accuracies of known counts."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.models.rnn_rbm.annealing import (
    AnnealingOptions,
    ConditionalRbms,
    LikelihoodError,
    UnitSampler,
    exact_log_partition,
    log_partition,
)
from neurovocal.models.rnn_rbm.likelihood import (
    Bracket,
    accuracy_of,
    conditional_rbms,
    expected_accuracy,
    log_likelihood,
    match_counts,
)
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.recipe import RnnRbmConfig


def generator(seed=0):
    return np.random.Generator(np.random.SFC64(seed))


def random_rbms(n, n_visible, n_hidden, spread, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return ConditionalRbms(
        spread * torch.randn(n_visible, n_hidden, generator=draw),
        torch.randn(n, n_visible, generator=draw),
        torch.randn(n, n_hidden, generator=draw),
    )


def random_frames(n, n_visible, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return (torch.rand(n, n_visible, generator=draw) < 0.3).float()


def all_frames(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)))


def network(**options):
    torch.manual_seed(0)
    return RnnRbm(RnnRbmConfig(hidden_scalar=1, recurrent_scalar=1, **options), 8)


@pytest.mark.parametrize(("n_visible", "n_hidden"), [(6, 3), (4, 7)])
def test_enumerated_partition_function_normalizes_the_probabilities(
    n_visible, n_hidden
):
    rbms = random_rbms(3, n_visible, n_hidden, 2.0)
    log_z = exact_log_partition(rbms)
    frames = all_frames(n_visible)
    for i in range(3):
        own = rbms[torch.full((len(frames),), i)]
        total = torch.logsumexp(own.log_weight(frames) - log_z[i], 0)
        assert abs(float(total)) < 1e-5


def test_enumeration_of_two_large_layers_is_an_error():
    with pytest.raises(LikelihoodError, match="annealed"):
        exact_log_partition(random_rbms(1, 88, 21, 1.0))


@pytest.mark.parametrize(
    ("n_visible", "n_hidden", "spread", "annealing", "tolerance"),
    [
        (88, 12, 0.5, AnnealingOptions(200, 4), 0.02),
        # Some frames have two separated modes: few chains reach both.
        *(
            pytest.param(88, 12, *strong, marks=pytest.mark.long)
            for strong in (
                (1.0, AnnealingOptions(1000, 4), 0.05),
                (2.0, AnnealingOptions(3000, 4), 0.25),
            )
        ),
        (10, 30, 1.0, AnnealingOptions(500, 4), 0.05),
        (5, 3, 1.0, AnnealingOptions(300, 4), 0.02),
    ],
)
def test_annealing_in_both_directions_agrees_with_enumeration(
    n_visible, n_hidden, spread, annealing, tolerance
):
    rbms = random_rbms(50, n_visible, n_hidden, spread)
    start = random_frames(50, n_visible)
    exact = exact_log_partition(rbms)
    for estimate in log_partition(rbms, start, annealing, UnitSampler(generator())):
        assert abs(float((estimate - exact).mean())) < tolerance


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 2.0))
def test_bracket_contains_the_exact_likelihood(seed, spread):
    rbms = random_rbms(100, 20, 8, spread, seed)
    frames = random_frames(100, 20, seed)
    exact = float((rbms.log_weight(frames) - exact_log_partition(rbms)).mean())
    found = log_likelihood(
        rbms, frames, AnnealingOptions(100, 2), generator(seed), None
    )
    # Both ends are means of 100 noisy values: 0.1 is several standard errors.
    assert found.bracket.low - 0.1 < exact < found.bracket.high + 0.1


def test_a_wide_bracket_is_an_error_with_a_suggestion():
    rbms, frames = random_rbms(200, 40, 12, 2.0), random_frames(200, 40)
    with pytest.raises(LikelihoodError, match=r"try \d+00 temperatures instead of 5\b"):
        log_likelihood(rbms, frames, AnnealingOptions(5, 1), generator())


def test_enough_temperatures_give_a_narrow_bracket():
    rbms, frames = random_rbms(200, 40, 12, 2.0), random_frames(200, 40)
    exact = float((rbms.log_weight(frames) - exact_log_partition(rbms)).mean())
    found = log_likelihood(rbms, frames, AnnealingOptions(1000, 2), generator())
    assert found.bracket.width < 0.1
    assert found.bracket.middle == pytest.approx(exact, abs=0.05)


def test_non_finite_weights_are_an_error():
    rbms = random_rbms(3, 6, 4, 1.0)
    broken = ConditionalRbms(rbms.W * math.nan, rbms.bv, rbms.bh)
    with pytest.raises(LikelihoodError, match="finite"):
        log_likelihood(
            broken, random_frames(3, 6), AnnealingOptions(10, 1), generator()
        )


def test_likelihood_without_weights_is_the_cross_entropy():
    rbms = random_rbms(30, 9, 4, 0.0)
    frames = random_frames(30, 9)
    found = log_likelihood(rbms, frames, AnnealingOptions(1, 1, 1), generator())
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(
        rbms.bv, frames, reduction="none"
    )
    assert found.bracket.width == 0
    assert found.bracket.low == pytest.approx(-float(entropy.sum(1).mean()), abs=1e-5)
    assert found.n_frames == 30


def test_the_same_seed_gives_the_same_bracket():
    rbms, frames = random_rbms(20, 12, 6, 1.0), random_frames(20, 12)
    one, same, other = (
        log_likelihood(rbms, frames, AnnealingOptions(20, 2), generator(seed), None)
        for seed in (3, 3, 4)
    )
    assert one == same
    assert one.bracket != other.bracket


def test_frames_of_several_tiles_are_all_counted():
    rbms, frames = random_rbms(2500, 6, 3, 1.0), random_frames(2500, 6)
    exact = float((rbms.log_weight(frames) - exact_log_partition(rbms)).mean())
    found = log_likelihood(rbms, frames, AnnealingOptions(50, 2), generator())
    assert found.n_frames == 2500
    assert found.bracket.middle == pytest.approx(exact, abs=0.02)


def test_annealing_without_chains_is_an_error():
    with pytest.raises(LikelihoodError, match="at least one"):
        AnnealingOptions(n_chains=0)


def test_bracket_width_and_middle():
    assert Bracket(-6.5, -6.25).width == 0.25
    assert Bracket(-6.5, -6.25).middle == -6.375


@pytest.mark.parametrize("gates", ["sigmoid", "simple"])
def test_the_rbm_of_a_frame_depends_on_earlier_frames_only(gates):
    model = network(gates=gates, dropout=0.5)
    rolls = [random_frames(n, 8, seed=n).numpy() for n in (7, 1, 4)]
    model.train()
    rbms, frames, previous = conditional_rbms(model, rolls)
    assert model.training
    assert len(rbms) == len(frames) == 12
    changed = [roll.copy() for roll in rolls]
    changed[0][3] = 1 - changed[0][3]
    other, _, _ = conditional_rbms(model, changed)
    assert torch.equal(rbms.bv[:4], other.bv[:4])
    assert not torch.equal(rbms.bv[4], other.bv[4])
    assert torch.equal(rbms.bv[7:], other.bv[7:])
    assert torch.equal(rbms.bv[7], model.bv)
    assert torch.equal(previous[0], torch.zeros(8))
    assert torch.equal(previous[1:7], frames[:6])
    model.eval()
    with torch.no_grad():
        u = model.states(frames[:3, None], model.initial_state())[-1, -1]
        bv, bh = model.biases(u)
    assert torch.allclose(rbms.bv[3], bv[0], atol=1e-6)
    assert torch.allclose(rbms.bh[3], bh[0], atol=1e-6)


def test_log_weight_equals_the_negative_free_energy():
    model = network()
    rbms, frames, _ = conditional_rbms(model, [random_frames(9, 8).numpy()])
    with torch.no_grad():
        energy = model.free_energy(frames, rbms.bv, rbms.bh)
    assert torch.allclose(rbms.log_weight(frames), -energy.double(), atol=1e-5)


def test_frames_without_a_likelihood_are_errors():
    with pytest.raises(LikelihoodError, match="Gaussian"):
        conditional_rbms(network(visible="gaussian"), [np.zeros((3, 8), np.float32)])
    with pytest.raises(LikelihoodError, match="0 and 1"):
        conditional_rbms(network(), [np.full((3, 8), 0.5, np.float32)])
    with pytest.raises(LikelihoodError, match="no frame"):
        conditional_rbms(network(), [np.zeros((0, 8), np.float32)])


def test_accuracies_of_known_counts():
    wanted = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    drawn = torch.tensor([[1.0, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    found = accuracy_of(match_counts(drawn, wanted))
    assert found.replaced_once == pytest.approx((1 / 2 + 1 / 3 + 1 + 0) / 4)
    assert found.replaced_twice == pytest.approx((1 / 3 + 1 / 3 + 1 + 0) / 4)
    assert found.pooled == pytest.approx(2 / (3 + 3 + 0 + 1))


def test_expected_accuracy_of_a_certain_model_is_one():
    frames = random_frames(10, 8)
    rbms = ConditionalRbms(torch.zeros(8, 2), 60 * (frames - 0.5), torch.zeros(10, 2))
    found = expected_accuracy(rbms, frames, torch.zeros(10, 8), generator(), 1, 2)
    assert found.replaced_once == found.replaced_twice == found.pooled == 1


def test_expected_accuracy_of_a_random_model_equals_the_paper():
    """The paper's 'Random' row: notes per frame / 88, each note on with p = 0.5."""
    frames = torch.zeros(4000, 88)
    frames[:, 30:34] = 1
    rbms = ConditionalRbms(
        torch.zeros(88, 1), torch.zeros(4000, 88), torch.zeros(4000, 1)
    )
    found = expected_accuracy(rbms, frames, frames, generator(), 1, 2)
    assert found.replaced_once == pytest.approx(4 / 88, abs=1e-3)
    assert found.pooled == pytest.approx(2 / 46, abs=1e-3)


@pytest.mark.parametrize(
    "annealing", [None, AnnealingOptions(20, 1, 5), AnnealingOptions(20, 3, 5)]
)
def test_expected_accuracy_agrees_with_enumeration(annealing):
    rbms, frames = random_rbms(40, 5, 3, 1.0), random_frames(40, 5)
    log_z, states = exact_log_partition(rbms), all_frames(5)
    expected = 0.0
    for i in range(40):
        own = rbms[torch.full((32,), i)]
        p = torch.exp(own.log_weight(states) - log_z[i])
        both, drawn, wanted = match_counts(states, frames[i].expand(32, 5)).unbind(1)
        largest = torch.maximum(drawn, wanted)
        score = torch.where(largest > 0, both / largest.clamp_min(1), 1.0)
        expected += float((p * score).sum()) / 40
    start = random_frames(40, 5, 9)
    found = expected_accuracy(rbms, frames, start, generator(), 50, 200, annealing)
    assert found.replaced_once == pytest.approx(expected, abs=0.02)


def test_likelihood_of_frames_with_equal_rbms_agrees_with_enumeration():
    one = random_rbms(1, 20, 6, 0.5)
    rbms = ConditionalRbms(one.W, one.bv.repeat(800, 1), one.bh.repeat(800, 1))
    frames = random_frames(800, 20)
    exact = float((rbms.log_weight(frames) - exact_log_partition(one)).mean())
    found = log_likelihood(rbms, frames, AnnealingOptions(60, 1, 20), generator())
    assert found.n_frames == 800
    assert found.bracket.low == pytest.approx(exact, abs=0.05)
    assert found.bracket.high == pytest.approx(exact, abs=0.05)
    # With one different RBM all frames are estimated.
    rbms.bv[-1] += 1.0
    other = log_likelihood(rbms, frames, AnnealingOptions(60, 1, 20), generator())
    assert other.bracket.middle == pytest.approx(exact, abs=0.1)
    assert other.bracket != found.bracket
