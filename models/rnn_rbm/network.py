r"""RNN-RBM: an RBM per frame, with biases given by a recurrent network.

N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, "Modeling Temporal Dependencies
in High-Dimensional Sequences", ICML 2012. With u_{t-1} the state of the recurrent
layers before frame t:

.. math::
    b_v^{(t)} = b_v + u_{t-1} W_{uv}, \qquad b_h^{(t)} = b_h + u_{t-1} W_{uh}

(equations of the paper's section on the RNN-RBM). The joint distribution of the frame
and its hidden units is an RBM with these biases. The recurrent part is the paper's
simple tanh cell, or one to three gated layers with the reset gate applied before the
product:

.. math::
    z &= g(x W_z + u R_z + b_z), \quad r = g(x W_r + u R_r + b_r) \\
    c &= \tanh(x W_c + (u \cdot r) R_c + b_c), \quad u' = (1 - z) c + z u

with g a sigmoid (u stays in [-1, 1]) or tanh (u is not bounded; the export checks
that the state of such a network contracts).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neurovocal.models.rnn_rbm.recurrence import gated_states, simple_states
from neurovocal.models.toolkit.recipe import RnnRbmConfig

Uniform = Callable[[tuple[int, ...]], Tensor]


def uniform_from(rng: np.random.Generator) -> Uniform:
    """Return a function that draws uniform numbers in [0, 1) from `rng`.

    Drawing float32 numbers with SFC64 is faster than with torch, and in CD-k drawing
    takes more time than the matrix products.
    """

    def draw(shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(rng.random(shape, dtype=np.float32))

    return draw


class RecurrentLayer(nn.Module):
    """One layer of the recurrent part, for whole sequences.

    Weights are stacked as (update z, reset r, candidate c), the order of the ONNX
    ``GRU`` operator; the simple cell has the candidate only.
    """

    def __init__(self, n_in: int, n_recurrent: int, gates: str) -> None:
        super().__init__()
        self.gates = gates
        self.n_recurrent = n_recurrent
        stacked = n_recurrent if gates == "simple" else 3 * n_recurrent
        self.weight_in = nn.Parameter(torch.empty(stacked, n_in))
        self.weight_recurrent = nn.Parameter(torch.empty(stacked, n_recurrent))
        self.bias = nn.Parameter(torch.zeros(stacked))
        for start in range(0, stacked, n_recurrent):
            block = slice(start, start + n_recurrent)
            nn.init.xavier_uniform_(self.weight_in.data[block])
            nn.init.orthogonal_(self.weight_recurrent.data[block], gain=0.9)

    def forward(self, x: Tensor, u: Tensor) -> Tensor:
        """Compute the state after each frame.

        Parameters
        ----------
        x : float32[T, batch, n_in]
        u : float32[batch, n_recurrent]
            State before the first frame.

        Returns
        -------
        float32[T, batch, n_recurrent]
        """
        projected = functional.linear(x, self.weight_in, self.bias)
        if self.gates == "simple":
            return simple_states(projected, u, self.weight_recurrent)
        return gated_states(projected, u, self.weight_recurrent, self.gates == "tanh")


class RnnRbm(nn.Module):
    """Conditional RBM on top of a recurrent network.

    Parameters
    ----------
    config : RnnRbmConfig
        Types of units and gates, numbers of layers and units.
    n_visible : int
        Values per frame: in [0, 1] for Bernoulli units, real for Gaussian ones.
    n_condition : int
        Values of the plan that the recurrent part receives with each frame (see
        `models.rnn_rbm.planned`); 0: none.

    Attributes
    ----------
    W : float32[n_visible, n_hidden]
        Weights between visible and hidden units.
    bv, bh : float32[n_visible], float32[n_hidden]
        Visible and hidden biases.
    Wuv, Wuh : float32[n_recurrent, n_visible], float32[n_recurrent, n_hidden]
        Weights from the state to the biases.
    log_sigma : float32[n_visible]
        Logarithm of the Gaussian units' standard deviation (learned).
    """

    def __init__(
        self, config: RnnRbmConfig, n_visible: int, n_condition: int = 0
    ) -> None:
        super().__init__()
        self.gaussian = config.visible == "gaussian"
        self.n_visible, self.n_condition = n_visible, n_condition
        self.n_hidden = max(1, round(config.hidden_scalar * n_visible))
        self.n_recurrent = max(1, round(config.recurrent_scalar * n_visible))
        self.n_layers = config.n_layers
        self.prediction_steps = config.prediction_steps
        n_first = n_visible + n_condition
        sizes = [n_first] + [self.n_recurrent] * (config.n_layers - 1)
        self.layers = nn.ModuleList(
            RecurrentLayer(size, self.n_recurrent, config.gates) for size in sizes
        )
        self.dropout = nn.Dropout(config.dropout)
        self.W = nn.Parameter(0.01 * torch.randn(n_visible, self.n_hidden))
        self.bv = nn.Parameter(torch.zeros(n_visible))
        self.bh = nn.Parameter(torch.zeros(self.n_hidden))
        self.Wuv = nn.Parameter(0.01 * torch.randn(self.n_recurrent, n_visible))
        self.Wuh = nn.Parameter(0.01 * torch.randn(self.n_recurrent, self.n_hidden))
        self.log_sigma = nn.Parameter(
            torch.full((n_visible,), -2.0), requires_grad=self.gaussian
        )

    def initial_state(self, batch_size: int = 1) -> Tensor:
        """Return the initial state: zeros [n_layers, batch, n_recurrent]."""
        return torch.zeros(self.n_layers, batch_size, self.n_recurrent)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Split rows [..., n_visible + n_condition] into frames and their plan."""
        return rows[..., : self.n_visible], rows[..., self.n_visible :]

    def states(self, v: Tensor, u: Tensor) -> Tensor:
        """Compute the states of all layers after each frame.

        Parameters
        ----------
        v : float32[T, batch, n_visible + n_condition]
            Frames, each with the plan of the frame after it.
        u : float32[n_layers, batch, n_recurrent]
            State before the first frame.

        Returns
        -------
        float32[T, n_layers, batch, n_recurrent]
        """
        x, after = v, []
        for layer, before in zip(self.layers, u, strict=True):
            x = layer(x, before)
            after.append(x)
        return torch.stack(after, dim=1)

    def biases(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the biases ``bv_t`` and ``bh_t`` from the last layer's state."""
        u = self.dropout(u)
        return self.bv + u @ self.Wuv, self.bh + u @ self.Wuh

    def hidden(self, v: Tensor, bh: Tensor, temperature: float = 1.0) -> Tensor:
        """Compute P(h = 1 | v)."""
        return torch.sigmoid((bh + self._scaled(v) @ self.W) / temperature)

    def visible(self, h: Tensor, bv: Tensor) -> Tensor:
        """Compute E[v | h]."""
        product = h @ self.W.t()
        if self.gaussian:
            return bv + torch.exp(self.log_sigma) * product
        return torch.sigmoid(bv + product)

    def free_energy(self, v: Tensor, bv: Tensor, bh: Tensor) -> Tensor:
        r"""Compute the free energy F(v) of each frame, in nats.

        .. math::
            F(v) = -v \cdot b_v - \sum_j \log(1 + e^{b_{h,j} + (vW)_j})

        for Bernoulli units; Gaussian ones have
        :math:`\sum_i (v_i - b_{v,i})^2 / 2\sigma_i^2` as the first term and
        :math:`v / \sigma` in the second.
        """
        second = functional.softplus(bh + self._scaled(v) @ self.W).sum(-1)
        if self.gaussian:
            scaled = (v - bv) * torch.exp(-self.log_sigma)
            return 0.5 * scaled.square().sum(-1) - second
        return -(v * bv).sum(-1) - second

    def predict(self, v: Tensor, bv: Tensor, bh: Tensor) -> Tensor:
        """Compute the mean-field expectation of the frame after `v`.

        Parameters
        ----------
        v : float32[..., n_visible]
            Frames t, from which the iterations start.
        bv, bh : Tensor
            Biases given the state *after* frame t.
        """
        expected = v
        for _ in range(self.prediction_steps):
            expected = self.visible(self.hidden(expected, bh), bv)
        return expected

    def gibbs(
        self,
        v: Tensor,
        bv: Tensor,
        bh: Tensor,
        noise: Tensor,
        temperature: float = 1.0,
    ) -> Tensor:
        """Compute the expectation of v after Gibbs steps with sampled hidden units.

        Parameters
        ----------
        v : float32[..., n_visible]
            Start of the chain.
        bv, bh : Tensor
            Conditional biases.
        noise : float32[n_steps, ..., n_hidden]
            Uniform numbers in [0, 1), one row per step.
        temperature : float
            Divisor of the hidden pre-activations.
        """
        for row in noise:
            h = (self.hidden(v, bh, temperature) > row).to(v.dtype)
            v = self.visible(h, bv)
        return v

    def negative_phase(
        self,
        v: Tensor,
        bv: Tensor,
        bh: Tensor,
        n_steps: int,
        uniform: Uniform,
        sampled: bool,
    ) -> Tensor:
        """Run the Gibbs steps of the negative phase of CD-k.

        Hidden units are sampled. Visible units are sampled if `sampled` is True and
        keep their expectation otherwise (mean field): for grey values, 0/1 samples
        have too much variance and would drive W to zero.

        Parameters
        ----------
        v : float32[..., n_visible]
            Start of the chains.
        bv, bh : Tensor
            Conditional biases.
        n_steps : int
            Gibbs steps, k.
        uniform : callable
            Draws uniform numbers of a shape.
        sampled : bool
            Whether visible units are sampled.

        Returns
        -------
        float32[..., n_visible]
            Last frames of the chains.
        """
        with torch.no_grad():
            start = v
            for _ in range(n_steps):
                p = self.hidden(v, bh)
                v = self.visible((p > uniform(tuple(p.shape))).to(v.dtype), bv)
                if sampled and self.gaussian:
                    u = uniform((2, *start.shape)).clamp_min(1e-7)
                    normal = torch.sqrt(-2 * torch.log(u[0]))
                    normal = normal * torch.cos(2 * torch.pi * u[1])
                    v = v + torch.exp(self.log_sigma) * normal
                elif sampled:
                    v = (v > uniform(tuple(v.shape))).to(v.dtype)
            return v

    def deterministic_loss(self, v: Tensor, bv: Tensor) -> Tensor:
        """Compute the exact negative log-likelihood per frame for W = 0, in nats.

        For Bernoulli units and grey values it is the cross entropy.
        """
        if self.gaussian:
            scaled = (v - bv) * torch.exp(-self.log_sigma)
            normaliser = self.log_sigma + 0.5 * float(np.log(2 * np.pi))
            return (0.5 * scaled.square() + normaliser).sum(-1).mean()
        loss = functional.binary_cross_entropy_with_logits(bv, v, reduction="none")
        return loss.sum(-1).mean()

    def _scaled(self, v: Tensor) -> Tensor:
        """Divide Gaussian units by their standard deviation."""
        return v * torch.exp(-self.log_sigma) if self.gaussian else v
