"""Surprise: divergence of frames from their expectation, over a running baseline."""

from math import sqrt

import numpy as np

from neurovocal.engine import Float32
from neurovocal.plugins.features.recursive_filter import load_recursion
from neurovocal.plugins.models.history import Float64

# Smallest running deviation, as a share of the first one: without it the least sound
# would be a great surprise after long digital silence.
_LEAST_STD = 0.1

# Series up to this length are normalised number by number: the same results, faster.
_FEW = 8

# Bernoulli probabilities are clipped to this distance from 0 and 1.
_LEAST_PROBABILITY = np.float32(1e-4)
_MOST_PROBABILITY = np.float32(1 - 1e-4)


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
        if len(values) <= _FEW:
            return self._normalise_few(values)
        means = self._running_means(values, self._mean)
        errors = values - means[:-1]
        variances = self._running_means(errors * errors, self._variance)
        self._mean, self._variance = float(means[-1]), float(variances[-1])
        deviations = np.sqrt(np.maximum(variances[:-1], self._least))
        return (errors / deviations).astype(np.float32)

    def _normalise_few(self, values: Float64) -> Float32:
        keep, gain = self._keep, float(self._gain[0])
        surprise = np.empty(len(values), np.float32)
        for number, value in enumerate(values.tolist()):
            error = value - self._mean
            surprise[number] = error / sqrt(max(self._variance, self._least))
            self._mean = keep * self._mean + gain * value
            self._variance = keep * self._variance + gain * (error * error)
        return surprise

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
        self._ratios = np.empty((2, 2, 0, 0), np.float32)

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
        if self._weight is None:
            terms = self._kullback_leibler(frames, before, predictions[:-1])
        else:
            expected = np.concatenate([before, predictions[:-1]])
            terms = self._weight * np.square(frames - expected)
        self._expected = predictions[-1:].copy()
        total: Float64 = terms.sum(axis=1, dtype=np.float64)
        return np.log1p(np.maximum(total, 0.0, out=total), out=total)

    def _kullback_leibler(
        self, frames: Float32, before: Float32, after: Float32
    ) -> Float32:
        """Return each bin's divergence; `before` and `after` are the expectations."""
        if self._ratios.shape[2:] != frames.shape:
            self._ratios = np.empty((2, 2, *frames.shape), np.float32)
        v, p = self._ratios  # of on and off: v, 1 - v and p, 1 - p
        np.maximum(frames, _LEAST_PROBABILITY, out=v[0])
        np.maximum(before, _LEAST_PROBABILITY, out=p[0, :1])
        if len(after):
            np.maximum(after, _LEAST_PROBABILITY, out=p[0, 1:])
        both = self._ratios[:, 0]
        np.minimum(both, _MOST_PROBABILITY, out=both)
        np.subtract(np.float32(1), both, out=self._ratios[:, 1])
        np.divide(v, p, out=p)
        np.log(p, out=p)
        p *= v
        terms: Float32 = np.add(p[0], p[1], out=p[0])
        return terms
