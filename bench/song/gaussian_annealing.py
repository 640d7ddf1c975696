"""Partition functions of RBMs with Gaussian visible units, by annealing.

A conditional RBM with Gaussian visible units is a mixture of 2**n_hidden Gaussians
with one diagonal covariance. Its partition function is annealed from a Gaussian with
the model's variances to the model and back; the bracket is that of
`neurovocal.models.rnn_rbm.likelihood`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from neurovocal.models.rnn_rbm.annealing import (
    AnnealingOptions,
    LikelihoodError,
    UnitSampler,
)
from neurovocal.models.toolkit.measures import Float64

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True, eq=False)
class GaussianRbms:
    r"""One RBM with Gaussian visible units per frame; they share W and sigma.

    In units of sigma (x = v / sigma, b = bv / sigma):

    .. math::
        -F(x) = -|x - b|^2 / 2 + \sum_j \log(1 + e^{b_{h,j} + (xW)_j})

    Parameters
    ----------
    W : float32[n_visible, n_hidden]
    b : float32[n_frames, n_visible]
    bh : float32[n_frames, n_hidden]
    """

    W: Tensor
    b: Tensor
    bh: Tensor

    def __len__(self) -> int:
        return len(self.b)

    def __getitem__(self, rows: slice | Tensor) -> "GaussianRbms":
        return GaussianRbms(self.W, self.b[rows], self.bh[rows])

    def repeated(self, times: int) -> "GaussianRbms":
        """Repeat every RBM `times` times."""
        return GaussianRbms(
            self.W,
            self.b.repeat_interleave(times, dim=0),
            self.bh.repeat_interleave(times, dim=0),
        )

    def log_weight(self, x: Tensor) -> Tensor:
        """Return log p(x) + log Z, float64[n_frames]."""
        distance = (x - self.b).square().sum(-1, dtype=torch.float64)
        return -0.5 * distance + _softplus_sum(torch.addmm(self.bh, x, self.W))

    def exact_log_partition(self) -> Tensor:
        """Enumerate the hidden units; return log Z, float64[n_frames]."""
        n = self.W.shape[1]
        if n > 16:
            raise LikelihoodError(
                f"2**{n} states of the hidden units are too many to enumerate: use "
                "annealed importance sampling"
            )
        h = (torch.arange(2**n)[:, None] >> torch.arange(n) & 1).double()
        shift = h @ self.W.double().t()
        own = (self.bh.double() @ h.t()) + self.b.double() @ shift.t()
        total = torch.logsumexp(own + 0.5 * shift.square().sum(-1), dim=1)
        return total + 0.5 * _LOG_2PI * self.W.shape[0]


class _Path:
    r"""RBMs with :math:`\beta` on the hidden units and means from b0 to b."""

    def __init__(
        self, rbms: GaussianRbms, base: Tensor, rng: np.random.Generator
    ) -> None:
        self._rbms, self._base, self._rng = rbms, base, rng

    def start(self) -> Tensor:
        """Draw a frame of each RBM from the Gaussian at beta = 0."""
        return self._base + self._normal(self._base)

    def run(self, x: Tensor, betas: Float64) -> tuple[Tensor, Tensor]:
        """Return log-weights of chains along `betas`, and their last frames."""
        total = torch.zeros(len(x), dtype=torch.float64)
        for now, following in pairwise(betas):
            drive = torch.addmm(self._rbms.bh, x, self._rbms.W)
            total += self._log_weight(x, drive, float(following))
            total -= self._log_weight(x, drive, float(now))
            x = self._step(drive, float(following))
        return total, x

    def mix(self, x: Tensor, n_steps: int) -> Tensor:
        """Take Gibbs steps of the model itself."""
        for _ in range(n_steps):
            x = self._step(torch.addmm(self._rbms.bh, x, self._rbms.W), 1.0)
        return x

    def _log_weight(self, x: Tensor, drive: Tensor, beta: float) -> Tensor:
        mean = torch.lerp(self._base, self._rbms.b, beta)
        distance = (x - mean).square().sum(-1, dtype=torch.float64)
        return -0.5 * distance + _softplus_sum(beta * drive)

    def _step(self, drive: Tensor, beta: float) -> Tensor:
        p = torch.sigmoid(beta * drive)
        noise = torch.from_numpy(self._rng.random(tuple(p.shape), dtype=np.float32))
        shift = (p > noise).to(p.dtype) @ self._rbms.W.t()
        mean = torch.lerp(self._base, self._rbms.b, beta)
        return mean + beta * shift + self._normal(mean)

    def _normal(self, like: Tensor) -> Tensor:
        drawn = self._rng.standard_normal(tuple(like.shape), dtype=np.float32)
        return torch.from_numpy(drawn)


@torch.no_grad()
def log_partition(
    rbms: GaussianRbms,
    start: Tensor,
    annealing: AnnealingOptions,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Estimate log Z as `neurovocal.models.rnn_rbm.annealing.log_partition` does.

    Parameters
    ----------
    rbms : GaussianRbms
    start : float32[n_frames, n_visible]
        Likely frames in units of sigma, from which the Gibbs chains start.
    annealing : AnnealingOptions
    rng : Generator

    Returns
    -------
    up, down, down_again : float64[n_frames]
        Too small on average; too large on average, from Gibbs chains and from the
        ends of the forward chains. All are exact where W is 0.
    """
    if not bool(rbms.W.any()):
        exact = 0.5 * _LOG_2PI * rbms.W.shape[0] + _softplus_sum(rbms.bh)
        return exact, exact, exact
    n = annealing.n_chains
    # The Gaussian at the path's beginning is centred where the model's samples are.
    path, mixed, total = _Path(rbms, rbms.b, rng), start, torch.zeros_like(start)
    for _ in range(annealing.n_mixing):
        mixed = path.mix(mixed, 1)
        total += mixed
    base = (total / annealing.n_mixing).repeat_interleave(n, dim=0)
    path = _Path(rbms.repeated(n), base, rng)
    betas = np.linspace(0.0, 1.0, annealing.n_temperatures + 1)
    ups, ends = path.run(path.start(), betas)
    ups = ups.view(-1, n)
    rows = torch.arange(len(rbms))
    best = ends.view(len(rbms), n, -1)[rows, UnitSampler(rng).choose_column(ups)]
    downs = []
    for likely in (mixed, best):
        spread = likely.repeat_interleave(n, dim=0)
        spread = path.mix(spread, max(1, annealing.n_mixing // 2))
        downs.append(path.run(spread, betas[::-1])[0].view(-1, n))
    zero = 0.5 * _LOG_2PI * rbms.W.shape[0] + rbms.W.shape[1] * math.log(2.0)
    zero -= math.log(n)
    down, again = (2 * math.log(n) + zero - torch.logsumexp(w, 1) for w in downs)
    return zero + torch.logsumexp(ups, 1), down, again


def _softplus_sum(x: Tensor) -> Tensor:
    return functional.softplus(x).sum(-1, dtype=torch.float64)
