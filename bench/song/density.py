"""Log densities of frames of song: Gaussian RNN-RBMs beside a linear prediction.

A conditional RBM with Gaussian visible units is a mixture of 2**n_hidden Gaussians
with one diagonal covariance. Neighbouring bins of a spectrogram are strongly
correlated, which such a mixture can only model with many hidden units. Frames are
therefore whitened with the covariance of a linear prediction's errors (`Whitening`),
and the density in the frame's own coordinates is that of the whitened frame times the
determinant.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from gaussian_annealing import GaussianRbms, log_partition
from torch import Tensor

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.annealing import AnnealingOptions, LikelihoodError
from neurovocal.models.rnn_rbm.likelihood import (
    MAX_WIDTH,
    Bracket,
    Likelihood,
    width_error,
)
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.training import RnnRbmTask
from neurovocal.models.toolkit.measures import Float64, LinearPredictor
from neurovocal.models.toolkit.rows import Rows

_LOG_2PI = math.log(2 * math.pi)
_TILE_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class LinearDensity:
    """Ridge AR(order) with Gaussian errors of full covariance."""

    predictor: LinearPredictor
    covariance: Float64

    @classmethod
    def fit(cls, songs: Sequence[Float32], order: int) -> "LinearDensity":
        """Fit the predictor and the covariance of its errors to `songs`."""
        predictor = LinearPredictor.fit(songs, order)
        missed = np.concatenate([predictor.residual(song) for song in songs])
        covariance = missed.T @ missed / len(missed)
        floor = 1e-6 * np.trace(covariance) / len(covariance)
        return cls(predictor, covariance + floor * np.eye(len(covariance)))

    def log_density(self, song: Float32) -> Float64:
        """Return the log density of each frame from `order` on, in nats."""
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
        """Fit the mean to `songs` and the transform to the covariance of `density`."""
        values, vectors = np.linalg.eigh(density.covariance)
        root = scale * (vectors / np.sqrt(values)) @ vectors.T
        mean = np.concatenate(songs).mean(axis=0)
        return cls(mean.astype(np.float32), root.astype(np.float32))

    def __call__(self, song: Float32) -> Float32:
        """Whiten frames, float32[n_frames, n_bins]."""
        return np.ascontiguousarray((song - self.mean) @ self.matrix, np.float32)

    @property
    def log_determinant(self) -> float:
        """Log of the density of a frame over that of the whitened frame."""
        return float(np.linalg.slogdet(self.matrix.astype(float))[1])


@torch.no_grad()
def conditional_gaussians(
    model: RnnRbm, songs: Sequence[Rows], skip: int
) -> tuple[GaussianRbms, Tensor]:
    """Return the RBM of every frame from `skip` on, and the frames in units of sigma.

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
        v = torch.from_numpy(song[:])
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
    annealing: AnnealingOptions,
    rng: np.random.Generator,
    widest: float | None = MAX_WIDTH,
) -> Likelihood:
    """Return the mean log density per frame in the frames' own coordinates, in nats.

    Parameters
    ----------
    model : RnnRbm
        Model with the sigma of `x`.
    rbms : GaussianRbms
    x : float32[n_frames, n_visible]
        From `conditional_gaussians` of whitened songs.
    whitening : Whitening
    annealing : AnnealingOptions
    rng : Generator
    widest : float, optional
        Widest accepted bracket in nats; None accepts any.

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
        raise LikelihoodError(width_error(bracket, annealing.n_temperatures, widest))
    return Likelihood(bracket, float(high.std()) / math.sqrt(len(high)), len(high))


class DensityTask(RnnRbmTask):
    """Training of an RNN-RBM with Gaussian units, chosen by its density."""

    name = "Gaussian RNN-RBM"

    def validate(self) -> dict[str, float]:
        """Estimate the density of some validation frames, in whitened coordinates.

        Only for the choice of weights: the middle of a bracket that may be wide.
        """
        rng = np.random.Generator(np.random.SFC64(0))
        rbms, x = conditional_gaussians(self.module, self._valid, skip=16)
        some = torch.from_numpy(rng.permutation(len(x))[:400])
        n_bins = x.shape[1]
        same = Whitening(np.zeros(n_bins, np.float32), np.eye(n_bins, dtype=np.float32))
        quick = AnnealingOptions(n_temperatures=150, n_chains=1, n_mixing=30)
        found = log_density(
            self.module, rbms[some], x[some], same, quick, rng, widest=None
        )
        middle, width = found.bracket.middle, found.bracket.width
        norm = float(self.module.W.norm())
        return {"score": -middle, "density": middle, "width": width, "w_norm": norm}
