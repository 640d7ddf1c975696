r"""Samples of RBMs with well separated modes, by parallel tempering.

Chains at several inverse temperatures run in parallel, from the uniform distribution
(beta = 0) to the model (beta = 1); beta multiplies all weights and biases. After each
Gibbs step, chains of neighbouring temperatures exchange their states with probability

.. math::
    \min\left(1, \frac{p_a(v_b)\, p_b(v_a)}{p_a(v_a)\, p_b(v_b)}\right).

A chain of high temperature moves between modes, and exchanges pass them on to the
model's chain. Each chain keeps its own distribution exactly, so that the model's chain
needs no weights, unlike the end of an annealing run.

References
----------
R. H. Swendsen, J.-S. Wang, "Replica Monte Carlo simulation of spin glasses", Physical
Review Letters 57, 1986. G. Desjardins et al., "Tempered Markov chain Monte Carlo for
training of restricted Boltzmann machines", AISTATS 2010.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from neurovocal.models.rnn_rbm.annealing import (
    ConditionalRbms,
    LikelihoodError,
    UnitSampler,
)


@dataclass(frozen=True, slots=True)
class TemperingOptions:
    """Effort of drawing a sample.

    Parameters
    ----------
    n_temperatures : int
        Chains per RBM, with beta evenly spaced from 0 to 1.
    n_steps : int
        Gibbs steps of each chain, each followed by exchanges.
    """

    n_temperatures: int = 10
    n_steps: int = 100

    def __post_init__(self) -> None:
        if self.n_temperatures < 2 or self.n_steps < 1:
            raise LikelihoodError(
                "tempering needs at least two temperatures and one step"
            )


@torch.no_grad()
def draw_tempered(
    rbms: ConditionalRbms,
    start: Tensor,
    tempering: TemperingOptions,
    sampler: UnitSampler,
) -> Tensor:
    """Draw a frame of each RBM by parallel tempering, float32[n_frames, n_visible].

    Parameters
    ----------
    rbms : ConditionalRbms
        RBM of each frame.
    start : float32[n_frames, n_visible]
        Start of all chains.
    tempering : TemperingOptions
        Effort of the draw.
    sampler : UnitSampler
        Source of random units.
    """
    chains = TemperedChains(rbms, start, tempering.n_temperatures, sampler)
    for _ in range(tempering.n_steps):
        chains.step()
    return chains.coldest


class TemperedChains:
    """Chains of many RBMs at several temperatures, which exchange their states.

    Parameters
    ----------
    rbms : ConditionalRbms
        RBM of each frame.
    start : float32[n_frames, n_visible]
        Start of all chains.
    n_temperatures : int
        Chains per RBM.
    sampler : UnitSampler
        Source of random units.
    """

    def __init__(
        self,
        rbms: ConditionalRbms,
        start: Tensor,
        n_temperatures: int,
        sampler: UnitSampler,
    ) -> None:
        self._rbms, self._sampler = rbms, sampler
        self._beta = torch.linspace(0, 1, n_temperatures)[:, None, None]
        self._v = start.expand(n_temperatures, *start.shape).clone()
        self._parity = 0

    @property
    def coldest(self) -> Tensor:
        """State of the model's chains (beta = 1), float32[n_frames, n_visible]."""
        return self._v[-1]

    def step(self) -> None:
        """Run a Gibbs step of each chain and one round of exchanges."""
        drive = self._v @ self._rbms.W + self._rbms.bh
        h = self._sampler.bernoulli_(torch.sigmoid(self._beta * drive))
        field = self._rbms.bv + h @ self._rbms.W.t()
        self._v = self._sampler.bernoulli_(torch.sigmoid(self._beta * field))
        self._exchange()

    def _exchange(self) -> None:
        """Exchange states of pairs (0, 1), (2, 3), ... or, alternately, (1, 2), ..."""
        hot = torch.arange(self._parity, len(self._v) - 1, 2)
        self._parity = 1 - self._parity
        if not len(hot):
            return
        cold = hot + 1
        gain = self._gain(self._v[hot], hot) - self._gain(self._v[cold], hot)
        accepted = (
            self._sampler.bernoulli_(torch.exp(gain.clamp_max(0)).float())[..., None]
            > 0
        )
        warmer, colder = self._v[hot], self._v[cold]
        self._v[hot] = torch.where(accepted, colder, warmer)
        self._v[cold] = torch.where(accepted, warmer, colder)

    def _gain(self, v: Tensor, hot: Tensor) -> Tensor:
        """Return log p(v) of the next colder chain minus that of chain `hot`."""
        lower, upper = self._beta[hot], self._beta[hot + 1]
        drive = v @ self._rbms.W + self._rbms.bh
        change = functional.softplus(upper * drive) - functional.softplus(lower * drive)
        tilt = (v * self._rbms.bv).sum(-1, dtype=torch.float64)
        linear: Tensor = tilt * (upper - lower)[..., 0]
        return linear + change.sum(-1, dtype=torch.float64)
