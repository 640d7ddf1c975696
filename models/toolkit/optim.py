"""RMSProp, learning-rate schedules, gradient checks and weight penalties."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RmsProp(torch.optim.Optimizer):
    """RMSProp with epsilon inside the square root.

    ``a = decay * a + (1 - decay) * g**2``, then ``p -= lr * g / sqrt(a + epsilon)``
    (Tieleman and Hinton 2012, lecture 6.5, in the form of many Theano programs).
    ``torch.optim.RMSprop`` adds epsilon outside the root, which differs while
    gradients are small.

    Parameters
    ----------
    params : iterable
        Parameters or parameter groups.
    lr : float
        Learning rate.
    decay : float
        Decay of the running mean of squared gradients, per step.
    epsilon : float
        Constant added to the mean squared gradient.
    """

    def __init__(
        self, params: Any, lr: float, decay: float = 0.9, epsilon: float = 1e-6
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
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
    """Return the factor of the learning rate at `progress`.

    Parameters
    ----------
    decay : {'constant', 'cosine'}
        Schedule; a half cosine falls from 1 to `last`.
    progress : float
        Share of the training that is done; values outside of 0 to 1 are clipped.
    last : float
        Factor at the end of the half cosine.
    """
    if decay == "constant":
        return 1.0
    progress = min(max(progress, 0.0), 1.0)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its ``initial_lr``."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def guard_gradients(
    parameters: Iterable[nn.Parameter], how: str, clip: float | None
) -> bool:
    """Check gradients for non-finite values and clip their norm, in place.

    Parameters
    ----------
    parameters : iterable of Parameter
        Parameters; those without a gradient are skipped.
    how : {'skip', 'shrink'}
        Treatment of a non-finite value: `skip` rejects the step, `shrink` replaces
        the value by a tenth of the parameter.
    clip : float, optional
        Largest norm of the whole gradient; None means no limit.

    Returns
    -------
    bool
        False if the step must not be taken.
    """
    with_gradient = [p for p in parameters if p.grad is not None]
    for parameter in with_gradient:
        gradient = parameter.grad
        assert gradient is not None
        finite = torch.isfinite(gradient)
        if bool(finite.all()):
            continue
        if how == "skip":
            return False
        parameter.grad = torch.where(finite, gradient, 0.1 * parameter.detach())
    if clip is not None and with_gradient:
        nn.utils.clip_grad_norm_(with_gradient, clip)
    return True


def weight_penalty(weights: Iterable[Tensor], l1: float, l2: float) -> Tensor:
    """Return ``l1 * sum |w| + l2 * sum w**2`` over all weights."""
    total = torch.zeros(())
    for weight in weights:
        if l1:
            total = total + l1 * weight.abs().sum()
        if l2:
            total = total + l2 * weight.square().sum()
    return total
