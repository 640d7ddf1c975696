"""GRU layer whose training on one thread costs a fraction of torch's own.

torch computes the gates of each step by a dozen small operations and keeps as many
nodes of its graph for each. Here a sequence is one node with its gradient written out:
the loops hold the recurrence alone, all else is computed for the whole sequence at
once.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SequenceGru(nn.GRU):
    """One-layer GRU over [batch, T, n_in], with the weights and results of `nn.GRU`.

    Results differ by rounding alone. Where no gradient is asked for, it is `nn.GRU`.
    """

    def __init__(self, n_in: int, n_hidden: int) -> None:
        super().__init__(n_in, n_hidden, batch_first=True)

    def forward(  # type: ignore[override]
        self, x: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Process sequences from a state, float32[1, batch, n_hidden].

        Returns
        -------
        outputs : float32[batch, T, n_hidden]
        state : float32[1, batch, n_hidden]
        """
        if not (torch.is_grad_enabled() and x.dtype == torch.float32):
            found: tuple[Tensor, Tensor] = super().forward(x, h)
            return found
        weights: list[Tensor] = [*self.parameters()]
        w_ih, w_hh, b_ih, b_hh = weights
        inputs = nn.functional.linear(x.transpose(0, 1), w_ih, b_ih)
        outputs = _Recurrence.apply(inputs, h[0], w_hh, b_hh)  # type: ignore[no-untyped-call]
        return outputs.transpose(0, 1), outputs[-1:]


class _Recurrence(torch.autograd.Function):
    """Recurrent part of a GRU (Cho et al. 2014) with its gradient.

    With r, z the gates and ``n = tanh(x_n + r * (W_n h + b_n))``, a step is
    ``h' = n + z * (h - n)``; the reset gate is applied after the product.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, first: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """Return the states after each step, float32[T, batch, n].

        Parameters
        ----------
        inputs : float32[T, batch, 3 * n]
            Input part of the gates r and z, and of n.
        first : float32[batch, n]
            State before the first step.
        weight : float32[3 * n, n]
        bias : float32[3 * n]
        """
        length, batch, n = len(inputs), *first.shape
        x = inputs.numpy()
        gates = np.empty((length, batch, 2 * n), np.float32)
        candidates = np.empty((length, batch, n), np.float32)
        products = torch.empty(length, batch, 3 * n)
        states = torch.empty(length + 1, batch, n)
        states[0] = first
        transposed = weight.t().contiguous()
        p, h = products.numpy(), states.numpy()
        for t in range(length):
            torch.addmm(bias, states[t], transposed, out=products[t])
            rz, candidate = gates[t], candidates[t]
            np.add(x[t, :, : 2 * n], p[t, :, : 2 * n], out=rz)
            rz *= 0.5  # a sigmoid is a tanh
            np.tanh(rz, out=rz)
            rz += 1.0
            rz *= 0.5
            np.multiply(rz[:, :n], p[t, :, 2 * n :], out=candidate)
            candidate += x[t, :, 2 * n :]
            np.tanh(candidate, out=candidate)
            np.subtract(h[t], candidate, out=h[t + 1])
            h[t + 1] *= rz[:, n:]
            h[t + 1] += candidate
        ctx.save_for_backward(
            weight,
            states,
            torch.from_numpy(gates),
            torch.from_numpy(candidates),
            products[:, :, 2 * n :].contiguous(),
        )
        return states[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients of all four arguments."""
        weight, states, gates, candidates, products = ctx.saved_tensors
        n = states.shape[2]
        r, z = gates[:, :, :n], gates[:, :, n:]
        # What the gradient of a state is multiplied by on its way to each input.
        to_candidate = ((1 - z) * (1 - candidates.square())).numpy()
        to_z = ((states[:-1] - candidates) * z * (1 - z)).numpy()
        to_r = (products * r * (1 - r)).numpy()
        inputs = torch.empty(len(gates), gates.shape[1], 3 * n)
        recurrent = torch.empty_like(inputs)
        i, g, r, z = inputs.numpy(), recurrent.numpy(), r.numpy(), z.numpy()
        state = torch.zeros_like(states[0])
        d, outside = state.numpy(), gradient.contiguous().numpy()
        carried = np.empty_like(d)
        for t in range(len(i) - 1, -1, -1):
            d += outside[t]
            from_candidate = i[t, :, 2 * n :]
            np.multiply(d, to_candidate[t], out=from_candidate)
            np.multiply(d, to_z[t], out=i[t, :, n : 2 * n])
            np.multiply(from_candidate, to_r[t], out=i[t, :, :n])
            np.multiply(from_candidate, r[t], out=g[t, :, 2 * n :])
            g[t, :, : 2 * n] = i[t, :, : 2 * n]
            np.multiply(d, z[t], out=carried)
            torch.mm(recurrent[t], weight, out=state)
            d += carried
        flat = recurrent.flatten(0, 1)
        return inputs, state, flat.t() @ states[:-1].flatten(0, 1), flat.sum(0)
