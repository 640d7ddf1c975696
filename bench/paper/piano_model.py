"""The network of the piano rolls' table: an RNN-RBM and a read-out to start from."""

import numpy as np
import torch
from piano_rolls import N_NOTES, Recipe
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.recipe import RnnRbmConfig


class PianoModel(nn.Module):
    """An RNN-RBM, and the linear read-out with which its layers learn first."""

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
        """Compute the states before frames [T, batch, 88]: [T, batch, n_recurrent]."""
        start = self.rbm.initial_state(v.shape[1])
        after = self.rbm.states(v[:-1], start)[:, -1]
        return torch.cat([start[-1:], after])

    @torch.no_grad()
    def all_states(self, pieces: list[Float32]) -> Tensor:
        """Compute the states before frames of all pieces: [n_frames, n_recurrent]."""
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
        """Compute the read-out's mean cross entropy per frame, in nats."""
        v = torch.from_numpy(np.concatenate(pieces))
        logits = self.head(self.all_states(pieces))
        total = functional.binary_cross_entropy_with_logits(logits, v, reduction="sum")
        return float(total) / len(v)

    @torch.no_grad()
    def take_read_out(self) -> None:
        """Start the visible biases from the read-out's prediction."""
        self.rbm.Wuv.copy_(self.head.weight.t())
        self.rbm.bv.copy_(self.head.bias)

    @torch.no_grad()
    def sharpen(self, factor: float) -> None:
        """Multiply the visible biases, the part that the past decides included.

        A model at the optimum of its likelihood loses only the second order of a
        small change, while its samples stray less from what it expects.
        """
        self.rbm.bv.mul_(factor)
        self.rbm.Wuv.mul_(factor)

    @torch.no_grad()
    def read_out(self) -> RnnRbm:
        """Return the predictor as an RNN-RBM with W = 0, for an exact likelihood."""
        self.rbm.W.zero_()
        self.rbm.Wuh.zero_()
        self.take_read_out()
        return self.rbm
