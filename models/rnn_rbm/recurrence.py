"""Recurrent cells over whole sequences, with their gradients written out.

Differentiated step by step, a sequence of T frames adds T gradients of the recurrent
weights, each as large as the weights: on one core that and the bookkeeping cost
almost as much as the products. Here the way back gathers the gradients of all
pre-activations first, and the weights' gradient is one product over all frames
(P. J. Werbos, "Backpropagation through time", Proceedings of the IEEE 78, 1990).
"""

from typing import Any, cast

import torch
from torch import Tensor


def simple_states(heard: Tensor, u: Tensor, weights: Tensor) -> Tensor:
    """States of a tanh cell: u' = tanh(heard + u weights^T).

    Parameters
    ----------
    heard : float32[T, batch, n]
        What the cell receives from its input, bias included.
    u : float32[batch, n]
        State before the first frame.
    weights : float32[n, n]

    Returns
    -------
    float32[T, batch, n]
    """
    states = _Simple.apply(heard, u, weights)  # type: ignore[no-untyped-call]
    return cast(Tensor, states)


def gated_states(heard: Tensor, u: Tensor, weights: Tensor, tanh_gates: bool) -> Tensor:
    """States of a gated cell whose reset gate comes before the product.

    Parameters
    ----------
    heard : float32[T, batch, 3 * n]
        What update gate z, reset gate r and candidate c receive from the input,
        biases included.
    u : float32[batch, n]
        State before the first frame.
    weights : float32[3 * n, n]
        Of z, r and c.
    tanh_gates : bool
        Gates are tanh instead of sigmoid.

    Returns
    -------
    float32[T, batch, n]
    """
    states = _Gated.apply(  # type: ignore[no-untyped-call]
        heard, u, weights, tanh_gates
    )
    return cast(Tensor, states)


class _Simple(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heard: Tensor, u: Tensor, weights: Tensor) -> Tensor:
        states = torch.empty_like(heard)
        before, transposed = u, weights.t()
        for row, state in zip(heard, states, strict=True):
            torch.addmm(row, before, transposed, out=state)
            before = state.tanh_()
        ctx.save_for_backward(states, u, weights)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, u, weights = ctx.saved_tensors
        arriving, later = torch.empty_like(states), torch.zeros_like(u)
        slope = 1 - states * states
        for t in range(len(states) - 1, -1, -1):
            torch.mul(gradients[0][t] + later, slope[t], out=arriving[t])
            later = arriving[t] @ weights
        return arriving, later, _outer(arriving, _before(states, u))


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, heard: Tensor, u: Tensor, weights: Tensor, tanh_gates: bool
    ) -> Tensor:
        n = u.shape[-1]
        for_gates, for_candidate = weights[: 2 * n].t(), weights[2 * n :].t()
        active, states = torch.empty_like(heard), heard.new_empty(*heard.shape[:2], n)
        before = u
        for row, now, state in zip(heard, active, states, strict=True):
            gates, c = now[:, : 2 * n], now[:, 2 * n :]
            torch.addmm(row[:, : 2 * n], before, for_gates, out=gates)
            if tanh_gates:
                gates.tanh_()
            else:
                gates.sigmoid_()
            reset = before * gates[:, n:]
            torch.addmm(row[:, 2 * n :], reset, for_candidate, out=c)
            c.tanh_()
            torch.lerp(c, before, gates[:, :n], out=state)
            before = state
        ctx.save_for_backward(active, states, u, weights)
        ctx.tanh_gates = tanh_gates
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        active, states, u, weights = ctx.saved_tensors
        n = u.shape[-1]
        from_gates, from_candidate = weights[: 2 * n], weights[2 * n :]
        before = _before(states, u)
        z, r, c = active.split(n, dim=-1)
        gates = active[..., : 2 * n]
        gate_slope = 1 - gates * gates if ctx.tanh_gates else gates * (1 - gates)
        # What does not depend on later gradients is made for all frames at once.
        candidate_slope = (1 - z) * (1 - c * c)
        update_slope = (before - c) * gate_slope[..., :n]
        reset_slope = before * gate_slope[..., n:]
        arriving, later = torch.empty_like(active), torch.zeros_like(u)
        for t in range(len(states) - 1, -1, -1):
            total = gradients[0][t] + later
            now = arriving[t]
            torch.mul(total, update_slope[t], out=now[:, :n])
            torch.mul(total, candidate_slope[t], out=now[:, 2 * n :])
            reset = now[:, 2 * n :] @ from_candidate
            torch.mul(reset, reset_slope[t], out=now[:, n : 2 * n])
            later = torch.addmm(total * z[t], now[:, : 2 * n], from_gates)
            later.addcmul_(reset, r[t])
        of_gates = _outer(arriving[..., : 2 * n], before)
        of_candidate = _outer(arriving[..., 2 * n :], before * r)
        return arriving, later, torch.cat([of_gates, of_candidate]), None


def _before(states: Tensor, u: Tensor) -> Tensor:
    """State before each frame, of the states after each."""
    return torch.cat([u[None], states[:-1]])


def _outer(arriving: Tensor, inputs: Tensor) -> Tensor:
    """Gradient of weights [out, in], summed over frames and sequences."""
    return arriving.flatten(0, 1).t() @ inputs.flatten(0, 1)
