"""Network of the piano rolls: an RNN-RBM with a linear read-out."""

import numpy as np
import torch
from piano_rolls import N_NOTES, Recipe
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.nade import Nade
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
        self.has_nade = bool(recipe.nade)
        if recipe.nade:
            self.nade = Nade(N_NOTES, recipe.n_hidden)
        if recipe.joint or recipe.conditional or recipe.nade:
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
    def nade_biases(self, pieces: list[Float32]) -> tuple[Tensor, Tensor, Tensor]:
        """Return all frames of the pieces, and the NADE's biases of each."""
        v = torch.from_numpy(np.concatenate(pieces))
        return v, *self.rbm.biases(self.all_states(pieces))

    @torch.no_grad()
    def nade_likelihood(self, pieces: list[Float32]) -> Tensor:
        """Return the exact log-likelihood of each frame, in nats."""
        rows = zip(*(x.split(2000) for x in self.nade_biases(pieces)), strict=True)
        return torch.cat([self.nade.log_likelihood(*row) for row in rows])

    @torch.no_grad()
    def take_read_out(self) -> None:
        """Initialise the visible biases with the weights of the read-out."""
        self.rbm.Wuv.copy_(self.head.weight.t())
        self.rbm.bv.copy_(self.head.bias)

    @torch.no_grad()
    def sharpen(self, factor: float) -> None:
        """Multiply the visible biases, conditional part included, by `factor`.

        Of a NADE the weights out of its hidden units are multiplied, too.

        At the optimum of the likelihood this costs only the second order of a small
        change, while samples are closer to the expectation.
        """
        self.rbm.bv.mul_(factor)
        self.rbm.Wuv.mul_(factor)
        if self.has_nade:
            self.nade.V.mul_(factor)

    @torch.no_grad()
    def read_out(self) -> RnnRbm:
        """Return the predictor as an RNN-RBM with W = 0; its likelihood is exact."""
        self.rbm.W.zero_()
        self.rbm.Wuh.zero_()
        self.take_read_out()
        return self.rbm


def joined_predictors(starts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the weights of one recurrent layer with all predictors side by side.

    Its read-out is the mean of theirs; weights between the predictors are 0.

    Parameters
    ----------
    starts : list of dict
        State of one `PianoModel` each, with one recurrent layer of equal size.
    """
    n_recurrent = starts[0]["head.weight"].shape[1]
    layer = {
        name: [s[f"rbm.layers.0.{name}"].split(n_recurrent) for s in starts]
        for name in ("weight_in", "weight_recurrent", "bias")
    }
    # Of each gate the rows of all predictors, then the next gate.
    found = {
        name: torch.cat(
            [
                torch.block_diag(*gate)
                if name == "weight_recurrent"
                else torch.cat(gate)
                for gate in zip(*blocks, strict=True)
            ]
        )
        for name, blocks in layer.items()
    }
    joined = starts[0] | {f"rbm.layers.0.{name}": v for name, v in found.items()}
    for name, dim in (("head.weight", 1), ("rbm.Wuv", 0), ("rbm.Wuh", 0)):
        joined[name] = torch.cat([s[name] for s in starts], dim) / len(starts)
    joined["head.bias"] = torch.stack([s["head.bias"] for s in starts]).mean(0)
    return joined
