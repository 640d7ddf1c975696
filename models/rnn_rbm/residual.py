r"""Distribution of the RNN-RBM's prediction errors, conditional on its state.

The expectation of the next frame is a single frame where several may follow, and its
error varies: silence is predicted almost exactly, the first frame of a syllable is
not. The error r has a mixture of experts (R. A. Jacobs, M. I. Jordan, S. J. Nowlan and
G. E. Hinton, "Adaptive mixtures of local experts", Neural Computation 3, 1991) over
the recurrent state u:

.. math::
    p(r \mid u) = \sum_k g_k(u) \, N(r; m_k, C_k), \qquad
    g(u) = \mathrm{softmax}(u G + g_0)

It is fitted by expectation maximization with full covariances. Its samples are the
noise of synthesis: they have the level of the errors and the correlation of bins in
song.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.measures import Float64
from neurovocal.models.toolkit.rows import Rows, spread_pieces

_ITERATIONS = 12
_GATE_STEPS = 60
_GATE_RATE = 0.03
_GATE_PENALTY = 1e-4
# Weight of the pooled covariance and of mean 0 in a component, in frames.
_COVARIANCE_PRIOR = 200.0
_MEAN_PRIOR = 50.0
# First frames of a song, before the state is warmed up.
_SKIPPED = 16
# Enough for a mixture; noise is drawn for a whole piece at once.
_MAX_FRAMES = 40_000
_PIECE_FRAMES = 5000


@dataclass(frozen=True, slots=True, eq=False)
class PredictionErrors:
    """Errors of the expected frames, and the states they are predicted from.

    Parameters
    ----------
    residual : float32[n_frames, n_visible]
        Frame minus expected frame.
    state : float32[n_frames, n_recurrent]
        State of the last layer before the frame.
    """

    residual: Float32
    state: Float32


def collect_errors(
    model: RnnRbm, songs: Sequence[Rows], n_steps: int, rng: np.random.Generator
) -> PredictionErrors:
    """Compute the prediction errors of the sampling expectation on recorded song.

    Parameters
    ----------
    model : RnnRbm
        Trained network.
    songs : sequence of Rows
        Recorded song, with the plan of a model that has one; only evenly spread
        pieces of long songs are used.
    n_steps : int
        Gibbs steps per frame.
    rng : Generator
        Source of the noise of the hidden units.
    """
    residuals, states = [], []
    with torch.no_grad():
        for song in spread_pieces(songs, _MAX_FRAMES, _PIECE_FRAMES):
            v, plan = model.split(torch.from_numpy(song[:]))
            inputs = torch.cat([v[:-1], plan[1:]], dim=-1)[:, None]
            u = model.states(inputs, model.initial_state())[:, -1, 0]
            bv, bh = model.biases(u)
            noise = rng.random((n_steps, len(u), model.n_hidden), dtype=np.float32)
            mean = model.gibbs(v[:-1], bv, bh, torch.from_numpy(noise))
            skip = _SKIPPED if len(u) > 2 * _SKIPPED else 0
            residuals.append((v[1:] - mean).numpy()[skip:])
            states.append(u.numpy()[skip:])
    return PredictionErrors(np.concatenate(residuals), np.concatenate(states))


def pooled_covariance(residual: Float32) -> Float64:
    """Compute the covariance around zero, with a ridge for positive definiteness."""
    n = residual.shape[1]
    wide = residual.astype(np.float64)
    covariance: Float64 = wide.T @ wide / max(1, len(wide))
    ridge = 1e-6 + 1e-4 * np.trace(covariance) / n
    covariance += ridge * np.eye(n)
    return covariance


def fit_residual(
    train: PredictionErrors, valid: PredictionErrors, n_components: int, seed: int
) -> dict[str, Float32]:
    """Fit the arrays of a bundle's residual file (docs/reference/bundle.md).

    Parameters
    ----------
    train : PredictionErrors
        Errors on training song, to which the distribution is fitted.
    valid : PredictionErrors
        Errors on validation song, which are larger and set the level of the noise.
    n_components : int
        Components of the mixture; 1 fits a single covariance.
    seed : int
        Seed of the initial clusters.

    Returns
    -------
    dict of str to float32 array
        `chol`, and for several components `mixture_mean`, `mixture_chol`,
        `gate_weight` and `gate_bias`.
    """
    pool = pooled_covariance(train.residual)
    arrays = {"chol": np.linalg.cholesky(pool).astype(np.float32)}
    # A component needs more frames than a covariance has rows.
    n_components = min(n_components, len(train.residual) // (2 * len(pool)))
    if n_components < 2:
        return arrays
    return arrays | _fit_mixture(train, valid, pool, n_components, seed)


def _fit_mixture(
    train: PredictionErrors,
    valid: PredictionErrors,
    pool: Float64,
    n_components: int,
    seed: int,
) -> dict[str, Float32]:
    shares = _cluster_states(train.state, n_components, seed)
    gate = _Gate(train.state, n_components)
    for _ in range(_ITERATIONS):
        means, factors = _fit_experts(train.residual, shares, pool)
        gate.fit(shares)
        distances = _distances(train.residual, means, factors)
        shares = _responsibilities(gate.logs(train.state), distances, factors)
    distances = _distances(valid.residual, means, factors)
    valid_responsibilities = _responsibilities(
        gate.logs(valid.state), distances, factors
    )
    level = np.sqrt((valid_responsibilities * distances).sum(1).mean() / len(pool))
    return {
        "mixture_mean": means.astype(np.float32),
        "mixture_chol": (level * factors).astype(np.float32),
        "gate_weight": gate.weight.detach().numpy(),
        "gate_bias": gate.bias.detach().numpy(),
    }


def _cluster_states(state: Float32, n_components: int, seed: int) -> Float32:
    """Cluster states by k-means; returns shares 0 and 1, [n_frames, n_components]."""
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


def _fit_experts(
    residual: Float32, shares: Float32, pool: Float64
) -> tuple[Float64, Float64]:
    """Fit means [n_components, n] and covariance factors [n_components, n, n]."""
    means, factors = [], []
    ridge = 1e-4 * np.trace(pool)
    for share in shares.T:
        weight = float(share.sum()) + 1e-9
        mean = (share @ residual) / weight
        centred = residual - mean
        total = ((centred * share[:, None]).T @ centred).astype(np.float64)
        # The prior has the shape of the pool but the level of the component.
        level = (np.trace(total) / weight + ridge) / np.trace(pool)
        total += _COVARIANCE_PRIOR * level * pool
        covariance = total / (weight + _COVARIANCE_PRIOR)
        means.append(mean * weight / (weight + _MEAN_PRIOR))
        factors.append(np.linalg.cholesky(covariance))
    return np.stack(means), np.stack(factors)


def _distances(residual: Float32, means: Float64, factors: Float64) -> Float32:
    """Compute squared Mahalanobis distances, float32[n_frames, n_components]."""
    columns = []
    for mean, factor in zip(means, factors, strict=True):
        inverse = np.linalg.inv(factor).astype(np.float32)
        whitened = (residual - mean.astype(np.float32)) @ inverse.T
        columns.append(np.square(whitened).sum(1))
    distances: Float32 = np.stack(columns, axis=1)
    return distances


def _responsibilities(gate: Float32, distances: Float32, factors: Float64) -> Float32:
    """Compute the posterior of each component given a frame's state and error."""
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
        """Take `_GATE_STEPS` optimizer steps on the cross entropy to `shares`."""
        target = torch.from_numpy(shares)
        for _ in range(_GATE_STEPS):
            self._optimizer.zero_grad()
            entropy = -(target * self._logs(self._state)).sum(1).mean()
            loss = entropy + _GATE_PENALTY * self.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

    def logs(self, state: Float32) -> Float32:
        """Compute log g(u) of each frame, float32[n_frames, n_components]."""
        with torch.no_grad():
            logs: Float32 = self._logs(torch.from_numpy(state)).numpy()
        return logs

    def _logs(self, state: torch.Tensor) -> torch.Tensor:
        return functional.log_softmax(state @ self.weight + self.bias, dim=1)
