"""Networks: causality, threaded states, and the RBM against exact enumeration."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neurovocal.models.classifier.network import Classifier
from neurovocal.models.rnn_rbm.network import RecurrentLayer, RnnRbm, uniform_from
from neurovocal.models.toolkit.optim import RmsProp, guard_gradients, rate_factor
from neurovocal.models.toolkit.recipe import ClassifierConfig, RnnRbmConfig

ARCHITECTURES = ("gru", "lstm", "tcn", "conv_gru")


def classifier(architecture: str, n_layers: int = 2) -> Classifier:
    torch.manual_seed(0)
    config = ClassifierConfig(
        architecture=architecture, n_hidden=7, n_layers=n_layers, kernel_length=3
    )
    return Classifier(config, 5, 4).eval()


def tiny_rbm(visible: str = "bernoulli", gates: str = "sigmoid", **more: int) -> RnnRbm:
    torch.manual_seed(1)
    config = RnnRbmConfig(
        visible=visible, gates=gates, hidden_scalar=1.0, recurrent_scalar=0.75, **more
    )
    model = RnnRbm(config, 4).eval()
    for parameter in model.parameters():
        parameter.data = 0.7 * torch.randn_like(parameter)
    return model


def all_binary(n: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=5))
def test_logits_do_not_depend_on_how_frames_are_cut(
    architecture: str, cuts: list[int]
) -> None:
    model = classifier(architecture)
    frames = torch.rand(1, 40, 5, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole, last = model(frames)
        state, parts = model.initial_state(), []
        edges = [0, *sorted(cuts), 40]
        for start, stop in itertools.pairwise(edges):
            if stop > start:
                logits, state = model(frames[:, start:stop], state)
                parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    for name in last:
        torch.testing.assert_close(state[name], last[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_classifiers_are_causal_and_have_memory(architecture: str) -> None:
    model = classifier(architecture)
    frames = torch.rand(1, 20, 5, generator=torch.Generator().manual_seed(2))
    changed = frames.clone()
    changed[:, 10] += 1.0
    with torch.no_grad():
        before, after = model(frames)[0][0], model(changed)[0][0]
    torch.testing.assert_close(before[:10], after[:10], atol=0, rtol=0)
    assert not torch.allclose(before[10], after[10])
    assert not torch.allclose(before[11], after[11])


def test_free_energy_equals_the_sum_over_hidden_units() -> None:
    model = tiny_rbm()
    v, h = all_binary(4), all_binary(model.n_hidden)
    bv, bh = model.biases(torch.rand(3))
    with torch.no_grad():
        energy = -(v @ bv)[:, None] - (h @ bh)[None] - (v @ model.W) @ h.T
        expected = -torch.logsumexp(-energy, dim=1)
        torch.testing.assert_close(model.free_energy(v, bv, bh), expected)


def test_gaussian_free_energy_equals_the_sum_over_hidden_units() -> None:
    model = tiny_rbm("gaussian")
    bv, bh = model.biases(torch.rand(3))
    h = all_binary(model.n_hidden)
    sigma = model.log_sigma.exp()
    v = torch.randn(6, 4)
    with torch.no_grad():
        distance = ((v - bv) ** 2 / (2 * sigma**2)).sum(-1)
        energy = distance[:, None] - (h @ bh)[None] - (v / sigma @ model.W) @ h.T
        expected = -torch.logsumexp(-energy, dim=1)
        torch.testing.assert_close(model.free_energy(v, bv, bh), expected)


def test_long_gibbs_chains_reach_the_exact_distribution() -> None:
    model = tiny_rbm()
    rng = np.random.Generator(np.random.SFC64(3))
    bv, bh = (b.detach() for b in model.biases(torch.rand(3)))
    v = all_binary(4)
    with torch.no_grad():
        exact = torch.softmax(-model.free_energy(v, bv, bh), 0)
        start = torch.zeros(20000, 4)
        found = model.negative_phase(start, bv, bh, 40, uniform_from(rng), sampled=True)
    code = (found @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    share = torch.bincount(code, minlength=16) / len(code)
    assert float((share - exact).abs().sum()) < 0.05


def test_loss_without_w_is_the_exact_likelihood() -> None:
    model = tiny_rbm()
    nn.init.zeros_(model.W)
    bv, bh = model.biases(torch.rand(3))
    v = all_binary(4)
    with torch.no_grad():
        log_z = torch.logsumexp(-model.free_energy(v, bv, bh), 0)
        exact = (model.free_energy(v, bv, bh) + log_z).mean()
        loss = model.deterministic_loss(v, bv.expand_as(v))
        torch.testing.assert_close(loss, exact)


def test_the_gated_layer_follows_its_documented_equations() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(3, 5, "tanh")
    x, u = torch.randn(1, 2, 3), torch.randn(2, 5)
    with torch.no_grad():
        wz, wr, wc = layer.weight_in.chunk(3)
        rz, rr, rc = layer.weight_recurrent.chunk(3)
        z = torch.tanh(x[0] @ wz.T + u @ rz.T)
        r = torch.tanh(x[0] @ wr.T + u @ rr.T)
        c = torch.tanh(x[0] @ wc.T + (u * r) @ rc.T)
        torch.testing.assert_close(layer(x, u)[0], (1 - z) * c + z * u)


@pytest.mark.parametrize("gates", ["sigmoid", "tanh", "simple"])
def test_explicit_gradients_agree_with_finite_differences(gates: str) -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer(3, 4, gates).double()
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    u = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    weights = [w.detach().clone().requires_grad_() for w in layer.parameters()]
    names = [name for name, _ in layer.named_parameters()]

    def states(x: torch.Tensor, u: torch.Tensor, *weights: torch.Tensor) -> Any:
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, named, (x, u))

    assert torch.autograd.gradcheck(states, (x, u, *weights))


def test_biases_depend_on_the_state_and_states_can_be_resumed() -> None:
    model = tiny_rbm(n_layers=2)
    v = torch.rand(6, 1, 4)
    with torch.no_grad():
        states = model.states(v, model.initial_state())
        assert states.shape == (6, 2, 1, model.n_recurrent)
        bv, _ = model.biases(states[:, -1])
        expected = model.bv + states[:, -1] @ model.Wuv
        torch.testing.assert_close(bv, expected)
        again = model.states(v[3:], states[2])
    torch.testing.assert_close(again, states[3:])


def test_rmsprop_adds_epsilon_inside_the_root() -> None:
    p = nn.Parameter(torch.tensor([1.0]))
    p.grad = torch.tensor([0.5])
    RmsProp([p], lr=0.1).step()
    expected = 1.0 - 0.1 * 0.5 / np.sqrt(0.1 * 0.25 + 1e-6)
    assert p.item() == pytest.approx(expected, rel=1e-6)


def test_non_finite_gradients_are_skipped_or_shrunk() -> None:
    p = nn.Parameter(torch.tensor([1.0, 2.0]))
    p.grad = torch.tensor([float("nan"), 3.0])
    assert not guard_gradients([p], "skip", None)
    assert guard_gradients([p], "shrink", None)
    torch.testing.assert_close(p.grad, torch.tensor([0.1, 3.0]))
    assert guard_gradients([p], "skip", 1.0)
    assert float(p.grad.norm()) == pytest.approx(1.0, rel=1e-4)


def test_cosine_decay_ends_at_one_percent() -> None:
    assert rate_factor("cosine", 0.0) == 1.0
    assert rate_factor("cosine", 1.0) == pytest.approx(0.01)
    assert rate_factor("constant", 0.7) == 1.0
