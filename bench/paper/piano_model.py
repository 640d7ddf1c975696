"""Network of the piano rolls: an RNN-RBM with a linear read-out."""

import numpy as np
import torch
from piano_rolls import N_NOTES, Recipe
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.recipe import RnnRbmConfig


class PianoModel(nn.Module):
    """RNN-RBM with a linear read-out, which trains its recurrent layers first."""

    def __init__(self, recipe: Recipe, mean: Tensor) -> None:
        super().__init__()
        config = RnnRbmConfig(
            gates=recipe.gates,
            dropout=recipe.dropout,
            hidden_scalar=recipe.n_hidden / N_NOTES,
            recurrent_scalar=recipe.n_recurrent / N_NOTES,
            visible_sampling="sampled",
        )
        self.rbm = RnnRbm(config, N_NOTES)
        self.head = nn.Linear(recipe.n_recurrent, N_NOTES)
        mean = mean.clamp(2e-3, 0.99)
        for bias in (self.rbm.bv, self.head.bias):
            bias.data = torch.log(mean / (1 - mean))
        if recipe.joint or recipe.conditional:
            return
        # Without such steps the past does not reach the RBM.
        nn.init.zeros_(self.rbm.Wuv)
        nn.init.zeros_(self.rbm.Wuh)

    def states(self, v: Tensor) -> Tensor:
        """Return the state before each frame of [T, batch, 88]."""
        start = self.rbm.initial_state(v.shape[1])
        after = self.rbm.states(v[:-1], start)[:, -1]
        return torch.cat([start[-1:], after])

    @torch.no_grad()
    def all_states(self, pieces: list[Float32]) -> Tensor:
        """Return the state before each frame of all pieces."""
        found: list[Tensor] = [torch.empty(0)] * len(pieces)
        # Pieces of like length run side by side; what follows an end is cut off.
        by_length = sorted(range(len(pieces)), key=lambda i: len(pieces[i]))
        for first in range(0, len(pieces), 16):
            some = by_length[first : first + 16]
            v = torch.zeros(len(pieces[some[-1]]), len(some), N_NOTES)
            for column, i in enumerate(some):
                v[: len(pieces[i]), column] = torch.from_numpy(pieces[i])
            states = self.states(v)
            for column, i in enumerate(some):
                found[i] = states[: len(pieces[i]), column].clone()
        return torch.cat(found)

    @torch.no_grad()
    def cross_entropy(self, pieces: list[Float32]) -> float:
        """Return the cross entropy of the read-out, mean per frame in nats."""
        v = torch.from_numpy(np.concatenate(pieces))
        logits = self.head(self.all_states(pieces))
        total = functional.binary_cross_entropy_with_logits(logits, v, reduction="sum")
        return float(total) / len(v)

    @torch.no_grad()
    def take_read_out(self) -> None:
        """Initialise the visible biases with the weights of the read-out."""
        self.rbm.Wuv.copy_(self.head.weight.t())
        self.rbm.bv.copy_(self.head.bias)

    @torch.no_grad()
    def sharpen(self, factor: float) -> None:
        """Multiply the visible biases, conditional part included, by `factor`.

        At the optimum of the likelihood this costs only the second order of a small
        change, while samples are closer to the expectation.
        """
        self.rbm.bv.mul_(factor)
        self.rbm.Wuv.mul_(factor)

    @torch.no_grad()
    def read_out(self) -> RnnRbm:
        """Return the predictor as an RNN-RBM with W = 0; its likelihood is exact."""
        self.rbm.W.zero_()
        self.rbm.Wuh.zero_()
        self.take_read_out()
        return self.rbm
