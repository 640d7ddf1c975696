"""Baselines of generated song: shuffled frames and a linear process."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.measures import LinearPredictor

AR_ORDER = 8


def shuffle_frames(
    songs: Sequence[Float32], n_frames: int, n_sequences: int, rng: np.random.Generator
) -> list[Float32]:
    """Draw real frames at random, `n_sequences` times `n_frames`."""
    frames = np.concatenate(list(songs))
    return [
        frames[rng.integers(len(frames), size=n_frames)] for _ in range(n_sequences)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class LinearProcess:
    """AR(8) over all bins at once, with noise of the residual's covariance."""

    predictor: LinearPredictor
    factor: Float32

    @classmethod
    def fit(cls, songs: Sequence[Float32]) -> "LinearProcess":
        """Fit the prediction by least squares, and the covariance of its residual."""
        predictor = LinearPredictor.fit(songs, AR_ORDER)
        residuals = np.concatenate([predictor.residual(song) for song in songs])
        covariance = residuals.T @ residuals / len(residuals)
        ridge = 1e-9 + 1e-6 * np.trace(covariance) / len(covariance)
        covariance += ridge * np.eye(len(covariance))
        return cls(predictor, np.linalg.cholesky(covariance).astype(np.float32))

    def draw(
        self, starts: Sequence[Float32], n_frames: int, rng: np.random.Generator
    ) -> list[Float32]:
        """Continue each of `starts` (at least `AR_ORDER` frames) by `n_frames` frames.

        Frames are clipped to [0, 1], the range of the front end.
        """
        past = np.stack([start[-AR_ORDER:] for start in starts]).astype(np.float64)
        drawn = np.empty((len(starts), n_frames, past.shape[2]), np.float32)
        ones = np.ones((len(starts), 1))
        for t in range(n_frames):  # each frame depends on those before
            newest_first = past[:, ::-1].reshape(len(starts), -1)
            mean = np.concatenate([newest_first, ones], axis=1) @ self.predictor.weights
            noise = rng.standard_normal(mean.shape) @ self.factor.T
            drawn[:, t] = np.clip(mean + noise, 0.0, 1.0)
            past = np.concatenate([past[:, 1:], drawn[:, t][:, None]], axis=1)
        return list(drawn)
