r"""What the RNN-RBM's expectation misses, as a distribution that its state decides.

The expectation of the next frame is one frame where several may follow, and how far
off it is differs widely: silence is predicted almost exactly, the first frame of a
syllable hardly at all. What is missed, r, is a mixture of experts (R. A. Jacobs,
M. I. Jordan, S. J. Nowlan and G. E. Hinton, "Adaptive mixtures of local experts",
Neural Computation 3, 1991) over the recurrent state u:

.. math::
    p(r \mid u) = \sum_k g_k(u) \, N(r; m_k, C_k), \qquad
    g(u) = \mathrm{softmax}(u G + g_0)

fitted by expectation maximization with full covariances. Its noise, fed back, keeps
neighbouring bins as alike as they are in song and is as large as it is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.rows import Rows, spread_pieces

Float64 = NDArray[np.float64]
_ITERATIONS = 12
_GATE_STEPS = 60
_GATE_RATE = 0.03
_GATE_PENALTY = 1e-4
# What the pool counts in a component's covariance and mean, in frames.
_COVARIANCE_PRIOR = 200.0
_MEAN_PRIOR = 50.0
# The first frames of a song, whose states are cold.
_SKIPPED = 16
# Enough for a mixture; the noise of a piece is drawn at once.
_MOST_FRAMES = 40_000
_PIECE_FRAMES = 5000


@dataclass(frozen=True, slots=True, eq=False)
class PredictionErrors:
    """Errors of the expectation and the states before them.

    Parameters
    ----------
    residual : float32[n_frames, n_visible]
    state : float32[n_frames, n_recurrent]
        Of the last layer.
    """

    residual: Float32
    state: Float32


def collect_errors(
    model: RnnRbm, songs: Sequence[Rows], n_steps: int, rng: np.random.Generator
) -> PredictionErrors:
    """What the sampler's expectation misses, frame by frame, on real song.

    Of long songs only some pieces are heard.
    """
    residuals, states = [], []
    with torch.no_grad():
        for song in spread_pieces(songs, _MOST_FRAMES, _PIECE_FRAMES):
            v = torch.from_numpy(song[:])
            u = model.states(v[:, None], model.initial_state())[:-1, -1, 0]
            bv, bh = model.biases(u)
            drawn = rng.random((n_steps, len(u), model.n_hidden), dtype=np.float32)
            mean = model.gibbs(v[:-1], bv, bh, torch.from_numpy(drawn))
            skip = _SKIPPED if len(u) > 2 * _SKIPPED else 0
            residuals.append((v[1:] - mean).numpy()[skip:])
            states.append(u.numpy()[skip:])
    return PredictionErrors(np.concatenate(residuals), np.concatenate(states))


def pooled_covariance(residual: Float32) -> Float64:
    """Covariance around zero, with a ridge that keeps it positive definite."""
    n = residual.shape[1]
    wide = residual.astype(np.float64)
    covariance: Float64 = wide.T @ wide / max(1, len(wide))
    ridge = 1e-6 + 1e-4 * np.trace(covariance) / n
    covariance += ridge * np.eye(n)
    return covariance


def fit_residual(
    missed: PredictionErrors, valid: PredictionErrors, n_components: int, seed: int
) -> dict[str, Float32]:
    """Content of a bundle's residual file (docs/bundle.md).

    Parameters
    ----------
    missed : PredictionErrors
        On training song, which fits it.
    valid : PredictionErrors
        On other song, where errors are larger: it sets the level of the noise.
    n_components : int
        Of the mixture; 1 leaves it out, which gives one covariance.
    seed : int
        Of the first guess.
    """
    pool = pooled_covariance(missed.residual)
    arrays = {"chol": np.linalg.cholesky(pool).astype(np.float32)}
    # A component needs more frames than a covariance has rows.
    most = len(missed.residual) // (2 * len(pool))
    if min(n_components, most) < 2:
        return arrays
    return arrays | _fit_mixture(missed, valid, pool, min(n_components, most), seed)


def _fit_mixture(
    missed: PredictionErrors,
    valid: PredictionErrors,
    pool: Float64,
    n_components: int,
    seed: int,
) -> dict[str, Float32]:
    shares = _first_guess(missed.state, n_components, seed)
    gate = _Gate(missed.state, n_components)
    for _ in range(_ITERATIONS):
        means, factors = _experts(missed.residual, shares, pool)
        gate.fit(shares)
        distances = _distances(missed.residual, means, factors)
        shares = _shares(gate.logs(missed.state), distances, factors)
    distances = _distances(valid.residual, means, factors)
    shares_valid = _shares(gate.logs(valid.state), distances, factors)
    level = np.sqrt((shares_valid * distances).sum(1).mean() / len(pool))
    return {
        "mixture_mean": means.astype(np.float32),
        "mixture_chol": (level * factors).astype(np.float32),
        "gate_weight": gate.weight.detach().numpy(),
        "gate_bias": gate.bias.detach().numpy(),
    }


def _first_guess(state: Float32, n_components: int, seed: int) -> Float32:
    """Clusters of states by k-means, as shares of 0 and 1."""
    rng = np.random.default_rng(seed)
    centres = state[rng.choice(len(state), n_components, replace=False)]
    nearest = np.zeros(len(state), int)
    for _ in range(10):
        squares = np.square(centres).sum(1)
        nearest = (squares - 2 * state @ centres.T).argmin(1)
        for k in range(n_components):
            if (nearest == k).any():
                centres[k] = state[nearest == k].mean(0)
    shares: Float32 = np.eye(n_components, dtype=np.float32)[nearest]
    return shares


def _experts(
    residual: Float32, shares: Float32, pool: Float64
) -> tuple[Float64, Float64]:
    """Means [n_components, n] and covariance factors [n_components, n, n]."""
    means, factors = [], []
    ridge = 1e-4 * np.trace(pool)
    for share in shares.T:
        weight = float(share.sum()) + 1e-9
        mean = (share @ residual) / weight
        centred = residual - mean
        total = ((centred * share[:, None]).T @ centred).astype(np.float64)
        # The pool lends its shape, not its level: silence stays silent.
        level = (np.trace(total) / weight + ridge) / np.trace(pool)
        total += _COVARIANCE_PRIOR * level * pool
        covariance = total / (weight + _COVARIANCE_PRIOR)
        means.append(mean * weight / (weight + _MEAN_PRIOR))
        factors.append(np.linalg.cholesky(covariance))
    return np.stack(means), np.stack(factors)


def _distances(residual: Float32, means: Float64, factors: Float64) -> Float32:
    """Squared Mahalanobis distances, float32[n_frames, n_components]."""
    columns = []
    for mean, factor in zip(means, factors, strict=True):
        inverse = np.linalg.inv(factor).astype(np.float32)
        whitened = (residual - mean.astype(np.float32)) @ inverse.T
        columns.append(np.square(whitened).sum(1))
    distances: Float32 = np.stack(columns, axis=1)
    return distances


def _shares(gate: Float32, distances: Float32, factors: Float64) -> Float32:
    """Posterior of each component, given a frame's state and error."""
    volumes = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1).astype(np.float32)
    logs = gate - 0.5 * distances - volumes
    logs -= logs.max(1, keepdims=True)
    shares: Float32 = np.exp(logs)
    shares /= shares.sum(1, keepdims=True)
    return shares


class _Gate:
    """Multinomial logistic regression of the shares on the state."""

    def __init__(self, state: Float32, n_components: int) -> None:
        self._state = torch.from_numpy(state)
        self.weight = torch.zeros(state.shape[1], n_components, requires_grad=True)
        self.bias = torch.zeros(n_components, requires_grad=True)
        self._optimizer = torch.optim.Adam([self.weight, self.bias], lr=_GATE_RATE)

    def fit(self, shares: Float32) -> None:
        """Take some steps towards the shares."""
        wanted = torch.from_numpy(shares)
        for _ in range(_GATE_STEPS):
            self._optimizer.zero_grad()
            surprise = -(wanted * self._logs(self._state)).sum(1).mean()
            loss = surprise + _GATE_PENALTY * self.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

    def logs(self, state: Float32) -> Float32:
        """Log g(u) of every frame, float32[n_frames, n_components]."""
        with torch.no_grad():
            logs: Float32 = self._logs(torch.from_numpy(state)).numpy()
        return logs

    def _logs(self, state: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax(state @ self.weight + self.bias, dim=1)
