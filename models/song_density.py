r"""Log densities of frames of song: Gaussian RNN-RBMs beside a linear prediction.

A conditional RBM with Gaussian visible units is a mixture of 2**n_hidden Gaussians
with one diagonal covariance. Neighbouring bins of a spectrogram are strongly
correlated, which such a mixture can only say with many hidden units. So frames are
whitened first with the covariance of what a linear prediction misses (`Whitening`): W
then models what is left, and the density in the frame's own coordinates is that of the
whitened frame times the determinant.

The partition function is annealed from a Gaussian with the model's variances to the
model and back; the bracket is told as in `neurovocal.models.likelihood`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neurovocal.engine.types import Float32
from neurovocal.models.annealing import Annealing, LikelihoodError, Noise
from neurovocal.models.likelihood import WIDEST, Bracket, Likelihood, refusal
from neurovocal.models.measure import LinearPredictor
from neurovocal.models.rnn_rbm import RnnRbm
from neurovocal.models.train_rnn_rbm import RnnRbmTask

Float64 = NDArray[np.float64]
_LOG_2PI = math.log(2 * math.pi)
_TILE_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class LinearDensity:
    """Ridge AR(order) whose errors are one Gaussian with full covariance."""

    predictor: LinearPredictor
    covariance: Float64

    @classmethod
    def fit(cls, songs: Sequence[Float32], order: int) -> "LinearDensity":
        """Predictor and covariance of its errors, both on `songs`."""
        predictor = LinearPredictor.fit(songs, order)
        missed = np.concatenate([predictor.residual(song) for song in songs])
        covariance = missed.T @ missed / len(missed)
        floor = 1e-6 * np.trace(covariance) / len(covariance)
        return cls(predictor, covariance + floor * np.eye(len(covariance)))

    def log_density(self, song: Float32) -> Float64:
        """Of each frame from `order` on, in nats."""
        factor = np.linalg.cholesky(self.covariance)
        scaled = np.linalg.solve(factor, self.predictor.residual(song).T)
        n = len(self.covariance)
        normaliser = np.log(np.diag(factor)).sum() + 0.5 * n * _LOG_2PI
        density: Float64 = -0.5 * np.square(scaled).sum(axis=0) - normaliser
        return density


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """Frames in coordinates in which a linear prediction's errors are white.

    ``y = scale * C**(-1/2) (v - mean)`` with C the covariance of those errors; the
    symmetric root keeps bins in their places. `scale` brings values to a size that
    recurrent layers hear well.
    """

    mean: Float32
    matrix: Float32

    @classmethod
    def fit(
        cls, songs: Sequence[Float32], density: LinearDensity, scale: float = 0.2
    ) -> "Whitening":
        """Means of `songs`, covariance of `density`."""
        values, vectors = np.linalg.eigh(density.covariance)
        root = scale * (vectors / np.sqrt(values)) @ vectors.T
        mean = np.concatenate(songs).mean(axis=0)
        return cls(mean.astype(np.float32), root.astype(np.float32))

    def __call__(self, song: Float32) -> Float32:
        """Whitened frames, float32[n_frames, n_bins]."""
        return np.ascontiguousarray((song - self.mean) @ self.matrix, np.float32)

    @property
    def log_determinant(self) -> float:
        """What the density of a whitened frame lacks to that of the frame."""
        return float(np.linalg.slogdet(self.matrix.astype(float))[1])


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
        """Every RBM `times` times in a row."""
        return GaussianRbms(
            self.W,
            self.b.repeat_interleave(times, dim=0),
            self.bh.repeat_interleave(times, dim=0),
        )

    def log_weight(self, x: Tensor) -> Tensor:
        """Log p(x) + log Z, float64[n_frames]."""
        distance = (x - self.b).square().sum(-1, dtype=torch.float64)
        return -0.5 * distance + _softplus_sum(torch.addmm(self.bh, x, self.W))

    def exact_log_partition(self) -> Tensor:
        """By enumeration of the hidden units, float64[n_frames]."""
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
        """Log-weights of chains along `betas`, and where they end."""
        total = torch.zeros(len(x), dtype=torch.float64)
        for now, following in pairwise(betas):
            drive = torch.addmm(self._rbms.bh, x, self._rbms.W)
            total += self._log_weight(x, drive, float(following))
            total -= self._log_weight(x, drive, float(now))
            x = self._step(drive, float(following))
        return total, x

    def mix(self, x: Tensor, n_steps: int) -> Tensor:
        """Gibbs steps of the model itself."""
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
    rbms: GaussianRbms, start: Tensor, annealing: Annealing, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """As `neurovocal.models.annealing.log_partition`, for Gaussian units.

    Parameters
    ----------
    rbms : GaussianRbms
    start : float32[n_frames, n_visible]
        Likely frames in units of sigma: where the Gibbs runs begin.
    annealing : Annealing
    rng : Generator

    Returns
    -------
    up, down, down_again : float64[n_frames]
        Too small on average; too large on average, from Gibbs runs and from the
        ends of the way up. All are exact where W is 0.
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
    best = ends.view(len(rbms), n, -1)[rows, Noise(rng).pick(ups)]
    downs = []
    for likely in (mixed, best):
        spread = likely.repeat_interleave(n, dim=0)
        spread = path.mix(spread, max(1, annealing.n_mixing // 2))
        downs.append(path.run(spread, betas[::-1])[0].view(-1, n))
    zero = 0.5 * _LOG_2PI * rbms.W.shape[0] + rbms.W.shape[1] * math.log(2.0)
    zero -= math.log(n)
    down, again = (2 * math.log(n) + zero - torch.logsumexp(w, 1) for w in downs)
    return zero + torch.logsumexp(ups, 1), down, again


@torch.no_grad()
def conditional_gaussians(
    model: RnnRbm, songs: Sequence[Float32], skip: int
) -> tuple[GaussianRbms, Tensor]:
    """The RBM of every frame from `skip` on, and the frames, in units of sigma.

    Raises
    ------
    LikelihoodError
        The model's visible units are not Gaussian, or no song is long enough.
    """
    if not model.gaussian:
        raise LikelihoodError("the density needs a model with Gaussian visible units")
    model.eval()
    scale = torch.exp(-model.log_sigma)
    parts = []
    for song in songs:
        if len(song) <= max(skip, 1):
            continue
        v = torch.from_numpy(song)
        u = model.states(v[:-1, None], model.initial_state())[:, -1, 0]
        bv, bh = model.biases(u[skip - 1 :])
        parts.append((bv * scale, bh, v[skip:] * scale))
    if not parts:
        raise LikelihoodError(f"no song is longer than {skip} frames")
    b, bh, x = (torch.cat(column) for column in zip(*parts, strict=True))
    return GaussianRbms(model.W.detach(), b, bh), x


@torch.no_grad()
def log_density(
    model: RnnRbm,
    rbms: GaussianRbms,
    x: Tensor,
    whitening: Whitening,
    annealing: Annealing,
    rng: np.random.Generator,
    widest: float | None = WIDEST,
) -> Likelihood:
    """Mean log density per frame in the frames' own coordinates, in nats.

    Parameters
    ----------
    model : RnnRbm
        Whose sigma it is.
    rbms : GaussianRbms
    x : float32[n_frames, n_visible]
        From `conditional_gaussians` of whitened songs.
    whitening : Whitening
    annealing : Annealing
    rng : Generator
    widest : float, optional
        Widest bracket in nats that is a figure; None takes any.

    Raises
    ------
    LikelihoodError
        The bracket is wider than `widest`.
    """
    shift = whitening.log_determinant - float(model.log_sigma.double().sum())
    rows = range(0, len(x), _TILE_ROWS)
    ends: list[list[Tensor]] = [[], [], []]
    for first in rows:
        part = slice(first, first + _TILE_ROWS)
        weight = rbms[part].log_weight(x[part])
        found = log_partition(rbms[part], x[part], annealing, rng)
        for end, value in zip(ends, found, strict=True):
            end.append(shift + weight - value)
    high, below, again = (torch.cat(end) for end in ends)
    low = min(float(below.mean()), float(again.mean()))
    bracket = Bracket(low, float(high.mean()))
    if widest is not None and not bracket.width <= widest:
        raise LikelihoodError(refusal(bracket, annealing.n_temperatures, widest))
    return Likelihood(bracket, float(high.std()) / math.sqrt(len(high)), len(high))


class DensityTask(RnnRbmTask):
    """An RNN-RBM with Gaussian units that is chosen by its density."""

    name = "Gaussian RNN-RBM"

    def validate(self) -> dict[str, float]:
        """Quick density of some validation frames, in the frames they are trained on.

        Only good enough for choosing: the middle of a bracket that may be wide.
        """
        rng = np.random.Generator(np.random.SFC64(0))
        rbms, x = conditional_gaussians(self.module, self._valid, skip=16)
        some = torch.from_numpy(rng.permutation(len(x))[:400])
        n_bins = x.shape[1]
        same = Whitening(np.zeros(n_bins, np.float32), np.eye(n_bins, dtype=np.float32))
        quick = Annealing(n_temperatures=150, n_chains=1, n_mixing=30)
        found = log_density(
            self.module, rbms[some], x[some], same, quick, rng, widest=None
        )
        middle, width = found.bracket.middle, found.bracket.width
        norm = float(self.module.W.norm())
        return {"score": -middle, "density": middle, "width": width, "w_norm": norm}


def _softplus_sum(x: Tensor) -> Tensor:
    return functional.softplus(x).sum(-1, dtype=torch.float64)
