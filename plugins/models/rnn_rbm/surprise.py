"""Surprise: free energy relative to its own recent past."""

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.contracts.types import Float32

Float64 = NDArray[np.float64]

# The running deviation never falls below this share of the first one: after long
# digital silence the next breath must not be a sensation.
_LEAST_STD = 0.1


class Baseline:
    """Normalises a series by an exponential mean and deviation of its past.

    With m and v the running mean and variance before value F_t and a the
    adaptation per frame, ``surprise = (F_t - m) / sqrt(v)``; then m moves by
    ``a * (F_t - m)`` and v by ``a * ((F_t - m)**2 - v)`` (exponentially weighted
    moments: West, 1979, with constant weights). A value is thus judged by what
    came before it, never by itself. The recursions run value by value in compiled
    code: the result does not depend on how the series is cut.

    Parameters
    ----------
    mean, std : float
        Where it starts; of the bundle's validation data.
    frames : float
        Time constant of the adaptation in frames.
    """

    def __init__(self, mean: float, std: float, frames: float) -> None:
        from scipy.signal import lfilter  # slow to import

        self._lfilter = lfilter
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

    def judge(self, values: Float64) -> Float32:
        """Surprise of float64[n], float32[n]; the baseline moves on."""
        means = self._follow(values, self._mean)
        errors = values - means[:-1]
        variances = self._follow(errors * errors, self._variance)
        self._mean, self._variance = float(means[-1]), float(variances[-1])
        deviations = np.sqrt(np.maximum(variances[:-1], self._least))
        return (errors / deviations).astype(np.float32)

    def _follow(self, values: Float64, start: float) -> Float64:
        """Exponential mean before each value, and after the last."""
        carry = np.array([self._keep * start])
        after, _ = self._lfilter(self._gain, self._recursion, values, zi=carry)
        return np.concatenate(([start], after))


_LEAST = 1e-4


class Divergence:
    """log(1 + D) of frames in order; how they are cut makes no difference.

    Parameters
    ----------
    variance : float32[n_visible], optional
        Of the errors of Gaussian units; None for Bernoulli units.
    """

    def __init__(self, variance: Float32 | None = None) -> None:
        self._weight = None if variance is None else 0.5 / np.maximum(variance, 1e-9)
        self._expected: Float32 | None = None

    def reset(self) -> None:
        """Expect nothing in particular."""
        self._expected = None

    def __call__(self, frames: Float32, predictions: Float32) -> Float64:
        """Values of frames, float64[n_frames].

        Parameters
        ----------
        frames : float32[n_frames, n_visible]
        predictions : float32[n_frames, n_visible]
            Expectation of the frame after each of them. The first frame after a
            reset was not predicted: its value is 0.
        """
        before = frames[:1] if self._expected is None else self._expected
        expected = np.concatenate([before, predictions[:-1]])
        self._expected = predictions[-1:]
        if self._weight is None:
            v, p = (np.clip(x, _LEAST, 1 - _LEAST) for x in (frames, expected))
            terms = v * np.log(v / p) + (1 - v) * np.log((1 - v) / (1 - p))
        else:
            terms = self._weight * np.square(frames - expected)
        total: Float64 = terms.sum(axis=1, dtype=np.float64)
        return np.log1p(np.maximum(total, 0.0, out=total), out=total)
