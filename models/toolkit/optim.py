"""Optimizers, schedules and protection of the steps."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RmsProp(torch.optim.Optimizer):
    """RMSProp with the small constant under the root.

    ``a = decay * a + (1 - decay) * g**2``, then ``p -= lr * g / sqrt(a + epsilon)``
    (Tieleman and Hinton 2012, lecture 6.5, in the form that many Theano programs
    used). torch's own adds epsilon after the root, which is another method while
    gradients are small.

    Parameters
    ----------
    params : iterable
        Parameters or groups of them.
    lr : float
        Learning rate.
    decay : float
        Memory of the squared gradients.
    epsilon : float
        Smallest squared gradient that counts.
    """

    def __init__(
        self, params: Any, lr: float, decay: float = 0.9, epsilon: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["squares"] = torch.zeros_like(parameter)
                squares = state["squares"]
                squares.mul_(group["decay"])
                squares.addcmul_(gradient, gradient, value=1 - group["decay"])
                root = torch.sqrt(squares + group["epsilon"])
                parameter.addcdiv_(gradient, root, value=-group["lr"])


def rate_factor(decay: str, progress: float, last: float = 0.01) -> float:
    """Factor on the learning rate after a share `progress` of the training."""
    if decay == "constant":
        return 1.0
    progress = min(max(progress, 0.0), 1.0)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply each group's first learning rate (``initial_lr``)."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def guard_gradients(
    parameters: Iterable[nn.Parameter], how: str, clip: float | None
) -> bool:
    """Protect a step from gradients that are not finite or too long.

    Parameters
    ----------
    parameters : iterable of Parameter
        Whose gradients are looked at, and changed in place.
    how : {'skip', 'shrink'}
        Whether a value that is not finite forbids the step, or is replaced by a
        tenth of its parameter.
    clip : float, optional
        Largest norm of the whole gradient.

    Returns
    -------
    bool
        Whether the step may be taken.
    """
    concerned = [p for p in parameters if p.grad is not None]
    for parameter in concerned:
        gradient = parameter.grad
        assert gradient is not None
        finite = torch.isfinite(gradient)
        if bool(finite.all()):
            continue
        if how == "skip":
            return False
        parameter.grad = torch.where(finite, gradient, 0.1 * parameter.detach())
    if clip is not None and concerned:
        nn.utils.clip_grad_norm_(concerned, clip)
    return True


def weight_penalty(weights: Iterable[Tensor], l1: float, l2: float) -> Tensor:
    """``l1 * sum |w| + l2 * sum w**2``."""
    total = torch.zeros(())
    for weight in weights:
        if l1:
            total = total + l1 * weight.abs().sum()
        if l2:
            total = total + l2 * weight.square().sum()
    return total
