r"""Samples of RBMs with deep wells, by parallel tempering.

Chains at several inverse temperatures run side by side, from fair coins (beta = 0) to
the model (1); beta multiplies all weights and biases. After every Gibbs step neighbours
may change places, with probability

.. math::
    \min\left(1, \frac{p_a(v_b)\, p_b(v_a)}{p_a(v_a)\, p_b(v_b)}\right).

A hot chain walks freely between wells, and what it finds comes down to the model. Every
chain keeps its own distribution exactly, so unlike the end of an annealing run the
model's chain has no weight to be corrected for.

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
    """How a sample is drawn.

    Parameters
    ----------
    n_temperatures : int
        Chains per RBM, beta evenly spaced from 0 to 1.
    n_steps : int
        Gibbs steps of every chain, each followed by exchanges.
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
    """One frame of each RBM: float32[n_frames, n_visible].

    Parameters
    ----------
    rbms : ConditionalRbms
    start : float32[n_frames, n_visible]
        Where all chains begin.
    tempering : TemperingOptions
    sampler : UnitSampler
    """
    chains = TemperedChains(rbms, start, tempering.n_temperatures, sampler)
    for _ in range(tempering.n_steps):
        chains.step()
    return chains.coldest


class TemperedChains:
    """Chains of many RBMs at all temperatures, which exchange places.

    Parameters
    ----------
    rbms : ConditionalRbms
    start : float32[n_frames, n_visible]
    n_temperatures : int
    sampler : UnitSampler
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
        """Where the model's own chains are: float32[n_frames, n_visible]."""
        return self._v[-1]

    def step(self) -> None:
        """One Gibbs step of every chain, then one round of exchanges."""
        drive = self._v @ self._rbms.W + self._rbms.bh
        h = self._sampler.bernoulli_(torch.sigmoid(self._beta * drive))
        field = self._rbms.bv + h @ self._rbms.W.t()
        self._v = self._sampler.bernoulli_(torch.sigmoid(self._beta * field))
        self._exchange()

    def _exchange(self) -> None:
        """Pairs (0, 1), (2, 3), ... and (1, 2), (3, 4), ... take turns."""
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
        """Log p of the next colder chain less that of this one, at frames `v`."""
        lower, upper = self._beta[hot], self._beta[hot + 1]
        drive = v @ self._rbms.W + self._rbms.bh
        change = functional.softplus(upper * drive) - functional.softplus(lower * drive)
        tilt = (v * self._rbms.bv).sum(-1, dtype=torch.float64)
        gained: Tensor = tilt * (upper - lower)[..., 0]
        return gained + change.sum(-1, dtype=torch.float64)
