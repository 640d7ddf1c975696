r"""How far a frame lies from what the RNN-RBM expected of it.

The free energy says how likely a frame is up to the partition function, which changes
from frame to frame with the biases: compared over time it tells loud from soft sooner
than foreign from known. What the model expects of the next frame needs no partition
function. With v the frame and p its expectation after the frame before it,

.. math::
    D = \sum_i v_i \log \frac{v_i}{p_i} + (1 - v_i) \log \frac{1 - v_i}{1 - p_i}

for Bernoulli units (the Kullback-Leibler divergence between grey values taken as
probabilities), and :math:`\sum_i (v_i - p_i)^2 / 2 s_i^2` for Gaussian ones, with
:math:`s_i^2` the variance of the prediction's errors in training. The value given is
``log(1 + D)``, in which ordinary frames are spread evenly.
"""

import numpy as np
from numpy.typing import NDArray

from neurovocal.engine.types import Float32

Float64 = NDArray[np.float64]
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
