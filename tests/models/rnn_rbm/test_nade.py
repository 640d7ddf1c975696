"""NADE: a distribution over frames, its likelihood and its samples."""

import pytest
import torch

from neurovocal.models.rnn_rbm.nade import Nade

N_NOTES = 5


@pytest.fixture
def nade():
    torch.manual_seed(3)
    model = Nade(N_NOTES, 4)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=1.5)
    return model.double()


def every_frame():
    """All frames of five notes, from silence to the full chord."""
    numbers = torch.arange(2**N_NOTES)[:, None]
    return (numbers >> torch.arange(N_NOTES) & 1).double()


def equal_biases(n):
    bv = torch.linspace(-1, 1, N_NOTES, dtype=torch.float64)
    bh = torch.linspace(1, -1, 4, dtype=torch.float64)
    return bv.expand(n, -1), bh.expand(n, -1)


def test_likelihoods_of_all_frames_sum_to_one(nade):
    frames = every_frame()
    likely = nade.log_likelihood(frames, *equal_biases(len(frames)))
    assert float(likely.exp().sum().detach()) == pytest.approx(1, abs=1e-9)


def test_likelihood_equals_the_product_of_its_conditionals(nade):
    frames = every_frame()[[0, 1, 13, 31]]
    bv, bh = torch.randn(4, N_NOTES).double(), torch.randn(4, 4).double()
    wanted = torch.zeros(4, dtype=torch.float64)
    for i in range(N_NOTES):
        hidden = torch.sigmoid(bh + frames[:, :i] @ nade.W[:i])
        p = torch.sigmoid(bv[:, i] + hidden @ nade.V[i])
        wanted += torch.where(frames[:, i] > 0, p, 1 - p).log()
    assert torch.allclose(nade.log_likelihood(frames, bv, bh), wanted)


def test_samples_have_the_frequencies_of_the_likelihood(nade):
    frames, n = every_frame(), 40_000
    drawn = nade.sample(*equal_biases(n), torch.Generator().manual_seed(0))
    numbers = (drawn.long() << torch.arange(N_NOTES)).sum(-1)
    found = torch.bincount(numbers, minlength=len(frames)) / n
    likely = nade.log_likelihood(frames, *equal_biases(len(frames))).exp()
    # 4 standard errors of the largest frequency, 0.5.
    assert float((found - likely).abs().max().detach()) < 0.01
