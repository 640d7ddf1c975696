"""Surprise: divergence of frames from their expectation, over a running baseline."""

import numpy as np

from neurovocal.engine import Float32
from neurovocal.plugins.features.recursive_filter import load_recursion
from neurovocal.plugins.models.history import Float64

# Smallest running deviation, as a share of the first one: without it the least sound
# would be a great surprise after long digital silence.
_LEAST_STD = 0.1

# Bernoulli probabilities are clipped to this distance from 0 and 1.
_LEAST_PROBABILITY = 1e-4


class Baseline:
    """Normalises a series by an exponential mean and deviation of its past.

    With m and v the running mean and variance before value F_t and a the
    adaptation per frame, ``surprise = (F_t - m) / sqrt(v)``; then m moves by
    ``a * (F_t - m)`` and v by ``a * ((F_t - m)**2 - v)`` (exponentially weighted
    moments: West, 1979, with constant weights). A value is compared with the values
    before it only. The result does not depend on how the series is cut.

    Parameters
    ----------
    mean, std : float
        Mean and deviation at the start, from the bundle's validation data.
    frames : float
        Time constant of the adaptation in frames.
    """

    def __init__(self, mean: float, std: float, frames: float) -> None:
        self._filtered = load_recursion()
        self._first = (float(mean), float(std) ** 2)
        self._least = (std * _LEAST_STD) ** 2
        rate = 1.0 - np.exp(-1.0 / max(frames, 1e-9))
        self._keep = 1.0 - rate
        self._gain = np.array([rate])
        self._recursion = np.array([1.0, -self._keep])
        self.reset()

    def reset(self) -> None:
        """Return to the bundle's mean and deviation."""
        self._mean, self._variance = self._first

    def normalise(self, values: Float64) -> Float32:
        """Return the surprise float32[n] of float64[n], and move the baseline."""
        means = self._running_means(values, self._mean)
        errors = values - means[:-1]
        variances = self._running_means(errors * errors, self._variance)
        self._mean, self._variance = float(means[-1]), float(variances[-1])
        deviations = np.sqrt(np.maximum(variances[:-1], self._least))
        return (errors / deviations).astype(np.float32)

    def _running_means(self, values: Float64, start: float) -> Float64:
        """Return the exponential mean before each value, and after the last."""
        carry = np.array([self._keep * start])
        after, _ = self._filtered(self._gain, self._recursion, values, -1, carry)
        return np.concatenate(([start], after))


class Divergence:
    """Divergence log(1 + D) of each frame from its expectation.

    D is the Kullback-Leibler divergence of Bernoulli units, or the squared error of
    Gaussian units over twice its variance. It does not depend on how frames are cut.

    Parameters
    ----------
    variance : float32[n_visible], optional
        Variance of the errors of Gaussian units; None for Bernoulli units.
    """

    def __init__(self, variance: Float32 | None = None) -> None:
        self._weight = None if variance is None else 0.5 / np.maximum(variance, 1e-9)
        self._expected: Float32 | None = None

    def reset(self) -> None:
        """Drop the expectation of the next frame."""
        self._expected = None

    def __call__(self, frames: Float32, predictions: Float32) -> Float64:
        """Return the divergence of each frame, float64[n_frames].

        Parameters
        ----------
        frames : float32[n_frames, n_visible]
        predictions : float32[n_frames, n_visible]
            Expectation of the frame after each of them. The first frame after a
            reset has none: its divergence is 0.
        """
        before = frames[:1] if self._expected is None else self._expected
        expected = np.concatenate([before, predictions[:-1]])
        self._expected = predictions[-1:]
        if self._weight is None:
            v, p = (
                np.clip(x, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
                for x in (frames, expected)
            )
            terms = v * np.log(v / p) + (1 - v) * np.log((1 - v) / (1 - p))
        else:
            terms = self._weight * np.square(frames - expected)
        total: Float64 = terms.sum(axis=1, dtype=np.float64)
        return np.log1p(np.maximum(total, 0.0, out=total), out=total)
