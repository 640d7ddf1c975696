"""Recurrent cells for whole sequences, with explicit gradients.

Automatic differentiation of T frames adds up T gradients of the recurrent weights,
each as large as the weights: on one core this takes almost as long as the products.
Here the backward pass first computes the gradients of all pre-activations; the
gradient of the weights is then one product over all frames (P. J. Werbos,
"Backpropagation through time", Proceedings of the IEEE 78, 1990).
"""

from typing import Any, cast

import torch
from torch import Tensor


def simple_states(inputs: Tensor, u: Tensor, weights: Tensor) -> Tensor:
    """Compute the states of a tanh cell: u' = tanh(inputs + u weights^T).

    Parameters
    ----------
    inputs : float32[T, batch, n]
        Input part of the pre-activations, including the bias.
    u : float32[batch, n]
        State before the first frame.
    weights : float32[n, n]
        Recurrent weights.

    Returns
    -------
    float32[T, batch, n]
    """
    states = _Simple.apply(inputs, u, weights)  # type: ignore[no-untyped-call]
    return cast(Tensor, states)


def gated_states(
    inputs: Tensor, u: Tensor, weights: Tensor, tanh_gates: bool
) -> Tensor:
    """Compute the states of a gated cell with the reset gate before the product.

    Parameters
    ----------
    inputs : float32[T, batch, 3 * n]
        Input part of the pre-activations of update gate z, reset gate r and candidate
        c, including biases.
    u : float32[batch, n]
        State before the first frame.
    weights : float32[3 * n, n]
        Recurrent weights of z, r and c.
    tanh_gates : bool
        True for tanh gates, False for sigmoid gates.

    Returns
    -------
    float32[T, batch, n]
    """
    states = _Gated.apply(  # type: ignore[no-untyped-call]
        inputs, u, weights, tanh_gates
    )
    return cast(Tensor, states)


class _Simple(torch.autograd.Function):
    """Tanh cell with an explicit gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, u: Tensor, weights: Tensor) -> Tensor:
        states = torch.empty_like(inputs)
        before, transposed = u, weights.t()
        for row, state in zip(inputs, states, strict=True):
            torch.addmm(row, before, transposed, out=state)
            before = state.tanh_()
        ctx.save_for_backward(states, u, weights)
        return states

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        states, u, weights = ctx.saved_tensors
        pre_gradients, later = torch.empty_like(states), torch.zeros_like(u)
        slope = 1 - states * states
        for t in range(len(states) - 1, -1, -1):
            torch.mul(gradients[0][t] + later, slope[t], out=pre_gradients[t])
            later = pre_gradients[t] @ weights
        return (
            pre_gradients,
            later,
            _weight_gradient(pre_gradients, _previous_states(states, u)),
        )


class _Gated(torch.autograd.Function):
    """Gated cell with an explicit gradient."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, u: Tensor, weights: Tensor, tanh_gates: bool
    ) -> Tensor:
        n = u.shape[-1]
        for_gates, for_candidate = weights[: 2 * n].t(), weights[2 * n :].t()
        active = torch.empty_like(inputs)
        states = inputs.new_empty(*inputs.shape[:2], n)
        before = u
        for row, now, state in zip(inputs, active, states, strict=True):
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
        before = _previous_states(states, u)
        z, r, c = active.split(n, dim=-1)
        gates = active[..., : 2 * n]
        gate_slope = 1 - gates * gates if ctx.tanh_gates else gates * (1 - gates)
        # Factors that do not depend on later gradients, for all frames at once.
        candidate_slope = (1 - z) * (1 - c * c)
        update_slope = (before - c) * gate_slope[..., :n]
        reset_slope = before * gate_slope[..., n:]
        pre_gradients, later = torch.empty_like(active), torch.zeros_like(u)
        for t in range(len(states) - 1, -1, -1):
            total = gradients[0][t] + later
            now = pre_gradients[t]
            torch.mul(total, update_slope[t], out=now[:, :n])
            torch.mul(total, candidate_slope[t], out=now[:, 2 * n :])
            reset = now[:, 2 * n :] @ from_candidate
            torch.mul(reset, reset_slope[t], out=now[:, n : 2 * n])
            later = torch.addmm(total * z[t], now[:, : 2 * n], from_gates)
            later.addcmul_(reset, r[t])
        of_gates = _weight_gradient(pre_gradients[..., : 2 * n], before)
        of_candidate = _weight_gradient(pre_gradients[..., 2 * n :], before * r)
        return pre_gradients, later, torch.cat([of_gates, of_candidate]), None


def _previous_states(states: Tensor, u: Tensor) -> Tensor:
    """Return the state before each frame, given the states after each frame."""
    return torch.cat([u[None], states[:-1]])


def _weight_gradient(pre_gradients: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient of weights [out, in], summed over frames and sequences."""
    return pre_gradients.flatten(0, 1).t() @ inputs.flatten(0, 1)
