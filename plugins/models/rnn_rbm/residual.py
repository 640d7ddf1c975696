"""Residual noise of an RNN-RBM's expectation: the bundle's residual file.

One covariance for all frames, or a mixture of Gaussians whose weights depend on the
recurrent state (docs/reference/bundle.md): errors are small in silence, and large and
varied where a syllable begins.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurovocal.engine import BundleError, Float32
from neurovocal.plugins.storage.npz import read_npz


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """Distribution of the residual: a frame minus its expectation.

    Parameters
    ----------
    sigma : float32[n_visible]
        Standard deviation of Gaussian visible units.
    mean : float32[n_components, n_visible]
    chol : float32[n_components, n_visible, n_visible]
        Factors of the components' covariances.
    gate_weight : float32[n_recurrent, n_components]
    gate_bias : float32[n_components]
        Component k has the weight ``softmax(u @ gate_weight + gate_bias)[k]``.
    """

    sigma: Float32
    mean: Float32
    chol: Float32
    gate_weight: Float32
    gate_bias: Float32

    @property
    def is_mixture(self) -> bool:
        """True if there are several components, one of which `draw` chooses."""
        return len(self.chol) > 1

    def draw(self, state: Float32, normal: Float32, chance: float) -> Float32:
        """Sample the residual to add to the predicted frame, float32[n_visible].

        Parameters
        ----------
        state : float32[n_recurrent]
            Hidden state of the top recurrent layer after the last input frame.
        normal : float32[n_visible]
            Standard normal random numbers.
        chance : float
            Uniform random number in [0, 1), which chooses the component.
        """
        number = self.component(state, chance) if self.is_mixture else 0
        drawn: Float32 = self.mean[number] + self.chol[number] @ normal
        return drawn

    def component(self, state: Float32, chance: float) -> int:
        """Return the number of the component that `chance` selects in this state."""
        scores = state @ self.gate_weight + self.gate_bias
        weights = np.exp(scores - scores.max())
        edges = np.cumsum(weights)
        return int(np.searchsorted(edges[:-1], chance * edges[-1], "right"))


def load_residual(path: Path, n_visible: int, n_recurrent: int) -> Residual:
    """Read a residual file; without a mixture it has one component with mean 0.

    Raises
    ------
    BundleError
        Arrays are missing or have other shapes than the manifest states.
    """
    arrays = read_npz(path, "residual file", "chol")
    chol = arrays["chol"]
    sigma = arrays.get("sigma", np.ones(n_visible, np.float32))
    found = Residual(
        sigma,
        np.zeros((1, n_visible), np.float32),
        chol[None],
        np.zeros((n_recurrent, 1), np.float32),
        np.zeros(1, np.float32),
    )
    if "mixture_chol" in arrays:
        names = ("mixture_mean", "mixture_chol", "gate_weight", "gate_bias")
        missing = [name for name in names if name not in arrays]
        if missing:
            raise BundleError(f"residual file '{path}' lacks {', '.join(missing)}")
        found = Residual(sigma, *(arrays[name] for name in names))
    n = len(found.chol)
    expected = (
        (n_visible,),
        (n, n_visible),
        (n, n_visible, n_visible),
        (n_recurrent, n),
        (n,),
    )
    shapes = tuple(getattr(found, name).shape for name in Residual.__slots__)
    if chol.shape != (n_visible, n_visible) or not n or shapes != expected:
        raise BundleError(
            f"residual file '{path}' is not for {n_visible} bins and {n_recurrent} "
            "recurrent units"
        )
    return found
