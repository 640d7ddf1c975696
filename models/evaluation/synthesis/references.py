"""Yardsticks for drawn song: frames in no order, and a linear process."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.toolkit.measures import LinearPredictor

ORDER = 8


def shuffled(
    songs: Sequence[Float32], n_frames: int, n_sequences: int, rng: np.random.Generator
) -> list[Float32]:
    """Real frames drawn in any order, `n_sequences` times `n_frames`."""
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
        """Least squares on `songs`, and what it misses there."""
        predictor = LinearPredictor.fit(songs, ORDER)
        missed = np.concatenate([predictor.residual(song) for song in songs])
        covariance = missed.T @ missed / len(missed)
        ridge = 1e-9 + 1e-6 * np.trace(covariance) / len(covariance)
        covariance += ridge * np.eye(len(covariance))
        return cls(predictor, np.linalg.cholesky(covariance).astype(np.float32))

    def draw(
        self, starts: Sequence[Float32], n_frames: int, rng: np.random.Generator
    ) -> list[Float32]:
        """Sequences that go on after each of `starts` (at least `ORDER` frames).

        Frames are clipped to [0, 1], as all frames are.
        """
        past = np.stack([start[-ORDER:] for start in starts]).astype(np.float64)
        drawn = np.empty((len(starts), n_frames, past.shape[2]), np.float32)
        ones = np.ones((len(starts), 1))
        for t in range(n_frames):  # each frame depends on those before
            newest_first = past[:, ::-1].reshape(len(starts), -1)
            mean = np.concatenate([newest_first, ones], axis=1) @ self.predictor.weights
            noise = rng.standard_normal(mean.shape) @ self.factor.T
            drawn[:, t] = np.clip(mean + noise, 0.0, 1.0)
            past = np.concatenate([past[:, 1:], drawn[:, t][:, None]], axis=1)
        return list(drawn)
