r"""Partition functions of RBMs by annealed importance sampling in both directions.

The likelihood of a frame needs the partition function Z of its RBM, a sum over
2**n_visible frames. Annealed importance sampling estimates log Z; a short run on a
strong model underestimates it by nats without any sign of it. Therefore each estimate
is made in both directions. From a factorial distribution to the model (up), log Z is
too small on average; from samples of the model to the factorial distribution (down),
it is too large. The true value lies between.

Samples of the model are approximate themselves. The runs down start from two kinds of
samples, independently: long Gibbs runs from the data, and the ends of the runs up.

References
----------
R. M. Neal, "Annealed importance sampling", Statistics and Computing 11, 2001.
R. Salakhutdinov, I. Murray, "On the quantitative analysis of deep belief networks",
ICML 2008: the path of RBMs between a factorial distribution and the model.
Y. Burda, R. Grosse, R. Salakhutdinov, "Accurate and conservative estimates of MRF
log-likelihood using reverse annealing", AISTATS 2015: the runs down.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neurovocal.engine.contracts.errors import NeurovocalError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.measures import Float64

_MAX_ENUMERATED = 20


class LikelihoodError(NeurovocalError):
    """A likelihood cannot be computed, or only with a bracket that is too wide."""


@dataclass(frozen=True, slots=True)
class AnnealingOptions:
    """Effort of an estimate of the partition function.

    Parameters
    ----------
    n_temperatures : int
        Annealing steps between the factorial distribution and the model.
    n_chains : int
        Chains per frame and direction.
    n_mixing : int
        Gibbs steps from the data to approximate samples of the model.
    """

    n_temperatures: int = 1000
    n_chains: int = 2
    n_mixing: int = 200

    def __post_init__(self) -> None:
        if min(self.n_temperatures, self.n_chains, self.n_mixing) < 1:
            raise LikelihoodError(
                "annealing needs at least one temperature, one chain and one mixing "
                "step"
            )


@dataclass(frozen=True, slots=True, eq=False)
class ConditionalRbms:
    """One RBM with Bernoulli units per frame, with shared weights and own biases.

    Parameters
    ----------
    W : float32[n_visible, n_hidden]
        Weights of all RBMs.
    bv : float32[n_frames, n_visible]
        Visible biases of each frame.
    bh : float32[n_frames, n_hidden]
        Hidden biases of each frame.
    """

    W: Tensor
    bv: Tensor
    bh: Tensor

    def __len__(self) -> int:
        return len(self.bv)

    def __getitem__(self, rows: slice | Tensor) -> "ConditionalRbms":
        return ConditionalRbms(self.W, self.bv[rows], self.bh[rows])

    def repeated(self, times: int) -> "ConditionalRbms":
        """Repeat each RBM `times` times in a row."""
        return ConditionalRbms(
            self.W,
            self.bv.repeat_interleave(times, dim=0),
            self.bh.repeat_interleave(times, dim=0),
        )

    def log_weight(self, v: Tensor) -> Tensor:
        """Return log p(v) + log Z, the negative free energy, float64[n_frames]."""
        linear = (v * self.bv).sum(-1, dtype=torch.float64)
        return linear + _softplus_sum(v @ self.W + self.bh)


class UnitSampler:
    """Random states of units, with one noise buffer per shape."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._buffers: dict[tuple[int, ...], Float32] = {}

    def bernoulli_(self, p: Tensor) -> Tensor:
        """Replace probabilities by units that are on (1.0) or off (0.0), in place."""
        shape = tuple(p.shape)
        buffer = self._buffers.get(shape)
        if buffer is None:
            buffer = self._buffers[shape] = np.empty(shape, np.float32)
        self._rng.random(out=buffer, dtype=np.float32)
        return torch.gt(p, torch.from_numpy(buffer), out=p)

    def choose_column(self, log_weights: Tensor) -> Tensor:
        """Draw one column of each row by its weight, int64[n_rows]."""
        total = torch.softmax(log_weights, dim=1).cumsum(dim=1)
        level = torch.from_numpy(self._rng.random((len(log_weights), 1)))
        return (total < level).sum(dim=1).clamp_max(log_weights.shape[1] - 1)


@torch.no_grad()
def gibbs(
    rbms: ConditionalRbms, v: Tensor, n_steps: int, sampler: UnitSampler
) -> Tensor:
    """Run block Gibbs steps from frames `v`, sampling both layers.

    Returns
    -------
    float32[n_frames, n_visible]
    """
    # All steps reuse two tensors: allocation costs more than the arithmetic.
    v, h = v.clone(), torch.empty_like(rbms.bh)
    for _ in range(n_steps):
        sampler.bernoulli_(torch.addmm(rbms.bh, v, rbms.W, out=h).sigmoid_())
        sampler.bernoulli_(torch.addmm(rbms.bv, h, rbms.W.t(), out=v).sigmoid_())
    return v


@torch.no_grad()
def log_partition(
    rbms: ConditionalRbms,
    start: Tensor,
    annealing: AnnealingOptions,
    sampler: UnitSampler,
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate the logarithm of each RBM's partition function in both directions.

    Parameters
    ----------
    rbms : ConditionalRbms
        RBM of each frame.
    start : float32[n_frames, n_visible]
        Likely frames, from which the Gibbs runs start.
    annealing : AnnealingOptions
        Effort of the estimate.
    sampler : UnitSampler
        Source of random units.

    Returns
    -------
    up : float64[n_frames]
        Estimates that are too small on average.
    down, down_again : float64[n_frames]
        Estimates that are too large on average, from Gibbs runs and from the ends of
        the runs up. All three are exact if W is 0.
    """
    if not bool(rbms.W.any()):
        exact = _softplus_sum(rbms.bv) + _softplus_sum(rbms.bh)
        return exact, exact, exact
    base, mixed = _factorial_match(rbms, start, annealing.n_mixing, sampler)
    zero = _softplus_sum(base) + rbms.W.shape[1] * math.log(2.0)
    n = annealing.n_chains
    path = _AnnealingPath(rbms.repeated(n), base.repeat_interleave(n, dim=0), sampler)
    first = sampler.bernoulli_(torch.sigmoid(path.base))
    betas = np.linspace(0.0, 1.0, annealing.n_temperatures + 1)
    ups, ends = path.anneal_forward(first, betas)
    best = _draw_ends(ups.view(-1, n), ends, sampler)
    down = path.anneal_backward(_chain_starts(rbms, mixed, annealing, sampler), betas)
    again = path.anneal_backward(_chain_starts(rbms, best, annealing, sampler), betas)
    return (
        zero + _log_mean(ups.view(-1, n)),
        zero - _log_mean(-down.view(-1, n)),
        zero - _log_mean(-again.view(-1, n)),
    )


@torch.no_grad()
def draw_annealed(
    rbms: ConditionalRbms,
    start: Tensor,
    annealing: AnnealingOptions,
    sampler: UnitSampler,
) -> Tensor:
    """Draw a frame of each RBM by annealing, float32[n_frames, n_visible].

    Gibbs steps from `start` do not leave the mode of `start` if modes are well
    separated; a chain from a factorial distribution can reach all modes. One of
    `n_chains` chains is drawn by weight. `start` must not contain the frame that is to
    be predicted, since it influences the sample.
    """
    base, _ = _factorial_match(rbms, start, annealing.n_mixing, sampler)
    n = annealing.n_chains
    path = _AnnealingPath(rbms.repeated(n), base.repeat_interleave(n, dim=0), sampler)
    betas = np.linspace(0.0, 1.0, annealing.n_temperatures + 1)
    weights, ends = path.anneal_forward(
        sampler.bernoulli_(torch.sigmoid(path.base)), betas
    )
    return _draw_ends(weights.view(-1, n), ends, sampler)


def exact_log_partition(rbms: ConditionalRbms) -> Tensor:
    """Compute each RBM's log partition function by enumeration, float64[n_frames].

    Raises
    ------
    LikelihoodError
        Both layers have more than 20 units.
    """
    weights, inner, outer = rbms.W.double(), rbms.bh.double(), rbms.bv.double()
    if weights.shape[1] > weights.shape[0]:
        weights, inner, outer = weights.t(), outer, inner
    n = weights.shape[1]
    if n > _MAX_ENUMERATED:
        raise LikelihoodError(
            f"the smaller layer has {n} units, and 2**{n} states are too many to "
            "enumerate: use annealed importance sampling"
        )
    states = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
    states = states.double()
    field = states @ weights.t()
    rows = [
        torch.logsumexp(states @ own + functional.softplus(other + field).sum(-1), 0)
        for own, other in zip(inner, outer, strict=True)
    ]
    return torch.stack(rows)


class _AnnealingPath:
    r"""Path of RBMs from a factorial distribution (beta = 0) to the model (beta = 1).

    .. math::
        \log p_\beta(v) = v \cdot ((1 - \beta) b_0 + \beta b_v)
            + \sum_j \log(1 + e^{\beta (b_{h,j} + (vW)_j)}) - \log Z_\beta
    """

    def __init__(
        self, rbms: ConditionalRbms, base: Tensor, sampler: UnitSampler
    ) -> None:
        self.base = base
        self._rbms = rbms
        self._tilt = rbms.bv - base
        self._sampler = sampler
        # Reused: allocation at every temperature costs more than the arithmetic.
        self._drive, self._scaled = torch.empty_like(rbms.bh), torch.empty_like(rbms.bh)

    def anneal_forward(self, v: Tensor, betas: Float64) -> tuple[Tensor, Tensor]:
        """Run chains from base to model; returns log-weights and last frames."""
        return self._run(v, betas, 1.0)

    def anneal_backward(self, v: Tensor, betas: Float64) -> Tensor:
        """Run chains from samples of the model to the base; returns log-weights."""
        return self._run(v, betas[::-1], -1.0)[0]

    def _run(self, v: Tensor, betas: Float64, sign: float) -> tuple[Tensor, Tensor]:
        """Run chains along `betas`; returns signed log-weights and last frames."""
        v, total = v.clone(), torch.zeros(len(v), dtype=torch.float64)
        for beta, next_beta in pairwise(betas):
            drive = torch.addmm(self._rbms.bh, v, self._rbms.W, out=self._drive)
            linear = (v * self._tilt).sum(-1, dtype=torch.float64)
            total += linear * float(next_beta - beta)
            total += _softplus_sum(torch.mul(drive, float(next_beta), out=self._scaled))
            total -= _softplus_sum(torch.mul(drive, float(beta), out=self._scaled))
            h = self._sampler.bernoulli_(drive.mul_(float(next_beta)).sigmoid_())
            torch.addmm(self._tilt, h, self._rbms.W.t(), out=v)
            torch.add(self.base, v, alpha=float(next_beta), out=v)
            self._sampler.bernoulli_(v.sigmoid_())
        return sign * total, v


def _factorial_match(
    rbms: ConditionalRbms, start: Tensor, n_mixing: int, sampler: UnitSampler
) -> tuple[Tensor, Tensor]:
    """Fit a factorial distribution to the marginals of a Gibbs run.

    Returns
    -------
    biases, last : float32[n_frames, n_visible]
        Visible biases of the distribution, and the last frames of the run.
    """
    v = gibbs(rbms, start, n_mixing - n_mixing // 2, sampler)
    total, h = torch.zeros_like(v), torch.empty_like(rbms.bh)
    n = max(1, n_mixing // 2)
    for _ in range(n):
        sampler.bernoulli_(torch.addmm(rbms.bh, v, rbms.W, out=h).sigmoid_())
        total += torch.addmm(rbms.bv, h, rbms.W.t(), out=v).sigmoid_()
        sampler.bernoulli_(v)
    # Never 0 or 1: units that the run did not switch must stay possible.
    marginal = (total / n).clamp(2e-3, 1 - 2e-3)
    return torch.log(marginal / (1 - marginal)), v


def _draw_ends(log_weights: Tensor, ends: Tensor, sampler: UnitSampler) -> Tensor:
    """Draw one of each RBM's last frames by its weight.

    It is a sample of the model if the run up was long enough.
    """
    n_frames, n_chains = log_weights.shape
    each = ends.view(n_frames, n_chains, ends.shape[1])
    return each[torch.arange(n_frames), sampler.choose_column(log_weights)]


def _chain_starts(
    rbms: ConditionalRbms, v: Tensor, annealing: AnnealingOptions, sampler: UnitSampler
) -> Tensor:
    """Draw a start for each chain by separate Gibbs runs from the same frame."""
    n = annealing.n_chains
    return gibbs(
        rbms.repeated(n), v.repeat_interleave(n, 0), annealing.n_mixing // 2, sampler
    )


def _softplus_sum(x: Tensor) -> Tensor:
    return functional.softplus(x).sum(-1, dtype=torch.float64)


def _log_mean(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 1) - math.log(log_weights.shape[1])
